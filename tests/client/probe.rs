//! Probes: what is sent, and what the answers say about a key, store by store.

use std::time::Duration;

use crate::support::recorder::{Recorder, Request, write_answer};
use crate::support::tls::OwnCertificate;
use keysheath::client::OriginGuard;
use keysheath::failure::{Answer, KANAL, Meaning, Obstacle};
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, Origin, Roots, RootsError, StoreId};
use keysheath::probe::{Finding, HttpProbe, Probe, Report, Verdict};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
const KATANA_KEY: &str = "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071";

fn store(number: u64) -> StoreId {
    StoreId::new(number).unwrap()
}

/// The documented and the inferred probe for the same stores.
fn both_forms(stores: &[u64]) -> [HttpProbe<Kanal>; 2] {
    let more = || stores[1..].iter().copied().map(store);
    let first = store(stores[0]);
    [HttpProbe::by_customer_upsert(first, more()), HttpProbe::by_invalid_customer(first, more())]
}

fn guard<I: Issuer>(server: &Recorder) -> OriginGuard<I> {
    OriginGuard::for_loopback(Origin::parse(&format!("http://{}", server.address)).unwrap()).unwrap()
}

fn ask_kanal(probe: HttpProbe<Kanal>, server: &Recorder) -> Report {
    probe.with_guard(guard(server)).probe(ApiKey::<Kanal>::parse(KEY).unwrap().as_raw())
}

fn ask_katana(server: &Recorder) -> Report {
    HttpProbe::by_product_list()
        .with_guard(guard(server))
        .probe(ApiKey::<Katana>::parse(KATANA_KEY).unwrap().as_raw())
}

/// A server with one answer for every request.
fn always(status: u16, body: &str) -> Recorder {
    let body = body.to_owned();
    Recorder::json(move |_| (status, body.clone()))
}

/// A Kanal server: 7 and 8 are the team's stores, 9 is paused, 10 is another team's.
fn kanal(request: &Request, restricted_to: Option<&str>) -> (u16, String) {
    let row = |index: usize| (KANAL[index].status(), KANAL[index].body().unwrap());
    let store = request.line().split('/').nth(4).unwrap();
    match store {
        _ if request.header("authorization").is_empty() => row(0),
        _ if request.header("authorization") != [format!("Bearer {KEY}")] => row(1),
        "9" => row(3),
        "10" => row(2),
        _ if restricted_to.is_some_and(|only| only != store) => row(2),
        _ if !request.body.contains("phone") => {
            (422, r#"{"message":"m","errors":{"phone":["The phone field is required."]}}"#.to_owned())
        }
        _ => (201, r#"{"id":1}"#.to_owned()),
    }
}

#[test]
fn the_documented_check_is_sent_word_for_word() {
    let server = always(201, r#"{"id":1}"#);
    let report = ask_kanal(HttpProbe::by_customer_upsert(store(123), []), &server);
    assert_eq!(report.verdict(), Verdict::Accepted);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].line(), "POST /api/v1/stores/123/customers");
    assert_eq!(requests[0].body, r#"{ "phone": "+33612345678", "first_name": "Test" }"#);
    assert_eq!(requests[0].header("authorization"), [format!("Bearer {KEY}")]);
    assert_eq!(requests[0].header("content-type"), ["application/json"]);
    assert_eq!(requests[0].header("accept"), ["application/json"]);
    assert_eq!(requests[0].header("host"), [server.address.to_string()]);
}

#[test]
fn the_inferred_check_sends_no_customer_and_accepts_a_422() {
    let server = Recorder::json(|request| kanal(request, None));
    let report = ask_kanal(HttpProbe::by_invalid_customer(store(7), []), &server);
    assert_eq!(report.verdict(), Verdict::Accepted, "{report}");
    assert_eq!(report.findings()[0].outcome().unwrap().meaning(), Meaning::RequestInvalid);
    assert_eq!(
        report.to_string(),
        "accepted\n  store 7: 422: the key and the store were accepted; the content was not"
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].line(), "POST /api/v1/stores/7/customers");
    assert_eq!(requests[0].body, "{}", "nothing that could be written");
    assert_eq!(requests[0].header("content-type"), ["application/json"]);
}

#[test]
fn a_422_that_is_not_kanals_accepts_nothing() {
    for body in ["", "{}", "<html></html>", r#"{"error":"Unprocessable"}"#] {
        let report = ask_kanal(HttpProbe::by_invalid_customer(store(7), []), &always(422, body));
        assert_eq!(report.verdict(), Verdict::Inconclusive, "{body}");
    }
}

#[test]
fn every_row_of_kanals_table_has_its_verdict() {
    let expected = [
        (Meaning::KeyMissing, Verdict::Inconclusive),
        (Meaning::KeyRefused, Verdict::KeyRefused),
        (Meaning::StoreForbidden, Verdict::StoreRefused),
        (Meaning::StoreNotFound, Verdict::StoreRefused),
        (Meaning::StoreMissing, Verdict::Inconclusive),
        (Meaning::RequestInvalid, Verdict::Accepted),
        (Meaning::RateLimited, Verdict::Inconclusive),
    ];
    assert_eq!(KANAL.len(), expected.len());
    for (row, (meaning, verdict)) in KANAL.iter().zip(expected) {
        let body = row.body().unwrap_or_else(|| r#"{"error":"any","errors":{}}"#.to_owned());
        let server = always(row.status(), &body);
        for probe in both_forms(&[1]) {
            let report = ask_kanal(probe, &server);
            assert_eq!(report.verdict(), verdict, "{report}");
            let answer = report.findings()[0].outcome().unwrap();
            assert_eq!((answer.status(), answer.meaning()), (row.status(), meaning));
        }
    }
    for status in [200, 201, 202, 204] {
        let body = if status == 204 { "" } else { "{}" };
        let report = ask_kanal(HttpProbe::by_customer_upsert(store(1), []), &always(status, body));
        assert_eq!(report.verdict(), Verdict::Accepted, "{status}");
    }
}

#[test]
fn a_key_of_one_store_is_accepted_there_and_refused_elsewhere() {
    let server = Recorder::json(|request| kanal(request, Some("8")));
    for probe in both_forms(&[7, 8, 9, 10]) {
        assert_eq!(probe.stores(), [7, 8, 9, 10].map(store));
        let report = ask_kanal(probe, &server);
        let verdicts: Vec<_> = report
            .findings()
            .iter()
            .map(|finding| (finding.store().unwrap().get(), finding.verdict()))
            .collect();
        assert_eq!(
            verdicts,
            [
                (7, Verdict::StoreRefused),
                (8, Verdict::Accepted),
                (9, Verdict::StoreRefused),
                (10, Verdict::StoreRefused)
            ]
        );
        assert_eq!(report.verdict(), Verdict::StoreRefused);
        let shown = report.to_string();
        assert!(
            shown.starts_with("store refused\n  store 7: 403: the key is good, but not for this store"),
            "{shown}"
        );
        assert!(shown.contains("\n  store 9: 404: the store is unknown or paused"), "{shown}");
        assert!(shown.matches("keep the key").count() == 3, "{shown}");
    }
    for alone in both_forms(&[8]) {
        assert_eq!(ask_kanal(alone, &server).verdict(), Verdict::Accepted);
    }
}

#[test]
fn a_deleted_key_is_refused_at_every_store() {
    let server = Recorder::json(|request| kanal(request, None));
    let deleted = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
    let probe = HttpProbe::by_invalid_customer(store(7), [store(8)]).with_guard(guard(&server));
    let report = probe.probe(deleted.as_raw());
    assert_eq!(report.verdict(), Verdict::KeyRefused);
    assert!(report.findings().iter().all(|finding| finding.verdict() == Verdict::KeyRefused));
    assert!(report.to_string().contains("create a new key"), "{report}");
}

#[test]
fn one_verdict_covers_all_places_in_any_order() {
    let finding = |verdict| {
        Finding::new(match verdict {
            Verdict::Accepted => Ok(Answer::new(201, Meaning::Accepted)),
            Verdict::Inconclusive => Err(Obstacle::Broken),
            Verdict::StoreRefused => Ok(Answer::new(403, Meaning::StoreForbidden)),
            Verdict::KeyRefused => Ok(Answer::new(401, Meaning::KeyRefused)),
        })
    };
    // The later one in this list decides.
    let order = [Verdict::Accepted, Verdict::Inconclusive, Verdict::StoreRefused, Verdict::KeyRefused];
    for (first, one) in order.into_iter().enumerate() {
        for (second, other) in order.into_iter().enumerate() {
            let expected = order[first.max(second)];
            let report = Report::new(finding(one)).with_finding(finding(other));
            assert_eq!(report.verdict(), expected, "{one} and {other}");
            assert_eq!(report.findings(), [finding(one), finding(other)]);
        }
    }
}

#[test]
fn katanas_check_is_an_ordinary_read() {
    let server = always(200, r#"{"data":[]}"#);
    let report = ask_katana(&server);
    assert_eq!(report.verdict(), Verdict::Accepted);
    assert_eq!(report.findings()[0].store(), None);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].line(), "GET /v1/products?limit=1");
    assert_eq!(requests[0].header("authorization"), [format!("Bearer {KATANA_KEY}")]);
    assert_eq!(requests[0].header("accept"), ["application/json"]);
    assert_eq!(requests[0].body, "");
}

#[test]
fn katana_refuses_a_key_in_both_of_its_shapes() {
    for body in [
        r#"{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}"#,
        r#"{"error":{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}}"#,
    ] {
        assert_eq!(ask_katana(&always(401, body)).verdict(), Verdict::KeyRefused, "{body}");
    }
    // Katana documents no order of its checks, so this does not show that the key was checked.
    let unread = always(422, r#"{"error":{"details":[]}}"#);
    assert_eq!(ask_katana(&unread).verdict(), Verdict::Inconclusive);
}

#[test]
fn a_wait_that_the_issuer_asks_for_is_told() {
    let server = Recorder::raw(|request, stream| {
        let seconds = if request.line().contains("/7/") { 30 } else { 45 };
        let head = format!("429 Too Many Requests\r\nretry-after: {seconds}");
        write_answer(stream, &head, r#"{"message":"Too Many Attempts."}"#)
    });
    let report = ask_kanal(HttpProbe::by_invalid_customer(store(8), [store(7)]), &server);
    assert_eq!(report.verdict(), Verdict::Inconclusive);
    assert_eq!(report.retry_after(), Some(Duration::from_secs(45)));
    assert!(report.to_string().contains("store 7: 429: too many requests"), "{report}");
    assert!(report.to_string().contains("(Retry-After: 30 s)"), "{report}");
}

#[test]
fn an_answer_is_read_up_to_the_limit_and_no_further() {
    let filled = |length: usize| {
        let body = format!("{}{}", r#"{ "error": "Invalid API key" }"#, " ".repeat(length));
        body[..length].to_owned()
    };
    let bound = 64 * 1024;
    assert_eq!(
        ask_kanal(HttpProbe::by_invalid_customer(store(1), []), &always(401, &filled(bound))).verdict(),
        Verdict::KeyRefused
    );
    let report = ask_kanal(HttpProbe::by_invalid_customer(store(1), []), &always(401, &filled(bound + 1)));
    assert_eq!(report.findings()[0].outcome(), Err(Obstacle::TooLarge { limit: bound }));
    assert_eq!(report.verdict(), Verdict::Inconclusive);
}

#[test]
fn a_private_authority_is_trusted_only_where_it_is_set() {
    let (own, other) = (OwnCertificate::new(), OwnCertificate::new());
    let server = Recorder::start("204 No Content", own.accept());
    let origin = Origin::parse(&format!("https://localhost:{}", server.address.port())).unwrap();
    let guard = OriginGuard::for_https(origin).unwrap();
    let key = ApiKey::<Kanal>::parse(KEY).unwrap();
    let probe = HttpProbe::by_invalid_customer(store(1), []).with_guard(guard);
    let roots = |pem: &str| Roots::from_pem(pem.as_bytes()).unwrap();

    for unvouched in [probe.clone(), probe.clone().with_roots(roots(&other.pem))] {
        let report = unvouched.probe(key.as_raw());
        assert_eq!(report.findings()[0].outcome(), Err(Obstacle::Tls));
        assert_eq!(report.verdict(), Verdict::Inconclusive);
        assert!(report.to_string().contains("nothing was sent"), "{report}");
    }
    assert!(server.requests().is_empty());

    let both = roots(&format!("{}{}", other.pem, own.pem));
    assert_eq!(both.len(), 2);
    let report = probe.with_roots(both).probe(key.as_raw());
    assert_eq!(report.verdict(), Verdict::Accepted, "{report}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn roots_are_pem_certificates_only() {
    let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
    let refusal = |pem: &str| Roots::from_pem(pem.as_bytes()).unwrap_err();
    assert_eq!(refusal(""), RootsError::NoCertificate);
    assert_eq!(refusal("api.getkanal.com"), RootsError::NoCertificate);
    assert_eq!(refusal(&block("CERTIFICATE REQUEST")), RootsError::NoCertificate);
    assert_eq!(refusal("-----BEGIN CERTIFICATE-----\nMAA="), RootsError::NotPem);
    assert_eq!(refusal(&block("CERTIFICATE").replace("MAA=", "M*A=")), RootsError::NotPem);
    assert_eq!(refusal(&(block("CERTIFICATE") + &block("PRIVATE KEY"))), RootsError::PrivateKey);
    assert_eq!(refusal(&block("CERTIFICATE").repeat(1025)), RootsError::TooMany);
    assert_eq!(Roots::from_pem(block("CERTIFICATE").repeat(1024).as_bytes()).unwrap().len(), 1024);
}
