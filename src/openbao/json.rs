//! What OpenBao answers and is sent, in JSON. Everything is borrowed from the answer, so that no copy of a secret is made
//! that is not wiped; what the parser says of a text is dropped, because it shows it.

#[cfg(any(feature = "rotation", test))]
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Answers that are not there, and why; also of the status 400 and 403.
#[derive(Deserialize)]
pub(super) struct Errors<'a> {
    #[serde(borrow, default)]
    pub(super) errors: Option<Vec<std::borrow::Cow<'a, str>>>,
    #[serde(default)]
    pub(super) data: Option<Metadata>,
}

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) metadata: Stamp,
}

/// Which version a secret is.
#[derive(Deserialize)]
pub(super) struct Stamp {
    #[serde(default)]
    pub(super) version: u64,
    pub(super) created_time: String,
    #[serde(default)]
    pub(super) deletion_time: String,
    #[serde(default)]
    pub(super) destroyed: bool,
}

#[derive(Deserialize)]
pub(super) struct Answer<T> {
    pub(super) data: T,
}

/// What a secret holds, and its version.
#[derive(Deserialize)]
pub(super) struct Data<'a> {
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    pub(super) metadata: Stamp,
}

#[cfg(feature = "rotation")]
#[derive(Deserialize)]
pub(super) struct AllMetadata {
    pub(super) current_version: u64,
    #[serde(default)]
    pub(super) versions: BTreeMap<String, Stamp>,
}

#[derive(Deserialize)]
pub(super) struct Mount {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) options: Option<MountOptions>,
}

#[derive(Deserialize)]
pub(super) struct MountOptions {
    #[serde(default)]
    pub(super) version: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct LoggedIn<'a> {
    #[serde(borrow)]
    pub(super) auth: Auth<'a>,
}

#[derive(Deserialize)]
pub(super) struct Auth<'a> {
    pub(super) client_token: &'a str,
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
pub(super) struct Lookup {
    #[serde(default)]
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// Reads an answer; `None` where it is not what OpenBao sends. The parser would take a list for an object, by the order of its
/// fields.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    if is_object { serde_json::from_slice(body).ok() } else { None }
}

/// What is no object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// One field of an object: its value as it is written, or `None` where there is no such field.
pub(super) fn field<'a>(object: &'a RawValue, name: &str) -> Result<Option<&'a RawValue>, NotAnObject> {
    struct Find<'n>(&'n str);
    struct IsName<'n>(&'n str);

    impl Visitor<'_> for IsName<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a name")
        }
        fn visit_str<E>(self, name: &str) -> Result<bool, E> {
            Ok(name == self.0)
        }
    }
    impl<'de> serde::de::DeserializeSeed<'de> for IsName<'_> {
        type Value = bool;
        fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
            from.deserialize_str(self)
        }
    }
    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(is_it) = map.next_key_seed(IsName(self.0))? {
                if is_it {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object.get());
    serde::Deserializer::deserialize_map(&mut reader, Find(name)).map_err(|_| NotAnObject)
}

/// The text of a JSON string, in a block of its own that never grows; `None` where it is no string.
pub(super) fn text(value: &RawValue) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = value.get().strip_prefix('"')?.strip_suffix('"')?;
    let mut text = Zeroizing::new(Vec::with_capacity(rest.len()));
    while let Some(at) = rest.find('\\') {
        text.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        let short = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, length) = unicode(rest)?;
                let mut encoded = Zeroizing::new([0; 4]);
                text.extend_from_slice(character.encode_utf8(&mut *encoded).as_bytes());
                rest = rest.get(length..)?;
                continue;
            }
            _ => return None,
        };
        text.push(short);
    }
    text.extend_from_slice(rest.as_bytes());
    Some(text)
}

/// What follows `\u`: the character, and the length of what says so.
fn unicode(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(text)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 4));
    }
    let second = unit(text.get(4..)?.strip_prefix("\\u")?)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)?, 10))
}

/// An object of texts that are printable ASCII, in a block that does not grow.
pub(super) fn object(fields: &[(&str, &[u8])]) -> Zeroizing<Vec<u8>> {
    let length: usize = fields.iter().map(|(name, value)| name.len() + value.len() * 2 + 6).sum();
    let mut object = Zeroizing::new(Vec::with_capacity(length + 2));
    object.push(b'{');
    for (at, (name, value)) in fields.iter().enumerate() {
        object.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        object.extend_from_slice(name.as_bytes());
        object.extend_from_slice(b"\":\"");
        for byte in *value {
            if matches!(byte, b'"' | b'\\') {
                object.push(b'\\');
            }
            object.push(*byte);
        }
        object.push(b'"');
    }
    object.push(b'}');
    object
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
    fn a_field_is_found_by_its_whole_name_and_is_no_other_ones_value() {
        let find = |json: &str, name: &str| {
            let object: &RawValue = serde_json::from_str(json).unwrap();
            field(object, name).map(|found| found.map(|value| value.get().to_owned()))
        };
        let json = r#"{"a":"key","key":{"b":[1]},"k\u0065y2":"x"}"#;
        assert_eq!(find(json, "key"), Ok(Some(r#"{"b":[1]}"#.into())));
        assert_eq!(find(json, "key2"), Ok(Some(r#""x""#.into())));
        assert_eq!(find(json, "b"), Ok(None));
        for not_an_object in ["[]", "null", "\"key\"", "1"] {
            assert_eq!(find(not_an_object, "key"), Err(NotAnObject));
        }
    }

    #[test]
    fn an_answer_is_an_object() {
        assert!(read::<Errors<'_>>(b" {\"errors\":[]}").is_some());
        assert!(read::<Errors<'_>>(b"[[]]").is_none() && read::<Errors<'_>>(b"").is_none());
    }

    #[test]
    fn an_object_is_written_so_that_it_is_read_again() {
        let written = object(&[("role_id", b"a\"b\\c"), ("jwt", b"x")]);
        let read: BTreeMap<String, String> = serde_json::from_slice(&written).unwrap();
        assert_eq!(read["role_id"], "a\"b\\c");
        assert_eq!(read["jwt"], "x");
        assert_eq!(&*object(&[]), b"{}");
    }
}
