//! How often keys are rotated, and how long each wait is.

use std::time::Duration;

use crate::keyset::LONGEST_WAIT;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The oldest that a key should become: 90 days. Neither issuer documents an interval (Katana's advice is "regularly"). A
/// quarter is often enough that people still know how it is done, and seldom enough that they do it with care.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_MAX_AGE.as_secs(), 90 * 86_400);
/// ```
pub const DEFAULT_MAX_AGE: Duration = DAY.saturating_mul(90);

/// How long before that the next rotation is announced: 14 days, so that no single holiday hides it.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_WARNING.as_secs(), 14 * 86_400);
/// ```
pub const DEFAULT_WARNING: Duration = DAY.saturating_mul(14);

/// How long a request that is refused may be repeated with the previous key: 10 minutes.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_GRACE.as_secs(), 600);
/// ```
pub const DEFAULT_GRACE: Duration = MINUTE.saturating_mul(10);

/// How long after a promotion nobody is asked to delete the previous key: 15 minutes. It is for the processes that this one
/// cannot see: each must have taken the new key up by then, and sent its last request with the old one.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_SETTLE.as_secs(), 900);
/// ```
pub const DEFAULT_SETTLE: Duration = MINUTE.saturating_mul(15);

/// How long after staging a refusal of a key that was never accepted means "not yet": 2 minutes. No key is deleted in favour
/// of one that is younger. How long an issuer takes to know a key that
/// was just created is not documented.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_ACTIVATION.as_secs(), 120);
/// ```
pub const DEFAULT_ACTIVATION: Duration = MINUTE.saturating_mul(2);

/// By how much the wall clocks of two machines may differ: 30 minutes. A process that has not seen a promotion for as long as
/// the settle time itself, such as a command that runs for a second, knows its time only by the clock of whoever
/// promoted: it waits for so much longer.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_CLOCK_SKEW.as_secs(), 30 * 60);
/// ```
pub const DEFAULT_CLOCK_SKEW: Duration = MINUTE.saturating_mul(30);

/// The longest part of a key's name that is set; a month and a number follow it.
const MAX_KEY_NAME: usize = 36;

/// How often keys are rotated, and how long each wait is. A span of more than 100 years counts as 100 years.
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
#[derive(Clone, Debug)]
pub struct RotationPolicy {
    key_name: String,
    max_age: Duration,
    warning: Duration,
    grace: Duration,
    settle: Duration,
    activation: Duration,
    clock_skew: Duration,
}

/// A span that every clock can add to the time of now.
const fn bounded(span: Duration) -> Duration {
    if span.as_secs() < LONGEST_WAIT.as_secs() { span } else { LONGEST_WAIT }
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl RotationPolicy {
    /// The defaults, each a constant of this module.
    ///
    /// ```
    /// # use keysheath::rotation::{DEFAULT_GRACE, RotationPolicy};
    /// assert_eq!(RotationPolicy::new().grace(), DEFAULT_GRACE);
    /// ```
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

    /// What new keys are called in the issuer's app; the month and the number of the rotation follow, so that no name is
    /// suggested twice. "production" unless set. What is not printable is taken out, and what is longer than 36 characters is
    /// cut. It must not be secret.
    ///
    /// ```
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_key_name("production-shop"); // production-shop-2026-11-r2
    /// ```
    #[must_use]
    pub fn with_key_name(mut self, name: impl Into<String>) -> Self {
        self.key_name = name.into();
        self.key_name.retain(crate::keyset::is_printable);
        if let Some((end, _)) = self.key_name.char_indices().nth(MAX_KEY_NAME) {
            self.key_name.truncate(end);
        }
        self
    }

    /// With another largest age.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_max_age(Duration::from_secs(365 * 86_400));
    /// ```
    #[must_use]
    pub const fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = bounded(age);
        self
    }

    /// With another time for the warning before the largest age.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_warning(Duration::from_secs(30 * 86_400));
    /// ```
    #[must_use]
    pub const fn with_warning(mut self, warning: Duration) -> Self {
        self.warning = bounded(warning);
        self
    }

    /// With another grace: how long after a promotion the client layers may repeat a refused request with the previous key.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_grace(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = bounded(grace);
        self
    }

    /// With another settle time: longer than any process takes to see the new key, and than its longest request. It is
    /// never taken as shorter than the grace.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_grace(Duration::ZERO).with_settle(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub const fn with_settle(mut self, settle: Duration) -> Self {
        self.settle = bounded(settle);
        self
    }

    /// With another time after staging in which a refusal of the new key means "not yet".
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_activation(Duration::from_secs(600));
    /// ```
    #[must_use]
    pub const fn with_activation(mut self, activation: Duration) -> Self {
        self.activation = bounded(activation);
        self
    }

    /// With another bound on how much the wall clocks of two machines may differ. Where all machines keep their clocks by
    /// NTP, a minute is enough.
    #[must_use]
    pub const fn with_clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = bounded(skew);
        self
    }

    /// By how much the wall clocks of two machines may differ.
    #[must_use]
    pub const fn clock_skew(&self) -> Duration {
        self.clock_skew
    }

    /// What new keys are called, without year and month.
    ///
    /// ```
    /// # use keysheath::rotation::RotationPolicy;
    /// assert_eq!(RotationPolicy::new().key_name(), "production");
    /// ```
    #[must_use]
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The oldest that a key should become, counted from its staging.
    ///
    /// ```
    /// # use keysheath::rotation::{DEFAULT_MAX_AGE, RotationPolicy};
    /// assert_eq!(RotationPolicy::new().max_age(), DEFAULT_MAX_AGE);
    /// ```
    #[must_use]
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }

    /// How long before the largest age the next rotation is announced.
    ///
    /// ```
    /// # use keysheath::rotation::{DEFAULT_WARNING, RotationPolicy};
    /// assert_eq!(RotationPolicy::new().warning(), DEFAULT_WARNING);
    /// ```
    #[must_use]
    pub const fn warning(&self) -> Duration {
        self.warning
    }

    /// How long the previous key may be sent for a request that was refused.
    ///
    /// ```
    /// # use keysheath::rotation::{DEFAULT_GRACE, RotationPolicy};
    /// assert_eq!(RotationPolicy::new().grace(), DEFAULT_GRACE);
    /// ```
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// How long after a promotion nobody is asked to delete the previous key: what was set, and at least the grace.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::rotation::{DEFAULT_GRACE, RotationPolicy};
    /// assert_eq!(RotationPolicy::new().with_settle(Duration::ZERO).with_activation(Duration::ZERO).settle(), DEFAULT_GRACE);
    /// ```
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle.max(self.grace)
    }

    /// How long after staging a refusal of the new key means "not yet".
    ///
    /// ```
    /// # use keysheath::rotation::{DEFAULT_ACTIVATION, RotationPolicy};
    /// assert_eq!(RotationPolicy::new().activation(), DEFAULT_ACTIVATION);
    /// ```
    #[must_use]
    pub const fn activation(&self) -> Duration {
        self.activation
    }
}
