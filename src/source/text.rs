//! A text between a source and a key, and the forms in which a source may hold it.

use std::fmt;

use super::env::is_encrypted;
use super::{Content, Problem, Provenance, Reading, Source, SourceError};
use crate::internal::bytes::{WipedBytes, decode_base64};
use crate::internal::json_text::{self, NoText};
use crate::key::format::REFERENCE_SCHEMES;
use crate::key::{Issuer as _, Katana, Profile, RawKey};

/// A source with a rule of its own about the text or its absence; see [`Source::base64`], [`Source::field`],
/// [`Source::line`] and [`Source::required`].
pub struct Adapted<S> {
    pub(super) source: S,
    pub(super) rule: Rule,
}

/// What is done with what a source read.
#[derive(Clone)]
pub(super) enum Rule {
    Base64,
    Field(String),
    /// Counted from 1.
    Line(usize),
    Required,
}

impl Rule {
    fn apply(&self, text: WipedBytes) -> Result<WipedBytes, Problem> {
        let text = match self {
            Self::Required => return Ok(text),
            Self::Base64 => decode_base64(&text).ok_or(Problem::NotBase64)?,
            Self::Line(number) => line(text, *number)?,
            Self::Field(name) => json_text::field(&text, name).map_err(|why| match why {
                NoText::NotAnObject => Problem::NotJson,
                NoText::Missing => Problem::NoField { name: name.clone() },
                NoText::Twice => Problem::FieldTwice { name: name.clone() },
                NoText::NotAText => Problem::FieldNotText { name: name.clone() },
            })?,
        };
        Ok(without_mark_and_newline(text))
    }
}

impl<S: Source> Source for Adapted<S> {
    fn provenance(&self) -> Provenance {
        self.source.provenance()
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        match (self.source.read(profile)?.0, &self.rule) {
            (Content::Absent(absence), Rule::Required) => {
                Err(SourceError::new(self.provenance(), Problem::Missing { absence }))
            }
            (absent @ Content::Absent(_), _) => Ok(Reading(absent)),
            (Content::Present { text, provenance, remarks }, rule) => match rule.apply(text) {
                Ok(text) => Ok(Reading(Content::Present { text, provenance, remarks })),
                Err(problem) => {
                    Err(SourceError::new(provenance.unwrap_or_else(|| self.provenance()), problem))
                }
            },
        }
    }
}

impl<S: Source> fmt::Debug for Adapted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adapted({})", self.provenance())
    }
}

/// Parses a text as a key.
pub(super) fn parse(text: &[u8], profile: &'static Profile) -> Result<RawKey, Problem> {
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

/// Removes one leading byte order mark and one final newline (`\n` or `\r\n`), as from the text of every
/// source.
pub(crate) fn without_mark_and_newline(mut text: WipedBytes) -> WipedBytes {
    let start = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let end = without_newline(&text).len().max(start);
    text.keep(start..end);
    text
}

/// Whether a text is empty without its mark and its final newline.
pub(super) fn has_nothing(text: &[u8]) -> bool {
    without_newline(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).is_empty()
}

/// One line of a text, counted from 1.
fn line(mut text: WipedBytes, line: usize) -> Result<WipedBytes, Problem> {
    let mut start = 0;
    let mut lines = 0;
    for part in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        if lines == line {
            let end = start + without_newline(part).len();
            text.keep(start..end);
            return Ok(text);
        }
        start += part.len();
    }
    Err(Problem::NoLine { line, lines })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(bytes: &[u8]) -> Vec<u8> {
        without_mark_and_newline(WipedBytes::copy_of(bytes)).to_vec()
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
        let line = |text: &str, at| line(WipedBytes::copy_of(text.as_bytes()), at).map(|text| text.to_vec());
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
        let decode = |text: &str| Rule::Base64.apply(WipedBytes::copy_of(text.as_bytes()));
        assert_eq!(&*decode("OGZLMg==").unwrap(), b"8fK2");
        assert!(matches!(decode("OGZLMg==\n"), Err(Problem::NotBase64)));
    }
}
