//! What can go wrong with a document.

use std::time::Duration;

use crate::internal::calls::CallError;
use crate::internal::files::FileProblem;
#[cfg(feature = "openbao")]
use crate::openbao::OpenBaoError;
use crate::source::Problem;

/// A document could not be read or written: why, and what to do next. Where is what
/// [`DocumentStore::provenance`](super::DocumentStore::provenance) says. It holds no byte of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Another writer has changed the document. Nothing was written.
    #[error(
        "the document is not the one that was read, it has been written since; nothing was changed: read it \
         again"
    )]
    Conflict,
    /// The place gives an older document than it gave before, or none any more: a replica that is behind, an
    /// older copy that was put back, a document that was deleted. Nothing was changed.
    #[error(
        "the place gives an older document than before, or none any more; nothing was changed: wait for the \
         replica that is behind, or see who put an older copy there"
    )]
    Stale,
    /// The place cannot be reached now. Whether a write has happened is not known.
    #[error("the document cannot be reached: {0}")]
    Unavailable(Problem),
    /// The keychain answers, and does not give or take the item. Nothing was changed.
    #[error("the keychain cannot keep the document: {0}")]
    Keychain(Problem),
    /// `OpenBao` answers, and does not give or take the document. Nothing was changed.
    #[cfg(feature = "openbao")]
    #[error("OpenBao does not give or take the document: {0}")]
    OpenBao(Box<OpenBaoError>),
    /// Another writer had the lock for all of the deadline. Nothing was changed.
    #[error(
        "another process has held the document's lock for {} ms: do it again, or see which process hangs",
        .after.as_millis()
    )]
    Locked {
        /// The deadline.
        after: Duration,
    },
    /// The content is larger than the place takes. Nothing was changed.
    #[error("the document is larger than {limit} bytes: shorten it, or name a place that holds more")]
    TooLarge {
        /// The bound of the content, in bytes.
        limit: usize,
    },
    /// What is there is not what this crate wrote.
    #[error("the document is damaged, or not keysheath's: restore it from a backup; it was left as it is")]
    Corrupt,
    /// What is there was written by a newer version of this crate.
    #[error("a newer version has written the document: use the newer keysheath; it was left as it is")]
    Newer,
    /// Something is wrong with the file of the document, its lock or its folder. Nothing was changed, except
    /// after [`Unwritable`](FileProblem::Unwritable): then the file holds the old content or the new.
    #[error("the file of the document: {0}")]
    File(FileProblem),
}

impl From<CallError> for DocumentError {
    fn from(error: CallError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<FileProblem> for DocumentError {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}
