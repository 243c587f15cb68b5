//! The settings that an emulator starts with.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::fault::Seeded;
use super::server::EmulatorError;
use super::shop::{Api, Clock, FOREIGN_STORE, OTHER_TEAM, OWN_STORE, PAUSED_STORE, Shop, TEAM};
use crate::key::{Issuer as _, Kanal, Katana, RawKey};
use crate::registry::{KeyRegistry, NewKey, Restriction};

/// The default of [`Settings::with_read_timeout`].
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time-out.
const MAX_READ_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

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
pub struct Settings {
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
    pub(super) has_tls: bool,
}

impl Settings {
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
            has_tls: false,
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

    /// Sets how long the head of a request may take to arrive, and its body after that: [`READ_TIMEOUT`] by
    /// default, a day at most. A connection without a request is closed after this time, and so is one whose
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
        self.has_tls = true;
        self
    }

    /// The state that it starts with, and its first key.
    pub(super) fn open(self) -> Result<(Shop, NewKey), EmulatorError> {
        let api = match self.api {
            Api::Katana { .. } => Api::Katana { nested: self.is_nested },
            Api::Kanal if self.is_nested => return Err(EmulatorError::NestedErrors),
            Api::Kanal => Api::Kanal,
        };
        let seed = self.seed.map_or_else(random_seed, Ok)?;
        let registry = registry(api, &self.clock, self.random, self.seed)?;
        let first = match self.key {
            None => registry.create_key(TEAM, "emulator", Restriction::None)?,
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

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the seed: the keys come from it.
        f.debug_struct("Settings")
            .field("api", &self.api)
            .field("is_limited", &self.is_limited)
            .finish_non_exhaustive()
    }
}
