//! Why a request got no response.

use std::fmt;

use super::GuardError;
use crate::handle::Closed;

/// Why a request got no response.
///
/// The client's own error is neither shown nor a source of this one, because several libraries print secrets in theirs;
/// [`BearerError::into_inner`] takes it out.
///
/// ```
/// use keysheath::client::{BearerError, GuardError};
///
/// let refused = BearerError::<std::io::Error>::Guard(GuardError::UserInfo);
/// assert!(refused.to_string().contains("remove it"));
/// assert!(refused.into_inner().is_none());
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BearerError<E> {
    /// The request must not carry the key, and was not sent with it. (Where another key was refused first, the request that
    /// was to be repeated has the newer key in its URI.)
    #[error("{0}")]
    Guard(GuardError),
    /// No key is in force. Nothing was sent. The key of a live handle may come later; see [`Closed`] for what to do.
    #[error("{0}")]
    Closed(Closed),
    /// The client below failed; the request may have been sent, and where it is repeated, this is about the repetition.
    #[error(
        "the HTTP client below the bearer layer failed, and the request may have reached the issuer: \
         take the client's own error out with into_inner, it is not shown here because it may hold a secret"
    )]
    Inner(E),
}

impl<E> BearerError<E> {
    /// The error of the client below, if it is one.
    ///
    /// ```
    /// # use keysheath::client::BearerError;
    /// let error = BearerError::Inner(std::io::Error::from(std::io::ErrorKind::TimedOut));
    /// assert!(!error.to_string().contains("timed out"));
    /// assert_eq!(error.into_inner().unwrap().kind(), std::io::ErrorKind::TimedOut);
    /// ```
    #[must_use]
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Guard(_) | Self::Closed(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

impl<E> fmt::Debug for BearerError<E> {
    /// Without the client's own error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(error) => f.debug_tuple("Guard").field(error).finish(),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
            Self::Inner(_) => f.write_str("Inner(..)"),
        }
    }
}
