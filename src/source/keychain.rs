//! The operating system's keychain: Secret Service on Linux, the login keychain on macOS, the Credential
//! Manager on Windows.

#[cfg(all(unix, not(target_os = "macos")))]
mod secret_service;

use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use std::{fmt, mem, thread};

#[cfg(all(unix, not(target_os = "macos")))]
use super::Resource;
use super::{Absence, Problem, Provenance, Reading, Source, SourceError, is_item_name};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::{Caller, Target};
use crate::internal::threads::Lock;
use crate::key::{Profile, RawKey};

#[cfg(any(windows, target_os = "macos"))]
use native as platform;
use platform::{Prompts, Store};
#[cfg(all(unix, not(target_os = "macos")))]
use secret_service as platform;

/// How long a call may take to end once its prompt is closed.
const TIME_TO_END: Duration = Duration::from_millis(300);

/// The name of helper threads. The system keeps 15 bytes of it.
const THREAD: &str = "keysheath-keychain";

/// The items of one service in the keychain of the user. It has its own connection, which clones share, and
/// no process-wide default. After a restart of the keychain's daemon it connects again. A locked keychain
/// asks its user to unlock it. Every call has a deadline, at which the prompt is closed. On Linux, an item
/// that is not found may be in a locked collection, and some services (`KeePassXC`) show nothing until they
/// are unlocked. So an item counts as absent only once every collection is unlocked. If one of them cannot
/// be, [`Keychain::with_default_collection_only`] searches the default one alone.
///
/// Every program with the user's rights can read the user's keychain once it is unlocked.
///
/// ```no_run
/// use keysheath::key::{ApiKey, Kanal};
/// use keysheath::source::Keychain;
///
/// let keychain = Keychain::new();
/// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// keychain.save("kanal", key.as_raw())?;
/// assert_eq!(keychain.list()?, ["kanal"]);
/// assert!(keychain.delete("kanal")?);
/// # Ok::<(), keysheath::source::SourceError>(())
/// ```
#[doc(alias("keyring", "secret service", "credential"))]
#[derive(Clone)]
pub struct Keychain {
    service: String,
    worker: Caller,
    in_default_collection: bool,
    slot: Arc<Slot>,
}

/// The open store, if any. A store is dropped on a thread of its own: dropping blocks, and on Linux panics in
/// async code if the application has enabled the feature `tokio` of the library.
#[derive(Default)]
struct Slot(Lock<Option<Arc<Store>>>);

/// Why a call failed.
enum Fault {
    /// The keychain's service has ended or was replaced, or failed in a way that a new store may not.
    Lost,
    Problem(Problem),
}

/// The items that a call is about.
struct Items<'a> {
    service: &'a str,
    /// `None` for every item of the service.
    name: Option<&'a str>,
    #[cfg_attr(any(windows, target_os = "macos"), allow(dead_code, reason = "there is one collection"))]
    in_default_collection: bool,
}

/// A keychain item that holds the key and nothing else.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::source::{KeychainItem, Source};
///
/// let source = KeychainItem::for_issuer(Kanal::PROFILE);
/// assert_eq!(source.provenance().to_string(), "keychain item keysheath/kanal");
/// ```
#[derive(Clone, Debug)]
pub struct KeychainItem {
    keychain: Keychain,
    name: String,
}

impl Keychain {
    /// The default service of items. It is distinctive, because on Linux another tool's item with the same
    /// service and name makes both ambiguous.
    pub const SERVICE: &'static str = super::KEYCHAIN_SERVICE;

    /// Names the items of the service [`Keychain::SERVICE`]. Nothing is opened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::for_service(Self::SERVICE)
    }

    /// Names the items of another service.
    #[must_use]
    pub fn for_service(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            worker: Caller::new(),
            in_default_collection: false,
            slot: Arc::default(),
        }
    }

    /// Sets how long one call may take. The default is 30 s.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    /// Searches the default collection alone. On Linux a user may have several: the others may stay locked,
    /// and their items are neither found nor ambiguous.
    #[must_use]
    pub fn with_default_collection_only(mut self) -> Self {
        self.in_default_collection = true;
        self
    }

    /// Stores a key, and replaces the one that the item holds. A call that exceeds its deadline is abandoned
    /// and cannot be cancelled: the keychain may still write the key when it answers again, over one that was
    /// saved in the meantime.
    ///
    /// # Errors
    /// [`SourceError`] if the keychain does not answer, is locked, has no collection, or several items match.
    pub fn save(&self, name: &str, key: &RawKey) -> Result<(), SourceError> {
        let bytes = WipedBytes::copy_of(key.expose_secret().as_bytes());
        self.save_bytes(name, bytes, ()).map_err(|problem| self.error(name, problem))
    }

    /// Returns the names of the service's items, sorted. Unlocks locked collections. A name that occurs twice
    /// is ambiguous.
    ///
    /// # Errors
    /// [`SourceError`] if the keychain does not answer or is locked.
    pub fn list(&self) -> Result<Vec<String>, SourceError> {
        let names = self.on_items(None, Store::names);
        let mut names = names.map_err(|problem| self.error("*", problem))?;
        names.sort();
        Ok(names)
    }

    /// Deletes an item. Returns `false` if there was none.
    ///
    /// # Errors
    /// As [`Keychain::save`].
    pub fn delete(&self, name: &str) -> Result<bool, SourceError> {
        self.on_item(name, Store::delete).map_err(|problem| self.error(name, problem))
    }

    /// Returns the keys of all items of this name, for when several match: one of them may be the only copy.
    /// A probe or the fingerprint shows which one is good; [`Keychain::keep_one`] deletes the others.
    ///
    /// # Errors
    /// As [`Keychain::save`], and if one of them does not hold a well-formed key.
    pub fn load_all(&self, name: &str, profile: &'static Profile) -> Result<Vec<RawKey>, SourceError> {
        let texts = self.on_item(name, Store::load_all);
        let keys = texts.and_then(|texts| {
            let keys = texts.iter().map(|text| RawKey::parse(profile, text).map_err(Problem::Malformed));
            keys.collect()
        });
        keys.map_err(|problem| self.error(name, problem))
    }

    /// Deletes all items of this name except one that holds `key`, and returns how many were deleted. Returns
    /// `None`, and deletes nothing, if no item holds it.
    ///
    /// # Errors
    /// As [`Keychain::save`]. Some of the items may already be deleted, but never the one that is kept.
    pub fn keep_one(&self, name: &str, key: &RawKey) -> Result<Option<usize>, SourceError> {
        let key = key.clone_key();
        self.on_item(name, move |store, items, prompts| {
            store.keep_one(items, |text| key.matches(text), prompts)
        })
        .map_err(|problem| self.error(name, problem))
    }

    /// Returns the bytes of an item. `held` is dropped once the keychain has answered, which may be after the
    /// deadline.
    pub(crate) fn load_bytes(
        &self,
        name: &str,
        held: impl Send + 'static,
    ) -> Result<Option<WipedBytes>, Problem> {
        self.on_item(name, move |store, items, prompts| {
            let _ = &held;
            store.load(items, prompts)
        })
    }

    /// Replaces the bytes of an item. `held` is dropped once the keychain has answered, which may be after
    /// the deadline.
    pub(crate) fn save_bytes(
        &self,
        name: &str,
        bytes: WipedBytes,
        held: impl Send + 'static,
    ) -> Result<(), Problem> {
        self.on_item(name, move |store, items, prompts| {
            let _ = &held;
            store.save(items, &bytes, prompts)
        })
    }

    fn on_item<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Fn(&Store, &Items<'_>, &Prompts) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        if !is_item_name(name) {
            return Err(Problem::NotStorable);
        }
        self.on_items(Some(name.to_owned()), work)
    }

    /// Runs `work` on the open store, and again on a new one if the old one has lost its daemon.
    fn on_items<T: Send + 'static>(
        &self,
        name: Option<String>,
        work: impl Fn(&Store, &Items<'_>, &Prompts) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        if !is_item_name(&self.service) {
            return Err(Problem::NotStorable);
        }
        let (slot, service) = (Arc::clone(&self.slot), self.service.clone());
        let in_default_collection = self.in_default_collection;
        let prompts = Prompts::default();
        let own = prompts.clone();
        let place = Target::of("keychain", &self.service);
        // At the deadline, a prompt that waits for a person ends.
        let outcome = self.worker.run_or_end(
            place,
            TIME_TO_END,
            move || prompts.end(),
            move || {
                let items = Items { service: &service, name: name.as_deref(), in_default_collection };
                let open = slot.lock().clone();
                if let Some(store) = open {
                    match work(&store, &items, &own) {
                        Err(Fault::Lost) => slot.forget(&store),
                        Err(Fault::Problem(problem)) => return Err(problem),
                        Ok(value) => return Ok(value),
                    }
                }
                let store = Arc::new(Store::open()?);
                slot.replace(Some(Arc::clone(&store)));
                work(&store, &items, &own).map_err(|fault| match fault {
                    Fault::Lost => {
                        slot.forget(&store);
                        Problem::Unreachable
                    }
                    Fault::Problem(problem) => problem,
                })
            },
        );
        // A hanging call may hold the store, so the next call gets a new one.
        outcome.inspect_err(|_| self.slot.replace(None))?
    }

    fn error(&self, name: &str, problem: Problem) -> SourceError {
        SourceError::new(self.place(name), problem)
    }

    pub(crate) fn place(&self, name: &str) -> Provenance {
        Provenance::Keychain { service: self.service.clone(), name: name.to_owned() }
    }
}

impl KeychainItem {
    /// Creates a source of the item `name` of a keychain.
    #[must_use]
    pub fn new(keychain: Keychain, name: impl Into<String>) -> Self {
        Self { keychain, name: name.into() }
    }

    /// Sets how long one call may take. The default is the keychain's own deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.keychain = self.keychain.with_deadline(deadline);
        self
    }

    /// Creates a source of the item of the issuer's name, in the service [`Keychain::SERVICE`].
    #[must_use]
    pub fn for_issuer(profile: &Profile) -> Self {
        Self::new(Keychain::new(), profile.name())
    }
}

impl Source for KeychainItem {
    fn provenance(&self) -> Provenance {
        self.keychain.place(&self.name)
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        match self.keychain.load_bytes(&self.name, ()) {
            Ok(None) => Ok(Reading::absent(Absence::NoItem)),
            Ok(Some(text)) if text.is_empty() => Err(SourceError::new(self.provenance(), Problem::Empty)),
            Ok(Some(text)) => Ok(Reading::of_wiped(text)),
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

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Store>>> {
        self.0.lock()
    }

    fn replace(&self, store: Option<Arc<Store>>) {
        let before = mem::replace(&mut *self.lock(), store);
        if before.is_some() {
            elsewhere(move || drop(before));
        }
    }

    /// Removes a store, unless another one has replaced it.
    fn forget(&self, store: &Arc<Store>) {
        // The caller holds it too, so it is not dropped here.
        self.lock().take_if(|open| Arc::ptr_eq(open, store));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// Runs `work` on a thread of its own; if none can be started, `work` is dropped here.
fn elsewhere(work: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().name(THREAD.into()).spawn(work);
}

/// The keychain of macOS and the Credential Manager of Windows. Both unlock by themselves, and hold one item
/// of a name, in one collection.
#[cfg(any(windows, target_os = "macos"))]
mod native {
    use std::collections::HashMap;
    use std::sync::Arc;

    use keyring_core::{CredentialStore, Error};
    use zeroize::Zeroize;

    use super::{Fault, Items, Problem, WipedBytes};

    /// An open keychain.
    pub(super) struct Store(Arc<CredentialStore>);

    /// The system itself asks a person here, and its prompt cannot be closed.
    #[derive(Clone, Default)]
    pub(super) struct Prompts;

    impl Prompts {
        #[allow(clippy::unused_self, reason = "the signature is the one that the Secret Service needs")]
        pub(super) const fn end(&self) {}
    }

    impl Store {
        #[cfg(target_os = "macos")]
        pub(super) fn open() -> Result<Self, Problem> {
            let store = apple_native_keyring_store::keychain::Store::new();
            Ok(Self(store.map_err(|_| Problem::NoKeychain)?))
        }

        #[cfg(windows)]
        pub(super) fn open() -> Result<Self, Problem> {
            let store = windows_native_keyring_store::Store::new();
            Ok(Self(store.map_err(|_| Problem::NoKeychain)?))
        }

        pub(super) fn load(&self, items: &Items<'_>, _: &Prompts) -> Result<Option<WipedBytes>, Fault> {
            Ok(found(self.entry(items)?.get_secret())?.map(WipedBytes::from))
        }

        pub(super) fn load_all(
            &self,
            items: &Items<'_>,
            prompts: &Prompts,
        ) -> Result<Vec<WipedBytes>, Fault> {
            Ok(Vec::from_iter(self.load(items, prompts)?))
        }

        pub(super) fn save(&self, items: &Items<'_>, secret: &[u8], _: &Prompts) -> Result<(), Fault> {
            Ok(self.entry(items)?.set_secret(secret)?)
        }

        pub(super) fn delete(&self, items: &Items<'_>, _: &Prompts) -> Result<bool, Fault> {
            Ok(found(self.entry(items)?.delete_credential())?.is_some())
        }

        /// Deletes every item but one that `is_kept` is true of; `None` where there is none.
        pub(super) fn keep_one(
            &self,
            items: &Items<'_>,
            is_kept: impl Fn(&[u8]) -> bool,
            prompts: &Prompts,
        ) -> Result<Option<usize>, Fault> {
            Ok(self.load(items, prompts)?.is_some_and(|secret| is_kept(&secret)).then_some(0))
        }

        /// The names of the service's items.
        pub(super) fn names(&self, items: &Items<'_>, _: &Prompts) -> Result<Vec<String>, Fault> {
            let found = self.0.search(&search_for(items.service))?;
            let names = found.iter().filter_map(keyring_core::Entry::get_specifiers);
            Ok(names.filter(|(service, _)| service == items.service).map(|(_, name)| name).collect())
        }

        fn entry(&self, items: &Items<'_>) -> Result<keyring_core::Entry, Fault> {
            Ok(self.0.build(items.service, items.name.unwrap_or_default(), None)?)
        }
    }

    fn found<T>(outcome: keyring_core::Result<T>) -> Result<Option<T>, Fault> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    impl From<Error> for Fault {
        /// Keeps what the error is and drops what it carries: some of them carry the secret.
        fn from(error: Error) -> Self {
            Self::Problem(match error {
                Error::PlatformFailure(_) => return Self::Lost,
                Error::Ambiguous(items) => Problem::Ambiguous { count: items.len() },
                Error::NoStorageAccess(_) => Problem::NoAccess,
                Error::TooLong(..) | Error::Invalid(..) => Problem::NotStorable,
                Error::BadEncoding(mut secret) | Error::BadDataFormat(mut secret, _) => {
                    secret.zeroize();
                    Problem::Unreachable
                }
                _ => Problem::Unreachable,
            })
        }
    }

    /// The Windows store searches by a pattern over whole names, so there every item is looked at.
    #[cfg(windows)]
    fn search_for(_: &str) -> HashMap<&'static str, &str> {
        HashMap::new()
    }

    #[cfg(target_os = "macos")]
    fn search_for(service: &str) -> HashMap<&'static str, &str> {
        HashMap::from([("service", service)])
    }
}
