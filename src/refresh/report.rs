//! What a refresher reports: why it did not start, its status, and its events.

use std::fmt;
use std::io::ErrorKind;

use crate::chain::ChainError;
use crate::handle::{Generation, NoActiveKey};
use crate::internal::events::{Event, trace_line};
use crate::internal::threads::Health;
use crate::key::Fingerprint;
use crate::keyset::KeySetError;
use crate::source::{Absence, Problem, Provenance, Remark};
use crate::store::DocumentError;

/// A refresher could not be started: why, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// The chain has no key.
    #[error("{0}")]
    Chain(ChainError),
    /// The document of a store, or the key of a source, cannot be used.
    #[error("{0}")]
    Place(ReloadError),
    /// The operating system refused a thread.
    #[error("the refresher's thread could not be started ({0}): raise the limit of threads or of memory")]
    NoThread(ErrorKind),
}

/// A reload failed: where, why, and what to do next. The last good key stays active.
///
/// It holds no byte of what was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provenance}: {problem}")]
pub struct ReloadError {
    provenance: Provenance,
    problem: ReloadProblem,
}

/// Why a reload failed, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadProblem {
    /// The source of the active key has none any more. No other place is read: it may hold the key of another
    /// account.
    #[error("{0}, and the active key came from here, so no other place is read: put the key back here")]
    Absent(Absence),
    /// The source has something, but no key can be read from it.
    #[error("{0}")]
    Source(Problem),
    /// The variable names another file than the one that the key came from.
    #[error(
        "the variable names another file than before, which may hold the key of another account: restart to \
         take it"
    )]
    OtherFile,
    /// The document cannot be read.
    #[error("{0}")]
    Document(DocumentError),
    /// The document is not a key set of this issuer.
    #[error("{0}")]
    KeySet(KeySetError),
    /// There was a document, or an active key, and now there is no document.
    #[error("the document is gone, and its key is active: restore it from a backup")]
    Gone,
    /// The key set is older than the active key.
    #[error(
        "its key set is older than the active generation {active}: find out what put an older copy there \
         or began it again, and restore the newer one; a restart takes the older one"
    )]
    #[non_exhaustive]
    WentBack {
        /// The active generation.
        active: Generation,
    },
    /// It is not the key set whose keys the handle has: it was begun with another key.
    #[error(
        "its key set is not the one whose keys the handle has (it was begun with another key): find out what \
         began it again or put another one there, and restore the right one; a restart takes this one"
    )]
    OtherKeySet,
    /// The refresher has panicked. (A panic of a source or a store fails a call, and does not end it.)
    #[error(
        "the refresher has panicked, see standard error, and reloads no more: restart, or start \
         another refresher and use its handle"
    )]
    Ended,
    /// The key there was stopped in this process, because it has leaked.
    #[error(
        "the key there was stopped in this process, because it has leaked, and is not sent again: create a \
         new key in the app, and put it there; in a key set, record the compromise first"
    )]
    Stopped,
    /// The key set has another key in the active generation.
    #[error(
        "its key set has another key as the active generation {active}: find out what began it again, and \
         restore the right one; a restart takes this one"
    )]
    #[non_exhaustive]
    OtherKey {
        /// The active generation.
        active: Generation,
    },
}

impl ReloadError {
    pub(super) const fn new(provenance: Provenance, problem: ReloadProblem) -> Self {
        Self { provenance, problem }
    }

    /// Returns the place.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns the reason.
    #[must_use]
    pub const fn problem(&self) -> &ReloadProblem {
        &self.problem
    }
}

/// Why the files of a place are not watched, and what to do next. Polling goes on, and watching is tried
/// again with each poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchProblem {
    /// The place is not a file.
    #[error("it is not a file, so there is nothing to watch")]
    NotAFile,
    /// A limit of the operating system is reached.
    #[error(
        "this user watches as many files as the system allows: raise fs.inotify.max_user_watches and \
         max_user_instances, and the limit of open files"
    )]
    TooMany,
    /// The operating system refused.
    #[error(
        "the system does not let its folders be watched ({0}): let this user read each folder on the way"
    )]
    Refused(ErrorKind),
    /// An earlier attempt to watch has not come back.
    #[error("an earlier attempt to watch its folders hangs: check the disk or the mount that they are on")]
    Hangs,
    /// It failed for another reason.
    #[error("its folders cannot be watched on this system")]
    Failed,
}

/// The status of a refresher. Its `Display` is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshStatus {
    pub(super) provenance: Provenance,
    pub(super) remarks: Vec<Remark>,
    pub(super) health: Health<ReloadError>,
    /// `None` where it was not asked for.
    pub(super) watching: Option<Result<(), WatchProblem>>,
}

impl RefreshStatus {
    /// Returns where the keys come from.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns when the place was last read and was good, whether or not it held a newer key, and what has
    /// failed since.
    #[must_use]
    pub const fn health(&self) -> &Health<ReloadError> {
        &self.health
    }

    /// Returns what was remarked on when the key was read the last time, such as a file that every user can
    /// read.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Returns whether the place can change at all while the process runs. A variable cannot, and is not
    /// polled. A file that is mounted alone cannot either once it was replaced where it is mounted from; one
    /// of the [remarks](RefreshStatus::remarks) then says so.
    #[must_use]
    pub fn can_change(&self) -> bool {
        !self.provenance.is_fixed() && !self.remarks.contains(&Remark::Unlinked)
    }

    /// Returns whether its files are watched.
    #[must_use]
    pub const fn is_watching(&self) -> bool {
        matches!(self.watching, Some(Ok(())))
    }

    /// Returns why its files are not watched; `None` if they are, and where that was not asked for.
    #[must_use]
    pub fn watch_problem(&self) -> Option<WatchProblem> {
        self.watching?.err()
    }
}

impl fmt::Display for RefreshStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.health.problem() {
            Some(problem) => {
                let failures = self.health.consecutive_failures();
                write!(f, "{problem}; the last good key stays active (consecutive failures: {failures})")?;
            }
            None if self.provenance.is_fixed() => write!(
                f,
                "{}: it cannot change while the process runs, so it is not polled; after a rotation, restart",
                self.provenance
            )?,
            None => {
                let state = if self.can_change() { "healthy" } else { "the file does not change any more" };
                write!(f, "{}: {state}", self.provenance)?;
            }
        }
        for remark in &self.remarks {
            write!(f, "; {remark}")?;
        }
        let dropped = self.health.dropped_events();
        if dropped > 0 {
            write!(f, "; events dropped because the callback or the subscriber blocks: {dropped}")?;
        }
        match self.watching {
            None => Ok(()),
            Some(Ok(())) => f.write_str("; its files are watched"),
            Some(Err(problem)) => write!(f, "; it is not watched: {problem}"),
        }
    }
}

/// What happened to a refresher; see [`RefreshSettings::on_event`](super::RefreshSettings::on_event). Its
/// `Display` is a line for a log. A `Failed` with one failure is worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshEvent {
    /// Another key is active; at the start, the first one.
    #[non_exhaustive]
    Refreshed {
        /// Its version number.
        generation: Generation,
        /// Its name; `None` where the issuer's keys could be guessed from it.
        fingerprint: Option<Fingerprint>,
        /// Where it came from.
        provenance: Provenance,
    },
    /// No key is active any more.
    #[non_exhaustive]
    NoActiveKey {
        /// Why.
        reason: NoActiveKey,
        /// Where that was read.
        provenance: Provenance,
    },
    /// A reload failed; the last good key stays active.
    #[non_exhaustive]
    Failed {
        /// Where and why.
        error: ReloadError,
        /// How many have failed in a row, this one included.
        failures: u32,
    },
    /// A reload succeeded after others had failed.
    Recovered {
        /// Where.
        provenance: Provenance,
        /// How many had failed.
        failures: u32,
    },
    /// The place cannot change while the process runs, so it is not polled. Reported once, at the start.
    CannotChange {
        /// The place.
        provenance: Provenance,
    },
    /// The key was found, and with it something that a person should know, such as a file that every user can
    /// read. Reported once for as long as it lasts.
    #[non_exhaustive]
    Remarked {
        /// The place.
        provenance: Provenance,
        /// What was remarked on.
        remark: Remark,
    },
    /// The files of the place cannot be watched. Polling goes on.
    #[non_exhaustive]
    NotWatching {
        /// The place.
        provenance: Provenance,
        /// Why.
        problem: WatchProblem,
    },
    /// The files of the place are watched again, after [`RefreshEvent::NotWatching`].
    #[non_exhaustive]
    WatchingAgain {
        /// The place.
        provenance: Provenance,
    },
}

impl fmt::Display for RefreshEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refreshed { generation, fingerprint, provenance } => {
                write!(f, "generation {generation} is active")?;
                if let Some(fingerprint) = fingerprint {
                    write!(f, ", fingerprint {fingerprint}")?;
                }
                write!(f, ", from {provenance}")
            }
            Self::NoActiveKey { reason, provenance } => write!(f, "{provenance}: {reason}"),
            Self::Failed { error, failures } => {
                write!(f, "{error}; the last good key stays active (consecutive failures: {failures})")
            }
            Self::Recovered { provenance, failures } => {
                write!(f, "{provenance} can be read again (failures before: {failures})")
            }
            Self::CannotChange { provenance } => write!(
                f,
                "{provenance} cannot change while the process runs, so it is not polled: after a rotation, \
                 restart"
            ),
            Self::Remarked { provenance, remark } => write!(f, "{provenance}: {remark}"),
            Self::NotWatching { provenance, problem } => {
                write!(f, "{provenance} is polled and not watched: {problem}")
            }
            Self::WatchingAgain { provenance } => write!(f, "{provenance} is watched again"),
        }
    }
}

impl Event for RefreshEvent {
    fn trace(&self) {
        match self {
            Self::Refreshed { .. }
            | Self::Recovered { .. }
            | Self::CannotChange { .. }
            | Self::WatchingAgain { .. } => trace_line!(info: "{self}"),
            _ => trace_line!(warn: "{self}"),
        }
    }
}
