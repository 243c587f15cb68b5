//! What a key set does not do.

use std::time::SystemTime;

use super::step::Labelled;
use super::{MAX_NOTE, MAX_PERSON, MAX_REPORTED, Place, RotationId};
use crate::internal::printable::Printable;
use crate::key::Fingerprint;
use crate::store::MAX_DOCUMENT;

/// A step that may not be, or a document that is no key set. Nothing was changed.
///
/// ```
/// use keysheath::key::{ApiKey, Issuer, Kanal};
/// use keysheath::keyset::{KeySet, KeySetError, Place, Staging};
///
/// let key = || ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw();
/// let now = std::time::SystemTime::now();
/// let mut keys = KeySet::new(Kanal::PROFILE)?;
/// keys.adopt(key(), Staging::at(now))?;
/// assert_eq!(keys.stage(key(), Staging::at(now)), Err(KeySetError::Known { place: Place::Current }));
/// # Ok::<(), KeySetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The issuer's keys could be guessed from their fingerprints.
    #[error("keys of this issuer could be guessed from what a key set remembers of them, so it has none")]
    Weak,
    /// The key is another issuer's.
    #[error("the key is one of another issuer than the key set's: name the key set of that issuer")]
    OtherIssuer,
    /// There are keys already.
    #[error("there is a key in force or pending already: stage this one")]
    HasKeys,
    /// The key is there already, or was.
    #[error("this is {place}: copy the new key again from where it was created, or create one")]
    Known {
        /// Where it is.
        place: Place,
    },
    /// Another key is pending.
    #[error("rotation {rotation} is under way, begun by {}: promote or abort it first", Printable(.by))]
    InProgress {
        /// Which rotation.
        rotation: RotationId,
        /// Since when.
        since: SystemTime,
        /// By whom.
        by: String,
    },
    /// That rotation's key is not pending.
    #[error("the key of rotation {rotation} is not pending: look at the status")]
    NotPending {
        /// Which rotation.
        rotation: RotationId,
    },
    /// The pending key has not been seen to work.
    #[error("the pending key was not verified: verify it, or say that it is to be promoted even so")]
    Unverified,
    /// An older key waits to be retired.
    #[error(
        "{} is still the previous one: it is to be retired first, as the next step says; keep it until then",
        label(.name.as_deref(), .fingerprint)
    )]
    #[non_exhaustive]
    PreviousThere {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
    },
    /// That rotation's key is not in force.
    #[error("that rotation's key is not in force: look at the status")]
    NotCurrent,
    /// That key is not pending, active or previous.
    #[error("that key is not in this key set any more: look at the status")]
    NotHeld,
    /// There is no previous key.
    #[error("there is no previous key to go back to: it was retired, compromised, or there never was one")]
    NothingBefore,
    /// No more compromised keys that are in no place can be remembered.
    #[error(
        "the key is in no place of this key set, and with {MAX_REPORTED} compromised keys no more of those are \
         remembered: delete it in the app; for room, begin a new key set"
    )]
    TooManyCompromised,
    /// That key is neither compromised nor given up.
    #[error(
        "that key is neither compromised nor given up: look at the status, or report it as compromised first"
    )]
    NotCompromised,
    /// A note or a name is too long, or not printable.
    #[error(
        "a note has at most {MAX_NOTE} printable characters, a name {MAX_PERSON}, and neither a line break or a mark that turns the \
         direction of text: shorten it"
    )]
    BadNote,
    /// A key, or a part of one, is in a note or in a name, in whatever form.
    #[error(
        "a part of a key, as it is or encoded, is in the note or in a name: write it without, and name a key by its \
         fingerprint"
    )]
    KeyInNote,
    /// The document is larger than any key set.
    #[error("the document has more than {MAX_DOCUMENT} bytes, so it is no key set: restore it from a backup")]
    TooLarge,
    /// The document is not what this crate wrote.
    #[error("the document is no key set ({rule}): restore it from a backup, or begin a new key set")]
    #[non_exhaustive]
    Corrupt {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A number is as large as it can be written.
    #[error(
        "the numbers of this key set are as large as they can be, so no further step can be written: restore it from a \
         backup, or begin a new key set"
    )]
    Exhausted,
    /// A newer version wrote it.
    #[error("the document has form {found}, and this version reads up to {known}: use the newer keysheath")]
    Newer {
        /// The form's number in the document.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
}

const fn label<'a>(name: Option<&'a str>, fingerprint: &Fingerprint) -> Labelled<'a> {
    Labelled { name, fingerprint: *fingerprint }
}
