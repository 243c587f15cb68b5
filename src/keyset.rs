//! The state of a rotation: which key is in force, which is to be, which was, and which must never be again.
//!
//! A [`KeySet`] is a pure state machine. It reads no clock, no file and no network: it is told what happened, says whether
//! that may be, and can be written down and read again. A step that is done twice changes nothing the second time, so
//! whoever dies in the middle of a rotation does the last step once more.
//!
//! ```text
//!            stage             verify            promote                    retire
//!   new key ───────► pending ───────► pending ──────────► current ─ ─ ─┐
//!                      │   ▲          (verified)             │         │ the next promotion
//!                abort │   └────────────────── roll back ────┘         ▼
//!                      ▼                                            previous ───────► retired
//!                   retired              compromise, in any place: ───────► compromised
//! ```
//!
//! Rules, and why:
//!
//! - A key is staged before anything is asked over the network: it was shown once, and would else be lost.
//! - A key that is current, previous, retired or compromised is not staged: somebody copied the wrong one.
//! - One rotation at a time. Another one is [`KeySetError::InProgress`], and says since when and by whom.
//! - A key that nobody has verified is promoted only by a word that says so ([`Promotion::Unverified`]).
//! - A new key is not promoted while the previous one is still there: the old key would be forgotten before a person has
//!   deleted it.
//! - Where a person has deleted the key in force in place of the previous one, the previous one takes over
//!   ([`KeySet::fall_back`]), and the deleted one is retired.
//! - A compromised key leaves every place at once. What is in force then is the pending key if it is verified, else the
//!   previous one, else nothing: failing closed is better than sending a key that leaked.
//!
//! ```
//! use std::time::SystemTime;
//! use keysheath::key::{ApiKey, Issuer, Kanal};
//! use keysheath::keyset::{KeySet, Promotion, Staging};
//!
//! let now = SystemTime::now();
//! let mut keys = KeySet::new(Kanal::PROFILE)?;
//! keys.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw(), Staging::at(now))?;
//!
//! let new = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
//! let rotation = keys.stage(new.into_raw(), Staging::at(now).by("anna").with_note("spring"))?.rotation();
//! keys.verify(rotation, now)?;
//! keys.promote(rotation, Promotion::Verified, now)?;
//! assert!(keys.current().unwrap().key().matches(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"));
//! keys.retire(rotation)?; // once a person has deleted the old key
//! assert!(keys.previous().is_none());
//! # Ok::<(), keysheath::keyset::KeySetError>(())
//! ```

mod error;
mod form;
mod given_up;
mod held;
mod in_force;
mod leaked;
mod probed;
mod rules;
mod step;
mod texts;
mod view;

use std::time::SystemTime;

use crate::key::{Fingerprint, MIN_ENTROPY_BITS, Profile, RawKey};

pub use error::KeySetError;
pub use form::FORM_VERSION;
pub use given_up::AbortedKey;
pub use held::{Held, RotationId, Staging};
pub(crate) use in_force::LONGEST_WAIT;
pub use leaked::LeakedKey;
pub(crate) use step::Labelled;
pub use step::{Place, Promotion, Step};
pub(crate) use texts::{Hidden, has_part_of, is_printable};
pub use texts::{MAX_NOTE, MAX_PERSON};

use held::moment;

/// How many fingerprints of retired keys are remembered; then the oldest is forgotten, and its key could be staged again.
///
/// ```
/// assert_eq!(keysheath::keyset::MAX_RETIRED, 16);
/// ```
pub const MAX_RETIRED: usize = 16;

/// How many fingerprints of compromised keys are remembered. The leak of a key that is pending, in force or previous is
/// never refused: beyond this number the oldest fingerprint is forgotten, and its key could be staged again. A place with room
/// for less, as the keychain, remembers fewer: to make room for a step, retired keys are forgotten first, then compromised ones;
/// of both, those that a person still has to delete are forgotten last.
///
/// ```
/// assert_eq!(keysheath::keyset::MAX_COMPROMISED, 64);
/// ```
pub const MAX_COMPROMISED: usize = 64;

/// How many compromised keys may be remembered for one more to be named that is in no place. So much of
/// [`MAX_COMPROMISED`] is left for those that are.
///
/// ```
/// assert_eq!(keysheath::keyset::MAX_REPORTED, 32);
/// ```
pub const MAX_REPORTED: usize = 32;

/// The largest number of a generation or rotation. A document with a larger one is refused, and a step that would need
/// one is refused as well. At a rotation a second it is reached in 285 million years.
pub(crate) const LAST_NUMBER: u64 = (1 << 53) - 1;

/// The latest time that is written and read: the last second of the year 9999. Later ones are written as this one.
const LAST_TIME: u64 = 253_402_300_799;

/// The keys of one rotation, and what is remembered of those that are gone.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::keyset::KeySet;
/// let keys = KeySet::new(Kanal::PROFILE)?;
/// assert_eq!(format!("{keys:?}"), "KeySet(kanal, generation 0, current none, previous none, pending none)");
/// # Ok::<(), keysheath::keyset::KeySetError>(())
/// ```
pub struct KeySet {
    profile: &'static Profile,
    /// 0 before the first key; it grows whenever another key comes into force, or none.
    generation: u64,
    /// The newest rotation, and so the number of those that there were.
    rotation: u64,
    /// The first key that came in, by which this key set is told from another one.
    begun: Option<Fingerprint>,
    current: Option<Held>,
    pending: Option<Held>,
    previous: Option<Held>,
    /// The oldest first.
    retired: Vec<Fingerprint>,
    /// Those of the retired ones that may work still, and that nobody has said are deleted.
    given_up: Vec<AbortedKey>,
    compromised: Vec<Fingerprint>,
    /// Those of the compromised ones that were in a place, and that nobody has said are deleted.
    leaked: Vec<LeakedKey>,
}

impl KeySet {
    /// A key set without keys.
    ///
    /// # Errors
    /// [`KeySetError::Weak`] for an issuer whose keys could be guessed from the fingerprints that a key set remembers.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.current().is_none());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub const fn new(profile: &'static Profile) -> Result<Self, KeySetError> {
        if profile.entropy_bits() < MIN_ENTROPY_BITS {
            return Err(KeySetError::Weak);
        }
        Ok(Self {
            profile,
            generation: 0,
            rotation: 0,
            begun: None,
            current: None,
            pending: None,
            previous: None,
            retired: Vec::new(),
            given_up: Vec::new(),
            compromised: Vec::new(),
            leaked: Vec::new(),
        })
    }

    /// Takes a key that is in use already as the one in force. This begins a key set; the next key is staged.
    ///
    /// Adopting the key in force once more with another name corrects its name, and changes nothing else.
    ///
    /// # Errors
    /// [`KeySetError::HasKeys`] when another key is in force or pending, and the errors of [`KeySet::stage`].
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
    /// keys.adopt(key, Staging::at(std::time::SystemTime::now()))?;
    /// assert!(keys.current().is_some());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn adopt(&mut self, key: RawKey, staging: Staging) -> Result<Step, KeySetError> {
        let fingerprint = self.checked(&key, &staging)?;
        if let Some(current) = self.current.as_mut().filter(|current| current.fingerprint() == fingerprint) {
            return Ok(current.correct_name(staging));
        }
        if self.current.is_some() || self.pending.is_some() {
            return Err(KeySetError::HasKeys);
        }
        self.refuse_known(fingerprint)?;
        self.must_count_on()?;
        let rotation = self.next_rotation(fingerprint);
        let mut held = Held::new(key, fingerprint, rotation, staging);
        held.promoted = Some(held.staged);
        self.current = Some(held);
        self.generation += 1;
        Ok(Step::Done(rotation))
    }

    /// Takes a new key in, to be verified and promoted later. Persist it before anything is asked over the network.
    ///
    /// Staging the pending key once more with another name corrects its name, and changes nothing else.
    ///
    /// # Errors
    /// [`KeySetError::Known`] for a key that is current, previous, retired or compromised, [`KeySetError::InProgress`] when
    /// another key is pending, and [`KeySetError::OtherIssuer`].
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap().into_raw();
    /// keys.stage(key, Staging::at(std::time::SystemTime::now()).by("anna"))?;
    /// assert!(keys.pending().is_some());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn stage(&mut self, key: RawKey, staging: Staging) -> Result<Step, KeySetError> {
        let fingerprint = self.checked(&key, &staging)?;
        if let Some(pending) = &mut self.pending {
            if pending.fingerprint() != fingerprint {
                return Err(pending.in_progress());
            }
            return Ok(pending.correct_name(staging));
        }
        self.refuse_known(fingerprint)?;
        self.must_count_on()?;
        let rotation = self.next_rotation(fingerprint);
        self.pending = Some(Held::new(key, fingerprint, rotation, staging));
        Ok(Step::Done(rotation))
    }

    /// Brings the pending key into force. What was in force becomes the previous key. A previous key that a probe saw
    /// refused is retired by it: nothing is left of that one to delete.
    ///
    /// # Errors
    /// [`KeySetError::Unverified`] unless it was verified or [`Promotion::Unverified`] says so,
    /// [`KeySetError::PreviousThere`] while an older key waits to be retired, and [`KeySetError::NotPending`].
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, KeySetError, Promotion, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// # let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap().into_raw();
    /// let rotation = keys.stage(key, Staging::at(now))?.rotation();
    /// assert_eq!(keys.promote(rotation, Promotion::Verified, now), Err(KeySetError::Unverified));
    /// keys.promote(rotation, Promotion::Unverified, now)?;
    /// assert_eq!(keys.current().unwrap().rotation(), rotation);
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn promote(
        &mut self,
        rotation: RotationId,
        promotion: Promotion,
        at: SystemTime,
    ) -> Result<Step, KeySetError> {
        if self.current.as_ref().is_some_and(|current| current.rotation() == rotation) {
            return Ok(Step::Unchanged(rotation));
        }
        if self.pending_of(rotation)?.verified.is_none() && promotion == Promotion::Verified {
            return Err(KeySetError::Unverified);
        }
        let previous = self.previous.as_ref().filter(|_| self.current.is_some());
        if let Some(previous) = previous.filter(|previous| previous.refused.is_none()) {
            return Err(previous.still_there());
        }
        self.must_count_on()?;
        if let Some(previous) = self.previous.take() {
            self.remember_retired(previous.fingerprint());
        }
        self.bring_pending_into_force(at);
        Ok(Step::Done(rotation))
    }

    /// Puts the previous key into force again, and the one that replaced it back to pending, where it can be verified,
    /// promoted or aborted.
    ///
    /// # Errors
    /// [`KeySetError::NothingBefore`] when there is no previous key, or that rotation's key is pending and never was in
    /// force, [`KeySetError::InProgress`] when another key is pending, and [`KeySetError::NotCurrent`] when that rotation's key is neither in force nor rolled back.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Promotion, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// # let key = |text| ApiKey::<Kanal>::parse(text).unwrap().into_raw();
    /// keys.adopt(key("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"), Staging::at(now))?;
    /// let rotation = keys.stage(key("Zs1T6cN3bV7dL4qW9Xp2Kf8A"), Staging::at(now))?.rotation();
    /// keys.promote(rotation, Promotion::Unverified, now)?;
    /// keys.roll_back(rotation, now)?;
    /// assert!(keys.current().unwrap().key().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn roll_back(&mut self, rotation: RotationId, at: SystemTime) -> Result<Step, KeySetError> {
        if let Some(pending) = self.pending.as_ref().filter(|pending| pending.rotation() == rotation) {
            // One that never was in force was not rolled back.
            let was_in_force = pending.demoted.is_some();
            return if was_in_force {
                Ok(Step::Unchanged(rotation))
            } else {
                Err(KeySetError::NothingBefore)
            };
        }
        if self.current.as_ref().is_none_or(|current| current.rotation() != rotation) {
            return Err(KeySetError::NotCurrent);
        }
        if let Some(pending) = &self.pending {
            return Err(pending.in_progress());
        }
        if self.previous.is_some() {
            self.must_count_on()?;
        }
        let previous = self.previous.take().ok_or(KeySetError::NothingBefore)?;
        let replaced = self.current.replace(previous.back_in_force(at));
        self.pending = replaced.map(|replaced| replaced.back_to_pending(at));
        self.generation += 1;
        Ok(Step::Done(rotation))
    }

    /// Puts the previous key into force again because a person has deleted the one in force, which is retired, and the issuer
    /// accepts the previous one. A key that is pending stays so.
    ///
    /// # Errors
    /// [`KeySetError::NotCurrent`] when that rotation's key is not in force, and [`KeySetError::NothingBefore`] when there
    /// is no previous key.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Place, Promotion, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// # let key = |text| ApiKey::<Kanal>::parse(text).unwrap().into_raw();
    /// keys.adopt(key("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"), Staging::at(now))?;
    /// let new = key("Zs1T6cN3bV7dL4qW9Xp2Kf8A");
    /// let fingerprint = new.fingerprint().unwrap();
    /// let rotation = keys.stage(new, Staging::at(now))?.rotation();
    /// keys.promote(rotation, Promotion::Unverified, now)?;
    /// keys.fall_back(rotation, now)?;
    /// assert!(keys.current().unwrap().key().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
    /// assert_eq!(keys.place_of(fingerprint), Some(Place::Retired));
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn fall_back(&mut self, rotation: RotationId, at: SystemTime) -> Result<Step, KeySetError> {
        if self.current.as_ref().is_none_or(|current| current.rotation() != rotation) {
            return Err(KeySetError::NotCurrent);
        }
        if self.previous.is_some() {
            self.must_count_on()?;
        }
        let mut previous = self.previous.take().ok_or(KeySetError::NothingBefore)?.back_in_force(at);
        (previous.fell_back, previous.refused) = (Some(moment(at)), None);
        previous.confirmed = previous.fell_back;
        if let Some(deleted) = self.current.replace(previous) {
            self.remember_retired(deleted.fingerprint());
        }
        self.generation += 1;
        Ok(Step::Done(rotation))
    }

    /// Forgets the previous key, all but its fingerprint: a person has deleted it, and the issuer refuses it.
    ///
    /// # Errors
    /// [`KeySetError::NotCurrent`] when that rotation's key is not in force, so that what is previous was not replaced by
    /// it.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Promotion, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// # let key = |text| ApiKey::<Kanal>::parse(text).unwrap().into_raw();
    /// keys.adopt(key("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"), Staging::at(now))?;
    /// let rotation = keys.stage(key("Zs1T6cN3bV7dL4qW9Xp2Kf8A"), Staging::at(now))?.rotation();
    /// keys.promote(rotation, Promotion::Unverified, now)?;
    /// keys.retire(rotation)?;
    /// assert_eq!(keys.retired().len(), 1);
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn retire(&mut self, rotation: RotationId) -> Result<Step, KeySetError> {
        if self.current.as_ref().is_none_or(|current| current.rotation() != rotation) {
            return Err(KeySetError::NotCurrent);
        }
        let Some(previous) = self.previous.take() else { return Ok(Step::Unchanged(rotation)) };
        self.remember_retired(previous.fingerprint());
        Ok(Step::Done(rotation))
    }

    /// Gives the pending key up. A person should delete it in the app: unless a probe saw it refused, it is among
    /// [`KeySet::given_up`] until [`KeySet::confirm_deleted`].
    ///
    /// # Errors
    /// [`KeySetError::NotPending`] when that rotation's key is in force, or never was pending.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// # let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap().into_raw();
    /// let rotation = keys.stage(key, Staging::at(now))?.rotation();
    /// keys.abort(rotation)?;
    /// assert!(keys.pending().is_none());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn abort(&mut self, rotation: RotationId) -> Result<Step, KeySetError> {
        let is_newest_and_gone = self.rotation == rotation.0
            && self.pending.is_none()
            && self.current.as_ref().is_none_or(|current| current.rotation() != rotation);
        if is_newest_and_gone {
            return Ok(Step::Unchanged(rotation));
        }
        self.pending_of(rotation)?;
        if let Some(pending) = self.pending.take() {
            // Who begins another rotation after a fall back and gives it up knows of the fall back.
            if let Some(current) =
                self.current.as_mut().filter(|current| current.fell_back <= Some(pending.staged))
            {
                current.fell_back = None;
            }
            self.remember_given_up(pending);
        }
        Ok(Step::Done(rotation))
    }

    /// Notes that a key has leaked. It leaves every place and is never staged, promoted or rolled back to again. Where it
    /// was in force, the pending key takes over if it is verified, else the previous one, else there is none.
    ///
    /// A person is to delete it then; it is among [`KeySet::leaked`] until [`KeySet::confirm_deleted`]. A key that is in no
    /// place can be named as well: it is then never staged.
    ///
    /// # Errors
    /// [`KeySetError::TooManyCompromised`], for a key that is in no place where [`MAX_REPORTED`] are remembered. A key that
    /// is in one leaves it in any case.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// let fingerprint = key.fingerprint().unwrap();
    /// keys.adopt(key.into_raw(), Staging::at(now))?;
    /// keys.compromise(fingerprint, now)?;
    /// assert!(keys.current().is_none(), "nothing is sent any more");
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn compromise(&mut self, fingerprint: Fingerprint, at: SystemTime) -> Result<Step, KeySetError> {
        let newest = RotationId(self.rotation);
        if self.compromised.contains(&fingerprint) {
            return Ok(Step::Unchanged(newest));
        }
        self.must_count_on()?;
        self.remember_compromised(fingerprint)?;
        self.retired.retain(|retired| *retired != fingerprint);
        self.given_up.retain(|given_up| given_up.fingerprint != fingerprint);
        let is_it = |held: &mut Held| held.fingerprint() == fingerprint;
        self.pending.take_if(is_it);
        self.previous.take_if(is_it);
        if self.current.take_if(is_it).is_some() {
            if self.pending.as_ref().is_some_and(|pending| pending.verified.is_some()) {
                self.bring_pending_into_force(at);
            } else {
                self.current = self.previous.take().map(|previous| previous.back_in_force(at));
                self.generation += 1;
            }
        }
        Ok(Step::Done(newest))
    }
}
