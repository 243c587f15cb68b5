//! One variable of a `.env` file.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use super::file::{FileText, Reader};
use super::{Absence, Problem, Provenance, Reading, Remark, SecretText, Source, SourceError};
use crate::internal::paths::absolute;
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
    reader: Reader,
}

impl DotenvFile {
    /// The variable `name` of the file at `path`.
    ///
    /// ```
    /// # use keysheath::source::{DotenvFile, Source};
    /// let source = DotenvFile::new(".env", "KANAL_API_KEY");
    /// let here = std::env::current_dir().unwrap();
    /// assert_eq!(source.provenance().to_string(), format!("KANAL_API_KEY in {}/.env", here.display()));
    /// ```
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { path: absolute(path.into()), name: name.into(), reader: Reader::new() }
    }

    /// Takes the file from this user too, as [`SecretFile::trusting_owner`](super::SecretFile::trusting_owner) does.
    ///
    /// ```
    /// # use keysheath::source::DotenvFile;
    /// let source = DotenvFile::new(".env", "KANAL_API_KEY").trusting_owner(1000);
    /// ```
    #[must_use]
    pub fn trusting_owner(mut self, uid: u32) -> Self {
        self.reader.trust.owner = Some(uid);
        self
    }

    /// Takes a file that this group can write, as [`SecretFile::trusting_group`](super::SecretFile::trusting_group) does.
    ///
    /// ```
    /// # use keysheath::source::DotenvFile;
    /// let source = DotenvFile::new(".env", "KANAL_API_KEY").trusting_group(1000);
    /// ```
    #[must_use]
    pub fn trusting_group(mut self, gid: u32) -> Self {
        self.reader.trust.group = Some(gid);
        self
    }

    /// How long opening and reading may take; 30 s unless set.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::source::DotenvFile;
    /// let source = DotenvFile::new(".env", "KANAL_API_KEY").with_deadline(Duration::from_secs(2));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.reader.worker = self.reader.worker.with_deadline(deadline);
        self
    }

    fn place(&self, line: Option<usize>) -> Provenance {
        Provenance::Dotenv { path: self.path.clone(), name: self.name.clone(), line }
    }

    fn find(&self) -> Result<Reading, Problem> {
        Ok(match find_in_file(self.reader.read(&self.path, MAX_DOTENV)?, &self.name)? {
            InFile::NoFile => Reading::absent(Absence::NoFile),
            InFile::NotSet => Reading::absent(Absence::NotInFile),
            InFile::Set { text, .. } if text.bytes().is_empty() => Reading::absent(Absence::EmptyVariable),
            InFile::Set { line, text, remarks } => {
                Reading::present(text).with_remarks(remarks).with_provenance(self.place(Some(line)))
            }
        })
    }
}

/// What a file has of a variable.
enum InFile {
    NoFile,
    NotSet,
    Set { line: usize, text: SecretText, remarks: Vec<Remark> },
}

fn find_in_file(file: FileText, name: &str) -> Result<InFile, Problem> {
    let Some((text, remarks)) = file else {
        return Ok(InFile::NoFile);
    };
    let mut text = text.without_mark_and_newline();
    // The parser refuses a last line that ends in a space and not in a newline.
    text.append(b"\n");
    Ok(match find_variable(text.bytes(), name)? {
        None => InFile::NotSet,
        Some((line, text)) => InFile::Set { line, text, remarks },
    })
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
    // The parser skips all of Unicode's white space, and stops at what is not UTF-8.
    let is_entry = |line: &&[u8]| {
        std::str::from_utf8(line)
            .map(str::trim_start)
            .map_or(true, |line| !line.is_empty() && !line.starts_with('#'))
    };
    let rest = lines.get(from..).unwrap_or_default();
    from + rest.iter().position(is_entry).unwrap_or(0)
}

/// Whether an entry's value is written as it was read: after the `=` and white space, alone or in a pair of
/// quotation marks, and followed by the end or white space. Substitution and escapes fail this, whatever they
/// yield.
fn stands_literally(entry: &[&[u8]], value: &[u8]) -> bool {
    let Some(written) = written_value(entry) else {
        return false;
    };
    let body = written.trim_ascii_start();
    let is_apart = body.len() < written.len();
    if value.is_empty() && (body.is_empty() || (is_apart && body.starts_with(b"#"))) {
        return true;
    }
    let after = match body.first() {
        Some(quote @ (b'\'' | b'"')) => {
            body[1..].strip_prefix(value).and_then(|after| after.strip_prefix(&[*quote]))
        }
        _ => body.strip_prefix(value).filter(|_| !value.is_empty()),
    };
    after.is_some_and(|after| after.first().is_none_or(u8::is_ascii_whitespace))
}

/// What follows the first `=` of an entry's first line.
fn written_value<'a>(entry: &[&'a [u8]]) -> Option<&'a [u8]> {
    let line = entry.first()?;
    let equals = line.iter().position(|&byte| byte == b'=')?;
    Some(&line[equals + 1..])
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
        // Nothing is to be substituted: lines that name each other would double the text with each of them, and
        // process variables would be read. A value with a `$` is then not what is written, and refused. (An `n` may
        // follow a backslash, as a `$` may.)
        for (place, &byte) in buffer.iter_mut().zip(now) {
            *place = if byte == b'$' { b'n' } else { byte };
        }
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
        let text = "\u{3000}# K=old\nK=abc\n";
        assert_eq!(find(text), Ok(Some((2, "abc".to_owned()))));
        for text in ["K=", "K=\n", "K=''\n", "K=\"\"\n", "K= # none\n", "K='' # none\n"] {
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
            "K='abc'$OTHER\n",
            "K='abc'''\n",
            "K=#abc\n",
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
