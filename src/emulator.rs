//! A server on this machine that answers as Kanal and Katana document, for tests.
//!
//! An [`Emulator`] is a [`KeyRegistry`] behind real HTTP on 127.0.0.1. It starts on a free port with one key and three
//! stores, and stops when it is dropped. Keys can be created and deleted and stores paused while it runs, and
//! [`FaultRule`]s make its answers fail as real ones do. The program `keysheath-emulator` is the same for other languages.
//!
//! ```
//! use keysheath::emulator::{Emulator, Fault, FaultRule};
//!
//! let emulator = Emulator::start()?; // Kanal, on a free port
//! let ask = || {
//!     ureq::get(format!("{}/api/v1/stores/123/orders", emulator.origin()))
//!         .header("authorization", format!("Bearer {}", emulator.key().expose_secret()))
//!         .call()
//! };
//! assert_eq!(ask()?.status(), 200);
//!
//! emulator.add_fault(FaultRule::new(Fault::status(503).with_retry_after(2)).times(1))?;
//! assert!(matches!(ask(), Err(ureq::Error::StatusCode(503))));
//!
//! emulator.delete_key(emulator.key_id())?; // at once, and for ever
//! assert!(matches!(ask(), Err(ureq::Error::StatusCode(401))));
//! assert_eq!(emulator.journal().len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it answers
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/v1/stores/{store_id}/customers` | Kanal: writes a customer; `phone` (`+` and 8 to 15 digits), `first_name`, `last_name`, `email`; 201, 200 or 422 |
//! | `GET /api/v1/stores/{store_id}/orders` | Kanal: `{"data":[]}`, so that there is something to read |
//! | `GET /v1/products?limit=&page=` | Katana: a page of 120 products |
//!
//! The refusals are those of [`failure`](crate::failure), word for word. Key, store and rate limit are looked at before
//! the body, as Kanal documents. What is not documented and had to be chosen: which refusal wins when several apply (see
//! [`registry`](crate::registry)), the body of a success, 200 or 201, what a product consists of, and the answers to a
//! body that is too long (413, over [`MAX_BODY`]), too slow (408, after [`READ_TIMEOUT`]) or not said to be JSON (415).
//! A request without one valid `Host`, and one with both `Content-Length` and `Transfer-Encoding`, is answered 400.
//!
//! # Control plane
//! What the methods of [`Emulator`] do can be done over HTTP as well, on a port of its own, in JSON. Every request has
//! `Authorization: Bearer` and the token, which is random at every start. A request whose `Host` is not the port's own
//! `127.0.0.1:PORT`, or that a page in a browser sent (`Origin`, `Sec-Fetch-…`), is answered 403: no page reaches it, not
//! even under a name of its own that was made to mean 127.0.0.1.
//!
//! | request | method here |
//! |---|---|
//! | `POST /keys` `{"name": "shop", "team": 1, "store": 123}`; the last two may be left out | [`Emulator::create_key`]; the answer holds the key, once |
//! | `GET /keys?team=1` | [`Emulator::keys`] |
//! | `DELETE /keys/{id}` | [`Emulator::delete_key`] |
//! | `POST /keys/{id}/delete-after` `{"requests": 3}` | [`Emulator::delete_key_after`] |
//! | `PUT /stores/{id}` `{"team": 1}` | [`Emulator::put_store`] |
//! | `POST /stores/{id}/pause`, `POST /stores/{id}/resume` | [`Emulator::pause_store`], [`Emulator::resume_store`] |
//! | `GET /stores/{id}/customers` | [`Emulator::customers`] |
//! | `POST /faults` `{"fault": …, "key": "…", "store": 123, "route": "/v1/*", "nth": 1, "times": 2, "probability": 0.5}` | [`Emulator::add_fault`] |
//! | `GET /faults`, `DELETE /faults` | [`Emulator::faults`], [`Emulator::clear_faults`] |
//! | `GET /journal` | [`Emulator::journal`] |
//! | `POST /reset` | [`Emulator::reset`] |
//!
//! A `fault` is `"reset"`, `"truncated_body"`, `{"latency_ms": 200}` or
//! `{"status": 503, "retry_after": 2, "body": "…"}`.
//!
//! # What is out of scope
//! It is for tests: on 127.0.0.1 alone, and with a registry that ends with the process. Whatever runs as the same user
//! can read its memory, and so its keys and its token.

mod answer;
mod control;
mod customers;
mod error;
mod exchange;
mod fault;
mod framing;
mod journal;
mod kanal_api;
mod katana_api;
mod rate_limit;
mod rule_json;
mod seeded;
mod server;
mod settings;
mod shop;
#[cfg(feature = "emulator-tls")]
mod tls;
mod wire;

use std::fmt;
use std::sync::Arc;

use crate::key::{Origin, RawKey, StoreId};
use crate::registry::{KeyId, KeyRecord, KeyRegistry, NewKey, RegistryError, Restriction, TeamId};

use server::Server;
use shop::{Api, Shop};

pub use customers::{Customer, MAX_CUSTOMERS};
pub use error::EmulatorError;
pub use fault::{Fault, FaultError, FaultId, FaultRule, MAX_FAULTS, MAX_LATENCY};
pub use journal::{JournalEntry, MAX_JOURNAL};
pub use rate_limit::{RATE_LIMIT, RATE_WINDOW};
pub use server::MAX_CONNECTIONS;
pub use settings::{MAX_READ_TIMEOUT, READ_TIMEOUT, Settings};
pub use shop::{FOREIGN_STORE, OTHER_TEAM, OWN_STORE, PAUSED_STORE, TEAM};

/// The largest body that is read, in bytes.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_BODY, 1024 * 1024);
/// ```
pub const MAX_BODY: usize = 1024 * 1024;

/// A server on 127.0.0.1 that answers as an issuer documents. Dropping it cuts every connection and frees both ports.
///
/// It has a thread of its own and needs no async runtime; in async code, starting and dropping one takes about a
/// millisecond, and no method waits for a request.
///
/// ```
/// use keysheath::emulator::Emulator;
/// use keysheath::key::{ApiKey, Kanal};
///
/// let emulator = Emulator::start()?;
/// let key: ApiKey<Kanal> = emulator.key().clone_key().try_into_typed().unwrap();
/// println!("{:?} at {}", key, emulator.origin());
/// # Ok::<(), keysheath::emulator::EmulatorError>(())
/// ```
#[doc(alias("mock", "fake"))]
pub struct Emulator {
    _server: Server,
    shop: Arc<Shop>,
    first: NewKey,
    origin: Origin,
    control_origin: Origin,
    token: RawKey,
    #[cfg(feature = "emulator-tls")]
    certificate: Option<tls::Certificate>,
}

impl Emulator {
    /// Kanal, as [`Emulator::kanal`] has it unless told otherwise.
    ///
    /// # Errors
    /// As [`Settings::start`].
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn start() -> Result<Self, EmulatorError> {
        Self::kanal().start()
    }

    /// Kanal, to be started.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_seed(7).start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn kanal() -> Settings {
        Settings::new(Api::Kanal)
    }

    /// Katana, to be started. Its keys have 24 letters and digits; what Katana's own look like is not documented.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::katana().with_nested_errors().start()?;
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn katana() -> Settings {
        Settings::new(Api::Katana { nested: false })
    }

    /// Where it listens, for `OriginGuard::for_loopback`.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// assert_eq!(Emulator::start()?.origin().host(), "127.0.0.1");
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The key that it was started with.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// assert_eq!(Emulator::start()?.key().expose_secret().len(), 24);
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        self.first.key()
    }

    /// The number of that key.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// emulator.delete_key(emulator.key_id())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.first.record().id()
    }

    /// Where the control plane listens.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// assert_ne!(emulator.control_origin(), emulator.origin());
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub const fn control_origin(&self) -> &Origin {
        &self.control_origin
    }

    /// The token that the control plane asks for.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// let keys = ureq::get(format!("{}/keys", emulator.control_origin()))
    ///     .header("authorization", format!("Bearer {}", emulator.control_token().expose_secret()))
    ///     .call()?;
    /// assert_eq!(keys.status(), 200);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn control_token(&self) -> &RawKey {
        &self.token
    }

    /// The registry behind it, for what has no method here.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// assert_eq!(Emulator::start()?.registry().len(), 1);
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub fn registry(&self) -> &KeyRegistry {
        &self.shop.registry
    }

    /// The certificate to trust, where it was started [`Settings::with_tls`].
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// assert!(Emulator::start()?.certificate_der().is_none());
    /// assert!(Emulator::kanal().with_tls().start()?.certificate_der().is_some());
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[cfg(feature = "emulator-tls")]
    #[must_use]
    pub fn certificate_der(&self) -> Option<&[u8]> {
        self.certificate.as_ref().map(|certificate| &*certificate.der)
    }

    /// As [`Emulator::certificate_der`], in PEM, as `curl --cacert` reads it.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::kanal().with_tls().start()?;
    /// assert!(emulator.certificate_pem().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[cfg(feature = "emulator-tls")]
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate.as_ref().map(|certificate| &*certificate.pem)
    }

    /// Creates a key of [`TEAM`] for all of its stores.
    ///
    /// # Errors
    /// As [`KeyRegistry::create_key`].
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// let new = emulator.create_key("production-shop")?;
    /// assert!(new.key() != emulator.key());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_key(&self, name: &str) -> Result<NewKey, RegistryError> {
        self.shop.registry.create_key(TEAM, name, Restriction::None)
    }

    /// The keys of a team, in the order of creation.
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, TEAM};
    /// assert_eq!(Emulator::start()?.keys(TEAM).len(), 1);
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub fn keys(&self, team: TeamId) -> Vec<KeyRecord> {
        self.shop.registry.keys(team)
    }

    /// Deletes a key for ever. From the moment that this returns, the key is refused.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchKey`].
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// emulator.delete_key(emulator.key_id())?;
    /// assert!(emulator.delete_key(emulator.key_id()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_key(&self, id: KeyId) -> Result<(), RegistryError> {
        self.shop.delete_key(id)
    }

    /// Deletes a key after this many more requests with it, whatever they are answered; 0 is at once. A second call
    /// replaces the first.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchKey`].
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// let emulator = Emulator::start()?;
    /// emulator.delete_key_after(emulator.key_id(), 3)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_key_after(&self, id: KeyId, requests: u64) -> Result<(), RegistryError> {
        self.shop.delete_key_after(id, requests)
    }

    /// Says that a store exists and whose it is.
    ///
    /// # Errors
    /// As [`KeyRegistry::put_store`].
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, TEAM};
    /// # use keysheath::key::StoreId;
    /// Emulator::start()?.put_store(StoreId::new(1001).unwrap(), TEAM)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_store(&self, store: StoreId, team: TeamId) -> Result<(), RegistryError> {
        self.shop.registry.put_store(store, team)
    }

    /// Pauses a store: requests for it are answered as if it were not there.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchStore`].
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, OWN_STORE};
    /// Emulator::start()?.pause_store(OWN_STORE)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pause_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.shop.registry.pause_store(store)
    }

    /// Ends a store's pause.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchStore`].
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, PAUSED_STORE};
    /// Emulator::start()?.resume_store(PAUSED_STORE)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.shop.registry.resume_store(store)
    }

    /// The customers of a store, in the order in which they were new.
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, OWN_STORE};
    /// assert!(Emulator::start()?.customers(OWN_STORE).is_empty());
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub fn customers(&self, store: StoreId) -> Vec<Customer> {
        self.shop.customers.lock().of(store)
    }

    /// Adds a fault rule after those that are there.
    ///
    /// # Errors
    /// [`FaultError`] for a rule that cannot be, or when there are [`MAX_FAULTS`].
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, Fault, FaultRule};
    /// let emulator = Emulator::start()?;
    /// emulator.add_fault(FaultRule::new(Fault::status(503)).times(2))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_fault(&self, rule: FaultRule) -> Result<FaultId, FaultError> {
        self.shop.faults.lock().add(rule)
    }

    /// The fault rules in order, and how often each was applied.
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, Fault, FaultRule};
    /// let emulator = Emulator::start()?;
    /// let id = emulator.add_fault(FaultRule::new(Fault::Reset))?;
    /// assert_eq!(emulator.faults(), [(id, FaultRule::new(Fault::Reset), 0)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn faults(&self) -> Vec<(FaultId, FaultRule, u64)> {
        self.shop.faults.lock().list()
    }

    /// Takes every fault rule away. Requests that met one already are not called back.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// Emulator::start()?.clear_faults();
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn clear_faults(&self) {
        self.shop.faults.lock().clear();
    }

    /// The last [`MAX_JOURNAL`] requests in the order in which they were answered. A request is in it before its client
    /// sees the answer.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// assert!(Emulator::start()?.journal().is_empty());
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.shop.journal.lock().entries()
    }

    /// Forgets what requests and rules have left behind: customers, journal, fault rules, deletions to come, and what
    /// counts for the rate limit. Keys and stores stay as they are: a key that was deleted does not come back.
    ///
    /// ```
    /// # use keysheath::emulator::Emulator;
    /// Emulator::start()?.reset();
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    pub fn reset(&self) {
        self.shop.reset();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emulator({:?} at {}, {:?})", self.shop.api, self.origin, self.first.key())
    }
}
