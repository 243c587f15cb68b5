//! A tower layer that lets only authorised requests through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::principal::{Authorize, Refusal, RequestedStore};
use super::store_path::store_of_path;

/// What in a request names the store that it is for.
type FindStore = dyn Fn(&http::request::Parts) -> RequestedStore + Send + Sync;

/// Puts a [`KeyRegistry`](super::KeyRegistry) or [`StaticKeys`](super::StaticKeys) in front of a service.
///
/// A request that is not authorised is answered with the issuer's row as JSON and, with 401 and 403, `WWW-Authenticate` as
/// RFC 6750 has it. One that is goes on with its [`Principal`](super::Principal) in its extensions. Every method needs a
/// key, `OPTIONS` too: an API for servers answers no CORS preflight, so that no browser gets to send a key.
///
/// With axum use [`route_layer`], which runs for routes that exist only and so keeps the 404 of those that do not:
///
/// ```
/// use std::sync::Arc;
///
/// use axum::{Extension, Router, routing::post};
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, Principal, RequireKeyLayer};
///
/// async fn upsert(Extension(principal): Extension<Principal>) -> String {
///     format!("hello, team {:?}", principal.team())
/// }
///
/// let registry = Arc::new(KeyRegistry::in_memory(Kanal::PROFILE)?);
/// let app: Router = Router::new()
///     .route("/api/v1/stores/{store_id}/customers", post(upsert))
///     .route_layer(RequireKeyLayer::for_stores(registry));
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
///
/// [`route_layer`]: https://docs.rs/axum/0.8/axum/struct.Router.html#method.route_layer
#[doc(alias("bearer", "authentication"))]
pub struct RequireKeyLayer<A: ?Sized> {
    keys: Arc<A>,
    find_store: Arc<FindStore>,
}

/// The service that [`RequireKeyLayer`] makes.
///
/// ```
/// use std::sync::Arc;
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, RequireKeyLayer};
/// use tower_layer::Layer;
///
/// let layer = RequireKeyLayer::new(Arc::new(KeyRegistry::in_memory(Kanal::PROFILE)?));
/// let service = layer.layer(()); // any service over http::Request
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
pub struct RequireKey<S, A: ?Sized> {
    inner: S,
    keys: Arc<A>,
    find_store: Arc<FindStore>,
}

impl<A: Authorize + ?Sized> RequireKeyLayer<A> {
    /// For a service without stores, and for routes that name none. A key that is restricted to a store is refused there,
    /// unless [`RequireKeyLayer::for_any_key`] is asked for.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use keysheath::key::{Issuer, Katana};
    /// # use keysheath::registry::{KeyRegistry, RequireKeyLayer};
    /// let layer = RequireKeyLayer::new(Arc::new(KeyRegistry::in_memory(Katana::PROFILE)?));
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn new(keys: Arc<A>) -> Self {
        Self::with_store(keys, |_| RequestedStore::NoStore)
    }

    /// As [`RequireKeyLayer::new`], with keys that are restricted to a store let through. The service then keeps each key to
    /// its store itself, by [`Principal::restriction`](super::Principal::restriction).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, RequireKeyLayer};
    /// // Around a route such as `/api/v1/me`, which shows the key's own stores.
    /// let layer = RequireKeyLayer::for_any_key(Arc::new(KeyRegistry::in_memory(Kanal::PROFILE)?));
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn for_any_key(keys: Arc<A>) -> Self {
        Self::with_store(keys, |_| RequestedStore::NoStoreForAnyKey)
    }

    /// For paths as Kanal has them: the store's number follows the first segment `stores`. A path without a store, and one
    /// that some server could read in another way, is answered as a store that is not there, so that no request gets past
    /// its store. Each segment is letters, digits and signs that mean nothing in a path, or such characters as `%XX`; one
    /// that is empty or dots alone, and one with `;`, `\`, `%`, `/`, `?`, `#`, a control character or what is not UTF-8 behind
    /// a `%XX`, is refused.
    ///
    /// The layer must see the whole path: put it around a nested router and not into it, and give the routes that have no
    /// store a layer of their own, by [`RequireKeyLayer::new`].
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, RequireKeyLayer};
    /// let layer = RequireKeyLayer::for_stores(Arc::new(KeyRegistry::in_memory(Kanal::PROFILE)?));
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn for_stores(keys: Arc<A>) -> Self {
        Self::with_store(keys, |request| store_of_path(request.uri.path()))
    }

    /// With a rule of your own for which store a request is for. A rule that finds none where there is one lets every key
    /// of every team through, so it had better err on the other side, with [`RequestedStore::NotAStore`].
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::{KeyRegistry, RequireKeyLayer, RequestedStore};
    /// # let registry = Arc::new(KeyRegistry::in_memory(Kanal::PROFILE)?);
    /// let layer = RequireKeyLayer::with_store(registry, |request| {
    ///     let header = request.headers.get("x-store").and_then(|value| value.to_str().ok());
    ///     header.map_or(RequestedStore::NotAStore, RequestedStore::from_segment)
    /// });
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    #[must_use]
    pub fn with_store(
        keys: Arc<A>,
        find: impl Fn(&http::request::Parts) -> RequestedStore + Send + Sync + 'static,
    ) -> Self {
        Self { keys, find_store: Arc::new(find) }
    }
}

impl<A: ?Sized> Clone for RequireKeyLayer<A> {
    fn clone(&self) -> Self {
        Self { keys: Arc::clone(&self.keys), find_store: Arc::clone(&self.find_store) }
    }
}

impl<S: Clone, A: ?Sized> Clone for RequireKey<S, A> {
    fn clone(&self) -> Self {
        let (keys, find_store) = (Arc::clone(&self.keys), Arc::clone(&self.find_store));
        Self { inner: self.inner.clone(), keys, find_store }
    }
}

impl<A: ?Sized> std::fmt::Debug for RequireKeyLayer<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequireKeyLayer")
    }
}

impl<S, A: ?Sized> std::fmt::Debug for RequireKey<S, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequireKey")
    }
}

impl<S, A: ?Sized> Layer<S> for RequireKeyLayer<A> {
    type Service = RequireKey<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireKey { inner, keys: Arc::clone(&self.keys), find_store: Arc::clone(&self.find_store) }
    }
}

impl<S, A, B, R> Service<Request<B>> for RequireKey<S, A>
where
    A: Authorize + ?Sized,
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<RefusalBody<R>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // A request that is refused needs no room in the service, and none is taken for it: the service that was found
        // ready here is the one that is called.
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        match self.keys.authorize(&parts.headers, (self.find_store)(&parts)) {
            Ok(principal) => {
                parts.extensions.insert(principal);
                // Nobody further in needs it, and whoever prints the headers does not see it.
                if let Some(value) = parts.headers.get_mut(AUTHORIZATION) {
                    value.set_sensitive(true);
                }
                Answering::Let { future: self.inner.call(Request::from_parts(parts, body)) }
            }
            Err(refusal) => Answering::Refused { refusal: Some(refusal) },
        }
    }
}

pin_project! {
    /// The answer of [`RequireKey`], on its way.
    #[doc(hidden)]
    #[project = AnsweringState]
    pub enum Answering<F> {
        Let { #[pin] future: F },
        Refused { refusal: Option<Refusal> },
    }
}

impl<F, R, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<RefusalBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringState::Let { future } => {
                let response = ready!(future.poll(context))?;
                Poll::Ready(Ok(response.map(RefusalBody::of_service)))
            }
            AnsweringState::Refused { refusal } => {
                let refusal = refusal.take().expect("polled again after it had answered");
                Poll::Ready(Ok(answer(&refusal)))
            }
        }
    }
}

fn answer<R>(refusal: &Refusal) -> Response<RefusalBody<R>> {
    let body = Bytes::from(refusal.body());
    let length = body.len();
    let mut response = Response::new(RefusalBody::of_refusal(body));
    *response.status_mut() = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::UNAUTHORIZED);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = refusal.challenge().and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

pin_project! {
    /// The body of the service's own answer, or of a refusal.
    ///
    /// ```
    /// use http_body::Body;
    /// use keysheath::registry::RefusalBody;
    ///
    /// fn length<B: Body<Data = bytes::Bytes>>(body: &RefusalBody<B>) -> Option<u64> {
    ///     body.size_hint().exact()
    /// }
    /// ```
    #[derive(Debug)]
    pub struct RefusalBody<B> {
        #[pin]
        inner: Option<B>,
        refusal: Option<Bytes>,
    }
}

impl<B> RefusalBody<B> {
    const fn of_service(body: B) -> Self {
        Self { inner: Some(body), refusal: None }
    }

    const fn of_refusal(body: Bytes) -> Self {
        Self { inner: None, refusal: Some(body) }
    }
}

impl<B> Body for RefusalBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let body = self.project();
        match body.inner.as_pin_mut() {
            Some(inner) => inner.poll_frame(context),
            None => Poll::Ready(body.refusal.take().map(|refusal| Ok(Frame::data(refusal.into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().map_or(self.refusal.is_none(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let own = || SizeHint::with_exact(self.refusal.as_ref().map_or(0, |body| body.len() as u64));
        self.inner.as_ref().map_or_else(own, Body::size_hint)
    }
}
