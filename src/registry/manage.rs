//! What a person does: adding and pausing stores, creating, listing and deleting keys.

use std::io;

use super::error::RegistryError;
use super::record::{KeyId, KeyRecord, MAX_NAME, Restriction, StoredDigest, StoredKey, TeamId};
use super::{KeyRegistry, Store, Writer, generate};
use crate::issuer::StoreId;
use crate::key::RawKey;

/// A key and its record, at the one moment when the key can be had.
///
/// ```
/// use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
/// let key = new.into_key().typed::<Kanal>().unwrap();
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
#[derive(Debug)]
pub struct NewKey {
    record: KeyRecord,
    key: RawKey,
}

impl NewKey {
    /// What the registry keeps of it.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.record().name(), "production-shop");
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn record(&self) -> &KeyRecord {
        &self.record
    }

    /// The key.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
    /// assert_eq!(new.key().expose_secret().len(), 24);
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        &self.key
    }

    /// Gives the key out.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let key = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?.into_key();
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }
}

impl KeyRegistry {
    /// Says that a store exists and whose it is. A store that is there already goes to the given team, and keeps its
    /// pause.
    ///
    /// # Errors
    /// [`RegistryError::Records`] when that cannot be written; nothing is changed then.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal, StoreId}, registry::{KeyRegistry, TeamId}};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// registry.put_store(StoreId::new(123).unwrap(), TeamId::new(1))?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn put_store(&self, store: StoreId, team: TeamId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { team, is_paused: old.is_some_and(|old| old.is_paused) }))
    }

    /// Pauses a store: requests for it are answered as if it were not there.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchStore`], and [`RegistryError::Records`] when that cannot be written.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal, StoreId}, registry::{KeyRegistry, TeamId}};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let store = StoreId::new(123).unwrap();
    /// registry.put_store(store, TeamId::new(1))?;
    /// registry.pause_store(store)?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn pause_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { is_paused: true, ..old? }))
    }

    /// Ends a store's pause.
    ///
    /// # Errors
    /// As [`KeyRegistry::pause_store`].
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal, StoreId}, registry::{KeyRegistry, TeamId}};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let store = StoreId::new(123).unwrap();
    /// # registry.put_store(store, TeamId::new(1))?;
    /// registry.resume_store(store)?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn resume_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { is_paused: false, ..old? }))
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
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
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
        check_name(name)?;
        let mut writer = self.writer();
        if let Restriction::Store(store) = restriction {
            let owner = self.read().stores.get(&store).map(|store| store.team);
            if owner != Some(team) {
                return Err(RegistryError::NoSuchStore);
            }
        }
        let (key, digest) = self.new_key(&mut writer)?;
        let slot = self.read().keys.next_slot().ok_or(RegistryError::Full)?;
        let serial = writer.next_serial;
        let record = KeyRecord {
            id: KeyId::new(serial, slot),
            team,
            name: name.into(),
            fingerprint: key.fingerprint(),
            created: self.now(),
            last_used: None,
            restriction,
        };
        let stored = StoredKey { record, digest };
        writer.records.insert(&stored)?;
        writer.next_serial = serial.checked_add(1).ok_or(RegistryError::Full)?;
        self.write().keys.insert(&stored.record, digest.digest, 0);
        Ok(NewKey { record: stored.record, key })
    }

    /// The table "My API keys" of a team, in the order of creation. It looks at every key of the registry.
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
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
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
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
    /// # use keysheath::{issuer::{Issuer, Kanal}, registry::{KeyRegistry, Restriction, TeamId}};
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

    /// A key that no record has yet, and its digest.
    fn new_key(&self, writer: &mut Writer) -> Result<(RawKey, StoredDigest), RegistryError> {
        // A generator that repeats itself is broken, and trying for ever would hang.
        for _ in 0..4 {
            let key = generate::key(self.profile, &mut *writer.random)?;
            if self.find(&self.read(), key.expose_secret().as_bytes()).is_none() {
                let pepper = self.peppers.current();
                let digest = pepper.digest(key.expose_secret().as_bytes());
                return Ok((key, StoredDigest { digest, pepper: pepper.id() }));
            }
        }
        Err(RegistryError::NoRandomness(io::ErrorKind::AlreadyExists))
    }

    fn change_store(
        &self,
        store: StoreId,
        change: impl FnOnce(Option<Store>) -> Option<Store>,
    ) -> Result<(), RegistryError> {
        let writer = self.writer();
        let old = self.read().stores.get(&store).copied();
        let new = change(old).ok_or(RegistryError::NoSuchStore)?;
        writer.records.put_store(store, new.team, new.is_paused)?;
        self.write().stores.insert(store, new);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), RegistryError> {
    let rule = if name.is_empty() {
        "it is empty"
    } else if name.chars().count() > MAX_NAME {
        "it has more than 100 characters"
    } else if name.chars().any(char::is_control) {
        "it has a control character"
    } else if name.trim() != name {
        "it has white space around it"
    } else {
        return Ok(());
    };
    Err(RegistryError::Name { rule })
}
