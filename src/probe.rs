//! Asks an issuer whether a key works.
//!
//! A [`Probe`] sends one request for each place that a key serves, and returns a [`Report`]: the outcome for
//! each place, and one [`Verdict`] over all of them. Only the issuer's own answer refuses a key; everything
//! else, no answer included, is inconclusive.
//!
//! | probe (feature `probe`) | sends | basis |
//! |---|---|---|
//! | `HttpProbe::by_customer_upsert` | Kanal's documented check; it **writes a customer** | documented |
//! | `HttpProbe::by_invalid_customer` | the same with an invalid customer; should write nothing | inferred |
//! | `HttpProbe::by_product_list` | `GET /v1/products?limit=1`; writes nothing | an ordinary read |
//!
//! # A probe blocks
//! It returns when the answers have arrived, or at its deadline for each request. In async code, call it with
//! your runtime's `spawn_blocking`.

#[cfg(feature = "probe")]
mod http;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::failure::{Answer, Meaning, Obstacle};
use crate::key::{RawKey, StoreId};

#[cfg(feature = "probe")]
pub use self::http::HttpProbe;

/// Tells whether a key works. Implement it for a custom issuer.
///
/// ```
/// use keysheath::failure::{Answer, Meaning, Obstacle};
/// use keysheath::key::RawKey;
/// use keysheath::probe::{Finding, Probe, Report};
///
/// struct Acme;
///
/// impl Probe for Acme {
///     fn probe(&self, key: &RawKey) -> Report {
///         let (key, asked) = (key.profile().name(), "acme");
///         Report::new(Finding::new(if key == asked {
///             Ok(Answer::new(204, Meaning::Accepted)) // ask the server here
///         } else {
///             Err(Obstacle::OtherIssuer { key, asked })
///         }))
///     }
/// }
/// let probes: Vec<Box<dyn Probe>> = vec![Box::new(Acme)];
/// ```
pub trait Probe: Send + Sync {
    /// Asks the issuer about a key. Blocks for a bounded time.
    ///
    /// Must not send a key of another issuer: that is [`Obstacle::OtherIssuer`]. Must report
    /// [`Verdict::KeyRefused`] only if the issuer itself said so.
    fn probe(&self, key: &RawKey) -> Report;
}

impl<P: Probe + ?Sized> Probe for &P {
    fn probe(&self, key: &RawKey) -> Report {
        (**self).probe(key)
    }
}

impl<P: Probe + ?Sized> Probe for Box<P> {
    fn probe(&self, key: &RawKey) -> Report {
        (**self).probe(key)
    }
}

impl<P: Probe + ?Sized> Probe for Arc<P> {
    fn probe(&self, key: &RawKey) -> Report {
        (**self).probe(key)
    }
}

/// The outcome of a probe. There are no other verdicts than these four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The issuer accepted the key at every place.
    Accepted,
    /// The issuer itself said that the key is unknown or deleted.
    KeyRefused,
    /// The issuer refused the store (403, 404); the key may be good.
    StoreRefused,
    /// The probe learned nothing about the key: keep it, and probe again later.
    Inconclusive,
}

/// The outcome of a probe: for each place, and over all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

/// What one place answered, or why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    store: Option<StoreId>,
    outcome: Result<Answer, Obstacle>,
}

impl From<Meaning> for Verdict {
    /// "Key is missing" is inconclusive: a probe sends a key, so something between removed it.
    fn from(meaning: Meaning) -> Self {
        match meaning {
            Meaning::KeyRefused => Self::KeyRefused,
            Meaning::StoreForbidden | Meaning::StoreNotFound => Self::StoreRefused,
            _ if meaning.accepts_key() => Self::Accepted,
            _ => Self::Inconclusive,
        }
    }
}

impl Verdict {
    /// The verdict with the highest rank decides over all places.
    const fn rank(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Inconclusive => 1,
            Self::StoreRefused => 2,
            Self::KeyRefused => 3,
        }
    }
}

impl Report {
    /// Creates a report of one place.
    #[must_use]
    pub fn new(finding: Finding) -> Self {
        Self { findings: vec![finding] }
    }

    /// Adds the outcome for one more place.
    #[must_use]
    pub fn with_finding(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }

    /// Returns one verdict over all places: the first of these that applies.
    ///
    /// 1. `KeyRefused`, if one place refused the key: no store of the issuer accepts a deleted key.
    /// 2. `StoreRefused`, if one place refused the store. It precedes `Inconclusive`, because a later answer
    ///    of the other places cannot make this `Accepted`: the key does not serve all stores until a
    ///    person changes that.
    /// 3. `Inconclusive`, if one place was: probe again later.
    /// 4. `Accepted`, if every place accepted the key.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(Finding::verdict);
        verdicts.max_by_key(|verdict| verdict.rank()).unwrap_or(Verdict::Inconclusive)
    }

    /// Returns the outcome for each place, in the order of the requests; at least one.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the longest wait that a place asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.findings.iter().filter_map(|finding| finding.outcome.ok()?.retry_after()).max()
    }
}

impl Finding {
    /// Creates a finding from an answer, or from the reason why there was none.
    #[must_use]
    pub const fn new(outcome: Result<Answer, Obstacle>) -> Self {
        Self { store: None, outcome }
    }

    /// Sets the store that the request named.
    #[must_use]
    pub const fn with_store(mut self, store: StoreId) -> Self {
        self.store = Some(store);
        self
    }

    /// Returns the store that the request named, if the issuer has stores.
    #[must_use]
    pub const fn store(&self) -> Option<StoreId> {
        self.store
    }

    /// Returns the answer, which says what it means and what to do next.
    ///
    /// # Errors
    /// [`Obstacle`] if there was no answer; it says why, and what to do next.
    pub const fn outcome(&self) -> Result<Answer, Obstacle> {
        self.outcome
    }

    /// Returns the verdict of this place alone.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.outcome.map_or(Verdict::Inconclusive, |answer| answer.meaning().into())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::KeyRefused => "key refused",
            Self::StoreRefused => "store refused",
            Self::Inconclusive => "inconclusive",
        })
    }
}

impl fmt::Display for Report {
    /// Writes the verdict, and a line for each place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict())?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(store) = self.store {
            write!(f, "store {store}: ")?;
        }
        match &self.outcome {
            // The answer that a probe with an invalid body expects: there is nothing to correct.
            Ok(answer) if answer.meaning() == Meaning::RequestInvalid => {
                write!(f, "{}: the key and the store were accepted; the content was not", answer.status())
            }
            Ok(answer) => write!(f, "{answer}"),
            Err(obstacle) => write!(f, "{obstacle}"),
        }
    }
}
