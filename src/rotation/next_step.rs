//! What a person has to do now.

mod step;
mod display;

use std::time::{Duration, SystemTime};

use super::commit::LOOKS;
use super::{AuditAction, Rotation, RotationError, RotationPolicy};
use crate::handle::Generation;
use crate::internal::clocks::Clocks;
use crate::internal::utc::Utc;
use crate::key::{Fingerprint, Issuer};
use crate::keyset::{AbortedKey, Held, KeySet, LeakedKey, Place, RotationId};
use crate::rotation::{Fleet, PresenceRecord};

pub(super) use display::{Named, Page};
pub use step::{NextStep, Reason};

/// What is known beside the key set.
struct Surroundings {
    now: SystemTime,
    has_probe: bool,
    /// Whether no request of this process holds a generation before the one in force.
    is_drained: bool,
    /// What is left of the settle time and of the activation time: here, and for a process that starts now.
    settle: [Duration; 2],
    activation: [Duration; 2],
    /// Whether who uses which key was looked at, and whether the key set is the newest, so that a deletion may be asked for.
    is_looked_at: bool,
    /// The latest generation that the issuer refused to this process.
    refused: Option<Generation>,
    /// The first key of the key set that this process has stopped as leaked, which is not persisted.
    stopped: Option<(Fingerprint, Option<String>)>,
    /// What the processes of the fleet show, where it is looked at and they do.
    fleet: Option<Fleet>,
}

impl<I: Issuer> Rotation<I> {
    /// Tells what a person has to do now, by what is persisted, the clock, what this process still sends, and what the
    /// others [show](Rotation::with_presence). It asks the issuer nothing, and changes nothing; what is in force is
    /// published, where it is news. Before a deletion is asked for, what was read is
    /// [confirmed](crate::store::DocumentStore::is_current), for which an OpenBao writes it once more.
    ///
    /// A deletion is asked for only once a probe accepted the active key for every store since it was promoted, and none
    /// refused it since; the settle time and the activation time are over; no request of this process holds the old key;
    /// and every process that shows itself has the new one alone. Where there is no probe, or a process has gone silent,
    /// the person is told what to see for themselves before.
    ///
    /// A key that this process has stopped as leaked, while that is not persisted, comes before everything. Where the issuer
    /// refuses the active key, that comes next: as a probe has noted it, as this process's own requests
    /// were told, or as a process of the fleet shows. It is told to the audit, once for each generation. Between
    /// rotations, a fleet that cannot be seen says nothing.
    ///
    /// # Errors
    /// [`RotationError::Document`], [`RotationError::Unreadable`], [`RotationError::Contended`] where the key set changes each
    /// time before it is confirmed, and [`RotationError::Presence`] where there is an old key to delete and who uses it cannot
    /// be seen.
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn tell(rotation: &Rotation<Kanal>) -> Result<(), RotationError> {
    ///     println!("{}", rotation.next_step()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn next_step(&self) -> Result<NextStep, RotationError> {
        for _ in 0..LOOKS {
            let now = self.now();
            let (keys, there) = self.look(now)?;
            let step = self.decide(&keys, now)?;
            if !matches!(step, NextStep::Delete { .. } | NextStep::DeleteGivenUp { .. }) {
                return Ok(step);
            }
            // By a replica that is behind, the wrong key would be deleted. What the fleet shows is read after that anew.
            if self.is_current(there.as_ref())? {
                return self.decide(&keys, now);
            }
        }
        Err(RotationError::Contended { place: self.store.provenance(), attempts: LOOKS })
    }

    fn decide(&self, keys: &KeySet, now: Clocks) -> Result<NextStep, RotationError> {
        let fleet = self.fleet_of(keys)?;
        let around = Surroundings { is_looked_at: true, ..self.surroundings(keys, now, fleet) };
        if let Some(current) = keys.current().filter(|current| is_reported(keys, current, &around)) {
            self.raise_reported(keys, current, now);
        }
        Ok(decide(keys, &self.policy, &around))
    }

    /// The next step by what is known of the keys alone, to be told with the outcome of a step. A pending key that is
    /// refused comes first. No deletion is asked for: neither who uses the old key nor a replica was looked at.
    pub(super) fn advice(&self, keys: &KeySet, now: Clocks) -> NextStep {
        let around = self.surroundings(keys, now, None);
        if let Some(pending) = keys.pending().filter(|pending| pending.refused().is_some()) {
            return begin_of_rotation(pending, &around);
        }
        match decide(keys, &self.policy, &around) {
            NextStep::Delete { fingerprint, name, rotation, .. } => NextStep::Wait {
                fingerprint,
                name,
                rotation,
                left: Duration::ZERO,
                is_activating: false,
                again: None,
                is_drained: true,
                behind: Vec::new(),
            },
            step => step,
        }
    }

    fn surroundings(&self, keys: &KeySet, now: Clocks, fleet: Option<Fleet>) -> Surroundings {
        let left = |of: &dyn Fn(&Held) -> [Duration; 2]| keys.current().map(of).unwrap_or_default();
        Surroundings {
            now: now.wall(),
            has_probe: self.probe.is_some(),
            is_drained: self.is_drained(keys),
            settle: left(&|current| {
                [self.left_to_settle(current, now), self.left_to_settle_anew(current, now)]
            }),
            activation: left(&|current| {
                [self.left_to_activate(current, now), self.left_to_activate_anew(current, now)]
            }),
            is_looked_at: false,
            refused: self.publisher.refused(),
            stopped: slots(keys)
                .find(|held| self.publisher.has_stopped(held.fingerprint()))
                .map(|held| (held.fingerprint(), owned(held.name()))),
            fleet,
        }
    }

    /// Tells the audit that the issuer refuses the active key, once for each generation.
    fn raise_reported(&self, keys: &KeySet, current: &Held, now: Clocks) {
        let told = std::mem::replace(&mut self.seen().told_refused, keys.generation());
        if told != keys.generation() {
            self.raise(AuditAction::ActiveKeyRefused, keys, current.rotation(), Some(current), now);
        }
    }

    /// What the processes of the fleet show. Only where there is an old key to delete does it stop the step that it cannot be
    /// seen.
    fn fleet_of(&self, keys: &KeySet) -> Result<Option<Fleet>, RotationError> {
        if self.presence.is_empty() || keys.current().is_none() {
            return Ok(None);
        }
        let fleet = self.fleet().map(Some);
        let is_to_wait =
            keys.previous().is_some() || keys.given_up().iter().any(|key| key.demoted().is_some());
        if is_to_wait { fleet } else { Ok(fleet.unwrap_or_default()) }
    }

    /// The processes of the fleet, silent ones included, that do not show that they have the key in force alone.
    pub(super) fn who_may_use_another_than(
        &self,
        keys: &KeySet,
    ) -> Result<Vec<PresenceRecord>, RotationError> {
        let fleet = self.fleet()?;
        Ok(fleet.records().iter().filter(|record| !record.is_up_to_date(keys)).cloned().collect())
    }

    /// Whether no request of this process holds a generation before the one in force.
    pub(super) fn is_drained(&self, keys: &KeySet) -> bool {
        keys.generation().and_then(Generation::before).is_none_or(|before| self.publisher.is_drained(before))
    }
}

fn decide(keys: &KeySet, policy: &RotationPolicy, around: &Surroundings) -> NextStep {
    if let Some((fingerprint, name)) = around.stopped.clone() {
        return NextStep::ReportLeak { fingerprint, name };
    }
    let leaked = keys.leaked().first();
    let is_empty = keys.current().is_none() && keys.pending().is_none();
    if let Some(leaked) = leaked.filter(|_| !is_empty) {
        return NextStep::DeleteLeaked {
            profile: keys.profile(),
            fingerprint: leaked.fingerprint(),
            name: owned(leaked.name()),
            staged: leaked.staged(),
            keep: keys.current().map(Held::fingerprint),
            keep_name: owned(keys.current().and_then(Held::name)),
        };
    }
    match (keys.current(), keys.previous(), keys.pending()) {
        (Some(current), Some(previous), pending) => {
            // Where the active key is refused by a store, no look settles what was deleted; a promotion retires the previous.
            let is_replaced = previous.refused().is_some()
                && current.confirmed().is_none()
                && pending.is_some_and(|pending| pending.refused().is_none());
            if !is_replaced && (current.refused().is_none() || previous.refused().is_none()) {
                return end_of_rotation(keys, current, previous, policy, around);
            }
            pending.map_or_else(
                || create(keys, policy, around, Reason::Refused { fingerprint: current.fingerprint() }),
                |pending| begin_of_rotation(pending, around),
            )
        }
        (_, _, Some(pending)) => begin_of_rotation(pending, around),
        (Some(current), None, None) => between_rotations(keys, current, policy, around),
        (None, _, None) => {
            // Both in one step: without a key nothing is sent.
            let reason = leaked.map_or(Reason::NoKey, |leaked| Reason::Leaked {
                fingerprint: leaked.fingerprint(),
                name: owned(leaked.name()),
            });
            create(keys, policy, around, reason)
        }
    }
}

fn begin_of_rotation(pending: &Held, around: &Surroundings) -> NextStep {
    let (fingerprint, rotation) = (pending.fingerprint(), pending.rotation());
    if pending.refused().is_some() {
        NextStep::Abort { fingerprint, name: owned(pending.name()), rotation }
    } else if pending.verified().is_some() {
        NextStep::Promote { fingerprint, rotation }
    } else if around.has_probe {
        NextStep::Verify {
            fingerprint,
            rotation,
            place: Place::Pending,
            under_way: None,
            can_roll_back: false,
        }
    } else {
        NextStep::VerifyByHand { fingerprint, rotation }
    }
}

/// Whether requests of this process or of the fleet were told that the issuer refuses the active key. What a silent process
/// has shown counts until a probe accepts the key.
fn is_reported(keys: &KeySet, current: &Held, around: &Surroundings) -> bool {
    let records = around.fleet.as_ref().map_or(&[][..], Fleet::records);
    let is_shown = records.iter().any(|record| {
        record.refused_key() == Some(current.fingerprint())
            && (!record.is_silent_at(around.now) || current.confirmed().is_none())
    });
    is_shown || (around.refused.is_some() && around.refused == keys.generation())
}

fn end_of_rotation(
    keys: &KeySet,
    current: &Held,
    previous: &Held,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    let fingerprint = previous.fingerprint();
    let before = keys.generation().and_then(Generation::before);
    let is_previous_refused =
        previous.refused().is_some() || (around.refused.is_some() && around.refused == before);
    let is_current_refused = current.refused().is_some() || is_reported(keys, current, around);
    if around.has_probe && (is_current_refused || is_previous_refused) {
        let (in_force, rotation) = (current.fingerprint(), current.rotation());
        return NextStep::Confirm {
            fingerprint,
            name: owned(previous.name()),
            in_force,
            in_force_name: owned(current.name()),
            rotation,
            is_previous_refused,
            is_current_refused,
        };
    }
    if is_current_refused {
        return see_refusal(keys, current, policy, around);
    }
    let (name, rotation) = (owned(previous.name()), current.rotation());
    let users = Users::of(keys, around);
    if let Some(step) =
        first_wait_or_verify(keys, current, (fingerprint, name.clone(), rotation), Some(&users), around)
    {
        return step;
    }
    NextStep::Delete {
        profile: keys.profile(),
        fingerprint,
        name,
        staged: previous.staged(),
        note: owned(previous.note()),
        keep: current.fingerprint(),
        keep_name: owned(current.name()),
        rotation,
        is_confirmed: around.has_probe,
        shown: users.shown,
        silent: users.silent,
    }
}

/// Who of the fleet may use another key than the one in force.
struct Users {
    /// How many show that they have the one in force alone.
    shown: Option<usize>,
    silent: Vec<PresenceRecord>,
    behind: Vec<PresenceRecord>,
}

impl Users {
    fn of(keys: &KeySet, around: &Surroundings) -> Self {
        let records = around.fleet.as_ref().map_or(&[][..], Fleet::records);
        let (up_to_date, others): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record.is_up_to_date(keys));
        let is_silent = |record: &PresenceRecord| record.is_silent_at(around.now);
        let (silent, behind) = others.into_iter().cloned().partition(|record| is_silent(record));
        let count = || up_to_date.iter().filter(|record| !is_silent(record)).count();
        Self { shown: around.fleet.as_ref().map(|_| count()), silent, behind }
    }
}

/// What comes before a key is deleted in favour of the one in force. `users` is `None` for a key that never was in force,
/// so that nothing can use it.
fn first_wait_or_verify(
    keys: &KeySet,
    current: &Held,
    (fingerprint, name, rotation): (Fingerprint, Option<String>, RotationId),
    users: Option<&Users>,
    around: &Surroundings,
) -> Option<NextStep> {
    let settle = users.map_or([Duration::ZERO; 2], |_| around.settle);
    let left = settle[0].max(around.activation[0]);
    let is_drained = users.is_none() || around.is_drained;
    let behind = users.map(|users| users.behind.clone()).unwrap_or_default();
    if !left.is_zero() || !is_drained || !behind.is_empty() {
        let anew = settle[1].max(around.activation[1]);
        return Some(NextStep::Wait {
            fingerprint,
            name,
            rotation,
            left,
            is_activating: around.activation[0] > settle[0],
            again: around.now.checked_add(anew).filter(|_| !left.is_zero()),
            is_drained,
            behind,
        });
    }
    // Not by what was seen before the promotion: a key that was deleted since would be the only one left.
    (around.has_probe && current.confirmed().is_none()).then(|| NextStep::Verify {
        fingerprint: current.fingerprint(),
        rotation: current.rotation(),
        place: Place::Current,
        under_way: keys.pending().map(Held::rotation),
        can_roll_back: keys.previous().is_some(),
    })
}

/// The deletion of a key that was given up, or what comes before it.
fn end_of_given_up(keys: &KeySet, current: &Held, given_up: &AbortedKey, around: &Surroundings) -> NextStep {
    let (fingerprint, name, rotation) = (given_up.fingerprint(), owned(given_up.name()), given_up.rotation());
    let users = given_up.demoted().map(|_| Users::of(keys, around));
    let subject = (fingerprint, name.clone(), rotation);
    first_wait_or_verify(keys, current, subject, users.as_ref(), around).unwrap_or_else(|| {
        let (shown, silent) = users.map_or((None, Vec::new()), |users| (users.shown, users.silent));
        NextStep::DeleteGivenUp {
            profile: keys.profile(),
            fingerprint,
            name,
            rotation,
            staged: given_up.staged(),
            keep: current.fingerprint(),
            keep_name: owned(current.name()),
            is_confirmed: around.has_probe,
            shown,
            silent,
        }
    })
}

fn between_rotations(
    keys: &KeySet,
    current: &Held,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    if current.refused().is_some() {
        return create(keys, policy, around, Reason::Refused { fingerprint: current.fingerprint() });
    }
    if is_reported(keys, current, around) {
        return see_refusal(keys, current, policy, around);
    }
    let given_up = keys.given_up().first().filter(|_| around.is_looked_at);
    let given_up = given_up.map(|given_up| end_of_given_up(keys, current, given_up, around));
    let by_age = by_age(keys, current, policy, around);
    match given_up {
        Some(delete @ NextStep::DeleteGivenUp { .. }) => delete,
        // What comes before a deletion holds up no new key.
        Some(step) if matches!(by_age, NextStep::Nothing { .. }) => step,
        _ => by_age,
    }
}

fn by_age(keys: &KeySet, current: &Held, policy: &RotationPolicy, around: &Surroundings) -> NextStep {
    if current.fell_back().is_some() {
        return create(keys, policy, around, Reason::FellBack);
    }
    let age = Age::of(current, policy, around.now);
    match age.due {
        Some(due) if age.is_overdue => create(keys, policy, around, Reason::Overdue { due }),
        Some(due) if age.is_due_soon => create(keys, policy, around, Reason::Soon { due }),
        due => NextStep::Nothing { due },
    }
}

fn see_refusal(keys: &KeySet, current: &Held, policy: &RotationPolicy, around: &Surroundings) -> NextStep {
    NextStep::Refused {
        profile: keys.profile(),
        fingerprint: current.fingerprint(),
        rotation: current.rotation(),
        previous: keys.previous().map(Held::fingerprint),
        under_way: keys.pending().map(Held::rotation),
        name: name_of_the_next(keys, policy, around.now),
        has_probe: around.has_probe,
    }
}

fn create(keys: &KeySet, policy: &RotationPolicy, around: &Surroundings, reason: Reason) -> NextStep {
    NextStep::Create { profile: keys.profile(), name: name_of_the_next(keys, policy, around.now), reason }
}

fn slots(keys: &KeySet) -> impl Iterator<Item = &Held> {
    [keys.current(), keys.pending(), keys.previous()].into_iter().flatten()
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// What to call the next key. The number is that of its rotation, which no other key has; the month is for people, and
/// tells two key sets of one app apart.
pub(super) fn name_of_the_next(keys: &KeySet, policy: &RotationPolicy, now: SystemTime) -> String {
    let (year, month, _) = Utc(now).date();
    let number = keys.newest_rotation().map_or(0, RotationId::number) + 1;
    let mut name = format!("{}-{year:04}-{month:02}-r{number}", policy.key_name());
    // A person may have given another key this very name.
    let gone = keys.leaked().iter().filter_map(LeakedKey::name);
    let gone = gone.chain(keys.given_up().iter().filter_map(AbortedKey::name));
    let given: Vec<&str> = slots(keys).filter_map(Held::name).chain(gone).collect();
    while given.contains(&name.as_str()) {
        name.push('b');
    }
    name
}

/// How old a key is, and whether that is too old.
pub(super) struct Age {
    pub(super) since_staging: Duration,
    pub(super) due: Option<SystemTime>,
    pub(super) is_due_soon: bool,
    pub(super) is_overdue: bool,
}

impl Age {
    /// By a clock that was set back since the key was staged it has no age, and is not due.
    pub(super) fn of(current: &Held, policy: &RotationPolicy, now: SystemTime) -> Self {
        let age = now.duration_since(current.staged()).ok();
        let is_older = |than| age.is_some_and(|age| age >= than);
        let is_overdue = is_older(policy.max_age());
        Self {
            since_staging: age.unwrap_or_default(),
            due: current.staged().checked_add(policy.max_age()),
            is_due_soon: !is_overdue && is_older(policy.max_age().saturating_sub(policy.warning())),
            is_overdue,
        }
    }
}
