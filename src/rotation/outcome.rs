//! The results of the steps.

use std::fmt;
use std::time::Duration;

use super::audit::AuditEvent;
use super::audit_log::AuditError;
use super::display::{Named, Page};
use super::next_step::NextStep;
use super::presence::PresenceRecord;
use super::rotator::RotationError;
use crate::internal::printing::{Printable, Span};
use crate::key::Fingerprint;
use crate::keyset::{KeyState, Labeled, RotationId, UndeletedKey};
use crate::probe::{Report, Verdict};

/// A persisted step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub(super) event: Box<AuditEvent>,
    pub(super) state: Option<KeyState>,
    pub(super) is_published: bool,
    pub(super) unaudited: Option<AuditError>,
}

impl Transition {
    /// Returns the event that went to the audit: the action, the rotation, the key.
    #[must_use]
    pub const fn event(&self) -> &AuditEvent {
        &self.event
    }

    /// Returns the state of the key after the step.
    #[must_use]
    pub const fn state(&self) -> Option<KeyState> {
        self.state
    }

    /// Returns whether the step changed anything. It did not if it had been done before.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        !self.event.is_repeat
    }

    /// Returns whether the handles of this process have it. They do not if they have the keys of another key
    /// set, open the rotation with its own handle.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        self.is_published
    }

    /// Returns why an audit log lacks the event; `None` if each has it. The step itself is done.
    #[must_use]
    pub const fn unaudited(&self) -> Option<&AuditError> {
        self.unaudited.as_ref()
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = &self.event;
        if event.is_repeat {
            f.write_str("already done before: ")?;
        }
        write!(f, "{}", event.action)?;
        if let Some(name) = &event.name {
            write!(f, " {},", Printable(name))?;
        }
        if let Some(fingerprint) = event.fingerprint {
            write!(f, " {fingerprint}")?;
        }
        if let Some(rotation) = event.rotation {
            let is_previous = event.action.is_about_previous() && event.fingerprint.is_some();
            write!(f, " ({}rotation {rotation})", if is_previous { "replaced by " } else { "" })?;
        }
        match self.state {
            Some(state) => write!(f, ": {state}"),
            None => Ok(()),
        }
    }

    fn tail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_published {
            f.write_str(
                "; the handles of this process do not have it, because they have the keys of another key set",
            )?;
        }
        match &self.unaudited {
            Some(error) => write!(f, "; it is not in the audit: {error}"),
            None => Ok(()),
        }
    }

    /// Writes which key a person should delete, and where.
    fn deletion(&self, f: &mut fmt::Formatter<'_>, now: &str) -> fmt::Result {
        f.write_str("delete ")?;
        match &self.event.name {
            Some(name) => write!(f, "the key named {}", Printable(name))?,
            None => f.write_str("it")?,
        }
        write!(f, "{now} in {}", Page::to_delete(self.event.profile))
    }
}

impl fmt::Display for Transition {
    /// Writes one line: what was done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.tail(f)
    }
}

/// The result of [`Rotation::stage`](super::Rotation::stage).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    pub(super) transition: Transition,
    pub(super) rotation: RotationId,
}

impl Staged {
    /// Returns the rotation that the key began. The next steps take it.
    #[must_use]
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// Returns the step.
    #[must_use]
    pub const fn transition(&self) -> &Transition {
        &self.transition
    }
}

impl fmt::Display for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transition.fmt(f)
    }
}

/// The result of [`Rotation::abort`](super::Rotation::abort).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub(super) transition: Transition,
    pub(super) key: Option<UndeletedKey>,
    pub(super) remaining_settle: Duration,
    pub(super) is_drained: bool,
    pub(super) still_using: Result<Vec<PresenceRecord>, Box<RotationError>>,
}

impl Aborted {
    /// Returns the step.
    #[must_use]
    pub const fn transition(&self) -> &Transition {
        &self.transition
    }

    /// Returns the key that a person still has to delete; `None` if the issuer refuses it, or its deletion is
    /// confirmed.
    #[must_use]
    pub const fn key(&self) -> Option<&UndeletedKey> {
        self.key.as_ref()
    }

    /// Returns the rest of the settle time of a key that was active and rolled back. Until then it must not
    /// be deleted, because other processes may still send it. Zero for a key that was never active.
    #[must_use]
    pub const fn remaining_settle(&self) -> Duration {
        self.remaining_settle
    }

    /// Returns whether no request of this process holds the key.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Returns the processes of the [fleet](super::Rotation::with_presence), silent ones included, that may
    /// still use a key that was active and rolled back.
    ///
    /// # Errors
    /// [`RotationError::Presence`] if the fleet cannot be read. The step itself is done.
    pub fn still_using(&self) -> Result<&[PresenceRecord], &RotationError> {
        self.still_using.as_deref().map_err(|error| &**error)
    }

    fn may_be_deleted(&self) -> bool {
        self.remaining_settle.is_zero() && self.is_drained && self.still_using().is_ok_and(<[_]>::is_empty)
    }
}

impl fmt::Display for Aborted {
    /// Writes one line: what was done, and whether the key may be deleted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transition.head(f)?;
        f.write_str("; ")?;
        if self.key.is_none() {
            f.write_str(if self.transition.is_change() {
                "the issuer refuses it, so that there is nothing to delete"
            } else {
                "no key of it is known that still has to be deleted"
            })?;
        } else if self.may_be_deleted() {
            self.transition.deletion(f, " now")?;
        } else {
            f.write_str("it was active, so do not delete it yet")?;
            if !self.remaining_settle.is_zero() {
                let remaining = Span(self.remaining_settle);
                write!(
                    f,
                    ": other processes have {remaining} to take up the active key, if this process keeps \
                     running"
                )?;
            }
            if !self.is_drained {
                f.write_str("; requests of this process still hold it")?;
            }
            match self.still_using() {
                Ok([]) => {}
                Ok(records) => write!(f, "; still using it: {}", Named(records))?,
                Err(error) => write!(f, "; {error}")?,
            }
            f.write_str("; then ")?;
            self.transition.deletion(f, "")?;
            f.write_str(", as the next step will say")?;
        }
        self.transition.tail(f)
    }
}

/// The result of [`Rotation::compromise`](super::Rotation::compromise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compromised {
    pub(super) transition: Transition,
    pub(super) was_held: bool,
}

impl Compromised {
    /// Returns the step.
    #[must_use]
    pub const fn transition(&self) -> &Transition {
        &self.transition
    }

    /// Returns whether the key was in the key set. If not, what is sent has not changed: the fingerprint may
    /// have been mistyped.
    #[must_use]
    pub const fn was_held(&self) -> bool {
        self.was_held
    }
}

impl fmt::Display for Compromised {
    /// Writes one line: what was done, and what to do next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transition.head(f)?;
        if !self.was_held {
            f.write_str(
                "; it was not in this key set, and what is sent has not changed: check that the fingerprint \
                 is the right one",
            )?;
        }
        f.write_str("; ")?;
        self.transition.deletion(f, " now")?;
        self.transition.tail(f)
    }
}

/// The result of [`Rotation::verify`](super::Rotation::verify). An acceptance and a refusal are recorded;
/// otherwise nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the key may not be verified"]
#[non_exhaustive]
pub enum Verification {
    /// Every store accepted the key, and that is recorded.
    #[non_exhaustive]
    Verified {
        /// The step.
        transition: Transition,
        /// What each store answered.
        report: Report,
    },
    /// The issuer does not know the key, which was staged a moment ago: it may not know it yet.
    #[non_exhaustive]
    NotYet {
        /// What each store answered.
        report: Report,
    },
    /// The issuer does not know the key, and that is recorded.
    #[non_exhaustive]
    KeyRefused {
        /// What each store answered.
        report: Report,
        /// The state of the key: pending, or active.
        state: KeyState,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The key does not serve every store; the report names them.
    #[non_exhaustive]
    StoreRefused {
        /// What each store answered.
        report: Report,
    },
    /// The answers say nothing about the key.
    #[non_exhaustive]
    Inconclusive {
        /// What each store answered.
        report: Report,
    },
}

/// The result of [`Rotation::retire`](super::Rotation::retire).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the wrong key may have been deleted"]
#[non_exhaustive]
pub enum Retirement {
    /// The previous key is retired: it is refused and the active one accepted, or a person said that it was
    /// deleted; or there was none.
    #[non_exhaustive]
    Retired {
        /// The step.
        transition: Transition,
    },
    /// The previous key still works: it was not deleted. Both keys stay.
    #[non_exhaustive]
    StillAccepted {
        /// The previous key.
        fingerprint: Fingerprint,
        /// Its name in the app, if it is known.
        name: Option<String>,
        /// Whether it should be deleted by now: the settle time has passed, and no request of this process
        /// and no process of the [fleet](super::Rotation::with_presence) may use it.
        is_overdue: bool,
    },
    /// The active key was deleted instead of the previous one, which works and is active again.
    #[non_exhaustive]
    WrongKeyDeleted {
        /// The step: the fall back.
        transition: Transition,
        /// The deleted key. It is retired.
        deleted: Fingerprint,
        /// The key that is active again.
        active: Fingerprint,
        /// The name of that key in the app, if it is known.
        name: Option<String>,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The issuer refuses both keys, and that is recorded: there is no key to fall back to.
    #[non_exhaustive]
    BothRefused {
        /// The active key.
        current: Fingerprint,
        /// The previous key.
        previous: Fingerprint,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The answers are inconclusive. Both keys stay.
    #[non_exhaustive]
    Undecided {
        /// What was answered about the active key.
        current: Report,
        /// What was answered about the previous key.
        previous: Report,
    },
}

impl fmt::Display for Verification {
    /// Writes the result, what to do next, and the report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { transition, report } => write!(f, "{transition}\n{report}"),
            // Without the report, which would ask for another key.
            Self::NotYet { .. } => f.write_str(
                "the issuer does not know the key yet, which was staged a moment ago; nothing was changed: \
                 verify it again in a moment",
            ),
            Self::KeyRefused { report, state: KeyState::Current, next } => {
                write!(f, "THE ISSUER REFUSES THE ACTIVE KEY, so that requests fail; {next}\n{report}")
            }
            Self::KeyRefused { report, next, .. } => {
                write!(f, "the pending key does not work; {next}\n{report}")
            }
            Self::StoreRefused { report } => write!(
                f,
                "the key does not serve every store; nothing was changed: see below which, create a key for \
                 all of them, or correct the probe's list\n{report}"
            ),
            Self::Inconclusive { report } => write!(
                f,
                "the answers say nothing about the key; nothing was changed: verify it again later\n{report}"
            ),
        }
    }
}

impl fmt::Display for Retirement {
    /// Writes the result, and what to do next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired { transition } => write!(f, "{transition}"),
            Self::StillAccepted { fingerprint, name, is_overdue } => {
                let key = Labeled { name: name.as_deref(), fingerprint: *fingerprint };
                if *is_overdue {
                    write!(f, "OVERDUE: {key} still works: delete it in the app, then retire it")
                } else {
                    write!(
                        f,
                        "{key} still works, and may be in use: wait until the next step asks for its deletion"
                    )
                }
            }
            Self::WrongKeyDeleted { deleted, active, name, next, .. } => {
                let key = Labeled { name: name.as_deref(), fingerprint: *active };
                write!(
                    f,
                    "THE WRONG KEY WAS DELETED: {deleted} is gone, and {key}, which should have been \
                     deleted, is active again: do not delete that one; {}",
                    next.without_reason()
                )
            }
            Self::BothRefused { current, previous, next } => write!(
                f,
                "BOTH KEYS ARE REFUSED: {current}, the active one, and {previous}, the previous one, so that \
                 no request can succeed; {next}, and verify and promote it: that retires the previous one"
            ),
            Self::Undecided { current, previous } => {
                f.write_str(
                    if [current, previous].map(Report::verdict)
                        == [Verdict::StoreRefused, Verdict::KeyRefused]
                    {
                        "the previous key is refused, and the active key does not serve every store: stage a \
                         key for every store, verify and promote it, which retires the previous one"
                    } else {
                        "the answers are inconclusive, and both keys stay: retire it again later"
                    },
                )?;
                write!(f, "\nthe active key: {current}\nthe previous key: {previous}")
            }
        }
    }
}
