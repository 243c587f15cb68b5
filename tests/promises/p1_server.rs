//! P1 for the server side: nothing that issues, keeps or authorizes keys shows one, nor a pepper, in a
//! `Debug`, an error, an answer or a log line.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::{Router, body::Body, routing::get};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::BodyExt as _;
use keysheath::key::{ApiKey, Issuer, Kanal, RawKey, StoreId};
use keysheath::registry::{
    Authorize, KeyRegistry, Pepper, PepperError, RequestedStore, RequireKeyLayer, StaticKeys, TeamId,
};
use tower::{Layer as _, ServiceExt as _};

use crate::support::Folder;
use crate::support::canary::{
    KANAL, assert_debug_silent, assert_error_silent, assert_silent, assert_value_silent, draw_the_canary,
};
use crate::support::traced::Collector;

/// A registry that draws the canary, and nothing else.
fn registry() -> KeyRegistry {
    KeyRegistry::in_memory(Kanal::PROFILE).unwrap().with_random(|bytes| {
        draw_the_canary(bytes);
        Ok(())
    })
}

fn headers(values: &[&str]) -> HeaderMap {
    let value =
        |value: &&str| (http::header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    values.iter().map(value).collect()
}

/// Every way in which the canary can occur in a header, well-formed or not.
fn sent() -> Vec<HeaderMap> {
    let good = format!("Bearer {KANAL}");
    let mut sent = vec![headers(&[&good]), headers(&[&good, &good])];
    for value in [
        KANAL.to_owned(),
        format!("Basic {KANAL}"),
        format!("Bearer {KANAL}A"),
        format!("Bearer {KANAL} "),
        format!("Bearer {}", KANAL.repeat(500)),
        format!("{KANAL} {KANAL}"),
    ] {
        sent.push(headers(&[&value]));
    }
    let mut browser = headers(&[&good]);
    browser.insert(HeaderName::from_static("origin"), HeaderValue::from_static("https://shop.example"));
    sent.push(browser);
    sent
}

fn look_at<A: Authorize + Debug>(what: &str, keys: &A) {
    assert_debug_silent(what, keys);
    for headers in sent() {
        for wanted in [
            RequestedStore::NoStore,
            RequestedStore::NotAStore,
            RequestedStore::Store(StoreId::new(9).unwrap()),
        ] {
            match keys.authorize(&headers, wanted) {
                Ok(principal) => assert_debug_silent("a principal", &principal),
                Err(refusal) => {
                    assert_debug_silent("a refusal", &refusal);
                    assert_silent("a refusal's body", &refusal.body());
                    assert_silent("a refusal's challenge", &refusal.challenge().unwrap_or_default());
                }
            }
        }
    }
}

#[test]
fn no_type_and_no_answer_of_the_server_side_shows_a_key() {
    let registry = registry();
    let new = registry.create_key(TeamId::new(1), "production-shop").unwrap();
    assert!(new.key().matches(KANAL.as_bytes()), "the canary is the key");
    assert_debug_silent("a new key", &new);
    assert_debug_silent("a record", new.record());
    assert_value_silent("a key's number", &new.record().id());
    assert_debug_silent("the list of keys", &registry.keys(TeamId::new(1)));
    look_at("a registry", &registry);
    assert_error_silent("a broken generator", &registry.create_key(TeamId::new(1), "n").unwrap_err());
    assert_error_silent("a bad name", &registry.create_key(TeamId::new(1), "").unwrap_err());
    registry.delete_key(new.record().id()).unwrap();
    assert_error_silent("no such key", &registry.delete_key(new.record().id()).unwrap_err());
    assert_error_silent("no number", &KANAL.parse::<keysheath::registry::KeyId>().unwrap_err());

    let canary = || RawKey::parse(Kanal::PROFILE, KANAL.as_bytes()).unwrap();
    let keys = StaticKeys::new(canary());
    look_at("static keys", &keys);
    keys.replace(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().into_raw()).unwrap();
    look_at("static keys, the canary as the previous one", &keys);
}

#[test]
fn no_pepper_is_shown_by_what_holds_or_refuses_it() {
    let folder = Folder::new();
    let load = |name: &str, text: &str| {
        let path = folder.write(name, text);
        Pepper::from_reference(&format!("file:{}", path.display()).parse().unwrap())
    };
    let pepper = load("good", &format!("{KANAL}{KANAL}\n")).unwrap();
    assert_debug_silent("a pepper", &pepper);
    assert_value_silent("a pepper's name", &pepper.id());
    let peppers = pepper.with_older(load("older", &format!("{KANAL}-{KANAL}")).unwrap());
    assert_debug_silent("peppers", &peppers);
    #[cfg(feature = "sqlite")]
    assert_debug_silent(
        "a registry under it",
        &KeyRegistry::create(Kanal::PROFILE, peppers, folder.at("keys.db")).unwrap(),
    );
    for (name, text) in
        [("short", KANAL.to_owned()), ("spaces", format!("{KANAL} {KANAL}")), ("empty", String::new())]
    {
        let error = load(name, &text).unwrap_err();
        assert!(matches!(error, PepperError::Malformed { .. }), "{name}");
        let advice = error.to_string();
        assert!(advice.contains("openssl rand -base64 32") && !advice.contains("key again"), "{advice}");
        assert_error_silent(name, &error);
    }
    let weak = load("weak", &KANAL[..4].repeat(20)).unwrap_err();
    assert!(matches!(weak, PepperError::Weak { .. }));
    assert_error_silent("a pepper that was not drawn", &weak);
}

#[tokio::test]
async fn no_answer_of_the_layer_shows_a_key() {
    let registry = registry();
    let new = registry.create_key(TeamId::new(1), "production-shop").unwrap();
    registry.delete_key(new.record().id()).unwrap();
    let layer = RequireKeyLayer::new(Arc::new(registry));
    assert_debug_silent("the layer", &layer);
    assert_debug_silent("the service", &layer.layer(()));
    let app = Router::new().route("/", get(async || "never")).route_layer(layer);
    for headers in sent() {
        let mut request = Request::new(Body::empty());
        *request.headers_mut() = headers;
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        let (parts, body) = response.into_parts();
        assert_debug_silent("the head of an answer", &parts);
        let body = body.collect().await.unwrap().to_bytes();
        assert_silent("the body of an answer", &String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_browsers_request_is_warned_of_without_the_key() {
    let collector = Collector::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let registry = registry().with_browser_observer(move |principal| noted.lock().unwrap().push(*principal));
    let new = registry.create_key(TeamId::new(1), "production-shop").unwrap();
    tracing::subscriber::with_default(collector.clone(), || {
        for headers in sent() {
            let _ = registry.authorize(&headers, RequestedStore::NoStore);
        }
        // Lines are given beside, and requests do not wait for them.
        let start = Instant::now();
        while collector.lines().is_empty() && start.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1, "one of the requests was a browser's");
    assert_eq!(seen[0].key(), Some(new.record().id()));
    let lines = collector.lines();
    let warnings = lines.iter().filter(|line| line.starts_with("WARN keysheath::registry"));
    assert_eq!(warnings.count(), 1, "{lines:?}");
    assert_silent("the log", &lines.join("\n"));
}
