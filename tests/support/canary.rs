//! Looking for a key where none may be.

use std::error::Error;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The shortest run of a key's characters that counts as a part of it.
const PART: usize = 4;

/// What in `text` shows a part of `planted`: as it is, in base64, in hexadecimal or as a list of bytes.
pub fn shown(text: &str, planted: &str) -> Option<String> {
    let bytes = planted.as_bytes();
    let mut needles: Vec<String> =
        bytes.windows(PART).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    // Six bytes encode to eight symbols, at each of the three offsets that a text can have in base64.
    needles.extend(bytes.windows(6).map(|part| STANDARD.encode(part)));
    for part in bytes.windows(PART) {
        let list: Vec<String> = part.iter().map(u8::to_string).collect();
        needles.push(list.join(", "));
        needles.push(list.join(","));
        let hex: String = part.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        needles.push(hex.to_uppercase());
        needles.push(hex);
    }
    needles.into_iter().find(|needle| text.contains(needle.as_str()))
}

/// Asserts that an error prints no part of `planted`, nor does what caused it.
pub fn assert_hides(error: &dyn Error, planted: &str) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        for text in [format!("{error}"), format!("{error:?}"), format!("{error:#?}")] {
            assert_eq!(shown(&text, planted), None, "the error shows a part of what was planted");
        }
        cause = error.source();
    }
}
