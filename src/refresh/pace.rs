//! When an attempt that is asked for is made. It reads no clock.

use std::time::{Duration, Instant};

use crate::handle::Reload;
use crate::internal::time::Cadence;

/// What to do about a reload that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Soon enough for the callers to wait.
    At(Instant),
    TooSoon,
}

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

    /// What to do at `now` about a reload that is asked for.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        let Some(since) = self.rests_since else { return Turn::Now };
        if now.saturating_duration_since(since) >= self.cadence.longest_back_off() {
            // It was quiet for a long time, so what was fruitless then says nothing about now.
            self.fruitless = 0;
            return Turn::Now;
        }
        // A rest is a day at most, so the sum is within the clock's reach.
        match since + self.rest() {
            at if at <= now => Turn::Now,
            at if at - now <= self.cadence.minimum_interval() => Turn::At(at),
            _ => Turn::TooSoon,
        }
    }

    /// As [`Pace::turn`], for an attempt that keeps only the minimum interval.
    pub(super) fn turn_of_first_refusal(&mut self, now: Instant) -> Turn {
        match (self.turn(now), self.rests_since.map(|since| since + self.cadence.minimum_interval())) {
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

    /// Notes that another key is active, from whatever publisher.
    pub(super) fn renewed(&mut self) {
        self.fruitless = 0;
    }

    /// The minimum interval, doubled for each failure and each fruitless attempt, up to the longest back-off.
    fn rest(&self) -> Duration {
        self.cadence.back_off(self.failures.saturating_add(self.fruitless))
    }
}

#[cfg(test)]
mod tests {
    use super::super::RefreshSettings;
    use super::*;

    const MINIMUM: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(300);

    fn pace() -> (Pace, Instant) {
        let cadence = Cadence::new().with_minimum_interval(MINIMUM).with_longest_back_off(LONGEST);
        (Pace::new(cadence), Instant::now())
    }

    #[test]
    fn the_first_attempt_is_made_now_the_next_after_the_minimum() {
        let (mut pace, start) = pace();
        assert_eq!(pace.turn(start), Turn::Now);
        pace.ended(start, true, Reload::Newer);
        assert_eq!(pace.turn(start), Turn::At(start + MINIMUM));
        assert_eq!(pace.turn(start + MINIMUM / 2), Turn::At(start + MINIMUM));
        assert_eq!(pace.turn(start + MINIMUM), Turn::Now);
    }

    #[test]
    fn fruitless_and_failed_attempts_double_the_rest() {
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
    fn a_first_refusal_keeps_only_the_minimum_interval() {
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
