//! The active key on every request of a tower client.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::sender::{Again, AnswerBody, Attempt, InFlight, ReadAhead, Sender};
use super::{BearerError, BoxError, OriginGuard};
use crate::handle::{KeyHandle, NewerKey, Refusal};
use crate::key::Issuer;

/// Puts the active key on every request of a tower client over [`http::Request`] that goes to the guard's
/// origin, and refuses every other request before the client sees it.
///
/// The body of each response says what was sent and what was answered: [`AnswerBody::sent`]. If the response
/// is a 401, or the issuer documents a body for its status, and it is neither a 2xx nor a 429, the layer
/// reads up to 64 KiB of the body before it returns the response, whose body is then complete again. A
/// longer, broken or compressed body is inconclusive. If the issuer says that it does not know the key, the
/// layer reports the generation that was sent to the handle; a later answer that accepts the same key revokes
/// that. The layer logs nothing.
///
/// # When the key was refused
/// With a [live](KeyHandle) handle, a request is sent a second time if the issuer's own 401 refused its key
/// and another key is available:
///
/// 1. a newer one: at once if it is active already, otherwise after the reload that the refusal requests;
/// 2. or the previous key, during its grace period. Its generation is in use until the answer has arrived.
///
/// A 401 without a body, as every answer to HEAD is, does not say whether it is the issuer's. The request is
/// still repeated by the same rules; the key is not reported as refused.
///
/// A request is repeated once, and never on a 403, 404, 422, 429 or 5xx, nor on a 401 whose body is not the
/// issuer's. The guard checks the repeated request again. If there is no other key, or the handle has no
/// active key by then because the key has leaked, the 401 is returned with its whole body. A late 401 about
/// an older generation requests no reload, and does not deactivate any key.
///
/// *Which requests*: as for [`RetryLayer`](super::RetryLayer), those whose method is GET, HEAD, OPTIONS, PUT
/// or DELETE, and those with [`Repeatable`](super::Repeatable) among their extensions. A refused request has
/// had no effect if its issuer checks the key first, as Kanal documents; Katana does not document it, so the
/// rule is conservative.
///
/// *Cost*: before such a request is sent through a live handle, the layer clones it and the client; the clone
/// carries no key. With a fixed handle nothing is cloned.
///
/// *How long*: the wait for the reload takes at most the rest of an attempt that has begun, the refresher's
/// minimum interval and one more attempt, about 21 s with its defaults. Dropping the future ends the wait.
///
/// If the client or the bodies cannot be cloned, the service has no `call` for such a request; the compiler
/// says so. Use [`BearerLayer::without_repeating`] there:
///
/// ```compile_fail
/// # use keysheath::client::{BearerLayer, OriginGuard};
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::{ApiKey, Kanal};
/// # use tower::{Layer, ServiceExt, service_fn};
/// struct Stream; // not Clone
/// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
/// # type Answer = Result<http::Response<String>, std::io::Error>;
/// # let answer = || Answer::Ok(http::Response::new(String::new()));
/// # let client = service_fn(async |_: http::Request<Stream>| answer());
/// let client = BearerLayer::new(handle, OriginGuard::new()).layer(client);
/// let response = client.oneshot(http::Request::new(Stream));
/// ```
///
/// ```
/// # use keysheath::client::{BearerLayer, OriginGuard};
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::{ApiKey, Kanal};
/// # use tower::{Layer, ServiceExt, service_fn};
/// struct Stream; // not Clone
/// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
/// # type Answer = Result<http::Response<String>, std::io::Error>;
/// # let answer = || Answer::Ok(http::Response::new(String::new()));
/// # let client = service_fn(async |_: http::Request<Stream>| answer());
/// let client = BearerLayer::new(handle, OriginGuard::new()).without_repeating().layer(client);
/// let response = client.oneshot(http::Request::new(Stream));
/// ```
///
/// # Where to put the layer
/// - **Inside any redirect follower**, so that each hop is guarded. The client inside must follow no
///   redirects, and use no proxy by default.
/// - **Inside any retry layer**, such as [`RetryLayer`](super::RetryLayer), so that each attempt is guarded
///   and gets the key that is active at that moment.
/// - Set a deadline outside: a slow body is read for as long as you wait.
///
/// ```
/// use keysheath::client::{BearerLayer, OriginGuard};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
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
/// let response = client.call(request);
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[doc(alias("authorization", "token"))]
pub struct BearerLayer<I: Issuer, M = Repeating> {
    sender: Arc<Sender<I>>,
    mode: PhantomData<fn() -> M>,
}

/// A client with a [`BearerLayer`] around it.
pub struct BearerService<S, I: Issuer, M = Repeating> {
    inner: S,
    sender: Arc<Sender<I>>,
    mode: PhantomData<fn() -> M>,
}

/// The default mode of a [`BearerLayer`]: a request whose key was refused is sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeating;

/// The mode of a [`BearerLayer`] that sends each request once; see [`BearerLayer::without_repeating`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRepeating;

#[diagnostic::on_unimplemented(
    message = "this client or this body cannot be cloned, so a request whose key was refused could not be \
               repeated",
    label = "the client inside the bearer layer and the body of the request must be `Clone`",
    note = "with `BearerLayer::new(…).without_repeating()` neither need be: a request is then sent once, and \
            a refused key is still reported"
)]
/// Implemented by the two modes of [`BearerLayer`]; sealed.
pub trait Repeats<S, B> {
    /// Returns what to repeat, and through which client. Boxed, because most futures are moved without it.
    #[doc(hidden)]
    fn keep(client: &S, request: &Request<B>) -> Option<Box<(S, Request<B>)>>;
}

// The compiler must name the trait above, whose message says what to do, instead of `Clone`.
#[diagnostic::do_not_recommend]
impl<S: Clone, B: Clone> Repeats<S, B> for Repeating {
    fn keep(client: &S, request: &Request<B>) -> Option<Box<(S, Request<B>)>> {
        Some(Box::new((client.clone(), request.clone())))
    }
}

impl<S, B> Repeats<S, B> for NotRepeating {
    fn keep(_: &S, _: &Request<B>) -> Option<Box<(S, Request<B>)>> {
        None
    }
}

impl<I: Issuer> BearerLayer<I> {
    /// Creates a layer that sends the handle's key where the guard allows it.
    #[must_use]
    pub fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { sender: Arc::new(Sender::new(handle, guard)), mode: PhantomData }
    }

    /// Sends each request once, for a client or bodies that cannot be cloned. A key that the issuer refuses
    /// is still reported, so a live handle is reloaded, and the next request has the newer key.
    #[must_use]
    pub fn without_repeating(self) -> BearerLayer<I, NotRepeating> {
        BearerLayer { sender: self.sender, mode: PhantomData }
    }
}

impl<S, I: Issuer, M> Layer<S> for BearerLayer<I, M> {
    type Service = BearerService<S, I, M>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerService { inner, sender: Arc::clone(&self.sender), mode: PhantomData }
    }
}

impl<S, I, M, B, R> Service<Request<B>> for BearerService<S, I, M>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    I: Issuer,
    M: Repeats<S, B>,
    R: Body,
{
    type Response = Response<AnswerBody<R>>;
    type Error = BearerError;
    type Future = BearerFuture<S, B, R, I>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(BearerError::readying)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let may_repeat = self.sender.may_repeat(request.method(), request.headers(), request.extensions());
        // Cloned before the key is on it.
        let again = if may_repeat { M::keep(&self.inner, &request) } else { None };
        let sender = Arc::clone(&self.sender);
        let snapshot = match sender.handle().load() {
            Ok(snapshot) => snapshot,
            Err(no_key) => return BearerFuture::not_sent(sender, BearerError::NoActiveKey(no_key)),
        };
        if let Err(error) = sender.put_on(&mut request, &snapshot) {
            return BearerFuture::not_sent(sender, BearerError::Guard(error));
        }
        let attempt = if again.is_some() { Attempt::First } else { Attempt::Only };
        let sent = Some(sender.in_flight(snapshot));
        // The client that is ready is called now; its clone is polled for readiness before a repeat.
        let state = State::Sending { future: self.inner.call(request) };
        BearerFuture { state, sent, sender, again, attempt }
    }
}

impl<I: Issuer, M> Clone for BearerLayer<I, M> {
    fn clone(&self) -> Self {
        Self { sender: Arc::clone(&self.sender), mode: PhantomData }
    }
}

impl<S: Clone, I: Issuer, M> Clone for BearerService<S, I, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), sender: Arc::clone(&self.sender), mode: PhantomData }
    }
}

impl<I: Issuer, M> fmt::Debug for BearerLayer<I, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerLayer({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}

impl<S, I: Issuer, M> fmt::Debug for BearerService<S, I, M> {
    /// Omits the client, which may print secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerService({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}

pin_project! {
    /// The future of a [`BearerService`].
    pub struct BearerFuture<S, B, R, I>
    where
        S: Service<Request<B>>,
        R: Body,
        I: Issuer,
    {
        #[pin]
        state: State<S::Future, R, I>,
        // Until the answer was judged.
        sent: Option<InFlight<I>>,
        sender: Arc<Sender<I>>,
        // The request to repeat, and the client for it; `None` once it must not be repeated.
        again: Option<Box<(S, Request<B>)>>,
        attempt: Attempt,
    }
}

pin_project! {
    #[project = StateProjected]
    enum State<F, R, I>
    where
        R: Body,
        I: Issuer,
    {
        NotSent { error: Option<Box<BearerError>> },
        Sending { #[pin] future: F },
        // What is here is boxed, because most futures are moved without it.
        Reading { reading: Option<Box<Reading<R>>> },
        // The answer that refused the key is returned if there is no other key.
        Reloading { reload: Box<NewerKey<I>>, refused: Option<Box<Refused<R, I>>> },
        Readying { refused: Option<Box<Refused<R, I>>> },
    }
}

impl<S, B, R, I> BearerFuture<S, B, R, I>
where
    S: Service<Request<B>>,
    R: Body,
    I: Issuer,
{
    #[cold]
    fn not_sent(sender: Arc<Sender<I>>, error: BearerError) -> Self {
        let state = State::NotSent { error: Some(Box::new(error)) };
        Self { state, sent: None, sender, again: None, attempt: Attempt::Only }
    }
}

/// A response whose body is being read.
struct Reading<R: Body> {
    parts: response::Parts,
    ahead: ReadAhead<R>,
}

/// The answer that refused a key, and which key.
struct Refused<R: Body, I: Issuer> {
    response: Response<AnswerBody<R>>,
    refusal: Refusal<I>,
}

impl<S, B, R, I> Future for BearerFuture<S, B, R, I>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    R: Body,
    I: Issuer,
{
    type Output = Result<Response<AnswerBody<R>>, BearerError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const OVER: &str = "`BearerFuture` polled after completion";

        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjected::NotSent { error } => {
                    return Poll::Ready(Err(*error.take().expect(OVER)));
                }
                StateProjected::Sending { future } => {
                    let response = match ready!(future.poll(context)) {
                        Ok(response) => response,
                        Err(error) => return Poll::Ready(Err(BearerError::sending(error))),
                    };
                    let (status, least_length) = (response.status(), response.body().size_hint().lower());
                    if !Sender::<I>::needs_body(status, least_length) {
                        let (sent, headers) = (this.sent.as_ref().expect(OVER), response.headers());
                        let outcome = this.sender.outcome(*this.attempt, sent, status, headers, &[]);
                        *this.sent = None;
                        return Poll::Ready(Ok(response.map(|body| AnswerBody::unread(body, outcome))));
                    }
                    let (parts, body) = response.into_parts();
                    let reading = Box::new(Reading { parts, ahead: ReadAhead::new(body) });
                    this.state.set(State::Reading { reading: Some(reading) });
                }
                StateProjected::Reading { reading } => {
                    ready!(reading.as_mut().expect(OVER).ahead.poll(context));
                    let Reading { parts, ahead } = *reading.take().expect(OVER);
                    let sent = this.sent.take().expect(OVER);
                    let (response, again) = this.sender.answered(*this.attempt, &sent, parts, ahead);
                    let Some(Again { reload, refusal }) = again else {
                        return Poll::Ready(Ok(response));
                    };
                    let refused = Some(Box::new(Refused { response, refusal }));
                    this.state.set(State::Reloading { reload: Box::new(reload), refused });
                }
                StateProjected::Reloading { reload, refused } => {
                    // Whether or not the reload succeeded, the handle's content decides now.
                    ready!(Pin::new(reload).poll(context));
                    let refused = refused.take().expect(OVER);
                    if this.sender.handle().load_instead_of(&refused.refusal).is_none() {
                        return Poll::Ready(Ok(refused.response));
                    }
                    this.state.set(State::Readying { refused: Some(refused) });
                }
                StateProjected::Readying { refused } => {
                    let again = this.again.as_mut().expect(OVER);
                    ready!(again.0.poll_ready(context)).map_err(BearerError::readying)?;
                    let (mut client, mut request) = *this.again.take().expect(OVER);
                    let refused = refused.take().expect(OVER);
                    // Loaded again, because the key may have been stopped while the client became ready.
                    let Some(snapshot) = this.sender.handle().load_instead_of(&refused.refusal) else {
                        return Poll::Ready(Ok(refused.response));
                    };
                    this.sender.put_on(&mut request, &snapshot).map_err(BearerError::Guard)?;
                    *this.sent = Some(this.sender.in_flight(snapshot));
                    *this.attempt = Attempt::Repetition;
                    this.state.set(State::Sending { future: client.call(request) });
                }
            }
        }
    }
}

impl<S, B, R, I> fmt::Debug for BearerFuture<S, B, R, I>
where
    S: Service<Request<B>>,
    R: Body,
    I: Issuer,
{
    /// Omits the request and the response.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::NotSent { .. } => "BearerFuture(not sent)",
            State::Sending { .. } if self.attempt == Attempt::Repetition => "BearerFuture(sending again)",
            State::Sending { .. } => "BearerFuture(sending)",
            State::Reading { .. } => "BearerFuture(reading the answer)",
            State::Reloading { .. } => "BearerFuture(waiting for a newer key)",
            State::Readying { .. } => "BearerFuture(waiting for the client to be ready again)",
        })
    }
}
