//! Why a request got no response.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use super::GuardError;
use crate::handle::NoActiveKey;

/// What a client's error is made into, as tower's own layers do.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request got no response.
///
/// ```
/// use keysheath::client::{BearerError, GuardError};
///
/// let refused = BearerError::Guard(GuardError::UserInfo);
/// assert!(refused.to_string().contains("remove it"));
/// assert!(refused.into_inner().is_none());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BearerError {
    /// The request must not carry the key, and was not sent with it. (Where another key was refused first, the request that
    /// was to be repeated has the newer key in its URI.)
    #[error("{0}")]
    Guard(GuardError),
    /// No key is active. Nothing was sent. The key of a live handle may come later; see [`NoActiveKey`] for what to do.
    #[error("{0}")]
    NoActiveKey(NoActiveKey),
    /// The client below failed. Where the request is repeated, this is about the repetition.
    #[error("{0}")]
    Inner(ClientError),
}

/// The client below a bearer layer failed: whether the request may have arrived, and what the operating system said.
///
/// The client's own error is neither shown nor a source of this one, because several libraries print secrets in theirs;
/// [`ClientError::get_ref`] and [`ClientError::into_inner`] give it.
///
/// ```
/// use keysheath::client::BearerError;
///
/// fn log(error: &BearerError) {
///     match error {
///         BearerError::Inner(failed) if !failed.may_have_arrived() => eprintln!("nothing was sent: {error}"),
///         _ => eprintln!("{error}"),
///     }
/// }
/// ```
pub struct ClientError {
    error: BoxError,
    may_have_arrived: bool,
    kind: Option<io::ErrorKind>,
}

impl BearerError {
    /// The error of the client below, if it is one.
    ///
    /// ```
    /// # use keysheath::client::BearerError;
    /// fn own(error: BearerError) -> Option<Box<dyn std::error::Error + Send + Sync>> {
    ///     error.into_inner()
    /// }
    /// ```
    #[must_use]
    pub fn into_inner(self) -> Option<BoxError> {
        match self {
            Self::Guard(_) | Self::NoActiveKey(_) => None,
            Self::Inner(error) => Some(error.into_inner()),
        }
    }

    /// Of a client that has begun to send.
    pub(super) fn sending(error: impl Into<BoxError>) -> Self {
        Self::Inner(ClientError::new(error.into(), true))
    }

    /// Of a client that was not ready to send.
    pub(super) fn readying(error: impl Into<BoxError>) -> Self {
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

    /// Whether the request may have reached the issuer. False where there was no connection to send it on.
    ///
    /// ```
    /// # use keysheath::client::ClientError;
    /// fn is_safe_to_send_again(error: &ClientError) -> bool {
    ///     !error.may_have_arrived()
    /// }
    /// ```
    #[must_use]
    pub const fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }

    /// What the operating system said, if it was asked.
    ///
    /// ```
    /// # use keysheath::client::ClientError;
    /// fn nobody_listens(error: &ClientError) -> bool {
    ///     error.kind() == Some(std::io::ErrorKind::ConnectionRefused)
    /// }
    /// ```
    #[must_use]
    pub const fn kind(&self) -> Option<io::ErrorKind> {
        self.kind
    }

    /// The client's own error, if it is of this type. It may hold a secret.
    ///
    /// ```
    /// # use keysheath::client::ClientError;
    /// fn timed_out(error: &ClientError) -> bool {
    ///     error.get_ref::<std::io::Error>().is_some_and(|own| own.kind() == std::io::ErrorKind::TimedOut)
    /// }
    /// ```
    #[must_use]
    pub fn get_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }

    /// The client's own error. It may hold a secret.
    ///
    /// ```
    /// # use keysheath::client::ClientError;
    /// fn own(error: ClientError) -> Option<Box<std::io::Error>> {
    ///     error.into_inner().downcast().ok()
    /// }
    /// ```
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.error
    }
}

/// Whether an error is what hyper's clients say where they got no connection. It is compared as it is written, because what
/// else it says is not to be kept.
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
            " before anything was sent: see whether the issuer can be reached from here"
        })?;
        f.write_str("; its own error is not shown, because it may hold a secret, and into_inner gives it")
    }
}

impl fmt::Debug for ClientError {
    /// Without the client's own error.
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
    fn a_refused_connection_keeps_its_cause_and_sent_nothing() {
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
    fn what_broke_later_may_have_arrived() {
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
