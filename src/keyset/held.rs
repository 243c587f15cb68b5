//! A key in a key set, and what is known of it.

use std::fmt;
use std::time::SystemTime;

use super::KeySetError;
use crate::fingerprint::Fingerprint;
use crate::key::RawKey;
use crate::source::Provenance;
use crate::utc::Moment;

/// The longest note, in characters.
///
/// ```
/// assert_eq!(keysheath::keyset::MAX_NOTE, 100);
/// ```
pub const MAX_NOTE: usize = 100;

/// The longest name of who staged a key, and of where they had it from, in characters.
///
/// ```
/// assert_eq!(keysheath::keyset::MAX_PERSON, 64);
/// ```
pub const MAX_PERSON: usize = 64;

/// The number of a rotation: each key that is staged begins one.
///
/// ```
/// # use keysheath::{issuer::{Issuer, Kanal}, key::ApiKey, keyset::{KeySet, Staging}};
/// # let mut keys = KeySet::new(Kanal::PROFILE)?;
/// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().erase();
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

/// What is noted when a key is staged.
///
/// ```
/// use std::time::SystemTime;
/// use keysheath::keyset::Staging;
/// let staging = Staging::at(SystemTime::now()).by("anna").with_note("the yearly rotation");
/// ```
#[derive(Clone, Debug)]
pub struct Staging {
    at: Moment,
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
        Self { at: Moment::from(time), by: None, from: None, note: None }
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

    /// That each text is short and printable, and that nobody wrote the key into one.
    pub(super) fn check(&self, key: &RawKey) -> Result<(), KeySetError> {
        for (text, longest) in [(&self.by, MAX_PERSON), (&self.from, MAX_PERSON), (&self.note, MAX_NOTE)] {
            check_text(text.as_deref(), longest)?;
            if text.as_deref().is_some_and(|text| text.contains(key.expose_secret())) {
                return Err(KeySetError::KeyInNote);
            }
        }
        Ok(())
    }
}

/// Whether a character is shown as itself. One that ends a line, or turns the direction in which a terminal shows what
/// follows, could make a note look like a part of the sentence around it.
pub(crate) fn is_printable(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !(c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}'))
}

pub(super) fn check_text(text: Option<&str>, longest: usize) -> Result<(), KeySetError> {
    let Some(text) = text else { return Ok(()) };
    if text.chars().all(is_printable) && text.chars().count() <= longest {
        Ok(())
    } else {
        Err(KeySetError::BadNote)
    }
}

/// A key in a key set, and when it came where it is.
///
/// ```
/// # use keysheath::{issuer::{Issuer, Kanal}, key::ApiKey, keyset::{KeySet, Staging}};
/// # let mut keys = KeySet::new(Kanal::PROFILE)?;
/// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().erase();
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
    pub(super) by: Option<String>,
    pub(super) from: Option<String>,
    pub(super) note: Option<String>,
}

impl Held {
    pub(super) fn new(key: RawKey, fingerprint: Fingerprint, rotation: RotationId, staging: Staging) -> Self {
        let Staging { at, by, from, note } = staging;
        let (verified, promoted, demoted) = (None, None, None);
        Self { key, fingerprint, rotation, staged: at, verified, promoted, demoted, by, from, note }
    }

    /// The key.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal}, key::ApiKey, keyset::{KeySet, Staging}};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().erase();
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

    pub(super) fn back_in_force(mut self, at: SystemTime) -> Self {
        (self.promoted, self.demoted) = (Some(Moment::from(at)), None);
        self
    }

    /// What was seen of it counts no more: it was rolled back for a reason. The time stays as the mark that it was in
    /// force, and so may still be in use.
    pub(super) fn back_to_pending(mut self, at: SystemTime) -> Self {
        (self.verified, self.promoted, self.demoted) = (None, None, Some(Moment::from(at)));
        self
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, rotation {})", self.fingerprint, self.rotation)
    }
}
