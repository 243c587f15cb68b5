//! Which requests can be repeated, and which layers keep one to repeat it.

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Method, Request};

/// Marks a request as one that can be repeated, whatever its method is: put it among the request's extensions. Without it,
/// a request is repeated if its method is GET, HEAD, OPTIONS, PUT or DELETE.
///
/// Whether the server does the thing once when it is asked twice is yours to know.
///
/// ```
/// use keysheath::client::Repeatable;
///
/// let upsert = http::Request::post("https://api.getkanal.com/api/v1/stores/123/customers")
///     .extension(Repeatable)
///     .body(r#"{ "phone": "+33612345678" }"#)
///     .unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeatable;

/// A [`BearerLayer`](super::BearerLayer) that repeats a request whose key was refused: what `BearerLayer::new` makes.
///
/// ```
/// use keysheath::client::{BearerLayer, Repeating};
/// use keysheath::key::Kanal;
/// struct Shop {
///     layer: BearerLayer<Kanal, Repeating>, // or BearerLayer<Kanal>
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeating;

/// A [`BearerLayer`](super::BearerLayer) that sends each request once: what `BearerLayer::without_repeating` makes.
///
/// ```
/// use keysheath::client::{BearerLayer, NotRepeating};
/// use keysheath::key::Kanal;
/// struct Uploads {
///     layer: BearerLayer<Kanal, NotRepeating>,
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRepeating;

#[diagnostic::on_unimplemented(
    message = "this client or this body cannot be cloned, so a request whose key was refused could not be sent again",
    label = "the client below the bearer layer and the body of the request must be `Clone`",
    note = "with `BearerLayer::new(…).without_repeating()` neither need be: a request is then sent once, and a refused key is still reported"
)]
/// Whether requests with a body `B` can be sent through a client `S`: by [`Repeating`] layers where both can be cloned, by
/// [`NotRepeating`] ones always. It is implemented by these two alone.
///
/// ```
/// use keysheath::client::{BearerService, Repeats};
/// use keysheath::key::Kanal;
///
/// /// Works with both kinds of layers.
/// struct Shop<S, B, M: Repeats<S, B>> {
///     client: BearerService<S, Kanal, M>,
///     body: B,
/// }
/// ```
pub trait Repeats<S, B>: sealed::Sealed {
    /// What to send a second time, and by what. Boxed, because most futures are moved about without it.
    #[doc(hidden)]
    fn keep(client: &S, request: &Request<B>) -> Option<Box<(S, Request<B>)>>;
}

mod sealed {
    /// Keeps the trait to the two.
    #[doc(hidden)]
    pub trait Sealed {}

    impl Sealed for super::Repeating {}

    impl Sealed for super::NotRepeating {}
}

// The compiler is to name the trait above, whose message says what to do, and not `Clone`.
#[diagnostic::do_not_recommend]
impl<S: Clone, B: Clone> Repeats<S, B> for Repeating {
    fn keep(client: &S, request: &Request<B>) -> Option<Box<(S, Request<B>)>> {
        Some(Box::new((client.clone(), request.clone())))
    }
}

impl<S, B> Repeats<S, B> for NotRepeating {
    fn keep(_: &S, _: &Request<B>) -> Option<Box<(S, Request<B>)>> {
        None
    }
}

/// Whether a request may reach the issuer twice. One that has an `Authorization` header may not: a repeat of it would
/// carry a key that may have been replaced.
pub(super) fn can_be_repeated(method: &Method, headers: &HeaderMap, extensions: &Extensions) -> bool {
    let idempotent =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    let marked = || extensions.get::<Repeatable>().is_some();
    !headers.contains_key(AUTHORIZATION) && (idempotent || marked())
}
