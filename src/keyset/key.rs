//! A key in a key set, and what is known of it.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::SystemTime;

use crate::internal::printing::{Moment, Printable, Utc};
use crate::key::{Fingerprint, RawKey};

/// The number of a rotation. Each staged or adopted key begins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RotationId(pub(super) u64);

impl RotationId {
    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RotationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RotationId {
    type Err = ParseIntError;

    /// Reads the number that `Display` prints, for commands that take it as an argument.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The state of a key in a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// Staged, and not active yet.
    Pending,
    /// Active.
    Current,
    /// Active before, and not deleted yet.
    Previous,
    /// Deleted, or aborted.
    Retired,
    /// Leaked.
    Compromised,
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "the pending key",
            Self::Current => "the active key",
            Self::Previous => "the previous key",
            Self::Retired => "a retired key",
            Self::Compromised => "a compromised key",
        })
    }
}

/// The longest note, in characters.
pub(crate) const MAX_NOTE: usize = 100;

/// The longest name: of a key in the app, of who staged it, and of where it was loaded from, in characters.
pub(crate) const MAX_PERSON: usize = 64;

/// What is known of a key in a key set. It contains no part of the key.
///
/// Times are in whole seconds, by the clock of the process that made the step.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub(super) fingerprint: Fingerprint,
    pub(super) rotation: RotationId,
    pub(super) staged: Moment,
    pub(super) verified: Option<Moment>,
    pub(super) promoted: Option<Moment>,
    pub(super) demoted: Option<Moment>,
    pub(super) confirmed: Option<Moment>,
    pub(super) refused: Option<Moment>,
    pub(super) fell_back: Option<Moment>,
    pub(super) name: Option<String>,
    pub(super) by: Option<String>,
    pub(super) loaded_from: Option<String>,
    pub(super) note: Option<String>,
}

impl KeyInfo {
    /// Returns the fingerprint.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the rotation that brought the key.
    #[must_use]
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// Returns when it was staged or adopted.
    #[must_use]
    pub fn staged(&self) -> SystemTime {
        self.staged.to_time()
    }

    /// Returns when a probe accepted it for every store that it serves.
    #[must_use]
    pub fn verified(&self) -> Option<SystemTime> {
        self.verified.map(Moment::to_time)
    }

    /// Returns when it last became active.
    #[must_use]
    pub fn promoted(&self) -> Option<SystemTime> {
        self.promoted.map(Moment::to_time)
    }

    /// Returns when another key replaced it. A pending key with this time was active, and was rolled back.
    #[must_use]
    pub fn demoted(&self) -> Option<SystemTime> {
        self.demoted.map(Moment::to_time)
    }

    /// Returns when a probe accepted it since it became active; `None` if none has, or one refused it since.
    #[must_use]
    pub fn confirmed(&self) -> Option<SystemTime> {
        self.confirmed.map(Moment::to_time)
    }

    /// Returns when the issuer refused it to a probe; `None` if it has not, or accepted it since.
    #[must_use]
    pub fn refused(&self) -> Option<SystemTime> {
        self.refused.map(Moment::to_time)
    }

    /// Returns when it became active again because the key that had replaced it was deleted.
    #[must_use]
    pub fn fell_back(&self) -> Option<SystemTime> {
        self.fell_back.map(Moment::to_time)
    }

    /// Returns its name in the issuer's app, as it was given or suggested. An app shows names, and no
    /// fingerprints.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the person or program that staged it.
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Returns the place that it was loaded from.
    #[must_use]
    pub fn loaded_from(&self) -> Option<&str> {
        self.loaded_from.as_deref()
    }

    /// Returns the note.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(crate) fn label(&self) -> Labeled<'_> {
        Labeled { name: self.name(), fingerprint: self.fingerprint }
    }
}

impl AsRef<Self> for KeyInfo {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for KeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyInfo({}, rotation {})", self.fingerprint, self.rotation)
    }
}

impl fmt::Display for KeyInfo {
    /// Writes one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(f, "{}, ", Printable(name))?;
        }
        write!(f, "{} (rotation {}), staged {}", self.fingerprint, self.rotation, Utc(self.staged()))?;
        if let Some(by) = self.by() {
            write!(f, " by {}", Printable(by))?;
        }
        if let Some(place) = self.loaded_from() {
            write!(f, " from {}", Printable(place))?;
        }
        for (what, at) in [
            ("verified", self.verified()),
            ("promoted", self.promoted()),
            ("replaced", self.demoted()),
            ("REFUSED", self.refused()),
        ] {
            if let Some(at) = at {
                write!(f, ", {what} {}", Utc(at))?;
            }
        }
        match self.note() {
            Some(note) => write!(f, ", note: {}", Printable(note)),
            None => Ok(()),
        }
    }
}

/// A pending, active or previous key of a key set, with what is known of it.
pub struct ManagedKey {
    pub(super) key: RawKey,
    pub(super) info: KeyInfo,
}

impl ManagedKey {
    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        &self.key
    }

    /// Returns what is known of it.
    #[must_use]
    pub const fn info(&self) -> &KeyInfo {
        &self.info
    }
}

impl AsRef<KeyInfo> for ManagedKey {
    fn as_ref(&self) -> &KeyInfo {
        &self.info
    }
}

impl fmt::Debug for ManagedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagedKey({}, rotation {})", self.info.fingerprint, self.info.rotation)
    }
}

/// An aborted or compromised key whose deletion is not confirmed. The key itself is no longer stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndeletedKey {
    pub(super) fingerprint: Fingerprint,
    pub(super) rotation: Option<RotationId>,
    pub(super) staged: Moment,
    pub(super) demoted: Option<Moment>,
    pub(super) name: Option<String>,
}

impl UndeletedKey {
    /// Returns the fingerprint.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the rotation of an aborted key; `None` for a compromised one.
    #[must_use]
    pub const fn rotation(&self) -> Option<RotationId> {
        self.rotation
    }

    /// Returns its name in the issuer's app, as it was given or suggested. An app shows names, and no
    /// fingerprints.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns when it was staged or adopted.
    #[must_use]
    pub fn staged(&self) -> SystemTime {
        self.staged.to_time()
    }

    /// Returns when an aborted key was rolled back; `None` if it never was active.
    #[must_use]
    pub fn demoted(&self) -> Option<SystemTime> {
        self.demoted.map(Moment::to_time)
    }

    pub(crate) fn label(&self) -> Labeled<'_> {
        Labeled { name: self.name(), fingerprint: self.fingerprint }
    }
}

/// A key as a person can find it: by its name in the app, if that is known, and its fingerprint.
pub(crate) struct Labeled<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) fingerprint: Fingerprint,
}

impl fmt::Display for Labeled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "the key named {} ({})", Printable(name), self.fingerprint),
            None => write!(f, "the key {}", self.fingerprint),
        }
    }
}
