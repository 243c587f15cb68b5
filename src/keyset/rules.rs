//! What the steps share.

use std::time::SystemTime;

use super::held::{Held, RotationId, Staging, moment};
use super::texts::{check_text, has_part_of};
use super::{KeySet, KeySetError, LAST_NUMBER, MAX_NOTE, MAX_PERSON};
use crate::key::{Fingerprint, RawKey};

impl KeySet {
    /// Checks that who acts and what they note is short and printable, and that no part of a key of this set is in it.
    pub(crate) fn check_words(&self, by: Option<&str>, note: Option<&str>) -> Result<(), KeySetError> {
        let held = || [&self.pending, &self.current, &self.previous].into_iter().flatten();
        for (text, longest) in [(by, MAX_PERSON), (note, MAX_NOTE)] {
            check_text(text, longest)?;
            if text.is_some_and(|text| held().any(|held| has_part_of(text, held.key()))) {
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
        if !key.is_of(self.profile) {
            return Err(KeySetError::OtherIssuer);
        }
        staging.check(key)?;
        // A key set of an issuer without fingerprints is never made.
        key.fingerprint().ok_or(KeySetError::Weak)
    }

    /// Checks that the numbers can grow by one more step.
    pub(super) const fn must_count_on(&self) -> Result<(), KeySetError> {
        if self.generation < LAST_NUMBER && self.rotation < LAST_NUMBER {
            Ok(())
        } else {
            Err(KeySetError::Exhausted)
        }
    }

    pub(super) fn refuse_known(&self, fingerprint: Fingerprint) -> Result<(), KeySetError> {
        self.place_of(fingerprint).map_or(Ok(()), |place| Err(KeySetError::Known { place }))
    }

    pub(super) fn next_rotation(&mut self, key: Fingerprint) -> RotationId {
        self.begun.get_or_insert(key);
        self.rotation += 1;
        RotationId(self.rotation)
    }

    pub(super) fn pending_of(&self, rotation: RotationId) -> Result<&Held, KeySetError> {
        let pending = self.pending.as_ref().filter(|pending| pending.rotation() == rotation);
        pending.ok_or(KeySetError::NotPending { rotation })
    }

    pub(super) fn bring_pending_into_force(&mut self, at: SystemTime) {
        let Some(pending) = self.pending.take() else { return };
        if let Some(mut old) = self.current.replace(pending.back_in_force(at)) {
            old.demoted = Some(moment(at));
            self.previous = Some(old);
        }
        self.generation += 1;
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
        let mut rotations: Vec<u64> = slots.into_iter().flatten().map(|held| held.rotation().0).collect();
        rotations.sort_unstable();
        let are_counted = rotations.iter().all(|rotation| (1..=self.rotation).contains(rotation));
        all.len() == count
            && are_counted
            && rotations.windows(2).all(|two| two[0] < two[1])
            && self.rotation <= LAST_NUMBER
            && self.generation <= LAST_NUMBER
            && self.begun.is_some() == (self.rotation > 0)
            && (self.current.is_none() || self.generation > 0)
            && (self.previous.is_none() || self.current.is_some())
            && self.are_leaked_compromised()
            && self.are_given_up_retired()
    }
}
