//! The settings of a keeper.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::KeeperEvent;
use crate::internal::back_off::{Cadence, LONGEST, SHORTEST};
use crate::internal::events::Callback;

/// The settings of a [`TokenKeeper`](super::TokenKeeper).
///
/// | setting | default |
/// |---|---|
/// | [cadence](Self::with_cadence): polls of the store | 30 s |
/// | – minimum interval between attempts to refresh | 1 s |
/// | – longest back-off | 5 min |
/// | [refresh ahead](Self::with_refresh_ahead) of the end of an access token | 20 % of its lifetime |
/// | [jitter](Self::with_refresh_jitter), added to that at random | up to 10 % of its lifetime |
/// | [lease](Self::with_lease) of a refresh | 30 s |
/// | [grace](Self::with_grace) of the previous token | 1 min |
#[derive(Clone)]
pub struct KeeperSettings {
    pub(super) cadence: Cadence,
    /// In percent, both.
    pub(super) ahead: u8,
    pub(super) jitter: u8,
    pub(super) lease: Duration,
    pub(super) grace: Duration,
    pub(super) on_event: Option<Callback<KeeperEvent>>,
}

impl KeeperSettings {
    /// Returns the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cadence: Cadence::new(),
            ahead: 20,
            jitter: 10,
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            on_event: None,
        }
    }

    /// Sets how often the store is read, so that what another process has refreshed is seen, and how attempts
    /// to refresh back off while they fail, or while a token is refused as soon as it is there.
    #[must_use]
    pub const fn with_cadence(mut self, cadence: Cadence) -> Self {
        self.cadence = cadence;
        self
    }

    /// Sets how much of its lifetime an access token has left when it is refreshed, in percent; at most 90.
    #[must_use]
    pub fn with_refresh_ahead(mut self, percent: u8) -> Self {
        self.ahead = percent.min(90);
        self
    }

    /// Sets how much of its lifetime may be added to that at random, in percent, so that processes do not
    /// refresh together; at most 90.
    #[must_use]
    pub fn with_refresh_jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(90);
        self
    }

    /// Sets the length of a lease; at most a day, and at least the app's
    /// [deadline](super::super::OAuthApp::with_deadline): a keeper does not start with a shorter one. The
    /// refresh token is sent in the first two thirds of it or not at all, and the answer is awaited until its
    /// end. Processes that share a grant may differ in it.
    #[must_use]
    pub fn with_lease(mut self, length: Duration) -> Self {
        self.lease = length.clamp(SHORTEST, LONGEST);
        self
    }

    /// Sets how long a refused request may be repeated with the previous token.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the callback for events. It is called in order, on a thread of its own, so a callback that blocks
    /// delays no refresh. Up to 64 events wait for it; events beyond are dropped, and the status counts them.
    /// A panic in it is caught.
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&KeeperEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(tell));
        self
    }

    /// The time of a lease within which the refresh token is sent.
    pub(super) fn sending_bound(&self) -> Duration {
        self.lease / 3 * 2
    }

    /// How long to wait after so many useless attempts in a row.
    pub(super) fn rest(&self, in_a_row: u32) -> Duration {
        self.cadence.back_off(in_a_row.saturating_sub(1))
    }
}

impl Default for KeeperSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for KeeperSettings {
    /// Without the callback, which cannot be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperSettings")
            .field("cadence", &self.cadence)
            .field("ahead", &self.ahead)
            .field("jitter", &self.jitter)
            .field("lease", &self.lease)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
