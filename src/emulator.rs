//! A local server that answers as Kanal and Katana document, for tests.
//!
//! An [`Emulator`] is a [`KeyRegistry`] behind real HTTP on 127.0.0.1. It starts on a free port with one key
//! and three stores, and stops when it is dropped. While it runs, keys can be created and deleted and stores
//! paused, and [`FaultRule`]s make its answers fail. The program `keysheath-emulator` is the same for other
//! languages.
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
//! emulator.add_fault(FaultRule::new(Fault::status(503).with_retry_after(2)).with_times(1))?;
//! assert!(matches!(ask(), Err(ureq::Error::StatusCode(503))));
//!
//! emulator.delete_key(emulator.key_id())?; // takes effect at once
//! assert!(matches!(ask(), Err(ureq::Error::StatusCode(401))));
//! assert_eq!(emulator.journal().len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it answers
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/v1/stores/{store_id}/customers` | Kanal: writes a customer; 201, 200 or 422 |
//! | `GET /api/v1/stores/{store_id}/orders` | Kanal: `{"data":[]}`, so that there is something to read |
//! | `GET /v1/products?limit=&page=` | Katana: a page of 120 products |
//!
//! A customer has `phone` (`+` and 8 to 15 digits), `first_name`, `last_name` and `email`.
//!
//! The refusals are those of [`failure`](crate::failure), word for word. Key, store and rate limit are
//! examined before the body, as Kanal documents. Not documented, and chosen here: which refusal wins when
//! several apply (see [`registry`](crate::registry)), the body of a success, 200 or 201, the fields of a
//! product, and the answers to a body that is too long (413, over 1 MiB), too slow (408, after
//! 30 s) or not declared as JSON (415). A request without exactly one valid `Host`, or with both
//! `Content-Length` and `Transfer-Encoding`, is answered with 400. Each port serves 512 connections at once;
//! further ones wait. An emulator keeps the last 10,000 requests and 100,000 customers.
//!
//! # Control plane
//! The methods of [`Emulator`] are also available as JSON over HTTP, on a port of their own. Every request
//! needs `Authorization: Bearer` with the token, which is random at every start. A request whose `Host` is
//! not `127.0.0.1:PORT`, or that a page in a browser sent (`Origin`, `Sec-Fetch-…`), is answered with 403: no
//! page reaches the control plane, even under a host name that resolves to 127.0.0.1.
//!
//! | request | method here |
//! |---|---|
//! | `POST /keys` | [`Emulator::create_key`]; only this answer holds the key |
//! | `GET /keys?team=1` | [`Emulator::keys`] |
//! | `DELETE /keys/{id}` | [`Emulator::delete_key`] |
//! | `POST /keys/{id}/delete-after` `{"requests": 3}` | [`Emulator::delete_key_after`] |
//! | `PUT /stores/{id}` `{"team": 1}` | [`Emulator::put_store`] |
//! | `POST /stores/{id}/pause` | [`Emulator::pause_store`] |
//! | `POST /stores/{id}/resume` | [`Emulator::resume_store`] |
//! | `GET /stores/{id}/customers` | [`Emulator::customers`] |
//! | `POST /faults` | [`Emulator::add_fault`] |
//! | `GET /faults`, `DELETE /faults` | [`Emulator::faults`], [`Emulator::clear_faults`] |
//! | `GET /journal` | [`Emulator::journal`] |
//! | `POST /reset` | [`Emulator::reset`] |
//!
//! The body of `POST /keys` is `{"name": "shop", "team": 1, "store": 123}`; `team` and `store` are optional.
//! That of `POST /faults` is `{"fault": …}`, where the fault is `"reset"`, `"truncated_body"`,
//! `{"latency_ms": 200}` or `{"status": 503, "retry_after": 2, "body": "…"}`; and optionally `"key": "ID"`,
//! `"store": 123`, `"route": "/v1/*"`, `"nth": 1`, `"times": 2` and `"probability": 0.5`.
//!
//! # What is out of scope
//! It is for tests: it listens only on 127.0.0.1, and its registry ends with the process. Any program of the
//! same user can read its memory, and so its keys and its token.

// Each imports only from those above it.
mod connection;
mod fault;
mod records;
mod shop;
mod api;
mod server;
mod control;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use crate::key::{Origin, RawKey, StoreId};
use crate::registry::{KeyId, KeyRecord, KeyRegistry, NewKey, RegistryError, TeamId};

use connection::Certificate;
use server::{Server, Site, bind};
use shop::{Api, Shop};

pub use fault::{Fault, FaultRule, FaultStatus};
pub use records::{Customer, JournalEntry};
pub use shop::{EmulatorError, EmulatorSettings, FOREIGN_STORE, OTHER_TEAM, OWN_STORE, PAUSED_STORE, TEAM};

/// A server on 127.0.0.1 that answers as an issuer documents. Dropping it closes every connection and frees
/// both ports.
///
/// It has a thread of its own and needs no async runtime. Starting and dropping one takes about a
/// millisecond, and no method waits for a request, so it may be used in async code.
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
    certificate: Option<Certificate>,
}

impl EmulatorSettings {
    /// Starts the emulator. When this returns, both ports accept connections.
    ///
    /// # Errors
    /// [`EmulatorError`]: a port that is in use, a setting that the issuer does not have, or an operating
    /// system that gives no thread or no random bytes.
    pub fn start(self) -> Result<Emulator, EmulatorError> {
        let (port, control_port, make_tls) = (self.port, self.control_port, self.make_tls);
        let read_timeout = self.read_timeout;
        let (shop, first) = self.open()?;
        let shop = Arc::new(shop);
        let (listener, control_listener) = (bind(port)?, bind(control_port)?);
        let control_origin = origin(&control_listener, "http")?;
        let (answer_control, token) = control::plane(&shop, control_origin.port())?;
        let made = make_tls.map(|make| make().ok_or(EmulatorError::Certificate)).transpose()?;
        let origin = origin(&listener, if made.is_some() { "https" } else { "http" })?;
        let (tls, certificate) = made.unzip();
        let data = Site { listener, answer: server::service(&shop), tls, read_timeout };
        let control = Site { listener: control_listener, answer: answer_control, tls: None, read_timeout };
        let server = Server::start(vec![data, control])?;
        Ok(Emulator { _server: server, shop, first, origin, control_origin, token, certificate })
    }
}

fn origin(listener: &TcpListener, scheme: &str) -> Result<Origin, EmulatorError> {
    let address = listener.local_addr().map_err(|error| EmulatorError::Bind(error.kind()))?;
    let origin = Origin::parse(&format!("{scheme}://{address}"));
    origin.map_err(|_| EmulatorError::Bind(io::ErrorKind::AddrNotAvailable))
}

impl Emulator {
    /// Starts Kanal with the default settings.
    ///
    /// # Errors
    /// As [`EmulatorSettings::start`].
    pub fn start() -> Result<Self, EmulatorError> {
        Self::kanal().start()
    }

    /// Returns settings for Kanal.
    pub fn kanal() -> EmulatorSettings {
        EmulatorSettings::new(Api::Kanal)
    }

    /// Returns settings for Katana. Its keys have 24 letters and digits; Katana does not document what its
    /// own look like.
    pub fn katana() -> EmulatorSettings {
        EmulatorSettings::new(Api::Katana { nested: false })
    }

    /// Returns the address, for `OriginGuard::for_loopback`.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the key that it was started with.
    #[must_use]
    pub const fn key(&self) -> &RawKey {
        self.first.key()
    }

    /// Returns the ID of that key.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.first.record().id()
    }

    /// Returns the address of the control plane.
    #[must_use]
    pub const fn control_origin(&self) -> &Origin {
        &self.control_origin
    }

    /// Returns the token of the control plane.
    #[must_use]
    pub const fn control_token(&self) -> &RawKey {
        &self.token
    }

    /// Returns the registry behind it, for what has no method here.
    #[must_use]
    pub fn registry(&self) -> &KeyRegistry {
        &self.shop.registry
    }

    /// Returns the certificate to trust, if it was started with TLS (`with_tls`, with the feature
    /// `emulator-tls`).
    #[must_use]
    pub fn certificate_der(&self) -> Option<&[u8]> {
        self.certificate.as_ref().map(|certificate| &*certificate.der)
    }

    /// Returns the certificate to trust in PEM, as `curl --cacert` reads it.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate.as_ref().map(|certificate| &*certificate.pem)
    }

    /// Creates a key of [`TEAM`] for all of its stores.
    ///
    /// # Errors
    /// As [`KeyRegistry::create_key`].
    pub fn create_key(&self, name: &str) -> Result<NewKey, RegistryError> {
        self.shop.registry.create_key(TEAM, name)
    }

    /// Returns the keys of a team, in the order of creation.
    #[must_use]
    pub fn keys(&self, team: TeamId) -> Vec<KeyRecord> {
        self.shop.registry.keys(team)
    }

    /// Deletes a key. It is refused from the moment that this returns.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchKey`].
    pub fn delete_key(&self, id: KeyId) -> Result<(), RegistryError> {
        self.shop.delete_key(id)
    }

    /// Deletes a key after this many more requests with it, whatever their answers; 0 deletes it at once. A
    /// second call replaces the first.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchKey`].
    pub fn delete_key_after(&self, id: KeyId, requests: u64) -> Result<(), RegistryError> {
        self.shop.delete_key_after(id, requests)
    }

    /// Adds a store, or gives it to another team.
    ///
    /// # Errors
    /// As [`KeyRegistry::put_store`].
    pub fn put_store(&self, store: StoreId, team: TeamId) -> Result<(), RegistryError> {
        self.shop.registry.put_store(store, team)
    }

    /// Pauses a store: requests for it are answered as if it did not exist.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchStore`].
    pub fn pause_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.shop.registry.pause_store(store)
    }

    /// Resumes a paused store.
    ///
    /// # Errors
    /// [`RegistryError::NoSuchStore`].
    pub fn resume_store(&self, store: StoreId) -> Result<(), RegistryError> {
        self.shop.registry.resume_store(store)
    }

    /// Returns the customers of a store, in the order of creation.
    #[must_use]
    pub fn customers(&self, store: StoreId) -> Vec<Customer> {
        self.shop.customers.lock().in_store(store)
    }

    /// Adds a fault rule after the others, and returns its number.
    ///
    /// # Errors
    /// [`EmulatorError::Fault`] for an invalid rule, or if there are 1,000 rules already.
    pub fn add_fault(&self, rule: FaultRule) -> Result<u64, EmulatorError> {
        self.shop.faults.lock().add(rule).map_err(|reason| EmulatorError::Fault { reason })
    }

    /// Returns the fault rules in order.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultStatus> {
        self.shop.faults.lock().list()
    }

    /// Removes every fault rule. A fault that is under way goes on.
    pub fn clear_faults(&self) {
        self.shop.faults.lock().clear();
    }

    /// Returns the last 10,000 requests in the order in which they were answered. A request is included
    /// before its client sees the answer.
    #[must_use]
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.shop.journal.lock().entries()
    }

    /// Removes customers, journal, fault rules, deletions to come and what counts for the rate limit. Keys
    /// and stores stay as they are: a deleted key does not come back.
    pub fn reset(&self) {
        self.shop.reset();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emulator({:?} at {}, {:?})", self.shop.api, self.origin, self.first.key())
    }
}
