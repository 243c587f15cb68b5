//! OAuth 2.0 for apps that users grant access: signing in once, and keeping an access token fresh from then
//! on.
//!
//! Katana requires it of publicly available apps that access the data of others. A person signs in at
//! Katana's page and agrees; the app gets a code, and for it an **access token**, which is sent as a key is,
//! and a **refresh token**, which brings the next two. Together they are the **grant**: one document in a
//! [`DocumentStore`](crate::store::DocumentStore).
//!
//! 1. [`OAuthApp`] is the app: its client id, the source of its client secret, and its server.
//! 2. [`OAuthApp::sign_in`] gives the URL for the person. The code comes back by [`SignIn::answer`] at a web
//!    server, or by a [`LoopbackListener`] in a command-line tool. [`OAuthApp::exchange`] turns it into
//!    [`Tokens`], and [`Tokens::save`] writes them as the grant.
//! 3. A [`TokenKeeper`] publishes the access token to a [`KeyHandle`](crate::handle::KeyHandle) and refreshes
//!    it ahead of its end, in as many processes and on as many machines as share the store.
//!    [`BearerLayer`](crate::client::BearerLayer) sends it like a key: if it is refused early, the request
//!    waits for a refresh and is repeated once. The keeper's [events](KeeperSettings::on_event), and with the
//!    feature `tracing` its lines, say when a person is needed.
//! 4. [`OAuthApp::grant_in`] reads a grant without a keeper, such as before a start or in a monitor.
//!
//! # One refresh at a time
//! Each refresh token can be used once. If an old one is used, the server assumes that it was stolen and
//! revokes the whole grant, the newest tokens included (RFC 9700, section 4.14.2; Katana documents it). So
//! the first process to refresh writes a **lease** into the grant's document, with compare-and-swap, and the
//! others wait for the outcome. It sends the refresh token in the first two thirds of the lease or not at
//! all.
//!
//! For other processes, a lease ends when it has passed by every clock that can tell:
//!
//! - **A running process** counts from when it first saw the lease, on its own monotonic clock. Wall clocks
//!   do not matter.
//! - **A process that has just started**, such as a cron job, goes by the date in the lease. On the holder's
//!   machine that is both the clock that counts from the machine's start (Linux) and the wall clock, so a
//!   wall clock that was set cannot end a lease early. On another machine it is the wall clock and 30 min
//!   more. Clocks that differ by more than that can cost the grant: keep the clocks of machines that share
//!   one in step by NTP.
//!
//! The new refresh token is persisted before its access token is judged, and that before it is published. A
//! late answer is awaited until the end of the lease, and what has arrived by then is read. What a process
//! leaves that ends midway:
//!
//! | it ends | the grant |
//! |---|---|
//! | before it has the lease | unchanged |
//! | with the lease, before the server has the request | whole, *in doubt*: the next case looks alike |
//! | after that, before the tokens are persisted | lost with the answer; *in doubt* until it is tried |
//! | after the tokens are persisted | whole: other processes publish them |
//!
//! A grant in doubt keeps its access token active while that is valid. The old refresh token is tried again
//! only at the last moment, or when the access token is refused, because that ends the grant for good if the
//! server has used it up. Meanwhile [`KeeperStatus::state`] is [`GrantState::InDoubt`], and
//! [`KeeperEvent::InDoubt`] was sent: ask a person to sign in again. The protocol allows no better. An answer
//! that was lost on the way leaves the same doubt.
//!
//! # Telling grants apart
//! Each sign-in has a random id. The first one in a place begins the lineage of that place, and a later
//! sign-in that is saved there continues it: keepers take its tokens and send [`KeeperEvent::Replaced`]. The
//! grant of another place, such as another account's, is never taken for it: a keeper that finds one there
//! reports [`GrantError::OtherGrant`].
//!
//! An **older copy** that is put back, such as from a backup, has a used refresh token. A running keeper that
//! has the newest grant writes it back at its next read ([`KeeperEvent::WrittenBack`]). If no keeper runs, or
//! a process starts before that read and a refresh is due, the copy is used, and a person must sign in again:
//! do not restore grants.
//!
//! # Refusals
//! Only the server's own `invalid_grant` refuses a grant ([`GrantState::Refused`]: a person must sign in
//! again). After an unreachable server, a 429, a 5xx or a proxy's page, the token stays active while it is
//! valid, and attempts back off.
//!
//! # Documented by Katana
//! Both endpoints, `scope=offline_access`, the audience, the form-encoded request with the client secret in
//! its body, and that refresh tokens rotate. Not documented: `state` and PKCE, which are sent nevertheless
//! (RFC 9700; PKCE [can be turned off](OAuthApp::without_pkce)), and the lifetime and the format of tokens.
//!
//! ```no_run
//! use std::time::Duration;
//! use keysheath::client::{BearerLayer, OriginGuard};
//! use keysheath::store::FileStore;
//! use keysheath::source::KeyRef;
//! use keysheath::oauth::{KeeperSettings, LoopbackListener, OAuthApp, TokenKeeper};
//!
//! let secret: KeyRef = "systemd:katana_client_secret".parse()?;
//! let app = OAuthApp::katana("my-client-id", secret.source()?)?;
//! let store = FileStore::new("/var/lib/shop-sync/katana-grant");
//!
//! // Once, with a person.
//! let listener = LoopbackListener::bind(0)?;
//! let sign_in = app.sign_in(listener.redirect_uri())?;
//! println!("open {}", sign_in.url());
//! let code = listener.wait(&sign_in, Duration::from_secs(300))?;
//! app.exchange(sign_in, code)?.save(&store)?;
//!
//! // From then on, in each process.
//! let keeper = TokenKeeper::start(app, store, KeeperSettings::new())?;
//! let layer = BearerLayer::new(keeper.handle(), OriginGuard::new());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod app;
mod grant;
mod keeper;
mod sign_in;
mod tokens;

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use crate::failure::Obstacle;
use crate::source::{Problem, SourceError};
use crate::store::DocumentError;

pub use app::{Endpoints, OAuthApp};
pub use keeper::{KeeperEvent, KeeperSettings, KeeperStatus, TokenKeeper};
pub use sign_in::{AuthorizationCode, LoopbackListener, SignIn};
pub use tokens::{GrantState, GrantView, Tokens};

/// The message of an error of the client secret.
struct SecretAdvice<'a>(&'a SourceError);

impl fmt::Display for SecretAdvice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem::Missing { absence } = self.0.problem() else {
            return write!(f, "the client secret: {}", self.0);
        };
        write!(
            f,
            "the client secret is missing ({}: {absence}), and no sign-in can be finished without it: put it \
             there before a person signs in",
            self.0.provenance()
        )
    }
}

/// A sign-in cannot begin, because of the settings of its app or of this machine, or it failed: why, and what
/// to do next. Holds no part of a setting and no byte of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
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
    /// The client secret is absent, cannot be loaded, or is malformed. Without it no sign-in can be finished.
    #[error("{}", SecretAdvice(.0))]
    Secret(SourceError),
    /// The system gives no random bytes.
    #[error(
        "the system gives no random bytes, so this sign-in could not be distinguished from a forged one: try \
         again later"
    )]
    NoRandomness,
    /// The person refused: `access_denied`.
    #[error(
        "the person did not let the app in: ask them to sign in again and to agree, if that was a \
         mistake"
    )]
    Denied,
    /// The server reports another error.
    #[error(
        "the authorization server refuses the sign-in: check client id, redirect URI, scope and \
         audience against the app's page at the issuer"
    )]
    Refused,
    /// The answer belongs to another sign-in, or to none, and may be forged.
    #[error(
        "the answer belongs to another sign-in than this one, so it was not used: sign in again from \
         the start"
    )]
    WrongState,
    /// The answer has neither a code nor an error, or one of them twice, or is too long.
    #[error("the answer is not one of an authorization server: sign in again from the start")]
    Malformed,
    /// No answer came within the timeout.
    #[error("no answer came in time: sign in again, or wait longer")]
    Deadline,
    /// This machine gives no port to listen on, or can no longer listen.
    #[error("this machine cannot listen for the answer ({0}): name a free port")]
    Listener(ErrorKind),
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
         token was used before, revoked, or is too old: sign in again"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The server refuses the app or its request, and says nothing about the grant.
    #[error(
        "{status}: the server refuses the app and not the grant ({code}): check the client id, the \
         client secret and the redirect URI against the app's page at the issuer"
    )]
    AppRefused {
        /// The HTTP status.
        status: u16,
        /// The error code, such as `invalid_client`: one of RFC 6749, section 5.2, or `invalid_target` (RFC
        /// 8707).
        code: &'static str,
    },
    /// There was no answer, or none that could be read.
    #[error("the authorization server: {0}")]
    Unreachable(Obstacle),
    /// An answer that says nothing about the grant: 429, a 5xx, a proxy's.
    #[error("{status}: not an answer of a token endpoint: try again later, and check proxies in between")]
    Inconclusive {
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// A success whose content is not a token response.
    #[error("{status}: the answer is not a token response ({rule}): check the token endpoint")]
    #[non_exhaustive]
    NotTokens {
        /// The HTTP status.
        status: u16,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The client secret is absent, cannot be loaded, or is malformed.
    #[error("{}", SecretAdvice(.0))]
    Secret(SourceError),
}

impl TokenError {
    /// Returns whether the server itself says that the grant is invalid, so that a person must sign in again.
    /// True for [`TokenError::Refused`] only.
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
    const fn leaves_doubt(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::AppRefused { .. } | Self::Secret(_) => false,
            // Too many requests: it was not processed.
            Self::Inconclusive { status, .. } => *status != 429,
            Self::NotTokens { .. } | Self::Unreachable(_) => true,
        }
    }
}

/// A grant cannot be used, or is not kept fresh: why, and what to do next. Holds no byte of the document.
///
/// A person must sign in after [`GrantError::None`], and after a [`GrantError::Token`] that is
/// [`TokenError::Refused`]. Those from [`GrantError::LeaseTooShort`] on are of a [`TokenKeeper`], whose
/// active token stays active whatever fails.
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
    OtherApp {
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
    /// The server gave no tokens.
    #[error(transparent)]
    Token(TokenError),
    /// The server has given new tokens, and the store refuses them. They are kept and tried again until the
    /// store takes them, or until the keeper ends. They are not used meanwhile: they would be lost with this
    /// process.
    #[error(
        "new tokens are not persisted yet, and the old refresh token is used up ({0}): let the store take \
         them before this process ends, or sign in again"
    )]
    NotPersisted(DocumentError),
    /// The store had newer tokens before the new ones could be persisted, or the grant was deleted, so the
    /// new ones were discarded.
    #[error(
        "the store has newer tokens, or the grant is gone, so the tokens of a refresh were discarded: \
         make the lease longer, and find out what was slow"
    )]
    Overtaken,
    /// Writing the lease took so long that nothing was sent with it.
    #[error(
        "the store took so long to write the lease that nothing was sent: make the lease longer, or \
         find out why the store is slow"
    )]
    SlowStore,
    /// The document is of an earlier sign-in than the active token.
    #[error(
        "the grant is of an earlier sign-in than the active token, so it was not used: find out what \
         put an older copy there, or restart this process if it is intended"
    )]
    WentBack,
    /// The document has the grant of another account, or one that was begun again in an empty place.
    #[error(
        "the grant is another one than that of the active token, so it was not used: keep each \
         account's grant in a place of its own, or restart this process if it is intended"
    )]
    OtherGrant,
    /// The keeper has panicked, for example in the document store. The message is on standard error.
    #[error(
        "the keeper has panicked, see standard error: check the store's code, and start \
         another keeper"
    )]
    Ended,
}

impl From<DocumentError> for GrantError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::TooLarge { limit } => Self::TooLarge { limit },
            error => Self::Document(error),
        }
    }
}
