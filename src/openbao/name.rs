//! Names of mounts, paths and namespaces.

use std::fmt::Write as _;

use super::OpenBaoError;

/// The longest name, in bytes.
const MAX_NAME: usize = 512;

/// A name whose parts are separated by single slashes.
pub(super) fn check(name: &str) -> Result<(), OpenBaoError> {
    let bad = |rule| Err(OpenBaoError::BadName { rule });
    if name.is_empty() || name.len() > MAX_NAME {
        return bad("a mount, a path or a namespace has 1 to 512 bytes");
    }
    if name.chars().any(char::is_control) {
        return bad("a name has no control characters");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("the parts of a name are separated by single slashes, and none is empty, . or ..");
    }
    Ok(())
}

/// A name in a URL.
pub(super) fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_plain_parts_and_nothing_of_it_ends_a_path() {
        for name in ["secret", "team/secret", "shop sync/ä?#%"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "/secret", "secret/", "a//b", "a/../b", ".", "a\nb", &"a".repeat(513)] {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert_eq!(encoded("shop sync/ä?#%2e"), "shop%20sync/%C3%A4%3F%23%252e");
    }
}
