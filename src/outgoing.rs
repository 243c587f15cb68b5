//! Requests of our own: no proxy, no redirects, one deadline for the whole, and a bounded answer. What is sent in a
//! header that is marked sensitive or in a secret body, and the body of an answer, is in no log line and in no freed block of
//! ours afterwards.
//!
//! Who may be given a key is the caller's to decide, with an origin guard.

mod intake;
mod names;
mod wiping;

use std::io::{self, Read as _};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{HeaderValue, Request};
use ureq::config::AutoHeaderValue;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use ureq::{Agent, AsSendBody, Body};
use zeroize::Zeroizing;

use crate::failure::Obstacle;
use crate::origin::Roots;
use intake::Intake;
use names::Names;
use wiping::Wiping;

/// How long a request may take at most, whatever is asked for; far below where adding to a clock would overflow.
pub(crate) const MAX_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// The largest body that is read, in bytes; documented answers have under 1 KiB.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;

/// How requests are sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    deadline: Duration,
    roots: Option<Roots>,
}

/// What came back, whole.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<HeaderValue>,
    pub(crate) is_web_page: bool,
    /// It may echo the key.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Outgoing {
    pub(crate) const fn new(deadline: Duration) -> Self {
        Self { deadline, roots: None }
    }

    #[cfg(feature = "probe")]
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
    #[cfg(feature = "probe")]
    pub(crate) fn send(&self, mut request: Request<impl AsSendBody>) -> Result<Reply, Obstacle> {
        let wiping = Wiping::take_from(request.headers_mut());
        self.exchange(request, wiping)
    }

    /// As [`Outgoing::send`], with a body that is secret.
    #[cfg(feature = "oauth")]
    pub(crate) fn send_secret(&self, request: Request<Zeroizing<Vec<u8>>>) -> Result<Reply, Obstacle> {
        let (mut parts, body) = request.into_parts();
        let (wiping, placeholder) = Wiping::take_from(&mut parts.headers).with_body(body);
        self.exchange(Request::from_parts(parts, placeholder), wiping)
    }

    fn exchange(&self, request: Request<impl AsSendBody>, wiping: Wiping) -> Result<Reply, Obstacle> {
        let intake = wiping.intake();
        let response = self.agent(wiping).run(request).map_err(|error| self.obstacle(error))?;
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        // The body of a redirect is nobody's concern.
        if parts.status.is_redirection() {
            return Err(Obstacle::Redirect { status });
        }
        let body = self.read(body, &intake)?;
        Ok(Reply {
            status,
            retry_after: parts.headers.get(RETRY_AFTER).cloned(),
            is_web_page: is_web_page(&parts.headers, &body),
            body,
        })
    }

    fn agent(&self, wiping: Wiping) -> Agent {
        let config = Agent::config_builder()
            // Unasked, ureq would take one from the environment, even for a loopback address.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(self.deadline))
            .max_idle_connections(0)
            // What another crate turns on in ureq, such as gzip, changes nothing here.
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("keysheath/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(self.root_certs()).build())
            .build();
        Agent::with_parts(config, DefaultConnector::new().chain(wiping), Names)
    }

    fn root_certs(&self) -> RootCerts {
        match &self.roots {
            None => RootCerts::WebPki,
            Some(roots) => {
                roots.der().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into()
            }
        }
    }

    /// Reads to the end. What ureq gives is a stand-in; the body itself is in the intake.
    fn read(&self, mut body: Body, intake: &Intake) -> Result<Zeroizing<Vec<u8>>, Obstacle> {
        let mut reader = body.as_reader();
        let mut stand_in = vec![0; 8 * 1024];
        let mut length = 0;
        loop {
            match reader.read(&mut stand_in) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.obstacle(error.into())),
            }
            if length > MAX_ANSWER {
                return Err(Obstacle::TooLarge { limit: MAX_ANSWER });
            }
        }
        let body = intake.take();
        // Whatever ureq counted otherwise than the intake is not a body to rely upon.
        if body.len() == length { Ok(body) } else { Err(Obstacle::NotHttp) }
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
