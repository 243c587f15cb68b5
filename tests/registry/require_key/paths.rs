//! Paths that servers read differently: whichever way a server reads an accepted path, it is for the store
//! that the key was authorized for.

use std::collections::BTreeSet;

use keysheath::registry::RequireKeyLayer;
use proptest::prelude::*;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{request, two_teams};

/// The parts of the paths: words that every server reads alike, and others.
const PLAIN: [&str; 8] = ["stores", "stores", "123", "123", "456", "api", "orders", "a%20b"];
const PIECES: [&str; 58] = [
    "stores",
    "123",
    "456",
    "api",
    "v1",
    "orders",
    "",
    ".",
    "..",
    "...",
    "%2e",
    "%2E%2e",
    ".%2e",
    "%252e%252e",
    "%25252e%25252e",
    "..;",
    "..;x=1",
    ".;",
    ";",
    ";x",
    "123;",
    "123;x",
    "456;v=1",
    "stores;a",
    "a;b",
    "%3b",
    "..%3b",
    "a%3Bb",
    "%2f",
    "%2F..%2f",
    "..%2f456",
    "123%2f..%2f456",
    "%252f",
    "..%252f",
    "\\",
    "..\\",
    "%5c",
    "..%5c456",
    "%255c",
    "%00",
    "..%00",
    "123%00",
    "%c0%ae%c0%ae",
    "%c0%af",
    "..%c0%af456",
    "%e0%80%ae%e0%80%ae",
    "%ef%bc%8f",
    "..%ef%bc%8f456",
    "%ef%bc%8e%ef%bc%8e",
    "%e2%80%a5",
    "STORES",
    "Stores",
    "%73tores",
    "%c5%bftores",
    "stores%20",
    "stores.",
    "..%20",
    "%2",
];

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![2 => prop::sample::select(&PLAIN[..]), 1 => prop::sample::select(&PIECES[..])];
    let rest = prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.join("/"));
    let start = prop::sample::select(&["/", "/api/v1/", "/stores/123/", "/api/v1/stores/123/"][..]);
    (start, rest).prop_map(|(start, rest)| format!("{start}{rest}"))
}

/// Decodes a path once, as carelessly as some servers do: overlong forms and `%u` too.
fn decoded(path: &[u8]) -> Vec<u8> {
    let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let mut bytes = Vec::new();
    let mut rest = path;
    while let [first, more @ ..] = rest {
        if let (b'%', Some(byte)) = (first, more.get(..2).and_then(hex)) {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    let text = |bytes: &[u8], from: &[u8], to: &[u8]| -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if rest.starts_with(from) {
                out.extend_from_slice(to);
                rest = &rest[from.len()..];
            } else {
                out.push(rest[0]);
                rest = &rest[1..];
            }
        }
        out
    };
    for (overlong, plain) in [(&b"\xc0\xae"[..], &b"."[..]), (b"\xc0\xaf", b"/"), (b"\xe0\x80\xae", b".")] {
        bytes = text(&bytes, overlong, plain);
    }
    bytes
}

/// Folds compatibility forms of Unicode, as servers on some systems do.
fn folded(text: &str) -> String {
    text.replace('\u{ff0f}', "/").replace('\u{ff0e}', ".").replace('\u{2025}', "..").replace('\u{17f}', "s")
}

/// Every change that a server may make to a path before it searches the store.
fn changes() -> [fn(&str) -> String; 9] {
    [
        |path| String::from_utf8_lossy(&decoded(path.as_bytes())).into_owned(),
        folded,
        |path| path.replace('\\', "/"),
        // Path parameters are dropped.
        |path| {
            let plain = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
            plain.collect::<Vec<_>>().join("/")
        },
        |path| path.split('\0').next().unwrap_or_default().to_owned(),
        |path| {
            path.split('/').map(|segment| segment.trim_end_matches([' ', '.'])).collect::<Vec<_>>().join("/")
        },
        |path| path.to_lowercase(),
        without_dots,
        |path| {
            format!(
                "/{}",
                path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/")
            )
        },
    ]
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Returns every reading after up to four changes.
fn readings(path: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::from([path.to_owned()]);
    let mut last = all.clone();
    for _ in 0..4 {
        let next: BTreeSet<String> =
            last.iter().flat_map(|path| changes().map(|change| change(path))).collect();
        last = next.difference(&all).cloned().collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// Returns the store that a server with a route `/…/stores/{id}/…` finds.
fn store_in(path: &str) -> Option<String> {
    let mut segments = path.split('/');
    segments.find(|segment| *segment == "stores").and(segments.next()).map(str::to_owned)
}

/// Returns the store in a path as the `url` crate, browsers and many servers read it.
fn store_by_url(path: &str) -> Option<String> {
    store_in(url::Url::parse(&format!("http://127.0.0.1{path}")).ok()?.path())
}

async fn is_let_through<A: keysheath::registry::Authorize>(
    layer: &RequireKeyLayer<A>,
    key: &str,
    path: &str,
) -> bool {
    let Ok(uri) = path.parse() else { return false };
    let ok = service_fn(|_: http::Request<()>| {
        std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Empty::<
            bytes::Bytes,
        >::new())))
    });
    let mut asked = request(Some(key), ());
    *asked.uri_mut() = uri;
    layer.layer(ok).oneshot(asked).await.unwrap().status() == 200
}

#[test]
fn an_accepted_path_means_one_store_to_every_server() {
    let (key, layer) = two_teams();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let let_through = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&paths(), |path| {
            if runtime.block_on(is_let_through(&layer, &key, &path)) {
                let_through.set(let_through.get() + 1);
                let stores: BTreeSet<_> =
                    readings(&path).iter().map(|path| store_in(path)).chain([store_by_url(&path)]).collect();
                prop_assert_eq!(stores, BTreeSet::from([Some("123".to_owned())]), "{}", path);
            }
            Ok(())
        })
        .unwrap();
    assert!(let_through.get() > 20, "{} of the paths were let through", let_through.get());
}

#[tokio::test]
async fn an_axum_router_finds_the_same_store_as_the_layer() {
    use axum::extract::Path;
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt as _;

    let (key, layer) = two_teams();
    let app = Router::new()
        .route(
            "/api/v1/stores/{store_id}/{*rest}",
            get(async |Path((store, _)): Path<(String, String)>| store),
        )
        .route_layer(layer);
    let mut answered = 0;
    for piece in PIECES {
        for path in [format!("/api/v1/stores/123/{piece}"), format!("/api/v1/stores/123/{piece}/456")] {
            let mut asked = request(Some(&key), Body::empty());
            let Ok(uri) = path.parse() else { continue };
            *asked.uri_mut() = uri;
            let response = app.clone().oneshot(asked).await.unwrap();
            if response.status() == 200 {
                let store = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(store, "123", "{path}");
                answered += 1;
            }
        }
    }
    assert!(answered > 10, "{answered}");
}

#[tokio::test]
async fn usual_escapes_are_accepted_and_unusual_ones_refused() {
    let (key, layer) = two_teams();
    for (rest, is_plain) in [
        ("", true),
        ("/", true),
        ("/customers", true),
        ("/customers/", true),
        ("/customers/7.json", true),
        ("/customers/a%40b.example", true),
        ("/customers/%2B33612345678", true),
        ("/customers/+33612345678", true),
        ("/customers/a%20b", true),
        ("/customers/Zo%C3%AB", true),
        ("/customers/%E6%97%A5%E6%9C%AC", true),
        ("/customers/Zoe%CC%88", true),
        ("/customers/%E3%81%8B%E3%82%99", true),
        ("/customers/%E0%A4%B9%E0%A4%BF%E0%A4%A8%E0%A5%8D%E0%A4%A6%E0%A5%80", true),
        ("/customers/%E0%B8%97%E0%B8%B5%E0%B9%88", true),
        ("/a%CC%B8b", false),
        ("/..%CC%88/456", false),
        ("/orders/2026-11-28T12:00:00,1~(x)!*'", true),
        ("/..;/456", false),
        ("/%252e%252e/456", false),
        ("/%c0%ae%c0%ae/456", false),
        ("/a%00b", false),
        ("/a;b", false),
        ("/a%3Bb", false),
        ("/a%0ab", false),
        ("/a%7f", false),
        ("/%ff", false),
        ("/%", false),
        ("/%zz", false),
        ("/%2", false),
        ("/100%25", false),
        ("/a%23b", false),
        ("/a%3Fb", false),
        ("/...", false),
        ("/%20", false),
        ("//orders", false),
        ("/orders//", false),
        ("/%E2%92%88%E2%92%88", false),
        ("/%EF%BC%8F456", false),
        ("/a%C2%85", false),
    ] {
        let path = format!("/api/v1/stores/123{rest}");
        assert_eq!(is_let_through(&layer, &key, &path).await, is_plain, "{path}");
    }
}
