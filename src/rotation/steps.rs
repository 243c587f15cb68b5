//! The steps that ask nobody.

use super::commit::Subject;
use super::transition::GivenUp;
use super::{AuditAction, Rotation, RotationError, Transition};
use crate::fingerprint::Fingerprint;
use crate::key::RawKey;
use crate::keyset::{Held, KeySet, KeySetError, Place, Promotion, RotationId, Staging};
use crate::source::Provenance;

/// The key of a rotation, wherever it is.
pub(super) fn held_of(keys: &KeySet, rotation: RotationId) -> Option<&Held> {
    [keys.pending(), keys.current(), keys.previous()]
        .into_iter()
        .flatten()
        .find(|held| held.rotation() == rotation)
}

impl Rotation {
    /// Takes a key that is in use already as the one in force. This begins a key set; its age is counted from now.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::HasKeys`] when another key is in force or pending.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let handle = KeyHandle::<Kanal>::live();
    /// # let rotation = Rotation::open(MemoryStore::new(), &handle, RotationPolicy::new())?;
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// rotation.adopt(key.as_raw())?;
    /// assert!(handle.load().is_ok());
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn adopt(&self, key: &RawKey) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Adopted, key, None, None)
    }

    /// As [`Rotation::adopt`], with the place that the key was loaded from.
    ///
    /// # Errors
    /// As [`Rotation::adopt`].
    ///
    /// ```
    /// # use keysheath::{rotation::{Rotation, RotationError}, source::Found};
    /// fn begin(rotation: &Rotation, found: &Found) -> Result<(), RotationError> {
    ///     println!("{}", rotation.adopt_from(found.key(), found.provenance())?);
    ///     Ok(())
    /// }
    /// ```
    pub fn adopt_from(&self, key: &RawKey, place: &Provenance) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Adopted, key, Some(place), None)
    }

    /// Persists a new key, to be verified and promoted later. Once this has returned, the key is not lost, whatever happens
    /// to the process. Nothing is asked over the network before. Keep your own copy until then: where the place fails, the
    /// step is to be done again.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::Known`] for a key that is current, previous, retired or compromised, and
    /// [`KeySetError::InProgress`] when another key is pending.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, handle::KeyHandle, issuer::Kanal, key::ApiKey, keyset::Place};
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let rotation = Rotation::open(MemoryStore::new(), &KeyHandle::<Kanal>::live(), RotationPolicy::new())?;
    /// let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
    /// let staged = rotation.stage(key.as_raw(), Some("the spring rotation"))?;
    /// assert_eq!(staged.place(), Some(Place::Pending));
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn stage(&self, key: &RawKey, note: Option<&str>) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Staged, key, None, note)
    }

    /// As [`Rotation::stage`], with the place that the key was loaded from.
    ///
    /// # Errors
    /// As [`Rotation::stage`].
    ///
    /// ```
    /// # use keysheath::{rotation::{Rotation, RotationError}, source::Found};
    /// fn take_in(rotation: &Rotation, found: &Found) -> Result<(), RotationError> {
    ///     println!("{}", rotation.stage_from(found.key(), found.provenance(), None)?);
    ///     Ok(())
    /// }
    /// ```
    pub fn stage_from(
        &self,
        key: &RawKey,
        place: &Provenance,
        note: Option<&str>,
    ) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Staged, key, Some(place), note)
    }

    fn take_in(
        &self,
        action: AuditAction,
        key: &RawKey,
        from: Option<&Provenance>,
        note: Option<&str>,
    ) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut staging = Staging::at(now);
        if let Some(by) = &self.by {
            staging = staging.by(by);
        }
        if let Some(from) = from {
            staging = staging.from(from);
        }
        if let Some(note) = note {
            staging = staging.with_note(note);
        }
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), note)?;
            match action {
                AuditAction::Adopted => keys.adopt(key.clone_key(), staging.clone()),
                _ => keys.stage(key.clone_key(), staging.clone()),
            }
        })?;
        let place = if action == AuditAction::Adopted { Place::Current } else { Place::Pending };
        let subject = Subject::of(held_of(&committed.keys, committed.step.rotation()));
        Ok(self.finish(action, Some(place), &committed, subject, note, now))
    }

    /// Brings the pending key into force, which was verified. What was in force is the previous key, and has its grace.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::Unverified`], [`KeySetError::PreviousThere`] while an older key waits to be
    /// retired, and [`KeySetError::NotPending`].
    ///
    /// ```
    /// # use keysheath::{keyset::KeySetError, rotation::{Rotation, RotationError}};
    /// fn promote(rotation: &Rotation) -> Result<(), RotationError> {
    ///     match rotation.promote() {
    ///         Err(RotationError::Refused(KeySetError::Unverified)) => println!("verify it first"),
    ///         promoted => println!("{}", promoted?),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn promote(&self) -> Result<Transition, RotationError> {
        self.bring_into_force(AuditAction::Promoted, Promotion::Verified)
    }

    /// As [`Rotation::promote`], for a key that nobody has seen work: where there is no probe, or no time.
    ///
    /// # Errors
    /// As [`Rotation::promote`], [`KeySetError::Unverified`] excepted.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let handle = KeyHandle::<Kanal>::live();
    /// # let rotation = Rotation::open(MemoryStore::new(), &handle, RotationPolicy::new())?;
    /// let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
    /// rotation.stage(key.as_raw(), None)?;
    /// rotation.promote_unverified()?;
    /// assert!(handle.load().is_ok());
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn promote_unverified(&self) -> Result<Transition, RotationError> {
        self.bring_into_force(AuditAction::PromotedUnverified, Promotion::Unverified)
    }

    fn bring_into_force(
        &self,
        action: AuditAction,
        promotion: Promotion,
    ) -> Result<Transition, RotationError> {
        let rotation = self.seen().view.to_promote().ok_or(RotationError::NothingThere)?;
        let now = self.now();
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            keys.promote(rotation, promotion, now)
        })?;
        let subject = Subject::of(held_of(&committed.keys, rotation));
        Ok(self.finish(action, Some(Place::Current), &committed, subject, None, now))
    }

    /// Brings the previous key back into force. The key that had replaced it is pending again, to be verified anew or
    /// aborted.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NothingBefore`] when there is no previous key, and [`KeySetError::InProgress`]
    /// when another key is pending.
    ///
    /// ```
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn undo(rotation: &Rotation) -> Result<(), RotationError> {
    ///     println!("{}", rotation.roll_back()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn roll_back(&self) -> Result<Transition, RotationError> {
        let rotation = self.seen().view.to_roll_back().ok_or(RotationError::NothingThere)?;
        let now = self.now();
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            keys.roll_back(rotation, now)
        })?;
        let subject = Subject::of(held_of(&committed.keys, rotation));
        Ok(self.finish(AuditAction::RolledBack, Some(Place::Pending), &committed, subject, None, now))
    }

    /// Forgets the previous key because a person says that it was deleted. Where there is a probe, use
    /// [`retire`](Rotation::retire): it sees whether that is so, and whether it was the right one.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotCurrent`] when the key that had replaced it is not in force any more.
    ///
    /// ```
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn was_deleted(rotation: &Rotation) -> Result<(), RotationError> {
    ///     println!("{}", rotation.retire_unprobed()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn retire_unprobed(&self) -> Result<Transition, RotationError> {
        let rotation = self.seen().view.to_retire().ok_or(RotationError::NothingThere)?;
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
    /// it; the transition says which.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotPending`] when it is in force already.
    ///
    /// ```
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn give_up(rotation: &Rotation) -> Result<(), RotationError> {
    ///     println!("{}", rotation.abort()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn abort(&self) -> Result<Transition, RotationError> {
        let rotation = self.seen().view.to_abort().ok_or(RotationError::NothingThere)?;
        let now = self.now();
        let (mut subject, mut rolled_back) = (Subject::default(), None);
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            let held = held_of(keys, rotation);
            subject = Subject::of(held);
            rolled_back = held.and_then(Held::demoted);
            keys.abort(rotation)
        })?;
        let place = Some(Place::Retired);
        let mut transition = self.finish(AuditAction::Aborted, place, &committed, subject, None, now);
        if let Some(rolled_back) = rolled_back {
            // By a clock that was set back since, no time is over.
            let since = now.duration_since(rolled_back).unwrap_or_default();
            let left = self.policy.settle().saturating_sub(since);
            let is_drained = self.is_drained(&committed.keys);
            // The step is done, so that it is no error where the fleet cannot be seen.
            let behind = self.who_may_use_another_than(&committed.keys).map_err(Box::new);
            transition.given_up = Some(GivenUp { left, is_drained, behind });
        }
        Ok(transition)
    }

    /// Notes that a key has leaked, in whatever place it is, or in none. It is never again sent, staged or rolled back to.
    /// Where it was in force, the pending key takes over if it is verified, else the previous one; with neither, the
    /// handle is closed and nothing is sent. No probe is needed. A person is to delete the key at once, and to
    /// [confirm](Rotation::confirm_deleted) that.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::TooManyCompromised`], for a key in no place alone, and [`KeySetError::KeyInNote`] when the note has the key.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, handle::{Closed, KeyHandle}, issuer::Kanal, key::ApiKey};
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let handle = KeyHandle::<Kanal>::live();
    /// # let rotation = Rotation::open(MemoryStore::new(), &handle, RotationPolicy::new())?;
    /// # rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
    /// let leaked = "urdz-nrsd-3rmw-jtz2".parse().unwrap();
    /// println!("{}", rotation.compromise(leaked, Some("in a log file"))?);
    /// assert_eq!(handle.load().unwrap_err(), Closed::Compromised);
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn compromise(
        &self,
        fingerprint: Fingerprint,
        note: Option<&str>,
    ) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut subject = Subject { fingerprint: Some(fingerprint), from: None };
        let mut was_held = false;
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), note)?;
            if note.is_some_and(|note| has_key(note, keys, fingerprint)) {
                return Err(KeySetError::KeyInNote);
            }
            let slots = [keys.pending(), keys.current(), keys.previous()];
            let held = slots.into_iter().flatten().find(|held| held.fingerprint() == fingerprint);
            subject.from = held.and_then(Held::from).map(str::to_owned);
            // Where this is done again, it was; until somebody says that it is deleted, that is known.
            was_held =
                held.is_some() || keys.leaked().iter().any(|leaked| leaked.fingerprint() == fingerprint);
            keys.compromise(fingerprint, now)
        })?;
        let place = Some(Place::Compromised);
        let transition = self.finish(AuditAction::Compromised, place, &committed, subject, note, now);
        Ok(Transition { was_held, ..transition })
    }

    /// Notes that a person has deleted a key that leaked, in the app. Until then, [`next_step`](Rotation::next_step) asks
    /// for that. The key itself is gone from here, so that no probe can see it. It stays among the compromised ones.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotCompromised`] for a key that was not reported as compromised.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let handle = KeyHandle::<Kanal>::live();
    /// # let rotation = Rotation::open(MemoryStore::new(), &handle, RotationPolicy::new())?;
    /// # rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
    /// let leaked = "urdz-nrsd-3rmw-jtz2".parse().unwrap();
    /// rotation.compromise(leaked, Some("in a log file"))?;
    /// println!("{}", rotation.next_step()?); // first delete the key with fingerprint …
    /// rotation.confirm_deleted(leaked)?;
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn confirm_deleted(&self, fingerprint: Fingerprint) -> Result<Transition, RotationError> {
        let now = self.now();
        let subject = Subject { fingerprint: Some(fingerprint), from: None };
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            keys.confirm_deleted(fingerprint)
        })?;
        let place = Some(Place::Compromised);
        Ok(self.finish(AuditAction::LeakDeleted, place, &committed, subject, None, now))
    }
}

/// Whether a word of a note is the key with this fingerprint, which the key set need not have.
fn has_key(note: &str, keys: &KeySet, fingerprint: Fingerprint) -> bool {
    let ends = |c: char| c.is_whitespace() || "\"'`,;:()[]{}<>".contains(c);
    note.split(ends).any(|word| {
        let key = RawKey::parse(keys.profile(), word.as_bytes()).ok();
        key.and_then(|key| key.fingerprint()) == Some(fingerprint)
    })
}
