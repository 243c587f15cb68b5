//! The key on every request of a tower client.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::answer_body::{AnswerBody, ReadAhead};
use super::sender::{Sender, Unsent};
use super::{GuardError, OriginGuard};
use crate::handle::{Closed, KeyHandle, Snapshot};
use crate::issuer::Issuer;

/// Puts the key in force on every request of a tower client over [`http::Request`], if the request goes to the guard's
/// origin, and refuses every other request before the client sees it.
///
/// Each response carries a [`Sent`](super::Sent) among its extensions. Where its status is one for which the issuer
/// documents a body, and it is neither a 2xx nor a 429, the layer reads up to 64 KiB of the body before it gives the
/// response on, and then gives the body back whole; a longer, broken or compressed one is inconclusive. When the issuer
/// says that it does not know the key, the generation that was sent is reported to the handle. The layer logs nothing.
///
/// # Where it belongs
/// - **Inside any redirect follower**, so that each hop is guarded; the client below must follow none of its own, and
///   use no proxy unasked.
/// - **Inside any retry layer**, such as [`RetryLayer`](super::RetryLayer), so that each attempt is guarded and gets the
///   key in force at that moment.
/// - A deadline is yours: a body that trickles in is read for as long as you let it.
///
/// ```
/// use keysheath::{client::{BearerLayer, OriginGuard}, handle::KeyHandle, issuer::Kanal, key::ApiKey};
/// use tower::{Layer, Service, service_fn};
///
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let client = service_fn(async |request: http::Request<()>| {
///     assert!(request.headers()["authorization"].is_sensitive());
///     Ok::<_, std::io::Error>(http::Response::new(String::new()))
/// });
/// let mut client = BearerLayer::new(handle, OriginGuard::new()).layer(client);
///
/// let request = http::Request::get("https://api.getkanal.com/api/v1/stores/123/orders").body(()).unwrap();
/// let answered = client.call(request);
/// # Ok::<(), keysheath::format::FormatError>(())
/// ```
pub struct BearerLayer<I: Issuer> {
    sender: Arc<Sender<I>>,
}

/// A client with a [`BearerLayer`] around it.
///
/// ```
/// use keysheath::{client::{BearerLayer, BearerService, OriginGuard}, handle::KeyHandle, issuer::Kanal, key::ApiKey};
/// use tower::Layer;
///
/// struct Shop<C> {
///     client: BearerService<C, Kanal>,
/// }
///
/// # struct Client;
/// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let shop = Shop { client: BearerLayer::new(handle, OriginGuard::new()).layer(Client) };
/// # Ok::<(), keysheath::format::FormatError>(())
/// ```
pub struct BearerService<S, I: Issuer> {
    inner: S,
    sender: Arc<Sender<I>>,
}

/// Why a request got no response.
///
/// The client's own error is neither shown nor a source of this one, because several libraries print secrets in theirs;
/// [`BearerError::into_inner`] takes it out.
///
/// ```
/// use keysheath::client::{BearerError, GuardError};
///
/// let refused = BearerError::<std::io::Error>::Guard(GuardError::UserInfo);
/// assert!(refused.to_string().contains("remove it"));
/// assert!(refused.into_inner().is_none());
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BearerError<E> {
    /// The request must not carry the key. It was not sent.
    #[error("{0}")]
    Guard(GuardError),
    /// No key is in force. Nothing was sent.
    #[error("{0}")]
    Closed(Closed),
    /// The client below failed; the request may have been sent.
    #[error(
        "the HTTP client below the bearer layer failed, and the request may have reached the issuer: \
         take the client's own error out with into_inner, it is not shown here because it may hold a secret"
    )]
    Inner(E),
}

pin_project! {
    /// The response of a [`BearerService`], to be awaited.
    ///
    /// ```
    /// use keysheath::client::{BearerFuture, BearerService};
    /// use keysheath::issuer::Kanal;
    /// use tower::Service;
    ///
    /// /// The future of a `BearerService` around the client `C`.
    /// type Answering<C, R> = BearerFuture<<C as Service<http::Request<()>>>::Future, R, Kanal>;
    /// ```
    pub struct BearerFuture<F, R, I>
    where
        R: Body,
        I: Issuer,
    {
        #[pin]
        state: State<F, R, I>,
        sender: Arc<Sender<I>>,
    }
}

pin_project! {
    #[project = StateProjected]
    enum State<F, R, I>
    where
        R: Body,
        I: Issuer,
    {
        Refused { error: Option<Unsent> },
        Sending { #[pin] future: F, snapshot: Option<Snapshot<I>> },
        Reading { reading: Option<Reading<R, I>> },
    }
}

/// A response whose body is being read.
struct Reading<R: Body, I: Issuer> {
    parts: response::Parts,
    ahead: ReadAhead<R>,
    snapshot: Snapshot<I>,
}

impl<I: Issuer> BearerLayer<I> {
    /// A layer that sends the handle's key where the guard lets it go.
    ///
    /// ```
    /// # use keysheath::{client::{BearerLayer, OriginGuard}, handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let layer = BearerLayer::new(handle.clone(), OriginGuard::new());
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { sender: Arc::new(Sender::new(handle, guard)) }
    }
}

impl<E> BearerError<E> {
    /// The error of the client below, if it is one.
    ///
    /// ```
    /// # use keysheath::client::BearerError;
    /// let error = BearerError::Inner(std::io::Error::from(std::io::ErrorKind::TimedOut));
    /// assert!(!error.to_string().contains("timed out"));
    /// assert_eq!(error.into_inner().unwrap().kind(), std::io::ErrorKind::TimedOut);
    /// ```
    #[must_use]
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Guard(_) | Self::Closed(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

impl<S, I: Issuer> Layer<S> for BearerLayer<I> {
    type Service = BearerService<S, I>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerService { inner, sender: Arc::clone(&self.sender) }
    }
}

impl<S, I, B, R> Service<Request<B>> for BearerService<S, I>
where
    S: Service<Request<B>, Response = Response<R>>,
    I: Issuer,
    R: Body,
{
    type Response = Response<AnswerBody<R>>;
    type Error = BearerError<S::Error>;
    type Future = BearerFuture<S::Future, R, I>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(BearerError::Inner)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let state = match self.sender.authorize(&mut request) {
            Ok(snapshot) => State::Sending { future: self.inner.call(request), snapshot: Some(snapshot) },
            Err(error) => State::Refused { error: Some(error) },
        };
        BearerFuture { state, sender: Arc::clone(&self.sender) }
    }
}

impl<F, R, E, I> Future for BearerFuture<F, R, I>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
    I: Issuer,
{
    type Output = Result<Response<AnswerBody<R>>, BearerError<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const OVER: &str = "a future is not polled again once it is ready";

        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjected::Refused { error } => {
                    return Poll::Ready(Err(match error.take().expect(OVER) {
                        Unsent::Guard(error) => BearerError::Guard(error),
                        Unsent::Closed(closed) => BearerError::Closed(closed),
                    }));
                }
                StateProjected::Sending { future, snapshot } => {
                    let response = ready!(future.poll(context)).map_err(BearerError::Inner)?;
                    let snapshot = snapshot.take().expect(OVER);
                    let (parts, body) = response.into_parts();
                    if !Sender::<I>::is_telling(parts.status, body.size_hint().lower()) {
                        let body = AnswerBody::untouched(body);
                        return Poll::Ready(Ok(this.sender.answered(snapshot.generation(), parts, body)));
                    }
                    let ahead = ReadAhead::new(body);
                    this.state.set(State::Reading { reading: Some(Reading { parts, ahead, snapshot }) });
                }
                StateProjected::Reading { reading } => {
                    ready!(reading.as_mut().expect(OVER).ahead.poll(context));
                    let Reading { parts, ahead, snapshot } = reading.take().expect(OVER);
                    return Poll::Ready(Ok(this.sender.answered(
                        snapshot.generation(),
                        parts,
                        ahead.into_body(),
                    )));
                }
            }
        }
    }
}

impl<I: Issuer> Clone for BearerLayer<I> {
    fn clone(&self) -> Self {
        Self { sender: Arc::clone(&self.sender) }
    }
}

impl<S: Clone, I: Issuer> Clone for BearerService<S, I> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), sender: Arc::clone(&self.sender) }
    }
}

impl<I: Issuer> fmt::Debug for BearerLayer<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerLayer({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}

impl<S, I: Issuer> fmt::Debug for BearerService<S, I> {
    /// Without the client, which may print what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerService({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}

impl<E> fmt::Debug for BearerError<E> {
    /// Without the client's own error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(error) => f.debug_tuple("Guard").field(error).finish(),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
            Self::Inner(_) => f.write_str("Inner(..)"),
        }
    }
}

impl<F, R: Body, I: Issuer> fmt::Debug for BearerFuture<F, R, I> {
    /// Without the request or the response that is under way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Refused { .. } => "BearerFuture(refused)",
            State::Sending { .. } => "BearerFuture(sending)",
            State::Reading { .. } => "BearerFuture(reading the answer)",
        })
    }
}
