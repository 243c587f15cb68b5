//! The steps that ask the issuer, and their results.

use std::fmt;
use std::time::SystemTime;

use super::audit::AuditAction;
use super::commit::{Subject, Transition};
use super::policy::Remaining;
use super::status::NextStep;
use super::steps::CheckedBy;
use super::{Rotation, RotationError};
use crate::handle::Generation;
use crate::internal::time::Clocks;
use crate::key::{Fingerprint, Issuer, RawKey};
use crate::keyset::{
    Effect, KeyInfo, KeySet, KeySetError, KeySetSummary, KeyState, Labeled, ManagedKey, RotationId,
};
use crate::probe::{Probe, Report, Verdict};
use crate::store::Document;

/// The result of [`Rotation::verify`](super::Rotation::verify). An acceptance and a refusal are recorded;
/// otherwise nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the key may not be verified"]
#[non_exhaustive]
pub enum Verification {
    /// Every store accepted the key, and that is recorded.
    #[non_exhaustive]
    Verified {
        /// The step.
        transition: Transition,
        /// What each store answered.
        report: Report,
    },
    /// The issuer does not know the key, which was staged a moment ago: it may not know it yet.
    #[non_exhaustive]
    NotYet {
        /// What each store answered.
        report: Report,
    },
    /// The issuer does not know the key, and that is recorded.
    #[non_exhaustive]
    KeyRefused {
        /// What each store answered.
        report: Report,
        /// The state of the key: pending, or active.
        state: KeyState,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The key does not serve every store; the report names them.
    #[non_exhaustive]
    StoreRefused {
        /// What each store answered.
        report: Report,
    },
    /// The answers say nothing about the key.
    #[non_exhaustive]
    Inconclusive {
        /// What each store answered.
        report: Report,
    },
}

/// The result of [`Rotation::retire`](super::Rotation::retire).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the wrong key may have been deleted"]
#[non_exhaustive]
pub enum Retirement {
    /// The previous key is retired: it is refused and the active one accepted, or a person said that it was
    /// deleted; or there was none.
    #[non_exhaustive]
    Retired {
        /// The step.
        transition: Transition,
    },
    /// The previous key still works: it was not deleted. Both keys stay.
    #[non_exhaustive]
    StillAccepted {
        /// The previous key.
        fingerprint: Fingerprint,
        /// Its name in the app, if it is known.
        name: Option<String>,
        /// Whether it should be deleted by now: the settle time has passed, and no request of this process
        /// and no process of the [fleet](super::Rotation::with_presence) may use it.
        is_overdue: bool,
    },
    /// The active key was deleted instead of the previous one, which works and is active again.
    #[non_exhaustive]
    WrongKeyDeleted {
        /// The step: the fall back.
        transition: Transition,
        /// The deleted key. It is retired.
        deleted: Fingerprint,
        /// The key that is active again.
        active: Fingerprint,
        /// The name of that key in the app, if it is known.
        name: Option<String>,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The issuer refuses both keys, and that is recorded: there is no key to fall back to.
    #[non_exhaustive]
    BothRefused {
        /// The active key.
        current: Fingerprint,
        /// The previous key.
        previous: Fingerprint,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The answers are inconclusive. Both keys stay.
    #[non_exhaustive]
    Undecided {
        /// What was answered about the active key.
        current: Report,
        /// What was answered about the previous key.
        previous: Report,
    },
}

impl fmt::Display for Verification {
    /// Writes the result, what to do next, and the report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { transition, report } => write!(f, "{transition}\n{report}"),
            // Without the report, which would ask for another key.
            Self::NotYet { .. } => f.write_str(
                "the issuer does not know the key yet, which was staged a moment ago; nothing was changed: \
                 verify it again in a moment",
            ),
            Self::KeyRefused { report, state: KeyState::Current, next } => {
                write!(f, "THE ISSUER REFUSES THE ACTIVE KEY, so that requests fail; {next}\n{report}")
            }
            Self::KeyRefused { report, next, .. } => {
                write!(f, "the pending key does not work; {next}\n{report}")
            }
            Self::StoreRefused { report } => write!(
                f,
                "the key does not serve every store; nothing was changed: see below which, create a key for \
                 all of them, or correct the probe's list\n{report}"
            ),
            Self::Inconclusive { report } => write!(
                f,
                "the answers say nothing about the key; nothing was changed: verify it again later\n{report}"
            ),
        }
    }
}

impl fmt::Display for Retirement {
    /// Writes the result, and what to do next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired { transition } => write!(f, "{transition}"),
            Self::StillAccepted { fingerprint, name, is_overdue } => {
                let key = Labeled { name: name.as_deref(), fingerprint: *fingerprint };
                if *is_overdue {
                    write!(f, "OVERDUE: {key} still works: delete it in the app, then retire it")
                } else {
                    write!(
                        f,
                        "{key} still works, and may be in use: wait until the next step asks for its deletion"
                    )
                }
            }
            Self::WrongKeyDeleted { deleted, active, name, next, .. } => {
                let key = Labeled { name: name.as_deref(), fingerprint: *active };
                write!(
                    f,
                    "THE WRONG KEY WAS DELETED: {deleted} is gone, and {key}, which should have been \
                     deleted, is active again: do not delete that one; {}",
                    next.without_reason()
                )
            }
            Self::BothRefused { current, previous, next } => write!(
                f,
                "BOTH KEYS ARE REFUSED: {current}, the active one, and {previous}, the previous one, so that \
                 no request can succeed; {next}, and verify and promote it: that retires the previous one"
            ),
            Self::Undecided { current, previous } => {
                f.write_str(
                    if [current, previous].map(Report::verdict)
                        == [Verdict::StoreRefused, Verdict::KeyRefused]
                    {
                        "the previous key is refused, and the active key does not serve every store: stage a \
                         key for every store, verify and promote it, which retires the previous one"
                    } else {
                        "the answers are inconclusive, and both keys stay: retire it again later"
                    },
                )?;
                write!(f, "\nthe active key: {current}\nthe previous key: {previous}")
            }
        }
    }
}

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

    /// Returns whether this key is still in a slot.
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
    /// [`RotationError`]; [`RotationError::NoProbe`] unless [a person has checked it](CheckedBy::Person), and
    /// [`KeySetError::NotCurrent`] if another key is active by now.
    pub fn retire(&self, rotation: impl Into<CheckedBy>) -> Result<Retirement, RotationError> {
        let rotation = match rotation.into() {
            CheckedBy::Probe(rotation) => rotation,
            CheckedBy::Person(rotation) => {
                return self.retire_by(AuditAction::RetiredUnprobed, None, self.now(), |keys| {
                    keys.check_texts(self.operator.as_deref(), None)?;
                    keys.retire(rotation)
                });
            }
        };
        let probe = self.expect_probe()?;
        let (keys, there) = self.read()?;
        keys.check_texts(self.operator.as_deref(), None).map_err(RotationError::Refused)?;
        let current = keys.current().filter(|current| current.info().rotation() == rotation);
        let Some(current) = current else { return Err(RotationError::Refused(KeySetError::NotCurrent)) };
        let Some(previous) = keys.previous() else {
            // It was retired before.
            return self.retire_by(AuditAction::Retired, None, self.now(), |keys| match keys.previous() {
                None => keys.retire(rotation),
                Some(_) => Err(KeySetError::NotCurrent),
            });
        };
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
            [Verdict::Accepted, Verdict::KeyRefused] => {
                self.retire_by(AuditAction::Retired, Some(previous), now, |keys| {
                    // Another process may have retired it meanwhile.
                    if keys.previous().is_some() {
                        must_be_in_place(keys, asked)?;
                    }
                    let retired = keys.retire(rotation)?;
                    let is_noted = keys.verify(rotation, now.wall())?.is_change();
                    Ok(if is_noted { Effect::Changed(rotation) } else { retired })
                })
            }
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

    /// Makes the step that retires the previous key, if there still is one. If there is none, the step is
    /// about the key that the issuer was asked about.
    fn retire_by(
        &self,
        action: AuditAction,
        asked: Option<&KeyInfo>,
        now: Clocks,
        mut step: impl FnMut(&mut KeySet) -> Result<Effect, KeySetError>,
    ) -> Result<Retirement, RotationError> {
        let mut subject = Subject::default();
        let committed = self.commit(now, |keys| {
            subject = Subject::of(keys.previous().map(ManagedKey::info).or(asked));
            step(keys)
        })?;
        let state = subject.fingerprint.and_then(|fingerprint| committed.keys.state_of(fingerprint));
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

    /// Returns whether the issuer may not know a key yet. If the clock was set back since the staging it may
    /// not, which errs on the side of asking again.
    fn is_new(&self, asked: &Asked, now: Clocks) -> bool {
        let age = now.wall().duration_since(asked.staged).unwrap_or_default();
        !asked.was_accepted && age < self.policy.activation()
    }

    fn expect_probe(&self) -> Result<&dyn Probe, RotationError> {
        self.probe.as_deref().ok_or(RotationError::NoProbe)
    }
}

/// Returns the pending or active key, if it is of this rotation.
fn to_verify(keys: &KeySet, rotation: RotationId) -> Option<&ManagedKey> {
    [keys.pending(), keys.current()].into_iter().flatten().find(|key| key.info().rotation() == rotation)
}

/// Checks that the active and previous keys are those that the issuer was asked about.
fn must_be_in_place(keys: &KeySet, asked: &[Asked; 2]) -> Result<(), KeySetError> {
    let is_so = asked[0].is_in(keys.current()) && asked[1].is_in(keys.previous());
    if is_so { Ok(()) } else { Err(KeySetError::NotCurrent) }
}
