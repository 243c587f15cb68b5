//! What a person has to do now.

use std::time::{Duration, SystemTime};

use super::audit::AuditAction;
use super::commit::LOOKS;
use super::policy::{Age, Remaining, RotationPolicy};
use super::presence::{Fleet, PresenceRecord};
use super::status::{NextStep, Reason};
use super::{Rotation, RotationError};
use crate::handle::Generation;
use crate::internal::printing::Utc;
use crate::internal::time::Clocks;
use crate::key::Issuer;
use crate::keyset::{KeyInfo, KeySet, KeySetSummary, KeyState, Labeled, RotationId, UndeletedKey};

/// What is known beside the key set.
struct Surroundings {
    now: SystemTime,
    has_probe: bool,
    /// Whether no request of this process holds a generation before the active one.
    is_drained: bool,
    settle: Remaining,
    activation: Remaining,
    /// Whether the fleet was read, and the key set is the newest, so that a deletion may be asked for.
    is_looked_at: bool,
    /// The latest generation that the issuer refused to this process.
    refused: Option<Generation>,
    /// The first key of the key set that this process stopped as leaked, which is not persisted.
    stopped: Option<KeyInfo>,
    fleet: Option<Fleet>,
}

impl Surroundings {
    fn records(&self) -> &[PresenceRecord] {
        self.fleet.as_ref().map_or(&[], Fleet::records)
    }

    /// Returns whether the issuer refused the active key to requests of this process or of the fleet. What a
    /// silent process has shown counts until a probe accepts the key.
    fn has_refusal_of(&self, current: &KeyInfo, generation: Option<Generation>) -> bool {
        let is_shown = self.records().iter().any(|record| {
            record.refused_key() == Some(current.fingerprint())
                && (!record.is_silent_at(self.now) || current.confirmed().is_none())
        });
        is_shown || (self.refused.is_some() && self.refused == generation)
    }
}

impl<I: Issuer> Rotation<I> {
    /// Returns what a person has to do now, by what is persisted, the clock, what this process still sends,
    /// and what the others [show](Rotation::with_presence).
    ///
    /// It asks the issuer nothing, and changes nothing; a newer active key is published. Before a deletion is
    /// asked for, what was read is [confirmed](crate::store::DocumentStore::is_current); an OpenBao store
    /// writes it again for that.
    ///
    /// A deletion is asked for only once a probe accepted the active key for every store since it was
    /// promoted, and none refused it since; the settle time and the activation time are over; no request of
    /// this process holds the old key; and every process that shows itself uses the new one only. Without a
    /// probe, or if a process has gone silent, the step says what a person must check before.
    ///
    /// A key that this process stopped as leaked, while that is not persisted, comes first. Next comes a
    /// refusal of the active key: seen by a probe, by requests of this process, or by a process of the fleet.
    /// It is sent to the audit once for each generation. Between rotations, a fleet that cannot be read is
    /// ignored.
    ///
    /// # Errors
    /// [`RotationError::Document`], [`RotationError::Unreadable`], [`RotationError::Contended`] if the key
    /// set changes each time before it is confirmed, and [`RotationError::Presence`] if there is an old key
    /// to delete and the fleet cannot be read.
    pub fn next_step(&self) -> Result<NextStep, RotationError> {
        for _ in 0..LOOKS {
            let now = self.now();
            let (keys, there) = self.look(now)?;
            let keys = keys.summary();
            let step = self.decide(&keys, now)?;
            if !matches!(step, NextStep::Delete { .. } | NextStep::DeleteAborted { .. }) {
                return Ok(step);
            }
            // A stale replica would have the wrong key deleted. The fleet is read again after the
            // confirmation.
            if self.is_current(there.as_ref())? {
                return self.decide(&keys, now);
            }
        }
        Err(RotationError::Contended { place: self.store.provenance(), attempts: LOOKS })
    }

    fn decide(&self, keys: &KeySetSummary, now: Clocks) -> Result<NextStep, RotationError> {
        let fleet = self.fleet_of(keys)?;
        let around = Surroundings { is_looked_at: true, ..self.surroundings(keys, now, fleet) };
        let generation = keys.generation();
        if let Some(current) = keys.current().filter(|current| around.has_refusal_of(current, generation)) {
            self.raise_refusal(keys, current, now);
        }
        Ok(decide(keys, &self.policy, &around))
    }

    /// Returns the next step by what is known of the keys alone, for the result of a step. A pending key that
    /// is refused comes first. No deletion is asked for: neither the fleet nor a replica was looked at.
    pub(super) fn advice(&self, keys: &KeySetSummary, now: Clocks) -> NextStep {
        let around = self.surroundings(keys, now, None);
        if let Some(pending) = keys.pending().filter(|pending| pending.refused().is_some()) {
            return begin_of_rotation(pending, &around);
        }
        match decide(keys, &self.policy, &around) {
            NextStep::Delete { key, keep, .. } => NextStep::Wait {
                fingerprint: key.fingerprint(),
                name: owned(key.name()),
                rotation: keep.rotation(),
                remaining: Duration::ZERO,
                is_activating: false,
                ask_again: None,
                is_drained: true,
                still_using: Vec::new(),
            },
            step => step,
        }
    }

    fn surroundings(&self, keys: &KeySetSummary, now: Clocks, fleet: Option<Fleet>) -> Surroundings {
        let sight = self.seen().sight;
        let remaining = |of: fn(&KeyInfo, _, &RotationPolicy, Clocks) -> Remaining| {
            keys.current().map(|current| of(current, sight, &self.policy, now)).unwrap_or_default()
        };
        Surroundings {
            now: now.wall(),
            has_probe: self.probe.is_some(),
            is_drained: self.is_drained(keys),
            settle: remaining(Remaining::settle),
            activation: remaining(Remaining::activation),
            is_looked_at: false,
            refused: self.publisher.refused(),
            stopped: keys.slots().find(|key| self.publisher.has_stopped(key.fingerprint())).cloned(),
            fleet,
        }
    }

    /// Sends to the audit that the issuer refuses the active key, once for each generation.
    fn raise_refusal(&self, keys: &KeySetSummary, current: &KeyInfo, now: Clocks) {
        let raised = std::mem::replace(&mut self.seen().raised_refusal, keys.generation());
        if raised != keys.generation() {
            self.raise(AuditAction::ActiveKeyRefused, keys, Some(current), current.rotation(), now);
        }
    }

    /// Returns what the processes of the fleet show. A fleet that cannot be read is an error only if there is
    /// an old key to delete.
    fn fleet_of(&self, keys: &KeySetSummary) -> Result<Option<Fleet>, RotationError> {
        if self.presence.is_empty() || keys.current().is_none() {
            return Ok(None);
        }
        let fleet = self.fleet().map(Some);
        let is_needed = keys.previous().is_some() || keys.aborted().iter().any(|key| key.demoted().is_some());
        if is_needed { fleet } else { Ok(fleet.unwrap_or_default()) }
    }

    /// Returns the processes of the fleet, silent ones included, that do not show that they use the active
    /// key only.
    pub(super) fn still_using(&self, keys: &KeySetSummary) -> Result<Vec<PresenceRecord>, RotationError> {
        let fleet = self.fleet()?;
        Ok(fleet.records().iter().filter(|record| !record.is_up_to_date(keys)).cloned().collect())
    }

    /// Returns whether no request of this process holds a generation before the active one.
    pub(super) fn is_drained(&self, keys: &KeySetSummary) -> bool {
        keys.generation().and_then(Generation::before).is_none_or(|before| self.publisher.is_drained(before))
    }
}

fn decide(keys: &KeySetSummary, policy: &RotationPolicy, around: &Surroundings) -> NextStep {
    if let Some(key) = around.stopped.clone() {
        return NextStep::ReportLeak { key };
    }
    let leaked = keys.leaked().first();
    let is_empty = keys.current().is_none() && keys.pending().is_none();
    if let Some(leaked) = leaked.filter(|_| !is_empty) {
        return NextStep::DeleteLeaked {
            profile: keys.profile(),
            key: leaked.clone(),
            keep: keys.current().cloned(),
        };
    }
    match (keys.current(), keys.previous(), keys.pending()) {
        (Some(current), Some(previous), pending) => {
            // If a store refuses the active key, no probe settles what was deleted; a promotion retires the
            // previous key.
            let is_replaced = previous.refused().is_some()
                && current.confirmed().is_none()
                && pending.is_some_and(|pending| pending.refused().is_none());
            if !is_replaced && (current.refused().is_none() || previous.refused().is_none()) {
                return end_of_rotation(keys, current, previous, policy, around);
            }
            pending.map_or_else(
                || create(keys, policy, around, Reason::Refused { key: current.clone() }),
                |pending| begin_of_rotation(pending, around),
            )
        }
        (_, _, Some(pending)) => begin_of_rotation(pending, around),
        (Some(current), None, None) => between_rotations(keys, current, policy, around),
        (None, _, None) => {
            // Both in one step: without a key nothing is sent.
            let reason = leaked.map_or(Reason::NoKey, |leaked| Reason::Leaked { key: leaked.clone() });
            create(keys, policy, around, reason)
        }
    }
}

fn begin_of_rotation(pending: &KeyInfo, around: &Surroundings) -> NextStep {
    let key = pending.clone();
    if pending.refused().is_some() {
        NextStep::Abort { key }
    } else if pending.verified().is_some() {
        NextStep::Promote { key }
    } else if around.has_probe {
        NextStep::Verify { key, state: KeyState::Pending, in_progress: None, can_roll_back: false }
    } else {
        NextStep::VerifyByHand { key }
    }
}

fn end_of_rotation(
    keys: &KeySetSummary,
    current: &KeyInfo,
    previous: &KeyInfo,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    let before = keys.generation().and_then(Generation::before);
    let is_previous_refused =
        previous.refused().is_some() || (around.refused.is_some() && around.refused == before);
    let is_current_refused = current.refused().is_some() || around.has_refusal_of(current, keys.generation());
    if around.has_probe && (is_current_refused || is_previous_refused) {
        return NextStep::Confirm {
            current: current.clone(),
            previous: previous.clone(),
            is_current_refused,
            is_previous_refused,
        };
    }
    if is_current_refused {
        return see_refusal(keys, current, policy, around);
    }
    let users = Users::of(keys, around);
    let subject = Subject { name: previous.label(), rotation: current.rotation(), users: Some(&users) };
    before_deletion(keys, current, &subject, around).unwrap_or_else(|| NextStep::Delete {
        profile: keys.profile(),
        key: previous.clone(),
        keep: current.clone(),
        is_confirmed: around.has_probe,
        shown: users.shown,
        silent: users.silent.clone(),
    })
}

/// The processes of the fleet that may use another key than the active one.
struct Users {
    /// The number of those that use the active one only.
    shown: Option<usize>,
    silent: Vec<PresenceRecord>,
    still_using: Vec<PresenceRecord>,
}

impl Users {
    fn of(keys: &KeySetSummary, around: &Surroundings) -> Self {
        let (up_to_date, others): (Vec<_>, Vec<_>) =
            around.records().iter().partition(|record| record.is_up_to_date(keys));
        let is_silent = |record: &PresenceRecord| record.is_silent_at(around.now);
        let (silent, still_using) = others.into_iter().cloned().partition(|record| is_silent(record));
        let count = || up_to_date.iter().filter(|record| !is_silent(record)).count();
        Self { shown: around.fleet.as_ref().map(|_| count()), silent, still_using }
    }
}

/// A key to be deleted in favour of the active one.
struct Subject<'a> {
    name: Labeled<'a>,
    rotation: RotationId,
    /// `None` for a key that was never active, so that nothing can use it.
    users: Option<&'a Users>,
}

/// Returns what comes before a key is deleted in favour of the active one.
fn before_deletion(
    keys: &KeySetSummary,
    current: &KeyInfo,
    subject: &Subject<'_>,
    around: &Surroundings,
) -> Option<NextStep> {
    let settle = subject.users.map_or_else(Remaining::default, |_| around.settle);
    let remaining = settle.here.max(around.activation.here);
    let is_drained = subject.users.is_none() || around.is_drained;
    let still_using = subject.users.map_or(&[][..], |users| &users.still_using);
    if !remaining.is_zero() || !is_drained || !still_using.is_empty() {
        let newcomer = settle.newcomer.max(around.activation.newcomer);
        return Some(NextStep::Wait {
            fingerprint: subject.name.fingerprint,
            name: owned(subject.name.name),
            rotation: subject.rotation,
            remaining,
            is_activating: around.activation.here > settle.here,
            ask_again: around.now.checked_add(newcomer).filter(|_| !remaining.is_zero()),
            is_drained,
            still_using: still_using.to_vec(),
        });
    }
    // What was seen before the promotion does not count: a key that was deleted since would be the only one
    // left.
    (around.has_probe && current.confirmed().is_none()).then(|| NextStep::Verify {
        key: current.clone(),
        state: KeyState::Current,
        in_progress: keys.pending().map(KeyInfo::rotation),
        can_roll_back: keys.previous().is_some(),
    })
}

/// Returns the deletion of an aborted key, or what comes before it.
fn end_of_aborted(
    keys: &KeySetSummary,
    current: &KeyInfo,
    aborted: &UndeletedKey,
    around: &Surroundings,
) -> NextStep {
    let users = aborted.demoted().map(|_| Users::of(keys, around));
    let rotation = aborted.rotation().unwrap_or(current.rotation());
    let subject = Subject { name: aborted.label(), rotation, users: users.as_ref() };
    before_deletion(keys, current, &subject, around).unwrap_or_else(|| NextStep::DeleteAborted {
        profile: keys.profile(),
        key: aborted.clone(),
        keep: current.clone(),
        is_confirmed: around.has_probe,
        shown: users.as_ref().and_then(|users| users.shown),
        silent: users.map(|users| users.silent).unwrap_or_default(),
    })
}

fn between_rotations(
    keys: &KeySetSummary,
    current: &KeyInfo,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    if current.refused().is_some() {
        return create(keys, policy, around, Reason::Refused { key: current.clone() });
    }
    if around.has_refusal_of(current, keys.generation()) {
        return see_refusal(keys, current, policy, around);
    }
    let aborted = keys.aborted().first().filter(|_| around.is_looked_at);
    let aborted = aborted.map(|aborted| end_of_aborted(keys, current, aborted, around));
    let by_age = by_age(keys, current, policy, around);
    match aborted {
        Some(delete @ NextStep::DeleteAborted { .. }) => delete,
        // What comes before a deletion delays no new key.
        Some(step) if matches!(by_age, NextStep::Nothing { .. }) => step,
        _ => by_age,
    }
}

fn by_age(
    keys: &KeySetSummary,
    current: &KeyInfo,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
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

fn see_refusal(
    keys: &KeySetSummary,
    current: &KeyInfo,
    policy: &RotationPolicy,
    around: &Surroundings,
) -> NextStep {
    NextStep::Refused {
        profile: keys.profile(),
        key: current.clone(),
        previous: keys.previous().cloned(),
        in_progress: keys.pending().map(KeyInfo::rotation),
        name: next_key_name(keys, policy, around.now),
        has_probe: around.has_probe,
    }
}

fn create(keys: &KeySetSummary, policy: &RotationPolicy, around: &Surroundings, reason: Reason) -> NextStep {
    NextStep::Create { profile: keys.profile(), name: next_key_name(keys, policy, around.now), reason }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// Returns the name of the next key. The number is that of its rotation, which no other key has; the month is
/// for people, and tells two key sets of one app apart.
pub(super) fn next_key_name<K: AsRef<KeyInfo>>(
    keys: &KeySet<K>,
    policy: &RotationPolicy,
    now: SystemTime,
) -> String {
    let (year, month, _) = Utc(now).date();
    let number = keys.newest_rotation().map_or(0, RotationId::number) + 1;
    let mut name = format!("{}-{year:04}-{month:02}-r{number}", policy.key_name());
    // A person may have given this very name to another key.
    let gone = keys.leaked().iter().chain(keys.aborted()).filter_map(UndeletedKey::name);
    let given: Vec<&str> = keys.slots().filter_map(|key| key.as_ref().name()).chain(gone).collect();
    while given.contains(&name.as_str()) {
        name.push('b');
    }
    name
}
