//! The server side: creates, lists, deletes and authorizes keys.
//!
//! A [`KeyRegistry`] manages the keys of one issuer. Teams own stores; a key belongs to a team and may be
//! restricted to one of its stores; a store may be paused. [`RequireKey`] puts a registry in front of an HTTP
//! service. [`StaticKeys`] is the common small case: the current and the previous key of one service.
//!
//! # Storage
//! [`KeyRegistry::in_memory`] ends with the process. With the feature `sqlite`, `KeyRegistry::create` and
//! `KeyRegistry::open` keep the records in a file. A key is shown once, when it is created. The records keep
//! a keyed digest: the first 128 bits of BLAKE3 in its keyed mode, under a [`Pepper`] that is stored
//! elsewhere; and, if the issuer's keys are strong, the [fingerprint](crate::key::Fingerprint). A slow
//! password hash would be wrong here. It makes each guess expensive because people choose passwords that can
//! be guessed; these keys are drawn from 2¹⁴² or more, which cannot be guessed at any price, and a slow hash
//! on every request would make denial of service easy.
//!
//! With a pepper, the records alone are useless: the digests do not identify a key (the fingerprint beside
//! them does, to a reader who has the key already), and no record can be added for a chosen key. A pepper
//! does not protect against an attacker who reads the process's memory, or who has both the records and the
//! pepper and can write records.
//!
//! # Order of refusals
//! Kanal does not document which answer is given if several apply. This registry's choice: the key before the
//! store; an unknown store before the authorization, because Kanal's 403 is about a store that exists; the
//! authorization before the pause, so that a team does not learn that another team's store is paused. A key
//! that is restricted to a store is not authorized if a request names none, unless the service requests that
//! by name ([`RequestedStore::NoStoreForAnyKey`]).
//!
//! ```
//! use http::{HeaderMap, HeaderValue};
//! use keysheath::failure::Meaning;
//! use keysheath::key::{Issuer, Kanal, StoreId};
//! use keysheath::registry::{Authorize, KeyRegistry, RequestedStore, TeamId};
//!
//! let (team, store) = (TeamId::new(1), StoreId::new(123).unwrap());
//! let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
//! registry.put_store(store, team)?;
//! let new = registry.create_key(team, "production-shop")?;
//!
//! let mut headers = HeaderMap::new();
//! let value = format!("Bearer {}", new.key().expose_secret());
//! headers.insert("authorization", HeaderValue::try_from(value).unwrap());
//! let principal = registry.authorize(&headers, RequestedStore::Store(store)).unwrap();
//! assert_eq!(principal.key(), Some(new.record().id()));
//!
//! registry.delete_key(new.record().id())?; // effective at once
//! let refusal = registry.authorize(&headers, RequestedStore::Store(store)).unwrap_err();
//! assert_eq!(refusal.meaning(), Meaning::KeyRefused);
//! # Ok::<(), keysheath::registry::RegistryError>(())
//! ```

mod authorize;
mod index;
mod names;
mod record;
mod require_key;
mod secret;
mod slots;
#[cfg(feature = "sqlite")]
mod sqlite;
mod static_keys;
mod table;
mod version;
mod write_behind;

/// What the index stands on; the models in `tests/models` put loom's in its place.
mod sync {
    pub(super) use std::hint::spin_loop as pause;
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
    pub(super) use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(super) use crate::internal::threads::recover;

    /// How often a reader without a lock retries before it waits for the writers. A change takes about a
    /// microsecond, so a reader comes this far only if the system has stopped a writer in the middle of one.
    pub(super) const RETRIES: u32 = 64;
}

use std::fmt;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::internal::threads::{Health, Lock};
use crate::internal::time::wall_seconds;
use crate::key::{Fingerprint, MIN_ENTROPY_BITS, Profile, RawKey, StoreId};
use index::Index;
use record::{InMemory, RecordStore, Seconds, Store, StoredDigest, StoredKey};
use secret::{MAX_PEPPERS, Random};
use write_behind::WriteBehind;

pub use authorize::{Authorize, Principal, Refusal, RequestedStore};
pub use record::{KeyId, KeyRecord, NewKey, RecordError, RegistryError, TeamId};
pub use require_key::{RefusalBody, RequireKey, RequireKeyLayer};
pub use secret::{Pepper, PepperError};
pub use static_keys::StaticKeys;

/// The keys of one issuer: created, listed, deleted and authorized.
///
/// Every method takes a shared reference; share it in an [`Arc`]. Methods that change something write the
/// records first and take effect when they return; they block. [`authorize`](Authorize::authorize) reads
/// memory only and never blocks on input or output, so async code may call it.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, TeamId};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?.with_browser_observer(|principal| {
///     eprintln!("a browser has the key {:?}: rotate it", principal.fingerprint());
/// });
/// let new = registry.create_key(TeamId::new(1), "production-shop")?;
/// println!("shown once: {}", new.key().expose_secret());
/// for record in registry.keys(TeamId::new(1)) {
///     println!("{} {} {:?}", record.id(), record.name(), record.fingerprint());
/// }
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
pub struct KeyRegistry {
    profile: &'static Profile,
    pepper: Arc<Pepper>,
    index: Box<Index>,
    /// Held while the records are written. The index is locked only for an instant.
    writer: Lock<Writer>,
    behind: Option<WriteBehind>,
    clock: Option<Box<dyn Fn() -> SystemTime + Send + Sync>>,
    on_browser: Box<dyn Fn(&Principal) + Send + Sync>,
}

struct Writer {
    records: Arc<dyn RecordStore>,
    next_serial: u32,
    random: Box<Random>,
}

impl KeyRegistry {
    /// Creates an empty registry that ends with the process, under a random pepper.
    ///
    /// # Errors
    /// [`RegistryError::NoRandomness`], and [`RegistryError::Weak`] for an issuer whose keys could be
    /// guessed.
    pub fn in_memory(profile: &'static Profile) -> Result<Self, RegistryError> {
        Self::of_records(profile, Arc::new(Pepper::random()?), || Ok(InMemory))
    }

    /// Opens the registry that these records contain, which are opened or created last. Blocks.
    fn of_records<R: RecordStore>(
        profile: &'static Profile,
        pepper: Arc<Pepper>,
        records: impl FnOnce() -> Result<R, RecordError>,
    ) -> Result<Self, RegistryError> {
        let (length, bits) = secret::length_and_entropy(profile);
        if bits < MIN_ENTROPY_BITS {
            return Err(RegistryError::Weak { length });
        }
        if pepper.all().count() > MAX_PEPPERS {
            return Err(RegistryError::TooManyPeppers);
        }
        let records = records()?;
        let content = records.load(profile, &pepper)?;
        let index = Box::new(Index::new());
        content.stores.into_iter().for_each(|(store, state)| index.put_store(store, state));
        for StoredKey { record, digest } in &content.keys {
            let Some(place) = pepper.place_of(digest.pepper) else {
                return Err(RegistryError::PepperMissing { id: digest.pepper });
            };
            index.insert(record, digest.digest, place);
        }
        let records: Arc<dyn RecordStore> = Arc::new(records);
        let behind = records.is_persistent().then(|| WriteBehind::start(Arc::clone(&records))).transpose()?;
        let writer = Writer { records, next_serial: content.next_serial, random: Box::new(secret::system) };
        Ok(Self {
            profile,
            pepper,
            index,
            writer: Lock::new(writer),
            behind,
            clock: None,
            on_browser: Box::new(|_| {}),
        })
    }

    /// Sets another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Sets another generator of random bytes, for tests. New keys are only as hard to guess as its output.
    #[must_use]
    pub fn with_random(mut self, random: impl FnMut(&mut [u8]) -> io::Result<()> + Send + 'static) -> Self {
        self.writer.get_mut().random = Box::new(random);
        self
    }

    /// Calls `observe` for every accepted request that a browser sent; see
    /// [`Principal::is_from_browser`]. It runs on the request's path, so it must be quick. With the feature
    /// `tracing` there is a warning as well.
    #[must_use]
    pub fn with_browser_observer(mut self, observe: impl Fn(&Principal) + Send + Sync + 'static) -> Self {
        self.on_browser = Box::new(observe);
        self
    }

    /// Creates a key: 24 letters and digits from the operating system's generator, or as many as the issuer's
    /// format allows. The key is returned this once only. It serves every store of its team.
    ///
    /// # Errors
    /// [`RegistryError::Name`] for a name that is empty, longer than 100 characters, or has control
    /// characters or surrounding white space; [`RegistryError::Records`] if the key cannot be written: it
    /// then does not exist.
    pub fn create_key(&self, team: TeamId, name: &str) -> Result<NewKey, RegistryError> {
        self.draw_and_add(team, name, None)
    }

    /// As [`KeyRegistry::create_key`], for a key that serves this store only.
    ///
    /// # Errors
    /// As for [`KeyRegistry::create_key`], and [`RegistryError::NoSuchStore`] if the store is not the team's.
    pub fn create_key_for_store(
        &self,
        team: TeamId,
        name: &str,
        store: StoreId,
    ) -> Result<NewKey, RegistryError> {
        self.draw_and_add(team, name, Some(store))
    }

    fn draw_and_add(
        &self,
        team: TeamId,
        name: &str,
        restriction: Option<StoreId>,
    ) -> Result<NewKey, RegistryError> {
        record::check_name(name).map_err(|rule| RegistryError::Name { rule })?;
        let mut writer = self.writer();
        if let Some(store) = restriction {
            let owner = self.store(store).map(|store| store.team);
            if owner != Some(team) {
                return Err(RegistryError::NoSuchStore);
            }
        }
        let key = self.new_key(&mut writer)?;
        self.add_key(&mut writer, (team, name, restriction), key)
    }

    /// Adds a key that was made elsewhere. Only for the emulator: the person who chose the key knows it.
    pub(crate) fn adopt_key(&self, team: TeamId, name: &str, key: RawKey) -> Result<NewKey, RegistryError> {
        let key = key.of_issuer(self.profile).map_err(|_| RegistryError::OtherIssuer)?;
        self.add_key(&mut self.writer(), (team, name, None), key)
    }

    fn add_key(
        &self,
        writer: &mut Writer,
        (team, name, restriction): (TeamId, &str, Option<StoreId>),
        key: RawKey,
    ) -> Result<NewKey, RegistryError> {
        let serial = writer.next_serial;
        let next_serial = serial.checked_add(1).ok_or(RegistryError::Full)?;
        let pepper = self.pepper.current();
        let digest =
            StoredDigest { digest: pepper.digest(key.expose_secret().as_bytes()), pepper: pepper.id() };
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
        self.index.insert(&stored.record, stored.digest.digest, 0);
        Ok(NewKey { record: stored.record, key })
    }

    /// Returns the table "My API keys" of a team, in the order of creation. Scans every key of the registry.
    #[must_use]
    pub fn keys(&self, team: TeamId) -> Vec<KeyRecord> {
        let mut records = self.index.records_of(team);
        records.sort_by_key(KeyRecord::id);
        records
    }

    /// Returns the record of a key; `None` if there is no such key, or no longer.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<KeyRecord> {
        self.index.record(id)
    }

    /// Deletes a key. Once this returns, the key is refused (P10).
    ///
    /// # Errors
    /// [`RegistryError::NoSuchKey`] if there is no such key, and [`RegistryError::Records`] if the deletion
    /// cannot be written: the key is then still accepted, because it would be again after a restart.
    pub fn delete_key(&self, id: KeyId) -> Result<(), RegistryError> {
        let writer = self.writer();
        if self.index.record(id).is_none() {
            return Err(RegistryError::NoSuchKey);
        }
        writer.records.delete(id)?;
        self.index.remove(id);
        Ok(())
    }

    /// Returns the number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many keys are still under a pepper; a pepper with none can be dropped. A 0 is on the disk
    /// already. Blocks.
    ///
    /// # Errors
    /// As [`KeyRegistry::flush`].
    pub fn keys_under(&self, pepper: Fingerprint) -> Result<usize, RegistryError> {
        let place = self.pepper.place_of(pepper);
        let count = place.map_or(0, |place| self.index.count_under(place));
        // After counting: a key that is not counted was moved in memory before, and that is written now.
        self.flush()?;
        Ok(count)
    }

    /// Adds a store of a team. If the store exists, it moves to the team, and stays paused if it is.
    ///
    /// # Errors
    /// [`RegistryError::Records`] if that cannot be written; nothing is changed then.
    pub fn put_store(&self, store: StoreId, team: TeamId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { team, is_paused: old.is_some_and(|old| old.is_paused) }))
    }

    /// Pauses a store: requests for it are answered as if it did not exist.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchStore`], and [`RegistryError::Records`] if that cannot be written.
    pub fn pause_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { is_paused: true, ..old? }))
    }

    /// Resumes a paused store.
    ///
    /// # Errors
    /// As [`KeyRegistry::pause_store`].
    pub fn resume_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { is_paused: false, ..old? }))
    }

    fn change_store(
        &self,
        store: StoreId,
        change: impl FnOnce(Option<Store>) -> Option<Store>,
    ) -> Result<(), RegistryError> {
        let writer = self.writer();
        let old = self.store(store);
        let new = change(old).ok_or(RegistryError::NoSuchStore)?;
        writer.records.put_store(store, new)?;
        self.index.put_store(store, new);
        Ok(())
    }

    /// Writes what requests have changed (last uses, digests under the current pepper), and blocks until that
    /// is done, for at most 60 s. It also happens by itself within a few seconds, and when the registry is
    /// closed or dropped.
    ///
    /// # Errors
    /// [`RegistryError::Records`] if it cannot be written. The changes are retried every few seconds, and are
    /// lost if the registry ends before a retry succeeds; no request fails because of them.
    pub fn flush(&self) -> Result<(), RegistryError> {
        self.behind.as_ref().map_or(Ok(()), WriteBehind::flush).map_err(RegistryError::Records)
    }

    /// Writes what requests have changed, and closes the records. Returns whether all of it was written and
    /// the writing thread ended within the timeout.
    ///
    /// Dropping the registry does the same, and blocks for at most 10 s. In async code, call this with your
    /// runtime's `spawn_blocking`.
    #[must_use = "false means that changes were lost or are still being written"]
    pub fn close(self, timeout: Duration) -> bool {
        let Self { writer, behind, .. } = self;
        drop(writer);
        behind.is_none_or(|behind| behind.close(timeout))
    }

    /// Returns how the writing of last uses is doing. A registry in memory is always healthy.
    #[must_use]
    pub fn health(&self) -> Health<RecordError> {
        self.behind.as_ref().map_or_else(Health::new, WriteBehind::health)
    }

    /// Draws a key that no record has yet.
    fn new_key(&self, writer: &mut Writer) -> Result<RawKey, RegistryError> {
        // A generator that repeats itself is broken; retrying without a limit would hang.
        for _ in 0..4 {
            let key = secret::draw_key(self.profile, &mut *writer.random)?;
            if self.entry_of(key.expose_secret().as_bytes()).is_none() {
                return Ok(key);
            }
        }
        Err(RegistryError::NoRandomness(io::ErrorKind::AlreadyExists))
    }

    #[inline]
    fn now(&self) -> Seconds {
        self.clock.as_ref().map_or_else(|| Seconds(wall_seconds()), |clock| Seconds::from_time(clock()))
    }

    fn store(&self, store: StoreId) -> Option<Store> {
        self.index.read(|| self.index.store(store))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }
}

impl fmt::Debug for KeyRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRegistry({}, {} keys)", self.profile.name(), self.len())
    }
}
