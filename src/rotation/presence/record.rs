//! The record of one process.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::handle::{Generation, Usage};
use crate::internal::printable::Printable;
use crate::internal::utc::{Moment, Utc};
use crate::key::Fingerprint;
use crate::keyset::{KeyInfo, KeySetSummary};

/// How much the clocks of two machines may differ before a record counts as silent.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// How much the clocks of a process and of a rotator may differ before the order of what they did is
/// mistaken: the default of [`RotationPolicy`](crate::rotation::RotationPolicy).
const CLOCK_SKEW: Duration = Duration::from_secs(30 * 60);

/// What one process has shown of its keys, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRecord {
    /// A random number of this start of the process.
    pub(super) process: u64,
    pub(super) name: String,
    pub(super) generation: Option<Generation>,
    pub(super) oldest: Option<Generation>,
    pub(super) key: Option<Fingerprint>,
    pub(super) lineage: Option<Fingerprint>,
    /// No newer than the generation.
    pub(super) refused: Option<Generation>,
    pub(super) shown: Moment,
    /// In seconds.
    pub(super) time_to_live: u32,
}

impl PresenceRecord {
    pub(super) fn new(process: u64, name: &str, in_use: Usage, now: SystemTime, time_to_live: u32) -> Self {
        let Usage { generation, oldest, key, lineage, refused } = in_use;
        let (name, shown) = (name.to_owned(), Moment::from(now));
        Self { process, name, generation, oldest, key, lineage, refused, shown, time_to_live }
    }

    /// Returns the name of the process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the active generation; `None` before the first key. It is that of the process's own handle: if
    /// the key is of a key set, the key set's generation.
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Returns the active key; `None` if there is none.
    #[must_use]
    pub const fn key(&self) -> Option<Fingerprint> {
        self.key
    }

    /// Returns the latest generation that the issuer refused to the process; `None` if it refused none, or
    /// accepted that generation since. It is counted as [`generation`](PresenceRecord::generation).
    #[must_use]
    pub const fn refused(&self) -> Option<Generation> {
        self.refused
    }

    /// Returns the active key if the issuer refused it: the requests of that process fail.
    #[must_use]
    pub fn refused_key(&self) -> Option<Fingerprint> {
        self.key.filter(|_| self.refused.is_some() && self.refused == self.generation)
    }

    /// Whether no request of the process was in flight with an older key.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.oldest == self.generation
    }

    /// Returns when the process showed this, by its own clock, to the second.
    #[must_use]
    pub fn shown(&self) -> SystemTime {
        self.shown.to_time()
    }

    /// Returns for how long after that it holds.
    #[must_use]
    pub const fn time_to_live(&self) -> Duration {
        Duration::from_secs(self.time_to_live as u64)
    }

    /// Whether the time to live, and a minute for clocks that differ, has passed: the process was killed, or
    /// cannot reach the document. The same holds if its clock is that much ahead.
    #[must_use]
    pub fn is_silent_at(&self, now: SystemTime) -> bool {
        let apart = Moment::from(now).0.abs_diff(self.shown.0);
        Duration::from_secs(apart) > self.time_to_live().saturating_add(CLOCK_SLACK)
    }

    /// Whether the process uses the active key of a key set and none before it, or had no key yet when that
    /// one was active already.
    pub(crate) fn is_up_to_date(&self, keys: &KeySetSummary) -> bool {
        let current = keys.current();
        if self.generation.is_none() {
            // It may have taken the old key since, if that was active when it showed this.
            let since = current.map(|current| current.promoted().unwrap_or_else(|| current.staged()));
            let since = since.and_then(|since| since.checked_add(CLOCK_SKEW));
            return since.is_some_and(|since| self.shown() >= since);
        }
        // Generations of another key set say nothing; a key is the same everywhere.
        let is_now = self.lineage != keys.lineage() || self.generation == keys.generation();
        self.is_drained() && is_now && self.key == current.map(KeyInfo::fingerprint)
    }
}

impl fmt::Display for PresenceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", Printable(&self.name))?;
        match (self.generation, self.key) {
            (None, _) => f.write_str("no key yet")?,
            (Some(generation), None) => write!(f, "generation {generation}, no key")?,
            (Some(generation), Some(key)) => write!(f, "generation {generation}, key {key}")?,
        }
        if let Some(oldest) = self.oldest.filter(|_| !self.is_drained()) {
            write!(f, ", requests with generation {oldest} in flight")?;
        }
        if let Some(refused) = self.refused {
            write!(f, ", generation {refused} was REFUSED")?;
        }
        write!(f, ", shown {})", Utc(self.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Issuer, Kanal, RawKey};
    use crate::keyset::{KeySet, Promotion, Staging};

    #[test]
    fn a_process_without_a_key_yet_may_still_take_the_old_one() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second);
        let key = |text: &[u8]| RawKey::parse(Kanal::PROFILE, text).unwrap();
        let mut keys = KeySet::new(Kanal::PROFILE).unwrap();
        keys.adopt(key(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"), Staging::at(at(0))).unwrap();
        let staged = keys.stage(key(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"), Staging::at(at(1000))).unwrap();
        keys.promote(staged.rotation(), Promotion::Unverified, at(2000)).unwrap();
        let nothing = Usage { generation: None, oldest: None, key: None, lineage: None, refused: None };
        for (shown, is_up_to_date) in
            [(0, false), (2000, false), (2060, false), (3799, false), (3800, true), (9000, true)]
        {
            let record = PresenceRecord::new(1, "a", nothing, at(shown), 600);
            assert_eq!(record.is_up_to_date(&keys.summary()), is_up_to_date, "{shown}");
        }
    }
}
