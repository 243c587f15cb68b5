//! The file of the records, its lock, and what must be true of both before SQLite sees them.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::thread;
#[cfg(unix)]
use std::time::Duration;

use super::schema;
use crate::registry::RecordError;

/// The length of a database's header (<https://www.sqlite.org/fileformat2.html#the_database_header>).
const HEADER: usize = 100;

/// How often the lock is tried for. A process that this one has just started holds what this one had open, and so a lock
/// that was given up a moment ago, until it becomes another program.
#[cfg(unix)]
const LOCK_TRIES: u32 = 20;

/// How long to wait between two of them.
#[cfg(unix)]
const LOCK_PAUSE: Duration = Duration::from_millis(10);

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file that was checked and that no other registry has.
#[derive(Debug)]
pub(super) struct Place {
    /// With a folder that has no link in it, so that each file has one lock.
    path: PathBuf,
    id: FileId,
    _lock: Lock,
}

impl Place {
    /// An existing file. Nothing is made where there is none, and what is refused is not changed.
    pub(super) fn open(path: &Path) -> Result<Self, RecordError> {
        let path = resolve(path)?;
        look(&path)?.ok_or(RecordError::Missing)?;
        let lock = Lock::take(&path)?;
        Self::check(path, lock)
    }

    /// A new file, which `fill` makes into empty records. The path holds all of it, or nothing.
    pub(super) fn create(
        path: &Path,
        fill: impl FnOnce(&Path) -> Result<(), RecordError>,
    ) -> Result<Self, RecordError> {
        let path = resolve(path)?;
        is_free(&path)?;
        let lock = Lock::take(&path)?;
        is_free(&path)?;
        // What a process that was killed has left; nobody else is here.
        let new = with_end(&path, ".new");
        remove(&new)?;
        private_options().create_new(true).open(&new).map_err(|error| from_io(&error))?;
        let made = fill(&new).and_then(|()| publish(&new, &path).map_err(|error| from_io(&error)));
        let removed = remove(&new);
        made.and(removed)?;
        Self::check(path, lock)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a write-ahead log lies beside the file: the process before this one was killed.
    pub(super) fn has_log(&self) -> bool {
        with_end(&self.path, "-wal").metadata().is_ok_and(|log| log.len() > 0)
    }

    /// Says whether the path still leads to the file that was opened. One that was removed or replaced would take writes
    /// that nobody reads again. It is not opened for that: closing it would give up SQLite's own lock.
    pub(super) fn is_in_place(&self) -> Result<(), RecordError> {
        let there = self.path.symlink_metadata().map(|metadata| FileId::of(&metadata));
        if there.is_ok_and(|there| there == self.id) { Ok(()) } else { Err(RecordError::Missing) }
    }

    fn check(path: PathBuf, lock: Lock) -> Result<Self, RecordError> {
        for end in ["-wal", "-shm", "-journal"] {
            look(&with_end(&path, end))?;
        }
        let mut file = private_options().open(&path).map_err(|error| from_io(&error))?;
        let id = check_private(&file.metadata().map_err(|error| from_io(&error))?)?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => RecordError::Corrupt,
            kind => RecordError::Io(kind),
        })?;
        check_header(&header)?;
        Ok(Self { path, id, _lock: lock })
    }
}

fn check_header(header: &[u8; HEADER]) -> Result<(), RecordError> {
    let number = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if !header.starts_with(MAGIC) {
        return Err(RecordError::Corrupt);
    }
    schema::check_version(number(68).into(), number(60).into())
}

/// The one process that may use the file: an exclusive lock on a file beside it, which is never renamed or removed. The
/// system gives it up when the process ends, however it ends.
///
/// Elsewhere than on Unix, SQLite's lock is the only one; there it holds within a process as well.
#[derive(Debug)]
struct Lock {
    #[cfg(unix)]
    _file: File,
}

impl Lock {
    #[cfg(unix)]
    fn take(path: &Path) -> Result<Self, RecordError> {
        use rustix::fs::{FlockOperation, flock};

        let path = with_end(path, ".lock");
        look(&path)?;
        let file = private_options().create(true).open(&path).map_err(|error| from_io(&error))?;
        check_private(&file.metadata().map_err(|error| from_io(&error))?)?;
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
                Err(other) => return Err(from_io(&other.into())),
            }
        }
        Err(RecordError::Locked)
    }

    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
    fn take(_: &Path) -> Result<Self, RecordError> {
        Ok(Self {})
    }
}

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl FileId {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device_and_inode: (metadata.dev(), metadata.ino()) }
    }

    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Self {
        Self {}
    }
}

/// The path with its folder resolved.
fn resolve(path: &Path) -> Result<PathBuf, RecordError> {
    let name = path.file_name().ok_or(RecordError::NotPrivate)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => RecordError::NoFolder,
        kind => RecordError::Io(kind),
    })?;
    if folder.is_dir() { Ok(folder.join(name)) } else { Err(RecordError::NoFolder) }
}

/// What lies at a path, if anything does: a link is not followed.
fn look(path: &Path) -> Result<Option<FileId>, RecordError> {
    match path.symlink_metadata() {
        Ok(metadata) => check_private(&metadata).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecordError::Io(error.kind())),
    }
}

/// Whether new records may be made at a path. A log that was left behind there would be played into them.
fn is_free(path: &Path) -> Result<(), RecordError> {
    for end in ["", "-wal", "-journal"] {
        match with_end(path, end).symlink_metadata() {
            Ok(_) => return Err(RecordError::Exists),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(RecordError::Io(error.kind())),
        }
    }
    Ok(())
}

fn check_private(metadata: &Metadata) -> Result<FileId, RecordError> {
    if !metadata.is_file() {
        return Err(RecordError::NotPrivate);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_own || metadata.mode() & 0o077 != 0 {
            return Err(RecordError::NotPrivate);
        }
    }
    Ok(FileId::of(metadata))
}

/// Reading and writing, nobody else's when it is made, and never through a link.
fn private_options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;

        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

/// Gives a complete file its name, unless something has that name by now, and has both written to the disk.
fn publish(new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::hard_link(new, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes a database that was to become the records.
fn remove(new: &Path) -> Result<(), RecordError> {
    for end in ["", "-wal", "-journal"] {
        match fs::remove_file(with_end(new, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(from_io(&error)),
            _ => {}
        }
    }
    Ok(())
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(end);
    path.into()
}

fn from_io(error: &io::Error) -> RecordError {
    match error.kind() {
        ErrorKind::NotFound => RecordError::Missing,
        ErrorKind::AlreadyExists => RecordError::Exists,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull => {
            RecordError::ReadOnly
        }
        kind => RecordError::Io(kind),
    }
}
