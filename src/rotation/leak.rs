//! Keys that have leaked.

use super::commit::Subject;
use super::{AuditAction, Rotation, RotationError, Transition};
use crate::handle::Stop;
use crate::key::{Fingerprint, Issuer, RawKey};
use crate::keyset::{AbortedKey, KeySet, KeySetError, LeakedKey, Place};

impl<I: Issuer> Rotation<I> {
    /// Notes that a key has leaked, in whatever place it is, or in none. It is never again sent, staged or rolled back to.
    /// Where it was in force, the pending key takes over if it is verified, else the previous one; with neither, the
    /// handle is closed and nothing is sent. No probe is needed. A person is to delete the key at once, and to
    /// [confirm](Rotation::confirm_deleted) that.
    ///
    /// The handle [stops](crate::handle::KeyHandle::stop) sending the key before anything is read or written. Where the step cannot
    /// be persisted, it stays so, and the error says that other processes do not know yet.
    ///
    /// # Errors
    /// [`RotationError::LeakNotPersisted`] where this process sent the key, and the step is not persisted or not known to be.
    /// Otherwise [`RotationError`]; [`KeySetError::TooManyCompromised`], for a key in no place alone, and
    /// [`KeySetError::KeyInNote`] when the note has a part of a key.
    ///
    /// ```
    /// # use keysheath::handle::{NoActiveKey, KeyHandle};
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
    /// # let handle = rotation.handle();
    /// # rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
    /// let leaked = "urdz-nrsd-3rmw-jtz2".parse().unwrap();
    /// println!("{}", rotation.compromise(leaked, Some("in a log file"))?);
    /// assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn compromise(
        &self,
        fingerprint: Fingerprint,
        note: Option<&str>,
    ) -> Result<Transition, RotationError> {
        let now = self.now();
        let nothing = KeySet::new(I::PROFILE).map_err(RotationError::Refused)?;
        nothing.check_words(self.by.as_deref(), note).map_err(RotationError::Refused)?;
        if note.is_some_and(|note| has_key(note, &nothing, fingerprint)) {
            return Err(RotationError::Refused(KeySetError::KeyInNote));
        }
        let is_stopped = self.publisher.stop(fingerprint) != Stop::NotActive || self.publisher.is_stopped();
        let mut subject = Subject::default();
        let mut was_held = false;
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), note)?;
            let slots = [keys.pending(), keys.current(), keys.previous()];
            let held = slots.into_iter().flatten().find(|held| held.fingerprint() == fingerprint);
            let leaked = keys.leaked().iter().find(|leaked| leaked.fingerprint() == fingerprint);
            subject = Subject::of(held);
            subject.fingerprint = Some(fingerprint);
            // Where this is done again, it was; until somebody says that it is deleted, that is known.
            let given_up = keys.given_up().iter().find(|given_up| given_up.fingerprint() == fingerprint);
            was_held = held.is_some() || leaked.is_some() || given_up.is_some();
            let known = leaked.and_then(LeakedKey::name).or(given_up.and_then(AbortedKey::name));
            subject.name = subject.name.take().or_else(|| known.map(str::to_owned));
            keys.compromise(fingerprint, now.wall())
        });
        let committed = committed.map_err(|error| {
            if is_stopped {
                RotationError::LeakNotPersisted { fingerprint, cause: Box::new(error) }
            } else {
                error
            }
        })?;
        let place = Some(Place::Compromised);
        let transition = self.finish(AuditAction::Compromised, place, &committed, subject, note, now);
        Ok(Transition { was_held, ..transition })
    }

    /// Notes that a person has deleted a key that leaked or was given up, in the app. Until then,
    /// [`next_step`](Rotation::next_step) asks for that. The key itself is gone from here, so that no probe can see it. It
    /// stays among the compromised or the retired ones.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotCompromised`] for a key that is neither compromised nor given up.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
    /// # rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
    /// let leaked = "urdz-nrsd-3rmw-jtz2".parse().unwrap();
    /// rotation.compromise(leaked, Some("in a log file"))?;
    /// println!("{}", rotation.next_step()?); // first delete the key with fingerprint …
    /// rotation.confirm_deleted(leaked)?;
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    pub fn confirm_deleted(&self, fingerprint: Fingerprint) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut subject = Subject { fingerprint: Some(fingerprint), ..Subject::default() };
        let committed = self.commit(now, |keys| {
            keys.check_words(self.by.as_deref(), None)?;
            let leaked = keys.leaked().iter().find(|leaked| leaked.fingerprint() == fingerprint);
            let given_up = keys.given_up().iter().find(|given_up| given_up.fingerprint() == fingerprint);
            let name = leaked.and_then(LeakedKey::name).or(given_up.and_then(AbortedKey::name));
            subject.name = name.map(str::to_owned).or(subject.name.take());
            keys.confirm_deleted(fingerprint)
        })?;
        let place = committed.keys.place_of(fingerprint);
        let action = if place == Some(Place::Retired) {
            AuditAction::GivenUpDeleted
        } else {
            AuditAction::LeakDeleted
        };
        Ok(self.finish(action, place, &committed, subject, None, now))
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
