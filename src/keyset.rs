//! The state of a rotation: which key is active, which comes next, which was active before, and which never
//! returns.
//!
//! A [`KeySet`] is a pure state machine, driven by a [`Rotation`](crate::rotation::Rotation). It does no I/O
//! and reads no clock; it can be written to a document and read again. A repeated step changes nothing, so a
//! process that dies in the middle of a rotation repeats the last step.
//!
//! ```text
//!            stage             verify            promote                    retire
//!   new key ───────► pending ───────► pending ──────────► current ─ ─ ─┐
//!                      │   ▲          (verified)             │         │ the next promotion
//!                abort │   └────────────────── roll back ────┘         ▼
//!                      ▼                                            previous ───────► retired
//!                   retired              compromise, in any state: ───────► compromised
//! ```
//!
//! Rules, and why:
//!
//! - A key is staged before any network request about it: it was shown once, and would otherwise be lost.
//! - A key that is current, previous, retired or compromised is not staged: the wrong one was copied.
//! - One rotation at a time. Another one is [`KeySetError::InProgress`], which says since when and by whom.
//! - An unverified key is promoted only [on explicit request](crate::rotation::CheckedBy::Person).
//! - A new key is not promoted while the previous one is still there: the old key would be forgotten before a
//!   person has deleted it.
//! - If a person deleted the active key instead of the previous one, the previous one becomes active again,
//!   and the deleted one is retired.
//! - A compromised key leaves its state at once. The active key is then the pending key if it is verified,
//!   else the previous one, else none: failing closed is better than sending a leaked key.
//!
//! ```
//! use keysheath::key::{ApiKey, Issuer, Kanal};
//! use keysheath::keyset::{KeySet, KeyState};
//! use keysheath::rotation::{Rotation, RotationPolicy};
//! use keysheath::store::{DocumentStore, MemoryStore};
//!
//! let store = MemoryStore::new();
//! let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
//! Rotation::<Kanal>::open(store.clone(), RotationPolicy::new())?.adopt(&key)?;
//!
//! let document = store.read()?.expect("the rotation wrote it");
//! let keys = KeySet::from_document(Kanal::PROFILE, document.content().expose_secret())?;
//! let fingerprint = key.fingerprint().expect("a Kanal key has a fingerprint");
//! assert_eq!(keys.state_of(fingerprint), Some(KeyState::Current));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod form;
mod key;
mod staging;
mod steps;
#[cfg(test)]
#[path = "../tests/units/keyset/steps.rs"]
mod tests;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::handle::{Generation, NoActiveKey, Publication};
use crate::internal::printing::Printable;
use crate::key::{Fingerprint, MIN_ENTROPY_BITS, Profile};
use crate::store::MAX_DOCUMENT;

pub use key::{KeyInfo, KeyState, ManagedKey, RotationId, UndeletedKey};
pub(crate) use key::{Labeled, MAX_NOTE, MAX_PERSON};
pub(crate) use staging::{Hidden, Staging, has_part_of, is_printable};
pub(crate) use steps::{Effect, Promotion};

/// The number of retired fingerprints that are remembered. Beyond it the oldest is forgotten, and its key
/// could be staged again.
pub(crate) const MAX_RETIRED: usize = 16;

/// The number of compromised fingerprints that are remembered.
pub(crate) const MAX_COMPROMISED: usize = 64;

/// The number of compromised fingerprints up to which a key that is not in the key set can be reported. The
/// rest of [`MAX_COMPROMISED`] is left for keys that are.
pub(crate) const MAX_REPORTED: usize = 32;

/// The largest number of a generation or rotation. A document with a larger one is refused, and so is a step
/// that would need one. At one rotation per second it is reached in 285 million years.
pub(crate) const LAST_NUMBER: u64 = (1 << 53) - 1;

/// The longest wait of a policy: 100 years of 365 days. Longer ones, such as `Duration::MAX`, count as this
/// one, which every clock can add to the current time.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The keys of one rotation, and what is remembered of those that left it.
///
/// It is read here and changed by a [`Rotation`](crate::rotation::Rotation). A `KeySet<KeyInfo>` is the same
/// without the keys, for status output.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySet<K = ManagedKey> {
    profile: &'static Profile,
    /// 0 before the first key; it grows whenever the active key changes, to none included.
    generation: u64,
    /// The newest rotation, and so the number of rotations.
    rotation: u64,
    lineage: Option<Fingerprint>,
    current: Option<K>,
    pending: Option<K>,
    previous: Option<K>,
    /// The oldest first.
    retired: Vec<Fingerprint>,
    /// Those of the retired keys that may still work, and whose deletion is not confirmed.
    aborted: Vec<UndeletedKey>,
    compromised: Vec<Fingerprint>,
    /// Those of the compromised keys that were in the key set, and whose deletion is not confirmed.
    leaked: Vec<UndeletedKey>,
}

/// A key set without the keys themselves, for status output.
pub(crate) type KeySetSummary = KeySet<KeyInfo>;

impl<K> KeySet<K> {
    /// Returns the profile of the issuer.
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// Returns the fingerprint of the first key that this key set took in; `None` before that.
    ///
    /// It never changes, and tells this key set from another one of the same issuer: a handle with keys of
    /// one refuses those of the other.
    #[must_use]
    pub const fn lineage(&self) -> Option<Fingerprint> {
        self.lineage
    }

    /// Returns the version number of the active key; `None` before the first key.
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        Generation::numbered(self.generation)
    }

    /// Returns the newest rotation, in progress or not; `None` before the first.
    #[must_use]
    pub fn newest_rotation(&self) -> Option<RotationId> {
        (self.rotation > 0).then_some(RotationId(self.rotation))
    }

    /// Returns the active key; `None` before the first one, and if the only one was compromised.
    #[must_use]
    pub const fn current(&self) -> Option<&K> {
        self.current.as_ref()
    }

    /// Returns the key that is to become active next.
    #[must_use]
    pub const fn pending(&self) -> Option<&K> {
        self.pending.as_ref()
    }

    /// Returns the key that was active before, and is not retired yet.
    #[must_use]
    pub const fn previous(&self) -> Option<&K> {
        self.previous.as_ref()
    }

    /// Returns the fingerprints of the last 16 keys that were retired or aborted, the oldest
    /// first.
    #[must_use]
    pub fn retired(&self) -> &[Fingerprint] {
        &self.retired
    }

    /// Returns the aborted keys that no probe saw refused and whose deletion is not confirmed, the oldest
    /// first.
    ///
    /// Each is among the [retired](KeySet::retired) ones, and is forgotten with them.
    /// [`Rotation::next_step`](crate::rotation::Rotation::next_step) says when to delete them.
    #[must_use]
    pub fn aborted(&self) -> &[UndeletedKey] {
        &self.aborted
    }

    /// Returns the fingerprints of the compromised keys, the oldest first.
    ///
    /// At most 64 are remembered, and at most 32 of keys that were not in the key set when they were
    /// reported. A report about a pending, active or previous key is never refused: beyond that number the
    /// oldest fingerprint is forgotten, and its key could be staged again. A store with less room, such as
    /// the keychain, remembers fewer: to make room for a step, retired keys are forgotten first, then
    /// compromised ones; of both, those that a person still has to delete are forgotten last.
    #[must_use]
    pub fn compromised(&self) -> &[Fingerprint] {
        &self.compromised
    }

    /// Returns the compromised keys that were in this key set and whose deletion is not confirmed, the oldest
    /// first.
    #[must_use]
    pub fn leaked(&self) -> &[UndeletedKey] {
        &self.leaked
    }
}

impl<K: AsRef<KeyInfo>> KeySet<K> {
    /// Returns the state of the key with this fingerprint; `None` if it never was in this key set, or is
    /// forgotten.
    #[must_use]
    pub fn state_of(&self, fingerprint: Fingerprint) -> Option<KeyState> {
        let slots = [
            (&self.pending, KeyState::Pending),
            (&self.current, KeyState::Current),
            (&self.previous, KeyState::Previous),
        ];
        let is_in =
            |slot: &Option<K>| slot.as_ref().is_some_and(|key| key.as_ref().fingerprint() == fingerprint);
        let slot = slots.into_iter().find(|(slot, _)| is_in(slot)).map(|(_, state)| state);
        let listed = |list: &[Fingerprint], state| list.contains(&fingerprint).then_some(state);
        slot.or_else(|| listed(&self.compromised, KeyState::Compromised))
            .or_else(|| listed(&self.retired, KeyState::Retired))
    }

    /// Returns the active, pending and previous keys.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &K> {
        [&self.current, &self.pending, &self.previous].into_iter().flatten()
    }

    /// Returns the key that this rotation brought, while it is in a slot.
    pub(crate) fn of_rotation(&self, rotation: RotationId) -> Option<&K> {
        self.slots().find(|key| key.as_ref().rotation() == rotation)
    }

    /// Returns the key that left the key set with this fingerprint, while its deletion is not confirmed.
    pub(crate) fn undeleted(&self, fingerprint: Fingerprint) -> Option<&UndeletedKey> {
        self.leaked.iter().chain(&self.aborted).find(|key| key.fingerprint() == fingerprint)
    }
}

impl KeySet {
    /// Creates a key set without keys.
    ///
    /// # Errors
    /// [`KeySetError::Weak`] for an issuer whose keys could be guessed from the fingerprints that a key set
    /// remembers.
    pub(crate) const fn new(profile: &'static Profile) -> Result<Self, KeySetError> {
        if profile.entropy_bits() < MIN_ENTROPY_BITS {
            return Err(KeySetError::Weak);
        }
        Ok(Self {
            profile,
            generation: 0,
            rotation: 0,
            lineage: None,
            current: None,
            pending: None,
            previous: None,
            retired: Vec::new(),
            aborted: Vec::new(),
            compromised: Vec::new(),
            leaked: Vec::new(),
        })
    }

    /// Returns the key set without the keys.
    #[must_use]
    pub fn summary(&self) -> KeySetSummary {
        let info = |key: &Option<ManagedKey>| key.as_ref().map(|key| key.info().clone());
        KeySet {
            profile: self.profile,
            generation: self.generation,
            rotation: self.rotation,
            lineage: self.lineage,
            current: info(&self.current),
            pending: info(&self.pending),
            previous: info(&self.previous),
            retired: self.retired.clone(),
            aborted: self.aborted.clone(),
            compromised: self.compromised.clone(),
            leaked: self.leaked.clone(),
        }
    }

    /// Returns the keys for a handle.
    ///
    /// The previous key gets what remains of `grace` since it was replaced; all of it if the clock was set
    /// back since. A handle that has it already never prolongs it. A grace longer than a clock can represent
    /// is cut to the longest that it can.
    pub(crate) fn publication(&self, grace: Duration, now: SystemTime) -> Publication<'_> {
        let current = match &self.current {
            Some(key) => Ok(key.key()),
            // A leaked key that was never active here leaves the handle with `NoKey`, not `Compromised`.
            None if self.generation == 0 => Err(NoActiveKey::NoKey),
            None => Err(NoActiveKey::Compromised),
        };
        let remaining = |key: &ManagedKey| {
            let since = now.duration_since(key.info().demoted()?).unwrap_or_default();
            grace.checked_sub(since).filter(|remaining| !remaining.is_zero())
        };
        let previous = self.previous.as_ref().and_then(|key| {
            let until = Instant::now().checked_add(remaining(key)?.min(LONGEST_WAIT))?;
            Some((key.key(), until))
        });
        Publication { generation: self.generation(), lineage: self.lineage, current, previous }
    }
}

impl<K: AsRef<KeyInfo>> fmt::Debug for KeySet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({}, generation {}", self.profile.name(), self.generation)?;
        for (name, slot) in
            [("current", &self.current), ("previous", &self.previous), ("pending", &self.pending)]
        {
            match slot {
                Some(key) => write!(f, ", {name} {}", key.as_ref().fingerprint())?,
                None => write!(f, ", {name} none")?,
            }
        }
        f.write_str(")")
    }
}

/// A refused step, or a document that is no key set. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The issuer's keys could be guessed from their fingerprints.
    #[error("keys of this issuer could be guessed from what a key set remembers of them, so it has none")]
    Weak,
    /// The document is the key set of another issuer, or the key is another issuer's.
    #[error("the document or the key is of another issuer: use one key set for each issuer")]
    OtherIssuer,
    /// There are keys already.
    #[error("there is an active or pending key already: stage this one")]
    HasKeys,
    /// The key is in the key set already, or was.
    #[error("this is {state}: copy the new key again from where it was created, or create one")]
    Known {
        /// Its state.
        state: KeyState,
    },
    /// Another key is pending.
    #[error("rotation {rotation} is in progress, begun by {}: promote or abort it first", Printable(.by))]
    InProgress {
        /// Which rotation.
        rotation: RotationId,
        /// Since when.
        since: SystemTime,
        /// By whom.
        by: String,
    },
    /// That rotation's key is not pending.
    #[error("the key of rotation {rotation} is not pending: look at the status")]
    NotPending {
        /// Which rotation.
        rotation: RotationId,
    },
    /// The pending key was not verified.
    #[error(
        "the pending key was not verified: verify it; without a probe, say that a person has checked it: \
         `CheckedBy::Person(id)`"
    )]
    Unverified,
    /// An older key waits to be retired.
    #[error(
        "{} is still the previous one: retire it first, as the next step says; keep it until then",
        label(.name.as_deref(), .fingerprint)
    )]
    #[non_exhaustive]
    PreviousThere {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its name in the app, if it is known.
        name: Option<String>,
    },
    /// That rotation's key is not active.
    #[error("that rotation's key is not the active one: look at the status")]
    NotCurrent,
    /// That key is not pending, active or previous.
    #[error("that key is no longer in this key set: look at the status")]
    NotHeld,
    /// There is no previous key.
    #[error("there is no previous key to go back to: it was retired, compromised, or there never was one")]
    NothingBefore,
    /// No more compromised keys that are not in the key set can be remembered.
    #[error(
        "the key is not in this key set, and with {MAX_REPORTED} compromised keys no more of those are \
         remembered: delete it in the app; for room, begin a new key set"
    )]
    TooManyCompromised,
    /// That key is neither compromised nor aborted.
    #[error(
        "that key is neither compromised nor aborted: look at the status, or report it as compromised first"
    )]
    NotCompromised,
    /// A note or a name is too long, or not printable.
    #[error(
        "a note has at most {MAX_NOTE} printable characters, a name {MAX_PERSON}, and neither has a line \
         break or a mark that changes the direction of text: shorten it"
    )]
    BadNote,
    /// A note or a name contains a key or a part of one, in some form.
    #[error(
        "the note or a name contains a part of a key, as it is or encoded: leave it out, and refer to a key \
         by its fingerprint"
    )]
    KeyInNote,
    /// The document is larger than any key set.
    #[error("the document has more than {MAX_DOCUMENT} bytes, so it is no key set: restore it from a backup")]
    TooLarge,
    /// The document is not one that this crate wrote.
    #[error("the document is no key set ({rule}): restore it from a backup, or begin a new key set")]
    #[non_exhaustive]
    Corrupt {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A number is as large as it can be written.
    #[error(
        "the numbers of this key set are as large as they can be, so no further step can be written: restore \
         it from a backup, or begin a new key set"
    )]
    Exhausted,
    /// A newer version wrote it.
    #[error("the document has form {found}, and this version reads up to {known}: use the newer keysheath")]
    Newer {
        /// The form's number in the document.
        found: u64,
        /// The newest form that is known.
        known: u64,
    },
}

const fn label<'a>(name: Option<&'a str>, fingerprint: &Fingerprint) -> Labeled<'a> {
    Labeled { name, fingerprint: *fingerprint }
}
