//! Lines at the end of a file.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::{AuditError, DEADLINE};
use crate::internal::calls::{Caller, Target};
use crate::internal::paths::absolute;
use crate::internal::private_file;

/// How each line begins.
pub(super) const BEGIN: &str = "{\"at\":\"";

pub(super) struct AuditFile {
    path: PathBuf,
    worker: Caller,
}

impl AuditFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: absolute(path), worker: Caller::new().with_deadline(DEADLINE) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, and returns once it is synced.
    pub(super) fn append(&self, line: String) -> Result<(), AuditError> {
        let path = self.path.clone();
        self.worker.run(Target::of("audit file", &self.path), move || append(&path, line))?
    }
}

fn append(path: &Path, line: String) -> Result<(), AuditError> {
    private_file::refuse_reserved(path)?;
    let path = private_file::resolve(path)?;
    let is_new = private_file::look(&path)?.is_none();
    let wrong = |error: std::io::Error| AuditError::of_writing(error.kind());
    let mut file = private_file::options().append(true).create(true).open(&path).map_err(wrong)?;
    private_file::check(&file.metadata().map_err(wrong)?)?;
    // Held until the file is closed: what another process has written in part is not taken for a line that was cut.
    lock(&file).map_err(wrong)?;
    if !is_audit(&mut file).map_err(wrong)? {
        return Err(AuditError::NotAnAudit);
    }
    let mut bytes = line.into_bytes();
    bytes.push(b'\n');
    if is_cut(&mut file).map_err(wrong)? {
        bytes.insert(0, b'\n');
    }
    // One write: whoever is killed leaves the whole line or none, but for a full disk.
    let count = loop {
        match file.write(&bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => break written.map_err(wrong)?,
        }
    };
    if count < bytes.len() {
        return Err(AuditError::Full);
    }
    file.sync_data().map_err(wrong)?;
    if is_new { sync_folder(&path).map_err(wrong) } else { Ok(()) }
}

/// Whether the file is empty, or begins as the first line of an audit does, which may have been cut.
fn is_audit(file: &mut File) -> std::io::Result<bool> {
    let mut bytes = Vec::with_capacity(BEGIN.len());
    file.seek(SeekFrom::Start(0))?;
    file.take(BEGIN.len() as u64).read_to_end(&mut bytes)?;
    Ok(BEGIN.as_bytes().starts_with(&bytes))
}

/// Whether the last line has no end.
fn is_cut(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

#[cfg(unix)]
fn lock(file: &File) -> std::io::Result<()> {
    use rustix::fs::{FlockOperation, flock};

    Ok(flock(file, FlockOperation::LockExclusive)?)
}

/// Appending is all there is; a line that another process has in hand may be taken for one that was cut, and then an
/// empty line follows it.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn lock(_: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A folder cannot be opened there.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}
