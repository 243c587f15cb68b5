//! How a refresher works.

use std::time::Duration;

use super::RefreshEvent;
use crate::internal::events::Callback;
use crate::internal::time::{Cadence, SHORTEST};
use crate::source::Provenance;

/// How far an OpenBao may be behind unless set: its standbys answer from their own stores. In a cluster on
/// one machine they were seen to be behind by some tens of milliseconds.
const OPENBAO_LAG: Duration = Duration::from_secs(1);

/// The longest lag: a request that was refused waits for it.
const LONGEST_LAG: Duration = Duration::from_secs(60);

const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 60);

const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How a refresher works: when it reads its place, how long it waits for it, and where it reports.
///
/// | setting | default | least | most |
/// |---|---|---|---|
/// | [cadence](Self::with_cadence) of polls and of attempts that are asked for | see [`Cadence`] | | |
/// | [deadline](Self::with_deadline) of one attempt | 10 s | 10 ms | 5 min |
/// | [grace](Self::with_grace) of the previous key | 10 min | 0 | 366 days |
/// | [lag](Self::with_lag) of the place | 1 s for OpenBao, none for others | 0 | 1 min |
///
/// A setting beyond its bounds is taken as the nearest of them. So a wait for a reload is bounded: by two
/// attempts and the minimum interval, 21 s by default. An attempt takes at most the deadline; one that waits
/// for a place that may be behind takes the lag and one more deadline.
///
/// ```
/// use std::time::Duration;
/// use keysheath::Cadence;
/// use keysheath::refresh::RefreshSettings;
///
/// let settings = RefreshSettings::new()
///     .with_cadence(Cadence::every(Duration::from_secs(10)))
///     .on_event(|event| println!("{event}"));
/// ```
#[derive(Clone, Debug)]
pub struct RefreshSettings {
    pub(super) cadence: Cadence,
    pub(super) deadline: Duration,
    pub(super) grace: Duration,
    /// `None`: by the kind of place.
    lag: Option<Duration>,
    pub(super) is_watching: bool,
    pub(super) on_event: Option<Callback<RefreshEvent>>,
}

impl RefreshSettings {
    /// Returns the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cadence: Cadence::new(),
            deadline: Duration::from_secs(10),
            grace: Duration::from_secs(10 * 60),
            lag: None,
            is_watching: false,
            on_event: None,
        }
    }

    /// Sets how often the place is polled, and how attempts that are asked for are spaced: the minimum
    /// interval doubles with each that fails or finds the same key. A caller that asks within the minimum
    /// interval waits for its end; one that asks while more of the back-off is left gets
    /// [`Reload::TooSoon`](crate::handle::Reload::TooSoon) at once. Polls go on meanwhile.
    #[must_use]
    pub const fn with_cadence(mut self, cadence: Cadence) -> Self {
        self.cadence = cadence;
        self
    }

    /// Sets how long one attempt may take. After that it has failed, and a late answer is discarded. The
    /// place's own deadline holds as well.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.clamp(SHORTEST, LONGEST_DEADLINE);
        self
    }

    /// Sets how long a request that was refused may be repeated with the previous key.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(LONGEST_GRACE);
        self
    }

    /// Sets how far behind the place may be, such as a replica that has not heard of a promotion yet. When
    /// the active key is refused for the first time and the place has nothing newer, it is read again for
    /// this long, with pauses that double from 20 ms to 0.5 s; the request that was refused waits for that.
    #[must_use]
    pub fn with_lag(mut self, lag: Duration) -> Self {
        self.lag = Some(lag.min(LONGEST_LAG));
        self
    }

    /// Reports each event, in order, on a thread for that alone, so that a callback that blocks delays no
    /// reload. Up to 64 events wait for it; those beyond are
    /// dropped, and the status counts them. A panic of the callback is caught.
    #[must_use]
    pub fn on_event(mut self, callback: impl Fn(&RefreshEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Callback::new(callback));
        self
    }

    /// Follows the files of the place as well, so that a change is seen at once: those of a `SecretFile`, a
    /// `DotenvFile` and a `FileStore`. Other places are polled only. Polls go on as before.
    #[cfg(feature = "watch")]
    #[must_use]
    pub const fn with_file_watch(mut self) -> Self {
        self.is_watching = true;
        self
    }

    /// How far behind a place may be.
    pub(super) fn lag_of(&self, place: &Provenance) -> Duration {
        let by_place = match place {
            Provenance::OpenBao { .. } => OPENBAO_LAG,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openbao_may_be_behind_and_a_file_only_where_a_lag_is_set() {
        let openbao = Provenance::OpenBao { place: "secret/kanal".into(), field: None, version: None };
        let file = Provenance::File { path: "kanal-keys".into() };
        let settings = RefreshSettings::new();
        assert_eq!((settings.lag_of(&openbao), settings.lag_of(&file)), (OPENBAO_LAG, Duration::ZERO));
        for lag in [Duration::ZERO, Duration::from_secs(7)] {
            let settings = settings.clone().with_lag(lag);
            assert_eq!((settings.lag_of(&openbao), settings.lag_of(&file)), (lag, lag));
        }
    }
}
