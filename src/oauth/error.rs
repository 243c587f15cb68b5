//! Errors of an app, of a sign-in, of a grant and of its keeper.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use crate::failure::Obstacle;
use crate::source::{Absence, Provenance, SourceError};
use crate::store::DocumentError;

/// A value of an app or its server is invalid. Holds no part of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// An endpoint is not an allowed URL.
    #[error(
        "the {which} endpoint is not an https URL of at most 2,048 bytes without user information, query and \
         fragment: write it as in the server's documentation (plain http is for 127.0.0.1 and [::1] only)"
    )]
    Endpoint {
        /// Which of the two.
        which: &'static str,
    },
    /// A client id, an audience, a scope or a redirect URI is empty, too long, or has invalid characters.
    #[error("the {what} is not 1 to 2,048 visible ASCII characters (a scope has spaces too): copy it again")]
    Value {
        /// Which value.
        what: &'static str,
    },
    /// The client secret is absent. Without it no sign-in can be finished.
    #[error("the client secret is not in {provenance} ({absence}): put it there before a person signs in")]
    #[non_exhaustive]
    NoSecret {
        /// Where it was looked for.
        provenance: Provenance,
        /// What was found there.
        absence: Absence,
    },
    /// The client secret cannot be loaded, or is malformed. Without it no sign-in can be finished.
    #[error("the client secret: {0}")]
    Secret(SourceError),
    /// The system gives no random bytes.
    #[error(
        "the system gives no random bytes, so this sign-in could not be told from a forged one: try again \
         later"
    )]
    NoRandomness,
}

/// A token endpoint gave no tokens: why, and what to do next. Holds no byte of what was sent or received.
///
/// Two of these need a person: [`TokenError::Refused`], because the grant is gone, and
/// [`TokenError::AppRefused`], because the app's settings differ from those at its server. The others say
/// nothing about the grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The server says that the code or the refresh token is invalid: `invalid_grant`.
    #[error(
        "{status}: the server refuses the grant (invalid_grant): the code is used or too old, or the refresh \
         token was used before, revoked, or is too old; next: sign in again"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The server refuses the app or its request, and says nothing about the grant.
    #[error(
        "{status}: the server refuses the app and not the grant ({problem}); next: check the client id, the \
         client secret and the redirect URI against the app's page at the issuer"
    )]
    AppRefused {
        /// The HTTP status.
        status: u16,
        /// The error code.
        problem: AppProblem,
    },
    /// There was no answer, or none that could be read.
    #[error("the authorisation server: {0}")]
    Unreachable(Obstacle),
    /// An answer that says nothing about the grant: 429, a 5xx, a proxy's.
    #[error(
        "{status}: not an answer of a token endpoint; next: try again later, and check proxies in between"
    )]
    Inconclusive {
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// A success whose content is not a token response.
    #[error("{status}: the answer is not a token response ({rule}); next: check the token endpoint")]
    #[non_exhaustive]
    NotTokens {
        /// The HTTP status.
        status: u16,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The client secret is absent.
    #[error("the client secret is not in {provenance} ({absence}); next: put it there")]
    #[non_exhaustive]
    NoSecret {
        /// Where it was looked for.
        provenance: Provenance,
        /// What was found there.
        absence: Absence,
    },
    /// The client secret cannot be loaded, or is malformed.
    #[error("the client secret: {0}")]
    Secret(SourceError),
}

/// Why a server refuses an app: an error code of RFC 6749, section 5.2.
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

/// The document of a grant cannot be used: why, and what to do next. Holds no byte of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// There has been no sign-in yet.
    #[error("there is no grant yet: sign in first, and save the tokens there")]
    None,
    /// The document cannot be read or written.
    #[error("{0}")]
    Document(DocumentError),
    /// The document was not written by this crate, or is damaged.
    #[error(
        "the document is not a grant ({rule}): restore it, or sign in again and save the tokens to another \
         place"
    )]
    #[non_exhaustive]
    Corrupt {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The document was written by a newer version of this crate.
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
    /// The grant is of another issuer, client or server.
    #[error("the grant is for another {what} than this app's: use a place of its own for each app")]
    Other {
        /// What differs.
        what: &'static str,
    },
    /// The tokens were saved in another place before.
    #[error(
        "these tokens were saved in another place, and two places would use one refresh token twice: keep \
         the grant in one place"
    )]
    SavedElsewhere,
    /// The tokens are larger than the place takes.
    #[error("the tokens are larger than the {limit} bytes that the place takes: use a place that holds more")]
    #[non_exhaustive]
    TooLarge {
        /// Its bound, in bytes.
        limit: usize,
    },
}

/// A sign-in failed: why, and what to do next. Holds no byte of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    /// The person refused: `access_denied`.
    #[error(
        "the person did not let the app in; next: ask them to sign in again and to agree, if that was a \
         mistake"
    )]
    Denied,
    /// The server reports another error.
    #[error(
        "the authorisation server refuses the sign-in; next: check client id, redirect URI, scope and \
         audience against the app's page at the issuer"
    )]
    Refused,
    /// The answer belongs to another sign-in, or to none, and may be forged.
    #[error(
        "the answer belongs to another sign-in than this one, so it was not used; next: sign in again from \
         the start"
    )]
    WrongState,
    /// The answer has neither a code nor an error, or one of them twice, or is too long.
    #[error("the answer is not one of an authorisation server; next: sign in again from the start")]
    Malformed,
    /// No answer came within the timeout.
    #[error("no answer came in time; next: sign in again, or wait longer")]
    Deadline,
    /// This machine gives no port to listen on, or can no longer listen.
    #[error("this machine cannot listen for the answer ({0}); next: name a free port")]
    Listener(ErrorKind),
}

/// Why the last attempt of a [`TokenKeeper`](super::TokenKeeper) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperProblem {
    /// The store cannot be used, or has something else in it.
    #[error(transparent)]
    Grant(GrantError),
    /// The server gave no tokens.
    #[error(transparent)]
    Token(TokenError),
    /// The server has given new tokens, and the store refuses them. They are kept and tried again until the
    /// store takes them, or until the keeper ends. They are not used meanwhile: they would be lost with this
    /// process.
    #[error(
        "new tokens are not persisted yet, and the old refresh token is used up ({0}); next: make the store \
         writable before this process ends, or sign in again"
    )]
    NotPersisted(GrantError),
    /// The store had newer tokens before the new ones could be persisted, or the grant was deleted, so the
    /// new ones were discarded.
    #[error(
        "the store has newer tokens, or the grant is gone, so the tokens of a refresh were discarded; next: \
         make the lease longer, and find out what was slow"
    )]
    Overtaken,
    /// Writing the lease took so long that nothing was sent with it.
    #[error(
        "the store took so long to write the lease that nothing was sent; next: make the lease longer, or \
         find out why the store is slow"
    )]
    SlowStore,
    /// The document is of an earlier sign-in than the active token.
    #[error(
        "the grant is of an earlier sign-in than the active token, so it was not used; next: find out what \
         put an older copy there, or restart this process if it is intended"
    )]
    WentBack,
    /// The document has the grant of another account, or one that was begun again in an empty place.
    #[error(
        "the grant is another one than that of the active token, so it was not used; next: keep each \
         account's grant in a place of its own, or restart this process if it is intended"
    )]
    OtherGrant,
    /// The keeper's thread has panicked, for example in the document store. The message is on standard error.
    #[error(
        "the keeper's thread has panicked, see standard error; next: check the store's code, and start \
         another keeper"
    )]
    Ended,
}

/// A keeper did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// There is no usable grant.
    #[error(transparent)]
    Grant(GrantError),
    /// The lease is shorter than the app's deadline, so another process could use a refresh token that is
    /// still in flight.
    #[error(
        "the lease of {lease:?} is shorter than the app's deadline of {deadline:?}, so one refresh token \
         could be sent twice: make the lease longer (KeeperSettings::with_lease), or the deadline shorter \
         (OAuthApp::with_deadline)"
    )]
    #[non_exhaustive]
    LeaseTooShort {
        /// The lease.
        lease: Duration,
        /// The app's deadline.
        deadline: Duration,
    },
    /// No thread can be started.
    #[error("no thread can be started ({0}): check this machine's limits")]
    NoThread(ErrorKind),
}

impl SetupError {
    /// Converts an error of loading the client secret.
    pub(super) fn of_secret(error: TokenError) -> Self {
        match error {
            TokenError::NoSecret { provenance, absence } => Self::NoSecret { provenance, absence },
            TokenError::Secret(error) => Self::Secret(error),
            _ => unreachable!("loading it has no other errors"),
        }
    }
}

impl TokenError {
    /// Whether the server itself says that the grant is invalid, so that a person must sign in again. True
    /// for [`TokenError::Refused`] only.
    #[must_use]
    pub const fn refuses_grant(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Returns how long the server asks to wait, from a `Retry-After` in seconds.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Inconclusive { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the refresh token may have been used up nevertheless.
    pub(super) const fn leaves_doubt(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::AppRefused { .. } | Self::NoSecret { .. } | Self::Secret(_) => false,
            // Too many requests: it was not processed.
            Self::Inconclusive { status, .. } => *status != 429,
            Self::NotTokens { .. } | Self::Unreachable(_) => true,
        }
    }
}

impl AppProblem {
    pub(super) fn from_code(code: &[u8]) -> Option<Self> {
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

impl From<GrantError> for KeeperProblem {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
    }
}
