//! The key on every request of a reqwest client.

use std::fmt;
use std::future::poll_fn;

use ::reqwest::redirect::Policy;
use ::reqwest::{Body, ClientBuilder, Request, Response, ResponseBuilderExt as _};
use async_trait::async_trait;
use http::{Extensions, Uri};
use reqwest_middleware::{Error, Middleware, Next};

use super::answer_body::ReadAhead;
use super::sender::{Sender, Unsent};
use super::{GuardError, OriginGuard};
use crate::handle::{Generation, KeyHandle, Snapshot};
use crate::issuer::Issuer;

/// Puts the key in force on every request of a [`reqwest_middleware`] client, by the same rules as
/// [`BearerLayer`](super::BearerLayer): the guard's origin or none, a [`Sent`](super::Sent) among each response's
/// extensions, a key that the issuer refused reported to the handle.
///
/// A request that must not carry the key is an [`Error::Middleware`] that holds a [`GuardError`].
///
/// # Where it belongs
/// - **reqwest follows redirects below its middleware**, so that no hop but the first would be guarded, and uses the
///   proxies of the environment unasked: build the client with [`guarded_client`].
/// - Add it **last**, inside any middleware that repeats requests or changes where they go.
///
/// ```
/// use keysheath::{client::{BearerMiddleware, OriginGuard, guarded_client}, handle::KeyHandle, issuer::Kanal, key::ApiKey};
///
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let client = reqwest_middleware::ClientBuilder::new(guarded_client().build().unwrap())
///     .with(BearerMiddleware::new(handle, OriginGuard::new()))
///     .build();
/// let answered = client.get("https://api.getkanal.com/api/v1/stores/123/orders").send();
/// # Ok::<(), keysheath::format::FormatError>(())
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
    /// # use keysheath::{client::{BearerMiddleware, OriginGuard}, handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let middleware = BearerMiddleware::new(handle.clone(), OriginGuard::new());
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub const fn new(handle: KeyHandle<I>, guard: OriginGuard<I>) -> Self {
        Self { sender: Sender::new(handle, guard) }
    }

    fn authorize(&self, request: &mut Request) -> Result<Snapshot<I>, Unsent> {
        // As reqwest itself makes a URI out of the URL, so what is checked is what is sent.
        let Ok(uri) = Uri::try_from(request.url().as_str()) else {
            return Err(GuardError::Unreadable { expected: self.sender.guard().origin().clone() }.into());
        };
        self.sender.authorize_headers(&uri, request.headers_mut())
    }

    async fn answered(&self, generation: Generation, mut response: Response) -> Response {
        let length = response.content_length().unwrap_or(0);
        if !Sender::<I>::is_telling(response.status(), length) {
            let sent = self.sender.judge(generation, response.status(), response.headers(), &[]);
            response.extensions_mut().insert(sent);
            return response;
        }
        let url = response.url().clone();
        let (mut parts, body) = http::Response::<Body>::from(response).into_parts();
        // A response that is put together again has its URL from an extension that only this builder can set.
        if let Ok(carrier) = http::Response::builder().url(url).body(()) {
            parts.extensions.extend(carrier.into_parts().0.extensions);
        }
        let mut ahead = ReadAhead::new(body);
        poll_fn(|context| ahead.poll(context)).await;
        self.sender.answered(generation, parts, ahead.into_body()).map(Body::wrap).into()
    }
}

#[async_trait]
impl<I: Issuer> Middleware for BearerMiddleware<I> {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let snapshot = self.authorize(&mut request).map_err(|unsent| match unsent {
            Unsent::Guard(error) => Error::middleware(error),
            Unsent::Closed(closed) => Error::middleware(closed),
        })?;
        let response = next.run(request, extensions).await?;
        Ok(self.answered(snapshot.generation(), response).await)
    }
}

impl<I: Issuer> fmt::Debug for BearerMiddleware<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerMiddleware({:?}, {:?})", self.sender.handle(), self.sender.guard())
    }
}
