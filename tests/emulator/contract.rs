//! One suite, written against the documented table, for everything that answers in Kanal's stead.

mod curl;
#[cfg(feature = "probe")]
mod own_issuer;
mod suite;
mod wire;

use std::sync::Arc;

use axum::body::Body;
use axum::{Router, routing::post};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt as _;
use keysheath::key::{Issuer, Kanal};
use keysheath::registry::{KeyRegistry, RequireKeyLayer};
use tower::ServiceExt as _;

use suite::{Answer, Ask, Keys, Server};

use curl::Curl;
use keysheath::emulator::Emulator;
use wire::Wire;

/// The layer around a router, without a network.
struct InProcess {
    router: Router,
    keys: Keys,
    runtime: tokio::runtime::Runtime,
}

impl InProcess {
    fn new() -> Self {
        let registry = Arc::new(KeyRegistry::in_memory(Kanal::PROFILE).unwrap());
        let keys = Keys::of(&registry);
        let router = Router::new()
            .route("/api/v1/stores/{store_id}/customers", post(async || "{}"))
            .route_layer(RequireKeyLayer::for_stores(registry));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { router, keys, runtime }
    }
}

impl Server for InProcess {
    fn ask(&self, ask: &Ask) -> Answer {
        let mut request =
            Request::builder().method(ask.method).uri(&ask.path).body(Body::from(ask.body.clone())).unwrap();
        for (name, value) in &ask.headers {
            let name = HeaderName::from_static(name);
            request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            Answer { status: parts.status.as_u16(), headers, body }
        })
    }

    fn keys(&self) -> &Keys {
        &self.keys
    }
}

#[test]
fn the_layer_in_process_keeps_the_contract() {
    suite::run(&InProcess::new());
}

#[test]
fn the_emulator_keeps_the_contract_over_http() {
    let emulator = Emulator::start().unwrap();
    suite::run(&Wire::plain(&emulator));
}

#[test]
fn the_emulator_keeps_the_contract_over_tls() {
    let emulator = Emulator::kanal().with_tls().start().unwrap();
    suite::run(&Wire::tls(&emulator));
}

#[test]
fn the_emulator_keeps_the_contract_when_curl_asks() {
    let emulator = Emulator::start().unwrap();
    suite::run(&Curl::new(&emulator));
}
