//! Sends a key, and only where it belongs.
//!
//! A [`BearerHeader`] is the value of the one `Authorization` header, built once. An [`OriginGuard`] puts it
//! on a request, and only on one that goes to the issuer's origin. [`BearerLayer`] does both for every
//! request of a tower client, with the active key of a [`KeyHandle`](crate::handle::KeyHandle). It classifies
//! the answers, and repeats a request once if its key was replaced in the meantime. [`RetryLayer`] retries
//! after temporary failures. With the feature `reqwest`, `BearerMiddleware` is the same for reqwest.
//!
//! ```
//! use keysheath::client::{BearerHeader, OriginGuard};
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let header = BearerHeader::new(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
//! let guard = OriginGuard::<Kanal>::new();
//!
//! let uri = "https://api.getkanal.com/api/v1/stores/123/orders";
//! let mut request = http::Request::get(uri).body(()).unwrap();
//! guard.authorize(&mut request, &header).unwrap();
//! assert!(request.headers().contains_key("authorization"));
//!
//! let mut elsewhere = http::Request::get("https://api.getkanal.com.example/").body(()).unwrap();
//! assert!(guard.authorize(&mut elsewhere, &header).is_err());
//! assert!(elsewhere.headers().is_empty());
//! # Ok::<(), keysheath::key::FormatError>(())
//! ```
//!
//! # What the guard does not see
//! The guard checks the request that it is given. Turn redirects off in the client, or authorize each hop;
//! and turn proxies off unless you want one. Some clients use `http_proxy` and `ALL_PROXY` by default, and
//! over plain HTTP such a proxy reads the header. SECURITY.md lists what a client library keeps of a header
//! in memory.

mod origin_guard;
mod sender;
mod bearer;
mod retry;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(test)]
#[path = "../tests/units/client/live.rs"]
mod live;

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use crate::handle::NoActiveKey;

pub use crate::key::header::BearerHeader;
pub use bearer::{BearerLayer, BearerService, NotRepeating, Repeating};
pub use origin_guard::{GuardError, OriginGuard, OverrideError};
pub use retry::{Repeatable, Retry, RetryLayer};
pub use sender::{AnswerBody, Sent};

#[cfg(feature = "reqwest")]
pub use self::reqwest::{BearerMiddleware, guarded_client};

/// The error of any client, as tower's own layers box it.
type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BearerError {
    /// The request must not carry the key, and was not sent with it. (If another key was refused before, this
    /// is about the repeated request: the newer key is in its URI.)
    #[error("{0}")]
    Guard(GuardError),
    /// No key is active; nothing was sent. A live handle may get a key later; see [`NoActiveKey`] for what to
    /// do.
    #[error("{0}")]
    NoActiveKey(NoActiveKey),
    /// The inner client failed. If the request was repeated, this is about the repeated request.
    #[error("{0}")]
    Inner(ClientError),
}

/// The error of the client inside a bearer layer: whether the request may have arrived, and what the
/// operating system reported.
///
/// The client's own error is neither printed nor a source of this one, because several libraries print
/// secrets in theirs. [`ClientError::get_ref`] and [`ClientError::into_inner`] return it.
pub struct ClientError {
    error: BoxError,
    may_have_arrived: bool,
    kind: Option<io::ErrorKind>,
}

impl BearerError {
    /// Returns the error of the inner client, if this is one.
    #[must_use]
    pub fn into_inner(self) -> Option<BoxError> {
        match self {
            Self::Guard(_) | Self::NoActiveKey(_) => None,
            Self::Inner(error) => Some(error.into_inner()),
        }
    }

    /// The client failed after it had begun to send.
    fn sending(error: impl Into<BoxError>) -> Self {
        Self::Inner(ClientError::new(error.into(), true))
    }

    /// The client failed before it was ready to send.
    fn readying(error: impl Into<BoxError>) -> Self {
        Self::Inner(ClientError::new(error.into(), false))
    }
}

impl ClientError {
    fn new(error: BoxError, has_begun: bool) -> Self {
        let mut kind = None;
        let mut is_unconnected = false;
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
        while let Some(error) = cause {
            is_unconnected |= says_unconnected(error);
            kind = error.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
            cause = error.source();
        }
        let is_refused = kind == Some(io::ErrorKind::ConnectionRefused);
        Self { may_have_arrived: has_begun && !is_unconnected && !is_refused, error, kind }
    }

    /// Returns whether the request may have reached the issuer. False if there was no connection to send it
    /// on.
    #[must_use]
    pub const fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }

    /// Returns the kind of the operating system's error, if there is one among the causes.
    #[must_use]
    pub const fn kind(&self) -> Option<io::ErrorKind> {
        self.kind
    }

    /// Returns the client's own error, if it is of this type. It may contain a secret.
    #[must_use]
    pub fn get_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }

    /// Returns the client's own error. It may contain a secret.
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.error
    }
}

/// Returns whether an error says what hyper's clients say if they got no connection. The text is compared
/// while it is written, so that nothing else of it is kept.
fn says_unconnected(error: &dyn Error) -> bool {
    struct Rest<'a>(&'a str);

    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }

    ["client error (Connect)", "tcp connect error", "dns error"].into_iter().any(|text| {
        let mut rest = Rest(text);
        write!(rest, "{error}").is_ok() && rest.0.is_empty()
    })
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the HTTP client below the bearer layer failed")?;
        if let Some(kind) = self.kind {
            write!(f, " ({kind})")?;
        }
        f.write_str(if self.may_have_arrived {
            ", and the request may have reached the issuer"
        } else {
            " before anything was sent: check that the issuer can be reached from this machine"
        })?;
        f.write_str("; its own error is not printed, because it may contain a secret; into_inner returns it")
    }
}

impl fmt::Debug for ClientError {
    /// Omits the client's own error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { may_have_arrived, kind, .. } = self;
        f.debug_struct("ClientError")
            .field("may_have_arrived", may_have_arrived)
            .field("kind", kind)
            .finish_non_exhaustive()
    }
}

impl Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Connect(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("client error (SendRequest)")]
    struct Send(#[source] io::Error);

    #[test]
    fn a_refused_connection_keeps_its_cause_and_sends_nothing() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for error in [BearerError::sending(Connect(refused())), BearerError::sending(refused())] {
            let BearerError::Inner(failed) = &error else { panic!("{error}") };
            assert!(!failed.may_have_arrived() && failed.kind() == Some(io::ErrorKind::ConnectionRefused));
            let text = error.to_string();
            assert!(
                text.contains("connection refused") && text.contains("before anything was sent"),
                "{text}"
            );
        }
    }

    #[test]
    fn after_a_later_failure_the_request_may_have_arrived() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        for error in [BearerError::sending(Send(reset())), BearerError::sending("a client's own words")] {
            let text = error.to_string();
            assert!(text.contains("may have reached the issuer") && !text.contains("words"), "{text}");
        }
        let unready = BearerError::readying(reset()).to_string();
        assert!(unready.contains("before anything was sent"), "{unready}");
        let own = BearerError::sending(Send(reset())).into_inner().unwrap();
        assert!(own.downcast::<Send>().is_ok());
    }
}
