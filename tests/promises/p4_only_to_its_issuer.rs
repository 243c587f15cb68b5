//! P4: a key goes only to its issuer's origin, over TLS (IP-literal loopback excepted), in one
//! `Authorization` header; never to another host or port, after a redirect, through a proxy that was not set,
//! or in a URL.

use std::time::Duration;

use crate::support::recorder::Recorder;
use crate::support::tls::OwnCertificate;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Uri};
use keysheath::client::{BearerHeader, GuardError, OriginGuard, OverrideError};
use keysheath::key::{ApiKey, Kanal, Katana, Origin};
use proptest::prelude::*;

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

fn header() -> BearerHeader<Kanal> {
    BearerHeader::new(&ApiKey::parse(KEY).unwrap())
}

fn request(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

fn refusal(request: &mut Request<()>) -> GuardError {
    let before = request.headers().clone();
    let error = OriginGuard::new().authorize(request, &header()).unwrap_err();
    assert_eq!(request.headers(), &before, "a refused request is unchanged");
    assert!(!format!("{error} {error:?}").contains("8fK2"), "{error}");
    error
}

fn elsewhere() -> GuardError {
    GuardError::OtherOrigin { expected: Origin::https("api.getkanal.com") }
}

#[test]
fn the_issuers_origin_gets_the_key_in_one_sensitive_header() {
    for uri in [
        "https://api.getkanal.com/api/v1/stores/1/customers",
        "https://api.getkanal.com:443/",
        "https://API.GetKanal.com/?a=b",
        "HTTPS://api.getkanal.com",
    ] {
        let mut request = request(uri);
        OriginGuard::new().authorize(&mut request, &header()).unwrap();
        let values: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
        assert_eq!(values, [&HeaderValue::from_static("Bearer 8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")], "{uri}");
        assert!(values[0].is_sensitive());
        assert_eq!(request.headers().len(), 1, "nothing else was added");
    }
}

#[test]
fn every_other_origin_is_refused() {
    for uri in [
        "http://api.getkanal.com/",
        "http://api.getkanal.com:443/",
        "https://api.getkanal.com:8443/",
        "https://api.getkanal.com:80/",
        "https://api.getkanal.com./",
        "https://getkanal.com/",
        "https://evil.api.getkanal.com/",
        "https://api.getkanal.com.evil.example/",
        "https://api-getkanal.com/",
        "https://api.katanamrp.com/",
        "https://127.0.0.1/",
        "http://127.0.0.1:8080/",
        "ftp://api.getkanal.com/",
        "wss://api.getkanal.com/",
    ] {
        assert_eq!(refusal(&mut request(uri)), elsewhere(), "{uri}");
    }
    for uri in [
        "https://user@api.getkanal.com/",
        "https://api.getkanal.com:443@evil.example/",
        "https://a:b@api.getkanal.com/",
    ] {
        assert_eq!(refusal(&mut request(uri)), GuardError::UserInfo, "{uri}");
    }
}

#[test]
fn a_uri_without_an_origin_is_refused() {
    let expected = Origin::https("api.getkanal.com");
    for uri in ["/api/v1/stores/1/customers", "*", "api.getkanal.com:443"] {
        let error = refusal(&mut request(uri));
        assert_eq!(error, GuardError::NotAbsolute { expected: expected.clone() }, "{uri}");
        assert!(error.to_string().contains("https://api.getkanal.com"));
    }
    let mut host_only = request("/api/v1/stores/1/customers");
    host_only.headers_mut().insert(HOST, HeaderValue::from_static("api.getkanal.com"));
    assert_eq!(refusal(&mut host_only), GuardError::NotAbsolute { expected });
}

#[test]
fn a_host_header_that_disagrees_is_refused() {
    let with_host = |host: &[u8]| {
        let mut request = request("https://api.getkanal.com/");
        request.headers_mut().insert(HOST, HeaderValue::from_bytes(host).unwrap());
        request
    };
    for host in
        ["evil.example", "api.getkanal.com:8443", "api.getkanal.com.", "user@api.getkanal.com", "", " "]
    {
        assert_eq!(refusal(&mut with_host(host.as_bytes())), GuardError::OtherHost, "{host}");
    }
    assert_eq!(refusal(&mut with_host(b"\xff")), GuardError::OtherHost);
    for host in ["api.getkanal.com", "api.getkanal.com:443", "API.GETKANAL.COM"] {
        OriginGuard::new().authorize(&mut with_host(host.as_bytes()), &header()).unwrap();
    }
    let mut two = with_host(b"api.getkanal.com");
    two.headers_mut().append(HOST, HeaderValue::from_static("api.getkanal.com"));
    assert_eq!(refusal(&mut two), GuardError::OtherHost);
}

#[test]
fn a_request_carries_the_key_once() {
    let mut request = request("https://api.getkanal.com/");
    OriginGuard::new().authorize(&mut request, &header()).unwrap();
    assert_eq!(refusal(&mut request), GuardError::AlreadyAuthorized);
    let mut basic = self::request("https://api.getkanal.com/");
    basic.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
    assert_eq!(refusal(&mut basic), GuardError::AlreadyAuthorized);
}

#[test]
fn a_key_in_the_url_is_refused_in_every_spelling() {
    let spelled = KEY.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    let lower = spelled.to_ascii_lowercase();
    for uri in [
        format!("https://api.getkanal.com/?access_token={KEY}"),
        format!("https://api.getkanal.com/{KEY}/orders"),
        format!("https://api.getkanal.com/?k={spelled}"),
        format!("https://api.getkanal.com/?k={lower}&x=%"),
        format!("https://api.getkanal.com/?k=%38{}", &KEY[1..]),
    ] {
        assert_eq!(refusal(&mut request(&uri)), GuardError::KeyInUri);
    }
    let almost = format!("https://api.getkanal.com/?k={}", &KEY[..23]);
    OriginGuard::new().authorize(&mut request(&almost), &header()).unwrap();
}

#[test]
fn another_origin_is_named_explicitly_and_loopback_or_https() {
    let parse = |text: &str| Origin::parse(text).unwrap();
    for text in
        ["http://localhost:8080", "http://10.0.0.1", "https://gateway.example", "http://[::ffff:127.0.0.1]"]
    {
        assert_eq!(OriginGuard::<Kanal>::for_loopback(parse(text)).unwrap_err(), OverrideError::NotLoopback);
    }
    for text in ["http://127.0.0.1:8080", "https://127.1.2.3", "http://[::1]:1"] {
        let guard = OriginGuard::<Kanal>::for_loopback(parse(text)).unwrap();
        guard.authorize(&mut request(&format!("{text}/path")), &header()).unwrap();
        let back = guard.authorize(&mut request("https://api.getkanal.com/"), &header()).unwrap_err();
        assert_eq!(back, GuardError::OtherOrigin { expected: parse(text) });
    }
    let plain = parse("http://gateway.example");
    assert_eq!(OriginGuard::<Kanal>::for_https(plain).unwrap_err(), OverrideError::NotHttps);
    let guard = OriginGuard::<Kanal>::for_https(parse("https://gateway.example")).unwrap();
    guard.authorize(&mut request("https://gateway.example/x"), &header()).unwrap();
    assert!(guard.authorize(&mut request("http://gateway.example/x"), &header()).is_err());
}

#[test]
fn no_guard_lets_a_key_go_to_another_issuer() {
    let katana = OverrideError::OtherIssuer { issuer: "Katana" };
    for text in [
        "https://api.katanamrp.com",
        "https://api.katanamrp.com:8443",
        "https://login.katanamrp.com",
        "https://katanamrp.com",
    ] {
        let error = OriginGuard::<Kanal>::for_https(Origin::parse(text).unwrap()).unwrap_err();
        assert_eq!(error, katana, "{text}");
        assert!(OriginGuard::<Katana>::for_https(Origin::parse(text).unwrap()).is_ok(), "{text}");
    }
    assert!(katana.to_string().contains("use the key of Katana there"));
    let kanal = Origin::https("api.getkanal.com");
    let error = OriginGuard::<Katana>::for_https(kanal).unwrap_err();
    assert_eq!(error, OverrideError::OtherIssuer { issuer: "Kanal" });
    for text in ["https://staging.getkanal.com", "https://notkatanamrp.com", "https://katanamrp.com.example"]
    {
        assert!(OriginGuard::<Kanal>::for_https(Origin::parse(text).unwrap()).is_ok(), "{text}");
    }
}

#[test]
fn every_header_shares_one_memory() {
    let header = header();
    let (first, second) = (header.value(), header.clone().value());
    assert_eq!(first.as_bytes().as_ptr(), second.as_bytes().as_ptr());
    assert!(first.is_sensitive() && second.is_sensitive());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The guard agrees with a comparison of scheme, host and port one by one.
    #[test]
    fn a_request_gets_the_key_only_at_the_guards_exact_origin(
        guard_scheme in prop::sample::select(vec!["https", "http"]),
        scheme in prop::sample::select(vec!["https", "http", "HTTPS", "ws"]),
        guard_host in prop::sample::select(vec!["127.0.0.1", "[::1]", "127.0.0.2"]),
        host in prop::sample::select(vec![
            "127.0.0.1", "[::1]", "127.0.0.2", "localhost", "127.0.0.1.", "0.0.0.0",
        ]),
        guard_port in prop::sample::select(vec![80_u16, 443, 8080]),
        port in prop::sample::select(vec![None, Some(80_u16), Some(443), Some(8080), Some(65535)]),
        path in "(/[a-z0-9@:.]{0,12}){0,3}(\\?[a-z=&@:/]{0,12})?",
    ) {
        let origin = Origin::parse(&format!("{guard_scheme}://{guard_host}:{guard_port}")).unwrap();
        let guard = OriginGuard::<Kanal>::for_loopback(origin.clone()).unwrap();
        let authority = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = if path.starts_with('?') || path.is_empty() { format!("/{path}") } else { path };
        let Ok(uri) = format!("{scheme}://{authority}{path}").parse::<Uri>() else { return Ok(()) };
        let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
        let same = scheme.eq_ignore_ascii_case(guard_scheme)
            && host == guard_host
            && port.unwrap_or(default) == guard_port;
        let mut request = Request::get(uri).body(()).unwrap();
        let outcome = guard.authorize(&mut request, &header());
        prop_assert_eq!(outcome.is_ok(), same);
        prop_assert_eq!(request.headers().contains_key(AUTHORIZATION), same);
    }
}

/// A client as the docs require it: no proxy, no redirects.
fn agent(roots: Option<ureq::tls::RootCerts>) -> ureq::Agent {
    let mut tls = ureq::tls::TlsConfig::builder();
    if let Some(roots) = roots {
        tls = tls.root_certs(roots);
    }
    ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .tls_config(tls.build())
        .build()
        .into()
}

fn authorization_lines(head: &str) -> Vec<&str> {
    head.lines().filter(|line| line.to_ascii_lowercase().starts_with("authorization:")).collect()
}

#[test]
fn over_tls_the_server_sees_the_key_in_one_header_only() {
    let own = OwnCertificate::new();
    let server = Recorder::start("204 No Content", own.accept());
    let origin = Origin::parse(&format!("https://localhost:{}", server.address.port())).unwrap();
    let guard = OriginGuard::for_https(origin.clone()).unwrap();
    let authorized = || {
        let mut request = request(&format!("{origin}/api/v1/stores/1/orders"));
        guard.authorize(&mut request, &header()).unwrap();
        request
    };

    // A server with an untrusted certificate never sees the request.
    assert!(agent(None).run(authorized()).is_err());
    assert!(server.heads().is_empty());

    let trusted = ureq::tls::Certificate::from_pem(own.pem.as_bytes()).unwrap();
    let roots = ureq::tls::RootCerts::new_with_certs(&[trusted]);
    assert_eq!(agent(Some(roots)).run(authorized()).unwrap().status(), 204);
    let heads = server.heads();
    assert_eq!(heads.len(), 1);
    assert_eq!(authorization_lines(&heads[0]).len(), 1, "{}", heads[0]);
    assert!(authorization_lines(&heads[0])[0].ends_with(&format!("Bearer {KEY}")));
    assert_eq!(heads[0].matches(KEY).count(), 1, "the key is nowhere else");
}

#[test]
fn a_redirect_to_another_origin_does_not_carry_the_key() {
    let other = Recorder::plain("200 OK");
    let target = format!("http://{}/api", other.address);
    let server = Recorder::plain(&format!("302 Found\r\nlocation: {target}"));
    let origin = Origin::parse(&format!("http://{}", server.address)).unwrap();
    let guard = OriginGuard::for_loopback(origin.clone()).unwrap();
    let mut first = request(&format!("{origin}/api"));
    guard.authorize(&mut first, &header()).unwrap();

    let response = agent(None).run(first).unwrap();
    assert_eq!(response.status(), 302);
    let location = response.headers()["location"].to_str().unwrap();
    let mut second = request(location);
    let refused = guard.authorize(&mut second, &header()).unwrap_err();
    assert_eq!(refused, GuardError::OtherOrigin { expected: origin });
    // A client that follows redirects itself sends the refused request without the key.
    assert_eq!(agent(None).run(second).unwrap().status(), 200);

    assert_eq!(authorization_lines(&server.heads()[0]).len(), 1);
    assert_eq!(other.heads().len(), 1);
    assert!(!other.heads()[0].contains(KEY), "{}", other.heads()[0]);
}
