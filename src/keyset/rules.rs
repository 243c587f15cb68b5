//! What the steps share.

use std::time::SystemTime;

use super::held::{Held, RotationId, Staging, check_text};
use super::{KeySet, KeySetError, MAX_NOTE, MAX_PERSON, MAX_RETIRED};
use crate::fingerprint::Fingerprint;
use crate::key::RawKey;
use crate::utc::Moment;

impl KeySet {
    /// That who acts and what they note is short and printable, and that no key of this set stands in it.
    pub(crate) fn check_words(&self, by: Option<&str>, note: Option<&str>) -> Result<(), KeySetError> {
        let held = || [&self.pending, &self.current, &self.previous].into_iter().flatten();
        for (text, longest) in [(by, MAX_PERSON), (note, MAX_NOTE)] {
            check_text(text, longest)?;
            if text.is_some_and(|text| held().any(|held| text.contains(held.key().expose_secret()))) {
                return Err(KeySetError::KeyInNote);
            }
        }
        Ok(())
    }

    /// The newest rotation, under way or not.
    pub(crate) fn newest_rotation(&self) -> Option<RotationId> {
        (self.rotation > 0).then_some(RotationId(self.rotation))
    }

    pub(super) fn checked(&self, key: &RawKey, staging: &Staging) -> Result<Fingerprint, KeySetError> {
        if key.profile() != self.profile {
            return Err(KeySetError::OtherIssuer);
        }
        staging.check(key)?;
        // A key set of an issuer without fingerprints is never made.
        key.fingerprint().ok_or(KeySetError::Weak)
    }

    pub(super) fn refuse_known(&self, fingerprint: Fingerprint) -> Result<(), KeySetError> {
        self.place_of(fingerprint).map_or(Ok(()), |place| Err(KeySetError::Known { place }))
    }

    pub(super) fn next_rotation(&mut self, key: Fingerprint) -> RotationId {
        self.begun.get_or_insert(key);
        self.rotation += 1;
        RotationId(self.rotation)
    }

    pub(super) fn pending_of(&mut self, rotation: RotationId) -> Result<&mut Held, KeySetError> {
        let pending = self.pending.as_mut().filter(|pending| pending.rotation() == rotation);
        pending.ok_or(KeySetError::NotPending { rotation })
    }

    pub(super) fn bring_pending_into_force(&mut self, at: SystemTime) {
        let Some(pending) = self.pending.take() else { return };
        if let Some(mut old) = self.current.replace(pending.back_in_force(at)) {
            old.demoted = Some(Moment::from(at));
            self.previous = Some(old);
        }
        self.generation += 1;
    }

    pub(super) fn remember_retired(&mut self, fingerprint: Fingerprint) {
        if self.retired.len() == MAX_RETIRED {
            self.retired.remove(0);
        }
        self.retired.push(fingerprint);
    }

    /// Whether each key is in one place only. What was written by this crate keeps that.
    pub(super) fn is_consistent(&self) -> bool {
        let slots = [&self.pending, &self.current, &self.previous];
        let named = slots.into_iter().flatten().map(Held::fingerprint);
        let mut all: Vec<Fingerprint> =
            named.chain(self.retired.iter().copied()).chain(self.compromised.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        let newest = slots.into_iter().flatten().map(|held| held.rotation().0).max();
        all.len() == count
            && newest.is_none_or(|newest| (1..=self.rotation).contains(&newest))
            && self.begun.is_some() == (self.rotation > 0)
            && (self.current.is_none() || self.generation > 0)
            && (self.previous.is_none() || self.current.is_some())
            && self.are_leaked_compromised()
    }
}
