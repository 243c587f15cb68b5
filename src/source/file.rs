//! Files that hold a key and nothing else, and the checks that every file goes through.

mod opening;

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroize;

use super::env::{NamedFile, read_credential};
use super::{Absence, Problem, Provenance, Reading, Remark, Source, SourceError};
use crate::internal::calls::{CallError, Caller, Target};
use crate::internal::files::{Trust, absolute, rule_broken_by};
use crate::key::Profile;

pub(super) use opening::{FileText, read_bounded};

/// The largest key file that is read, in bytes: the longest key in base64, and a little more.
pub(super) const MAX_SECRET_FILE: usize = 8192;

/// A file that holds the key: a Docker or Kubernetes secret, or one that you wrote with mode 600.
///
/// Symbolic links are followed, because Kubernetes mounts secrets through them. The checks apply to the file
/// that was opened, so it cannot be swapped between the check and the read. It must be a regular file or a
/// pipe that belongs to root or to this user, and that no other user can write, the user's own group
/// included; [`with_trusted_owner`](Self::with_trusted_owner) and
/// [`with_trusted_group`](Self::with_trusted_group) allow others. It may have 8192 bytes. (On Windows, owner
/// and mode are not checked.)
///
/// A relative path is resolved when the source is created, so a later change of the working directory does
/// not change which file is read.
///
/// A pipe (a FIFO, `/dev/stdin`, `/dev/fd/N`, a shell's `<(…)`) is read to its end, within the deadline. It
/// gives its text once, and [`explain`](crate::chain::Chain::explain) and a refresher read it again. Threads
/// of one process read a pipe one after another; two processes that read it at the same time each get a part
/// of its text.
///
/// ```
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
    place: FilePlace,
    reader: Reader,
}

/// What a secret file is known by.
#[derive(Clone, Debug)]
pub(super) enum FilePlace {
    Path(PathBuf),
    Named(NamedFile),
    Systemd { name: String },
}

impl SecretFile {
    /// The file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::at(FilePlace::Path(absolute(path.into())))
    }

    pub(super) const fn at(place: FilePlace) -> Self {
        Self { place, reader: Reader::new() }
    }
}

/// The settings of the file that a source reads through its field `reader`.
macro_rules! file_settings {
    ($source:ident with strict permissions) => {
        file_settings!($source);

        impl $source {
            /// Refuses a file that its group or others can read. (Kubernetes mounts secrets with mode 644
            /// unless `defaultMode` says otherwise, so this is not the default.)
            #[must_use]
            pub fn with_strict_permissions(mut self) -> Self {
                self.reader.is_strict = true;
                self
            }
        }
    };
    ($source:ident) => {
        impl $source {
            /// Also accepts a file that belongs to this user, by number.
            ///
            /// That user can put another key there, and so choose the account that receives the data: name
            /// the one that Docker Compose's host file or a sidecar's belongs to. In a user namespace, 65534
            /// stands for every user that has no number of its own there.
            #[must_use]
            pub fn with_trusted_owner(mut self, uid: u32) -> Self {
                self.reader.trust.owner = Some(uid);
                self
            }

            /// Also accepts a file that this group, by number, can write. Each of its members can put another
            /// key there.
            #[must_use]
            pub fn with_trusted_group(mut self, gid: u32) -> Self {
                self.reader.trust.group = Some(gid);
                self
            }

            /// Sets how long opening and reading the file may take; a network mount may hang. The default is
            /// 30 s.
            #[must_use]
            pub fn with_deadline(mut self, deadline: std::time::Duration) -> Self {
                self.reader.worker = self.reader.worker.with_deadline(deadline);
                self
            }
        }
    };
}
#[allow(unused_imports, reason = "used with some features only")]
pub(super) use file_settings;

file_settings!(SecretFile with strict permissions);

/// How long after the deadline a pipe may take to see it.
const TIME_TO_END: Duration = Duration::from_millis(100);

/// How files are read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// Whether neither group nor others may read the file. That they may is otherwise a remark.
    pub(super) is_strict: bool,
    pub(super) trust: Trust,
    pub(super) worker: Caller,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self { is_strict: false, trust: Trust { owner: None, group: None }, worker: Caller::new() }
    }

    /// Opens, checks and reads a file whose path went through [`absolute`]. `None` where there is no file.
    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<FileText, Problem> {
        self.read_after(path, limit, |_| ())
    }

    /// As [`Reader::read`], and calls `first` with the path before it is opened, on the same thread: it may
    /// hang too.
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
        let outcome = self.worker.run_with(Target::of("file", &path), TIME_TO_END, move |turn| {
            first(&asked);
            opening::read(&asked, &own, limit, turn)
        });
        match outcome.map_err(Problem::from).and_then(|file| file) {
            // A file has no prompt to answer.
            Err(Problem::Call(CallError::Deadline { after })) => Err(Problem::Slow { after }),
            Ok(None) => unexpanded(path).map_or(Ok(None), |rule| Err(Problem::BadPath { rule })),
            outcome => outcome,
        }
    }
}

/// Why a file that a shell would have found is missing.
fn unexpanded(path: &Path) -> Option<&'static str> {
    let mut parts = path.iter().map(std::ffi::OsStr::as_encoded_bytes);
    let is_variable = |part: &[u8]| match part {
        [b'$', first, ..] => first.is_ascii_alphabetic() || matches!(first, b'_' | b'{' | b'('),
        [b'%', .., b'%'] => part.len() > 2,
        _ => false,
    };
    parts.any(|part| part == b"~" || is_variable(part)).then_some(
        "there is no such file, and no shell expands ~ or a variable here: write the directory itself",
    )
}

impl Source for SecretFile {
    fn provenance(&self) -> Provenance {
        match &self.place {
            FilePlace::Path(path) => Provenance::File { path: path.clone() },
            FilePlace::Named(file) => file.place(None),
            FilePlace::Systemd { name } => Provenance::Systemd { name: name.clone() },
        }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let outcome = match &self.place {
            FilePlace::Named(file) => return file.read(&self.reader),
            FilePlace::Systemd { name } => read_credential(name, &self.reader),
            FilePlace::Path(path) => {
                let file = self.reader.read(path, MAX_SECRET_FILE);
                file.map(|file| reading(file, Absence::NoFile))
            }
        };
        outcome.map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

pub(super) fn reading(file: FileText, absence: Absence) -> Reading {
    match file {
        None => Reading::absent(absence),
        Some((text, remarks)) => Reading::of_wiped(text).with_remarks(remarks),
    }
}

/// A path that is wiped when dropped: it may be a key that was put in the place of a path.
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
