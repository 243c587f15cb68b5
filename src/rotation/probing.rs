//! The steps that ask the issuer.

use std::time::SystemTime;

use super::audit::AuditAction;
use super::commit::Subject;
use super::outcome::{Retirement, Transition, Verification};
use super::policy::Remaining;
use super::rotator::{Rotation, RotationError};
use super::steps::Checked;
use crate::handle::Generation;
use crate::internal::time::Clocks;
use crate::key::{Issuer, RawKey};
use crate::keyset::{Effect, KeyInfo, KeySet, KeySetError, KeySetSummary, KeyState, ManagedKey, RotationId};
use crate::probe::{Probe, Report, Verdict};
use crate::store::Document;

/// A key to ask the issuer about.
struct Asked {
    key: RawKey,
    staged: SystemTime,
    /// Whether the issuer has accepted it before, and so knows it.
    was_accepted: bool,
}

impl Asked {
    fn about(key: &ManagedKey) -> Self {
        let info = key.info();
        let was_accepted = info.verified().is_some() || info.confirmed().is_some();
        Self { key: key.key().clone_key(), staged: info.staged(), was_accepted }
    }

    /// Whether this key is still in a slot.
    fn is_in(&self, slot: Option<&ManagedKey>) -> bool {
        slot.is_some_and(|held| *held.key() == self.key)
    }
}

impl<I: Issuer> Rotation<I> {
    /// Asks the issuer about the key of a rotation, pending or active, and records whether it works: it does
    /// if every store accepts it.
    ///
    /// A refusal is recorded as well, so that every process with this key set knows of it. Any other answer
    /// changes nothing.
    ///
    /// An issuer may not know a new key yet: a refusal of a key that was never accepted, within
    /// [`activation`](super::RotationPolicy::activation) after staging, is [`Verification::NotYet`].
    ///
    /// # Errors
    /// [`RotationError`]; [`RotationError::NoProbe`], and [`KeySetError::NotPending`] if that rotation is
    /// over.
    pub fn verify(&self, rotation: RotationId) -> Result<Verification, RotationError> {
        let probe = self.expect_probe()?;
        let not_there = KeySetError::NotPending { rotation };
        let (keys, _) = self.read()?;
        keys.check_texts(self.operator.as_deref(), None).map_err(RotationError::Refused)?;
        let Some(held) = to_verify(&keys, rotation) else { return Err(RotationError::Refused(not_there)) };
        let asked = Asked::about(held);
        let report = probe.probe(&asked.key);
        let now = self.now();
        let is_active = asked.is_in(keys.current());
        if is_active {
            self.undo_refusal(&report, keys.generation());
        }
        match report.verdict() {
            Verdict::Accepted => {}
            Verdict::KeyRefused if self.is_new(&asked, now) => return Ok(Verification::NotYet { report }),
            Verdict::KeyRefused => {
                let action = if is_active { AuditAction::ActiveKeyRefused } else { AuditAction::KeyRefused };
                self.raise(action, &keys.summary(), Some(held.info()), rotation, now);
                let keys = self.note(&[(&asked, Verdict::KeyRefused)], now)?;
                let state = if is_active { KeyState::Current } else { KeyState::Pending };
                let next = Box::new(self.advice(&keys, now));
                return Ok(Verification::KeyRefused { report, state, next });
            }
            Verdict::StoreRefused => {
                self.raise(AuditAction::StoreRefused, &keys.summary(), Some(held.info()), rotation, now);
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
        let held = committed.keys.of_rotation(rotation);
        let state = held.and_then(|held| committed.keys.state_of(held.fingerprint()));
        let transition = self.finish(AuditAction::Verified, state, &committed, Subject::of(held), None, now);
        Ok(Verification::Verified { transition, report })
    }

    /// Checks whether a person has deleted the previous key, and the right one: asks the issuer about the
    /// previous key and the active one. The rotation is that of the active key, which replaced the previous
    /// one.
    ///
    /// | active key | previous key | result |
    /// |---|---|---|
    /// | accepted | refused | [`Retired`](Retirement::Retired) |
    /// | accepted | accepted | [`StillAccepted`](Retirement::StillAccepted), both keys stay |
    /// | refused | accepted | [`WrongKeyDeleted`](Retirement::WrongKeyDeleted): the previous key is active again, in one write |
    /// | refused | refused | [`BothRefused`](Retirement::BothRefused), both keys stay |
    /// | anything else | anything else | [`Undecided`](Retirement::Undecided), both keys stay |
    ///
    /// Acceptances and refusals are recorded in each case. A refusal of an active key that was never
    /// accepted, within [`activation`](super::RotationPolicy::activation) after staging, decides nothing.
    ///
    /// # Errors
    /// [`RotationError`]; [`RotationError::NoProbe`] unless it was checked [by hand](Checked::ByHand), and
    /// [`KeySetError::NotCurrent`] if another key is active by now.
    pub fn retire(&self, rotation: impl Into<Checked>) -> Result<Retirement, RotationError> {
        let rotation = match rotation.into() {
            Checked::ByProbe(rotation) => rotation,
            Checked::ByHand(rotation) => return self.retire_unprobed(rotation),
        };
        let probe = self.expect_probe()?;
        let (keys, there) = self.read()?;
        keys.check_texts(self.operator.as_deref(), None).map_err(RotationError::Refused)?;
        let current = keys.current().filter(|current| current.info().rotation() == rotation);
        let Some(current) = current else { return Err(RotationError::Refused(KeySetError::NotCurrent)) };
        let Some(previous) = keys.previous() else { return self.was_retired(rotation) };
        let asked = [current, previous].map(Asked::about);
        let reports = asked.each_ref().map(|asked| probe.probe(&asked.key));
        self.undo_refusal(&reports[0], keys.generation());
        self.undo_refusal(&reports[1], keys.generation().and_then(Generation::before));
        let now = self.now();
        let keys = keys.summary();
        self.judge(rotation, &keys, there.as_ref(), &asked, reports, now)
    }

    fn judge(
        &self,
        rotation: RotationId,
        keys: &KeySetSummary,
        there: Option<&Document>,
        asked: &[Asked; 2],
        reports: [Report; 2],
        now: Clocks,
    ) -> Result<Retirement, RotationError> {
        let (Some(current), Some(previous)) = (keys.current(), keys.previous()) else {
            return Err(RotationError::Refused(KeySetError::NotCurrent));
        };
        let verdicts = reports.each_ref().map(Report::verdict);
        let is_new = verdicts[0] == Verdict::KeyRefused && self.is_new(&asked[0], now);
        let is_refused = verdicts[0] == Verdict::KeyRefused && !is_new;
        let noted =
            [(&asked[0], if is_new { Verdict::Inconclusive } else { verdicts[0] }), (&asked[1], verdicts[1])];
        match verdicts {
            [Verdict::Accepted, Verdict::KeyRefused] => self.confirmed(rotation, asked, now),
            [Verdict::Accepted, Verdict::Accepted] => {
                // As before the next step asks for a deletion: a stale replica may show the active key as
                // previous.
                let is_overdue = self.is_settled(current, now)
                    && self.is_drained(keys)
                    && self.still_using(keys).is_ok_and(|records| records.is_empty())
                    && self.is_current(there).is_ok_and(|is_current| is_current);
                if is_overdue {
                    self.raise(AuditAction::StillAccepted, keys, Some(previous), rotation, now);
                }
                self.note(&noted, now)?;
                let name = previous.name().map(str::to_owned);
                Ok(Retirement::StillAccepted { fingerprint: previous.fingerprint(), name, is_overdue })
            }
            [Verdict::KeyRefused, Verdict::Accepted] if is_refused => {
                let committed = self.commit(now, |keys| {
                    must_be_in_place(keys, asked)?;
                    keys.fall_back(rotation, now.wall())
                })?;
                let (action, state) = (AuditAction::FellBack, Some(KeyState::Retired));
                let subject = Subject::of(Some(current));
                Ok(Retirement::WrongKeyDeleted {
                    transition: self.finish(action, state, &committed, subject, None, now),
                    deleted: current.fingerprint(),
                    active: previous.fingerprint(),
                    name: previous.name().map(str::to_owned),
                    next: Box::new(self.advice(&committed.keys, now)),
                })
            }
            [Verdict::KeyRefused, Verdict::KeyRefused] if is_refused => {
                self.raise(AuditAction::BothRefused, keys, Some(current), rotation, now);
                let (current, previous) = (current.fingerprint(), previous.fingerprint());
                let keys = self.note(&noted, now)?;
                Ok(Retirement::BothRefused { current, previous, next: Box::new(self.advice(&keys, now)) })
            }
            _ => {
                if is_refused {
                    self.raise(AuditAction::ActiveKeyRefused, keys, Some(current), rotation, now);
                } else if verdicts[0] == Verdict::StoreRefused {
                    self.raise(AuditAction::StoreRefused, keys, Some(current), rotation, now);
                }
                self.note(&noted, now)?;
                let [current, previous] = reports;
                Ok(Retirement::Undecided { current, previous })
            }
        }
    }

    fn is_settled(&self, current: &KeyInfo, now: Clocks) -> bool {
        Remaining::settle(current, self.seen().sight, &self.policy, now).here.is_zero()
    }

    fn retire_unprobed(&self, rotation: RotationId) -> Result<Retirement, RotationError> {
        let now = self.now();
        let mut subject = Subject::default();
        let committed = self.step(now, |keys| {
            subject = Subject::of(keys.previous());
            keys.retire(rotation)
        })?;
        let state = subject.fingerprint.and_then(|fingerprint| committed.keys.state_of(fingerprint));
        let action = AuditAction::RetiredUnprobed;
        Ok(Retirement::Retired { transition: self.finish(action, state, &committed, subject, None, now) })
    }

    /// Records what was seen of keys that are still in the key set, in one write, and none if it is known
    /// already.
    fn note(&self, seen: &[(&Asked, Verdict)], now: Clocks) -> Result<KeySetSummary, RotationError> {
        let committed = self.commit(now, |keys| {
            let mut effect = None;
            for (asked, verdict) in seen {
                let Some(fingerprint) = asked.key.fingerprint() else { continue };
                let noted = match verdict {
                    Verdict::Accepted => keys.note_accepted(fingerprint, now.wall()),
                    Verdict::KeyRefused => keys.note_refused(fingerprint, now.wall()),
                    Verdict::StoreRefused | Verdict::Inconclusive => continue,
                };
                // A key that has left the key set meanwhile does not matter.
                effect = noted.ok().filter(|noted| noted.is_change()).or(effect);
            }
            let newest = keys.newest_rotation().ok_or(KeySetError::NotHeld)?;
            Ok(effect.unwrap_or(Effect::Unchanged(newest)))
        })?;
        Ok(committed.keys)
    }

    /// Undoes a refusal that the client reported: a mistaken one would otherwise stay.
    fn undo_refusal(&self, report: &Report, generation: Option<Generation>) {
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
            // Another process may have retired it meanwhile.
            if keys.previous().is_some() {
                must_be_in_place(keys, asked)?;
            }
            subject = Subject::of(keys.previous());
            let retired = keys.retire(rotation)?;
            let is_noted = keys.verify(rotation, now.wall())?.is_change();
            Ok(if is_noted { Effect::Changed(rotation) } else { retired })
        })?;
        let state = Some(KeyState::Retired);
        Ok(Retirement::Retired {
            transition: self.finish(AuditAction::Retired, state, &committed, subject, None, now),
        })
    }

    /// There is no previous key any more.
    fn was_retired(&self, rotation: RotationId) -> Result<Retirement, RotationError> {
        let now = self.now();
        let committed = self.commit(now, |keys| match keys.previous() {
            None => keys.retire(rotation),
            Some(_) => Err(KeySetError::NotCurrent),
        })?;
        let transition: Transition =
            self.finish(AuditAction::Retired, None, &committed, Subject::default(), None, now);
        Ok(Retirement::Retired { transition })
    }

    /// Whether the issuer may not know a key yet. If the clock was set back since the staging it may not,
    /// which errs on the side of asking again.
    fn is_new(&self, asked: &Asked, now: Clocks) -> bool {
        let age = now.wall().duration_since(asked.staged).unwrap_or_default();
        !asked.was_accepted && age < self.policy.activation()
    }

    fn expect_probe(&self) -> Result<&dyn Probe, RotationError> {
        self.probe.as_deref().ok_or(RotationError::NoProbe)
    }
}

/// The pending or active key, if it is of this rotation.
fn to_verify(keys: &KeySet, rotation: RotationId) -> Option<&ManagedKey> {
    [keys.pending(), keys.current()].into_iter().flatten().find(|key| key.info().rotation() == rotation)
}

/// Checks that the active and previous keys are those that the issuer was asked about.
fn must_be_in_place(keys: &KeySet, asked: &[Asked; 2]) -> Result<(), KeySetError> {
    let is_so = asked[0].is_in(keys.current()) && asked[1].is_in(keys.previous());
    if is_so { Ok(()) } else { Err(KeySetError::NotCurrent) }
}
