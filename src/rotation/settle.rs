//! How long other processes may still use a key, by two clocks.
//!
//! The time of a promotion is written by the clock of the process that promoted. A process that keeps running
//! measures the time since it first saw the promotion, by both of its clocks. A process that starts later has
//! only the written time, and adds the bound on the difference of two machines' clocks. If a process sees its
//! own wall clock jump, only its own measurement counts.

use std::time::{Duration, SystemTime};

use super::policy::RotationPolicy;
use crate::handle::Generation;
use crate::internal::clocks::Clocks;
use crate::keyset::KeyInfo;

/// How far the two clocks of this process may drift apart before its wall clock counts as changed, or the
/// machine as suspended.
const JUMP: Duration = Duration::from_secs(60);

/// Since when this process has seen a generation as the active one.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    generation: Option<Generation>,
    first: Clocks,
    /// Whether this process keeps running: it made the step itself, or has looked before.
    is_lasting: bool,
}

impl Sight {
    /// Notes that a generation is active. `is_own` says that this process made the step.
    pub(super) fn note(this: &mut Option<Self>, generation: Option<Generation>, now: Clocks, is_own: bool) {
        match this {
            Some(sight) if sight.generation == generation => sight.is_lasting = true,
            sight => *sight = Some(Self { generation, first: now, is_lasting: is_own }),
        }
    }
}

/// The rest of a wait.
#[derive(Clone, Copy, Default)]
pub(super) struct Remaining {
    /// For this process.
    pub(super) here: Duration,
    /// For a process that starts now.
    pub(super) newcomer: Duration,
}

impl Remaining {
    /// The rest of `span` since a time that is written, and that is before the active generation.
    pub(super) fn since(
        written: SystemTime,
        span: Duration,
        sight: Option<Sight>,
        policy: &RotationPolicy,
        now: Clocks,
    ) -> Self {
        let newcomer = by_written(written, span, policy.clock_skew(), now);
        Self { here: sight.map_or(newcomer, |sight| by_own(sight, newcomer, span, now)), newcomer }
    }

    /// The rest of the time for which the key that another one replaced must be kept.
    pub(super) fn settle(
        current: &KeyInfo,
        sight: Option<Sight>,
        policy: &RotationPolicy,
        now: Clocks,
    ) -> Self {
        let promoted = current.promoted().unwrap_or_else(|| current.staged());
        Self::since(promoted, policy.settle(), sight, policy, now)
    }

    /// The rest of the time in which an issuer may not know the active key yet.
    pub(super) fn activation(
        current: &KeyInfo,
        sight: Option<Sight>,
        policy: &RotationPolicy,
        now: Clocks,
    ) -> Self {
        Self::since(current.staged(), policy.activation(), sight, policy, now)
    }
}

/// The rest by the written time alone.
fn by_written(written: SystemTime, span: Duration, skew: Duration, now: Clocks) -> Duration {
    if span.is_zero() {
        return Duration::ZERO;
    }
    let whole = span.saturating_add(skew);
    match now.wall().duration_since(written) {
        Ok(since) => whole.saturating_sub(since),
        // By a clock that is behind it takes so much longer.
        Err(ahead) => whole.saturating_add(ahead.duration()),
    }
}

fn by_own(sight: Sight, by_written: Duration, span: Duration, now: Clocks) -> Duration {
    let Sight { first, is_lasting, .. } = sight;
    let by_own = span.saturating_sub(now.at_least_since(first));
    let has_jumped = now.at_most_since(first).saturating_sub(now.at_least_since(first)) > JUMP;
    if has_jumped || by_own.is_zero() {
        by_own
    } else if by_written.is_zero() || !is_lasting {
        by_written
    } else {
        by_own.min(by_written)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const SPAN: Duration = MINUTE.saturating_mul(15);
    const SKEW: Duration = MINUTE.saturating_mul(30);

    fn remaining(sight: Sight, written: SystemTime, now: Clocks) -> Duration {
        let policy = RotationPolicy::new().with_clock_skew(SKEW);
        Remaining::since(written, SPAN, Some(sight), &policy, now).here
    }

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

        /// The rest in minutes, for a promotion so long before the first look, and so long after it by each
        /// clock.
        fn remaining(&self, before: u32, wall: u32, monotonic: u32) -> u64 {
            let sight = Sight { generation: None, first: self.start, is_lasting: self.is_lasting };
            let now =
                Clocks::at(self.start.wall() + wall * MINUTE, self.start.monotonic() + monotonic * MINUTE);
            remaining(sight, self.start.wall() - before * MINUTE, now).as_secs() / 60
        }
    }

    #[test]
    fn a_process_that_promotes_waits_for_the_settle_time() {
        let setup = Setup::new(true);
        assert_eq!([0, 10, 15, 60].map(|minute| setup.remaining(0, minute, minute)), [15, 5, 0, 0]);
    }

    #[test]
    fn a_command_that_starts_later_adds_the_bound_on_clocks() {
        let setup = Setup::new(false);
        assert_eq!([0, 20, 44, 45, 24 * 60].map(|before| setup.remaining(before, 0, 0)), [45, 25, 1, 0, 0]);
    }

    #[test]
    fn a_promoter_whose_clock_is_behind_shortens_no_wait() {
        let setup = Setup::new(true);
        assert_eq!([0, 5, 15].map(|minute| setup.remaining(20, minute, minute)), [15, 10, 0]);
    }

    #[test]
    fn a_clock_jump_or_a_suspended_machine_does_not_settle() {
        let setup = Setup::new(true);
        assert_eq!(
            [(120, 0), (121, 1), (600, 5), (620, 15)].map(|(wall, own)| setup.remaining(0, wall, own)),
            [15, 14, 10, 0]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_settles_by_no_time() {
        let setup = Setup::new(true);
        let now = Clocks::at(setup.start.wall() - SPAN, setup.start.monotonic() + SPAN);
        let sight = Sight { generation: None, first: setup.start, is_lasting: true };
        assert_eq!(remaining(sight, setup.start.wall(), now), SPAN);
    }
}
