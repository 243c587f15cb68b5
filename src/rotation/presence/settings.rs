//! How a process shows itself.

use std::fmt;
use std::time::Duration;

use super::PresenceError;
use crate::internal::back_off::random_part;
use crate::keyset::Hidden;

/// The longest name of a process, in characters.
pub const MAX_NAME: usize = 64;

/// How long what a process shows of itself holds unless told otherwise: 10 minutes.
pub const DEFAULT_TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// The bounds of a time to live: a second and a day.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(LONGEST as u64));

/// In seconds: a day.
pub(super) const LONGEST: u32 = 24 * 60 * 60;

/// The least and the longest time for which a write is tried when others write at the same time.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// How a process shows itself: by which name, and for how long that holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PresenceSettings {
    pub(super) name: String,
    pub(super) is_unique: bool,
    time_to_live: Duration,
}

impl PresenceSettings {
    /// By this name, by which a person finds the process again: 1 to [`MAX_NAME`] printable ASCII characters, without `"`
    /// and `\`. It need not be the only one of that name, and must not be secret.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_unique: false, time_to_live: DEFAULT_TIME_TO_LIVE }
    }

    /// Says that no other process has this name at the same time, such as that of a pod in a stateful set or of the one
    /// service on a machine. What is shown by it already is then what a predecessor has left behind that was killed, and is
    /// replaced: nobody waits for it, and a process that ends and starts again and again does not fill the document. Of two
    /// living processes of one such name, one is not seen.
    #[must_use]
    pub const fn with_unique_name(mut self) -> Self {
        self.is_unique = true;
        self
    }

    /// How long what is shown holds: a second to a day, in whole seconds. It is shown anew after about a third of it. Longer
    /// than it takes to mend the place where it is shown: a process that cannot reach that for so long is taken as silent.
    #[must_use]
    pub fn with_time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = Duration::from_secs(time.clamp(BOUNDS.0, BOUNDS.1).as_secs());
        self
    }

    /// In seconds.
    pub(super) fn time_to_live(&self) -> u32 {
        u32::try_from(self.time_to_live.as_secs()).unwrap_or(u32::MAX)
    }

    /// How long after it was shown it is shown anew. Processes that were started together drift apart.
    pub(super) fn renewal(&self) -> Duration {
        (self.time_to_live / 3).mul_f64(1.0 - 0.2 * random_part())
    }

    /// How long after a change it is shown. A promotion changes every process of a fleet at once.
    pub(super) fn spread(&self) -> Duration {
        (self.time_to_live / 20).mul_f64(random_part())
    }

    /// The rests between attempts that fail: the first, and the longest, which leaves several before it is silent.
    pub(super) fn rests(&self) -> (Duration, Duration) {
        (self.time_to_live / 60, self.time_to_live / 6)
    }

    /// For how long a write is tried when others write at the same time, as when a whole fleet is started at once.
    pub(super) fn patience(&self) -> Duration {
        (self.time_to_live / 10).clamp(PATIENCE.0, PATIENCE.1)
    }

    pub(super) fn check(&self) -> Result<(), PresenceError> {
        check_name(&self.name).map_err(|rule| PresenceError::BadName { rule })
    }
}

/// Without the name, in which a key may have been pasted.
impl fmt::Debug for PresenceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceSettings")
            .field("name", &Hidden(Some(&self.name)))
            .field("is_unique", &self.is_unique)
            .field("time_to_live", &self.time_to_live)
            .finish()
    }
}

pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("it is empty, or too long");
    }
    let may_be = |c: u8| matches!(c, b' '..=b'~') && !matches!(c, b'"' | b'\\');
    if name.bytes().all(may_be) {
        Ok(())
    } else {
        Err("it has other characters than printable ASCII without quotes and backslashes")
    }
}
