//! Time that passes: two clocks, and waits between attempts.
//!
//! A span has expired when either clock says so, and has settled only when both do. The monotonic clock stops
//! while the machine is suspended; the wall clock can be set, forwards and backwards. Code that uses one of
//! them alone takes an expired token for a fresh one, or a fresh key for a settled one.
//!
//! Waits double after failures, and chance is in them, so that processes that failed together do not come
//! back together.

use std::hash::{BuildHasher as _, RandomState};
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

/// Returns the wall clock in whole seconds since 1970, until 2106, as of the kernel's last tick: up to ten
/// milliseconds old. That takes a tenth of the time of an exact reading.
#[cfg(all(feature = "registry", target_os = "linux"))]
#[inline]
pub(crate) fn wall_seconds() -> u32 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    u32::try_from(time.tv_sec.max(0)).unwrap_or(u32::MAX)
}

/// Returns the wall clock in whole seconds since 1970, until 2106.
#[cfg(all(feature = "registry", not(target_os = "linux")))]
pub(crate) fn wall_seconds() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
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

/// The shortest poll interval, and the shortest of other settings.
pub(crate) const SHORTEST: Duration = Duration::from_millis(10);

/// The longest interval and back-off: far below where adding to a clock would overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest minimum interval: a caller whose key was refused waits for it.
const LONGEST_MINIMUM: Duration = Duration::from_secs(60);

/// How often a background thread polls, and how it backs off.
///
/// | setting | default | least | most |
/// |---|---|---|---|
/// | [interval](Self::with_interval) between two polls | 30 s | 10 ms | a day |
/// | [jitter](Self::with_jitter), taken off each interval at random | up to 20 % | 0 % | 100 % |
/// | [minimum interval](Self::with_minimum_interval) of requested attempts | 1 s | 10 ms | 1 min |
/// | [longest back-off](Self::with_longest_back_off) | 5 min | the minimum interval | a day |
///
/// A value beyond its bounds is replaced by the nearest bound.
///
/// ```
/// use std::time::Duration;
/// use keysheath::Cadence;
/// let cadence = Cadence::every(Duration::from_secs(10)).with_longest_back_off(Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    interval: Duration,
    /// In percent.
    jitter: u8,
    minimum: Duration,
    longest: Duration,
}

impl Cadence {
    /// Returns the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            interval: Duration::from_secs(30),
            jitter: 20,
            minimum: Duration::from_secs(1),
            longest: Duration::from_secs(5 * 60),
        }
    }

    /// Returns the defaults with this interval.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self::new().with_interval(interval)
    }

    /// Sets the longest time between two polls.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(SHORTEST, LONGEST);
        self
    }

    /// Sets how much of each interval may be taken off at random, in percent, so that processes that were
    /// started together do not poll together.
    #[must_use]
    pub fn with_jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(100);
        self
    }

    /// Sets the shortest time between two attempts that are asked for. It doubles while attempts fail or are
    /// of no use.
    #[must_use]
    pub fn with_minimum_interval(mut self, interval: Duration) -> Self {
        self.minimum = interval.clamp(SHORTEST, LONGEST_MINIMUM);
        self
    }

    /// Sets the time up to which the minimum interval doubles.
    #[must_use]
    pub fn with_longest_back_off(mut self, longest: Duration) -> Self {
        self.longest = longest.min(LONGEST);
        self
    }

    /// How long to wait before the next poll.
    pub(crate) fn next(&self) -> Duration {
        let part = f64::from(self.jitter) / 100.0 * random_part();
        self.interval.saturating_sub(self.interval.mul_f64(part)).max(SHORTEST)
    }

    pub(crate) const fn minimum_interval(&self) -> Duration {
        self.minimum
    }

    /// The longest back-off, which is at least the minimum interval.
    pub(crate) fn longest_back_off(&self) -> Duration {
        self.longest.max(self.minimum)
    }

    /// The minimum interval, doubled so many times, up to the longest back-off.
    pub(crate) fn back_off(&self, times: u32) -> Duration {
        doubled(self.minimum, times, self.longest_back_off())
    }
}

impl Default for Cadence {
    fn default() -> Self {
        Self::new()
    }
}

/// The first wait, doubled so many times, and no longer than the longest.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}

/// From 0 to 1, different each time; for nothing secret. The standard library seeds each `RandomState` from
/// the system's generator.
pub(crate) fn random_part() -> f64 {
    f64::from(u32::try_from(random_number() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// Different each time; for nothing secret.
pub(crate) fn random_number() -> u64 {
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
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
        assert!(later.at_least_since(start) < HOUR);
    }

    #[test]
    fn a_wall_clock_set_back_expires_but_does_not_settle() {
        let start = Clocks::now();
        let later = Clocks::at(start.wall() - HOUR, start.monotonic() + HOUR);
        assert!(later.has_expired(start, HOUR));
        assert!(later.at_least_since(start) < HOUR);
    }

    #[test]
    fn both_clocks_together_settle() {
        let start = Clocks::now();
        let later = Clocks::at(start.wall() + HOUR, start.monotonic() + HOUR);
        assert!(later.has_expired(start, HOUR) && later.at_least_since(start) >= HOUR);
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

    #[test]
    fn polls_are_jittered_and_never_later_than_the_interval() {
        let cadence = Cadence::every(Duration::from_secs(100)).with_jitter(20);
        let waits: Vec<Duration> = (0..200).map(|_| cadence.next()).collect();
        let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*shortest >= Duration::from_secs(80) && *longest <= Duration::from_secs(100));
        assert!(longest.abs_diff(*shortest) > Duration::from_secs(10), "{shortest:?} to {longest:?}");
        assert_eq!(Cadence::every(Duration::ZERO).with_jitter(100).next(), SHORTEST);
        assert_eq!(cadence.with_jitter(0).next(), Duration::from_secs(100));
    }

    #[test]
    fn the_back_off_doubles_up_to_the_longest() {
        let cadence = Cadence::new();
        let waits = [0, 1, 2, 8, 9, 40, u32::MAX].map(|times| cadence.back_off(times).as_secs());
        assert_eq!(waits, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(cadence.with_longest_back_off(Duration::ZERO).back_off(5), Duration::from_secs(1));
    }

    #[test]
    fn no_setting_is_beyond_its_bounds() {
        let far = Cadence::every(Duration::MAX).with_jitter(0).with_minimum_interval(Duration::MAX);
        let far = far.with_longest_back_off(Duration::MAX);
        let waits = [far.next(), far.longest_back_off(), far.back_off(0), far.back_off(u32::MAX)];
        assert_eq!(waits, [LONGEST, LONGEST, LONGEST_MINIMUM, LONGEST]);
        let near = far.with_minimum_interval(Duration::ZERO).with_longest_back_off(Duration::ZERO);
        assert_eq!((near.minimum_interval(), near.back_off(9)), (SHORTEST, SHORTEST));
    }
}
