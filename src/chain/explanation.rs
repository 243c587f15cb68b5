//! How what the sources of a chain hold relates.

use std::fmt;

use super::attempts::write_near_misses;
use super::{Attempt, AttemptOutcome, Kind, Link, NearMiss};
use crate::key::Profile;
use crate::source::{self, Found, Loaded, Problem, Provenance, Remark};

/// What every source of a chain holds, and how it relates to the active key. Its `Display` is one line for
/// each source.
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
/// assert_eq!(explanation.places()[0].relation(), Relation::Active);
/// assert_eq!(explanation.places()[1].relation(), Relation::OtherKey);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    places: Vec<Explained>,
    near_misses: Vec<NearMiss>,
}

/// One source of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    attempt: Attempt,
    relation: Relation,
    is_named: bool,
}

/// How what a source holds relates to the active key, which is the one that loading gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// It holds nothing.
    Nothing,
    /// It holds the active key, and loading takes it from here.
    Active,
    /// It holds a second copy of the active key. After a rotation, one of the two is stale.
    SameKey,
    /// It holds another key, which the active key shadows.
    OtherKey,
    /// It is broken, and loading ends here without a key.
    Stops,
    /// It is broken, and is not asked when loading, because loading ends earlier.
    BrokenBelow,
    /// It holds a key, and loading ends earlier at a source that is broken.
    BehindBroken,
}

impl Explanation {
    pub(super) fn of(links: &[Link], profile: &'static Profile) -> Self {
        let mut places = Vec::with_capacity(links.len());
        let mut active: Option<Found> = None;
        let mut stopped = false;
        for link in links {
            let loaded = source::load(&*link.source, profile);
            let attempt = Attempt::new(&*link.source, &loaded);
            let relation = match loaded {
                Ok(Loaded::Absent(_)) => Relation::Nothing,
                Err(_) if active.is_some() || stopped => Relation::BrokenBelow,
                Err(_) => Relation::Stops,
                Ok(Loaded::Found(found)) => match &active {
                    Some(first) if first.key() == found.key() => Relation::SameKey,
                    Some(_) => Relation::OtherKey,
                    None if stopped => Relation::BehindBroken,
                    None => {
                        active = Some(found);
                        Relation::Active
                    }
                },
            };
            stopped |= relation == Relation::Stops;
            places.push(Explained { attempt, relation, is_named: link.kind == Kind::Named });
        }
        let near_misses = if active.is_some() {
            Vec::new()
        } else {
            NearMiss::find(places.iter().map(Explained::attempt), profile)
        };
        Self { places, near_misses }
    }

    /// The sources, in the order of the chain.
    #[must_use]
    pub fn places(&self) -> &[Explained] {
        &self.places
    }

    /// What is close to the places that were searched, when no key was found.
    #[must_use]
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.near_misses
    }
}

impl Explained {
    /// What the source answered.
    #[must_use]
    pub const fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// How that relates to the active key.
    #[must_use]
    pub const fn relation(&self) -> Relation {
        self.relation
    }

    /// Whether the key was meant to come from here and the place is missing: a `…_FILE` whose file does not
    /// exist, a link to nothing, a place that a key reference or `with_dotenv` names and that has nothing or
    /// cannot be asked.
    #[must_use]
    pub const fn is_half_configured(&self) -> bool {
        match self.attempt.outcome() {
            AttemptOutcome::Broken(Problem::FileGone | Problem::DanglingLink | Problem::Missing { .. }) => {
                true
            }
            AttemptOutcome::Broken(Problem::NoKeychain | Problem::NoAccess | Problem::NotStarted(_)) => {
                self.is_named
            }
            _ => false,
        }
    }

    /// Whether the file can change and be read again.
    fn can_be_followed(&self) -> bool {
        let never = |remark: &Remark| matches!(remark, Remark::Unlinked | Remark::Pipe);
        !matches!(self.attempt.outcome(), AttemptOutcome::Found { remarks, .. } if remarks.iter().any(never))
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
        write!(f, "{}", self.attempt)?;
        f.write_str(match self.relation {
            Relation::Nothing => "",
            Relation::Active => match self.attempt.provenance() {
                // A process does not see what another process sets.
                place if place.is_fixed() => {
                    " ← active (it cannot change while a process runs: after a rotation, restart what uses \
                     it)"
                }
                Provenance::File { .. } | Provenance::FileVariable { .. } | Provenance::Dotenv { .. }
                    if self.can_be_followed() =>
                {
                    " ← active (a refresher follows this file)"
                }
                _ => " ← active",
            },
            Relation::SameKey => " (the active key once more: replace both when it is rotated)",
            Relation::OtherKey => " (another key, shadowed by the active key)",
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
