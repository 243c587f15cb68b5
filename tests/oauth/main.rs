//! OAuth 2.0 against a real authorization server, and against stand-ins for what a real one does not do.
#![cfg(all(unix, feature = "oauth", feature = "emulator"))]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod clocks;
mod events;
mod example;
mod fleet;
mod keeping;
mod kept;
mod killed;
mod loopback;
mod many;
mod sign_in;
mod slow_stores;
mod lineage;

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use ::http::Request;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keysheath::Cadence;
use keysheath::client::{BearerLayer, OriginGuard, Sent};
use keysheath::handle::KeyHandle;
use keysheath::key::{KatanaApp, Origin};
use keysheath::oauth::{KeeperSettings, OAuthApp, TokenKeeper};
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, FileStore, Version};
use tower::{Layer as _, ServiceExt as _};

use crate::support::oidc::{CLIENT_SECRET, app_at};
use crate::support::stores::pass_on;
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

/// The lines that a child prints.
fn lines(child: &mut std::process::Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// In such a child: waits for the second token, a failure or the end of this time, and prints the status.
fn print_second_token(keeper: &TokenKeeper<KatanaApp>, most: Duration) {
    let start = Instant::now();
    let is_waiting = || {
        keeper.status().health().consecutive_failures() == 0
            && keeper.handle().load().unwrap().generation().to_string() != "2"
    };
    while start.elapsed() < most && is_waiting() {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("came to {}", keeper.status());
}

/// A store that returns from each write late, and prints when it has written.
struct Late<S>(S, Duration);

impl<S: DocumentStore> DocumentStore for Late<S> {
    pass_on!(0: provenance, limit, read);

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        let written = self.0.write(content, unchanged);
        println!("has written");
        std::thread::sleep(self.1);
        written
    }
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
        (response.status().as_u16(), response.body().sent())
    })
}
