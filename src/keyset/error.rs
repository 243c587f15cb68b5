//! Why a step on a key set was refused, or a document is no key set.

use std::time::SystemTime;

use super::MAX_REPORTED;
use super::key::{KeyState, Labelled, MAX_NOTE, MAX_PERSON, RotationId};
use crate::internal::printing::Printable;
use crate::key::Fingerprint;
use crate::store::MAX_DOCUMENT;

/// A refused step, or a document that is no key set. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The issuer's keys could be guessed from their fingerprints.
    #[error("keys of this issuer could be guessed from what a key set remembers of them, so it has none")]
    Weak,
    /// The key is another issuer's.
    #[error("the key belongs to another issuer than the key set: use the key set of that issuer")]
    OtherIssuer,
    /// There are keys already.
    #[error("there is an active or pending key already: stage this one")]
    HasKeys,
    /// The key is in the key set already, or was.
    #[error("this is {state}: copy the new key again from where it was created, or create one")]
    Known {
        /// Its state.
        state: KeyState,
    },
    /// Another key is pending.
    #[error("rotation {rotation} is in progress, begun by {}: promote or abort it first", Printable(.by))]
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
    /// The pending key was not verified.
    #[error("the pending key was not verified: verify it, or promote it explicitly without verification")]
    Unverified,
    /// An older key waits to be retired.
    #[error(
        "{} is still the previous one: retire it first, as the next step says; keep it until then",
        label(.name.as_deref(), .fingerprint)
    )]
    #[non_exhaustive]
    PreviousThere {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its name in the app, if it is known.
        name: Option<String>,
    },
    /// That rotation's key is not active.
    #[error("that rotation's key is not the active one: look at the status")]
    NotCurrent,
    /// That key is not pending, active or previous.
    #[error("that key is no longer in this key set: look at the status")]
    NotHeld,
    /// There is no previous key.
    #[error("there is no previous key to go back to: it was retired, compromised, or there never was one")]
    NothingBefore,
    /// No more compromised keys that are not in the key set can be remembered.
    #[error(
        "the key is not in this key set, and with {MAX_REPORTED} compromised keys no more of those are \
         remembered: delete it in the app; for room, begin a new key set"
    )]
    TooManyCompromised,
    /// That key is neither compromised nor aborted.
    #[error(
        "that key is neither compromised nor aborted: look at the status, or report it as compromised first"
    )]
    NotCompromised,
    /// A note or a name is too long, or not printable.
    #[error(
        "a note has at most {MAX_NOTE} printable characters, a name {MAX_PERSON}, and neither has a line \
         break or a mark that changes the direction of text: shorten it"
    )]
    BadNote,
    /// A note or a name contains a key or a part of one, in some form.
    #[error(
        "the note or a name contains a part of a key, as it is or encoded: leave it out, and refer to a key \
         by its fingerprint"
    )]
    KeyInNote,
    /// The document is larger than any key set.
    #[error("the document has more than {MAX_DOCUMENT} bytes, so it is no key set: restore it from a backup")]
    TooLarge,
    /// The document is not one that this crate wrote.
    #[error("the document is no key set ({rule}): restore it from a backup, or begin a new key set")]
    #[non_exhaustive]
    Corrupt {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A number is as large as it can be written.
    #[error(
        "the numbers of this key set are as large as they can be, so no further step can be written: restore \
         it from a backup, or begin a new key set"
    )]
    Exhausted,
    /// A newer version wrote it.
    #[error("the document has form {found}, and this version reads up to {known}: use the newer keysheath")]
    Newer {
        /// The form's number in the document.
        found: u64,
        /// The newest form that is known.
        known: u64,
    },
}

const fn label<'a>(name: Option<&'a str>, fingerprint: &Fingerprint) -> Labelled<'a> {
    Labelled { name, fingerprint: *fingerprint }
}
