//! `BearerLayer` around hyper's client and around small services: what is sent, what is refused, what an
//! answer means, and that its body comes back unchanged.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use crate::support::answering::{Answering, chunked, measured};
use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keysheath::client::{AnswerBody, BearerError, BearerLayer, GuardError, OriginGuard};
use keysheath::failure::Meaning;
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Issuer, Kanal, Katana};
use tower::{Layer, Service, ServiceExt, service_fn};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
const REFUSED: &[u8] = br#"{ "error": "Invalid API key" }"#;

/// The largest body that is read ahead, as documented.
const BOUND: usize = 64 * 1024;

fn handle<I: Issuer>() -> KeyHandle<I> {
    KeyHandle::fixed(ApiKey::parse(KEY).unwrap())
}

/// One request through the layer and hyper's client.
async fn ask<I: Issuer>(
    server: &Answering,
    handle: KeyHandle<I>,
) -> Response<AnswerBody<impl Body<Data = Bytes, Error: std::error::Error>>> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let guard = OriginGuard::for_loopback(server.origin()).unwrap();
    let request = Request::get(server.uri()).body(Empty::<Bytes>::new()).unwrap();
    BearerLayer::new(handle, guard).layer(client).oneshot(request).await.unwrap()
}

/// One request through the layer to a service that gives this response.
async fn ask_for<B: Body>(handle: &KeyHandle<Kanal>, response: Response<B>) -> Response<AnswerBody<B>> {
    let mut response = Some(response);
    let client = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().expect("one request")))
    });
    let request = Request::get("https://api.getkanal.com/").body(()).unwrap();
    // The response's body need not be Clone, and so the client is not.
    let layer = BearerLayer::new(handle.clone(), OriginGuard::new()).without_repeating();
    layer.layer(client).call(request).await.unwrap()
}

fn meaning<R: Body>(response: &Response<AnswerBody<R>>) -> Meaning {
    response.body().sent().answer().meaning()
}

fn text(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}

#[tokio::test]
async fn a_request_without_the_key_never_reaches_the_client() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let client = service_fn(async |_: Request<()>| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    });
    let handle = handle::<Kanal>();
    let mut client = BearerLayer::new(handle.clone(), OriginGuard::new()).layer(client);
    for (uri, expected) in [
        ("https://api.getkanal.com.evil.example/", "another origin than https://api.getkanal.com"),
        ("http://api.getkanal.com/", "another origin"),
        ("/api/v1/stores/1/orders", "no scheme and host"),
        ("https://user@api.getkanal.com/", "user information"),
        ("https://api.getkanal.com/?key=8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "the key is in the request's URI"),
    ] {
        let request = Request::get(uri).body(()).unwrap();
        let error = client.ready().await.unwrap().call(request).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{uri}: {error}");
        assert!(matches!(error, BearerError::Guard(_)));
    }
    let twice =
        Request::get("https://api.getkanal.com/").header("authorization", "Basic eDp5").body(()).unwrap();
    let error = client.call(twice).await.unwrap_err();
    assert!(matches!(error, BearerError::Guard(GuardError::AlreadyAuthorized)), "{error}");
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    assert_eq!(handle.refused(), None);

    let fine = Request::get("https://api.getkanal.com/").body(()).unwrap();
    assert_eq!(meaning(&client.call(fine).await.unwrap()), Meaning::Accepted);
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_error_of_the_client_is_passed_on_and_not_printed() {
    let client = service_fn(async |_: Request<()>| Err::<Response<Full<Bytes>>, _>(io::Error::other(KEY)));
    let request = Request::get("https://api.getkanal.com/").body(()).unwrap();
    let error = BearerLayer::new(handle::<Kanal>(), OriginGuard::new())
        .layer(client)
        .call(request)
        .await
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("8fK2"), "{error}");
    assert!(std::error::Error::source(&error).is_none());
    assert_eq!(error.into_inner().unwrap().to_string(), KEY);
}

/// Must be polled for readiness before each call; so must each clone.
struct Picky {
    ready: bool,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<()>> for Picky {
    type Response = Response<Empty<Bytes>>;
    type Error = io::Error;
    type Future = std::future::Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

#[tokio::test]
async fn the_client_that_was_ready_is_the_one_that_is_called() {
    let mut client = BearerLayer::new(handle::<Kanal>(), OriginGuard::new()).layer(Picky { ready: false });
    for _ in 0..3 {
        let request = Request::get("https://api.getkanal.com/").body(()).unwrap();
        client.ready().await.unwrap().call(request).await.unwrap();
        client = client.clone();
    }
}

#[tokio::test]
async fn the_issuers_own_401_reports_the_generation_that_was_sent() {
    for answer in [measured("401 Unauthorized", REFUSED), chunked("401 Unauthorized", REFUSED)] {
        let server = Answering::with(answer);
        let handle = handle::<Kanal>();
        let response = ask(&server, handle.clone()).await;
        let sent = response.body().sent();
        assert_eq!(sent.answer().meaning(), Meaning::KeyRefused);
        assert_eq!(handle.refused(), Some(sent.generation()));
        assert_eq!(sent.generation(), handle.load().unwrap().generation());
        let heads = server.heads();
        let lines = heads[0].to_lowercase().matches("authorization:").count();
        assert_eq!((heads.len(), lines, heads[0].matches(KEY).count()), (1, 1, 1), "{heads:?}");
    }
    let katana = br#"{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}"#;
    let server = Answering::with(measured("401 Unauthorized", katana));
    let handle = handle::<Katana>();
    assert_eq!(meaning(&ask(&server, handle.clone()).await), Meaning::KeyRefused);
    assert!(handle.refused().is_some());
}

#[tokio::test]
async fn no_other_answer_reports_anything() {
    let padded = [&b" ".repeat(BOUND)[..], REFUSED].concat();
    let cut = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 31\r\n\r\n{ \"error\": \"Invalid API key\" }";
    let cut_chunk =
        b"HTTP/1.1 401 x\r\ntransfer-encoding: chunked\r\n\r\n1e\r\n{ \"error\": \"Invalid API key\" }\r\n";
    for (answer, expected) in [
        (measured("401 Unauthorized", b"<html>Please sign in</html>"), Meaning::Inconclusive),
        (measured("401 Unauthorized", b""), Meaning::Inconclusive),
        (measured("401 Unauthorized", br#"{ "error": "API key is missing" }"#), Meaning::KeyMissing),
        (measured("401 Unauthorized", &padded), Meaning::Inconclusive),
        (chunked("401 Unauthorized", &padded), Meaning::Inconclusive),
        (cut.to_vec(), Meaning::Inconclusive),
        (cut_chunk.to_vec(), Meaning::Inconclusive),
        (
            measured("403 Forbidden", br#"{"error":"API key does not authorize this store"}"#),
            Meaning::StoreForbidden,
        ),
        (measured("403 Forbidden", REFUSED), Meaning::Inconclusive),
        (measured("404 Not Found", br#"{"error":"Store not found or paused"}"#), Meaning::StoreNotFound),
        (measured("407 Proxy", REFUSED), Meaning::Inconclusive),
        (measured("422 Invalid", br#"{"errors":{"phone":["required"]}}"#), Meaning::RequestInvalid),
        (measured("429 Too Many", REFUSED), Meaning::RateLimited),
        (measured("500 Broken", REFUSED), Meaning::Inconclusive),
        (measured("200 OK", REFUSED), Meaning::Accepted),
        (measured("204 No Content", b""), Meaning::Accepted),
    ] {
        let server = Answering::with(answer);
        let handle = handle::<Kanal>();
        let response = ask(&server, handle.clone()).await;
        assert_eq!(meaning(&response), expected, "{}", response.status());
        assert_eq!(handle.refused(), None, "{}", response.status());
    }
}

#[tokio::test]
async fn retry_after_is_read_with_the_answer() {
    let server = Answering::with("HTTP/1.1 429 x\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n");
    let response = ask(&server, handle::<Kanal>()).await;
    let answer = response.body().sent().answer();
    assert_eq!(answer.retry_after().unwrap().as_secs(), 7);
}

#[tokio::test]
async fn a_body_comes_back_whole_with_its_trailers() {
    let sizes = [0, 1, 1024, BOUND - 1, BOUND, BOUND + 1, 100 * 1024, 10_000_000];
    for status in ["200 OK", "401 Unauthorized", "404 Not Found"] {
        for size in sizes {
            let body = text(size);
            let server = Answering::with(measured(status, &body));
            let response = ask(&server, handle::<Kanal>()).await;
            assert_eq!(response.body().size_hint().exact(), Some(size as u64), "{status}");
            assert_eq!(response.headers()["content-length"], size.to_string());
            let collected = response.into_body().collect().await.unwrap().to_bytes();
            assert!(collected == body, "{status}: {size} bytes by their length");

            let server = Answering::with(chunked(status, &body));
            let response = ask(&server, handle::<Kanal>()).await;
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(
                collected.trailers().map(|trailers| trailers["x-checked"].as_bytes()),
                Some(&b"yes"[..])
            );
            assert!(collected.to_bytes() == body, "{status}: {size} bytes in chunks");
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_gives_its_data_and_then_its_error() {
    for status in ["200 OK", "401 Unauthorized"] {
        for size in [0, 10, BOUND, 100 * 1024, 1_000_000] {
            let whole = [text(size), vec![b'z'; 100]].concat();
            for answer in [measured(status, &whole), chunked(status, &whole)] {
                let missing = if size == 0 { whole.len() } else { 100 };
                let server = Answering::with(&answer[..answer.len() - missing]);
                let mut body = Box::pin(ask(&server, handle::<Kanal>()).await.into_body());
                let mut came = Vec::new();
                let error = loop {
                    match body.frame().await {
                        Some(Ok(frame)) => came.extend_from_slice(frame.data_ref().unwrap()),
                        Some(Err(error)) => break error,
                        None => panic!("{status}: {size} bytes ended as if they were whole"),
                    }
                };
                assert!(std::error::Error::source(&error).is_some(), "hyper's own: {error}");
                assert!(whole.starts_with(&came), "{status}: {size}");
                assert!(came.len() >= size.saturating_sub(8192), "{status}: {} of {size}", came.len());
                assert!(body.frame().await.is_none(), "an error is the end");
            }
        }
    }
}

/// A body that fails, and must not be polled again.
struct Failing {
    failed: bool,
}

impl Body for Failing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        assert!(!std::mem::replace(&mut self.failed, true), "polled again after its error");
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
    }
}

#[tokio::test]
async fn a_body_that_failed_while_read_ahead_is_not_polled_again() {
    let mut response = Response::new(Failing { failed: false });
    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    let mut body = ask_for(&handle(), response).await.into_body();
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

/// A body that must not be read.
struct Untouchable {
    length: u64,
}

impl Body for Untouchable {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read")
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[tokio::test]
async fn a_body_that_cannot_say_anything_is_not_read() {
    for (status, length) in
        [(200, 10), (204, 0), (301, 10), (429, 10), (405, 10), (500, 10), (503, 10), (401, BOUND as u64 + 1)]
    {
        let mut response = Response::new(Untouchable { length });
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        let response = ask_for(&handle(), response).await;
        assert_eq!(response.body().size_hint().exact(), Some(length), "{status}");
    }
}

/// An endless body in frames of 1 KiB that counts them.
struct Endless {
    frames: Arc<AtomicU32>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let before = self.frames.fetch_add(1, Ordering::Relaxed);
        assert!(before < 1000, "read without a limit");
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; 1024].into()))))
    }
}

#[tokio::test]
async fn a_body_is_read_ahead_to_64_kib_and_no_further() {
    let frames = Arc::<AtomicU32>::default();
    let mut response = Response::new(Endless { frames: Arc::clone(&frames) });
    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    let response = ask_for(&handle(), response).await;
    assert_eq!(meaning(&response), Meaning::Inconclusive);
    assert_eq!(frames.load(Ordering::Relaxed), 65, "64 KiB, and the frame that shows that there is more");
    let mut body = response.into_body();
    for length in [BOUND, 1024, 1024] {
        assert_eq!(body.frame().await.unwrap().unwrap().data_ref().unwrap().len(), length);
    }
}

pin_project_lite::pin_project! {
    /// A body of frames with data in two pieces each, which must not be moved once it was polled.
    struct Pieces {
        frames: VecDeque<Frame<bytes::buf::Chain<&'static [u8], Bytes>>>,
        at: Option<usize>,
        #[pin]
        pinned: PhantomPinned,
    }
}

impl Body for Pieces {
    type Data = bytes::buf::Chain<&'static [u8], Bytes>;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        let address = std::ptr::from_ref(&*self).addr();
        let first = self.at.is_none();
        let this = self.project();
        assert_eq!(*this.at.get_or_insert(address), address, "a pinned body was moved");
        if first {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(this.frames.pop_front().map(Ok))
    }
}

#[tokio::test]
async fn an_unmovable_body_of_any_data_type_comes_back_in_order() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checked", "yes".parse().unwrap());
    let data = || Frame::data((&b"{ \"error\": \"Inval"[..]).chain(Bytes::from_static(b"id API key\" }")));
    let spaces = Frame::data((&b""[..]).chain(Bytes::from(vec![b' '; BOUND])));
    for (status, spaces) in [(200, None), (401, None), (401, Some(spaces))] {
        let refused = status == 401 && spaces.is_none();
        let padding = if spaces.is_some() { BOUND } else { 0 };
        let frames =
            [Some(data()), spaces, Some(Frame::trailers(trailers.clone()))].into_iter().flatten().collect();
        let body = Pieces { frames, at: None, pinned: PhantomPinned };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        let handle = handle();
        let body = Box::pin(ask_for(&handle, response).await.into_body()).collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers));
        let body = body.to_bytes();
        assert!(body.starts_with(REFUSED) && body.len() == REFUSED.len() + padding);
        assert_eq!(handle.refused().is_some(), refused, "{status}");
    }
}
