//! How what the sources of a chain hold relates.

use std::fmt;

use super::trail::write_near_misses;
use super::{AttemptOutcome, NearMiss, Step};
use crate::source::{Problem, Provenance, Remark};

/// What every source of a chain holds, asked one by one, and how it relates to the key in force. Its `Display`
/// is one line a source.
///
/// ```
/// use keysheath::chain::{Chain, Relation};
/// use keysheath::key::Kanal;
/// use keysheath::source::SecretFile;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let (one, two) = (folder.path().join("one"), folder.path().join("two"));
/// std::fs::write(&one, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// std::fs::write(&two, "Zs1T6cN3bV7dL4qW9Xp2Kf8a").unwrap();
/// let chain = Chain::<Kanal>::new().with(SecretFile::new(&one)).with(SecretFile::new(&two));
///
/// let explanation = chain.explain();
/// assert_eq!(explanation.places()[0].relation(), Relation::InForce);
/// assert_eq!(explanation.places()[1].relation(), Relation::OtherKey);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    places: Vec<Explained>,
    near_misses: Vec<NearMiss>,
}

/// One source of an [`Explanation`].
///
/// ```
/// # use keysheath::chain::{Chain, Relation};
/// # use keysheath::key::Kanal;
/// # use keysheath::source::Variable;
/// let explanation = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE")).explain();
/// assert_eq!(explanation.places()[0].relation(), Relation::Nothing);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    step: Step,
    relation: Relation,
    is_named: bool,
}

/// How what a source holds relates to the key in force.
///
/// ```
/// use keysheath::chain::Relation;
/// assert_ne!(Relation::SameKey, Relation::OtherKey);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// It holds nothing.
    Nothing,
    /// Its key is the one that loading gives.
    InForce,
    /// It holds the key in force once more: after a rotation, one of the two is stale.
    SameKey,
    /// It holds another key, which the key in force shadows.
    OtherKey,
    /// It is broken, and loading ends here without a key.
    Stops,
    /// It is broken, and never asked, because loading ends before it.
    BrokenBelow,
    /// It holds a key, and loading ends before it at a source that is broken.
    BehindBroken,
}

impl Explanation {
    pub(super) const fn new(places: Vec<Explained>, near_misses: Vec<NearMiss>) -> Self {
        Self { places, near_misses }
    }

    /// What is nearly where the key was looked for, where no key was found.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// assert!(Chain::<Kanal>::new().explain().near_misses().is_empty());
    /// ```
    #[must_use]
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.near_misses
    }

    /// The sources, in the order of the chain.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// assert!(Chain::<Kanal>::new().explain().places().is_empty());
    /// ```
    #[must_use]
    pub fn places(&self) -> &[Explained] {
        &self.places
    }
}

impl Explained {
    pub(super) const fn new(step: Step, relation: Relation, is_named: bool) -> Self {
        Self { step, relation, is_named }
    }

    /// What the source answered.
    ///
    /// ```
    /// # use keysheath::chain::{Chain, AttemptOutcome};
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Variable;
    /// let explanation = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE")).explain();
    /// assert!(matches!(explanation.places()[0].step().witness(), AttemptOutcome::Absent(_)));
    /// ```
    #[must_use]
    pub const fn step(&self) -> &Step {
        &self.step
    }

    /// How that relates to the key in force.
    ///
    /// ```
    /// # use keysheath::chain::{Chain, Relation};
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Variable;
    /// let explanation = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE")).explain();
    /// assert_eq!(explanation.places()[0].relation(), Relation::Nothing);
    /// ```
    #[must_use]
    pub const fn relation(&self) -> Relation {
        self.relation
    }

    /// Whether somebody meant the key to come from here and the place is missing: a `…_FILE` whose file is
    /// gone, a link to nothing, a place that a key reference or `with_dotenv` names and that has nothing or cannot be asked.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::KeyRef;
    /// let reference: KeyRef = "file:/run/secrets/no-such-key".parse().unwrap();
    /// let chain = Chain::<Kanal>::new().with_reference(&reference).unwrap();
    /// assert!(chain.explain().places()[0].is_half_configured());
    /// ```
    #[must_use]
    pub const fn is_half_configured(&self) -> bool {
        match self.step.witness() {
            AttemptOutcome::Broken(Problem::FileGone | Problem::DanglingLink | Problem::Missing { .. }) => {
                true
            }
            AttemptOutcome::Broken(Problem::NoKeychain | Problem::NoAccess | Problem::NotStarted(_)) => {
                self.is_named
            }
            _ => false,
        }
    }
}

impl Explained {
    /// Whether a file is one that can change, and be read again.
    fn can_be_followed(&self) -> bool {
        let never = |remark: &Remark| matches!(remark, Remark::Unlinked | Remark::Pipe);
        !matches!(self.step.witness(), AttemptOutcome::Found { remarks, .. } if remarks.iter().any(never))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, place) in self.places.iter().enumerate() {
            writeln!(f, "  {}. {place}", at + 1)?;
        }
        write_near_misses(&self.near_misses, f)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        f.write_str(match self.relation {
            Relation::Nothing => "",
            Relation::InForce => match self.step.provenance() {
                // What another process sets, this one does not see.
                place if place.is_fixed() => {
                    " ← in force (it cannot change while a process runs: after a rotation, restart what uses it)"
                }
                Provenance::File { .. } | Provenance::FileVariable { .. } | Provenance::Dotenv { .. }
                    if self.can_be_followed() =>
                {
                    " ← in force (a refresher follows this file)"
                }
                _ => " ← in force",
            },
            Relation::SameKey => " (the key in force once more: replace both when it is rotated)",
            Relation::OtherKey => " (another key, shadowed by the key in force)",
            Relation::Stops => " ← loading ends here",
            Relation::BrokenBelow => " (not asked when loading)",
            Relation::BehindBroken => " (not asked when loading: a place above it is broken)",
        })?;
        if self.is_half_configured() {
            f.write_str(" [half configured]")?;
        }
        Ok(())
    }
}
