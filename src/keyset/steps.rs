//! The steps that change a key set.

use std::time::SystemTime;

use super::form::forget_oldest;
use super::key::{KeyInfo, ManagedKey, RotationId, UndeletedKey};
use super::staging::{Staging, check_text, has_part_of};
use super::{
    KeySet, KeySetError, LAST_NUMBER, MAX_COMPROMISED, MAX_NOTE, MAX_PERSON, MAX_REPORTED, MAX_RETIRED,
};
use crate::internal::printing::Moment;
use crate::key::{Fingerprint, RawKey};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The key set changed, and must be persisted before anything acts on it.
    Changed(RotationId),
    /// The step had been done before.
    Unchanged(RotationId),
}

impl Effect {
    const fn of(is_change: bool, rotation: RotationId) -> Self {
        if is_change { Self::Changed(rotation) } else { Self::Unchanged(rotation) }
    }

    /// Returns the rotation that the step belongs to.
    pub(crate) const fn rotation(self) -> RotationId {
        match self {
            Self::Changed(rotation) | Self::Unchanged(rotation) => rotation,
        }
    }

    pub(crate) const fn is_change(self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

/// What a promotion relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promotion {
    Verified,
    Unverified,
}

/// The slots that hold a key.
#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Pending,
    Current,
    Previous,
}

impl KeySet {
    /// Makes a key that is in use already the active one. This begins a key set; the next key is staged.
    ///
    /// Adopting the active key again with another name corrects its name, and changes nothing else.
    ///
    /// # Errors
    /// [`KeySetError::HasKeys`] if another key is active or pending, and the errors of [`KeySet::stage`].
    pub(crate) fn adopt(&mut self, key: RawKey, staging: Staging) -> Result<Effect, KeySetError> {
        let fingerprint = self.checked(&key, &staging)?;
        if let Some(current) = self.current.as_mut().filter(|current| current.info.fingerprint == fingerprint)
        {
            return Ok(current.correct_name(&staging));
        }
        if self.current.is_some() || self.pending.is_some() {
            return Err(KeySetError::HasKeys);
        }
        self.refuse_known(fingerprint)?;
        self.refuse_exhausted()?;
        let rotation = self.next_rotation(fingerprint);
        let mut info = staging.into_info(fingerprint, rotation);
        info.promoted = Some(info.staged);
        self.current = Some(ManagedKey { key, info });
        self.generation += 1;
        Ok(Effect::Changed(rotation))
    }

    /// Takes in a new key, to be verified and promoted later. Persist it before any network request about it.
    ///
    /// Staging the pending key again with another name corrects its name, and changes nothing else.
    ///
    /// # Errors
    /// [`KeySetError::Known`] for a key that is current, previous, retired or compromised,
    /// and [`KeySetError::InProgress`] if another key is pending.
    pub(crate) fn stage(&mut self, key: RawKey, staging: Staging) -> Result<Effect, KeySetError> {
        let fingerprint = self.checked(&key, &staging)?;
        if let Some(pending) = &mut self.pending {
            if pending.info.fingerprint != fingerprint {
                return Err(pending.in_progress());
            }
            return Ok(pending.correct_name(&staging));
        }
        self.refuse_known(fingerprint)?;
        self.refuse_exhausted()?;
        let rotation = self.next_rotation(fingerprint);
        self.pending = Some(ManagedKey { key, info: staging.into_info(fingerprint, rotation) });
        Ok(Effect::Changed(rotation))
    }

    /// Makes the pending key the active one; the active one becomes the previous one. A previous key that a
    /// probe saw refused is retired: nothing is left of it to delete.
    ///
    /// # Errors
    /// [`KeySetError::Unverified`] unless it was verified or [`Promotion::Unverified`] is given,
    /// [`KeySetError::PreviousThere`] while an older key waits to be retired, and
    /// [`KeySetError::NotPending`].
    pub(crate) fn promote(
        &mut self,
        rotation: RotationId,
        promotion: Promotion,
        at: SystemTime,
    ) -> Result<Effect, KeySetError> {
        if self.is_current(rotation) {
            return Ok(Effect::Unchanged(rotation));
        }
        if self.pending_of(rotation)?.info.verified.is_none() && promotion == Promotion::Verified {
            return Err(KeySetError::Unverified);
        }
        let previous = self.previous.as_ref().filter(|_| self.current.is_some());
        if let Some(previous) = previous.filter(|previous| previous.info.refused.is_none()) {
            let KeyInfo { fingerprint, name, .. } = &previous.info;
            return Err(KeySetError::PreviousThere { fingerprint: *fingerprint, name: name.clone() });
        }
        self.refuse_exhausted()?;
        if let Some(previous) = self.previous.take() {
            self.remember_retired(previous.info.fingerprint);
        }
        self.activate_pending(at);
        Ok(Effect::Changed(rotation))
    }

    /// Makes the previous key active again, and the one that replaced it pending, where it can be verified,
    /// promoted or aborted.
    ///
    /// # Errors
    /// [`KeySetError::NothingBefore`] if there is no previous key, or that rotation's key is pending and was
    /// never active, [`KeySetError::InProgress`] if another key is pending, and [`KeySetError::NotCurrent`]
    /// if that rotation's key is neither active nor rolled back.
    pub(crate) fn roll_back(&mut self, rotation: RotationId, at: SystemTime) -> Result<Effect, KeySetError> {
        if let Ok(pending) = self.pending_of(rotation) {
            let was_rolled_back = pending.info.demoted.is_some();
            return if was_rolled_back {
                Ok(Effect::Unchanged(rotation))
            } else {
                Err(KeySetError::NothingBefore)
            };
        }
        if !self.is_current(rotation) {
            return Err(KeySetError::NotCurrent);
        }
        if let Some(pending) = &self.pending {
            return Err(pending.in_progress());
        }
        if self.previous.is_some() {
            self.refuse_exhausted()?;
        }
        let previous = self.previous.take().ok_or(KeySetError::NothingBefore)?;
        let replaced = self.current.replace(previous.activated(at));
        self.pending = replaced.map(|replaced| replaced.rolled_back(at));
        self.generation += 1;
        Ok(Effect::Changed(rotation))
    }

    /// Makes the previous key active again because a person deleted the active one, which is retired, and the
    /// issuer accepts the previous one. A pending key stays pending.
    ///
    /// # Errors
    /// [`KeySetError::NotCurrent`] if that rotation's key is not active, and [`KeySetError::NothingBefore`]
    /// if there is no previous key.
    pub(crate) fn fall_back(&mut self, rotation: RotationId, at: SystemTime) -> Result<Effect, KeySetError> {
        if !self.is_current(rotation) {
            return Err(KeySetError::NotCurrent);
        }
        if self.previous.is_some() {
            self.refuse_exhausted()?;
        }
        let mut previous = self.previous.take().ok_or(KeySetError::NothingBefore)?.activated(at);
        (previous.info.fell_back, previous.info.refused) = (Some(Moment::from(at)), None);
        previous.info.confirmed = previous.info.fell_back;
        if let Some(deleted) = self.current.replace(previous) {
            self.remember_retired(deleted.info.fingerprint);
        }
        self.generation += 1;
        Ok(Effect::Changed(rotation))
    }

    /// Forgets the previous key but for its fingerprint, because a person deleted it, and the issuer refuses
    /// it.
    ///
    /// # Errors
    /// [`KeySetError::NotCurrent`] if that rotation's key is not active, and so did not replace the previous
    /// one.
    pub(crate) fn retire(&mut self, rotation: RotationId) -> Result<Effect, KeySetError> {
        if !self.is_current(rotation) {
            return Err(KeySetError::NotCurrent);
        }
        let Some(previous) = self.previous.take() else { return Ok(Effect::Unchanged(rotation)) };
        self.remember_retired(previous.info.fingerprint);
        Ok(Effect::Changed(rotation))
    }

    /// Retires the pending key. A person should delete it in the app: unless a probe saw it refused, it is
    /// [aborted](KeySet::aborted) until [`KeySet::confirm_deleted`].
    ///
    /// # Errors
    /// [`KeySetError::NotPending`] if that rotation's key is active, or never was pending.
    pub(crate) fn abort(&mut self, rotation: RotationId) -> Result<Effect, KeySetError> {
        let is_newest_and_gone =
            self.rotation == rotation.0 && self.pending.is_none() && !self.is_current(rotation);
        if is_newest_and_gone {
            return Ok(Effect::Unchanged(rotation));
        }
        self.pending_of(rotation)?;
        if let Some(ManagedKey { info, .. }) = self.pending.take() {
            // A person who aborts a rotation begun after a fall back knows of the fall back.
            let current = self.current.as_mut().filter(|current| current.info.fell_back <= Some(info.staged));
            if let Some(current) = current {
                current.info.fell_back = None;
            }
            self.remember_retired(info.fingerprint);
            if info.refused.is_none() {
                let KeyInfo { fingerprint, rotation, staged, demoted, name, .. } = info;
                self.aborted.push(UndeletedKey {
                    fingerprint,
                    rotation: Some(rotation),
                    staged,
                    demoted,
                    name,
                });
            }
        }
        Ok(Effect::Changed(rotation))
    }

    /// Records that a key has leaked. It leaves its slot, and is never staged, promoted or rolled back to
    /// again. If it was active, the pending key replaces it if that is verified, else the previous one, else
    /// none.
    ///
    /// A person should delete it; it is [leaked](KeySet::leaked) until [`KeySet::confirm_deleted`]. A key
    /// that is not in the key set can be reported as well: it is then never staged.
    ///
    /// # Errors
    /// [`KeySetError::TooManyCompromised`] for a key that is not in the key set, if [`MAX_REPORTED`] are
    /// remembered.
    pub(crate) fn compromise(
        &mut self,
        fingerprint: Fingerprint,
        at: SystemTime,
    ) -> Result<Effect, KeySetError> {
        let newest = RotationId(self.rotation);
        if self.compromised.contains(&fingerprint) {
            return Ok(Effect::Unchanged(newest));
        }
        self.refuse_exhausted()?;
        self.remember_compromised(fingerprint)?;
        self.retired.retain(|retired| *retired != fingerprint);
        self.aborted.retain(|aborted| aborted.fingerprint != fingerprint);
        let is_it = |key: &mut ManagedKey| key.info.fingerprint == fingerprint;
        self.pending.take_if(is_it);
        self.previous.take_if(is_it);
        if self.current.take_if(is_it).is_some() {
            if self.pending.as_ref().is_some_and(|pending| pending.info.verified.is_some()) {
                self.activate_pending(at);
            } else {
                self.current = self.previous.take().map(|previous| previous.activated(at));
                self.generation += 1;
            }
        }
        Ok(Effect::Changed(newest))
    }

    /// Records that a person deleted a compromised or an aborted key. Its fingerprint stays among the
    /// compromised or the retired ones.
    ///
    /// # Errors
    /// [`KeySetError::NotCompromised`] for a key that is neither compromised nor retired.
    pub(crate) fn confirm_deleted(&mut self, fingerprint: Fingerprint) -> Result<Effect, KeySetError> {
        let newest = RotationId(self.rotation);
        let is_it = |key: &UndeletedKey| key.fingerprint == fingerprint;
        if let Some(at) = self.aborted.iter().position(is_it) {
            return Ok(Effect::Changed(self.aborted.remove(at).rotation.unwrap_or(newest)));
        }
        if self.retired.contains(&fingerprint) {
            return Ok(Effect::Unchanged(newest));
        }
        if !self.compromised.contains(&fingerprint) {
            return Err(KeySetError::NotCompromised);
        }
        let before = self.leaked.len();
        self.leaked.retain(|leaked| !is_it(leaked));
        Ok(Effect::of(self.leaked.len() < before, newest))
    }

    /// Records that the issuer accepted the pending key for every store that it serves; or the active one, if
    /// it became active unverified.
    ///
    /// # Errors
    /// [`KeySetError::NotPending`] if that rotation's key is neither pending nor active.
    pub(crate) fn verify(&mut self, rotation: RotationId, at: SystemTime) -> Result<Effect, KeySetError> {
        let key = match &self.current {
            Some(current) if current.info.rotation == rotation => current,
            _ => self.pending_of(rotation)?,
        };
        let fingerprint = key.info.fingerprint;
        self.note_accepted(fingerprint, at)
    }

    /// Records that the issuer accepted a key for every store that it serves. This undoes an earlier refusal.
    ///
    /// # Errors
    /// [`KeySetError::NotHeld`] for a key that is not pending, active or previous.
    pub(crate) fn note_accepted(
        &mut self,
        fingerprint: Fingerprint,
        at: SystemTime,
    ) -> Result<Effect, KeySetError> {
        let at = Moment::from(at);
        self.note(fingerprint, |info, slot| {
            info.refused = None;
            match slot {
                Slot::Pending => info.verified = info.verified.or(Some(at)),
                Slot::Current => {
                    info.verified = info.verified.or(Some(at));
                    info.confirmed = info.confirmed.or(Some(at));
                }
                Slot::Previous => {}
            }
        })
    }

    /// Records that the issuer refused a key. Earlier acceptances no longer count: a pending key must be
    /// verified again before it is promoted, and no key is deleted in favour of an active one until that was
    /// accepted again.
    ///
    /// # Errors
    /// [`KeySetError::NotHeld`] for a key that is not pending, active or previous.
    pub(crate) fn note_refused(
        &mut self,
        fingerprint: Fingerprint,
        at: SystemTime,
    ) -> Result<Effect, KeySetError> {
        let at = Moment::from(at);
        self.note(fingerprint, |info, slot| {
            info.refused = info.refused.or(Some(at));
            info.confirmed = None;
            if slot == Slot::Pending {
                info.verified = None;
            }
        })
    }

    /// Checks that the operator's name and the note are short and printable, and contain no part of a key of
    /// this set.
    pub(crate) fn check_texts(&self, by: Option<&str>, note: Option<&str>) -> Result<(), KeySetError> {
        for (text, longest) in [(by, MAX_PERSON), (note, MAX_NOTE)] {
            check_text(text, longest)?;
            if text.is_some_and(|text| self.slots().any(|key| has_part_of(text, &key.key))) {
                return Err(KeySetError::KeyInNote);
            }
        }
        Ok(())
    }
}

impl KeySet {
    fn note(
        &mut self,
        fingerprint: Fingerprint,
        note: impl FnOnce(&mut KeyInfo, Slot),
    ) -> Result<Effect, KeySetError> {
        let slots = [
            (&mut self.pending, Slot::Pending),
            (&mut self.current, Slot::Current),
            (&mut self.previous, Slot::Previous),
        ];
        for (key, slot) in slots {
            let Some(key) = key.as_mut().filter(|key| key.info.fingerprint == fingerprint) else { continue };
            let info = &mut key.info;
            let before = (info.verified, info.confirmed, info.refused);
            note(info, slot);
            return Ok(Effect::of(before != (info.verified, info.confirmed, info.refused), info.rotation));
        }
        Err(KeySetError::NotHeld)
    }

    fn checked(&self, key: &RawKey, staging: &Staging) -> Result<Fingerprint, KeySetError> {
        if !key.is_of(self.profile) {
            return Err(KeySetError::OtherIssuer);
        }
        staging.check(key)?;
        // A key set of an issuer without fingerprints does not exist.
        key.fingerprint().ok_or(KeySetError::Weak)
    }

    /// Checks that the numbers can grow by one more step.
    const fn refuse_exhausted(&self) -> Result<(), KeySetError> {
        if self.generation < LAST_NUMBER && self.rotation < LAST_NUMBER {
            Ok(())
        } else {
            Err(KeySetError::Exhausted)
        }
    }

    fn refuse_known(&self, fingerprint: Fingerprint) -> Result<(), KeySetError> {
        self.state_of(fingerprint).map_or(Ok(()), |state| Err(KeySetError::Known { state }))
    }

    fn next_rotation(&mut self, key: Fingerprint) -> RotationId {
        self.lineage.get_or_insert(key);
        self.rotation += 1;
        RotationId(self.rotation)
    }

    fn is_current(&self, rotation: RotationId) -> bool {
        self.current.as_ref().is_some_and(|current| current.info.rotation == rotation)
    }

    fn pending_of(&self, rotation: RotationId) -> Result<&ManagedKey, KeySetError> {
        let pending = self.pending.as_ref().filter(|pending| pending.info.rotation == rotation);
        pending.ok_or(KeySetError::NotPending { rotation })
    }

    fn activate_pending(&mut self, at: SystemTime) {
        let Some(pending) = self.pending.take() else { return };
        if let Some(mut old) = self.current.replace(pending.activated(at)) {
            old.info.demoted = Some(Moment::from(at));
            self.previous = Some(old);
        }
        self.generation += 1;
    }

    fn remember_retired(&mut self, fingerprint: Fingerprint) {
        if self.retired.len() == MAX_RETIRED {
            forget_oldest(&mut self.retired, &mut self.aborted);
        }
        self.retired.push(fingerprint);
    }

    fn remember_compromised(&mut self, fingerprint: Fingerprint) -> Result<(), KeySetError> {
        let held = self.slots().map(|key| &key.info).find(|info| info.fingerprint == fingerprint);
        let held = held.map(|info| (info.staged, info.name.clone()));
        let aborted = self.aborted.iter().find(|aborted| aborted.fingerprint == fingerprint);
        match held.or_else(|| aborted.map(|aborted| (aborted.staged, aborted.name.clone()))) {
            Some((staged, name)) => {
                self.leaked.push(UndeletedKey { fingerprint, rotation: None, staged, demoted: None, name });
            }
            None if self.compromised.len() >= MAX_REPORTED => return Err(KeySetError::TooManyCompromised),
            None => {}
        }
        if self.compromised.len() == MAX_COMPROMISED {
            forget_oldest(&mut self.compromised, &mut self.leaked);
        }
        self.compromised.push(fingerprint);
        Ok(())
    }
}

impl ManagedKey {
    fn in_progress(&self) -> KeySetError {
        KeySetError::InProgress {
            rotation: self.info.rotation,
            since: self.info.staged(),
            by: self.info.by.clone().unwrap_or_else(|| "an unnamed operator".to_owned()),
        }
    }

    /// Takes the name that is given for the key, if it is another one.
    fn correct_name(&mut self, staging: &Staging) -> Effect {
        let is_other = staging.name().is_some() && staging.name() != self.info.name();
        if is_other {
            self.info.name = staging.name().map(str::to_owned);
        }
        Effect::of(is_other, self.info.rotation)
    }

    fn activated(mut self, at: SystemTime) -> Self {
        (self.info.promoted, self.info.demoted) = (Some(Moment::from(at)), None);
        (self.info.confirmed, self.info.fell_back) = (None, None);
        self
    }

    /// Earlier acceptances no longer count: it was rolled back for a reason. The time marks that it was
    /// active, and so may still be in use.
    fn rolled_back(mut self, at: SystemTime) -> Self {
        (self.info.verified, self.info.promoted, self.info.demoted) = (None, None, Some(Moment::from(at)));
        (self.info.confirmed, self.info.fell_back) = (None, None);
        self
    }
}
