//! A document in a file; the folder of a document and the lock in it.

#[cfg(all(test, target_os = "linux"))]
#[path = "../../tests/units/store/folder.rs"]
mod folder;
#[cfg(test)]
#[path = "../../tests/units/store/replay.rs"]
mod replay;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::document::{self, HEADER, Seen};
use super::{Document, DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version};
use crate::internal::bytes::read_at_most;
use crate::internal::calls::{CallError, Caller, Seal, Target, Turn};
use crate::internal::files::FileProblem;
use crate::internal::files::absolute;
use crate::internal::files::private::{self, FileLock, LOCK, NEW, Stamp, resolve, with_end};
use crate::internal::threads::Lock;
use crate::source::Provenance;
#[cfg(test)]
pub(crate) use replay::RecordedStore;

/// The largest file that is a document, in bytes.
const MAX_FILE: usize = HEADER + MAX_DOCUMENT;

/// How long to wait between two attempts to take a lock: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// How much longer than its deadline a call is given: the lock may have come at the last moment.
pub(super) const EXTRA: Duration = Duration::from_secs(1);

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
    /// Creates a store of the document at `path`. Nothing is opened yet. A relative path is resolved here,
    /// once.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: absolute(path.into()), worker: Caller::new().on_kept_threads(), known: Arc::default() }
    }

    /// Sets how long one call may take, waiting for the lock included; 30 s by default.
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
        self.worker.run_with(Target::of(what, &self.path), EXTRA, move |turn| work(&path, &known, turn))?
    }
}

impl DocumentStore for FileStore {
    fn provenance(&self) -> Provenance {
        Provenance::File { path: self.path.clone() }
    }

    fn is_own(&self, _: Seal) -> bool {
        true
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
            let _lock = lock(&with_end(&path, LOCK), turn)?;
            let there = known.seen.look(|| Ok(known.read(&path)?.map(|(document, _)| document)))?;
            let version = Version::next(there.as_ref().map(Document::version), unchanged.as_ref())?;
            put(&RealDisk, &path, &[&document::header(&version, &content), content.expose_secret()])?;
            known.seen.note(Some(&version));
            Ok(version)
        })
    }
}

impl Known {
    /// Returns the current version. It is not synced: callers only decide by it whether to read.
    fn version(&self, path: &Path) -> Result<Option<Version>, DocumentError> {
        self.seen.look_at_version(|| {
            // The folder is not looked at where the file is the one that was read, as it was then.
            if let Some(version) = self.unchanged(path) {
                return Ok(Some(version));
            }
            Ok(self.read(&settle(path)?)?.map(|(document, _)| *document.version()))
        })
    }

    /// The version of the file that was read last, if it is there and as it was.
    fn unchanged(&self, path: &Path) -> Option<Version> {
        let (stamp, version) = (*self.read.lock())?;
        let there = private::look(path).ok()??;
        (Stamp::of(&there) == stamp).then_some(version)
    }

    fn read(&self, path: &Path) -> Result<Option<(Document, Stamp)>, DocumentError> {
        if private::look(path)?.is_none() {
            return Ok(None);
        }
        let file = match private::options().write(false).open(path) {
            // It was removed just now.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(FileProblem::of_reading)?,
        };
        let metadata = file.metadata().map_err(FileProblem::of_reading)?;
        private::check(&metadata)?;
        let stamp = Stamp::of(&metadata);
        // Asked for before it is read: what is written meanwhile has a later time.
        let is_settled = stamp.is_settled(SystemTime::now());
        let document = document::open(
            read_at_most(file, MAX_FILE)
                .map_err(FileProblem::of_reading)?
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
    resolve_folder(path)
}

/// What is done to files. A test puts a disk that records in its place, and then cuts the power anywhere.
pub(super) trait Disk {
    type File;

    /// A new file that no other user can read. It must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes what an interrupted write has left; false where something else is there.
    fn remove_left_over(&self, path: &Path) -> io::Result<bool>;
    /// Syncs the folder, so that the rename survives a power cut.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Puts a file with these bytes at a path. The lock must be held.
pub(super) fn put<D: Disk>(disk: &D, path: &Path, parts: &[&[u8]]) -> Result<(), FileProblem> {
    let new = with_end(path, NEW);
    let wrong = |error: io::Error| FileProblem::of_writing(error);
    if !disk.remove_left_over(&new).map_err(wrong)? {
        return Err(FileProblem::InTheWay);
    }
    let mut file = disk.create(&new).map_err(wrong)?;
    let made = fill(disk, &mut file, parts).and_then(|()| disk.rename(&new, path));
    if let Err(error) = made {
        // Harmless if it stays: the next writer removes it.
        let _ = disk.remove(&new);
        return Err(wrong(error));
    }
    sync_parent_dir(disk, path)
}

/// The rename whose folder was synced last, so that this is done once for each document and not for each
/// look. `K` tells one renaming from the next.
#[derive(Debug)]
pub(super) struct Lasting<K>(Lock<Option<K>>);

impl<K> Default for Lasting<K> {
    fn default() -> Self {
        Self(Lock::new(None))
    }
}

impl<K: PartialEq> Lasting<K> {
    /// Syncs the folder of the file that the path leads to, which is `there`.
    pub(super) fn make<D: Disk>(&self, disk: &D, path: &Path, there: K) -> Result<(), FileProblem> {
        if self.0.lock().as_ref() == Some(&there) {
            return Ok(());
        }
        sync_parent_dir(disk, path)?;
        *self.0.lock() = Some(there);
        Ok(())
    }
}

/// Syncs the folder of the file that the path leads to. Where this fails, the document is in its place
/// nevertheless, so the error is never one that says that nothing has changed.
fn sync_parent_dir<D: Disk>(disk: &D, path: &Path) -> Result<(), FileProblem> {
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_folder(folder).map_err(|error| FileProblem::Unwritable(error.kind()))
}

fn fill<D: Disk>(disk: &D, file: &mut D::File, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        disk.write(file, part)?;
    }
    disk.sync(file)
}

/// The real disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        private::options().create_new(true).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_left_over(&self, path: &Path) -> io::Result<bool> {
        private::remove_left_over(path, MAX_FILE, document::may_begin)
    }

    #[cfg(unix)]
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    /// A folder cannot be opened there, and a rename is in the journal.
    #[cfg(not(unix))]
    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// The path with its folder resolved, in a folder where a document can be kept.
pub(super) fn resolve_folder(path: &Path) -> Result<PathBuf, FileProblem> {
    let path = resolve(path)?;
    if let Some(folder) = path.parent() {
        check_folder(folder)?;
    }
    Ok(path)
}

/// Waits for a lock, as long as the call's deadline leaves. What was reported as late must not be done
/// afterwards.
pub(super) fn lock(path: &Path, turn: &Turn) -> Result<FileLock, DocumentError> {
    let mut pause = PAUSES.0;
    loop {
        if let Some(lock) = FileLock::try_take(path)? {
            return Ok(lock);
        }
        let rest = turn.rest();
        if rest.is_zero() {
            return Err(match turn.too_late() {
                CallError::Deadline { after } => DocumentError::Locked { after },
                late => late.into(),
            });
        }
        thread::sleep(pause.min(rest));
        pause = (pause * 2).min(PAUSES.1);
    }
}

#[cfg(unix)]
fn check_folder(folder: &Path) -> Result<(), FileProblem> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = folder.metadata().map_err(FileProblem::of_reading)?;
    let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    // In a sticky folder others can make files, and neither remove nor rename ours.
    if !is_ours || metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0 {
        return Err(FileProblem::OpenFolder);
    }
    check_file_system(folder)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn check_folder(_: &Path) -> Result<(), FileProblem> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn check_file_system(folder: &Path) -> Result<(), FileProblem> {
    let stat = rustix::fs::statfs(folder).map_err(FileProblem::of_reading)?;
    if is_elsewhere(i128::from(stat.f_type)) { Err(FileProblem::NetworkFileSystem) } else { Ok(()) }
}

#[cfg(target_os = "macos")]
fn check_file_system(folder: &Path) -> Result<(), FileProblem> {
    const MNT_LOCAL: u32 = 0x1000;
    let stat = rustix::fs::statfs(folder).map_err(FileProblem::of_reading)?;
    if stat.f_flags & MNT_LOCAL == 0 { Err(FileProblem::NetworkFileSystem) } else { Ok(()) }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "macos"))))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Linux needs")]
fn check_file_system(_: &Path) -> Result<(), FileProblem> {
    Ok(())
}

/// File systems whose files others use from elsewhere, by the kernel's numbers (`linux/magic.h`, statfs(2),
/// and for those outside the kernel their own sources). FUSE is among them: whether sshfs or a local disk is
/// behind it cannot be determined, and its locks and its `fsync` are what a program makes of them.
#[cfg(target_os = "linux")]
const ELSEWHERE: [u32; 17] = [
    0x0000_6969, // NFS
    0x0000_517b, // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2
    0x0000_564c, // NCP
    0x7375_7245, // Coda
    0x5346_414f, // AFS
    0x6b41_4653, // AFS, of OpenAFS's kin
    0x00c3_6400, // Ceph
    0x0bd0_0bd0, // Lustre
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x0102_1997, // 9P, also of a virtual machine's host
    0x786f_4256, // VirtualBox's shared folders
    0x6573_5546, // FUSE and virtiofs
];

#[cfg(target_os = "linux")]
fn is_elsewhere(number: i128) -> bool {
    // The kernel's type is signed on some processors, and as wide as a long.
    ELSEWHERE.iter().any(|&elsewhere| i128::from(elsewhere) == number & 0xffff_ffff)
}
