//! Sending a key, and sending it only where it belongs.
//!
//! A [`BearerHeader`] is the value of the one `Authorization` header, built once. An [`OriginGuard`] puts it on
//! a request, and only on one that goes to the issuer's origin. [`BearerLayer`] does both for every request of a tower
//! client, with the key that a [`KeyHandle`](crate::handle::KeyHandle) has in force, reads the answers, and repeats a
//! request once whose key was replaced while it was under way; [`RetryLayer`] repeats what met a passing failure. With the feature `reqwest`, `BearerMiddleware` is the same for reqwest.
//!
//! ```
//! use keysheath::client::{BearerHeader, OriginGuard};
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let header = BearerHeader::new(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
//! let guard = OriginGuard::<Kanal>::new();
//!
//! let mut request = http::Request::get("https://api.getkanal.com/api/v1/stores/123/orders").body(()).unwrap();
//! guard.authorize(&mut request, &header).unwrap();
//! assert!(request.headers().contains_key("authorization"));
//!
//! let mut elsewhere = http::Request::get("https://api.getkanal.com.example/").body(()).unwrap();
//! assert!(guard.authorize(&mut elsewhere, &header).is_err());
//! assert!(elsewhere.headers().is_empty());
//! # Ok::<(), keysheath::key::FormatError>(())
//! ```
//!
//! # What remains yours
//! The guard sees the request that it is given. Turn redirects off in the client or authorise each hop anew,
//! and turn proxies off unless you want one: some clients honour `http_proxy` and `ALL_PROXY` unasked, and over
//! plain HTTP such a proxy reads the header. What a client library keeps of a header in memory is listed in
//! SECURITY.md.

mod bearer_header;
mod origin_guard;
mod answer_body;
mod repeating;
mod sender;
mod bearer_error;
mod bearer_future;
mod bearer_layer;
mod retry;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(all(test, feature = "rotation"))]
mod tests;

pub use answer_body::AnswerBody;
pub use bearer_error::{BearerError, ClientError};
pub use bearer_future::BearerFuture;
pub use bearer_header::BearerHeader;
pub use bearer_layer::{BearerLayer, BearerService};
pub use origin_guard::{GuardError, OriginGuard, OverrideError};
pub use repeating::{NotRepeating, Repeatable, Repeating, Repeats};
pub use retry::{NoErrors, Passing, Retry, RetryFuture, RetryLayer};
pub use sender::Sent;

#[cfg(feature = "reqwest")]
pub use self::reqwest::{BearerMiddleware, guarded_client};
