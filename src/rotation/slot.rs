//! A key in its place.

use std::fmt;
use std::time::SystemTime;

use crate::internal::printable::Printable;
use crate::internal::utc::Utc;
use crate::key::Fingerprint;
use crate::keyset::{Held, RotationId};

/// A key in its place, without the key.
///
/// ```
/// use keysheath::rotation::SlotStatus;
/// fn log(slot: &SlotStatus) {
///     println!("{slot}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotStatus {
    fingerprint: Fingerprint,
    rotation: RotationId,
    staged: SystemTime,
    verified: Option<SystemTime>,
    promoted: Option<SystemTime>,
    demoted: Option<SystemTime>,
    confirmed: Option<SystemTime>,
    refused: Option<SystemTime>,
    name: Option<String>,
    by: Option<String>,
    from: Option<String>,
    note: Option<String>,
}

impl SlotStatus {
    pub(super) fn of(held: &Held) -> Self {
        Self {
            fingerprint: held.fingerprint(),
            rotation: held.rotation(),
            staged: held.staged(),
            verified: held.verified(),
            promoted: held.promoted(),
            demoted: held.demoted(),
            confirmed: held.confirmed(),
            refused: held.refused(),
            name: held.name().map(str::to_owned),
            by: held.by().map(str::to_owned),
            from: held.from().map(str::to_owned),
            note: held.note().map(str::to_owned),
        }
    }

    /// Its one-way name.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{}", slot.fingerprint());
    /// }
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The rotation that its staging began.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{}", slot.rotation());
    /// }
    /// ```
    #[must_use]
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// When it was staged or adopted.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.staged());
    /// }
    /// ```
    #[must_use]
    pub const fn staged(&self) -> SystemTime {
        self.staged
    }

    /// When it was seen to work.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.verified());
    /// }
    /// ```
    #[must_use]
    pub const fn verified(&self) -> Option<SystemTime> {
        self.verified
    }

    /// When it came into force, the last time.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.promoted());
    /// }
    /// ```
    #[must_use]
    pub const fn promoted(&self) -> Option<SystemTime> {
        self.promoted
    }

    /// When another key took its place. A pending key with this time was in force, and was rolled back.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.demoted());
    /// }
    /// ```
    #[must_use]
    pub const fn demoted(&self) -> Option<SystemTime> {
        self.demoted
    }

    /// When a probe accepted it since it came into force; `None` where none has, or one refused it since.
    #[must_use]
    pub const fn confirmed(&self) -> Option<SystemTime> {
        self.confirmed
    }

    /// When a probe saw the issuer refuse it; `None` where none has, or one accepted it since.
    #[must_use]
    pub const fn refused(&self) -> Option<SystemTime> {
        self.refused
    }

    /// Its name in the issuer's app, as it was given or suggested.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Who staged it.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.by());
    /// }
    /// ```
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Where it was had from.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.from());
    /// }
    /// ```
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// What the person noted.
    ///
    /// ```
    /// # use keysheath::rotation::SlotStatus;
    /// fn log(slot: &SlotStatus) {
    ///     println!("{:?}", slot.note());
    /// }
    /// ```
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl fmt::Display for SlotStatus {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(f, "{}, ", Printable(name))?;
        }
        write!(f, "{} (rotation {}), staged {}", self.fingerprint, self.rotation, Utc(self.staged))?;
        if let Some(by) = self.by() {
            write!(f, " by {}", Printable(by))?;
        }
        if let Some(from) = self.from() {
            write!(f, " from {}", Printable(from))?;
        }
        for (what, at) in [
            ("verified", self.verified),
            ("promoted", self.promoted),
            ("replaced", self.demoted),
            ("REFUSED", self.refused),
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
