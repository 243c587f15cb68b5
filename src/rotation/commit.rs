//! Persist, then publish: how each step is made.

use super::{AuditAction, AuditEvent, Rotation, RotationError, Transition};
use crate::handle::Published;
use crate::internal::clocks::Clocks;
#[cfg(feature = "tracing")]
use crate::internal::events::Trace;
use crate::key::{Fingerprint, Issuer};
use crate::keyset::{Held, KeySet, KeySetError, Place, RotationId, Step};
use crate::store::{Document, DocumentContent, DocumentError, Version};

/// How often a step is tried when others write at the same time. Each conflict means that another's step was made.
///
/// ```
/// assert_eq!(keysheath::rotation::MAX_CONFLICTS, 32);
/// ```
pub const MAX_CONFLICTS: u32 = 32;

/// How often what was read is compared with what is there, before a key is to be deleted.
pub(super) const LOOKS: u32 = 3;

/// The key that a step is about.
#[derive(Clone, Default)]
pub(super) struct Subject {
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) name: Option<String>,
    pub(super) from: Option<String>,
}

/// A step that is persisted, and published.
pub(super) struct Committed {
    pub(super) keys: KeySet,
    pub(super) step: Step,
    is_change: bool,
    is_published: bool,
}

/// What is known of a write that has failed.
enum Fate {
    Written,
    /// Somebody else has written since.
    Overtaken,
    Unknown,
}

impl Subject {
    pub(super) fn of(held: Option<&Held>) -> Self {
        Self {
            fingerprint: held.map(Held::fingerprint),
            name: held.and_then(Held::name).map(str::to_owned),
            from: held.and_then(Held::from).map(str::to_owned),
        }
    }
}

impl<I: Issuer> Rotation<I> {
    /// The key set as it is persisted.
    pub(super) fn read(&self) -> Result<(KeySet, Option<Document>), RotationError> {
        let there = self.store.read().map_err(|problem| self.of_document(problem))?;
        let profile = I::PROFILE;
        let keys = match &there {
            None => KeySet::new(profile),
            Some(there) => KeySet::from_document(profile, there.content().expose_secret()),
        };
        let keys =
            keys.map_err(|problem| RotationError::Unreadable { place: self.store.provenance(), problem })?;
        Ok((keys, there))
    }

    /// Reads and publishes what is there.
    pub(super) fn look(&self, now: Clocks) -> Result<(KeySet, Option<Document>), RotationError> {
        let (keys, there) = self.read()?;
        self.publish(&keys, now);
        self.sight(&keys, now, false);
        Ok((keys, there))
    }

    /// Whether what was read is there still, for sure.
    pub(super) fn is_current(&self, there: Option<&Document>) -> Result<bool, RotationError> {
        there.map_or(Ok(true), |there| self.store.is_current(there)).map_err(|error| self.of_document(error))
    }

    /// Whether the handle has these keys, or newer ones that somebody has published meanwhile.
    fn publish(&self, keys: &KeySet, now: Clocks) -> bool {
        match self.publisher.publish(&keys.in_force(self.policy.grace(), now.wall())) {
            Published::Newer | Published::Same => true,
            Published::Refused => Some(self.publisher.generation()) > keys.generation(),
            Published::OtherLineage => false,
        }
    }

    /// Makes a step on what is persisted, writes it if nothing has changed meanwhile, and publishes it.
    pub(super) fn commit(
        &self,
        now: Clocks,
        mut step: impl FnMut(&mut KeySet) -> Result<Step, KeySetError>,
    ) -> Result<Committed, RotationError> {
        // A write whose fate is not known: if the step is found to be done, it was this one.
        let mut doubt = None;
        for _ in 0..MAX_CONFLICTS {
            let (mut keys, there) = match (self.read(), &doubt) {
                (Err(_), Some(problem)) => return Err(self.unsure(DocumentError::clone(problem))),
                (read, _) => read?,
            };
            let version = there.as_ref().map(Document::version);
            let step = step(&mut keys).map_err(RotationError::Refused)?;
            if step.is_change() {
                // What is remembered of keys that are gone stops no step.
                let content = keys.write_within(self.store.limit());
                match self.store.write(&content, version) {
                    Ok(_) => {}
                    Err(DocumentError::Conflict) => continue,
                    Err(problem @ (DocumentError::Unavailable(_) | DocumentError::Io(_))) => {
                        match self.fate_of(&content, version) {
                            Fate::Written => {}
                            Fate::Unknown => return Err(self.unsure(problem)),
                            Fate::Overtaken => {
                                doubt = Some(problem);
                                continue;
                            }
                        }
                    }
                    Err(problem) => return Err(self.of_document(problem)),
                }
            }
            let is_published = self.publish(&keys, now);
            self.sight(&keys, now, step.is_change());
            let is_change = step.is_change() || doubt.is_some();
            return Ok(Committed { keys, step, is_change, is_published });
        }
        match doubt {
            Some(problem) => Err(self.unsure(problem)),
            None => Err(RotationError::Contended { place: self.store.provenance(), attempts: MAX_CONFLICTS }),
        }
    }

    /// Whether a write that has failed was made even so. One that is not there may still come, after a deadline.
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

    /// Says what a step did, and tells the audit.
    pub(super) fn finish(
        &self,
        action: AuditAction,
        place: Option<Place>,
        committed: &Committed,
        subject: Subject,
        note: Option<&str>,
        now: Clocks,
    ) -> Transition {
        let Committed { keys, step, is_change, is_published } = committed;
        // What leaked may be of any rotation, or of none.
        let is_leak = matches!(action, AuditAction::Compromised | AuditAction::LeakDeleted)
            || (action == AuditAction::GivenUpDeleted && !step.is_change());
        let about = (!is_leak).then_some(step.rotation());
        let (fingerprint, name) = (subject.fingerprint, subject.name.clone());
        let unaudited = self.tell(&AuditEvent {
            is_repeat: !is_change,
            ..self.event(action, keys, about, subject, note, now)
        });
        Transition {
            action,
            profile: keys.profile(),
            rotation: about,
            fingerprint,
            name,
            place,
            generation: keys.generation(),
            is_change: *is_change,
            is_published: *is_published,
            unaudited,
            was_held: true,
            given_up: None,
        }
    }

    /// Tells the audit of something that is wrong.
    pub(super) fn raise(
        &self,
        action: AuditAction,
        keys: &KeySet,
        rotation: RotationId,
        held: Option<&Held>,
        now: Clocks,
    ) {
        self.tell(&self.event(action, keys, Some(rotation), Subject::of(held), None, now));
    }

    fn event(
        &self,
        action: AuditAction,
        keys: &KeySet,
        rotation: Option<RotationId>,
        subject: Subject,
        note: Option<&str>,
        at: Clocks,
    ) -> AuditEvent {
        AuditEvent {
            at: at.wall(),
            action,
            issuer: keys.profile().name(),
            rotation,
            fingerprint: subject.fingerprint,
            name: subject.name,
            generation: keys.generation(),
            by: self.by.clone(),
            key_from: subject.from,
            store: self.store.provenance().to_string(),
            note: note.map(str::to_owned),
            is_repeat: false,
        }
    }

    /// Tells every place, and gives why the first that failed did.
    fn tell(&self, event: &AuditEvent) -> Option<super::AuditError> {
        let mut first = None;
        for audit in &self.audit {
            if let Err(error) = audit.tell(event) {
                let mut seen = self.seen();
                let before = seen.unaudited.as_ref().map_or(0, |(count, _)| *count);
                seen.unaudited = Some((before.saturating_add(1), error.clone()));
                first.get_or_insert(error);
            }
        }
        #[cfg(feature = "tracing")]
        Trace::here().line_and_wait(|| {
            let event = event.clone();
            move || {
                if event.action().is_problem() {
                    tracing::warn!(audit = %event, "a key needs a person");
                } else {
                    tracing::info!(audit = %event, "a step of a rotation");
                }
            }
        });
        first
    }

    fn of_document(&self, problem: DocumentError) -> RotationError {
        RotationError::Document { place: self.store.provenance(), problem }
    }

    fn unsure(&self, problem: DocumentError) -> RotationError {
        RotationError::Unsure { place: self.store.provenance(), problem }
    }
}
