//! Files that hold a key and nothing else, and the checks that every file goes through.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroize;

use super::worker::Worker;
use super::{Absence, Problem, Provenance, Reading, Remark, SecretText, Source, SourceError};
use crate::issuer::Profile;

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
/// nobody else can write; the user's own group may. (On Windows, owner and mode are not checked.)
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
        let file = read_key_file(&self.worker, self.path.clone(), self.permissions);
        reading(file, Absence::NoFile).map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

/// A text and remarks, or nothing.
pub(super) type FileText = Option<(SecretText, Vec<Remark>)>;

pub(super) fn reading(file: Result<FileText, Problem>, absence: Absence) -> Result<Reading, Problem> {
    Ok(match file? {
        None => Reading::Absent(absence),
        Some((text, remarks)) => Reading::Present { text, provenance: None, remarks },
    })
}

/// Reads a file that holds a key and nothing else.
pub(super) fn read_key_file(
    worker: &Worker,
    path: PathBuf,
    permissions: Permissions,
) -> Result<FileText, Problem> {
    let Some((text, remarks)) = read_file(worker, path, permissions, MAX_SECRET_FILE)? else {
        return Ok(None);
    };
    let text = text.without_mark_and_newline();
    if text.bytes().is_empty() {
        return Err(Problem::Empty);
    }
    Ok(Some((text, remarks)))
}

/// Opens, checks and reads a file on a thread of its own. `None` where there is no file.
pub(super) fn read_file(
    worker: &Worker,
    path: PathBuf,
    permissions: Permissions,
    limit: usize,
) -> Result<FileText, Problem> {
    let path = WipedPath::from(path.into_os_string());
    worker.run(move || {
        let Some(file) = open(&path.0)? else {
            return Ok(None);
        };
        let remarks = check(&file, permissions, limit)?;
        Ok(Some((read_bounded(file, limit)?, remarks)))
    })?
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

fn open(path: &Path) -> Result<Option<File>, Problem> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A FIFO without a writer must not hang the open, and a terminal must not become ours.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Of the file, or of a folder above it.
            let dangling = |part: &Path| part.is_symlink() && !part.exists();
            if path.ancestors().any(dangling) {
                return Err(Problem::DanglingLink);
            }
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(Problem::BadPath { rule: "a path has no NUL byte" })
        }
        // A socket cannot be opened at all; only its kind says why.
        Err(error) => match path.metadata() {
            Ok(metadata) if !metadata.is_file() => Err(Problem::NotAFile),
            _ => Err(Problem::Unreadable(error.kind())),
        },
    }
}

fn check(file: &File, permissions: Permissions, limit: usize) -> Result<Vec<Remark>, Problem> {
    let metadata = file.metadata().map_err(|error| Problem::Unreadable(error.kind()))?;
    if !metadata.is_file() {
        return Err(Problem::NotAFile);
    }
    let remarks = check_owner_and_mode(&metadata, permissions)?;
    if metadata.len() > limit as u64 {
        return Err(Problem::TooLarge { limit });
    }
    Ok(remarks)
}

#[cfg(unix)]
fn check_owner_and_mode(
    metadata: &std::fs::Metadata,
    permissions: Permissions,
) -> Result<Vec<Remark>, Problem> {
    use std::os::unix::fs::MetadataExt as _;

    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o777);
    let user = rustix::process::geteuid();
    if uid != 0 && uid != user.as_raw() {
        return Err(Problem::ForeignOwner { uid });
    }
    // Where each user has a group of their own, 664 is what an editor makes.
    let own_group = metadata.gid() == rustix::process::getegid().as_raw();
    let group_may_write = mode & 0o020 != 0;
    if mode & 0o002 != 0 || (group_may_write && !own_group) {
        return Err(Problem::WritableByOthers { mode });
    }
    if permissions == Permissions::Strict && mode & 0o077 != 0 {
        return Err(Problem::ReadableByOthers { mode });
    }
    let mut remarks = Vec::new();
    if mode & 0o004 != 0 {
        remarks.push(Remark::ReadableByOthers { mode });
    }
    if group_may_write {
        remarks.push(Remark::WritableByGroup { mode });
    }
    Ok(remarks)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn check_owner_and_mode(_: &std::fs::Metadata, _: Permissions) -> Result<Vec<Remark>, Problem> {
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
