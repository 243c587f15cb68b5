//! Files that hold a key and nothing else, and the checks that every file goes through.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use zeroize::Zeroize;

use super::worker::{Place, Worker};
use super::{Absence, Problem, Provenance, Reading, Remark, SecretText, Source, SourceError};
use crate::issuer::Profile;
use crate::trusted_file::{self, Untrusted};

/// The largest key file that is read, in bytes: the longest key in base64, and a little more.
///
/// ```
/// assert_eq!(keysheath::source::MAX_SECRET_FILE, 8192);
/// ```
pub const MAX_SECRET_FILE: usize = 8192;

/// A file that holds the key: a Docker or Kubernetes secret, or one that you wrote with mode 600.
///
/// One leading byte order mark and one final newline are removed. Symbolic links are followed, because
/// Kubernetes mounts secrets through them; what is checked is the file that was opened, so nobody can swap it
/// between the check and the read. It must be a regular file that belongs to root or to this user, and that
/// nobody else can write, the user's own group included. (On Windows, owner and mode are not checked.)
///
/// ```
/// use std::io::Write;
/// use keysheath::{issuer::{Issuer, Kanal}, source::{self, Loaded, SecretFile}};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("kanal");
/// std::fs::write(&path, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\n").unwrap();
/// let Loaded::Found(found) = source::load(&SecretFile::new(&path), Kanal::PROFILE)? else {
///     panic!("the file is there");
/// };
/// assert!(found.key().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SecretFile {
    path: PathBuf,
    permissions: Permissions,
    worker: Worker,
}

/// How much others may do with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Permissions {
    /// Others may not write it; that they may read it is remarked upon.
    #[default]
    Usual,
    /// Neither group nor others may read or write it.
    Strict,
}

impl SecretFile {
    /// The file at `path`.
    ///
    /// ```
    /// # use keysheath::source::SecretFile;
    /// let source = SecretFile::new("/run/secrets/kanal_api_key");
    /// ```
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), permissions: Permissions::Usual, worker: Worker::new() }
    }

    /// Refuses a file that group or others can read. (Kubernetes mounts secrets with mode 644 unless
    /// `defaultMode` says otherwise, so this is not the default.)
    ///
    /// ```
    /// # use keysheath::source::SecretFile;
    /// let source = SecretFile::new("/etc/shop/kanal").strict_permissions();
    /// ```
    #[must_use]
    pub fn strict_permissions(mut self) -> Self {
        self.permissions = Permissions::Strict;
        self
    }

    /// How long opening and reading may take; a network mount may hang. 30 s unless set.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::source::SecretFile;
    /// let source = SecretFile::new("/mnt/keys/kanal").with_deadline(Duration::from_secs(2));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }
}

impl Source for SecretFile {
    fn provenance(&self) -> Provenance {
        Provenance::File { path: self.path.clone() }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let path = WipedPath::from(self.path.clone().into_os_string());
        let permissions = self.permissions;
        self.worker
            .run(place(&self.path), move || read_key_file(&path, permissions))
            .and_then(|file| reading(file, Absence::NoFile))
            .map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

/// What a worker counts calls to a file by.
pub(super) fn place(path: &Path) -> Place {
    Place::of("file", &path)
}

/// A text and remarks, or nothing.
pub(super) type FileText = Option<(SecretText, Vec<Remark>)>;

pub(super) fn reading(file: Result<FileText, Problem>, absence: Absence) -> Result<Reading, Problem> {
    Ok(match file? {
        None => Reading::absent(absence),
        Some((text, remarks)) => Reading::present(text).with_remarks(remarks),
    })
}

/// Reads a file that holds a key and nothing else. May hang.
pub(super) fn read_key_file(path: &Path, permissions: Permissions) -> Result<FileText, Problem> {
    let Some((text, remarks)) = read_file(path, permissions, MAX_SECRET_FILE)? else {
        return Ok(None);
    };
    let text = text.without_mark_and_newline();
    if text.bytes().is_empty() {
        return Err(Problem::Empty);
    }
    Ok(Some((text, remarks)))
}

/// Opens, checks and reads a file. `None` where there is no file. May hang.
pub(super) fn read_file(path: &Path, permissions: Permissions, limit: usize) -> Result<FileText, Problem> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let remarks = check(&file, permissions, limit)?;
    Ok(Some((read_bounded(file, limit)?, remarks)))
}

/// A path that is wiped when dropped: a person may have put the key where the path belongs.
pub(super) struct WipedPath(PathBuf);

impl From<OsString> for WipedPath {
    fn from(path: OsString) -> Self {
        Self(path.into())
    }
}

impl Deref for WipedPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for WipedPath {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_os_string().into_encoded_bytes().zeroize();
    }
}

/// How often a file behind a link that leads nowhere is looked for again. Kubernetes swaps the link and removes what it
/// led to, so a path can lead nowhere for an instant.
const ATTEMPTS: u32 = 10;

/// How long to wait between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens a file; `None` where there is surely none.
fn open(path: &Path) -> Result<Option<File>, Problem> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let before = Way::to(path);
        match trusted_file::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Problem::BadPath { rule: "a path has no NUL byte" });
            }
            // A socket cannot be opened at all; only its kind says why.
            Err(error) => {
                return Err(match path.metadata() {
                    Ok(metadata) if !metadata.is_file() => Problem::NotAFile,
                    _ => Problem::Unreadable(error.kind()),
                });
            }
            Ok(file) => return Ok(Some(file)),
        }
        // A link that led elsewhere before than after may have led nowhere in between.
        if matches!((&before, Way::to(path)), (Way::EndsAt(before), Way::EndsAt(after)) if *before == after) {
            return Ok(None);
        }
    }
    Err(Problem::DanglingLink)
}

/// How far a path leads.
enum Way {
    /// To this folder, resolved, and no further; the next part of the path is not there.
    EndsAt(PathBuf),
    /// To its end, or to a link that leads nowhere.
    Open,
}

impl Way {
    fn to(path: &Path) -> Self {
        for part in path.ancestors() {
            // A relative path begins here.
            let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
            match part.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) if part != path => {
                    return part.canonicalize().map_or(Self::Open, Self::EndsAt);
                }
                _ => return Self::Open,
            }
        }
        Self::Open
    }
}

fn check(file: &File, permissions: Permissions, limit: usize) -> Result<Vec<Remark>, Problem> {
    let metadata = file.metadata().map_err(|error| Problem::Unreadable(error.kind()))?;
    trusted_file::check(&metadata).map_err(|untrusted| match untrusted {
        Untrusted::NotAFile => Problem::NotAFile,
        Untrusted::ForeignOwner { uid } => Problem::ForeignOwner { uid },
        Untrusted::WritableByOthers { mode } => Problem::WritableByOthers { mode },
    })?;
    let remarks = check_readers(&metadata, permissions)?;
    if metadata.len() > limit as u64 {
        return Err(Problem::TooLarge { limit });
    }
    Ok(remarks)
}

#[cfg(unix)]
fn check_readers(metadata: &std::fs::Metadata, permissions: Permissions) -> Result<Vec<Remark>, Problem> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o777;
    if permissions == Permissions::Strict && mode & 0o077 != 0 {
        return Err(Problem::ReadableByOthers { mode });
    }
    let mut remarks = Vec::new();
    if mode & 0o004 != 0 {
        remarks.push(Remark::ReadableByOthers { mode });
    }
    Ok(remarks)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn check_readers(_: &std::fs::Metadata, _: Permissions) -> Result<Vec<Remark>, Problem> {
    Ok(Vec::new())
}

/// Reads all there is into one block; more than `limit` bytes are an error, whatever the size said before.
pub(super) fn read_bounded(mut reader: impl Read, limit: usize) -> Result<SecretText, Problem> {
    let mut text = SecretText::with_capacity(1024.min(limit + 1));
    let mut piece = zeroize::Zeroizing::new([0; 1024]);
    loop {
        match reader.read(&mut *piece) {
            Ok(0) => return Ok(text),
            Ok(count) if text.bytes().len() + count > limit => return Err(Problem::TooLarge { limit }),
            Ok(count) => text.append(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Problem::Unreadable(error.kind())),
        }
    }
}
