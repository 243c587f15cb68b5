//! One variable of a `.env` file.

mod find;
mod lines;

use std::path::PathBuf;
use std::time::Duration;

use super::file::{FileText, Reader};
use super::{Absence, Problem, Provenance, Reading, Remark, SecretText, Source, SourceError};
use crate::internal::paths::absolute;
use crate::key::{Hint, Profile};

/// The largest `.env` that is read, in bytes.
const MAX_DOTENV: usize = 256 * 1024;

/// One variable of a `.env` file. No process variable is set or substituted, and no parent folder is searched.
///
/// The file goes through the checks of [`SecretFile`](super::SecretFile), and is read by a reader of this crate's own.
/// `.env` has no specification, and the programs that read such files disagree, so:
///
/// - The key's line must be one that python-dotenv and Node's `util.parseEnv` read alike: `NAME=value`, with `export ` before
///   it or not, plain spaces around, the value alone or in one pair of single or double quotes, and a comment after a space
///   and a `#`. The name's case counts. Anything else is an error with the line and what to change
///   ([`LineFault`](super::LineFault)), and so is a variable that is set twice.
/// - The variable is absent only where no line begins with its name, whatever may be thought to end a line, and no key stands
///   alone on a line. A line that may be a part of another variable's quoted value is an error.
/// - Lines of other variables may be written as they like. Where programs read one of them differently, a
///   [`Remark`] names it.
/// - A variable that is set to nothing counts as not set.
///
/// In one case this reader finds what a program misses: Node 20 takes a byte order mark, and a line that has no `=` and is
/// neither empty nor starts with `#`, for a part of the name on the line after it, and stops at a line without a name.
///
/// # Security
/// A `.env` tends to be committed. A secret file of its own is better where you can choose.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{self, DotenvFile, Loaded};
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
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { path: absolute(path.into()), name: name.into(), reader: Reader::new() }
    }

    /// Takes the file from this user too, as [`SecretFile::trusting_owner`](super::SecretFile::trusting_owner) does.
    #[must_use]
    pub fn trusting_owner(mut self, uid: u32) -> Self {
        self.reader.trust.owner = Some(uid);
        self
    }

    /// Takes a file that this group can write, as [`SecretFile::trusting_group`](super::SecretFile::trusting_group) does.
    #[must_use]
    pub fn trusting_group(mut self, gid: u32) -> Self {
        self.reader.trust.group = Some(gid);
        self
    }

    /// How long opening and reading may take; 30 s unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.reader.worker = self.reader.worker.with_deadline(deadline);
        self
    }

    fn place(&self, line: Option<usize>) -> Provenance {
        Provenance::Dotenv { path: self.path.clone(), name: self.name.clone(), line }
    }

    fn find(&self, profile: &Profile) -> Result<Reading, Problem> {
        let file = self.reader.read(&self.path, MAX_DOTENV).map_err(|problem| match problem {
            Problem::TooLarge { limit } => Problem::DotenvTooLarge { limit },
            problem => problem,
        })?;
        Ok(match find_in_file(file, &self.name, profile)? {
            InFile::NoFile => Reading::absent(Absence::NoFile),
            InFile::NotSet { similar } => {
                Reading::absent(similar.map_or(Absence::NotInFile, |line| Absence::SimilarInFile { line }))
            }
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
    NotSet { similar: Option<usize> },
    Set { line: usize, text: SecretText, remarks: Vec<Remark> },
}

fn find_in_file(file: FileText, name: &str, profile: &Profile) -> Result<InFile, Problem> {
    let Some((text, mut remarks)) = file else {
        return Ok(InFile::NoFile);
    };
    let text = text.bytes();
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") || text.contains(&0) {
        return Err(Problem::NotText { hint: Hint::Nul });
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    // Only what is well-formed is screened: an error about each other line would be made with its hint.
    let is_key = |line: &[u8]| profile.format().accepts(line) && profile.format().screen(line).is_ok();
    Ok(match find::find(text, name, is_key)? {
        None => InFile::NotSet { similar: find::similar(text, name) },
        Some(found) => {
            remarks.extend(found.remark);
            let mut text = SecretText::with_capacity(found.value.len());
            text.append(found.value);
            InFile::Set { line: found.line, text, remarks }
        }
    })
}

impl Source for DotenvFile {
    fn provenance(&self) -> Provenance {
        self.place(None)
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        self.find(profile).map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}
