//! Opening a file that may be swapped at any moment, the checks on what was opened, and reading it within the
//! deadline.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Problem, Reader, Remark};
use crate::internal::bytes::{WipedBytes, read_at_most};
use crate::internal::calls::Turn;
use crate::internal::files::{self, FileProblem, Kind, check_trusted};
use crate::internal::panics::Lock;
use crate::source::Resource;

/// A text and remarks, or nothing.
pub(in crate::source) type FileText = Option<(WipedBytes, Vec<Remark>)>;

/// How often a file in a transient state (behind a link that leads nowhere, or removed while it was opened)
/// is opened again. Kubernetes swaps a link and removes its old target, so a path can lead nowhere for an
/// instant.
const ATTEMPTS: u32 = 10;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens, checks and reads a file. `None` where there is no file. May hang.
pub(super) fn read(path: &Path, reader: &Reader, limit: usize, turn: &Turn) -> Result<FileText, Problem> {
    let too_late = |problem| match problem {
        FileProblem::Unreadable(io::ErrorKind::TimedOut) => turn.too_late().into(),
        problem => Problem::File(problem),
    };
    let pipe = path.metadata().ok().filter(is_pipe);
    // Held until the file is closed: the first variable is dropped last.
    let _alone = pipe
        .map(|pipe| Alone::with(&pipe, turn.rest()))
        .transpose()
        .map_err(|error| too_late(FileProblem::Unreadable(error.kind())))?;
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
            if text.is_empty() {
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
    /// Whether it no longer has a name, and no other file will take its place.
    is_unlinked: bool,
}

/// Opens a file that has a name. One that was replaced while it was opened is opened again. If the path still
/// leads to the same nameless file, it is a mount of that file alone, or a descriptor.
fn open_to_stay(path: &Path) -> Result<Option<Opened>, Problem> {
    let mut nameless = None;
    for _ in 0..ATTEMPTS {
        let Some(file) = open(path)? else { return Ok(None) };
        let metadata = file.metadata().map_err(FileProblem::of_reading)?;
        match nameless_id(&metadata) {
            None => return Ok(Some(Opened { file, metadata, is_unlinked: false })),
            id if id == nameless => return Ok(Some(Opened { file, metadata, is_unlinked: true })),
            id => nameless = id,
        }
        thread::sleep(PAUSE);
    }
    Err(FileProblem::DanglingLink.into())
}

/// The device and the inode of a regular file without a name.
#[cfg(unix)]
fn nameless_id(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.is_file() && metadata.nlink() == 0).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
const fn nameless_id(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Opens a file; `None` if there is certainly none.
fn open(path: &Path) -> Result<Option<File>, Problem> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let before = Way::to(path);
        match files::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Problem::BadPath { rule: "a path has no NUL byte" });
            }
            // A socket cannot be opened; only its type shows why.
            Err(error) => {
                return Err(match path.metadata() {
                    Ok(metadata) if !metadata.is_file() && !is_pipe(&metadata) => {
                        FileProblem::NotAFile.into()
                    }
                    _ => Resource::of(&error)
                        .map_or(FileProblem::Unreadable(error.kind()).into(), Problem::Exhausted),
                });
            }
            Ok(file) => return Ok(Some(file)),
        }
        // A link whose target changed may have led nowhere in between.
        if matches!((&before, Way::to(path)), (Way::EndsAt(before), Way::EndsAt(after)) if *before == after) {
            return Ok(None);
        }
    }
    Err(FileProblem::DanglingLink.into())
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
    /// To this directory, resolved, and no further; the next component does not exist.
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
    let kind = check_trusted(metadata, reader.trust)?;
    let remarks = check_readers(metadata, reader.is_strict)?;
    if metadata.len() > limit as u64 {
        return Err(FileProblem::TooLarge { limit }.into());
    }
    Ok((kind, remarks))
}

#[cfg(unix)]
fn check_readers(metadata: &Metadata, is_strict: bool) -> Result<Vec<Remark>, FileProblem> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o777;
    if is_strict && mode & 0o077 != 0 {
        return Err(FileProblem::ReadableByOthers { mode });
    }
    let mut remarks = Vec::new();
    if mode & 0o004 != 0 {
        remarks.push(Remark::ReadableByOthers { mode });
    }
    Ok(remarks)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn check_readers(_: &Metadata, _: bool) -> Result<Vec<Remark>, FileProblem> {
    Ok(Vec::new())
}

/// Reads to the end into one block. More than `limit` bytes are an error, whatever the size of the file was.
pub(in crate::source) fn read_bounded(reader: impl Read, limit: usize) -> Result<WipedBytes, FileProblem> {
    let text = read_at_most(reader, limit).map_err(FileProblem::of_reading)?;
    text.ok_or(FileProblem::TooLarge { limit })
}

/// The interval of reads from a pipe that has nothing.
const LOOK: Duration = Duration::from_millis(5);

/// The exclusive right of a thread to read a pipe, taken before it is opened: two readers would each get a
/// part of the text and take it for the whole. Other processes are not excluded.
struct Alone {
    id: Id,
}

/// The device and the inode of a pipe.
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

/// A pipe that was opened without waiting for a writer. Its reads wait for one, and fail with
/// [`ErrorKind::TimedOut`] at the deadline, so no thread hangs in one.
struct Pipe {
    file: File,
    /// `None` if it is beyond the range of the clock.
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
                // Until a writer has opened a FIFO, a read returns its end.
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

/// Whether it is an anonymous pipe, such as a shell's `<(…)`. Its writer existed before it was opened here.
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
