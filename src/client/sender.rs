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
use super::{BearerHeader, GuardError, OriginGuard};
use crate::failure::{Answer, MAX_BODY, Meaning, is_documented};
use crate::handle::{Generation, KeyHandle, Known, NewerKey, Refusal, Snapshot};
use crate::key::Issuer;

/// The outcome of a request that carried a key: the generation of the key, and what the issuer answered. It
/// is about the last attempt.
///
/// The body of every response that comes through a [`BearerLayer`](super::BearerLayer) has one; with the
/// feature `reqwest`, every response that comes through the middleware has one among its extensions.
///
/// ```
/// use keysheath::{client::AnswerBody, failure::Meaning};
///
/// fn report<R: http_body::Body>(response: &http::Response<AnswerBody<R>>) {
///     let sent = response.body().sent();
///     if sent.answer().meaning() == Meaning::StoreForbidden {
///         println!("key of generation {}: {}", sent.generation(), sent.answer());
///     }
/// }
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

    /// Puts the key of a snapshot on a request, if the guard allows it. The value of the header is built once
    /// for each key.
    #[inline]
    pub(super) fn put_on<B>(
        &self,
        request: &mut Request<B>,
        snapshot: &Snapshot<I>,
    ) -> Result<(), GuardError> {
        self.guard.authorize(request, BearerHeader::for_snapshot(snapshot))
    }

    /// As [`Sender::put_on`], for a request of another type.
    pub(super) fn put_on_headers(
        &self,
        uri: &Uri,
        headers: &mut HeaderMap,
        snapshot: &Snapshot<I>,
    ) -> Result<(), GuardError> {
        self.guard.authorize_headers(uri, headers, BearerHeader::for_snapshot(snapshot))
    }

    /// For a request that is sent now.
    #[inline]
    pub(super) fn in_flight(&self, snapshot: Snapshot<I>) -> InFlight<I> {
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

    /// Classifies an answer, and reports to the handle that the issuer accepted the key.
    #[inline]
    pub(super) fn outcome(
        &self,
        attempt: Attempt,
        sent: &InFlight<I>,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Sent {
        let retry_after = headers.get(RETRY_AFTER).map(HeaderValue::as_bytes);
        let answer = I::PROFILE.classify(status.as_u16(), retry_after, body);
        let generation = sent.snapshot.generation();
        if answer.meaning().accepts_key() {
            self.handle.accepted(generation, sent.known);
        }
        Sent { generation, answer, is_repeated: attempt == Attempt::Repetition }
    }

    /// As [`Sender::outcome`], and reports to the handle that the issuer refused the key. If the request may
    /// be repeated, also returns what to wait for first. `whole` is `None` if the body was not read to its
    /// end.
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
        let outcome = self.outcome(attempt, sent, status, headers, whole.unwrap_or_default());
        let meaning = outcome.answer.meaning();
        let is_doubtful =
            || status == StatusCode::UNAUTHORIZED && meaning == Meaning::Inconclusive && whole == Some(&[]);
        let is_first = attempt == Attempt::First;
        let again = (meaning.refuses_key() || (is_first && is_doubtful())).then(|| {
            let refusal = sent.snapshot.refusal(meaning.refuses_key());
            Again { reload: self.handle.reload_instead_of(&refusal), refusal }
        });
        (outcome, again.filter(|_| is_first))
    }

    /// As [`Sender::judge`], for a body that was read ahead.
    pub(super) fn answered<R: Body>(
        &self,
        attempt: Attempt,
        sent: &InFlight<I>,
        parts: Parts,
        ahead: ReadAhead<R>,
    ) -> (Response<AnswerBody<R>>, Option<Again<I>>) {
        let (sent, again) = self.judge(attempt, sent, parts.status, &parts.headers, ahead.whole());
        (Response::from_parts(parts, ahead.into_body(sent)), again)
    }
}

pin_project! {
    /// The body of a response that came through a client layer: what the layer read of it, then the rest,
    /// with trailers and errors in their places. It also says what was sent and what was answered.
    ///
    /// Its data are [`Bytes`]; a body of `Bytes`, such as hyper's, is passed on without a copy.
    pub struct AnswerBody<R>
    where
        R: Body,
    {
        #[pin]
        content: Content<R>,
        // Here, because an entry in the response's extensions costs three allocations.
        sent: Sent,
    }
}

pin_project! {
    #[project = ContentProjected]
    enum Content<R>
    where
        R: Body,
    {
        Unread { #[pin] body: R },
        // Boxed, because most responses are moved without it.
        Ahead { ahead: Box<Ahead<R>> },
    }
}

/// A body that was read ahead.
struct Ahead<R: Body> {
    read: Bytes,
    /// The frame or the error at which reading ahead stopped.
    next: Option<Result<Frame<Bytes>, R::Error>>,
    /// `None` once it has ended.
    rest: Option<Pin<Box<R>>>,
}

/// A body that is being read ahead, up to 64 KiB.
pub(super) struct ReadAhead<R: Body> {
    // A body that was polled must not be moved.
    body: Pin<Box<R>>,
    read: Vec<u8>,
    next: Option<Result<Frame<Bytes>, R::Error>>,
    ended: bool,
}

impl<R: Body> AnswerBody<R> {
    #[inline]
    pub(super) const fn unread(body: R, sent: Sent) -> Self {
        Self { content: Content::Unread { body }, sent }
    }

    /// Returns what was sent, and what the issuer answered.
    #[must_use]
    #[inline]
    pub const fn sent(&self) -> Sent {
        self.sent
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

    /// Returns the body, if all of it was read ahead. A part of an answer says nothing.
    fn whole(&self) -> Option<&[u8]> {
        let trailers = matches!(&self.next, Some(Ok(frame)) if frame.is_trailers());
        (self.ended || trailers).then_some(&*self.read)
    }

    fn into_body(self, sent: Sent) -> AnswerBody<R> {
        let over = self.ended || matches!(self.next, Some(Err(_)));
        let rest = (!over).then_some(self.body);
        let ahead = Box::new(Ahead { read: self.read.into(), next: self.next, rest });
        AnswerBody { content: Content::Ahead { ahead }, sent }
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
        let frame = match self.project().content.project() {
            ContentProjected::Unread { body } => ready!(body.poll_frame(context)),
            ContentProjected::Ahead { ahead } => {
                if !ahead.read.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut ahead.read)))));
                }
                if let Some(next) = ahead.next.take() {
                    return Poll::Ready(Some(next));
                }
                match &mut ahead.rest {
                    Some(body) => ready!(body.as_mut().poll_frame(context)),
                    None => None,
                }
            }
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(into_bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Unread { body } => body.is_end_stream(),
            Content::Ahead { ahead } => {
                let rest_ended = ahead.rest.as_ref().is_none_or(Body::is_end_stream);
                ahead.read.is_empty() && ahead.next.is_none() && rest_ended
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = match &self.content {
            Content::Unread { body } => return body.size_hint(),
            Content::Ahead { ahead } => ahead,
        };
        let rest = ahead.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let next = match &ahead.next {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        let ahead = (ahead.read.len() + next) as u64;
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
        let ahead = match &self.content {
            Content::Unread { .. } => 0,
            Content::Ahead { ahead } => ahead.read.len(),
        };
        write!(f, "AnswerBody({ahead} bytes read ahead)")
    }
}
