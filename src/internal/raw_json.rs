//! Reading secrets out of JSON. The parser makes copies that nobody wipes: of a text with escapes, and in its errors of what it did
//! not like. So what may be secret is a `RawValue`, as it is written, and becomes a text here.

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::internal::json_text::unescape;

/// Reads an object; `None` where it is none of that kind. The parser would take a list as well, by the order of the fields.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    if is_object { serde_json::from_slice(json).ok() } else { None }
}

/// The text of a JSON string, in a block of its own that never grows; `None` where it is no string.
pub(crate) fn text(value: &RawValue) -> Option<Zeroizing<Vec<u8>>> {
    unescape(value.get().strip_prefix('"')?.strip_suffix('"')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(json: &str) -> Option<String> {
        let value: &RawValue = serde_json::from_str(json).ok()?;
        text(value).map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn a_text_is_read_as_the_parser_reads_it() {
        for json in [
            r#""""#,
            r#""8fK2pX""#,
            r#""a\n\r\t\b\f\"\\\/b""#,
            r#""\u0041\u00e9\u20ac\ud83d\ude00z""#,
            r#""\ud83d\ude00""#,
            "\"\u{e9}\\n\"",
        ] {
            assert_eq!(text_of(json), Some(serde_json::from_str::<String>(json).unwrap()), "{json}");
        }
        for json in ["1", "null", "{}", "[]", "true", r#""\ud83d""#, r#""\ud83d\u0041""#, r#""\udc00""#] {
            assert_eq!(text_of(json), None, "{json}");
        }
    }

    #[test]
    fn a_list_is_no_object() {
        #[derive(Deserialize)]
        struct One {
            #[serde(rename = "a")]
            _a: u8,
        }
        assert!(read::<One>(b" {\"a\":1}").is_some());
        for other in [&b"[1]"[..], b"", b"{}", b"1"] {
            assert!(read::<One>(other).is_none());
        }
    }
}
