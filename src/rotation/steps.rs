//! The steps that ask nobody.

use std::time::Duration;

use super::commit::Subject;
use super::next_step::name_of_the_next;
use super::transition::GivenUp;
use super::{AuditAction, KeyDetails, Rotation, RotationError, Transition};
use crate::key::{Issuer, RawKey};
use crate::keyset::{Held, KeySet, Place, Promotion, RotationId, Staging};

/// The key of a rotation, wherever it is.
pub(super) fn held_of(keys: &KeySet, rotation: RotationId) -> Option<&Held> {
    [keys.pending(), keys.current(), keys.previous()]
        .into_iter()
        .flatten()
        .find(|held| held.rotation() == rotation)
}

impl<I: Issuer> Rotation<I> {
    /// Takes a key that is in use already as the one in force. This begins a key set; its age is counted from now. Give it the
    /// name that it has in the app with [`adopt_with`](Rotation::adopt_with): an app shows no fingerprints, so that a person
    /// cannot find the key by that later.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::HasKeys`](crate::keyset::KeySetError::HasKeys) when another key is in force or pending.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
    /// # let handle = rotation.handle();
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// rotation.adopt(key.as_raw())?;
    /// assert!(handle.load().is_ok());
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn adopt(&self, key: &RawKey) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Adopted, key, &KeyDetails::new())
    }

    /// As [`Rotation::adopt`], with what is told of the key. To correct a name, adopt the key in force once more with the
    /// right one.
    ///
    /// # Errors
    /// As [`Rotation::adopt`], and [`KeySetError::KeyInNote`](crate::keyset::KeySetError::KeyInNote) and [`KeySetError::BadNote`](crate::keyset::KeySetError::BadNote) for what is told.
    pub fn adopt_with(&self, key: &RawKey, details: &KeyDetails) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Adopted, key, details)
    }

    /// Persists a new key, to be verified and promoted later. Once this has returned, the key is not lost, whatever happens
    /// to the process. Nothing is asked over the network before. Keep your own copy until then: where the place fails, the
    /// step is to be done again.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::Known`](crate::keyset::KeySetError::Known) for a key that is current, previous, retired or compromised, and
    /// [`KeySetError::InProgress`](crate::keyset::KeySetError::InProgress) when another key is pending.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # use keysheath::keyset::Place;
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
    /// let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
    /// let staged = rotation.stage(key.as_raw(), Some("the spring rotation"))?;
    /// assert_eq!(staged.place(), Some(Place::Pending));
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn stage(&self, key: &RawKey, note: Option<&str>) -> Result<Transition, RotationError> {
        let details = note.into_iter().fold(KeyDetails::new(), KeyDetails::with_note);
        self.stage_with(key, &details)
    }

    /// As [`Rotation::stage`], with what is told of the key. Without a name, it is recorded under the one that
    /// [`next_step`](Rotation::next_step) suggests. To correct a name, stage the key once more with the right one.
    ///
    /// # Errors
    /// As [`Rotation::stage`], and [`KeySetError::KeyInNote`](crate::keyset::KeySetError::KeyInNote) and [`KeySetError::BadNote`](crate::keyset::KeySetError::BadNote) for what is told.
    pub fn stage_with(&self, key: &RawKey, details: &KeyDetails) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Staged, key, details)
    }

    fn take_in(
        &self,
        action: AuditAction,
        key: &RawKey,
        details: &KeyDetails,
    ) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut staging = details.add_to(Staging::at(now.wall()));
        if let Some(by) = &self.by {
            staging = staging.by(by);
        }
        if let Some(name) = details.name() {
            staging = staging.with_name(name);
        }
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), details.note())?;
            keys.check_words(details.name(), None)?;
            if action == AuditAction::Adopted {
                return keys.adopt(key.clone_key(), staging.clone());
            }
            let is_new = key.fingerprint().is_some_and(|key| keys.place_of(key).is_none());
            let staging = staging.clone();
            let staging = if is_new && details.name().is_none() {
                staging.with_name(name_of_the_next(keys, &self.policy, now.wall()))
            } else {
                staging
            };
            keys.stage(key.clone_key(), staging)
        })?;
        let place = if action == AuditAction::Adopted { Place::Current } else { Place::Pending };
        let subject = Subject::of(held_of(&committed.keys, committed.step.rotation()));
        Ok(self.finish(action, Some(place), &committed, subject, details.note(), now))
    }

    /// Brings the pending key into force, which was verified. What was in force is the previous key, and has its grace. A
    /// previous key that a probe saw refused is retired by it.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::Unverified`](crate::keyset::KeySetError::Unverified), [`KeySetError::PreviousThere`](crate::keyset::KeySetError::PreviousThere) while an older key waits to be
    /// retired, and [`KeySetError::NotPending`](crate::keyset::KeySetError::NotPending).
    pub fn promote(&self, rotation: RotationId) -> Result<Transition, RotationError> {
        self.bring_into_force(rotation, AuditAction::Promoted, Promotion::Verified)
    }

    /// As [`Rotation::promote`], for a key that nobody has seen work: where there is no probe, or no time.
    ///
    /// # Errors
    /// As [`Rotation::promote`], [`KeySetError::Unverified`](crate::keyset::KeySetError::Unverified) excepted.
    pub fn promote_unverified(&self, rotation: RotationId) -> Result<Transition, RotationError> {
        self.bring_into_force(rotation, AuditAction::PromotedUnverified, Promotion::Unverified)
    }

    fn bring_into_force(
        &self,
        rotation: RotationId,
        action: AuditAction,
        promotion: Promotion,
    ) -> Result<Transition, RotationError> {
        let now = self.now();
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            keys.promote(rotation, promotion, now.wall())
        })?;
        let subject = Subject::of(held_of(&committed.keys, rotation));
        Ok(self.finish(action, Some(Place::Current), &committed, subject, None, now))
    }

    /// Brings the previous key back into force. The rotation is that of the active key, which is pending again: to be verified
    /// and promoted once more, or aborted.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NothingBefore`](crate::keyset::KeySetError::NothingBefore) when there is no previous key, and [`KeySetError::InProgress`](crate::keyset::KeySetError::InProgress)
    /// when another key is pending.
    pub fn roll_back(&self, rotation: RotationId) -> Result<Transition, RotationError> {
        let now = self.now();
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            keys.roll_back(rotation, now.wall())
        })?;
        let subject = Subject::of(held_of(&committed.keys, rotation));
        Ok(self.finish(AuditAction::RolledBack, Some(Place::Pending), &committed, subject, None, now))
    }

    /// Forgets the previous key because a person says that it was deleted. The rotation is that of the active key, which has
    /// replaced it. Where there is a probe, use [`retire`](Rotation::retire): it sees whether that is so, and whether it was
    /// the right one.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotCurrent`](crate::keyset::KeySetError::NotCurrent) when the key that had replaced it is not in force any more.
    pub fn retire_unprobed(&self, rotation: RotationId) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut subject = Subject::default();
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            subject = Subject::of(keys.previous());
            keys.retire(rotation)
        })?;
        let place = subject.fingerprint.and_then(|fingerprint| committed.keys.place_of(fingerprint));
        Ok(self.finish(AuditAction::RetiredUnprobed, place, &committed, subject, None, now))
    }

    /// Gives the pending key up. A person should delete it in the app: now, or where it was in force and rolled back, once
    /// the settle time since then is over, no request holds it, and no process of the [fleet](Rotation::with_presence) shows
    /// it; the transition says which. Unless a probe saw it refused, [`next_step`](Rotation::next_step) asks for that until
    /// it is [confirmed](Rotation::confirm_deleted).
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotPending`](crate::keyset::KeySetError::NotPending) when it is in force already.
    pub fn abort(&self, rotation: RotationId) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut subject = Subject::default();
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            subject = Subject::of(held_of(keys, rotation));
            keys.abort(rotation)
        })?;
        let given_up = committed.keys.given_up().iter().find(|given_up| given_up.rotation() == rotation);
        if let Some(given_up) = given_up {
            subject.fingerprint = Some(given_up.fingerprint());
            subject.name = given_up.name().map(str::to_owned);
        }
        let place = Some(Place::Retired);
        let mut transition = self.finish(AuditAction::Aborted, place, &committed, subject, None, now);
        transition.given_up = given_up.map(|given_up| match given_up.demoted() {
            None => GivenUp { left: Duration::ZERO, is_drained: true, behind: Ok(Vec::new()) },
            Some(rolled_back) => GivenUp {
                left: self.left_since(rolled_back, self.policy.settle(), now),
                is_drained: self.is_drained(&committed.keys),
                // The step is done, so that it is no error where the fleet cannot be seen.
                behind: self.who_may_use_another_than(&committed.keys).map_err(Box::new),
            },
        });
        Ok(transition)
    }
}
