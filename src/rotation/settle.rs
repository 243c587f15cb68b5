//! How long other processes may still use a key, by two clocks.
//!
//! The time of a promotion is written by the clock of the process that promoted. A process that keeps running measures
//! the time since it first saw the promotion, by both of its clocks. A process that starts later has only the written time,
//! and adds the bound on the difference of two machines' clocks. If a process sees its own wall clock jump, only its own
//! measurement counts.

use std::time::{Duration, SystemTime};

use super::Rotation;
use crate::handle::Generation;
use crate::internal::clocks::Clocks;
use crate::key::Issuer;
use crate::keyset::{Held, KeySet};

/// By how much the two clocks of this process may part before its wall clock counts as set, or the machine as suspended.
const JUMP: Duration = Duration::from_secs(60);

/// Since when this process has seen a generation as the active one.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    generation: Option<Generation>,
    first: Clocks,
    /// Whether this process lasts: it made the step itself, or has looked before.
    is_lasting: bool,
}

impl<I: Issuer> Rotation<I> {
    /// Notes that a generation is active. `is_own` says that this process made the step.
    pub(super) fn sight(&self, keys: &KeySet, now: Clocks, is_own: bool) {
        let generation = keys.generation();
        let mut seen = self.seen();
        match &mut seen.sight {
            Some(sight) if sight.generation == generation => sight.is_lasting = true,
            sight => *sight = Some(Sight { generation, first: now, is_lasting: is_own }),
        }
    }

    /// What is left of the time for which the key that another one replaced is to be kept.
    pub(super) fn left_to_settle(&self, current: &Held, now: Clocks) -> Duration {
        self.left_since(promoted(current), self.policy.settle(), now)
    }

    /// What is left of the time in which an issuer may not know the active key yet.
    pub(super) fn left_to_activate(&self, current: &Held, now: Clocks) -> Duration {
        self.left_since(current.staged(), self.policy.activation(), now)
    }

    /// What is left of the settle time for a process that starts now.
    pub(super) fn left_to_settle_anew(&self, current: &Held, now: Clocks) -> Duration {
        by_others(promoted(current), self.policy.settle(), self.policy.clock_skew(), now)
    }

    /// What is left of the activation time for a process that starts now.
    pub(super) fn left_to_activate_anew(&self, current: &Held, now: Clocks) -> Duration {
        by_others(current.staged(), self.policy.activation(), self.policy.clock_skew(), now)
    }

    /// What is left of `span` since a time that is written down, and that lies before the active generation came.
    pub(super) fn left_since(&self, written: SystemTime, span: Duration, now: Clocks) -> Duration {
        let sight = self.seen().sight;
        left(sight, written, span, self.policy.clock_skew(), now)
    }
}

/// When a key became the active one.
pub(super) fn promoted(current: &Held) -> SystemTime {
    current.promoted().unwrap_or_else(|| current.staged())
}

/// What is left by the written time alone.
fn by_others(written: SystemTime, span: Duration, skew: Duration, now: Clocks) -> Duration {
    if span.is_zero() {
        return Duration::ZERO;
    }
    let whole = span.saturating_add(skew);
    match now.wall().duration_since(written) {
        Ok(since) => whole.saturating_sub(since),
        // By a clock that is behind it takes as much longer.
        Err(ahead) => whole.saturating_add(ahead.duration()),
    }
}

fn left(sight: Option<Sight>, written: SystemTime, span: Duration, skew: Duration, now: Clocks) -> Duration {
    let by_others = by_others(written, span, skew, now);
    let Some(Sight { first, is_lasting, .. }) = sight else { return by_others };
    let by_own = span.saturating_sub(now.at_least_since(first));
    let has_jumped = now.at_most_since(first).saturating_sub(now.at_least_since(first)) > JUMP;
    if has_jumped || by_own.is_zero() {
        by_own
    } else if by_others.is_zero() || !is_lasting {
        by_others
    } else {
        by_own.min(by_others)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const SPAN: Duration = MINUTE.saturating_mul(15);
    const SKEW: Duration = MINUTE.saturating_mul(30);

    struct Setup {
        start: Clocks,
        is_lasting: bool,
    }

    impl Setup {
        fn new(is_lasting: bool) -> Self {
            Self {
                start: Clocks::at(SystemTime::UNIX_EPOCH + 1_000_000 * MINUTE, Instant::now()),
                is_lasting,
            }
        }

        /// What is left in minutes, with the promotion written so long before the first look, after so long by each clock.
        fn left(&self, before: u32, wall: u32, monotonic: u32) -> u64 {
            let sight = Sight { generation: None, first: self.start, is_lasting: self.is_lasting };
            let now =
                Clocks::at(self.start.wall() + wall * MINUTE, self.start.monotonic() + monotonic * MINUTE);
            left(Some(sight), self.start.wall() - before * MINUTE, SPAN, SKEW, now).as_secs() / 60
        }
    }

    #[test]
    fn a_process_that_promotes_waits_for_the_settle_time() {
        let setup = Setup::new(true);
        assert_eq!([0, 10, 15, 60].map(|minute| setup.left(0, minute, minute)), [15, 5, 0, 0]);
    }

    #[test]
    fn a_command_that_starts_later_adds_the_bound_on_clocks() {
        let setup = Setup::new(false);
        assert_eq!([0, 20, 44, 45, 24 * 60].map(|before| setup.left(before, 0, 0)), [45, 25, 1, 0, 0]);
    }

    #[test]
    fn a_promoter_whose_clock_is_behind_shortens_no_wait() {
        let setup = Setup::new(true);
        assert_eq!([0, 5, 15].map(|minute| setup.left(20, minute, minute)), [15, 10, 0]);
    }

    #[test]
    fn a_clock_that_jumps_forward_or_a_suspended_machine_does_not_settle() {
        let setup = Setup::new(true);
        assert_eq!(
            [(120, 0), (121, 1), (600, 5), (620, 15)].map(|(wall, own)| setup.left(0, wall, own)),
            [15, 14, 10, 0]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_settles_by_no_time() {
        let setup = Setup::new(true);
        let now = Clocks::at(setup.start.wall() - SPAN, setup.start.monotonic() + SPAN);
        let sight = Sight { generation: None, first: setup.start, is_lasting: true };
        assert_eq!(left(Some(sight), setup.start.wall(), SPAN, SKEW, now), SPAN);
    }
}
