//! How often keys are rotated, and how long each wait is.

use std::time::Duration;

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

/// How long after staging a refusal of the new key means "not yet": 2 minutes. How long an issuer takes to know a key that
/// was just created is not documented.
///
/// ```
/// assert_eq!(keysheath::rotation::DEFAULT_ACTIVATION.as_secs(), 120);
/// ```
pub const DEFAULT_ACTIVATION: Duration = MINUTE.saturating_mul(2);

/// How often keys are rotated, and how long each wait is.
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
        }
    }

    /// What new keys are called in the issuer's app; year and month are put after it. "production" unless set. What is
    /// not printable is taken out. It must not be secret.
    ///
    /// ```
    /// # use keysheath::rotation::RotationPolicy;
    /// let policy = RotationPolicy::new().with_key_name("production-shop"); // production-shop-2026-11
    /// ```
    #[must_use]
    pub fn with_key_name(mut self, name: impl Into<String>) -> Self {
        self.key_name = name.into();
        self.key_name.retain(crate::keyset::is_printable);
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
        self.max_age = age;
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
        self.warning = warning;
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
        self.grace = grace;
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
        self.settle = settle;
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
        self.activation = activation;
        self
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
    /// assert_eq!(RotationPolicy::new().with_settle(Duration::ZERO).settle(), DEFAULT_GRACE);
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
