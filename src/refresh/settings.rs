//! How a refresher works, and when an attempt that is asked for is made.

use std::time::{Duration, Instant};

use super::RefreshEvent;
use super::run::StartWatch;
use crate::handle::Reload;
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
    /// Watches the files of the place, if that is asked for.
    pub(super) watch: Option<StartWatch>,
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
            watch: None,
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
        self.watch = Some(StartWatch(super::watch::Watch::start));
        self
    }

    /// Returns how far behind a place may be.
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

/// What to do about a reload that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// Soon enough for the callers to wait.
    At(Instant),
    TooSoon,
}

/// Spaces the attempts that are asked for. It reads no clock.
pub(super) struct Pace {
    cadence: Cadence,
    /// Attempts in a row that failed.
    failures: u32,
    /// Attempts that were asked for, and found nothing newer, since there was something newer.
    fruitless: u32,
    /// The end of the last attempt that was asked for or failed.
    rests_since: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(cadence: Cadence) -> Self {
        Self { cadence, failures: 0, fruitless: 0, rests_since: None }
    }

    /// Returns what to do at `now` about a reload that is asked for.
    pub(super) fn when(&mut self, now: Instant) -> When {
        let Some(since) = self.rests_since else { return When::Now };
        if now.saturating_duration_since(since) >= self.cadence.longest_back_off() {
            // It was quiet for a long time, so what was fruitless then says nothing about now.
            self.fruitless = 0;
            return When::Now;
        }
        // A rest is a day at most, so the sum is within the clock's reach.
        match since + self.rest() {
            at if at <= now => When::Now,
            at if at - now <= self.cadence.minimum_interval() => When::At(at),
            _ => When::TooSoon,
        }
    }

    /// As [`Pace::when`], for an attempt that keeps only the minimum interval.
    pub(super) fn when_first_refused(&mut self, now: Instant) -> When {
        match (self.when(now), self.rests_since.map(|since| since + self.cadence.minimum_interval())) {
            (When::TooSoon, Some(at)) if at <= now => When::Now,
            (When::TooSoon, Some(at)) => When::At(at),
            (when, _) => when,
        }
    }

    /// Notes how an attempt ended.
    pub(super) fn ended(&mut self, now: Instant, was_asked: bool, outcome: Reload) {
        match outcome {
            Reload::Failed => self.failures = self.failures.saturating_add(1),
            Reload::Newer => (self.failures, self.fruitless) = (0, 0),
            _ => {
                self.failures = 0;
                self.fruitless = self.fruitless.saturating_add(u32::from(was_asked));
            }
        }
        if was_asked || outcome == Reload::Failed {
            self.rests_since = Some(now);
        }
    }

    /// Notes that another key is active, from whatever publisher.
    pub(super) fn renewed(&mut self) {
        self.fruitless = 0;
    }

    /// Returns the minimum interval, doubled for each failure and each fruitless attempt, up to the longest
    /// back-off.
    fn rest(&self) -> Duration {
        self.cadence.back_off(self.failures.saturating_add(self.fruitless))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(300);

    fn pace() -> (Pace, Instant) {
        let cadence = Cadence::new().with_minimum_interval(MINIMUM).with_longest_back_off(LONGEST);
        (Pace::new(cadence), Instant::now())
    }

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

    #[test]
    fn the_first_attempt_is_made_now_the_next_after_the_minimum() {
        let (mut pace, start) = pace();
        assert_eq!(pace.when(start), When::Now);
        pace.ended(start, true, Reload::Newer);
        assert_eq!(pace.when(start), When::At(start + MINIMUM));
        assert_eq!(pace.when(start + MINIMUM / 2), When::At(start + MINIMUM));
        assert_eq!(pace.when(start + MINIMUM), When::Now);
    }

    #[test]
    fn fruitless_and_failed_attempts_double_the_rest() {
        for (outcome, was_asked) in
            [(Reload::Unchanged, true), (Reload::Failed, true), (Reload::Failed, false)]
        {
            let (mut pace, start) = pace();
            for rest in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(Duration::from_secs) {
                pace.ended(start, was_asked, outcome);
                assert_eq!(pace.when(start), When::TooSoon, "{outcome}");
                assert_eq!(
                    pace.when(start + rest.saturating_sub(MINIMUM * 2)),
                    When::TooSoon,
                    "{outcome}, {rest:?}"
                );
                assert_eq!(
                    pace.when(start + rest.saturating_sub(MINIMUM)),
                    When::At(start + rest),
                    "{outcome}"
                );
                if rest < LONGEST {
                    assert_eq!(pace.when(start + rest), When::Now, "{outcome}");
                }
            }
        }
    }

    #[test]
    fn a_first_refusal_keeps_only_the_minimum_interval() {
        let (mut pace, start) = pace();
        assert_eq!(pace.when_first_refused(start), When::Now);
        for _ in 0..9 {
            pace.ended(start, false, Reload::Failed);
        }
        assert_eq!(pace.when(start + MINIMUM), When::TooSoon);
        assert_eq!(pace.when_first_refused(start), When::At(start + MINIMUM));
        assert_eq!(pace.when_first_refused(start + MINIMUM), When::Now);
        assert_eq!(pace.when_first_refused(start + LONGEST), When::Now);
    }

    #[test]
    fn polls_that_find_nothing_new_neither_rest_nor_end_a_rest() {
        let (mut pace, start) = pace();
        pace.ended(start, false, Reload::Unchanged);
        assert_eq!(pace.when(start), When::Now);
        pace.ended(start, true, Reload::Unchanged);
        pace.ended(start, false, Reload::Unchanged);
        assert_eq!(pace.when(start), When::TooSoon);
    }

    #[test]
    fn another_key_and_a_long_quiet_time_end_the_doubling() {
        let (mut pace, start) = pace();
        for _ in 0..5 {
            pace.ended(start, true, Reload::Unchanged);
        }
        pace.renewed();
        assert_eq!(pace.when(start), When::At(start + MINIMUM));
        for _ in 0..5 {
            pace.ended(start, true, Reload::Unchanged);
        }
        assert_eq!(pace.when(start + LONGEST), When::Now);
        pace.ended(start + LONGEST, true, Reload::Unchanged);
        assert_eq!(pace.when(start + LONGEST + MINIMUM), When::At(start + LONGEST + MINIMUM * 2));
        pace.ended(start, true, Reload::Newer);
        assert_eq!(pace.when(start), When::At(start + MINIMUM));
    }

    #[test]
    fn every_wait_is_bounded_whatever_is_set() {
        let now = Instant::now();
        let extremes = [Duration::ZERO, Duration::from_nanos(1), MINIMUM, LONGEST, Duration::MAX];
        let all = extremes.iter().flat_map(|first| extremes.iter().map(move |second| (*first, *second)));
        for (first, second) in all {
            let cadence = Cadence::every(first)
                .with_jitter(u8::MAX)
                .with_minimum_interval(first)
                .with_longest_back_off(second);
            let settings = RefreshSettings::new()
                .with_cadence(cadence)
                .with_deadline(second)
                .with_grace(first)
                .with_lag(second);
            let day = Duration::from_secs(24 * 60 * 60);
            assert!(cadence.next() > Duration::ZERO && cadence.next() <= day);
            assert!(settings.deadline > Duration::ZERO && settings.deadline <= Duration::from_secs(300));
            let minute = Duration::from_secs(60);
            let file = crate::source::Provenance::File { path: "kanal".into() };
            assert!(settings.lag_of(&file) <= minute && now.checked_add(settings.grace).is_some());
            let mut pace = Pace::new(settings.cadence);
            for failure in 0..100 {
                let outcome = if failure % 2 == 0 { Reload::Failed } else { Reload::Unchanged };
                pace.ended(now, true, outcome);
                for when in [pace.when(now), pace.when_first_refused(now)] {
                    match when {
                        When::TooSoon => {}
                        When::At(at) => assert!(at > now && at <= now + minute, "{settings:?}"),
                        When::Now => panic!("without a pause: {settings:?}"),
                    }
                }
            }
            assert_eq!(pace.when(now + day), When::Now);
        }
    }
}
