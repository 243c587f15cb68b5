//! Repeating requests that can be repeated.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::repeating::can_be_repeated;
use crate::failure::seconds;
use crate::internal::back_off::{doubled, random_part};

/// Repeats a request that can be repeated, when the answer or the error is a passing one.
///
/// *Which requests*: those whose method is GET, HEAD, OPTIONS, PUT or DELETE, and those that carry [`Repeatable`](super::Repeatable) among
/// their extensions; the body must be `Clone`. *On what*: the statuses 429, 502, 503 and 504, and the errors that
/// [`RetryLayer::with_passing_errors`] is told of; so never on a 401, 403, 404 or 422. *When*: after as many seconds as
/// the response's `Retry-After` says; a response that asks for more than the longest wait is given back. Without the
/// header, after a wait that doubles from the first wait up to the longest, of which a random part up to a half is
/// taken off. *How often*: until the attempts are used up; then the last response or error is given back.
///
/// The bounds, each of which can be set: 3 attempts in all, a first wait of 500 ms, a longest wait of 60 s.
///
/// # Where it belongs
/// **Outside** [`BearerLayer`](super::BearerLayer), so that each attempt is guarded and gets the key in force at that
/// moment. A request that has an `Authorization` header when it comes here is sent once and not kept: a repeat of it
/// would carry a key that may have been replaced.
///
/// The layer needs no runtime: it is given the function that sleeps. A deadline over all attempts is yours.
///
/// ```
/// use keysheath::client::{BearerLayer, OriginGuard, RetryLayer};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// use tower::{ServiceBuilder, service_fn};
///
/// # let client = service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(String::new())));
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let client = ServiceBuilder::new()
///     .layer(RetryLayer::new(tokio::time::sleep).with_attempts(5))
///     .layer(BearerLayer::new(handle, OriginGuard::new()))
///     .service(client);
/// # tower::ServiceExt::<http::Request<String>>::oneshot(client, http::Request::default());
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[derive(Clone)]
pub struct RetryLayer<W, P = NoErrors> {
    settings: Settings,
    sleep: W,
    passing: P,
}

/// A client with a [`RetryLayer`] around it.
///
/// ```
/// use keysheath::client::{Retry, RetryLayer};
/// use tower::Layer;
///
/// # struct Client;
/// let client: Retry<Client, _> = RetryLayer::new(tokio::time::sleep).layer(Client);
/// ```
#[derive(Clone)]
pub struct Retry<S, W, P = NoErrors> {
    inner: S,
    settings: Settings,
    sleep: W,
    passing: P,
}

/// No error is a passing one: what a [`RetryLayer`] starts from.
///
/// ```
/// use keysheath::client::{NoErrors, RetryLayer};
/// fn three_times<W>(sleep: W) -> RetryLayer<W, NoErrors> {
///     RetryLayer::new(sleep)
/// }
/// # three_times(());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoErrors;

/// Which errors pass by themselves. A function of the error is one.
///
/// ```
/// # use keysheath::client::RetryLayer;
/// // Implemented for every such function.
/// let layer = RetryLayer::new(tokio::time::sleep).with_passing_errors(|error: &std::io::Error| error.raw_os_error().is_some());
/// ```
pub trait Passing<E> {
    /// Whether a request that failed so may be sent again.
    fn is_passing(&self, error: &E) -> bool;
}

#[derive(Clone, Copy)]
struct Settings {
    attempts: u32,
    first_wait: Duration,
    longest_wait: Duration,
}

pin_project! {
    /// The response of a [`Retry`], to be awaited.
    ///
    /// ```
    /// use keysheath::client::RetryFuture;
    ///
    /// /// Of the client `C`, with tokio's clock.
    /// type Answering<C> = RetryFuture<C, String, fn(std::time::Duration) -> tokio::time::Sleep, tokio::time::Sleep>;
    /// ```
    pub struct RetryFuture<S, B, W, D, P = NoErrors>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future, D>,
        inner: S,
        // What to send again; none once it must not be.
        again: Option<Request<B>>,
        failed: u32,
        settings: Settings,
        sleep: W,
        passing: P,
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
    /// Three attempts in all; `sleep` is a function from a [`Duration`] to a future, such as `tokio::time::sleep`.
    ///
    /// ```
    /// # use keysheath::client::RetryLayer;
    /// let layer = RetryLayer::new(tokio::time::sleep);
    /// ```
    #[must_use]
    pub const fn new(sleep: W) -> Self {
        let settings = Settings {
            attempts: 3,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
        };
        Self { settings, sleep, passing: NoErrors }
    }
}

impl<W, P> RetryLayer<W, P> {
    /// How often a request is sent in all; 0 counts as 1.
    ///
    /// ```
    /// # use keysheath::client::RetryLayer;
    /// let layer = RetryLayer::new(tokio::time::sleep).with_attempts(5);
    /// ```
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }

    /// How long to wait before the second attempt where the response does not say; it doubles with each attempt.
    ///
    /// ```
    /// # use keysheath::client::RetryLayer;
    /// # use std::time::Duration;
    /// let layer = RetryLayer::new(tokio::time::sleep).with_first_wait(Duration::from_secs(2));
    /// ```
    #[must_use]
    pub const fn with_first_wait(mut self, wait: Duration) -> Self {
        self.settings.first_wait = wait;
        self
    }

    /// The longest that is waited before any attempt, whatever the response asks for.
    ///
    /// ```
    /// # use keysheath::client::RetryLayer;
    /// # use std::time::Duration;
    /// let layer = RetryLayer::new(tokio::time::sleep).with_longest_wait(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub const fn with_longest_wait(mut self, wait: Duration) -> Self {
        self.settings.longest_wait = wait;
        self
    }

    /// Which errors pass by themselves, such as a connection that was refused. Where the request may have arrived, one that
    /// can be repeated may arrive twice.
    ///
    /// ```
    /// use keysheath::client::{BearerError, RetryLayer};
    ///
    /// let layer = RetryLayer::new(tokio::time::sleep).with_passing_errors(
    ///     |error: &BearerError| matches!(error, BearerError::Inner(error) if !error.may_have_arrived()),
    /// );
    /// ```
    #[must_use]
    pub fn with_passing_errors<E, Q: Fn(&E) -> bool>(self, passing: Q) -> RetryLayer<W, Q> {
        RetryLayer { settings: self.settings, sleep: self.sleep, passing }
    }
}

impl<E> Passing<E> for NoErrors {
    fn is_passing(&self, _: &E) -> bool {
        false
    }
}

impl<E, F: Fn(&E) -> bool> Passing<E> for F {
    fn is_passing(&self, error: &E) -> bool {
        self(error)
    }
}

impl<S, W: Clone, P: Clone> Layer<S> for RetryLayer<W, P> {
    type Service = Retry<S, W, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, settings: self.settings, sleep: self.sleep.clone(), passing: self.passing.clone() }
    }
}

impl<S, B, R, W, D, P> Service<Request<B>> for Retry<S, W, P>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Clone,
    W: Fn(Duration) -> D + Clone,
    D: Future<Output = ()>,
    P: Passing<S::Error> + Clone,
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
        .then(|| request.clone());
        // The one that is ready goes with this request, and a clone takes its place.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        RetryFuture {
            state: State::Sending { future: inner.call(request) },
            inner,
            again,
            failed: 0,
            settings: self.settings,
            sleep: self.sleep.clone(),
            passing: self.passing.clone(),
        }
    }
}

impl<S, B, R, W, D, P> Future for RetryFuture<S, B, W, D, P>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Clone,
    W: Fn(Duration) -> D,
    D: Future<Output = ()>,
    P: Passing<S::Error>,
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
                            this.passing.is_passing(error).then(|| this.settings.back_off(*this.failed))
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
                    let request = request.expect("what is waited for is sent again");
                    this.state.set(State::Sending { future: this.inner.call(request) });
                }
            }
        }
    }
}

impl Settings {
    /// How long to wait before the request is sent again; none where the response is to be given back.
    fn wait_after<R>(&self, response: &Response<R>, failed: u32) -> Option<Duration> {
        let passing = matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if !passing {
            return None;
        }
        let asked = response.headers().get(RETRY_AFTER).map(HeaderValue::as_bytes).and_then(seconds);
        match asked {
            // To come back at once is what a busy server least needs.
            None | Some(Duration::ZERO) => Some(self.back_off(failed)),
            Some(asked) => (asked <= self.longest_wait).then_some(asked),
        }
    }

    fn back_off(&self, failed: u32) -> Duration {
        let wait = doubled(self.first_wait, failed, self.longest_wait);
        // So that clients that failed together do not come back together.
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
    /// Without the client, which may print what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry({:?})", self.settings)
    }
}

impl<S: Service<Request<B>>, B, W, D, P> fmt::Debug for RetryFuture<S, B, W, D, P> {
    /// Without the request that is under way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryFuture({} attempts failed, {:?})", self.failed, self.settings)
    }
}
