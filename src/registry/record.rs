//! What a registry knows of a key, and where that is kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::error::{RecordError, RegistryError};
use super::pepper::{DIGEST, Peppers};
use crate::key::{Fingerprint, Profile, StoreId};

/// The longest name of a key, in characters.
///
/// ```
/// assert_eq!(keysheath::registry::MAX_NAME, 100);
/// ```
pub const MAX_NAME: usize = 100;

/// A team's number.
///
/// ```
/// use keysheath::registry::TeamId;
/// assert_eq!(TeamId::new(7).get(), 7);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TeamId(u32);

impl TeamId {
    /// The team with this number.
    ///
    /// ```
    /// # use keysheath::registry::TeamId;
    /// assert_eq!(TeamId::new(1).to_string(), "1");
    /// ```
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    ///
    /// ```
    /// # use keysheath::registry::TeamId;
    /// assert_eq!(TeamId::new(1).get(), 1);
    /// ```
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

/// A key's number in its registry. It is no secret, and never stands for another key, not even after the key was deleted.
///
/// ```
/// use keysheath::registry::KeyId;
///
/// let id: KeyId = "00000001".parse()?;
/// assert_eq!(id.to_string(), "00000001");
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u32);

impl KeyId {
    /// `serial` counts the keys that were ever made.
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

/// A row of the table "My API keys": everything about a key but the key.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, Restriction, TeamId};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
/// assert_eq!(new.record().name(), "production-shop");
/// assert_eq!(new.record().fingerprint(), new.key().fingerprint());
/// assert_eq!(new.record().last_used(), None);
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
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
    /// Its number, to delete it by.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// registry.delete_key(new.record().id())?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The team that it belongs to.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.record().team(), TeamId::new(1));
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn team(&self) -> TeamId {
        self.team
    }

    /// The name that a person gave it.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.record().name(), "production-shop");
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// The key's one-way name; `None` where the issuer's keys could be guessed from it.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.record().fingerprint(), new.key().fingerprint());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// When it was created, to the second.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert!(new.record().created() <= std::time::SystemTime::now());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn created(&self) -> SystemTime {
        self.created.to_time()
    }

    /// When a request with it was last accepted, to the second.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.record().last_used(), None);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn last_used(&self) -> Option<SystemTime> {
        self.last_used.map(Seconds::to_time)
    }

    /// Which stores it may be used for.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.record().restriction(), Restriction::None);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn restriction(&self) -> Restriction {
        self.restriction
    }
}

/// Says which rule of a key's name a text breaks, if any.
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
///
/// ```
/// use keysheath::key::StoreId;
/// use keysheath::registry::Restriction;
/// let one = Restriction::Store(StoreId::new(123).unwrap());
/// assert_ne!(one, Restriction::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restriction {
    /// All of them.
    #[default]
    None,
    /// One alone.
    Store(StoreId),
}

/// Seconds since 1970, until 2106. What lies outside is the nearest that is inside.
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

/// Which of a record's peppers, and what the key's digest under it is.
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

/// A key as it is kept: its record and its digest, and never the key.
///
/// Only this crate makes and reads one; a store of your own cannot be written yet.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct StoredKey {
    pub(super) record: KeyRecord,
    pub(super) digest: StoredDigest,
}

/// All that a record store holds.
#[derive(Debug, Default)]
#[doc(hidden)]
pub struct Records {
    pub(super) keys: Vec<StoredKey>,
    pub(super) stores: Vec<(StoreId, TeamId, bool)>,
    pub(super) next_serial: u32,
}

/// Where a registry's records are kept. The registry reads them once, when it is opened, and writes each change before it
/// takes effect.
///
/// [`InMemory`] keeps nothing; with the feature `sqlite` there is `Sqlite`. The trait is sealed: what a record consists of
/// may still grow.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{InMemory, KeyRegistry, Pepper, Peppers};
/// let peppers = Peppers::new(Pepper::random()?);
/// let registry = KeyRegistry::open(Kanal::PROFILE, peppers, InMemory)?;
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
pub trait RecordStore: sealed::Sealed + Send + Sync + 'static {
    /// Reads everything, and learns under which peppers to seal what is written.
    #[doc(hidden)]
    fn load(&self, profile: &'static Profile, peppers: &Arc<Peppers>) -> Result<Records, RegistryError>;

    #[doc(hidden)]
    fn insert(&self, key: &StoredKey) -> Result<(), RecordError>;

    #[doc(hidden)]
    fn delete(&self, id: KeyId) -> Result<(), RecordError>;

    #[doc(hidden)]
    fn put_store(&self, store: StoreId, team: TeamId, paused: bool) -> Result<(), RecordError>;

    /// Writes what requests have changed. It is called behind them, and never on their path.
    #[doc(hidden)]
    fn write_behind(&self, changes: &[Change]) -> Result<(), RecordError>;

    /// Whether there is anything to write behind.
    #[doc(hidden)]
    fn is_kept(&self) -> bool;
}

pub(super) mod sealed {
    /// Only this crate's stores can be record stores.
    #[doc(hidden)]
    pub trait Sealed {}
}

/// What a request changes in the records.
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
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::KeyRegistry;
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
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

    fn put_store(&self, _: StoreId, _: TeamId, _: bool) -> Result<(), RecordError> {
        Ok(())
    }

    fn write_behind(&self, _: &[Change]) -> Result<(), RecordError> {
        Ok(())
    }

    fn is_kept(&self) -> bool {
        false
    }
}
