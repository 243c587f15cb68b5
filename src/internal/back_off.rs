//! Waits that double, and chance in them, so that those who failed together do not come back together.

use std::hash::{BuildHasher as _, RandomState};
#[cfg(any(feature = "client", feature = "rotation"))]
use std::time::Duration;
use std::time::SystemTime;

/// The first wait, doubled so many times, and no longer than the longest.
#[cfg(any(feature = "client", feature = "rotation"))]
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}

/// From 0 to 1, drawn anew each time; for nothing secret. The standard library seeds each `RandomState` from the system's
/// generator.
pub(crate) fn random_part() -> f64 {
    f64::from(u32::try_from(random_number() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// Drawn anew each time; for nothing secret.
pub(crate) fn random_number() -> u64 {
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}
