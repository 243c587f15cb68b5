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
//! Sources block. What may hang (a file on a dead mount, a locked keychain, a command) runs on another
//! thread with a deadline of 30 s, so that a person can answer a prompt. In async code, load through the
//! runtime's `spawn_blocking`.
//!
//! A command and the keychain have a thread for each call. The threads that read files and ask OpenBao are
//! kept for the next calls: at most two, for a minute, and only once calls follow one another. Before a call
//! returns, the stack of its thread is wiped. A kept thread, as that of the refreshers, has the signal mask
//! of the thread that started it, and its Landlock rules, seccomp filters and capabilities: restrict a
//! process before it loads its first key. A forked child has threads of its own.
//!
//! In a process, at most four calls to one place (a file, a program with its arguments, a service of the
//! keychain, a secret in OpenBao) are under way at once, however many sources name it, and 64 to all places.
//! A further call waits for its turn until its deadline, and then fails with [`CallError::Queued`]. Once four
//! calls hang past their deadlines, further calls to the place fail at once with [`CallError::Stuck`], except
//! for one that tries from time to time whether the place answers again.
//!
//! | source | reads | ends with an error when |
//! |---|---|---|
//! | [`Variable`] | an environment variable | it is malformed, or its `_FILE` partner is set as well |
//! | [`SecretFile::named_by_variable`] | the file that a `…_FILE` variable names | the file is gone, or as [`SecretFile`] |
//! | [`SecretFile`] | a mounted secret or a pipe | it is empty, too large, or others may write it |
//! | [`SecretFile::systemd_credential`] | `$CREDENTIALS_DIRECTORY` | as [`SecretFile`] |
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
pub(crate) mod env;
mod error;
mod file;
#[cfg(feature = "keychain")]
mod keychain;
#[cfg(feature = "openbao")]
pub(crate) mod openbao;
mod reading;
pub(crate) mod reference;

use std::fmt;
use std::sync::Arc;

use crate::internal::bytes::{WipedBytes, decode_base64};
use crate::internal::calls::Seal;
use crate::internal::files::private::ReadState;
use crate::internal::json_text::{self, NoText};
use crate::key::{Profile, RawKey};

pub use crate::internal::calls::CallError;
pub use command::Command;
#[cfg(feature = "dotenv")]
pub use dotenv::DotenvFile;
pub use env::{SecretFile, Variable};
pub(crate) use env::{similar_names, variable as variable_text};
pub use error::{LineFault, Problem, Resource, SourceError};
#[cfg(feature = "keychain")]
pub use keychain::{Keychain, KeychainItem};
#[cfg(feature = "openbao")]
pub use openbao::OpenBaoField;
use reading::Content;
pub use reading::{Absence, Provenance, Reading, Remark};
pub(crate) use reading::{is_uuid, without_mark_and_newline};
pub use reference::{KeyRef, KeyRefError};

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

    /// Returns whether reading runs this crate's own code alone, so that it may run on a thread that is kept.
    #[doc(hidden)]
    fn is_own(&self, _: Seal) -> bool {
        false
    }

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

/// A key, where it came from, and what to know about that place.
#[derive(Debug)]
pub struct Found {
    key: RawKey,
    provenance: Provenance,
    remarks: Vec<Remark>,
    state: Option<ReadState>,
}

impl Found {
    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        &self.key
    }

    /// Returns the key.
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }

    /// Returns where the key came from.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns the state of the file that the key is from.
    #[cfg(feature = "rotation")]
    pub(crate) const fn state(&self) -> Option<&ReadState> {
        self.state.as_ref()
    }

    /// Returns what a person should know about the place.
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
    let (text, provenance, remarks, state) = match source.read(profile)?.0 {
        Content::Absent(absence) => return Ok(Loaded::Absent(absence)),
        Content::Present { text, provenance, remarks, state } => (text, provenance, remarks, state),
    };
    let provenance = provenance.unwrap_or_else(|| source.provenance());
    match reading::parse(&text, profile) {
        Ok(key) => Ok(Loaded::Found(Found { key, provenance, remarks, state })),
        Err(problem) => Err(SourceError::new(provenance, problem)),
    }
}

/// An adapter over a source, returned by [`Source::base64`] and its neighbours. It has a rule of its own
/// about the text or its absence.
pub struct Adapted<S> {
    source: S,
    rule: Rule,
}

/// What is done with what a source read.
#[derive(Clone)]
enum Rule {
    Base64,
    Field(String),
    /// Counted from 1.
    Line(usize),
    Required,
}

impl Rule {
    fn apply(&self, text: WipedBytes) -> Result<WipedBytes, Problem> {
        let text = match self {
            Self::Required => return Ok(text),
            Self::Base64 => decode_base64(&text).ok_or(Problem::NotBase64)?,
            Self::Line(number) => reading::line(text, *number)?,
            Self::Field(name) => json_text::field(&text, name).map_err(|why| match why {
                NoText::NotAnObject => Problem::NotJson,
                NoText::Missing => Problem::NoField { name: name.clone() },
                NoText::Twice => Problem::FieldTwice { name: name.clone() },
                NoText::NotAText => Problem::FieldNotText { name: name.clone() },
            })?,
        };
        Ok(without_mark_and_newline(text))
    }
}

impl<S: Source> Source for Adapted<S> {
    fn provenance(&self) -> Provenance {
        self.source.provenance()
    }

    fn is_own(&self, seal: Seal) -> bool {
        self.source.is_own(seal)
    }

    fn read(&self, profile: &'static Profile) -> Result<Reading, SourceError> {
        match (self.source.read(profile)?.0, &self.rule) {
            (Content::Absent(absence), Rule::Required) => {
                Err(SourceError::new(self.provenance(), Problem::Missing { absence }))
            }
            (absent @ Content::Absent(_), _) => Ok(Reading(absent)),
            (Content::Present { text, provenance, remarks, state }, rule) => match rule.apply(text) {
                Ok(text) => Ok(Reading(Content::Present { text, provenance, remarks, state })),
                Err(problem) => {
                    Err(SourceError::new(provenance.unwrap_or_else(|| self.provenance()), problem))
                }
            },
        }
    }
}

impl<S: Source> fmt::Debug for Adapted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adapted({})", self.provenance())
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

            fn is_own(&self, seal: Seal) -> bool {
                (**self).is_own(seal)
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
