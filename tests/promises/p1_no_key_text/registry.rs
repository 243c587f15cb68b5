//! The side that issues and authorizes keys: a registry whose generator draws the canary.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use keysheath::registry::{
    Authorize as _, KeyId, KeyRecord, KeyRegistry, NewKey, Pepper, PepperError, Principal, RecordError,
    Refusal, RefusalBody, RegistryError, RequestedStore, RequireKey, RequireKeyLayer, StaticKeys, TeamId,
};
use tower_layer::Layer as _;

use super::*;
use crate::support::canary::draw_the_canary;

const TEAM: TeamId = TeamId::new(1);

fn headers(value: &str) -> HeaderMap {
    [(http::header::AUTHORIZATION, HeaderValue::try_from(value).unwrap())].into_iter().collect()
}

/// Shows nothing of the canary, nor of its digest.
fn look_at(what: &str, shown: &str, digest: &[u8]) {
    assert_silent(what, shown);
    let lower = shown.to_lowercase();
    let hex = |run: &[u8]| run.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let list = |run: &[u8]| run.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    let dense: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
    for run in digest.windows(4) {
        assert!(!lower.contains(&hex(run)) && !dense.contains(&list(run)), "{what} shows the digest");
    }
}

#[test]
fn a_registry_shows_neither_the_canary_nor_its_digest() {
    let folder = Folder::new();
    let path = folder.at("keys.db");
    folder.write("pepper", "p-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    let reference: KeyRef = format!("file:{}", folder.at("pepper").display()).parse().unwrap();
    let pepper = || Pepper::from_reference(&reference).unwrap();
    let registry = KeyRegistry::create(Kanal::PROFILE, pepper(), &path).unwrap();
    let registry = registry.with_random(|bytes| {
        draw_the_canary(bytes);
        Ok(())
    });
    let new: NewKey = registry.create_key(TEAM, "name").unwrap();
    assert!(new.key().matches(KANAL.as_bytes()), "the canary was not drawn");
    let id: KeyId = new.record().id();
    let principal: Principal =
        registry.authorize(&headers(&format!("Bearer {KANAL}")), RequestedStore::NoStore).unwrap();
    registry.flush().unwrap();
    let again: RegistryError = registry.create_key(TEAM, "name").unwrap_err();
    assert_error_silent("RegistryError", &again);
    drop(registry);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let digest: Vec<u8> = connection.query_row("SELECT digest FROM keys", [], |row| row.get(0)).unwrap();
    drop(connection);
    assert_eq!(digest.len(), 16);

    let registry = KeyRegistry::open(Kanal::PROFILE, pepper(), &path).unwrap();
    let record: KeyRecord = registry.key(id).unwrap();
    for (what, shown) in [
        ("NewKey", format!("{new:?}\n{new:#?}")),
        ("KeyRecord and TeamId", format!("{record:?}\n{record:#?}")),
        ("KeyId", format!("{id:?}\n{id}")),
        ("Health", format!("{:?}\n{}", registry.health(), registry.health())),
        ("Principal", format!("{principal:?}\n{principal:#?}")),
        ("KeyRegistry", format!("{registry:?}\n{registry:#?}")),
        ("Pepper", format!("{:?}", pepper())),
    ] {
        look_at(what, &shown, &digest);
    }
    let registry = Arc::new(registry);
    let layer: RequireKeyLayer<KeyRegistry> = RequireKeyLayer::new(Arc::clone(&registry));
    let service: RequireKey<(), KeyRegistry> = layer.layer(());
    look_at("RequireKeyLayer and RequireKey", &format!("{layer:?}\n{service:?}"), &digest);
}

#[test]
fn a_request_that_is_refused_shows_nothing_of_what_was_sent() {
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap();
    let keys = StaticKeys::new(ApiKey::<Kanal>::parse(OTHER).unwrap().into_raw());
    for value in [
        format!("Bearer {KANAL}"),
        format!("Bearer {KANAL} "),
        format!("Basic {KANAL}"),
        format!("Bearer {KATANA}"),
        KANAL.to_owned(),
    ] {
        for refused in [
            registry.authorize(&headers(&value), RequestedStore::from_segment(KANAL)),
            keys.authorize(&headers(&value), RequestedStore::NoStore),
        ] {
            let refusal: Refusal = refused.unwrap_err();
            assert_debug_silent("Refusal", &refusal);
            assert_silent(
                "what it is answered with",
                &format!("{} {:?}", refusal.body(), refusal.challenge()),
            );
        }
    }
    assert_debug_silent("RequestedStore", &RequestedStore::from_segment(KANAL));
    assert_debug_silent("StaticKeys", &StaticKeys::new(kanal().into_raw()));
    let name = registry.create_key(TEAM, &format!("{KANAL}\n")).unwrap_err();
    assert_error_silent("a key where its name belongs", &name);
    assert_error_silent("a key where its number belongs", &KANAL.parse::<KeyId>().unwrap_err());
    assert_debug_silent("RefusalBody", &None::<RefusalBody<String>>);
}

/// Keeps every event that is emitted through `tracing` in this process.
#[cfg(feature = "tracing")]
struct Events(Mutex<Vec<String>>);

#[cfg(feature = "tracing")]
impl tracing::Subscriber for &'static Events {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[cfg(feature = "tracing")]
#[test]
fn no_warning_of_a_registry_has_the_canary() {
    static EVENTS: Events = Events(Mutex::new(Vec::new()));
    const NAME: &str = "registry::no_warning_of_a_registry_has_the_canary";
    in_child(NAME, &[] as &[(&str, &str)], || {
        tracing::subscriber::set_global_default(&EVENTS).unwrap();
        let folder = Folder::new();
        let path = folder.at("keys.db");
        let pepper = Pepper::random().unwrap();
        let registry = KeyRegistry::create(Kanal::PROFILE, pepper, &path).unwrap();
        let registry = registry.with_random(|bytes| {
            draw_the_canary(bytes);
            Ok(())
        });
        registry.create_key(TEAM, "name").unwrap();
        std::fs::rename(&path, folder.at("aside")).unwrap();
        let mut headers = headers(&format!("Bearer {KANAL}"));
        headers.insert("origin", HeaderValue::from_static("https://shop.example"));
        registry.authorize(&headers, RequestedStore::NoStore).unwrap();
        registry.flush().unwrap_err();
        registry.flush().unwrap_err();
        // They are given to the subscriber on a thread of their own.
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while EVENTS.0.lock().unwrap().len() < 2 && std::time::Instant::now() < patience {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let events = EVENTS.0.lock().unwrap().join("\n");
        assert_silent("a warning", &events);
        assert_eq!(events.matches("a browser sent a request with this key").count(), 1, "{events}");
        assert_eq!(events.matches("could not be written").count(), 1, "once for each failure: {events}");
    });
}

#[test]
fn peppers_and_errors_about_them_and_records_show_nothing() {
    let folder = Folder::new();
    let long = format!("{KANAL}{KANAL}");
    let load = |name: &str, content: &str| {
        let path = folder.write(name, content);
        Pepper::from_reference(&format!("file:{}", path.display()).parse().unwrap())
    };
    assert_debug_silent("Pepper", &load("good", &long).unwrap());
    for content in [KANAL.to_owned(), format!("{long} "), format!("\"{long}\""), long.repeat(20)] {
        let error: PepperError = load("bad", &content).unwrap_err();
        assert_error_silent("PepperError", &error);
    }
    for content in [KANAL.to_owned(), format!("SQLite format 3\0{}", KANAL.repeat(100))] {
        let path = folder.write("keys.db", content);
        let error = KeyRegistry::open(Kanal::PROFILE, Pepper::random().unwrap(), path).unwrap_err();
        let RegistryError::Records(error) = error else { panic!("{error}") };
        let error: RecordError = error;
        assert_error_silent("RecordError", &error);
    }
}
