//! Guessing from a text's shape why it is not a key.

use std::fmt;

/// What the shape of a malformed text suggests. Drawn from white space, marks and known prefixes only;
/// no byte of the text is kept.
///
/// ```
/// use keysheath::format::Hint;
/// assert_eq!(Hint::from_shape(b"<API key>"), Some(Hint::Placeholder));
/// assert_eq!(Hint::from_shape(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hint {
    /// It ends with a line break.
    TrailingNewline,
    /// It starts or ends with white space.
    SurroundingSpace,
    /// It starts with a byte order mark, or holds a character of no width.
    Invisible,
    /// It stands in quotes.
    Quotes,
    /// It starts with `Bearer `.
    BearerPrefix,
    /// It is masked, as a screen or a log shows a key.
    Masked,
    /// It is a placeholder from a manual or a template.
    Placeholder,
    /// It starts with `kanal_sk_`, a form that other pages show.
    KanalSkPrefix,
    /// It has several lines.
    SeveralLines,
    /// It holds a NUL byte.
    Nul,
}

/// Text that only a masked key has: bullets and ellipses, beside runs of ASCII marks.
const MASKS: [&str; 4] = ["***", "•", "…", "..."];

/// Characters that a screen shows as nothing.
const INVISIBLE: [char; 7] =
    ['\u{feff}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{00ad}', '\u{180e}'];

/// Words that a template has where the key belongs; compared without case and separators.
const PLACEHOLDERS: [&str; 8] =
    ["apikey", "yourapikey", "yourkey", "changeme", "todo", "replaceme", "xxx", "yourapikeyhere"];

impl Hint {
    /// The hint that a text's shape suggests, if any.
    ///
    /// ```
    /// # use keysheath::format::Hint;
    /// assert_eq!(Hint::from_shape(b"\"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\""), Some(Hint::Quotes));
    /// ```
    #[must_use]
    pub fn from_shape(text: &[u8]) -> Option<Self> {
        if text.contains(&0) {
            return Some(Self::Nul);
        }
        // What is not UTF-8 has no shape to speak of.
        let text = std::str::from_utf8(text).ok()?;
        let body = text.trim_end_matches(['\r', '\n']);
        if body.contains(['\r', '\n']) {
            return Some(Self::SeveralLines);
        }
        if body.len() < text.len() {
            return Some(Self::TrailingNewline);
        }
        if text.contains(INVISIBLE) {
            return Some(Self::Invisible);
        }
        if text.trim().len() < text.len() {
            return Some(Self::SurroundingSpace);
        }
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            return Some(Self::BearerPrefix);
        }
        if text.starts_with(['"', '\'', '`', '“', '‘']) {
            return Some(Self::Quotes);
        }
        if text.starts_with("kanal_sk_") {
            return Some(Self::KanalSkPrefix);
        }
        if MASKS.iter().any(|mask| text.contains(mask)) {
            return Some(Self::Masked);
        }
        is_placeholder(text).then_some(Self::Placeholder)
    }
}

fn is_placeholder(text: &str) -> bool {
    let bracketed = [('<', '>'), ('{', '}'), ('[', ']')]
        .iter()
        .any(|&(open, close)| text.starts_with(open) && text.ends_with(close));
    let variable = text.starts_with("${") || text.starts_with("$(");
    let eq = |word: &str| {
        let mut letters = text.chars().filter(char::is_ascii_alphanumeric);
        word.chars().all(|c| letters.next().is_some_and(|l| l.eq_ignore_ascii_case(&c)))
            && letters.next().is_none()
    };
    bracketed || variable || PLACEHOLDERS.iter().any(|word| eq(word))
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TrailingNewline => {
                "it ends with a line break: remove it (`printf %s` writes none, `echo` does)"
            }
            Self::SurroundingSpace => "white space stands around it: remove it",
            Self::Invisible => {
                "it holds a byte order mark or a character of no width: copy the key again as plain text"
            }
            Self::Quotes => "it starts with a quotation mark: give the key without quotes",
            Self::BearerPrefix => {
                "it starts with \"Bearer \": give the key alone, the prefix is added when it is sent"
            }
            Self::Masked => {
                "it looks masked: a key is shown in full only once, so create a new one and store it then"
            }
            Self::Placeholder => "it looks like a placeholder: put the real key there",
            Self::KanalSkPrefix => {
                "it starts with kanal_sk_: the keys that Kanal documents have 24 characters and no prefix; \
                 create one under Settings → API Keys"
            }
            Self::SeveralLines => "it has several lines: a key is one line",
            Self::Nul => "it holds a NUL byte: it was saved as UTF-16 or is not a text",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_give_their_hint() {
        let key = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
        for (text, hint) in [
            (format!("{key}\n"), Hint::TrailingNewline),
            (format!("{key}\r\n"), Hint::TrailingNewline),
            (format!("{key}\r"), Hint::TrailingNewline),
            (format!("{key}\n{key}\n"), Hint::SeveralLines),
            (format!(" {key}"), Hint::SurroundingSpace),
            (format!("{key}\t"), Hint::SurroundingSpace),
            (format!("{key}\u{a0}"), Hint::SurroundingSpace),
            (format!("\u{feff}{key}"), Hint::Invisible),
            (format!("{key}\u{200b}"), Hint::Invisible),
            (format!("'{key}'"), Hint::Quotes),
            (format!("“{key}”"), Hint::Quotes),
            (format!("Bearer {key}"), Hint::BearerPrefix),
            (format!("bearer {key}"), Hint::BearerPrefix),
            ("8fK2****************Ts1Z".to_owned(), Hint::Masked),
            ("••••••••Ts1Z".to_owned(), Hint::Masked),
            ("8fK2…Ts1Z".to_owned(), Hint::Masked),
            ("<API key>".to_owned(), Hint::Placeholder),
            ("YOUR_API_KEY".to_owned(), Hint::Placeholder),
            ("change-me".to_owned(), Hint::Placeholder),
            ("${KANAL_API_KEY}".to_owned(), Hint::Placeholder),
            ("kanal_sk_live_8fK2pX9mWq4Ld7Vb".to_owned(), Hint::KanalSkPrefix),
            (format!("{key}\0"), Hint::Nul),
        ] {
            assert_eq!(Hint::from_shape(text.as_bytes()), Some(hint), "{text:?}");
        }
        for text in [&b""[..], b"short", b"\xff\xfe", "Beare\u{e9}".as_bytes()] {
            assert_eq!(Hint::from_shape(text), None);
        }
    }
}
