//! Outgoing HTTP: no proxy, no redirects, one deadline for the whole request, and a bounded answer. Sensitive
//! headers, bodies and answers reach no log line and no freed block.
//!
//! Where a key may be sent is decided by the caller, with an origin guard.

mod framing;
mod resolver;
mod zeroizing;

use std::io::{self, Read as _};
#[cfg(feature = "openbao")]
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "openbao")]
use std::time::Instant;

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

use crate::failure::Obstacle;
use crate::internal::bytes::WipedBytes;
#[cfg(feature = "oauth")]
use crate::internal::clocks;
#[cfg(any(feature = "oauth", feature = "openbao"))]
use crate::internal::clocks::Clocks;
#[cfg(feature = "openbao")]
use crate::internal::lock::Lock;
use crate::key::Roots;
use resolver::NameResolver;
use zeroizing::{Exchange, Finished, ZeroizingConnector};

/// How long a request may take at most, whatever is asked for; far below where adding to a clock would
/// overflow.
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
    #[cfg(feature = "oauth")]
    sending: Option<(Clocks, Duration)>,
}

/// Why nothing came back.
#[derive(Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) obstacle: Obstacle,
    /// Whether anything of the request has gone out.
    #[cfg_attr(not(feature = "oauth"), allow(dead_code, reason = "only a refresh asks"))]
    pub(crate) is_sent: bool,
}

impl From<Obstacle> for Unanswered {
    /// Of what was answered, or not sent at all.
    fn from(obstacle: Obstacle) -> Self {
        Self { obstacle, is_sent: false }
    }
}

impl From<Unanswered> for Obstacle {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.obstacle
    }
}

/// What came back, whole.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Without what only the connection is concerned with.
    pub(crate) headers: HeaderMap,
    pub(crate) is_web_page: bool,
    /// It may echo the key.
    pub(crate) body: WipedBytes,
}

/// A connection, or what makes one: for one exchange at a time.
struct Connection {
    agent: Agent,
    exchange: Exchange,
}

impl Outgoing {
    pub(crate) const fn new(deadline: Duration, limit: usize) -> Self {
        Self {
            deadline,
            roots: None,
            limit,
            #[cfg(feature = "oauth")]
            sending: None,
        }
    }

    #[cfg(any(feature = "openbao", feature = "probe"))]
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_DEADLINE);
        self
    }

    /// Sends nothing once so much has passed since `begun` by either clock, such as while the machine was
    /// suspended.
    #[cfg(feature = "oauth")]
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
    #[cfg(any(feature = "oauth", feature = "probe"))]
    pub(crate) fn send(&self, request: Request<WipedBytes>) -> Result<Reply, Unanswered> {
        let reply = self.exchange(&self.connection(0), request, self.deadline)?;
        // The body of a redirect is of no use.
        if (300..400).contains(&reply.status) {
            return Err(Unanswered { obstacle: Obstacle::Redirect { status: reply.status }, is_sent: true });
        }
        Ok(reply)
    }

    /// Within what is left of the deadline.
    fn exchange(
        &self,
        connection: &Connection,
        request: Request<WipedBytes>,
        left: Duration,
    ) -> Result<Reply, Unanswered> {
        let (mut parts, body) = request.into_parts();
        let body = connection.exchange.begin(&mut parts.headers, body, self.limit);
        let keeps_answer = self.keep_answer(connection, left);
        let answer = if body.is_empty() {
            connection.run(Request::from_parts(parts, ()), left, keeps_answer)
        } else {
            connection.run(Request::from_parts(parts, body), left, keeps_answer)
        };
        let counted = answer.map_err(|error| self.obstacle(error)).and_then(|answer| {
            let (parts, body) = answer.into_parts();
            Ok((parts, self.count(body)?))
        });
        // Whatever has come of it, nothing of it stays.
        let Finished { body, length, is_sent } = connection.exchange.end();
        let (parts, counted) = counted.map_err(|obstacle| {
            let obstacle = if is_sent { after_sending(obstacle) } else { obstacle };
            Unanswered { obstacle, is_sent }
        })?;
        let status = parts.status.as_u16();
        // These have none, whatever follows their head (RFC 9112, section 6.3).
        let body = if matches!(status, 204 | 304) {
            WipedBytes::default()
        } else if counted == length {
            body
        } else {
            // Where ureq and the framing saw different bodies, there is none to rely on.
            return Err(Unanswered { obstacle: Obstacle::NotHttp, is_sent });
        };
        let is_web_page = is_web_page(&parts.headers, &body);
        Ok(Reply { status, headers: parts.headers, is_web_page, body })
    }

    /// Has the answer kept, however late it is looked at, where it cannot be had again. Says whether it is.
    #[cfg(feature = "oauth")]
    fn keep_answer(&self, connection: &Connection, left: Duration) -> bool {
        let until = clocks::after(left);
        self.sending.map(|sending| connection.exchange.keep_answer(sending, until)).is_some()
    }

    #[cfg(not(feature = "oauth"))]
    #[expect(clippy::unused_self, reason = "with the feature it is one")]
    const fn keep_answer(&self, _: &Connection, _: Duration) -> bool {
        false
    }

    /// What makes connections, and keeps at most `kept` of them.
    fn connection(&self, kept: usize) -> Connection {
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
            .output_buffer_size(16 * 1024)
            // What another crate turns on in ureq, such as gzip, changes nothing here.
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("keysheath/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(self.root_certs()).build());
        #[cfg(feature = "openbao")]
        let config = config.max_idle_age(LONGEST_REST);
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

impl Connection {
    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        deadline: Duration,
        keeps_answer: bool,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request);
        let request = if keeps_answer {
            // ureq reads nothing once its deadline has passed, so the connection keeps the deadline.
            request.timeout_resolve(Some(deadline)).timeout_connect(Some(deadline))
        } else {
            request.timeout_global(Some(deadline))
        };
        self.agent.run(request.build())
    }
}

#[cfg(any(feature = "oauth", feature = "probe"))]
impl Reply {
    /// The value of its `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<&[u8]> {
        self.headers.get(RETRY_AFTER).map(HeaderValue::as_bytes)
    }
}

/// Connections that are kept, so that the next request need not make one, and since when each rests.
#[cfg(feature = "openbao")]
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Lock<Vec<(Connection, Clocks)>>>);

#[cfg(feature = "openbao")]
impl Pool {
    /// Sends a request that can be repeated over a connection that was kept, where there is one, and reads
    /// the whole answer, redirects included. A connection that has ended meanwhile is replaced, for what is
    /// left of the deadline. `request` makes the request.
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

    /// One that has not rested too long by either clock: over a suspend, the other end gives up.
    fn take(&self) -> Option<Connection> {
        let now = Clocks::now();
        let mut kept = self.lock();
        kept.retain(|(_, since)| !now.has_expired(*since, LONGEST_REST));
        kept.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection, answer: Result<Reply, Obstacle>) -> Result<Reply, Obstacle> {
        let mut kept = self.lock();
        if answer.is_ok() && kept.len() < MAX_KEPT {
            kept.push((connection, Clocks::now()));
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Clocks)>> {
        self.0.lock()
    }
}

#[cfg(feature = "openbao")]
impl Outgoing {
    /// As [`Outgoing::send`], redirects included: they are the caller's to judge.
    pub(crate) fn send_once(&self, request: Request<WipedBytes>) -> Result<Reply, Obstacle> {
        Ok(self.exchange(&self.connection(0), request, self.deadline)?)
    }
}

/// What says of a request that it was not sent says something else of one that was: TLS that breaks in the
/// middle of the answer, a network that goes away meanwhile.
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

#[cfg(all(test, feature = "openbao"))]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    fn head(stream: &TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && { stream }.read(&mut byte).is_ok_and(|count| count > 0) {
            head.push(byte[0]);
        }
    }

    fn request(listener: &TcpListener) -> Request<WipedBytes> {
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        Request::get(uri).body(WipedBytes::default()).unwrap()
    }

    /// Answers the first request, and keeps the connection open.
    fn first(listener: &TcpListener) -> TcpStream {
        let mut stream = listener.accept().unwrap().0;
        head(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        stream
    }

    #[test]
    fn a_kept_connection_that_breaks_late_leaves_the_rest_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = || request(&listener);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let stream = first(&listener);
                head(&stream);
                thread::sleep(Duration::from_millis(700));
                drop(stream);
                // The next one is never answered.
                let silent = listener.accept().unwrap().0;
                thread::sleep(Duration::from_secs(3));
                drop(silent);
            });
            let (kept, outgoing) = (Pool::default(), Outgoing::new(Duration::from_secs(1), 100));
            assert_eq!(kept.send(&outgoing, request).map_err(|_| ()).unwrap().status, 200);
            let start = Instant::now();
            let after = Duration::from_secs(1);
            assert_eq!(kept.send(&outgoing, request).map(|_| ()), Err(Obstacle::Deadline { after }));
            let took = start.elapsed();
            assert!(took < Duration::from_millis(1450), "one deadline, and not two: {took:?}");
            server.join().unwrap();
        });
    }

    #[test]
    fn a_connection_that_has_rested_long_by_either_clock_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = || request(&listener);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let kept_open = first(&listener);
                // Over the suspend, the other end has forgotten the first one.
                drop(first(&listener));
                drop(kept_open);
            });
            let (kept, outgoing) = (Pool::default(), Outgoing::new(Duration::from_secs(5), 100));
            assert!(kept.send(&outgoing, request).is_ok());
            let now = Clocks::now();
            for (_, since) in &mut *kept.lock() {
                // As many hours of the wall clock as the machine was suspended for.
                *since = Clocks::at(now.wall() - Duration::from_secs(7200), now.monotonic());
            }
            assert!(kept.send(&outgoing, request).is_ok());
            server.join().unwrap();
        });
    }
}
