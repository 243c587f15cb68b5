//! A grant as it stands in its store, for whoever keeps no token fresh: a check before a start, a monitor, a command-line tool.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::grant::{self, Moment};
use super::lease::{Lease, Now};
use super::{GrantError, GrantState, OAuthApp};
use crate::handle::Generation;
use crate::key::Issuer;
use crate::store::DocumentStore;

/// A grant as it stands in its store, without its tokens. Its `Display` is one line for a person.
///
/// ```
/// use keysheath::oauth::GrantView;
/// fn needs_a_person(grant: &GrantView) -> bool {
///     grant.is_refused()
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GrantView {
    generation: Generation,
    expires: Moment,
    lifetime: Duration,
    is_refused: bool,
    lease: Option<Lease>,
    /// When it was looked at.
    looked: Now,
}

impl PartialEq for GrantView {
    /// Whether both show the same, whenever each was looked at.
    fn eq(&self, other: &Self) -> bool {
        let shown = |view: &Self| (view.generation, view.expires, view.lifetime, view.is_refused, view.lease);
        shown(self) == shown(other)
    }
}

impl Eq for GrantView {}

impl<I: Issuer> OAuthApp<I> {
    /// Looks at the grant in a document store, and changes and sends nothing: whether somebody has signed in, and whether somebody must
    /// again. Blocks as the store does.
    ///
    /// # Errors
    /// [`GrantError::None`] where nobody has signed in yet, and the others where there is something that is no grant of this app.
    ///
    /// ```
    /// # use keysheath::oauth::{GrantError, OAuthApp};
    /// # use keysheath::source::SecretFile;
    /// # use keysheath::store::MemoryStore;
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// assert_eq!(app.grant_in(&MemoryStore::new()).unwrap_err(), GrantError::None);
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn grant_in(&self, store: &dyn DocumentStore) -> Result<GrantView, GrantError> {
        let (grant, _) = grant::read(store, &self.identity())?.ok_or(GrantError::None)?;
        Ok(GrantView {
            generation: Generation::numbered(grant.number).ok_or(GrantError::None)?,
            expires: grant.expires,
            lifetime: grant.lifetime,
            is_refused: grant.is_refused,
            lease: grant.lease,
            looked: Now::read(),
        })
    }
}

impl GrantView {
    /// Which access token is the newest.
    ///
    /// ```
    /// # use keysheath::oauth::GrantView;
    /// fn log(grant: &GrantView) {
    ///     println!("access token {}", grant.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// How long its access token still lives now: by the wall clock, or by the monotonic clock since this view was made, whichever
    /// says less.
    #[must_use]
    pub fn rest(&self) -> Duration {
        let now = Now::read().clocks;
        let then = self.rest_at(self.looked.clocks.wall());
        self.rest_at(now.wall()).min(then.saturating_sub(now.at_most_since(self.looked.clocks)))
    }

    /// How long its access token still lives at this moment, by the clock of the machine that has asked for it; at most its whole
    /// lifetime.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use keysheath::oauth::GrantView;
    /// fn is_over(grant: &GrantView) -> bool {
    ///     grant.rest_at(SystemTime::now()).is_zero()
    /// }
    /// ```
    #[must_use]
    pub fn rest_at(&self, moment: SystemTime) -> Duration {
        self.expires.since(Moment::of(moment)).min(self.lifetime)
    }

    /// Whether the server has refused it, so that a person must sign in again.
    ///
    /// ```
    /// # use keysheath::oauth::GrantView;
    /// fn is_good(grant: &GrantView) -> bool {
    ///     !grant.is_refused()
    /// }
    /// ```
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Where it stands: in doubt where a refresh was begun and, by the date in its lease, is under way no more.
    #[must_use]
    pub fn state(&self) -> GrantState {
        let Now { clocks, boot } = self.looked;
        match self.lease {
            _ if self.is_refused => GrantState::Refused,
            Some(lease) if lease.is_over_by_date(clocks.wall(), boot) => GrantState::InDoubt,
            _ => GrantState::Good,
        }
    }

    /// Whether a refresh is under way, or was begun and its end is not known. [`GrantView::state`] tells the two apart by the
    /// lease's date.
    ///
    /// ```
    /// # use keysheath::oauth::GrantView;
    /// fn log(grant: &GrantView) {
    ///     println!("a refresh is under way: {}", grant.has_lease());
    /// }
    /// ```
    #[must_use]
    pub const fn has_lease(&self) -> bool {
        self.lease.is_some()
    }
}

impl fmt::Display for GrantView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access token {}, good for {} s", self.generation, self.rest().as_secs())?;
        match self.state() {
            GrantState::Good if self.has_lease() => {
                f.write_str("; a refresh is under way, or was begun and its end is not known")
            }
            GrantState::Good => Ok(()),
            state => write!(f, "; {state}"),
        }
    }
}
