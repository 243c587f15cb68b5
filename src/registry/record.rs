//! What a registry knows of a key, and where that is stored.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::RegistryError;
use super::secret::{DIGEST, Peppers};
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
    pub(super) restriction: Restriction,
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

    /// Returns which stores it may be used for.
    #[must_use]
    pub const fn restriction(&self) -> Restriction {
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

/// Which of its team's stores a key may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restriction {
    /// All of them.
    #[default]
    None,
    /// This store only.
    Store(StoreId),
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

impl fmt::Debug for StoredDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredDigest(under {})", self.pepper)
    }
}

/// A key as it is stored: its record and its digest, never the key.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct StoredKey {
    pub(super) record: KeyRecord,
    pub(super) digest: StoredDigest,
}

/// What a registry knows of a store.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Store {
    pub(super) team: TeamId,
    pub(super) is_paused: bool,
}

/// The whole content of a record store.
#[derive(Debug, Default)]
#[doc(hidden)]
pub struct Records {
    pub(super) keys: Vec<StoredKey>,
    pub(super) stores: Vec<(StoreId, Store)>,
    pub(super) next_serial: u32,
}

/// Where a registry's records are stored. The registry reads them once, when it is opened, and writes each
/// change before it takes effect.
///
/// [`InMemory`] stores nothing; with the feature `sqlite` there is `Sqlite`. The trait is sealed, because
/// records may still get more fields.
pub trait RecordStore: sealed::Sealed + Send + Sync + 'static {
    /// Reads everything, and keeps the peppers to seal later writes with.
    #[doc(hidden)]
    fn load(&self, profile: &'static Profile, peppers: &Arc<Peppers>) -> Result<Records, RegistryError>;

    #[doc(hidden)]
    fn insert(&self, key: &StoredKey) -> Result<(), RecordError>;

    #[doc(hidden)]
    fn delete(&self, id: KeyId) -> Result<(), RecordError>;

    #[doc(hidden)]
    fn put_store(&self, id: StoreId, store: Store) -> Result<(), RecordError>;

    /// Writes what requests have changed. Never called on a request's path.
    #[doc(hidden)]
    fn write_behind(&self, changes: &[Change]) -> Result<(), RecordError>;

    /// Returns whether the records survive the process, so that `write_behind` must be called.
    #[doc(hidden)]
    fn is_persistent(&self) -> bool;
}

pub(super) mod sealed {
    /// Only this crate's stores can be record stores.
    #[doc(hidden)]
    pub trait Sealed {}
}

/// A change to the record of one key that a request makes.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Change {
    pub(super) id: KeyId,
    pub(super) what: Changed,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Changed {
    Used(Seconds),
    Digest(StoredDigest),
}

/// Records that end with the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

impl sealed::Sealed for InMemory {}

impl RecordStore for InMemory {
    fn load(&self, _: &'static Profile, _: &Arc<Peppers>) -> Result<Records, RegistryError> {
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

/// Records could not be read or written. They are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Nothing is at the path, or another file than the one that was opened.
    #[error(
        "there are no records at the path, or others than were opened: check the path, restore them from a \
         backup, or create new ones with Sqlite::create"
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
