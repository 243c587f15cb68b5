//! Persist, then publish: how each step is made, and what it returns.

use std::fmt;

use super::audit::{AuditAction, AuditError, AuditEvent};
use super::display::Page;
use super::policy::Sight;
use super::{Rotation, RotationError};
use crate::handle::{Generation, Published};
use crate::internal::events::{Trace, trace_line};
use crate::internal::files::FileProblem;
use crate::internal::printing::Printable;
use crate::internal::time::Clocks;
use crate::key::{Fingerprint, Issuer};
use crate::keyset::{Effect, KeyInfo, KeySet, KeySetError, KeySetSummary, KeyState, RotationId};
use crate::store::{Document, DocumentContent, DocumentError, Version};

/// How often a step is tried while others write at the same time. After each conflict another process has
/// made a step.
const MAX_CONFLICTS: u32 = 32;

/// How often what was read is compared with what is persisted, before a deletion is asked for.
pub(super) const LOOKS: u32 = 3;

/// The key of a step.
#[derive(Clone, Default)]
pub(super) struct Subject {
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) name: Option<String>,
    pub(super) loaded_from: Option<String>,
}

/// A persisted and published step.
pub(super) struct Committed {
    pub(super) keys: KeySetSummary,
    pub(super) effect: Effect,
    is_change: bool,
    is_published: bool,
}

/// What is known of a failed write.
enum Fate {
    Written,
    /// Another process has written since.
    Overtaken,
    Unknown,
}

impl Subject {
    pub(super) fn of(key: Option<&impl AsRef<KeyInfo>>) -> Self {
        let info = key.map(AsRef::as_ref);
        Self {
            fingerprint: info.map(KeyInfo::fingerprint),
            name: info.and_then(KeyInfo::name).map(str::to_owned),
            loaded_from: info.and_then(KeyInfo::loaded_from).map(str::to_owned),
        }
    }
}

/// A persisted step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    event: Box<AuditEvent>,
    state: Option<KeyState>,
    is_published: bool,
    unaudited: Option<AuditError>,
}

impl Transition {
    /// Returns the event that went to the audit: the action, the rotation, the key.
    #[must_use]
    pub const fn event(&self) -> &AuditEvent {
        &self.event
    }

    /// Returns the state of the key after the step.
    #[must_use]
    pub const fn state(&self) -> Option<KeyState> {
        self.state
    }

    /// Returns whether the step changed anything. It did not if it had been done before.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        !self.event.is_repeat
    }

    /// Returns whether the handles of this process have it. They do not if they have the keys of another key
    /// set, open the rotation with its own handle.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        self.is_published
    }

    /// Returns why an audit log lacks the event; `None` if each has it. The step itself is done.
    #[must_use]
    pub const fn unaudited(&self) -> Option<&AuditError> {
        self.unaudited.as_ref()
    }

    pub(super) fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = &self.event;
        if event.is_repeat {
            f.write_str("already done before: ")?;
        }
        write!(f, "{}", event.action)?;
        if let Some(name) = &event.name {
            write!(f, " {},", Printable(name))?;
        }
        if let Some(fingerprint) = event.fingerprint {
            write!(f, " {fingerprint}")?;
        }
        if let Some(rotation) = event.rotation {
            let is_previous = event.action.is_about_previous() && event.fingerprint.is_some();
            write!(f, " ({}rotation {rotation})", if is_previous { "replaced by " } else { "" })?;
        }
        match self.state {
            Some(state) => write!(f, ": {state}"),
            None => Ok(()),
        }
    }

    pub(super) fn tail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_published {
            f.write_str(
                "; the handles of this process do not have it, because they have the keys of another key set",
            )?;
        }
        match &self.unaudited {
            Some(error) => write!(f, "; it is not in the audit: {error}"),
            None => Ok(()),
        }
    }

    /// Writes which key a person should delete, and where.
    pub(super) fn deletion(&self, f: &mut fmt::Formatter<'_>, now: &str) -> fmt::Result {
        f.write_str("delete ")?;
        match &self.event.name {
            Some(name) => write!(f, "the key named {}", Printable(name))?,
            None => f.write_str("it")?,
        }
        write!(f, "{now} in {}", Page::to_delete(self.event.profile))
    }
}

impl fmt::Display for Transition {
    /// Writes one line: what was done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.tail(f)
    }
}

impl<I: Issuer> Rotation<I> {
    /// Reads the persisted key set.
    pub(super) fn read(&self) -> Result<(KeySet, Option<Document>), RotationError> {
        let there = self.store.read().map_err(|problem| self.document_error(problem))?;
        let profile = I::PROFILE;
        let keys = match &there {
            None => KeySet::new(profile),
            Some(there) => KeySet::from_document(profile, there.content().expose_secret()),
        };
        let keys =
            keys.map_err(|problem| RotationError::Unreadable { place: self.store.provenance(), problem })?;
        Ok((keys, there))
    }

    /// Reads and publishes the key set.
    pub(super) fn look(&self, now: Clocks) -> Result<(KeySet, Option<Document>), RotationError> {
        let (keys, there) = self.read()?;
        self.publish(&keys, now);
        self.sight(keys.generation(), now, false);
        Ok((keys, there))
    }

    /// Notes that a generation is active. `is_own` says that this process made the step.
    fn sight(&self, generation: Option<Generation>, now: Clocks, is_own: bool) {
        Sight::note(&mut self.seen().sight, generation, now, is_own);
    }

    /// Returns whether what was read is certainly still persisted.
    pub(super) fn is_current(&self, there: Option<&Document>) -> Result<bool, RotationError> {
        there
            .map_or(Ok(true), |there| self.store.is_current(there))
            .map_err(|error| self.document_error(error))
    }

    /// Publishes the keys. Returns whether the handle has them, or newer ones that were published meanwhile.
    fn publish(&self, keys: &KeySet, now: Clocks) -> bool {
        match self.publisher.publish(&keys.publication(self.policy.grace(), now.wall())) {
            Published::Newer | Published::Same => true,
            Published::Refused => Some(self.publisher.generation()) > keys.generation(),
            Published::OtherLineage => false,
        }
    }

    /// Makes a step on the persisted key set, writes it if that has not changed meanwhile, and publishes it.
    pub(super) fn commit(
        &self,
        now: Clocks,
        mut step: impl FnMut(&mut KeySet) -> Result<Effect, KeySetError>,
    ) -> Result<Committed, RotationError> {
        // A write whose fate is unknown: if the step is found to be done, it was this one.
        let mut doubt = None;
        for _ in 0..MAX_CONFLICTS {
            let (mut keys, there) = match (self.read(), &doubt) {
                (Err(_), Some(problem)) => return Err(self.unsure(DocumentError::clone(problem))),
                (read, _) => read?,
            };
            let version = there.as_ref().map(Document::version);
            let effect = step(&mut keys).map_err(RotationError::Refused)?;
            if effect.is_change() {
                // What is remembered of keys that left the key set blocks no step.
                let content = keys.write_within(self.store.limit());
                match self.store.write(&content, version) {
                    Ok(_) => {}
                    Err(DocumentError::Conflict) => continue,
                    Err(
                        problem @ (DocumentError::Unavailable(_)
                        | DocumentError::File(FileProblem::Unwritable(_))),
                    ) => match self.fate_of(&content, version) {
                        Fate::Written => {}
                        Fate::Unknown => return Err(self.unsure(problem)),
                        Fate::Overtaken => {
                            doubt = Some(problem);
                            continue;
                        }
                    },
                    Err(problem) => return Err(self.document_error(problem)),
                }
            }
            let is_published = self.publish(&keys, now);
            self.sight(keys.generation(), now, effect.is_change());
            let is_change = effect.is_change() || doubt.is_some();
            return Ok(Committed { keys: keys.summary(), effect, is_change, is_published });
        }
        match doubt {
            Some(problem) => Err(self.unsure(problem)),
            None => Err(RotationError::Contended { place: self.store.provenance(), attempts: MAX_CONFLICTS }),
        }
    }

    /// Returns whether a failed write was made nevertheless. After a deadline, one that is not there may
    /// still be made.
    fn fate_of(&self, content: &DocumentContent, unchanged: Option<&Version>) -> Fate {
        let Ok(there) = self.store.read() else { return Fate::Unknown };
        let version = there.as_ref().map(Document::version);
        if version == unchanged {
            return Fate::Unknown;
        }
        match there {
            Some(there) if there.content().expose_secret() == content.expose_secret() => Fate::Written,
            _ => Fate::Overtaken,
        }
    }

    /// Returns what a step did, and sends it to the audit.
    pub(super) fn finish(
        &self,
        action: AuditAction,
        state: Option<KeyState>,
        committed: &Committed,
        subject: Subject,
        note: Option<&str>,
        now: Clocks,
    ) -> Transition {
        let Committed { keys, effect, is_change, is_published } = committed;
        // A leaked key may be of any rotation, or of none.
        let is_leak = matches!(action, AuditAction::Compromised | AuditAction::LeakDeleted)
            || (action == AuditAction::AbortedDeleted && !effect.is_change());
        let rotation = (!is_leak).then_some(effect.rotation());
        let event = self.event(action, keys, rotation, subject, note, now);
        let event = AuditEvent { is_repeat: !is_change, ..event };
        let unaudited = self.record(&event);
        Transition { event: Box::new(event), state, is_published: *is_published, unaudited }
    }

    /// Sends a problem to the audit.
    pub(super) fn raise(
        &self,
        action: AuditAction,
        keys: &KeySetSummary,
        key: Option<&KeyInfo>,
        rotation: RotationId,
        now: Clocks,
    ) {
        self.record(&self.event(action, keys, Some(rotation), Subject::of(key), None, now));
    }

    fn event(
        &self,
        action: AuditAction,
        keys: &KeySetSummary,
        rotation: Option<RotationId>,
        subject: Subject,
        note: Option<&str>,
        at: Clocks,
    ) -> AuditEvent {
        AuditEvent {
            at: at.wall(),
            action,
            profile: keys.profile(),
            rotation,
            fingerprint: subject.fingerprint,
            name: subject.name,
            generation: keys.generation(),
            by: self.operator.clone(),
            loaded_from: subject.loaded_from,
            store: self.store.provenance().to_string(),
            note: note.map(str::to_owned),
            is_repeat: false,
        }
    }

    /// Sends an event to every audit log. Returns why the first that failed did.
    fn record(&self, event: &AuditEvent) -> Option<AuditError> {
        let mut first = None;
        for audit in &self.audit {
            if let Err(error) = audit.record(event) {
                let mut seen = self.seen();
                let before = seen.unaudited.as_ref().map_or(0, |(count, _)| *count);
                seen.unaudited = Some((before.saturating_add(1), error.clone()));
                first.get_or_insert(error);
            }
        }
        Trace::here().line_and_wait(|| {
            let event = event.clone();
            move || {
                if event.action.is_problem() {
                    trace_line!(warn: audit = %event, "a key needs a person");
                } else {
                    trace_line!(info: audit = %event, "a step of a rotation");
                }
            }
        });
        first
    }

    fn document_error(&self, problem: DocumentError) -> RotationError {
        RotationError::Document { place: self.store.provenance(), problem }
    }

    fn unsure(&self, problem: DocumentError) -> RotationError {
        RotationError::Unsure { place: self.store.provenance(), problem }
    }
}

/// Power cuts at every instant of a whole rotation: the file operations of its steps are recorded, and every
/// state that a cut could leave is checked.
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::key::{ApiKey, Kanal};
    use crate::rotation::{CheckedBy, KeyDetails, Retirement, RotationPolicy};
    use crate::store::RecordedStore;

    fn key(number: u64) -> ApiKey<Kanal> {
        ApiKey::<Kanal>::parse_bytes(format!("Key{number:021}").as_bytes()).unwrap()
    }

    fn id(number: u64) -> RotationId {
        number.to_string().parse().unwrap()
    }

    fn retire(rotation: &Rotation<Kanal>, id: RotationId) -> Transition {
        match rotation.retire(CheckedBy::Person(id)).unwrap() {
            Retirement::Retired { transition } => transition,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_power_cut_loses_neither_a_staged_nor_the_active_key() {
        type Do = fn(&Rotation<Kanal>) -> Transition;
        let steps: [(Do, u64); 9] = [
            (|rotation| rotation.adopt(&key(1)).unwrap(), 1),
            (
                |rotation| {
                    rotation.stage(KeyDetails::new(&key(2)).with_note("note")).unwrap().transition().clone()
                },
                1,
            ),
            (|rotation| rotation.promote(CheckedBy::Person(id(2))).unwrap(), 2),
            (|rotation| rotation.roll_back(id(2)).unwrap(), 1),
            (|rotation| rotation.promote(CheckedBy::Person(id(2))).unwrap(), 2),
            (|rotation| retire(rotation, id(2)), 2),
            (|rotation| rotation.stage(&key(3)).unwrap().transition().clone(), 2),
            (|rotation| rotation.promote(CheckedBy::Person(id(3))).unwrap(), 3),
            (|rotation| rotation.compromise(key(3).fingerprint().unwrap()).unwrap().transition().clone(), 2),
        ];
        let store: &RecordedStore = Box::leak(Box::default());
        let rotation = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap();
        // What must be there once that many writes have returned: the active key, and how many keys were
        // taken in.
        let mut expected = BTreeMap::from([(0, (None, 0))]);
        let mut taken = 0;
        for (number, (step, active)) in steps.into_iter().enumerate() {
            let transition = step(&rotation);
            assert!(transition.is_change());
            taken = taken.max(active).max(transition.event().rotation.map_or(0, RotationId::number));
            expected.insert(number as u64 + 1, (Some(active), taken));
        }
        let mut cuts = 0;
        store.for_each_cut(|returned, document| {
            cuts += 1;
            let keys = KeySet::from_document(Kanal::PROFILE, document.content().expose_secret()).unwrap();
            let current = keys.current().map(|current| current.info().fingerprint());
            let name = |number: Option<u64>| number.and_then(|number| key(number).fingerprint());
            let may_be =
                [returned, returned + 1].map(|number| expected.get(&number).and_then(|(key, _)| name(*key)));
            assert!(may_be.contains(&current), "after {returned} writes {current:?} is active");
            for staged in 1..=expected[&returned].1 {
                let fingerprint = key(staged).fingerprint().unwrap();
                assert!(keys.state_of(fingerprint).is_some(), "key {staged} is lost after {returned} writes");
            }
        });
        assert!(cuts > 100, "only {cuts} cuts were looked at");
    }
}
