//! What is recorded of a new key: notes and names, which must be short, printable, and without any part of
//! a key.

use std::fmt;
use std::time::SystemTime;

use super::KeySetError;
use super::key::{KeyInfo, MAX_NOTE, MAX_PERSON, RotationId};
use crate::internal::bytes::{WipedBytes, append_base64, append_hex};
use crate::internal::printing::Moment;
use crate::key::{Fingerprint, RawKey};
use crate::source::Provenance;

/// How many consecutive letters and digits a text must share with a key, in one of its encodings, to be
/// refused.
const RUN: usize = 8;

/// What is recorded when a key is staged or adopted.
#[derive(Clone)]
pub(crate) struct Staging {
    at: Moment,
    name: Option<String>,
    by: Option<String>,
    loaded_from: Option<String>,
    note: Option<String>,
}

impl Staging {
    pub(crate) fn at(time: SystemTime) -> Self {
        Self { at: Moment::from(time), name: None, by: None, loaded_from: None, note: None }
    }

    pub(crate) fn with_time(mut self, time: SystemTime) -> Self {
        self.at = Moment::from(time);
        self
    }

    pub(crate) fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    pub(crate) fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// Cut to [`MAX_PERSON`] characters; what is not printable is replaced.
    pub(crate) fn loaded_from(mut self, place: &Provenance) -> Self {
        let shown = |c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER };
        self.loaded_from = Some(place.to_string().chars().take(MAX_PERSON).map(shown).collect());
        self
    }

    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns what is known of the key once it is in the key set.
    pub(super) fn into_info(self, fingerprint: Fingerprint, rotation: RotationId) -> KeyInfo {
        let Self { at: staged, name, by, loaded_from, note } = self;
        KeyInfo {
            fingerprint,
            rotation,
            staged,
            verified: None,
            promoted: None,
            demoted: None,
            confirmed: None,
            refused: None,
            fell_back: None,
            name,
            by,
            loaded_from,
            note,
        }
    }

    /// Checks that each text is short and printable, and contains no part of the key.
    pub(super) fn check(&self, key: &RawKey) -> Result<(), KeySetError> {
        let texts = [
            (&self.name, MAX_PERSON),
            (&self.by, MAX_PERSON),
            (&self.loaded_from, MAX_PERSON),
            (&self.note, MAX_NOTE),
        ];
        for (text, longest) in texts {
            check_text(text.as_deref(), longest)?;
            if text.as_deref().is_some_and(|text| has_part_of(text, key)) {
                return Err(KeySetError::KeyInNote);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Staging {
    /// Without the texts: a key may have been pasted into one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("at", &self.at)
            .field("name", &Hidden(self.name.as_deref()))
            .field("by", &Hidden(self.by.as_deref()))
            .field("loaded_from", &Hidden(self.loaded_from.as_deref()))
            .field("note", &Hidden(self.note.as_deref()))
            .finish()
    }
}

/// Returns whether a character is printable. A line break, or a mark that changes the direction of text,
/// could make a note look like a part of the surrounding sentence.
pub(crate) fn is_printable(c: char) -> bool {
    let changes_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !(c.is_control() || changes_direction || matches!(c, '\u{2028}' | '\u{2029}'))
}

pub(super) fn check_text(text: Option<&str>, longest: usize) -> Result<(), KeySetError> {
    let Some(text) = text else { return Ok(()) };
    if text.chars().all(is_printable) && text.chars().count() <= longest {
        Ok(())
    } else {
        Err(KeySetError::BadNote)
    }
}

/// Formats only the length of a text, for `Debug`: a key may have been pasted into it.
pub(crate) struct Hidden<'a>(pub(crate) Option<&'a str>);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, "{} characters", text.chars().count()),
            None => f.write_str("none"),
        }
    }
}

/// Returns whether a text contains a part of a key: as it is, in another case, with separators, reversed, or
/// in hexadecimal, percent encoding, base64 or base64url.
pub(crate) fn has_part_of(text: &str, key: &RawKey) -> bool {
    let secret = key.expose_secret().as_bytes();
    let text = letters_and_digits(text.as_bytes());
    let plain = letters_and_digits(secret);
    if plain.len() < RUN {
        return !plain.is_empty() && share_a_run(&text, &plain, plain.len());
    }
    let mut reversed = WipedBytes::copy_of(&plain);
    reversed.reverse();
    // Percent encoding without its percent signs is hexadecimal.
    let mut hexadecimal = WipedBytes::with_capacity(secret.len() * 2);
    append_hex(&mut hexadecimal, secret);
    let [plain, reversed, hexadecimal] =
        [plain, reversed, hexadecimal].map(|form| share_a_run(&text, &form, RUN));
    // Base64 encodes three bytes at a time, and other bytes may precede the key.
    let base64 = (0..3).filter_map(|skipped| secret.get(skipped..)).any(|rest| {
        let mut encoded = WipedBytes::with_capacity(rest.len().div_ceil(3) * 4);
        append_base64(&mut encoded, rest);
        share_a_run(&text, &letters_and_digits(&encoded), RUN)
    });
    plain || reversed || hexadecimal || base64
}

/// Returns the letters and digits of a text, in lower case.
fn letters_and_digits(text: &[u8]) -> WipedBytes {
    let mut kept = WipedBytes::with_capacity(text.len());
    kept.extend(text.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase));
    kept
}

fn share_a_run(text: &[u8], form: &[u8], run: usize) -> bool {
    text.windows(run).any(|part| form.windows(run).any(|of_key| part == of_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Issuer as _, Kanal};

    const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

    fn is_refused(text: &str) -> bool {
        has_part_of(text, &RawKey::parse(Kanal::PROFILE, KEY.as_bytes()).unwrap())
    }

    #[test]
    fn a_key_in_disguise_is_found() {
        let reversed: String = KEY.chars().rev().collect();
        let percent = "%38%66%4B%32%70%58%39%6D%57%71%34%4C%64";
        let spaced: String = KEY.chars().flat_map(|c| [c, ' ']).collect();
        for text in [
            KEY,
            &KEY[1..],
            &KEY[..23],
            "it was 2pX9mWq4, I think",
            &KEY.to_lowercase(),
            &KEY.to_uppercase(),
            &reversed,
            percent,
            &spaced,
            "8fK2-pX9m-Wq4L-d7Vb",
            // By `printf %s KEY | base64`, with one and two characters before it, and by `xxd -p`.
            "OGZLMnBYOW1XcTRMZDdWYjNOYzZUczFa",
            "eDhmSzJwWDltV3E0TGQ3VmIzTmM2VHMxWg",
            "eHg4ZksycFg5bVdxNExkN1ZiM05jNlRzMVo",
            "38664b32705839",
        ] {
            assert!(is_refused(text), "{text}");
        }
    }

    #[test]
    fn an_ordinary_note_is_no_key() {
        for text in [
            "",
            "the yearly rotation",
            "8fK2pX9 is its beginning",
            "urdz-nrsd-3rmw-jtz2",
            "läuft am 2026-11-24 ab",
        ] {
            assert!(!is_refused(text), "{text}");
        }
    }
}
