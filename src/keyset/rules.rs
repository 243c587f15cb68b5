//! What the steps share.

use std::time::SystemTime;

use super::held::{Held, Moment, RotationId, Staging};
use super::{KeySet, KeySetError, MAX_RETIRED};
use crate::fingerprint::Fingerprint;
use crate::key::RawKey;

impl KeySet {
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

    pub(super) fn next_rotation(&mut self) -> RotationId {
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
            && (self.current.is_none() || self.generation > 0)
            && (self.previous.is_none() || self.current.is_some())
    }
}
