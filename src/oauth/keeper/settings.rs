//! How a keeper works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::KeeperEvent;
use crate::internal::back_off::{Cadence, LONGEST, SHORTEST};
use crate::internal::events::Callback;

/// How a [`TokenKeeper`](super::TokenKeeper) works.
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
    /// The defaults.
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

    /// How much of its lifetime an access token has left when it is refreshed, in percent; at most 90.
    #[must_use]
    pub fn with_refresh_ahead(mut self, percent: u8) -> Self {
        self.ahead = percent.min(90);
        self
    }

    /// How much of its lifetime may be added to that at random, in percent, so that processes do not refresh
    /// together; at most 90.
    #[must_use]
    pub fn with_refresh_jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(90);
        self
    }

    /// How long a lease is; at most a day, and at least the app's
    /// [deadline](super::super::OAuthApp::with_deadline): a keeper does not start with a shorter one. The
    /// refresh token is sent in the first two thirds of it or not at all, and the answer is waited for until
    /// its end. Processes that share a grant may differ in it.
    #[must_use]
    pub fn with_lease(mut self, length: Duration) -> Self {
        self.lease = length.clamp(SHORTEST, LONGEST);
        self
    }

    /// How long a request that was refused may be repeated with the token that was in force before.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Tells of each event, in order, on a thread for that alone, so that one that blocks keeps nobody from a
    /// refresh. Up to [`MAX_WAITING_EVENTS`](crate::refresh::MAX_WAITING_EVENTS) events wait for it; those
    /// beyond are not told, and the status counts them. A panic in it is swallowed.
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&KeeperEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(tell));
        self
    }

    /// Within which time of a lease the refresh token is sent.
    pub(super) fn sending_bound(&self) -> Duration {
        self.lease / 3 * 2
    }

    /// How long to rest after so many attempts in a row that were of no use.
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
