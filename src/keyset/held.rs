//! A key in a key set, and what is known of it.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::SystemTime;

use super::texts::{Hidden, MAX_NOTE, MAX_PERSON, check_text, has_part_of, is_printable};
use super::{KeySetError, LAST_TIME, Step};
use crate::internal::utc::Moment;
use crate::key::{Fingerprint, RawKey};
use crate::source::Provenance;

/// The number of a rotation: each key that is staged begins one.
///
/// ```
/// # use keysheath::key::{ApiKey, Issuer, Kanal};
/// # use keysheath::keyset::{KeySet, Staging};
/// # let mut keys = KeySet::new(Kanal::PROFILE)?;
/// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
/// let rotation = keys.stage(key, Staging::at(std::time::SystemTime::now()))?.rotation();
/// assert_eq!(rotation.to_string(), "1");
/// # Ok::<(), keysheath::keyset::KeySetError>(())
/// ```
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

    /// Reads the number that `Display` prints, as a person types it for a command.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A time as it is written down: not beyond what can be read again.
pub(super) fn moment(time: SystemTime) -> Moment {
    Moment(Moment::from(time).0.min(LAST_TIME))
}

/// What is noted when a key is staged.
///
/// ```
/// use std::time::SystemTime;
/// use keysheath::keyset::Staging;
/// let staging = Staging::at(SystemTime::now()).by("anna").with_note("the yearly rotation");
/// ```
#[derive(Clone)]
pub struct Staging {
    at: Moment,
    name: Option<String>,
    by: Option<String>,
    from: Option<String>,
    note: Option<String>,
}

impl Staging {
    /// At this time.
    ///
    /// ```
    /// # use keysheath::keyset::Staging;
    /// let staging = Staging::at(std::time::SystemTime::now());
    /// ```
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        Self { at: moment(time), name: None, by: None, from: None, note: None }
    }

    /// With the key's name in the issuer's app; at most [`MAX_PERSON`] printable characters. An app shows names, and no
    /// fingerprints.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// By this person or program; at most [`MAX_PERSON`] printable characters.
    ///
    /// ```
    /// # use keysheath::keyset::Staging;
    /// let staging = Staging::at(std::time::SystemTime::now()).by("anna");
    /// ```
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// From this place. What is longer than [`MAX_PERSON`] characters is cut, and what is not printable replaced.
    ///
    /// ```
    /// # use keysheath::{keyset::Staging, source::{Source, Variable}};
    /// let place = Variable::new("KANAL_API_KEY").provenance();
    /// let staging = Staging::at(std::time::SystemTime::now()).from(&place);
    /// ```
    #[must_use]
    pub fn from(mut self, place: &Provenance) -> Self {
        let shown = |c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER };
        self.from = Some(place.to_string().chars().take(MAX_PERSON).map(shown).collect());
        self
    }

    /// With a note; at most [`MAX_NOTE`] printable characters.
    ///
    /// ```
    /// # use keysheath::keyset::Staging;
    /// let staging = Staging::at(std::time::SystemTime::now()).with_note("the yearly rotation");
    /// ```
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn into_name(self) -> Option<String> {
        self.name
    }

    /// Checks that each text is short and printable, and that no part of the key is in one.
    pub(super) fn check(&self, key: &RawKey) -> Result<(), KeySetError> {
        let texts = [
            (&self.name, MAX_PERSON),
            (&self.by, MAX_PERSON),
            (&self.from, MAX_PERSON),
            (&self.note, MAX_NOTE),
        ];
        for (text, longest) in texts {
            check_text(text.as_deref(), longest)?;
            if text.as_deref().is_some_and(|text| has_part_of(text, key)) {
                return Err(KeySetError::KeyInNote);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Staging {
    /// Without the texts: a key may have been pasted into one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("at", &self.at)
            .field("name", &Hidden(self.name.as_deref()))
            .field("by", &Hidden(self.by.as_deref()))
            .field("from", &Hidden(self.from.as_deref()))
            .field("note", &Hidden(self.note.as_deref()))
            .finish()
    }
}

/// A key in a key set, and when it came where it is.
///
/// ```
/// # use keysheath::key::{ApiKey, Issuer, Kanal};
/// # use keysheath::keyset::{KeySet, Staging};
/// # let mut keys = KeySet::new(Kanal::PROFILE)?;
/// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
/// keys.stage(key, Staging::at(std::time::SystemTime::now()).by("anna"))?;
/// let pending = keys.pending().unwrap();
/// println!("{} staged it: {}", pending.by().unwrap(), pending.fingerprint());
/// # Ok::<(), keysheath::keyset::KeySetError>(())
/// ```
pub struct Held {
    pub(super) key: RawKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) rotation: RotationId,
    pub(super) staged: Moment,
    pub(super) verified: Option<Moment>,
    pub(super) promoted: Option<Moment>,
    pub(super) demoted: Option<Moment>,
    /// When a probe accepted it since it became the active key, and refused it not since.
    pub(super) confirmed: Option<Moment>,
    /// When a probe refused it; none accepted it since.
    pub(super) refused: Option<Moment>,
    /// When it became the active key again because the key that had replaced it was deleted.
    pub(super) fell_back: Option<Moment>,
    pub(super) name: Option<String>,
    pub(super) by: Option<String>,
    pub(super) from: Option<String>,
    pub(super) note: Option<String>,
}

impl Held {
    pub(super) fn new(key: RawKey, fingerprint: Fingerprint, rotation: RotationId, staging: Staging) -> Self {
        let Staging { at: staged, name, by, from, note } = staging;
        Self {
            key,
            fingerprint,
            rotation,
            staged,
            verified: None,
            promoted: None,
            demoted: None,
            confirmed: None,
            refused: None,
            fell_back: None,
            name,
            by,
            from,
            note,
        }
    }

    /// The key.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
    /// keys.stage(key, Staging::at(std::time::SystemTime::now()))?;
    /// assert!(keys.pending().unwrap().key().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        &self.key
    }

    /// The key's one-way name.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("{}", held.fingerprint());
    /// }
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The rotation that brought it.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("rotation {}", held.rotation());
    /// }
    /// ```
    #[must_use]
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// When it was staged, to the second, by the clock of whoever did.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn age(held: &Held) -> std::time::Duration {
    ///     held.staged().elapsed().unwrap_or_default()
    /// }
    /// ```
    #[must_use]
    pub fn staged(&self) -> SystemTime {
        self.staged.to_time()
    }

    /// When it was seen to work, for every store that it is to serve.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn works(held: &Held) -> bool {
    ///     held.verified().is_some()
    /// }
    /// ```
    #[must_use]
    pub fn verified(&self) -> Option<SystemTime> {
        self.verified.map(Moment::to_time)
    }

    /// When it came into force, the last time.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("in force since {:?}", held.promoted());
    /// }
    /// ```
    #[must_use]
    pub fn promoted(&self) -> Option<SystemTime> {
        self.promoted.map(Moment::to_time)
    }

    /// When another key took its place. A pending key with this time was in force, and was rolled back.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("replaced at {:?}", held.demoted());
    /// }
    /// ```
    #[must_use]
    pub fn demoted(&self) -> Option<SystemTime> {
        self.demoted.map(Moment::to_time)
    }

    /// When a probe accepted it since it came into force; `None` where none has, or one refused it since.
    #[must_use]
    pub fn confirmed(&self) -> Option<SystemTime> {
        self.confirmed.map(Moment::to_time)
    }

    /// When a probe saw the issuer refuse it; `None` where none has, or one accepted it since.
    #[must_use]
    pub fn refused(&self) -> Option<SystemTime> {
        self.refused.map(Moment::to_time)
    }

    /// When it became the active key again because the key that had replaced it was deleted.
    #[must_use]
    pub fn fell_back(&self) -> Option<SystemTime> {
        self.fell_back.map(Moment::to_time)
    }

    /// Its name in the issuer's app, as it was given or suggested.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Who staged it.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("staged by {}", held.by().unwrap_or("nobody who said so"));
    /// }
    /// ```
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Where it was had from.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("from {}", held.from().unwrap_or("a place that nobody named"));
    /// }
    /// ```
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// What the person noted.
    ///
    /// ```
    /// # use keysheath::keyset::Held;
    /// fn log(held: &Held) {
    ///     println!("{}", held.note().unwrap_or_default());
    /// }
    /// ```
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn in_progress(&self) -> KeySetError {
        KeySetError::InProgress {
            rotation: self.rotation,
            since: self.staged(),
            by: self.by.clone().unwrap_or_else(|| "somebody".to_owned()),
        }
    }

    pub(super) fn still_there(&self) -> KeySetError {
        KeySetError::PreviousThere { fingerprint: self.fingerprint, name: self.name.clone() }
    }

    /// Takes the name that is told of the key, where it is another one.
    pub(super) fn correct_name(&mut self, staging: Staging) -> Step {
        if staging.name().is_none() || staging.name() == self.name() {
            return Step::Unchanged(self.rotation);
        }
        self.name = staging.into_name();
        Step::Done(self.rotation)
    }

    pub(super) fn back_in_force(mut self, at: SystemTime) -> Self {
        (self.promoted, self.demoted) = (Some(moment(at)), None);
        (self.confirmed, self.fell_back) = (None, None);
        self
    }

    /// What was seen of it counts no more: it was rolled back for a reason. The time stays as the mark that it was in
    /// force, and so may still be in use.
    pub(super) fn back_to_pending(mut self, at: SystemTime) -> Self {
        (self.verified, self.promoted, self.demoted) = (None, None, Some(moment(at)));
        (self.confirmed, self.fell_back) = (None, None);
        self
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, rotation {})", self.fingerprint, self.rotation)
    }
}
