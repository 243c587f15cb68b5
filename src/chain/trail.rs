//! What each source in a chain answered.

use std::fmt;

use super::NearMiss;
use crate::key::Fingerprint;
use crate::source::{Absence, Loaded, Problem, Provenance, Remark, Source, SourceError};

/// What each source in a chain answered, in order. Its `Display` is one line a source.
///
/// ```
/// use keysheath::chain::Chain;
/// use keysheath::key::Kanal;
/// use keysheath::source::Variable;
///
/// let chain = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE"));
/// let error = chain.load().unwrap_err();
/// assert_eq!(error.trail().to_string(), "  1. variable NO_SUCH_VARIABLE: not set\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    steps: Vec<Step>,
    near_misses: Vec<NearMiss>,
}

/// What one source answered.
///
/// ```
/// use keysheath::chain::{Chain, AttemptOutcome};
/// use keysheath::key::Kanal;
/// use keysheath::source::{Absence, Variable};
///
/// let chain = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE"));
/// let error = chain.load().unwrap_err();
/// let step = &error.trail().steps()[0];
/// assert_eq!(step.witness(), &AttemptOutcome::Absent(Absence::NotSet));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    provenance: Provenance,
    witness: AttemptOutcome,
}

/// A source's answer, without the key.
///
/// ```
/// use keysheath::{chain::AttemptOutcome, source::Absence};
/// let witness = AttemptOutcome::Absent(Absence::NoFile);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// A well-formed key.
    Found {
        /// Its name; `None` where the issuer's keys could be guessed from it.
        fingerprint: Option<Fingerprint>,
        /// What to know about the place.
        remarks: Vec<Remark>,
    },
    /// Nothing is there.
    Absent(Absence),
    /// Something is there, and it is broken.
    Broken(Problem),
    /// A source before this one had the last word.
    NotAsked,
}

impl Attempts {
    pub(super) const fn new(steps: Vec<Step>, near_misses: Vec<NearMiss>) -> Self {
        Self { steps, near_misses }
    }

    /// What is nearly where the key was looked for, where no key was found.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// assert!(Chain::<Kanal>::new().load().unwrap_err().trail().near_misses().is_empty());
    /// ```
    #[must_use]
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.near_misses
    }

    /// The answers, in the order of the chain.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// assert!(Chain::<Kanal>::new().load().unwrap_err().trail().steps().is_empty());
    /// ```
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    pub(super) fn of(source: &dyn Source, loaded: &Result<Loaded, SourceError>) -> Self {
        match loaded {
            Ok(Loaded::Found(found)) => Self {
                provenance: found.provenance().clone(),
                witness: AttemptOutcome::Found {
                    fingerprint: found.key().fingerprint(),
                    remarks: found.remarks().to_vec(),
                },
            },
            Ok(Loaded::Absent(absence)) => {
                Self { provenance: source.provenance(), witness: AttemptOutcome::Absent(*absence) }
            }
            Err(error) => Self {
                provenance: error.provenance().clone(),
                witness: AttemptOutcome::Broken(error.problem().clone()),
            },
        }
    }

    pub(super) fn not_asked(source: &dyn Source) -> Self {
        Self { provenance: source.provenance(), witness: AttemptOutcome::NotAsked }
    }

    /// Where the source looked.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Variable;
    /// # let chain = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE"));
    /// # let error = chain.load().unwrap_err();
    /// assert_eq!(error.trail().steps()[0].provenance().to_string(), "variable NO_SUCH_VARIABLE");
    /// ```
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What it answered.
    ///
    /// ```
    /// # use keysheath::chain::{Chain, AttemptOutcome};
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Variable;
    /// # let chain = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE"));
    /// # let error = chain.load().unwrap_err();
    /// assert!(matches!(error.trail().steps()[0].witness(), AttemptOutcome::Absent(_)));
    /// ```
    #[must_use]
    pub const fn witness(&self) -> &AttemptOutcome {
        &self.witness
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {step}", at + 1)?;
        }
        write_near_misses(&self.near_misses, f)
    }
}

/// A trail below a headline that says what is broken.
pub(super) struct Below<'a>(pub(super) &'a Attempts);

impl fmt::Display for Below<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.steps.iter().enumerate() {
            match step.witness {
                AttemptOutcome::Broken(Problem::Missing { .. }) => {
                    writeln!(f, "  {}. {}: nothing", at + 1, step.provenance)?;
                }
                AttemptOutcome::Broken(ref problem) if problem.is_unasked() => {
                    writeln!(f, "  {}. {}: could not be asked", at + 1, step.provenance)?;
                }
                AttemptOutcome::Broken(_) => writeln!(f, "  {}. {}: broken", at + 1, step.provenance)?,
                _ => writeln!(f, "  {}. {step}", at + 1)?,
            }
        }
        write_near_misses(&self.0.near_misses, f)
    }
}

pub(super) fn write_near_misses(near_misses: &[NearMiss], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    near_misses.iter().try_for_each(|near| writeln!(f, "  near miss: {near}"))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.provenance)?;
        match &self.witness {
            AttemptOutcome::Absent(absence) => write!(f, "{absence}"),
            AttemptOutcome::Broken(problem) if problem.is_unasked() => {
                write!(f, "could not be asked: {problem}")
            }
            AttemptOutcome::Broken(problem @ Problem::Missing { .. }) => write!(f, "nothing: {problem}"),
            AttemptOutcome::Broken(problem) => write!(f, "broken: {problem}"),
            AttemptOutcome::NotAsked => f.write_str("not asked"),
            AttemptOutcome::Found { fingerprint, remarks } => {
                f.write_str("key found")?;
                if let Some(fingerprint) = fingerprint {
                    write!(f, ", fingerprint {fingerprint}")?;
                }
                remarks.iter().try_for_each(|remark| write!(f, "; {remark}"))
            }
        }
    }
}
