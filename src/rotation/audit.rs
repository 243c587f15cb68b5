//! Who did what, and when.

mod event;
mod file;

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::internal::calls::{CallError, Caller, Target};
use crate::internal::contained::contained;
use crate::internal::private_file::Refusal;

pub use event::{AuditAction, AuditEvent};

use file::AuditFile;

/// Where audit events go. Clones are the same place.
///
/// ```
/// use keysheath::rotation::AuditLog;
/// let log = AuditLog::callback(|event| println!("{event}"));
/// ```
#[derive(Clone)]
pub struct AuditLog(Sink);

#[derive(Clone)]
enum Sink {
    File(Arc<AuditFile>),
    Callback(Callback),
}

type Callback = Arc<dyn Fn(&AuditEvent) + Send + Sync>;

/// How long an audit may take for one event. A step that is done already is not held up for longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// An event was not written down. The step that it tells of is done all the same.
///
/// ```
/// use keysheath::rotation::AuditError;
/// assert!(AuditError::NoFolder.to_string().contains("make it"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A link, no regular file, another user's, or open to others.
    #[error(
        "the audit file must be a regular file of this user that nobody else can read or write, and no link: chmod 600 it"
    )]
    NotPrivate,
    /// It has a second name (a hard link), which may be that of something else.
    #[error("the audit file has another name too (a hard link): remove the other name, or name another path")]
    Linked,
    /// The name is like those of this crate's own files beside a document.
    #[error(
        "the names that end in .lock and .keysheath-new are those of keysheath's own files beside a \
         document: name another path for the audit"
    )]
    ReservedName,
    /// Something else is there, such as the document of the rotation.
    #[error(
        "the audit file holds something else than an audit, such as the keys themselves: name another path, \
         or move the file away; it was left as it is"
    )]
    NotAnAudit,
    /// There is no such folder.
    #[error("the folder of the audit file is not there: make it")]
    NoFolder,
    /// The disk is full; a part of the line may stand there.
    #[error("the disk of the audit file, or what this user may use of it, is full: make room")]
    Full,
    /// It may not be written.
    #[error("the audit file cannot be written (its folder or disk is read-only): let this user write there")]
    ReadOnly,
    /// The operating system refused.
    #[error("the audit file cannot be written ({0}): check the path, this user's rights and the disk")]
    Io(ErrorKind),
    /// It took too long. The line may still come.
    #[error("the audit file did not take the line within {} ms: look at its disk", .after.as_millis())]
    #[non_exhaustive]
    Slow {
        /// The deadline.
        after: Duration,
    },
    /// No call could be made: too many hang.
    #[error("the audit file cannot be reached, earlier lines hang: look at its disk")]
    Stuck,
    /// The callback took too long. It may still end.
    #[error(
        "the audit callback did not return within {} ms: let it hand the event over and return", .after.as_millis()
    )]
    #[non_exhaustive]
    CallbackSlow {
        /// The deadline.
        after: Duration,
    },
    /// The callback was not called: earlier calls of it hang.
    #[error(
        "the audit callback was not called, earlier calls of it hang: let it hand the event over and return"
    )]
    CallbackStuck,
    /// The callback panicked.
    #[error("the audit callback panicked: see its message on standard error, and correct it")]
    Panicked,
}

impl AuditLog {
    /// A file of JSON lines, one for each event, each in one write that is synced before the step returns.
    ///
    /// It is made with mode 600 where it is not there. What is there must be a regular file of this user that
    /// nobody else can read or write, and either empty or an audit; links are refused, symbolic and hard, and
    /// so are names that end in `.lock` or `.keysheath-new`. A relative path is resolved now. It is opened
    /// for each line, so that it can be renamed at any time, as `logrotate` does; it is never cut or removed
    /// here. A rotation writes some ten lines of less than 1 KiB. A line that a full disk has cut short is
    /// ended before the next one.
    ///
    /// ```
    /// use keysheath::rotation::AuditLog;
    /// let log = AuditLog::file("/var/log/shop-sync/keys.jsonl");
    /// ```
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Sink::File(Arc::new(AuditFile::new(path.into()))))
    }

    /// A function, called after each step is persisted and published, on a thread of its own. The step waits for it, for 5 s
    /// at most, so that its own result can say whether the event was taken. A panic of it is caught.
    ///
    /// ```
    /// use keysheath::rotation::AuditLog;
    /// let log = AuditLog::callback(|event| eprintln!("{}", event.to_json()));
    /// ```
    #[must_use]
    pub fn callback(function: impl Fn(&AuditEvent) + Send + Sync + 'static) -> Self {
        Self(Sink::Callback(Arc::new(function)))
    }

    pub(super) fn tell(&self, event: &AuditEvent) -> Result<(), AuditError> {
        match &self.0 {
            Sink::File(file) => file.append(event.to_json()),
            Sink::Callback(function) => call(function, event),
        }
    }
}

fn call(function: &Callback, event: &AuditEvent) -> Result<(), AuditError> {
    let (called, event) = (Arc::clone(function), event.clone());
    let place = Target::of("audit callback", &Arc::as_ptr(function).cast::<()>());
    let returned = Caller::around_others().with_deadline(DEADLINE).run(place, move || {
        // Nothing of ours is changed by it, so nothing can be left half-way.
        contained(|| called(&event)).ok_or(AuditError::Panicked)
    });
    returned.unwrap_or_else(|error| {
        Err(match error {
            CallError::Deadline { after } => AuditError::CallbackSlow { after },
            _ => AuditError::CallbackStuck,
        })
    })
}

impl AuditError {
    fn of_writing(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::Full,
            kind => Self::Io(kind),
        }
    }
}

impl From<Refusal> for AuditError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotPrivate => Self::NotPrivate,
            Refusal::Linked => Self::Linked,
            Refusal::Reserved => Self::ReservedName,
            Refusal::NoFolder => Self::NoFolder,
            Refusal::Unseen(kind) | Refusal::Unopened(kind) => Self::of_writing(kind),
        }
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

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Sink::File(file) => write!(f, "AuditLog({:?})", file.path()),
            Sink::Callback(_) => f.write_str("AuditLog(callback)"),
        }
    }
}
