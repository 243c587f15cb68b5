//! P4, for what the crate sends itself: a probe sends a key to its issuer's origin and nowhere else, not
//! after a redirect, and not through a proxy of the environment.

use crate::support::Child;
use crate::support::recorder::{Recorder, write_answer};
use keysheath::client::OriginGuard;
use keysheath::failure::Obstacle;
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, Origin, RawKey, StoreId};
use keysheath::probe::{HttpProbe, Probe, Verdict};

fn guard<I: Issuer>(server: &Recorder) -> OriginGuard<I> {
    OriginGuard::for_loopback(Origin::parse(&format!("http://{}", server.address)).unwrap()).unwrap()
}

fn kanal_probe() -> HttpProbe<Kanal> {
    HttpProbe::by_customer_upsert(StoreId::new(7).unwrap(), StoreId::new(8))
}

fn kanal_key() -> RawKey {
    ApiKey::<Kanal>::parse(crate::support::KEY).unwrap().into_raw()
}

fn katana_key() -> RawKey {
    ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap().into_raw()
}

#[test]
fn a_key_of_another_issuer_is_not_sent_at_all() {
    let server = Recorder::plain("200 OK");
    // Its text is a valid Katana key.
    let report = HttpProbe::by_product_list().with_guard(guard(&server)).probe(&kanal_key());
    let other = Obstacle::OtherIssuer { key: "kanal", asked: "katana" };
    assert_eq!((report.findings()[0].outcome(), report.verdict()), (Err(other), Verdict::Inconclusive));
    let report = kanal_probe().with_guard(guard(&server)).probe(&katana_key());
    let other = Obstacle::OtherIssuer { key: "katana", asked: "kanal" };
    assert_eq!(report.findings().len(), 2);
    assert!(report.findings().iter().all(|finding| finding.outcome() == Err(other)));
    assert_eq!(report.verdict(), Verdict::Inconclusive);
    assert!(report.to_string().contains("use a probe for katana"), "{report}");
    assert!(server.requests().is_empty());
}

#[test]
fn the_key_is_in_one_header_and_nowhere_else() {
    let server = Recorder::plain("204 No Content");
    assert_eq!(kanal_probe().with_guard(guard(&server)).probe(&kanal_key()).verdict(), Verdict::Accepted);
    assert_eq!(
        HttpProbe::by_product_list().with_guard(guard(&server)).probe(&katana_key()).verdict(),
        Verdict::Accepted
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        let authorization = request.header("authorization");
        assert_eq!(authorization.len(), 1);
        let key = authorization[0].strip_prefix("Bearer ").unwrap();
        assert_eq!(request.head.matches(key).count(), 1);
        assert!(!request.body.contains(key) && !request.line().contains(key));
    }
}

#[test]
fn a_key_that_would_be_in_the_path_is_not_sent() {
    let server = Recorder::plain("200 OK");
    let key = ApiKey::<Kanal>::parse("api/v1/stores/7/customer").unwrap().into_raw();
    let report = kanal_probe().with_guard(guard(&server)).probe(&key);
    assert_eq!(report.findings()[0].outcome(), Err(Obstacle::Guarded));
    assert_eq!(server.requests().len(), 1, "the other store's path does not hold it");
}

#[test]
fn a_redirect_takes_the_key_nowhere() {
    let other = Recorder::plain("200 OK");
    let (host, port) = ("127.0.0.1", other.address.port());
    for location in [
        format!("http://{host}:{port}/"),
        format!("http://127.0.0.2:{port}/"),
        format!("https://{host}:{port}/"),
        format!("http://localhost:{port}/"),
        format!("//{host}:{port}/"),
        "/elsewhere".to_owned(),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let location = location.clone();
            let server = Recorder::raw(move |_, stream| {
                write_answer(stream, &format!("{status} Moved\r\nlocation: {location}"), "")
            });
            for report in [
                kanal_probe().with_guard(guard(&server)).probe(&kanal_key()),
                HttpProbe::by_product_list().with_guard(guard(&server)).probe(&katana_key()),
            ] {
                assert_eq!(report.findings()[0].outcome(), Err(Obstacle::Redirect { status }));
                assert_eq!(report.verdict(), Verdict::Inconclusive);
            }
            assert_eq!(server.requests().len(), 3, "not followed on the same server either");
        }
    }
    assert!(other.requests().is_empty());
}

#[test]
fn a_proxy_that_was_not_set_sees_nothing() {
    const NAME: &str = "a_proxy_that_was_not_set_sees_nothing";
    let proxy = Recorder::plain("200 OK");
    let url = format!("http://{}", proxy.address);
    let mut child = Child::new(NAME);
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child = child.var(variable, &url);
    }
    let ran = child.without("no_proxy").without("NO_PROXY").run(|| {
        let server = Recorder::plain("204 No Content");
        assert_eq!(kanal_probe().with_guard(guard(&server)).probe(&kanal_key()).verdict(), Verdict::Accepted);
        assert_eq!(
            HttpProbe::by_product_list().with_guard(guard(&server)).probe(&katana_key()).verdict(),
            Verdict::Accepted
        );
        assert_eq!(server.requests().len(), 3);
        // Over TLS a proxy would see a CONNECT.
        let tls = Origin::parse(&format!("https://{}", server.address)).unwrap();
        let report = HttpProbe::by_product_list()
            .with_guard(OriginGuard::for_loopback(tls).unwrap())
            .probe(&katana_key());
        assert_eq!(report.verdict(), Verdict::Inconclusive);
        // The control: by default, a client uses the proxy, which answers nothing.
        let _ = ureq::get(format!("http://{}/control", server.address)).call();
        assert_eq!(server.requests().len(), 3);
    });
    if ran.is_some() {
        let lines: Vec<_> = proxy.requests().iter().map(|request| request.line().to_owned()).collect();
        // Only the control's request.
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("CONNECT ") || lines[0].ends_with("/control"), "{lines:?}");
        assert!(!proxy.heads()[0].to_ascii_lowercase().contains("authorization"));
    }
}
