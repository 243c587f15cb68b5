//! The operating system's keychain: Secret Service on Linux, the login keychain on macOS, the Credential
//! Manager on Windows.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyring_core::CredentialStore;
use zeroize::Zeroize;
#[cfg(feature = "rotation")]
use zeroize::Zeroizing;

use super::worker::{Place, Worker};
use super::{Absence, Problem, Provenance, Reading, SecretText, Source, SourceError, is_item_name};
use crate::issuer::Profile;
use crate::key::RawKey;

/// The items of one service in the keychain of the user.
///
/// It holds a connection of its own and no process-wide default; a clone shares it. When the keychain's
/// daemon was restarted, the connection is made anew. A locked keychain may ask its user to unlock it, and
/// hangs until they do, so every call has a deadline.
///
/// Everything with the user's rights can read the user's keychain once it is unlocked.
///
/// ```no_run
/// use keysheath::{issuer::Kanal, key::ApiKey, source::Keychain};
///
/// let keychain = Keychain::new();
/// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// keychain.save("kanal", key.as_raw())?;
/// assert_eq!(keychain.list()?, ["kanal"]);
/// assert!(keychain.delete("kanal")?);
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[derive(Clone)]
pub struct Keychain {
    service: String,
    worker: Worker,
    store: Arc<Mutex<Option<Arc<CredentialStore>>>>,
}

/// A keychain item that holds the key and nothing else.
///
/// ```
/// use keysheath::{issuer::{Issuer, Kanal}, source::{KeychainItem, Source}};
///
/// let source = KeychainItem::of(Kanal::PROFILE);
/// assert_eq!(source.provenance().to_string(), "keychain item keysheath/kanal");
/// ```
#[derive(Clone, Debug)]
pub struct KeychainItem {
    keychain: Keychain,
    name: String,
}

impl Keychain {
    /// The service that items belong to unless told otherwise. It is distinctive, because on Linux another
    /// tool's item with the same service and name makes both ambiguous.
    ///
    /// ```
    /// assert_eq!(keysheath::source::Keychain::SERVICE, "keysheath");
    /// ```
    pub const SERVICE: &'static str = "keysheath";

    /// The items of the service [`Keychain::SERVICE`]. Nothing is opened yet.
    ///
    /// ```
    /// # use keysheath::source::Keychain;
    /// let keychain = Keychain::new();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::of_service(Self::SERVICE)
    }

    /// The items of another service.
    ///
    /// ```
    /// # use keysheath::source::Keychain;
    /// let keychain = Keychain::of_service("shop-sync");
    /// ```
    #[must_use]
    pub fn of_service(service: impl Into<String>) -> Self {
        Self { service: service.into(), worker: Worker::new(), store: Arc::default() }
    }

    /// How long one call may take; 30 s unless set.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::source::Keychain;
    /// let keychain = Keychain::new().with_deadline(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    /// Stores a key, over the one that the item holds.
    ///
    /// A call past its deadline is left behind and not called back: the keychain may still do it once it
    /// answers again, over what was saved meanwhile.
    ///
    /// # Errors
    /// [`SourceError`] when the keychain does not answer, is locked, has no collection, or several items
    /// match.
    ///
    /// ```no_run
    /// # use keysheath::{issuer::Kanal, key::ApiKey, source::Keychain};
    /// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// Keychain::new().save("kanal", key.as_raw())?;
    /// # Ok::<(), keysheath::source::SourceError>(())
    /// ```
    pub fn save(&self, name: &str, key: &RawKey) -> Result<(), SourceError> {
        let key = key.clone_key();
        self.on_item(name, move |entry| entry.set_secret(key.expose_secret().as_bytes()))
            .map_err(|problem| self.error(name, problem))
    }

    /// The names of the service's items, in order. Locked items are unlocked for it. A name that stands
    /// there twice is ambiguous.
    ///
    /// # Errors
    /// [`SourceError`] when the keychain does not answer or is locked.
    ///
    /// ```no_run
    /// # use keysheath::source::Keychain;
    /// for name in Keychain::new().list()? {
    ///     println!("{name}");
    /// }
    /// # Ok::<(), keysheath::source::SourceError>(())
    /// ```
    pub fn list(&self) -> Result<Vec<String>, SourceError> {
        if !is_item_name(&self.service) {
            return Err(self.error("*", Problem::NotStorable));
        }
        let service = self.service.clone();
        let names = self.on_store(move |store| {
            let mut names: Vec<String> = store
                .search(&search_for(&service))?
                .iter()
                .filter_map(keyring_core::Entry::get_specifiers)
                .filter(|(found, _)| *found == service)
                .map(|(_, name)| name)
                .collect();
            names.sort();
            Ok(names)
        });
        names.map_err(|problem| self.error("*", problem))
    }

    /// Deletes an item; `false` when there was none.
    ///
    /// # Errors
    /// As [`Keychain::save`].
    ///
    /// ```no_run
    /// # use keysheath::source::Keychain;
    /// let was_there = Keychain::new().delete("kanal")?;
    /// # Ok::<(), keysheath::source::SourceError>(())
    /// ```
    pub fn delete(&self, name: &str) -> Result<bool, SourceError> {
        let deleted = self.on_item(name, |entry| match entry.delete_credential() {
            Ok(()) => Ok(true),
            Err(keyring_core::Error::NoEntry) => Ok(false),
            Err(error) => Err(error),
        });
        deleted.map_err(|problem| self.error(name, problem))
    }

    fn load(&self, name: &str) -> Result<Option<SecretText>, Problem> {
        self.on_item(name, |entry| match entry.get_secret() {
            Ok(secret) => Ok(Some(SecretText::from(secret))),
            Err(keyring_core::Error::NoEntry) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// The bytes of an item. `held` is held until the keychain has answered, which may be after the deadline.
    #[cfg(feature = "rotation")]
    pub(crate) fn load_bytes(
        &self,
        name: &str,
        held: impl Send + 'static,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Problem> {
        self.on_item(name, move |entry| {
            let _ = &held;
            match entry.get_secret() {
                Ok(secret) => Ok(Some(Zeroizing::new(secret))),
                Err(keyring_core::Error::NoEntry) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Stores bytes over those that the item holds. `held` is held until the keychain has answered, which may be after
    /// the deadline.
    #[cfg(feature = "rotation")]
    pub(crate) fn save_bytes(
        &self,
        name: &str,
        bytes: Zeroizing<Vec<u8>>,
        held: impl Send + 'static,
    ) -> Result<(), Problem> {
        self.on_item(name, move |entry| {
            let _ = &held;
            entry.set_secret(&bytes)
        })
    }

    fn on_item<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Fn(&keyring_core::Entry) -> keyring_core::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        if !is_item_name(&self.service) || !is_item_name(name) {
            return Err(Problem::NotStorable);
        }
        let (service, name) = (self.service.clone(), name.to_owned());
        self.on_store(move |store| work(&store.build(&service, &name, None)?))
    }

    /// Works on the open store, and once more on a new one when the old one has lost its daemon.
    fn on_store<T: Send + 'static>(
        &self,
        work: impl Fn(&CredentialStore) -> keyring_core::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let slot = Arc::clone(&self.store);
        let outcome = self.worker.run(Place::of("keychain", &self.service), move || {
            let open = lock(&slot).clone();
            if let Some(store) = open {
                match work(&*store) {
                    Err(keyring_core::Error::PlatformFailure(_)) => *lock(&slot) = None,
                    outcome => return outcome.map_err(problem),
                }
            }
            let store = open_store().map_err(|_| Problem::NoKeychain)?;
            *lock(&slot) = Some(Arc::clone(&store));
            work(&*store).map_err(problem)
        });
        // A call that hangs may hold the store's own lock for ever, so the next call gets a new one.
        outcome.inspect_err(|_| *lock(&self.store) = None)?
    }

    fn error(&self, name: &str, problem: Problem) -> SourceError {
        SourceError::new(self.place(name), problem)
    }

    pub(crate) fn place(&self, name: &str) -> Provenance {
        Provenance::Keychain { service: self.service.clone(), name: name.to_owned() }
    }
}

impl KeychainItem {
    /// The item `name` of a keychain.
    ///
    /// ```
    /// # use keysheath::source::{Keychain, KeychainItem};
    /// let source = KeychainItem::new(Keychain::of_service("shop-sync"), "kanal");
    /// ```
    #[must_use]
    pub fn new(keychain: Keychain, name: impl Into<String>) -> Self {
        Self { keychain, name: name.into() }
    }

    /// The item of the issuer's name, of the service [`Keychain::SERVICE`].
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Katana}, source::KeychainItem};
    /// let source = KeychainItem::of(Katana::PROFILE);
    /// ```
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        Self::new(Keychain::new(), profile.name())
    }
}

impl Source for KeychainItem {
    fn provenance(&self) -> Provenance {
        self.keychain.place(&self.name)
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        match self.keychain.load(&self.name) {
            Ok(None) => Ok(Reading::absent(Absence::NoItem)),
            Ok(Some(text)) if text.bytes().is_empty() => {
                Err(SourceError::new(self.provenance(), Problem::Empty))
            }
            Ok(Some(text)) => Ok(Reading::present(text)),
            Err(problem) => Err(SourceError::new(self.provenance(), problem)),
        }
    }
}

impl Default for Keychain {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keychain({:?})", self.service)
    }
}

fn lock<T>(slot: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The slot holds a whole value or none, so a panic elsewhere has not left it half-way.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what the error is and drops what it carries: some of them carry the secret.
fn problem(error: keyring_core::Error) -> Problem {
    use keyring_core::Error;

    match error {
        Error::Ambiguous(items) => Problem::Ambiguous { count: items.len() },
        Error::NoStorageAccess(_) => Problem::NoAccess,
        Error::TooLong(..) | Error::Invalid(..) => Problem::NotStorable,
        Error::BadEncoding(mut secret) | Error::BadDataFormat(mut secret, _) => {
            secret.zeroize();
            Problem::Unreachable
        }
        _ => Problem::Unreachable,
    }
}

#[cfg(all(unix, not(target_os = "macos")))]
fn open_store() -> keyring_core::Result<Arc<CredentialStore>> {
    let store: Arc<CredentialStore> = zbus_secret_service_keyring_store::Store::new()?;
    Ok(store)
}

#[cfg(target_os = "macos")]
fn open_store() -> keyring_core::Result<Arc<CredentialStore>> {
    let store: Arc<CredentialStore> = apple_native_keyring_store::keychain::Store::new()?;
    Ok(store)
}

#[cfg(windows)]
fn open_store() -> keyring_core::Result<Arc<CredentialStore>> {
    let store: Arc<CredentialStore> = windows_native_keyring_store::Store::new()?;
    Ok(store)
}

/// The Windows store searches by a pattern over whole names, so there every item is looked at.
#[cfg(windows)]
fn search_for(_: &str) -> HashMap<&'static str, &str> {
    HashMap::new()
}

#[cfg(not(windows))]
fn search_for(service: &str) -> HashMap<&'static str, &str> {
    HashMap::from([("service", service)])
}
