//! What a person has to do now.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::probing::since_promotion;
use super::utc::{Span, Utc};
use super::{Rotation, RotationError, RotationPolicy};
use crate::fingerprint::Fingerprint;
use crate::handle::Generation;
use crate::issuer::Profile;
use crate::keyset::{Held, KeySet, Place, RotationId};

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
}

impl Rotation {
    /// Tells what a person has to do now, by what is persisted, the clock, and what this process still sends. It asks
    /// nothing over the network, and changes nothing; what is in force is published, where it is news.
    ///
    /// A deletion is asked for only once the key in force was accepted for every store, the settle time is over, and no
    /// request of this process holds the old key. Where there is no probe, the person is told what to see for
    /// themselves before.
    ///
    /// # Errors
    /// [`RotationError::Document`] and [`RotationError::Unreadable`].
    ///
    /// ```
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn tell(rotation: &Rotation) -> Result<(), RotationError> {
    ///     println!("{}", rotation.next_step()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn next_step(&self) -> Result<NextStep, RotationError> {
        let now = self.now();
        let keys = self.look(now)?;
        let surroundings = Surroundings {
            now,
            has_probe: self.probe.is_some(),
            is_drained: self.is_drained(&keys),
            refused: self.handle.refused(),
        };
        Ok(decide(&keys, &self.policy, &surroundings))
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
    if !left.is_zero() || !around.is_drained {
        return NextStep::Wait { fingerprint, left, is_drained: around.is_drained };
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

/// Where in the issuer's app.
pub(super) struct Page {
    title: &'static str,
    path: &'static str,
}

impl Page {
    fn to_create(profile: &Profile) -> Self {
        Self { title: profile.title(), path: profile.key_page() }
    }

    /// Without the button that adds a key, which is the last part of the way.
    pub(super) fn to_delete(profile: &Profile) -> Self {
        let path = profile.key_page();
        Self { title: profile.title(), path: path.rsplit_once(" → ").map_or(path, |(path, _)| path) }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.title, self.path)
    }
}

impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { profile, name, reason } => {
                write!(
                    f,
                    "{}create a key named {name} in {}, then stage it",
                    Because { reason, profile },
                    Page::to_create(profile)
                )
            }
            Self::Verify { fingerprint, rotation, place: Place::Pending } => {
                write!(f, "verify the pending key {fingerprint} (rotation {rotation}), or abort it")
            }
            Self::Verify { fingerprint, rotation, place } => write!(
                f,
                "nobody has seen {place} work, {fingerprint} (rotation {rotation}): verify it before the old one is \
                 deleted, or roll back"
            ),
            Self::VerifyByHand { fingerprint, rotation } => write!(
                f,
                "there is no probe: see for yourself that the pending key {fingerprint} (rotation {rotation}) works for \
                 every store, then promote it unverified; or abort it"
            ),
            Self::Promote { fingerprint, rotation } => {
                write!(f, "promote the verified key {fingerprint} (rotation {rotation})")
            }
            Self::Wait { fingerprint, left, is_drained } => {
                write!(f, "wait, and keep the key {fingerprint}: ")?;
                if !left.is_zero() {
                    write!(f, "other processes have {} to take up the new one", Span(*left))?;
                }
                if !left.is_zero() && !is_drained {
                    f.write_str("; ")?;
                }
                if *is_drained {
                    Ok(())
                } else {
                    f.write_str("requests of this process still hold the old one")
                }
            }
            Self::Delete { profile, fingerprint, staged, note, keep, is_confirmed } => {
                if !is_confirmed {
                    write!(f, "first see for yourself that the key {keep} works for every store; then ")?;
                }
                let page = Page::to_delete(profile);
                write!(
                    f,
                    "delete the key with fingerprint {fingerprint} in {page}: the one staged on {:#}",
                    Utc(*staged)
                )?;
                if let Some(note) = note {
                    write!(f, " (noted: {note})")?;
                }
                write!(f, ", and not {keep}; then retire it")?;
                f.write_str(if *is_confirmed {
                    ", and keysheath will confirm that the right one is gone"
                } else {
                    " unprobed"
                })
            }
            Self::DeleteLeaked { profile, fingerprint, staged, keep } => {
                let page = Page::to_delete(profile);
                let staged = Utc(*staged);
                write!(
                    f,
                    "delete the leaked key with fingerprint {fingerprint} in {page} now: the one staged on {staged:#}"
                )?;
                if let Some(keep) = keep {
                    write!(f, ", and not {keep}")?;
                }
                f.write_str("; then confirm that it is deleted")
            }
            Self::Confirm { fingerprint, in_force } => write!(
                f,
                "the issuer has refused {fingerprint} or {in_force}: retire the previous key now; keysheath will see which \
                 one was deleted, and fall back if it was the wrong one"
            ),
            Self::Refused { profile, fingerprint, name } => write!(
                f,
                "the issuer has refused the key in force, {fingerprint}: verify it; if it was deleted, create a key named \
                 {name} in {}, stage, verify and promote it",
                Page::to_create(profile)
            ),
            Self::Nothing { due: Some(due) } => write!(f, "nothing to do until {:#}", Utc(*due)),
            Self::Nothing { due: None } => f.write_str("nothing to do"),
        }
    }
}

struct Because<'a> {
    reason: &'a Reason,
    profile: &'a Profile,
}

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::NoKey => f.write_str("no key is in force: adopt the one in use, or "),
            Reason::Leaked { fingerprint } => write!(
                f,
                "no key is in force, because the only one leaked: first delete the key with fingerprint {fingerprint} in \
                 {}; then ",
                Page::to_delete(self.profile)
            ),
            Reason::Soon { due } => write!(f, "the key in force is to be replaced by {:#}: ", Utc(*due)),
            Reason::Overdue { due } => write!(f, "the key in force is overdue since {:#}: ", Utc(*due)),
        }
    }
}
