//! A connection: plain or over TLS, and how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::Framing;

/// How long what a client still sends is read and thrown away after the answer, and at most how much. Closing at once
/// would reset the connection, and the client might never see the answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 16 * 1024 * 1024;

/// What requests and answers travel on.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Inner,
    /// How long a client may take no byte of an answer.
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    framing: Framing,
    doubted: Doubted,
}

#[derive(Debug)]
pub(super) enum Inner {
    Plain(TcpStream),
    #[cfg(feature = "emulator-tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// How a connection ends by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself: the client closed it, or it may not be used again.
    Itself,
    /// With a TCP RST.
    Reset,
    /// In the middle of an answer.
    Cut,
}

/// Lets a request end the connection that it came on. The connection looks at it after each step of its own, which the
/// request is a part of, so there is nobody to wake.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

impl Fate {
    /// Waits for the connection to be reset, and so for ever.
    pub(super) async fn reset(&self) -> std::convert::Infallible {
        self.0.store(1, Ordering::Relaxed);
        std::future::pending().await
    }

    fn cut(&self) {
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

/// The number of a request on a connection, counted from 1, that gives its length twice; 0 where there was none.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubted(Arc<AtomicUsize>);

impl Doubted {
    pub(super) fn is(&self, request: usize) -> bool {
        self.0.load(Ordering::Relaxed) == request
    }
}

/// The first half of a body under the length of the whole, after which the connection is cut.
pub(super) fn truncated(whole: &Bytes, fate: Fate) -> Body {
    let first = Some(whole.slice(..whole.len() / 2)).filter(|first| !first.is_empty());
    Body::new(Truncated { first, length: whole.len().max(1) as u64, fate })
}

struct Truncated {
    first: Option<Bytes>,
    length: u64,
    fate: Fate,
}

impl http_body::Body for Truncated {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        // What was given before is flushed in the same step, and then the connection sees its fate.
        self.fate.cut();
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

impl Stream {
    pub(super) fn new(inner: Inner, patience: Duration) -> Self {
        Self { inner, patience, stalled: None, framing: Framing::default(), doubted: Doubted::default() }
    }

    /// Which request that has come gives its length twice.
    pub(super) fn doubted(&self) -> Doubted {
        self.doubted.clone()
    }

    /// Closes the connection in this way.
    pub(super) async fn finish(mut self, end: End) {
        if end == End::Reset {
            self.socket().set_zero_linger().ok();
            return;
        }
        // A client that is gone needs nothing more, so no error here matters to anybody.
        let closing = async {
            match end {
                End::Cut => self.socket().shutdown().await.ok(),
                _ => self.shutdown().await.ok(),
            };
            let mut scratch = vec![0; 16 * 1024];
            let mut read = 0;
            while read < MAX_LINGER {
                match self.socket().read(&mut scratch).await {
                    Ok(0) | Err(_) => break,
                    Ok(more) => read += more,
                }
            }
        };
        tokio::time::timeout(LINGER, closing).await.ok();
    }

    fn socket(&mut self) -> &mut TcpStream {
        match &mut self.inner {
            Inner::Plain(stream) => stream,
            #[cfg(feature = "emulator-tls")]
            Inner::Tls(stream) => stream.get_mut().0,
        }
    }

    fn both(&mut self) -> Pin<&mut dyn Both> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream),
            #[cfg(feature = "emulator-tls")]
            Inner::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    /// Gives a client up that takes nothing.
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

trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.both().poll_read(context, buffer);
        if let Some(request) = self.framing.follow(&buffer.filled()[before..]) {
            self.doubted.0.store(request, Ordering::Relaxed);
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
        let polled = self.both().poll_write(context, bytes);
        self.in_time(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.both().poll_flush(context);
        self.in_time(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.both().poll_shutdown(context)
    }
}
