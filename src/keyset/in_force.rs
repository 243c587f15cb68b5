//! What of a key set a handle holds.

use std::time::{Duration, Instant, SystemTime};

use super::{Held, KeySet};
use crate::handle::{NoActiveKey, Publication};

/// The longest wait of a policy: 100 years of 365 days. Longer ones, as `Duration::MAX`, count as this one, which every
/// clock can add to the time of now.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(100 * 365 * 86_400);

impl KeySet {
    /// The keys for a handle. The previous key has what is left of `grace` since it was replaced; by a clock that was
    /// set back since then, all of it. A handle that has it already never prolongs it. A grace that is longer than a clock
    /// can tell is the longest that it can.
    pub(crate) fn in_force(&self, grace: Duration, now: SystemTime) -> Publication<'_> {
        let current = match &self.current {
            Some(held) => Ok(held.key()),
            // A leaked key that never was in force here closes nothing.
            None if self.generation == 0 => Err(NoActiveKey::NoKey),
            None => Err(NoActiveKey::Compromised),
        };
        let left = |held: &Held| {
            let since = now.duration_since(held.demoted()?).unwrap_or_default();
            grace.checked_sub(since).filter(|left| !left.is_zero())
        };
        let previous = self.previous.as_ref().and_then(|held| {
            let until = Instant::now().checked_add(left(held)?.min(LONGEST_WAIT))?;
            Some((held.key(), until))
        });
        Publication { generation: self.generation(), lineage: self.begun, current, previous }
    }
}
