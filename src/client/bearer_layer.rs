//! The key on every request of a tower client.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::answer_body::AnswerBody;
use super::bearer_error::BoxError;
use super::sender::Sender;
use super::{BearerError, BearerFuture, NotRepeating, OriginGuard, Repeating, Repeats};
use crate::handle::KeyHandle;
use crate::key::Issuer;

/// Puts the key in force on every request of a tower client over [`http::Request`], if the request goes to the guard's
/// origin, and refuses every other request before the client sees it.
///
/// Each response carries a [`Sent`](super::Sent) among its extensions. Where its status is one for which the issuer
/// documents a body, or a 401, and neither a 2xx nor a 429, the layer reads up to 64 KiB of the body before it gives the
/// response on, and then gives the body back whole; a longer, broken or compressed one is inconclusive. When the issuer
/// says that it does not know the key, the generation that was sent is reported to the handle; a later answer that accepts
/// the same key takes that back. The layer logs nothing.
///
/// # When the key was refused
/// With a [live](KeyHandle) handle, a request is sent a second time where the issuer's own 401 refused its key and another
/// key is to be had:
///
/// 1. a newer one: at once where one is in force already, and otherwise after the reload that the refusal asks for;
/// 2. or else the previous key, while its grace lasts. Its generation counts as held until the answer is there.
///
/// A 401 without a body, as every answer to HEAD is, does not say whether it is the issuer's. The request is sent a second
/// time even so, by the same rules, if another key is available; the key is not reported as refused.
///
/// It is repeated once in all, and never on a 403, 404, 422, 429 or 5xx, nor on a 401 whose body is not the issuer's. The guard looks at the
/// repetition again. Where there is no other key, or the handle was closed in the meantime because the key has leaked, the
/// 401 is given back whole. A late 401 about an older generation asks for no reload, and takes nothing out of force.
///
/// *Which requests*: by the same rule as for [`RetryLayer`](super::RetryLayer), those whose method is GET, HEAD, OPTIONS,
/// PUT or DELETE, and those that carry [`Repeatable`](super::Repeatable) among their extensions. A refused request has done
/// nothing, if its issuer looks at the key first, as Kanal documents; Katana does not say, and so the rule is the careful
/// one. *At what price*: before such a request is sent through a live handle, it and the client are cloned, without a key
/// on the clone. With a fixed handle nothing is. *How long*: the wait for the reload takes at most what is left of an
/// attempt that is under way, the refresher's minimum interval and one attempt more, about 21 s by its defaults;
/// dropping the future ends it at once.
///
/// Where the client or the bodies cannot be cloned, the service has no `call` for such a request, or
/// [`Repeats`](super::Repeats) is said not to be implemented. Use [`BearerLayer::without_repeating`] there:
///
/// ```compile_fail
/// # use keysheath::client::{BearerLayer, OriginGuard};
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::{ApiKey, Kanal};
/// # use tower::{Layer, ServiceExt, service_fn};
/// struct Stream; // not Clone
/// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
/// # let client = service_fn(async |_: http::Request<Stream>| Ok::<_, std::io::Error>(http::Response::new(String::new())));
/// let client = BearerLayer::new(handle, OriginGuard::new()).layer(client);
/// let answered = client.oneshot(http::Request::new(Stream));
/// ```
///
/// ```
/// # use keysheath::client::{BearerLayer, OriginGuard};
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::{ApiKey, Kanal};
/// # use tower::{Layer, ServiceExt, service_fn};
/// struct Stream; // not Clone
/// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
/// # let client = service_fn(async |_: http::Request<Stream>| Ok::<_, std::io::Error>(http::Response::new(String::new())));
/// let client = BearerLayer::new(handle, OriginGuard::new()).without_repeating().layer(client);
/// let answered = client.oneshot(http::Request::new(Stream));
/// ```
///
/// # Where it belongs
/// - **Inside any redirect follower**, so that each hop is guarded; the client below must follow none of its own, and
///   use no proxy unasked.
/// - **Inside any retry layer**, such as [`RetryLayer`](super::RetryLayer), so that each attempt is guarded and gets the
///   key in force at that moment.
/// - A deadline is yours: a body that trickles in is read for as long as you let it.
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
/// let answered = client.call(request);
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[doc(alias("authorization", "token"))]
pub struct BearerLayer<I: Issuer, M = Repeating> {
    sender: Arc<Sender<I>>,
    repeats: PhantomData<fn() -> M>,
}

/// A client with a [`BearerLayer`] around it.
///
/// ```
/// use keysheath::client::{BearerLayer, BearerService, OriginGuard};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// use tower::Layer;
///
/// struct Shop<C> {
///     client: BearerService<C, Kanal>,
/// }
///
/// # struct Client;
/// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let shop = Shop { client: BearerLayer::new(handle, OriginGuard::new()).layer(Client) };
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
pub struct BearerService<S, I: Issuer, M = Repeating> {
    inner: S,
    sender: Arc<Sender<I>>,
    repeats: PhantomData<fn() -> M>,
}

impl<I: Issuer> BearerLayer<I> {
    /// A layer that sends the handle's key where the guard lets it go.
    ///
    /// ```
    /// # use keysheath::client::{BearerLayer, OriginGuard};
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let layer = BearerLayer::new(handle.clone(), OriginGuard::new());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { sender: Arc::new(Sender::new(handle, guard)), repeats: PhantomData }
    }

    /// The same, for a client or for bodies that cannot be cloned: each request is sent once. A key that the issuer refuses
    /// is still reported, so a live handle is reloaded, and the next request has the newer key.
    ///
    /// ```
    /// # use keysheath::client::{BearerLayer, OriginGuard};
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let uploads = BearerLayer::new(handle.clone(), OriginGuard::new()).without_repeating();
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn without_repeating(self) -> BearerLayer<I, NotRepeating> {
        BearerLayer { sender: self.sender, repeats: PhantomData }
    }
}

impl<S, I: Issuer, M> Layer<S> for BearerLayer<I, M> {
    type Service = BearerService<S, I, M>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerService { inner, sender: Arc::clone(&self.sender), repeats: PhantomData }
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
        // Before the key is on it.
        let again = if may_repeat { M::keep(&self.inner, &request) } else { None };
        let sender = Arc::clone(&self.sender);
        match self.sender.authorize(&mut request) {
            // The client that is ready is called now; its clone is asked whether it is ready before the repetition.
            Ok(sent) => BearerFuture::sending(sender, self.inner.call(request), sent, again),
            Err(unsent) => BearerFuture::refused(sender, unsent),
        }
    }
}

impl<I: Issuer, M> Clone for BearerLayer<I, M> {
    fn clone(&self) -> Self {
        Self { sender: Arc::clone(&self.sender), repeats: PhantomData }
    }
}

impl<S: Clone, I: Issuer, M> Clone for BearerService<S, I, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), sender: Arc::clone(&self.sender), repeats: PhantomData }
    }
}

impl<I: Issuer, M> fmt::Debug for BearerLayer<I, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerLayer({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}

impl<S, I: Issuer, M> fmt::Debug for BearerService<S, I, M> {
    /// Without the client, which may print what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerService({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}
