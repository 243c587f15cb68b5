//! A text between a source and a key, and the forms in which a source may hold it.

use std::fmt;
use std::ops::Range;

use super::env::is_encrypted;
use super::{Content, Problem, Provenance, Reading, Source, SourceError};
use crate::internal::bytes::{WipedBytes, decode_base64};
use crate::internal::json_text::{self, NoText};
use crate::key::format::REFERENCE_SCHEMES;
use crate::key::{Issuer as _, Katana, Profile, RawKey};

/// Bytes that may be a key: wiped when dropped, spare capacity included, and never printed.
pub struct SecretText(WipedBytes);

impl SecretText {
    /// An empty text that holds `capacity` bytes without reallocating.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(WipedBytes::with_capacity(capacity))
    }

    pub(super) const fn from_wiped(bytes: WipedBytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    /// Removes one leading byte order mark and one final newline (`\n` or `\r\n`), as for the text of every
    /// source.
    pub(crate) fn without_mark_and_newline(self) -> Self {
        let start = if self.0.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let end = without_newline(&self.0).len().max(start);
        self.cut(start..end)
    }

    /// Whether it is empty without its mark and its final newline.
    pub(super) fn has_nothing(&self) -> bool {
        without_newline(self.0.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.0)).is_empty()
    }

    /// One line of it, counted from 1.
    pub(super) fn line(self, line: usize) -> Result<Self, Problem> {
        let mut start = 0;
        let mut lines = 0;
        for text in self.0.split_inclusive(|&byte| byte == b'\n') {
            lines += 1;
            if lines == line {
                let end = start + without_newline(text).len();
                return Ok(self.cut(start..end));
            }
            start += text.len();
        }
        Err(Problem::NoLine { line, lines })
    }

    fn cut(mut self, range: Range<usize>) -> Self {
        self.0.keep(range);
        self
    }

    /// Parses the text as a key.
    pub(super) fn parse(&self, profile: &'static Profile) -> Result<RawKey, Problem> {
        let text = self.bytes();
        if text.is_empty() {
            return Err(Problem::Empty);
        }
        // Without line breaks it is a well-formed key of an issuer with long keys.
        if is_encrypted(text) {
            return Err(Problem::EncryptedCredential);
        }
        RawKey::load(profile, text).map_err(|error| {
            if let Some(scheme) = reference_scheme(text) {
                Problem::Reference { scheme }
            } else if !profile.is_same_issuer(Katana::PROFILE) && is_uuid(text) {
                Problem::OtherIssuer { other: Katana::PROFILE.title(), wanted: profile.title() }
            } else {
                Problem::Malformed(error)
            }
        })
    }

    pub(super) fn decode_base64(self) -> Result<Self, Problem> {
        decode_base64(&self.0).map(Self).ok_or(Problem::NotBase64)
    }
}

/// The scheme of the key reference that a text begins with.
pub(super) fn reference_scheme(text: &[u8]) -> Option<&'static str> {
    let is_of =
        |scheme: &str| text.strip_prefix(scheme.as_bytes()).is_some_and(|rest| rest.starts_with(b":"));
    REFERENCE_SCHEMES.into_iter().find(|scheme| is_of(scheme))
}

/// Whether a text has the form of Katana's keys that are seen in public.
pub(crate) fn is_uuid(text: &[u8]) -> bool {
    let fits = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.iter().enumerate().all(fits)
}

fn without_newline(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r\n").or_else(|| text.strip_suffix(b"\n")).unwrap_or(text)
}

impl From<Vec<u8>> for SecretText {
    /// Takes the block as it is. It is wiped in place when the text is dropped.
    fn from(bytes: Vec<u8>) -> Self {
        Self(WipedBytes::from(bytes))
    }
}

impl From<String> for SecretText {
    /// Takes the block as it is. It is wiped in place when the text is dropped.
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

/// A source whose text is in a form of its own; see [`Source::base64`], [`Source::field`] and
/// [`Source::line`].
pub struct Shaped<S> {
    source: S,
    shape: Shape,
}

/// The form of a text with a key.
#[derive(Clone)]
pub(super) enum Shape {
    Base64,
    Field(String),
    /// Counted from 1.
    Line(usize),
}

impl Shape {
    fn apply(&self, text: SecretText) -> Result<SecretText, Problem> {
        match self {
            Self::Base64 => text.decode_base64(),
            Self::Line(line) => text.line(*line),
            Self::Field(name) => {
                let field = json_text::field(text.bytes(), name).map_err(|why| match why {
                    NoText::NotAnObject => Problem::NotJson,
                    NoText::Missing => Problem::NoField { name: name.clone() },
                    NoText::Twice => Problem::FieldTwice { name: name.clone() },
                    NoText::NotAText => Problem::FieldNotText { name: name.clone() },
                })?;
                Ok(SecretText::from_wiped(field))
            }
        }
    }
}

impl<S> Shaped<S> {
    pub(super) const fn new(source: S, shape: Shape) -> Self {
        Self { source, shape }
    }
}

impl<S: Source> Source for Shaped<S> {
    fn provenance(&self) -> Provenance {
        self.source.provenance()
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        let (text, provenance, remarks) = match self.source.read(profile)?.0 {
            absent @ Content::Absent(_) => return Ok(Reading(absent)),
            Content::Present { text, provenance, remarks } => (text, provenance, remarks),
        };
        match self.shape.apply(text) {
            Ok(text) => {
                let reading = Reading::present(text).with_remarks(remarks);
                Ok(provenance.into_iter().fold(reading, Reading::with_provenance))
            }
            Err(problem) => Err(SourceError::new(provenance.unwrap_or_else(|| self.provenance()), problem)),
        }
    }
}

impl<S: Source> fmt::Debug for Shaped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shaped({})", self.provenance())
    }
}

/// A source that must have a key; see [`Source::required`].
pub struct Required<S> {
    source: S,
}

impl<S> Required<S> {
    pub(super) const fn new(source: S) -> Self {
        Self { source }
    }
}

impl<S: Source> Source for Required<S> {
    fn provenance(&self) -> Provenance {
        self.source.provenance()
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        match self.source.read(profile)? {
            Reading(Content::Absent(absence)) => {
                Err(SourceError::new(self.provenance(), Problem::Missing { absence }))
            }
            present => Ok(present),
        }
    }
}

impl<S: Source> fmt::Debug for Required<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Required({})", self.provenance())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(bytes: &[u8]) -> Vec<u8> {
        let text = SecretText::from(bytes.to_vec()).without_mark_and_newline();
        text.bytes().to_vec()
    }

    #[test]
    fn one_mark_and_one_newline_are_removed_and_nothing_else() {
        assert_eq!(stripped(b"key"), b"key");
        assert_eq!(stripped(b"key\n"), b"key");
        assert_eq!(stripped(b"key\r\n"), b"key");
        assert_eq!(stripped(b"key\n\n"), b"key\n");
        assert_eq!(stripped(b"key\r"), b"key\r");
        assert_eq!(stripped(b" key \n"), b" key ");
        assert_eq!(stripped(b"\xef\xbb\xbfkey"), b"key");
        assert_eq!(stripped(b"\xef\xbb\xbf\xef\xbb\xbfkey"), b"\xef\xbb\xbfkey");
        assert_eq!(stripped(b"\xef\xbb\xbf\n"), b"");
        assert_eq!(stripped(b"\n"), b"");
        assert_eq!(stripped(b""), b"");
    }

    #[test]
    fn a_line_is_cut_out_of_several() {
        let line =
            |text: &str, line| SecretText::from(text.to_owned()).line(line).map(|text| text.bytes().to_vec());
        assert_eq!(line("key\nuser: shop\r\n", 1).as_deref(), Ok(&b"key"[..]));
        assert_eq!(line("user\r\nkey\r\n\r\nmore", 2).as_deref(), Ok(&b"key"[..]));
        assert_eq!(line("user\nkey", 2).as_deref(), Ok(&b"key"[..]));
        assert_eq!(line("a\n\nb", 2).as_deref(), Ok(&b""[..]));
        for (text, at, lines) in [("a\n", 2, 1), ("a\nb", 3, 2), ("a", 0, 1), ("", 1, 0)] {
            assert_eq!(line(text, at), Err(Problem::NoLine { line: at, lines }), "{text:?}");
        }
    }

    #[test]
    fn base64_is_one_padded_line() {
        let decode = |text: &str| SecretText::from(text.to_owned()).decode_base64();
        assert_eq!(decode("OGZLMg==").unwrap().bytes(), b"8fK2");
        assert!(matches!(decode("OGZLMg==\n"), Err(Problem::NotBase64)));
    }
}
