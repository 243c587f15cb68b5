//! What stops a step.

use crate::key::Fingerprint;
use crate::keyset::KeySetError;
use crate::rotation::PresenceError;
use crate::source::Provenance;
use crate::store::DocumentError;

/// A step was not made, or whether it was is not known: why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The key set cannot be read or written. Nothing was changed.
    #[error("{place}: {problem}")]
    Document {
        /// Where the key set is.
        place: Provenance,
        /// What is wrong.
        problem: DocumentError,
    },
    /// What is there is no key set, or not this issuer's. It was left as it is.
    #[error("{place}: {problem}")]
    #[non_exhaustive]
    Unreadable {
        /// Where the key set should be.
        place: Provenance,
        /// What is wrong.
        problem: KeySetError,
    },
    /// Which processes use which key cannot be seen.
    #[error("which processes use which key cannot be seen, {place}: {problem}")]
    Presence {
        /// Where they show themselves.
        place: Provenance,
        /// What is wrong.
        problem: PresenceError,
    },
    /// The step may not be. Nothing was changed.
    #[error("{0}")]
    Refused(KeySetError),
    /// The place failed while the step was being written.
    #[error(
        "{place}: {problem}; whether the step was persisted is not known: do the same step again, that is harmless"
    )]
    #[non_exhaustive]
    Unsure {
        /// Where the key set is.
        place: Provenance,
        /// What is wrong.
        problem: DocumentError,
    },
    /// Others have written each time before this step could. Nothing was changed.
    #[error("{place}: others have changed the key set {attempts} times meanwhile: do the step again")]
    Contended {
        /// Where the key set is.
        place: Provenance,
        /// How often it was tried.
        attempts: u32,
    },
    /// There is nothing that can ask the issuer.
    #[error(
        "there is no probe to ask the issuer with: give one, or use promote_unverified or retire_unprobed"
    )]
    NoProbe,
    /// The active key has leaked, and this process sends it no more; but that is not persisted.
    #[error(
        "{cause}; this process no longer sends the leaked key {fingerprint}, but that is not persisted: \
         other processes do not know yet, and still send the key, as this one will after a restart. Report the leak once more, \
         as soon as the cause is removed; if the leak cannot wait, delete the key in the app now, and the requests of \
         every process fail until another key is promoted"
    )]
    #[non_exhaustive]
    LeakNotPersisted {
        /// Which key.
        fingerprint: Fingerprint,
        /// Why it is not persisted.
        cause: Box<RotationError>,
    },
}
