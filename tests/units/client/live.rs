//! The layer on a live handle, step by step: the test is the server, and decides what happens between any two
//! steps of a request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::oneshot;
use tower::Layer as _;
use tower_service::Service;

use super::{AnswerBody, BearerError, BearerLayer, BearerService, GuardError, OriginGuard, Repeatable};
use crate::handle::{Generation, KeyHandle, NoActiveKey, Publication, Publisher, Reload};
use crate::key::{Issuer as _, Kanal, RawKey};

const GRACE: Duration = Duration::from_secs(600);

const KEYS: [&str; 3] = ["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "Zs1T6cN3bV7dL4qW9Xp2Kf8A", "Qw3Er5Ty7Ui9Op1As2Df4Gh6"];
const REFUSED: &str = r#"{ "error": "Invalid API key" }"#;

type Plain = Response<Full<Bytes>>;
type Outcome = Result<Response<AnswerBody<Full<Bytes>>>, BearerError>;
type Asking = Pin<Box<<BearerService<Stage, Kanal> as Service<Request<Counted>>>::Future>>;

/// A client whose answers the test gives. It must be polled for readiness before each call; so must each
/// clone.
struct Stage {
    seen: Arc<Mutex<Seen>>,
    ready: bool,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    readiness: Readiness,
    clones: u32,
}

#[derive(Clone, Copy, Default)]
enum Readiness {
    #[default]
    Now,
    Later,
    Never,
}

/// A request that waits for its answer.
struct Call {
    request: Request<Counted>,
    answer: Option<oneshot::Sender<Result<Plain, io::Error>>>,
}

/// A body that counts its clones.
struct Counted(Arc<Mutex<Seen>>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.lock().unwrap().clones += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Clone for Stage {
    fn clone(&self) -> Self {
        self.seen.lock().unwrap().clones += 1;
        Self { seen: Arc::clone(&self.seen), ready: false }
    }
}

impl Service<Request<Counted>> for Stage {
    type Response = Plain;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Plain, io::Error>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        match self.seen.lock().unwrap().readiness {
            Readiness::Now => self.ready = true,
            Readiness::Later => return Poll::Pending,
            Readiness::Never => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Counted>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        let (answer, answered) = oneshot::channel();
        self.seen.lock().unwrap().calls.push(Call { request, answer: Some(answer) });
        Box::pin(async { answered.await.expect("the test answers") })
    }
}

/// A handle with an active key that the test reloads, and a client.
struct Scene {
    handle: KeyHandle<Kanal>,
    raw: Publisher<Kanal>,
    reloader: crate::handle::Reloader,
    seen: Arc<Mutex<Seen>>,
    client: BearerService<Stage, Kanal>,
}

impl Scene {
    fn new() -> Self {
        let raw = Publisher::new();
        let handle = raw.handle();
        raw.publish_next(&key(0), GRACE);
        let reloader = raw.reloader();
        let seen = Arc::<Mutex<Seen>>::default();
        let client = layered(&handle, &seen);
        Self { handle, raw, reloader, seen, client }
    }

    /// Sends a request.
    fn send(&mut self, request: Request<Counted>) -> Asking {
        send(&mut self.client, request)
    }

    /// Sends a request whose key is refused, and polls it once more.
    fn send_and_refuse(&mut self) -> Asking {
        let mut asking = self.send(self.get());
        self.refuse(self.calls() - 1);
        assert!(poll(&mut asking).is_none());
        asking
    }

    fn get(&self) -> Request<Counted> {
        request(Method::GET, "", &self.seen)
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().calls.len()
    }

    fn answer(&self, call: usize, answer: Result<Plain, io::Error>) {
        let waits = self.seen.lock().unwrap().calls[call].answer.take().expect("it is answered once");
        assert!(waits.send(answer).is_ok(), "the request was dropped");
    }

    fn refuse(&self, call: usize) {
        self.answer(call, Ok(Response::builder().status(401).body(REFUSED.into()).unwrap()));
    }

    fn accept(&self, call: usize) {
        self.answer(call, Ok(Response::new(Full::default())));
    }

    /// Returns whether the one `Authorization` header of a call had this key.
    fn has_key(&self, call: usize, key: usize) -> bool {
        let calls = &self.seen.lock().unwrap().calls;
        let values: Vec<_> = calls[call].request.headers().get_all(AUTHORIZATION).iter().collect();
        assert_eq!(values.len(), 1);
        values[0].as_bytes().ends_with(KEYS[key].as_bytes())
    }

    fn set(&self, readiness: Readiness) {
        self.seen.lock().unwrap().readiness = readiness;
    }

    /// Performs the requested reload, which makes the second key active.
    fn reload(&self) {
        let attempt = self.reloader.begin();
        self.raw.publish_next(&key(1), GRACE);
        self.reloader.end(attempt, Reload::Newer);
    }

    fn publish(&self, number: u64, current: Result<&RawKey, NoActiveKey>) {
        let keys =
            Publication { generation: Some(generation(number)), lineage: None, current, previous: None };
        self.raw.publish(&keys);
    }
}

fn generation(number: u64) -> Generation {
    Generation::numbered(number).expect("from 1")
}

fn key(number: usize) -> RawKey {
    RawKey::parse(Kanal::PROFILE, KEYS[number].as_bytes()).unwrap()
}

fn layered(handle: &KeyHandle<Kanal>, seen: &Arc<Mutex<Seen>>) -> BearerService<Stage, Kanal> {
    let stage = Stage { seen: Arc::clone(seen), ready: false };
    BearerLayer::new(handle.clone(), OriginGuard::new()).layer(stage)
}

fn request(method: Method, query: &str, seen: &Arc<Mutex<Seen>>) -> Request<Counted> {
    let uri = format!("https://api.getkanal.com/api/v1/stores/1/orders{query}");
    Request::builder().method(method).uri(uri).body(Counted(Arc::clone(seen))).unwrap()
}

fn send(client: &mut BearerService<Stage, Kanal>, request: Request<Counted>) -> Asking {
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(client.poll_ready(&mut context), Poll::Ready(Ok(()))));
    let mut asking = Box::pin(client.call(request));
    assert!(poll(&mut asking).is_none(), "there is no answer yet");
    asking
}

fn poll(asking: &mut Asking) -> Option<Outcome> {
    match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// Returns the status, and whether it is that of a repeated request.
fn answered(asking: &mut Asking) -> (StatusCode, bool) {
    let response = poll(asking).expect("no answer").unwrap();
    (response.status(), response.body().sent().is_repeated())
}

const REPEATED: (StatusCode, bool) = (StatusCode::OK, true);
const GIVEN_BACK: (StatusCode, bool) = (StatusCode::UNAUTHORIZED, false);

#[test]
fn a_late_401_is_repeated_at_once_and_changes_nothing() {
    let mut scene = Scene::new();
    let mut asking = scene.send(scene.get());
    scene.raw.publish_next(&key(1), GRACE);
    scene.refuse(0);
    assert!(poll(&mut asking).is_none());
    assert_eq!(scene.calls(), 2, "sent again without waiting");
    assert!(scene.has_key(0, 0) && scene.has_key(1, 1));
    assert!(!scene.reloader.is_asked(), "and without a reload");
    assert_eq!(scene.handle.load().unwrap().generation(), generation(2));
    assert_eq!(scene.handle.refused(), Some(generation(1)));
    scene.accept(1);
    assert_eq!(answered(&mut asking), REPEATED);
}

#[test]
fn a_hundred_requests_refused_at_once_share_one_reload() {
    for finds in [true, false] {
        let mut scene = Scene::new();
        let mut all: Vec<Asking> = (0..100).map(|_| scene.send(scene.get())).collect();
        for (call, asking) in all.iter_mut().enumerate() {
            scene.refuse(call);
            assert!(poll(asking).is_none());
            assert_eq!(format!("{asking:?}"), "BearerFuture(waiting for a newer key)");
        }
        assert!(scene.reloader.is_asked());
        let attempt = scene.reloader.begin();
        assert!(!scene.reloader.is_asked() && all.iter_mut().all(|asking| poll(asking).is_none()));
        assert_eq!(scene.calls(), 100);
        if finds {
            scene.raw.publish_next(&key(1), GRACE);
        }
        scene.reloader.end(attempt, if finds { Reload::Newer } else { Reload::Unchanged });
        for (number, asking) in all.iter_mut().enumerate() {
            if finds {
                assert!(poll(asking).is_none());
                scene.accept(100 + number);
                assert_eq!(answered(asking), REPEATED);
            } else {
                assert_eq!(answered(asking), GIVEN_BACK);
            }
        }
        assert!(!scene.reloader.is_asked(), "one attempt was enough");
        assert_eq!(scene.calls(), if finds { 200 } else { 100 });
    }
}

#[test]
fn a_key_that_leaks_during_the_wait_for_a_newer_one_is_not_sent() {
    let mut scene = Scene::new();
    let mut asking = scene.send_and_refuse();
    scene.publish(2, Err(NoActiveKey::Compromised));
    assert_eq!(answered(&mut asking), GIVEN_BACK);
    assert_eq!(scene.calls(), 1);

    // With another key left, that one is sent.
    let mut scene = Scene::new();
    let mut asking = scene.send_and_refuse();
    scene.publish(2, Ok(&key(1)));
    assert!(poll(&mut asking).is_none() && scene.has_key(1, 1));
    scene.accept(1);
    assert_eq!(answered(&mut asking), REPEATED);
}

#[test]
fn a_key_that_leaks_while_the_client_becomes_ready_is_not_sent() {
    // The newer one, and then the previous one.
    for newer in [true, false] {
        let mut scene = Scene::new();
        if !newer {
            scene.raw.publish_next(&key(1), GRACE);
        }
        let mut asking = scene.send_and_refuse();
        scene.set(Readiness::Later);
        if newer {
            scene.reload();
        } else {
            let attempt = scene.reloader.begin();
            scene.reloader.end(attempt, Reload::Unchanged);
        }
        assert!(poll(&mut asking).is_none());
        assert_eq!(format!("{asking:?}"), "BearerFuture(waiting for the client to be ready again)");
        if newer {
            scene.publish(3, Err(NoActiveKey::Compromised));
        } else {
            scene.publish(2, Ok(&key(1)));
            assert!(scene.handle.load().unwrap().previous().is_none());
        }
        scene.set(Readiness::Now);
        assert_eq!(answered(&mut asking), GIVEN_BACK);
        assert_eq!(scene.calls(), 1);
    }
}

#[test]
fn the_newest_key_is_sent_not_the_one_that_ended_the_wait() {
    let mut scene = Scene::new();
    let mut asking = scene.send_and_refuse();
    scene.set(Readiness::Later);
    scene.reload();
    assert!(poll(&mut asking).is_none());
    scene.raw.publish_next(&key(2), GRACE);
    scene.set(Readiness::Now);
    assert!(poll(&mut asking).is_none());
    assert!(scene.calls() == 2 && scene.has_key(1, 2));
}

#[test]
fn a_generation_is_drained_once_its_answer_has_arrived() {
    let mut scene = Scene::new();
    let mut asking = scene.send(scene.get());
    scene.raw.publish_next(&key(1), GRACE);
    assert!(!scene.handle.is_drained(generation(1)), "the request is in flight");
    scene.refuse(0);
    assert!(poll(&mut asking).is_none());
    assert!(scene.handle.is_drained(generation(1)), "it is repeated with the newer key");
    assert_eq!(format!("{asking:?}"), "BearerFuture(sending again)");
    scene.raw.publish_next(&key(2), GRACE);
    assert!(!scene.handle.is_drained(generation(2)), "the repeated request is in flight");
    scene.accept(1);
    assert_eq!(answered(&mut asking), REPEATED);
    assert!(scene.handle.is_drained(generation(2)));
    assert!(!scene.handle.is_drained(generation(3)), "it is active");
}

#[test]
fn a_repeat_with_the_previous_key_holds_its_generation() {
    let mut scene = Scene::new();
    scene.raw.publish_next(&key(1), GRACE);
    let mut asking = scene.send_and_refuse();
    assert!(scene.handle.is_drained(generation(1)), "it is still waiting");
    let attempt = scene.reloader.begin();
    scene.reloader.end(attempt, Reload::Unchanged);
    assert!(poll(&mut asking).is_none() && scene.has_key(1, 0));
    assert!(!scene.handle.is_drained(generation(1)));
    scene.accept(1);
    assert_eq!(answered(&mut asking), REPEATED);
    assert!(scene.handle.is_drained(generation(1)));
}

#[test]
fn a_dropped_request_holds_nothing() {
    let mut scene = Scene::new();
    let asking = scene.send_and_refuse();
    drop(asking);
    let asking = scene.send(scene.get());
    scene.raw.publish_next(&key(1), GRACE);
    drop(asking);
    assert!(scene.handle.is_drained(generation(1)));
    assert_eq!(scene.calls(), 2);
}

#[test]
fn a_failure_of_the_repeat_is_the_clients_own_error() {
    for at_ready in [true, false] {
        let mut scene = Scene::new();
        let mut asking = scene.send_and_refuse();
        scene.reload();
        let expected = if at_ready {
            scene.set(Readiness::Never);
            io::ErrorKind::NotConnected
        } else {
            assert!(poll(&mut asking).is_none());
            scene.answer(1, Err(io::ErrorKind::ConnectionReset.into()));
            io::ErrorKind::ConnectionReset
        };
        let error = poll(&mut asking).unwrap().unwrap_err();
        assert_eq!(error.into_inner().unwrap().downcast::<io::Error>().unwrap().kind(), expected);
    }
}

#[test]
fn the_guard_checks_the_repeated_request_too() {
    let mut scene = Scene::new();
    let query = format!("?next={}", KEYS[1]);
    let mut asking = scene.send(request(Method::GET, &query, &scene.seen));
    scene.refuse(0);
    assert!(poll(&mut asking).is_none());
    scene.reload();
    let error = poll(&mut asking).unwrap().unwrap_err();
    assert!(matches!(error, BearerError::Guard(GuardError::KeyInUri)), "{error}");
    assert_eq!(scene.calls(), 1);
}

#[test]
fn only_repeatable_requests_are_kept_and_without_a_key() {
    let clones = |scene: &mut Scene, request| {
        let before = scene.seen.lock().unwrap().clones;
        drop(scene.send(request));
        scene.seen.lock().unwrap().clones - before
    };
    let mut scene = Scene::new();
    let seen = Arc::clone(&scene.seen);
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        assert_eq!(clones(&mut scene, request(method, "", &seen)), 2, "the client and the body");
    }
    for method in [Method::POST, Method::PATCH, Method::from_bytes(b"COPY").unwrap()] {
        assert_eq!(clones(&mut scene, request(method.clone(), "", &seen)), 0);
        let mut marked = request(method, "", &seen);
        marked.extensions_mut().insert(Repeatable);
        assert_eq!(clones(&mut scene, marked), 2);
    }
    let key = key(0).try_into_typed().unwrap_or_else(|_| unreachable!("it is Kanal's"));
    scene.client = layered(&KeyHandle::fixed(key), &scene.seen);
    let get = scene.get();
    assert_eq!(clones(&mut scene, get), 0, "a fixed key has no successor");
}

#[test]
fn a_request_in_flight_prints_only_its_state() {
    let mut scene = Scene::new();
    let mut asking = scene.send(scene.get());
    assert_eq!(format!("{asking:?}"), "BearerFuture(sending)");
    scene.refuse(0);
    assert!(poll(&mut asking).is_none());
    assert_eq!(format!("{asking:?}"), "BearerFuture(waiting for a newer key)");
    scene.reload();
    assert!(poll(&mut asking).is_none());
    assert_eq!(format!("{asking:?}"), "BearerFuture(sending again)");
    assert_eq!(format!("{:?}", scene.client).split_once(", ").unwrap().0, "BearerService(KeyHandle(kanal");
}
