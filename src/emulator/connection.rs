//! One connection: plain or over TLS, where its requests begin and end, and how it is closed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long, and how many bytes at most, a client's input is read and discarded after the answer. Closing at
/// once would reset the connection, and the client might not see the answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 16 * 1024 * 1024;

/// The bytes of a connection, plain or over TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket below it.
    fn socket(&mut self) -> &mut TcpStream;
}

impl Transport for TcpStream {
    fn socket(&mut self) -> &mut TcpStream {
        self
    }
}

type Accepting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send>>;

/// Does the handshake of TLS on a connection.
pub(super) type Accept = dyn Fn(TcpStream) -> Accepting + Send + Sync;

/// A certificate that a client has to trust.
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) pem: String,
}

#[cfg(feature = "emulator-tls")]
pub(super) mod tls {
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{ServerConfig, crypto::ring};
    use tokio_rustls::{TlsAcceptor, server::TlsStream};

    use super::{Accept, Accepting, Certificate, Transport};

    impl Transport for TlsStream<TcpStream> {
        fn socket(&mut self) -> &mut TcpStream {
            self.get_mut().0
        }
    }

    /// Makes a certificate for 127.0.0.1 and localhost, signed with its own key, which never leaves the
    /// process.
    pub(in super::super) fn make() -> Option<(Arc<Accept>, Certificate)> {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).ok()?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).ok()?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .ok()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .ok()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accept = move |stream| -> Accepting {
            let accepted = acceptor.accept(stream);
            Box::pin(async { Ok(Box::new(accepted.await?) as Box<dyn Transport>) })
        };
        Some((Arc::new(accept), Certificate { der: made.cert.der().to_vec(), pem: made.cert.pem() }))
    }
}

pub(super) struct Stream {
    transport: Box<dyn Transport>,
    /// How long a client may accept no byte of an answer.
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    framing: Framing,
    ambiguous: AmbiguousLength,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it, or it may not be used again.
    Normal,
    /// With a TCP RST.
    Reset,
    /// In the middle of an answer.
    Cut,
}

/// Lets a request end its connection. The connection checks it after each of its steps, which the request is
/// a part of, so nothing has to be woken.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

impl Fate {
    /// Has the connection reset. Never returns.
    pub(super) async fn reset(&self) -> std::convert::Infallible {
        self.0.store(1, Ordering::Relaxed);
        std::future::pending().await
    }

    /// Has the connection closed in the middle of an answer.
    pub(super) fn cut(&self) {
        self.0.store(2, Ordering::Relaxed);
    }

    pub(super) fn end(&self) -> Option<End> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(End::Reset),
            _ => Some(End::Cut),
        }
    }
}

/// The number of the request on a connection, from 1, that gives its length twice; 0 if there was none.
#[derive(Clone, Debug, Default)]
pub(super) struct AmbiguousLength(Arc<AtomicUsize>);

impl AmbiguousLength {
    pub(super) fn is(&self, request: usize) -> bool {
        self.0.load(Ordering::Relaxed) == request
    }
}

impl Stream {
    pub(super) fn new(transport: Box<dyn Transport>, patience: Duration) -> Self {
        Self {
            transport,
            patience,
            stalled: None,
            framing: Framing::default(),
            ambiguous: AmbiguousLength::default(),
        }
    }

    pub(super) fn ambiguous(&self) -> AmbiguousLength {
        self.ambiguous.clone()
    }

    /// Closes the connection in this way.
    pub(super) async fn finish(mut self, end: End) {
        if end == End::Reset {
            self.transport.socket().set_zero_linger().ok();
            return;
        }
        // An error means that the client is gone, so none matters.
        let closing = async {
            match end {
                End::Cut => self.transport.socket().shutdown().await.ok(),
                _ => self.shutdown().await.ok(),
            };
            let mut scratch = vec![0; 16 * 1024];
            let mut read = 0;
            while read < MAX_LINGER {
                match self.transport.socket().read(&mut scratch).await {
                    Ok(0) | Err(_) => break,
                    Ok(more) => read += more,
                }
            }
        };
        tokio::time::timeout(LINGER, closing).await.ok();
    }

    /// Fails once the client has accepted nothing for too long.
    fn in_time<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            let patience = self.patience;
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            ready!(stalled.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.stalled = None;
        polled
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.transport).poll_read(context, buffer);
        if let Some(request) = self.framing.follow(&buffer.filled()[before..]) {
            self.ambiguous.0.store(request, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.transport).poll_write(context, bytes);
        self.in_time(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.transport).poll_flush(context);
        self.in_time(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

/// The longest line that is examined whole. The lines that matter are shorter.
const MAX_LINE: usize = 256;

/// Follows the bytes of a connection (RFC 9112, section 6), and finds a request that gives the length of its
/// body twice.
///
/// hyper reads such a request by its `Transfer-Encoding` and drops the `Content-Length`. Behind a proxy that
/// does the opposite, a server would take the body for another request, so the emulator refuses it, as RFC
/// 9112 allows.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    line: Vec<u8>,
    head: Head,
    requests: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Body {
        left: u64,
    },
    /// The line with a chunk's size.
    Size,
    Chunk {
        left: u64,
    },
    /// The line's end after a chunk.
    ChunkEnd,
    Trailer,
    /// Nothing more is examined: the connection ends here, or is not HTTP.
    Over,
}

/// What the lines of a head have said so far.
#[derive(Clone, Copy, Debug)]
struct Head {
    has_begun: bool,
    is_measured: bool,
    /// 0 without a `Content-Length`; `None` if it is not a number.
    length: Option<u64>,
    is_encoded: bool,
}

impl Framing {
    /// Reads the next bytes, and returns the number, from 1, of a request that gives its length twice.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while let [first, more @ ..] = rest {
            match self.state {
                State::Over => return None,
                State::Body { left } | State::Chunk { left } => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - skipped as u64;
                    self.state = match self.state {
                        State::Body { .. } if left == 0 => State::Head,
                        State::Body { .. } => State::Body { left },
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk { left },
                    };
                    rest = &rest[skipped..];
                }
                _ if *first == b'\n' => {
                    rest = more;
                    if self.line.last() == Some(&b'\r') {
                        self.line.pop();
                    }
                    let line = std::mem::take(&mut self.line);
                    if self.end_line(&line) {
                        self.state = State::Over;
                        return Some(self.requests);
                    }
                }
                _ => {
                    rest = more;
                    if self.line.len() < MAX_LINE {
                        self.line.push(*first);
                    }
                }
            }
        }
        None
    }

    /// Reads a line. `true` if it ends the head of a request that gives its length twice.
    fn end_line(&mut self, line: &[u8]) -> bool {
        self.state = match self.state {
            // Empty lines before a request are allowed.
            State::Head if line.is_empty() && !self.head.has_begun => State::Head,
            State::Head if line.is_empty() => {
                self.requests += 1;
                match std::mem::take(&mut self.head) {
                    Head { is_measured: true, is_encoded: true, .. } => return true,
                    Head { is_encoded: true, .. } => State::Size,
                    Head { length: Some(0), .. } => State::Head,
                    Head { length: Some(left), .. } => State::Body { left },
                    Head { length: None, .. } => State::Over,
                }
            }
            State::Head => {
                self.head.read(line);
                State::Head
            }
            State::Size => match size(line) {
                Some(0) => State::Trailer,
                Some(left) => State::Chunk { left },
                None => State::Over,
            },
            State::ChunkEnd if line.is_empty() => State::Size,
            State::Trailer if line.is_empty() => State::Head,
            State::Trailer => State::Trailer,
            _ => State::Over,
        };
        false
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { has_begun: false, is_measured: false, length: Some(0), is_encoded: false }
    }
}

impl Head {
    fn read(&mut self, line: &[u8]) {
        if !std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.is_measured = true;
            self.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
        }
        self.is_encoded |= name.eq_ignore_ascii_case(b"transfer-encoding");
    }
}

/// The size of a chunk; extensions may follow it.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the bytes whole, and in pieces of every length.
    fn found(bytes: &str) -> Option<usize> {
        let whole = Framing::default().follow(bytes.as_bytes());
        for length in 1..bytes.len() {
            let mut framing = Framing::default();
            let mut pieces = bytes.as_bytes().chunks(length);
            assert_eq!(pieces.find_map(|piece| framing.follow(piece)), whole, "{length}");
        }
        whole
    }

    #[test]
    fn a_length_given_twice_is_found_in_any_request() {
        let twice =
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: x\r\ncontent-length: 3\r\n\r\n0\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nContent-Length:  5 \r\n\r\na\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
                       5;x=y\r\na\r\n\r\n\r\nA\r\n0123456789\r\n0\r\nt: 1\r\n\r\n";
        let empty = "GET / HTTP/1.1\r\nhost: content-length\r\n\r\n";
        let none = "PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(found(twice), Some(1));
        assert_eq!(found(&twice.replace("\r\n", "\n")), Some(1));
        for before in [sized, chunked, empty, none] {
            assert_eq!(found(before), None, "{before}");
            assert_eq!(found(&format!("{before}{twice}")), Some(2), "{before}");
            assert_eq!(found(&format!("{before}\r\n{before}{twice}")), Some(3), "{before}");
        }
        assert_eq!(
            found(&format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{twice}", twice.len())),
            None
        );
    }

    #[test]
    fn input_that_is_not_http_takes_no_memory() {
        let mut framing = Framing::default();
        for _ in 0..1000 {
            assert_eq!(framing.follow(&[b'x'; 1000]), None);
        }
        assert!(framing.line.len() <= MAX_LINE);
        for bytes in
            ["POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "P\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
        {
            let mut framing = Framing::default();
            assert_eq!((framing.follow(bytes.as_bytes()), framing.state), (None, State::Over), "{bytes}");
        }
    }
}
