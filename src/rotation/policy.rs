//! How often keys are rotated, how long each wait is, and how much of it remains.
//!
//! Other processes may still use a key that was replaced, so the waits are measured by two clocks. The time
//! of a promotion is written by the clock of the process that promoted. A process that keeps running measures
//! the time since it first saw the promotion, by both of its clocks. A process that starts later has only the
//! written time, and adds the bound on the difference of two machines' clocks. If a process sees its own wall
//! clock jump, only its own measurement counts.

use std::time::{Duration, SystemTime};

use crate::handle::Generation;
use crate::internal::time::Clocks;
use crate::keyset::{KeyInfo, LONGEST_WAIT};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The longest part of a key's name that is configured; a month and a number follow it.
const MAX_KEY_NAME: usize = 36;

/// How often keys are rotated, and how long each wait is. A duration of more than 100 years counts as 100
/// years.
///
/// ```
/// use std::time::Duration;
/// use keysheath::rotation::RotationPolicy;
///
/// let policy = RotationPolicy::new()
///     .with_key_name("production-shop")
///     .with_max_age(Duration::from_secs(30 * 86_400))
///     .with_warning(Duration::from_secs(7 * 86_400));
/// assert_eq!(policy.max_age().as_secs(), 2_592_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    key_name: String,
    max_age: Duration,
    warning: Duration,
    grace: Duration,
    settle: Duration,
    activation: Duration,
    clock_skew: Duration,
}

/// A duration that every clock can add to the current time.
const fn bounded(span: Duration) -> Duration {
    if span.as_secs() < LONGEST_WAIT.as_secs() { span } else { LONGEST_WAIT }
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl RotationPolicy {
    /// Creates a policy with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            key_name: "production".to_owned(),
            max_age: 90 * DAY,
            warning: 14 * DAY,
            grace: 10 * MINUTE,
            settle: 15 * MINUTE,
            activation: 2 * MINUTE,
            clock_skew: 30 * MINUTE,
        }
    }

    /// Sets the name of new keys in the issuer's app; "production" by default.
    ///
    /// The month and the number of the rotation follow it, so that no name is suggested twice. Characters
    /// that are not printable are removed, and the name is cut to 36 characters. It must not be secret.
    #[must_use]
    pub fn with_key_name(mut self, name: impl Into<String>) -> Self {
        self.key_name = name.into();
        self.key_name.retain(crate::keyset::is_printable);
        if let Some((end, _)) = self.key_name.char_indices().nth(MAX_KEY_NAME) {
            self.key_name.truncate(end);
        }
        self
    }

    /// Sets the largest age of a key, counted from its staging; 90 days by default. Neither issuer documents
    /// an interval (Katana's advice is "regularly"). A quarter is short enough that people remember how to
    /// rotate, and long enough that they do it with care.
    #[must_use]
    pub const fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = bounded(age);
        self
    }

    /// Sets how long before the largest age the next rotation is announced; 14 days by default, so that no
    /// single holiday hides it.
    #[must_use]
    pub const fn with_warning(mut self, warning: Duration) -> Self {
        self.warning = bounded(warning);
        self
    }

    /// Sets the grace: how long after a promotion the client layers may retry a refused request with the
    /// previous key; 10 minutes by default.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = bounded(grace);
        self
    }

    /// Sets the settle time: how long after a promotion the previous key must not be deleted; 15 minutes by
    /// default, and never shorter than the grace. It is for processes that this one cannot see: each must
    /// have taken up the new key by then, and finished its last request with the old one.
    #[must_use]
    pub const fn with_settle(mut self, settle: Duration) -> Self {
        self.settle = bounded(settle);
        self
    }

    /// Sets how long after staging a refusal of a key that was never accepted means "not yet"; 2 minutes by
    /// default. No key is deleted in favour of a younger one. How long an issuer takes to know a new key is
    /// not documented.
    #[must_use]
    pub const fn with_activation(mut self, activation: Duration) -> Self {
        self.activation = bounded(activation);
        self
    }

    /// Sets the bound on how much the wall clocks of two machines differ; 30 minutes by default. A minute is
    /// enough if all of them use NTP. A process that has not seen a promotion for the whole settle time, such
    /// as a command that runs for a second, knows its time only by the clock of the process that promoted,
    /// and waits for so much longer.
    #[must_use]
    pub const fn with_clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = bounded(skew);
        self
    }

    /// Returns the bound on how much the wall clocks of two machines differ.
    #[must_use]
    pub const fn clock_skew(&self) -> Duration {
        self.clock_skew
    }

    /// Returns the name of new keys, without year and month.
    #[must_use]
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// Returns the largest age of a key.
    #[must_use]
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Returns how long before the largest age the next rotation is announced.
    #[must_use]
    pub const fn warning(&self) -> Duration {
        self.warning
    }

    /// Returns how long a refused request may be retried with the previous key.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// Returns the settle time: what was set, and at least the grace.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle.max(self.grace)
    }

    /// Returns how long after staging a refusal of the new key means "not yet".
    #[must_use]
    pub const fn activation(&self) -> Duration {
        self.activation
    }
}

/// How old a key is, and whether that is too old.
pub(super) struct Age {
    pub(super) since_staging: Duration,
    pub(super) due: Option<SystemTime>,
    pub(super) is_due_soon: bool,
    pub(super) is_overdue: bool,
}

impl Age {
    /// If the clock was set back since the key was staged, the age is zero, and the key is not due.
    pub(super) fn of(current: &KeyInfo, policy: &RotationPolicy, now: SystemTime) -> Self {
        let age = now.duration_since(current.staged()).ok();
        let is_older = |than| age.is_some_and(|age| age >= than);
        let is_overdue = is_older(policy.max_age());
        Self {
            since_staging: age.unwrap_or_default(),
            due: current.staged().checked_add(policy.max_age()),
            is_due_soon: !is_overdue && is_older(policy.max_age().saturating_sub(policy.warning())),
            is_overdue,
        }
    }
}

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
    /// Returns the rest of `span` since a time that is written, and that is before the active generation.
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

    /// Returns the rest of the time for which the key that another one replaced must be kept.
    pub(super) fn settle(
        current: &KeyInfo,
        sight: Option<Sight>,
        policy: &RotationPolicy,
        now: Clocks,
    ) -> Self {
        let promoted = current.promoted().unwrap_or_else(|| current.staged());
        Self::since(promoted, policy.settle(), sight, policy, now)
    }

    /// Returns the rest of the time in which an issuer may not know the active key yet.
    pub(super) fn activation(
        current: &KeyInfo,
        sight: Option<Sight>,
        policy: &RotationPolicy,
        now: Clocks,
    ) -> Self {
        Self::since(current.staged(), policy.activation(), sight, policy, now)
    }
}

/// Returns the rest by the written time alone.
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

        /// Returns the rest in minutes, for a promotion so long before the first look, and so long after it
        /// by each clock.
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
