//! The tokens of a sign-in and of a refresh, and what a store says of its grant.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use super::answer::{Answer, Secret};
use super::grant::{self, Grant, Identity};
use super::lease::{Lease, Now, Timestamp};
use super::{GrantError, GrantState, TokenError};
use crate::handle::Generation;
use crate::internal::back_off::{doubled, random_number, random_part};
use crate::internal::clocks::Clocks;
use crate::key::{ApiKey, Issuer};
use crate::store::{DocumentError, DocumentStore};

/// How often [`Tokens::save`] tries when other processes write at the same time.
const TRIES: u32 = 16;

/// The pause between two tries doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// An access token and a refresh token of a sign-in. Save them first: the code that they came for cannot be
/// used again. If saving fails, they can be saved again or in another place.
#[must_use = "they are lost unless they are saved"]
pub struct Tokens<I: Issuer> {
    access: ApiKey<I>,
    refresh: Secret,
    lifetime: Duration,
    /// When the server was asked.
    asked: Clocks,
    /// Tells this sign-in from others.
    id: u64,
    is_saved: AtomicBool,
    identity: Identity,
}

/// The outcome of a refresh.
pub(super) struct Refreshed<I: Issuer> {
    pub(super) answer: Answer<I>,
    /// When the server was asked.
    pub(super) asked: Clocks,
}

impl<I: Issuer> Refreshed<I> {
    /// Returns the grant after `before`, and what is wrong with the new access token; the grant keeps the old
    /// one then.
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

/// Returns when an access token ends that was asked for at this time.
fn end(asked: Clocks, lifetime: Duration) -> Timestamp {
    Timestamp::of(asked.wall().checked_add(lifetime).unwrap_or(asked.wall()))
}

impl<I: Issuer> Tokens<I> {
    pub(super) fn of_sign_in(
        (access, lifetime): (ApiKey<I>, Duration),
        refresh: Secret,
        asked: Clocks,
        identity: Identity,
    ) -> Self {
        let id = random_number().max(1);
        Self { access, refresh, lifetime, asked, id, is_saved: AtomicBool::new(false), identity }
    }

    /// Returns the access token alone, such as for one request of a command-line tool.
    #[must_use]
    pub const fn access(&self) -> &ApiKey<I> {
        &self.access
    }

    /// Returns the lifetime of the access token, from the request for it.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Writes the tokens to a document store as its grant. A grant of the same app there is replaced; each
    /// keeper of that store then uses the new tokens and sends
    /// [`KeeperEvent::Replaced`](super::KeeperEvent::Replaced). Blocks as the store does.
    ///
    /// After a failure, they can be saved again: if the failed call did write them, the next one finds them.
    /// Once they are saved, they cannot be saved in another place, because two places would use one refresh
    /// token twice.
    ///
    /// # Errors
    /// [`GrantError`] if the store cannot be used, or holds something else; [`GrantError::SavedElsewhere`].
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

    /// Returns the grant to write after the one that is there.
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

/// What a document store says of a grant, without its tokens; see
/// [`OAuthApp::grant_in`](super::OAuthApp::grant_in). Its `Display` is one line for a person.
#[derive(Clone, Copy, Debug)]
pub struct GrantView {
    generation: Generation,
    expires: Timestamp,
    lifetime: Duration,
    is_refused: bool,
    lease: Option<Lease>,
    read: Now,
}

impl PartialEq for GrantView {
    /// Whether both show the same grant, whenever each was read.
    fn eq(&self, other: &Self) -> bool {
        let shown = |view: &Self| (view.generation, view.expires, view.lifetime, view.is_refused, view.lease);
        shown(self) == shown(other)
    }
}

impl Eq for GrantView {}

impl GrantView {
    /// Reads the grant in a store.
    pub(super) fn read(store: &dyn DocumentStore, identity: &Identity) -> Result<Self, GrantError> {
        let (grant, _) = grant::read(store, identity)?.ok_or(GrantError::None)?;
        Ok(Self {
            generation: Generation::numbered(grant.number).ok_or(GrantError::None)?,
            expires: grant.expires,
            lifetime: grant.lifetime,
            is_refused: grant.is_refused,
            lease: grant.lease,
            read: Now::read(),
        })
    }

    /// Returns the number of the newest access token.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns how long the access token is valid from now: by the wall clock, or by the monotonic clock
    /// since the grant was read, whichever is less.
    #[must_use]
    pub fn rest(&self) -> Duration {
        let now = Now::read().clocks;
        let then = self.rest_at(self.read.clocks.wall());
        self.rest_at(now.wall()).min(then.saturating_sub(now.at_most_since(self.read.clocks)))
    }

    /// Returns how long the access token is valid from this time, by the clock of the machine that requested
    /// it; at most its whole lifetime.
    #[must_use]
    pub fn rest_at(&self, moment: SystemTime) -> Duration {
        self.expires.since(Timestamp::of(moment)).min(self.lifetime)
    }

    /// Whether the server has refused the grant, so that a person must sign in again.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Returns the state: in doubt if a refresh was begun and, by the date in its lease, is over.
    #[must_use]
    pub fn state(&self) -> GrantState {
        let Now { clocks, boot } = self.read;
        match self.lease {
            _ if self.is_refused => GrantState::Refused,
            Some(lease) if lease.is_over_by_date(clocks.wall(), boot) => GrantState::InDoubt,
            _ => GrantState::Good,
        }
    }

    /// Whether a refresh is in progress, or was begun and its outcome is unknown. [`GrantView::state`] tells
    /// the two apart by the date of the lease.
    #[must_use]
    pub const fn has_lease(&self) -> bool {
        self.lease.is_some()
    }
}

impl fmt::Display for GrantView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access token {}, valid for {} s", self.generation, self.rest().as_secs())?;
        match self.state() {
            GrantState::Good if self.has_lease() => {
                f.write_str("; a refresh is in progress, or was begun and its outcome is unknown")
            }
            GrantState::Good => Ok(()),
            state => write!(f, "; {state}"),
        }
    }
}
