//! Credentials that systemd passes to a service.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::file::{self, MAX_SECRET_FILE, Reader};
use super::{Absence, Problem, Provenance, Reading, Source, SourceError, is_credential_name};
use crate::key::Profile;

const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A credential from `LoadCredential=` or `LoadCredentialEncrypted=` of a systemd unit: a file in
/// `$CREDENTIALS_DIRECTORY`, which only the service can read.
///
/// ```ini
/// [Service]
/// LoadCredentialEncrypted=kanal_api_key
/// ```
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{self, Absence, Loaded, SystemdCredential};
///
/// let source = SystemdCredential::new("kanal_api_key");
/// # if std::env::var_os("CREDENTIALS_DIRECTORY").is_none() {
/// let loaded = source::load(&source, Kanal::PROFILE)?;
/// assert!(matches!(loaded, Loaded::Absent(Absence::NoCredentials)));
/// # }
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SystemdCredential {
    name: String,
    reader: Reader,
}

impl SystemdCredential {
    /// The credential of this name. A name is one file name; one that could climb out of the directory is
    /// refused when it is read.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), reader: Reader::new() }
    }

    /// The credential with the name of the issuer's variable in lower case, such as `kanal_api_key`.
    #[must_use]
    pub fn for_issuer(profile: &Profile) -> Self {
        Self::new(profile.variable().to_ascii_lowercase())
    }

    /// How long opening and reading may take; 30 s unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.reader.worker = self.reader.worker.with_deadline(deadline);
        self
    }

    fn find(&self) -> Result<Reading, Problem> {
        if !is_credential_name(&self.name) {
            return Err(Problem::BadPath {
                rule: "a credential's name must be one file name, without separators",
            });
        }
        let Some(directory) = directory() else { return Ok(Reading::absent(Absence::NoCredentials)) };
        if !directory.is_absolute() {
            return Err(Problem::BadPath { rule: "$CREDENTIALS_DIRECTORY must be an absolute path" });
        }
        let path = directory.join(&self.name);
        let gone = Arc::new(AtomicBool::new(false));
        let (told, folder) = (Arc::clone(&gone), directory);
        // systemd makes the directory before it starts the service.
        let file = self.reader.read_after(&path, MAX_SECRET_FILE, move |_| {
            told.store(!folder.is_dir(), Ordering::Release);
        })?;
        if file.is_none() && gone.load(Ordering::Acquire) {
            return Err(Problem::BadPath {
                rule: "the directory that $CREDENTIALS_DIRECTORY names does not exist: let systemd start the program, or \
                       unset the variable",
            });
        }
        Ok(file::reading(file, Absence::NoFile))
    }
}

/// What the base64 of each encrypted credential has from its 23rd character on, after an id: the sizes of key, block,
/// initialisation vector and tag of AES-256-GCM.
const SIZES: &[u8; 20] = b"AAAAABAAAADAAAABAAAA";

/// Whether a text is a credential as `systemd-creds encrypt` writes it. In constant time: the text may be a key.
pub(super) fn is_encrypted(text: &[u8]) -> bool {
    text.get(22..42).is_some_and(|sizes| bool::from(sizes.ct_eq(SIZES)))
}

/// Where systemd has put the credentials of this service.
fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os(DIRECTORY).filter(|directory| !directory.is_empty());
    directory.map(PathBuf::from)
}

/// The file of a credential, whether or not it is there.
#[cfg(feature = "watch")]
pub(crate) fn credential_path(name: &str) -> Option<PathBuf> {
    directory().filter(|_| is_credential_name(name)).map(|directory| directory.join(name))
}

impl Source for SystemdCredential {
    fn provenance(&self) -> Provenance {
        Provenance::Systemd { name: self.name.clone() }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        self.find().map_err(|problem| SourceError::new(self.provenance(), problem))
    }
}
