//! `RetryLayer`: which requests it repeats, on what, when and how often.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Empty;
use keysheath::client::{BearerError, BearerLayer, GuardError, OriginGuard, Repeatable, RetryLayer};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Kanal};
use tower::{Layer, Service, ServiceExt};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

/// How a server treats one attempt.
#[derive(Clone, Copy)]
enum Does {
    Answer(u16),
    AskToWait(u16, &'static str),
    Fail(io::ErrorKind),
}

/// A server with a list of reactions that records the requests. Its clones are not ready.
#[derive(Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Does>>>,
    seen: Arc<Mutex<Vec<Request<String>>>>,
    ready: bool,
}

impl Server {
    fn that(script: impl IntoIterator<Item = Does>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() }
    }

    fn seen(&self) -> Vec<Request<String>> {
        self.seen.lock().unwrap().clone()
    }
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self { script: Arc::clone(&self.script), seen: Arc::clone(&self.seen), ready: false }
    }
}

impl Service<Request<String>> for Server {
    type Response = Response<Empty<bytes::Bytes>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.seen.lock().unwrap().push(request);
        let answer = Response::builder();
        let body = Empty::new();
        ready(match self.script.lock().unwrap().pop_front().expect("no further attempt") {
            Does::Answer(status) => Ok(answer.status(status).body(body).unwrap()),
            Does::AskToWait(status, wait) => {
                Ok(answer.status(status).header("retry-after", wait).body(body).unwrap())
            }
            Does::Fail(kind) => Err(kind.into()),
        })
    }
}

/// A clock that records the waits.
#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Vec<Duration>>>);

impl Clock {
    fn sleep(&self) -> impl Fn(Duration) -> Ready<()> + Clone + use<> {
        let waits = Arc::clone(&self.0);
        move |wait| {
            waits.lock().unwrap().push(wait);
            ready(())
        }
    }

    fn waits(&self) -> Vec<Duration> {
        self.0.lock().unwrap().clone()
    }
}

fn request(method: Method) -> Request<String> {
    Request::builder().method(method).uri("https://api.getkanal.com/x?y=z").body("body".to_owned()).unwrap()
}

/// Sends one request, and returns the last status, the attempts and the waits.
async fn send(request: Request<String>, script: &[Does]) -> (u16, usize, Vec<Duration>) {
    let (server, clock) = (Server::that(script.iter().copied()), Clock::default());
    let answer = RetryLayer::new(clock.sleep()).layer(server.clone()).oneshot(request).await.unwrap();
    (answer.status().as_u16(), server.seen().len(), clock.waits())
}

#[tokio::test]
async fn an_answer_that_is_not_temporary_is_returned_at_once() {
    for status in [200, 201, 301, 400, 401, 403, 404, 407, 408, 409, 422, 500, 501] {
        for does in [Does::Answer(status), Does::AskToWait(status, "1")] {
            assert_eq!(send(request(Method::GET), &[does]).await, (status, 1, vec![]));
        }
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_is_sent_once() {
    let methods =
        [Method::POST, Method::PATCH, Method::CONNECT, Method::TRACE, Method::from_bytes(b"COPY").unwrap()];
    for method in methods {
        assert_eq!(send(request(method.clone()), &[Does::Answer(503)]).await, (503, 1, vec![]));
        let mut marked = request(method);
        marked.extensions_mut().insert(Repeatable);
        let (status, attempts, _) = send(marked, &[Does::Answer(503), Does::Answer(200)]).await;
        assert_eq!((status, attempts), (200, 2));
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        let (status, attempts, _) = send(request(method), &[Does::Answer(503), Does::Answer(200)]).await;
        assert_eq!((status, attempts), (200, 2));
    }
}

#[tokio::test]
async fn a_request_that_already_carries_a_key_is_sent_once() {
    let mut with_key = request(Method::GET);
    with_key.headers_mut().insert("authorization", format!("Bearer {KEY}").parse().unwrap());
    assert_eq!(send(with_key.clone(), &[Does::Answer(503)]).await, (503, 1, vec![]));
    with_key.extensions_mut().insert(Repeatable);
    assert_eq!(send(with_key, &[Does::AskToWait(429, "1")]).await, (429, 1, vec![]));
}

#[tokio::test]
async fn the_attempts_are_bounded_and_the_last_answer_is_returned() {
    for passing in [429, 502, 503, 504] {
        let script = [Does::Answer(passing), Does::Answer(503), Does::Answer(passing)];
        let (status, attempts, waits) = send(request(Method::GET), &script).await;
        assert_eq!((status, attempts, waits.len()), (passing, 3, 2));
    }
    for (bound, expected) in [(0, 1), (1, 1), (2, 2), (7, 7)] {
        let (server, clock) = (Server::that([Does::Answer(503); 7]), Clock::default());
        let layer = RetryLayer::new(clock.sleep()).with_attempts(bound);
        layer.layer(server.clone()).oneshot(request(Method::GET)).await.unwrap();
        assert_eq!((server.seen().len(), clock.waits().len()), (expected, expected - 1));
    }
}

#[tokio::test]
async fn it_waits_as_long_as_retry_after_says() {
    for status in [429, 503] {
        let script = [Does::AskToWait(status, "7"), Does::AskToWait(status, "60"), Does::Answer(200)];
        let waits = vec![Duration::from_secs(7), Duration::from_secs(60)];
        assert_eq!(send(request(Method::GET), &script).await, (200, 3, waits));
    }
}

#[tokio::test]
async fn an_answer_that_asks_for_too_long_a_wait_is_returned() {
    for wait in ["61", "4294967295"] {
        assert_eq!(send(request(Method::GET), &[Does::AskToWait(429, wait)]).await, (429, 1, vec![]));
    }
    let (server, clock) =
        (Server::that([Does::AskToWait(503, "3"), Does::AskToWait(503, "4")]), Clock::default());
    let layer = RetryLayer::new(clock.sleep()).with_longest_wait(Duration::from_secs(3));
    let answer = layer.layer(server.clone()).oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "4");
    assert_eq!(clock.waits(), [Duration::from_secs(3)]);
}

/// Returns whether each wait is between half and all of the expected one, in milliseconds.
fn assert_backs_off(waits: &[Duration], expected: &[u64]) {
    assert_eq!(waits.len(), expected.len(), "{waits:?}");
    for (wait, &whole) in waits.iter().zip(expected) {
        let whole = Duration::from_millis(whole);
        assert!((whole / 2..=whole).contains(wait), "{wait:?} is not about {whole:?}");
    }
}

#[tokio::test]
async fn without_a_retry_after_in_seconds_it_backs_off() {
    for unreadable in ["0", "", "-1", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999"] {
        let script = [Does::AskToWait(503, unreadable), Does::Answer(502), Does::Answer(200)];
        let (status, attempts, waits) = send(request(Method::GET), &script).await;
        assert_eq!((status, attempts), (200, 3), "{unreadable}");
        assert_backs_off(&waits, &[500, 1000]);
    }
}

#[tokio::test]
async fn the_wait_doubles_up_to_the_longest_and_varies() {
    let mut first = Vec::new();
    for _ in 0..20 {
        let (server, clock) = (Server::that([Does::Answer(503); 40]), Clock::default());
        let layer = RetryLayer::new(clock.sleep())
            .with_attempts(40)
            .with_first_wait(Duration::from_millis(100))
            .with_longest_wait(Duration::from_secs(1));
        layer.layer(server).oneshot(request(Method::GET)).await.unwrap();
        let mut expected = vec![100, 200, 400, 800];
        expected.resize(39, 1000);
        assert_backs_off(&clock.waits(), &expected);
        first.push(clock.waits()[0]);
    }
    first.sort();
    first.dedup();
    assert!(first.len() > 10, "clients that failed together would retry together: {first:?}");
}

#[tokio::test]
async fn an_error_is_retried_only_if_the_caller_says_it_is_temporary() {
    let script = || {
        let refused = Does::Fail(io::ErrorKind::ConnectionRefused);
        Server::that([refused, Does::Answer(503), Does::Fail(io::ErrorKind::InvalidData), Does::Answer(200)])
    };
    let (server, clock) = (script(), Clock::default());
    RetryLayer::new(clock.sleep()).layer(server.clone()).oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(server.seen().len(), 1);

    let (server, passing) = (script(), |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused);
    let layer = RetryLayer::new(clock.sleep()).with_attempts(9).with_temporary_errors(passing);
    let error = layer.layer(server.clone()).oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(server.seen().len(), 3);
    assert_backs_off(&clock.waits(), &[500, 1000]);

    let (server, clock) = (script(), Clock::default());
    let post = layer.layer(server.clone()).oneshot(request(Method::POST)).await;
    assert!(post.is_err() && server.seen().len() == 1 && clock.waits().is_empty());
}

#[tokio::test]
async fn every_attempt_is_the_same_request() {
    let server = Server::that([Does::Answer(503), Does::Answer(503), Does::Answer(200)]);
    let mut sent = request(Method::PUT);
    sent.headers_mut().insert("x-shop", "1".parse().unwrap());
    sent.extensions_mut().insert(17_u8);
    *sent.version_mut() = http::Version::HTTP_10;
    let clock = Clock::default();
    RetryLayer::new(clock.sleep()).layer(server.clone()).oneshot(sent.clone()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for seen in seen {
        assert_eq!((seen.method(), seen.uri(), seen.version()), (sent.method(), sent.uri(), sent.version()));
        assert_eq!((seen.headers(), seen.body()), (sent.headers(), sent.body()));
        assert_eq!(seen.extensions().get::<u8>(), Some(&17));
    }
}

#[tokio::test]
async fn each_attempt_gets_its_key_from_the_layer_inside() {
    let server = Server::that([Does::Answer(503), Does::AskToWait(429, "2"), Does::Answer(200)]);
    let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse(KEY).unwrap());
    let clock = Clock::default();
    let retry = RetryLayer::new(clock.sleep());
    let bearer = BearerLayer::new(handle, OriginGuard::new());
    let mut client = retry.layer(bearer.layer(server.clone()));
    client.ready().await.unwrap().call(request(Method::GET)).await.unwrap();
    assert_eq!((server.seen().len(), clock.waits().len()), (3, 2));
    for seen in server.seen() {
        let values: Vec<_> = seen.headers().get_all("authorization").iter().collect();
        assert_eq!(values.len(), 1);
        assert!(values[0].is_sensitive() && values[0].as_bytes().ends_with(KEY.as_bytes()));
    }
    // Its refusals are not temporary errors.
    let elsewhere = Request::get("https://evil.example/").body(String::new()).unwrap();
    let error = client.ready().await.unwrap().call(elsewhere).await.unwrap_err();
    assert!(matches!(error, BearerError::Guard(GuardError::OtherOrigin { .. })));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn tokios_clock_will_do() {
    let server = Server::that([Does::Answer(503), Does::Answer(200)]);
    let layer = RetryLayer::new(tokio::time::sleep).with_first_wait(Duration::from_millis(2));
    let answer = tokio::spawn(layer.layer(server).oneshot(request(Method::GET))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}
