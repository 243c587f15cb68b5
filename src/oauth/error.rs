//! What can go wrong in asking an authorisation server.

use std::fmt;
use std::time::Duration;

use crate::failure::Obstacle;
use crate::source::{Absence, Provenance, SourceError};
use crate::store::DocumentError;

/// An app or its server is not described well. It never holds the text.
///
/// ```
/// use keysheath::oauth::{Endpoints, SetupError};
/// let plain = Endpoints::new("http://login.example/authorize", "https://login.example/token");
/// assert_eq!(plain.unwrap_err(), SetupError::Endpoint { which: "authorisation" });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// An endpoint is not a URL that may be used.
    #[error(
        "the {which} endpoint is no https URL of at most 2,048 bytes without user information, query and fragment: write \
         it as the server's documentation has it (plain http is for 127.0.0.1 and [::1] only)"
    )]
    Endpoint {
        /// Which of the two.
        which: &'static str,
    },
    /// A client id, an audience, a scope or a redirect URI is empty, too long, or has characters that it cannot have.
    #[error("the {what} is not 1 to 2,048 visible ASCII characters (a scope has spaces too): copy it again")]
    Value {
        /// Which value.
        what: &'static str,
    },
    /// The client secret is not there, and without it no sign-in can be finished.
    #[error("the client secret is not in {provenance} ({absence}): put it there before anybody signs in")]
    #[non_exhaustive]
    NoSecret {
        /// Where it was looked for.
        provenance: Provenance,
        /// What was found there.
        absence: Absence,
    },
    /// The client secret cannot be had, or is not well-formed, and without it no sign-in can be finished.
    #[error("the client secret: {0}")]
    Secret(SourceError),
    /// The system gives no random bytes.
    #[error(
        "the system gives no random bytes, so nobody could tell this sign-in from a forged one: try again later"
    )]
    NoRandomness,
}

/// A token endpoint gave no tokens: why, and what to do next. It holds no byte of what was sent or received.
///
/// Two of these need a person: [`TokenError::Refused`], because the grant is gone, and [`TokenError::AppRefused`], because
/// the app is not set up as its server knows it. The others say nothing about the grant.
///
/// ```
/// use keysheath::{failure::Obstacle, oauth::TokenError};
/// let down = TokenError::Unreachable(Obstacle::NotListening);
/// assert!(!down.refuses_grant());
/// assert!(down.to_string().contains("nothing listens there"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The server says that the code or the refresh token is not valid (any more): `invalid_grant`.
    #[error(
        "{status}: the server refuses the grant (invalid_grant): the code is used or too old, or the refresh token was used \
         before, revoked, or is too old; next: sign in again"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The server does not take the app or its request, and says nothing about the grant.
    #[error(
        "{status}: the server refuses the app and not the grant ({problem}); next: check the client id, the client secret and \
         the redirect URI against the app's page at the issuer"
    )]
    AppRefused {
        /// The HTTP status.
        status: u16,
        /// The error code, if it is one of those that RFC 6749 has.
        problem: AppProblem,
    },
    /// There was no answer, or none that can be read.
    #[error("the authorisation server: {0}")]
    Unreachable(Obstacle),
    /// An answer that says nothing about the grant: 429, a 5xx, a proxy's.
    #[error(
        "{status}: no answer of a token endpoint; next: ask again later, and look at what stands in between"
    )]
    Inconclusive {
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// A success whose content is no token response.
    #[error("{status}: the answer is no token response ({rule}); next: check the token endpoint")]
    #[non_exhaustive]
    NotTokens {
        /// The HTTP status.
        status: u16,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The client secret is not there.
    #[error("the client secret is not in {provenance} ({absence}); next: put it there")]
    #[non_exhaustive]
    NoSecret {
        /// Where it was looked for.
        provenance: Provenance,
        /// What was found there.
        absence: Absence,
    },
    /// The client secret cannot be had, or is not well-formed.
    #[error("the client secret: {0}")]
    Secret(SourceError),
}

/// What a server does not like about an app: an error code of RFC 6749, section 5.2.
///
/// ```
/// use keysheath::oauth::AppProblem;
/// assert_eq!(AppProblem::Client.to_string(), "invalid_client");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AppProblem {
    /// `invalid_request`
    Request,
    /// `invalid_client`
    Client,
    /// `unauthorized_client`
    Unauthorized,
    /// `unsupported_grant_type`
    GrantType,
    /// `invalid_scope`
    Scope,
    /// `invalid_target` (RFC 8707)
    Target,
}

/// The document of a grant cannot be used: why, and what to do next. It holds no byte of the document.
///
/// ```
/// use keysheath::oauth::GrantError;
/// assert!(GrantError::None.to_string().contains("sign in"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Nobody has signed in yet.
    #[error("there is no grant yet: sign in first, and save the tokens there")]
    None,
    /// The document cannot be had, or not be written.
    #[error("{0}")]
    Document(DocumentError),
    /// What is there is not what this crate wrote.
    #[error(
        "the document is no grant ({rule}): restore it, or sign in again and save the tokens to another place"
    )]
    #[non_exhaustive]
    Corrupt {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// A newer version has written it.
    #[error(
        "the grant has form {found}, and this version knows forms up to {known}: use the newer keysheath"
    )]
    #[non_exhaustive]
    Newer {
        /// Its form.
        found: u64,
        /// The newest one that this version knows.
        known: u64,
    },
    /// The grant is another issuer's, another client's or of another server.
    #[error("the grant is for another {what} than this app's: name its own place for each app")]
    Other {
        /// What is another one.
        what: &'static str,
    },
    /// The tokens were saved before, and not here.
    #[error(
        "these tokens were saved in another place, and two places would use one refresh token twice: keep the grant in one place"
    )]
    SavedElsewhere,
    /// The tokens are larger than the place takes.
    #[error("the tokens are larger than the place takes, {limit} bytes: name a place that holds more")]
    #[non_exhaustive]
    TooLarge {
        /// Its bound, in bytes.
        limit: usize,
    },
}

impl SetupError {
    /// Why the client secret was not loaded.
    pub(super) fn of_secret(error: TokenError) -> Self {
        match error {
            TokenError::NoSecret { provenance, absence } => Self::NoSecret { provenance, absence },
            TokenError::Secret(error) => Self::Secret(error),
            _ => unreachable!("nothing else comes of loading it"),
        }
    }
}

impl TokenError {
    /// Whether the server itself said that the grant is not valid, so that a person must sign in again. True for
    /// [`TokenError::Refused`] only.
    ///
    /// ```
    /// # use keysheath::oauth::TokenError;
    /// assert!(TokenError::Refused { status: 400 }.refuses_grant());
    /// ```
    #[must_use]
    pub const fn refuses_grant(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// How long the server asks to wait, from a `Retry-After` in seconds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::oauth::TokenError;
    /// let busy = TokenError::Inconclusive { status: 429, retry_after: Some(Duration::from_secs(7)) };
    /// assert_eq!(busy.retry_after(), Some(Duration::from_secs(7)));
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Inconclusive { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the refresh token may have been used up all the same, although this was answered.
    pub(super) const fn leaves_doubt(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::AppRefused { .. } | Self::NoSecret { .. } | Self::Secret(_) => false,
            // Too many requests: it was not looked at.
            Self::Inconclusive { status, .. } => *status != 429,
            Self::NotTokens { .. } | Self::Unreachable(_) => true,
        }
    }
}

impl AppProblem {
    pub(super) fn of_code(code: &[u8]) -> Option<Self> {
        let all =
            [Self::Request, Self::Client, Self::Unauthorized, Self::GrantType, Self::Scope, Self::Target];
        all.into_iter().find(|problem| problem.code().as_bytes() == code)
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Request => "invalid_request",
            Self::Client => "invalid_client",
            Self::Unauthorized => "unauthorized_client",
            Self::GrantType => "unsupported_grant_type",
            Self::Scope => "invalid_scope",
            Self::Target => "invalid_target",
        }
    }
}

impl fmt::Display for AppProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl From<DocumentError> for GrantError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::TooLarge { limit } => Self::TooLarge { limit },
            error => Self::Document(error),
        }
    }
}
