//! A custom probe. The feature `probe` has `HttpProbe`; this shows what one takes without it.

use std::time::Duration;

use keysheath::client::{BearerHeader, OriginGuard};
use keysheath::failure::{Answer, Obstacle};
use keysheath::key::{Issuer as _, Kanal, RawKey, StoreId};
use keysheath::probe::{Finding, Probe, Report};

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks for the orders of one store: reading writes nothing.
pub struct OrdersProbe {
    guard: OriginGuard<Kanal>,
    store: StoreId,
    agent: ureq::Agent,
}

impl OrdersProbe {
    pub fn new(guard: OriginGuard<Kanal>, store: StoreId) -> Self {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build()
            .into();
        Self { guard, store, agent }
    }

    fn ask(&self, key: &RawKey) -> Result<Answer, Obstacle> {
        let key = key.clone_key().try_into_typed::<Kanal>().map_err(|_| Obstacle::Local)?;
        let uri = format!("{}/api/v1/stores/{}/orders", self.guard.origin(), self.store);
        let mut request = http::Request::get(uri).body(()).map_err(|_| Obstacle::Local)?;
        self.guard.authorize(&mut request, &BearerHeader::new(&key)).map_err(|_| Obstacle::Guarded)?;
        let mut response = self.agent.run(request).map_err(|_| Obstacle::Broken)?;
        let retry_after = response.headers().get("retry-after").map(|value| value.as_bytes().to_vec());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let body = body.map_err(|_| Obstacle::Broken)?;
        Ok(Kanal::PROFILE.classify(status, retry_after.as_deref(), &body))
    }
}

impl Probe for OrdersProbe {
    fn probe(&self, key: &RawKey) -> Report {
        Report::new(Finding::new(self.ask(key)).with_store(self.store))
    }
}
