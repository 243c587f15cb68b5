//! What is told of a key when it is taken in.

use std::fmt;

use crate::keyset::{Hidden, Staging};
use crate::source::Provenance;

/// What is told of a key when it is staged or adopted.
///
/// ```
/// use keysheath::rotation::KeyDetails;
/// let details = KeyDetails::new().with_name("production-shop-2026-11").with_note("the spring rotation");
/// ```
#[derive(Clone, Default)]
pub struct KeyDetails {
    name: Option<String>,
    place: Option<Provenance>,
    note: Option<String>,
}

impl KeyDetails {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the key's name in the issuer's app; at most [`MAX_PERSON`](crate::keyset::MAX_PERSON) printable characters. A
    /// staged key has the name that [`NextStep::Create`](super::NextStep::Create) suggests unless it is told.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With the place that the key was loaded from.
    #[must_use]
    pub fn with_place(mut self, place: &Provenance) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// With a note; at most [`MAX_NOTE`](crate::keyset::MAX_NOTE) printable characters.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn add_to(&self, mut staging: Staging) -> Staging {
        if let Some(place) = &self.place {
            staging = staging.from(place);
        }
        if let Some(note) = &self.note {
            staging = staging.with_note(note);
        }
        staging
    }
}

impl fmt::Debug for KeyDetails {
    /// Without the texts: a key may have been pasted into one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDetails")
            .field("name", &Hidden(self.name()))
            .field("place", &self.place)
            .field("note", &Hidden(self.note()))
            .finish()
    }
}
