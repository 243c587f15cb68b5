//! The thread that serves both ports.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use super::EmulatorError;
use super::answer;
use super::wire::{Doubted, End, Fate, Inner, Stream};

/// How many connections each port serves at once; the next waits.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_CONNECTIONS, 512);
/// ```
pub const MAX_CONNECTIONS: usize = 512;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// How long to wait after the operating system could not accept a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// An answer on its way.
pub(super) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers the requests of one port.
pub(super) type Answer = dyn Fn(Request<Incoming>, Fate) -> Answering + Send + Sync;

/// A port and what answers there.
pub(super) struct Site {
    pub(super) listener: TcpListener,
    pub(super) answer: Arc<Answer>,
    #[cfg(feature = "emulator-tls")]
    pub(super) tls: Option<tokio_rustls::TlsAcceptor>,
    /// How long the head of a request may take, and a handshake.
    pub(super) read_timeout: Duration,
}

/// Serves until it is dropped, which cuts every connection.
pub(super) struct Server {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// A port on 127.0.0.1; 0 is any that is free.
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
            // It ends at its next step, and a panic there has been printed already.
            thread.join().ok();
        }
    }
}

/// Returns when `stopped`'s other end is dropped; the runtime, which is dropped then, drops every connection.
fn serve(runtime: &Runtime, sites: Vec<Site>, stopped: oneshot::Receiver<Infallible>) {
    runtime.block_on(async move {
        for site in sites {
            tokio::spawn(accept(site));
        }
        stopped.await.ok();
    });
}

async fn accept(site: Site) {
    let Site { listener, answer, read_timeout, .. } = site;
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        #[cfg(feature = "emulator-tls")]
        let tls = site.tls.clone();
        tokio::spawn(async move {
            #[cfg(feature = "emulator-tls")]
            let stream = secure(stream, tls, read_timeout).await;
            #[cfg(not(feature = "emulator-tls"))]
            let stream = plain(stream, read_timeout);
            if let Some(stream) = stream {
                converse(stream, answer, read_timeout).await;
            }
            drop(place);
        });
    }
}

fn plain(stream: TcpStream, read_timeout: Duration) -> Option<Stream> {
    // An answer is written as a whole, and waiting for more of it only makes tests slow.
    stream.set_nodelay(true).ok()?;
    Some(Stream::new(Inner::Plain(stream), read_timeout))
}

#[cfg(feature = "emulator-tls")]
async fn secure(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    read_timeout: Duration,
) -> Option<Stream> {
    let Some(tls) = tls else { return plain(stream, read_timeout) };
    stream.set_nodelay(true).ok()?;
    let secured = tokio::time::timeout(read_timeout, tls.accept(stream)).await.ok()?;
    secured.ok().map(|stream| Stream::new(Inner::Tls(Box::new(stream)), read_timeout))
}

/// Answers the requests of one connection, one after the other.
async fn converse(stream: Stream, answer: Arc<Answer>, read_timeout: Duration) {
    let fate = Fate::default();
    let conversation =
        Conversation { answer, fate: fate.clone(), doubted: stream.doubted(), requests: AtomicUsize::new(0) };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), conversation);
    let end = poll_fn(|context| {
        let polled = connection.poll_without_shutdown(context);
        match fate.end() {
            Some(end) => Poll::Ready(end),
            None => polled.map(|_| End::Itself),
        }
    })
    .await;
    connection.into_parts().io.into_inner().finish(end).await;
}

struct Conversation {
    answer: Arc<Answer>,
    fate: Fate,
    doubted: Doubted,
    requests: AtomicUsize,
}

impl hyper::service::Service<Request<Incoming>> for Conversation {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let problem = if self.doubted.is(number) {
            Some("a request gives its length once, by Content-Length or by Transfer-Encoding")
        } else {
            problem_of_host(&request)
        };
        if let Some(problem) = problem {
            let mut response = answer::json(StatusCode::BAD_REQUEST, &json!({ "error": problem }));
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
