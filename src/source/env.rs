//! Environment variables, and files that a variable names.

use std::path::{Path, PathBuf};

use super::file::{self, Permissions, WipedPath};
use super::worker::Worker;
use super::{Absence, Problem, Provenance, Reading, SecretText, Source, SourceError};
use crate::issuer::Profile;

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
/// use keysheath::{issuer::{Issuer, Kanal}, source::{Source, Variable}};
///
/// let source = Variable::of(Kanal::PROFILE);
/// assert_eq!(source.provenance().to_string(), "variable KANAL_API_KEY");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    name: String,
}

/// A file that the environment variable `NAME_FILE` names, as Docker's images do it.
///
/// When the variable is set and the file is not there, that is an error and not an absence: somebody meant
/// the key to come from there.
///
/// ```
/// use keysheath::{issuer::{Issuer, Kanal}, source::{FileVariable, Source}};
///
/// let source = FileVariable::of(Kanal::PROFILE);
/// assert_eq!(source.provenance().to_string(), "the file that KANAL_API_KEY_FILE names");
/// ```
#[derive(Clone, Debug)]
pub struct FileVariable {
    variable: String,
    permissions: Permissions,
    worker: Worker,
}

impl Variable {
    /// The variable of this name.
    ///
    /// ```
    /// # use keysheath::source::Variable;
    /// let source = Variable::new("SHOP_TWO_KEY");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The variable that the issuer's users know.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Katana}, source::Variable};
    /// assert_eq!(Variable::of(Katana::PROFILE), Variable::new("KATANA_API_KEY"));
    /// ```
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        Self::new(profile.variable())
    }
}

impl FileVariable {
    /// The file that `variable` with `_FILE` at its end names.
    ///
    /// ```
    /// # use keysheath::source::{FileVariable, Source};
    /// let source = FileVariable::new("SHOP_TWO_KEY");
    /// assert!(source.provenance().to_string().contains("SHOP_TWO_KEY_FILE"));
    /// ```
    #[must_use]
    pub fn new(variable: impl Into<String>) -> Self {
        Self { variable: variable.into(), permissions: Permissions::default(), worker: Worker::new() }
    }

    /// For the variable that the issuer's users know.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Katana}, source::FileVariable};
    /// let source = FileVariable::of(Katana::PROFILE);
    /// ```
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        Self::new(profile.variable())
    }

    /// Refuses a file that others can read, as [`SecretFile::strict_permissions`] does.
    ///
    /// ```
    /// # use keysheath::source::FileVariable;
    /// let source = FileVariable::new("KANAL_API_KEY").strict_permissions();
    /// ```
    ///
    /// [`SecretFile::strict_permissions`]: super::SecretFile::strict_permissions
    #[must_use]
    pub fn strict_permissions(mut self) -> Self {
        self.permissions = Permissions::Strict;
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
        let path = WipedPath::from(path);
        let asked = WipedPath::from(path.to_path_buf().into_os_string());
        let permissions = self.permissions;
        let reading = self.worker.run(file::place(&path), move || {
            let text = file::read_key_file(&asked, permissions);
            // A person may have put the key itself here, so the text is shown only once it is surely a path.
            let is_path = matches!(text, Ok(Some(_))) || leads_somewhere(&asked);
            (text, is_path)
        });
        let (text, is_path) = reading.unwrap_or_else(|problem| (Err(problem), false));
        let place = self.place(is_path.then(|| path.to_path_buf()));
        match text.and_then(|text| text.ok_or(Problem::FileGone)) {
            Ok((text, remarks)) => Ok(Reading::present(text).with_remarks(remarks).with_provenance(place)),
            Err(problem) => Err(SourceError::new(place, problem)),
        }
    }
}

impl FileVariable {
    fn name(&self) -> String {
        format!("{}_FILE", self.variable)
    }

    fn place(&self, path: Option<PathBuf>) -> Provenance {
        Provenance::FileVariable { name: self.name(), path }
    }
}

/// The bytes of a variable, whatever they are. `std::env::var` would print them in its error.
fn variable(name: &str) -> Option<SecretText> {
    // A name with `=` or NUL is in no environment, and the standard library would panic on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    let text = std::env::var_os(name)?;
    Some(SecretText::from(text.into_encoded_bytes()))
}

/// Whether the file is there, or a folder on the way to it. A key, too, may begin with `/` or `./`, so the
/// look of a text does not tell.
fn leads_somewhere(path: &Path) -> bool {
    path.ancestors().any(|part| part.file_name().is_some() && part.exists())
}
