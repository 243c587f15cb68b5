//! What one process shows of itself.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::fingerprint::Fingerprint;
use crate::handle::{Generation, InUse};
use crate::keyset::{Held, KeySet};
use crate::utc::{Moment, Utc};

/// How much the clocks of two machines may differ before a record is taken as silent for it.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// What one process has shown of the key that it uses, and when.
///
/// ```
/// use keysheath::presence::PresenceRecord;
/// fn warn(record: &PresenceRecord) {
///     if record.is_silent_at(std::time::SystemTime::now()) {
///         eprintln!("{} has not been seen for a while: {record}", record.name());
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRecord {
    /// Drawn when the process began to show itself.
    pub(super) process: u64,
    pub(super) name: String,
    pub(super) generation: Option<Generation>,
    pub(super) oldest: Option<Generation>,
    pub(super) key: Option<Fingerprint>,
    pub(super) begun: Option<Fingerprint>,
    pub(super) shown: Moment,
    /// In seconds.
    pub(super) time_to_live: u32,
}

impl PresenceRecord {
    pub(super) fn new(process: u64, name: &str, in_use: InUse, now: SystemTime, time_to_live: u32) -> Self {
        let InUse { generation, oldest, key, begun } = in_use;
        let (name, shown) = (name.to_owned(), Moment::from(now));
        Self { process, name, generation, oldest, key, begun, shown, time_to_live }
    }

    /// What the process calls itself.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn log(record: &PresenceRecord) {
    ///     println!("{}", record.name());
    /// }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The generation in force there; `None` before its first key. It counts within its own handle: where the key is of a
    /// key set, that is the key set's generation.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn log(record: &PresenceRecord) {
    ///     println!("{:?}", record.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The key in force there; `None` where there is none.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn log(record: &PresenceRecord) {
    ///     println!("{:?}", record.key());
    /// }
    /// ```
    #[must_use]
    pub const fn key(&self) -> Option<Fingerprint> {
        self.key
    }

    /// Whether no request of the process was under way with an older key.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn log(record: &PresenceRecord) {
    ///     println!("{}", record.is_drained());
    /// }
    /// ```
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.oldest == self.generation
    }

    /// When the process showed this, by its own clock, to the second.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn seconds_ago(record: &PresenceRecord) -> Option<u64> {
    ///     Some(record.shown().elapsed().ok()?.as_secs())
    /// }
    /// ```
    #[must_use]
    pub fn shown(&self) -> SystemTime {
        self.shown.to_time()
    }

    /// For how long after that it holds.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn log(record: &PresenceRecord) {
    ///     println!("{:?}", record.time_to_live());
    /// }
    /// ```
    #[must_use]
    pub const fn time_to_live(&self) -> Duration {
        Duration::from_secs(self.time_to_live as u64)
    }

    /// Whether the time to live is over, and a minute for clocks that differ: the process has ended without a word, or it
    /// cannot reach the document. So is one whose clock is that much ahead.
    ///
    /// ```
    /// # use keysheath::presence::PresenceRecord;
    /// fn is_there(record: &PresenceRecord) -> bool {
    ///     !record.is_silent_at(std::time::SystemTime::now())
    /// }
    /// ```
    #[must_use]
    pub fn is_silent_at(&self, now: SystemTime) -> bool {
        let apart = Moment::from(now).0.abs_diff(self.shown.0);
        Duration::from_secs(apart) > self.time_to_live() + CLOCK_SLACK
    }

    /// Whether the process uses the key in force in a key set and none before it, or has no key at all.
    pub(crate) fn is_up_to_date(&self, keys: &KeySet) -> bool {
        if self.generation.is_none() {
            return true;
        }
        // Where its generations are not this key set's, they say nothing; the key is the same one everywhere.
        let is_now = self.begun != keys.begun() || self.generation == keys.generation();
        self.is_drained() && is_now && self.key == keys.current().map(Held::fingerprint)
    }
}

impl fmt::Display for PresenceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.name)?;
        match (self.generation, self.key) {
            (None, _) => f.write_str("no key yet")?,
            (Some(generation), None) => write!(f, "generation {generation}, no key")?,
            (Some(generation), Some(key)) => write!(f, "generation {generation}, key {key}")?,
        }
        if let Some(oldest) = self.oldest.filter(|_| !self.is_drained()) {
            write!(f, ", requests with generation {oldest} under way")?;
        }
        write!(f, ", shown {})", Utc(self.shown()))
    }
}
