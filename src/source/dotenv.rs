//! One variable of a `.env` file.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::PathBuf;

use super::file::{self, Permissions};
use super::worker::Worker;
use super::{Absence, Problem, Provenance, Reading, SecretText, Source, SourceError};
use crate::issuer::Profile;

/// The largest `.env` that is read, in bytes.
const MAX_DOTENV: usize = 256 * 1024;

/// One variable of a `.env` file, read by the `dotenvy` crate. No process variable is set, and no parent
/// folder is searched.
///
/// The file goes through the checks of [`SecretFile`](super::SecretFile). A line that cannot be read
/// anywhere in the file, the variable set twice, and a value that `$` or `\` would change are errors: what
/// is loaded is what is written. A variable that is set to nothing counts as not set.
///
/// # Security
/// `dotenvy` leaves copies of the file's lines in freed memory (SECURITY.md has the figures), and a `.env`
/// tends to be committed. A secret file of its own is better where you can choose.
///
/// ```
/// use keysheath::{issuer::{Issuer, Kanal}, source::{self, DotenvFile, Loaded}};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join(".env");
/// std::fs::write(&path, "export KANAL_API_KEY='8fK2pX9mWq4Ld7Vb3Nc6Ts1Z'  # production\n").unwrap();
/// let source = DotenvFile::new(&path, "KANAL_API_KEY");
/// assert!(matches!(source::load(&source, Kanal::PROFILE)?, Loaded::Found(_)));
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DotenvFile {
    path: PathBuf,
    name: String,
    worker: Worker,
}

impl DotenvFile {
    /// The variable `name` of the file at `path`.
    ///
    /// ```
    /// # use keysheath::source::{DotenvFile, Source};
    /// let source = DotenvFile::new(".env", "KANAL_API_KEY");
    /// assert_eq!(source.provenance().to_string(), "KANAL_API_KEY in .env");
    /// ```
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { path: path.into(), name: name.into(), worker: Worker::new() }
    }

    fn place(&self, line: Option<usize>) -> Provenance {
        Provenance::Dotenv { path: self.path.clone(), name: self.name.clone(), line }
    }

    fn find(&self) -> Result<Reading, Problem> {
        let file = file::read_file(&self.worker, self.path.clone(), Permissions::Usual, MAX_DOTENV)?;
        let Some((text, remarks)) = file else {
            return Ok(Reading::Absent(Absence::NoFile));
        };
        let text = text.without_mark_and_newline();
        Ok(match find_variable(text.bytes(), &self.name)? {
            None => Reading::Absent(Absence::NotInFile),
            Some((_, text)) if text.bytes().is_empty() => Reading::Absent(Absence::EmptyVariable),
            Some((line, text)) => {
                Reading::Present { text, provenance: Some(self.place(Some(line))), remarks }
            }
        })
    }
}

impl Source for DotenvFile {
    fn provenance(&self) -> Provenance {
        self.place(None)
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        self.find().map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

/// The value of `name` and the line where it starts; `None` where no line sets it.
fn find_variable(text: &[u8], name: &str) -> Result<Option<(usize, SecretText)>, Problem> {
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let read = Cell::new(0);
    let reader = LineReader { lines: &lines, rest: &[], read: &read };
    let mut found: Option<(usize, SecretText)> = None;
    let mut entries = dotenvy::from_read_iter(reader);
    loop {
        let start = next_entry(&lines, read.get());
        let (key, value) = match entries.next() {
            None => return Ok(found),
            // The error prints the line, value included, so it goes no further.
            Some(Err(_)) => return Err(Problem::BadLine { line: start + 1 }),
            Some(Ok((key, value))) => (key, SecretText::from(value)),
        };
        if key != name {
            continue;
        }
        if let Some((first, _)) = found {
            let second = start + 1;
            return Err(Problem::Duplicate { first, second });
        }
        let entry = &lines[start.min(lines.len())..read.get().min(lines.len())];
        if !stands_literally(entry, value.bytes()) {
            return Err(Problem::NotLiteral { line: start + 1 });
        }
        found = Some((start + 1, value));
    }
}

/// The index of the first line from `from` on that is neither blank nor a comment.
fn next_entry(lines: &[&[u8]], from: usize) -> usize {
    let is_entry = |line: &&[u8]| {
        let line = line.trim_ascii_start();
        !line.is_empty() && !line.starts_with(b"#")
    };
    let rest = lines.get(from..).unwrap_or_default();
    from + rest.iter().position(is_entry).unwrap_or(0)
}

/// Whether an entry's value is written as it was read: after the `=` and at most one quotation mark, and
/// followed by the end, white space, or that mark. Substitution and escapes fail this, whatever they yield.
fn stands_literally(entry: &[&[u8]], value: &[u8]) -> bool {
    if value.is_empty() {
        // Nothing was read: then nothing, or an empty pair of quotes, must be written.
        let Some(written) = written_value(entry) else {
            return false;
        };
        let written = written.trim_ascii_end();
        return written.is_empty() || written.starts_with(b"#") || written == b"''" || written == b"\"\"";
    }
    let Some(written) = written_value(entry) else {
        return false;
    };
    let quote = written.first().copied().filter(|byte| matches!(byte, b'\'' | b'"'));
    let body = if quote.is_some() { &written[1..] } else { written };
    match (body.strip_prefix(value), quote) {
        (Some(after), Some(quote)) => after.first() == Some(&quote),
        (Some(after), None) => after.first().is_none_or(u8::is_ascii_whitespace),
        (None, _) => false,
    }
}

/// What follows the first `=` of an entry's first line, without the white space before it.
fn written_value<'a>(entry: &[&'a [u8]]) -> Option<&'a [u8]> {
    let line = entry.first()?;
    let equals = line.iter().position(|&byte| byte == b'=')?;
    Some(line[equals + 1..].trim_ascii_start())
}

/// Hands out one line a call, so that the parser's place in the file is known at each of its steps.
struct LineReader<'a> {
    lines: &'a [&'a [u8]],
    rest: &'a [u8],
    read: &'a Cell<usize>,
}

impl Read for LineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let Some(line) = self.lines.get(self.read.get()) else {
                return Ok(0);
            };
            self.rest = line;
            self.read.set(self.read.get() + 1);
        }
        let count = self.rest.len().min(buffer.len());
        let (now, later) = self.rest.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.rest = later;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Result<Option<(usize, String)>, Problem> {
        let found = find_variable(text.as_bytes(), "K")?;
        Ok(found.map(|(line, text)| (line, String::from_utf8_lossy(text.bytes()).into_owned())))
    }

    #[test]
    fn a_value_is_found_as_it_is_written() {
        for text in [
            "K=abc",
            "K=abc\n",
            "K = abc\r\n",
            "export K=abc\n",
            "K='abc'\n",
            "K=\"abc\" # note\n",
            "K=abc # costs $5\n",
            "  K=abc  \n",
        ] {
            assert_eq!(find(text), Ok(Some((1, "abc".to_owned()))), "{text:?}");
        }
        let text = "# K=old\n\nOTHER='two\nlines'\n  # more\nK=abc\n";
        assert_eq!(find(text), Ok(Some((6, "abc".to_owned()))));
        for text in ["", "\n", "OTHER=abc\n", "# K=abc\n", "KK=abc\n"] {
            assert_eq!(find(text), Ok(None), "{text:?}");
        }
        for text in ["K=", "K=\n", "K=''\n", "K=\"\"\n", "K= # none\n"] {
            assert_eq!(find(text), Ok(Some((1, String::new()))), "{text:?}");
        }
    }

    #[test]
    fn a_value_that_would_be_changed_is_refused() {
        for text in [
            "K=abc$def\n",
            "K=$OTHER\n",
            "K=\"${OTHER}\"\n",
            "K=abc\\$\n",
            "K=\"a\\nb\"\n",
            "K=a'b'c\n",
            "K='ab'c\n",
            "K=abc''\n",
            "K=$\n",
        ] {
            assert_eq!(find(text), Err(Problem::NotLiteral { line: 1 }), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_wherever_it_is() {
        for (text, line) in [
            ("K=abc\nnot a line\n", 2),
            ("# c\n\nnot a line\nK=abc\n", 3),
            ("K=abc def\n", 1),
            ("A=1\nK='abc\nB=2\n", 2),
            ("A=1\n\n# c\nB=\"x\nK=abc\n", 4),
            ("A=1\n=2\n", 2),
        ] {
            assert_eq!(find(text), Err(Problem::BadLine { line }), "{text:?}");
        }
        assert_eq!(find_variable(b"A=1\nB=\xff\nK=abc\n", "K").map(drop), Err(Problem::BadLine { line: 2 }));
    }

    #[test]
    fn a_variable_that_is_set_twice_is_refused() {
        for text in ["K=abc\n# c\nK=abc\n", "K=\n\nK=abc\n"] {
            assert_eq!(find(text), Err(Problem::Duplicate { first: 1, second: 3 }), "{text:?}");
        }
    }
}
