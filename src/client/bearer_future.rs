//! A request with a key under way: sent, its answer read, and where the key was refused, sent again with another.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::BearerError;
use super::answer_body::{AnswerBody, ReadAhead};
use super::bearer_error::BoxError;
use super::sender::{Again, Attempt, Sender, UnderWay, Unsent};
use crate::handle::{NewerKey, Refusal};
use crate::key::Issuer;

pin_project! {
    /// The response of a [`BearerService`](super::BearerService), to be awaited.
    ///
    /// ```
    /// use http_body_util::Empty;
    /// use keysheath::client::BearerFuture;
    /// use keysheath::key::Kanal;
    ///
    /// type NoBody = Empty<bytes::Bytes>;
    ///
    /// /// The future of a `BearerService` around the client `C`.
    /// type Answering<C> = BearerFuture<C, NoBody, NoBody, Kanal>;
    /// ```
    pub struct BearerFuture<S, B, R, I>
    where
        S: Service<Request<B>>,
        R: Body,
        I: Issuer,
    {
        #[pin]
        state: State<S::Future, R, I>,
        sender: Arc<Sender<I>>,
        // What to send a second time, and by what; none once it must not be.
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
        Refused { error: Option<Unsent> },
        Sending { #[pin] future: F, sent: Option<UnderWay<I>> },
        Reading { reading: Option<Reading<R, I>> },
        // The answer that refused the key is given back where there is no other.
        Reloading { reload: NewerKey<I>, refused: Option<Refused<R, I>> },
        Readying { refused: Option<Refused<R, I>> },
    }
}

/// A response whose body is being read.
struct Reading<R: Body, I: Issuer> {
    parts: response::Parts,
    ahead: ReadAhead<R>,
    sent: UnderWay<I>,
}

/// The answer that refused a key, and which key.
struct Refused<R: Body, I: Issuer> {
    response: Response<AnswerBody<R>>,
    refusal: Refusal<I>,
}

impl<S, B, R, I> BearerFuture<S, B, R, I>
where
    S: Service<Request<B>>,
    R: Body,
    I: Issuer,
{
    pub(super) fn sending(
        sender: Arc<Sender<I>>,
        future: S::Future,
        sent: UnderWay<I>,
        again: Option<Box<(S, Request<B>)>>,
    ) -> Self {
        let state = State::Sending { future, sent: Some(sent) };
        let attempt = if again.is_some() { Attempt::First } else { Attempt::Only };
        Self { state, sender, again, attempt }
    }

    pub(super) fn refused(sender: Arc<Sender<I>>, error: Unsent) -> Self {
        Self { state: State::Refused { error: Some(error) }, sender, again: None, attempt: Attempt::Only }
    }
}

impl<S, B, R, I> Future for BearerFuture<S, B, R, I>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    R: Body,
    I: Issuer,
{
    type Output = Result<Response<AnswerBody<R>>, BearerError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const OVER: &str = "a future is not polled again once it is ready";

        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjected::Refused { error } => {
                    return Poll::Ready(Err(match error.take().expect(OVER) {
                        Unsent::Guard(error) => BearerError::Guard(error),
                        Unsent::NoActiveKey(closed) => BearerError::NoActiveKey(closed),
                    }));
                }
                StateProjected::Sending { future, sent } => {
                    let response = ready!(future.poll(context)).map_err(BearerError::sending)?;
                    let sent = sent.take().expect(OVER);
                    let (parts, body) = response.into_parts();
                    if !Sender::<I>::is_telling(parts.status, body.size_hint().lower()) {
                        let body = AnswerBody::untouched(body);
                        let (response, _) = this.sender.answered(*this.attempt, &sent, parts, body);
                        return Poll::Ready(Ok(response));
                    }
                    let ahead = ReadAhead::new(body);
                    this.state.set(State::Reading { reading: Some(Reading { parts, ahead, sent }) });
                }
                StateProjected::Reading { reading } => {
                    ready!(reading.as_mut().expect(OVER).ahead.poll(context));
                    let Reading { parts, ahead, sent } = reading.take().expect(OVER);
                    let body = ahead.into_body();
                    let (response, again) = this.sender.answered(*this.attempt, &sent, parts, body);
                    let Some(Again { reload, refusal }) = again else {
                        return Poll::Ready(Ok(response));
                    };
                    let refused = Some(Refused { response, refusal });
                    this.state.set(State::Reloading { reload, refused });
                }
                StateProjected::Reloading { reload, refused } => {
                    // Whatever came of it, what is in the handle now decides.
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
                    // Loaded anew, because the key may have leaked while the client made itself ready.
                    let Some(snapshot) = this.sender.handle().load_instead_of(&refused.refusal) else {
                        return Poll::Ready(Ok(refused.response));
                    };
                    let sent = this.sender.put_on(&mut request, snapshot).map_err(BearerError::Guard)?;
                    *this.attempt = Attempt::Repetition;
                    let future = client.call(request);
                    this.state.set(State::Sending { future, sent: Some(sent) });
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
    /// Without the request or the response that is under way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Refused { .. } => "BearerFuture(refused)",
            State::Sending { .. } if self.attempt == Attempt::Repetition => "BearerFuture(sending again)",
            State::Sending { .. } => "BearerFuture(sending)",
            State::Reading { .. } => "BearerFuture(reading the answer)",
            State::Reloading { .. } => "BearerFuture(waiting for a newer key)",
            State::Readying { .. } => "BearerFuture(waiting for the client to be ready again)",
        })
    }
}
