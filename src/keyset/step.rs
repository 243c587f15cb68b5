//! What a step did, and what is said of it.

use std::fmt;

use super::RotationId;
use crate::internal::printable::Printable;
use crate::key::Fingerprint;

/// What a step did.
///
/// ```
/// use keysheath::key::{ApiKey, Issuer, Kanal};
/// use keysheath::keyset::{KeySet, Staging, Step};
/// let key = || ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
/// let now = std::time::SystemTime::now();
/// let mut keys = KeySet::new(Kanal::PROFILE)?;
/// assert!(matches!(keys.adopt(key(), Staging::at(now))?, Step::Done(_)));
/// assert!(matches!(keys.adopt(key(), Staging::at(now))?, Step::Unchanged(_)));
/// # Ok::<(), keysheath::keyset::KeySetError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The key set is another one now, and is to be persisted before anybody acts on it.
    Done(RotationId),
    /// The step had been done before.
    Unchanged(RotationId),
}

impl Step {
    /// The rotation that the step belongs to.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
    /// let rotation = keys.adopt(key, Staging::at(std::time::SystemTime::now()))?.rotation();
    /// assert_eq!(rotation.to_string(), "1");
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn rotation(self) -> RotationId {
        match self {
            Self::Done(rotation) | Self::Unchanged(rotation) => rotation,
        }
    }

    /// Whether there is anything to persist.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
    /// assert!(keys.adopt(key, Staging::at(std::time::SystemTime::now()))?.is_change());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// What a promotion relies on.
///
/// ```
/// use keysheath::keyset::Promotion;
/// assert_ne!(Promotion::Verified, Promotion::Unverified);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// The pending key was verified; if not, it is refused.
    Verified,
    /// Nobody has seen the pending key work, and it is to be in force even so.
    Unverified,
}

/// Where a key is, or was.
///
/// ```
/// use keysheath::keyset::Place;
/// assert_eq!(Place::Current.to_string(), "the key in force");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Staged, and not in force yet.
    Pending,
    /// In force.
    Current,
    /// In force before, and not deleted yet.
    Previous,
    /// Deleted, or given up.
    Retired,
    /// Leaked.
    Compromised,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "the pending key",
            Self::Current => "the key in force",
            Self::Previous => "the previous key",
            Self::Retired => "a retired key",
            Self::Compromised => "a compromised key",
        })
    }
}

/// A key as a person can find it: by its name in the app, where that is known, and its fingerprint.
pub(crate) struct Labelled<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) fingerprint: Fingerprint,
}

impl fmt::Display for Labelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "the key named {} ({})", Printable(name), self.fingerprint),
            None => write!(f, "the key {}", self.fingerprint),
        }
    }
}
