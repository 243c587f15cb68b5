//! Two clocks: a span has expired when either says so, and has settled only when both do.
//!
//! The monotonic clock stops while the machine is suspended; the wall clock can be set, forwards and
//! backwards. Code that uses one of them alone takes an expired token for a fresh one, or a fresh key for a
//! settled one.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    wall: SystemTime,
    monotonic: Instant,
}

impl Clocks {
    /// Reads both clocks.
    pub(crate) fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }

    /// A reading that is given, for tests and for callers with a clock of their own.
    pub(crate) const fn at(wall: SystemTime, monotonic: Instant) -> Self {
        Self { wall, monotonic }
    }

    /// The reading of the wall clock.
    pub(crate) const fn wall(self) -> SystemTime {
        self.wall
    }

    /// The reading of the monotonic clock.
    pub(crate) const fn monotonic(self) -> Instant {
        self.monotonic
    }

    /// The time since `earlier` by the clock that shows more: for what expires.
    pub(crate) fn at_most_since(self, earlier: Self) -> Duration {
        self.wall_since(earlier).max(self.monotonic_since(earlier))
    }

    /// The time since `earlier` by the clock that shows less: for what settles.
    pub(crate) fn at_least_since(self, earlier: Self) -> Duration {
        self.wall_since(earlier).min(self.monotonic_since(earlier))
    }

    /// Whether `span` has passed since `earlier` by either clock.
    pub(crate) fn has_expired(self, earlier: Self, span: Duration) -> bool {
        self.at_most_since(earlier) >= span
    }

    /// Whether `span` has passed since `earlier` by both clocks.
    pub(crate) fn has_settled(self, earlier: Self, span: Duration) -> bool {
        self.at_least_since(earlier) >= span
    }

    fn wall_since(self, earlier: Self) -> Duration {
        self.wall.duration_since(earlier.wall).unwrap_or_default()
    }

    fn monotonic_since(self, earlier: Self) -> Duration {
        self.monotonic.saturating_duration_since(earlier.monotonic)
    }
}

/// A reading of the clock that counts from the start of the machine, suspended time included. All processes
/// of the machine share it, and it cannot be set. Unlike an `Instant`, a reading can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootTime {
    /// Identifies this start of this machine; never 0.
    pub(crate) boot: u64,
    pub(crate) millis: u64,
}

impl BootTime {
    /// Reads the clock; `None` if there is no such clock, or if starts cannot be told apart.
    #[cfg(target_os = "linux")]
    pub(crate) fn now() -> Option<Self> {
        static BOOT: OnceLock<Option<u64>> = OnceLock::new();
        let boot = (*BOOT.get_or_init(boot))?;
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let millis = u64::try_from(time.tv_nsec).ok()? / 1_000_000;
        Some(Self { boot, millis: seconds.checked_mul(1000)?.checked_add(millis)? })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) const fn now() -> Option<Self> {
        None
    }
}

/// A time namespace shifts the clock, so it is a part of the identity.
#[cfg(target_os = "linux")]
fn boot() -> Option<u64> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok().filter(|id| id.len() >= 32)?;
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let mut hash = hmac_sha256::Hash::new();
    hash.update(&id);
    hash.update(namespace.as_os_str().as_encoded_bytes());
    let digest = hash.finalize();
    Some(digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) | 1)
}

/// A span that no wait outlives: a century.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The instant when a span from now is over. One beyond the clock is a century away.
pub(crate) fn after(span: Duration) -> Instant {
    later(Instant::now(), span)
}

/// The instant a span later. One beyond the clock is a century away.
pub(crate) fn later(instant: Instant, span: Duration) -> Instant {
    instant.checked_add(span).or_else(|| instant.checked_add(FAR)).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_beyond_the_clock_is_far_away() {
        let now = Instant::now();
        assert_eq!(later(now, HOUR), now + HOUR);
        for span in [Duration::MAX, Duration::from_secs(u64::MAX >> 1), Duration::from_secs(i64::MAX as u64)]
        {
            assert!(later(now, span) > now + 1000 * HOUR, "{span:?}");
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_suspended_machine_expires_but_does_not_settle() {
        let start = Clocks::now();
        let later = Clocks::at(start.wall() + 2 * HOUR, start.monotonic());
        assert!(later.has_expired(start, HOUR));
        assert!(!later.has_settled(start, HOUR));
    }

    #[test]
    fn a_wall_clock_set_back_expires_but_does_not_settle() {
        let start = Clocks::now();
        let later = Clocks::at(start.wall() - HOUR, start.monotonic() + HOUR);
        assert!(later.has_expired(start, HOUR));
        assert!(!later.has_settled(start, HOUR));
    }

    #[test]
    fn both_clocks_together_settle() {
        let start = Clocks::now();
        let later = Clocks::at(start.wall() + HOUR, start.monotonic() + HOUR);
        assert!(later.has_expired(start, HOUR) && later.has_settled(start, HOUR));
        assert!(!later.has_expired(start, HOUR + Duration::from_nanos(1)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_boot_clock_advances_within_one_start() {
        let first = BootTime::now().expect("Linux has this clock");
        std::thread::sleep(std::time::Duration::from_millis(20));
        let second = BootTime::now().expect("Linux has this clock");
        assert_eq!(first.boot, second.boot);
        assert!((20..10_000).contains(&(second.millis - first.millis)), "{first:?}, {second:?}");
    }
}
