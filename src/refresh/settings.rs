//! How a refresher works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::RefreshEvent;
use crate::internal::events::Callback;
use crate::source::Provenance;

/// The shortest time between two polls, whatever is set.
///
/// ```
/// assert_eq!(keysheath::refresh::SHORTEST_POLL_INTERVAL.as_millis(), 10);
/// ```
pub const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How far an OpenBao may be behind unless told otherwise: 1 s. Its standbys answer from their own stores; in a cluster on one
/// machine they were seen to be behind by some tens of milliseconds.
///
/// ```
/// assert_eq!(keysheath::refresh::DEFAULT_LAG.as_secs(), 1);
/// ```
pub const DEFAULT_LAG: Duration = Duration::from_secs(1);

/// The longest poll interval and the longest back-off.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest minimum interval, and the longest lag: who was refused waits for both.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 60);

const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How a refresher works: when it asks its place, how long it waits for it, and whom it tells.
///
/// | setting | default | least | most |
/// |---|---|---|---|
/// | [poll interval](Self::with_poll_interval) | 30 s | 10 ms | a day |
/// | [jitter](Self::with_jitter), taken off each interval | up to 20 % | 0 % | 100 % |
/// | [minimum interval](Self::with_minimum_interval) between attempts that are asked for | 1 s | 10 ms | 1 min |
/// | [longest back-off](Self::with_longest_back_off) | 5 min | the minimum interval | a day |
/// | [deadline](Self::with_deadline) of one attempt | 10 s | 10 ms | 5 min |
/// | [grace](Self::with_grace) of the previous key | 10 min | 0 | 366 days |
/// | [lag](Self::with_lag) of the place | 1 s for OpenBao, none for others | 0 | 1 min |
///
/// A setting beyond its bounds is taken as the nearest of them. So who waits for a reload waits for a bounded time: for two
/// attempts and the minimum interval, 21 s by the defaults. An attempt takes the deadline; one that waits for a place that
/// may be behind takes the lag and one more deadline.
///
/// ```
/// use std::time::Duration;
/// use keysheath::refresh::RefreshSettings;
///
/// let settings = RefreshSettings::new()
///     .with_poll_interval(Duration::from_secs(10))
///     .on_event(|event| println!("{event}"));
/// ```
#[derive(Clone)]
pub struct RefreshSettings {
    pub(super) poll_interval: Duration,
    /// In percent.
    pub(super) jitter: u8,
    pub(super) minimum_interval: Duration,
    pub(super) longest_back_off: Duration,
    pub(super) deadline: Duration,
    pub(super) grace: Duration,
    /// `None`: by what the place is.
    lag: Option<Duration>,
    #[cfg(feature = "watch")]
    pub(super) is_watching: bool,
    pub(super) on_event: Option<Callback<RefreshEvent>>,
}

impl RefreshSettings {
    /// The defaults.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            poll_interval: Duration::from_secs(30),
            jitter: 20,
            minimum_interval: Duration::from_secs(1),
            longest_back_off: Duration::from_secs(5 * 60),
            deadline: Duration::from_secs(10),
            grace: Duration::from_secs(10 * 60),
            lag: None,
            #[cfg(feature = "watch")]
            is_watching: false,
            on_event: None,
        }
    }

    /// The longest time between two polls; 30 s unless set, at least [`SHORTEST_POLL_INTERVAL`], and a day at most.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_poll_interval(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(SHORTEST_POLL_INTERVAL, LONGEST);
        self
    }

    /// How much of each interval may be taken off at random, in percent, so that processes that were started together do not
    /// poll together; 20 unless set, and at most 100.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_jitter(50);
    /// ```
    #[must_use]
    pub fn with_jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(100);
        self
    }

    /// The shortest time between two attempts that are asked for; 1 s unless set, from 10 ms to a minute. Whoever asks within it waits for its
    /// end.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_minimum_interval(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_minimum_interval(mut self, interval: Duration) -> Self {
        self.minimum_interval = interval.clamp(SHORTEST_POLL_INTERVAL, LONGEST_WAIT);
        self
    }

    /// The longest rest between attempts that are asked for; 5 min unless set, and a day at most. The minimum interval doubles up to it with
    /// each attempt that fails, and with each that is asked for and finds the same key. Whoever asks while more than the
    /// minimum interval is left of it is told [`Reload::TooSoon`](crate::handle::Reload::TooSoon) at once. Polls go on as ever.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_longest_back_off(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn with_longest_back_off(mut self, longest: Duration) -> Self {
        self.longest_back_off = longest.min(LONGEST);
        self
    }

    /// How long one attempt may take; 10 s unless set, from 10 ms to 5 min. Past it the attempt has failed, and what it still brings is thrown
    /// away. A place's own deadline holds as well.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_deadline(Duration::from_secs(2));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.clamp(SHORTEST_POLL_INTERVAL, LONGEST_DEADLINE);
        self
    }

    /// How long a request that was refused may be repeated with the key that was in force before; 10 min unless set, and 366 days
    /// at most.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_grace(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(LONGEST_GRACE);
        self
    }

    /// How far behind the place may be, such as a replica that has not heard of a promotion yet; [`DEFAULT_LAG`] for OpenBao and
    /// none for others unless set, and a minute at most. When the key in force is refused for the first time and the place has nothing newer, it is
    /// asked again for so long, with pauses that double from 20 ms to 0.5 s; whoever was refused waits for that.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().with_lag(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_lag(mut self, lag: Duration) -> Self {
        self.lag = Some(lag.min(LONGEST_WAIT));
        self
    }

    /// Tells of each event, in order, on a thread for that alone, so that one that blocks keeps nobody from a reload. Up to
    /// [`MAX_WAITING_EVENTS`](super::MAX_WAITING_EVENTS) events wait for it; those beyond are not told, and the status
    /// counts them. A panic in it is swallowed.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().on_event(|event| eprintln!("{event}"));
    /// ```
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&RefreshEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(tell));
        self
    }

    /// Follows the files of the place as well, so that a change is seen at once: those of a `SecretFile`, a `FileVariable`, a
    /// `DotenvFile`, a `SystemdCredential` and a `FileStore`. Elsewhere there is nothing to watch, and polling is all there
    /// is. Polls go on as before.
    ///
    /// ```
    /// # use keysheath::refresh::RefreshSettings;
    /// let settings = RefreshSettings::new().watching();
    /// ```
    #[cfg(feature = "watch")]
    #[must_use]
    pub fn watching(mut self) -> Self {
        self.is_watching = true;
        self
    }

    /// How far behind a place may be.
    pub(super) fn lag_of(&self, place: &Provenance) -> Duration {
        let by_place = match place {
            Provenance::OpenBao { .. } => DEFAULT_LAG,
            _ => Duration::ZERO,
        };
        self.lag.unwrap_or(by_place)
    }
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RefreshSettings {
    /// Without the callback, which cannot be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RefreshSettings");
        shown
            .field("poll_interval", &self.poll_interval)
            .field("jitter", &self.jitter)
            .field("minimum_interval", &self.minimum_interval)
            .field("longest_back_off", &self.longest_back_off)
            .field("deadline", &self.deadline)
            .field("grace", &self.grace)
            .field("lag", &self.lag);
        #[cfg(feature = "watch")]
        shown.field("is_watching", &self.is_watching);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openbao_may_be_behind_and_a_file_may_not_unless_a_lag_is_set() {
        let openbao = Provenance::OpenBao { place: "secret/kanal".into(), field: None, version: None };
        let file = Provenance::File { path: "kanal-keys".into() };
        let settings = RefreshSettings::new();
        assert_eq!((settings.lag_of(&openbao), settings.lag_of(&file)), (DEFAULT_LAG, Duration::ZERO));
        for lag in [Duration::ZERO, Duration::from_secs(7)] {
            let settings = settings.clone().with_lag(lag);
            assert_eq!((settings.lag_of(&openbao), settings.lag_of(&file)), (lag, lag));
        }
    }
}
