//! Where the events of a rotation go: a file of JSON lines, or a callback.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::audit::AuditEvent;
use crate::internal::calls::{CallError, Caller, Target};
use crate::internal::files::{FileProblem, absolute, private};
use crate::internal::panics::contained;

/// Where audit events go.
pub(super) enum AuditLog {
    File(AuditFile),
    Callback(Callback),
}

type Callback = Arc<dyn Fn(&AuditEvent) + Send + Sync>;

/// How long an audit may take for one event. A step that is done already is not delayed for longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why an event was not recorded. The step itself is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Something is wrong with the file. Where the disk is full, a part of the line may have been written.
    #[error("the audit file: {0}")]
    File(FileProblem),
    /// The file has other content, such as the document of the rotation.
    #[error(
        "the audit file contains something other than an audit, such as the keys themselves: name another \
         path, or move the file away; it was left as it is"
    )]
    NotAnAudit,
    /// It took too long. The line may still be written.
    #[error("the audit file did not take the line within {} ms: check its disk", .after.as_millis())]
    #[non_exhaustive]
    Slow {
        /// The deadline.
        after: Duration,
    },
    /// Too many earlier calls hang.
    #[error("the audit file cannot be reached, because earlier writes hang: check its disk")]
    Stuck,
    /// The callback took too long. It may still return.
    #[error(
        "the audit callback did not return within {} ms: pass the event on and return", .after.as_millis()
    )]
    #[non_exhaustive]
    CallbackSlow {
        /// The deadline.
        after: Duration,
    },
    /// The callback was not called, because earlier calls hang.
    #[error("the audit callback was not called, because earlier calls hang: pass the event on and return")]
    CallbackStuck,
    /// The callback panicked.
    #[error("the audit callback panicked: see its message on standard error, and correct it")]
    Panicked,
}

impl AuditLog {
    pub(super) fn file(path: PathBuf) -> Self {
        Self::File(AuditFile { path: absolute(path), caller: Caller::new().with_deadline(DEADLINE) })
    }

    pub(super) fn record(&self, event: &AuditEvent) -> Result<(), AuditError> {
        match self {
            Self::File(file) => file.append(event.to_json()),
            Self::Callback(function) => call(function, event),
        }
    }
}

fn call(function: &Callback, event: &AuditEvent) -> Result<(), AuditError> {
    let (called, event) = (Arc::clone(function), event.clone());
    let target = Target::of("audit callback", &Arc::as_ptr(function).cast::<()>());
    let returned = Caller::around_others().with_deadline(DEADLINE).run(target, move || {
        // The callback changes no state of this crate, so nothing can be left half-way.
        contained(|| called(&event)).ok_or(AuditError::Panicked)
    });
    returned.unwrap_or_else(|error| {
        Err(match error {
            CallError::Deadline { after } => AuditError::CallbackSlow { after },
            _ => AuditError::CallbackStuck,
        })
    })
}

impl From<FileProblem> for AuditError {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}

impl From<CallError> for AuditError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Deadline { after } | CallError::Queued { waited: after, .. } => Self::Slow { after },
            _ => Self::Stuck,
        }
    }
}

/// The beginning of each line.
const BEGIN: &str = "{\"at\":\"";

pub(super) struct AuditFile {
    path: PathBuf,
    caller: Caller,
}

impl AuditFile {
    /// Appends a line, and returns once it is synced.
    fn append(&self, line: String) -> Result<(), AuditError> {
        let path = self.path.clone();
        self.caller.run(Target::of("audit file", &self.path), move || append(&path, line))?
    }
}

fn append(path: &Path, line: String) -> Result<(), AuditError> {
    private::refuse_reserved(path)?;
    let path = private::resolve(path)?;
    let is_new = private::look(&path)?.is_none();
    let wrong = |error: std::io::Error| FileProblem::of_writing(error);
    let mut file = private::options().append(true).create(true).open(&path).map_err(wrong)?;
    private::check(&file.metadata().map_err(wrong)?)?;
    // Held until the file is closed: the partial write of another process is not mistaken for a cut line.
    lock(&file).map_err(wrong)?;
    if !is_audit(&mut file).map_err(wrong)? {
        return Err(AuditError::NotAnAudit);
    }
    let mut bytes = line.into_bytes();
    bytes.push(b'\n');
    if is_cut(&mut file).map_err(wrong)? {
        bytes.insert(0, b'\n');
    }
    // One write: a killed process leaves the whole line or none, except on a full disk.
    let count = loop {
        match file.write(&bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => break written.map_err(wrong)?,
        }
    };
    if count < bytes.len() {
        return Err(FileProblem::Full.into());
    }
    file.sync_data().map_err(wrong)?;
    if is_new { Ok(sync_folder(&path).map_err(wrong)?) } else { Ok(()) }
}

/// Whether the file is empty, or begins like the first line of an audit, which may have been cut.
fn is_audit(file: &mut File) -> std::io::Result<bool> {
    let mut bytes = Vec::with_capacity(BEGIN.len());
    file.seek(SeekFrom::Start(0))?;
    file.take(BEGIN.len() as u64).read_to_end(&mut bytes)?;
    Ok(BEGIN.as_bytes().starts_with(&bytes))
}

/// Whether the last line lacks its line break.
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

/// There is no lock: a line that another process is writing may be mistaken for a cut one, and then an empty
/// line follows it.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn lock(_: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A folder cannot be opened on this platform.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}
