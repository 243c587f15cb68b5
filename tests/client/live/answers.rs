//! What an answer means for the key and for the request, with the tower layer.

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

use keysheath::client::{AnswerBody, BearerError, BearerLayer, GuardError, OriginGuard, Repeatable, Sent};
use keysheath::emulator::{Emulator, FOREIGN_STORE, Fault, FaultRule, OWN_STORE};
use keysheath::failure::Meaning;
use keysheath::handle::{KeyHandle, NoActiveKey, Reload};
use keysheath::key::{Kanal, Origin};
use keysheath::refresh::Refresher;
use keysheath::rotation::{Rotation, RotationPolicy};
use keysheath::source::{Problem, Provenance, SourceError};
use keysheath::store::MemoryStore;

use super::{REFUSED, STRANGE, Shop, in_time, number, settings, strange};
use crate::support::refreshing::{PATIENCE, eventually, only_asked, rarely};

type Http<B> = Client<HttpConnector, B>;
type Answered = Response<AnswerBody<hyper::body::Incoming>>;

impl Shop {
    fn layer(&self) -> BearerLayer<Kanal> {
        BearerLayer::new(self.handle.clone(), self.guard())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answered {
        in_time(self.layer().layer(client()).oneshot(request)).await.unwrap()
    }

    fn get(&self) -> Request<Full<Bytes>> {
        Self::request(Method::GET, &self.uri("orders"))
    }

    fn post(&self) -> Request<Full<Bytes>> {
        Self::request(Method::POST, &self.uri("customers"))
    }

    fn request(method: Method, uri: &str) -> Request<Full<Bytes>> {
        let builder = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        builder.body(Full::from(r#"{ "phone": "+33612345678" }"#)).unwrap()
    }
}

fn layer(handle: &KeyHandle<Kanal>, origin: &Origin) -> BearerLayer<Kanal> {
    BearerLayer::new(handle.clone(), OriginGuard::for_loopback(origin.clone()).unwrap())
}

fn client<B: Body<Data: Send, Error: Send> + Send>() -> Http<B> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn sent(answer: &Answered) -> Sent {
    answer.body().sent()
}

async fn text(answer: Answered) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn a_request_is_repeated_with_the_key_that_replaced_its_own() {
    let shop = Shop::after_a_rotation();
    let answer = shop.send(shop.get()).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::OK, true));
    assert_eq!(number(sent(&answer).generation()), 2);
    assert_eq!(text(answer).await, r#"{"data":[]}"#);
    assert_eq!(shop.statuses(), [401, 200]);
    assert_eq!((shop.refused(), shop.reloads()), (Some(1), 1));

    let next = shop.send(shop.get()).await;
    assert_eq!((next.status(), sent(&next).is_repeated()), (StatusCode::OK, false));
    assert_eq!((shop.statuses().len(), shop.reloads()), (3, 1));
}

#[tokio::test]
async fn without_a_newer_key_the_previous_one_is_sent_in_its_grace() {
    for outcome in [Reload::Unchanged, Reload::Failed, Reload::TooSoon, Reload::NoRefresher] {
        let rests = outcome == Reload::TooSoon;
        let rest = Duration::from_secs(if rests { 60 } else { 0 });
        let mut shop =
            Shop::with_a_bad_active_key(settings().with_cadence(rarely().with_minimum_interval(rest)));
        match outcome {
            Reload::Failed => shop.place.does(|_| {
                Err(SourceError::new(Provenance::other("scripted place", "kanal"), Problem::Unreachable))
            }),
            Reload::NoRefresher => shop.refresher = None,
            _ => {}
        }
        // The first one has the place asked, and the second one comes too soon after it.
        for _ in 0..=usize::from(rests) {
            let answer = shop.send(shop.get()).await;
            assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::OK, true), "{outcome}");
            assert_eq!(number(sent(&answer).generation()), 1);
        }
        assert_eq!(shop.statuses(), [401, 200].repeat(1 + usize::from(rests)));
        assert_eq!((shop.refused(), shop.active()), (Some(2), 2), "it stays active");
        if rests {
            let active = shop.handle.load().unwrap().generation();
            assert_eq!(shop.handle.wait_newer_than(active, PATIENCE), Some(outcome));
        }
        assert_eq!(shop.reloads(), usize::from(outcome != Reload::NoRefresher), "{outcome}");
    }
}

#[tokio::test]
async fn past_the_grace_the_401_is_given_back_whole() {
    let shop = Shop::with_a_bad_active_key(settings().with_grace(Duration::ZERO));
    let answer = shop.send(shop.get()).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((sent(&answer).is_repeated(), number(sent(&answer).generation())), (false, 2));
    assert_eq!(answer.headers()["content-length"], REFUSED.len().to_string());
    assert_eq!(text(answer).await, REFUSED);
    assert_eq!((shop.statuses(), shop.reloads()), (vec![401], 1));
}

#[tokio::test]
async fn a_refused_previous_key_says_nothing_about_the_active_key() {
    let shop = Shop::with_a_bad_active_key(settings());
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    let answer = shop.send(shop.get()).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((sent(&answer).is_repeated(), number(sent(&answer).generation())), (true, 1));
    assert_eq!(text(answer).await, REFUSED);
    assert_eq!((shop.statuses(), shop.reloads()), (vec![401, 401], 1));
    assert_eq!(shop.refused(), Some(2));
}

#[tokio::test]
async fn a_refused_new_key_is_reported_and_not_sent_a_third_time() {
    let shop = Shop::open();
    shop.emulator.delete_key(shop.emulator.key_id()).unwrap();
    shop.place.gives(STRANGE);
    let answer = shop.send(shop.get()).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::UNAUTHORIZED, true));
    assert_eq!((shop.statuses(), shop.refused()), (vec![401, 401], Some(2)));
    // The first call was the one at the start.
    eventually("the second key is active and refused", || shop.place.calls() == 3);
    assert_eq!(text(answer).await, REFUSED);
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_is_reported_and_sent_once() {
    let shop = Shop::after_a_rotation();
    let answer = shop.send(shop.post()).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::UNAUTHORIZED, false));
    let refused = sent(&answer).generation();
    assert_eq!((text(answer).await.as_str(), shop.statuses()), (REFUSED, vec![401]));
    // What it was not given, the next one is.
    assert_eq!(shop.handle.wait_newer_than(refused, PATIENCE), Some(Reload::Newer));
    assert!(shop.reloads() >= 1);
    assert_eq!(shop.send(shop.post()).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_marked_as_repeatable_is_repeated_with_its_body() {
    let shop = Shop::after_a_rotation();
    let mut marked = shop.post();
    marked.extensions_mut().insert(Repeatable);
    let answer = shop.send(marked).await;
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::CREATED, true));
    assert_eq!(shop.statuses(), [401, 201]);
    assert_eq!(shop.emulator.customers(OWN_STORE)[0].phone, "+33612345678");
}

#[tokio::test]
async fn no_other_answer_asks_for_a_reload_or_is_repeated() {
    // A reload that was asked for would make the next one too soon.
    let rest = Duration::from_secs(60);
    let shop = Shop::with_a_bad_active_key(settings().with_cadence(rarely().with_minimum_interval(rest)));
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
        assert_eq!((shop.reloads(), shop.refused()), (0, None), "{status} {body}");
    }
    // The same of an answer that the emulator gives of itself.
    shop.publish(shop.emulator.key());
    shop.emulator.reset();
    let uri = format!("{}/api/v1/stores/{FOREIGN_STORE}/orders", shop.emulator.origin());
    let answer = shop.send(Shop::request(Method::GET, &uri)).await;
    assert_eq!(sent(&answer).answer().meaning(), Meaning::StoreForbidden);
    assert!(shop.reloads() == 0 && shop.statuses().len() == 1);
    let active = shop.handle.load().unwrap().generation();
    assert_eq!(shop.handle.wait_newer_than(active, PATIENCE), Some(Reload::Unchanged));
}

#[tokio::test]
async fn a_broken_connection_of_a_retry_is_the_clients_own_error() {
    let shop = Shop::after_a_rotation();
    shop.emulator.add_fault(FaultRule::new(Fault::Reset).with_start(2)).unwrap();
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
    let store = MemoryStore::new();
    let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
    let handle = refresher.handle();
    let request = || Request::get(format!("{}/", emulator.origin())).body(Full::<Bytes>::default()).unwrap();
    let send = async || layer(&handle, emulator.origin()).layer(client()).oneshot(request()).await;
    let error = send().await.unwrap_err();
    assert!(matches!(error, BearerError::NoActiveKey(NoActiveKey::NoKey)), "{error}");
    assert_eq!(error.to_string(), NoActiveKey::NoKey.to_string());
    assert!(error.into_inner().is_none() && emulator.journal().is_empty());
    let key = emulator.key().clone_key().try_into_typed().unwrap();
    Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap().adopt(&key).unwrap();
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
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
async fn a_layer_without_retries_sends_a_stream_and_reports_refusals() {
    let shop = Shop::after_a_rotation();
    let client = shop.layer().without_repeating().layer(client());
    let put = || shop.post().map(|_| Stream(Some(Bytes::from_static(br#"{ "phone": "+33612345678" }"#))));
    let mut marked = put();
    marked.extensions_mut().insert(Repeatable);
    let answer = in_time(client.clone().oneshot(marked)).await.unwrap();
    assert_eq!((answer.status(), sent(&answer).is_repeated()), (StatusCode::UNAUTHORIZED, false));
    assert_eq!(shop.refused(), Some(1));
    let refused = sent(&answer).generation();
    assert_eq!(shop.handle.wait_newer_than(refused, PATIENCE), Some(Reload::Newer));
    assert!(shop.reloads() >= 1);
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
    shop.place.gives(STRANGE);
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
    let handle = KeyHandle::fixed(strange().try_into_typed().unwrap());
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
