//! The rate limits that both issuers document.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, SystemTime};

/// How many requests both issuers document for a window: Kanal for each store, Katana for each key.
///
/// ```
/// assert_eq!(keysheath::emulator::RATE_LIMIT, 60);
/// ```
pub const RATE_LIMIT: u32 = 60;

/// The length of a window. A minute (Kanal) and 60 seconds (Katana) are documented. That the window starts with the first
/// request in it is not; it is what the framework does whose messages Kanal sends.
///
/// ```
/// assert_eq!(keysheath::emulator::RATE_WINDOW.as_secs(), 60);
/// ```
pub const RATE_WINDOW: Duration = Duration::from_secs(60);

/// Counts requests by what they are metered by. Windows that are over are thrown away when there are many.
#[derive(Debug)]
pub(super) struct RateLimiter<T> {
    windows: HashMap<T, Window>,
    /// With so many windows it is time to look for those that are over.
    many: usize,
}

/// The least number of windows that counts as many.
const MANY: usize = 1024;

#[derive(Debug)]
struct Window {
    start: SystemTime,
    taken: u32,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    Allowed {
        /// How many more may follow in this window.
        remaining: u32,
    },
    Refused {
        /// Until the next window, in whole seconds, rounded up; at least 1.
        retry_after: u64,
    },
}

impl<T: Eq + Hash> RateLimiter<T> {
    pub(super) fn new() -> Self {
        Self { windows: HashMap::new(), many: MANY }
    }

    pub(super) fn take(&mut self, metered: T, now: SystemTime) -> Allowance {
        if self.windows.len() >= self.many {
            self.windows
                .retain(|_, window| now.duration_since(window.start).unwrap_or_default() < RATE_WINDOW);
            self.many = MANY.max(self.windows.len() * 2);
        }
        let window = self.windows.entry(metered).or_insert(Window { start: now, taken: 0 });
        // A clock that went back is taken as standing still.
        let mut elapsed = now.duration_since(window.start).unwrap_or_default();
        if elapsed >= RATE_WINDOW {
            *window = Window { start: now, taken: 0 };
            elapsed = Duration::ZERO;
        }
        if window.taken == RATE_LIMIT {
            let wait = RATE_WINDOW.saturating_sub(elapsed);
            let retry_after = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return Allowance::Refused { retry_after };
        }
        window.taken += 1;
        Allowance::Allowed { remaining: RATE_LIMIT - window.taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_are_over_are_thrown_away() {
        let mut limiter = RateLimiter::new();
        for key in 0..20_000_u64 {
            limiter.take(key, SystemTime::UNIX_EPOCH + Duration::from_secs(key));
        }
        assert!(limiter.windows.len() <= MANY, "{} windows", limiter.windows.len());
    }

    #[test]
    fn sixty_pass_in_a_window_and_the_next_one_starts_afresh() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut limiter = RateLimiter::new();
        for taken in 1..=60 {
            assert_eq!(limiter.take("a", at(500)), Allowance::Allowed { remaining: 60 - taken });
        }
        assert_eq!(limiter.take("a", at(500)), Allowance::Refused { retry_after: 60 });
        assert_eq!(limiter.take("a", at(51_400)), Allowance::Refused { retry_after: 10 });
        assert_eq!(limiter.take("a", at(60_499)), Allowance::Refused { retry_after: 1 });
        assert_eq!(limiter.take("b", at(60_499)), Allowance::Allowed { remaining: 59 });
        assert_eq!(limiter.take("a", at(60_500)), Allowance::Allowed { remaining: 59 });
        assert_eq!(limiter.take("a", at(0)), Allowance::Allowed { remaining: 58 }, "a clock that went back");
    }
}
