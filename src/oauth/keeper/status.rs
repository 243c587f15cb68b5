//! How a keeper fares.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use super::super::{GrantError, TokenError};
use crate::handle::Generation;
use crate::internal::background::Health;
use crate::source::Provenance;

/// Where a grant stands.
///
/// ```
/// use keysheath::oauth::GrantState;
/// assert!(GrantState::Refused.to_string().contains("sign in"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantState {
    /// Nothing speaks against the next refresh.
    Good,
    /// A refresh was begun and nobody knows how it ended: the next one may be refused.
    InDoubt,
    /// The server has refused the refresh token.
    Refused,
}

/// How a keeper fares. Its `Display` is one line for a person.
///
/// ```
/// use keysheath::oauth::{GrantState, KeeperStatus};
/// fn alarm(status: &KeeperStatus) {
///     if status.state() != GrantState::Good {
///         eprintln!("ask somebody to sign in: {status}");
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperStatus {
    pub(super) provenance: Provenance,
    pub(super) generation: Option<Generation>,
    pub(super) state: GrantState,
    pub(super) health: Health<KeeperProblem>,
}

/// Why the last attempt failed.
///
/// ```
/// use keysheath::oauth::{GrantError, KeeperProblem};
/// assert!(KeeperProblem::Grant(GrantError::None).to_string().contains("no grant yet"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperProblem {
    /// The store cannot be used, or has something else in it.
    #[error(transparent)]
    Grant(GrantError),
    /// The server gave no tokens.
    #[error(transparent)]
    Token(TokenError),
    /// The server has given new tokens, and the store does not take them. They are kept and tried again until it does, or until the
    /// keeper is dropped. They are not used meanwhile: a token that is in no store would be in force in this process alone, and
    /// gone with it.
    #[error(
        "new tokens are not persisted yet, and the old refresh token is used up ({0}); next: let the store be written before \
         this process ends, or sign in again"
    )]
    NotPersisted(GrantError),
    /// Newer tokens were there before the new ones could be persisted, or the grant was deleted, so they were thrown away.
    #[error(
        "newer tokens are there, or the grant is gone, so the tokens that were under way were thrown away; next: give the \
         lease more time, and look at what was slow"
    )]
    Overtaken,
    /// Taking the lease took so long that nothing was sent with it.
    #[error(
        "the store took so long to write the lease that nothing was sent with it; next: give the lease more time, or see \
         why the store is slow"
    )]
    SlowStore,
    /// The document is of an earlier sign-in than what is in force.
    #[error(
        "the grant is of an earlier sign-in than this process has in force, so it was not taken; next: see what has put an \
         older copy there, or restart this process if it is meant"
    )]
    WentBack,
    /// The document has the grant of another account, or one that was begun again in an empty place.
    #[error(
        "the grant is another one than this process has in force, so it was not taken; next: keep each account's grant in \
         a place of its own, or restart this process if it is meant"
    )]
    OtherGrant,
    /// The handle has its keys from another publisher: a source, a key set, or another grant.
    #[error(
        "the handle has its keys from another place than this grant, so the access token was not taken; next: give each \
         grant, key set and source a handle of its own"
    )]
    OtherPublisher,
    /// The keeper's thread has ended by a panic, whose message is on standard error: of the document store, for example.
    #[error(
        "the keeper has ended by a panic, whose message is on standard error; next: look at the store's code, and start the \
         keeper anew"
    )]
    Ended,
}

/// A keeper did not start.
///
/// ```
/// use keysheath::oauth::{GrantError, KeeperError, KeeperSettings, OAuthApp, TokenKeeper};
/// use keysheath::store::MemoryStore;
/// use keysheath::source::SecretFile;
/// let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret")).unwrap();
/// let error = TokenKeeper::start(app, MemoryStore::new(), KeeperSettings::new()).unwrap_err();
/// assert_eq!(error, KeeperError::Grant(GrantError::None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// There is no grant that can be used.
    #[error(transparent)]
    Grant(GrantError),
    /// The lease is shorter than the app's deadline, so others would use a refresh token while it is still under way.
    #[error(
        "the lease of {lease:?} is shorter than the app's deadline of {deadline:?}, so one refresh token could be sent \
         twice: give the lease more time (KeeperSettings::with_lease), or the app less (OAuthApp::with_deadline)"
    )]
    #[non_exhaustive]
    LeaseTooShort {
        /// The lease.
        lease: Duration,
        /// The app's deadline.
        deadline: Duration,
    },
    /// The handle has a newer token of this grant, or another one with the same number.
    #[error(
        "the handle has a newer token than the grant in the store: see who has put an older copy there, or give a new handle if \
         it is meant"
    )]
    WentBack,
    /// The handle has its keys from another publisher: a source, a key set, or another app's or account's grant.
    #[error(
        "the handle has its keys from another place: give each grant, key set and source a handle of its own"
    )]
    OtherPublisher,
    /// The handle is fixed.
    #[error("the handle is fixed on one key: make it with KeyHandle::live")]
    FixedHandle,
    /// There is no thread to be had.
    #[error("no thread can be started ({0}): check this machine's limits")]
    NoThread(ErrorKind),
}

impl KeeperStatus {
    /// Where the grant is persisted.
    ///
    /// ```
    /// # use keysheath::oauth::KeeperStatus;
    /// fn log(status: &KeeperStatus) {
    ///     println!("{}", status.provenance());
    /// }
    /// ```
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The access token that was published last, by its number in the grant.
    ///
    /// ```
    /// # use keysheath::oauth::KeeperStatus;
    /// fn log(status: &KeeperStatus) {
    ///     println!("{:?}", status.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Where the grant stands, as this keeper saw it last.
    ///
    /// ```
    /// # use keysheath::oauth::{GrantState, KeeperStatus};
    /// fn needs_a_person(status: &KeeperStatus) -> bool {
    ///     status.state() == GrantState::Refused
    /// }
    /// ```
    #[must_use]
    pub const fn state(&self) -> GrantState {
        self.state
    }

    /// How the attempts go. A failure of the server is over when there are new tokens, and not when the store can be read.
    #[must_use]
    pub const fn health(&self) -> &Health<KeeperProblem> {
        &self.health
    }
}

impl fmt::Display for GrantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::InDoubt => "in doubt: a refresh was begun and its end is not known, so somebody may have to sign in again",
            Self::Refused => "refused by the server: somebody must sign in again",
        })
    }
}

impl fmt::Display for KeeperStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant in {}, {}", self.provenance, self.state)?;
        if let Some(generation) = self.generation {
            write!(f, ", access token {generation}")?;
        }
        write!(f, "; {}", self.health)
    }
}
