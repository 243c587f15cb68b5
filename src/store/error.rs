//! What can go wrong with a document.

use std::io::ErrorKind;
use std::time::Duration;

use crate::internal::calls::CallError;
use crate::internal::private_file::Refusal;
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
    /// A link, no regular file, another user's, or open to others: the document or its lock.
    #[error(
        "the document and the .lock beside it must be regular files of this user that no other user can \
         read or write: name another path where one is a link, a folder or no name at all; where one is \
         another user's, chown it to this user; and chmod 600 both"
    )]
    NotPrivate,
    /// The document or its lock has a second name (a hard link), through which it could be changed.
    #[error(
        "the document or the .lock beside it has another name too (a hard link): remove the other name, or \
         put a copy in the place of the file"
    )]
    Linked,
    /// The name is like those of this crate's own files beside a document.
    #[error(
        "the names that end in .lock and .keysheath-new are those of keysheath's own files beside a \
         document: give the document another name"
    )]
    ReservedName,
    /// Something else is where a new document is written before it takes the old one's place. Nothing was
    /// changed.
    #[error(
        "the file beside the document whose name ends in .keysheath-new is not what an interrupted write \
         leaves: move it away; it was left as it is"
    )]
    InTheWay,
    /// There is no such folder.
    #[error("the folder of the document is not there: make it first, with mode 700")]
    NoFolder,
    /// Others can replace files in the folder.
    #[error(
        "others can replace files in the document's folder: it must belong to root or to this user, and be \
         writable by no other user (or be sticky, as /tmp is): chmod go-w it"
    )]
    OpenFolder,
    /// The folder is on a network file system.
    #[error(
        "the document's folder is on a network or FUSE file system, where neither locks nor fsync can be \
         relied upon: name a folder on a local disk"
    )]
    NetworkFileSystem,
    /// The folder or a file in it may not be written. Nothing was changed.
    #[error("the document cannot be written (its folder or disk is read-only): let this user write there")]
    ReadOnly,
    /// The disk is full. Nothing was changed.
    #[error("the document cannot be written (the disk, or what this user may use of it, is full): make room")]
    Full,
    /// The operating system refused.
    #[error("the document cannot be read or written ({0}): check the path, this user's rights and the disk")]
    Io(ErrorKind),
}

impl DocumentError {
    pub(super) fn of_writing(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::Full,
            kind => Self::Io(kind),
        }
    }
}

impl From<CallError> for DocumentError {
    fn from(error: CallError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<Refusal> for DocumentError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotPrivate => Self::NotPrivate,
            Refusal::Linked => Self::Linked,
            Refusal::Reserved => Self::ReservedName,
            Refusal::NoFolder => Self::NoFolder,
            Refusal::Unseen(kind) => Self::Io(kind),
            Refusal::Unopened(kind) => Self::of_writing(kind),
        }
    }
}
