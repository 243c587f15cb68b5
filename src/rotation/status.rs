//! The status of a rotation.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::audit_log::AuditError;
use super::decide::Age;
use super::error::RotationError;
use super::rotator::Rotation;
use crate::handle::Generation;
use crate::internal::printable::Printable;
use crate::internal::utc::{Span, Utc};
use crate::key::Issuer;
use crate::keyset::{KeyInfo, KeySetSummary};

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

/// How far the clock is behind the latest written time.
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
