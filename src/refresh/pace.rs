//! When the place is asked next. It reads no clock.

use std::time::{Duration, Instant};

use super::{RefreshSettings, SHORTEST_POLL_INTERVAL};
use crate::handle::Reload;
use crate::internal::back_off::{doubled, random_part};
use crate::internal::clocks;

/// What to do about a reload that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Soon enough for those who asked to wait.
    At(Instant),
    TooSoon,
}

pub(super) struct Pace {
    minimum: Duration,
    longest: Duration,
    /// Attempts in a row that failed.
    failures: u32,
    /// Attempts that were asked for, and found nothing newer, since there was something newer.
    fruitless: u32,
    /// The end of the last attempt that was asked for or failed.
    rests_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(settings: &RefreshSettings) -> Self {
        let longest = settings.longest_back_off.max(settings.minimum_interval);
        let minimum = settings.minimum_interval;
        Self { minimum, longest, failures: 0, fruitless: 0, rests_since: None }
    }

    /// What to do at `now` about a reload that is asked for.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        let Some(since) = self.rests_since else { return Turn::Now };
        if now.saturating_duration_since(since) >= self.longest {
            // It was quiet for long, so what was fruitless then says nothing about now.
            self.fruitless = 0;
            return Turn::Now;
        }
        // A rest is a day at most, so the sum is within the clock's reach.
        match since + self.rest() {
            at if at <= now => Turn::Now,
            at if at - now <= self.minimum => Turn::At(at),
            _ => Turn::TooSoon,
        }
    }

    /// As [`Pace::turn`], for what does not wait for the end of a rest: the minimum interval alone is kept.
    pub(super) fn turn_of_first_refusal(&mut self, now: Instant) -> Turn {
        match (self.turn(now), self.rests_since.map(|since| since + self.minimum)) {
            (Turn::TooSoon, Some(at)) if at <= now => Turn::Now,
            (Turn::TooSoon, Some(at)) => Turn::At(at),
            (turn, _) => turn,
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

    /// Notes that another key is in force, whoever published it.
    pub(super) fn renewed(&mut self) {
        self.fruitless = 0;
    }

    /// The minimum interval, doubled for each failure and each fruitless attempt, up to the longest back-off.
    fn rest(&self) -> Duration {
        doubled(self.minimum, self.failures.saturating_add(self.fruitless), self.longest)
    }
}

/// When to poll again.
pub(super) fn next_poll(settings: &RefreshSettings, now: Instant) -> Instant {
    let interval = settings.poll_interval;
    let part = f64::from(settings.jitter) / 100.0 * random_part();
    clocks::later(now, interval.saturating_sub(interval.mul_f64(part)).max(SHORTEST_POLL_INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(300);

    fn pace() -> (Pace, Instant) {
        let settings = RefreshSettings::new().with_minimum_interval(MINIMUM).with_longest_back_off(LONGEST);
        (Pace::new(&settings), Instant::now())
    }

    #[test]
    fn the_first_one_has_its_turn_at_once_and_the_next_after_the_minimum_interval() {
        let (mut pace, start) = pace();
        assert_eq!(pace.turn(start), Turn::Now);
        pace.ended(start, true, Reload::Newer);
        assert_eq!(pace.turn(start), Turn::At(start + MINIMUM));
        assert_eq!(pace.turn(start + MINIMUM / 2), Turn::At(start + MINIMUM));
        assert_eq!(pace.turn(start + MINIMUM), Turn::Now);
    }

    #[test]
    fn what_is_fruitless_or_fails_doubles_the_rest_up_to_the_longest() {
        for (outcome, was_asked) in
            [(Reload::Unchanged, true), (Reload::Failed, true), (Reload::Failed, false)]
        {
            let (mut pace, start) = pace();
            for rest in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(Duration::from_secs) {
                pace.ended(start, was_asked, outcome);
                assert_eq!(pace.turn(start), Turn::TooSoon, "{outcome}");
                assert_eq!(
                    pace.turn(start + rest.saturating_sub(MINIMUM * 2)),
                    Turn::TooSoon,
                    "{outcome}, {rest:?}"
                );
                assert_eq!(
                    pace.turn(start + rest.saturating_sub(MINIMUM)),
                    Turn::At(start + rest),
                    "{outcome}"
                );
                if rest < LONGEST {
                    assert_eq!(pace.turn(start + rest), Turn::Now, "{outcome}");
                }
            }
        }
    }

    #[test]
    fn a_first_refusal_keeps_the_minimum_interval_and_nothing_more() {
        let (mut pace, start) = pace();
        assert_eq!(pace.turn_of_first_refusal(start), Turn::Now);
        for _ in 0..9 {
            pace.ended(start, false, Reload::Failed);
        }
        assert_eq!(pace.turn(start + MINIMUM), Turn::TooSoon);
        assert_eq!(pace.turn_of_first_refusal(start), Turn::At(start + MINIMUM));
        assert_eq!(pace.turn_of_first_refusal(start + MINIMUM), Turn::Now);
        assert_eq!(pace.turn_of_first_refusal(start + LONGEST), Turn::Now);
    }

    #[test]
    fn polls_that_find_nothing_new_neither_rest_nor_end_a_rest() {
        let (mut pace, start) = pace();
        pace.ended(start, false, Reload::Unchanged);
        assert_eq!(pace.turn(start), Turn::Now);
        pace.ended(start, true, Reload::Unchanged);
        pace.ended(start, false, Reload::Unchanged);
        assert_eq!(pace.turn(start), Turn::TooSoon);
    }

    #[test]
    fn another_key_and_a_long_quiet_time_end_the_doubling() {
        let (mut pace, start) = pace();
        for _ in 0..5 {
            pace.ended(start, true, Reload::Unchanged);
        }
        pace.renewed();
        assert_eq!(pace.turn(start), Turn::At(start + MINIMUM));
        for _ in 0..5 {
            pace.ended(start, true, Reload::Unchanged);
        }
        assert_eq!(pace.turn(start + LONGEST), Turn::Now);
        pace.ended(start + LONGEST, true, Reload::Unchanged);
        assert_eq!(pace.turn(start + LONGEST + MINIMUM), Turn::At(start + LONGEST + MINIMUM * 2));
        pace.ended(start, true, Reload::Newer);
        assert_eq!(pace.turn(start), Turn::At(start + MINIMUM));
    }

    #[test]
    fn polls_come_at_random_within_the_jitter_and_never_later_than_the_interval() {
        let settings = RefreshSettings::new().with_poll_interval(Duration::from_secs(100)).with_jitter(20);
        let now = Instant::now();
        let waits: Vec<Duration> = (0..200).map(|_| next_poll(&settings, now) - now).collect();
        let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*shortest >= Duration::from_secs(80) && *longest <= Duration::from_secs(100));
        assert!(longest.abs_diff(*shortest) > Duration::from_secs(10), "{shortest:?} to {longest:?}");
        let all = settings.clone().with_poll_interval(Duration::ZERO).with_jitter(100);
        assert_eq!(next_poll(&all, now), now + SHORTEST_POLL_INTERVAL);
        let steady = settings.with_jitter(0);
        assert_eq!(next_poll(&steady, now), now + Duration::from_secs(100));
    }

    #[test]
    fn every_wait_is_bounded_whatever_is_set() {
        let now = Instant::now();
        let extremes = [Duration::ZERO, Duration::from_nanos(1), MINIMUM, LONGEST, Duration::MAX];
        let all = extremes.iter().flat_map(|first| extremes.iter().map(move |second| (*first, *second)));
        for (first, second) in all {
            let settings = RefreshSettings::new()
                .with_poll_interval(first)
                .with_jitter(u8::MAX)
                .with_minimum_interval(first)
                .with_longest_back_off(second)
                .with_deadline(second)
                .with_grace(first)
                .with_lag(second);
            let day = Duration::from_secs(24 * 60 * 60);
            assert!(next_poll(&settings, now) > now && next_poll(&settings, now) <= now + day);
            assert!(settings.deadline > Duration::ZERO && settings.deadline <= Duration::from_secs(300));
            let minute = Duration::from_secs(60);
            let file = crate::source::Provenance::File { path: "kanal".into() };
            assert!(settings.lag_of(&file) <= minute && now.checked_add(settings.grace).is_some());
            let mut pace = Pace::new(&settings);
            for failure in 0..100 {
                let outcome = if failure % 2 == 0 { Reload::Failed } else { Reload::Unchanged };
                pace.ended(now, true, outcome);
                for turn in [pace.turn(now), pace.turn_of_first_refusal(now)] {
                    match turn {
                        Turn::TooSoon => {}
                        Turn::At(at) => assert!(at > now && at <= now + minute, "{settings:?}"),
                        Turn::Now => panic!("without a pause: {settings:?}"),
                    }
                }
            }
            assert_eq!(pace.turn(now + day), Turn::Now);
        }
    }
}
