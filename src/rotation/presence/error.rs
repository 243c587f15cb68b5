//! What can go wrong with presence.

use std::io::ErrorKind;

use super::{MAX_NAME, MAX_PROCESSES};
use crate::store::DocumentError;

/// This process is not shown, or the fleet is not seen: why, and what to do next. Where is what
/// [`DocumentStore::provenance`](crate::store::DocumentStore::provenance) says. Keys are sent all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The document cannot be read or written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What is there is no presence document. It was left as it is.
    #[error(
        "the presence document is damaged, or something else ({rule}): name a place of its own for it, or remove it; it was \
         left as it is"
    )]
    #[non_exhaustive]
    Corrupt {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// What is there was written by a newer version of this crate.
    #[error(
        "the presence document has form {found}, and this version knows {known}: use the newer keysheath"
    )]
    #[non_exhaustive]
    Newer {
        /// Its form.
        found: u64,
        /// The newest form that is known.
        known: u64,
    },
    /// What is there is about another issuer's keys.
    #[error("the presence document is about another issuer's keys: name one for each issuer")]
    OtherIssuer,
    /// The name of this process cannot be shown.
    #[error("the process cannot be shown by this name: {rule} (1 to {MAX_NAME} characters)")]
    #[non_exhaustive]
    BadName {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// No more processes fit.
    #[error(
        "{MAX_PROCESSES} processes show themselves in this document already, and this one has not seen one \
         of them rest for its time to live: try again after that, or name another document for the rest, and \
         give both to the rotation"
    )]
    Full,
    /// Others have written each time before this process could.
    #[error("others have written the presence document {attempts} times meanwhile; it is tried again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The thread that shows the process has ended by a panic. It is not shown any more.
    #[error(
        "the thread that shows this process has ended by a panic: see its message on standard error, and restart"
    )]
    Ended,
    /// No thread could be started.
    #[error("no thread can be started to show the process ({0}): see this user's limits")]
    NoThread(ErrorKind),
}
