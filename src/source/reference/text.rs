//! `%XX` in key references.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::parse::KeyRefError;
use crate::internal::bytes::percent_byte;
use crate::internal::printing::is_unsafe_to_print;

/// The kind of a part of a reference. It decides what is encoded as `%XX`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Name,
    /// A path, of which a shell would expand some characters.
    Path,
    /// A word of a command, which ends at a space.
    Word,
    /// The value of an option, which ends at a `&`.
    Option,
}

/// What a shell would expand and this crate does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expansion {
    Home,
    Variable,
    Pattern,
}

impl Expansion {
    /// Finds the first one in a text that is not yet decoded.
    pub(super) fn in_text(text: &str, part: Part) -> Option<Self> {
        if matches!(part, Part::Name | Part::Option) {
            return None;
        }
        if text.starts_with('~') {
            return Some(Self::Home);
        }
        text.char_indices().find_map(|(at, c)| match c {
            '$' if is_variable(&text[at..]) => Some(Self::Variable),
            '%' if read_byte(&text[at..]).is_none() && is_windows_variable(&text[at + 1..]) => {
                Some(Self::Variable)
            }
            '*' if part == Part::Path => Some(Self::Pattern),
            _ => None,
        })
    }

    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Home => {
                "no shell expands the ~ here: write the directory itself, such as /home/shop (%7E if a name \
                 begins with ~)"
            }
            Self::Variable => {
                "no shell expands a variable here: write its value (%24 if the name really has a $ there)"
            }
            Self::Pattern => "no shell expands the * here: name one file (%2A if the name really has a *)",
        }
    }
}

/// Whether a text that begins with `$` begins with what a shell expands.
fn is_variable(text: &str) -> bool {
    text[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '{' | '('))
}

/// Whether a name and another `%` follow a `%`, as in a variable of Windows.
fn is_windows_variable(text: &str) -> bool {
    let name = text.split_once('%').map_or("", |(name, _)| name);
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'(' | b')'));
    plain && !name.is_empty()
}

/// Whether a character may be written as `%XX` for each of its bytes.
const fn may_be_escaped(c: char) -> bool {
    matches!(c, '%' | '?' | '#' | '$' | '*' | '~' | '&') || c.is_whitespace() || is_unsafe_to_print(c)
}

/// The characters around a name in a reference.
const AROUND: [char; 5] = ['/', '\\', ' ', '"', '\''];

/// Whether a name in a text has the form of a Kanal key: 24 letters and digits, with upper case, lower case
/// and digits.
pub(super) fn has_key(text: &str) -> bool {
    text.split(AROUND).any(is_key)
}

fn is_key(name: &str) -> bool {
    let has = |is: fn(&u8) -> bool| name.as_bytes().iter().any(is);
    name.len() == 24
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
}

/// Whether a name in the form of a key starts at `at`.
fn starts_key(text: &str, at: usize) -> bool {
    let is_start = text[..at].chars().next_back().is_none_or(|before| AROUND.contains(&before));
    is_start && text[at..].split(AROUND).next().is_some_and(is_key)
}

/// Whether the character of `text` at `at` must be written as `%XX`.
fn is_escaped(text: &str, at: usize, c: char, part: Part) -> bool {
    let is_at_an_end = at == 0 || at + c.len_utf8() == text.len();
    match c {
        '%' | '?' | '#' => true,
        ' ' if part == Part::Word => true,
        '~' => at == 0 && matches!(part, Part::Path | Part::Word),
        '$' => matches!(part, Part::Path | Part::Word) && is_variable(&text[at..]),
        '*' => part == Part::Path,
        '&' => part == Part::Option,
        _ if c.is_ascii_alphanumeric() => starts_key(text, at),
        _ => is_unsafe_to_print(c) || (is_at_an_end && c.is_whitespace()),
    }
}

pub(super) fn encode(text: &str, part: Part) -> Cow<'_, str> {
    if !text.char_indices().any(|(at, c)| is_escaped(text, at, c, part)) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 2);
    for (at, c) in text.char_indices() {
        if is_escaped(text, at, c, part) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a `String` cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        } else {
            encoded.push(c);
        }
    }
    Cow::Owned(encoded)
}

/// Reads `%XX` of characters that may be written so, and refuses bare control characters.
pub(super) fn decode(text: &str) -> Result<String, KeyRefError> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    let mut has_plain = false;
    while let Some(c) = rest.chars().next() {
        if c == '%' {
            let (escaped, after) = read_escape(rest).ok_or(KeyRefError::Escape)?;
            has_plain |= escaped.is_ascii_alphanumeric();
            decoded.push(escaped);
            rest = after;
        } else if c.is_ascii_control() {
            return Err(KeyRefError::Escape);
        } else {
            decoded.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    // A letter or digit is encoded only in a name that would be taken for a key.
    if has_plain && !has_key(&decoded) { Err(KeyRefError::Escape) } else { Ok(decoded) }
}

/// The character that a text begins with as `%XX`, and what follows it.
fn read_escape(text: &str) -> Option<(char, &str)> {
    let (first, mut rest) = read_byte(text)?;
    let mut bytes = [first, 0, 0, 0];
    let length = match first {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    for place in &mut bytes[1..length] {
        (*place, rest) = read_byte(rest)?;
    }
    let c = std::str::from_utf8(&bytes[..length]).ok()?.chars().next()?;
    (may_be_escaped(c) || c.is_ascii_alphanumeric()).then_some((c, rest))
}

fn read_byte(text: &str) -> Option<(u8, &str)> {
    let (byte, _) = percent_byte(text.as_bytes())?;
    Some((byte, &text[3..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Part; 4] = [Part::Name, Part::Path, Part::Word, Part::Option];

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "",
            "plain",
            "50%?#",
            "a\nb\0c\x7f",
            "C:\\keys\\kanal",
            "\\\\server\\c$\\kanal",
            "schlüssel%41",
            "~/$HOME/*&",
            " \u{a0}a b\u{3000}",
            "/run/8fK2pX9mWq4Ld7Vb3Nc6Ts1Z/a '8fK2pX9mWq4Ld7Vb3Nc6Ts1Z' a-8fK2pX9mWq4Ld7Vb3Nc6Ts1Z",
            "\u{9b}\u{202e}\u{2028}\u{feff}\u{e0001}",
        ] {
            for part in PARTS {
                let encoded = encode(text, part);
                assert_eq!(decode(&encoded).as_deref(), Ok(text));
                assert!(!has_key(&encoded), "{encoded}");
                assert_eq!(Expansion::in_text(&encoded, part), None, "{encoded}");
                assert!(!encoded.contains(is_unsafe_to_print) && encoded.trim() == encoded, "{encoded:?}");
            }
        }
        assert_eq!(encode("a b", Part::Word), "a%20b");
        assert_eq!(encode("a b", Part::Path), "a b");
        assert_eq!(encode("~a/~b/$c$/*", Part::Path), "%7Ea/~b/%24c$/%2A");
        assert_eq!(encode("\u{202e}", Part::Name), "%E2%80%AE");
    }

    #[test]
    fn only_what_may_be_escaped_is_read_as_such() {
        for text in
            ["%", "%4", "%41", "%zz", "%+1", "%é", "%2", "a\nb", "%FF", "%C3%A9", "%E2%80", "%E2%80%zz"]
        {
            assert_eq!(decode(text), Err(KeyRefError::Escape), "{text:?}");
        }
        assert_eq!(decode("%3f%3F%25%20").as_deref(), Ok("??% "));
        assert_eq!(decode("%E2%80%AE").as_deref(), Ok("\u{202e}"));
    }

    #[test]
    fn what_a_shell_would_expand_is_seen() {
        for (text, expansion) in [
            ("~", Expansion::Home),
            ("~shop/key", Expansion::Home),
            ("/run/$USER/key", Expansion::Variable),
            ("${HOME}/key", Expansion::Variable),
            ("$(pwd)/key", Expansion::Variable),
            ("%USERPROFILE%\\key", Expansion::Variable),
            ("C:\\%ProgramFiles(x86)%\\key", Expansion::Variable),
            ("/run/secrets/*", Expansion::Pattern),
        ] {
            assert_eq!(Expansion::in_text(text, Part::Path), Some(expansion), "{text}");
        }
        for text in ["/a~b", "/a/~b", "\\\\server\\c$\\key", "/a$", "%25%3F", "/100%25and%25"] {
            assert_eq!(Expansion::in_text(text, Part::Path), None, "{text}");
        }
        assert_eq!(Expansion::in_text("a*", Part::Word), None);
        assert_eq!(Expansion::in_text("~$HOME*", Part::Name), None);
    }
}
