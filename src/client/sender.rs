//! What the tower layer and the reqwest middleware share: they put the key on in the same way, and read an answer in
//! the same way.

#[cfg(feature = "reqwest")]
use http::Uri;
use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;

use super::answer_body::AnswerBody;
use super::repeating::can_be_repeated;
use super::{BearerHeader, GuardError, OriginGuard};
use crate::failure::{Answer, MAX_BODY, Meaning, is_documented};
use crate::handle::{Generation, KeyHandle, Known, NewerKey, NoActiveKey, Refusal, Snapshot};
use crate::key::Issuer;

/// What became of a request that carried a key: which generation of the key it was, and what the issuer answered. Every
/// response that comes through a client layer has one among its extensions. It is about the attempt that the response
/// is of: the last one.
///
/// ```
/// use keysheath::{client::Sent, failure::Meaning};
///
/// fn look<B>(response: &http::Response<B>) {
///     let Some(sent) = response.extensions().get::<Sent>() else { return };
///     if sent.answer().meaning() == Meaning::StoreForbidden {
///         println!("key of generation {}: {}", sent.generation(), sent.answer());
///     }
/// }
/// # look(&http::Response::new(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    generation: Generation,
    answer: Answer,
    is_repeated: bool,
}

impl Sent {
    /// The generation of the key that was sent. By the time of the answer, another may be in force.
    ///
    /// ```
    /// # use keysheath::client::Sent;
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::Kanal;
    /// fn was_the_key_in_force(sent: &Sent, handle: &KeyHandle<Kanal>) -> bool {
    ///     handle.load().is_ok_and(|now| now.generation() == sent.generation())
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// What the issuer answered.
    ///
    /// ```
    /// # use keysheath::client::Sent;
    /// fn waits(sent: &Sent) -> Option<std::time::Duration> {
    ///     sent.answer().retry_after()
    /// }
    /// ```
    #[must_use]
    pub const fn answer(&self) -> Answer {
        self.answer
    }

    /// Whether this is the answer to a repetition: the request was sent before with another key, which the issuer refused.
    ///
    /// ```
    /// # use keysheath::client::Sent;
    /// fn log(sent: &Sent) {
    ///     if sent.is_repeated() {
    ///         println!("sent again, with the key of generation {}", sent.generation());
    ///     }
    /// }
    /// ```
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

/// A key that is under way: the snapshot is there until the answer is, because the generation that was sent is not
/// drained before.
pub(super) struct UnderWay<I: Issuer> {
    snapshot: Snapshot<I>,
    /// When it was sent.
    known: Known,
}

/// What there is to wait for before a request is sent again, and which key not to send.
pub(super) struct Again<I: Issuer> {
    pub(super) reload: NewerKey<I>,
    pub(super) refusal: Refusal<I>,
}

/// Which sending of a request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There will be no other: the request was not kept.
    Only,
    /// The request may be sent again.
    First,
    /// It was sent before.
    Repetition,
}

/// Why a request is not sent.
#[derive(Debug)]
pub(super) enum Unsent {
    Guard(GuardError),
    NoActiveKey(NoActiveKey),
}

impl From<GuardError> for Unsent {
    fn from(error: GuardError) -> Self {
        Self::Guard(error)
    }
}

impl From<NoActiveKey> for Unsent {
    fn from(closed: NoActiveKey) -> Self {
        Self::NoActiveKey(closed)
    }
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

    /// Whether a request that is sent now may be repeated, so that it is worth keeping.
    pub(super) fn may_repeat(&self, method: &Method, headers: &HeaderMap, extensions: &Extensions) -> bool {
        self.handle.is_live() && can_be_repeated(method, headers, extensions)
    }

    /// Puts the key in force on a request, if it may go where the request goes, and gives what holds it.
    pub(super) fn authorize<B>(&self, request: &mut Request<B>) -> Result<UnderWay<I>, Unsent> {
        Ok(self.put_on(request, self.handle.load()?)?)
    }

    /// Puts a key on a request, if it may go where the request goes. The value of the header is built once for each key.
    pub(super) fn put_on<B>(
        &self,
        request: &mut Request<B>,
        snapshot: Snapshot<I>,
    ) -> Result<UnderWay<I>, GuardError> {
        self.guard.authorize(request, BearerHeader::of(&snapshot))?;
        Ok(self.under_way(snapshot))
    }

    /// As [`Sender::put_on`], for a request of another type.
    #[cfg(feature = "reqwest")]
    pub(super) fn put_on_headers(
        &self,
        uri: &Uri,
        headers: &mut HeaderMap,
        snapshot: Snapshot<I>,
    ) -> Result<UnderWay<I>, GuardError> {
        self.guard.authorize_headers(uri, headers, BearerHeader::of(&snapshot))?;
        Ok(self.under_way(snapshot))
    }

    fn under_way(&self, snapshot: Snapshot<I>) -> UnderWay<I> {
        UnderWay { snapshot, known: self.handle.known_refusals() }
    }

    /// Whether the body of an answer can tell something of the key: the issuer documents a body for the status, or it is a
    /// 401, which may have none; and this one is not known to be longer than a documented one can be.
    pub(super) fn is_telling(status: StatusCode, least_length: u64) -> bool {
        let documented =
            || status == StatusCode::UNAUTHORIZED || is_documented(I::PROFILE.failures(), status.as_u16());
        let by_status_alone = status.is_success() || status == StatusCode::TOO_MANY_REQUESTS;
        !by_status_alone && least_length <= MAX_BODY as u64 && documented()
    }

    /// What an answer means. That the issuer refused the key, or accepted it, is reported; and if the request may be sent
    /// again, there is something to wait for first. `whole` is none where the body was not read to its end.
    ///
    /// A 401 without a body, as each answer to HEAD is, does not say who refused the key. Then a newer key is looked for, and
    /// the key is not taken for refused.
    pub(super) fn judge(
        &self,
        attempt: Attempt,
        sent: &UnderWay<I>,
        status: StatusCode,
        headers: &HeaderMap,
        whole: Option<&[u8]>,
    ) -> (Sent, Option<Again<I>>) {
        let UnderWay { snapshot, known } = sent;
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

    /// The response with what it means among its extensions, and what [`Sender::judge`] gives to wait for.
    pub(super) fn answered<R: Body>(
        &self,
        attempt: Attempt,
        sent: &UnderWay<I>,
        mut parts: Parts,
        body: AnswerBody<R>,
    ) -> (Response<AnswerBody<R>>, Option<Again<I>>) {
        let (sent, again) = self.judge(attempt, sent, parts.status, &parts.headers, body.whole());
        parts.extensions.insert(sent);
        (Response::from_parts(parts, body), again)
    }
}
