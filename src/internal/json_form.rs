//! JSON that holds secrets: reading it without an unwiped copy, and the form of the documents that are
//! persisted.
//!
//! `serde_json` copies a text that has escapes, and its errors print what it did not expect; neither is
//! wiped. So a field that may be secret is a [`RawValue`]: borrowed from the document as it is written, and
//! decoded here into [`WipedBytes`]. No error of the parser goes further.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::bytes::{WipedBytes, append_base64, append_json_text, decode_base64};
use super::json_text::unescape;

/// Reads an object. `None` if it is none of that kind. (The parser would take a list as well, by the order of
/// the fields.)
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    if is_object { serde_json::from_slice(json).ok() } else { None }
}

/// Returns the text of a JSON string. `None` if the value is not a string.
pub(crate) fn text(value: &RawValue) -> Option<WipedBytes> {
    unescape(value.get().strip_prefix('"')?.strip_suffix('"')?)
}

/// Returns the secret that a field holds in base64, as [`Writer::secret`] writes it. `None` if it is none.
pub(crate) fn secret(value: &RawValue) -> Option<WipedBytes> {
    decode_base64(value.get().strip_prefix('"')?.strip_suffix('"')?.as_bytes())
}

/// A kind of document: the object that holds it names the kind, the number of its form, and the issuer.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The newest form. Forms 1 to this one are read.
    pub(crate) newest: u64,
    /// The largest document, in bytes.
    pub(crate) limit: usize,
}

/// Why a document is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormError {
    TooLarge,
    Corrupt { rule: &'static str },
    Newer { found: u64, known: u64 },
    OtherIssuer,
}

/// What every form has. A form has these fields as well, because none may be unknown.
#[derive(Deserialize)]
struct Head<'a> {
    keysheath: &'a str,
    form: u64,
    #[serde(default, borrow)]
    issuer: Option<&'a RawValue>,
}

/// Reads a document, and returns the number of its form and its fields.
pub(crate) fn open<'a, F: Deserialize<'a>>(
    kind: Kind,
    issuer: &str,
    document: &'a [u8],
) -> Result<(u64, F), FormError> {
    let corrupt = |rule| FormError::Corrupt { rule };
    if document.len() > kind.limit {
        return Err(FormError::TooLarge);
    }
    let head: Head<'_> =
        serde_json::from_slice(document).map_err(|_| corrupt("it is not whole, or not JSON"))?;
    if head.keysheath != kind.name || head.form == 0 {
        return Err(corrupt("it does not say that it is a document of this kind"));
    }
    if head.form > kind.newest {
        return Err(FormError::Newer { found: head.form, known: kind.newest });
    }
    let fields = serde_json::from_slice(document)
        .map_err(|_| corrupt("a field is missing, unknown or not as it is written"))?;
    let is_of_issuer = head.issuer.and_then(text).is_some_and(|name| *name == *issuer.as_bytes());
    if is_of_issuer { Ok((head.form, fields)) } else { Err(FormError::OtherIssuer) }
}

/// Writes a document of a form. The caller compares its length with the limit.
pub(crate) fn seal(kind: Kind, form: u64, issuer: &str, fields: impl FnOnce(&mut Writer<'_>)) -> WipedBytes {
    let mut out = WipedBytes::with_capacity(kind.limit);
    let mut writer = Writer::object(&mut out, Layout::Lines);
    writer.field("keysheath", kind.name);
    writer.field("form", form);
    writer.field("issuer", issuer);
    fields(&mut writer);
    writer.end();
    out.push(b'\n');
    out
}

/// A value of a field or an item.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Flag(bool),
    Number(u64),
    Text(&'a str),
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// How an object or a list is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One field on a line: the document itself.
    Lines,
    /// An object in a field.
    Spaced,
    /// An object in a list, of which there may be many.
    Narrow,
    List,
}

/// Writes an object or a list into a wiped buffer.
pub(crate) struct Writer<'o> {
    out: &'o mut WipedBytes,
    layout: Layout,
    is_empty: bool,
}

impl<'o> Writer<'o> {
    fn object(out: &'o mut WipedBytes, layout: Layout) -> Self {
        out.push(if layout == Layout::List { b'[' } else { b'{' });
        Self { out, layout, is_empty: true }
    }

    fn end(self) {
        self.out.append(match self.layout {
            Layout::Lines => b"\n}",
            Layout::Spaced => b" }",
            Layout::Narrow => b"}",
            Layout::List => b"]",
        });
    }

    fn separate(&mut self) {
        let (first, next): (&[u8], &[u8]) = match self.layout {
            Layout::Lines => (b"\n  ", b",\n  "),
            Layout::Spaced => (b" ", b", "),
            Layout::Narrow => (b"", b","),
            Layout::List => (b"", b", "),
        };
        self.out.append(if self.is_empty { first } else { next });
        self.is_empty = false;
    }

    fn name(&mut self, name: &str) {
        self.separate();
        append_json_text(self.out, name.as_bytes());
        self.out.append(if self.layout == Layout::Narrow { b":" } else { b": " });
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.out.append(b"null"),
            Value::Flag(flag) => self.out.append(if flag { b"true" } else { b"false" }),
            Value::Number(number) => self.out.append(number.to_string().as_bytes()),
            Value::Text(text) => append_json_text(self.out, text.as_bytes()),
        }
    }

    /// Writes a field of an object.
    pub(crate) fn field<'a>(&mut self, name: &str, value: impl Into<Value<'a>>) {
        self.name(name);
        self.value(value.into());
    }

    /// Writes a field, or nothing.
    pub(crate) fn optional<'a>(&mut self, name: &str, value: Option<impl Into<Value<'a>>>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Writes a secret in base64.
    pub(crate) fn secret(&mut self, name: &str, secret: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        append_base64(self.out, secret);
        self.out.push(b'"');
    }

    /// Writes a field that is an object.
    pub(crate) fn nested(&mut self, name: &str, fields: impl FnOnce(&mut Writer<'_>)) {
        self.name(name);
        let mut inner = Writer::object(self.out, Layout::Spaced);
        fields(&mut inner);
        inner.end();
    }

    /// Writes a field that is a list; `item` writes one item.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Writer<'_>, T),
    ) {
        self.name(name);
        let mut list = Writer::object(self.out, Layout::List);
        items.into_iter().for_each(|it| item(&mut list, it));
        list.end();
    }

    /// Writes an item of a list.
    pub(crate) fn item<'a>(&mut self, value: impl Into<Value<'a>>) {
        self.separate();
        self.value(value.into());
    }

    /// Writes an item of a list that is an object.
    pub(crate) fn item_object(&mut self, fields: impl FnOnce(&mut Writer<'_>)) {
        self.item_of(Layout::Narrow, fields);
    }

    /// Writes an item of a list that is a list.
    pub(crate) fn item_list(&mut self, items: impl FnOnce(&mut Writer<'_>)) {
        self.item_of(Layout::List, items);
    }

    fn item_of(&mut self, layout: Layout, write: impl FnOnce(&mut Writer<'_>)) {
        self.separate();
        let mut inner = Writer::object(self.out, layout);
        write(&mut inner);
        inner.end();
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({:?})", self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { name: "sample", newest: 2, limit: 400 };

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample<'a> {
        #[serde(rename = "keysheath")]
        _kind: &'a str,
        #[serde(rename = "form")]
        _form: u64,
        #[serde(rename = "issuer")]
        _issuer: &'a str,
        #[serde(borrow)]
        key: &'a RawValue,
    }

    fn opened(document: &str) -> Result<(u64, Vec<u8>), FormError> {
        let (form, sample) = open::<Sample<'_>>(KIND, "kanal", document.as_bytes())?;
        Ok((form, secret(sample.key).map(|key| key.to_vec()).unwrap_or_default()))
    }

    #[test]
    fn a_document_is_written_line_by_line() {
        let sealed = seal(KIND, 1, "kanal", |form| {
            form.field("number", 7);
            form.field("none", Value::Null);
            form.optional("flag", Some(true));
            form.optional("absent", None::<u64>);
            form.nested("slot", |slot| {
                slot.secret("key", b"8fK2");
                slot.field("note", "a \"b\"");
            });
            form.list("retired", ["a", "b"], |list, name| {
                list.item(name);
            });
            form.list("pairs", [("a", 1)], |list, (name, number)| {
                list.item_list(|pair| {
                    pair.item(name);
                    pair.item(number);
                });
                list.item_object(|object| {
                    object.field("x", number);
                    object.field("y", false);
                });
            });
        });
        let expected = r#"{
  "keysheath": "sample",
  "form": 1,
  "issuer": "kanal",
  "number": 7,
  "none": null,
  "flag": true,
  "slot": { "key": "OGZLMg==", "note": "a \"b\"" },
  "retired": ["a", "b"],
  "pairs": [["a", 1], {"x":1,"y":false}]
}
"#;
        assert_eq!(std::str::from_utf8(&sealed), Ok(expected));
    }

    #[test]
    fn a_document_is_read_by_its_kind_form_and_issuer() {
        let whole = r#"{"keysheath":"sample","form":2,"issuer":"kanal","key":"OGZLMg=="}"#;
        assert_eq!(opened(whole), Ok((2, b"8fK2".to_vec())));
        for (from, to, expected) in [
            ("\"form\":2", "\"form\":3,\"more\":1", FormError::Newer { found: 3, known: 2 }),
            ("kanal", "katana", FormError::OtherIssuer),
            ("kanal", &*"x".repeat(500), FormError::TooLarge),
        ] {
            assert_eq!(opened(&whole.replace(from, to)), Err(expected));
        }
        for (from, to) in [
            ("sample", "other"),
            ("\"form\":2", "\"form\":0"),
            ("\"form\":2", "\"form\":\"2\""),
            ("}", ""),
            ("}", ",\"x\":1}"),
            (",\"key\":\"OGZLMg==\"", ""),
            ("\"issuer\":\"kanal\",", ""),
        ] {
            let error = opened(&whole.replace(from, to)).unwrap_err();
            assert!(matches!(error, FormError::Corrupt { .. }), "{from} {to}: {error:?}");
        }
        // Escapes in base64 are not what is written, and are not copied by the parser.
        assert_eq!(opened(&whole.replace("OGZL", "\\u004fGZL")), Ok((2, Vec::new())));
    }

    #[test]
    fn a_text_is_read_as_the_parser_reads_it() {
        let text_of = |json: &str| {
            let value: &RawValue = serde_json::from_str(json).ok()?;
            text(value).map(|text| String::from_utf8(text.to_vec()).unwrap())
        };
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
