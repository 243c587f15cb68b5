//! What the tower layer and the reqwest middleware share: putting the key on a request, and reading an
//! answer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::retry::can_be_repeated;
use super::{BearerError, BearerHeader, GuardError, OriginGuard};
use crate::failure::{Answer, MAX_BODY, Meaning, is_documented};
use crate::handle::{Generation, KeyHandle, Known, NewerKey, Refusal, Snapshot};
use crate::key::Issuer;

/// The outcome of a request that carried a key: the generation of the key, and what the issuer answered.
/// Every response that comes through a client layer has one among its extensions, about the last attempt.
///
/// ```
/// use keysheath::{client::Sent, failure::Meaning};
///
/// fn report<B>(response: &http::Response<B>) {
///     let Some(sent) = response.extensions().get::<Sent>() else { return };
///     if sent.answer().meaning() == Meaning::StoreForbidden {
///         println!("key of generation {}: {}", sent.generation(), sent.answer());
///     }
/// }
/// # report(&http::Response::new(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    generation: Generation,
    answer: Answer,
    is_repeated: bool,
}

impl Sent {
    /// Returns the generation of the key that was sent. Another may be active by now.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns what the issuer answered.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        self.answer
    }

    /// Returns whether this answers a repeated request: the first one had another key, which the issuer
    /// refused.
    #[must_use]
    pub const fn is_repeated(&self) -> bool {
        self.is_repeated
    }
}

/// A handle, and where its key may go.
pub(super) struct Sender<I: Issuer> {
    handle: KeyHandle<I>,
    guard: OriginGuard<I>,
}

/// A request in flight. It holds the snapshot until the answer has arrived, because the generation that was
/// sent is in use until then.
pub(super) struct InFlight<I: Issuer> {
    snapshot: Snapshot<I>,
    /// When it was sent, for the handle.
    known: Known,
}

/// What to wait for before a request is repeated, and which key not to send again.
pub(super) struct Again<I: Issuer> {
    pub(super) reload: NewerKey<I>,
    pub(super) refusal: Refusal<I>,
}

/// Which attempt at a request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The only one: the request was not kept.
    Only,
    /// The request may be sent again.
    First,
    /// The request was sent before.
    Repetition,
}

impl<I: Issuer> Sender<I> {
    pub(super) const fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { handle, guard }
    }

    pub(super) const fn handle(&self) -> &KeyHandle<I> {
        &self.handle
    }

    pub(super) const fn guard(&self) -> &OriginGuard<I> {
        &self.guard
    }

    /// Returns whether a request may be repeated, so that it must be kept.
    pub(super) fn may_repeat(&self, method: &Method, headers: &HeaderMap, extensions: &Extensions) -> bool {
        self.handle.has_publisher() && can_be_repeated(method, headers, extensions)
    }

    /// Puts the active key on a request, if the guard allows it.
    pub(super) fn authorize<B>(&self, request: &mut Request<B>) -> Result<InFlight<I>, BearerError> {
        let snapshot = self.handle.load().map_err(BearerError::NoActiveKey)?;
        self.put_on(request, snapshot).map_err(BearerError::Guard)
    }

    /// Puts a key on a request, if the guard allows it. The value of the header is built once for each key.
    pub(super) fn put_on<B>(
        &self,
        request: &mut Request<B>,
        snapshot: Snapshot<I>,
    ) -> Result<InFlight<I>, GuardError> {
        self.guard.authorize(request, BearerHeader::for_snapshot(&snapshot))?;
        Ok(self.in_flight(snapshot))
    }

    /// As [`Sender::put_on`], for a request of another type.
    pub(super) fn put_on_headers(
        &self,
        uri: &Uri,
        headers: &mut HeaderMap,
        snapshot: Snapshot<I>,
    ) -> Result<InFlight<I>, GuardError> {
        self.guard.authorize_headers(uri, headers, BearerHeader::for_snapshot(&snapshot))?;
        Ok(self.in_flight(snapshot))
    }

    fn in_flight(&self, snapshot: Snapshot<I>) -> InFlight<I> {
        InFlight { snapshot, known: self.handle.known_refusals() }
    }

    /// Returns whether the body of an answer can say something about the key: the issuer documents a body for
    /// the status, or it is a 401, which may have none; and this body is not known to be longer than a
    /// documented one.
    pub(super) fn needs_body(status: StatusCode, least_length: u64) -> bool {
        let documented =
            || status == StatusCode::UNAUTHORIZED || is_documented(I::PROFILE.failures(), status.as_u16());
        let by_status_alone = status.is_success() || status == StatusCode::TOO_MANY_REQUESTS;
        !by_status_alone && least_length <= MAX_BODY as u64 && documented()
    }

    /// Classifies an answer, and reports to the handle that the issuer refused or accepted the key. If the
    /// request may be repeated, also returns what to wait for first. `whole` is `None` if the body was not
    /// read to its end.
    ///
    /// A 401 without a body, as every answer to HEAD is, does not say who refused the key. A newer key is
    /// then looked for, and the key is not reported as refused.
    pub(super) fn judge(
        &self,
        attempt: Attempt,
        sent: &InFlight<I>,
        status: StatusCode,
        headers: &HeaderMap,
        whole: Option<&[u8]>,
    ) -> (Sent, Option<Again<I>>) {
        let InFlight { snapshot, known } = sent;
        let retry_after = headers.get(RETRY_AFTER).map(HeaderValue::as_bytes);
        let answer = I::PROFILE.classify(status.as_u16(), retry_after, whole.unwrap_or_default());
        let (generation, meaning) = (snapshot.generation(), answer.meaning());
        if meaning.accepts_key() {
            self.handle.accepted(generation, *known);
        }
        let is_doubtful =
            || status == StatusCode::UNAUTHORIZED && meaning == Meaning::Inconclusive && whole == Some(&[]);
        let is_first = attempt == Attempt::First;
        let again = (meaning.refuses_key() || (is_first && is_doubtful())).then(|| {
            let refusal = snapshot.refusal(meaning.refuses_key());
            Again { reload: self.handle.reload_instead_of(&refusal), refusal }
        });
        let sent = Sent { generation, answer, is_repeated: attempt == Attempt::Repetition };
        (sent, again.filter(|_| is_first))
    }

    /// As [`Sender::judge`]; puts what the response means among its extensions.
    pub(super) fn answered<R: Body>(
        &self,
        attempt: Attempt,
        sent: &InFlight<I>,
        mut parts: Parts,
        body: AnswerBody<R>,
    ) -> (Response<AnswerBody<R>>, Option<Again<I>>) {
        let (sent, again) = self.judge(attempt, sent, parts.status, &parts.headers, body.whole());
        parts.extensions.insert(sent);
        (Response::from_parts(parts, body), again)
    }
}

pin_project! {
    /// The body of a response that came through a client layer: what the layer read of it, then the rest,
    /// with trailers and errors in their places.
    ///
    /// Its data are [`Bytes`]; a body of `Bytes`, such as hyper's, is passed on without a copy.
    pub struct AnswerBody<R>
    where
        R: Body,
    {
        // What was read ahead.
        read: Bytes,
        // The frame or the error at which reading ahead stopped.
        next: Option<Result<Frame<Bytes>, R::Error>>,
        #[pin]
        rest: Rest<R>,
    }
}

pin_project! {
    #[project = RestProjected]
    enum Rest<R> {
        Unread { #[pin] body: R },
        // A body that was polled must not be moved.
        Polled { body: Pin<Box<R>> },
        Ended,
    }
}

/// A body that is being read ahead, up to 64 KiB.
pub(super) struct ReadAhead<R: Body> {
    body: Pin<Box<R>>,
    read: Vec<u8>,
    next: Option<Result<Frame<Bytes>, R::Error>>,
    ended: bool,
}

impl<R: Body> AnswerBody<R> {
    pub(super) const fn unread(body: R) -> Self {
        Self { read: Bytes::new(), next: None, rest: Rest::Unread { body } }
    }

    /// Returns the body, if all of it was read ahead. A part of an answer says nothing.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        let ended = self.next.is_none() && matches!(self.rest, Rest::Ended);
        let trailers = matches!(&self.next, Some(Ok(frame)) if frame.is_trailers());
        (ended || trailers).then_some(&*self.read)
    }
}

impl<R: Body> ReadAhead<R> {
    pub(super) fn new(body: R) -> Self {
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(MAX_BODY).min(MAX_BODY);
        Self { body: Box::pin(body), read: Vec::with_capacity(expected), next: None, ended: false }
    }

    /// Ready once the body has ended or failed, or is longer than any documented answer.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.body.as_mut().poll_frame(context)) {
                None => self.ended = true,
                Some(Err(error)) => self.next = Some(Err(error)),
                Some(Ok(frame)) => {
                    let frame = frame.map_data(into_bytes);
                    match frame.data_ref() {
                        Some(data) if self.read.len() + data.len() <= MAX_BODY => {
                            self.read.extend_from_slice(data);
                            continue;
                        }
                        _ => self.next = Some(Ok(frame)),
                    }
                }
            }
            return Poll::Ready(());
        }
    }

    pub(super) fn into_body(self) -> AnswerBody<R> {
        let over = self.ended || matches!(self.next, Some(Err(_)));
        let rest = if over { Rest::Ended } else { Rest::Polled { body: self.body } };
        AnswerBody { read: self.read.into(), next: self.next, rest }
    }
}

fn into_bytes(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

impl<R: Body> Body for AnswerBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        if !this.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.read)))));
        }
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(next));
        }
        let frame = match this.rest.project() {
            RestProjected::Unread { body } => ready!(body.poll_frame(context)),
            RestProjected::Polled { body } => ready!(body.as_mut().poll_frame(context)),
            RestProjected::Ended => None,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(into_bytes))))
    }

    fn is_end_stream(&self) -> bool {
        let rest_ended = match &self.rest {
            Rest::Unread { body } => body.is_end_stream(),
            Rest::Polled { body } => body.is_end_stream(),
            Rest::Ended => true,
        };
        self.read.is_empty() && self.next.is_none() && rest_ended
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.rest {
            Rest::Unread { body } => body.size_hint(),
            Rest::Polled { body } => body.size_hint(),
            Rest::Ended => SizeHint::with_exact(0),
        };
        let next = match &self.next {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        let ahead = (self.read.len() + next) as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }
}

impl<R: Body> fmt::Debug for AnswerBody<R> {
    /// Prints how much was read ahead, and nothing of it: a server may echo the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerBody({} bytes read ahead)", self.read.len())
    }
}
