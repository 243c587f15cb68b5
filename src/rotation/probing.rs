//! The steps that ask the issuer.

use std::time::SystemTime;

use super::commit::Subject;
use super::steps::held_of;
use super::{AuditAction, Retirement, Rotation, RotationError, Verification};
use crate::handle::Generation;
use crate::internal::clocks::Clocks;
use crate::key::{Issuer, RawKey};
use crate::keyset::{Held, KeySet, KeySetError, Place, RotationId, Step};
use crate::probe::{Probe, Report, Verdict};

/// A key that is asked about.
struct Asked {
    key: RawKey,
    staged: SystemTime,
    /// Whether the issuer has accepted it before, so that it does not have to come to know it.
    was_accepted: bool,
}

impl Asked {
    fn about(held: &Held) -> Self {
        let was_accepted = held.verified().is_some() || held.confirmed().is_some();
        Self { key: held.key().clone_key(), staged: held.staged(), was_accepted }
    }

    /// Whether this key is still in a place.
    fn is_in(&self, place: Option<&Held>) -> bool {
        place.is_some_and(|held| *held.key() == self.key)
    }
}

impl<I: Issuer> Rotation<I> {
    /// Asks the issuer about the key of a rotation, pending or active, and notes whether it works: it does if every place
    /// accepts it. A refusal is noted as well, so that every process with this key set knows of it. Whatever else is
    /// answered changes nothing.
    ///
    /// An issuer may not know a key yet that was just created: a refusal of a key that was never accepted, within
    /// [`activation`](super::RotationPolicy::activation) after staging, is [`Verification::NotYet`].
    ///
    /// # Errors
    /// [`RotationError`]; [`RotationError::NoProbe`], and [`KeySetError::NotPending`] when that rotation is over.
    pub fn verify(&self, rotation: RotationId) -> Result<Verification, RotationError> {
        let probe = self.expect_probe()?;
        let not_there = KeySetError::NotPending { rotation };
        let (keys, _) = self.read()?;
        keys.check_words(self.by.as_deref(), None).map_err(RotationError::Refused)?;
        let Some(held) = to_verify(&keys, rotation) else { return Err(RotationError::Refused(not_there)) };
        let asked = Asked::about(held);
        let report = probe.probe(&asked.key);
        let now = self.now();
        let is_active = asked.is_in(keys.current());
        if is_active {
            self.note_accepted(&report, keys.generation());
        }
        match report.verdict() {
            Verdict::Accepted => {}
            Verdict::KeyRefused if self.is_new(&asked, now) => return Ok(Verification::NotYet { report }),
            Verdict::KeyRefused => {
                let action = if is_active { AuditAction::ActiveKeyRefused } else { AuditAction::KeyRefused };
                self.raise(action, &keys, rotation, Some(held), now);
                let keys = self.note(&[(&asked, Verdict::KeyRefused)], now)?;
                let place = if is_active { Place::Current } else { Place::Pending };
                return Ok(Verification::KeyRefused {
                    report,
                    place,
                    next: Box::new(self.advice(&keys, now)),
                });
            }
            Verdict::StoreRefused => {
                self.raise(AuditAction::StoreRefused, &keys, rotation, Some(held), now);
                return Ok(Verification::StoreRefused { report });
            }
            Verdict::Inconclusive => return Ok(Verification::Inconclusive { report }),
        }
        let committed = self.commit(now, |keys| {
            if asked.is_in(to_verify(keys, rotation)) {
                keys.verify(rotation, now.wall())
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
    /// the one in force. The rotation is that of the active key, which has replaced the previous one.
    ///
    /// | key in force | previous key | outcome |
    /// |---|---|---|
    /// | accepted | refused | [`Retired`](Retirement::Retired) |
    /// | accepted | accepted | [`StillAccepted`](Retirement::StillAccepted), both keys stay |
    /// | refused | accepted | [`WrongKeyDeleted`](Retirement::WrongKeyDeleted): the previous key is in force again, in one write |
    /// | refused | refused | [`BothRefused`](Retirement::BothRefused), both keys stay |
    /// | anything else | anything else | [`Undecided`](Retirement::Undecided), both keys stay |
    ///
    /// What was accepted and what was refused is noted in each case. A refusal of an active key that was never accepted,
    /// within [`activation`](super::RotationPolicy::activation) after staging, decides nothing.
    ///
    /// # Errors
    /// [`RotationError`]; [`RotationError::NoProbe`], and [`KeySetError::NotCurrent`] when another key is in force by now.
    pub fn retire(&self, rotation: RotationId) -> Result<Retirement, RotationError> {
        let probe = self.expect_probe()?;
        let (keys, there) = self.read()?;
        keys.check_words(self.by.as_deref(), None).map_err(RotationError::Refused)?;
        let current = keys.current().filter(|current| current.rotation() == rotation);
        let Some(current) = current else { return Err(RotationError::Refused(KeySetError::NotCurrent)) };
        let Some(previous) = keys.previous() else { return self.was_retired(rotation) };
        let asked = [current, previous].map(Asked::about);
        let reports = [probe.probe(&asked[0].key), probe.probe(&asked[1].key)];
        self.note_accepted(&reports[0], keys.generation());
        self.note_accepted(&reports[1], keys.generation().and_then(Generation::before));
        let now = self.now();
        let verdicts = [&reports[0], &reports[1]].map(Report::verdict);
        let is_new = verdicts[0] == Verdict::KeyRefused && self.is_new(&asked[0], now);
        let is_refused = verdicts[0] == Verdict::KeyRefused && !is_new;
        let noted =
            [(&asked[0], if is_new { Verdict::Inconclusive } else { verdicts[0] }), (&asked[1], verdicts[1])];
        match verdicts {
            [Verdict::Accepted, Verdict::KeyRefused] => self.confirmed(rotation, &asked, now),
            [Verdict::Accepted, Verdict::Accepted] => {
                let is_settled = self.left_to_settle(current, now).is_zero();
                let is_out_of_use =
                    || self.who_may_use_another_than(&keys).is_ok_and(|behind| behind.is_empty());
                // As before the next step asks for a deletion: a replica that is behind may show the key in force as previous.
                let is_current = || self.is_current(there.as_ref()).is_ok_and(|is_current| is_current);
                let is_overdue = is_settled && self.is_drained(&keys) && is_out_of_use() && is_current();
                if is_overdue {
                    self.raise(AuditAction::StillAccepted, &keys, rotation, Some(previous), now);
                }
                self.note(&noted, now)?;
                let name = previous.name().map(str::to_owned);
                Ok(Retirement::StillAccepted { fingerprint: previous.fingerprint(), name, is_overdue })
            }
            [Verdict::KeyRefused, Verdict::Accepted] if is_refused => {
                let (deleted, in_force) = (current.fingerprint(), previous.fingerprint());
                let name = previous.name().map(str::to_owned);
                let subject = Subject::of(Some(current));
                let committed = self.commit(now, |keys| {
                    must_be_in_place(keys, &asked)?;
                    keys.fall_back(rotation, now.wall())
                })?;
                let transition =
                    self.finish(AuditAction::FellBack, Some(Place::Retired), &committed, subject, None, now);
                let next = Box::new(self.advice(&committed.keys, now));
                Ok(Retirement::WrongKeyDeleted { transition, deleted, in_force, name, next })
            }
            [Verdict::KeyRefused, Verdict::KeyRefused] if is_refused => {
                self.raise(AuditAction::BothRefused, &keys, rotation, Some(current), now);
                let (current, previous) = (current.fingerprint(), previous.fingerprint());
                let keys = self.note(&noted, now)?;
                Ok(Retirement::BothRefused { current, previous, next: Box::new(self.advice(&keys, now)) })
            }
            _ => {
                if is_refused {
                    self.raise(AuditAction::ActiveKeyRefused, &keys, rotation, Some(current), now);
                } else if verdicts[0] == Verdict::StoreRefused {
                    self.raise(AuditAction::StoreRefused, &keys, rotation, Some(current), now);
                }
                self.note(&noted, now)?;
                let [current, previous] = reports;
                Ok(Retirement::Undecided { current, previous })
            }
        }
    }

    /// Notes what was seen of keys that are still in a place, in one write, and none where it is known.
    fn note(&self, seen: &[(&Asked, Verdict)], now: Clocks) -> Result<KeySet, RotationError> {
        let committed = self.commit(now, |keys| {
            let mut step = None;
            for (asked, verdict) in seen {
                let Some(fingerprint) = asked.key.fingerprint() else { continue };
                let noted = match verdict {
                    Verdict::Accepted => keys.note_accepted(fingerprint, now.wall()),
                    Verdict::KeyRefused => keys.note_refused(fingerprint, now.wall()),
                    Verdict::StoreRefused | Verdict::Inconclusive => continue,
                };
                // One that has left the key set meanwhile is of no interest.
                step = noted.ok().filter(|noted| noted.is_change()).or(step);
            }
            let newest = keys.newest_rotation().ok_or(KeySetError::NotHeld)?;
            Ok(step.unwrap_or(Step::Unchanged(newest)))
        })?;
        Ok(committed.keys)
    }

    /// Takes back a refusal that the client was told of: one that came by mistake would otherwise stay.
    fn note_accepted(&self, report: &Report, generation: Option<Generation>) {
        if let Some(generation) = generation.filter(|_| report.verdict() == Verdict::Accepted) {
            self.publisher.note_accepted(generation);
        }
    }

    fn confirmed(
        &self,
        rotation: RotationId,
        asked: &[Asked; 2],
        now: Clocks,
    ) -> Result<Retirement, RotationError> {
        let mut subject = Subject::default();
        let committed = self.commit(now, |keys| {
            // Somebody else may have retired it meanwhile.
            if keys.previous().is_some() {
                must_be_in_place(keys, asked)?;
            }
            subject = Subject::of(keys.previous());
            let retired = keys.retire(rotation)?;
            let is_noted = keys.verify(rotation, now.wall())?.is_change();
            Ok(if is_noted { Step::Done(rotation) } else { retired })
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
    fn is_new(&self, asked: &Asked, now: Clocks) -> bool {
        let age = now.wall().duration_since(asked.staged).unwrap_or_default();
        !asked.was_accepted && age < self.policy.activation()
    }

    fn expect_probe(&self) -> Result<&dyn Probe, RotationError> {
        self.probe.as_deref().ok_or(RotationError::NoProbe)
    }
}

/// The pending key or the one in force, where it is of this rotation.
fn to_verify(keys: &KeySet, rotation: RotationId) -> Option<&Held> {
    held_of(keys, rotation)
        .filter(|held| keys.previous().is_none_or(|previous| previous.rotation() != held.rotation()))
}

/// Checks that the key in force and the previous one are those that were asked about.
fn must_be_in_place(keys: &KeySet, asked: &[Asked; 2]) -> Result<(), KeySetError> {
    let is_so = asked[0].is_in(keys.current()) && asked[1].is_in(keys.previous());
    if is_so { Ok(()) } else { Err(KeySetError::NotCurrent) }
}
