//! A key as it is handed out.

use super::KeyRecord;
use crate::key::RawKey;

/// A key and its record, at the one moment when the key can be had.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, Restriction, TeamId};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
/// let key = new.into_key().try_into_typed::<Kanal>().unwrap();
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
#[derive(Debug)]
pub struct NewKey {
    pub(super) record: KeyRecord,
    pub(super) key: RawKey,
}

impl NewKey {
    /// What the registry keeps of it.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
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
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
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
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, Restriction, TeamId};
    /// # let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
    /// let key = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?.into_key();
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }
}
