//! The emulator's control plane, and the program `keysheath-emulator`.

mod program;

use std::time::{Duration, SystemTime};

use keysheath::emulator::{Emulator, Fault, OWN_STORE, PAUSED_STORE, TEAM};
use keysheath::key::{Issuer as _, Kanal, RawKey};
use serde_json::{Value, json};

use crate::support::http::{Answer, agent, raw, send};

/// Asks the control plane with its token.
fn control(emulator: &Emulator, method: &str, path: &str, body: &Value) -> Answer {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", emulator.control_origin()))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", emulator.control_token().expose_secret()));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(&agent(None), request.body(body).unwrap()).unwrap()
}

/// The status that the data plane answers a key.
fn status(emulator: &Emulator, key: &str) -> u16 {
    let request = ureq::http::Request::get(format!("{}/api/v1/stores/123/orders", emulator.origin()))
        .header("authorization", format!("Bearer {key}"));
    send(&agent(None), request.body(String::new()).unwrap()).unwrap().status
}

/// A request to list the keys, with these lines in its head.
fn list_keys(emulator: &Emulator, target: &str, lines: &[&str]) -> String {
    let lines = lines.iter().flat_map(|line| [*line, "\r\n"]).collect::<String>();
    let request = format!("GET {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    raw(emulator.control_origin(), request).unwrap()
}

#[test]
fn a_key_is_created_listed_and_deleted_and_shown_once() {
    let emulator = Emulator::start().unwrap();
    let made = control(&emulator, "POST", "/keys", &json!({ "name": "production-shop" }));
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")));
    let made = made.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(status(&emulator, key), 200);

    let listed = control(&emulator, "GET", "/keys", &Value::Null);
    crate::support::assert_nothing_of_in(key, &listed.body);
    let listed = listed.json()["keys"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1]["id"], &listed[1]["name"]), (&json!(id), &json!("production-shop")));
    assert_eq!(listed[1]["fingerprint"], made["fingerprint"]);
    assert!(listed[1]["last_used"].as_u64() >= listed[1]["created"].as_u64());

    assert_eq!(control(&emulator, "DELETE", &format!("/keys/{id}"), &Value::Null).status, 204);
    assert_eq!(status(&emulator, key), 401);
    assert_eq!(control(&emulator, "DELETE", &format!("/keys/{id}"), &Value::Null).status, 404);
    assert_eq!(emulator.keys(TEAM).len(), 1);
}

#[test]
fn a_key_may_be_another_teams_or_for_one_store() {
    let emulator = Emulator::start().unwrap();
    let made = control(&emulator, "POST", "/keys", &json!({ "name": "theirs", "team": 2 })).json();
    assert_eq!(status(&emulator, made["key"].as_str().unwrap()), 403);
    let listed = control(&emulator, "GET", "/keys?team=2", &Value::Null).json();
    assert_eq!(listed["keys"][0]["name"], "theirs");
    let one = control(&emulator, "POST", "/keys", &json!({ "name": "one", "store": 789 })).json();
    assert_eq!((&one["store"], status(&emulator, one["key"].as_str().unwrap())), (&json!(789), 403));
    let foreign = control(&emulator, "POST", "/keys", &json!({ "name": "one", "store": 456 }));
    assert_eq!(foreign.status, 404);
}

#[test]
fn stores_are_made_paused_and_resumed() {
    let emulator = Emulator::start().unwrap();
    let key = emulator.key().expose_secret();
    assert_eq!(control(&emulator, "POST", "/stores/123/pause", &Value::Null).status, 204);
    assert_eq!(status(&emulator, key), 404);
    assert_eq!(control(&emulator, "POST", "/stores/123/resume", &Value::Null).status, 204);
    assert_eq!(status(&emulator, key), 200);
    assert_eq!(control(&emulator, "PUT", "/stores/123", &json!({ "team": 2 })).status, 204);
    assert_eq!(status(&emulator, key), 403);
    assert_eq!(control(&emulator, "POST", "/stores/9999/pause", &Value::Null).status, 404);
}

#[test]
fn customers_are_listed_and_a_reset_forgets_them() {
    let emulator = Emulator::start().unwrap();
    let request = ureq::http::Request::post(format!("{}/api/v1/stores/123/customers", emulator.origin()))
        .header("authorization", format!("Bearer {}", emulator.key().expose_secret()))
        .header("content-type", "application/json")
        .body(r#"{ "phone": "+33612345678" }"#.to_owned());
    assert_eq!(send(&agent(None), request.unwrap()).unwrap().status, 201);
    let listed = control(&emulator, "GET", "/stores/123/customers", &Value::Null).json();
    assert_eq!(listed["customers"][0]["phone"], "+33612345678");
    assert_eq!(control(&emulator, "POST", "/reset", &Value::Null).status, 204);
    assert!(emulator.customers(OWN_STORE).is_empty());
    assert_eq!(status(&emulator, emulator.key().expose_secret()), 200, "keys and stores stay");
    assert!(emulator.registry().key(emulator.key_id()).is_some());
    assert_eq!(
        control(&emulator, "POST", &format!("/stores/{PAUSED_STORE}/resume"), &Value::Null).status,
        204
    );
}

#[test]
fn faults_are_added_in_order_listed_and_cleared() {
    let emulator = Emulator::start().unwrap();
    let key = emulator.key().expose_secret();
    let first = json!({ "fault": { "status": 503, "retry_after": 2 }, "store": 123, "times": 1 });
    assert_eq!(control(&emulator, "POST", "/faults", &first).json(), json!({ "id": 1 }));
    let second = json!({ "fault": { "status": 502 }, "key": emulator.key_id().to_string(), "nth": 2 });
    assert_eq!(control(&emulator, "POST", "/faults", &second).json(), json!({ "id": 2 }));
    assert_eq!([(); 4].map(|()| status(&emulator, key)), [503, 200, 502, 200]);
    let listed = control(&emulator, "GET", "/faults", &Value::Null).json();
    assert_eq!(listed["faults"][0]["applied"], 1);
    assert_eq!(listed["faults"][1]["fault"]["status"], 502);
    assert_eq!(control(&emulator, "DELETE", "/faults", &Value::Null).status, 204);
    assert!(emulator.faults().is_empty());
    let slow = json!({ "fault": { "latency_ms": 1 } });
    assert_eq!(control(&emulator, "POST", "/faults", &slow).status, 201);
    assert!(matches!(emulator.faults()[0].rule, ref rule if *rule == keysheath::emulator::FaultRule::new(
        Fault::Latency(Duration::from_millis(1))
    )));
}

#[test]
fn a_key_is_deleted_after_n_more_requests() {
    let emulator = Emulator::start().unwrap();
    let path = format!("/keys/{}/delete-after", emulator.key_id());
    assert_eq!(control(&emulator, "POST", &path, &json!({ "requests": 2 })).status, 204);
    let key = emulator.key().expose_secret();
    assert_eq!([(); 3].map(|()| status(&emulator, key)), [200, 200, 401]);
    assert_eq!(control(&emulator, "POST", &path, &json!({ "requests": 2 })).status, 404);
}

#[test]
fn the_journal_is_that_of_the_data_plane_and_has_no_key() {
    let emulator =
        Emulator::kanal().with_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(7)).start().unwrap();
    let key = emulator.key().expose_secret();
    assert_eq!(status(&emulator, key), 200);
    let journal = control(&emulator, "GET", "/journal", &Value::Null);
    crate::support::assert_nothing_of_in(key, &journal.body);
    let expected = json!({ "journal": [{
        "number": 1,
        "time": 7,
        "method": "GET",
        "path": "/api/v1/stores/123/orders",
        "store": 123,
        "key": emulator.key().fingerprint().unwrap().to_string(),
        "status": 200,
        "fault": null,
    }] });
    assert_eq!(journal.json(), expected, "and nothing of the control plane's own requests");
}

#[test]
fn nothing_is_answered_without_the_token() {
    let emulator = Emulator::start().unwrap();
    let token = emulator.control_token().expose_secret();
    let host = format!("host: 127.0.0.1:{}", emulator.control_origin().port());
    let refused = |answer: &str| {
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        crate::support::assert_nothing_of_in(token, answer);
    };
    for target in ["/keys", "/journal", "/nowhere"] {
        refused(&list_keys(&emulator, target, &[&host]));
    }
    for value in [
        format!("Bearer {}", emulator.key().expose_secret()),
        format!("Bearer {}", &token[1..]),
        format!("Bearer {token}A"),
        format!("Basic {token}"),
        format!("Bearer {}", token.chars().rev().collect::<String>()),
    ] {
        refused(&list_keys(&emulator, "/keys", &[&host, &format!("authorization: {value}")]));
    }
    let other = Emulator::start().unwrap();
    let value = format!("authorization: Bearer {}", other.control_token().expose_secret());
    refused(&list_keys(&emulator, "/keys", &[&host, &value]));
    let value = format!("authorization: Bearer {token}");
    assert!(list_keys(&emulator, "/keys", &[&host, &value]).starts_with("HTTP/1.1 200 "));
    assert!(list_keys(&emulator, &format!("/keys?token={token}"), &[&host]).starts_with("HTTP/1.1 401 "));
}

#[test]
fn a_page_in_a_browser_does_not_reach_it_even_with_the_token() {
    let emulator = Emulator::start().unwrap();
    let token = format!("authorization: Bearer {}", emulator.control_token().expose_secret());
    let host = format!("host: 127.0.0.1:{}", emulator.control_origin().port());
    for line in [
        "origin: https://evil.example",
        "origin: null",
        "Origin: ",
        &format!("origin: {}", emulator.control_origin()),
        "sec-fetch-site: same-origin",
        "Sec-Fetch-Dest: empty",
    ] {
        let answer = list_keys(&emulator, "/keys", &[&host, &token, line]);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{line}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control-"), "{answer}");
    }
    // What a browser asks before it sends a request of another page's.
    let preflight = format!(
        "OPTIONS /keys HTTP/1.1\r\n{host}\r\norigin: https://evil.example\r\n\
         access-control-request-method: POST\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(emulator.control_origin(), preflight).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("access-control-"), "{answer}");
    assert_eq!(emulator.keys(TEAM).len(), 1);
}

#[test]
fn what_node_sends_from_a_server_reaches_it() {
    let emulator = Emulator::start().unwrap();
    let token = format!("authorization: Bearer {}", emulator.control_token().expose_secret());
    let host = format!("host: 127.0.0.1:{}", emulator.control_origin().port());
    // As `fetch` of Node 20 does it.
    let node = ["accept: */*", "accept-language: *", "sec-fetch-mode: cors", "user-agent: node"];
    let lines: Vec<&str> = [&*host, &*token].into_iter().chain(node).collect();
    let answer = list_keys(&emulator, "/keys", &lines);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_name_that_was_made_to_mean_this_machine_does_not_reach_it() {
    let emulator = Emulator::start().unwrap();
    let token = format!("authorization: Bearer {}", emulator.control_token().expose_secret());
    let port = emulator.control_origin().port();
    let ours = format!("host: 127.0.0.1:{port}");
    let other_port = format!("host: 127.0.0.1:{}", emulator.origin().port());
    for hosts in [
        &["host: evil.example"][..],
        &[&format!("host: evil.example:{port}")],
        &[&format!("host: localhost:{port}")],
        &[&format!("host: 127.0.0.1.evil.example:{port}")],
        &[&format!("host: 127.1:{port}")],
        &["host: 127.0.0.1"],
        &[&other_port],
        &["host: "],
        &[],
        &[&ours, &ours],
        &[&ours, "host: evil.example"],
    ] {
        let lines: Vec<&str> = hosts.iter().copied().chain([&*token]).collect();
        let answer = list_keys(&emulator, "/keys", &lines);
        assert!(
            answer.starts_with("HTTP/1.1 403 ") || answer.starts_with("HTTP/1.1 400 "),
            "{hosts:?}: {answer}"
        );
    }
    let absolute = format!("http://evil.example:{port}/keys");
    assert!(list_keys(&emulator, &absolute, &[&ours, &token]).starts_with("HTTP/1.1 403 "));
    assert!(list_keys(&emulator, "/keys", &[&ours, &token]).starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_it_does_not_understand_it_refuses_and_says_which_field() {
    let emulator = Emulator::start().unwrap();
    let id = emulator.key_id();
    for (method, path, body, status) in [
        ("POST", "/keys", json!({}), 400),
        ("POST", "/keys", json!({ "name": "" }), 400),
        ("POST", "/keys", json!({ "name": 7 }), 400),
        ("POST", "/keys", json!({ "name": "x", "team": -1 }), 400),
        ("POST", "/keys", json!({ "name": "x", "store": 0 }), 400),
        ("POST", "/keys", json!({ "name": "x", "key": "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z" }), 400),
        ("POST", "/keys", json!(["x"]), 400),
        ("DELETE", "/keys/all", Value::Null, 400),
        ("DELETE", "/keys/ffffffff", Value::Null, 404),
        ("POST", &format!("/keys/{id}/delete-after"), json!({ "requests": -1 }), 400),
        ("POST", &format!("/keys/{id}/delete-after"), json!({ "requests": "2" }), 400),
        ("POST", "/stores/0/pause", Value::Null, 400),
        ("POST", "/stores/99999999999999999999/pause", Value::Null, 400),
        ("POST", "/faults", json!({ "fault": "reset", "often": true }), 400),
        ("POST", "/faults", json!({ "fault": { "status": 99 } }), 400),
        ("GET", "/keys?team=x", Value::Null, 400),
        ("GET", "/nowhere", Value::Null, 404),
        ("PATCH", "/keys", Value::Null, 405),
    ] {
        let answer = control(&emulator, method, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.body);
        crate::support::assert_nothing_of_in("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", &answer.body);
    }
    let long = json!({ "name": "x".repeat(200_000) });
    assert_eq!(control(&emulator, "POST", "/keys", &long).status, 413);
    assert_eq!(emulator.keys(TEAM).len(), 1);
}

#[test]
fn nothing_that_prints_holds_a_key_or_the_token() {
    let emulator = Emulator::start().unwrap();
    let known = RawKey::parse(Kanal::PROFILE, crate::support::KEY.as_bytes()).unwrap();
    let settings = Emulator::kanal().with_seed(0x00c0_ffee);
    let printed = format!(
        "{emulator:?} {emulator:#?} {settings:?} {:?} {:?} {:?} {:?} {known:?}",
        emulator.key(),
        emulator.control_token(),
        emulator.keys(TEAM),
        emulator.faults(),
    );
    crate::support::assert_nothing_of_in(emulator.key().expose_secret(), &printed);
    crate::support::assert_nothing_of_in(emulator.control_token().expose_secret(), &printed);
    assert!(!printed.contains(&0x00c0_ffee.to_string()), "the seed tells the keys");
}
