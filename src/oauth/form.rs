//! Forms as `application/x-www-form-urlencoded` writes and reads them.

use crate::internal::bytes::{WipedBytes, append_percent, percent_byte};

/// A form in one block that is wiped.
pub(super) fn encode(fields: &[(&str, &[u8])]) -> WipedBytes {
    // Each byte takes three at most, so the block never grows.
    let most = fields.iter().map(|(name, value)| (name.len() + value.len()) * 3 + 2).sum();
    let mut form = WipedBytes::with_capacity(most);
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            form.push(b'&');
        }
        append_percent(&mut form, name.as_bytes(), b"");
        form.push(b'=');
        append_percent(&mut form, value, b"");
    }
    form
}

/// A name and its value.
pub(super) type Field = (WipedBytes, WipedBytes);

/// The fields of a form, in order. None where a `%` is not followed by two digits.
pub(super) fn decode(form: &str) -> Option<Vec<Field>> {
    let field = |field: &str| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        Some((decode_part(name)?, decode_part(value)?))
    };
    form.split('&').filter(|part| !part.is_empty()).map(field).collect()
}

fn decode_part(text: &str) -> Option<WipedBytes> {
    let mut decoded = WipedBytes::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = match first {
            b'%' => {
                let (byte, after) = percent_byte(rest)?;
                rest = after;
                decoded.push(byte);
                continue;
            }
            b'+' => b' ',
            byte => *byte,
        };
        decoded.push(byte);
        rest = after;
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again_and_only_plain_characters_stand_in_it() {
        let all: Vec<u8> = (0..=255).collect();
        let form = encode(&[("a b", &all), ("", b""), ("x", b"1&2=3")]);
        let text = std::str::from_utf8(&form).unwrap();
        assert!(text.starts_with("a%20b=%00%01") && text.ends_with("&=&x=1%262%3D3"), "{text}");
        let fields = decode(text).unwrap();
        let (name, value) = &fields[0];
        assert_eq!((&**name, &**value), (&b"a b"[..], all.as_slice()));
        assert_eq!(&*fields[2].1, b"1&2=3");
    }

    #[test]
    fn a_percent_sign_without_two_digits_is_no_form() {
        for form in ["a=%", "a=%4", "a=%zz", "%=1"] {
            assert!(decode(form).is_none(), "{form}");
        }
        assert_eq!(decode("a=1+2&&b").unwrap().len(), 2);
    }
}
