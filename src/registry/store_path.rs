//! Which store a path is for.

use super::principal::RequestedStore;

/// The store that a path of Kanal's form is for: its number follows the first segment `stores`.
///
/// Servers and proxies read paths in many ways: they decode `%XX` once or twice, merge slashes, resolve `..`, cut path
/// parameters at `;`, or fold wide characters. Rather than know all of them, this lets through only what each of them reads
/// alike. Any other path is for no store.
pub(super) fn store_of_path(path: &str) -> RequestedStore {
    let Some(mut rest) = path.strip_prefix('/') else { return RequestedStore::NotAStore };
    // One slash at the end is as good as none.
    rest = rest.strip_suffix('/').unwrap_or(rest);
    if !rest.split('/').all(is_plain) {
        return RequestedStore::NotAStore;
    }
    let mut segments = rest.split('/');
    match (segments.find(|segment| could_be_stores(segment)), segments.next()) {
        (Some("stores"), Some(store)) => RequestedStore::from_segment(store),
        _ => RequestedStore::NotAStore,
    }
}

/// Whether a segment is the word before a store to a server that folds case, or drops what stands at an end.
fn could_be_stores(segment: &str) -> bool {
    decoded(segment.as_bytes())
        .is_some_and(|segment| segment.trim_matches(is_droppable).to_uppercase() == "STORES")
}

/// What servers drop at the end of a segment, or from anywhere in it.
const fn is_droppable(c: char) -> bool {
    matches!(c, '.' | ' ') || is_mark(c)
}

/// Whether a segment is one and the same segment to everything that reads it: it is not empty, not dots alone, and decodes
/// once, to UTF-8, to characters that mean nothing in a path.
fn is_plain(segment: &str) -> bool {
    let Some(decoded) = decoded(segment.as_bytes()) else { return false };
    !decoded.trim_matches(is_droppable).is_empty() && decoded.chars().all(means_nothing)
}

/// A segment with each `%XX` decoded. `None` where one is malformed, stands for what is not UTF-8, or is a `?` or a `#`, which
/// would end the path of a server that reads it twice.
fn decoded(segment: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'%' {
            // A URI is ASCII.
            bytes.push(Some(*first).filter(u8::is_ascii)?);
            continue;
        }
        let ([high, low], after) = more.split_first_chunk::<2>()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        bytes.push(Some(byte).filter(|byte| !matches!(byte, b'?' | b'#'))?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Letters and digits of every script, and the signs of ASCII that no server gives a meaning within a path: not `/`, `\`,
/// `;`, `%`, `?`, `#` and no control character. Beyond ASCII no sign, because some stand for one of those.
fn means_nothing(c: char) -> bool {
    if !c.is_ascii() {
        // `⒈` and its like are digits with a dot.
        let is_dotted = matches!(c, '\u{2488}'..='\u{249b}' | '\u{1f100}'..='\u{1f10c}');
        return (c.is_alphanumeric() || is_mark(c)) && !is_dotted;
    }
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            ' ' | '!'
                | '"'
                | '$'
                | '&'
                | '\''
                | '('
                | ')'
                | '*'
                | '+'
                | ','
                | '-'
                | '.'
                | ':'
                | '<'
                | '='
                | '>'
                | '@'
                | '['
                | ']'
                | '^'
                | '_'
                | '`'
                | '{'
                | '|'
                | '}'
                | '~'
        )
}

/// The marks that letters are written with and that do not count as letters: accents that stand apart, as macOS writes them, and
/// signs of Indian scripts, Thai, Lao and Japanese. Not the strokes through a letter, which look like a slash.
const fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{336}'
            | '\u{339}'..='\u{36f}'
            | '\u{93c}' | '\u{94d}' | '\u{9bc}' | '\u{9cd}' | '\u{a3c}' | '\u{a4d}' | '\u{abc}' | '\u{acd}' | '\u{b3c}'
            | '\u{b4d}' | '\u{bcd}' | '\u{c4d}' | '\u{cbc}' | '\u{ccd}' | '\u{d4d}' | '\u{dca}'
            | '\u{e47}'..='\u{e4e}'
            | '\u{ec8}'..='\u{ecc}'
            | '\u{3099}' | '\u{309a}'
    )
}
