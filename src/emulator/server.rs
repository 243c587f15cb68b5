//! The thread that serves both ports, and the exchange of one request and its answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tower_service::Service as _;

use super::api::{self, MAX_BODY};
use super::connection::{Accept, AmbiguousLength, End, Fate, Stream, Transport};
use super::fault::{Fault, Target};
use super::records::{JournalEntry, shown_method, shown_path};
use super::shop::{Counted, EmulatorError, Sender, Shop};

/// The most connections that each port serves at once; further ones wait.
const MAX_CONNECTIONS: usize = 512;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The pause after the operating system failed to accept a connection.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers the requests of one port.
pub(super) type Answer = dyn Fn(Request<Incoming>, Fate) -> Answering + Send + Sync;

/// A port and what answers on it.
pub(super) struct Site {
    pub(super) listener: TcpListener,
    pub(super) answer: Arc<Answer>,
    pub(super) tls: Option<Arc<Accept>>,
    /// For the head of a request, and for a handshake.
    pub(super) read_timeout: Duration,
}

/// Serves until it is dropped, which closes every connection.
pub(super) struct Server {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// Binds a port on 127.0.0.1; 0 is any free port.
pub(super) fn bind(port: u16) -> Result<TcpListener, EmulatorError> {
    let failed = |error: io::Error| EmulatorError::Bind(error.kind());
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

impl Server {
    pub(super) fn start(sites: Vec<Site>) -> Result<Self, EmulatorError> {
        let failed = |error: io::Error| EmulatorError::Runtime(error.kind());
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || serve(&runtime, sites, stopped);
        let thread = thread::Builder::new().name("keysheath-emulator".to_owned()).spawn(serve);
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It ends at its next step; a panic there has been printed already.
            thread.join().ok();
        }
    }
}

/// Returns when the sender of `stopped` is dropped. The runtime is dropped then, and every connection with
/// it.
fn serve(runtime: &Runtime, sites: Vec<Site>, stopped: oneshot::Receiver<Infallible>) {
    runtime.block_on(async move {
        for site in sites {
            tokio::spawn(accept(site));
        }
        stopped.await.ok();
    });
}

async fn accept(site: Site) {
    let Site { listener, answer, tls, read_timeout } = site;
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (answer, tls) = (Arc::clone(&answer), tls.clone());
        tokio::spawn(async move {
            if let Some(stream) = open(stream, tls, read_timeout).await {
                converse(stream, answer, read_timeout).await;
            }
            drop(place);
        });
    }
}

/// `None` if the handshake fails or takes too long.
async fn open(stream: TcpStream, tls: Option<Arc<Accept>>, read_timeout: Duration) -> Option<Stream> {
    // An answer is written as a whole, so waiting for more of it would only make tests slow.
    stream.set_nodelay(true).ok()?;
    let transport: Box<dyn Transport> = match tls {
        None => Box::new(stream),
        Some(accept) => tokio::time::timeout(read_timeout, accept(stream)).await.ok()?.ok()?,
    };
    Some(Stream::new(transport, read_timeout))
}

/// Answers the requests of one connection, one after the other.
async fn converse(stream: Stream, answer: Arc<Answer>, read_timeout: Duration) {
    let fate = Fate::default();
    let conversation = Conversation {
        answer,
        fate: fate.clone(),
        ambiguous: stream.ambiguous(),
        requests: AtomicUsize::new(0),
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), conversation);
    let end = poll_fn(|context| {
        let polled = connection.poll_without_shutdown(context);
        match fate.end() {
            Some(end) => Poll::Ready(end),
            None => polled.map(|_| End::Normal),
        }
    })
    .await;
    connection.into_parts().io.into_inner().finish(end).await;
}

struct Conversation {
    answer: Arc<Answer>,
    fate: Fate,
    ambiguous: AmbiguousLength,
    requests: AtomicUsize,
}

impl hyper::service::Service<Request<Incoming>> for Conversation {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let problem = if self.ambiguous.is(number) {
            Some("a request gives its length once, by Content-Length or by Transfer-Encoding")
        } else {
            problem_of_host(&request)
        };
        if let Some(problem) = problem {
            let mut response = api::json(StatusCode::BAD_REQUEST, &json!({ "error": problem }));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Box::pin(std::future::ready(Ok(response)));
        }
        let answering = (self.answer)(request, self.fate.clone());
        Box::pin(async { Ok(answering.await) })
    }
}

/// What is wrong with a request's `Host` (RFC 9112, section 3.2).
fn problem_of_host<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => None,
        (Some(host), None) => {
            let authority = Authority::try_from(host.as_bytes()).ok();
            let is_valid = authority.is_some_and(|authority| !authority.as_str().contains('@'));
            (!is_valid).then_some("the Host header is not a host and a port")
        }
        _ => Some("a request has one Host header"),
    }
}

/// The longest answer of the emulator, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Answers on the port of the emulated service.
pub(super) fn service(shop: &Arc<Shop>) -> Arc<Answer> {
    let (shop, router) = (Arc::clone(shop), api::router(shop));
    Arc::new(move |request, fate| Box::pin(exchange(Arc::clone(&shop), router.clone(), fate, request)))
}

/// Answers a request, or applies a fault to it.
async fn exchange(
    shop: Arc<Shop>,
    router: Router,
    fate: Fate,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut note = Note::of(&shop, &request);
    if note.counted == Counted::TooMany {
        // The key counts as deleted: the request goes on with one that is unknown.
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer"));
    }
    let path = request.uri().path();
    let target = Target { key: note.sender.map(|sender| sender.key), store: note.entry.store, path };
    let applied = shop.faults.lock().apply(&target);
    let (number, fault) = applied.unzip();
    note.entry.fault = number;
    let response = match fault {
        Some(Fault::Reset) => {
            // A client that is still writing would see a broken pipe instead of the reset.
            api::skip(request.into_body(), MAX_BODY, shop.read_timeout).await;
            match fate.reset().await {}
        }
        Some(Fault::Status { status, retry_after, body }) => faulty(&shop, status, retry_after, body),
        Some(Fault::Latency(time)) => {
            tokio::time::sleep(time).await;
            route(&shop, router, request).await
        }
        // An answer to HEAD has no body to cut.
        Some(Fault::TruncatedBody) if request.method() != Method::HEAD => {
            truncate(route(&shop, router, request).await, fate).await
        }
        Some(Fault::TruncatedBody) | None => route(&shop, router, request).await,
    };
    note.entry.status = Some(response.status().as_u16());
    response
}

async fn route(shop: &Shop, mut router: Router, request: Request<Incoming>) -> Response<Body> {
    let response = match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    api::in_shape(shop, response)
}

fn faulty(shop: &Shop, status: u16, retry_after: Option<u32>, body: Option<String>) -> Response<Body> {
    let body = body.unwrap_or_else(|| if status == 429 { api::rate_limited(shop) } else { String::new() });
    let media_type = match body.as_bytes().first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "text/html",
        _ => "text/plain",
    };
    // The status was checked when the rule was added.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = api::text(status, media_type, body);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Sends the first half of a body under the length of the whole, and closes the connection after it.
async fn truncate(response: Response<Body>, fate: Fate) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, MAX_ANSWER).await.unwrap_or_default();
    parts.headers.remove(CONTENT_LENGTH);
    let first = Some(whole.slice(..whole.len() / 2)).filter(|first| !first.is_empty());
    Response::from_parts(parts, Body::new(Truncated { first, length: whole.len().max(1) as u64, fate }))
}

struct Truncated {
    first: Option<Bytes>,
    length: u64,
    fate: Fate,
}

impl http_body::Body for Truncated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        // The half is flushed in the same step, before the connection checks its fate.
        self.fate.cut();
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// The journal's entry, written on drop, so that a request whose client has gone away is noted too.
struct Note {
    shop: Arc<Shop>,
    entry: JournalEntry,
    sender: Option<Sender>,
    counted: Counted,
}

impl Note {
    fn of(shop: &Arc<Shop>, request: &Request<Incoming>) -> Self {
        let path = request.uri().path();
        let wanted = api::requested_store(path);
        let sender = shop.sender(request.headers());
        let counted = sender.map_or(Counted::NotLimited, |sender| shop.count(sender.key));
        let sender = sender.filter(|_| counted != Counted::TooMany);
        let entry = JournalEntry {
            number: 0,
            time: SystemTime::UNIX_EPOCH,
            method: shown_method(request.method()),
            path: shown_path(path),
            store: wanted.store(),
            key: sender.and_then(|sender| sender.fingerprint),
            status: None,
            fault: None,
        };
        Self { shop: Arc::clone(shop), entry, sender, counted }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.entry.time = self.shop.now();
        self.shop.journal.lock().write(self.entry.clone());
        if let (Counted::Allowed, Some(sender)) = (self.counted, self.sender) {
            self.shop.answered(sender.key);
        }
    }
}
