//! The status of a rotation, and the next step of a person.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::audit::AuditError;
use super::policy::Age;
use super::presence::PresenceRecord;
use super::{Rotation, RotationError};
use crate::handle::Generation;
use crate::internal::printing::{Printable, Span, Utc};
use crate::key::{Fingerprint, Issuer, Profile};
use crate::keyset::{KeyInfo, KeySetSummary, KeyState, RotationId, UndeletedKey};

/// How far a clock may be behind the written times before the status says so: times are written in whole
/// seconds, and the clocks of two machines differ.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// The status of a rotation: the keys and their states, the age of the active key, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationStatus {
    keys: KeySetSummary,
    age: Option<Duration>,
    due: Option<SystemTime>,
    is_due_soon: bool,
    is_overdue: bool,
    clock_behind: Option<Duration>,
    refused: Option<Generation>,
    unaudited: Option<(u64, AuditError)>,
}

impl<I: Issuer> Rotation<I> {
    /// Returns the current status. A newer active key is published.
    ///
    /// # Errors
    /// [`RotationError::Document`] and [`RotationError::Unreadable`].
    pub fn status(&self) -> Result<RotationStatus, RotationError> {
        self.status_at(self.now().wall())
    }

    /// Returns the status at another time, for example next week.
    ///
    /// # Errors
    /// As for [`Rotation::status`].
    pub fn status_at(&self, now: SystemTime) -> Result<RotationStatus, RotationError> {
        let keys = self.look(self.now())?.0.summary();
        let age = keys.current().map(|current| Age::of(current, &self.policy, now));
        Ok(RotationStatus {
            age: age.as_ref().map(|age| age.since_staging),
            due: age.as_ref().and_then(|age| age.due),
            is_due_soon: age.as_ref().is_some_and(|age| age.is_due_soon),
            is_overdue: age.as_ref().is_some_and(|age| age.is_overdue),
            clock_behind: clock_behind(&keys, now),
            refused: self.publisher.refused().filter(|refused| Some(*refused) <= keys.generation()),
            unaudited: self.seen().unaudited.clone(),
            keys,
        })
    }
}

/// Returns how far the clock is behind the latest written time.
fn clock_behind(keys: &KeySetSummary, now: SystemTime) -> Option<Duration> {
    let times = |key: &KeyInfo| {
        [Some(key.staged()), key.verified(), key.promoted(), key.demoted()].into_iter().flatten()
    };
    let behind = keys.slots().flat_map(times).max()?.duration_since(now).ok()?;
    (behind > CLOCK_SLACK).then_some(behind)
}

impl RotationStatus {
    /// Returns the keys and their states.
    #[must_use]
    pub const fn keys(&self) -> &KeySetSummary {
        &self.keys
    }

    /// Returns the time since the active key was staged or adopted; zero if the clock was set back since.
    #[must_use]
    pub const fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns when the active key reaches the largest age of the policy.
    #[must_use]
    pub const fn due(&self) -> Option<SystemTime> {
        self.due
    }

    /// Returns whether that is within the policy's warning, and not past.
    #[must_use]
    pub const fn is_due_soon(&self) -> bool {
        self.is_due_soon
    }

    /// Returns whether that is past; never if the clock was set back since the staging.
    #[must_use]
    pub const fn is_overdue(&self) -> bool {
        self.is_overdue
    }

    /// Returns how far the clock is behind the latest written time, if that is more than a minute. Then waits
    /// are longer, and nothing is due.
    #[must_use]
    pub const fn clock_behind(&self) -> Option<Duration> {
        self.clock_behind
    }

    /// Returns the latest generation that the issuer refused to requests of this process. If it is the active
    /// one, a person must look at the key.
    #[must_use]
    pub const fn refused(&self) -> Option<Generation> {
        self.refused
    }

    /// Returns whether the issuer refused the active key to this process or to a probe.
    #[must_use]
    pub fn is_active_key_refused(&self) -> bool {
        let by_probe = self.keys.current().is_some_and(|current| current.refused().is_some());
        by_probe || (self.refused.is_some() && self.refused == self.keys.generation())
    }

    /// Returns the number of events of this `Rotation` that an audit log lacks.
    #[must_use]
    pub fn unaudited(&self) -> u64 {
        self.unaudited.as_ref().map_or(0, |(count, _)| *count)
    }

    /// Returns why an audit log lacks the last of them.
    #[must_use]
    pub fn audit_error(&self) -> Option<&AuditError> {
        self.unaudited.as_ref().map(|(_, error)| error)
    }
}

impl fmt::Display for RotationStatus {
    /// Writes a line for each key, and one for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = &self.keys;
        match keys.generation() {
            None => write!(f, "{}: no key yet", keys.profile().name())?,
            Some(generation) => write!(f, "{}: generation {generation}", keys.profile().name())?,
        }
        for (name, key) in
            [("active", keys.current()), ("pending", keys.pending()), ("previous", keys.previous())]
        {
            if let Some(key) = key {
                write!(f, "\n  {name}: {key}")?;
            }
        }
        if let (Some(age), Some(due)) = (self.age, self.due) {
            write!(f, "\n  age: {}, due on {:#}", Span(age), Utc(due))?;
            if self.is_overdue {
                f.write_str(", OVERDUE")?;
            } else if self.is_due_soon {
                f.write_str(", soon")?;
            }
        }
        for aborted in keys.aborted() {
            write!(f, "\n  aborted: {}", aborted.label())?;
            if let Some(rotation) = aborted.rotation() {
                write!(f, " (rotation {rotation})")?;
            }
            let staged = Utc(aborted.staged());
            write!(f, ", staged {staged}, to be deleted when the next step says so")?;
        }
        for fingerprint in keys.compromised() {
            write!(f, "\n  compromised: {fingerprint}")?;
            if let Some(leaked) = keys.leaked().iter().find(|leaked| leaked.fingerprint() == *fingerprint) {
                if let Some(name) = leaked.name() {
                    write!(f, ", named {}", Printable(name))?;
                }
                write!(f, ", staged {}, TO BE DELETED: its deletion is not confirmed", Utc(leaked.staged()))?;
            }
        }
        if self.is_active_key_refused() {
            f.write_str("\n  REFUSED: the issuer has refused the active key")?;
        }
        if let Some(behind) = self.clock_behind {
            write!(f, "\n  the clock is {} behind the written times: check it", Span(behind))?;
        }
        if let Some((count, error)) = &self.unaudited {
            write!(f, "\n  {count} events are not in the audit: {error}")?;
        }
        Ok(())
    }
}

/// What a person has to do now. Its `Display` says so, with the names that the issuer's app uses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// Report a leak again: this process stopped sending a key that is not persisted as compromised. Until it
    /// is, other processes send it.
    #[non_exhaustive]
    ReportLeak {
        /// The key.
        key: KeyInfo,
    },
    /// Create a key in the app, and stage it.
    Create {
        /// The issuer.
        profile: &'static Profile,
        /// The suggested name. No name is suggested twice.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// Verify a key.
    #[non_exhaustive]
    Verify {
        /// The key.
        key: KeyInfo,
        /// Pending, or active.
        state: KeyState,
        /// For the active key: the rotation in progress, which must be aborted before this one is rolled
        /// back.
        in_progress: Option<RotationId>,
        /// Whether there is a previous key to roll back to.
        can_roll_back: bool,
    },
    /// Check by hand that a key works: there is no probe.
    #[non_exhaustive]
    VerifyByHand {
        /// The key.
        key: KeyInfo,
    },
    /// Promote the pending key.
    #[non_exhaustive]
    Promote {
        /// The key.
        key: KeyInfo,
    },
    /// Abort the rotation: the issuer refuses the pending key.
    #[non_exhaustive]
    Abort {
        /// The key.
        key: KeyInfo,
    },
    /// Wait: the previous key, or one that was rolled back and aborted, may still be in use, or the issuer
    /// may not know the active key yet.
    #[non_exhaustive]
    Wait {
        /// The key that must be kept until then.
        fingerprint: Fingerprint,
        /// Its name in the app, if it is known.
        name: Option<String>,
        /// The rotation of the active key, or of the aborted one.
        rotation: RotationId,
        /// The rest of the settle time or of the activation time, whichever is longer, by the clocks of this
        /// process if it keeps running.
        remaining: Duration,
        /// Whether `remaining` is of the activation time.
        is_activating: bool,
        /// When a process that starts then finds both over; `None` if they are over here. It has only the
        /// written times, and so adds the [bound on how much clocks
        /// differ](super::RotationPolicy::with_clock_skew).
        ask_again: Option<SystemTime>,
        /// Whether no request of this process holds the key.
        is_drained: bool,
        /// The processes of the fleet that may still use the key.
        still_using: Vec<PresenceRecord>,
    },
    /// Delete the previous key in the app, and retire it.
    #[non_exhaustive]
    Delete {
        /// The issuer.
        profile: &'static Profile,
        /// The key to delete.
        key: KeyInfo,
        /// The active key, which must be kept. Its rotation is the one to retire.
        keep: KeyInfo,
        /// Whether a probe accepted the key to keep since it was promoted, and will see that the right one
        /// was deleted. If not, the person must check both.
        is_confirmed: bool,
        /// How many processes use the active key only; `None` without a
        /// [presence](super::Rotation::with_presence). If it is zero, the person must check that no process
        /// uses the old key.
        shown: Option<usize>,
        /// The processes that last showed another key, and then nothing for their time to live. The person
        /// must check that they no longer use the old key.
        silent: Vec<PresenceRecord>,
    },
    /// Delete an aborted key in the app, and confirm that it is deleted.
    #[non_exhaustive]
    DeleteAborted {
        /// The issuer.
        profile: &'static Profile,
        /// The key to delete.
        key: UndeletedKey,
        /// The active key, which must be kept.
        keep: KeyInfo,
        /// Whether a probe accepted the key to keep since it was promoted. If not, the person must check it.
        is_confirmed: bool,
        /// As in [`NextStep::Delete`], for a key that was active.
        shown: Option<usize>,
        /// As in [`NextStep::Delete`], for a key that was active.
        silent: Vec<PresenceRecord>,
    },
    /// Delete a leaked key in the app at once, and confirm that it is deleted.
    #[non_exhaustive]
    DeleteLeaked {
        /// The issuer.
        profile: &'static Profile,
        /// The key to delete.
        key: UndeletedKey,
        /// The active key, which must be kept; `None` if there is none.
        keep: Option<KeyInfo>,
    },
    /// Retire the previous key: the issuer refused one of the two keys, so a person has deleted one.
    #[non_exhaustive]
    Confirm {
        /// The active key. Its rotation is the one to retire.
        current: KeyInfo,
        /// The previous key.
        previous: KeyInfo,
        /// Whether the active key was refused.
        is_current_refused: bool,
        /// Whether the previous key was refused, as it is once a person has deleted it.
        is_previous_refused: bool,
    },
    /// Find out why the issuer refuses the active key to this process or to another one of the fleet.
    #[non_exhaustive]
    Refused {
        /// The issuer.
        profile: &'static Profile,
        /// The active key.
        key: KeyInfo,
        /// The previous key, if there is one to go back to.
        previous: Option<KeyInfo>,
        /// The rotation in progress, which must be aborted before this one is rolled back.
        in_progress: Option<RotationId>,
        /// The suggested name of the next key.
        name: String,
        /// Whether there is a probe to verify the key with.
        has_probe: bool,
    },
    /// Nothing.
    #[non_exhaustive]
    Nothing {
        /// When the active key reaches the largest age; `None` if that is later than a clock can represent.
        due: Option<SystemTime>,
    },
}

impl NextStep {
    /// Returns the rotation that the step names; `None` if it names none, or is about a leaked key.
    #[must_use]
    pub const fn rotation(&self) -> Option<RotationId> {
        match self {
            Self::Verify { key, .. }
            | Self::VerifyByHand { key }
            | Self::Promote { key }
            | Self::Abort { key }
            | Self::Delete { keep: key, .. }
            | Self::Confirm { current: key, .. }
            | Self::Refused { key, .. } => Some(key.rotation()),
            Self::Wait { rotation, .. } => Some(*rotation),
            Self::DeleteAborted { key, .. } => key.rotation(),
            Self::ReportLeak { .. }
            | Self::Create { .. }
            | Self::DeleteLeaked { .. }
            | Self::Nothing { .. } => None,
        }
    }
}

/// Why a key must be created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is none.
    NoKey,
    /// The only one has leaked; delete that first.
    #[non_exhaustive]
    Leaked {
        /// The oldest leaked key whose deletion is not confirmed.
        key: UndeletedKey,
    },
    /// A probe saw that the issuer refuses the active key, and no other key works.
    #[non_exhaustive]
    Refused {
        /// The active key.
        key: KeyInfo,
    },
    /// The key that was to replace the active one was deleted.
    FellBack,
    /// The active key reaches the largest age soon.
    #[non_exhaustive]
    Soon {
        /// When.
        due: SystemTime,
    },
    /// The active key is older than the largest age.
    #[non_exhaustive]
    Overdue {
        /// Since when.
        due: SystemTime,
    },
}
