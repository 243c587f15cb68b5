//! Why a step failed.

use super::presence::PresenceError;
use crate::key::Fingerprint;
use crate::keyset::KeySetError;
use crate::source::Provenance;
use crate::store::DocumentError;

/// Why a step failed, or why it is not known whether it was persisted, and what to do next.
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
    /// The document is no key set, or another issuer's. It was left as it is.
    #[error("{place}: {problem}")]
    #[non_exhaustive]
    Unreadable {
        /// Where the key set should be.
        place: Provenance,
        /// What is wrong.
        problem: KeySetError,
    },
    /// The presence of the fleet cannot be read.
    #[error("cannot read which processes use which key, {place}: {problem}")]
    Presence {
        /// Where the presence is.
        place: Provenance,
        /// What is wrong.
        problem: PresenceError,
    },
    /// The step was refused. Nothing was changed.
    #[error("{0}")]
    Refused(KeySetError),
    /// The store failed while the step was being written.
    #[error(
        "{place}: {problem}; it is not known whether the step was persisted: repeat it, which is harmless"
    )]
    #[non_exhaustive]
    Unsure {
        /// Where the key set is.
        place: Provenance,
        /// What is wrong.
        problem: DocumentError,
    },
    /// Others wrote before this step each time. Nothing was changed.
    #[error("{place}: others changed the key set {attempts} times meanwhile: repeat the step")]
    Contended {
        /// Where the key set is.
        place: Provenance,
        /// The number of attempts.
        attempts: u32,
    },
    /// There is no probe.
    #[error(
        "there is no probe to ask the issuer with: give one, or promote without verification and retire \
         without a probe"
    )]
    NoProbe,
    /// A leaked key is no longer sent by this process, but that is not persisted.
    #[error(
        "{cause}; this process no longer sends the leaked key {fingerprint}, but that is not persisted: \
         other processes do not know yet, and still send the key, as this one will after a restart. Report \
         the leak again as soon as the cause is removed; if the leak cannot wait, delete the key in the app \
         now: the requests of every process then fail until another key is promoted"
    )]
    #[non_exhaustive]
    LeakNotPersisted {
        /// Which key.
        fingerprint: Fingerprint,
        /// Why it is not persisted.
        cause: Box<RotationError>,
    },
}
