//! Files that are this user's alone, and locks on them.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::FileProblem;
use crate::internal::bytes::read_at_most;

/// The end of the name of a lock.
pub(crate) const LOCK: &str = ".lock";

/// The end of the name of a file that is to take another's place once it is whole.
pub(crate) const NEW: &str = ".keysheath-new";

/// How old a file must be before its times tell one write from the next: more than the coarsest clock of a
/// file system, which is FAT's, of two seconds.
const SETTLED: Duration = Duration::from_secs(3);

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

/// Which state of which file it is: another after each write, unless two came within [`SETTLED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    id: FileId,
    length: u64,
    modified: Option<SystemTime>,
    /// Seconds and nanoseconds. No program can set it.
    #[cfg(unix)]
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;

        Self {
            id: FileId::of(metadata),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later write has another stamp.
    #[cfg(unix)]
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        now.checked_sub(changed).is_some_and(|age| age > SETTLED)
    }

    /// Whether a later write has another stamp.
    #[cfg(not(unix))]
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let age = self.modified.and_then(|modified| now.duration_since(modified).ok());
        age.is_some_and(|age| age > SETTLED)
    }
}

/// The state of a file that was read: while the path leads to a file in this state, its content is the same.
#[derive(Clone)]
pub(crate) struct ReadState {
    path: PathBuf,
    stamp: Stamp,
}

impl ReadState {
    pub(crate) fn new(path: &Path, stamp: Stamp) -> Self {
        Self { path: path.into(), stamp }
    }

    /// Whether the path leads to a file in this state. May hang.
    #[cfg(feature = "rotation")]
    pub(crate) fn is_there(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }
}

impl fmt::Debug for ReadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadState")
    }
}

impl Stamp {
    /// Of an open file before it is read, if any later write shows in its stamp: not where it was written
    /// just now, nor where its file system is not known to keep its times on this machine.
    pub(crate) fn lasting(file: &File, metadata: &Metadata) -> Option<Self> {
        let stamp = Self::of(metadata);
        let shows = metadata.is_file() && stamp.is_settled(SystemTime::now()) && keeps_times(file);
        shows.then_some(stamp)
    }
}

/// Whether a file is on a file system that this kernel alone writes, so that what it says of a file is never
/// old: by the kernel's numbers (`linux/magic.h`, statfs(2)).
#[cfg(target_os = "linux")]
fn keeps_times(file: &File) -> bool {
    const LOCAL: [u32; 6] = [
        0x0000_ef53, // ext2, ext3 and ext4
        0x5846_5342, // XFS
        0x9123_683e, // Btrfs
        0xf2f5_2010, // F2FS
        0x0102_1994, // tmpfs
        0x794c_7630, // overlayfs, as of containers
    ];
    // The kernel's type is signed on some processors, and as wide as a long.
    rustix::fs::fstatfs(file)
        .is_ok_and(|system| LOCAL.iter().any(|&it| i128::from(it) == i128::from(system.f_type) & 0xffff_ffff))
}

#[cfg(not(target_os = "linux"))]
const fn keeps_times(_: &File) -> bool {
    false
}

/// Refuses names that end as those of keysheath's own files do: a file of such a name would be taken for a
/// lock, or for what an interrupted write has left.
pub(crate) fn refuse_reserved(path: &Path) -> Result<(), FileProblem> {
    let mut name = path.file_name().unwrap_or_default().as_encoded_bytes().to_ascii_lowercase();
    // Windows drops these, so that the name is the same without them.
    while cfg!(windows) && matches!(name.last(), Some(b'.' | b' ')) {
        name.pop();
    }
    let is_reserved = [LOCK, NEW].iter().any(|end| name.ends_with(end.as_bytes()));
    if is_reserved { Err(FileProblem::ReservedName) } else { Ok(()) }
}

/// Removes what an interrupted write has left at a path, and nothing else. False where something else is
/// there: a file that is not private, has more than `limit` bytes, or others than `may_begin` allows; what a
/// power cut leaves may also be zeros.
pub(crate) fn remove_left_over(
    path: &Path,
    limit: usize,
    may_begin: impl Fn(&[u8]) -> bool,
) -> io::Result<bool> {
    match look(path) {
        Ok(None) => return Ok(true),
        Ok(Some(_)) => {}
        Err(FileProblem::Unreadable(kind)) => return Err(kind.into()),
        Err(_) => return Ok(false),
    }
    let file = options().write(false).open(path)?;
    let Some(bytes) = read_at_most(file, limit)? else { return Ok(false) };
    if !(may_begin(&bytes) || bytes.iter().all(|&byte| byte == 0)) {
        return Ok(false);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

/// The path with its folder resolved.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, FileProblem> {
    let name = path.file_name().ok_or(FileProblem::NotPrivate)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileProblem::NoFolder,
        kind => FileProblem::Unreadable(kind),
    })?;
    if folder.is_dir() { Ok(folder.join(name)) } else { Err(FileProblem::NoFolder) }
}

/// What lies at a path, if anything does: a link is not followed.
pub(crate) fn look(path: &Path) -> Result<Option<Metadata>, FileProblem> {
    match path.symlink_metadata() {
        Ok(metadata) => check(&metadata).map(|()| Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileProblem::Unreadable(error.kind())),
    }
}

pub(crate) fn check(metadata: &Metadata) -> Result<(), FileProblem> {
    if !metadata.is_file() {
        return Err(FileProblem::NotPrivate);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_own || metadata.mode() & 0o077 != 0 {
            return Err(FileProblem::NotPrivate);
        }
        // None is what a file has that was just replaced.
        if metadata.nlink() > 1 {
            return Err(FileProblem::Linked);
        }
    }
    Ok(())
}

/// Options to read and write, with mode 600 for a new file, and never through a link.
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

/// An exclusive lock: on a file of its own, which is never renamed or removed. It holds between processes and
/// within one, and the system gives it up when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, or returns `None` if it is held. Creates the file if it is missing.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, FileProblem> {
        look(path)?;
        let Some(file) = open_locked(path).map_err(FileProblem::of_writing)? else {
            return Ok(None);
        };
        check(&file.metadata().map_err(FileProblem::of_reading)?)?;
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

/// Opens the file without sharing it.
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
