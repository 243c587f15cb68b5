//! The handle, the layers, and what comes back through them.

use http::Response;
use http_body_util::{BodyExt as _, Full};
use keysheath::client::{
    AnswerBody, BearerError, BearerLayer, BearerService, ClientError, Repeatable, Retry, RetryLayer, Sent,
};
use keysheath::handle::{Generation, KeyHandle, Snapshot};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use super::*;

type Answered = Result<Response<Full<bytes::Bytes>>, std::io::Error>;

/// An issuer that echoes the key wherever it can.
async fn echo(request: Request<()>) -> Answered {
    let key = request.headers()["authorization"].as_bytes()["Bearer ".len()..].to_vec();
    match request.uri().path() {
        "/fails" => Err(std::io::Error::other(String::from_utf8(key).unwrap())),
        path => {
            let status = path[1..].parse::<u16>().unwrap();
            let body = [br#"{ "error": "Invalid API key", "key": ""#, &key[..], br#"" }"#].concat();
            Ok(Response::builder().status(status).body(body.into()).unwrap())
        }
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://api.getkanal.com{path}")).body(()).unwrap()
}

/// What the layers do, as the log shows it.
pub(super) fn send_and_repeat() {
    let bearer = BearerLayer::new(KeyHandle::fixed(kanal()), OriginGuard::new()).layer(service_fn(echo));
    let client = RetryLayer::new(|_| std::future::ready(())).layer(bearer);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for path in ["/200", "/401", "/503", "/fails"] {
        let _ = runtime.block_on(client.clone().oneshot(get(path)));
    }
}

#[tokio::test]
async fn a_handle_and_the_layers_show_nothing() {
    let handle = KeyHandle::fixed(kanal());
    let snapshot: Snapshot<Kanal> = handle.load().unwrap();
    let generation: Generation = snapshot.generation();
    assert_debug_silent("KeyHandle", &handle);
    assert_debug_silent("Snapshot", &snapshot);
    assert_value_silent("Generation", &generation);
    let layer = BearerLayer::new(handle.clone(), OriginGuard::new());
    assert_debug_silent("BearerLayer", &layer);
    let mut client: BearerService<_, Kanal> = layer.layer(service_fn(echo));
    assert_debug_silent("BearerService", &client);

    for status in ["/200", "/401", "/403", "/429", "/500"] {
        let future = client.call(get(status));
        assert_debug_silent("BearerFuture", &future);
        let response = future.await.unwrap();
        // A response's own Debug has its body's and its extensions'.
        assert_debug_silent("a response", &response);
        let sent: Sent = response.body().sent();
        assert_debug_silent("Sent", &sent);
        let mut body: AnswerBody<_> = response.into_body();
        assert_debug_silent("AnswerBody", &body);
        let frame = body.frame().await.unwrap().unwrap();
        // The control: the body does hold the key.
        assert_eq!(traces(&format!("{:?}", frame.data_ref())), ["text"]);
        assert_debug_silent("AnswerBody, read", &body);
    }
    assert_eq!(handle.refused(), Some(generation));
    assert_debug_silent("KeyHandle with a report", &handle);
}

#[tokio::test]
async fn an_error_of_the_client_below_is_not_shown() {
    let handle = KeyHandle::fixed(kanal());
    let mut client = BearerLayer::new(handle, OriginGuard::new()).layer(service_fn(echo));
    let outcome: Result<_, BearerError> = client.call(get("/fails")).await;
    assert_error_silent("BearerError", outcome.as_ref().unwrap_err());
    let Err(BearerError::Inner(failed)) = &outcome else { panic!("the client below fails") };
    let failed: &ClientError = failed;
    assert_error_silent("ClientError", failed);
    let panic = catch_unwind(AssertUnwindSafe(|| drop(outcome.unwrap()))).unwrap_err();
    assert_silent("a panic with it", panic.downcast_ref::<String>().expect("a message with a value"));
    let inner = client.call(get("/fails")).await.unwrap_err().into_inner().unwrap();
    assert_eq!(traces(&inner.to_string()), ["text"], "the client's own error does show it");

    for uri in
        [format!("https://{KANAL}.example/"), format!("https://api.getkanal.com/?{KANAL}"), KANAL.to_owned()]
    {
        let request = Request::get(uri).body(()).unwrap();
        let future = client.call(request);
        assert_debug_silent("BearerFuture", &future);
        assert_error_silent("BearerError of the guard", &future.await.unwrap_err());
    }
}

#[tokio::test]
async fn the_retry_layer_shows_nothing() {
    let layer: RetryLayer<_, ()> = RetryLayer::new(|_| std::future::ready(()));
    assert_debug_silent("RetryLayer", &layer);
    assert_debug_silent("Repeatable", &Repeatable);
    let mut retry: Retry<_, _> = layer.layer(service_fn(echo));
    assert_debug_silent("Retry", &retry);
    let mut request = get("/503");
    request.headers_mut().insert("authorization", BearerHeader::new(&kanal()).value());
    let future = retry.call(request);
    assert_debug_silent("RetryFuture", &future);
    assert_eq!(future.await.unwrap().status(), 503);
}

#[cfg(feature = "reqwest")]
#[test]
fn the_middleware_shows_nothing() {
    use keysheath::client::BearerMiddleware;

    let middleware = BearerMiddleware::new(KeyHandle::fixed(kanal()), OriginGuard::new());
    assert_debug_silent("BearerMiddleware", &middleware);
}
