//! P2, for what the crate sends itself: a probe leaves no freed heap block with the key in it, over plain
//! HTTP and over TLS.
//!
//! The server runs in the parent process, because its own buffers would be found otherwise.

use std::time::Duration;

use crate::support::recorder::{Recorder, write_answer};
use crate::support::residue::{KEY, NONE, Residue, alone, residue_of, residue_when_wiping};
use crate::support::tls::OwnCertificate;
use http::Request;
use keysheath::client::{BearerHeader, OriginGuard};
use keysheath::failure::Obstacle;
use keysheath::key::{ApiKey, Issuer, Kanal, Origin, Roots, StoreId};
use keysheath::probe::{HttpProbe, Probe, Report, Verdict};

const ACCEPTED: &str = "201 Created\r\ncontent-type: application/json";

/// The origin of the parent's server, in the child.
fn origin() -> Origin {
    Origin::parse(&std::env::var("PROBE_ORIGIN").unwrap()).unwrap()
}

fn probe() -> HttpProbe<Kanal> {
    let probe = HttpProbe::by_customer_upsert(StoreId::new(1).unwrap(), StoreId::new(2))
        .with_deadline(Duration::from_secs(5));
    match std::env::var("PROBE_ROOTS") {
        Ok(pem) => probe
            .with_guard(OriginGuard::for_https(origin()).unwrap())
            .with_roots(Roots::from_pem(pem.as_bytes()).unwrap()),
        Err(_) => probe.with_guard(OriginGuard::for_loopback(origin()).unwrap()),
    }
}

fn kanal() -> ApiKey<Kanal> {
    ApiKey::parse(KEY).expect("the planted key is well-formed")
}

/// Runs `scenario` in a process of its own, with a plain server in this one.
fn with_plain_server(test: &'static str, answer: &str, scenario: impl FnOnce()) {
    let server = Recorder::plain(answer);
    alone(test, &[("PROBE_ORIGIN", &format!("http://{}", server.address))], scenario);
}

/// What a probe leaves, with the system's allocator; with one that wipes it must be nothing.
fn left_by(probe: &HttpProbe<Kanal>, expected: fn(&Report) -> bool) -> Residue {
    let ask = || {
        let report = probe.probe(kanal().as_raw());
        drop(format!("{report} {report:?}"));
        report
    };
    assert!(expected(&ask()), "{}", ask());
    let wiping = residue_when_wiping(|| drop(ask()));
    assert_eq!(wiping, NONE, "in spite of the wiping allocator");
    residue_of(|| drop(ask()))
}

fn is_accepted(report: &Report) -> bool {
    report.verdict() == Verdict::Accepted
}

fn wants_nothing(test: &str, found: Residue) {
    println!("{found}: {}", test.replace('_', " "));
    assert_eq!(found, NONE, "freed blocks with the key in them");
}

#[test]
fn the_control_a_client_without_wiped_buffers_leaves_the_key() {
    const TEST: &str = "the_control_a_client_without_wiped_buffers_leaves_the_key";
    with_plain_server(TEST, ACCEPTED, || {
        let found = residue_of(|| {
            let uri = format!("{}/api/v1/stores/1/customers", origin());
            let mut request = Request::post(uri).body("{}").unwrap();
            let guard = OriginGuard::for_loopback(origin()).unwrap();
            guard.authorize(&mut request, &BearerHeader::new(&kanal())).unwrap();
            let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
            drop(agent.run(request).unwrap());
        });
        println!("{found}: {}", TEST.replace('_', " "));
        assert!(found.whole >= 1, "{found}");
    });
}

#[test]
fn a_probe_over_plain_http_leaves_nothing() {
    const TEST: &str = "a_probe_over_plain_http_leaves_nothing";
    with_plain_server(TEST, ACCEPTED, || wants_nothing(TEST, left_by(&probe(), is_accepted)));
}

#[test]
fn a_probe_over_tls_leaves_nothing() {
    const TEST: &str = "a_probe_over_tls_leaves_nothing";
    let own = OwnCertificate::new();
    let server = Recorder::start(ACCEPTED, own.accept());
    let origin = format!("https://localhost:{}", server.address.port());
    let variables = [("PROBE_ORIGIN", origin.as_str()), ("PROBE_ROOTS", &own.pem)];
    alone(TEST, &variables, || wants_nothing(TEST, left_by(&probe(), is_accepted)));
}

#[test]
fn a_probe_that_is_cut_off_leaves_nothing() {
    const TEST: &str = "a_probe_that_is_cut_off_leaves_nothing";
    let server = Recorder::raw(|_, _| Ok(()));
    alone(TEST, &[("PROBE_ORIGIN", &format!("http://{}", server.address))], || {
        let cut = |report: &Report| report.findings()[0].outcome() == Err(Obstacle::Broken);
        wants_nothing(TEST, left_by(&probe(), cut));
    });
}

#[test]
fn a_probe_that_is_too_late_leaves_nothing() {
    const TEST: &str = "a_probe_that_is_too_late_leaves_nothing";
    let server = Recorder::raw(|_, _| {
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    });
    alone(TEST, &[("PROBE_ORIGIN", &format!("http://{}", server.address))], || {
        let late = |report: &Report| matches!(report.findings()[0].outcome(), Err(Obstacle::Deadline { .. }));
        let probe = probe().with_deadline(Duration::from_millis(200));
        wants_nothing(TEST, left_by(&probe, late));
    });
}

#[test]
fn a_redirected_or_misdirected_probe_leaves_nothing() {
    const TEST: &str = "a_redirected_or_misdirected_probe_leaves_nothing";
    with_plain_server(TEST, "302 Found\r\nlocation: /", || {
        let redirected =
            |report: &Report| report.findings()[0].outcome() == Err(Obstacle::Redirect { status: 302 });
        wants_nothing(TEST, left_by(&probe(), redirected));
        let found = residue_of(|| {
            let key = keysheath::key::RawKey::parse(keysheath::key::Katana::PROFILE, KEY.as_bytes()).unwrap();
            drop(probe().probe(&key).to_string());
        });
        wants_nothing(TEST, found);
    });
}

#[test]
fn an_echoed_key_leaves_only_what_parsing_its_json_leaves() {
    const TEST: &str = "an_echoed_key_leaves_only_what_parsing_its_json_leaves";
    let server = Recorder::raw(|request, stream| {
        let key = request.header("authorization")[0];
        let body = format!(r#"{{ "error": "Invalid API key", "key": "{key}" }}"#);
        write_answer(stream, &format!("401 Unauthorized\r\nx-key: {key}"), &body)
    });
    alone(TEST, &[("PROBE_ORIGIN", &format!("http://{}", server.address))], || {
        let refused = |report: &Report| report.verdict() == Verdict::KeyRefused;
        let found = left_by(&probe(), refused);
        println!("{found}: {}", TEST.replace('_', " "));
        // For each of the two stores, as SECURITY.md says.
        assert!(found.whole <= 4 && found.partial == 0, "{found}");
    });
}
