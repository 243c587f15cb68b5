//! What a registry knows of a key, where that is stored, and what can fail.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::secret::{DIGEST, Pepper};
use crate::internal::files::FileProblem;
use crate::key::{Fingerprint, Profile, RawKey, StoreId};

/// The longest name of a key, in characters.
const MAX_NAME: usize = 100;

/// A team's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TeamId(u32);

impl TeamId {
    /// Creates the id of the team with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TeamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key's number in its registry, written as 8 hexadecimal digits. It is not secret, and is never reused,
/// not even after the key was deleted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u32);

impl KeyId {
    /// `serial` counts the keys that were ever created.
    pub(super) const fn new(serial: u32) -> Self {
        Self(serial)
    }

    pub(super) const fn serial(self) -> u32 {
        self.0
    }
}

impl FromStr for KeyId {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let serial = u32::from_str_radix(text, 16).ok().filter(|_| plain);
        serial.map(Self).ok_or(RegistryError::NotAKeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A row of the table "My API keys": everything about a key except the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    pub(super) id: KeyId,
    pub(super) team: TeamId,
    pub(super) name: Box<str>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) created: Seconds,
    pub(super) last_used: Option<Seconds>,
    pub(super) restriction: Option<StoreId>,
}

impl KeyRecord {
    /// Returns its number, for [`delete_key`](super::KeyRegistry::delete_key).
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the team that it belongs to.
    #[must_use]
    pub const fn team(&self) -> TeamId {
        self.team
    }

    /// Returns the name that it was given.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key's fingerprint; `None` if the issuer's keys could be guessed from it.
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Returns when it was created, to the second.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        self.created.to_time()
    }

    /// Returns when a request with it was last accepted, to the second. After a crash it can be 60 s older.
    #[must_use]
    pub fn last_used(&self) -> Option<SystemTime> {
        self.last_used.map(Seconds::to_time)
    }

    /// Returns the only store that it may be used for; `None` if it serves every store of its team.
    #[must_use]
    pub const fn restriction(&self) -> Option<StoreId> {
        self.restriction
    }
}

/// A key and its record, at the only moment when the key is available.
#[derive(Debug)]
pub struct NewKey {
    pub(super) record: KeyRecord,
    pub(super) key: RawKey,
}

impl NewKey {
    /// Returns the record.
    #[must_use]
    pub const fn record(&self) -> &KeyRecord {
        &self.record
    }

    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        &self.key
    }

    /// Returns the key, and drops the record.
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }
}

/// Checks a key's name; the error says which rule it breaks.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("it is empty")
    } else if name.chars().count() > MAX_NAME {
        Err("it has more than 100 characters")
    } else if name.chars().any(char::is_control) {
        Err("it has a control character")
    } else if name.trim() != name {
        Err("it has white space around it")
    } else {
        Ok(())
    }
}

/// Seconds since 1970, until 2106. Times outside that range become the nearest inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(pub(super) u32);

impl Seconds {
    pub(super) fn from_time(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self(u32::try_from(since).unwrap_or(u32::MAX))
    }

    fn to_time(self) -> SystemTime {
        let since = Duration::from_secs(self.0.into());
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// A key's digest, and the pepper that it is under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredDigest {
    pub(super) digest: [u8; DIGEST],
    pub(super) pepper: Fingerprint,
}

/// A key as it is stored: its record and its digest, never the key.
#[derive(Clone)]
pub(super) struct StoredKey {
    pub(super) record: KeyRecord,
    pub(super) digest: StoredDigest,
}

/// What a registry knows of a store.
#[derive(Clone, Copy)]
pub(super) struct Store {
    pub(super) team: TeamId,
    pub(super) is_paused: bool,
}

/// The whole content of a record store.
#[derive(Default)]
pub(super) struct Records {
    pub(super) keys: Vec<StoredKey>,
    pub(super) stores: Vec<(StoreId, Store)>,
    pub(super) next_serial: u32,
}

/// Where a registry's records are stored. The registry reads them once, when it is opened, and writes each
/// change before it takes effect.
pub(super) trait RecordStore: Send + Sync + 'static {
    /// Reads everything, and keeps the pepper to seal later writes with.
    fn load(&self, profile: &'static Profile, pepper: &Arc<Pepper>) -> Result<Records, RegistryError>;

    fn insert(&self, key: &StoredKey) -> Result<(), RecordError>;

    fn delete(&self, id: KeyId) -> Result<(), RecordError>;

    fn put_store(&self, id: StoreId, store: Store) -> Result<(), RecordError>;

    /// Writes what requests have changed. Never called on a request's path.
    fn write_behind(&self, changes: &[Change]) -> Result<(), RecordError>;

    /// Returns whether the records survive the process, so that `write_behind` must be called.
    fn is_persistent(&self) -> bool;
}

/// A change to the record of one key that a request makes.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) id: KeyId,
    pub(super) what: Changed,
}

#[derive(Clone, Copy)]
pub(super) enum Changed {
    Used(Seconds),
    Digest(StoredDigest),
}

/// Records that end with the process.
pub(super) struct InMemory;

impl RecordStore for InMemory {
    fn load(&self, _: &'static Profile, _: &Arc<Pepper>) -> Result<Records, RegistryError> {
        Ok(Records::default())
    }

    fn insert(&self, _: &StoredKey) -> Result<(), RecordError> {
        Ok(())
    }

    fn delete(&self, _: KeyId) -> Result<(), RecordError> {
        Ok(())
    }

    fn put_store(&self, _: StoreId, _: Store) -> Result<(), RecordError> {
        Ok(())
    }

    fn write_behind(&self, _: &[Change]) -> Result<(), RecordError> {
        Ok(())
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

/// A registry could not do what it was asked to; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The key's name is not valid.
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
    /// The text is not a key's number.
    #[error("a key's number is 8 hexadecimal digits, as the list of keys shows it")]
    NotAKeyId,
    /// The registry has created four billion keys.
    #[error("this registry has created as many keys as it can number: create a new one")]
    Full,
    /// The issuer's keys are so short that they could be guessed.
    #[error("keys of {length} letters and digits could be guessed: give the issuer a format of at least 14")]
    #[non_exhaustive]
    Weak {
        /// How long a key would be.
        length: usize,
    },
    /// The issuer's format does not allow a key of letters and digits.
    #[error("the issuer's format does not allow a key of letters and digits: correct the format")]
    NotAFormatOfLettersAndDigits,
    /// The key is another issuer's.
    #[error("this is a key of another issuer: use a key of the registry's issuer")]
    OtherIssuer,
    /// The generator of random bytes failed, or repeated itself.
    #[error("the generator of random bytes failed ({0}): no key was created")]
    NoRandomness(io::ErrorKind),
    /// There are more than 16 peppers.
    #[error("a registry takes at most 16 peppers: drop those for which keys_under returns 0")]
    TooManyPeppers,
    /// There are records under a pepper that was not given.
    #[error(
        "there are records under the pepper {id}, which was not given: load it as an older one; without it \
         those records are lost"
    )]
    #[non_exhaustive]
    PepperMissing {
        /// The pepper's fingerprint.
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

/// Records could not be read or written. They are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Nothing is at the path, or another file than the one that was opened.
    #[error(
        "there are no records at the path, or others than were opened: check the path, restore them from a \
         backup, or create new ones with KeyRegistry::create"
    )]
    Missing,
    /// There is something at the path already.
    #[error("something is at the path already, so nothing was created: open it, or name another path")]
    Exists,
    /// Something is wrong with the file, or with one beside it.
    #[error("the file of the records: {0}")]
    File(FileProblem),
    /// Another process has them open.
    #[error(
        "another process uses the records: stop it first; two registries on the same records would disagree"
    )]
    Locked,
    /// The write-ahead log beside the file was removed or replaced while the records are open.
    #[error(
        "the log beside the records (its name ends in -wal) was removed or replaced while they were open, so \
         nothing more is written: leave it alone, stop this process, and check the records before they are \
         opened again"
    )]
    LogGone,
    /// They are not what this crate wrote, or were altered.
    #[error(
        "the records are damaged, altered, or not keysheath's: restore them from a backup; they were not \
         changed"
    )]
    Corrupt,
    /// A newer version wrote them.
    #[error(
        "the records have format {found}, and this version reads up to {known}: use a newer keysheath; they \
         were not changed"
    )]
    #[non_exhaustive]
    Newer {
        /// The format's number in the file.
        found: i64,
        /// The newest that this version reads.
        known: i64,
    },
    /// A version from before the first release wrote them.
    #[error(
        "the records have format {found}, from before format {known} sealed each row, and can no longer be \
         read: create new records, and a new key for each key in them; they were not changed"
    )]
    #[non_exhaustive]
    Older {
        /// The format's number in the file.
        found: i64,
        /// The oldest that this version reads.
        known: i64,
    },
    /// They are another issuer's.
    #[error("the records are of another issuer's keys: open them with that issuer, or name another file")]
    OtherIssuer,
    /// The database refused.
    #[error("the database refused (code {code}): check the disk, and try again")]
    #[non_exhaustive]
    Database {
        /// SQLite's result code.
        code: i32,
    },
}

impl From<FileProblem> for RecordError {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}
