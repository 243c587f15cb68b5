//! Files that hold a key and nothing else, and the checks that every file goes through.

mod opening;

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroize;

use super::worker::{Place, Worker};
use super::{Absence, Problem, Provenance, Reading, Remark, Source, SourceError};
use crate::internal::paths::{absolute, rule_broken_by};
use crate::internal::trusted_file::Trust;
use crate::key::Profile;

pub(super) use opening::{FileText, read_bounded};

/// The largest key file that is read, in bytes: the longest key in base64, and a little more.
pub const MAX_SECRET_FILE: usize = 8192;

/// A file that holds the key: a Docker or Kubernetes secret, or one that you wrote with mode 600.
///
/// Symbolic links are followed, because Kubernetes mounts secrets through them; what is checked is the file that was opened,
/// so nobody can swap it between the check and the read. It must be a regular file or a pipe that belongs to root or to this
/// user, and that nobody else can write, the user's own group included; [`trusting_owner`](Self::trusting_owner) and
/// [`trusting_group`](Self::trusting_group) name others. (On Windows, owner and mode are not checked.)
///
/// A relative path is resolved once, here, so a later change of the working folder does not change which file is read.
///
/// A pipe (a FIFO, `/dev/stdin`, `/dev/fd/N`, a shell's `<(…)`) is read to its end, under the deadline. It gives its text
/// once: [`explain`](crate::chain::Chain::explain) and a refresher read it again. Threads of one process read a pipe one after
/// another; two processes that read it at once divide its text.
///
/// ```
/// use std::io::Write;
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{self, Loaded, SecretFile};
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
    reader: Reader,
}

/// How long after the deadline a pipe may take to see it.
const TIME_TO_END: Duration = Duration::from_millis(100);

/// How much others may do with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Permissions {
    /// Others may not write it; that they may read it is remarked upon.
    #[default]
    Usual,
    /// Neither group nor others may read or write it.
    Strict,
}

/// How files are read: by whose permissions, with whose trust, and within which deadline.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) permissions: Permissions,
    pub(super) trust: Trust,
    pub(super) worker: Worker,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self {
            permissions: Permissions::Usual,
            trust: Trust { owner: None, group: None },
            worker: Worker::new(),
        }
    }

    /// Opens, checks and reads a file whose path went through [`absolute`]. `None` where there is no file.
    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<FileText, Problem> {
        self.read_after(path, limit, |_| ())
    }

    /// As [`Reader::read`], and does something with the path before it is opened. That may hang as well.
    pub(super) fn read_after(
        &self,
        path: &Path,
        limit: usize,
        first: impl FnOnce(&Path) + Send + 'static,
    ) -> Result<FileText, Problem> {
        if let Some(rule) = rule_broken_by(path) {
            return Err(Problem::BadPath { rule });
        }
        let (own, asked) = (self.clone(), WipedPath::from(path.to_path_buf().into_os_string()));
        let outcome = self.worker.run_with(Place::of("file", &path), TIME_TO_END, move |turn| {
            first(&asked);
            opening::read(&asked, &own, limit, turn)
        });
        match outcome.and_then(|file| file) {
            // A file has no prompt to answer.
            Err(Problem::Deadline { after }) => Err(Problem::Slow { after }),
            Ok(None) => is_expandable(path).map_or(Ok(None), |rule| Err(Problem::BadPath { rule })),
            outcome => outcome,
        }
    }
}

/// Why a file may be missing that a shell would have found.
fn is_expandable(path: &Path) -> Option<&'static str> {
    let mut parts = path.iter().map(std::ffi::OsStr::as_encoded_bytes);
    let is_variable = |part: &[u8]| match part {
        [b'$', first, ..] => first.is_ascii_alphabetic() || matches!(first, b'_' | b'{' | b'('),
        [b'%', .., b'%'] => part.len() > 2,
        _ => false,
    };
    parts.any(|part| part == b"~" || is_variable(part)).then_some(
        "there is no such file, and no shell expands ~ or a variable here: write the folder itself",
    )
}

impl SecretFile {
    /// The file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: absolute(path.into()), reader: Reader::new() }
    }

    /// Refuses a file that group or others can read. (Kubernetes mounts secrets with mode 644 unless
    /// `defaultMode` says otherwise, so this is not the default.)
    #[must_use]
    pub fn strict_permissions(mut self) -> Self {
        self.reader.permissions = Permissions::Strict;
        self
    }

    /// Takes the file from this user too, by number. That user can put another key there, and so choose the account that
    /// receives the data: name the one that Docker Compose's host file or a sidecar's belongs to. In a user namespace, 65534
    /// stands for every user without a number of its own there.
    #[must_use]
    pub fn trusting_owner(mut self, uid: u32) -> Self {
        self.reader.trust.owner = Some(uid);
        self
    }

    /// Takes a file that this group, by number, can write. Each of its members can put another key there.
    #[must_use]
    pub fn trusting_group(mut self, gid: u32) -> Self {
        self.reader.trust.group = Some(gid);
        self
    }

    /// How long opening and reading may take; a network mount may hang. 30 s unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.reader.worker = self.reader.worker.with_deadline(deadline);
        self
    }
}

impl Source for SecretFile {
    fn provenance(&self) -> Provenance {
        Provenance::File { path: self.path.clone() }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        self.reader
            .read(&self.path, MAX_SECRET_FILE)
            .map(|file| reading(file, Absence::NoFile))
            .map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

pub(super) fn reading(file: FileText, absence: Absence) -> Reading {
    match file {
        None => Reading::absent(absence),
        Some((text, remarks)) => Reading::present(text).with_remarks(remarks),
    }
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
