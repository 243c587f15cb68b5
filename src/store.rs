//! Places that a small document is persisted in, such as the keys of a rotation.
//!
//! A document is a bounded run of bytes that may hold keys, with a [`Version`]. A [`DocumentStore`] writes
//! one only while what it holds is the version that the writer has read, so of two processes that read,
//! change and write, one gets a [`Conflict`](DocumentError::Conflict) and reads again: no change is lost.
//!
//! | store | outlives the process | several processes |
//! |---|---|---|
//! | [`MemoryStore`] | no | no; its clones share the document |
//! | [`FileStore`] | yes | those of one user on one machine |
//! | `KeychainStore` (feature `keychain`) | yes | those of one user on one machine |
//! | `OpenBaoStore` (feature `openbao`) | yes | those of a fleet |
//!
//! Stores block. In async code, call them through your runtime's `spawn_blocking`.
//!
//! ```
//! use keysheath::store::{DocumentContent, DocumentError, DocumentStore, FileStore};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("rotation");
//! let store = FileStore::new(&path);
//! let first = store.write(&DocumentContent::from(b"first".to_vec()), None)?;
//! let second = store.write(&DocumentContent::from(b"second".to_vec()), Some(&first))?;
//!
//! // A writer that read the first version gets a conflict, and nothing is written.
//! let late = store.write(&DocumentContent::from(b"late".to_vec()), Some(&first));
//! assert_eq!(late, Err(DocumentError::Conflict));
//! let there = store.read()?.expect("it was written");
//! assert_eq!((there.version(), there.content().expose_secret()), (&second, &b"second"[..]));
//! # Ok::<(), DocumentError>(())
//! ```

mod document;
mod file;
#[cfg(feature = "keychain")]
mod keychain;
#[cfg(feature = "openbao")]
mod openbao;

#[cfg(feature = "keychain")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::internal::calls::{CallError, Seal};
use crate::internal::files::FileProblem;
#[cfg(feature = "keychain")]
use crate::internal::printing::PrintablePath;
use crate::internal::threads::Lock;
#[cfg(feature = "openbao")]
use crate::openbao::OpenBaoError;
use crate::source::{Problem, Provenance};

pub use document::{Document, DocumentContent, Version};
pub use file::FileStore;
#[cfg(test)]
pub(crate) use file::RecordedStore;
#[cfg(feature = "keychain")]
pub use keychain::KeychainStore;
#[cfg(feature = "openbao")]
pub use openbao::OpenBaoStore;

/// The largest content of a document, but in a keychain, in bytes: three of the longest keys, and a few KiB.
pub(crate) const MAX_DOCUMENT: usize = 32_768;

/// A place that holds one document, or none yet.
///
/// Implement it for a place of your own that can write *only if unchanged*. One that cannot loses changes as
/// soon as two processes write.
///
/// ```
/// use keysheath::store::{DocumentContent, DocumentError, DocumentStore, MemoryStore};
///
/// /// Adds a line, however many others do so at the same time.
/// fn add(store: &dyn DocumentStore, line: &[u8]) -> Result<(), DocumentError> {
///     loop {
///         let there = store.read()?;
///         let content = there.as_ref().map(|there| there.content().expose_secret().to_vec());
///         let mut text = content.unwrap_or_default();
///         text.extend_from_slice(line);
///         match store.write(&DocumentContent::from(text), there.as_ref().map(|there| there.version())) {
///             Err(DocumentError::Conflict) => {}
///             outcome => return outcome.map(|_| ()),
///         }
///     }
/// }
///
/// let store = MemoryStore::new();
/// add(&store, b"one\n")?;
/// add(&store, b"two\n")?;
/// assert_eq!(store.read()?.unwrap().content().expose_secret(), b"one\ntwo\n");
/// # Ok::<(), DocumentError>(())
/// ```
pub trait DocumentStore: Send + Sync {
    /// Where this store keeps its document, for messages. It must not show a secret.
    fn provenance(&self) -> Provenance;

    /// The largest content that fits, in bytes: in memory, in a file and in OpenBao 32,768, and 2,504 in a
    /// keychain.
    fn limit(&self) -> usize;

    /// The document, or nothing where none was ever written.
    ///
    /// # Errors
    /// [`DocumentError::Stale`] when the place gives an older document than it gave before, and others of
    /// [`DocumentError`] when what is there cannot be had.
    fn read(&self) -> Result<Option<Document>, DocumentError>;

    /// The version of the document, or nothing where none was ever written. A refresher asks this at each
    /// poll, and reads the document only where it is another one. Unless a store has a cheaper way, the
    /// document is read for it.
    ///
    /// # Errors
    /// As [`DocumentStore::read`].
    fn version(&self) -> Result<Option<Version>, DocumentError> {
        Ok(self.read()?.map(|document| *document.version()))
    }

    /// Returns whether a document that was read is still current. This is asked before advising an
    /// irreversible step. A store whose replicas may be behind can be sure of it only by a write: it may
    /// write the same content once more, if nothing has changed, which gives it another version. Unless a
    /// store has such replicas, its version is compared.
    ///
    /// # Errors
    /// As [`DocumentStore::read`] and, where it is written, [`DocumentStore::write`].
    fn is_current(&self, document: &Document) -> Result<bool, DocumentError> {
        Ok(self.version()?.as_ref() == Some(document.version()))
    }

    /// Writes the document if what is there is `unchanged` (with `None`: if nothing is there), and gives its
    /// version. Once this has returned, the document is persisted.
    ///
    /// # Errors
    /// [`DocumentError::Conflict`] when something else is there: read again, and decide again. After it, as
    /// after [`Stale`](DocumentError::Stale), [`Locked`](DocumentError::Locked) and
    /// [`TooLarge`](DocumentError::TooLarge), nothing has changed. After
    /// [`Unavailable`](DocumentError::Unavailable), and after [`File`](DocumentError::File) with
    /// [`Unwritable`](crate::FileProblem::Unwritable), the place holds the old document or the new one,
    /// whole: read again to know.
    fn write(&self, content: &DocumentContent, unchanged: Option<&Version>)
    -> Result<Version, DocumentError>;

    /// Returns whether reading runs this crate's own code alone, so that it may run on a thread that is kept.
    #[doc(hidden)]
    fn is_own(&self, _: Seal) -> bool {
        false
    }
}

/// A store is used through a reference, a `Box` or an `Arc` as well.
macro_rules! stores_by_pointer {
    ($($pointer:ty),+) => {$(
        impl<S: DocumentStore + ?Sized> DocumentStore for $pointer {
            fn provenance(&self) -> Provenance {
                (**self).provenance()
            }

            fn limit(&self) -> usize {
                (**self).limit()
            }

            fn read(&self) -> Result<Option<Document>, DocumentError> {
                (**self).read()
            }

            fn version(&self) -> Result<Option<Version>, DocumentError> {
                (**self).version()
            }

            fn is_current(&self, document: &Document) -> Result<bool, DocumentError> {
                (**self).is_current(document)
            }

            fn write(
                &self,
                content: &DocumentContent,
                unchanged: Option<&Version>,
            ) -> Result<Version, DocumentError> {
                (**self).write(content, unchanged)
            }

            fn is_own(&self, seal: Seal) -> bool {
                (**self).is_own(seal)
            }
        }
    )+};
}

stores_by_pointer!(&S, Box<S>, Arc<S>);

/// A document could not be read or written: why, and what to do next. Where is what
/// [`DocumentStore::provenance`] says. It holds no byte of the document.
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
    #[error(
        "the document is larger than the {limit} bytes that the place takes: use a place that holds more"
    )]
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
    /// Something is wrong with the lock file of a keychain's document, or its folder. Nothing was changed.
    #[cfg(feature = "keychain")]
    #[error("the lock file {}: {problem}", PrintablePath(.path))]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
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

/// A document that is gone with the process: for tests, and for keys that need not outlive it. Clones share
/// it.
///
/// ```
/// use keysheath::store::{DocumentContent, DocumentStore, MemoryStore};
/// let store = MemoryStore::new();
/// assert!(store.read()?.is_none());
/// store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// assert!(store.clone().read()?.is_some());
/// # Ok::<(), keysheath::store::DocumentError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    document: Arc<Lock<Option<Document>>>,
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl DocumentStore for MemoryStore {
    fn provenance(&self) -> Provenance {
        Provenance::other("memory", "document")
    }

    fn limit(&self) -> usize {
        MAX_DOCUMENT
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        Ok(self.document.lock().clone())
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        content.must_fit(self.limit())?;
        let mut there = self.document.lock();
        let version = Version::next(there.as_ref().map(Document::version), unchanged)?;
        *there = Some(Document::new(content.clone(), version));
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Has cheap ways of its own to answer, and counts how often they are taken.
    #[derive(Default)]
    struct Cheap(AtomicU32);

    impl DocumentStore for Cheap {
        fn provenance(&self) -> Provenance {
            Provenance::other("test", "document")
        }

        fn limit(&self) -> usize {
            7
        }

        fn read(&self) -> Result<Option<Document>, DocumentError> {
            Err(DocumentError::Corrupt)
        }

        fn version(&self) -> Result<Option<Version>, DocumentError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }

        fn is_current(&self, _: &Document) -> Result<bool, DocumentError> {
            self.0.fetch_add(10, Ordering::Relaxed);
            Ok(true)
        }

        fn write(&self, _: &DocumentContent, _: Option<&Version>) -> Result<Version, DocumentError> {
            Err(DocumentError::Conflict)
        }
    }

    fn uses_its_own_ways(store: impl DocumentStore) {
        let document = Document::new(DocumentContent::from(Vec::new()), Version::new(1, 0));
        assert_eq!((store.limit(), store.version(), store.is_current(&document)), (7, Ok(None), Ok(true)));
        assert_eq!(store.write(document.content(), None), Err(DocumentError::Conflict));
    }

    #[test]
    fn a_pointer_to_a_store_forwards_every_method() {
        let store = Arc::new(Cheap::default());
        uses_its_own_ways(&*store);
        uses_its_own_ways(Arc::clone(&store));
        uses_its_own_ways(Box::new(Arc::clone(&store)) as Box<dyn DocumentStore>);
        assert_eq!(store.0.load(Ordering::Relaxed), 33);
    }
}
