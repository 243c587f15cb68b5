//! The operating system's keychain: Secret Service on Linux, the login keychain on macOS, the Credential
//! Manager on Windows.

#[cfg(any(windows, target_os = "macos"))]
mod native;
#[cfg(all(unix, not(target_os = "macos")))]
mod secret_service;

use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use std::{fmt, mem, thread};

#[cfg(all(unix, not(target_os = "macos")))]
use super::Resource;
use super::{Absence, Problem, Provenance, Reading, SecretText, Source, SourceError, is_item_name};
use crate::internal::bytes::WipedBytes;
use crate::internal::calls::{Caller, Target};
use crate::internal::lock::Lock;
use crate::key::{Profile, RawKey};

#[cfg(any(windows, target_os = "macos"))]
use native as platform;
use platform::{Fault, Items, Prompts, Store};
#[cfg(all(unix, not(target_os = "macos")))]
use secret_service as platform;

/// How long a call may take to end once its prompt is taken away.
const TIME_TO_END: Duration = Duration::from_millis(300);

/// The name of the threads beside calls. The system keeps 15 bytes of it.
const THREAD: &str = "keysheath-keychain";

/// What an item holds.
type Secret = WipedBytes;

/// The items of one service in the keychain of the user.
///
/// It holds a connection of its own and no process-wide default; a clone shares it. After a restart of the
/// keychain's daemon it connects again. A locked keychain asks its user to unlock it, and every call has a
/// deadline: past it, the prompt is taken away again.
///
/// On Linux, an item that is not found while a collection is locked may be in that collection, and some
/// services (`KeePassXC`) do not show what they hold until it is unlocked. So nothing is absent until every
/// collection is unlocked; where one of them cannot be, [`Keychain::in_default_collection`] looks at the
/// default one alone.
///
/// Everything with the user's rights can read the user's keychain once it is unlocked.
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

/// The open store, if there is one. Dropping a store takes a thread: what is below it blocks, and on Linux
/// panics in async code where the application has turned on the feature `tokio` of the library.
#[derive(Default)]
struct Slot(Lock<Option<Arc<Store>>>);

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
    /// The service that items belong to unless told otherwise. It is distinctive, because on Linux another
    /// tool's item with the same service and name makes both ambiguous.
    pub const SERVICE: &'static str = super::KEYCHAIN_SERVICE;

    /// The items of the service [`Keychain::SERVICE`]. Nothing is opened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::for_service(Self::SERVICE)
    }

    /// The items of another service.
    #[must_use]
    pub fn for_service(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            worker: Caller::new(),
            in_default_collection: false,
            slot: Arc::default(),
        }
    }

    /// How long one call may take; 30 s unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.worker = self.worker.with_deadline(deadline);
        self
    }

    /// Looks at the default collection alone, on Linux, where a user may have several: the others may be
    /// locked, and what they hold is neither found nor ambiguous.
    #[must_use]
    pub fn in_default_collection(mut self) -> Self {
        self.in_default_collection = true;
        self
    }

    /// Stores a key, over the one that the item holds.
    ///
    /// A call past its deadline is left behind and not called back: once the keychain was asked to write, it
    /// may still do it when it answers again, over what was saved meanwhile.
    ///
    /// # Errors
    /// [`SourceError`] when the keychain does not answer, is locked, has no collection, or several items
    /// match.
    pub fn save(&self, name: &str, key: &RawKey) -> Result<(), SourceError> {
        let key = key.clone_key();
        self.on_item(name, move |store, items, prompts| {
            store.save(items, key.expose_secret().as_bytes(), prompts)
        })
        .map_err(|problem| self.error(name, problem))
    }

    /// The names of the service's items, in order. Locked collections are unlocked for it. A name that stands
    /// there twice is ambiguous.
    ///
    /// # Errors
    /// [`SourceError`] when the keychain does not answer or is locked.
    pub fn list(&self) -> Result<Vec<String>, SourceError> {
        let names = self.on_items(None, Store::names);
        let mut names = names.map_err(|problem| self.error("*", problem))?;
        names.sort();
        Ok(names)
    }

    /// Deletes an item; `false` when there was none.
    ///
    /// # Errors
    /// As [`Keychain::save`].
    pub fn delete(&self, name: &str) -> Result<bool, SourceError> {
        self.on_item(name, Store::delete).map_err(|problem| self.error(name, problem))
    }

    /// Every key that an item of this name holds, where several items match: one of them may be the only
    /// copy. A probe or the fingerprint tells which is good; [`Keychain::keep_one`] deletes the others.
    ///
    /// # Errors
    /// As [`Keychain::save`], and when one of them holds no well-formed key.
    pub fn load_all(&self, name: &str, profile: &'static Profile) -> Result<Vec<RawKey>, SourceError> {
        let texts = self.on_item(name, Store::load_all);
        let keys = texts.and_then(|texts| {
            let keys = texts.iter().map(|text| RawKey::parse(profile, text).map_err(Problem::Malformed));
            keys.collect()
        });
        keys.map_err(|problem| self.error(name, problem))
    }

    /// Deletes every item of this name but one that holds `key`, and returns how many were deleted. `None`
    /// where no item holds it: then nothing is deleted.
    ///
    /// # Errors
    /// As [`Keychain::save`]. Some of the items may be deleted by then, but never the one that is kept.
    pub fn keep_one(&self, name: &str, key: &RawKey) -> Result<Option<usize>, SourceError> {
        let key = key.clone_key();
        self.on_item(name, move |store, items, prompts| {
            store.keep_one(items, |text| key.matches(text), prompts)
        })
        .map_err(|problem| self.error(name, problem))
    }

    fn load(&self, name: &str) -> Result<Option<Secret>, Problem> {
        self.on_item(name, Store::load)
    }

    /// The bytes of an item. `held` is held until the keychain has answered, which may be after the deadline.
    #[cfg(feature = "rotation")]
    pub(crate) fn load_bytes(
        &self,
        name: &str,
        held: impl Send + 'static,
    ) -> Result<Option<Secret>, Problem> {
        self.on_item(name, move |store, items, prompts| {
            let _ = &held;
            store.load(items, prompts)
        })
    }

    /// Stores bytes over those that the item holds. `held` is held until the keychain has answered, which may
    /// be after the deadline.
    #[cfg(feature = "rotation")]
    pub(crate) fn save_bytes(
        &self,
        name: &str,
        bytes: Secret,
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

    /// Works on the open store, and once more on a new one when the old one has lost its daemon.
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
        // Past the deadline, what waits for a person ends.
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
        // What hangs may hold the store, so the next call gets a new one.
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
    /// The item `name` of a keychain.
    #[must_use]
    pub fn new(keychain: Keychain, name: impl Into<String>) -> Self {
        Self { keychain, name: name.into() }
    }

    /// How long one call may take; as long as the keychain's own deadline unless set.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.keychain = self.keychain.with_deadline(deadline);
        self
    }

    /// The item of the issuer's name, of the service [`Keychain::SERVICE`].
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
        match self.keychain.load(&self.name) {
            Ok(None) => Ok(Reading::absent(Absence::NoItem)),
            Ok(Some(text)) if text.is_empty() => Err(SourceError::new(self.provenance(), Problem::Empty)),
            Ok(Some(text)) => Ok(Reading::present(SecretText::from_wiped(text))),
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

    /// Takes a store out, unless another one is there by now.
    fn forget(&self, store: &Arc<Store>) {
        // The caller has one as well, so it is not dropped here.
        self.lock().take_if(|open| Arc::ptr_eq(open, store));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.replace(None);
    }
}

/// Does something on a thread of its own; without a thread, it is dropped here.
fn elsewhere(work: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().name(THREAD.into()).spawn(work);
}
