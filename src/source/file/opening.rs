//! Opening a file that may be swapped at any moment, the checks on what was opened, and reading it within the
//! deadline.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Problem, Reader, Remark};
use crate::internal::calls::Turn;
use crate::internal::lock::Lock;
use crate::internal::trusted_file::{self, Kind, Untrusted};
use crate::source::{Resource, SecretText};

/// A text and remarks, or nothing.
pub(in crate::source) type FileText = Option<(SecretText, Vec<Remark>)>;

/// How often a file that cannot stay as it is (behind a link that leads nowhere, or removed while it was
/// opened) is opened again. Kubernetes swaps a link and removes what it led to, so a path can lead nowhere
/// for an instant.
const ATTEMPTS: u32 = 10;

/// How long to wait between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens, checks and reads a file. `None` where there is no file. May hang.
pub(super) fn read(path: &Path, reader: &Reader, limit: usize, turn: &Turn) -> Result<FileText, Problem> {
    let too_late = |problem| match problem {
        Problem::Unreadable(io::ErrorKind::TimedOut) => turn.too_late().into(),
        problem => problem,
    };
    let pipe = path.metadata().ok().filter(is_pipe);
    // Held until the file is closed: what is declared first is dropped last.
    let _alone = pipe
        .map(|pipe| Alone::with(&pipe, turn.rest()))
        .transpose()
        .map_err(|error| too_late(Problem::Unreadable(error.kind())))?;
    let Some(Opened { file, metadata, is_unlinked }) = open_to_stay(path)? else {
        return Ok(None);
    };
    let (kind, mut remarks) = check(&metadata, reader, limit)?;
    if is_unlinked {
        remarks.push(Remark::Unlinked);
    }
    let text = match kind {
        Kind::Regular => read_bounded(file, limit)?,
        Kind::Pipe => {
            remarks.push(Remark::Pipe);
            let text = read_bounded(Pipe::new(file, turn.rest()), limit).map_err(too_late)?;
            if text.bytes().is_empty() {
                return Err(Problem::EmptyPipe);
            }
            text
        }
    };
    Ok(Some((text, remarks)))
}

struct Opened {
    file: File,
    metadata: Metadata,
    /// Whether it has no name any more, and none will be given to another file in its place.
    is_unlinked: bool,
}

/// Opens a file that has a name. One that was replaced between its opening and the look at it is opened
/// again; where the path leads to the same nameless file still, it is a mount of that file alone, or a
/// descriptor.
fn open_to_stay(path: &Path) -> Result<Option<Opened>, Problem> {
    let mut nameless = None;
    for _ in 0..ATTEMPTS {
        let Some(file) = open(path)? else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| Problem::Unreadable(error.kind()))?;
        match nameless_id(&metadata) {
            None => return Ok(Some(Opened { file, metadata, is_unlinked: false })),
            id if id == nameless => return Ok(Some(Opened { file, metadata, is_unlinked: true })),
            id => nameless = id,
        }
        thread::sleep(PAUSE);
    }
    Err(Problem::DanglingLink)
}

/// The device and the number of a regular file without a name.
#[cfg(unix)]
fn nameless_id(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.is_file() && metadata.nlink() == 0).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
const fn nameless_id(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Opens a file; `None` where there is surely none.
fn open(path: &Path) -> Result<Option<File>, Problem> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let before = Way::to(path);
        match trusted_file::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Problem::BadPath { rule: "a path has no NUL byte" });
            }
            // A socket cannot be opened at all; only its kind says why.
            Err(error) => {
                return Err(match path.metadata() {
                    Ok(metadata) if !metadata.is_file() && !is_pipe(&metadata) => Problem::NotAFile,
                    _ => Resource::of(&error).map_or(Problem::Unreadable(error.kind()), Problem::Exhausted),
                });
            }
            Ok(file) => return Ok(Some(file)),
        }
        // A link that led elsewhere before than after may have led nowhere in between.
        if matches!((&before, Way::to(path)), (Way::EndsAt(before), Way::EndsAt(after)) if *before == after) {
            return Ok(None);
        }
    }
    Err(Problem::DanglingLink)
}

#[cfg(unix)]
fn is_pipe(metadata: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

#[cfg(not(unix))]
const fn is_pipe(_: &Metadata) -> bool {
    false
}

/// How far a path leads.
enum Way {
    /// To this folder, resolved, and no further; the next part of the path is not there.
    EndsAt(PathBuf),
    /// To its end, or to a link that leads nowhere.
    Open,
}

impl Way {
    fn to(path: &Path) -> Self {
        for part in path.ancestors() {
            match part.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) if part != path => {
                    return part.canonicalize().map_or(Self::Open, Self::EndsAt);
                }
                _ => return Self::Open,
            }
        }
        Self::Open
    }
}

fn check(metadata: &Metadata, reader: &Reader, limit: usize) -> Result<(Kind, Vec<Remark>), Problem> {
    let kind = trusted_file::check(metadata, reader.trust).map_err(|untrusted| match untrusted {
        Untrusted::NotAFile => Problem::NotAFile,
        Untrusted::ForeignOwner { uid } => Problem::ForeignOwner { uid },
        Untrusted::WritableByOthers { mode } => Problem::WritableByOthers { mode },
        Untrusted::WritableByGroup { mode, gid } => Problem::WritableByGroup { mode, gid },
    })?;
    let remarks = check_readers(metadata, reader.is_strict)?;
    if metadata.len() > limit as u64 {
        return Err(Problem::TooLarge { limit });
    }
    Ok((kind, remarks))
}

#[cfg(unix)]
fn check_readers(metadata: &Metadata, is_strict: bool) -> Result<Vec<Remark>, Problem> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o777;
    if is_strict && mode & 0o077 != 0 {
        return Err(Problem::ReadableByOthers { mode });
    }
    let mut remarks = Vec::new();
    if mode & 0o004 != 0 {
        remarks.push(Remark::ReadableByOthers { mode });
    }
    Ok(remarks)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn check_readers(_: &Metadata, _: bool) -> Result<Vec<Remark>, Problem> {
    Ok(Vec::new())
}

/// Reads all there is into one block; more than `limit` bytes are an error, whatever the size said before.
pub(in crate::source) fn read_bounded(mut reader: impl Read, limit: usize) -> Result<SecretText, Problem> {
    let mut text = SecretText::with_capacity(1024.min(limit + 1));
    let mut piece = zeroize::Zeroizing::new([0; 1024]);
    loop {
        match reader.read(&mut *piece) {
            Ok(0) => return Ok(text),
            Ok(count) if text.bytes().len() + count > limit => return Err(Problem::TooLarge { limit }),
            Ok(count) => text.append(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Problem::Unreadable(error.kind())),
        }
    }
}

/// How long to wait before a pipe that has nothing is looked at again.
const LOOK: Duration = Duration::from_millis(5);

/// The right to read a pipe, from before it is opened: two readers at once would divide what is written to
/// it, and each would take its part for the whole. Other processes are not kept off.
struct Alone {
    id: Id,
}

/// The device and the number of a pipe.
type Id = (u64, u64);

/// The pipes that are being read in this process.
static READ: Lock<Vec<Id>> = Lock::new(Vec::new());

impl Alone {
    /// Waits until no other thread reads the pipe. [`ErrorKind::TimedOut`] at the deadline.
    fn with(metadata: &Metadata, rest: Duration) -> io::Result<Self> {
        let (id, until) = (id(metadata), Instant::now().checked_add(rest));
        loop {
            let mut read = READ.lock();
            if !read.contains(&id) {
                read.push(id);
                return Ok(Self { id });
            }
            drop(read);
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        READ.lock().retain(|id| *id != self.id);
    }
}

#[cfg(unix)]
fn id(metadata: &Metadata) -> Id {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
const fn id(_: &Metadata) -> Id {
    (0, 0)
}

/// A pipe that was opened without waiting for who writes to it. Its reads wait for that, and fail with
/// [`ErrorKind::TimedOut`] at the deadline, so no thread is left in one.
struct Pipe {
    file: File,
    /// `None` beyond the clock.
    until: Option<Instant>,
    /// Whether something has written to it, or may have before it was opened.
    is_begun: bool,
}

impl Pipe {
    fn new(file: File, rest: Duration) -> Self {
        let is_begun = has_no_name(&file);
        Self { file, until: Instant::now().checked_add(rest), is_begun }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                // Before anything has opened a FIFO to write to it, a read is at its end.
                Ok(0) if !self.is_begun => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_begun = true,
                read => {
                    self.is_begun = true;
                    return read;
                }
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(LOOK);
        }
    }
}

/// Whether it is a pipe between processes, such as a shell's `<(…)`. What writes to it was there before us.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn has_no_name(file: &File) -> bool {
    const PIPEFS: u64 = 0x5049_5045;
    rustix::fs::fstatfs(file).is_ok_and(|system| u64::try_from(system.f_type) == Ok(PIPEFS))
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn has_no_name(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

#[cfg(not(unix))]
const fn has_no_name(_: &File) -> bool {
    true
}
