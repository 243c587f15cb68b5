//! The steps that ask no issuer, and their results.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::audit::AuditAction;
use super::commit::{Committed, Subject, Transition};
use super::decide::next_key_name;
use super::display::Named;
use super::policy::Remaining;
use super::presence::PresenceRecord;
use super::{Rotation, RotationError};
use crate::handle::Stop;
use crate::internal::printing::Span;
use crate::internal::time::Clocks;
use crate::key::{ApiKey, Fingerprint, Issuer, RawKey};
use crate::keyset::{Effect, KeySet, KeySetError, KeyState, Promotion, RotationId, Staging, UndeletedKey};
use crate::source::Provenance;

/// A key to [stage](Rotation::stage) or [adopt](Rotation::adopt), and what to record of it.
pub struct KeyDetails<'a, I: Issuer> {
    key: &'a ApiKey<I>,
    /// With the time of the step set later.
    staging: Staging,
}

impl<'a, I: Issuer> KeyDetails<'a, I> {
    /// Creates them from a key alone.
    #[must_use]
    pub fn new(key: &'a ApiKey<I>) -> Self {
        Self { key, staging: Staging::at(SystemTime::UNIX_EPOCH) }
    }

    /// Sets the key's name in the issuer's app; at most 64 printable characters. A staged key is recorded
    /// under the name that [`NextStep::Create`](super::NextStep::Create) suggests by default.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { staging: self.staging.with_name(name), ..self }
    }

    /// Sets the place that the key was loaded from. It is cut to 64 characters.
    #[must_use]
    pub fn with_provenance(self, place: &Provenance) -> Self {
        Self { staging: self.staging.loaded_from(place), ..self }
    }

    /// Sets a note; at most 100 printable characters.
    #[must_use]
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Self { staging: self.staging.with_note(note), ..self }
    }
}

impl<I: Issuer> fmt::Debug for KeyDetails<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDetails").field("key", self.key).field("staging", &self.staging).finish()
    }
}

impl<'a, I: Issuer> From<&'a ApiKey<I>> for KeyDetails<'a, I> {
    fn from(key: &'a ApiKey<I>) -> Self {
        Self::new(key)
    }
}

/// A rotation to [promote](Rotation::promote), or to [retire](Rotation::retire) the previous key of, and who
/// checks that this is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedBy {
    /// A probe: it has accepted the key to promote, and sees that the key to retire was deleted.
    Probe(RotationId),
    /// A person, for lack of a probe or of time. Use the probe if there is one: it sees whether a key works,
    /// whether one was deleted, and whether that was the right one.
    Person(RotationId),
}

impl From<RotationId> for CheckedBy {
    fn from(rotation: RotationId) -> Self {
        Self::Probe(rotation)
    }
}

/// The result of [`Rotation::stage`](super::Rotation::stage).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    transition: Transition,
    rotation: RotationId,
}

impl Staged {
    /// Returns the rotation that the key began. The next steps take it.
    #[must_use]
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// Returns the step.
    #[must_use]
    pub const fn transition(&self) -> &Transition {
        &self.transition
    }
}

impl fmt::Display for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transition.fmt(f)
    }
}

/// The result of [`Rotation::abort`](super::Rotation::abort).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aborted {
    transition: Transition,
    key: Option<UndeletedKey>,
    remaining_settle: Duration,
    is_drained: bool,
    still_using: Result<Vec<PresenceRecord>, Box<RotationError>>,
}

impl Aborted {
    /// Returns the step.
    #[must_use]
    pub const fn transition(&self) -> &Transition {
        &self.transition
    }

    /// Returns the key that a person still has to delete; `None` if the issuer refuses it, or its deletion is
    /// confirmed.
    #[must_use]
    pub const fn key(&self) -> Option<&UndeletedKey> {
        self.key.as_ref()
    }

    /// Returns the rest of the settle time of a key that was active and rolled back. Until then it must not
    /// be deleted, because other processes may still send it. Zero for a key that was never active.
    #[must_use]
    pub const fn remaining_settle(&self) -> Duration {
        self.remaining_settle
    }

    /// Returns whether no request of this process holds the key.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Returns the processes of the [fleet](super::Rotation::with_presence), silent ones included, that may
    /// still use a key that was active and rolled back.
    ///
    /// # Errors
    /// [`RotationError::Presence`] if the fleet cannot be read. The step itself is done.
    pub fn still_using(&self) -> Result<&[PresenceRecord], &RotationError> {
        self.still_using.as_deref().map_err(|error| &**error)
    }

    fn may_be_deleted(&self) -> bool {
        self.remaining_settle.is_zero() && self.is_drained && self.still_using().is_ok_and(<[_]>::is_empty)
    }
}

impl fmt::Display for Aborted {
    /// Writes one line: what was done, and whether the key may be deleted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transition.head(f)?;
        f.write_str("; ")?;
        if self.key.is_none() {
            f.write_str(if self.transition.is_change() {
                "the issuer refuses it, so that there is nothing to delete"
            } else {
                "no key of it is known that still has to be deleted"
            })?;
        } else if self.may_be_deleted() {
            self.transition.deletion(f, " now")?;
        } else {
            f.write_str("it was active, so do not delete it yet")?;
            if !self.remaining_settle.is_zero() {
                let remaining = Span(self.remaining_settle);
                write!(
                    f,
                    ": other processes have {remaining} to take up the active key, if this process keeps \
                     running"
                )?;
            }
            if !self.is_drained {
                f.write_str("; requests of this process still hold it")?;
            }
            match self.still_using() {
                Ok([]) => {}
                Ok(records) => write!(f, "; still using it: {}", Named(records))?,
                Err(error) => write!(f, "; {error}")?,
            }
            f.write_str("; then ")?;
            self.transition.deletion(f, "")?;
            f.write_str(", as the next step will say")?;
        }
        self.transition.tail(f)
    }
}

/// The result of [`Rotation::compromise`](super::Rotation::compromise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compromised {
    transition: Transition,
    was_held: bool,
}

impl Compromised {
    /// Returns the step.
    #[must_use]
    pub const fn transition(&self) -> &Transition {
        &self.transition
    }

    /// Returns whether the key was in the key set. If not, what is sent has not changed: the fingerprint may
    /// have been mistyped.
    #[must_use]
    pub const fn was_held(&self) -> bool {
        self.was_held
    }
}

impl fmt::Display for Compromised {
    /// Writes one line: what was done, and what to do next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transition.head(f)?;
        if !self.was_held {
            f.write_str(
                "; it was not in this key set, and what is sent has not changed: check that the fingerprint \
                 is the right one",
            )?;
        }
        f.write_str("; ")?;
        self.transition.deletion(f, " now")?;
        self.transition.tail(f)
    }
}

impl<I: Issuer> Rotation<I> {
    /// Makes a key that is in use already the active one. This begins a key set; its age is counted from now.
    ///
    /// [Name](KeyDetails::with_name) it as in the app: an app shows no fingerprints, so that a person cannot
    /// find the key by that later. To correct a name, adopt the active key again with the right one.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::HasKeys`] if another key is active or pending, and
    /// [`KeySetError::KeyInNote`] and [`KeySetError::BadNote`] for the texts.
    pub fn adopt<'a>(&self, key: impl Into<KeyDetails<'a, I>>) -> Result<Transition, RotationError> {
        self.take_in(AuditAction::Adopted, key.into()).map(|(transition, _)| transition)
    }

    /// Persists a new key, to be verified and promoted later.
    ///
    /// Once this has returned, the key is not lost, whatever happens to the process. There is no network
    /// request about it before. Keep your own copy until then: if the store fails, the step must be repeated.
    /// To correct a name, stage the key again with the right one.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::Known`] for a key that is current, previous, retired or compromised,
    /// [`KeySetError::InProgress`] if another key is pending, and [`KeySetError::KeyInNote`] and
    /// [`KeySetError::BadNote`] for the texts.
    pub fn stage<'a>(&self, key: impl Into<KeyDetails<'a, I>>) -> Result<Staged, RotationError> {
        let (transition, rotation) = self.take_in(AuditAction::Staged, key.into())?;
        Ok(Staged { transition, rotation })
    }

    fn take_in(
        &self,
        action: AuditAction,
        details: KeyDetails<'_, I>,
    ) -> Result<(Transition, RotationId), RotationError> {
        let now = self.now();
        let key = details.key.as_raw();
        let mut staging = details.staging.with_time(now.wall());
        if let Some(operator) = &self.operator {
            staging = staging.by(operator);
        }
        let is_adoption = action == AuditAction::Adopted;
        let committed = self.commit(now, |keys| {
            keys.check_texts(self.operator.as_deref(), staging.note())?;
            keys.check_texts(staging.name(), None)?;
            if is_adoption {
                return keys.adopt(key.clone_key(), staging.clone());
            }
            let is_new = key.fingerprint().is_some_and(|key| keys.state_of(key).is_none());
            let mut staging = staging.clone();
            if is_new && staging.name().is_none() {
                staging = staging.with_name(next_key_name(keys, &self.policy, now.wall()));
            }
            keys.stage(key.clone_key(), staging)
        })?;
        let state = if is_adoption { KeyState::Current } else { KeyState::Pending };
        let rotation = committed.effect.rotation();
        let subject = Subject::of(committed.keys.of_rotation(rotation));
        Ok((self.finish(action, Some(state), &committed, subject, staging.note(), now), rotation))
    }

    /// Makes the verified pending key of this rotation the active one. The active one becomes the previous
    /// key, and has its grace. A previous key that a probe saw refused is retired.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::Unverified`] unless [a person has checked it](CheckedBy::Person),
    /// [`KeySetError::PreviousThere`] while an older key waits to be retired, and
    /// [`KeySetError::NotPending`].
    pub fn promote(&self, rotation: impl Into<CheckedBy>) -> Result<Transition, RotationError> {
        let (rotation, promotion, action) = match rotation.into() {
            CheckedBy::Probe(rotation) => (rotation, Promotion::Verified, AuditAction::Promoted),
            CheckedBy::Person(rotation) => (rotation, Promotion::Unverified, AuditAction::PromotedUnverified),
        };
        let now = self.now();
        let committed = self.step(now, |keys| keys.promote(rotation, promotion, now.wall()))?;
        let subject = Subject::of(committed.keys.of_rotation(rotation));
        Ok(self.finish(action, Some(KeyState::Current), &committed, subject, None, now))
    }

    /// Makes the previous key active again. The rotation is that of the active key, which becomes pending: it
    /// can be verified and promoted again, or aborted.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NothingBefore`] if there is no previous key, and
    /// [`KeySetError::InProgress`] if another key is pending.
    pub fn roll_back(&self, rotation: RotationId) -> Result<Transition, RotationError> {
        let now = self.now();
        let committed = self.step(now, |keys| keys.roll_back(rotation, now.wall()))?;
        let subject = Subject::of(committed.keys.of_rotation(rotation));
        Ok(self.finish(AuditAction::RolledBack, Some(KeyState::Pending), &committed, subject, None, now))
    }

    /// Aborts the rotation, and retires its pending key. A person should delete the key in the app.
    ///
    /// They delete it now; or, if it was active and rolled back, once the settle time since then is over, no
    /// request holds it, and no process of the [fleet](Rotation::with_presence) shows it: the result says
    /// which. Unless a probe saw it refused, [`next_step`](Rotation::next_step) asks for that until it is
    /// [confirmed](Rotation::confirm_deleted).
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotPending`] if it is active already.
    pub fn abort(&self, rotation: RotationId) -> Result<Aborted, RotationError> {
        let now = self.now();
        let mut subject = Subject::default();
        let committed = self.step(now, |keys| {
            subject = Subject::of(keys.of_rotation(rotation));
            keys.abort(rotation)
        })?;
        let keys = &committed.keys;
        let key = keys.aborted().iter().find(|aborted| aborted.rotation() == Some(rotation)).cloned();
        if let Some(key) = &key {
            subject.fingerprint = Some(key.fingerprint());
            subject.name = key.name().map(str::to_owned);
        }
        let state = Some(KeyState::Retired);
        let transition = self.finish(AuditAction::Aborted, state, &committed, subject, None, now);
        let Some(rolled_back) = key.as_ref().and_then(UndeletedKey::demoted) else {
            let (remaining_settle, still_using) = (Duration::ZERO, Ok(Vec::new()));
            return Ok(Aborted { transition, key, remaining_settle, is_drained: true, still_using });
        };
        let (settle, sight) = (self.policy.settle(), self.seen().sight);
        Ok(Aborted {
            transition,
            key,
            remaining_settle: Remaining::since(rolled_back, settle, sight, &self.policy, now).here,
            is_drained: self.is_drained(keys),
            // The step is done, so it is no error if the fleet cannot be read.
            still_using: self.still_using(keys).map_err(Box::new),
        })
    }

    /// Records that a key has leaked, in whatever state it is, or if it is not in the key set.
    ///
    /// It is never again sent, staged or rolled back to. If it was active, the pending key replaces it if
    /// that is verified, else the previous one; with neither, no key is active and nothing is sent. No
    /// probe is needed. A person must delete the key at once, and [confirm](Rotation::confirm_deleted) that.
    ///
    /// The handle [stops](crate::handle::KeyHandle::stop) sending the key before anything is read or written.
    /// If the step cannot be persisted, it stays stopped, and the error says that other processes do not know
    /// yet.
    ///
    /// # Errors
    /// [`RotationError::LeakNotPersisted`] if this process sent the key, and the step is not persisted or not
    /// known to be. Otherwise [`RotationError`]; [`KeySetError::TooManyCompromised`] for a key that is not in
    /// the key set.
    pub fn compromise(&self, fingerprint: Fingerprint) -> Result<Compromised, RotationError> {
        self.record_leak(fingerprint, None)
    }

    /// As [`Rotation::compromise`], with a note, such as where the key was found; at most 100 printable
    /// characters.
    ///
    /// # Errors
    /// As for [`Rotation::compromise`], and [`KeySetError::KeyInNote`] if the note contains a part of a key.
    pub fn compromise_with_note(
        &self,
        fingerprint: Fingerprint,
        note: &str,
    ) -> Result<Compromised, RotationError> {
        self.record_leak(fingerprint, Some(note))
    }

    fn record_leak(
        &self,
        fingerprint: Fingerprint,
        note: Option<&str>,
    ) -> Result<Compromised, RotationError> {
        let now = self.now();
        let nothing = KeySet::new(I::PROFILE).map_err(RotationError::Refused)?;
        nothing.check_texts(self.operator.as_deref(), note).map_err(RotationError::Refused)?;
        if note.is_some_and(|note| has_key(note, &nothing, fingerprint)) {
            return Err(RotationError::Refused(KeySetError::KeyInNote));
        }
        let is_stopped = self.publisher.stop(fingerprint) != Stop::NotActive || self.publisher.is_stopped();
        let mut subject = Subject::default();
        let mut was_held = false;
        let committed = self.commit(now, |keys| {
            keys.check_texts(self.operator.as_deref(), note)?;
            let held = keys.slots().find(|key| key.info().fingerprint() == fingerprint);
            // If this is repeated, the key was in the key set; that is known until its deletion is confirmed.
            let undeleted = keys.undeleted(fingerprint);
            was_held = held.is_some() || undeleted.is_some();
            subject = Subject::of(held);
            subject.fingerprint = Some(fingerprint);
            let known = undeleted.and_then(UndeletedKey::name);
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
        let state = Some(KeyState::Compromised);
        let transition = self.finish(AuditAction::Compromised, state, &committed, subject, note, now);
        Ok(Compromised { transition, was_held })
    }

    /// Records that a person deleted a leaked or aborted key in the app. Until then,
    /// [`next_step`](Rotation::next_step) asks for that.
    ///
    /// The key itself is no longer stored, so that no probe can check it. Its fingerprint stays among the
    /// compromised or the retired ones.
    ///
    /// # Errors
    /// [`RotationError`]; [`KeySetError::NotCompromised`] for a key that is neither compromised nor aborted.
    pub fn confirm_deleted(&self, fingerprint: Fingerprint) -> Result<Transition, RotationError> {
        let now = self.now();
        let mut subject = Subject { fingerprint: Some(fingerprint), ..Subject::default() };
        let committed = self.step(now, |keys| {
            let name = keys.undeleted(fingerprint).and_then(UndeletedKey::name);
            subject.name = name.map(str::to_owned).or(subject.name.take());
            keys.confirm_deleted(fingerprint)
        })?;
        let state = committed.keys.state_of(fingerprint);
        let is_aborted = state == Some(KeyState::Retired);
        let action = if is_aborted { AuditAction::AbortedDeleted } else { AuditAction::LeakDeleted };
        Ok(self.finish(action, state, &committed, subject, None, now))
    }

    /// Commits a step that has no texts but the operator's name.
    pub(super) fn step(
        &self,
        now: Clocks,
        mut step: impl FnMut(&mut KeySet) -> Result<Effect, KeySetError>,
    ) -> Result<Committed, RotationError> {
        self.commit(now, |keys| {
            keys.check_texts(self.operator.as_deref(), None)?;
            step(keys)
        })
    }
}

/// Returns whether a word of a note is the key with this fingerprint, which need not be in the key set.
fn has_key(note: &str, keys: &KeySet, fingerprint: Fingerprint) -> bool {
    let ends = |c: char| c.is_whitespace() || "\"'`,;:()[]{}<>".contains(c);
    note.split(ends).any(|word| {
        let key = RawKey::parse(keys.profile(), word.as_bytes()).ok();
        key.and_then(|key| key.fingerprint()) == Some(fingerprint)
    })
}
