//! Probes by HTTP, for Kanal and Katana.

use std::fmt;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use super::{Finding, Probe, Report};
use crate::client::{BearerHeader, OriginGuard};
use crate::failure::{Answer, MAX_BODY, Obstacle};
use crate::internal::bytes::WipedBytes;
use crate::key::{Issuer, Kanal, Katana, RawKey, Roots, StoreId};
use crate::outgoing::Outgoing;

/// How long one request may take by default, from DNS to the last byte of the answer.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// The body that Kanal documents for checking a set-up.
const CUSTOMER: &str = r#"{ "phone": "+33612345678", "first_name": "Test" }"#;

/// A body that no customer has.
const NO_CUSTOMER: &str = "{}";

/// Katana's cheapest request that needs a key.
const PRODUCTS: &str = "/v1/products?limit=1";

/// Asks an issuer by HTTP whether a key works.
///
/// For **Kanal**, which has no request made for this purpose, there are two ways:
///
/// - [`HttpProbe::by_customer_upsert`] is what Kanal documents. **It writes a customer record** into each
///   store.
/// - [`HttpProbe::by_invalid_customer`] is inferred from what Kanal documents, and should write nothing.
///
/// A key that is restricted to one store is accepted there and refused elsewhere, so name every store that
/// the key serves. The requests are sent one after another, each with the whole deadline, and each counts
/// against the rate limit of its store (60 requests a minute).
///
/// For **Katana** there is [`HttpProbe::by_product_list`], an ordinary read.
///
/// ```no_run
/// use keysheath::key::{ApiKey, Kanal, Katana, StoreId};
/// use keysheath::probe::{HttpProbe, Probe, Verdict};
///
/// let stores = [124, 125].map(|number| StoreId::new(number).unwrap());
/// let probe = HttpProbe::by_invalid_customer(StoreId::new(123).unwrap(), stores);
/// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// let report = probe.probe(key.as_raw());
/// match report.verdict() {
///     Verdict::Accepted => println!("the key works"),
///     Verdict::KeyRefused => println!("create a new key"),
///     Verdict::StoreRefused | Verdict::Inconclusive => println!("keep the key:\n{report}"),
/// }
///
/// let key = ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
/// println!("{}", HttpProbe::by_product_list().probe(key.as_raw()));
/// ```
#[derive(Clone)]
pub struct HttpProbe<I: Issuer> {
    guard: OriginGuard<I>,
    outgoing: Outgoing,
    stores: Vec<StoreId>,
    body: &'static str,
}

impl HttpProbe<Kanal> {
    /// Creates the documented check: `POST /api/v1/stores/{id}/customers` with `{ "phone": "+33612345678",
    /// "first_name": "Test" }`. Any 2xx confirms the key, the store and the authorization.
    ///
    /// **It writes**: afterwards each store has a customer named Test with that number, created or updated.
    #[must_use]
    pub fn by_customer_upsert(store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        Self::new(std::iter::once(store).chain(more).collect(), CUSTOMER)
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
        Self { body: NO_CUSTOMER, ..Self::by_customer_upsert(store, more) }
    }
}

impl HttpProbe<Katana> {
    /// Creates the check by `GET /v1/products?limit=1`: an ordinary, documented read. It writes nothing, and
    /// counts against the key's rate limit (60 requests in 60 s).
    #[must_use]
    pub fn by_product_list() -> Self {
        Self::new(Vec::new(), "")
    }
}

impl<I: Issuer> HttpProbe<I> {
    fn new(stores: Vec<StoreId>, body: &'static str) -> Self {
        let outgoing = Outgoing::new(DEFAULT_DEADLINE, MAX_BODY);
        Self { guard: OriginGuard::new(), outgoing, stores, body }
    }

    /// Sends the requests to another origin: a test server or a gateway.
    #[must_use]
    pub fn with_guard(self, guard: OriginGuard<I>) -> Self {
        Self { guard, ..self }
    }

    /// Sets the deadline for each request: 10 s by default, at most an hour.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { outgoing: self.outgoing.with_deadline(deadline), ..self }
    }

    /// Trusts these root certificates instead of the public ones.
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        Self { outgoing: self.outgoing.with_roots(roots), ..self }
    }

    /// Returns the stores that the requests name, in their order; none for Katana.
    #[must_use]
    pub fn stores(&self) -> &[StoreId] {
        &self.stores
    }

    fn ask(&self, header: &BearerHeader<I>, store: Option<StoreId>) -> Result<Answer, Obstacle> {
        let origin = self.guard.origin();
        let request = match store {
            Some(store) => Request::post(format!("{origin}/api/v1/stores/{store}/customers"))
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json")),
            None => Request::get(format!("{origin}{PRODUCTS}")),
        };
        let mut request = request
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(WipedBytes::copy_of(self.body.as_bytes()))
            .map_err(|_| Obstacle::Local)?;
        self.guard.authorize(&mut request, header).map_err(|_| Obstacle::Guarded)?;
        let reply = self.outgoing.send(request)?;
        // A sign-in page of a proxy comes with a 200. Any other answer is classified by the issuer's table.
        if reply.is_web_page && (200..300).contains(&reply.status) {
            return Err(Obstacle::WebPage { status: reply.status });
        }
        Ok(I::PROFILE.classify(reply.status, reply.retry_after(), &reply.body))
    }
}

impl<I: Issuer> Probe for HttpProbe<I> {
    fn probe(&self, key: &RawKey) -> Report {
        let (name, asked) = (key.profile().name(), I::PROFILE.name());
        let header = BearerHeader::from_raw(key).ok_or(Obstacle::OtherIssuer { key: name, asked });
        let find = |store| {
            let outcome = header.as_ref().map_err(|obstacle| *obstacle);
            Finding { store, outcome: outcome.and_then(|header| self.ask(header, store)) }
        };
        if self.stores.is_empty() {
            return Report::new(find(None));
        }
        Report { findings: self.stores.iter().map(|store| find(Some(*store))).collect() }
    }
}

impl<I: Issuer> fmt::Debug for HttpProbe<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpProbe({:?}, {:?}, {:?})", self.guard, self.outgoing, self.stores)
    }
}
