//! Times of a grant: which process may use its refresh token, and when its access token is due.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::internal::clocks::{BootTime, Clocks};
use crate::store::Version;

/// By how much the wall clocks of two machines may differ.
///
/// A process that has not watched a lease for its whole length, such as one that a timer starts, goes by its
/// date. On the machine of the holder it uses the clock that counts from the machine's start (Linux) beside
/// the wall clock, and needs no allowance. On another machine it has only the wall clock, and takes the lease
/// for over this much later.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(30 * 60);

/// The right of one process to use the refresh token once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) holder: u64,
    pub(super) length: Duration,
    /// `None` in form 1, which has no date.
    pub(super) taken: Option<Taken>,
}

/// When a lease was taken, by the clocks of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) wall: Timestamp,
    pub(super) boot: Option<BootTime>,
}

/// One reading of all clocks that a lease is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) clocks: Clocks,
    pub(super) boot: Option<BootTime>,
}

/// Milliseconds since 1970, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp(pub(super) u64);

impl Timestamp {
    pub(super) fn of(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Now {
    pub(super) fn read() -> Self {
        Self { clocks: Clocks::now(), boot: BootTime::now() }
    }
}

impl Lease {
    /// A lease that `holder` takes now.
    pub(super) fn taken_now(holder: u64, length: Duration) -> Self {
        let taken = Taken { wall: Timestamp::of(SystemTime::now()), boot: BootTime::now() };
        Self { holder, length, taken: Some(taken) }
    }

    /// Whether it is over for a process that has seen it since `since`: by every clock that can tell. A wrong
    /// clock can make processes wait, and must not make two of them use one refresh token.
    pub(super) fn is_over(&self, since: Clocks, now: Now) -> bool {
        // The monotonic clock never shows more than has passed.
        let watched = now.clocks.monotonic().saturating_duration_since(since.monotonic());
        watched >= self.length || self.is_over_by_date(now.clocks.wall(), now.boot)
    }

    /// Whether its date alone says that it is over.
    pub(super) fn is_over_by_date(&self, wall: SystemTime, boot: Option<BootTime>) -> bool {
        let Some(taken) = self.taken else { return false };
        let by_wall = Timestamp::of(wall).since(taken.wall);
        match (taken.boot, boot) {
            (Some(then), Some(now)) if then.boot == now.boot => {
                // Machines that were resumed from one snapshot share a start; the wall clock tells them
                // apart.
                let by_boot = Duration::from_millis(now.millis.saturating_sub(then.millis));
                by_boot.min(by_wall) >= self.length
            }
            _ => by_wall >= self.length.saturating_add(MAX_CLOCK_DIFFERENCE),
        }
    }
}

/// How long before the end of its access token a grant in doubt is tried, at most.
const LAST_MOMENT: Duration = Duration::from_secs(30);

/// The document as it was last read.
pub(super) struct Seen {
    pub(super) version: Version,
    /// When its lease was first seen.
    pub(super) since: Clocks,
    pub(super) serial: u64,
    pub(super) number: u64,
    pub(super) lease: Option<Lease>,
    pub(super) is_refused: bool,
    pub(super) token: Token,
}

/// A time to come. It is reached when either clock says so, so neither a suspended machine nor a set clock
/// delays it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    from: Clocks,
    after: Duration,
}

/// The times of an access token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) ends: Due,
    /// When it is refreshed.
    pub(super) due: Due,
    /// When it is refreshed even if the grant is in doubt.
    pub(super) last_moment: Due,
}

impl Due {
    pub(super) const fn after(from: Clocks, after: Duration) -> Self {
        Self { from, after }
    }

    pub(super) fn is_over(self, now: Clocks) -> bool {
        now.has_expired(self.from, self.after)
    }

    /// How long until then.
    pub(super) fn rest(self, now: Clocks) -> Duration {
        self.after.saturating_sub(now.at_most_since(self.from))
    }
}

impl Seen {
    /// Whether there is a lease that its holder may still use.
    pub(super) fn is_leased(&self, now: Now) -> bool {
        self.lease.is_some_and(|lease| !lease.is_over(self.since, now))
    }
}

impl Token {
    /// A token that ends after `rest` and is refreshed ahead of its end by this percentage of its lifetime,
    /// at most 95.
    pub(super) fn ending(from: Clocks, rest: Duration, lifetime: Duration, ahead: f64) -> Self {
        let part = |percent: f64| lifetime.mul_f64(percent / 100.0);
        let last = (lifetime / 10).min(LAST_MOMENT);
        Self {
            ends: Due::after(from, rest),
            due: Due::after(from, rest.saturating_sub(part(ahead.min(95.0)))),
            last_moment: Due::after(from, rest.saturating_sub(last)),
        }
    }
}

/// How long an access token from the document is still valid. `unwatched` is the time since the last read,
/// `None` at the start: a token that came since then is no older than that, whatever the wall clocks say.
pub(super) fn rest_of(
    expires: Timestamp,
    lifetime: Duration,
    clock: Timestamp,
    unwatched: Option<Duration>,
) -> Duration {
    let youngest = lifetime;
    let oldest = unwatched.map_or(Duration::ZERO, |unwatched| youngest.saturating_sub(unwatched));
    expires.since(clock).clamp(oldest, youngest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(20);
    const TAKEN: u64 = 1_700_000_000;

    fn wall(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn boot(boot: u64, seconds: u64) -> BootTime {
        BootTime { boot, millis: seconds * 1000 }
    }

    fn lease(boot: Option<BootTime>) -> Lease {
        Lease { holder: 1, length: LENGTH, taken: Some(Taken { wall: Timestamp::of(wall(TAKEN)), boot }) }
    }

    #[test]
    fn on_its_machine_a_lease_ends_once_both_clocks_say_so() {
        let lease = lease(Some(boot(3, 100)));
        for (wall_after, boot_after, is_over) in [
            (20, 20, true),
            (19, 20, false),
            (20, 19, false),
            // A wall clock that was set forward by hours, and one that was set back.
            (7200, 5, false),
            (0, 7200, false),
        ] {
            let said = lease.is_over_by_date(wall(TAKEN + wall_after), Some(boot(3, 100 + boot_after)));
            assert_eq!(said, is_over, "{wall_after} {boot_after}");
        }
        assert!(!lease.is_over_by_date(wall(TAKEN - 3600), Some(boot(3, 0))));
    }

    #[test]
    fn elsewhere_a_lease_ends_by_the_wall_clock_and_allowance() {
        let most = MAX_CLOCK_DIFFERENCE.as_secs() + LENGTH.as_secs();
        for (then, now) in
            [(None, Some(boot(3, 0))), (Some(boot(3, 100)), None), (Some(boot(3, 100)), Some(boot(5, 9999)))]
        {
            let lease = lease(then);
            assert!(!lease.is_over_by_date(wall(TAKEN + most - 1), now));
            assert!(lease.is_over_by_date(wall(TAKEN + most), now));
        }
    }

    #[test]
    fn a_process_that_watched_a_lease_needs_no_date() {
        let since = Clocks::now();
        for lease in [lease(Some(boot(3, 100))), Lease { taken: None, ..lease(None) }] {
            let at = |wall, seconds| Now {
                clocks: Clocks::at(wall, since.monotonic() + Duration::from_secs(seconds)),
                boot: None,
            };
            assert!(!lease.is_over(since, at(wall(0), 19)));
            assert!(lease.is_over(since, at(wall(0), 20)));
        }
        let undated = Lease { taken: None, ..lease(None) };
        let far = Now { clocks: Clocks::at(wall(TAKEN * 2), since.monotonic()), boot: None };
        assert!(!undated.is_over(since, far), "a date that is not there says nothing");
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn wrong_clocks_move_an_end_by_the_unwatched_time_at_most() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let unwatched = Some(Duration::from_secs(40));
        for (by_the_clock, at_start, watched) in [
            (now, 0, 3560),
            (now - HOUR * 24 * 365, 0, 3560),
            (now + HOUR / 2, 1800, 3560),
            (now + HOUR - Duration::from_secs(10), 3590, 3590),
            (now + HOUR * 24 * 365, 3600, 3600),
        ] {
            let rest = |unwatched| {
                rest_of(Timestamp::of(by_the_clock), HOUR, Timestamp::of(now), unwatched).as_secs()
            };
            assert_eq!((rest(None), rest(unwatched)), (at_start, watched));
        }
    }

    #[test]
    fn a_token_is_due_ahead_of_its_end_with_jitter() {
        let now = Clocks::now();
        let due = |rest, random: f64| Token::ending(now, rest, HOUR, 20.0 + 10.0 * random);
        assert_eq!(due(HOUR, 0.0).due.rest(now), HOUR.mul_f64(0.8));
        assert_eq!(due(HOUR, 1.0).due.rest(now), HOUR.mul_f64(0.7));
        assert_eq!(due(HOUR, 0.5).last_moment.rest(now), HOUR.saturating_sub(LAST_MOMENT));
        assert!(due(HOUR / 10, 0.0).due.is_over(now));
        assert!(due(Duration::ZERO, 0.0).ends.is_over(now));
        assert!(!Token::ending(now, HOUR, HOUR, 180.0).due.is_over(now), "not as soon as it is there");
    }

    #[test]
    fn a_token_ends_by_the_clock_that_shows_more() {
        let start = Clocks::now();
        let token = Token::ending(start, HOUR, HOUR, 20.0);
        // Suspended for two hours: the monotonic clock stood still.
        let resumed = Clocks::at(start.wall() + HOUR * 2, start.monotonic());
        assert!(token.due.is_over(resumed) && token.ends.is_over(resumed));
        assert_eq!(token.ends.rest(resumed), Duration::ZERO);
        // The wall clock was set back by a day.
        let set_back = Clocks::at(start.wall() - HOUR * 24, start.monotonic() + HOUR);
        assert!(token.due.is_over(set_back) && token.ends.is_over(set_back));
        let later = Clocks::at(start.wall() + HOUR / 2, start.monotonic() + HOUR / 2);
        assert_eq!(token.ends.rest(later), HOUR / 2);
    }
}
