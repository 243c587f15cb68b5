//! The layer that requires a key, around services of every kind. What it answers is in
//! `tests/emulator/contract.rs`.

mod paths;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, Full};
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, StoreId};
use keysheath::registry::{
    Authorize, KeyRegistry, Principal, RefusalBody, RequestedStore, RequireKey, RequireKeyLayer, StaticKeys,
    TeamId,
};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

fn static_keys() -> Arc<StaticKeys> {
    Arc::new(StaticKeys::new(ApiKey::<Kanal>::parse(KEY).unwrap().into_raw()))
}

fn request<B>(key: Option<&str>, body: B) -> Request<B> {
    let mut request = Request::new(body);
    if let Some(key) = key {
        let value = HeaderValue::try_from(format!("Bearer {key}")).unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    request
}

/// A service for one request at a time, which is reserved when it is ready.
#[derive(Clone)]
struct OneAtATime {
    is_ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Service<Request<()>> for OneAtATime {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without having been ready");
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(Empty::new())))
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let calls = Arc::<AtomicUsize>::default();
    let inner = OneAtATime { is_ready: false, calls: Arc::clone(&calls) };
    let mut service = RequireKeyLayer::new(static_keys()).layer(inner);
    for key in [Some(KEY), None, Some(KEY)] {
        let response = service.ready().await.unwrap().call(request(key, ())).await.unwrap();
        assert_eq!(response.status() == StatusCode::OK, key.is_some());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2, "a refused request does not reach the service");
}

#[test]
fn an_unready_or_failed_service_says_so_through_the_layer() {
    struct Never;
    impl Service<Request<()>> for Never {
        type Response = Response<Empty<Bytes>>;
        type Error = &'static str;
        type Future = Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Pending
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            ready(Err("it broke"))
        }
    }
    let mut service = RequireKeyLayer::new(static_keys()).layer(Never);
    let mut context = Context::from_waker(Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut context).is_pending());
    let mut future = Box::pin(service.call(request(Some(KEY), ())));
    assert!(matches!(future.as_mut().poll(&mut context), Poll::Ready(Err("it broke"))));
}

#[tokio::test]
async fn the_principal_in_the_extensions_identifies_the_key() {
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap();
    let store = StoreId::new(123).unwrap();
    registry.put_store(store, TeamId::new(7)).unwrap();
    let new = registry.create_key(TeamId::new(7), "production-shop").unwrap();
    let echo = service_fn(|request: Request<()>| async move {
        let principal = *request.extensions().get::<Principal>().expect("the layer put it there");
        let mut response = Response::new(Empty::<Bytes>::new());
        response.extensions_mut().insert(principal);
        Ok::<_, Infallible>(response)
    });
    let layer = RequireKeyLayer::for_stores(Arc::new(registry));
    let mut asked = request(Some(new.key().expose_secret()), ());
    *asked.uri_mut() = "/api/v1/stores/123/customers".parse().unwrap();
    asked.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
    let response = layer.layer(echo).oneshot(asked).await.unwrap();
    let principal = response.extensions().get::<Principal>().unwrap();
    assert_eq!(principal.key(), Some(new.record().id()));
    assert_eq!(principal.team(), Some(TeamId::new(7)));
    assert_eq!(principal.fingerprint(), new.key().fingerprint());
    assert_eq!(principal.store(), Some(store));
    assert!(principal.is_from_browser() && !principal.is_previous());
}

/// A body of two parts and trailers.
struct Parts(Vec<Frame<Bytes>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(Ok))
    }
}

#[tokio::test]
async fn any_body_goes_through_as_it_is() {
    let layer = RequireKeyLayer::new(static_keys());
    let parts = service_fn(|_: Request<Full<Bytes>>| async {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("7"))]);
        let frames = vec![
            Frame::trailers(trailers),
            Frame::data(Bytes::from_static(b"two")),
            Frame::data(Bytes::from_static(b"one ")),
        ];
        Ok::<_, Infallible>(Response::new(Parts(frames)))
    });
    let asked = request(Some(KEY), Full::new(Bytes::from_static(b"asked")));
    let collected = layer.layer(parts).oneshot(asked).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["etag"], "7");
    assert_eq!(collected.to_bytes(), "one two");

    let full = service_fn(|request: Request<String>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(request.into_body())))
    });
    let response = layer.layer(full).oneshot(request(Some(KEY), "echo".to_owned())).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(4));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "echo");
}

#[tokio::test]
async fn a_refusal_knows_its_length_and_ends() {
    let never = service_fn(|_: Request<()>| -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
        panic!("a refused request reached the service")
    });
    let response = RequireKeyLayer::new(static_keys()).layer(never).oneshot(request(None, ())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let length: u64 = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(length));
    assert!(!response.body().is_end_stream());
    let mut body: RefusalBody<Full<Bytes>> = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame.len() as u64, length);
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test]
async fn katana_is_answered_in_katanas_words() {
    let registry = Arc::new(KeyRegistry::in_memory(Katana::PROFILE).unwrap());
    let ok = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    let layer = RequireKeyLayer::new(registry);
    for key in [None, Some("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")] {
        let response = layer.layer(ok).oneshot(request(key, ())).await.unwrap();
        assert_eq!(response.status(), 401);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}"#);
    }
}

#[tokio::test]
async fn a_custom_rule_names_the_store() {
    for text in ["", "-1", "0", "twelve", "99999999999999999999"] {
        assert_eq!(RequestedStore::from_segment(text), RequestedStore::NotAStore, "{text}");
    }
    assert_eq!(RequestedStore::from_segment("123").store(), StoreId::new(123));
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap();
    registry.put_store(StoreId::new(123).unwrap(), TeamId::new(1)).unwrap();
    let new = registry.create_key(TeamId::new(1), "production-shop").unwrap();
    let layer = RequireKeyLayer::for_stores_by(Arc::new(registry), |request| {
        let header = request.headers.get("x-store").and_then(|value| value.to_str().ok());
        header.map_or(RequestedStore::NotAStore, RequestedStore::from_segment)
    });
    let ok = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    for (store, status) in [(None, 404), (Some("124"), 404), (Some("x"), 404), (Some("123"), 200)] {
        let mut asked = request(Some(new.key().expose_secret()), ());
        if let Some(store) = store {
            asked.headers_mut().insert("x-store", HeaderValue::from_static(store));
        }
        assert_eq!(layer.layer(ok).oneshot(asked).await.unwrap().status(), status, "{store:?}");
    }
}

/// A key of team 1, and a layer that knows store 123 of that team and store 456 of team 2.
fn two_teams() -> (String, RequireKeyLayer<KeyRegistry>) {
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap();
    for (store, team) in [(123, 1), (456, 2)] {
        registry.put_store(StoreId::new(store).unwrap(), TeamId::new(team)).unwrap();
    }
    let new = registry.create_key(TeamId::new(1), "production-shop").unwrap();
    (new.key().expose_secret().to_owned(), RequireKeyLayer::for_stores(Arc::new(registry)))
}

#[tokio::test]
async fn no_spelling_of_a_path_bypasses_its_store() {
    let (key, layer) = two_teams();
    let ok = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    for (path, status) in [
        ("/api/v1/stores/123/orders", 200),
        ("/stores/123", 200),
        ("/api/v1/stores/123/a%20b", 200),
        ("/api/v1/stores/456/orders", 403),
        ("http://127.0.0.1/api/v1/stores/456/orders", 403),
        ("/api/v1/me", 404),
        ("/", 404),
        ("/456/orders", 404),
        ("/api/v1/stores", 404),
        ("/api/v1/stores/", 404),
        ("/api/v1/stores//456", 404),
        ("//stores//456", 404),
        ("/api/v1/Stores/456", 404),
        ("/api/v1/%73tores/456/orders", 404),
        ("/api/v1/stores%2F456", 404),
        ("/api/v1/stores/123%2F..%2F456", 404),
        ("/api/v1/stores;x/456", 404),
        ("/api/v1/stores/456;x", 404),
        ("/api/v1/stores/%34%35%36", 404),
        ("/api/v1/stores/123/../456/orders", 404),
        ("/api/v1/stores/123/./orders", 404),
        ("/api/v1/stores/123/%2e%2E/456/orders", 404),
        ("/api/v1/stores/123/..%5c456", 404),
        ("/api/v1/stores/123/..;/456", 404),
        ("/api/v1/stores/123/%252e%252e/456", 404),
        ("/api/v1/stores/123/%c0%ae%c0%ae/456", 404),
        ("/api/v1/stores/123/%00", 404),
        ("/api/v1/Stores/456/stores/123", 404),
        ("/%73tores/456/stores/123", 404),
        ("/api/v1/stores/123?store=456", 200),
    ] {
        let mut asked = request(Some(&key), ());
        *asked.uri_mut() = path.parse().unwrap();
        assert_eq!(layer.layer(ok).oneshot(asked).await.unwrap().status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_nested_router_that_hides_the_store_lets_no_request_through() {
    use axum::{Router, body::Body, routing::get};

    let (key, layer) = two_teams();
    let inner = |path| Router::new().route(path, get(async || "orders"));
    let around = Router::new().nest("/api/v1/stores/{id}", inner("/orders")).route_layer(layer.clone());
    let into = Router::new().nest("/api/v1/stores/{id}", inner("/orders").route_layer(layer.clone()));
    let deeper = Router::new().nest("/api/v1/stores", inner("/{id}/orders").route_layer(layer));
    for (name, app, own) in [("around", around, 200), ("into", into, 404), ("deeper", deeper, 404)] {
        for (store, status) in [(123, own), (456, if own == 200 { 403 } else { 404 }), (999, 404)] {
            let mut asked = request(Some(&key), Body::empty());
            *asked.uri_mut() = format!("/api/v1/stores/{store}/orders").parse().unwrap();
            assert_eq!(app.clone().oneshot(asked).await.unwrap().status(), status, "{name}, store {store}");
        }
    }
}

#[tokio::test]
async fn printing_the_headers_inside_does_not_show_the_key() {
    let echo = service_fn(|request: Request<()>| {
        let value = &request.headers()[AUTHORIZATION];
        assert!(value.is_sensitive() && !format!("{:?}", request.headers()).contains(&KEY[..4]));
        ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
    });
    let response = RequireKeyLayer::new(static_keys()).layer(echo).oneshot(request(Some(KEY), ())).await;
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn a_key_of_one_store_is_refused_on_routes_without_a_store() {
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap();
    let store = StoreId::new(123).unwrap();
    registry.put_store(store, TeamId::new(1)).unwrap();
    let new = |restriction| {
        let new = match restriction {
            None => registry.create_key(TeamId::new(1), "name"),
            Some(store) => registry.create_key_for_store(TeamId::new(1), "name", store),
        };
        let new = new.unwrap();
        new.key().expose_secret().to_owned()
    };
    let (free, bound) = (new(None), new(Some(store)));
    let registry = Arc::new(registry);
    let echo = service_fn(|request: Request<()>| async move {
        let restriction = request.extensions().get::<Principal>().unwrap().restriction();
        let mut response = Response::new(Empty::<Bytes>::new());
        response.extensions_mut().insert(restriction);
        Ok::<_, Infallible>(response)
    });
    let forbidden = r#"{ "error": "API key does not authorize this store" }"#;
    let by_default = RequireKeyLayer::new(Arc::clone(&registry));
    let response = by_default.layer(echo).oneshot(request(Some(&free), ())).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&None::<StoreId>));
    let response = by_default.layer(echo).oneshot(request(Some(&bound), ())).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="kanal", error="insufficient_scope""#);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), forbidden);
    let when_asked_for = RequireKeyLayer::for_any_key(registry);
    for (key, restriction) in [(&free, None), (&bound, Some(store))] {
        let response = when_asked_for.layer(echo).oneshot(request(Some(key), ())).await.unwrap();
        assert_eq!(response.extensions().get(), Some(&restriction));
    }
}

#[tokio::test]
async fn keys_of_a_type_chosen_at_run_time_fit_the_layer() {
    let ok = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    let registry = KeyRegistry::in_memory(Kanal::PROFILE).unwrap();
    let chosen: [(Arc<dyn Authorize>, u16); 2] = [(static_keys(), 200), (Arc::new(registry), 401)];
    for (keys, status) in chosen {
        let layer = RequireKeyLayer::new(keys).clone();
        let service = layer.layer(ok).clone();
        assert_eq!(service.oneshot(request(Some(KEY), ())).await.unwrap().status(), status);
        assert_eq!(format!("{layer:?}"), "RequireKeyLayer");
    }
}

#[test]
fn the_layer_shows_no_key() {
    let layer = RequireKeyLayer::new(static_keys());
    let service: RequireKey<(), StaticKeys> = layer.layer(());
    let shown = format!("{layer:?} {service:?} {:?}", static_keys());
    assert!(!shown.contains(&KEY[..4]), "{shown}");
    assert!(shown.contains("urdz-nrsd-3rmw-jtz2"), "{shown}");
}
