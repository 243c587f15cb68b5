//! The places that a key is loaded from.
//!
//! A [`Source`] reads a text; [`load`] checks it and turns it into a key. If nothing is there, that is an
//! [`Absence`] and not an error: a [`Chain`](crate::chain::Chain) continues past it. Everything else (a
//! malformed text, a file that others may write, a keychain that does not answer) is a [`SourceError`] and
//! ends the search: falling through to another key would send data to another account. One leading byte order
//! mark and one final newline (LF or CRLF) are removed from the text of every source. For a key in base64, in
//! a field of JSON or on one of several lines, use [`Source::base64`], [`Source::field`] and
//! [`Source::line`].
//!
//! Sources block. What may hang (a file on a dead mount, a locked keychain, a command) runs on a thread of
//! its own with a deadline of 30 s, so that a person can answer a prompt. In async code, load through the
//! runtime's `spawn_blocking`.
//!
//! In a process, at most four calls to one place (a file, a program with its arguments, a service of the
//! keychain, a secret in OpenBao) are under way at once, however many sources name it, and 64 to all places. A
//! further call waits for its turn until its deadline, and then fails with [`CallError::Queued`]. Once four
//! calls hang past their deadlines, further calls to the place fail at once with [`CallError::Stuck`], except
//! for one that tries from time to time whether the place answers again.
//!
//! | source | reads | ends with an error when |
//! |---|---|---|
//! | [`Variable`] | an environment variable | it is malformed, or its `_FILE` partner is set as well |
//! | [`FileVariable`] | the file that a `…_FILE` variable names | the file is gone, or as [`SecretFile`] |
//! | [`SecretFile`] | a mounted secret or a pipe | it is empty, too large, or others may write it |
//! | [`SystemdCredential`] | `$CREDENTIALS_DIRECTORY` | as [`SecretFile`] |
//! | [`Command`] | a program's standard output | it fails, prints nothing or takes too long |
//! | `DotenvFile` | one variable of a `.env` | its line is ambiguous, or it is set twice |
//! | `KeychainItem` | the OS keychain | it is locked and not unlocked in time, or two items match |
//! | `OpenBaoField` | a field of a secret in OpenBao or Vault | it was deleted, or the token is refused |
//!
//! ```
//! use keysheath::key::{Issuer, Kanal};
//! use keysheath::source::{self, Loaded, SecretFile};
//!
//! let source = SecretFile::new("/run/secrets/no-such-key");
//! match source::load(&source, Kanal::PROFILE)? {
//!     Loaded::Found(found) => println!("{:?} from {}", found.key(), found.provenance()),
//!     Loaded::Absent(absence) => println!("no key: {absence}"),
//! }
//! # Ok::<(), keysheath::source::SourceError>(())
//! ```

mod command;
#[cfg(feature = "dotenv")]
mod dotenv;
mod env;
mod error;
mod file;
#[cfg(feature = "keychain")]
mod keychain;
#[cfg(feature = "openbao")]
pub(crate) mod openbao;
mod provenance;
pub(crate) mod reference;
mod text;

use std::fmt;
use std::sync::Arc;

use crate::internal::bytes::WipedBytes;
use crate::key::{Profile, RawKey};

pub use crate::internal::calls::CallError;
pub use command::Command;
#[cfg(feature = "dotenv")]
pub use dotenv::DotenvFile;
#[cfg(feature = "rotation")]
pub(crate) use env::credential_path;
pub use env::{FileVariable, SystemdCredential, Variable};
pub(crate) use env::{similar_names, variable as variable_text};
pub use error::{LineFault, Problem, Resource, SourceError};
pub use file::SecretFile;
#[cfg(feature = "keychain")]
pub use keychain::{Keychain, KeychainItem};
#[cfg(feature = "openbao")]
pub use openbao::OpenBaoField;
pub use provenance::Provenance;
pub use reference::{KeyRef, KeyRefError};
pub use text::Adapted;
use text::Rule;
pub(crate) use text::{is_uuid, without_mark_and_newline};

/// A place that a key is loaded from. Implement it for a place of your own.
///
/// ```
/// use keysheath::key::{Issuer, Kanal, Profile};
/// use keysheath::source::{self, Loaded, Provenance, Reading, Source, SourceError};
///
/// struct Vault;
///
/// impl Source for Vault {
///     fn provenance(&self) -> Provenance {
///         Provenance::other("vault", "shop/kanal")
///     }
///
///     fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
///         let text = String::from("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z");
///         Ok(Reading::present(text))
///     }
/// }
///
/// assert!(matches!(source::load(&Vault, Kanal::PROFILE)?, Loaded::Found(_)));
/// # Ok::<(), SourceError>(())
/// ```
pub trait Source: Send + Sync {
    /// The place that this source reads, for messages. It must not show a secret.
    fn provenance(&self) -> Provenance;

    /// Reads the text, decoded, for a key of the issuer of `profile`.
    ///
    /// # Errors
    /// [`SourceError`] if there is something that cannot be read.
    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError>;

    /// Decodes the text from base64 (RFC 4648, section 4: the standard alphabet, padded, on one line).
    fn base64(self) -> Adapted<Self>
    where
        Self: Sized,
    {
        Adapted { source: self, rule: Rule::Base64 }
    }

    /// Takes the key from this field of the text, which is a JSON object. The other fields may hold anything.
    fn field(self, name: impl Into<String>) -> Adapted<Self>
    where
        Self: Sized,
    {
        Adapted { source: self, rule: Rule::Field(name.into()) }
    }

    /// Takes the key from this line of the text, counted from 1.
    fn line(self, line: usize) -> Adapted<Self>
    where
        Self: Sized,
    {
        Adapted { source: self, rule: Rule::Line(line) }
    }

    /// Makes an absence an error ([`Problem::Missing`]), so that a chain does not continue past this source.
    /// The sources of key references and of `with_dotenv` are required.
    fn required(self) -> Adapted<Self>
    where
        Self: Sized,
    {
        Adapted { source: self, rule: Rule::Required }
    }
}

/// What a source read: a text or nothing.
#[derive(Debug)]
pub struct Reading(Content);

#[derive(Debug)]
enum Content {
    Present { text: WipedBytes, provenance: Option<Provenance>, remarks: Vec<Remark> },
    Absent(Absence),
}

impl Reading {
    /// A text, not yet checked. The block of a `String` or `Vec<u8>` is taken over and wiped in place when
    /// it is dropped; a borrowed text is copied. Removes one leading byte order mark and one final newline
    /// (LF or CRLF).
    #[must_use]
    pub fn present(text: impl Into<Vec<u8>>) -> Self {
        Self::of_wiped(WipedBytes::from(text.into()))
    }

    fn of_wiped(text: WipedBytes) -> Self {
        let text = without_mark_and_newline(text);
        Self(Content::Present { text, provenance: None, remarks: Vec::new() })
    }

    /// Nothing is there.
    #[must_use]
    pub const fn absent(absence: Absence) -> Self {
        Self(Content::Absent(absence))
    }

    /// Sets the place of the text, if it is more precise than the source's own provenance.
    #[must_use]
    pub fn with_provenance(mut self, place: Provenance) -> Self {
        if let Content::Present { provenance, .. } = &mut self.0 {
            *provenance = Some(place);
        }
        self
    }

    /// Adds what a person should know about the place.
    #[must_use]
    pub fn with_remarks(mut self, more: Vec<Remark>) -> Self {
        if let Content::Present { remarks, .. } = &mut self.0 {
            remarks.extend(more);
        }
        self
    }
}

/// Why nothing is there. None of these stops a chain, unless the source is [required](Source::required).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Absence {
    /// The variable is not set.
    #[error("not set")]
    NotSet,
    /// The variable is set to nothing.
    #[error("set and empty, which counts as not set")]
    EmptyVariable,
    /// There is no such file.
    #[error("no such file")]
    NoFile,
    /// The file exists and does not set the variable.
    #[error("the file does not set it")]
    NotInFile,
    /// The file exists and does not set the variable, but sets one of a similar name.
    #[error("the file does not set it; line {line} sets a variable of a similar name")]
    #[non_exhaustive]
    SimilarInFile {
        /// The line, counted from 1.
        line: usize,
    },
    /// `$CREDENTIALS_DIRECTORY` is not set: systemd passed no credentials.
    #[error("$CREDENTIALS_DIRECTORY is not set: systemd passed no credentials")]
    NoCredentials,
    /// The keychain has no such item, or no default collection.
    #[error("no such item in the keychain")]
    NoItem,
    /// No secret was ever written there.
    #[error("no such secret in OpenBao")]
    NoSecret,
}

/// Something that a person should know about a place that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Remark {
    /// Users other than the owner and the group may read the file.
    #[error("every user of this machine can read it (mode {mode:03o})")]
    ReadableByOthers {
        /// The permission bits.
        mode: u32,
    },
    /// The file no longer has a name: it was replaced or removed where it is mounted from. This happens to a
    /// file that is mounted alone (by `subPath` or a bind mount).
    #[error(
        "it was replaced or removed where it is mounted from, and a mount of one file never shows another: \
         mount its folder, and restart"
    )]
    Unlinked,
    /// The text came through a pipe.
    #[error("it is a pipe, which gives a text once")]
    Pipe,
    /// Programs disagree about lines of a `.env` that set other variables.
    #[error(
        "programs that read .env files disagree about line {first}{}: write NAME=value with the value in \
         quotes that the value does not contain, or make the line a comment (#) where it sets nothing",
        Others(*.count)
    )]
    #[non_exhaustive]
    UnclearLines {
        /// The first of them, counted from 1.
        first: usize,
        /// How many there are.
        count: usize,
    },
}

/// The text after the number of the first line about another variable.
struct Others(usize);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => f.write_str(", which is about another variable"),
            count => write!(f, " and {} more, which are about other variables", count - 1),
        }
    }
}

/// A key, where it came from, and what to know about that place.
#[derive(Debug)]
pub struct Found {
    key: RawKey,
    provenance: Provenance,
    remarks: Vec<Remark>,
}

impl Found {
    /// The key.
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        &self.key
    }

    /// Returns the key.
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }

    /// Where the key came from.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What a person should know about the place.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }
}

/// The result of loading from one source.
#[derive(Debug)]
pub enum Loaded {
    /// A well-formed key.
    Found(Found),
    /// Nothing is there.
    Absent(Absence),
}

/// Reads a source and parses a key. A well-formed placeholder is refused: see
/// [`KeyFormat::screen`](crate::key::KeyFormat::screen).
///
/// # Errors
/// [`SourceError`] if there is something that is not a well-formed key, or that cannot be read.
pub fn load<S: Source + ?Sized>(source: &S, profile: &'static Profile) -> Result<Loaded, SourceError> {
    let (text, provenance, remarks) = match source.read(profile)?.0 {
        Content::Absent(absence) => return Ok(Loaded::Absent(absence)),
        Content::Present { text, provenance, remarks } => (text, provenance, remarks),
    };
    let provenance = provenance.unwrap_or_else(|| source.provenance());
    match text::parse(&text, profile) {
        Ok(key) => Ok(Loaded::Found(Found { key, provenance, remarks })),
        Err(problem) => Err(SourceError::new(provenance, problem)),
    }
}

macro_rules! implement_for_pointers {
    ($($pointer:ty),*) => {
        $(impl<S: Source + ?Sized> Source for $pointer {
            fn provenance(&self) -> Provenance {
                (**self).provenance()
            }

            fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
                (**self).read(profile)
            }
        })*
    };
}

implement_for_pointers!(&S, Box<S>, Arc<S>);

/// The keychain item of an issuer: service [`KEYCHAIN_SERVICE`], named as the issuer.
#[cfg(feature = "keychain")]
pub(crate) fn keychain_of(profile: &'static Profile) -> Box<dyn Source> {
    Box::new(KeychainItem::for_issuer(profile))
}

/// The keychain item of an issuer, in a build that cannot read it.
#[cfg(not(feature = "keychain"))]
pub(crate) fn keychain_of(profile: &'static Profile) -> Box<dyn Source> {
    struct NotBuilt(&'static Profile);

    impl Source for NotBuilt {
        fn provenance(&self) -> Provenance {
            let (service, name) = (KEYCHAIN_SERVICE.to_owned(), self.0.name().to_owned());
            Provenance::Keychain { service, name }
        }

        fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
            Err(SourceError::new(self.provenance(), Problem::NotBuilt { feature: "keychain" }))
        }
    }

    Box::new(NotBuilt(profile))
}

/// The keychain service of items that name none.
pub(crate) const KEYCHAIN_SERVICE: &str = "keysheath";

/// systemd's rule for the name of a credential: one file name, so no separator, and neither `.` nor `..`.
pub(crate) fn is_credential_name(name: &str) -> bool {
    let plain = !name.contains(['/', '\\', '\0', ':']);
    plain && !matches!(name, "" | "." | "..") && name.len() <= 255
}

/// Whether a name of a service or item is possible in every platform's keychain and in a key reference.
pub(crate) fn is_item_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains(|c: char| c == '/' || c.is_control())
}
