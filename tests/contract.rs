//! One suite, written against the documented table, for everything that answers in Kanal's stead.
#![cfg(feature = "registry")]

#[path = "contract/suite.rs"]
mod suite;

use std::sync::Arc;

use axum::body::Body;
use axum::{Router, routing::post};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt as _;
use keysheath::issuer::{Issuer, Kanal, StoreId};
use keysheath::registry::{KeyRegistry, RequireKeyLayer, Restriction, TeamId};
use tower::ServiceExt as _;

use suite::{Answer, Ask, Server};

/// The suite's stores: number, team, whether it is paused.
const STORES: [(u64, u32, bool); 5] =
    [(123, 1, false), (124, 1, false), (789, 1, true), (456, 2, false), (457, 2, true)];

fn store(number: u64) -> StoreId {
    StoreId::new(number).unwrap()
}

/// The suite's keys: own, restricted, the other team's, deleted.
struct Keys([String; 4]);

impl Keys {
    fn of(registry: &KeyRegistry) -> Self {
        for (number, team, is_paused) in STORES {
            registry.put_store(store(number), TeamId::new(team)).unwrap();
            if is_paused {
                registry.pause_store(store(number)).unwrap();
            }
        }
        let new =
            |team, name, restriction| registry.create_key(TeamId::new(team), name, restriction).unwrap();
        let keys = [
            new(1, "own", Restriction::None),
            new(1, "restricted", Restriction::Store(store(124))),
            new(2, "other", Restriction::None),
            new(1, "deleted", Restriction::None),
        ];
        registry.delete_key(keys[3].record().id()).unwrap();
        Self(keys.map(|new| new.key().expose_secret().to_owned()))
    }
}

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

    fn key(&self) -> &str {
        &self.keys.0[0]
    }

    fn restricted_key(&self) -> &str {
        &self.keys.0[1]
    }

    fn other_key(&self) -> &str {
        &self.keys.0[2]
    }

    fn deleted_key(&self) -> &str {
        &self.keys.0[3]
    }
}

#[test]
fn the_layer_in_process_keeps_the_contract() {
    suite::run(&InProcess::new());
}
