//! One thing that was done or seen.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::handle::Generation;
use crate::internal::printable::Printable;
use crate::internal::utc::Utc;
use crate::key::Fingerprint;
use crate::keyset::RotationId;

/// What was done, or what was seen to be wrong.
///
/// ```
/// use keysheath::rotation::AuditAction;
/// assert_eq!(AuditAction::RolledBack.to_string(), "rolled back");
/// assert!(AuditAction::FellBack.is_problem());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditAction {
    /// A key in use was taken as the one in force.
    Adopted,
    /// A new key was taken in.
    Staged,
    /// A key was seen to work for every store.
    Verified,
    /// A verified key came into force.
    Promoted,
    /// A key that nobody had seen work came into force.
    PromotedUnverified,
    /// The previous key came back into force.
    RolledBack,
    /// The previous key was seen to be deleted.
    Retired,
    /// A person said that the previous key was deleted.
    RetiredUnprobed,
    /// A pending key was given up.
    Aborted,
    /// A key has leaked.
    Compromised,
    /// A person said that a compromised key was deleted.
    LeakDeleted,
    /// A person said that a key that was given up was deleted.
    GivenUpDeleted,
    /// The key in force was deleted in place of the previous one, which is in force again.
    FellBack,
    /// The issuer refused a pending key that should work.
    KeyRefused,
    /// The issuer refuses the active key: requests fail.
    ActiveKeyRefused,
    /// The issuer refused a store to a key that should serve it.
    StoreRefused,
    /// The previous key should be deleted by now, and still works.
    StillAccepted,
    /// Both the key in force and the previous one are refused.
    BothRefused,
}

impl AuditAction {
    /// Whether a person should look at it.
    ///
    /// ```
    /// # use keysheath::rotation::AuditAction;
    /// assert!(!AuditAction::Staged.is_problem());
    /// ```
    #[must_use]
    pub const fn is_problem(self) -> bool {
        matches!(
            self,
            Self::Compromised
                | Self::FellBack
                | Self::KeyRefused
                | Self::ActiveKeyRefused
                | Self::StoreRefused
                | Self::StillAccepted
                | Self::BothRefused
        )
    }
}

impl AuditAction {
    /// Whether the key is of another rotation than the one that the step is about: the previous key.
    pub(in crate::rotation) const fn ends_another(self) -> bool {
        matches!(self, Self::Retired | Self::RetiredUnprobed | Self::StillAccepted)
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopted => "adopted",
            Self::Staged => "staged",
            Self::Verified => "verified",
            Self::Promoted => "promoted",
            Self::PromotedUnverified => "promoted unverified",
            Self::RolledBack => "rolled back",
            Self::Retired => "retired",
            Self::RetiredUnprobed => "retired unprobed",
            Self::Aborted => "aborted",
            Self::Compromised => "compromised",
            Self::LeakDeleted => "leaked key deleted",
            Self::GivenUpDeleted => "given up key deleted",
            Self::FellBack => "fell back",
            Self::KeyRefused => "key refused",
            Self::ActiveKeyRefused => "active key refused",
            Self::StoreRefused => "store refused",
            Self::StillAccepted => "still accepted",
            Self::BothRefused => "both refused",
        })
    }
}

/// One thing that was done or seen. It holds names and fingerprints, and no part of a key.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// use keysheath::store::MemoryStore;
/// use keysheath::rotation::{AuditLog, Rotation, RotationPolicy};
///
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let sink = Arc::clone(&seen);
/// let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?
///     .by("anna")
///     .with_audit(AuditLog::callback(move |event| sink.lock().unwrap().push(event.to_string())));
/// rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
/// assert!(seen.lock().unwrap()[0].contains("kanal: adopted urdz-nrsd-3rmw-jtz2 (rotation 1) by anna"));
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub(in crate::rotation) at: SystemTime,
    pub(in crate::rotation) action: AuditAction,
    pub(in crate::rotation) issuer: &'static str,
    pub(in crate::rotation) rotation: Option<RotationId>,
    pub(in crate::rotation) fingerprint: Option<Fingerprint>,
    pub(in crate::rotation) name: Option<String>,
    pub(in crate::rotation) generation: Option<Generation>,
    pub(in crate::rotation) by: Option<String>,
    pub(in crate::rotation) key_from: Option<String>,
    pub(in crate::rotation) store: String,
    pub(in crate::rotation) note: Option<String>,
    pub(in crate::rotation) is_repeat: bool,
}

impl AuditEvent {
    /// When, by the clock of whoever did it.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("{:?}", event.at());
    /// }
    /// ```
    #[must_use]
    pub const fn at(&self) -> SystemTime {
        self.at
    }

    /// What.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn wakes_somebody(event: &AuditEvent) -> bool {
    ///     event.action().is_problem()
    /// }
    /// ```
    #[must_use]
    pub const fn action(&self) -> AuditAction {
        self.action
    }

    /// The rotation that it belongs to.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn belong_together(one: &AuditEvent, other: &AuditEvent) -> bool {
    ///     one.rotation() == other.rotation()
    /// }
    /// ```
    #[must_use]
    pub const fn rotation(&self) -> Option<RotationId> {
        self.rotation
    }

    /// The key that it is about.
    ///
    /// ```
    /// # use keysheath::key::Fingerprint;
    /// # use keysheath::rotation::AuditEvent;
    /// fn is_about(event: &AuditEvent, key: Fingerprint) -> bool {
    ///     event.fingerprint() == Some(key)
    /// }
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The key's name in the issuer's app, where it is known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The generation in force after it.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("generation {:?}", event.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Who, as they said.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("by {}", event.by().unwrap_or("somebody"));
    /// }
    /// ```
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Where the key was had from.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("from {}", event.key_from().unwrap_or("a place that nobody named"));
    /// }
    /// ```
    #[must_use]
    pub fn key_from(&self) -> Option<&str> {
        self.key_from.as_deref()
    }

    /// Where the key set is.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("in {}", event.store());
    /// }
    /// ```
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// What the person noted.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("{}", event.note().unwrap_or_default());
    /// }
    /// ```
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Whether the step had been done before, as when whoever did it died before it was written down here.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn is_news(event: &AuditEvent) -> bool {
    ///     !event.is_repeat()
    /// }
    /// ```
    #[must_use]
    pub const fn is_repeat(&self) -> bool {
        self.is_repeat
    }

    /// The event as one line of JSON, without the line's end. What is not known is `null`; `at` is UTC as RFC 3339 has it.
    ///
    /// ```
    /// # use keysheath::rotation::AuditEvent;
    /// fn log(event: &AuditEvent) {
    ///     println!("{}", event.to_json()); // {"at":"2026-11-24T09:00:00Z","action":"staged","problem":false,…
    /// }
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let line = Line {
            at: Utc(self.at).to_string(),
            action: self.action.to_string(),
            problem: self.action.is_problem(),
            issuer: self.issuer,
            rotation: self.rotation.map(RotationId::number),
            fingerprint: self.fingerprint.map(|fingerprint| fingerprint.to_string()),
            name: self.name.as_deref(),
            generation: self.generation.map(Generation::number),
            by: self.by.as_deref(),
            key_from: self.key_from.as_deref(),
            store: &self.store,
            note: self.note.as_deref(),
            repeat: self.is_repeat,
        };
        // Texts and numbers can always be written as JSON.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    action: String,
    problem: bool,
    issuer: &'a str,
    rotation: Option<u64>,
    fingerprint: Option<String>,
    name: Option<&'a str>,
    generation: Option<u64>,
    by: Option<&'a str>,
    key_from: Option<&'a str>,
    store: &'a str,
    note: Option<&'a str>,
    repeat: bool,
}

impl fmt::Display for AuditEvent {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", Utc(self.at), self.issuer, self.action)?;
        if let Some(fingerprint) = self.fingerprint {
            write!(f, " {fingerprint}")?;
        }
        if let Some(rotation) = self.rotation {
            let by = if self.action.ends_another() { "replaced by " } else { "" };
            write!(f, " ({by}rotation {rotation})")?;
        }
        write!(f, " by {}", Printable(self.by().unwrap_or("somebody")))?;
        if let Some(generation) = self.generation {
            write!(f, ", generation {generation}")?;
        }
        if let Some(from) = self.key_from() {
            write!(f, ", key from {}", Printable(from))?;
        }
        write!(f, ", in {}", Printable(&self.store))?;
        if let Some(note) = self.note() {
            write!(f, ", note: {}", Printable(note))?;
        }
        if self.is_repeat { f.write_str(", as it was before") } else { Ok(()) }
    }
}
