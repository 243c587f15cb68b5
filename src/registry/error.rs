//! What a registry and its records cannot do.

use std::io;

use crate::key::Fingerprint;

/// A registry could not do what it was asked to, and nothing was changed.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, RegistryError, Restriction, TeamId};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let error = registry.create_key(TeamId::new(1), "", Restriction::None).unwrap_err();
/// assert!(matches!(error, RegistryError::Name { rule: "it is empty", .. }));
/// # Ok::<(), RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A name that no key can have.
    #[error(
        "the key's name is not valid: {rule}; give it 1 to 100 printable characters, such as production-shop"
    )]
    #[non_exhaustive]
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
    #[error("a key's number is 8 hexadecimal digits, as the list of keys shows it")]
    NotAKeyId,
    /// Four billion keys are there, or were.
    #[error("this registry has made as many keys as it can number: open a new one")]
    Full,
    /// The issuer's keys are so short that they could be guessed.
    #[error("keys of {length} letters and digits could be guessed: give the issuer a format of at least 14")]
    #[non_exhaustive]
    Weak {
        /// How long a key would be.
        length: usize,
    },
    /// The issuer's format does not allow a key of letters and digits.
    #[error("the issuer's format does not allow a key of letters and digits: mend the format")]
    NotAFormatOfLettersAndDigits,
    /// A key was given that is another issuer's.
    #[error("the key is one of another issuer: give a key of the issuer whose registry this is")]
    OtherIssuer,
    /// The generator of random bytes failed, or gave the same bytes again.
    #[error("the generator of random bytes failed ({0}): no key was made")]
    NoRandomness(io::ErrorKind),
    /// There are more than [`MAX_PEPPERS`](super::MAX_PEPPERS).
    #[error("a registry takes at most 16 peppers: drop those that no key is under, as keys_under tells")]
    TooManyPeppers,
    /// There are records under a pepper that was not given.
    #[error(
        "there are records under the pepper {id}, which was not given: load it too, as an older one; without it those \
         records are lost"
    )]
    #[non_exhaustive]
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

/// Records could not be read or written. What was there is as it was.
///
/// ```
/// use keysheath::registry::RecordError;
/// assert!(RecordError::Locked.to_string().contains("another process"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Nothing is at the path, or no longer what was there when it was opened.
    #[error(
        "there are no records at the path, or others than were opened: look at the path, restore them from a backup, or \
         begin new ones with Sqlite::create"
    )]
    Missing,
    /// There is something at the path already.
    #[error("something is at the path already, and nothing was made: open it, or name another path")]
    Exists,
    /// The folder of the file is not there.
    #[error("the folder of the records is not there: make it first")]
    NoFolder,
    /// The file may not be written.
    #[error("the records cannot be written (read-only, or the disk is full): mend that, and do it again")]
    ReadOnly,
    /// The file or one beside it has a second name (a hard link), through which it could be changed.
    #[error(
        "the records or a file beside them have another name too (a hard link): remove the other name, or put a \
         copy in the place of the file"
    )]
    Linked,
    /// The name is like those of this crate's own files beside the records.
    #[error(
        "the names that end in .lock and .keysheath-new are those of keysheath's own files beside the records: give \
         the file another name"
    )]
    ReservedName,
    /// Another process has them open.
    #[error(
        "another process uses the records: stop it first, two registries on the same records would disagree"
    )]
    Locked,
    /// The write-ahead log beside the file is gone, or another one, while the records are open.
    #[error(
        "the log beside the records (its name ends in -wal) was removed or replaced while they were open, so nothing more \
         is written: leave it alone, stop this process, and look at the records before they are opened again"
    )]
    LogGone,
    /// They are not what this crate wrote, or were altered.
    #[error(
        "the records are damaged, altered, or not keysheath's: restore them from a backup; they were left as they are"
    )]
    Corrupt,
    /// A newer version wrote them.
    #[error(
        "the records have format {found}, and this version reads up to {known}: use the newer keysheath; they were left \
         as they are"
    )]
    #[non_exhaustive]
    Newer {
        /// The format's number in the file.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// A version from before the first release wrote them.
    #[error(
        "the records have format {found}, from before format {known} sealed each row, and cannot be read any more: create \
         new records, and a new key for each that they hold; they were left as they are"
    )]
    #[non_exhaustive]
    Older {
        /// The format's number in the file.
        found: i64,
        /// The oldest that is read.
        known: i64,
    },
    /// They are another issuer's.
    #[error("the records are of keys of another issuer: open them as that, or name another file")]
    OtherIssuer,
    /// A file that others may read or write, of another user, or no file at all.
    #[error(
        "the file of the records must be a regular file of this user that nobody else can read or write: chmod 600 it"
    )]
    NotPrivate,
    /// The operating system refused.
    #[error("the records cannot be read ({0}): check the path and this user's rights")]
    Io(io::ErrorKind),
    /// The database refused.
    #[error("the database refused (code {code}): look at the disk, and do it again")]
    #[non_exhaustive]
    Database {
        /// SQLite's result code.
        code: i32,
    },
}
