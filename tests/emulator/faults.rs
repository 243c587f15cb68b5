//! Every fault, plain and over TLS, and when it happens.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use keysheath::emulator::{Emulator, Fault, FaultRule, OWN_STORE};
use keysheath::key::StoreId;

use super::{CUSTOMER, ask, ask_with, customers_of};
use crate::support::http::{Answer, agent, connect, send};

const ORDERS: &str = "/api/v1/stores/123/orders";

/// One emulator that is plain, and one over TLS where there is TLS.
fn both() -> Vec<Emulator> {
    vec![
        Emulator::start().unwrap(),
        #[cfg(feature = "emulator-tls")]
        Emulator::kanal().with_tls().start().unwrap(),
    ]
}

#[cfg(feature = "emulator-tls")]
fn certificate(emulator: &Emulator) -> Option<&str> {
    emulator.certificate_pem()
}

#[cfg(not(feature = "emulator-tls"))]
fn certificate(_: &Emulator) -> Option<&str> {
    None
}

/// Asks with the emulator's key and trusts its certificate.
fn try_to(emulator: &Emulator, method: &str, path: &str, body: &str) -> Result<Answer, ureq::Error> {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", emulator.origin()))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", emulator.key().expose_secret()));
    send(&agent(certificate(emulator)), request.body(body.to_owned()).unwrap())
}

fn statuses<const N: usize>(emulator: &Emulator) -> [u16; N] {
    [(); N].map(|()| ask(emulator, "GET", ORDERS, "").status)
}

#[test]
fn without_a_fault_both_answer_as_documented() {
    for emulator in both() {
        assert_eq!(try_to(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER).unwrap().status, 201);
        assert_eq!(emulator.customers(OWN_STORE).len(), 1);
    }
}

#[test]
fn a_status_comes_with_its_wait_and_its_body_and_has_no_effect() {
    for emulator in both() {
        let busy = Fault::status(503).with_retry_after(7).with_body("<html>busy</html>");
        let id = emulator.add_fault(FaultRule::new(busy).with_times(1)).unwrap();
        let answer = try_to(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER).unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
        assert_eq!((&*answer.body, answer.header("content-type")), ("<html>busy</html>", Some("text/html")));
        assert!(emulator.customers(OWN_STORE).is_empty());
        let journal = emulator.journal();
        assert_eq!((journal[0].status, journal[0].fault), (Some(503), Some(id)));
        assert_eq!(emulator.faults()[0].applied, 1);
    }
}

#[test]
fn a_429_without_a_body_of_its_own_has_the_documented_one() {
    for (settings, path, body) in [
        (Emulator::kanal(), ORDERS, r#"{ "message": "Too Many Attempts." }"#),
        (
            Emulator::katana(),
            "/v1/products",
            r#"{"statusCode":429,"name":"TooManyRequests","message":"Too Many Requests"}"#,
        ),
        (
            Emulator::katana().with_nested_errors(),
            "/v1/products",
            r#"{"error":{"statusCode":429,"name":"TooManyRequests","message":"Too Many Requests"}}"#,
        ),
    ] {
        let emulator = settings.start().unwrap();
        emulator.add_fault(FaultRule::new(Fault::status(429).with_retry_after(1))).unwrap();
        assert_eq!(ask(&emulator, "GET", path, "").body, body);
    }
}

#[test]
fn latency_holds_up_its_own_request_and_no_other() {
    for emulator in both() {
        let slow = Fault::Latency(Duration::from_millis(600));
        emulator.add_fault(FaultRule::new(slow).with_route(ORDERS)).unwrap();
        let emulator = &emulator;
        std::thread::scope(|scope| {
            let start = Instant::now();
            let held = scope.spawn(move || {
                assert_eq!(try_to(emulator, "GET", ORDERS, "").unwrap().status, 200);
                start.elapsed()
            });
            while emulator.faults()[0].applied == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            for _ in 0..10 {
                assert_eq!(try_to(emulator, "GET", "/elsewhere", "").unwrap().status, 404);
            }
            assert!(!held.is_finished(), "ten requests went by while one was held up");
            assert!(held.join().unwrap() >= Duration::from_millis(600));
        });
    }
}

#[test]
fn a_key_deleted_while_its_request_is_delayed_is_refused() {
    let emulator = Emulator::start().unwrap();
    emulator.add_fault(FaultRule::new(Fault::Latency(Duration::from_millis(300)))).unwrap();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| ask(&emulator, "GET", ORDERS, "").status);
        while emulator.faults()[0].applied == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        emulator.delete_key(emulator.key_id()).unwrap();
        assert_eq!(held.join().unwrap(), 401);
    });
}

#[test]
fn a_reset_is_a_tcp_reset_and_has_no_effect() {
    for emulator in both() {
        let id = emulator.add_fault(FaultRule::new(Fault::Reset).with_times(1)).unwrap();
        match try_to(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER) {
            Err(ureq::Error::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            other => panic!("a reset was expected, not {other:?}"),
        }
        assert!(emulator.customers(OWN_STORE).is_empty());
        assert_eq!(try_to(&emulator, "GET", ORDERS, "").unwrap().status, 200);
        let journal = emulator.journal();
        assert_eq!((journal[0].status, journal[0].fault), (None, Some(id)));
    }
}

#[test]
fn a_reset_is_seen_by_a_client_that_reads_bare_bytes() {
    let emulator = Emulator::start().unwrap();
    emulator.add_fault(FaultRule::new(Fault::Reset)).unwrap();
    let mut stream = connect(emulator.origin());
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_truncated_body_has_half_of_its_length_and_its_effect() {
    for emulator in both() {
        emulator.add_fault(FaultRule::new(Fault::TruncatedBody).with_times(1)).unwrap();
        let error = try_to(&emulator, "POST", &customers_of(OWN_STORE), CUSTOMER).unwrap_err();
        assert!(!matches!(error, ureq::Error::Timeout(_)), "{error:?}");
        assert_eq!(emulator.customers(OWN_STORE).len(), 1, "the request was done");
        assert_eq!(try_to(&emulator, "GET", ORDERS, "").unwrap().status, 200);
        assert_eq!(emulator.journal()[0].status, Some(201));
    }
}

#[test]
fn a_truncated_body_closes_the_connection_in_the_middle() {
    let emulator = Emulator::start().unwrap();
    emulator.add_fault(FaultRule::new(Fault::TruncatedBody)).unwrap();
    let answer = crate::support::http::raw(
        emulator.origin(),
        "GET /api/v1/stores/123/orders HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 401 ") && head.contains("content-length: 33"), "{head}");
    assert_eq!(body, r#"{ "error": "API "#);
}

#[test]
fn the_first_rule_that_matches_and_is_due_is_applied_alone() {
    let emulator = Emulator::start().unwrap();
    for rule in [
        FaultRule::new(Fault::status(500)).with_start(2),
        FaultRule::new(Fault::status(502)).with_times(2),
        FaultRule::new(Fault::status(504)).with_start(2).with_times(2),
    ] {
        emulator.add_fault(rule).unwrap();
    }
    // The second is the first rule's; the others' counts know nothing of it.
    assert_eq!(statuses(&emulator), [502, 500, 502, 200, 504, 504, 200]);
    emulator.clear_faults();
    assert_eq!(statuses(&emulator), [200, 200]);
}

#[test]
fn a_rule_is_for_a_key_a_store_or_a_route_and_for_no_other() {
    let emulator = Emulator::start().unwrap();
    let other = emulator.create_key("other").unwrap();
    let with = |key, path: &str| ask_with(&emulator, key, "GET", path, "").status;
    let cases = || {
        [
            with(Some(emulator.key()), ORDERS),
            with(Some(other.key()), ORDERS),
            with(None, ORDERS),
            with(Some(emulator.key()), "/api/v1/stores/456/orders"),
            with(Some(emulator.key()), "/api/v1/stores/456/else"),
        ]
    };
    let own = FaultRule::new(Fault::status(503));
    for (rule, expected) in [
        // A key is known by a refused request too, and by one without a route.
        (own.clone().with_key(emulator.key_id()), [503, 200, 401, 503, 503]),
        (own.clone().with_store(OWN_STORE), [503, 503, 503, 403, 404]),
        (own.clone().with_store(StoreId::new(7).unwrap()), [200, 200, 401, 403, 404]),
        (own.clone().with_route("/api/v1/stores/{store_id}/orders"), [503, 503, 503, 503, 404]),
        (own.clone().with_route("/api/v1/stores/456/*"), [200, 200, 401, 503, 503]),
        (own.clone().with_key(emulator.key_id()).with_store(OWN_STORE), [503, 200, 401, 403, 404]),
        // Without a key it is for every request, authorized or not.
        (own, [503; 5]),
    ] {
        emulator.clear_faults();
        emulator.add_fault(rule.clone()).unwrap();
        assert_eq!(cases(), expected, "{rule:?}");
    }
}

#[test]
fn with_a_seed_the_same_requests_meet_the_same_faults() {
    let run = |seed| {
        let emulator = Emulator::kanal().with_seed(seed).start().unwrap();
        emulator.add_fault(FaultRule::new(Fault::status(503)).with_probability(0.5)).unwrap();
        let first = statuses::<64>(&emulator);
        emulator.reset();
        emulator.add_fault(FaultRule::new(Fault::status(503)).with_probability(0.5)).unwrap();
        assert_eq!(statuses::<64>(&emulator), first, "a reset begins again");
        first
    };
    let met = run(7);
    assert_eq!(met, run(7));
    assert_ne!(met, run(8));
    let faults = met.iter().filter(|status| **status == 503).count();
    assert!((16..=48).contains(&faults), "{faults} of 64");
}

#[test]
fn never_and_always_are_probabilities() {
    let emulator = Emulator::start().unwrap();
    emulator.add_fault(FaultRule::new(Fault::status(500)).with_probability(0.0)).unwrap();
    emulator.add_fault(FaultRule::new(Fault::status(503)).with_probability(1.0)).unwrap();
    assert_eq!(statuses(&emulator), [503; 20]);
}

#[test]
fn a_rule_that_cannot_be_is_not_added() {
    let emulator = Emulator::start().unwrap();
    for rule in [
        FaultRule::new(Fault::status(199)),
        FaultRule::new(Fault::status(600)),
        FaultRule::new(Fault::Latency(Duration::from_secs(601))),
        FaultRule::new(Fault::Reset).with_probability(1.5),
        FaultRule::new(Fault::Reset).with_probability(f64::NAN),
        FaultRule::new(Fault::Reset).with_start(0),
        FaultRule::new(Fault::Reset).with_route("orders"),
    ] {
        assert!(emulator.add_fault(rule.clone()).is_err(), "{rule:?}");
    }
    assert!(emulator.faults().is_empty());
    for _ in 0..1_000 {
        emulator.add_fault(FaultRule::new(Fault::Reset)).unwrap();
    }
    assert!(emulator.add_fault(FaultRule::new(Fault::Reset)).is_err());
}
