//! Asking an issuer whether a key works.
//!
//! A [`Probe`] sends one request for each place that a key serves, and gives a [`Report`]: what was answered, place
//! by place, and one [`Verdict`] over all of them. Only the issuer's own words refuse a key; whatever else comes, or
//! does not come, is inconclusive.
//!
//! | probe (feature `probe`) | sends | is |
//! |---|---|---|
//! | `KanalProbe::by_customer_upsert` | the request that Kanal documents for a check; it **writes a customer** | documented |
//! | `KanalProbe::by_invalid_customer` | the same with a body that no customer has, and takes 422 as accepted | inferred; it should write nothing |
//! | `KatanaProbe` | `GET /v1/products?limit=1` | an ordinary read; it writes nothing |
//!
//! # A probe blocks
//! It returns when the answers are there, or at its deadline for each request. In async code, ask through your
//! runtime's `spawn_blocking`.
//!
//! ```no_run
//! # #[cfg(feature = "probe")] {
//! use keysheath::key::{ApiKey, Kanal, StoreId};
//! use keysheath::probe::{KanalProbe, Probe, Verdict};
//!
//! let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
//! let report = KanalProbe::by_invalid_customer(StoreId::new(123).unwrap(), []).probe(key.as_raw());
//! match report.verdict() {
//!     Verdict::Accepted => println!("the key works"),
//!     Verdict::KeyRefused => println!("make a new key"),
//!     Verdict::StoreRefused | Verdict::Inconclusive => println!("keep the key, and read on:\n{report}"),
//! }
//! # }
//! ```

#[cfg(feature = "probe")]
mod asking;
#[cfg(feature = "probe")]
mod kanal;
#[cfg(feature = "probe")]
mod katana;

use std::fmt;
use std::time::Duration;

use crate::failure::{Answer, Meaning, Obstacle};
use crate::key::{RawKey, StoreId};

#[cfg(feature = "probe")]
pub use asking::{DEFAULT_DEADLINE, MAX_ANSWER, MAX_DEADLINE};
#[cfg(feature = "probe")]
pub use kanal::KanalProbe;
#[cfg(feature = "probe")]
pub use katana::KatanaProbe;

/// Tells whether a key works. Implement it for an issuer of your own.
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
    /// Asks the issuer about a key. Blocks, within bounds of the probe's own.
    ///
    /// A key of another issuer is not sent: that is [`Obstacle::OtherIssuer`]. A verdict of
    /// [`Verdict::KeyRefused`] needs the issuer's own words.
    fn probe(&self, key: &RawKey) -> Report;
}

/// What a probe found out about a key. There are these four and no others.
///
/// ```
/// use keysheath::{failure::Meaning, probe::Verdict};
/// assert_eq!(Verdict::of(Meaning::StoreForbidden), Verdict::StoreRefused);
/// assert_eq!(Verdict::of(Meaning::RateLimited), Verdict::Inconclusive);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The issuer accepted the key, everywhere that was asked.
    Accepted,
    /// The issuer itself said that the key is unknown or deleted.
    KeyRefused,
    /// The issuer refused the store (403, 404); the key may be good.
    StoreRefused,
    /// Nothing was learnt about the key: keep it, and ask again later.
    Inconclusive,
}

/// What was found out about a key: for each place that was asked, and over all.
///
/// ```
/// use keysheath::failure::{Answer, Meaning, Obstacle};
/// use keysheath::key::StoreId;
/// use keysheath::probe::{Finding, Report, Verdict};
///
/// let open = Finding::new(Ok(Answer::new(201, Meaning::Accepted))).at_store(StoreId::new(1).unwrap());
/// let closed = Finding::new(Ok(Answer::new(403, Meaning::StoreForbidden))).at_store(StoreId::new(2).unwrap());
/// let report = Report::new(open).and(closed);
///
/// assert_eq!(report.verdict(), Verdict::StoreRefused);
/// assert_eq!(report.findings()[0].verdict(), Verdict::Accepted);
/// assert!(report.to_string().starts_with("store refused\n  store 1: 201: accepted\n  store 2: 403: "));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

/// What one place answered, or why there was no answer.
///
/// ```
/// use keysheath::{failure::Obstacle, probe::{Finding, Verdict}};
/// assert_eq!(Finding::new(Err(Obstacle::Broken)).verdict(), Verdict::Inconclusive);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    store: Option<StoreId>,
    outcome: Result<Answer, Obstacle>,
}

impl Verdict {
    /// The verdict of one answer.
    ///
    /// A "key is missing" is inconclusive, because a probe sends one: something on the way took it out.
    ///
    /// ```
    /// # use keysheath::{failure::Meaning, probe::Verdict};
    /// assert_eq!(Verdict::of(Meaning::KeyMissing), Verdict::Inconclusive);
    /// ```
    #[must_use]
    pub const fn of(meaning: Meaning) -> Self {
        match meaning {
            Meaning::KeyRefused => Self::KeyRefused,
            Meaning::StoreForbidden | Meaning::StoreNotFound => Self::StoreRefused,
            _ if meaning.accepts_key() => Self::Accepted,
            _ => Self::Inconclusive,
        }
    }

    /// What weighs more comes later.
    const fn weight(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Inconclusive => 1,
            Self::StoreRefused => 2,
            Self::KeyRefused => 3,
        }
    }
}

impl Report {
    /// A report of one place.
    ///
    /// ```
    /// # use keysheath::{failure::{Answer, Meaning}, probe::{Finding, Report, Verdict}};
    /// let report = Report::new(Finding::new(Ok(Answer::new(401, Meaning::KeyRefused))));
    /// assert_eq!(report.verdict(), Verdict::KeyRefused);
    /// ```
    #[must_use]
    pub fn new(finding: Finding) -> Self {
        Self { findings: vec![finding] }
    }

    /// The same report, and what one more place answered.
    ///
    /// ```
    /// # use keysheath::{failure::{Answer, Meaning, Obstacle}, probe::{Finding, Report, Verdict}};
    /// let report = Report::new(Finding::new(Ok(Answer::new(200, Meaning::Accepted))))
    ///     .and(Finding::new(Err(Obstacle::NotListening)));
    /// assert_eq!(report.verdict(), Verdict::Inconclusive);
    /// ```
    #[must_use]
    pub fn and(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }

    /// One verdict over all places: the one that weighs most, in this order.
    ///
    /// 1. `KeyRefused`, if one place refused the key: no store of the issuer takes a key that was deleted.
    /// 2. `StoreRefused`, if one refused the store. It comes before `Inconclusive`, because whatever the silent places
    ///    say later, the key does not serve all of its stores until a person does something: asking again alone
    ///    cannot make this `Accepted`.
    /// 3. `Inconclusive`, if one was not conclusive: ask again later.
    /// 4. `Accepted`, if every place accepted the key.
    ///
    /// ```
    /// # use keysheath::{failure::{Answer, Meaning, Obstacle}, probe::{Finding, Report, Verdict}};
    /// let report = Report::new(Finding::new(Err(Obstacle::Broken)))
    ///     .and(Finding::new(Ok(Answer::new(404, Meaning::StoreNotFound))));
    /// assert_eq!(report.verdict(), Verdict::StoreRefused);
    /// ```
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(Finding::verdict);
        verdicts.max_by_key(|verdict| verdict.weight()).unwrap_or(Verdict::Inconclusive)
    }

    /// What each place answered, in the order in which they were asked; at least one.
    ///
    /// ```
    /// # use keysheath::{failure::Obstacle, probe::{Finding, Report}};
    /// let report = Report::new(Finding::new(Err(Obstacle::NotListening)));
    /// assert_eq!(report.findings()[0].outcome(), Err(Obstacle::NotListening));
    /// ```
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The longest wait that a place asked for, before asking again.
    ///
    /// ```
    /// # use keysheath::{failure::Obstacle, probe::{Finding, Report}};
    /// assert_eq!(Report::new(Finding::new(Err(Obstacle::Broken))).retry_after(), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.findings.iter().filter_map(|finding| finding.outcome.ok()?.retry_after()).max()
    }
}

impl Finding {
    /// An answer, or why there was none.
    ///
    /// ```
    /// # use keysheath::{failure::{Answer, Meaning}, probe::Finding};
    /// let finding = Finding::new(Ok(Answer::new(503, Meaning::Inconclusive)));
    /// assert_eq!(finding.store(), None);
    /// ```
    #[must_use]
    pub const fn new(outcome: Result<Answer, Obstacle>) -> Self {
        Self { store: None, outcome }
    }

    /// The same, for one store.
    ///
    /// ```
    /// # use keysheath::failure::Obstacle;
    /// # use keysheath::key::StoreId;
    /// # use keysheath::probe::Finding;
    /// let finding = Finding::new(Err(Obstacle::Broken)).at_store(StoreId::new(7).unwrap());
    /// assert_eq!(finding.store(), StoreId::new(7));
    /// ```
    #[must_use]
    pub const fn at_store(mut self, store: StoreId) -> Self {
        self.store = Some(store);
        self
    }

    /// The store that was asked for, where the issuer has stores.
    ///
    /// ```
    /// # use keysheath::{failure::Obstacle, probe::Finding};
    /// assert!(Finding::new(Err(Obstacle::Broken)).store().is_none());
    /// ```
    #[must_use]
    pub const fn store(&self) -> Option<StoreId> {
        self.store
    }

    /// The answer, which says what it means and what to do next.
    ///
    /// # Errors
    /// [`Obstacle`] when there was no answer; it says why, and what to do next.
    ///
    /// ```
    /// # use keysheath::{failure::{Answer, Meaning}, probe::Finding};
    /// let finding = Finding::new(Ok(Answer::new(200, Meaning::Accepted)));
    /// assert_eq!(finding.outcome()?.status(), 200);
    /// # Ok::<(), keysheath::failure::Obstacle>(())
    /// ```
    pub const fn outcome(&self) -> Result<Answer, Obstacle> {
        self.outcome
    }

    /// The verdict of this place alone.
    ///
    /// ```
    /// # use keysheath::{failure::{Answer, Meaning}, probe::{Finding, Verdict}};
    /// let finding = Finding::new(Ok(Answer::new(403, Meaning::StoreForbidden)));
    /// assert_eq!(finding.verdict(), Verdict::StoreRefused);
    /// ```
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self.outcome {
            Ok(answer) => Verdict::of(answer.meaning()),
            Err(_) => Verdict::Inconclusive,
        }
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
    /// The verdict, and a line for each place.
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
            // What a probe with an invalid body is after: there is nothing to mend.
            Ok(answer) if answer.meaning() == Meaning::RequestInvalid => {
                write!(f, "{}: the key and the store were accepted, and the content was not", answer.status())
            }
            Ok(answer) => write!(f, "{answer}"),
            Err(obstacle) => write!(f, "{obstacle}"),
        }
    }
}
