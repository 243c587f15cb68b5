//! The probes of Kanal and Katana.

use std::fmt;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use super::{Finding, Probe, Report};
use crate::client::{BearerHeader, OriginGuard};
use crate::failure::{Answer, Obstacle};
use crate::internal::bytes::WipedBytes;
use crate::key::{Issuer, Kanal, Katana, RawKey, Roots, StoreId};
use crate::outgoing::{MAX_ANSWER, Outgoing};

/// How long one request may take by default, from DNS to the last byte of the answer.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// The body that Kanal documents for checking a set-up.
const CUSTOMER: &str = r#"{ "phone": "+33612345678", "first_name": "Test" }"#;

/// A body that no customer has.
const NO_CUSTOMER: &str = "{}";

/// Katana's cheapest request that needs a key.
const PRODUCTS: &str = "/v1/products?limit=1";

/// Sends requests to issuer `I` at one origin.
struct Requests<I: Issuer> {
    guard: OriginGuard<I>,
    outgoing: Outgoing,
}

impl<I: Issuer> Requests<I> {
    fn new() -> Self {
        Self { guard: OriginGuard::new(), outgoing: Outgoing::new(DEFAULT_DEADLINE, MAX_ANSWER) }
    }

    fn with_guard(self, guard: OriginGuard<I>) -> Self {
        Self { guard, ..self }
    }

    fn with_deadline(self, deadline: Duration) -> Self {
        Self { outgoing: self.outgoing.with_deadline(deadline), ..self }
    }

    fn with_roots(self, roots: Roots) -> Self {
        Self { outgoing: self.outgoing.with_roots(roots), ..self }
    }

    /// Returns the header for a key of this issuer.
    fn header(key: &RawKey) -> Result<BearerHeader<I>, Obstacle> {
        let (name, asked) = (key.profile().name(), I::PROFILE.name());
        BearerHeader::from_raw(key).ok_or(Obstacle::OtherIssuer { key: name, asked })
    }

    /// Sends one request and reads the answer. `request` has a path and no origin.
    fn send(&self, header: &BearerHeader<I>, mut request: Request<WipedBytes>) -> Result<Answer, Obstacle> {
        let uri = format!("{}{}", self.guard.origin(), request.uri());
        *request.uri_mut() = uri.parse().map_err(|_| Obstacle::Guarded)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.guard.authorize(&mut request, header).map_err(|_| Obstacle::Guarded)?;
        let reply = self.outgoing.send(request)?;
        // A sign-in page of a proxy comes with a 200. Any other answer is classified by the issuer's table.
        if reply.is_web_page && (200..300).contains(&reply.status) {
            return Err(Obstacle::WebPage { status: reply.status });
        }
        Ok(I::PROFILE.classify(reply.status, reply.retry_after(), &reply.body))
    }
}

impl<I: Issuer> Clone for Requests<I> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), outgoing: self.outgoing.clone() }
    }
}

impl<I: Issuer> fmt::Debug for Requests<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.guard, self.outgoing)
    }
}

/// Asks Kanal whether a key works for each of some stores.
///
/// Kanal has no request made for this purpose. There are two ways:
///
/// - [`KanalProbe::by_customer_upsert`] is what Kanal documents. **It writes a customer record** into each
///   store.
/// - [`KanalProbe::by_invalid_customer`] is inferred from what Kanal documents, and should write nothing.
///
/// A key that is restricted to one store is accepted there and refused elsewhere, so name every store that
/// the key serves. The requests are sent one after another, each with the whole deadline, and each counts
/// against the rate limit of its store (60 requests a minute).
///
/// ```no_run
/// use keysheath::key::{ApiKey, Kanal, StoreId};
/// use keysheath::probe::{KanalProbe, Probe};
///
/// let stores = [124, 125].map(|number| StoreId::new(number).unwrap());
/// let probe = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), stores);
/// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// for finding in probe.probe(key.as_raw()).findings() {
///     println!("{finding}");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct KanalProbe {
    stores: Vec<StoreId>,
    body: &'static str,
    requests: Requests<Kanal>,
}

impl KanalProbe {
    /// Creates the documented check: `POST /api/v1/stores/{id}/customers` with `{ "phone": "+33612345678",
    /// "first_name": "Test" }`. Any 2xx confirms the key, the store and the authorisation.
    ///
    /// **It writes**: afterwards each store has a customer named Test with that number, created or updated.
    #[must_use]
    pub fn by_customer_upsert(store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        Self::new(CUSTOMER, store, more)
    }

    /// Creates the inferred check: the same request with a body that no customer has (`{}`), which Kanal must
    /// refuse.
    ///
    /// Kanal documents that it detects problems with the key and the store before it validates the body, so a
    /// 422 means that both were accepted. That nothing is written then is **inferred, not documented**. If
    /// Kanal answers 2xx instead, the key was accepted, and a customer may have been written: each finding
    /// shows the status.
    #[must_use]
    pub fn by_invalid_customer(store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        Self::new(NO_CUSTOMER, store, more)
    }

    fn new(body: &'static str, store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        let stores = std::iter::once(store).chain(more).collect();
        Self { stores, body, requests: Requests::new() }
    }

    /// Sends the requests to another origin: a test server or a gateway.
    #[must_use]
    pub fn with_guard(self, guard: OriginGuard<Kanal>) -> Self {
        Self { requests: self.requests.with_guard(guard), ..self }
    }

    /// Sets the deadline for each request: 10 s by default, at most an hour.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { requests: self.requests.with_deadline(deadline), ..self }
    }

    /// Trusts these root certificates instead of the public ones.
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        Self { requests: self.requests.with_roots(roots), ..self }
    }

    /// Returns the stores, in the order of the requests; at least one.
    #[must_use]
    pub fn stores(&self) -> &[StoreId] {
        &self.stores
    }

    fn ask(&self, header: &BearerHeader<Kanal>, store: StoreId) -> Result<Answer, Obstacle> {
        let path = format!("/api/v1/stores/{store}/customers");
        let request = Request::post(path)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(WipedBytes::copy_of(self.body.as_bytes()))
            .map_err(|_| Obstacle::Local)?;
        self.requests.send(header, request)
    }
}

impl Probe for KanalProbe {
    fn probe(&self, key: &RawKey) -> Report {
        let header = Requests::header(key);
        let find = |&store: &StoreId| {
            let outcome = header.as_ref().map_err(|obstacle| *obstacle);
            Finding::new(outcome.and_then(|header| self.ask(header, store))).with_store(store)
        };
        Report { findings: self.stores.iter().map(find).collect() }
    }
}

/// Asks Katana whether a key works, by `GET /v1/products?limit=1`: an ordinary, documented read. It writes
/// nothing, and counts against the key's rate limit (60 requests in 60 s).
///
/// ```no_run
/// use keysheath::key::{ApiKey, Katana};
/// use keysheath::probe::{KatanaProbe, Probe};
///
/// let key = ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
/// println!("{}", KatanaProbe::new().probe(key.as_raw()));
/// ```
#[derive(Clone, Debug)]
pub struct KatanaProbe {
    requests: Requests<Katana>,
}

impl KatanaProbe {
    /// Creates a probe for `https://api.katanamrp.com`.
    #[must_use]
    pub fn new() -> Self {
        Self { requests: Requests::new() }
    }

    /// Sends the request to another origin: a test server or a gateway.
    #[must_use]
    pub fn with_guard(self, guard: OriginGuard<Katana>) -> Self {
        Self { requests: self.requests.with_guard(guard) }
    }

    /// Sets the deadline: 10 s by default, at most an hour.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { requests: self.requests.with_deadline(deadline) }
    }

    /// Trusts these root certificates instead of the public ones.
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        Self { requests: self.requests.with_roots(roots) }
    }

    fn ask(&self, key: &RawKey) -> Result<Answer, Obstacle> {
        let header = Requests::header(key)?;
        let request = Request::get(PRODUCTS).body(WipedBytes::default()).map_err(|_| Obstacle::Local)?;
        self.requests.send(&header, request)
    }
}

impl Default for KatanaProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for KatanaProbe {
    fn probe(&self, key: &RawKey) -> Report {
        Report::new(Finding::new(self.ask(key)))
    }
}
