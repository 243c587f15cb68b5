//! Over real HTTP, against the emulator.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirectLayer;

use super::{GRACE, PATIENCE, Reloader, generation, in_time, live, unlimited};
use crate::client::{AnswerBody, BearerError, BearerLayer, GuardError, OriginGuard, Repeatable, Sent};
use crate::emulator::{Emulator, FOREIGN_STORE, Fault, FaultRule};
use crate::failure::Meaning;
use crate::handle::{KeyHandle, RawHandle, Reload};
use crate::key::{Kanal, Origin, RawKey};

const REFUSED: &str = r#"{ "error": "Invalid API key" }"#;

/// Does not belong to anything.
const STRANGE: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

type Http<B> = Client<HttpConnector, B>;
type Answered = Response<AnswerBody<hyper::body::Incoming>>;

/// The emulator, and a handle whose key in force is the emulator's.
struct Shop {
    emulator: Emulator,
    handle: KeyHandle<Kanal>,
    raw: RawHandle,
}

impl Shop {
    fn open() -> Self {
        let emulator = unlimited().start().unwrap();
        let (handle, raw) = live();
        raw.publish_next(emulator.key(), GRACE);
        Self { emulator, handle, raw }
    }

    /// The key in force was deleted, and there is another. Gives the other.
    fn with_a_new_key_elsewhere() -> (Self, RawKey) {
        let shop = Self::open();
        let new = shop.emulator.create_key("new").unwrap().key().clone_key();
        shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
        (shop, new)
    }

    /// The key in force is one that the issuer does not know, and the previous one is good for so long.
    fn with_a_bad_key_in_force(grace: Duration) -> Self {
        let shop = Self::open();
        shop.raw.publish_next(&strange(), grace);
        shop
    }

    fn layer(&self) -> BearerLayer<Kanal> {
        layer(&self.handle, self.emulator.origin())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answered {
        in_time(self.layer().layer(client()).oneshot(request)).await.unwrap()
    }

    fn get(&self) -> Request<Full<Bytes>> {
        self.request(Method::GET, "/api/v1/stores/123/orders")
    }

    fn post(&self) -> Request<Full<Bytes>> {
        self.request(Method::POST, "/api/v1/stores/123/customers")
    }

    fn request(&self, method: Method, path: &str) -> Request<Full<Bytes>> {
        let uri = format!("{}{path}", self.emulator.origin());
        let builder = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        builder.body(Full::from(r#"{ "phone": "+33612345678" }"#)).unwrap()
    }

    /// The statuses that the emulator answered.
    fn statuses(&self) -> Vec<u16> {
        self.emulator.journal().iter().map(|entry| entry.status.unwrap_or(0)).collect()
    }
}

fn strange() -> RawKey {
    RawKey::parse(<Kanal as crate::key::Issuer>::PROFILE, STRANGE.as_bytes()).unwrap()
}

fn layer(handle: &KeyHandle<Kanal>, origin: &Origin) -> BearerLayer<Kanal> {
    BearerLayer::new(handle.clone(), OriginGuard::for_loopback(origin.clone()).unwrap())
}

fn client<B: Body<Data: Send, Error: Send> + Send>() -> Http<B> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn sent(answer: &Answered) -> Sent {
    *answer.extensions().get::<Sent>().expect("each response says what was sent")
}

async fn text(answer: Answered) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn a_request_whose_key_was_replaced_is_sent_again_with_the_new_one() {
    let (shop, new) = Shop::with_a_new_key_elsewhere();
    let reloader = Reloader::that_finds(&shop.raw, new);
    let answer = shop.send(shop.get()).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::OK, true));
    assert_eq!(sent(&answer).generation(), generation(2));
    assert_eq!(text(answer).await, r#"{"data":[]}"#);
    assert_eq!(shop.statuses(), [401, 200]);
    assert_eq!((shop.handle.refused(), reloader.attempts()), (Some(generation(1)), 1));

    let next = shop.send(shop.get()).await;
    assert_eq!((next.status(), sent(&next).is_repeated()), (StatusCode::OK, false));
    assert_eq!((shop.statuses().len(), reloader.attempts()), (3, 1));
}

#[tokio::test]
async fn where_there_is_no_newer_key_the_previous_one_is_sent_within_its_grace() {
    for outcome in [Reload::Unchanged, Reload::Failed, Reload::TooSoon, Reload::NoRefresher] {
        let shop = Shop::with_a_bad_key_in_force(GRACE);
        let reloads = outcome != Reload::NoRefresher;
        let reloader = reloads.then(|| Reloader::that(&shop.raw, move |_| outcome));
        let answer = shop.send(shop.get()).await;
        assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::OK, true), "{outcome}");
        assert_eq!(sent(&answer).generation(), generation(1));
        assert_eq!(shop.statuses(), [401, 200]);
        assert_eq!(shop.handle.refused(), Some(generation(2)));
        assert_eq!(shop.handle.load().unwrap().generation(), generation(2), "it stays in force");
        assert_eq!(reloader.map_or(0, |reloader| reloader.attempts()), u32::from(reloads));
    }
}

#[tokio::test]
async fn past_the_grace_the_401_is_given_back_whole() {
    let shop = Shop::with_a_bad_key_in_force(Duration::ZERO);
    let reloader = Reloader::that(&shop.raw, |_| Reload::Unchanged);
    let answer = shop.send(shop.get()).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((sent(&answer).is_repeated(), sent(&answer).generation()), (false, generation(2)));
    assert_eq!(answer.headers()["content-length"], REFUSED.len().to_string());
    assert_eq!(text(answer).await, REFUSED);
    assert_eq!((shop.statuses(), reloader.attempts()), (vec![401], 1));
}

#[tokio::test]
async fn when_the_previous_key_is_refused_too_that_says_nothing_about_the_key_in_force() {
    let shop = Shop::with_a_bad_key_in_force(GRACE);
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    let reloader = Reloader::that(&shop.raw, |_| Reload::Unchanged);
    let answer = shop.send(shop.get()).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((sent(&answer).is_repeated(), sent(&answer).generation()), (true, generation(1)));
    assert_eq!(text(answer).await, REFUSED);
    assert_eq!((shop.statuses(), reloader.attempts()), (vec![401, 401], 1));
    assert_eq!(shop.handle.refused(), Some(generation(2)));
    assert!(!shop.raw.is_asked());
}

#[tokio::test]
async fn a_new_key_that_is_refused_too_is_reported_and_the_request_not_sent_a_third_time() {
    let shop = Shop::open();
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    shop.raw.attach();
    let handle = shop.raw.clone();
    // One attempt, so that the report of the second key is still to be seen.
    let once = thread::spawn(move || {
        while !handle.is_asked() {
            thread::yield_now();
        }
        let attempt = handle.begin();
        handle.publish_next(&strange(), GRACE);
        handle.end(attempt, Reload::Newer);
    });
    let answer = shop.send(shop.get()).await;
    once.join().unwrap();
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::UNAUTHORIZED, true));
    assert_eq!((shop.statuses(), shop.handle.refused()), (vec![401, 401], Some(generation(2))));
    assert!(shop.raw.is_asked(), "the second key is in force and refused");
    assert_eq!(text(answer).await, REFUSED);
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_is_reported_and_sent_once() {
    let (shop, new) = Shop::with_a_new_key_elsewhere();
    let reloader = Reloader::that_finds(&shop.raw, new);
    let answer = shop.send(shop.post()).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::UNAUTHORIZED, false));
    assert_eq!((text(answer).await.as_str(), shop.statuses()), (REFUSED, vec![401]));
    // What it was not given, the next one is.
    assert_eq!(shop.handle.reload_past(generation(1)).wait(PATIENCE), Some(Reload::Newer));
    assert!(reloader.attempts() >= 1);
    assert_eq!(shop.send(shop.post()).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_that_is_marked_as_repeatable_is_repeated_with_its_body() {
    let (shop, new) = Shop::with_a_new_key_elsewhere();
    let _reloader = Reloader::that_finds(&shop.raw, new);
    let mut marked = shop.post();
    marked.extensions_mut().insert(Repeatable);
    let answer = shop.send(marked).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::CREATED, true));
    assert_eq!(shop.statuses(), [401, 201]);
    assert_eq!(shop.emulator.customers(crate::emulator::OWN_STORE)[0].phone, "+33612345678");
}

#[tokio::test]
async fn no_other_answer_asks_for_a_reload_or_is_repeated() {
    let shop = Shop::with_a_bad_key_in_force(GRACE);
    shop.raw.attach();
    let html = "<html>Please sign in</html>";
    for (status, body) in [
        (401, html),
        (401, r#"{ "error": "API key is missing" }"#),
        (403, r#"{ "error": "API key does not authorize this store" }"#),
        (403, REFUSED),
        (404, r#"{ "error": "Store not found or paused" }"#),
        (407, REFUSED),
        (422, r#"{ "errors": { "phone": ["is required"] } }"#),
        (429, REFUSED),
        (500, REFUSED),
        (502, html),
        (503, REFUSED),
    ] {
        shop.emulator.reset();
        shop.emulator.add_fault(FaultRule::new(Fault::status(status).with_body(body))).unwrap();
        let answer = shop.send(shop.get()).await;
        assert_eq!((answer.status().as_u16(), sent(&answer).is_repeated()), (status, false), "{body}");
        assert_eq!((text(answer).await.as_str(), shop.statuses()), (body, vec![status]));
        assert!(!shop.raw.is_asked() && shop.handle.refused().is_none(), "{status} {body}");
    }
    // The same of an answer that the emulator gives of itself.
    let shop = Shop::open();
    shop.raw.attach();
    let path = format!("/api/v1/stores/{FOREIGN_STORE}/orders");
    let answer = shop.send(shop.request(Method::GET, &path)).await;
    assert_eq!(sent(&answer).answer().meaning(), Meaning::StoreForbidden);
    assert!(!shop.raw.is_asked() && shop.statuses().len() == 1);
}

#[tokio::test]
async fn a_broken_connection_of_the_repetition_is_the_clients_own_error() {
    let (shop, new) = Shop::with_a_new_key_elsewhere();
    shop.emulator.add_fault(FaultRule::new(Fault::Reset).nth(2)).unwrap();
    let _reloader = Reloader::that_finds(&shop.raw, new);
    let error = in_time(shop.layer().layer(client()).oneshot(shop.get())).await.unwrap_err();
    assert!(matches!(error, BearerError::Inner(_)), "{error}");
    let BearerError::Inner(failed) = error else { panic!("{error}") };
    assert!(failed.may_have_arrived(), "{failed}");
    let own = failed.get_ref::<legacy::Error>();
    assert!(own.is_some_and(|own| !own.is_connect()));
    assert_eq!(shop.statuses(), [401, 0]);
}

#[tokio::test]
async fn nothing_is_sent_while_no_key_is_in_force() {
    let emulator = Emulator::start().unwrap();
    let (handle, raw) = live();
    let request = || Request::get(format!("{}/", emulator.origin())).body(Full::<Bytes>::default()).unwrap();
    let send = async || layer(&handle, emulator.origin()).layer(client()).oneshot(request()).await;
    let error = send().await.unwrap_err();
    assert!(matches!(error, BearerError::NoActiveKey(crate::handle::NoActiveKey::NoKey)), "{error}");
    assert_eq!(error.to_string(), crate::handle::NoActiveKey::NoKey.to_string());
    assert!(error.into_inner().is_none() && emulator.journal().is_empty());
    raw.publish_next(emulator.key(), GRACE);
    assert_eq!(send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

/// A body that cannot be had twice.
struct Stream(Option<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }
}

#[tokio::test]
async fn a_layer_that_does_not_repeat_takes_a_body_that_streams_and_reports() {
    let (shop, new) = Shop::with_a_new_key_elsewhere();
    let reloader = Reloader::that_finds(&shop.raw, new);
    let client = shop.layer().without_repeating().layer(client());
    let put = || {
        shop.request(Method::POST, "/api/v1/stores/123/customers")
            .map(|_| Stream(Some(Bytes::from_static(br#"{ "phone": "+33612345678" }"#))))
    };
    let mut marked = put();
    marked.extensions_mut().insert(Repeatable);
    let answer = in_time(client.clone().oneshot(marked)).await.unwrap();
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::UNAUTHORIZED, false));
    assert_eq!(shop.handle.refused(), Some(generation(1)));
    assert_eq!(shop.handle.reload_past(generation(1)).wait(PATIENCE), Some(Reload::Newer));
    assert!(reloader.attempts() >= 1);
    assert_eq!(in_time(client.oneshot(put())).await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(shop.statuses(), [401, 201]);
}

/// A server that gives one answer after another, and keeps the heads of the requests.
fn server(answers: Vec<String>) -> (Origin, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = String::new();
            let mut reader = BufReader::new(&stream);
            while reader.read_line(&mut head).unwrap() > 2 {}
            seen.lock().unwrap().push(head);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (origin, heads)
}

fn answer(status: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{header}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_repetition_that_is_redirected_takes_no_key_along() {
    let (elsewhere, seen_elsewhere) = server(vec![answer("200 OK", "", "")]);
    let redirect = answer("307 x", &format!("location: {elsewhere}/\r\n"), "");
    let (issuer, seen) = server(vec![answer("401 x", "", REFUSED), redirect]);
    let shop = Shop::open();
    let _reloader = Reloader::that_finds(&shop.raw, strange());
    let client = FollowRedirectLayer::new().layer(layer(&shop.handle, &issuer).layer(client()));
    let request = Request::get(format!("{issuer}/")).body(Full::<Bytes>::default()).unwrap();
    let error = in_time(client.oneshot(request)).await.unwrap_err();
    assert!(matches!(error, BearerError::Guard(GuardError::OtherOrigin { .. })), "{error}");
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen[0].contains(shop.emulator.key().expose_secret()), "{seen:?}");
    assert!(seen[1].contains(STRANGE) && !seen[1].contains(shop.emulator.key().expose_secret()));
    assert_eq!(seen[1].to_lowercase().matches("authorization:").count(), 1);
    assert!(seen_elsewhere.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_connection_keeps_its_cause_and_sent_nothing() {
    let (handle, raw) = live();
    raw.publish_next(&strange(), GRACE);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let origin = Origin::parse(&format!("http://{free}")).unwrap();
    let request = Request::get(format!("{origin}/")).body(Full::<Bytes>::default()).unwrap();
    let error = in_time(layer(&handle, &origin).layer(client()).oneshot(request)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("connection refused") && text.contains("before anything was sent"), "{text}");
    let BearerError::Inner(failed) = error else { panic!("{error}") };
    assert!(!failed.may_have_arrived());
    assert!(failed.get_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect));
    // A client that makes no connection at all: this one speaks no TLS.
    let unconnected = OriginGuard::<Kanal>::new();
    let client = BearerLayer::new(handle, unconnected).layer(client());
    let request = Request::get("https://api.getkanal.com/").body(Full::<Bytes>::default()).unwrap();
    let error = in_time(client.oneshot(request)).await.unwrap_err();
    assert!(matches!(&error, BearerError::Inner(failed) if !failed.may_have_arrived()), "{error}");
}
