//! The key on every request of a reqwest client.

use std::fmt;
use std::future::poll_fn;

use ::reqwest::redirect::Policy;
use ::reqwest::{Body, ClientBuilder, Request, Response, ResponseBuilderExt as _};
use async_trait::async_trait;
use http::{Extensions, Uri};
use reqwest_middleware::{Error, Middleware, Next};

use super::answer_body::ReadAhead;
use super::sender::{Again, Attempt, Sender, UnderWay};
use super::{GuardError, OriginGuard};
use crate::handle::{KeyHandle, Snapshot};
use crate::key::Issuer;

/// Puts the key in force on every request of a [`reqwest_middleware`] client, by the same rules as
/// [`BearerLayer`](super::BearerLayer): the guard's origin or none, a [`Sent`](super::Sent) among each response's
/// extensions, a key that the issuer refused reported to the handle, and with a live handle the request repeated once, with
/// another key. A request whose body is a stream is not repeated: reqwest cannot clone it. A
/// [`Repeatable`](super::Repeatable) is given to the request's builder, by `with_extension`.
///
/// A request that must not carry the key is an [`Error::Middleware`] that holds a [`GuardError`]; where no key is in force,
/// it holds a [`NoActiveKey`](crate::handle::NoActiveKey).
///
/// # Where it belongs
/// - **reqwest follows redirects below its middleware**, so that no hop but the first would be guarded, and uses the
///   proxies of the environment unasked: build the client with [`guarded_client`].
/// - Add it **last**, inside any middleware that repeats requests or changes where they go.
///
/// ```
/// use keysheath::client::{BearerMiddleware, OriginGuard, guarded_client};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
///
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let client = reqwest_middleware::ClientBuilder::new(guarded_client().build().unwrap())
///     .with(BearerMiddleware::new(handle, OriginGuard::new()))
///     .build();
/// let answered = client.get("https://api.getkanal.com/api/v1/stores/123/orders").send();
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
pub struct BearerMiddleware<I: Issuer> {
    sender: Sender<I>,
}

/// A builder of a reqwest client that follows no redirect and uses no proxy. Both can still be set: a proxy on purpose
/// with `proxy`; redirects are yours to follow, one guarded request after another.
///
/// It sets nothing else, so set a timeout. TLS is a feature of reqwest that you choose.
///
/// ```
/// use std::time::Duration;
/// use keysheath::client::guarded_client;
///
/// let client = guarded_client().timeout(Duration::from_secs(30)).build().unwrap();
/// ```
pub fn guarded_client() -> ClientBuilder {
    ClientBuilder::new().redirect(Policy::none()).no_proxy()
}

impl<I: Issuer> BearerMiddleware<I> {
    /// A middleware that sends the handle's key where the guard lets it go.
    ///
    /// ```
    /// # use keysheath::client::{BearerMiddleware, OriginGuard};
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let middleware = BearerMiddleware::new(handle.clone(), OriginGuard::new());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub const fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { sender: Sender::new(handle, guard) }
    }

    fn put_on(&self, request: &mut Request, snapshot: Snapshot<I>) -> Result<UnderWay<I>, GuardError> {
        // As reqwest itself makes a URI out of the URL, so what is checked is what is sent.
        let Ok(uri) = Uri::try_from(request.url().as_str()) else {
            return Err(GuardError::Unreadable { expected: self.sender.guard().origin().clone() });
        };
        self.sender.put_on_headers(&uri, request.headers_mut(), snapshot)
    }

    /// Sends a request with a key, and gives what there is to wait for before it may be sent again.
    async fn send(
        &self,
        attempt: Attempt,
        mut request: Request,
        snapshot: Snapshot<I>,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<(Response, Option<Again<I>>)> {
        let sent = self.put_on(&mut request, snapshot).map_err(Error::middleware)?;
        let response = next.run(request, extensions).await?;
        Ok(self.answered(attempt, sent, response).await)
    }

    async fn answered(
        &self,
        attempt: Attempt,
        sent: UnderWay<I>,
        mut response: Response,
    ) -> (Response, Option<Again<I>>) {
        let length = response.content_length().unwrap_or(0);
        if !Sender::<I>::is_telling(response.status(), length) {
            let (status, headers) = (response.status(), response.headers());
            let (sent, again) = self.sender.judge(attempt, &sent, status, headers, None);
            response.extensions_mut().insert(sent);
            return (response, again);
        }
        let url = response.url().clone();
        let (mut parts, body) = http::Response::<Body>::from(response).into_parts();
        // A response that is put together again has its URL from an extension that only this builder can set.
        if let Ok(carrier) = http::Response::builder().url(url).body(()) {
            parts.extensions.extend(carrier.into_parts().0.extensions);
        }
        let mut ahead = ReadAhead::new(body);
        poll_fn(|context| ahead.poll(context)).await;
        let (response, again) = self.sender.answered(attempt, &sent, parts, ahead.into_body());
        (response.map(Body::wrap).into(), again)
    }
}

#[async_trait]
impl<I: Issuer> Middleware for BearerMiddleware<I> {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let handle = self.sender.handle();
        // Before the key is on it. A body that is a stream cannot be cloned.
        let may_repeat = self.sender.may_repeat(request.method(), request.headers(), extensions);
        let again = if may_repeat { request.try_clone().map(|clone| (clone, next.clone())) } else { None };
        let attempt = if again.is_some() { Attempt::First } else { Attempt::Only };
        let snapshot = handle.load().map_err(Error::middleware)?;
        let (response, other) = self.send(attempt, request, snapshot, extensions, next).await?;
        let (Some((request, next)), Some(Again { reload, refusal })) = (again, other) else {
            return Ok(response);
        };
        // Whatever comes of it, what is in the handle then decides.
        reload.await;
        let Some(snapshot) = handle.load_instead_of(&refusal) else {
            return Ok(response);
        };
        drop(response);
        Ok(self.send(Attempt::Repetition, request, snapshot, extensions, next).await?.0)
    }
}

impl<I: Issuer> fmt::Debug for BearerMiddleware<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerMiddleware({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}
