//! Files that are this user's alone, and locks on them.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No regular file, another user's, or open to others.
    NotPrivate,
    /// The folder is not there.
    NoFolder,
    /// It could not be looked at.
    Unseen(ErrorKind),
    /// It could not be opened or locked.
    Unopened(ErrorKind),
}

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl FileId {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device_and_inode: (metadata.dev(), metadata.ino()) }
    }

    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Self {
        Self {}
    }
}

/// The path with its folder resolved.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, Refusal> {
    let name = path.file_name().ok_or(Refusal::NotPrivate)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Refusal::NoFolder,
        kind => Refusal::Unseen(kind),
    })?;
    if folder.is_dir() { Ok(folder.join(name)) } else { Err(Refusal::NoFolder) }
}

/// What lies at a path, if anything does: a link is not followed.
pub(crate) fn look(path: &Path) -> Result<Option<FileId>, Refusal> {
    match path.symlink_metadata() {
        Ok(metadata) => check(&metadata).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Refusal::Unseen(error.kind())),
    }
}

pub(crate) fn check(metadata: &Metadata) -> Result<FileId, Refusal> {
    if !metadata.is_file() {
        return Err(Refusal::NotPrivate);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_own || metadata.mode() & 0o077 != 0 {
            return Err(Refusal::NotPrivate);
        }
    }
    Ok(FileId::of(metadata))
}

/// Reading and writing, nobody else's when it is made, and never through a link.
pub(crate) fn options() -> OpenOptions {
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

pub(crate) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(end);
    path.into()
}

/// An exclusive lock: on a file of its own, which is never renamed or removed. It holds between processes and within one,
/// and the system gives it up when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, unless somebody has it. The file is made where there is none.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, Refusal> {
        look(path)?;
        let Some(file) = open_locked(path).map_err(|error| Refusal::Unopened(error.kind()))? else {
            return Ok(None);
        };
        check(&file.metadata().map_err(|error| Refusal::Unseen(error.kind()))?)?;
        Ok(Some(Self { _file: file }))
    }
}

#[cfg(unix)]
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{FlockOperation, flock};

    let file = options().create(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A file that is open and shared with nobody.
#[cfg(windows)]
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    use std::os::windows::fs::OpenOptionsExt as _;

    const ERROR_SHARING_VIOLATION: i32 = 32;
    match options().create(true).share_mode(0).open(path) {
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
        opened => opened.map(Some),
    }
}

#[cfg(not(any(unix, windows)))]
fn open_locked(_: &Path) -> io::Result<Option<File>> {
    Err(ErrorKind::Unsupported.into())
}
