//! Faults, the rules that say when they happen, and the seeded numbers that both repeat.

use std::time::Duration;

use crate::key::StoreId;
use crate::registry::KeyId;

/// `SplitMix64`: fast, evenly distributed and predictable. NOT for keys that anything real accepts: an
/// emulator draws keys from it only when a test sets a seed.
#[derive(Clone, Debug)]
pub(super) struct Seeded(u64);

impl Seeded {
    /// Returns the numbers of this seed. Each `purpose` has a sequence of its own.
    pub(super) const fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to less than 1.
    pub(super) fn fraction(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(high) / 4_294_967_296.0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

/// The most fault rules at a time.
const MAX_FAULTS: usize = 1_000;

/// The longest latency.
const MAX_LATENCY: Duration = Duration::from_secs(600);

/// A failure of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This status instead of the answer. Neither the key nor the request is examined.
    #[non_exhaustive]
    Status {
        /// 200 to 599.
        status: u16,
        /// The value of `Retry-After`, in seconds.
        retry_after: Option<u32>,
        /// The body. Without one, a 429 has the body that the issuer documents, and any other status has
        /// none.
        body: Option<String>,
    },
    /// The request is examined after this time, at most 600 s. Other requests are not delayed.
    Latency(Duration),
    /// The connection is reset (TCP RST) without an answer, once the request has arrived. The request has no
    /// effect.
    Reset,
    /// Half of the body is sent under the `Content-Length` of the whole, and the connection is closed. The
    /// request has its effect. An answer to `HEAD`, which has no body, is sent as it is.
    TruncatedBody,
}

impl Fault {
    /// Returns a fault that sends this status instead of the answer.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None, body: None }
    }

    /// Sets `Retry-After`, in seconds. Has no effect on a fault without a status.
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        match self {
            Self::Status { status, body, .. } => Self::Status { status, retry_after: Some(seconds), body },
            other => other,
        }
    }

    /// Sets the body. Has no effect on a fault without a status.
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

/// A fault and the requests that it applies to. Rules are examined in the order in which they were added; the
/// first one that matches a request and is due is applied, and no other.
///
/// ```
/// use keysheath::emulator::{Emulator, Fault, FaultRule, OWN_STORE};
///
/// let emulator = Emulator::kanal().with_seed(7).start()?;
/// let id = emulator.key_id();
/// emulator.add_fault(FaultRule::new(Fault::Reset).with_key(id).with_start(3))?;
/// emulator.add_fault(FaultRule::new(Fault::status(503)).with_store(OWN_STORE).with_times(2))?;
/// emulator.add_fault(
///     FaultRule::new(Fault::TruncatedBody)
///         .with_route("/api/v1/stores/{store_id}/orders")
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
    pub(super) start: Option<u64>,
    pub(super) times: Option<u64>,
    pub(super) probability: Option<f64>,
}

impl FaultRule {
    /// Applies to every request, until it is narrowed.
    #[must_use]
    pub const fn new(fault: Fault) -> Self {
        Self { fault, key: None, store: None, route: None, start: None, times: None, probability: None }
    }

    /// Applies only to requests with this key.
    #[must_use]
    pub const fn with_key(mut self, key: KeyId) -> Self {
        self.key = Some(key);
        self
    }

    /// Applies only to requests whose path names this store.
    #[must_use]
    pub const fn with_store(mut self, store: StoreId) -> Self {
        self.store = Some(store);
        self
    }

    /// Applies only to requests with this path. A segment in braces matches any one segment, and `/*` at the
    /// end matches everything below.
    #[must_use]
    pub fn with_route(mut self, route: impl Into<String>) -> Self {
        self.route = Some(route.into());
        self
    }

    /// Applies from the `n`-th request that reaches the rule, counted from 1: once, unless
    /// [`FaultRule::with_times`] says how often.
    #[must_use]
    pub const fn with_start(mut self, n: u64) -> Self {
        self.start = Some(n);
        self
    }

    /// Applies this many times.
    #[must_use]
    pub const fn with_times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// Applies with this probability, from 0 to 1. With a seed, the same requests in the same order get the
    /// same faults.
    #[must_use]
    pub const fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// Returns the rule that is broken, if one is.
    fn broken(&self) -> Option<&'static str> {
        let is_part = |probability: f64| (0.0..=1.0).contains(&probability);
        match self.fault {
            Fault::Status { status, .. } if !(200..=599).contains(&status) => {
                Some("a fault's status is from 200 to 599")
            }
            Fault::Latency(time) if time > MAX_LATENCY => Some("a fault's latency is at most 600 seconds"),
            _ if !self.probability.is_none_or(is_part) => Some("a fault's probability is from 0 to 1"),
            _ if self.start == Some(0) => Some("a fault's nth is at least 1: requests are counted from 1"),
            _ if !self.route.as_ref().is_none_or(|route| route.starts_with('/')) => {
                Some("a fault's route is a path, such as /api/v1/stores/{store_id}/customers or /api/v1/*")
            }
            _ => None,
        }
    }

    fn matches(&self, target: &Target<'_>) -> bool {
        let fits = |wanted: Option<_>, found| wanted.is_none_or(|wanted| Some(wanted) == found);
        fits(self.key, target.key)
            && self.store.is_none_or(|store| Some(store) == target.store)
            && self.route.as_ref().is_none_or(|route| is_on_route(route, target.path))
    }
}

/// A fault rule of an emulator.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FaultStatus {
    /// The rule's number, from 1, which the journal names.
    pub number: u64,
    /// The rule.
    pub rule: FaultRule,
    /// How often the fault was applied.
    pub applied: u64,
}

/// The parts of a request that a rule matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) key: Option<KeyId>,
    pub(super) store: Option<StoreId>,
    pub(super) path: &'a str,
}

/// The rules in order.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<CountedRule>,
    added: u64,
    seed: u64,
    random: Seeded,
}

#[derive(Debug)]
struct CountedRule {
    status: FaultStatus,
    /// The requests that have reached the rule.
    seen: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { rules: Vec::new(), added: 0, seed, random: Seeded::new(seed, 2) }
    }

    /// Adds a rule and returns its number, or why it is refused.
    pub(super) fn add(&mut self, mut rule: FaultRule) -> Result<u64, &'static str> {
        if let Some(broken) = rule.broken() {
            return Err(broken);
        }
        if self.rules.len() == MAX_FAULTS {
            return Err("there are 1,000 fault rules already: clear them first");
        }
        rule.times = rule.times.or_else(|| rule.start.map(|_| 1));
        self.added += 1;
        let status = FaultStatus { number: self.added, rule, applied: 0 };
        self.rules.push(CountedRule { status, seen: 0 });
        Ok(self.added)
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
        self.random = Seeded::new(self.seed, 2);
    }

    pub(super) fn list(&self) -> Vec<FaultStatus> {
        self.rules.iter().map(|counted| counted.status.clone()).collect()
    }

    /// Returns the number of the rule that applies to this request, and its fault. Counts the request.
    pub(super) fn apply(&mut self, target: &Target<'_>) -> Option<(u64, Fault)> {
        for CountedRule { status, seen } in &mut self.rules {
            let rule = &status.rule;
            if !rule.matches(target) || rule.times.is_some_and(|times| status.applied >= times) {
                continue;
            }
            *seen += 1;
            if rule.start.is_some_and(|start| *seen < start) {
                continue;
            }
            if rule.probability.is_some_and(|probability| self.random.fraction() >= probability) {
                continue;
            }
            status.applied += 1;
            return Some((status.number, status.rule.fault.clone()));
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
    fn splitmix64_gives_the_numbers_it_is_published_with() {
        let mut numbers = Seeded::new(1_234_567, 0);
        let first = [numbers.next(), numbers.next(), numbers.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn half_of_the_fractions_lie_in_each_half_of_0_to_1() {
        let mut numbers = Seeded::new(7, 1);
        let low = (0..10_000).filter(|_| (0.0..0.5).contains(&numbers.fraction())).count();
        assert!((4_800..5_200).contains(&low), "{low}");
    }

    #[test]
    fn a_route_matches_whole_segments() {
        let customers = "/api/v1/stores/{store_id}/customers";
        assert!(is_on_route(customers, "/api/v1/stores/123/customers"));
        assert!(!is_on_route(customers, "/api/v1/stores/123/customers/7"));
        assert!(!is_on_route(customers, "/api/v1/stores/123"));
        assert!(is_on_route("/api/*", "/api/v1/stores/123"));
        assert!(!is_on_route("/api/*", "/apiary/v1"));
        assert!(!is_on_route("/api/*", "/api"));
    }

    #[test]
    fn a_rule_counts_only_the_requests_that_reach_it() {
        let mut faults = Faults::new(1);
        let target = Target { key: None, store: None, path: "/" };
        let first = faults.add(FaultRule::new(Fault::Reset).with_times(1)).unwrap();
        let second = faults.add(FaultRule::new(Fault::status(500)).with_start(2).with_times(2)).unwrap();
        let applied: Vec<_> = (0..5).map(|_| faults.apply(&target).map(|(number, _)| number)).collect();
        assert_eq!(applied, [Some(first), None, Some(second), Some(second), None]);
    }

    #[test]
    fn a_start_and_a_number_of_times_may_be_set_in_any_order() {
        let target = Target { key: None, store: None, path: "/" };
        let applied = |rule: FaultRule| {
            let mut faults = Faults::new(1);
            faults.add(rule).unwrap();
            let applied: Vec<_> = (0..5).map(|_| faults.apply(&target).is_some()).collect();
            (applied, faults.list()[0].rule.times)
        };
        let rule = || FaultRule::new(Fault::Reset);
        let three = (vec![false, true, true, true, false], Some(3));
        assert_eq!(applied(rule().with_start(2).with_times(3)), three);
        assert_eq!(applied(rule().with_times(3).with_start(2)), three);
        assert_eq!(applied(rule().with_start(2)), (vec![false, true, false, false, false], Some(1)));
        assert_eq!(applied(rule()), (vec![true; 5], None));
    }
}
