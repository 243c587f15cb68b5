//! A custom probe. The feature `probe` has `HttpProbe`; this shows what one takes without it.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keysheath::client::{BearerHeader, OriginGuard};
use keysheath::failure::{Answer, Obstacle};
use keysheath::key::{Issuer as _, Kanal, RawKey, StoreId};
use keysheath::probe::{Finding, Probe, Report};
use tokio::runtime::Runtime;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The longest time that one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks for the orders of one store: reading writes nothing.
pub(super) struct OrdersProbe {
    guard: OriginGuard<Kanal>,
    store: StoreId,
    client: Client<HttpConnector, Empty<Bytes>>,
    runtime: Runtime,
}

impl OrdersProbe {
    pub fn new(guard: OriginGuard<Kanal>, store: StoreId) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // It follows no redirect and uses no proxy. The runtime rests between two requests, so none is kept.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Ok(Self { guard, store, client, runtime })
    }

    fn ask(&self, key: &RawKey) -> Result<Answer, Obstacle> {
        let key = key.clone_key().try_into_typed::<Kanal>().map_err(|_| Obstacle::Local)?;
        let uri = format!("{}/api/v1/stores/{}/orders", self.guard.origin(), self.store);
        let mut request = Request::get(uri).body(Empty::new()).map_err(|_| Obstacle::Local)?;
        self.guard.authorize(&mut request, &BearerHeader::new(&key)).map_err(|_| Obstacle::Guarded)?;
        let asked = async {
            let response = self.client.request(request).await.map_err(|_| Obstacle::Broken)?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get("retry-after").map(|value| value.as_bytes().to_vec());
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_| Obstacle::Broken)?.to_bytes();
            Ok(Kanal::PROFILE.classify(status, retry_after.as_deref(), &body))
        };
        let deadline = async { tokio::time::timeout(DEADLINE, asked).await };
        self.runtime.block_on(deadline).map_err(|_| Obstacle::Deadline { after: DEADLINE })?
    }
}

impl Probe for OrdersProbe {
    fn probe(&self, key: &RawKey) -> Report {
        Report::new(Finding::new(self.ask(key)).with_store(self.store))
    }
}
