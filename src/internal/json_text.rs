//! One text out of a JSON document, without a copy of anything that is not wiped. A general parser copies
//! texts with escapes, and its errors print what it did not like.

use zeroize::Zeroizing;

use crate::internal::bytes::WipedBytes;

/// How deep a document may be nested.
const MAX_DEPTH: u32 = 64;

/// Why a document has no such text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoText {
    /// It is no JSON, no object, or nested too deeply.
    NotAnObject,
    /// It has no field of that name.
    Missing,
    /// It has two of them.
    Twice,
    /// The field is no text.
    NotAText,
}

/// The text in the field `name` of a JSON object, in a block of its own that never grows.
pub(crate) fn field(json: &[u8], name: &str) -> Result<WipedBytes, NoText> {
    let text = std::str::from_utf8(json).map_err(|_| NoText::NotAnObject)?;
    let mut found = None;
    let mut count = 0;
    let mut reader = Reader { rest: text };
    let whole = reader.object(MAX_DEPTH, &mut |key, value| {
        if is_name(key, name) {
            count += 1;
            found = Some(value);
        }
    });
    if whole.is_none() || !reader.is_at_the_end() {
        return Err(NoText::NotAnObject);
    }
    match found {
        None => Err(NoText::Missing),
        Some(_) if count > 1 => Err(NoText::Twice),
        Some(value) => {
            let literal = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            literal.and_then(unescape).ok_or(NoText::NotAText)
        }
    }
}

fn is_name(literal: &str, name: &str) -> bool {
    literal == name
        || (literal.contains('\\') && unescape(literal).is_some_and(|key| *key == *name.as_bytes()))
}

/// The text of a JSON string as it is written between its quotation marks, in a block of its own that never
/// grows; `None` where an escape is none.
pub(crate) fn unescape(literal: &str) -> Option<WipedBytes> {
    let mut rest = literal;
    let mut text = WipedBytes::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        text.append(&rest.as_bytes()[..at]);
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
                text.append(character.encode_utf8(&mut *encoded).as_bytes());
                rest = rest.get(length..)?;
                continue;
            }
            _ => return None,
        };
        text.push(short);
    }
    text.append(rest.as_bytes());
    Some(text)
}

/// What follows `\u`: the character, and the length of what says so.
fn unicode(text: &str) -> Option<(char, usize)> {
    let first = unit(text)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 4));
    }
    let second = unit(text.get(4..)?.strip_prefix("\\u")?)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)?, 10))
}

fn unit(text: &str) -> Option<u32> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

/// What of a document is still to be read. Each method gives what it has read as it is written, or `None`
/// where it is not there.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn is_at_the_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    /// Gives each key, without its quotation marks, and each value to `look`.
    fn object(&mut self, depth: u32, look: &mut dyn FnMut(&'a str, &'a str)) -> Option<()> {
        self.skip_space();
        self.take("{")?;
        self.list('}', |reader| {
            let key = reader.string()?;
            reader.skip_space();
            reader.take(":")?;
            look(key, reader.value(depth)?);
            Some(())
        })
    }

    /// Items between commas, and `end`.
    fn list(&mut self, end: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix(end) {
            self.rest = rest;
            return Some(());
        }
        loop {
            self.skip_space();
            item(self)?;
            self.skip_space();
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Some(());
            }
            self.take(",")?;
        }
    }

    fn value(&mut self, depth: u32) -> Option<&'a str> {
        self.skip_space();
        let start = self.rest;
        let depth = depth.checked_sub(1)?;
        match start.as_bytes().first()? {
            b'{' => self.object(depth, &mut |_, _| ())?,
            b'[' => {
                self.take("[")?;
                self.list(']', |reader| reader.value(depth).map(drop))?;
            }
            b'"' => drop(self.string()?),
            b't' => self.take("true")?,
            b'f' => self.take("false")?,
            b'n' => self.take("null")?,
            _ => self.number()?,
        }
        Some(&start[..start.len() - self.rest.len()])
    }

    /// A string without its quotation marks.
    fn string(&mut self) -> Option<&'a str> {
        self.take("\"")?;
        let text = self.rest;
        let mut bytes = text.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.rest = &text[at + 1..];
                    return Some(&text[..at]);
                }
                b'\\' => match bytes.next()?.1 {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        unit(text.get(at + 2..)?)?;
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
        None
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take("-");
        if self.take("0").is_none() {
            self.digits()?;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if self.take("e").or_else(|| self.take("E")).is_some() {
            let _ = self.take("+").or_else(|| self.take("-"));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_some = rest.len() < self.rest.len();
        self.rest = rest;
        is_some.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, name: &str) -> Result<String, NoText> {
        field(json.as_bytes(), name).map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn a_field_is_read_wherever_it_is() {
        for json in [
            r#"{"k":"abc"}"#,
            " {\r\n\t\"k\" : \"abc\" } \n",
            r#"{"a":1,"k":"abc","z":[1,-0.5e+3,{"k":"no"}]}"#,
            r#"{"a":{"k":{"k":[]}},"b":[],"c":{},"d":"k","k":"abc","e":null,"f":true,"g":false}"#,
            r#"{"\u006b":"\u0061b\u0063"}"#,
        ] {
            assert_eq!(read(json, "k").as_deref(), Ok("abc"), "{json}");
        }
        assert_eq!(read(r#"{"a\"b":"x\ny"}"#, "a\"b").as_deref(), Ok("x\ny"));
        assert_eq!(read(r#"{"":""}"#, "").as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_object_and_what_has_no_such_text_are_told_apart() {
        for json in [
            "",
            "{",
            "[]",
            "\"k\"",
            "k",
            "{\"k\":\"a\"",
            "{\"k\":\"a\"}}",
            "{\"k\":\"a\",}",
            "{,}",
            "{\"k\"}",
            "{k:\"a\"}",
            "{\"k\":\"a\nb\"}",
            "{\"k\":\"\\x\"}",
            "{\"k\":01}",
            "{\"k\":+1}",
            "{\"k\":1.}",
            "{\"k\":.5}",
            "{\"k\":1e}",
            "{\"k\":tru}",
            "{\"k\":\"\\u+123\"}",
            "{\"k\":\"\\u12\"}",
            "{\"k\":\"a\"} x",
            "{'k':'a'}",
            "{\"k\":\u{a0}1}",
        ] {
            assert_eq!(read(json, "k"), Err(NoText::NotAnObject), "{json}");
        }
        assert_eq!(read("{\"a\":\"k\"}", "k"), Err(NoText::Missing));
        for json in ["{\"k\":\"a\",\"k\":\"b\"}", "{\"k\":\"a\",\"\\u006b\":\"a\"}", "{\"k\":1,\"k\":\"b\"}"]
        {
            assert_eq!(read(json, "k"), Err(NoText::Twice), "{json}");
        }
        for value in ["1", "null", "{}", "[\"a\"]", "true", "\"\\ud800\"", "\"\\udc00\\ud800\""] {
            assert_eq!(read(&format!("{{\"k\":{value}}}"), "k"), Err(NoText::NotAText), "{value}");
        }
        assert_eq!(field(b"{\"k\":\"\xff\"}", "k").unwrap_err(), NoText::NotAnObject);
    }

    #[test]
    fn a_document_that_is_nested_without_end_is_refused() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{},\"k\":\"b\"}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read(&nested(60), "k").as_deref(), Ok("b"));
        assert_eq!(read(&nested(100_000), "k"), Err(NoText::NotAnObject));
    }

    use proptest::prelude::*;

    fn string() -> impl Strategy<Value = String> {
        prop_oneof!["k", "[a-c]{0,3}", "\\PC{0,6}", any::<String>()]
    }

    /// JSON as a text, with fields that may occur twice, and white space.
    fn json() -> impl Strategy<Value = String> {
        let quoted = || string().prop_map(|text| serde_json::to_string(&text).unwrap());
        let leaf = prop_oneof![
            quoted(),
            Just("\"\\u006b\\ud83d\\ude00\\/\"".to_owned()),
            Just("null".to_owned()),
            any::<bool>().prop_map(|it| it.to_string()),
            any::<i64>().prop_map(|it| it.to_string()),
            any::<f32>().prop_map(|it| serde_json::to_string(&it).unwrap()),
        ];
        let value = leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" ,"))),
                fields(inner),
            ]
        });
        fields(value)
    }

    fn fields(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just("\"k\"".to_owned()),
            string().prop_map(|key| serde_json::to_string(&key).unwrap())
        ];
        proptest::collection::vec((key, value, "[ \t\r\n]{0,2}"), 0..4).prop_map(|fields| {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value, space)| format!("{space}{key}{space}:{space}{value}{space}"))
                .collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    /// The same, with a few characters of it changed.
    fn nearly_json() -> impl Strategy<Value = String> {
        let change = (any::<proptest::sample::Index>(), "[\\[\\]{}\",:\\\\u0-9a-f.eE+ \n-]{0,2}");
        (json(), proptest::collection::vec(change, 0..3)).prop_map(|(text, changes)| {
            let mut text: Vec<char> = text.chars().collect();
            for (at, with) in changes {
                if !text.is_empty() {
                    let at = at.index(text.len());
                    text.splice(at..=at, with.chars());
                }
            }
            text.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn another_parser_accepts_the_same_objects_and_text(json in prop_oneof![json(), nearly_json()]) {
            let own = field(json.as_bytes(), "k");
            let is_object = json.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{')
                && serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok();
            prop_assert_eq!(own.as_ref().err() != Some(&NoText::NotAnObject), is_object, "{}", json);
            let Ok(other) = serde_json::from_str::<serde_json::Value>(&json) else { return Ok(()) };
            match own {
                Ok(text) => prop_assert_eq!(other["k"].as_str().map(str::as_bytes), Some(&text[..])),
                Err(NoText::Missing) => prop_assert!(other.get("k").is_none()),
                Err(NoText::NotAText) => prop_assert!(!other["k"].is_string()),
                // The other parser keeps the last of two.
                Err(NoText::Twice) => prop_assert!(other.get("k").is_some()),
                Err(NoText::NotAnObject) => {}
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), name in any::<String>()) {
            let _ = field(&bytes, &name);
        }
    }
}
