//! Opening a file that may be swapped at any moment, the checks on what was opened, and reading it within the
//! deadline.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::{Absence, Problem, Reading, Remark, Resource};
use crate::internal::bytes::{WipedBytes, read_at_most, read_of_length, wipe_stack};
use crate::internal::calls::{CallError, Caller, Target, Turn};
use crate::internal::files::private::Stamp;
use crate::internal::files::{self, FileProblem, Kind, Trust, check_trusted, rule_broken_by};
use crate::internal::threads::Lock;

/// A text, remarks, and the stamp of the file if it lasts; or nothing.
pub(super) type FileText = Option<(WipedBytes, Vec<Remark>, Option<Stamp>)>;

/// The largest key file that is read, in bytes: the longest key in base64, and a little more.
pub(super) const MAX_SECRET_FILE: usize = 8192;

/// The settings of the file that a source reads through its field `reader`.
macro_rules! file_settings {
    ($source:ident) => {
        impl $source {
            /// Also accepts a file that belongs to this user, by number.
            ///
            /// That user can put another key there, and so choose the account that receives the data: name
            /// the one that Docker Compose's host file or a sidecar's belongs to. In a user namespace, 65534
            /// stands for every user that has no number of its own there.
            #[must_use]
            pub fn with_trusted_owner(mut self, uid: u32) -> Self {
                self.reader.trust.owner = Some(uid);
                self
            }

            /// Also accepts a file that this group, by number, can write. Each of its members can put another
            /// key there.
            #[must_use]
            pub fn with_trusted_group(mut self, gid: u32) -> Self {
                self.reader.trust.group = Some(gid);
                self
            }

            /// Sets how long opening and reading the file may take; a network mount may hang. The default is
            /// 30 s.
            #[must_use]
            pub fn with_deadline(mut self, deadline: std::time::Duration) -> Self {
                self.reader.worker = self.reader.worker.with_deadline(deadline);
                self
            }
        }
    };
}
pub(super) use file_settings;

/// How long after the deadline a pipe may take to see it.
const TIME_TO_END: Duration = Duration::from_millis(100);

/// How files are read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// Whether neither group nor others may read the file. That they may is otherwise a remark.
    pub(super) is_strict: bool,
    pub(super) trust: Trust,
    pub(super) worker: Caller,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self {
            is_strict: false,
            trust: Trust { owner: None, group: None },
            worker: Caller::new().on_kept_threads(),
        }
    }

    /// Opens, checks and reads a file whose path went through [`absolute`]. `None` where there is no file.
    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<FileText, Problem> {
        self.read_after(path, limit, |_| ())
    }

    /// As [`Reader::read`], and calls `first` with the path before it is opened, on the same thread: it may
    /// hang too.
    pub(super) fn read_after(
        &self,
        path: &Path,
        limit: usize,
        first: impl FnOnce(&Path) + Send + 'static,
    ) -> Result<FileText, Problem> {
        if let Some(rule) = rule_broken_by(path) {
            return Err(Problem::BadPath { rule });
        }
        let (own, asked) = (self.clone(), WipedPath::from(path.to_path_buf().into_os_string()));
        let outcome = self.worker.run_with(Target::of("file", &path), TIME_TO_END, move |turn| {
            first(&asked);
            // What it left of the path on the stack would reach the heap in the unused bytes of the outcome.
            wipe_stack();
            read(&asked, &own, limit, turn)
        });
        match outcome.map_err(Problem::from).and_then(|file| file) {
            // A file has no prompt to answer.
            Err(Problem::Call(CallError::Deadline { after })) => Err(Problem::Slow { after }),
            Ok(None) => unexpanded(path).map_or(Ok(None), |rule| Err(Problem::BadPath { rule })),
            outcome => outcome,
        }
    }
}

/// Why a file that a shell would have found is missing.
fn unexpanded(path: &Path) -> Option<&'static str> {
    let mut parts = path.iter().map(std::ffi::OsStr::as_encoded_bytes);
    let is_variable = |part: &[u8]| match part {
        [b'$', first, ..] => first.is_ascii_alphabetic() || matches!(first, b'_' | b'{' | b'('),
        [b'%', .., b'%'] => part.len() > 2,
        _ => false,
    };
    parts.any(|part| part == b"~" || is_variable(part)).then_some(
        "there is no such file, and no shell expands ~ or a variable here: write the directory itself",
    )
}

pub(super) fn reading(file: FileText, absence: Absence) -> Reading {
    match file {
        None => Reading::absent(absence),
        Some((text, remarks, _)) => Reading::of_wiped(text).with_remarks(remarks),
    }
}

/// A path that is wiped when dropped: it may be a key that was put in the place of a path.
pub(super) struct WipedPath(PathBuf);

impl From<OsString> for WipedPath {
    fn from(path: OsString) -> Self {
        Self(path.into())
    }
}

impl Deref for WipedPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for WipedPath {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_os_string().into_encoded_bytes().zeroize();
    }
}

/// How often a file in a transient state (behind a link that leads nowhere, or removed while it was opened)
/// is opened again. Kubernetes swaps a link and removes its old target, so a path can lead nowhere for an
/// instant.
const ATTEMPTS: u32 = 10;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens, checks and reads a file. `None` where there is no file. May hang.
fn read(path: &Path, reader: &Reader, limit: usize, turn: &Turn) -> Result<FileText, Problem> {
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
    let stamp = Stamp::lasting(&file, &metadata);
    let text = match kind {
        Kind::Regular => bounded(read_of_length(file, metadata.len(), limit), limit)?,
        Kind::Pipe => {
            remarks.push(Remark::Pipe);
            let text = read_bounded(Pipe::new(file, turn.rest()), limit).map_err(too_late)?;
            if text.is_empty() {
                return Err(Problem::EmptyPipe);
            }
            text
        }
    };
    Ok(Some((text, remarks, stamp)))
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
    // Most files are there, and the way to them is of no interest.
    if let Some(file) = open_once(path)? {
        return Ok(Some(file));
    }
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let before = Way::to(path);
        if let Some(file) = open_once(path)? {
            return Ok(Some(file));
        }
        // A link whose target changed may have led nowhere in between.
        if matches!((&before, Way::to(path)), (Way::EndsAt(before), Way::EndsAt(after)) if *before == after) {
            return Ok(None);
        }
    }
    Err(FileProblem::DanglingLink.into())
}

/// Opens a file; `None` if the path leads to none at the moment.
fn open_once(path: &Path) -> Result<Option<File>, Problem> {
    match files::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(Problem::BadPath { rule: "a path has no NUL byte" })
        }
        // A socket cannot be opened; only its type shows why.
        Err(error) => Err(match path.metadata() {
            Ok(metadata) if !metadata.is_file() && !is_pipe(&metadata) => FileProblem::NotAFile.into(),
            _ => {
                Resource::of(&error).map_or(FileProblem::Unreadable(error.kind()).into(), Problem::Exhausted)
            }
        }),
    }
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
pub(super) fn read_bounded(reader: impl Read, limit: usize) -> Result<WipedBytes, FileProblem> {
    bounded(read_at_most(reader, limit), limit)
}

fn bounded(read: io::Result<Option<WipedBytes>>, limit: usize) -> Result<WipedBytes, FileProblem> {
    read.map_err(FileProblem::of_reading)?.ok_or(FileProblem::TooLarge { limit })
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
