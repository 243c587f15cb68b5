//! The settings that an emulator starts with, and the state that both ports and the
//! [`Emulator`](super::Emulator) share.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::connection::{Accept, Certificate};
use super::fault::{Faults, Seeded};
use super::records::{Allowance, Customers, Journal, Product, RateLimiter};
use crate::internal::threads::Lock;
use crate::key::{Fingerprint, Issuer as _, Kanal, Katana, Profile, RawKey, StoreId};
use crate::registry::{
    Authorize, KeyId, KeyRegistry, NewKey, Principal, Refusal, RegistryError, RequestedStore, TeamId,
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

/// An emulator could not be started, and nothing of it keeps running; or a fault rule was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// A port on 127.0.0.1 cannot be bound.
    #[error(
        "a port on 127.0.0.1 cannot be bound ({0}): choose another, or leave it out to use any free port"
    )]
    Bind(io::ErrorKind),
    /// Nested errors were asked for, which Kanal does not have.
    #[error("Kanal has no nested errors: leave with_nested_errors (--nested-errors) out, or start Katana")]
    NestedErrors,
    /// The operating system gives no thread or no event queue.
    #[error("the operating system gives no thread or no event queue ({0}): check this user's limits")]
    Runtime(io::ErrorKind),
    /// The first key and stores cannot be created.
    #[error("the emulator's first key and stores cannot be created: {0}")]
    Registry(RegistryError),
    /// The operating system gives no random bytes for the control plane's token.
    #[error(
        "the operating system gives no random bytes for the control plane's token: start the emulator again"
    )]
    NoRandomness,
    /// The certificate for TLS cannot be made.
    #[error("the certificate for TLS cannot be made: start the emulator again, or without TLS")]
    Certificate,
    /// A fault rule is invalid, or there are 1,000 already.
    #[error("{reason}")]
    #[non_exhaustive]
    Fault {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl From<RegistryError> for EmulatorError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// The default of [`EmulatorSettings::with_read_timeout`].
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time-out.
const MAX_READ_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes what accepts TLS, and its certificate.
pub(super) type MakeTls = fn() -> Option<(Arc<Accept>, Certificate)>;

type Random = dyn FnMut(&mut [u8]) -> io::Result<()> + Send;

/// The settings of an emulator, from [`Emulator::kanal`](super::Emulator::kanal) or
/// [`Emulator::katana`](super::Emulator::katana).
///
/// ```
/// use keysheath::emulator::Emulator;
///
/// let emulator = Emulator::kanal().with_seed(7).with_rate_limit().start()?;
/// let same = Emulator::kanal().with_seed(7).start()?;
/// assert!(emulator.key() == same.key());
/// # Ok::<(), keysheath::emulator::EmulatorError>(())
/// ```
#[must_use = "nothing is started before `start`"]
pub struct EmulatorSettings {
    api: Api,
    seed: Option<u64>,
    clock: Arc<Clock>,
    random: Option<Box<Random>>,
    key: Option<RawKey>,
    is_nested: bool,
    is_limited: bool,
    pub(super) read_timeout: Duration,
    pub(super) port: u16,
    pub(super) control_port: u16,
    pub(super) make_tls: Option<MakeTls>,
}

impl EmulatorSettings {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            seed: None,
            clock: Arc::new(SystemTime::now),
            random: None,
            key: None,
            is_nested: false,
            is_limited: false,
            read_timeout: READ_TIMEOUT,
            port: 0,
            control_port: 0,
            make_tls: None,
        }
    }

    /// Uses the same keys, products and random faults at every start. Anyone who knows the seed knows the
    /// keys, so they are only for tests. Without a seed, keys come from the operating system's generator; the
    /// control plane's token always does.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the clock of rate limits, the journal and the records of keys. Latency and time-outs are in real
    /// time.
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the generator of the bytes that keys are made from, instead of the seed.
    pub fn with_random(mut self, random: impl FnMut(&mut [u8]) -> io::Result<()> + Send + 'static) -> Self {
        self.random = Some(Box::new(random));
        self
    }

    /// Starts with this key, for a configuration that holds a made-up key already.
    pub fn with_key(mut self, key: RawKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Applies the documented rate limit: 60 requests a minute, for each store (Kanal) or each key (Katana).
    /// The default is no limit.
    pub const fn with_rate_limit(mut self) -> Self {
        self.is_limited = true;
        self
    }

    /// Nests Katana's errors under `error`, instead of the flat shape. Kanal has one shape, and does not
    /// start with this.
    pub const fn with_nested_errors(mut self) -> Self {
        self.is_nested = true;
        self
    }

    /// Sets how long the head of a request may take to arrive, and its body after that: 30 s by default, a
    /// day at most. A connection without a request is closed after this time, and so is one whose
    /// client accepts no byte of its answer for as long.
    pub const fn with_read_timeout(mut self, time: Duration) -> Self {
        self.read_timeout = if time.as_secs() < MAX_READ_TIMEOUT.as_secs() { time } else { MAX_READ_TIMEOUT };
        self
    }

    /// Sets the port on 127.0.0.1. The default, 0, is any free port.
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the port of the control plane. The default, 0, is any free port.
    pub const fn with_control_port(mut self, port: u16) -> Self {
        self.control_port = port;
        self
    }

    /// Answers over TLS, with a certificate that is made at start; see
    /// [`Emulator::certificate_pem`](super::Emulator::certificate_pem). The control plane stays plain HTTP:
    /// only this machine reaches it.
    #[cfg(feature = "emulator-tls")]
    pub const fn with_tls(mut self) -> Self {
        self.make_tls = Some(super::connection::tls::make);
        self
    }

    /// Returns the state that it starts with, and its first key.
    pub(super) fn open(self) -> Result<(Shop, NewKey), EmulatorError> {
        let api = match self.api {
            Api::Katana { .. } => Api::Katana { nested: self.is_nested },
            Api::Kanal if self.is_nested => return Err(EmulatorError::NestedErrors),
            Api::Kanal => Api::Kanal,
        };
        let seed = self.seed.map_or_else(random_seed, Ok)?;
        let registry = registry(api, &self.clock, self.random, self.seed)?;
        let first = match self.key {
            None => registry.create_key(TEAM, "emulator")?,
            Some(key) => registry.adopt_key(TEAM, "emulator", key)?,
        };
        let shop = Shop::new(registry, api, self.clock, self.read_timeout, self.is_limited, seed);
        Ok((shop, first))
    }
}

/// A registry with the stores that every emulator starts with.
fn registry(
    api: Api,
    clock: &Arc<Clock>,
    random: Option<Box<Random>>,
    seed: Option<u64>,
) -> Result<KeyRegistry, EmulatorError> {
    let profile = match api {
        Api::Kanal => Kanal::PROFILE,
        Api::Katana { .. } => Katana::PROFILE,
    };
    let clock = Arc::clone(clock);
    let registry = KeyRegistry::in_memory(profile)?.with_clock(move || clock());
    let seeded = |seed| {
        let mut seeded = Seeded::new(seed, 1);
        Box::new(move |bytes: &mut [u8]| {
            seeded.fill(bytes);
            Ok(())
        }) as Box<Random>
    };
    let registry = match random.or_else(|| seed.map(seeded)) {
        Some(random) => registry.with_random(random),
        None => registry,
    };
    registry.put_store(OWN_STORE, TEAM)?;
    registry.put_store(FOREIGN_STORE, OTHER_TEAM)?;
    registry.put_store(PAUSED_STORE, TEAM)?;
    registry.pause_store(PAUSED_STORE)?;
    Ok(registry)
}

fn random_seed() -> Result<u64, EmulatorError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| EmulatorError::NoRandomness)?;
    Ok(u64::from_le_bytes(bytes))
}

impl fmt::Debug for EmulatorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the seed: the keys come from it.
        f.debug_struct("EmulatorSettings")
            .field("api", &self.api)
            .field("is_limited", &self.is_limited)
            .finish_non_exhaustive()
    }
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

    /// Returns the key of a request, also one that is not for the store.
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
