//! Environment variables, and files that a variable names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::file::{MAX_SECRET_FILE, Permissions, Reader, WipedPath};
use super::secret_text::reference_scheme;
use super::{Absence, Problem, Provenance, Reading, SecretText, Source, SourceError};
use crate::key::Profile;

/// An environment variable that holds the key.
///
/// A variable that is set to nothing counts as not set. When `NAME_FILE` is set as well, loading is refused:
/// the two may hold keys of different accounts.
///
/// # Security
/// The variable stays in the environment block, from where `/proc/PID/environ` and every child process can
/// read it. A file, a systemd credential or the keychain is better where you can choose.
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

/// A file that the environment variable `NAME_FILE` names, as Docker's images do it.
///
/// When the variable is set and the file is not there, that is an error and not an absence: somebody meant
/// the key to come from there. A relative path is taken from the working folder of when the source was made.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{FileVariable, Source};
///
/// let source = FileVariable::for_issuer(Kanal::PROFILE);
/// assert_eq!(source.provenance().to_string(), "the file that KANAL_API_KEY_FILE names");
/// ```
#[derive(Clone, Debug)]
pub struct FileVariable {
    variable: String,
    /// The working folder of when it was made.
    folder: PathBuf,
    reader: Reader,
}

impl Variable {
    /// The variable of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The variable that the issuer's users know.
    #[must_use]
    pub fn for_issuer(profile: &Profile) -> Self {
        Self::new(profile.variable())
    }
}

impl FileVariable {
    /// The file that `variable` with `_FILE` at its end names.
    #[must_use]
    pub fn new(variable: impl Into<String>) -> Self {
        let folder = std::env::current_dir().unwrap_or_default();
        Self { variable: variable.into(), folder, reader: Reader::new() }
    }

    /// For the variable that the issuer's users know.
    #[must_use]
    pub fn for_issuer(profile: &Profile) -> Self {
        Self::new(profile.variable())
    }

    /// Refuses a file that others can read, as [`SecretFile::strict_permissions`] does.
    ///
    /// [`SecretFile::strict_permissions`]: super::SecretFile::strict_permissions
    #[must_use]
    pub fn strict_permissions(mut self) -> Self {
        self.reader.permissions = Permissions::Strict;
        self
    }

    /// Takes the file from this user too, as [`SecretFile::trusting_owner`] does.
    ///
    /// [`SecretFile::trusting_owner`]: super::SecretFile::trusting_owner
    #[must_use]
    pub fn trusting_owner(mut self, uid: u32) -> Self {
        self.reader.trust.owner = Some(uid);
        self
    }

    /// Takes a file that this group can write, as [`SecretFile::trusting_group`] does.
    ///
    /// [`SecretFile::trusting_group`]: super::SecretFile::trusting_group
    #[must_use]
    pub fn trusting_group(mut self, gid: u32) -> Self {
        self.reader.trust.group = Some(gid);
        self
    }

    /// How long opening and reading the file may take; 30 s unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.reader.worker = self.reader.worker.with_deadline(deadline);
        self
    }
}

impl Source for Variable {
    fn provenance(&self) -> Provenance {
        Provenance::Variable { name: self.name.clone() }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let Some(text) = variable(&self.name) else {
            return Ok(Reading::absent(Absence::NotSet));
        };
        if text.bytes().is_empty() {
            return Ok(Reading::absent(Absence::EmptyVariable));
        }
        let partner = variable(&format!("{}_FILE", self.name));
        if partner.is_some_and(|path| !path.bytes().is_empty()) {
            let variable = self.name.clone();
            return Err(SourceError::new(self.provenance(), Problem::BothSet { variable }));
        }
        Ok(Reading::present(text))
    }
}

impl Source for FileVariable {
    fn provenance(&self) -> Provenance {
        self.place(None)
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        let path = match std::env::var_os(self.name()) {
            None => return Ok(Reading::absent(Absence::NotSet)),
            Some(path) if path.is_empty() => return Ok(Reading::absent(Absence::EmptyVariable)),
            Some(path) => path,
        };
        if variable(&self.variable).is_some_and(|text| !text.bytes().is_empty()) {
            let variable = self.variable.clone();
            return Err(SourceError::new(self.provenance(), Problem::BothSet { variable }));
        }
        let text = WipedPath::from(path);
        let path = WipedPath::from(self.folder.join(&*text).into_os_string());
        // A person may have put the key itself here, so the text is shown only once it is surely a path. That is told before
        // the file is opened, which may hang.
        let is_path = Arc::new(AtomicBool::new(false));
        let (told, own) = (Arc::clone(&is_path), self.own_parts(&text));
        let file = self.reader.read_after(&path, MAX_SECRET_FILE, move |path| {
            told.store(leads_somewhere(path, own), Ordering::Release);
        });
        let is_path = is_path.load(Ordering::Acquire) || matches!(file, Ok(Some(_)));
        let place = self.place(is_path.then(|| path.to_path_buf()));
        match file.and_then(|file| file.ok_or_else(|| gone(&text))) {
            Ok((text, remarks)) => Ok(Reading::present(text).with_remarks(remarks).with_provenance(place)),
            Err(problem) => Err(SourceError::new(place, problem)),
        }
    }
}

impl FileVariable {
    fn name(&self) -> String {
        format!("{}_FILE", self.variable)
    }

    /// How many parts of the whole path are not of the variable's text.
    fn own_parts(&self, text: &Path) -> usize {
        if text.is_absolute() { 1 } else { self.folder.components().count() }
    }

    fn place(&self, path: Option<PathBuf>) -> Provenance {
        Provenance::FileVariable { name: self.name(), path }
    }
}

/// Why there is no file of the name that a variable holds.
fn gone(text: &Path) -> Problem {
    let rule = match reference_scheme(text.as_os_str().as_encoded_bytes()) {
        Some("file") => "the variable takes a path, and holds a reference: write the path without file:",
        Some(_) => {
            "the variable takes a path, and holds a reference: write the path of a file, or give the reference to the \
             program's own setting"
        }
        None => return Problem::FileGone,
    };
    Problem::BadPath { rule }
}

/// The bytes of a variable, whatever they are. `std::env::var` would print them in its error.
pub(crate) fn variable(name: &str) -> Option<SecretText> {
    // A name with `=` or NUL is in no environment, and the standard library would panic on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    let text = std::env::var_os(name)?;
    Some(SecretText::from(text.into_encoded_bytes()))
}

/// Whether the file is there, or a folder on the way to it beyond the first `parts`; the first such folder is looked at first. A
/// key, too, may begin with `/` or `./`, so the look of a text does not tell.
fn leads_somewhere(path: &Path, parts: usize) -> bool {
    let ways: Vec<&Path> = path.ancestors().collect();
    let mut ways = ways.into_iter().rev().filter(|way| way.components().count() > parts);
    ways.any(|way| way.file_name().is_some() && way.exists())
}

/// What people write after an issuer's name.
const ENDS: [&str; 7] = ["_API_KEY", "_KEY", "_TOKEN", "_APIKEY", "_API_TOKEN", "_ACCESS_TOKEN", "_SECRET"];

/// Names that people give a variable in the place of its own, which is not among them.
pub(crate) fn similar_names(name: &str) -> Vec<String> {
    let upper = name.to_ascii_uppercase();
    let stem = ENDS.iter().find_map(|end| upper.strip_suffix(end)).filter(|stem| !stem.is_empty());
    let mut names: Vec<String> =
        stem.into_iter().flat_map(|stem| ENDS.map(|end| format!("{stem}{end}"))).collect();
    // Windows takes names that differ in case for the same.
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
