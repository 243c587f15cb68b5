//! The events of a rotation: what was done, what was seen to be wrong, and where that is recorded.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::handle::Generation;
use crate::internal::calls::{CallError, Caller, Target};
use crate::internal::files::{FileProblem, absolute, private};
use crate::internal::printing::{Printable, Utc};
use crate::internal::threads::contained;
use crate::key::{Fingerprint, Profile};
use crate::keyset::RotationId;

/// What was done, or what was seen to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditAction {
    /// A key in use became the active one of a new key set.
    Adopted,
    /// A new key was persisted.
    Staged,
    /// A probe accepted a key for every store.
    Verified,
    /// A verified key became active.
    Promoted,
    /// A key became active without verification.
    PromotedUnverified,
    /// The previous key became active again.
    RolledBack,
    /// A probe saw that the previous key was deleted.
    Retired,
    /// A person said that the previous key was deleted.
    RetiredUnprobed,
    /// A pending key was aborted.
    Aborted,
    /// A key has leaked.
    Compromised,
    /// A person said that a compromised key was deleted.
    LeakDeleted,
    /// A person said that an aborted key was deleted.
    AbortedDeleted,
    /// The active key was deleted instead of the previous one, which is active again.
    FellBack,
    /// The issuer refused a pending key that should work.
    KeyRefused,
    /// The issuer refuses the active key: requests fail.
    ActiveKeyRefused,
    /// The issuer refused a key that should serve a store.
    StoreRefused,
    /// The previous key should be deleted by now, and still works.
    StillAccepted,
    /// Both the active key and the previous one are refused.
    BothRefused,
}

impl AuditAction {
    /// Returns whether a person should look at it.
    #[must_use]
    pub const fn is_problem(self) -> bool {
        matches!(
            self,
            Self::Compromised
                | Self::FellBack
                | Self::KeyRefused
                | Self::ActiveKeyRefused
                | Self::StoreRefused
                | Self::StillAccepted
                | Self::BothRefused
        )
    }

    /// Returns whether the key is of another rotation than the step: the previous key.
    pub(super) const fn is_about_previous(self) -> bool {
        matches!(self, Self::Retired | Self::RetiredUnprobed | Self::StillAccepted)
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopted => "adopted",
            Self::Staged => "staged",
            Self::Verified => "verified",
            Self::Promoted => "promoted",
            Self::PromotedUnverified => "promoted unverified",
            Self::RolledBack => "rolled back",
            Self::Retired => "retired",
            Self::RetiredUnprobed => "retired unprobed",
            Self::Aborted => "aborted",
            Self::Compromised => "compromised",
            Self::LeakDeleted => "leaked key deleted",
            Self::AbortedDeleted => "aborted key deleted",
            Self::FellBack => "fell back",
            Self::KeyRefused => "key refused",
            Self::ActiveKeyRefused => "active key refused",
            Self::StoreRefused => "store refused",
            Self::StillAccepted => "still accepted",
            Self::BothRefused => "both refused",
        })
    }
}

/// One event. It contains names and fingerprints, and no part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The time, by the clock of the process that acted.
    pub at: SystemTime,
    /// What was done.
    pub action: AuditAction,
    /// The issuer's profile.
    pub profile: &'static Profile,
    /// The rotation of the step; `None` for a leaked key, which may be of any.
    pub rotation: Option<RotationId>,
    /// The key of the step; `None` if a repeated step finds it forgotten.
    pub fingerprint: Option<Fingerprint>,
    /// The key's name in the issuer's app, as it was given or suggested.
    pub name: Option<String>,
    /// The active generation after it.
    pub generation: Option<Generation>,
    /// The operator, as given to [`Rotation::with_operator`](super::Rotation::with_operator).
    pub by: Option<String>,
    /// The place that the key was loaded from.
    pub loaded_from: Option<String>,
    /// Where the key set is.
    pub store: String,
    /// The note of the step.
    pub note: Option<String>,
    /// Whether the step had been done before, for example by a process that died before it wrote the event.
    pub is_repeat: bool,
}

impl AuditEvent {
    /// Returns the event as one line of JSON, without a line break. What is not known is `null`; `at` is UTC
    /// in the form of RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> String {
        let line = Line {
            at: Utc(self.at).to_string(),
            action: self.action.to_string(),
            problem: self.action.is_problem(),
            issuer: self.profile.name(),
            rotation: self.rotation.map(RotationId::number),
            fingerprint: self.fingerprint.map(|fingerprint| fingerprint.to_string()),
            name: self.name.as_deref(),
            generation: self.generation.map(Generation::number),
            by: self.by.as_deref(),
            key_from: self.loaded_from.as_deref(),
            store: &self.store,
            note: self.note.as_deref(),
            repeat: self.is_repeat,
        };
        // Texts and numbers can always be written as JSON.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    action: String,
    problem: bool,
    issuer: &'a str,
    rotation: Option<u64>,
    fingerprint: Option<String>,
    name: Option<&'a str>,
    generation: Option<u64>,
    by: Option<&'a str>,
    key_from: Option<&'a str>,
    store: &'a str,
    note: Option<&'a str>,
    repeat: bool,
}

impl fmt::Display for AuditEvent {
    /// Writes one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", Utc(self.at), self.profile.name(), self.action)?;
        if let Some(fingerprint) = self.fingerprint {
            write!(f, " {fingerprint}")?;
        }
        if let Some(rotation) = self.rotation {
            let by = if self.action.is_about_previous() { "replaced by " } else { "" };
            write!(f, " ({by}rotation {rotation})")?;
        }
        write!(f, " by {}", Printable(self.by.as_deref().unwrap_or("an unnamed operator")))?;
        if let Some(generation) = self.generation {
            write!(f, ", generation {generation}")?;
        }
        if let Some(place) = &self.loaded_from {
            write!(f, ", key from {}", Printable(place))?;
        }
        write!(f, ", in {}", Printable(&self.store))?;
        if let Some(note) = &self.note {
            write!(f, ", note: {}", Printable(note))?;
        }
        if self.is_repeat { f.write_str(", already done before") } else { Ok(()) }
    }
}

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

/// Returns whether the file is empty, or begins like the first line of an audit, which may have been cut.
fn is_audit(file: &mut File) -> std::io::Result<bool> {
    let mut bytes = Vec::with_capacity(BEGIN.len());
    file.seek(SeekFrom::Start(0))?;
    file.take(BEGIN.len() as u64).read_to_end(&mut bytes)?;
    Ok(BEGIN.as_bytes().starts_with(&bytes))
}

/// Returns whether the last line lacks its line break.
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
