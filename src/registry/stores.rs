//! Which stores there are, whose they are, and which are paused.

use super::{KeyRegistry, RegistryError, TeamId};
use crate::key::StoreId;

/// What a registry knows of a store.
#[derive(Clone, Copy)]
pub(super) struct Store {
    pub(super) team: TeamId,
    pub(super) is_paused: bool,
}

impl KeyRegistry {
    /// Says that a store exists and whose it is. A store that is there already goes to the given team, and keeps its
    /// pause.
    ///
    /// # Errors
    /// [`RegistryError::Records`] when that cannot be written; nothing is changed then.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, StoreId};
    /// # use keysheath::registry::{KeyRegistry, TeamId};
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
    /// # use keysheath::key::{Issuer, Kanal, StoreId};
    /// # use keysheath::registry::{KeyRegistry, TeamId};
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
    /// # use keysheath::key::{Issuer, Kanal, StoreId};
    /// # use keysheath::registry::{KeyRegistry, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// # let store = StoreId::new(123).unwrap();
    /// # registry.put_store(store, TeamId::new(1))?;
    /// registry.resume_store(store)?;
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    pub fn resume_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.change_store(store, |old| Some(Store { is_paused: false, ..old? }))
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
