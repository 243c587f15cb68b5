//! A document in a file.

mod disk;
#[cfg(test)]
mod replay;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::document::Seen;
use super::{Document, DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version, place, sealed};
use crate::internal::bytes::read_at_most;
use crate::internal::calls::{Caller, Target, Turn};
use crate::internal::files::FileProblem;
use crate::internal::files::absolute;
use crate::internal::files::private::{self, LOCK, Stamp, with_end};
use crate::internal::panics::Lock;
use crate::source::Provenance;
use disk::{Lasting, RealDisk};
#[cfg(test)]
pub(crate) use replay::RecordedStore;

/// The largest file that is a document, in bytes.
const MAX_FILE: usize = sealed::HEADER + MAX_DOCUMENT;

/// A document in a file of its own, for all processes of one user on one machine.
///
/// - **Whole or not at all.** It is written to a new file (`NAME.keysheath-new`, mode 600), which is synced
///   and then renamed over the old one, and the folder is synced. A writer that is killed on the way leaves
///   the old document or the new one, and once [`write`](DocumentStore::write) has returned a power cut keeps
///   the new one too, as far as the disk honours `fsync`. What a killed writer has left is removed by the
///   next one; a file of that name that is something else stops the write.
/// - **One writer at a time.** Writing takes a lock on `NAME.lock`, which the system releases when its
///   process ends. It must not be removed or renamed while a process uses the store. Reading takes none; it
///   syncs the folder once for each document, so that what is read lasts as well.
///   [`version`](DocumentStore::version) syncs nothing and runs on the calling thread, without the deadline:
///   while the file is as it was when it was read last, it is looked at and not read.
/// - **Private.** Document and lock must be regular files of this user that grant others nothing. Links
///   are refused, symbolic and hard. A document cannot have a name that ends in `.lock` or `.keysheath-new`.
///   The folder must be there, belong to root or this user, and be writable by no other user unless it is
///   sticky, as `/tmp` is. (On Windows, owner, mode and hard links are not checked.)
/// - **Local.** On Linux and macOS, network file systems are refused, and on Linux FUSE as well, because
///   whether a FUSE file system is remote cannot be determined.
///
/// ```
/// use keysheath::store::{DocumentContent, DocumentStore, FileStore};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("rotation");
/// let store = FileStore::new(&path);
/// let version = store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// assert_eq!(FileStore::new(&path).read()?.unwrap().version(), &version);
/// # Ok::<(), keysheath::store::DocumentError>(())
/// ```
#[derive(Clone)]
pub struct FileStore {
    /// Absolute.
    path: PathBuf,
    worker: Caller,
    known: Arc<Known>,
}

/// What is known of the file. Clones share it.
#[derive(Default)]
struct Known {
    seen: Seen,
    /// The file that was read last, and its version. Only a settled one is kept.
    read: Lock<Option<(Stamp, Version)>>,
    lasting: Lasting<(Stamp, Version)>,
}

impl FileStore {
    /// The document at `path`. Nothing is opened yet. A relative path is resolved here, once.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: absolute(path.into()), worker: Caller::new(), known: Arc::default() }
    }

    /// How long one call may take, waiting for the lock included; 30 s unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    /// Reading and writing are counted apart: writers that wait for the lock do not keep readers waiting.
    fn run<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Path, &Known, &Turn) -> Result<T, DocumentError> + Send + 'static,
    ) -> Result<T, DocumentError> {
        let (path, known) = (self.path.clone(), Arc::clone(&self.known));
        self.worker
            .run_with(Target::of(what, &self.path), place::EXTRA, move |turn| work(&path, &known, turn))?
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
        self.run("document read", |path, known, _| {
            let path = settle(path)?;
            known.seen.look(|| {
                let Some((document, stamp)) = known.read(&path)? else { return Ok(None) };
                // A writer that was killed just after its renaming has left a document that may not last.
                known.lasting.make(&RealDisk, &path, (stamp, *document.version()))?;
                Ok(Some(document))
            })
        })
    }

    fn version(&self) -> Result<Option<Version>, DocumentError> {
        self.known.version(&self.path)
    }

    fn is_current(&self, document: &Document) -> Result<bool, DocumentError> {
        let version = self.run("document read", |path, known, _| known.version(path))?;
        Ok(version.as_ref() == Some(document.version()))
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        content.must_fit(self.limit())?;
        let (content, unchanged) = (content.clone(), unchanged.copied());
        self.run("document written", move |path, known, turn| {
            let path = settle(path)?;
            let _lock = place::lock(&with_end(&path, LOCK), turn)?;
            let there = known.seen.look(|| Ok(known.read(&path)?.map(|(document, _)| document)))?;
            let version = Version::next(there.as_ref().map(Document::version), unchanged.as_ref())?;
            disk::put(&RealDisk, &path, &[&sealed::header(&version, &content), content.expose_secret()])?;
            known.seen.note(Some(&version));
            Ok(version)
        })
    }
}

impl Known {
    /// Returns the current version. It is not synced: callers only decide by it whether to read.
    fn version(&self, path: &Path) -> Result<Option<Version>, DocumentError> {
        let path = settle(path)?;
        self.seen.look_at_version(|| {
            let Some(stamp) = look(&path)? else { return Ok(None) };
            let known = *self.read.lock();
            match known.filter(|(read, _)| *read == stamp) {
                Some((_, version)) => Ok(Some(version)),
                None => Ok(self.read(&path)?.map(|(document, _)| *document.version())),
            }
        })
    }

    fn read(&self, path: &Path) -> Result<Option<(Document, Stamp)>, DocumentError> {
        if look(path)?.is_none() {
            return Ok(None);
        }
        let file = match private::options().write(false).open(path) {
            // It was removed just now.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| FileProblem::Unreadable(error.kind()))?,
        };
        let metadata = file.metadata().map_err(|error| FileProblem::Unreadable(error.kind()))?;
        private::check(&metadata)?;
        let stamp = Stamp::of(&metadata);
        // Asked for before it is read: what is written meanwhile has a later time.
        let is_settled = stamp.is_settled(SystemTime::now());
        let document = sealed::open(
            read_at_most(file, MAX_FILE)
                .map_err(|error| FileProblem::Unreadable(error.kind()))?
                // What is too large is no document of ours.
                .ok_or(DocumentError::Corrupt)?,
        )?;
        *self.read.lock() = is_settled.then_some((stamp, *document.version()));
        Ok(Some((document, stamp)))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({:?})", self.path)
    }
}

/// The path with its folder resolved, in a folder where a document can be kept, and by a name that it can
/// have.
fn settle(path: &Path) -> Result<PathBuf, FileProblem> {
    private::refuse_reserved(path)?;
    place::settle(path)
}

/// What lies at a path, if anything does: a link is not followed.
fn look(path: &Path) -> Result<Option<Stamp>, FileProblem> {
    match path.symlink_metadata() {
        Ok(metadata) => private::check(&metadata).map(|_| Some(Stamp::of(&metadata))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileProblem::Unreadable(error.kind())),
    }
}
