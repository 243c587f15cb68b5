//! How often keys are rotated, and how long each wait is.

use std::time::Duration;

use crate::keyset::LONGEST_WAIT;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The largest age of a key: 90 days. Neither issuer documents an interval (Katana's advice is "regularly").
/// A quarter is short enough that people remember how to rotate, and long enough that they do it with care.
pub const DEFAULT_MAX_AGE: Duration = DAY.saturating_mul(90);

/// How long before the largest age the next rotation is announced: 14 days, so that no single holiday hides
/// it.
pub const DEFAULT_WARNING: Duration = DAY.saturating_mul(14);

/// How long a refused request may be retried with the previous key: 10 minutes.
pub const DEFAULT_GRACE: Duration = MINUTE.saturating_mul(10);

/// How long after a promotion the previous key must not be deleted: 15 minutes. It is for processes that this
/// one cannot see: each must have taken up the new key by then, and finished its last request with the old
/// one.
pub const DEFAULT_SETTLE: Duration = MINUTE.saturating_mul(15);

/// How long after staging a refusal of a key that was never accepted means "not yet": 2 minutes. No key is
/// deleted in favour of a younger one. How long an issuer takes to know a new key is not documented.
pub const DEFAULT_ACTIVATION: Duration = MINUTE.saturating_mul(2);

/// How much the wall clocks of two machines may differ: 30 minutes. A process that has not seen a promotion
/// for the whole settle time, such as a command that runs for a second, knows its time only by the clock of
/// the process that promoted, and waits for so much longer.
pub const DEFAULT_CLOCK_SKEW: Duration = MINUTE.saturating_mul(30);

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
    /// Creates a policy with the defaults, each a constant of this module.
    #[must_use]
    pub fn new() -> Self {
        Self {
            key_name: "production".to_owned(),
            max_age: DEFAULT_MAX_AGE,
            warning: DEFAULT_WARNING,
            grace: DEFAULT_GRACE,
            settle: DEFAULT_SETTLE,
            activation: DEFAULT_ACTIVATION,
            clock_skew: DEFAULT_CLOCK_SKEW,
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

    /// Sets the largest age of a key, counted from its staging.
    #[must_use]
    pub const fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = bounded(age);
        self
    }

    /// Sets how long before the largest age the next rotation is announced.
    #[must_use]
    pub const fn with_warning(mut self, warning: Duration) -> Self {
        self.warning = bounded(warning);
        self
    }

    /// Sets the grace: how long after a promotion the client layers may retry a refused request with the
    /// previous key.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = bounded(grace);
        self
    }

    /// Sets the settle time: longer than any process takes to see the new key, and than its longest request.
    /// It is never shorter than the grace.
    #[must_use]
    pub const fn with_settle(mut self, settle: Duration) -> Self {
        self.settle = bounded(settle);
        self
    }

    /// Sets how long after staging a refusal of the new key means "not yet".
    #[must_use]
    pub const fn with_activation(mut self, activation: Duration) -> Self {
        self.activation = bounded(activation);
        self
    }

    /// Sets the bound on how much the wall clocks of two machines differ. A minute is enough if all of them
    /// use NTP.
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
