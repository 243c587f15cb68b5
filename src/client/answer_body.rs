//! A response's body that was read ahead, and is given back whole.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::failure::MAX_BODY;

pin_project! {
    /// The body of a response that came through a client layer: what the layer read of it, then the rest, with trailers
    /// and errors in their places.
    ///
    /// Its data are [`Bytes`]; a body that has them already, as hyper's has, is passed on without a copy.
    ///
    /// ```
    /// use http_body_util::{BodyExt, Full};
    /// use keysheath::client::AnswerBody;
    ///
    /// async fn text(response: http::Response<AnswerBody<Full<bytes::Bytes>>>) -> Vec<u8> {
    ///     response.into_body().collect().await.expect("it cannot fail").to_bytes().into()
    /// }
    /// ```
    pub struct AnswerBody<R>
    where
        R: Body,
    {
        // What was read, in one piece.
        read: Bytes,
        // The frame or the error that ended the reading ahead.
        next: Option<Result<Frame<Bytes>, R::Error>>,
        #[pin]
        rest: Rest<R>,
    }
}

pin_project! {
    #[project = RestProjected]
    enum Rest<R> {
        Untouched { #[pin] body: R },
        // A body that was polled must not be moved.
        Begun { body: Pin<Box<R>> },
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
    pub(super) const fn untouched(body: R) -> Self {
        Self { read: Bytes::new(), next: None, rest: Rest::Untouched { body } }
    }

    /// The body, if all of it was read ahead. A part of an answer says nothing.
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

    /// Ready once the body has ended or failed, or is longer than a documented answer can be.
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
        let rest = if over { Rest::Ended } else { Rest::Begun { body: self.body } };
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
            RestProjected::Untouched { body } => ready!(body.poll_frame(context)),
            RestProjected::Begun { body } => ready!(body.as_mut().poll_frame(context)),
            RestProjected::Ended => None,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(into_bytes))))
    }

    fn is_end_stream(&self) -> bool {
        let rest_ended = match &self.rest {
            Rest::Untouched { body } => body.is_end_stream(),
            Rest::Begun { body } => body.is_end_stream(),
            Rest::Ended => true,
        };
        self.read.is_empty() && self.next.is_none() && rest_ended
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.rest {
            Rest::Untouched { body } => body.size_hint(),
            Rest::Begun { body } => body.size_hint(),
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
    /// Says how much was read ahead, and shows none of it: a server may echo the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerBody({} bytes read ahead)", self.read.len())
    }
}
