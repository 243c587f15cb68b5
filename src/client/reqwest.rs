//! The active key on every request of a reqwest client.

use std::fmt;
use std::future::poll_fn;

use ::reqwest::redirect::Policy;
use ::reqwest::{Body, ClientBuilder, Request, Response, ResponseBuilderExt as _};
use async_trait::async_trait;
use http::{Extensions, Uri};
use reqwest_middleware::{Error, Middleware, Next};

use super::sender::{Again, Attempt, InFlight, ReadAhead, Sender};
use super::{GuardError, OriginGuard};
use crate::handle::{KeyHandle, Snapshot};
use crate::key::Issuer;

/// Puts the active key on every request of a [`reqwest_middleware`] client, by the same rules as
/// [`BearerLayer`](super::BearerLayer): only at the guard's origin; with a [`Sent`](super::Sent) among each
/// response's extensions; it reports a key that the issuer refused to the handle; and with a live handle it
/// repeats the request once, with another key. A request whose body is a stream is not repeated: reqwest
/// cannot clone it. Pass a [`Repeatable`](super::Repeatable) to the request's builder with `with_extension`.
///
/// A request that must not carry the key gives an [`Error::Middleware`] with a [`GuardError`]; if no key is
/// active, with a [`NoActiveKey`](crate::handle::NoActiveKey).
///
/// # Where to put the middleware
/// - **reqwest follows redirects below its middleware**, so that only the first hop would be guarded, and it
///   uses the proxies of the environment by default: build the client with [`guarded_client`].
/// - Add it **last**, inside any middleware that retries requests or changes their URL.
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
/// let response = client.get("https://api.getkanal.com/api/v1/stores/123/orders").send();
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
pub struct BearerMiddleware<I: Issuer> {
    sender: Sender<I>,
}

/// Returns a builder of a reqwest client that follows no redirect and uses no proxy. A proxy can still be set
/// with `proxy`; follow redirects yourself, one guarded request for each hop.
///
/// It sets nothing else, so set a timeout. TLS is a feature of reqwest that you choose.
pub fn guarded_client() -> ClientBuilder {
    ClientBuilder::new().redirect(Policy::none()).no_proxy()
}

impl<I: Issuer> BearerMiddleware<I> {
    /// Creates a middleware that sends the handle's key where the guard allows it.
    #[must_use]
    pub const fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { sender: Sender::new(handle, guard) }
    }

    fn put_on(&self, request: &mut Request, snapshot: &Snapshot<I>) -> Result<(), GuardError> {
        // As reqwest itself converts the URL, so what is checked is what is sent.
        let Ok(uri) = Uri::try_from(request.url().as_str()) else {
            return Err(GuardError::Unreadable { expected: self.sender.guard().origin().clone() });
        };
        self.sender.put_on_headers(&uri, request.headers_mut(), snapshot)
    }

    /// Sends a request with a key. Also returns what to wait for before it may be repeated.
    async fn send(
        &self,
        attempt: Attempt,
        mut request: Request,
        snapshot: Snapshot<I>,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<(Response, Option<Again<I>>)> {
        self.put_on(&mut request, &snapshot).map_err(Error::middleware)?;
        let sent = self.sender.in_flight(snapshot);
        let response = next.run(request, extensions).await?;
        Ok(self.answered(attempt, sent, response).await)
    }

    async fn answered(
        &self,
        attempt: Attempt,
        sent: InFlight<I>,
        mut response: Response,
    ) -> (Response, Option<Again<I>>) {
        let length = response.content_length().unwrap_or(0);
        if !Sender::<I>::needs_body(response.status(), length) {
            let (status, headers) = (response.status(), response.headers());
            let (sent, again) = self.sender.judge(attempt, &sent, status, headers, None);
            response.extensions_mut().insert(sent);
            return (response, again);
        }
        let url = response.url().clone();
        let (mut parts, body) = http::Response::<Body>::from(response).into_parts();
        // A rebuilt response has its URL from an extension that only this builder can set.
        if let Ok(carrier) = http::Response::builder().url(url).body(()) {
            parts.extensions.extend(carrier.into_parts().0.extensions);
        }
        let mut ahead = ReadAhead::new(body);
        poll_fn(|context| ahead.poll(context)).await;
        let (mut response, again) = self.sender.answered(attempt, &sent, parts, ahead);
        let sent = response.body().sent();
        response.extensions_mut().insert(sent);
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
        // Cloned before the key is on it. A body that is a stream cannot be cloned.
        let may_repeat = self.sender.may_repeat(request.method(), request.headers(), extensions);
        let again = if may_repeat { request.try_clone().map(|clone| (clone, next.clone())) } else { None };
        let attempt = if again.is_some() { Attempt::First } else { Attempt::Only };
        let snapshot = handle.load().map_err(Error::middleware)?;
        let (response, other) = self.send(attempt, request, snapshot, extensions, next).await?;
        let (Some((request, next)), Some(Again { reload, refusal })) = (again, other) else {
            return Ok(response);
        };
        // Whether or not the reload succeeds, the handle's content decides afterwards.
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
