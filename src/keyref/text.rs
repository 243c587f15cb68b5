//! `%XX` in key references.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::KeyRefError;

/// Whether a character is written as `%XX`; a space only inside a command's word.
const fn is_escaped(c: char, in_word: bool) -> bool {
    matches!(c, '%' | '?' | '#' | '\0'..='\x1f' | '\x7f') || (in_word && c == ' ')
}

pub(super) fn encode(text: &str, in_word: bool) -> Cow<'_, str> {
    if !text.contains(|c| is_escaped(c, in_word)) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        if is_escaped(c, in_word) {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{:02X}", u32::from(c));
        } else {
            encoded.push(c);
        }
    }
    Cow::Owned(encoded)
}

/// Reads `%XX` of the characters that [`encode`] writes so, and refuses those characters bare.
pub(super) fn decode(text: &str, in_word: bool) -> Result<String, KeyRefError> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '%' {
            let digits = rest.get(..2).ok_or(KeyRefError::Escape)?;
            let escaped = read_escape(digits, in_word).ok_or(KeyRefError::Escape)?;
            decoded.push(escaped);
            rest = &rest[2..];
        } else if c.is_ascii_control() {
            return Err(KeyRefError::Escape);
        } else {
            decoded.push(c);
        }
    }
    Ok(decoded)
}

fn read_escape(digits: &str, in_word: bool) -> Option<char> {
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = u8::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)?;
    Some(char::from(byte)).filter(|&c| is_escaped(c, in_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["", "plain", "50%?#", "a\nb\0c\x7f", "C:\\keys\\kanal", "schlüssel%41"] {
            assert_eq!(decode(&encode(text, false), false).as_deref(), Ok(text));
            assert_eq!(decode(&encode(text, true), true).as_deref(), Ok(text));
        }
        assert_eq!(encode("a b", true), "a%20b");
        assert_eq!(encode("a b", false), "a b");
    }

    #[test]
    fn only_what_must_be_escaped_may_be() {
        for text in ["%", "%4", "%41", "%zz", "%+1", "%20", "%é", "%2", "a\nb", "%FF"] {
            assert_eq!(decode(text, false), Err(KeyRefError::Escape), "{text:?}");
        }
        assert_eq!(decode("%3f%3F%25", false).as_deref(), Ok("??%"));
    }
}
