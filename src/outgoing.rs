//! Outgoing HTTP: no proxy, no redirects, one deadline for the whole request, and a bounded answer. Sensitive
//! headers, bodies and answers reach no log line and no freed block.
//!
//! The caller decides where a key may be sent, with an origin guard.

mod zeroizing;

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, Response, Uri};
use ureq::config::{AutoHeaderValue, Config};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use crate::failure::Obstacle;
use crate::internal::bytes::WipedBytes;
use crate::internal::threads::Lock;
use crate::internal::time::{self, Clocks};
use crate::key::Roots;
use zeroizing::{Exchange, Finished, ZeroizingConnector};

/// The longest deadline that can be set; far below where adding it to a clock would overflow.
pub(crate) const MAX_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// How long a kept connection may be idle before another one is made.
const LONGEST_REST: Duration = Duration::from_secs(15);

/// The most look-ups at a time in this process, abandoned ones included. A further one fails at once, as if
/// its deadline had passed.
const MAX_LOOKUPS: usize = 16;

/// More addresses than a host needs; ureq's list holds as many.
const MAX_ADDRESSES: usize = 16;

/// How requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    deadline: Duration,
    roots: Option<Roots>,
    limit: usize,
    sending: Option<(Clocks, Duration)>,
}

/// Why there is no answer.
#[derive(Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) obstacle: Obstacle,
    /// Whether any part of the request was sent.
    pub(crate) is_sent: bool,
}

impl From<Obstacle> for Unanswered {
    /// For a request that was answered, or not sent at all.
    fn from(obstacle: Obstacle) -> Self {
        Self { obstacle, is_sent: false }
    }
}

impl From<Unanswered> for Obstacle {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.obstacle
    }
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) is_web_page: bool,
    /// May echo the key.
    pub(crate) body: WipedBytes,
}

/// A client of one connection, for one exchange at a time.
struct Connection {
    agent: Agent,
    exchange: Exchange,
}

impl Outgoing {
    pub(crate) const fn new(deadline: Duration, limit: usize) -> Self {
        Self { deadline, roots: None, limit, sending: None }
    }

    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_DEADLINE);
        self
    }

    /// Sends nothing once `span` has passed since `begun` by either clock, such as while the machine was
    /// suspended; and reads an answer that arrived before the deadline even if it is seen later.
    pub(crate) fn sending_within(mut self, begun: Clocks, span: Duration) -> Self {
        self.sending = Some((begun, span));
        self
    }

    pub(crate) fn with_roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Sends one request over a connection of its own, and reads the whole answer. Blocks, at most until the
    /// deadline.
    pub(crate) fn send(&self, request: Request<WipedBytes>) -> Result<Reply, Unanswered> {
        let reply = self.exchange(&self.connection(0), request, self.deadline)?;
        // The body of a redirect is of no use.
        if (300..400).contains(&reply.status) {
            return Err(Unanswered { obstacle: Obstacle::Redirect { status: reply.status }, is_sent: true });
        }
        Ok(reply)
    }

    /// As [`Outgoing::send`], but returns redirects as answers.
    pub(crate) fn send_once(&self, request: Request<WipedBytes>) -> Result<Reply, Obstacle> {
        Ok(self.exchange(&self.connection(0), request, self.deadline)?)
    }

    /// Sends one request over `connection` within `left`, the rest of the deadline.
    fn exchange(
        &self,
        connection: &Connection,
        request: Request<WipedBytes>,
        left: Duration,
    ) -> Result<Reply, Unanswered> {
        let (mut parts, body) = request.into_parts();
        let body = connection.exchange.begin(&mut parts.headers, body, self.limit);
        let keeps_answer = self.sending.is_some();
        if let Some(sending) = self.sending {
            connection.exchange.keep_answer(sending, time::after(left));
        }
        let answer = if body.is_empty() {
            connection.run(Request::from_parts(parts, ()), left, keeps_answer)
        } else {
            connection.run(Request::from_parts(parts, body), left, keeps_answer)
        };
        let counted = answer.map_err(|error| self.obstacle(error)).and_then(|answer| {
            let (parts, body) = answer.into_parts();
            Ok((parts, self.count(body)?))
        });
        // Whatever the outcome, nothing of the exchange is kept.
        let Finished { body, length, is_sent } = connection.exchange.end();
        let (parts, counted) = counted.map_err(|obstacle| {
            let obstacle = if is_sent { after_sending(obstacle) } else { obstacle };
            Unanswered { obstacle, is_sent }
        })?;
        let status = parts.status.as_u16();
        // These have no body, whatever follows their head (RFC 9112, section 6.3).
        let body = if matches!(status, 204 | 304) {
            WipedBytes::default()
        } else if counted == length {
            body
        } else {
            // ureq and the framing saw different bodies, so neither can be relied on.
            return Err(Unanswered { obstacle: Obstacle::NotHttp, is_sent });
        };
        let is_web_page = is_web_page(&parts.headers, &body);
        Ok(Reply { status, headers: parts.headers, is_web_page, body })
    }

    /// Creates a client that keeps at most `kept` idle connections.
    fn connection(&self, kept: usize) -> Connection {
        let exchange = Exchange::default();
        let config = Agent::config_builder()
            // By default ureq takes one from the environment, even for a loopback address.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(kept)
            .max_idle_age(LONGEST_REST)
            // Wiped after each piece that arrives.
            .input_buffer_size(16 * 1024)
            .output_buffer_size(16 * 1024)
            // Another crate may turn on features of ureq, such as gzip.
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("keysheath/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(self.root_certs()).build());
        let connector = DefaultConnector::new().chain(ZeroizingConnector(exchange.clone()));
        Connection { agent: Agent::with_parts(config.build(), connector, NameResolver), exchange }
    }

    fn root_certs(&self) -> RootCerts {
        match &self.roots {
            None => RootCerts::WebPki,
            Some(roots) => {
                roots.der().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into()
            }
        }
    }

    /// Reads the placeholder of a body to its end, and returns its length.
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

    /// Classifies an error. Its text may contain what was sent, so it is dropped.
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

impl Connection {
    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        deadline: Duration,
        keeps_answer: bool,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request);
        let request = if keeps_answer {
            // ureq reads nothing once its deadline has passed, so the transport enforces the deadline.
            request.timeout_resolve(Some(deadline)).timeout_connect(Some(deadline))
        } else {
            request.timeout_global(Some(deadline))
        };
        self.agent.run(request.build())
    }
}

impl Reply {
    /// Returns the value of `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<&[u8]> {
        self.headers.get(RETRY_AFTER).map(HeaderValue::as_bytes)
    }
}

/// Converts an obstacle that says that nothing was sent, for a request that was sent: TLS can break in the
/// middle of an answer, and a network can disappear.
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
        // rustls reports a bad handshake or record so.
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

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Uses an address as it is, and looks a name up on a thread of its own, because the system may hang. The
/// thread is abandoned at the deadline.
#[derive(Debug)]
struct NameResolver;

/// The right to one look-up.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let next = |count| (count < MAX_LOOKUPS).then_some(count + 1);
        UNDER_WAY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(|_| Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Resolver for NameResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?.to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut addresses = self.empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            addresses.push(SocketAddr::new(address, port));
            return Ok(addresses);
        }
        let late = || ureq::Error::Timeout(timeout.reason);
        let slot = Slot::take().ok_or_else(late)?;
        let (sender, found) = mpsc::sync_channel(1);
        let look_up = move || {
            let found = (host.as_str(), port).to_socket_addrs();
            drop(slot);
            // The caller may have given up.
            let _ = sender.send(found);
        };
        thread::Builder::new().name("keysheath-names".into()).spawn(look_up)?;
        // The system's errors have no kind for a failed look-up.
        let found =
            found.recv_timeout(*timeout.after).map_err(|_| late())?.map_err(|_| ureq::Error::HostNotFound)?;
        found.take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// The most idle connections that are kept.
const MAX_KEPT: usize = 4;

/// Idle connections for the next requests, each with the time since when it is idle.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Lock<Vec<(Connection, Clocks)>>>);

impl Pool {
    /// Sends a request that can be repeated over a kept connection, if there is one, and reads the whole
    /// answer; redirects are returned as answers. If the kept connection has ended in the meantime, a new
    /// one is made within the rest of the deadline. `request` creates the request.
    pub(crate) fn send(
        &self,
        outgoing: &Outgoing,
        request: impl Fn() -> Request<WipedBytes>,
    ) -> Result<Reply, Obstacle> {
        let begun = Instant::now();
        let kept = self.take();
        if let Some(connection) = kept {
            match outgoing.exchange(&connection, request(), outgoing.deadline).map_err(Obstacle::from) {
                Err(Obstacle::Broken) => {}
                answer => return self.keep(connection, answer),
            }
        }
        let left = outgoing.deadline.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(Obstacle::Deadline { after: outgoing.deadline });
        }
        let connection = outgoing.connection(1);
        let answer = outgoing.exchange(&connection, request(), left);
        self.keep(connection, answer.map_err(Obstacle::from))
    }

    /// Takes a connection that is not idle for too long by either clock: during a suspend the server closes
    /// its end.
    fn take(&self) -> Option<Connection> {
        let now = Clocks::now();
        let mut kept = self.0.lock();
        kept.retain(|(_, since)| !now.has_expired(*since, LONGEST_REST));
        kept.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection, answer: Result<Reply, Obstacle>) -> Result<Reply, Obstacle> {
        let mut kept = self.0.lock();
        if answer.is_ok() && kept.len() < MAX_KEPT {
            kept.push((connection, Clocks::now()));
        }
        answer
    }
}

#[cfg(test)]
#[path = "../tests/units/outgoing/pool.rs"]
mod pool_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(uri: &str, timeout: NextTimeout) -> Result<Vec<SocketAddr>, ureq::Error> {
        let uri = uri.parse().expect("a URI");
        NameResolver.resolve(&uri, &Config::default(), timeout).map(|found| found.to_vec())
    }

    #[test]
    fn addresses_are_used_as_they_are_and_lookups_are_bounded() {
        let patient = NextTimeout::default();
        for (uri, expected) in [
            ("http://127.0.0.1/x", "127.0.0.1:80"),
            ("https://127.0.0.1", "127.0.0.1:443"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:8443/", "[::1]:8443"),
        ] {
            assert_eq!(resolve(uri, patient).unwrap(), [expected.parse().unwrap()], "{uri}");
        }
        assert!(resolve("http://localhost:1", patient).unwrap().iter().all(|found| found.ip().is_loopback()));

        let slots: Vec<_> = std::iter::from_fn(Slot::take).collect();
        assert_eq!(slots.len(), MAX_LOOKUPS);
        let started = Instant::now();
        assert!(matches!(resolve("http://localhost:1", patient), Err(ureq::Error::Timeout(_))));
        assert!(started.elapsed().as_secs() < 5, "it fails at once");
        assert!(resolve("http://127.0.0.1", patient).is_ok(), "an address needs no slot");
        drop(slots);
        assert!(resolve("http://localhost:1", patient).is_ok());
    }
}
