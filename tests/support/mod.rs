//! Helpers that tests share. Each test binary has them as its module `support`.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its part")]

pub(crate) mod answering;
pub(crate) mod canary;
pub(crate) mod child;
#[cfg(unix)]
pub(crate) mod faketime;
#[cfg(unix)]
pub(crate) mod forked;
pub(crate) mod http;
#[cfg(feature = "rotation")]
pub(crate) mod keys;
pub(crate) mod logged;
#[cfg(all(unix, feature = "oauth"))]
pub(crate) mod oidc;
#[cfg(all(feature = "openbao", target_os = "linux"))]
pub(crate) mod openbao;
#[cfg(unix)]
pub(crate) mod passing;
pub(crate) mod recorder;
#[cfg(feature = "rotation")]
pub(crate) mod refreshing;
#[cfg(target_os = "linux")]
pub(crate) mod residue;
#[cfg(target_os = "linux")]
pub(crate) mod secret_service;
#[cfg(all(feature = "keychain", target_os = "linux"))]
pub(crate) mod fake_secret_service;
#[cfg(feature = "rotation")]
pub(crate) mod steps;
pub(crate) mod stores;
pub(crate) mod tls;
pub(crate) mod traced;
pub(crate) mod waiting;

use std::error::Error;
use std::path::{Path, PathBuf};

use keysheath::key::{Issuer, Kanal};
use keysheath::source::{self, Absence, Found, Loaded, Problem, Source, SourceError};

pub(crate) use child::{Child, as_ordinary_user, in_child, with_a_file_of_another_user};

/// How many calls to one place may be under way at once, as the docs of `source` say.
pub(crate) const MAX_CALLS_PER_PLACE: usize = 4;

/// The largest key file, in bytes, as the docs of `SecretFile` say.
pub(crate) const MAX_SECRET_FILE: usize = 8192;

/// A well-formed Kanal key. Each run of four of its bytes has a capital, so that no fingerprint holds one.
pub(crate) const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

/// Another one.
pub(crate) const OTHER_KEY: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

/// [`KEY`] in base64, by `base64 -w0`.
pub(crate) const KEY_IN_BASE64: &str = "OGZLMnBYOW1XcTRMZDdWYjNOYzZUczFa";

/// Loads a Kanal key that must be there.
pub(crate) fn found(source: &dyn Source) -> Found {
    match source::load(source, Kanal::PROFILE) {
        Ok(Loaded::Found(found)) => found,
        other => panic!("a key was expected from {}, not {other:?}", source.provenance()),
    }
}

/// Asserts that a source gives [`KEY`].
pub(crate) fn assert_gives_the_key(source: &dyn Source) {
    assert!(found(source).key().matches(KEY.as_bytes()), "another key from {}", source.provenance());
}

/// Loads from a source that must have nothing.
pub(crate) fn absence(source: &dyn Source) -> Absence {
    match source::load(source, Kanal::PROFILE) {
        Ok(Loaded::Absent(absence)) => absence,
        other => panic!("nothing was expected from {}, not {other:?}", source.provenance()),
    }
}

/// Loads from a source that must be broken, and checks that the error names the place.
pub(crate) fn error(source: &dyn Source) -> SourceError {
    match source::load(source, Kanal::PROFILE) {
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with(&format!("{}: ", error.provenance())), "{message}");
            assert_prints_nothing_of(&error, KEY);
            assert_prints_nothing_of(&error, OTHER_KEY);
            error
        }
        other => panic!("an error was expected from {}, not {other:?}", source.provenance()),
    }
}

/// As [`error`], the problem alone.
pub(crate) fn problem(source: &dyn Source) -> Problem {
    error(source).problem().clone()
}

/// Asserts that neither an error nor its causes print any four bytes of `secret` in a row.
pub(crate) fn assert_prints_nothing_of(error: &(dyn Error + 'static), secret: &str) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        assert_nothing_of_in(secret, &format!("{error}\n{error:?}\n{error:#?}"));
        cause = error.source();
    }
}

/// Asserts that a text has no four bytes of `secret` in a row.
pub(crate) fn assert_nothing_of_in(secret: &str, printed: &str) {
    let runs = secret.as_bytes().windows(4.min(secret.len()));
    for run in runs {
        let shown = printed.as_bytes().windows(run.len()).any(|window| window == run);
        assert!(!shown, "{:?} is printed: {printed}", String::from_utf8_lossy(run));
    }
}

/// A temporary folder to put files into.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file here, which need not exist.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file with mode 600, whatever the umask is.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, content).expect("a file can be written");
        #[cfg(unix)]
        set_mode(&path, 0o600);
        path
    }
}

#[cfg(unix)]
pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the mode can be set");
}
