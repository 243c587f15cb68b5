//! A variable or a file that holds the key and nothing else: by its path, by a variable that names it, or as
//! a credential of systemd.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::file::{self, MAX_SECRET_FILE, Reader, WipedPath, file_settings};
use super::reading::reference_scheme;
use super::{Absence, Problem, Provenance, Reading, Source, SourceError, is_credential_name};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::Seal;
use crate::internal::files::absolute;
use crate::key::Profile;

/// An environment variable that holds the key.
///
/// A variable that is set to nothing counts as not set. When `NAME_FILE` is set as well, loading is refused:
/// the two may hold keys of different accounts.
///
/// # Security
/// The variable stays in the environment block, where `/proc/PID/environ` and every child process can read
/// it. Prefer a file, a systemd credential or the keychain.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{Source, Variable};
///
/// let source = Variable::for_issuer(Kanal::PROFILE);
/// assert_eq!(source.provenance().to_string(), "variable KANAL_API_KEY");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    name: String,
}

impl Variable {
    /// Creates a source of the variable of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Creates a source of the variable that the issuer's users know, such as `KANAL_API_KEY`.
    #[must_use]
    pub fn for_issuer(profile: &Profile) -> Self {
        Self::new(profile.variable())
    }
}

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
enum FilePlace {
    Path(PathBuf),
    Named(NamedFile),
    Systemd { name: String },
}

impl SecretFile {
    /// Creates a source of the file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::at(FilePlace::Path(absolute(path.into())))
    }

    /// The file that the environment variable `NAME_FILE` names, as Docker's images do it; `variable` is the
    /// name without `_FILE`.
    ///
    /// When the variable is set and the file does not exist, that is an error and not an absence: the key was
    /// meant to come from there. A relative path is resolved against the working directory of when the source
    /// was created.
    ///
    /// ```
    /// use keysheath::source::{SecretFile, Source};
    ///
    /// let source = SecretFile::named_by_variable("KANAL_API_KEY");
    /// assert_eq!(source.provenance().to_string(), "the file that KANAL_API_KEY_FILE names");
    /// ```
    #[must_use]
    pub fn named_by_variable(variable: impl Into<String>) -> Self {
        let folder = std::env::current_dir().unwrap_or_default();
        Self::at(FilePlace::Named(NamedFile { variable: variable.into(), folder }))
    }

    /// A credential from `LoadCredential=` or `LoadCredentialEncrypted=` of a systemd unit: a file in
    /// `$CREDENTIALS_DIRECTORY`, which only the service can read. The name is one file name: one that could
    /// lead out of the directory is refused when it is read.
    ///
    /// ```ini
    /// [Service]
    /// LoadCredentialEncrypted=kanal_api_key
    /// ```
    ///
    /// ```
    /// use keysheath::key::{Issuer, Kanal};
    /// use keysheath::source::{self, Absence, Loaded, SecretFile};
    ///
    /// let source = SecretFile::systemd_credential("kanal_api_key");
    /// # if std::env::var_os("CREDENTIALS_DIRECTORY").is_none() {
    /// let loaded = source::load(&source, Kanal::PROFILE)?;
    /// assert!(matches!(loaded, Loaded::Absent(Absence::NoCredentials)));
    /// # }
    /// # Ok::<(), keysheath::source::SourceError>(())
    /// ```
    #[must_use]
    pub fn systemd_credential(name: impl Into<String>) -> Self {
        Self::at(FilePlace::Systemd { name: name.into() })
    }

    /// Refuses a file that its group or others can read. (Kubernetes mounts secrets with mode 644
    /// unless `defaultMode` says otherwise, so this is not the default.)
    #[must_use]
    pub fn with_strict_permissions(mut self) -> Self {
        self.reader.is_strict = true;
        self
    }

    const fn at(place: FilePlace) -> Self {
        Self { place, reader: Reader::new() }
    }
}

file_settings!(SecretFile);

/// The file that a variable `NAME_FILE` names.
#[derive(Clone, Debug)]
struct NamedFile {
    /// The variable without `_FILE`.
    variable: String,
    /// The working directory of when it was created.
    folder: PathBuf,
}

impl Source for SecretFile {
    fn provenance(&self) -> Provenance {
        match &self.place {
            FilePlace::Path(path) => Provenance::File { path: path.clone() },
            FilePlace::Named(file) => file.place(None),
            FilePlace::Systemd { name } => Provenance::Systemd { name: name.clone() },
        }
    }

    fn is_own(&self, _: Seal) -> bool {
        true
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let outcome = match &self.place {
            FilePlace::Named(file) => return file.read(&self.reader),
            FilePlace::Systemd { name } => read_credential(name, &self.reader),
            FilePlace::Path(path) => {
                let file = self.reader.read(path, MAX_SECRET_FILE);
                file.map(|file| {
                    let stamp = file.as_ref().and_then(|(_, _, stamp)| *stamp);
                    file::reading(file, Absence::NoFile).with_state(path, stamp)
                })
            }
        };
        outcome.map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}

impl NamedFile {
    fn name(&self) -> String {
        format!("{}_FILE", self.variable)
    }

    /// The number of components of the whole path that do not come from the variable's text.
    fn own_parts(&self, text: &Path) -> usize {
        if text.is_absolute() { 1 } else { self.folder.components().count() }
    }

    fn place(&self, path: Option<PathBuf>) -> Provenance {
        Provenance::FileVariable { name: self.name(), path }
    }

    fn read(&self, reader: &Reader) -> Result<Reading, SourceError> {
        let path = match std::env::var_os(self.name()) {
            None => return Ok(Reading::absent(Absence::NotSet)),
            Some(path) if path.is_empty() => return Ok(Reading::absent(Absence::EmptyVariable)),
            Some(path) => path,
        };
        if variable(&self.variable).is_some_and(|text| !text.is_empty()) {
            let variable = self.variable.clone();
            return Err(SourceError::new(self.place(None), Problem::BothSet { variable }));
        }
        let text = WipedPath::from(path);
        let path = WipedPath::from(self.folder.join(&*text).into_os_string());
        // The text may be the key itself, so it is shown only once it is certainly a path. That is decided
        // before the file is opened, which may hang.
        let is_path = Arc::new(AtomicBool::new(false));
        let (reported, own) = (Arc::clone(&is_path), self.own_parts(&text));
        let file = reader.read_after(&path, MAX_SECRET_FILE, move |path| {
            reported.store(leads_somewhere(path, own), Ordering::Release);
        });
        let is_path = is_path.load(Ordering::Acquire) || matches!(file, Ok(Some(_)));
        let place = self.place(is_path.then(|| path.to_path_buf()));
        match file.and_then(|file| file.ok_or_else(|| gone(&text))) {
            Ok((text, remarks, _)) => {
                Ok(Reading::of_wiped(text).with_remarks(remarks).with_provenance(place))
            }
            Err(problem) => Err(SourceError::new(place, problem)),
        }
    }
}

fn read_credential(name: &str, reader: &Reader) -> Result<Reading, Problem> {
    if !is_credential_name(name) {
        return Err(Problem::BadPath {
            rule: "a credential's name must be one file name, without separators",
        });
    }
    let Some(directory) = directory() else { return Ok(Reading::absent(Absence::NoCredentials)) };
    if !directory.is_absolute() {
        return Err(Problem::BadPath { rule: "$CREDENTIALS_DIRECTORY must be an absolute path" });
    }
    let path = directory.join(name);
    let gone = Arc::new(AtomicBool::new(false));
    let (reported, folder) = (Arc::clone(&gone), directory);
    // systemd creates the directory before it starts the service.
    let file = reader.read_after(&path, MAX_SECRET_FILE, move |_| {
        reported.store(!folder.is_dir(), Ordering::Release);
    })?;
    if file.is_none() && gone.load(Ordering::Acquire) {
        return Err(Problem::BadPath {
            rule: "the directory that $CREDENTIALS_DIRECTORY names does not exist: let systemd start the \
                   program, or unset the variable",
        });
    }
    Ok(file::reading(file, Absence::NoFile))
}

/// The directory of this service's credentials.
fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
    directory.map(PathBuf::from)
}

/// The file of a credential, whether or not it exists.
pub(crate) fn credential_path(name: &str) -> Option<PathBuf> {
    directory().filter(|_| is_credential_name(name)).map(|directory| directory.join(name))
}

impl Source for Variable {
    fn provenance(&self) -> Provenance {
        Provenance::Variable { name: self.name.clone() }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let Some(text) = variable(&self.name) else {
            return Ok(Reading::absent(Absence::NotSet));
        };
        if text.is_empty() {
            return Ok(Reading::absent(Absence::EmptyVariable));
        }
        let partner = variable(&format!("{}_FILE", self.name));
        if partner.is_some_and(|path| !path.is_empty()) {
            let variable = self.name.clone();
            return Err(SourceError::new(self.provenance(), Problem::BothSet { variable }));
        }
        Ok(Reading::of_wiped(text))
    }
}

/// Why the file that a variable names does not exist.
fn gone(text: &Path) -> Problem {
    let rule = match reference_scheme(text.as_os_str().as_encoded_bytes()) {
        Some("file") => "the variable takes a path, and holds a reference: write the path without file:",
        Some(_) => {
            "the variable takes a path, and holds a reference: write the path of a file, or give the \
             reference to the program's own setting"
        }
        None => return Problem::FileGone,
    };
    Problem::BadPath { rule }
}

/// The bytes of a variable, whatever they are. `std::env::var` would print them in its error.
pub(crate) fn variable(name: &str) -> Option<WipedBytes> {
    // A name with `=` or NUL is in no environment, and the standard library would panic on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    let text = std::env::var_os(name)?;
    Some(WipedBytes::from(text.into_encoded_bytes()))
}

/// Whether the file exists, or a directory on the way to it beyond the first `parts` components. A key may
/// begin with `/` or `./` too, so the form of a text decides nothing.
fn leads_somewhere(path: &Path, parts: usize) -> bool {
    let ways: Vec<&Path> = path.ancestors().collect();
    let mut ways = ways.into_iter().rev().filter(|way| way.components().count() > parts);
    ways.any(|way| way.file_name().is_some() && way.exists())
}

/// What people write after an issuer's name.
const ENDS: [&str; 7] = ["_API_KEY", "_KEY", "_TOKEN", "_APIKEY", "_API_TOKEN", "_ACCESS_TOKEN", "_SECRET"];

/// Names that people use by mistake for the variable `name`, without `name` itself.
pub(crate) fn similar_names(name: &str) -> Vec<String> {
    let upper = name.to_ascii_uppercase();
    let stem = ENDS.iter().find_map(|end| upper.strip_suffix(end)).filter(|stem| !stem.is_empty());
    let mut names: Vec<String> =
        stem.into_iter().flat_map(|stem| ENDS.map(|end| format!("{stem}{end}"))).collect();
    // On Windows, names that differ in case are the same.
    if cfg!(unix) {
        names.push(upper.clone());
        names.extend(names.clone().iter().map(|name| name.to_ascii_lowercase()));
    }
    names.sort();
    names.dedup();
    names.retain(|other| other != name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_those_that_people_write() {
        let names = similar_names("KANAL_API_KEY");
        for name in ["KANAL_KEY", "KANAL_TOKEN", "KANAL_APIKEY", "KANAL_API_TOKEN", "KANAL_SECRET"] {
            assert!(names.iter().any(|other| other == name), "{name}: {names:?}");
        }
        assert!(!names.iter().any(|name| name == "KANAL_API_KEY"));
        assert_eq!(names.iter().any(|name| name == "kanal_api_key"), cfg!(unix));
        assert!(similar_names("X").iter().all(|name| name == "x"));
    }
}
