//! Which process may use the refresh token of a grant, and until when.

use std::time::{Duration, SystemTime};

use super::grant::Moment;
use crate::internal::clocks::BootTime;
use crate::internal::clocks::Clocks;

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
    pub(super) wall: Moment,
    pub(super) boot: Option<BootTime>,
}

/// One reading of all clocks that a lease is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) clocks: Clocks,
    pub(super) boot: Option<BootTime>,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { clocks: Clocks::now(), boot: BootTime::now() }
    }
}

impl Lease {
    /// A lease that `holder` takes now.
    pub(super) fn taken_now(holder: u64, length: Duration) -> Self {
        let taken = Taken { wall: Moment::of(SystemTime::now()), boot: BootTime::now() };
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
        let by_wall = Moment::of(wall).since(taken.wall);
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

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
        Lease { holder: 1, length: LENGTH, taken: Some(Taken { wall: Moment::of(wall(TAKEN)), boot }) }
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
}
