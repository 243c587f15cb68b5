//! The file of the records, its lock, and the checks of both before SQLite opens them.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::schema;
use crate::internal::files::FileProblem;
use crate::internal::files::private::{self, FileId, FileLock, LOCK, NEW, look, resolve, with_end};
use crate::registry::RecordError;

/// The length of a database's header (<https://www.sqlite.org/fileformat2.html#the_database_header>).
const HEADER: usize = 100;

/// How many attempts to take the lock are made. A child process that was just started holds this process's
/// open files, and so a lock that was just released, until it executes another program.
const LOCK_TRIES: u32 = 20;

/// How long to wait between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The largest size of empty records, in bytes.
const MAX_NEW: usize = 1 << 20;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file that was checked and that no other registry has open.
#[derive(Debug)]
pub(super) struct RecordFile {
    /// Without symbolic links in its folder, so that each file has one lock.
    path: PathBuf,
    id: FileId,
    /// The write-ahead log, once SQLite has it open.
    log: OnceLock<FileId>,
    _lock: FileLock,
}

impl RecordFile {
    /// Opens an existing file. Creates nothing, and does not change a file that is refused.
    pub(super) fn open(path: &Path) -> Result<Self, RecordError> {
        private::refuse_reserved(path)?;
        let path = resolve(path)?;
        match look(&path) {
            // The second name may be the temporary one; the file is checked again with the lock.
            Err(FileProblem::Linked) => {}
            found => _ = found?.ok_or(RecordError::Missing)?,
        }
        let lock = take_lock(&path)?;
        unlink_new(&path)?;
        look(&path)?.ok_or(RecordError::Missing)?;
        Self::check(path, lock)
    }

    /// Creates a file, which `fill` makes into empty records. The path has all of it, or nothing.
    pub(super) fn create(
        path: &Path,
        fill: impl FnOnce(&Path) -> Result<(), RecordError>,
    ) -> Result<Self, RecordError> {
        private::refuse_reserved(path)?;
        let path = resolve(path)?;
        is_free(&path)?;
        let lock = take_lock(&path)?;
        is_free(&path)?;
        let new = with_end(&path, NEW);
        if !private::remove_left_over(&new, MAX_NEW, may_begin).map_err(|error| from_io(&error))? {
            return Err(RecordError::Exists);
        }
        remove(&new)?;
        private::options().create_new(true).open(&new).map_err(|error| from_io(&error))?;
        let made = fill(&new).and_then(|()| publish(&new, &path).map_err(|error| from_io(&error)));
        let removed = remove(&new);
        made.and(removed)?;
        Self::check(path, lock)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether there is a write-ahead log beside the file: the previous process was killed.
    pub(super) fn has_log(&self) -> bool {
        with_end(&self.path, "-wal").metadata().is_ok_and(|log| log.len() > 0)
    }

    /// Notes which file is the write-ahead log. SQLite has it open since the first read in this mode.
    pub(super) fn note_log(&self) -> Result<(), RecordError> {
        let log = look(&with_end(&self.path, "-wal"))?.ok_or(RecordError::LogGone)?;
        let _ = self.log.set(FileId::of(&log));
        Ok(())
    }

    /// Checks that the paths still lead to the file that was opened and to its log. Writes to one that was
    /// removed or replaced would be lost. Opens neither: closing it would release SQLite's own lock.
    pub(super) fn is_in_place(&self) -> Result<(), RecordError> {
        let is_there = |path: &Path, id: &FileId| {
            path.symlink_metadata().is_ok_and(|metadata| FileId::of(&metadata) == *id)
        };
        if !is_there(&self.path, &self.id) {
            return Err(RecordError::Missing);
        }
        match self.log.get() {
            Some(log) if !is_there(&with_end(&self.path, "-wal"), log) => Err(RecordError::LogGone),
            _ => Ok(()),
        }
    }

    fn check(path: PathBuf, lock: FileLock) -> Result<Self, RecordError> {
        for end in ["-wal", "-shm", "-journal"] {
            look(&with_end(&path, end))?;
        }
        let mut file = private::options().open(&path).map_err(|error| from_io(&error))?;
        let metadata = file.metadata().map_err(|error| from_io(&error))?;
        private::check(&metadata)?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => RecordError::Corrupt,
            kind => FileProblem::Unreadable(kind).into(),
        })?;
        check_header(&header)?;
        Ok(Self { path, id: FileId::of(&metadata), log: OnceLock::new(), _lock: lock })
    }
}

fn check_header(header: &[u8; HEADER]) -> Result<(), RecordError> {
    let number = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if !header.starts_with(MAGIC) {
        return Err(RecordError::Corrupt);
    }
    schema::check_version(number(68).into(), number(60).into())
}

/// Takes the lock, which is on a file beside the records.
fn take_lock(path: &Path) -> Result<FileLock, RecordError> {
    let path = with_end(path, LOCK);
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = FileLock::try_take(&path)? {
            return Ok(lock);
        }
        thread::sleep(LOCK_PAUSE);
    }
    Err(RecordError::Locked)
}

/// Returns whether these bytes may be the beginning of unfinished records.
fn may_begin(bytes: &[u8]) -> bool {
    bytes.iter().zip(MAGIC).all(|(byte, expected)| byte == expected)
}

/// Removes the temporary name of records whose process was killed while it published them: they have two
/// names.
fn unlink_new(path: &Path) -> Result<(), RecordError> {
    let new = with_end(path, NEW);
    let id = |path: &Path| path.symlink_metadata().map(|metadata| FileId::of(&metadata));
    match (id(&new), id(path)) {
        (Ok(left), Ok(there)) if left == there && cfg!(unix) => remove(&new),
        _ => Ok(()),
    }
}

/// Checks that new records may be created at a path. An old log there would be played into them.
fn is_free(path: &Path) -> Result<(), RecordError> {
    for end in ["", "-wal", "-journal"] {
        match with_end(path, end).symlink_metadata() {
            Ok(_) => return Err(RecordError::Exists),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(FileProblem::Unreadable(error.kind()).into()),
        }
    }
    Ok(())
}

/// Gives a complete file its name, unless that name exists by now, and syncs both to the disk.
fn publish(new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::hard_link(new, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes an unpublished database.
fn remove(new: &Path) -> Result<(), RecordError> {
    for end in ["", "-wal", "-journal"] {
        match fs::remove_file(with_end(new, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(from_io(&error)),
            _ => {}
        }
    }
    Ok(())
}

fn from_io(error: &io::Error) -> RecordError {
    match error.kind() {
        ErrorKind::NotFound => RecordError::Missing,
        ErrorKind::AlreadyExists => RecordError::Exists,
        kind => FileProblem::of_writing(kind).into(),
    }
}
