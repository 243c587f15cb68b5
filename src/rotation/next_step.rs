//! What a person has to do now.

mod told;

use std::time::{Duration, SystemTime};

use super::commit::LOOKS;
use super::probing::since_promotion;
use super::{Rotation, RotationError, RotationPolicy};
use crate::fingerprint::Fingerprint;
use crate::handle::Generation;
use crate::issuer::Profile;
use crate::keyset::{Held, KeySet, Place, RotationId};
use crate::presence::{Fleet, PresenceRecord};
use crate::utc::Utc;

pub(super) use told::{Named, Page};

/// What a person has to do now. Its `Display` tells them, in the issuer's own words for where.
///
/// ```
/// # use keysheath::{document::MemoryStore, handle::KeyHandle, issuer::Kanal};
/// # use keysheath::rotation::{NextStep, Rotation, RotationPolicy};
/// # let rotation = Rotation::open(MemoryStore::new(), &KeyHandle::<Kanal>::live(), RotationPolicy::new())?;
/// let step = rotation.next_step()?;
/// assert!(matches!(step, NextStep::Create { .. }));
/// assert!(step.to_string().contains("Settings → API Keys → Add API key"));
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// Create a key in the app, and stage it.
    Create {
        /// Whose.
        profile: &'static Profile,
        /// What to call it there.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// Verify a key.
    Verify {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
        /// Pending, or in force.
        place: Place,
    },
    /// See by hand that a key works: there is no probe.
    VerifyByHand {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
    },
    /// Promote the pending key.
    Promote {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
    },
    /// Wait: the previous key may still be in use.
    Wait {
        /// The previous key.
        fingerprint: Fingerprint,
        /// What is left of the settle time.
        left: Duration,
        /// Whether no request of this process holds the previous key.
        is_drained: bool,
        /// The processes of the fleet that show that they do not have the key in force alone.
        behind: Vec<PresenceRecord>,
    },
    /// Delete the previous key in the app, and retire it.
    Delete {
        /// Whose.
        profile: &'static Profile,
        /// The key to delete.
        fingerprint: Fingerprint,
        /// When it was staged; an app shows no fingerprints.
        staged: SystemTime,
        /// What was noted of it then.
        note: Option<String>,
        /// The key to keep.
        keep: Fingerprint,
        /// Whether the key to keep was seen to work, and a probe will see that the right one was deleted. If not, the
        /// person must see to both.
        is_confirmed: bool,
        /// How many processes show that they have the key in force alone; `None` where the rotation was given no
        /// [presence](super::Rotation::with_presence). With none, the person must see that nobody uses the old one.
        shown: Option<usize>,
        /// The processes that have shown something else, and then nothing for their time to live. The person must see
        /// that they use the old key no more.
        silent: Vec<PresenceRecord>,
    },
    /// Delete a key that leaked in the app, at once, and confirm that it is deleted.
    DeleteLeaked {
        /// Whose.
        profile: &'static Profile,
        /// The key to delete.
        fingerprint: Fingerprint,
        /// When it was staged; an app shows no fingerprints.
        staged: SystemTime,
        /// The key in force, which is to be kept; `None` where there is none.
        keep: Option<Fingerprint>,
    },
    /// Retire the previous key: the issuer has refused one of the two keys, so that somebody has deleted one.
    Confirm {
        /// The previous key.
        fingerprint: Fingerprint,
        /// The key in force.
        in_force: Fingerprint,
    },
    /// See why the issuer refuses the key in force.
    Refused {
        /// Whose.
        profile: &'static Profile,
        /// The key in force.
        fingerprint: Fingerprint,
        /// What to call the next one.
        name: String,
    },
    /// Nothing.
    Nothing {
        /// When the key in force becomes too old; `None` where that is later than a clock can tell.
        due: Option<SystemTime>,
    },
}

/// Why a key is to be created.
///
/// ```
/// use keysheath::rotation::Reason;
/// assert_ne!(Reason::NoKey, Reason::Soon { due: std::time::SystemTime::UNIX_EPOCH });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is none.
    NoKey,
    /// The only one has leaked; delete that first.
    Leaked {
        /// The oldest key that leaked and that nobody has said is deleted.
        fingerprint: Fingerprint,
    },
    /// The key in force becomes too old soon.
    Soon {
        /// When.
        due: SystemTime,
    },
    /// The key in force is too old.
    Overdue {
        /// Since when.
        due: SystemTime,
    },
}

/// What is known beside the key set.
pub(super) struct Surroundings {
    pub(super) now: SystemTime,
    pub(super) has_probe: bool,
    /// Whether no request of this process holds a generation before the one in force.
    pub(super) is_drained: bool,
    /// The latest generation that the issuer refused.
    pub(super) refused: Option<Generation>,
    /// What the processes of the fleet show, where it is looked at and they do.
    pub(super) fleet: Option<Fleet>,
}

impl Rotation {
    /// Tells what a person has to do now, by what is persisted, the clock, what this process still sends, and what the
    /// others [show](Rotation::with_presence). It asks the issuer nothing, and changes nothing; what is in force is
    /// published, where it is news. Before a deletion is asked for, what was read is
    /// [confirmed](crate::document::DocumentStore::is_current), for which an OpenBao writes it once more.
    ///
    /// A deletion is asked for only once the key in force was accepted for every store, the settle time is over, no
    /// request of this process holds the old key, and every process that shows itself has the new one alone. Where there
    /// is no probe, or a process has gone silent, the person is told what to see for themselves before.
    ///
    /// # Errors
    /// [`RotationError::Document`], [`RotationError::Unreadable`], [`RotationError::Contended`] where the key set changes each
    /// time before it is confirmed, and [`RotationError::Presence`] where there is an old key to delete and who uses it cannot
    /// be seen.
    ///
    /// ```
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn tell(rotation: &Rotation) -> Result<(), RotationError> {
    ///     println!("{}", rotation.next_step()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn next_step(&self) -> Result<NextStep, RotationError> {
        for _ in 0..LOOKS {
            let now = self.now();
            let (keys, there) = self.look(now)?;
            let step = self.decide(&keys, now)?;
            if !matches!(step, NextStep::Delete { .. }) {
                return Ok(step);
            }
            // By a replica that is behind, the wrong key would be deleted. What the fleet shows is read after that anew.
            if self.is_current(there.as_ref())? {
                return self.decide(&keys, now);
            }
        }
        Err(RotationError::Contended { place: self.store.provenance(), attempts: LOOKS })
    }

    fn decide(&self, keys: &KeySet, now: SystemTime) -> Result<NextStep, RotationError> {
        let surroundings = Surroundings {
            now,
            has_probe: self.probe.is_some(),
            is_drained: self.is_drained(keys),
            refused: self.handle.refused(),
            fleet: self.fleet_of(keys)?,
        };
        Ok(decide(keys, &self.policy, &surroundings))
    }

    /// What the processes of the fleet show, where there is an old key that they may use.
    fn fleet_of(&self, keys: &KeySet) -> Result<Option<Fleet>, RotationError> {
        if self.presence.is_empty() || keys.previous().is_none() {
            return Ok(None);
        }
        self.fleet().map(Some)
    }

    /// The processes of the fleet, silent ones included, that do not show that they have the key in force alone.
    pub(super) fn who_may_use_another_than(
        &self,
        keys: &KeySet,
    ) -> Result<Vec<PresenceRecord>, RotationError> {
        let fleet = self.fleet()?;
        Ok(fleet.records().iter().filter(|record| !record.is_up_to_date(keys)).cloned().collect())
    }

    /// Whether no request of this process holds a generation before the one in force.
    pub(super) fn is_drained(&self, keys: &KeySet) -> bool {
        keys.generation().and_then(Generation::before).is_none_or(|before| self.handle.is_drained(before))
    }
}

fn decide(keys: &KeySet, policy: &RotationPolicy, around: &Surroundings) -> NextStep {
    let leaked = keys.leaked().first();
    let is_empty = keys.current().is_none() && keys.pending().is_none();
    if let Some(leaked) = leaked.filter(|_| !is_empty) {
        return NextStep::DeleteLeaked {
            profile: keys.profile(),
            fingerprint: leaked.fingerprint(),
            staged: leaked.staged(),
            keep: keys.current().map(Held::fingerprint),
        };
    }
    match (keys.current(), keys.previous(), keys.pending()) {
        (Some(current), Some(previous), _) => end_of_rotation(keys, current, previous, policy, around),
        (_, _, Some(pending)) => {
            let (fingerprint, rotation) = (pending.fingerprint(), pending.rotation());
            if pending.verified().is_some() {
                NextStep::Promote { fingerprint, rotation }
            } else if around.has_probe {
                NextStep::Verify { fingerprint, rotation, place: Place::Pending }
            } else {
                NextStep::VerifyByHand { fingerprint, rotation }
            }
        }
        (Some(current), None, None) => between_rotations(keys, current, policy, around),
        (None, _, None) => {
            // Both in one step: without a key nothing is sent.
            let reason =
                leaked.map_or(Reason::NoKey, |leaked| Reason::Leaked { fingerprint: leaked.fingerprint() });
            create(keys, policy, around, reason)
        }
    }
}

fn end_of_rotation(
    keys: &KeySet,
    current: &Held,
    previous: &Held,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    let fingerprint = previous.fingerprint();
    let in_force = keys.generation().map_or(0, Generation::number);
    // Of this generation or the one before: the issuer has stopped to know one of the two keys.
    let is_refused = around.refused.is_some_and(|refused| refused.number() + 1 >= in_force);
    if is_refused && around.has_probe {
        return NextStep::Confirm { fingerprint, in_force: current.fingerprint() };
    }
    let left = policy.settle().saturating_sub(since_promotion(current, around.now));
    let records = around.fleet.as_ref().map_or(&[][..], Fleet::records);
    let (up_to_date, others): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| record.is_up_to_date(keys));
    let is_silent = |record: &&PresenceRecord| record.is_silent_at(around.now);
    let (silent, behind): (Vec<_>, Vec<_>) =
        others.into_iter().cloned().partition(|record| is_silent(&record));
    if !left.is_zero() || !around.is_drained || !behind.is_empty() {
        return NextStep::Wait { fingerprint, left, is_drained: around.is_drained, behind };
    }
    let is_verified = current.verified().is_some();
    if around.has_probe && !is_verified {
        let (fingerprint, rotation) = (current.fingerprint(), current.rotation());
        return NextStep::Verify { fingerprint, rotation, place: Place::Current };
    }
    NextStep::Delete {
        profile: keys.profile(),
        fingerprint,
        staged: previous.staged(),
        note: previous.note().map(str::to_owned),
        keep: current.fingerprint(),
        is_confirmed: around.has_probe,
        shown: around.fleet.as_ref().map(|_| up_to_date.iter().filter(|record| !is_silent(record)).count()),
        silent,
    }
}

fn between_rotations(
    keys: &KeySet,
    current: &Held,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    if around.refused.is_some() && around.refused == keys.generation() {
        return NextStep::Refused {
            profile: keys.profile(),
            fingerprint: current.fingerprint(),
            name: name_of_the_next(policy, around.now),
        };
    }
    let age = Age::of(current, policy, around.now);
    match age.due {
        Some(due) if age.is_overdue => create(keys, policy, around, Reason::Overdue { due }),
        Some(due) if age.is_due_soon => create(keys, policy, around, Reason::Soon { due }),
        due => NextStep::Nothing { due },
    }
}

fn create(keys: &KeySet, policy: &RotationPolicy, around: &Surroundings, reason: Reason) -> NextStep {
    NextStep::Create { profile: keys.profile(), name: name_of_the_next(policy, around.now), reason }
}

fn name_of_the_next(policy: &RotationPolicy, now: SystemTime) -> String {
    let (year, month, _) = Utc(now).date();
    format!("{}-{year:04}-{month:02}", policy.key_name())
}

/// How old a key is, and whether that is too old.
pub(super) struct Age {
    pub(super) since_staging: Duration,
    pub(super) due: Option<SystemTime>,
    pub(super) is_due_soon: bool,
    pub(super) is_overdue: bool,
}

impl Age {
    /// By a clock that was set back since the key was staged it has no age, and is not due.
    pub(super) fn of(current: &Held, policy: &RotationPolicy, now: SystemTime) -> Self {
        let age = now.duration_since(current.staged()).ok();
        let is_older = |than| age.is_some_and(|age| age >= than);
        let is_overdue = is_older(policy.max_age());
        Self {
            since_staging: age.unwrap_or_default(),
            due: current.staged().checked_add(policy.max_age()),
            is_due_soon: !is_overdue && is_older(policy.max_age().saturating_sub(policy.warning())),
            is_overdue,
        }
    }
}
