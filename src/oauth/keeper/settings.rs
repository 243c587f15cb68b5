//! How a keeper works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::KeeperEvent;
use crate::internal::back_off::doubled;
use crate::internal::events::Callback;
use crate::refresh::SHORTEST_POLL_INTERVAL;

/// The longest of the intervals and of the lease: far below where adding to a clock would overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How a [`TokenKeeper`](super::TokenKeeper) works.
///
/// | setting | default |
/// |---|---|
/// | [poll interval](Self::with_poll_interval) of the store | 30 s |
/// | [refresh ahead](Self::with_refresh_ahead) of the end of an access token | 20 % of its lifetime |
/// | [jitter](Self::with_jitter), added to that at random | up to 10 % of its lifetime |
/// | [lease](Self::with_lease) of a refresh | 30 s |
/// | [minimum interval](Self::with_minimum_interval) between attempts to refresh | 1 s |
/// | [longest back-off](Self::with_longest_back_off) | 5 min |
/// | [grace](Self::with_grace) of the previous token | 1 min |
///
/// ```
/// use std::time::Duration;
/// use keysheath::oauth::KeeperSettings;
/// let settings = KeeperSettings::new()
///     .with_poll_interval(Duration::from_secs(10))
///     .on_event(|event| println!("{event}"));
/// ```
#[derive(Clone)]
pub struct KeeperSettings {
    pub(super) poll_interval: Duration,
    /// In percent, both.
    pub(super) ahead: u8,
    pub(super) jitter: u8,
    pub(super) lease: Duration,
    pub(super) minimum_interval: Duration,
    pub(super) longest_back_off: Duration,
    pub(super) grace: Duration,
    pub(super) on_event: Option<Callback<KeeperEvent>>,
}

impl KeeperSettings {
    /// The defaults.
    ///
    /// ```
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            poll_interval: Duration::from_secs(30),
            ahead: 20,
            jitter: 10,
            lease: Duration::from_secs(30),
            minimum_interval: Duration::from_secs(1),
            longest_back_off: Duration::from_secs(5 * 60),
            grace: Duration::from_secs(60),
            on_event: None,
        }
    }

    /// The longest time between two looks at the store, so that what another process has refreshed is seen; at
    /// least 10 ms, and at most a day.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_poll_interval(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(SHORTEST_POLL_INTERVAL, LONGEST);
        self
    }

    /// How much of its lifetime an access token has left when it is refreshed, in percent; at most 90.
    ///
    /// ```
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_refresh_ahead(50);
    /// ```
    #[must_use]
    pub fn with_refresh_ahead(mut self, percent: u8) -> Self {
        self.ahead = percent.min(90);
        self
    }

    /// How much of its lifetime may be added to that at random, in percent, so that processes do not refresh together; at most
    /// 90.
    ///
    /// ```
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_jitter(0);
    /// ```
    #[must_use]
    pub fn with_jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(90);
        self
    }

    /// How long a lease is; at most a day, and at least the app's [deadline](super::super::OAuthApp::with_deadline): a keeper does
    /// not start with a shorter one. The refresh token is sent in the first two thirds of it or not at all, and the answer is waited for
    /// until its end. Processes that share a grant may differ in it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_lease(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn with_lease(mut self, length: Duration) -> Self {
        self.lease = length.clamp(SHORTEST_POLL_INTERVAL, LONGEST);
        self
    }

    /// The shortest time between two attempts to refresh; at least 10 ms, and at most a day. Where an attempt fails, or a token is refused as soon
    /// as it is there, it doubles.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_minimum_interval(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_minimum_interval(mut self, interval: Duration) -> Self {
        self.minimum_interval = interval.clamp(SHORTEST_POLL_INTERVAL, LONGEST);
        self
    }

    /// How far it doubles; at most a day.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_longest_back_off(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn with_longest_back_off(mut self, longest: Duration) -> Self {
        self.longest_back_off = longest.min(LONGEST);
        self
    }

    /// How long a request that was refused may be repeated with the token that was in force before.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().with_grace(Duration::ZERO);
    /// ```
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Tells of each event, in order, on a thread for that alone, so that one that blocks keeps nobody from a refresh. Up to
    /// [`MAX_WAITING_EVENTS`](crate::refresh::MAX_WAITING_EVENTS) events wait for it; those beyond are not told, and the status
    /// counts them. A panic in it is swallowed.
    ///
    /// ```
    /// # use keysheath::oauth::KeeperSettings;
    /// let settings = KeeperSettings::new().on_event(|event| eprintln!("{event}"));
    /// ```
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
        let longest = self.longest_back_off.max(self.minimum_interval);
        doubled(self.minimum_interval, in_a_row.saturating_sub(1), longest)
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
            .field("poll_interval", &self.poll_interval)
            .field("ahead", &self.ahead)
            .field("jitter", &self.jitter)
            .field("lease", &self.lease)
            .field("minimum_interval", &self.minimum_interval)
            .field("longest_back_off", &self.longest_back_off)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_doubles_up_to_the_longest_back_off() {
        let settings = KeeperSettings::new();
        let rests = [0, 1, 2, 3, 9, 10, 40, u32::MAX].map(|count| settings.rest(count).as_secs());
        assert_eq!(rests, [1, 1, 2, 4, 256, 300, 300, 300]);
        let short = settings.with_longest_back_off(Duration::ZERO);
        assert_eq!(short.rest(5), Duration::from_secs(1));
    }

    #[test]
    fn no_time_is_so_long_that_a_clock_would_overflow() {
        let far = Duration::MAX;
        let settings = KeeperSettings::new().with_poll_interval(far).with_lease(far);
        let settings = settings.with_minimum_interval(far).with_longest_back_off(far);
        let times = [settings.poll_interval, settings.lease, settings.rest(0), settings.rest(u32::MAX)];
        assert_eq!(times, [LONGEST; 4]);
    }
}
