//! The emulator: what it answers, over real HTTP.
#![cfg(feature = "emulator")]

#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "emulator-tls")]
mod contract;
mod control;
mod bad_input;
mod faults;
mod limits;

use std::time::{Duration, Instant};

use keysheath::emulator::{
    Emulator, FOREIGN_STORE, Fault, FaultRule, OTHER_TEAM, OWN_STORE, PAUSED_STORE, TEAM,
};
use keysheath::failure::{KANAL, Meaning};
use keysheath::key::{Kanal, Katana, RawKey, StoreId};
use serde_json::json;

use support::http::{Answer, agent, send};

const CUSTOMER: &str = r#"{ "phone": "+33612345678", "first_name": "Test" }"#;

fn ask_with(emulator: &Emulator, key: Option<&RawKey>, method: &str, path: &str, body: &str) -> Answer {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", emulator.origin()))
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {}", key.expose_secret()));
    }
    send(&agent(None), request.body(body.to_owned()).unwrap()).unwrap()
}

/// Asks with the emulator's own key.
fn ask(emulator: &Emulator, method: &str, path: &str, body: &str) -> Answer {
    ask_with(emulator, Some(emulator.key()), method, path, body)
}

fn customers_of(store: StoreId) -> String {
    format!("/api/v1/stores/{store}/customers")
}

fn documented(meaning: Meaning) -> (u16, String) {
    let row = KANAL.iter().find(|row| row.meaning() == meaning).unwrap();
    (row.status(), row.body().unwrap())
}

#[test]
fn each_row_of_kanals_table_is_answered_word_for_word() {
    let emulator = Emulator::start().unwrap();
    let deleted = emulator.create_key("deleted").unwrap();
    emulator.delete_key(deleted.record().id()).unwrap();
    let stranger = Emulator::start().unwrap();
    for (key, store, meaning) in [
        (None, OWN_STORE, Meaning::KeyMissing),
        (Some(deleted.key()), OWN_STORE, Meaning::KeyRefused),
        (Some(stranger.key()), OWN_STORE, Meaning::KeyRefused),
        (Some(emulator.key()), FOREIGN_STORE, Meaning::StoreForbidden),
        (Some(emulator.key()), PAUSED_STORE, Meaning::StoreNotFound),
        (Some(emulator.key()), StoreId::new(1_000_000).unwrap(), Meaning::StoreNotFound),
    ] {
        let answer = ask_with(&emulator, key, "POST", &customers_of(store), CUSTOMER);
        assert_eq!((answer.status, answer.body), documented(meaning), "{store}");
    }
    assert!(emulator.customers(OWN_STORE).is_empty(), "nothing was written");
}

#[test]
fn a_key_restricted_to_another_store_is_refused_for_this_one() {
    let emulator = Emulator::start().unwrap();
    let other = StoreId::new(1_001).unwrap();
    emulator.put_store(other, TEAM).unwrap();
    let new = emulator.registry().create_key_for_store(TEAM, "one-store", other).unwrap();
    let status = |store| ask_with(&emulator, Some(new.key()), "POST", &customers_of(store), CUSTOMER).status;
    assert_eq!((status(other), status(OWN_STORE)), (201, 403));
    let theirs = emulator.registry().create_key(OTHER_TEAM, "theirs").unwrap();
    let answer = ask_with(&emulator, Some(theirs.key()), "POST", &customers_of(FOREIGN_STORE), CUSTOMER);
    assert_eq!(answer.status, 201);
}

#[test]
fn a_customer_is_written_once_and_then_changed() {
    let emulator = Emulator::start().unwrap();
    assert_eq!(ask(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER).status, 201);
    let again = ask(
        &emulator,
        "POST",
        &customers_of(OWN_STORE),
        r#"{ "phone": "+33612345678", "last_name": "Person" }"#,
    );
    assert_eq!(again.status, 200);
    assert_eq!(again.json()["data"]["first_name"], "Test");
    let customers = emulator.customers(OWN_STORE);
    assert_eq!(customers.len(), 1);
    assert_eq!(customers[0].last_name.as_deref(), Some("Person"));
    assert!(emulator.customers(FOREIGN_STORE).is_empty());
    assert_eq!(ask(&emulator, "GET", "/api/v1/stores/123/orders", "").json(), json!({ "data": [] }));
}

#[test]
fn an_invalid_customer_is_refused_as_documented_and_not_written() {
    let emulator = Emulator::start().unwrap();
    let answer = ask(&emulator, "POST", &customers_of(OWN_STORE), r#"{ "first_name": 7 }"#);
    assert_eq!(answer.status, 422);
    let body = answer.json();
    assert!(body["message"].is_string());
    assert!(body["errors"]["phone"][0].is_string() && body["errors"]["first_name"][0].is_string());
    assert!(emulator.customers(OWN_STORE).is_empty());
}

#[test]
fn stores_are_paused_and_keys_created_and_deleted_while_it_runs() {
    let emulator = Emulator::start().unwrap();
    let status = |key: &RawKey| ask_with(&emulator, Some(key), "GET", "/api/v1/stores/123/orders", "").status;
    emulator.pause_store(OWN_STORE).unwrap();
    assert_eq!(status(emulator.key()), 404);
    emulator.resume_store(OWN_STORE).unwrap();
    assert_eq!(status(emulator.key()), 200);
    let new = emulator.create_key("second").unwrap();
    assert_eq!(status(new.key()), 200);
    assert_eq!(emulator.keys(TEAM).len(), 2);
    emulator.delete_key(new.record().id()).unwrap();
    assert_eq!((status(new.key()), status(emulator.key())), (401, 200));
}

#[test]
fn a_key_is_deleted_after_n_more_requests_whatever_the_answers() {
    let emulator = Emulator::start().unwrap();
    emulator.delete_key_after(emulator.key_id(), 3).unwrap();
    let statuses = ["123", "456", "123", "123"]
        .map(|store| ask(&emulator, "GET", &format!("/api/v1/stores/{store}/orders"), "").status);
    assert_eq!(statuses, [200, 403, 200, 401]);
    assert!(emulator.keys(TEAM).is_empty());
    let new = emulator.create_key("again").unwrap();
    emulator.delete_key_after(new.record().id(), 0).unwrap();
    assert!(emulator.keys(TEAM).is_empty());
    assert!(emulator.delete_key_after(new.record().id(), 1).is_err());
}

#[test]
fn a_key_is_deleted_before_its_last_answer_is_seen() {
    let emulator = Emulator::start().unwrap();
    for _ in 0..50 {
        let new = emulator.create_key("short").unwrap();
        emulator.delete_key_after(new.record().id(), 1).unwrap();
        let path = "/api/v1/stores/123/orders";
        assert_eq!(ask_with(&emulator, Some(new.key()), "GET", path, "").status, 200);
        assert!(emulator.registry().key(new.record().id()).is_none());
    }
}

#[test]
fn allowed_requests_are_answered_even_if_a_later_one_is_quicker() {
    let emulator = Emulator::start().unwrap();
    let path = "/api/v1/stores/123/orders";
    for allowed in [1, 2, 3] {
        let new = emulator.create_key("counted").unwrap();
        emulator.delete_key_after(new.record().id(), allowed).unwrap();
        emulator.clear_faults();
        let slow = FaultRule::new(Fault::Latency(Duration::from_millis(400)))
            .with_key(new.record().id())
            .with_times(1);
        emulator.add_fault(slow).unwrap();
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let first = scope.spawn(|| ask_with(&emulator, Some(new.key()), "GET", path, "").status);
            std::thread::sleep(Duration::from_millis(100));
            let later: Vec<u16> =
                (1..=allowed).map(|_| ask_with(&emulator, Some(new.key()), "GET", path, "").status).collect();
            std::iter::once(first.join().unwrap()).chain(later).collect()
        });
        let good = statuses.iter().filter(|status| **status == 200).count() as u64;
        assert_eq!((statuses[0], good), (200, allowed), "{statuses:?}");
        assert!(emulator.registry().key(new.record().id()).is_none(), "it is gone once all are answered");
    }
}

#[test]
fn katanas_products_come_in_pages() {
    let emulator = Emulator::katana().start().unwrap();
    let ids = |query: &str| {
        let answer = ask(&emulator, "GET", &format!("/v1/products{query}"), "");
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let data = answer.json()["data"].as_array().unwrap().clone();
        data.iter().map(|product| product["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(""), (1..=50).collect::<Vec<_>>());
    assert_eq!(ids("?limit=1"), [1]);
    assert_eq!(ids("?limit=50&page=3"), (101..=120).collect::<Vec<_>>());
    assert_eq!(ids("?page=4&limit=50"), Vec::<u64>::new());
    assert_eq!(ids("?limit=1000").len(), 120);
    assert_eq!(ids(&format!("?limit=250&page={}", usize::MAX)), Vec::<u64>::new());
    for query in ["?limit=0", "?limit=-1", "?limit=many", "?page=0", "?page=", "?limit=99999999999999999999"]
    {
        let answer = ask(&emulator, "GET", &format!("/v1/products{query}"), "");
        assert_eq!(answer.status, 422, "{query}");
        assert!(answer.json()["details"].is_array());
    }
}

#[test]
fn katanas_errors_have_both_shapes() {
    for (settings, pointer) in [(Emulator::katana(), ""), (Emulator::katana().with_nested_errors(), "/error")]
    {
        let emulator = settings.start().unwrap();
        let name = |answer: &Answer| answer.json().pointer(&format!("{pointer}/name")).cloned();
        let refused = ask_with(&emulator, None, "GET", "/v1/products", "");
        assert_eq!((refused.status, name(&refused)), (401, Some(json!("UnauthorizedError"))));
        assert_eq!(ask(&emulator, "GET", "/v1/products", "").status, 200);
        let lost = ask(&emulator, "GET", "/v1/orders", "");
        assert_eq!((lost.status, name(&lost)), (404, Some(json!("NotFoundError"))));
        let invalid = ask(&emulator, "GET", "/v1/products?limit=x", "");
        assert_eq!((invalid.status, name(&invalid)), (422, Some(json!("UnprocessableEntityError"))));
    }
}

#[test]
fn the_same_seed_gives_the_same_key_and_products() {
    let start = |seed: Option<u64>| match seed {
        Some(seed) => Emulator::katana().with_seed(seed).start().unwrap(),
        None => Emulator::katana().start().unwrap(),
    };
    let products = |emulator: &Emulator| ask(emulator, "GET", "/v1/products", "").body;
    let (one, same, other) = (start(Some(7)), start(Some(7)), start(Some(8)));
    assert!(one.key() == same.key() && one.key() != other.key());
    assert!(products(&one) == products(&same) && products(&one) != products(&other));
    assert!(one.control_token() != same.control_token(), "the token is never seeded");
    assert!(start(None).key() != start(None).key());
}

#[test]
fn two_emulators_run_at_once_and_know_nothing_of_each_other() {
    let (kanal, katana) = (Emulator::start().unwrap(), Emulator::katana().start().unwrap());
    let second = Emulator::start().unwrap();
    assert_eq!(ask(&kanal, "POST", &customers_of(OWN_STORE), CUSTOMER).status, 201);
    assert!(second.customers(OWN_STORE).is_empty() && second.journal().is_empty());
    assert_eq!(ask_with(&second, Some(kanal.key()), "GET", "/api/v1/stores/123/orders", "").status, 401);
    assert_eq!(ask(&katana, "GET", "/v1/products", "").status, 200);
    assert!(kanal.key().clone_key().try_into_typed::<Kanal>().is_ok());
    assert!(katana.key().clone_key().try_into_typed::<Katana>().is_ok());
    drop(kanal);
    assert_eq!(ask(&second, "GET", "/api/v1/stores/123/orders", "").status, 200);
}

#[test]
fn it_starts_and_stops_inside_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let emulator = Emulator::start().unwrap();
        let answer = ask(&emulator, "GET", "/api/v1/stores/123/orders", "");
        drop(emulator);
        answer.status
    });
    assert_eq!(status, 200);
}

/// The inode of the socket that listens on a port of 127.0.0.1. Another test may get a port as soon as it is
/// free, but never the same socket.
#[cfg(target_os = "linux")]
fn listener(port: u16) -> Option<u64> {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let columns = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = columns.filter(|columns| columns[1] == local && columns[3] == "0A");
    listening.next().map(|columns| columns[9].parse().unwrap())
}

#[test]
#[cfg(target_os = "linux")]
fn dropping_it_frees_both_ports_even_while_a_request_hangs() {
    let emulator = Emulator::start().unwrap();
    let fault = keysheath::emulator::Fault::Latency(Duration::from_secs(600));
    emulator.add_fault(keysheath::emulator::FaultRule::new(fault)).unwrap();
    let mut hanging = support::http::connect(emulator.origin());
    std::io::Write::write_all(&mut hanging, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let _idle = support::http::connect(emulator.control_origin());
    while emulator.faults()[0].applied == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let listeners = [emulator.origin(), emulator.control_origin()].map(|origin| listener(origin.port()));
    assert!(listeners.iter().all(Option::is_some), "{listeners:?}");
    let ports = [emulator.origin(), emulator.control_origin()].map(keysheath::Origin::port);
    let start = Instant::now();
    drop(emulator);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for (port, before) in ports.into_iter().zip(listeners) {
        // A program that another test has just started holds this process's sockets until it is executed.
        while listener(port) == before {
            assert!(start.elapsed() < Duration::from_secs(5), "it still listens on {port}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut hanging, &mut rest).ok();
    assert!(rest.is_empty());
}

#[test]
fn the_journal_never_has_a_header_a_query_or_a_body() {
    let emulator = Emulator::start().unwrap();
    let key = emulator.key().expose_secret().to_owned();
    let canary = support::KEY;
    let body = format!(r#"{{ "phone": "+33612345678", "first_name": "{canary}" }}"#);
    let path = format!("{}?key={key}&other={canary}", customers_of(OWN_STORE));
    assert_eq!(ask(&emulator, "POST", &path, &body).status, 201);
    ask_with(&emulator, None, "GET", &format!("/api/{canary}/{key}"), "");
    let unknown = RawKey::parse(emulator.key().profile(), canary.as_bytes()).unwrap();
    assert_eq!(ask_with(&emulator, Some(&unknown), "POST", &customers_of(OWN_STORE), "{}").status, 401);

    let journal = emulator.journal();
    let printed = format!("{journal:#?} {emulator:?} {:?}", emulator.faults());
    support::assert_nothing_of_in(canary, &printed);
    support::assert_nothing_of_in(&key, &printed);
    assert!(!printed.contains("application/json") && !printed.contains("+336"), "{printed}");
    let first = &journal[0];
    assert_eq!((first.number, first.method, &*first.path), (1, "POST", "/api/v1/stores/123/customers"));
    assert_eq!((first.store, first.status), (Some(OWN_STORE), Some(201)));
    assert_eq!(first.key, emulator.key().fingerprint());
    assert_eq!((journal[1].status, &*journal[1].path), (Some(404), "/api/…/…"));
    assert_eq!((journal[2].key, journal[2].status), (None, Some(401)), "an unknown key has no name here");

    emulator.reset();
    assert!(emulator.journal().is_empty() && emulator.customers(OWN_STORE).is_empty());
}

#[test]
fn a_request_that_is_refused_is_no_use_of_its_key() {
    let emulator = Emulator::start().unwrap();
    let used = || emulator.keys(keysheath::emulator::TEAM)[0].last_used();
    ask_with(&emulator, Some(emulator.key()), "GET", "/api/v1/stores/456/orders", "");
    ask_with(&emulator, Some(emulator.key()), "GET", "/api/v1/stores/789/orders", "");
    assert_eq!(used(), None);
    ask_with(&emulator, Some(emulator.key()), "GET", "/api/v1/stores/123/orders", "");
    assert!(used().is_some());
}
