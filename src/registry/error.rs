//! What a registry cannot do.

use std::io;

use super::record::RecordError;
use crate::fingerprint::Fingerprint;

/// A registry could not do what it was asked to, and nothing was changed.
///
/// ```
/// use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, RegistryError, Restriction, TeamId}};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let error = registry.create_key(TeamId::new(1), "", Restriction::None).unwrap_err();
/// assert_eq!(error, RegistryError::Name { rule: "it is empty" });
/// # Ok::<(), RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A name that no key can have.
    #[error(
        "the key's name is not valid: {rule}; give it 1 to 100 printable characters, such as production-shop"
    )]
    Name {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// There is no such key, or no longer.
    #[error("there is no such key; it may have been deleted: list the team's keys")]
    NoSuchKey,
    /// There is no such store, or it is another team's.
    #[error("there is no such store, or it is not this team's: add the store first")]
    NoSuchStore,
    /// A text that is no key's number.
    #[error("a key's number is 16 hexadecimal digits, as the list of keys shows it")]
    NotAKeyId,
    /// Four billion keys are there, or were.
    #[error("this registry has made as many keys as it can number: open a new one")]
    Full,
    /// The issuer's keys are so short that they could be guessed.
    #[error("keys of {length} letters and digits could be guessed: give the issuer a format of at least 14")]
    Weak {
        /// How long a key would be.
        length: usize,
    },
    /// The issuer's format does not allow a key of letters and digits.
    #[error("the issuer's format does not allow a key of letters and digits: mend the format")]
    NotAFormatOfLettersAndDigits,
    /// The generator of random bytes failed, or gave the same bytes again.
    #[error("the generator of random bytes failed ({0}): no key was made")]
    NoRandomness(io::ErrorKind),
    /// There are keys under a pepper that was not given.
    #[error(
        "there are keys under the pepper {id}, which was not given: load it too, as an older one; without it those keys \
         are lost"
    )]
    PepperMissing {
        /// The pepper's one-way name.
        id: Fingerprint,
    },
    /// The records cannot be read or written.
    #[error("{0}")]
    Records(RecordError),
}

impl From<RecordError> for RegistryError {
    fn from(error: RecordError) -> Self {
        Self::Records(error)
    }
}
