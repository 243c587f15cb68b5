//! The state that both ports and the [`Emulator`](super::Emulator) share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::fault::Faults;
use super::records::{Allowance, Customers, Journal, Product, RateLimiter};
use crate::internal::lock::Lock;
use crate::key::{Fingerprint, Profile, StoreId};
use crate::registry::{
    Authorize, KeyId, KeyRegistry, Principal, Refusal, RegistryError, RequestedStore, TeamId,
};

/// The team of the first key.
pub const TEAM: TeamId = TeamId::new(1);

/// Another team.
pub const OTHER_TEAM: TeamId = TeamId::new(2);

/// A store of [`TEAM`].
pub const OWN_STORE: StoreId = store(123);

/// A store of [`OTHER_TEAM`].
pub const FOREIGN_STORE: StoreId = store(456);

/// A store of [`TEAM`] that is paused at the start.
pub const PAUSED_STORE: StoreId = store(789);

const fn store(number: u64) -> StoreId {
    match StoreId::new(number) {
        Some(store) => store,
        None => panic!("a store's number is positive"),
    }
}

pub(super) type Clock = dyn Fn() -> SystemTime + Send + Sync;

/// The service that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Kanal,
    Katana {
        /// Whether errors are nested under `error`.
        nested: bool,
    },
}

/// What a rate limit counts requests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Metered {
    Store(StoreId),
    Key(KeyId),
}

/// The key of a request, whether or not it is authorized for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) key: KeyId,
    pub(super) fingerprint: Option<Fingerprint>,
}

pub(super) struct Shop {
    pub(super) registry: KeyRegistry,
    pub(super) api: Api,
    pub(super) clock: Arc<Clock>,
    pub(super) read_timeout: Duration,
    pub(super) products: Vec<Product>,
    pub(super) customers: Lock<Customers>,
    pub(super) faults: Lock<Faults>,
    pub(super) journal: Lock<Journal>,
    /// Keys that are deleted after some more requests.
    countdowns: Lock<HashMap<KeyId, Countdown>>,
    /// `None` without a limit.
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

    /// The key of a request, also one that is not for the store.
    pub(super) fn sender(&self, headers: &HeaderMap) -> Option<Sender> {
        let (key, fingerprint) = self.registry.sender(headers)?;
        Some(Sender { key, fingerprint })
    }

    /// Counts a request; `None` without a limit.
    pub(super) fn take_allowance(&self, metered: Metered) -> Option<Allowance> {
        let limiter = self.limiter.as_ref()?;
        Some(limiter.lock().take(metered, self.now()))
    }

    /// Deletes a key after this many more requests.
    pub(super) fn delete_key_after(&self, id: KeyId, requests: u64) -> Result<(), RegistryError> {
        if requests == 0 {
            return self.delete_key(id);
        }
        self.registry.key(id).ok_or(RegistryError::NoSuchKey)?;
        self.countdowns.lock().insert(id, Countdown { left: requests, in_flight: 0 });
        Ok(())
    }

    /// Deletes a key and its countdown.
    pub(super) fn delete_key(&self, id: KeyId) -> Result<(), RegistryError> {
        self.countdowns.lock().remove(&id);
        self.registry.delete_key(id)
    }

    /// Counts a request with this key.
    pub(super) fn count(&self, key: KeyId) -> Counted {
        match self.countdowns.lock().get_mut(&key) {
            None => Counted::NotLimited,
            Some(countdown) if countdown.left == 0 => Counted::TooMany,
            Some(countdown) => {
                countdown.left -= 1;
                countdown.in_flight += 1;
                Counted::Allowed
            }
        }
    }

    /// Notes that a counted request was answered. The last one deletes the key.
    pub(super) fn answered(&self, key: KeyId) {
        let mut countdowns = self.countdowns.lock();
        let Some(countdown) = countdowns.get_mut(&key) else { return };
        countdown.in_flight = countdown.in_flight.saturating_sub(1);
        if countdown.left == 0 && countdown.in_flight == 0 {
            countdowns.remove(&key);
            drop(countdowns);
            // It may have been deleted in the meantime.
            self.registry.delete_key(key).ok();
        }
    }

    /// See [`Emulator::reset`](super::Emulator::reset).
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

/// A key that is deleted once no request is left and none is in flight.
struct Countdown {
    left: u64,
    in_flight: u64,
}

/// What a key's countdown says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// The key has no countdown.
    NotLimited,
    /// One of the requests that are left.
    Allowed,
    /// None was left: the key counts as deleted.
    TooMany,
}

impl Authorize for Shop {
    fn profile(&self) -> &'static Profile {
        self.registry.profile()
    }

    fn authorize(&self, headers: &HeaderMap, wanted: RequestedStore) -> Result<Principal, Refusal> {
        self.registry.authorize(headers, wanted)
    }
}
