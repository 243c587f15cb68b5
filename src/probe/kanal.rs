//! Asking Kanal.

use std::time::Duration;

use http::Request;
use http::header::{CONTENT_TYPE, HeaderValue};
use zeroize::Zeroizing;

use super::asking::Asking;
use super::{Finding, Probe, Report};
use crate::client::{BearerHeader, OriginGuard};
use crate::failure::{Answer, Obstacle};
use crate::key::{Kanal, RawKey, Roots, StoreId};

/// The body that Kanal documents for checking a set-up.
const CUSTOMER: &str = r#"{ "phone": "+33612345678", "first_name": "Test" }"#;

/// A body that no customer has.
const NO_CUSTOMER: &str = "{}";

/// Asks Kanal whether a key works for each of some stores.
///
/// Kanal has no request made for the purpose. There are two ways, and you choose by name:
///
/// - [`KanalProbe::by_customer_upsert`] is what Kanal documents. **It writes a customer record** into each store.
/// - [`KanalProbe::by_invalid_customer`] is inferred from what Kanal documents, and should write nothing.
///
/// A key that is restricted to one store passes there and is refused elsewhere, so name every store that the key
/// serves. They are asked one after another, each with the whole deadline, and each counts against the limit of its
/// store (60 requests a minute).
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
    asking: Asking<Kanal>,
}

impl KanalProbe {
    /// The documented check: `POST /api/v1/stores/{id}/customers` with `{ "phone": "+33612345678", "first_name":
    /// "Test" }`. Any 2xx confirms the key, the store and the authorisation.
    ///
    /// **It writes**: each store has a customer named Test with that number afterwards, made or updated.
    ///
    /// ```
    /// use keysheath::key::StoreId;
    /// use keysheath::probe::KanalProbe;
    /// let probe = KanalProbe::by_customer_upsert(StoreId::new(123).unwrap(), []);
    /// assert_eq!(probe.stores().len(), 1);
    /// ```
    #[must_use]
    pub fn by_customer_upsert(store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        Self::new(CUSTOMER, store, more)
    }

    /// The inferred check: the same request with a body that no customer has (`{}`), which Kanal must refuse.
    ///
    /// Kanal documents that it detects problems with the key and the store before it looks at the body, so a 422 says
    /// that both passed. That nothing is written then is **inferred, not documented**. Should Kanal answer 2xx
    /// instead, the key was accepted, and a customer may have been written: each finding shows the status.
    ///
    /// ```
    /// use keysheath::key::StoreId;
    /// use keysheath::probe::KanalProbe;
    /// let probe = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), StoreId::new(124));
    /// assert_eq!(probe.stores().len(), 2);
    /// ```
    #[must_use]
    pub fn by_invalid_customer(store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        Self::new(NO_CUSTOMER, store, more)
    }

    fn new(body: &'static str, store: StoreId, more: impl IntoIterator<Item = StoreId>) -> Self {
        let stores = std::iter::once(store).chain(more).collect();
        Self { stores, body, asking: Asking::new() }
    }

    /// At another origin in Kanal's stead: a test server or a gateway.
    ///
    /// ```
    /// use keysheath::client::OriginGuard;
    /// use keysheath::key::{Origin, StoreId};
    /// use keysheath::probe::KanalProbe;
    ///
    /// let server = Origin::parse("http://127.0.0.1:8080")?;
    /// let probe = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), [])
    ///     .at(OriginGuard::for_loopback(server)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at(self, guard: OriginGuard<Kanal>) -> Self {
        Self { asking: self.asking.at(guard), ..self }
    }

    /// With another deadline for each request than [`DEFAULT_DEADLINE`](super::DEFAULT_DEADLINE), at most
    /// [`MAX_DEADLINE`](super::MAX_DEADLINE).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::key::StoreId;
    /// # use keysheath::probe::KanalProbe;
    /// let probe = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), [])
    ///     .with_deadline(Duration::from_secs(3));
    /// ```
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { asking: self.asking.with_deadline(deadline), ..self }
    }

    /// With authorities of your own in the stead of the public ones.
    ///
    /// ```no_run
    /// # use keysheath::key::{Roots, StoreId};
    /// # use keysheath::probe::KanalProbe;
    /// let roots = Roots::from_pem(&std::fs::read("/etc/ssl/shop-ca.pem")?)?;
    /// let probe = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), []).with_roots(roots);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_roots(self, roots: Roots) -> Self {
        Self { asking: self.asking.with_roots(roots), ..self }
    }

    /// The stores that are asked for, in order; at least one.
    ///
    /// ```
    /// # use keysheath::key::StoreId;
    /// # use keysheath::probe::KanalProbe;
    /// let probe = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), []);
    /// assert_eq!(probe.stores()[0].get(), 123);
    /// ```
    #[must_use]
    pub fn stores(&self) -> &[StoreId] {
        &self.stores
    }

    fn ask(&self, header: &BearerHeader<Kanal>, store: StoreId) -> Result<Answer, Obstacle> {
        let path = format!("/api/v1/stores/{store}/customers");
        let request = Request::post(path)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Zeroizing::new(self.body.as_bytes().to_vec()))
            .map_err(|_| Obstacle::Local)?;
        self.asking.ask(header, request)
    }
}

impl Probe for KanalProbe {
    fn probe(&self, key: &RawKey) -> Report {
        let header = Asking::header(key);
        let find = |&store: &StoreId| {
            let outcome = header.as_ref().map_err(|obstacle| *obstacle);
            Finding::new(outcome.and_then(|header| self.ask(header, store))).at_store(store)
        };
        Report { findings: self.stores.iter().map(find).collect() }
    }
}
