//! The tokens that a server has given.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::answer::Answer;
use super::grant::{self, Grant, Identity, Moment};
use super::secret::Secret;
use super::{GrantError, TokenError};
use crate::internal::back_off::{doubled, random_number, random_part};
use crate::internal::clocks::Clocks;
use crate::key::{ApiKey, Issuer};
use crate::store::{DocumentError, DocumentStore};

/// How often [`Tokens::save`] tries again when others write at the same time.
const TRIES: u32 = 16;

/// The rest between two of them doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// An access token and a refresh token, fresh from the server. Save them before anything else: the code that brought them is
/// used up. They stay here when they cannot be saved, so that they can be saved again or in another place.
///
/// ```
/// use keysheath::key::KatanaApp;
/// use keysheath::oauth::{GrantError, Tokens};
/// use keysheath::store::FileStore;
/// fn keep(tokens: &Tokens<KatanaApp>) -> Result<(), GrantError> {
///     let first = tokens.save(&FileStore::new("/var/lib/shop-sync/katana-grant"));
///     first.or_else(|_| tokens.save(&FileStore::new("/srv/shop-sync/katana-grant")))
/// }
/// ```
#[must_use = "they are lost unless they are saved"]
pub struct Tokens<I: Issuer> {
    access: ApiKey<I>,
    refresh: Secret,
    lifetime: Duration,
    /// When the server was asked.
    asked: Clocks,
    /// By which this sign-in is told from others.
    id: u64,
    is_saved: AtomicBool,
    identity: Identity,
}

/// What a refresh has brought.
pub(super) struct Refreshed<I: Issuer> {
    pub(super) answer: Answer<I>,
    /// When the server was asked.
    pub(super) asked: Clocks,
}

impl<I: Issuer> Refreshed<I> {
    /// The grant after this one, and what is wrong with the new access token: in that case the grant has the old one still.
    pub(super) fn into_grant(self, before: &Grant) -> (Grant, Option<TokenError>) {
        let mut grant = before.with_lease(None);
        grant.serial += 1;
        if let Some(refresh) = self.answer.refresh {
            grant.refresh = refresh;
        }
        match self.answer.access {
            Err(error) => (grant, Some(error)),
            Ok((access, lifetime)) => {
                grant.number += 1;
                grant.access = access.into_raw();
                grant.expires = end(self.asked, lifetime);
                grant.lifetime = lifetime;
                (grant, None)
            }
        }
    }
}

/// When an access token ends that was asked for then.
fn end(asked: Clocks, lifetime: Duration) -> Moment {
    Moment::of(asked.wall().checked_add(lifetime).unwrap_or(asked.wall()))
}

impl<I: Issuer> Tokens<I> {
    /// Those of a sign-in.
    pub(super) fn of_sign_in(
        (access, lifetime): (ApiKey<I>, Duration),
        refresh: Secret,
        asked: Clocks,
        identity: Identity,
    ) -> Self {
        let id = random_number().max(1);
        Self { access, refresh, lifetime, asked, id, is_saved: AtomicBool::new(false), identity }
    }

    /// The access token alone, such as for one request of a command-line tool.
    ///
    /// ```
    /// # use keysheath::key::KatanaApp;
    /// # use keysheath::oauth::Tokens;
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
    /// # use keysheath::key::KatanaApp;
    /// # use keysheath::oauth::Tokens;
    /// fn log(tokens: &Tokens<KatanaApp>) {
    ///     println!("good for {} s", tokens.lifetime().as_secs());
    /// }
    /// ```
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Makes them the grant in a document store, in the place of the one that is there, if it is the same app's. Every keeper of
    /// that store then uses them, and tells of it ([`KeeperEvent::Replaced`](super::KeeperEvent::Replaced)). Blocks as the store
    /// does.
    ///
    /// After a failure they can be saved again: where the failed call did save them, the next one finds them. Once they are
    /// saved, no other place takes them, because two places would use one refresh token twice.
    ///
    /// # Errors
    /// [`GrantError`] when the store cannot be used, or has something else in it; [`GrantError::SavedElsewhere`].
    ///
    /// ```
    /// # use keysheath::key::KatanaApp;
    /// # use keysheath::oauth::{GrantError, Tokens};
    /// # use keysheath::store::MemoryStore;
    /// fn keep(tokens: &Tokens<KatanaApp>) -> Result<(), GrantError> {
    ///     tokens.save(&MemoryStore::new())
    /// }
    /// ```
    pub fn save(&self, store: &dyn DocumentStore) -> Result<(), GrantError> {
        for tries in 0..TRIES {
            let there = grant::read(store, &self.identity)?;
            if there.as_ref().is_some_and(|(there, _)| there.id == self.id) {
                self.is_saved.store(true, Ordering::Relaxed);
                return Ok(());
            }
            if self.is_saved.load(Ordering::Relaxed) {
                return Err(GrantError::SavedElsewhere);
            }
            let grant = self.grant_after(there.as_ref().map(|(there, _)| there));
            let content = grant.to_document(&self.identity)?;
            match store.write(&content, there.as_ref().map(|(_, version)| version)) {
                // Others write at the same time.
                Err(DocumentError::Conflict) => {
                    thread::sleep(doubled(PAUSE.0, tries, PAUSE.1).mul_f64(0.5 + random_part() / 2.0));
                }
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.is_saved.store(true, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        Err(DocumentError::Conflict.into())
    }

    /// As they are written down, after what is there.
    fn grant_after(&self, there: Option<&Grant>) -> Grant {
        Grant {
            lineage: there.map_or(self.id, |there| there.lineage),
            id: self.id,
            serial: there.map_or(0, |there| there.serial) + 1,
            number: there.map_or(0, |there| there.number) + 1,
            access: self.access.as_raw().clone_key(),
            refresh: self.refresh.duplicate(),
            expires: end(self.asked, self.lifetime),
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
