//! Faults, and the rules that say when they happen.

use std::fmt;
use std::time::Duration;

use super::seeded::Seeded;
use crate::key::StoreId;
use crate::registry::KeyId;

/// How many fault rules there can be.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_FAULTS, 1_000);
/// ```
pub const MAX_FAULTS: usize = 1_000;

/// The longest latency.
///
/// ```
/// assert_eq!(keysheath::emulator::MAX_LATENCY.as_secs(), 600);
/// ```
pub const MAX_LATENCY: Duration = Duration::from_secs(600);

/// What goes wrong with an answer.
///
/// ```
/// use std::time::Duration;
/// use keysheath::emulator::Fault;
///
/// let overloaded = Fault::status(503).with_retry_after(2);
/// let proxy = Fault::status(401).with_body("<html>Please sign in</html>");
/// let slow = Fault::Latency(Duration::from_millis(200));
/// # let _ = (overloaded, proxy, slow);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This status in place of the answer; the request is not looked at, whatever key it has.
    #[non_exhaustive]
    Status {
        /// 200 to 599.
        status: u16,
        /// The value of `Retry-After`, in seconds.
        retry_after: Option<u32>,
        /// The body. Without one, a 429 has the body that the issuer documents, and any other status none.
        body: Option<String>,
    },
    /// The request is looked at only after this time. Other requests are not held up.
    Latency(Duration),
    /// The connection is reset (TCP RST) without an answer, once the request has arrived. It has no effect.
    Reset,
    /// Half of the body is sent under a `Content-Length` for the whole of it, and the connection is closed. The request
    /// is looked at, and has its effect. An answer to `HEAD`, which has no body, is sent as it is.
    TruncatedBody,
}

impl Fault {
    /// This status in place of the answer.
    ///
    /// ```
    /// # use keysheath::emulator::Fault;
    /// let unavailable = Fault::status(503);
    /// ```
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None, body: None }
    }

    /// With `Retry-After`, in seconds. Only a status has one.
    ///
    /// ```
    /// # use keysheath::emulator::Fault;
    /// let busy = Fault::status(429).with_retry_after(7);
    /// ```
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        match self {
            Self::Status { status, body, .. } => Self::Status { status, retry_after: Some(seconds), body },
            other => other,
        }
    }

    /// With a body. Only a status has one.
    ///
    /// ```
    /// # use keysheath::emulator::Fault;
    /// let gateway = Fault::status(502).with_body("<html>Bad gateway</html>");
    /// ```
    #[must_use]
    pub fn with_body(self, text: impl Into<String>) -> Self {
        match self {
            Self::Status { status, retry_after, .. } => {
                Self::Status { status, retry_after, body: Some(text.into()) }
            }
            other => other,
        }
    }
}

/// When a fault happens. Rules are asked in the order in which they were added, and the first that matches a request and
/// is due is applied, alone.
///
/// ```
/// use keysheath::emulator::{Emulator, Fault, FaultRule, OWN_STORE};
///
/// let emulator = Emulator::kanal().with_seed(7).start()?;
/// let id = emulator.key_id();
/// emulator.add_fault(FaultRule::new(Fault::Reset).for_key(id).nth(3))?;
/// emulator.add_fault(FaultRule::new(Fault::status(503)).for_store(OWN_STORE).times(2))?;
/// emulator.add_fault(
///     FaultRule::new(Fault::TruncatedBody)
///         .for_route("/api/v1/stores/{store_id}/orders")
///         .with_probability(0.1),
/// )?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    pub(super) fault: Fault,
    pub(super) key: Option<KeyId>,
    pub(super) store: Option<StoreId>,
    pub(super) route: Option<String>,
    pub(super) first: u64,
    pub(super) times: Option<u64>,
    pub(super) probability: Option<f64>,
}

impl FaultRule {
    /// For every request, until it is narrowed.
    ///
    /// ```
    /// # use keysheath::emulator::{Fault, FaultRule};
    /// let rule = FaultRule::new(Fault::Reset);
    /// ```
    #[must_use]
    pub const fn new(fault: Fault) -> Self {
        Self { fault, key: None, store: None, route: None, first: 1, times: None, probability: None }
    }

    /// For requests with this key alone.
    ///
    /// ```
    /// # use keysheath::emulator::{Emulator, Fault, FaultRule};
    /// # let emulator = Emulator::start()?;
    /// let rule = FaultRule::new(Fault::Reset).for_key(emulator.key_id());
    /// # Ok::<(), keysheath::emulator::EmulatorError>(())
    /// ```
    #[must_use]
    pub const fn for_key(mut self, key: KeyId) -> Self {
        self.key = Some(key);
        self
    }

    /// For requests whose path names this store alone.
    ///
    /// ```
    /// # use keysheath::emulator::{Fault, FaultRule, OWN_STORE};
    /// let rule = FaultRule::new(Fault::Reset).for_store(OWN_STORE);
    /// ```
    #[must_use]
    pub const fn for_store(mut self, store: StoreId) -> Self {
        self.store = Some(store);
        self
    }

    /// For requests with this path alone. A segment in braces stands for any one segment, and `/*` at the end for
    /// anything below.
    ///
    /// ```
    /// # use keysheath::emulator::{Fault, FaultRule};
    /// let customers = FaultRule::new(Fault::Reset).for_route("/api/v1/stores/{store_id}/customers");
    /// let all = FaultRule::new(Fault::Reset).for_route("/api/v1/*");
    /// ```
    #[must_use]
    pub fn for_route(mut self, route: impl Into<String>) -> Self {
        self.route = Some(route.into());
        self
    }

    /// From the `n`-th request on that reaches the rule, counted from 1; once, unless [`FaultRule::times`] follows.
    ///
    /// ```
    /// # use keysheath::emulator::{Fault, FaultRule};
    /// let the_third = FaultRule::new(Fault::Reset).nth(3);
    /// let the_third_and_fourth = FaultRule::new(Fault::Reset).nth(3).times(2);
    /// ```
    #[must_use]
    pub const fn nth(mut self, n: u64) -> Self {
        self.first = n;
        self.times = Some(1);
        self
    }

    /// This many times, and then never again.
    ///
    /// ```
    /// # use keysheath::emulator::{Fault, FaultRule};
    /// let twice = FaultRule::new(Fault::status(503)).times(2);
    /// ```
    #[must_use]
    pub const fn times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// With this probability, from 0 to 1. With a seed, the same requests in the same order meet the same faults.
    ///
    /// ```
    /// # use keysheath::emulator::{Fault, FaultRule};
    /// let one_in_ten = FaultRule::new(Fault::status(503)).with_probability(0.1);
    /// ```
    #[must_use]
    pub const fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    fn check(&self) -> Result<(), FaultError> {
        match self.fault {
            Fault::Status { status, .. } if !(200..=599).contains(&status) => return Err(FaultError::Status),
            Fault::Latency(time) if time > MAX_LATENCY => return Err(FaultError::Latency),
            _ => {}
        }
        if self.probability.is_some_and(|probability| !(0.0..=1.0).contains(&probability)) {
            return Err(FaultError::Probability);
        }
        if self.first == 0 {
            return Err(FaultError::Nth);
        }
        if self.route.as_ref().is_some_and(|route| !route.starts_with('/')) {
            return Err(FaultError::Route);
        }
        Ok(())
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let fits = |wanted: Option<_>, found| wanted.is_none_or(|wanted| Some(wanted) == found);
        fits(self.key, asked.key)
            && self.store.is_none_or(|store| Some(store) == asked.store)
            && self.route.as_ref().is_none_or(|route| is_on_route(route, asked.path))
    }
}

/// A rule that cannot be.
///
/// ```
/// use keysheath::emulator::{Emulator, Fault, FaultError, FaultRule};
///
/// let emulator = Emulator::start()?;
/// let error = emulator.add_fault(FaultRule::new(Fault::status(99))).unwrap_err();
/// assert_eq!(error, FaultError::Status);
/// # Ok::<(), keysheath::emulator::EmulatorError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// The status is not a final one.
    #[error("a fault's status is from 200 to 599")]
    Status,
    /// The latency is too long.
    #[error("a fault's latency is at most 600 seconds")]
    Latency,
    /// The probability is none.
    #[error("a fault's probability is from 0 to 1")]
    Probability,
    /// There is no request before the first.
    #[error("requests are counted from 1: there is no 0th")]
    Nth,
    /// The route is no path.
    #[error("a fault's route is a path, such as /api/v1/stores/{{store_id}}/customers or /api/v1/*")]
    Route,
    /// There are too many.
    #[error("there are 1,000 fault rules already: clear them")]
    Full,
}

/// A rule's number, which the journal names.
///
/// ```
/// # use keysheath::emulator::{Emulator, Fault, FaultRule};
/// # let emulator = Emulator::start()?;
/// let id = emulator.add_fault(FaultRule::new(Fault::Reset))?;
/// assert_eq!(id.to_string(), "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub(super) u64);

impl fmt::Display for FaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a request is matched by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) key: Option<KeyId>,
    pub(super) store: Option<StoreId>,
    pub(super) path: &'a str,
}

/// The rules in order, and how far each has come.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<Counted>,
    added: u64,
    seed: u64,
    random: Seeded,
}

#[derive(Debug)]
struct Counted {
    id: FaultId,
    rule: FaultRule,
    seen: u64,
    applied: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { rules: Vec::new(), added: 0, seed, random: Seeded::new(seed, 2) }
    }

    pub(super) fn add(&mut self, rule: FaultRule) -> Result<FaultId, FaultError> {
        rule.check()?;
        if self.rules.len() == MAX_FAULTS {
            return Err(FaultError::Full);
        }
        self.added += 1;
        let id = FaultId(self.added);
        self.rules.push(Counted { id, rule, seen: 0, applied: 0 });
        Ok(id)
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
        self.random = Seeded::new(self.seed, 2);
    }

    /// Each rule, and how often it was applied.
    pub(super) fn list(&self) -> Vec<(FaultId, FaultRule, u64)> {
        self.rules.iter().map(|counted| (counted.id, counted.rule.clone(), counted.applied)).collect()
    }

    /// The fault that this request meets.
    pub(super) fn meet(&mut self, asked: &Asked<'_>) -> Option<(FaultId, Fault)> {
        for counted in &mut self.rules {
            let rule = &counted.rule;
            if !rule.matches(asked) || rule.times.is_some_and(|times| counted.applied >= times) {
                continue;
            }
            counted.seen += 1;
            if counted.seen < rule.first {
                continue;
            }
            if rule.probability.is_some_and(|probability| self.random.fraction() >= probability) {
                continue;
            }
            counted.applied += 1;
            return Some((counted.id, rule.fault.clone()));
        }
        None
    }
}

fn is_on_route(route: &str, path: &str) -> bool {
    let mut path = path.split('/');
    for segment in route.split('/') {
        match (segment, path.next()) {
            ("*", found) => return found.is_some(),
            (_, Some(found)) if is_any(segment) || segment == found => {}
            _ => return false,
        }
    }
    path.next().is_none()
}

fn is_any(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_fits_whole_segments() {
        let customers = "/api/v1/stores/{store_id}/customers";
        assert!(is_on_route(customers, "/api/v1/stores/123/customers"));
        assert!(!is_on_route(customers, "/api/v1/stores/123/customers/7"));
        assert!(!is_on_route(customers, "/api/v1/stores/123"));
        assert!(is_on_route("/api/*", "/api/v1/stores/123"));
        assert!(!is_on_route("/api/*", "/apiary/v1"));
        assert!(!is_on_route("/api/*", "/api"));
    }

    #[test]
    fn only_requests_that_reach_a_rule_are_counted_by_it() {
        let mut faults = Faults::new(1);
        let asked = Asked { key: None, store: None, path: "/" };
        let first = faults.add(FaultRule::new(Fault::Reset).times(1)).unwrap();
        let second = faults.add(FaultRule::new(Fault::status(500)).nth(2).times(2)).unwrap();
        let met: Vec<_> = (0..5).map(|_| faults.meet(&asked).map(|(id, _)| id)).collect();
        assert_eq!(met, [Some(first), None, Some(second), Some(second), None]);
    }
}
