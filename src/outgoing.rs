//! Requests of our own: no proxy, no redirects, one deadline for the whole, and a bounded answer. What is sent in a
//! header that is marked sensitive or in a body, and the body of the answer, is in no log line and in no freed block
//! afterwards.
//!
//! Who may be given a key is the caller's to decide, with an origin guard.

mod framing;
mod names;
mod wiping;

use std::io::{self, Read as _};
#[cfg(feature = "openbao")]
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(any(feature = "oauth", feature = "probe"))]
use http::HeaderValue;
#[cfg(any(feature = "oauth", feature = "probe"))]
use http::header::RETRY_AFTER;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response};
use ureq::config::AutoHeaderValue;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use crate::failure::Obstacle;
use crate::origin::Roots;
use names::Names;
use wiping::{Ended, Exchange, Wiping};

/// How long a request may take at most, whatever is asked for; far below where adding to a clock would overflow.
pub(crate) const MAX_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// The largest body that is read, in bytes; documented answers have under 1 KiB.
#[cfg(any(feature = "oauth", feature = "probe"))]
pub(crate) const MAX_ANSWER: usize = 64 * 1024;

/// How long a connection that is kept may rest before another one is made.
#[cfg(feature = "openbao")]
const LONGEST_REST: Duration = Duration::from_secs(15);

/// How many connections at rest are kept.
#[cfg(feature = "openbao")]
const MAX_KEPT: usize = 4;

/// How requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    deadline: Duration,
    roots: Option<Roots>,
    limit: usize,
}

/// What came back, whole.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Without what only the connection is concerned with.
    pub(crate) headers: HeaderMap,
    pub(crate) is_web_page: bool,
    /// It may echo the key.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// A connection, or what makes one: for one exchange at a time.
struct Line {
    agent: Agent,
    exchange: Exchange,
}

impl Outgoing {
    pub(crate) const fn new(deadline: Duration, limit: usize) -> Self {
        Self { deadline, roots: None, limit }
    }

    #[cfg(any(feature = "openbao", feature = "probe"))]
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_DEADLINE);
        self
    }

    pub(crate) fn with_roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Sends one request over a connection of its own, and reads the whole answer. Blocks, at most until the
    /// deadline.
    #[cfg(any(feature = "oauth", feature = "probe"))]
    pub(crate) fn send(&self, request: Request<Zeroizing<Vec<u8>>>) -> Result<Reply, Obstacle> {
        let reply = self.exchange(&self.line(0), request)?;
        // The body of a redirect is nobody's concern.
        if (300..400).contains(&reply.status) {
            return Err(Obstacle::Redirect { status: reply.status });
        }
        Ok(reply)
    }

    fn exchange(&self, line: &Line, request: Request<Zeroizing<Vec<u8>>>) -> Result<Reply, Obstacle> {
        let (mut parts, body) = request.into_parts();
        let body = line.exchange.begin(&mut parts.headers, body, self.limit);
        let answer = if body.is_empty() {
            line.run(Request::from_parts(parts, ()), self.deadline)
        } else {
            line.run(Request::from_parts(parts, body), self.deadline)
        };
        let counted = answer.map_err(|error| self.obstacle(error)).and_then(|answer| {
            let (parts, body) = answer.into_parts();
            Ok((parts, self.count(body)?))
        });
        // Whatever has come of it, nothing of it stays.
        let Ended { body, length, is_sent } = line.exchange.end();
        let (parts, counted) =
            counted.map_err(|obstacle| if is_sent { after_sending(obstacle) } else { obstacle })?;
        let status = parts.status.as_u16();
        // These have none, whatever follows their head (RFC 9112, section 6.3).
        let body = if matches!(status, 204 | 304) {
            Zeroizing::default()
        } else if counted == length {
            body
        } else {
            // Where ureq and the framing saw different bodies, there is none to rely on.
            return Err(Obstacle::NotHttp);
        };
        let is_web_page = is_web_page(&parts.headers, &body);
        Ok(Reply { status, headers: parts.headers, is_web_page, body })
    }

    /// What makes connections, and keeps at most `kept` of them.
    fn line(&self, kept: usize) -> Line {
        let exchange = Exchange::default();
        let config = Agent::config_builder()
            // Unasked, ureq would take one from the environment, even for a loopback address.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(kept)
            // It is wiped after each piece that comes.
            .input_buffer_size(16 * 1024)
            // What another crate turns on in ureq, such as gzip, changes nothing here.
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("keysheath/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(self.root_certs()).build());
        #[cfg(feature = "openbao")]
        let config = config.max_idle_age(LONGEST_REST);
        let connector = DefaultConnector::new().chain(Wiping(exchange.clone()));
        Line { agent: Agent::with_parts(config.build(), connector, Names), exchange }
    }

    fn root_certs(&self) -> RootCerts {
        match &self.roots {
            None => RootCerts::WebPki,
            Some(roots) => {
                roots.der().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into()
            }
        }
    }

    /// Reads the placeholder of a body to its end, and gives its length.
    fn count(&self, mut body: Body) -> Result<usize, Obstacle> {
        let mut reader = body.as_reader();
        let mut piece = [0; 4096];
        let mut length = 0;
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(length),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.obstacle(error.into())),
            }
            if length > self.limit {
                return Err(Obstacle::TooLarge { limit: self.limit });
            }
        }
    }

    /// What an error means; its text may show what was sent and is dropped.
    fn obstacle(&self, error: ureq::Error) -> Obstacle {
        match error {
            ureq::Error::Timeout(_) => Obstacle::Deadline { after: self.deadline },
            ureq::Error::HostNotFound => Obstacle::HostNotFound,
            ureq::Error::Tls(_) | ureq::Error::TlsRequired | ureq::Error::Rustls(_) => Obstacle::Tls,
            ureq::Error::Protocol(_) => Obstacle::NotHttp,
            ureq::Error::LargeResponseHeader(_, limit) => Obstacle::TooLarge { limit },
            ureq::Error::Io(error) => of_io(&error),
            ureq::Error::BodyStalled => Obstacle::Broken,
            _ => Obstacle::Local,
        }
    }
}

impl Line {
    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        deadline: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(deadline)).build();
        self.agent.run(request)
    }
}

#[cfg(any(feature = "oauth", feature = "probe"))]
impl Reply {
    /// The value of its `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<&[u8]> {
        self.headers.get(RETRY_AFTER).map(HeaderValue::as_bytes)
    }
}

/// Connections that are kept, so that the next request need not make one.
#[cfg(feature = "openbao")]
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Line>>>);

#[cfg(feature = "openbao")]
impl Kept {
    /// Sends a request that can be repeated over a connection that was kept, where there is one, and reads the whole
    /// answer, redirects included. A connection that has ended meanwhile is replaced. `request` makes the request.
    pub(crate) fn send(
        &self,
        outgoing: &Outgoing,
        request: impl Fn() -> Request<Zeroizing<Vec<u8>>>,
    ) -> Result<Reply, Obstacle> {
        let kept = self.lock().pop();
        if let Some(line) = kept {
            match outgoing.exchange(&line, request()) {
                Err(Obstacle::Broken) => {}
                answer => return self.keep(line, answer),
            }
        }
        let line = outgoing.line(1);
        let answer = outgoing.exchange(&line, request());
        self.keep(line, answer)
    }

    fn keep(&self, line: Line, answer: Result<Reply, Obstacle>) -> Result<Reply, Obstacle> {
        let mut kept = self.lock();
        if answer.is_ok() && kept.len() < MAX_KEPT {
            kept.push(line);
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "openbao")]
impl Outgoing {
    /// As [`Outgoing::send`], redirects included: they are the caller's to judge.
    pub(crate) fn send_once(&self, request: Request<Zeroizing<Vec<u8>>>) -> Result<Reply, Obstacle> {
        self.exchange(&self.line(0), request)
    }
}

/// What says of a request that it was not sent says something else of one that was: TLS that breaks in the middle of the answer, a
/// network that goes away meanwhile.
const fn after_sending(obstacle: Obstacle) -> Obstacle {
    match obstacle {
        Obstacle::HostNotFound | Obstacle::NotListening | Obstacle::Unreachable | Obstacle::Tls => {
            Obstacle::Broken
        }
        other => other,
    }
}

fn of_io(error: &io::Error) -> Obstacle {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Obstacle::NotListening,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied => Obstacle::Unreachable,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Obstacle::Broken,
        // The way in which rustls says that a handshake or a record is not right.
        io::ErrorKind::InvalidData => Obstacle::Tls,
        _ => Obstacle::Local,
    }
}

fn is_web_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let html = headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.len() >= 9 && value[..9].eq_ignore_ascii_case(b"text/html")
    });
    html || body.trim_ascii_start().first() == Some(&b'<')
}
