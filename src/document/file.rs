//! A document in a file.

mod disk;
#[cfg(test)]
mod replay;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::version::Seen;
use super::{Document, DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version, place, sealed};
use crate::private_file::{self, look, with_end};
use crate::source::Provenance;
use crate::source::worker::{Place, Worker};
use disk::RealDisk;
#[cfg(test)]
pub(crate) use replay::RecordedStore;

/// A document in a file of its own, for all processes of one user on one machine.
///
/// - **Whole or not at all.** It is written to a new file (`NAME.new`, mode 600), which is synced and then renamed over the old
///   one, and the folder is synced. Whoever is killed on the way leaves the old document or the new one, and once
///   [`write`](DocumentStore::write) has returned a power cut keeps the new one too, as far as the disk honours `fsync`.
/// - **One writer at a time.** Writing takes a lock on `NAME.lock`, which the system releases when its process ends. It
///   must not be removed or renamed while a process uses the store. Reading takes none; it syncs the folder, so that what
///   is read lasts as well.
/// - **Private.** Document and lock must be regular files of this user with nobody else's permissions. Links are refused.
///   The folder must be there, belong to root or this user, and be writable by nobody else unless it is sticky, as
///   `/tmp` is. (On Windows, owner and mode are not checked.)
/// - **Local.** On Linux and macOS, network file systems are refused, and so is FUSE on Linux: which of those it is cannot be told.
///
/// ```
/// use keysheath::document::{DocumentContent, DocumentStore, FileStore};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("rotation");
/// let store = FileStore::new(&path);
/// let version = store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// assert_eq!(FileStore::new(&path).read()?.unwrap().version(), &version);
/// # Ok::<(), keysheath::document::DocumentError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
    worker: Worker,
    seen: Seen,
}

impl FileStore {
    /// The document at `path`. Nothing is opened yet.
    ///
    /// ```
    /// # use keysheath::document::FileStore;
    /// let store = FileStore::new("/var/lib/shop-sync/kanal-keys");
    /// ```
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), worker: Worker::new(), seen: Seen::default() }
    }

    /// How long one call may take, waiting for the lock included; 30 s unless set.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::document::FileStore;
    /// let store = FileStore::new("/var/lib/shop-sync/kanal-keys").with_deadline(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    /// Reading and writing are counted apart: writers that wait for the lock do not keep readers waiting.
    fn run<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Path, &Seen) -> Result<T, DocumentError> + Send + 'static,
    ) -> Result<T, DocumentError> {
        let (path, seen) = (self.path.clone(), self.seen.clone());
        self.worker
            .run_with(Place::of(what, &self.path), place::EXTRA, move |_| work(&path, &seen))
            .map_err(DocumentError::Unavailable)?
    }
}

impl DocumentStore for FileStore {
    fn provenance(&self) -> Provenance {
        Provenance::File { path: self.path.clone() }
    }

    fn limit(&self) -> usize {
        MAX_DOCUMENT
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.run("document read", |path, seen| {
            let path = place::settle(path)?;
            seen.look(|| {
                let there = read(&path)?;
                // A writer that was killed just after its renaming has left a document that may not last.
                disk::make_last(&RealDisk, &path)?;
                Ok(there)
            })
        })
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        content.must_fit(self.limit())?;
        let (content, unchanged, patience) = (content.clone(), unchanged.copied(), self.worker.deadline());
        self.run("document written", move |path, seen| {
            let path = place::settle(path)?;
            let _lock = place::lock(&with_end(&path, ".lock"), patience)?;
            let there = seen.look(|| read(&path))?;
            let version = Version::next(there.as_ref().map(Document::version), unchanged.as_ref())?;
            disk::put(&RealDisk, &path, &[&sealed::header(&version, &content), content.expose_secret()])?;
            seen.note(Some(&version));
            Ok(version)
        })
    }
}

fn read(path: &Path) -> Result<Option<Document>, DocumentError> {
    if look(path)?.is_none() {
        return Ok(None);
    }
    let file = match private_file::options().write(false).open(path) {
        // It was removed just now.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| DocumentError::Io(error.kind()))?,
    };
    private_file::check(&file.metadata().map_err(|error| DocumentError::Io(error.kind()))?)?;
    sealed::open(read_bounded(file)?).map(Some)
}

/// Reads all there is into one block. What is too large is not a document of ours.
fn read_bounded(mut file: File) -> Result<Zeroizing<Vec<u8>>, DocumentError> {
    let mut bytes = Zeroizing::new(vec![0; sealed::HEADER + MAX_DOCUMENT + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(DocumentError::Io(error.kind())),
        }
    }
    Err(DocumentError::Corrupt)
}
