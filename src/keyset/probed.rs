//! What probes saw of the keys.

use std::time::SystemTime;

use super::held::{Held, RotationId, moment};
use super::{KeySet, KeySetError, Step};
use crate::key::Fingerprint;

impl KeySet {
    /// Notes that the pending key was accepted for every store that it is to serve; or the one in force, where it came there
    /// without.
    ///
    /// # Errors
    /// [`KeySetError::NotPending`] when that rotation's key is neither pending nor in force.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, std::time::SystemTime::now());
    /// # let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap().into_raw();
    /// let rotation = keys.stage(key, Staging::at(now))?.rotation();
    /// keys.verify(rotation, now)?;
    /// assert!(keys.pending().unwrap().verified().is_some());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn verify(&mut self, rotation: RotationId, at: SystemTime) -> Result<Step, KeySetError> {
        let held = match &self.current {
            Some(current) if current.rotation() == rotation => current,
            _ => self.pending_of(rotation)?,
        };
        let fingerprint = held.fingerprint();
        self.note_accepted(fingerprint, at)
    }

    /// Notes that the issuer accepted a key for every store that it is to serve. A refusal before is taken back by it.
    ///
    /// # Errors
    /// [`KeySetError::NotHeld`] for a key that is not pending, active or previous.
    pub fn note_accepted(&mut self, fingerprint: Fingerprint, at: SystemTime) -> Result<Step, KeySetError> {
        let at = moment(at);
        self.note(fingerprint, |held, place| {
            held.refused = None;
            match place {
                Slot::Pending => held.verified = held.verified.or(Some(at)),
                Slot::Current => {
                    held.verified = held.verified.or(Some(at));
                    held.confirmed = held.confirmed.or(Some(at));
                }
                Slot::Previous => {}
            }
        })
    }

    /// Notes that the issuer refused a key. What was accepted of it before counts no more: a pending key is to be verified
    /// again before it is promoted, and no key is deleted in favour of an active one until that was accepted again.
    ///
    /// # Errors
    /// [`KeySetError::NotHeld`] for a key that is not pending, active or previous.
    pub fn note_refused(&mut self, fingerprint: Fingerprint, at: SystemTime) -> Result<Step, KeySetError> {
        let at = moment(at);
        self.note(fingerprint, |held, place| {
            held.refused = held.refused.or(Some(at));
            held.confirmed = None;
            if place == Slot::Pending {
                held.verified = None;
            }
        })
    }

    fn note(
        &mut self,
        fingerprint: Fingerprint,
        note: impl FnOnce(&mut Held, Slot),
    ) -> Result<Step, KeySetError> {
        let slots = [
            (&mut self.pending, Slot::Pending),
            (&mut self.current, Slot::Current),
            (&mut self.previous, Slot::Previous),
        ];
        for (held, place) in slots {
            let Some(held) = held.as_mut().filter(|held| held.fingerprint == fingerprint) else { continue };
            let before = (held.verified, held.confirmed, held.refused);
            note(held, place);
            let is_change = before != (held.verified, held.confirmed, held.refused);
            let rotation = held.rotation;
            return Ok(if is_change { Step::Done(rotation) } else { Step::Unchanged(rotation) });
        }
        Err(KeySetError::NotHeld)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Pending,
    Current,
    Previous,
}
