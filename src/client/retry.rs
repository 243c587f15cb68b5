//! Which requests can be repeated, and retries after temporary failures.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::failure::seconds;
use crate::internal::time::{doubled, random_part};

/// Marks a request as one that can be repeated, whatever its method is: put it among the request's
/// extensions. Without it, a request is repeated if its method is GET, HEAD, OPTIONS, PUT or DELETE.
///
/// It is your responsibility that the server has the same effect for one and for two such requests.
///
/// ```
/// use keysheath::client::Repeatable;
///
/// let upsert = http::Request::post("https://api.getkanal.com/api/v1/stores/123/customers")
///     .extension(Repeatable)
///     .body(r#"{ "phone": "+33612345678" }"#)
///     .unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeatable;

/// Returns whether a request may reach the issuer twice. One that has an `Authorization` header may not: a
/// repeat of it would carry a key that may have been replaced.
pub(super) fn can_be_repeated(method: &Method, headers: &HeaderMap, extensions: &Extensions) -> bool {
    let idempotent =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    let marked = || extensions.get::<Repeatable>().is_some();
    !headers.contains_key(AUTHORIZATION) && (idempotent || marked())
}

/// Retries a request that can be repeated, if the answer or the error is a temporary failure.
///
/// - *Which requests*: those whose method is GET, HEAD, OPTIONS, PUT or DELETE, and those with [`Repeatable`]
///   among their extensions; the body must be `Clone`.
/// - *On what*: the statuses 429, 502, 503 and 504, and the errors that [`RetryLayer::with_temporary_errors`]
///   names; never on a 401, 403, 404 or 422.
/// - *When*: after the seconds in the response's `Retry-After`; a response that asks for more than the
///   longest wait is returned. Without the header, after a back-off that doubles from the first wait up to
///   the longest, less a random part of up to a half.
/// - *How often*: until the attempts are used up; then the last response or error is returned. The defaults
///   are 3 attempts in all, a first wait of 500 ms and a longest wait of 60 s.
///
/// The type `P` says which errors are temporary; `()`: no error is temporary.
///
/// # Where to put the layer
/// **Outside** [`BearerLayer`](super::BearerLayer), so that each attempt is guarded and gets the key that is
/// active at that moment. A request that has an `Authorization` header already is sent once and not kept: a
/// retry of it would carry a key that may have been replaced.
///
/// The layer needs no runtime: it takes the function that sleeps. Set a deadline over all attempts yourself.
///
/// ```
/// use keysheath::client::{BearerError, BearerLayer, OriginGuard, RetryLayer};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// use tower::{ServiceBuilder, service_fn};
///
/// # type Answer = Result<http::Response<String>, std::io::Error>;
/// # let answer = || Answer::Ok(http::Response::new(String::new()));
/// # let client = service_fn(async |_: http::Request<String>| answer());
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let retry = RetryLayer::new(tokio::time::sleep).with_attempts(5).with_temporary_errors(
///     |error: &BearerError| matches!(error, BearerError::Inner(error) if !error.may_have_arrived()),
/// );
/// let client = ServiceBuilder::new()
///     .layer(retry)
///     .layer(BearerLayer::new(handle, OriginGuard::new()))
///     .service(client);
/// # tower::ServiceExt::<http::Request<String>>::oneshot(client, http::Request::default());
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[derive(Clone)]
pub struct RetryLayer<W, P = ()> {
    settings: Settings,
    sleep: W,
    temporary: P,
}

/// A client with a [`RetryLayer`] around it.
#[derive(Clone)]
pub struct Retry<S, W, P = ()> {
    inner: S,
    settings: Settings,
    sleep: W,
    temporary: P,
}

/// Whether an error is temporary. Implemented for `Fn(&E) -> bool`, and for `()`, which treats none as
/// temporary.
pub trait Temporary<E> {
    /// Returns whether a request that failed with this error may be sent again.
    fn is_temporary(&self, error: &E) -> bool;
}

#[derive(Clone, Copy)]
struct Settings {
    attempts: u32,
    first_wait: Duration,
    longest_wait: Duration,
}

pin_project! {
    /// The future of a [`Retry`].
    pub struct RetryFuture<S, B, W, D, P = ()>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future, D>,
        inner: S,
        // The request to send again; `None` once it must not be. Boxed, so that the future is moved without
        // it.
        again: Option<Box<Request<B>>>,
        failed: u32,
        settings: Settings,
        sleep: W,
        temporary: P,
    }
}

pin_project! {
    #[project = StateProjected]
    enum State<F, D> {
        Sending { #[pin] future: F },
        Waiting { #[pin] sleep: D },
        Readying,
    }
}

impl<W> RetryLayer<W> {
    /// Creates a layer with the default settings; `sleep` is a function from a [`Duration`] to a future, such
    /// as `tokio::time::sleep`.
    #[must_use]
    pub const fn new(sleep: W) -> Self {
        let settings = Settings {
            attempts: 3,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
        };
        Self { settings, sleep, temporary: () }
    }
}

impl<W, P> RetryLayer<W, P> {
    /// Sets how often a request is sent in all; 0 counts as 1.
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }

    /// Sets the wait before the second attempt if the response does not name one; it doubles with each
    /// attempt.
    #[must_use]
    pub const fn with_first_wait(mut self, wait: Duration) -> Self {
        self.settings.first_wait = wait;
        self
    }

    /// Sets the longest wait before any attempt, whatever the response asks for.
    #[must_use]
    pub const fn with_longest_wait(mut self, wait: Duration) -> Self {
        self.settings.longest_wait = wait;
        self
    }

    /// Sets which errors are temporary, such as a refused connection; none by default. If the request may
    /// have arrived, it may arrive twice.
    #[must_use]
    pub fn with_temporary_errors<E, Q: Fn(&E) -> bool>(self, temporary: Q) -> RetryLayer<W, Q> {
        RetryLayer { settings: self.settings, sleep: self.sleep, temporary }
    }
}

impl<E> Temporary<E> for () {
    fn is_temporary(&self, _: &E) -> bool {
        false
    }
}

impl<E, F: Fn(&E) -> bool> Temporary<E> for F {
    fn is_temporary(&self, error: &E) -> bool {
        self(error)
    }
}

impl<S, W: Clone, P: Clone> Layer<S> for RetryLayer<W, P> {
    type Service = Retry<S, W, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, settings: self.settings, sleep: self.sleep.clone(), temporary: self.temporary.clone() }
    }
}

impl<S, B, R, W, D, P> Service<Request<B>> for Retry<S, W, P>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Clone,
    W: Fn(Duration) -> D + Clone,
    D: Future<Output = ()>,
    P: Temporary<S::Error> + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RetryFuture<S, B, W, D, P>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let again = (self.settings.attempts > 1
            && can_be_repeated(request.method(), request.headers(), request.extensions()))
        .then(|| Box::new(request.clone()));
        // The client that is ready is used for this request; a clone replaces it.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        RetryFuture {
            state: State::Sending { future: inner.call(request) },
            inner,
            again,
            failed: 0,
            settings: self.settings,
            sleep: self.sleep.clone(),
            temporary: self.temporary.clone(),
        }
    }
}

impl<S, B, R, W, D, P> Future for RetryFuture<S, B, W, D, P>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Clone,
    W: Fn(Duration) -> D,
    D: Future<Output = ()>,
    P: Temporary<S::Error>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjected::Sending { future } => {
                    let outcome = ready!(future.poll(context));
                    let wait = match &outcome {
                        _ if this.again.is_none() => None,
                        Ok(response) => this.settings.wait_after(response, *this.failed),
                        Err(error) => {
                            this.temporary.is_temporary(error).then(|| this.settings.back_off(*this.failed))
                        }
                    };
                    let Some(wait) = wait else {
                        return Poll::Ready(outcome);
                    };
                    *this.failed += 1;
                    this.state.set(State::Waiting { sleep: (this.sleep)(wait) });
                }
                StateProjected::Waiting { sleep } => {
                    ready!(sleep.poll(context));
                    this.state.set(State::Readying);
                }
                StateProjected::Readying => {
                    ready!(this.inner.poll_ready(context))?;
                    let last = *this.failed + 1 >= this.settings.attempts;
                    let request = if last { this.again.take() } else { this.again.clone() };
                    let request = request.expect("`RetryFuture` polled after completion");
                    this.state.set(State::Sending { future: this.inner.call(*request) });
                }
            }
        }
    }
}

impl Settings {
    /// Returns how long to wait before the request is sent again; `None` if the response is to be returned.
    fn wait_after<R>(&self, response: &Response<R>, failed: u32) -> Option<Duration> {
        let is_temporary = matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if !is_temporary {
            return None;
        }
        let asked = response.headers().get(RETRY_AFTER).map(HeaderValue::as_bytes).and_then(seconds);
        match asked {
            // A retry at once would not help a busy server.
            None | Some(Duration::ZERO) => Some(self.back_off(failed)),
            Some(asked) => (asked <= self.longest_wait).then_some(asked),
        }
    }

    fn back_off(&self, failed: u32) -> Duration {
        let wait = doubled(self.first_wait, failed, self.longest_wait);
        // So that clients that failed together do not retry together.
        wait / 2 + (wait / 2).mul_f64(random_part())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, first_wait, longest_wait } = self;
        write!(f, "{attempts} attempts, first wait {first_wait:?}, longest wait {longest_wait:?}")
    }
}

impl<W, P> fmt::Debug for RetryLayer<W, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryLayer({:?})", self.settings)
    }
}

impl<S, W, P> fmt::Debug for Retry<S, W, P> {
    /// Omits the client, which may print secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry({:?})", self.settings)
    }
}

impl<S: Service<Request<B>>, B, W, D, P> fmt::Debug for RetryFuture<S, B, W, D, P> {
    /// Omits the request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryFuture({} attempts failed, {:?})", self.failed, self.settings)
    }
}
