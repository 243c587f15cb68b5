//! A tower layer that lets only authorized requests through, and the store that a path names.

use std::borrow::Cow;
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

use super::authorize::{Authorize, Refusal, RequestedStore};
use crate::internal::bytes::percent_byte;

/// How the store that a request is for is found.
///
/// Servers clone a service for each request, so the rules of our own share nothing: threads that count the
/// owners of one value slow each other down.
#[derive(Clone)]
enum FindStore {
    /// It is the same for each request.
    Always(RequestedStore),
    /// By the path, in Kanal's form.
    ByPath,
    By(Arc<dyn Fn(&http::request::Parts) -> RequestedStore + Send + Sync>),
}

/// Puts a [`KeyRegistry`](super::KeyRegistry) or [`StaticKeys`](super::StaticKeys) in front of a service.
///
/// A request that is not authorized is answered with the issuer's row as JSON and, with 401 and 403,
/// `WWW-Authenticate` as in RFC 6750. An authorized one reaches the service with its
/// [`Principal`](super::Principal) among its extensions. Every method needs a key, `OPTIONS` too: an API for
/// servers answers no CORS preflight, so that no browser sends a key.
///
/// With axum use [`route_layer`], which runs only for routes that exist, and so keeps the 404 of the others:
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
    find_store: FindStore,
}

/// A service with a [`RequireKeyLayer`] around it.
pub struct RequireKey<S, A: ?Sized> {
    inner: S,
    keys: Arc<A>,
    find_store: FindStore,
}

impl<A: Authorize + ?Sized> RequireKeyLayer<A> {
    /// Creates a layer for a service without stores, and for routes that name none. A key that is restricted
    /// to a store is refused; [`RequireKeyLayer::for_any_key`] accepts it.
    #[must_use]
    pub fn new(keys: Arc<A>) -> Self {
        Self { keys, find_store: FindStore::Always(RequestedStore::NoStore) }
    }

    /// As [`RequireKeyLayer::new`], but accepts keys that are restricted to a store, for a route such as
    /// `/api/v1/me`. The service must keep each key to its store itself, by
    /// [`Principal::restriction`](super::Principal::restriction).
    #[must_use]
    pub fn for_any_key(keys: Arc<A>) -> Self {
        Self { keys, find_store: FindStore::Always(RequestedStore::NoStoreForAnyKey) }
    }

    /// Creates a layer for paths in Kanal's form: the store's number follows the first segment `stores`.
    ///
    /// A path without a store, or one that some server could read differently, is answered as an unknown
    /// store, so that no request bypasses its store. A segment may have letters, digits and characters
    /// without a meaning in a path, as they are or as `%XX`. A segment that is empty or only dots is refused,
    /// and one with `;`, `\`, `%`, `/`, `?`, `#`, a control character or invalid UTF-8 as `%XX`.
    ///
    /// The layer must see the whole path: put it around a nested router, not inside. Give routes without a
    /// store a layer of their own, by [`RequireKeyLayer::new`].
    #[must_use]
    pub fn for_stores(keys: Arc<A>) -> Self {
        Self { keys, find_store: FindStore::ByPath }
    }

    /// Creates a layer with a custom rule for the store that a request is for. A rule that misses a store
    /// lets the keys of every team through, so return [`RequestedStore::NotAStore`] in case of doubt.
    #[must_use]
    pub fn for_stores_by(
        keys: Arc<A>,
        find: impl Fn(&http::request::Parts) -> RequestedStore + Send + Sync + 'static,
    ) -> Self {
        Self { keys, find_store: FindStore::By(Arc::new(find)) }
    }
}

impl<A: ?Sized> Clone for RequireKeyLayer<A> {
    fn clone(&self) -> Self {
        Self { keys: Arc::clone(&self.keys), find_store: self.find_store.clone() }
    }
}

impl<S: Clone, A: ?Sized> Clone for RequireKey<S, A> {
    fn clone(&self) -> Self {
        let (keys, find_store) = (Arc::clone(&self.keys), self.find_store.clone());
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
        RequireKey { inner, keys: Arc::clone(&self.keys), find_store: self.find_store.clone() }
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
        // A refused request uses none of the service's capacity: the service that is ready here is the one
        // that is called.
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let requested = match &self.find_store {
            FindStore::Always(requested) => *requested,
            FindStore::ByPath => store_of_path(request.uri().path()),
            FindStore::By(find) => {
                let (parts, body) = request.into_parts();
                let requested = find(&parts);
                request = Request::from_parts(parts, body);
                requested
            }
        };
        match self.keys.authorize(request.headers(), requested) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
                // The service does not need it, and a log of the headers must not show it.
                if let Some(value) = request.headers_mut().get_mut(AUTHORIZATION) {
                    value.set_sensitive(true);
                }
                Answering::Let { future: self.inner.call(request) }
            }
            Err(refusal) => Answering::Refused { refusal: Some(refusal) },
        }
    }
}

pin_project! {
    /// The future of a [`RequireKey`].
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
                let refusal = refusal.take().expect("`RequireKey` future polled after completion");
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
    /// The body of the service's own response, or of a refusal.
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

/// Returns the store that a path in Kanal's form is for: its number follows the first segment `stores`.
///
/// Servers and proxies read paths differently: they decode `%XX` once or twice, merge slashes, resolve `..`,
/// cut path parameters at `;`, or fold wide characters. This accepts only paths that all of them read alike;
/// any other path is for no store.
pub(super) fn store_of_path(path: &str) -> RequestedStore {
    let Some(mut rest) = path.strip_prefix('/') else { return RequestedStore::NotAStore };
    // A slash at the end has no meaning.
    rest = rest.strip_suffix('/').unwrap_or(rest);
    if !rest.split('/').all(is_plain) {
        return RequestedStore::NotAStore;
    }
    let mut segments = rest.split('/');
    match (segments.find(|segment| could_be_stores(segment)), segments.next()) {
        (Some("stores"), Some(store)) => RequestedStore::from_segment(store),
        _ => RequestedStore::NotAStore,
    }
}

/// Returns whether a server that folds case or drops characters could read a segment as `stores`.
fn could_be_stores(segment: &str) -> bool {
    if is_usual(segment) {
        return segment.eq_ignore_ascii_case("stores");
    }
    decoded(segment.as_bytes()).is_some_and(|segment| {
        let name = segment.trim_matches(is_droppable);
        name.eq_ignore_ascii_case("stores") || (!name.is_ascii() && name.to_uppercase() == "STORES")
    })
}

/// Returns whether a segment has only ASCII letters, digits, `-` and `_`: nothing is decoded or dropped
/// there, and only the case is folded. Most segments are so, and are told apart faster.
fn is_usual(segment: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !segment.is_empty() && segment.bytes().all(is_usual)
}

/// Returns whether servers drop this character at the end of a segment, or anywhere in it.
const fn is_droppable(c: char) -> bool {
    matches!(c, '.' | ' ') || is_mark(c)
}

/// Returns whether every server reads a segment alike: it is not empty, not only dots, and decodes once, to
/// UTF-8, to characters without a meaning in a path.
fn is_plain(segment: &str) -> bool {
    if is_usual(segment) {
        return true;
    }
    let Some(decoded) = decoded(segment.as_bytes()) else { return false };
    !decoded.trim_matches(is_droppable).is_empty() && decoded.chars().all(has_no_meaning)
}

/// Decodes each `%XX` of a segment. `None` if one is malformed, decodes to invalid UTF-8, or is a `?` or a
/// `#`, which would end the path for a server that decodes twice.
fn decoded(segment: &[u8]) -> Option<Cow<'_, str>> {
    if !segment.contains(&b'%') {
        // A URI is ASCII.
        return str::from_utf8(segment).ok().filter(|segment| segment.is_ascii()).map(Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let [first, more @ ..] = rest {
        let (byte, after) = if *first == b'%' {
            percent_byte(rest).filter(|(byte, _)| !matches!(byte, b'?' | b'#'))?
        } else {
            (Some(*first).filter(u8::is_ascii)?, more)
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Letters and digits of every script, and the ASCII punctuation without a meaning in a path: not `/`, `\`,
/// `;`, `%`, `?`, `#` and no control character. No punctuation beyond ASCII, because some of it is equivalent
/// to one of those.
fn has_no_meaning(c: char) -> bool {
    if !c.is_ascii() {
        // `⒈` and similar characters are digits with a dot.
        let is_dotted = matches!(c, '\u{2488}'..='\u{249b}' | '\u{1f100}'..='\u{1f10c}');
        return (c.is_alphanumeric() || is_mark(c)) && !is_dotted;
    }
    c.is_ascii_alphanumeric() || r#" !"$&'()*+,-.:<=>@[]^_`{|}~"#.contains(c)
}

/// Combining marks that do not count as letters: separate accents, as macOS writes them, and marks of Indian
/// scripts, Thai, Lao and Japanese. Not the strokes through a letter, which look like a slash.
const fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{336}'
            | '\u{339}'..='\u{36f}'
            | '\u{93c}' | '\u{94d}' | '\u{9bc}' | '\u{9cd}' | '\u{a3c}' | '\u{a4d}' | '\u{abc}' | '\u{acd}'
            | '\u{b3c}' | '\u{b4d}' | '\u{bcd}' | '\u{c4d}' | '\u{cbc}' | '\u{ccd}' | '\u{d4d}' | '\u{dca}'
            | '\u{e47}'..='\u{e4e}'
            | '\u{ec8}'..='\u{ecc}'
            | '\u{3099}' | '\u{309a}'
    )
}
