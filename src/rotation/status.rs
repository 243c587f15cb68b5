//! How a rotation stands.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::next_step::Age;
use super::{AuditError, Rotation, RotationError, SlotStatus};
use crate::handle::Generation;
use crate::internal::printable::Printable;
use crate::internal::utc::{Span, Utc};
use crate::key::{Fingerprint, Issuer};
use crate::keyset::{AbortedKey, Held, KeySet, Labelled, LeakedKey, RotationId};

/// A clock may be this much behind what is written down before that is said: times are written in whole seconds, and
/// the clocks of two machines differ.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// How a rotation stands: what is in each place, how old the key in force is, and what is wrong.
///
/// ```
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::{ApiKey, Kanal};
/// # use keysheath::store::MemoryStore;
/// # use keysheath::rotation::{Rotation, RotationPolicy};
/// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
/// rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
/// let status = rotation.status()?;
/// assert!(!status.is_overdue());
/// println!("{status}");
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RotationStatus {
    issuer: &'static str,
    generation: Option<Generation>,
    current: Option<SlotStatus>,
    pending: Option<SlotStatus>,
    previous: Option<SlotStatus>,
    retired: Vec<Fingerprint>,
    given_up: Vec<AbortedKey>,
    compromised: Vec<Fingerprint>,
    leaked: Vec<LeakedKey>,
    age: Option<Duration>,
    due: Option<SystemTime>,
    is_due_soon: bool,
    is_overdue: bool,
    clock_behind: Option<Duration>,
    refused: Option<Generation>,
    newest: Option<RotationId>,
    unaudited: Option<(u64, AuditError)>,
}

impl<I: Issuer> Rotation<I> {
    /// How the rotation stands now. What is in force is published, where it is news.
    ///
    /// # Errors
    /// [`RotationError::Document`] and [`RotationError::Unreadable`].
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn show(rotation: &Rotation<Kanal>) -> Result<(), RotationError> {
    ///     println!("{}", rotation.status()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn status(&self) -> Result<RotationStatus, RotationError> {
        self.status_at(self.now().wall())
    }

    /// As [`Rotation::status`], for another time.
    ///
    /// # Errors
    /// As [`Rotation::status`].
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use keysheath::key::Kanal;
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn is_overdue_in_a_week(rotation: &Rotation<Kanal>) -> Result<bool, RotationError> {
    ///     Ok(rotation.status_at(SystemTime::now() + Duration::from_secs(7 * 86_400))?.is_overdue())
    /// }
    /// ```
    pub fn status_at(&self, now: SystemTime) -> Result<RotationStatus, RotationError> {
        let (keys, _) = self.look(self.now())?;
        let age = keys.current().map(|current| Age::of(current, &self.policy, now));
        let slot = |held: Option<&Held>| held.map(SlotStatus::of);
        Ok(RotationStatus {
            issuer: keys.profile().name(),
            generation: keys.generation(),
            current: slot(keys.current()),
            pending: slot(keys.pending()),
            previous: slot(keys.previous()),
            retired: keys.retired().to_vec(),
            given_up: keys.given_up().to_vec(),
            compromised: keys.compromised().to_vec(),
            leaked: keys.leaked().to_vec(),
            age: age.as_ref().map(|age| age.since_staging),
            due: age.as_ref().and_then(|age| age.due),
            is_due_soon: age.as_ref().is_some_and(|age| age.is_due_soon),
            is_overdue: age.as_ref().is_some_and(|age| age.is_overdue),
            clock_behind: behind(&keys, now),
            refused: self.publisher.refused().filter(|refused| Some(*refused) <= keys.generation()),
            newest: keys.newest_rotation(),
            unaudited: self.seen().unaudited.clone(),
        })
    }
}

/// How far the clock is behind the latest time that is written down.
fn behind(keys: &KeySet, now: SystemTime) -> Option<Duration> {
    let slots = [keys.current(), keys.pending(), keys.previous()];
    let times = slots
        .into_iter()
        .flatten()
        .flat_map(|held| [Some(held.staged()), held.verified(), held.promoted(), held.demoted()]);
    let behind = times.flatten().max()?.duration_since(now).ok()?;
    (behind > CLOCK_SLACK).then_some(behind)
}

impl RotationStatus {
    /// The version number of what is in force; `None` before the first key.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn log(status: &RotationStatus) {
    ///     println!("{:?}", status.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The key in force.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn sends(status: &RotationStatus) -> bool {
    ///     status.current().is_some()
    /// }
    /// ```
    #[must_use]
    pub const fn current(&self) -> Option<&SlotStatus> {
        self.current.as_ref()
    }

    /// The key that is to be in force next.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn is_under_way(status: &RotationStatus) -> bool {
    ///     status.pending().is_some()
    /// }
    /// ```
    #[must_use]
    pub const fn pending(&self) -> Option<&SlotStatus> {
        self.pending.as_ref()
    }

    /// The key that was in force before, and is not retired.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn can_roll_back(status: &RotationStatus) -> bool {
    ///     status.previous().is_some()
    /// }
    /// ```
    #[must_use]
    pub const fn previous(&self) -> Option<&SlotStatus> {
        self.previous.as_ref()
    }

    /// The last keys that were retired or given up, the oldest first.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn log(status: &RotationStatus) {
    ///     println!("{:?}", status.retired());
    /// }
    /// ```
    #[must_use]
    pub fn retired(&self) -> &[Fingerprint] {
        &self.retired
    }

    /// Those of the retired keys that were given up, that no probe has seen refused and that nobody has said are deleted, the
    /// oldest first. [`next_step`](Rotation::next_step) says when to delete them.
    #[must_use]
    pub fn given_up(&self) -> &[AbortedKey] {
        &self.given_up
    }

    /// The keys that have leaked, the oldest first.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn log(status: &RotationStatus) {
    ///     println!("{:?}", status.compromised());
    /// }
    /// ```
    #[must_use]
    pub fn compromised(&self) -> &[Fingerprint] {
        &self.compromised
    }

    /// Those of the compromised keys that were in a place and that nobody has said are deleted, the oldest first.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn warn(status: &RotationStatus) {
    ///     for leaked in status.leaked() {
    ///         eprintln!("delete the key {} now", leaked.fingerprint());
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn leaked(&self) -> &[LeakedKey] {
        &self.leaked
    }

    /// How long ago the key in force was staged or adopted; nothing, by a clock that was set back since.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn days(status: &RotationStatus) -> Option<u64> {
    ///     Some(status.age()?.as_secs() / 86_400)
    /// }
    /// ```
    #[must_use]
    pub const fn age(&self) -> Option<Duration> {
        self.age
    }

    /// When the key in force reaches the largest age of the policy.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn log(status: &RotationStatus) {
    ///     println!("{:?}", status.due());
    /// }
    /// ```
    #[must_use]
    pub const fn due(&self) -> Option<SystemTime> {
        self.due
    }

    /// Whether that is within the policy's warning, and not past.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn warn(status: &RotationStatus) {
    ///     if status.is_due_soon() {
    ///         eprintln!("time for a new key");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn is_due_soon(&self) -> bool {
        self.is_due_soon
    }

    /// Whether that is past. A clock that was set back never makes it so.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn exit_code(status: &RotationStatus) -> u8 {
    ///     u8::from(status.is_overdue())
    /// }
    /// ```
    #[must_use]
    pub const fn is_overdue(&self) -> bool {
        self.is_overdue
    }

    /// How far the clock is behind the latest time that is written down, where that is more than a minute. Then waits are
    /// longer, and nothing is due.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn warn(status: &RotationStatus) {
    ///     if let Some(behind) = status.clock_behind() {
    ///         eprintln!("check the clock: it is {} s behind", behind.as_secs());
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn clock_behind(&self) -> Option<Duration> {
        self.clock_behind
    }

    /// The latest generation that the issuer refused, as this process's handle was told. Where it is the one in force, the
    /// key needs a person.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn is_refused(status: &RotationStatus) -> bool {
    ///     status.refused().is_some() && status.refused() == status.generation()
    /// }
    /// ```
    #[must_use]
    pub const fn refused(&self) -> Option<Generation> {
        self.refused
    }

    /// The newest rotation, under way or not; `None` before the first.
    #[must_use]
    pub const fn newest_rotation(&self) -> Option<RotationId> {
        self.newest
    }

    /// Whether the issuer has refused the active key: to this process, or to a probe.
    #[must_use]
    pub fn is_active_key_refused(&self) -> bool {
        let by_probe = self.current.as_ref().is_some_and(|current| current.refused().is_some());
        by_probe || (self.refused.is_some() && self.refused == self.generation)
    }

    /// How many events of this `Rotation` are missing from an audit, and why the last one is; `None` where none is.
    ///
    /// ```
    /// # use keysheath::rotation::RotationStatus;
    /// fn warn(status: &RotationStatus) {
    ///     if let Some((count, error)) = status.unaudited() {
    ///         eprintln!("{count} events are not in the audit: {error}");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn unaudited(&self) -> Option<(u64, &AuditError)> {
        self.unaudited.as_ref().map(|(count, error)| (*count, error))
    }
}

impl fmt::Display for RotationStatus {
    /// A line for each place, and one for each thing that is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            None => write!(f, "{}: no key yet", self.issuer)?,
            Some(generation) => write!(f, "{}: generation {generation}", self.issuer)?,
        }
        for (name, slot) in
            [("in force", &self.current), ("pending", &self.pending), ("previous", &self.previous)]
        {
            if let Some(slot) = slot {
                write!(f, "\n  {name}: {slot}")?;
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
        for given_up in &self.given_up {
            let key = Labelled { name: given_up.name(), fingerprint: given_up.fingerprint() };
            write!(
                f,
                "\n  given up: {key} (rotation {}), staged {}, to be deleted when the next step says so",
                given_up.rotation(),
                Utc(given_up.staged())
            )?;
        }
        for fingerprint in &self.compromised {
            write!(f, "\n  compromised: {fingerprint}")?;
            if let Some(leaked) = self.leaked.iter().find(|leaked| leaked.fingerprint() == *fingerprint) {
                if let Some(name) = leaked.name() {
                    write!(f, ", named {}", Printable(name))?;
                }
                write!(f, ", staged {}, TO BE DELETED: nobody has said that it is", Utc(leaked.staged()))?;
            }
        }
        if self.is_active_key_refused() {
            f.write_str("\n  REFUSED: the issuer has refused the active key")?;
        }
        if let Some(behind) = self.clock_behind {
            write!(f, "\n  the clock is {} behind what is written down: check it", Span(behind))?;
        }
        if let Some((count, error)) = &self.unaudited {
            write!(f, "\n  {count} events are not in the audit: {error}")?;
        }
        Ok(())
    }
}
