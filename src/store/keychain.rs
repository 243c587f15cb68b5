//! A document in an item of the keychain.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::document::{self, HEADER, Seen};
use super::{Document, DocumentContent, DocumentError, DocumentStore, Version, file};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::{Caller, Target};
use crate::internal::files::absolute;
use crate::internal::files::private::FileLock;
use crate::source::{Keychain, Problem, Provenance};

/// The largest content, on every platform: Windows keeps 2,560 bytes for an item
/// (`CRED_MAX_CREDENTIAL_BLOB_SIZE`).
const MAX_CONTENT: usize = 2560 - HEADER;

/// A document in a keychain item, and beside it a file that is its lock: keychains cannot write *only if
/// unchanged*.
///
/// Every process that writes the item must name the same lock. It belongs in a local folder of the user
/// that outlives a restart of the tool, such as `$XDG_STATE_HOME`, `~/.local/state` or `%LOCALAPPDATA%`, and
/// is made there with mode 600; what holds of the lock of a [`FileStore`](super::FileStore) and its folder
/// holds of it.
///
/// A keychain that does not answer is asked within the deadline and left behind. The lock then stays taken
/// until the keychain has answered, so that a late write goes over nothing that was written meanwhile. If the
/// process ends before that, the write may still come.
///
/// The item's value is not text, and not a key: a `KeychainItem` of the same name would refuse it. Its
/// content is at most 2,504 bytes on every platform: Windows keeps 2,560, and 56 of them say which document
/// it is.
///
/// ```no_run
/// use keysheath::source::Keychain;
/// use keysheath::store::{DocumentContent, DocumentStore, KeychainStore};
///
/// let keychain = Keychain::for_service("shop-sync");
/// let lock = "/home/ann/.local/state/shop-sync/kanal-keys.lock";
/// let store = KeychainStore::new(keychain, "kanal-keys", lock);
/// let version = store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// # Ok::<(), keysheath::store::DocumentError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeychainStore {
    keychain: Keychain,
    name: String,
    lock: PathBuf,
    worker: Caller,
    seen: Seen,
}

impl KeychainStore {
    /// Creates a store of the item `name` of a keychain, with the path of its lock. Nothing is opened yet. A
    /// call waits for the keychain as long as the keychain's own deadline says.
    #[must_use]
    pub fn new(keychain: Keychain, name: impl Into<String>, lock: impl Into<PathBuf>) -> Self {
        Self {
            keychain,
            name: name.into(),
            lock: absolute(lock.into()),
            worker: Caller::new(),
            seen: Seen::default(),
        }
    }

    /// Sets how long a write may wait for the lock; 30 s by default. Then it asks the keychain twice, each
    /// time for at most the keychain's own deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    fn take_lock(&self) -> Result<FileLock, DocumentError> {
        let path = self.lock.clone();
        let lock = self.worker.run_with(Target::of("document", &self.lock), file::EXTRA, move |turn| {
            file::lock(&file::resolve_folder(&path)?, turn)
        })?;
        lock.map_err(|error| match error {
            DocumentError::File(problem) => DocumentError::LockFile { path: self.lock.clone(), problem },
            error => error,
        })
    }

    /// Reads the item. With a lock, the lock is held until the keychain has answered.
    fn look(&self, lock: Option<Arc<FileLock>>) -> Result<Option<Document>, DocumentError> {
        self.seen.look(|| {
            let item = self.keychain.load_bytes(&self.name, lock).map_err(of_keychain)?;
            item.map(document::open).transpose()
        })
    }
}

impl DocumentStore for KeychainStore {
    fn provenance(&self) -> Provenance {
        self.keychain.place(&self.name)
    }

    fn limit(&self) -> usize {
        MAX_CONTENT
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.look(None)
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        content.must_fit(self.limit())?;
        let lock = Arc::new(self.take_lock()?);
        let there = self.look(Some(Arc::clone(&lock)))?;
        let version = Version::next(there.as_ref().map(Document::version), unchanged)?;
        let mut item = WipedBytes::with_capacity(HEADER + content.expose_secret().len());
        item.append(&document::header(&version, content));
        item.append(content.expose_secret());
        self.keychain.save_bytes(&self.name, item, lock).map_err(of_keychain)?;
        self.seen.note(Some(&version));
        Ok(version)
    }
}

fn of_keychain(problem: Problem) -> DocumentError {
    match problem {
        Problem::Ambiguous { .. } | Problem::NotStorable => DocumentError::Keychain(problem),
        problem => DocumentError::Unavailable(problem),
    }
}
