//! P4, where a client follows redirects, repeats requests or finds a proxy in its environment: the key goes
//! to its issuer's origin only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::answering::{Answering, measured};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keysheath::client::{BearerError, BearerLayer, GuardError, OriginGuard, RetryLayer};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Kanal, Origin};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::follow_redirect::policy::Limited;

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

fn layer(origin: Origin) -> BearerLayer<Kanal> {
    let handle = KeyHandle::fixed(ApiKey::parse(KEY).unwrap());
    BearerLayer::new(handle, OriginGuard::for_loopback(origin).unwrap())
}

/// Hyper's client, which sends plain HTTP to any server: the guard must refuse an https origin.
fn client() -> Client<HttpConnector, Empty<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    Client::builder(TokioExecutor::new()).build(connector)
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

fn redirect(status: u16, location: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\nlocation: {location}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .into()
}

/// Counts the key in everything that was sent to a server.
fn keys(server: &Answering) -> usize {
    server.heads().iter().map(|head| head.matches(KEY).count()).sum()
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_no_key() {
    for status in [301, 302, 303, 307, 308] {
        let other_host = Answering::at("127.0.0.2", |_| measured("200 OK", b""));
        let other_port = Answering::with(measured("200 OK", b""));
        let (host, port) = (other_host.address, other_port.address);
        for location in [
            format!("http://{host}/"),
            format!("http://{port}/"),
            format!("https://{port}/"),
            format!("//{port}/"),
            format!("http://{KEY}@{port}/"),
        ] {
            let target = location.clone();
            let issuer = Answering::at("127.0.0.1", move |_| redirect(status, &target));
            // The standard policy, and one that would pass any header on.
            let standard = FollowRedirectLayer::new();
            let careless = FollowRedirectLayer::with_policy(Limited::default());
            let layer = layer(issuer.origin());
            let answers = [
                standard.layer(layer.layer(client())).oneshot(get(&issuer.uri())).await,
                careless.layer(layer.layer(client())).oneshot(get(&issuer.uri())).await,
            ];
            for answer in answers {
                let error = answer.expect_err("the second hop is refused");
                let elsewhere = GuardError::OtherOrigin { expected: issuer.origin() };
                let expected = if location.contains('@') { GuardError::UserInfo } else { elsewhere };
                assert!(
                    matches!(&error, BearerError::Guard(guard) if *guard == expected),
                    "{status} {location}: {error}"
                );
            }
            assert_eq!((issuer.heads().len(), keys(&issuer)), (2, 2), "{status} {location}");
        }
        assert_eq!(other_host.heads().len() + other_port.heads().len(), 0, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_scheme_of_the_server_carries_no_key() {
    let issuer = Answering::at("127.0.0.1", |head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
        redirect(302, &format!("https://{host}/"))
    });
    let client =
        FollowRedirectLayer::with_policy(Limited::default()).layer(layer(issuer.origin()).layer(client()));
    assert!(matches!(client.oneshot(get(&issuer.uri())).await, Err(BearerError::Guard(_))));
    assert_eq!((issuer.heads().len(), keys(&issuer)), (1, 1));
}

#[tokio::test]
async fn a_redirect_within_the_origin_carries_one_key_in_each_request() {
    let issuer = Answering::at("127.0.0.1", |head| {
        if head.starts_with("GET /api") { redirect(307, "/moved") } else { measured("200 OK", b"") }
    });
    let client = FollowRedirectLayer::new().layer(layer(issuer.origin()).layer(client()));
    assert_eq!(client.oneshot(get(&issuer.uri())).await.unwrap().status(), StatusCode::OK);
    assert_eq!((issuer.heads().len(), keys(&issuer)), (2, 2));
}

/// The control: the servers above would see a key, which is why the docs say where to put the layer.
#[tokio::test]
async fn outside_a_redirect_follower_the_layer_would_leak_the_key() {
    let other = Answering::at("127.0.0.2", |_| measured("200 OK", b""));
    let location = format!("http://{}/", other.address);
    let issuer = Answering::at("127.0.0.1", move |_| redirect(302, &location));
    let follower = FollowRedirectLayer::with_policy(Limited::default()).layer(client());
    layer(issuer.origin()).layer(follower).oneshot(get(&issuer.uri())).await.unwrap();
    assert_eq!(keys(&other), 1);
}

#[tokio::test]
async fn each_attempt_of_a_repeated_request_is_guarded() {
    let other = Answering::at("127.0.0.2", |_| measured("200 OK", b""));
    let issuer = Answering::with(measured("503 Busy", b""));
    let (retry, bearer) =
        (RetryLayer::new(|_| std::future::ready(())).with_attempts(3), layer(issuer.origin()));
    let mut client = ServiceBuilder::new().layer(&retry).layer(&bearer).service(client());
    let answer = client.ready().await.unwrap().call(get(&issuer.uri())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((issuer.heads().len(), keys(&issuer)), (3, 3), "one key in each attempt");

    let error = client.ready().await.unwrap().call(get(&other.uri())).await.err().unwrap();
    assert!(matches!(error, BearerError::Guard(_)), "{error}");
    assert!(other.heads().is_empty());

    // A layer between the two sends the second attempt elsewhere.
    let attempts = Arc::<AtomicU32>::default();
    let (count, target) = (Arc::clone(&attempts), other.uri());
    let astray = move |mut request: Request<Empty<Bytes>>| {
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            *request.uri_mut() = target.parse().unwrap();
        }
        request
    };
    let client =
        ServiceBuilder::new().layer(&retry).map_request(astray).layer(&bearer).service(self::client());
    let error = client.oneshot(get(&issuer.uri())).await.err().unwrap();
    assert!(matches!(error, BearerError::Guard(_)), "{error}");
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
    assert!(other.heads().is_empty());
}
