//! How an emulator is to be.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::control;
use super::exchange::exchange;
use super::kanal_api;
use super::katana_api;
use super::seeded::Seeded;
use super::server::{Answer, Server, Site, bind};
use super::shop::{Api, Clock, Shop};
use super::{Emulator, EmulatorError, FOREIGN_STORE, OTHER_TEAM, OWN_STORE, PAUSED_STORE, TEAM};
use crate::key::{Issuer as _, Kanal, Katana, Origin, RawKey};
use crate::registry::{KeyRegistry, Restriction};

/// How long a request's head may take to arrive, and its body after that, unless
/// [`Settings::with_read_timeout`] says otherwise. A connection without a request is closed after it, and so is one whose
/// client takes no byte of its answer for as long.
///
/// ```
/// assert_eq!(keysheath::emulator::READ_TIMEOUT.as_secs(), 30);
/// ```
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time-out; a longer one counts as this.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_READ_TIMEOUT.as_secs(), 24 * 60 * 60);
/// ```
pub const MAX_READ_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

type Random = dyn FnMut(&mut [u8]) -> io::Result<()> + Send;

/// How an emulator is to be: [`Emulator::kanal`] and [`Emulator::katana`] begin one.
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
    read_timeout: Duration,
    port: u16,
    control_port: u16,
    #[cfg(feature = "emulator-tls")]
    has_tls: bool,
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
            #[cfg(feature = "emulator-tls")]
            has_tls: false,
        }
    }

    /// The same keys, products and meetings with faults at every start. Whoever knows the seed knows the keys, so they
    /// are for tests and for nothing else. Without a seed, keys come from the operating system's generator; the control
    /// plane's token always does.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_seed(7).start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// With another clock, for rate limits, the journal and the records of keys. Latency and time-outs are real.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_clock(|| SystemTime::UNIX_EPOCH).start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// With another generator of the bytes that keys are made from. It goes before the seed.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_random(|bytes| {
    ///     bytes.fill(7);
    ///     Ok(())
    /// });
    /// assert_eq!(emulator.start()?.key().expose_secret(), "HHHHHHHHHHHHHHHHHHHHHHHH");
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn with_random(mut self, random: impl FnMut(&mut [u8]) -> io::Result<()> + Send + 'static) -> Self {
        self.random = Some(Box::new(random));
        self
    }

    /// With this key as the first one, where a configuration holds a made-up key already. Any other key is made by the
    /// emulator.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// let emulator = Emulator::kanal().with_key(key.clone_key().into_raw()).start()?;
    /// assert!(emulator.key() == key.as_raw());
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn with_key(mut self, key: RawKey) -> Self {
        self.key = Some(key);
        self
    }

    /// With the documented rate limit: 60 requests a minute, for each store (Kanal) or each key (Katana). Without this
    /// there is none.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_rate_limit().start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub const fn with_rate_limit(mut self) -> Self {
        self.is_limited = true;
        self
    }

    /// With Katana's errors in the shape that is nested under `error`, in place of the flat one. Kanal has one shape, and
    /// does not start so.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::katana().with_nested_errors().start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub const fn with_nested_errors(mut self) -> Self {
        self.is_nested = true;
        self
    }

    /// With another time-out than [`READ_TIMEOUT`], of at most [`MAX_READ_TIMEOUT`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_read_timeout(Duration::from_millis(200)).start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub const fn with_read_timeout(mut self, time: Duration) -> Self {
        self.read_timeout = if time.as_secs() < MAX_READ_TIMEOUT.as_secs() { time } else { MAX_READ_TIMEOUT };
        self
    }

    /// On this port of 127.0.0.1. Without this, or with 0, on one that is free.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_port(0).start()?;
    /// assert_ne!(emulator.origin().port(), 0);
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// As [`Settings::with_port`], for the control plane.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_control_port(0).start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub const fn with_control_port(mut self, port: u16) -> Self {
        self.control_port = port;
        self
    }

    /// Over TLS, with a certificate made at start; see [`Emulator::certificate_pem`]. The control plane stays plain: it is
    /// spoken to on this machine alone.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_tls().start()?;
    /// assert!(emulator.origin().to_string().starts_with("https://127.0.0.1:"));
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[cfg(feature = "emulator-tls")]
    pub const fn with_tls(mut self) -> Self {
        self.has_tls = true;
        self
    }

    /// Starts it. When this returns, both ports take connections.
    ///
    /// # Errors
    /// [`EmulatorError`]: a port that is taken, a setting that the issuer does not have, or an operating system that gives no
    /// thread or no random bytes.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::katana().start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn start(self) -> Result<Emulator, EmulatorError> {
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
        let shop = Arc::new(shop);

        let (listener, control_listener) = (bind(self.port)?, bind(self.control_port)?);
        let control_origin = origin(&control_listener, "http")?;
        let (answer_control, token) = control::plane(&shop, control_origin.port())?;

        #[cfg(feature = "emulator-tls")]
        let (tls, certificate) = self.has_tls.then(super::tls::make).transpose()?.unzip();
        #[cfg(feature = "emulator-tls")]
        let scheme = if self.has_tls { "https" } else { "http" };
        #[cfg(not(feature = "emulator-tls"))]
        let scheme = "http";

        let origin = origin(&listener, scheme)?;
        let data = Site {
            listener,
            answer: data_plane(&shop),
            #[cfg(feature = "emulator-tls")]
            tls,
            read_timeout: self.read_timeout,
        };
        let control = Site {
            listener: control_listener,
            answer: answer_control,
            #[cfg(feature = "emulator-tls")]
            tls: None,
            read_timeout: self.read_timeout,
        };
        Ok(Emulator {
            _server: Server::start(vec![data, control])?,
            shop,
            first,
            origin,
            control_origin,
            token,
            #[cfg(feature = "emulator-tls")]
            certificate,
        })
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

fn data_plane(shop: &Arc<Shop>) -> Arc<Answer> {
    let router = match shop.api {
        Api::Kanal => kanal_api::router(shop),
        Api::Katana { .. } => katana_api::router(shop),
    };
    let shop = Arc::clone(shop);
    Arc::new(move |request, fate| Box::pin(exchange(Arc::clone(&shop), router.clone(), fate, request)))
}

fn origin(listener: &TcpListener, scheme: &str) -> Result<Origin, EmulatorError> {
    let address = listener.local_addr().map_err(|error| EmulatorError::Bind(error.kind()))?;
    let origin = Origin::parse(&format!("{scheme}://{address}"));
    origin.map_err(|_| EmulatorError::Bind(io::ErrorKind::AddrNotAvailable))
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
