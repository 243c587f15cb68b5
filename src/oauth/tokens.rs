//! The tokens that a server has given.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use super::GrantError;
use super::answer::Read;
use super::grant::{self, Grant, Identity, Moment};
use super::secret::Secret;
use crate::document::{DocumentError, DocumentStore};
use crate::issuer::Issuer;
use crate::key::ApiKey;

/// How often [`Tokens::save`] tries again when others write at the same time.
const TRIES: usize = 16;

/// An access token and a refresh token, fresh from the server. Save them before anything else: the code that brought them is
/// used up.
///
/// ```
/// use keysheath::{document::FileStore, issuer::KatanaApp, oauth::{GrantError, Tokens}};
/// fn keep(tokens: Tokens<KatanaApp>) -> Result<(), GrantError> {
///     tokens.save(&FileStore::new("/var/lib/shop-sync/katana-grant"))
/// }
/// ```
#[must_use = "they are lost unless they are saved"]
pub struct Tokens<I: Issuer> {
    pub(super) access: ApiKey<I>,
    pub(super) refresh: Secret,
    pub(super) lifetime: Duration,
    /// When the server was asked.
    pub(super) asked: Instant,
    asked_at: SystemTime,
    identity: Identity,
}

impl<I: Issuer> Tokens<I> {
    pub(super) fn new(read: Read<I>, asked: Instant, asked_at: SystemTime, identity: Identity) -> Self {
        let Read { access, refresh, lifetime } = read;
        Self { access, refresh, lifetime, asked, asked_at, identity }
    }

    /// The access token alone, such as for one request of a command-line tool.
    ///
    /// ```
    /// # use keysheath::{issuer::KatanaApp, oauth::Tokens};
    /// fn log(tokens: &Tokens<KatanaApp>) {
    ///     println!("signed in, with {:?}", tokens.access());
    /// }
    /// ```
    #[must_use]
    pub const fn access(&self) -> &ApiKey<I> {
        &self.access
    }

    /// How long the access token lives from when it was asked for.
    ///
    /// ```
    /// # use keysheath::{issuer::KatanaApp, oauth::Tokens};
    /// fn log(tokens: &Tokens<KatanaApp>) {
    ///     println!("good for {} s", tokens.lifetime().as_secs());
    /// }
    /// ```
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Makes them the grant in a document store, in the place of the one that is there, if it is the same app's. Every keeper of
    /// that store then uses them. Blocks as the store does.
    ///
    /// # Errors
    /// [`GrantError`] when the store cannot be used, or has something else in it.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, issuer::KatanaApp, oauth::{GrantError, Tokens}};
    /// fn keep(tokens: Tokens<KatanaApp>) -> Result<(), GrantError> {
    ///     tokens.save(&MemoryStore::new())
    /// }
    /// ```
    pub fn save(self, store: &dyn DocumentStore) -> Result<(), GrantError> {
        let identity = self.identity.clone();
        let mut grant = self.into_grant(0);
        for _ in 0..TRIES {
            let there = grant::read(store, &identity)?;
            grant.number = there.as_ref().map_or(0, |(there, _)| there.number) + 1;
            let content = grant.to_document(&identity)?;
            match store.write(&content, there.as_ref().map(|(_, version)| version)) {
                Err(DocumentError::Conflict) => {}
                written => return Ok(written.map(|_| ())?),
            }
        }
        Err(DocumentError::Conflict.into())
    }

    /// As they are written down, as the grant with this number.
    pub(super) fn into_grant(self, number: u64) -> Grant {
        let expires = self.asked_at.checked_add(self.lifetime).unwrap_or(self.asked_at);
        Grant {
            number,
            access: self.access.erase(),
            refresh: self.refresh,
            expires: Moment::of(expires),
            lifetime: self.lifetime,
            is_refused: false,
            lease: None,
        }
    }
}

impl<I: Issuer> fmt::Debug for Tokens<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({:?}, for {} s)", self.access, self.lifetime.as_secs())
    }
}
