//! The side that issues and authorises keys.
//!
//! A [`KeyRegistry`] creates, lists, deletes and authorises the keys of one issuer. Teams own stores; a key belongs to a
//! team and may be restricted to one of its stores; a store may be paused. [`RequireKey`] puts it in front of an HTTP
//! service. [`StaticKeys`] is the common small case: the current and the previous key of one service.
//!
//! # At rest
//! A key is shown once, when it is created. What is kept is a keyed digest: the first 128 bits of BLAKE3 in its keyed mode
//! under a [`Pepper`] that lives elsewhere, and, where the issuer's keys are strong, the [fingerprint](crate::key::Fingerprint).
//! A slow password hash would be wrong here. It makes each guess at a password dear, because people choose passwords that
//! can be guessed; these keys are drawn from 2¹⁴² or more, which nobody guesses at any price, and a slow hash on every
//! request would be a way to bring the service down.
//!
//! What the pepper adds is that records alone are useless: they tell no key apart from another (the fingerprint beside
//! them does, to whoever has the key already), and nobody can write a record for a key of their own. It does not protect
//! from somebody who has the process's memory, or both the records and the pepper and lets a key be accepted that they
//! chose.
//!
//! # Which row wins
//! Kanal does not document which answer is given when several apply. This registry's choice, kept in one place: the key
//! before the store; an unknown store before the authorisation, because Kanal's 403 tells of a store that exists as it is;
//! the authorisation before the pause, so that a team does not learn that another team's store is paused. A key that is
//! restricted to a store is not authorised where a request names none, unless the service asks for that by name
//! ([`RequestedStore::NoStoreForAnyKey`]).
//!
//! ```
//! use http::{HeaderMap, HeaderValue};
//! use keysheath::failure::Meaning;
//! use keysheath::key::{Issuer, Kanal, StoreId};
//! use keysheath::registry::{Authorize, KeyRegistry, Restriction, TeamId, RequestedStore};
//!
//! let (team, store) = (TeamId::new(1), StoreId::new(123).unwrap());
//! let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
//! registry.put_store(store, team)?;
//! let new = registry.create_key(team, "production-shop", Restriction::None)?;
//!
//! let mut headers = HeaderMap::new();
//! let value = format!("Bearer {}", new.key().expose_secret());
//! headers.insert("authorization", HeaderValue::try_from(value).unwrap());
//! assert!(registry.authorize(&headers, RequestedStore::Store(store)).is_ok());
//!
//! registry.delete_key(new.record().id())?; // at once, and for ever
//! let refusal = registry.authorize(&headers, RequestedStore::Store(store)).unwrap_err();
//! assert_eq!(refusal.meaning(), Meaning::KeyRefused);
//! # Ok::<(), keysheath::registry::RegistryError>(())
//! ```

mod authorize;
mod behind;
mod credentials;
mod error;
mod generate;
mod index;
mod new_key;
mod pepper;
mod principal;
mod record;
mod require_key;
#[cfg(feature = "sqlite")]
mod sqlite;
mod static_keys;
mod store_path;
mod stores;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::SystemTime;

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use crate::internal::lock::{Lock, recover};
use crate::key::{Fingerprint, MIN_ENTROPY_BITS, Profile, RawKey, StoreId};

use behind::WriteBehind;
use generate::Random;
use index::Index;
use record::{Seconds, StoredDigest, StoredKey};
use stores::Store;

#[cfg(feature = "emulator")]
pub(crate) use credentials::is_from_browser;

pub use behind::USE_STEP;
pub use error::{RecordError, RegistryError};
pub use new_key::NewKey;
pub use pepper::{MAX_PEPPERS, Pepper, PepperError, Peppers};
pub use principal::{Authorize, Principal, Refusal, RequestedStore};
pub use record::{InMemory, KeyId, KeyRecord, MAX_NAME, RecordStore, Restriction, TeamId};
pub use require_key::{RefusalBody, RequireKey, RequireKeyLayer};
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
pub use static_keys::StaticKeys;

/// The keys of one issuer: created, listed, deleted and authorised.
///
/// It is shared behind an [`Arc`]; every call works through a shared reference. Creating, deleting and pausing write the
/// records first and take effect when the call returns; they block. [`authorize`](Authorize::authorize) reads memory only
/// and never blocks on input or output, so it may be called in async code.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, Restriction, TeamId};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
/// println!("shown once: {}", new.key().expose_secret());
/// for record in registry.keys(TeamId::new(1)) {
///     println!("{} {} {:?}", record.id(), record.name(), record.fingerprint());
/// }
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
pub struct KeyRegistry {
    profile: &'static Profile,
    peppers: Arc<Peppers>,
    tables: Arc<ShardedLock<Tables>>,
    /// Whoever changes something holds it while the records are written, and the tables only for an instant.
    writer: Lock<Writer>,
    behind: Option<WriteBehind>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    on_browser: Box<dyn Fn(&Principal) + Send + Sync>,
}

struct Writer {
    records: Arc<dyn RecordStore>,
    next_serial: u32,
    random: Box<Random>,
}

#[derive(Default)]
struct Tables {
    keys: Index,
    stores: HashMap<StoreId, Store>,
}

impl KeyRegistry {
    /// A registry without keys that ends with the process, under a pepper of its own.
    ///
    /// # Errors
    /// [`RegistryError::NoRandomness`], and [`RegistryError::Weak`] for an issuer whose keys could be guessed.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn in_memory(profile: &'static Profile) -> Result<Self, RegistryError> {
        Self::open(profile, Peppers::new(Pepper::random()?), InMemory)
    }

    /// Opens the registry that these records hold. Blocks.
    ///
    /// # Errors
    /// [`RegistryError::Records`] when they cannot be read, [`RegistryError::PepperMissing`] when there are keys under a
    /// pepper that is not given, [`RegistryError::TooManyPeppers`], and [`RegistryError::Weak`] for an issuer whose keys could be guessed.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{InMemory, KeyRegistry, Pepper, Peppers};
    /// let registry = KeyRegistry::open(Kanal::PROFILE, Peppers::new(Pepper::random()?), InMemory)?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn open(
        profile: &'static Profile,
        peppers: Peppers,
        records: impl RecordStore,
    ) -> Result<Self, RegistryError> {
        let (length, bits) = generate::length_and_entropy(profile);
        if bits < MIN_ENTROPY_BITS {
            return Err(RegistryError::Weak { length });
        }
        if peppers.all().len() > MAX_PEPPERS {
            return Err(RegistryError::TooManyPeppers);
        }
        let peppers = Arc::new(peppers);
        let kept = records.load(profile, &peppers)?;
        let mut tables = Tables::default();
        for StoredKey { record, digest } in &kept.keys {
            let Some(pepper) = peppers.place_of(digest.pepper) else {
                return Err(RegistryError::PepperMissing { id: digest.pepper });
            };
            tables.keys.insert(record, digest.digest, pepper);
        }
        for (store, team, is_paused) in kept.stores {
            tables.stores.insert(store, Store { team, is_paused });
        }
        let records: Arc<dyn RecordStore> = Arc::new(records);
        let behind = records.is_kept().then(|| WriteBehind::start(Arc::clone(&records))).transpose()?;
        let writer = Writer { records, next_serial: kept.next_serial, random: Box::new(generate::system) };
        Ok(Self {
            profile,
            peppers,
            tables: Arc::new(ShardedLock::new(tables)),
            writer: Lock::new(writer),
            behind,
            clock: Box::new(SystemTime::now),
            on_browser: Box::new(|_| {}),
        })
    }

    /// With another clock, for tests.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?.with_clock(|| SystemTime::UNIX_EPOCH);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// With another generator of random bytes, for tests. Keys are as hard to guess as what it gives.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?.with_random(|bytes| {
    ///     bytes.fill(7);
    ///     Ok(())
    /// });
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn with_random(mut self, random: impl FnMut(&mut [u8]) -> io::Result<()> + Send + 'static) -> Self {
        self.writer.get_mut().random = Box::new(random);
        self
    }

    /// Calls `tell` for every accepted request that a browser sent; see [`Principal::from_browser`]. It is called on the
    /// request's path, so it must be quick. With the feature `tracing` there is a warning as well.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?.on_browser(|principal| {
    ///     eprintln!("a browser has the key {:?}: rotate it", principal.fingerprint());
    /// });
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn on_browser(mut self, tell: impl Fn(&Principal) + Send + Sync + 'static) -> Self {
        self.on_browser = Box::new(tell);
        self
    }

    /// Creates a key: 24 letters and digits from the operating system's generator (as many as the issuer's format allows,
    /// where it does not allow 24). This is the only time that the key can be had.
    ///
    /// # Errors
    /// [`RegistryError::Name`] for a name that is empty, longer than [`MAX_NAME`] characters, or has control characters or
    /// white space around it; [`RegistryError::NoSuchStore`] when the key is to be restricted to a store that is not the
    /// team's; [`RegistryError::Records`] when the key cannot be written, and there is then no key.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert!(registry.create_key(TeamId::new(1), "", Restriction::None).is_err());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn create_key(
        &self,
        team: TeamId,
        name: &str,
        restriction: Restriction,
    ) -> Result<NewKey, RegistryError> {
        record::check_name(name).map_err(|rule| RegistryError::Name { rule })?;
        let mut writer = self.writer();
        if let Restriction::Store(store) = restriction {
            let owner = self.read().stores.get(&store).map(|store| store.team);
            if owner != Some(team) {
                return Err(RegistryError::NoSuchStore);
            }
        }
        let (key, digest) = self.new_key(&mut writer)?;
        self.add_key(&mut writer, (team, name, restriction), key, digest)
    }

    /// Takes a key that was made elsewhere. Only the emulator does: a key that somebody chose is theirs as well.
    #[cfg(feature = "emulator")]
    pub(crate) fn adopt_key(&self, team: TeamId, name: &str, key: RawKey) -> Result<NewKey, RegistryError> {
        let key = key.of_issuer(self.profile).map_err(|_| RegistryError::OtherIssuer)?;
        let mut writer = self.writer();
        let digest = self.digest(&key);
        self.add_key(&mut writer, (team, name, Restriction::None), key, digest)
    }

    fn add_key(
        &self,
        writer: &mut Writer,
        (team, name, restriction): (TeamId, &str, Restriction),
        key: RawKey,
        digest: StoredDigest,
    ) -> Result<NewKey, RegistryError> {
        let serial = writer.next_serial;
        let next_serial = serial.checked_add(1).ok_or(RegistryError::Full)?;
        let record = KeyRecord {
            id: KeyId::new(serial),
            team,
            name: name.into(),
            fingerprint: key.fingerprint(),
            created: self.now(),
            last_used: None,
            restriction,
        };
        let stored = StoredKey { record, digest };
        writer.records.insert(&stored)?;
        writer.next_serial = next_serial;
        self.write().keys.insert(&stored.record, digest.digest, 0);
        Ok(NewKey { record: stored.record, key })
    }

    /// The table "My API keys" of a team, in the order of creation. It looks at every key of the registry.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(registry.keys(TeamId::new(1)).len(), 1);
    /// assert!(registry.keys(TeamId::new(2)).is_empty());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn keys(&self, team: TeamId) -> Vec<KeyRecord> {
        let tables = self.read();
        let own = tables.keys.entries().filter(|(_, entry)| entry.team() == team);
        let mut records: Vec<KeyRecord> = own.filter_map(|(id, _)| tables.keys.record(id)).collect();
        records.sort_by_key(KeyRecord::id);
        records
    }

    /// The record of a key; `None` where there is no such key, or no longer.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(registry.key(new.record().id()).as_ref(), Some(new.record()));
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<KeyRecord> {
        self.read().keys.record(id)
    }

    /// Deletes a key for ever. From the moment that this returns, the key is refused (P10).
    ///
    /// # Errors
    /// [`RegistryError::NoSuchKey`] when it is not there, and [`RegistryError::Records`] when that cannot be written: the
    /// key is then still accepted, because it would be again after a restart.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// registry.delete_key(new.record().id())?;
    /// assert!(registry.delete_key(new.record().id()).is_err());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn delete_key(&self, id: KeyId) -> Result<(), RegistryError> {
        let writer = self.writer();
        if self.read().keys.get(id).is_none() {
            return Err(RegistryError::NoSuchKey);
        }
        writer.records.delete(id)?;
        self.write().keys.remove(id);
        Ok(())
    }

    /// How many keys there are.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// assert_eq!(KeyRegistry::in_memory(Kanal::PROFILE)?.len(), 0);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().keys.len()
    }

    /// Whether there is no key.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// assert!(KeyRegistry::in_memory(Kanal::PROFILE)?.is_empty());
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are still under a pepper: once none is, it can be dropped. What 0 says is written already. Blocks.
    ///
    /// # Errors
    /// As [`KeyRegistry::flush`].
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{InMemory, KeyRegistry, Pepper, Peppers};
    /// let pepper = Pepper::random()?;
    /// let id = pepper.id();
    /// let registry = KeyRegistry::open(Kanal::PROFILE, Peppers::new(pepper), InMemory)?;
    /// assert_eq!(registry.keys_under(id)?, 0);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn keys_under(&self, pepper: Fingerprint) -> Result<usize, RegistryError> {
        let place = self.peppers.place_of(pepper);
        let count = place.map_or(0, |place| {
            self.read().keys.entries().filter(|(_, entry)| entry.pepper() == place).count()
        });
        // Afterwards: a key that is not counted has been moved in memory, and that is written now.
        self.flush()?;
        Ok(count)
    }

    /// Writes what requests have changed (last uses, digests under the current pepper), and waits for it. It happens by
    /// itself within a few seconds, and when the registry is dropped, which waits for it for 10 s at most. Blocks.
    ///
    /// # Errors
    /// [`RegistryError::Records`] when it cannot be written. It is kept, tried again every few seconds, and lost when the
    /// registry is dropped before that succeeds; no request fails by it.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::KeyRegistry;
    /// KeyRegistry::in_memory(Kanal::PROFILE)?.flush()?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn flush(&self) -> Result<(), RegistryError> {
        self.behind.as_ref().map_or(Ok(()), WriteBehind::flush).map_err(RegistryError::Records)
    }

    /// A key that no record has yet, and its digest.
    fn new_key(&self, writer: &mut Writer) -> Result<(RawKey, StoredDigest), RegistryError> {
        // A generator that repeats itself is broken, and trying for ever would hang.
        for _ in 0..4 {
            let key = generate::key(self.profile, &mut *writer.random)?;
            if self.find(&self.read(), key.expose_secret().as_bytes()).is_none() {
                let digest = self.digest(&key);
                return Ok((key, digest));
            }
        }
        Err(RegistryError::NoRandomness(io::ErrorKind::AlreadyExists))
    }

    fn digest(&self, key: &RawKey) -> StoredDigest {
        let pepper = self.peppers.current();
        StoredDigest { digest: pepper.digest(key.expose_secret().as_bytes()), pepper: pepper.id() }
    }

    fn now(&self) -> Seconds {
        Seconds::from_time((self.clock)())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    fn read(&self) -> ShardedLockReadGuard<'_, Tables> {
        recover(self.tables.read())
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Tables> {
        recover(self.tables.write())
    }
}

impl fmt::Debug for KeyRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRegistry({}, {} keys)", self.profile.name(), self.len())
    }
}
