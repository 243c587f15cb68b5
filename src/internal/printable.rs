//! The printing filter: every name that comes from outside is printed through it.

use std::fmt::{self, Write as _};
use std::path::Path;

/// A name (a path, a variable, a program, a place) for a message. Control characters, line and paragraph
/// separators, and characters that change the direction of text or have no width are printed as escapes, so
/// that a name cannot forge a log line or send codes to a terminal.
#[derive(Clone, Copy)]
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_unsafe_to_print(character) {
                write!(f, "\\u{{{:x}}}", u32::from(character))?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path for a message, as [`Printable`] prints a name. What is not Unicode in it is printed as U+FFFD.
#[derive(Clone, Copy)]
pub(crate) struct PrintablePath<'a>(pub(crate) &'a Path);

impl fmt::Display for PrintablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.0.to_string_lossy()).fmt(f)
    }
}

/// Whether a character changes more of a line than its own place.
pub(crate) const fn is_unsafe_to_print(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line_or_turn_text_round() {
        let name = "X\n2026-11-28 all is well\r\x1b[2J\u{9b}\u{202e}\u{2028}\u{feff}";
        let printed = Printable(name).to_string();
        assert_eq!(
            printed,
            "X\\u{a}2026-11-28 all is well\\u{d}\\u{1b}[2J\\u{9b}\\u{202e}\\u{2028}\\u{feff}"
        );
    }

    #[test]
    fn a_path_is_printed_as_its_name_is() {
        assert_eq!(PrintablePath(Path::new("/a\n\u{202e}b")).to_string(), "/a\\u{a}\\u{202e}b");
    }

    #[test]
    fn ordinary_names_are_printed_as_they_are() {
        for name in ["/run/secrets/kanal", "C:\\keys\\kanal", "clé-d’été", "鍵"] {
            assert_eq!(Printable(name).to_string(), name);
        }
    }
}
