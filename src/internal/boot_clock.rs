//! The time since the machine was started: shared by all its processes, and not set by anyone.
//!
//! An `Instant` cannot be written down, and a wall clock can be set. What one process writes down of this clock, another
//! process of the same machine can count from.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;

/// A reading: since which start, and how long ago that was. Time in suspend counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootTime {
    /// Tells this start of this machine from all others; never 0.
    pub(crate) boot: u64,
    pub(crate) millis: u64,
}

impl BootTime {
    /// Reads the clock. `None` where there is no such clock, or where starts cannot be told apart.
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

/// A time namespace shifts the clock, so it is a part of what tells one clock from another.
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_its_start_stays_the_same() {
        let first = BootTime::now().expect("Linux has this clock");
        std::thread::sleep(std::time::Duration::from_millis(20));
        let second = BootTime::now().expect("Linux has this clock");
        assert_eq!(first.boot, second.boot);
        assert!((20..10_000).contains(&(second.millis - first.millis)), "{first:?}, {second:?}");
    }
}
