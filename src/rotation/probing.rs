//! The steps that ask the issuer.

use std::time::SystemTime;

use super::commit::Subject;
use super::steps::held_of;
use super::{AuditAction, Retirement, Rotation, RotationError, Verification};
use crate::handle::Generation;
use crate::key::RawKey;
use crate::keyset::{Held, KeySet, KeySetError, Place, RotationId};
use crate::probe::{Probe, Report, Verdict};

/// A key that is asked about.
struct Asked {
    key: RawKey,
    staged: SystemTime,
}

impl Asked {
    fn about(held: &Held) -> Self {
        Self { key: held.key().clone_key(), staged: held.staged() }
    }

    /// Whether this key is still in a place.
    fn is_in(&self, place: Option<&Held>) -> bool {
        place.is_some_and(|held| *held.key() == self.key)
    }
}

impl Rotation {
    /// Asks the issuer about the pending key, or about the one in force where none is pending, and notes that it works if
    /// every place accepts it. Whatever else is answered changes nothing.
    ///
    /// An issuer may not know a key yet that was just created: a refusal within
    /// [`activation`](super::RotationPolicy::activation) after staging is [`Verification::NotYet`].
    ///
    /// # Errors
    /// [`RotationError`]; [`RotationError::NoProbe`], and [`KeySetError::NotPending`] when that rotation is over.
    ///
    /// ```
    /// # use keysheath::rotation::{Rotation, RotationError, Verification};
    /// fn verify(rotation: &Rotation) -> Result<bool, RotationError> {
    ///     let verification = rotation.verify()?;
    ///     println!("{verification}");
    ///     Ok(matches!(verification, Verification::Verified { .. }))
    /// }
    /// ```
    pub fn verify(&self) -> Result<Verification, RotationError> {
        let probe = self.expect_probe()?;
        let rotation = self.seen().view.to_promote().ok_or(RotationError::NothingThere)?;
        let not_there = KeySetError::NotPending { rotation };
        let (keys, _) = self.read()?;
        keys.check_words(self.by.as_deref(), None).map_err(RotationError::Refused)?;
        let Some(held) = to_verify(&keys, rotation) else { return Err(RotationError::Refused(not_there)) };
        let asked = Asked::about(held);
        let report = probe.probe(&asked.key);
        let now = self.now();
        if keys.current().is_some_and(|current| asked.is_in(Some(current))) {
            self.note_accepted(&report, keys.generation());
        }
        let problem = |action| self.raise(action, &keys, rotation, Some(held), now);
        match report.verdict() {
            Verdict::Accepted => {}
            Verdict::KeyRefused if self.is_new(&asked, now) => return Ok(Verification::NotYet { report }),
            Verdict::KeyRefused => {
                problem(AuditAction::KeyRefused);
                return Ok(Verification::KeyRefused { report });
            }
            Verdict::StoreRefused => {
                problem(AuditAction::StoreRefused);
                return Ok(Verification::StoreRefused { report });
            }
            Verdict::Inconclusive => return Ok(Verification::Inconclusive { report }),
        }
        let committed = self.commit(now, |keys| {
            if asked.is_in(to_verify(keys, rotation)) {
                keys.verify(rotation, now)
            } else {
                Err(not_there.clone())
            }
        })?;
        let held = held_of(&committed.keys, rotation);
        let place = held.and_then(|held| committed.keys.place_of(held.fingerprint()));
        let transition = self.finish(AuditAction::Verified, place, &committed, Subject::of(held), None, now);
        Ok(Verification::Verified { transition, report })
    }

    /// Sees whether a person has deleted the previous key, and the right one: asks the issuer about the previous key and
    /// the one in force.
    ///
    /// | key in force | previous key | outcome |
    /// |---|---|---|
    /// | accepted | refused | [`Retired`](Retirement::Retired) |
    /// | accepted | accepted | [`StillAccepted`](Retirement::StillAccepted), nothing is changed |
    /// | refused | accepted | [`WrongKeyDeleted`](Retirement::WrongKeyDeleted): the previous key is in force again, in one write |
    /// | refused | refused | [`BothRefused`](Retirement::BothRefused), nothing is changed |
    /// | anything else | anything else | [`Undecided`](Retirement::Undecided), nothing is changed |
    ///
    /// # Errors
    /// [`RotationError`]; [`RotationError::NoProbe`], and [`KeySetError::NotCurrent`] when another key is in force by now.
    ///
    /// ```
    /// # use keysheath::rotation::{Retirement, Rotation, RotationError};
    /// fn confirm(rotation: &Rotation) -> Result<bool, RotationError> {
    ///     let retirement = rotation.retire()?;
    ///     println!("{retirement}");
    ///     Ok(matches!(retirement, Retirement::Retired { .. }))
    /// }
    /// ```
    pub fn retire(&self) -> Result<Retirement, RotationError> {
        let probe = self.expect_probe()?;
        let rotation = self.seen().view.to_retire().ok_or(RotationError::NothingThere)?;
        let (keys, _) = self.read()?;
        keys.check_words(self.by.as_deref(), None).map_err(RotationError::Refused)?;
        let current = keys.current().filter(|current| current.rotation() == rotation);
        let Some(current) = current else { return Err(RotationError::Refused(KeySetError::NotCurrent)) };
        let Some(previous) = keys.previous() else { return self.was_retired(rotation) };
        let asked = [current, previous].map(Asked::about);
        let reports = [probe.probe(&asked[0].key), probe.probe(&asked[1].key)];
        self.note_accepted(&reports[0], keys.generation());
        self.note_accepted(&reports[1], keys.generation().and_then(Generation::before));
        let now = self.now();
        let is_refused = |at: usize| reports[at].verdict() == Verdict::KeyRefused;
        // It may have been accepted somewhere before the issuer knew it everywhere.
        let is_new = is_refused(0) && self.is_new(&asked[0], now);
        match [&reports[0], &reports[1]].map(Report::verdict) {
            [Verdict::Accepted, Verdict::KeyRefused] => self.confirmed(rotation, &asked, now),
            [Verdict::Accepted, Verdict::Accepted] => {
                let is_settled = since_promotion(current, now) >= self.policy.settle();
                let is_out_of_use =
                    || self.who_may_use_another_than(&keys).is_ok_and(|behind| behind.is_empty());
                let is_overdue = is_settled && self.is_drained(&keys) && is_out_of_use();
                if is_overdue {
                    self.raise(AuditAction::StillAccepted, &keys, rotation, Some(previous), now);
                }
                Ok(Retirement::StillAccepted { fingerprint: previous.fingerprint(), is_overdue })
            }
            [Verdict::KeyRefused, Verdict::Accepted] if !is_new => {
                let (deleted, in_force) = (current.fingerprint(), previous.fingerprint());
                let subject = Subject::of(Some(current));
                let committed = self.commit(now, |keys| {
                    must_be_in_place(keys, &asked)?;
                    keys.fall_back(rotation, now)
                })?;
                let transition =
                    self.finish(AuditAction::FellBack, Some(Place::Retired), &committed, subject, None, now);
                Ok(Retirement::WrongKeyDeleted { transition, deleted, in_force })
            }
            [Verdict::KeyRefused, Verdict::KeyRefused] if !is_new => {
                self.raise(AuditAction::BothRefused, &keys, rotation, Some(current), now);
                let (current, previous) = (current.fingerprint(), previous.fingerprint());
                Ok(Retirement::BothRefused { current, previous })
            }
            [of_current, _] => {
                match of_current {
                    Verdict::KeyRefused if !is_new => {
                        self.raise(AuditAction::KeyRefused, &keys, rotation, Some(current), now);
                    }
                    Verdict::StoreRefused => {
                        self.raise(AuditAction::StoreRefused, &keys, rotation, Some(current), now);
                    }
                    _ => {}
                }
                let [current, previous] = reports;
                Ok(Retirement::Undecided { current, previous })
            }
        }
    }

    /// Takes back a refusal that the client was told of: one that came by mistake would else be told for ever.
    fn note_accepted(&self, report: &Report, generation: Option<Generation>) {
        if let Some(generation) = generation.filter(|_| report.verdict() == Verdict::Accepted) {
            self.handle.note_accepted(generation);
        }
    }

    fn confirmed(
        &self,
        rotation: RotationId,
        asked: &[Asked; 2],
        now: SystemTime,
    ) -> Result<Retirement, RotationError> {
        let mut subject = Subject::default();
        let committed = self.commit(now, |keys| {
            // Somebody else may have retired it meanwhile.
            if keys.previous().is_some() {
                must_be_in_place(keys, asked)?;
            }
            subject = Subject::of(keys.previous());
            keys.retire(rotation)
        })?;
        let place = Some(Place::Retired);
        let transition = self.finish(AuditAction::Retired, place, &committed, subject, None, now);
        Ok(Retirement::Retired { transition })
    }

    /// There is no previous key any more.
    fn was_retired(&self, rotation: RotationId) -> Result<Retirement, RotationError> {
        let now = self.now();
        let committed = self.commit(now, |keys| match keys.previous() {
            None => keys.retire(rotation),
            Some(_) => Err(KeySetError::NotCurrent),
        })?;
        let subject = Subject::default();
        let transition = self.finish(AuditAction::Retired, None, &committed, subject, None, now);
        Ok(Retirement::Retired { transition })
    }

    /// Whether the issuer may not know a key yet. By a clock that was set back since its staging it may not, which errs on
    /// the side of asking again.
    fn is_new(&self, asked: &Asked, now: SystemTime) -> bool {
        now.duration_since(asked.staged).unwrap_or_default() < self.policy.activation()
    }

    fn expect_probe(&self) -> Result<&dyn Probe, RotationError> {
        self.probe.as_deref().ok_or(RotationError::NoProbe)
    }
}

/// How long a key has been in force; by a clock that was set back since, no time.
pub(super) fn since_promotion(current: &Held, now: SystemTime) -> std::time::Duration {
    let since = current.promoted().unwrap_or_else(|| current.staged());
    now.duration_since(since).unwrap_or_default()
}

/// The pending key or the one in force, where it is of this rotation.
fn to_verify(keys: &KeySet, rotation: RotationId) -> Option<&Held> {
    held_of(keys, rotation)
        .filter(|held| keys.previous().is_none_or(|previous| previous.rotation() != held.rotation()))
}

/// That the key in force and the previous one are those that were asked about.
fn must_be_in_place(keys: &KeySet, asked: &[Asked; 2]) -> Result<(), KeySetError> {
    let is_so = asked[0].is_in(keys.current()) && asked[1].is_in(keys.previous());
    if is_so { Ok(()) } else { Err(KeySetError::NotCurrent) }
}
