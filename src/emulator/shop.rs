//! What an emulator knows: the registry, and all that requests and rules leave behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::customers::Customers;
use super::fault::Faults;
use super::journal::Journal;
use super::katana_api::Product;
use super::rate_limit::{Allowance, RateLimiter};
use crate::internal::lock::Lock;
use crate::key::{Fingerprint, Profile, StoreId};
use crate::registry::{
    Authorize, KeyId, KeyRegistry, Principal, Refusal, RegistryError, RequestedStore, TeamId,
};

/// The team that the first key belongs to.
///
/// ```
/// assert_eq!(keysheath::emulator::TEAM.get(), 1);
/// ```
pub const TEAM: TeamId = TeamId::new(1);

/// Another team.
///
/// ```
/// assert_eq!(keysheath::emulator::OTHER_TEAM.get(), 2);
/// ```
pub const OTHER_TEAM: TeamId = TeamId::new(2);

/// A store of [`TEAM`].
///
/// ```
/// assert_eq!(keysheath::emulator::OWN_STORE.get(), 123);
/// ```
pub const OWN_STORE: StoreId = store(123);

/// A store of [`OTHER_TEAM`].
///
/// ```
/// assert_eq!(keysheath::emulator::FOREIGN_STORE.get(), 456);
/// ```
pub const FOREIGN_STORE: StoreId = store(456);

/// A store of [`TEAM`] that is paused at the start.
///
/// ```
/// assert_eq!(keysheath::emulator::PAUSED_STORE.get(), 789);
/// ```
pub const PAUSED_STORE: StoreId = store(789);

const fn store(number: u64) -> StoreId {
    match StoreId::new(number) {
        Some(store) => store,
        None => panic!("a store's number is positive"),
    }
}

/// Where the time comes from.
pub(super) type Clock = dyn Fn() -> SystemTime + Send + Sync;

/// Which service is stood in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Kanal,
    Katana {
        /// Whether errors have the shape that is nested under `error`.
        nested: bool,
    },
}

/// What a rate limit is metered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Metered {
    Store(StoreId),
    Key(KeyId),
}

/// A key that a request came with, whatever it was good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) key: KeyId,
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Shared by both ports and the [`Emulator`](super::Emulator).
pub(super) struct Shop {
    pub(super) registry: KeyRegistry,
    pub(super) api: Api,
    pub(super) clock: Arc<Clock>,
    pub(super) read_timeout: Duration,
    pub(super) products: Vec<Product>,
    pub(super) customers: Lock<Customers>,
    pub(super) faults: Lock<Faults>,
    pub(super) journal: Lock<Journal>,
    /// The keys that are deleted after some requests.
    countdowns: Lock<HashMap<KeyId, Countdown>>,
    /// `None` where there is no limit.
    limiter: Option<Lock<RateLimiter<Metered>>>,
}

impl Shop {
    pub(super) fn new(
        registry: KeyRegistry,
        api: Api,
        clock: Arc<Clock>,
        read_timeout: Duration,
        is_limited: bool,
        seed: u64,
    ) -> Self {
        Self {
            registry,
            api,
            clock,
            read_timeout,
            products: Product::list(seed),
            customers: Lock::default(),
            faults: Lock::new(Faults::new(seed)),
            journal: Lock::default(),
            countdowns: Lock::default(),
            limiter: is_limited.then(|| Lock::new(RateLimiter::new())),
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Whose key a request came with. A key that is good, but not for this store, is still known.
    pub(super) fn sender(&self, headers: &HeaderMap) -> Option<Sender> {
        let (key, fingerprint) = self.registry.sender(headers)?;
        Some(Sender { key, fingerprint })
    }

    /// `None` where there is no limit.
    pub(super) fn take_allowance(&self, metered: Metered) -> Option<Allowance> {
        let limiter = self.limiter.as_ref()?;
        Some(limiter.lock().take(metered, self.now()))
    }

    /// Lets a key through for this many more requests, and then deletes it.
    pub(super) fn delete_key_after(&self, id: KeyId, requests: u64) -> Result<(), RegistryError> {
        if requests == 0 {
            return self.delete_key(id);
        }
        self.registry.key(id).ok_or(RegistryError::NoSuchKey)?;
        self.countdowns.lock().insert(id, Countdown { left: requests, in_flight: 0 });
        Ok(())
    }

    /// Deletes a key, and what was kept beside it.
    pub(super) fn delete_key(&self, id: KeyId) -> Result<(), RegistryError> {
        self.countdowns.lock().remove(&id);
        self.registry.delete_key(id)
    }

    /// Counts a request that has come with a key.
    pub(super) fn count(&self, key: KeyId) -> Turn {
        match self.countdowns.lock().get_mut(&key) {
            None => Turn::Free,
            Some(countdown) if countdown.left == 0 => Turn::Refused,
            Some(countdown) => {
                countdown.left -= 1;
                countdown.in_flight += 1;
                Turn::Counted
            }
        }
    }

    /// Notes that a counted request was answered. With the last of them the key is deleted.
    pub(super) fn answered(&self, key: KeyId) {
        let mut countdowns = self.countdowns.lock();
        let Some(countdown) = countdowns.get_mut(&key) else { return };
        countdown.in_flight = countdown.in_flight.saturating_sub(1);
        if countdown.left == 0 && countdown.in_flight == 0 {
            countdowns.remove(&key);
            drop(countdowns);
            // It may have been deleted meanwhile, which is as well.
            self.registry.delete_key(key).ok();
        }
    }

    /// Forgets what requests and rules have left behind.
    pub(super) fn reset(&self) {
        *self.customers.lock() = Customers::default();
        self.faults.lock().clear();
        *self.journal.lock() = Journal::default();
        self.countdowns.lock().clear();
        if let Some(limiter) = &self.limiter {
            *limiter.lock() = RateLimiter::new();
        }
    }
}

/// How many more requests a key is let through, and how many of those that were are not answered yet. It is deleted once
/// both are none.
struct Countdown {
    left: u64,
    in_flight: u64,
}

/// What a request is to a key's countdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is none.
    Free,
    /// It is one of those that are let through.
    Counted,
    /// It comes after them: the key is as good as deleted.
    Refused,
}

impl Authorize for Shop {
    fn profile(&self) -> &'static Profile {
        self.registry.profile()
    }

    fn authorize(&self, headers: &HeaderMap, wanted: RequestedStore) -> Result<Principal, Refusal> {
        self.registry.authorize(headers, wanted)
    }
}
