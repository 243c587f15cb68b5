//! The events of a rotation: what was done, and what was seen to be wrong.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::handle::Generation;
use crate::internal::printing::{Printable, Utc};
use crate::key::{Fingerprint, Profile};
use crate::keyset::RotationId;

/// What was done, or what was seen to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditAction {
    /// A key in use became the active one of a new key set.
    Adopted,
    /// A new key was persisted.
    Staged,
    /// A probe accepted a key for every store.
    Verified,
    /// A verified key became active.
    Promoted,
    /// A key became active without verification.
    PromotedUnverified,
    /// The previous key became active again.
    RolledBack,
    /// A probe saw that the previous key was deleted.
    Retired,
    /// A person said that the previous key was deleted.
    RetiredUnprobed,
    /// A pending key was aborted.
    Aborted,
    /// A key has leaked.
    Compromised,
    /// A person said that a compromised key was deleted.
    LeakDeleted,
    /// A person said that an aborted key was deleted.
    AbortedDeleted,
    /// The active key was deleted instead of the previous one, which is active again.
    FellBack,
    /// The issuer refused a pending key that should work.
    KeyRefused,
    /// The issuer refuses the active key: requests fail.
    ActiveKeyRefused,
    /// The issuer refused a key that should serve a store.
    StoreRefused,
    /// The previous key should be deleted by now, and still works.
    StillAccepted,
    /// Both the active key and the previous one are refused.
    BothRefused,
}

impl AuditAction {
    /// Returns whether a person should look at it.
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

    /// Whether the key is of another rotation than the step: the previous key.
    pub(super) const fn is_about_previous(self) -> bool {
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
            Self::AbortedDeleted => "aborted key deleted",
            Self::FellBack => "fell back",
            Self::KeyRefused => "key refused",
            Self::ActiveKeyRefused => "active key refused",
            Self::StoreRefused => "store refused",
            Self::StillAccepted => "still accepted",
            Self::BothRefused => "both refused",
        })
    }
}

/// One event. It contains names and fingerprints, and no part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The time, by the clock of the process that acted.
    pub at: SystemTime,
    /// What was done.
    pub action: AuditAction,
    /// The issuer's profile.
    pub profile: &'static Profile,
    /// The rotation of the step; `None` for a leaked key, which may be of any.
    pub rotation: Option<RotationId>,
    /// The key of the step; `None` if a repeated step finds it forgotten.
    pub fingerprint: Option<Fingerprint>,
    /// The key's name in the issuer's app, as it was given or suggested.
    pub name: Option<String>,
    /// The active generation after it.
    pub generation: Option<Generation>,
    /// The operator, as given to [`Rotation::with_operator`](super::Rotation::with_operator).
    pub by: Option<String>,
    /// The place that the key was loaded from.
    pub loaded_from: Option<String>,
    /// Where the key set is.
    pub store: String,
    /// The note of the step.
    pub note: Option<String>,
    /// Whether the step had been done before, for example by a process that died before it wrote the event.
    pub is_repeat: bool,
}

impl AuditEvent {
    /// Returns the event as one line of JSON, without a line break. What is not known is `null`; `at` is UTC
    /// in the form of RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> String {
        let line = Line {
            at: Utc(self.at).to_string(),
            action: self.action.to_string(),
            problem: self.action.is_problem(),
            issuer: self.profile.name(),
            rotation: self.rotation.map(RotationId::number),
            fingerprint: self.fingerprint.map(|fingerprint| fingerprint.to_string()),
            name: self.name.as_deref(),
            generation: self.generation.map(Generation::number),
            by: self.by.as_deref(),
            key_from: self.loaded_from.as_deref(),
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
    /// Writes one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", Utc(self.at), self.profile.name(), self.action)?;
        if let Some(fingerprint) = self.fingerprint {
            write!(f, " {fingerprint}")?;
        }
        if let Some(rotation) = self.rotation {
            let by = if self.action.is_about_previous() { "replaced by " } else { "" };
            write!(f, " ({by}rotation {rotation})")?;
        }
        write!(f, " by {}", Printable(self.by.as_deref().unwrap_or("an unnamed operator")))?;
        if let Some(generation) = self.generation {
            write!(f, ", generation {generation}")?;
        }
        if let Some(place) = &self.loaded_from {
            write!(f, ", key from {}", Printable(place))?;
        }
        write!(f, ", in {}", Printable(&self.store))?;
        if let Some(note) = &self.note {
            write!(f, ", note: {}", Printable(note))?;
        }
        if self.is_repeat { f.write_str(", already done before") } else { Ok(()) }
    }
}
