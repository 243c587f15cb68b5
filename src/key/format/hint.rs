//! Guessing from the form of a text why it is not a key.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{MAX_KEY_LENGTH, is_b64token, look_alike};
use crate::internal::bytes::WipedBytes;

/// What the form of a text that is not a key suggests. It is derived from white space, punctuation, known
/// prefixes and words of templates, and holds no byte of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hint {
    /// It ends with a line break.
    TrailingNewline,
    /// It starts or ends with white space.
    SurroundingSpace,
    /// It holds a no-break space or another blank that is not ASCII.
    UnusualSpace,
    /// It holds a byte order mark, a mark that sets the direction of text, or another character of no width.
    Invisible,
    /// It holds full-width or styled letters or digits.
    FullWidth,
    /// It holds a letter of another alphabet that can look like a Latin one.
    Homoglyph,
    /// It holds another character that is not ASCII.
    NotAscii,
    /// It is not UTF-8.
    NotUtf8,
    /// It is in quotes.
    Quotes,
    /// It ends with a comma or a semicolon.
    TrailingComma,
    /// It starts with `Bearer `.
    BearerPrefix,
    /// It is a whole `Authorization` header.
    HeaderLine,
    /// It has the form `NAME=value` or `NAME: value`.
    Assignment,
    /// It is JSON.
    Json,
    /// It is a key reference, such as `env:NAME`.
    Reference,
    /// It is a reference of 1Password, `op://…`.
    OnePassword,
    /// It is encrypted, as dotenvx and SOPS write it.
    Encrypted,
    /// It is the name of a resource in AWS, `arn:…`.
    Arn,
    /// It is a URL.
    Url,
    /// It is a path.
    Path,
    /// The same text occurs twice.
    Doubled,
    /// It is a key in base64.
    Base64,
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

/// Text that only a masked key has: bullets, ellipses and runs of ASCII marks.
const MASKS: [&str; 4] = ["***", "•", "…", "..."];

/// The schemes of key references. `tests/sources/chain/no_key.rs` looks for one that is not here.
pub(crate) const REFERENCE_SCHEMES: [&str; 7] =
    ["env", "file", "dotenv", "systemd", "keychain", "command", "openbao"];

/// How dotenvx, SOPS and Vault's transit engine mark what they have encrypted.
const ENCRYPTED: [&str; 3] = ["encrypted:", "ENC[", "vault:v1:"];

impl Hint {
    /// Returns the hint for a malformed text, if its form suggests one.
    #[must_use]
    pub fn from_shape(text: &[u8]) -> Option<Self> {
        Self::of(text, |_| false)
    }

    /// As [`Hint::from_shape`]; `is_key` recognizes a key.
    pub(super) fn of(text: &[u8], is_key: impl Fn(&[u8]) -> bool) -> Option<Self> {
        if text.contains(&0) {
            return Some(Self::Nul);
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return Some(Self::NotUtf8);
        };
        if is_json(text) {
            return Some(Self::Json);
        }
        if is_base64(text, is_key) {
            return Some(Self::Base64);
        }
        around(text)
            .or_else(|| before(text))
            .or_else(|| look_alike::hint(text.as_bytes()))
            .or_else(|| not_filled_in(text))
            .or_else(|| not_ascii(text))
            .or_else(|| is_path(text).then_some(Self::Path))
    }
}

/// Line breaks, white space and invisible characters. They come first, because they hide what else is wrong.
fn around(text: &str) -> Option<Hint> {
    let body = text.trim_end_matches(['\r', '\n']);
    if body.contains(['\r', '\n']) {
        return Some(Hint::SeveralLines);
    }
    if body.len() < text.len() {
        return Some(Hint::TrailingNewline);
    }
    if text.contains(is_invisible) {
        return Some(Hint::Invisible);
    }
    if text.contains(|c: char| c.is_whitespace() && !c.is_ascii()) {
        return Some(Hint::UnusualSpace);
    }
    (text.trim().len() < text.len()).then_some(Hint::SurroundingSpace)
}

/// What comes before a key or in its place and is known by its start.
fn before(text: &str) -> Option<Hint> {
    let starts = |start: &str| text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start));
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    Some(if starts("authorization:") || starts("authorization :") {
        Hint::HeaderLine
    } else if starts("bearer ") {
        Hint::BearerPrefix
    } else if starts("op://") {
        Hint::OnePassword
    } else if starts("arn:") {
        Hint::Arn
    } else if ENCRYPTED.iter().any(|mark| text.starts_with(mark)) {
        Hint::Encrypted
    } else if starts("https://") || starts("http://") {
        Hint::Url
    } else if scheme.is_some_and(|scheme| REFERENCE_SCHEMES.contains(&scheme)) {
        Hint::Reference
    } else if text.ends_with([',', ';']) {
        Hint::TrailingComma
    } else if text.starts_with(['"', '\'', '`', '“', '‘']) {
        Hint::Quotes
    } else if is_assignment(text) {
        Hint::Assignment
    } else {
        return None;
    })
}

/// Masks and placeholders with characters that no key has.
fn not_filled_in(text: &str) -> Option<Hint> {
    if MASKS.iter().any(|mask| text.contains(mask)) {
        return Some(Hint::Masked);
    }
    let is_bracketed = [('<', '>'), ('{', '}'), ('[', ']')]
        .iter()
        .any(|&(open, close)| text.starts_with(open) && text.ends_with(close));
    let is_variable = text.starts_with("${") || text.starts_with("$(");
    (is_bracketed || is_variable).then_some(Hint::Placeholder)
}

fn not_ascii(text: &str) -> Option<Hint> {
    let mut odd = text.chars().filter(|c| !c.is_ascii());
    let first = odd.clone().next()?;
    Some(match first {
        _ if odd.clone().any(is_styled) => Hint::FullWidth,
        _ if odd.any(is_look_alike) => Hint::Homoglyph,
        _ => Hint::NotAscii,
    })
}

/// Returns whether a character is invisible: marks of direction and joining, variation selectors, tags and
/// soft hyphens.
pub(crate) const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e01ef}'
    )
}

/// Full-width forms, circled and mathematical letters and digits.
const fn is_styled(character: char) -> bool {
    matches!(character, '\u{ff01}'..='\u{ff5e}' | '\u{2460}'..='\u{24ff}' | '\u{1d400}'..='\u{1d7ff}')
}

/// Letters of Greek, Cyrillic, Armenian, Cherokee and Latin's extensions for phonetics.
const fn is_look_alike(character: char) -> bool {
    matches!(
        character,
        '\u{250}'..='\u{2af}'
            | '\u{370}'..='\u{58f}'
            | '\u{13a0}'..='\u{13ff}'
            | '\u{1d00}'..='\u{1dbf}'
            | '\u{1f00}'..='\u{1fff}'
            | '\u{2c80}'..='\u{2cff}'
            | '\u{a640}'..='\u{a69f}'
    )
}

fn is_json(text: &str) -> bool {
    let text = text.trim();
    let is_closed =
        (text.starts_with('{') && text.ends_with('}')) || (text.starts_with('[') && text.ends_with(']'));
    is_closed && text.contains('"')
}

/// `NAME=value` and `NAME: value`, optionally after `export`. Padding alone after a `=` is not a value.
fn is_assignment(text: &str) -> bool {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let value = rest.trim_start().strip_prefix('=').or_else(|| rest.strip_prefix(": "));
    is_name && value.is_some_and(|value| value.contains(|c: char| c != '='))
}

fn is_path(text: &str) -> bool {
    let is_absolute = text.strip_prefix('/').is_some_and(|rest| rest.contains('/'));
    let is_relative = ["./", "../", "~/", "\\\\"].iter().any(|start| text.starts_with(start));
    let is_on_drive =
        matches!(text.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic());
    is_absolute || is_relative || is_on_drive
}

/// Whether a text is a key in base64, of either alphabet, padded or not, encoded with or without a line break
/// at the end of the key or of the text.
fn is_base64(text: &str, is_key: impl Fn(&[u8]) -> bool) -> bool {
    let text = text.trim_end_matches(['\r', '\n']).as_bytes();
    if text.is_empty() || text.len() > MAX_KEY_LENGTH.div_ceil(3) * 4 + 4 || !is_b64token(text) {
        return false;
    }
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let mut decoded = WipedBytes::zeroed(base64::decoded_len_estimate(text.len()));
    [alphabet::STANDARD, alphabet::URL_SAFE].iter().any(|alphabet| {
        let length = GeneralPurpose::new(alphabet, config).decode_slice(text, &mut decoded);
        length.is_ok_and(|length| {
            let key = &decoded[..length];
            is_key(key.strip_suffix(b"\n").unwrap_or(key))
        })
    })
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TrailingNewline => {
                "it ends with a line break: remove it (`printf %s` writes none, `echo` does)"
            }
            Self::SurroundingSpace => "it has white space around it: remove it",
            Self::UnusualSpace => {
                "it holds a no-break space or another blank that is not a plain space: copy the key again as \
                 plain text"
            }
            Self::Invisible => {
                "it holds a byte order mark, a mark that sets the direction of text, or another character of \
                 no width: copy the key again as plain text"
            }
            Self::FullWidth => {
                "it holds full-width or styled letters or digits: copy the key again as plain text"
            }
            Self::Homoglyph => {
                "it holds a letter of another alphabet, such as Cyrillic or Greek, that can look like a \
                 Latin one: copy the key again from where it was created, and do not type it"
            }
            Self::NotAscii => {
                "it holds a character that is not ASCII, such as a typographic dash or quotation mark: copy \
                 the key again as plain text"
            }
            Self::NotUtf8 => "it is not UTF-8: save it as plain text, or name its encoding where it is read",
            Self::Quotes => "it starts with a quotation mark: give the key without quotes",
            Self::TrailingComma => "it ends with a comma or a semicolon: remove it",
            Self::BearerPrefix => {
                "it starts with \"Bearer \": give the key alone, the prefix is added when it is sent"
            }
            Self::HeaderLine => {
                "it is a whole Authorization header: give the key alone, the header is added when it is sent"
            }
            Self::Assignment => "it has the form NAME=value or NAME: value: give the value alone",
            Self::Json => {
                "it is JSON: give the key alone, or name the field that holds it, in a key reference \
                 (`?field=NAME`)"
            }
            Self::Reference => {
                "it is a key reference and not a key: use it where a reference is read, or put the key \
                 itself here"
            }
            Self::OnePassword => {
                "it is a reference of 1Password: start the program with `op run`, or read the key with \
                 `command:op read`"
            }
            Self::Encrypted => {
                "it is encrypted: start the program through the tool that decrypts it, or put the decrypted \
                 key there"
            }
            Self::Arn => {
                "it is the name of a resource in AWS and not its content: read the secret, and give the key \
                 in it"
            }
            Self::Url => "it is a URL: give the key alone",
            Self::Path => {
                "it looks like a path: name the file where a file is expected (the variable that ends in \
                 _FILE, or `file:PATH`)"
            }
            Self::Doubled => "the same text occurs twice: give the key once",
            Self::Base64 => {
                "it is a key in base64: decode it, or say that it is encoded, in a key reference \
                 (`?encoding=base64`)"
            }
            Self::Masked => {
                "it looks masked: a key is shown in full only once, so create a new one and store it at once"
            }
            Self::Placeholder => "it looks like a placeholder: put the real key there",
            Self::KanalSkPrefix => {
                "it starts with kanal_sk_: the keys that Kanal documents have 24 characters and no prefix; \
                 create one under Settings → API Keys"
            }
            Self::SeveralLines => "it has several lines: a key is one line",
            Self::Nul => "it holds a NUL byte: it was saved as UTF-16 (save it as UTF-8), or is not text",
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
            (format!("{key}\u{a0}"), Hint::UnusualSpace),
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
        for text in [&b""[..], b"short", b"8fK2pX9mW=", b"/8fK2pX9mWq4", b"8fK2:pX9mW"] {
            assert_eq!(Hint::from_shape(text), None);
        }
        assert_eq!(Hint::from_shape(b"\xff\xfe"), Some(Hint::NotUtf8));
    }
}
