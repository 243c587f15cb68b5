//! OAuth 2.0 against a real authorisation server, and against stand-ins for what a real one does not do.
#![cfg(all(unix, feature = "oauth", feature = "emulator"))]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod clocks;
mod example;
mod fleet;
mod keeping;
mod kept;
mod killed;
mod loopback;
mod sign_in;
mod told;
mod trouble;
mod which;

use std::time::Duration;

use ::http::Request;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keysheath::Cadence;
use keysheath::client::{BearerLayer, OriginGuard, Sent};
use keysheath::handle::KeyHandle;
use keysheath::key::{KatanaApp, Origin};
use keysheath::oauth::{KeeperSettings, OAuthApp};
use keysheath::store::FileStore;
use tower::{Layer as _, ServiceExt as _};

use crate::support::oidc::{CLIENT_SECRET, app_at};
use crate::support::{Child, Folder};

/// A child that runs a test with the app of a server at this port, and with the grant in this folder.
fn child(test: &'static str, port: u16, folder: &Folder) -> Child {
    Child::new(test)
        .var("OIDC_PORT", port.to_string())
        .var("OIDC_SECRET", folder.write("client-secret", CLIENT_SECRET))
        .var("OIDC_GRANT", folder.at("grant"))
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// In such a child: its app and its store.
fn own() -> (OAuthApp<KatanaApp>, FileStore) {
    let app = app_at(variable("OIDC_PORT").parse().unwrap(), variable("OIDC_SECRET").as_ref());
    (app, FileStore::new(variable("OIDC_GRANT")))
}

fn quick_cadence() -> Cadence {
    Cadence::every(Duration::from_millis(200))
        .with_minimum_interval(Duration::from_millis(50))
        .with_longest_back_off(Duration::from_millis(500))
}

/// Settings that lose no time.
fn quick() -> KeeperSettings {
    KeeperSettings::new().with_cadence(quick_cadence()).with_lease(Duration::from_secs(20))
}

/// Asks Katana's check through a `BearerLayer`, and gives the status and what was sent.
fn products(handle: &KeyHandle<KatanaApp>, api: &Origin) -> (u16, Sent) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let guard = OriginGuard::for_loopback(api.clone()).unwrap();
        let client = BearerLayer::new(handle.clone(), guard).layer(client);
        let request = Request::get(format!("{api}/v1/products?limit=1")).body(Empty::new()).unwrap();
        let response = client.oneshot(request).await.unwrap();
        (response.status().as_u16(), *response.extensions().get::<Sent>().unwrap())
    })
}
