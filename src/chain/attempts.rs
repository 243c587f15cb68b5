//! What each source in a chain answered, and how that relates to the active key.

use std::fmt;

use super::{Kind, Link};
use crate::internal::files::FileProblem;
use crate::internal::printing::Printable;
use crate::key::{Fingerprint, Issuer as _, Kanal, Katana, Profile, RawKey};
use crate::source::{
    self, Absence, Found, Loaded, Problem, Provenance, Remark, SourceError, is_uuid, similar_names,
    variable_text, without_mark_and_newline,
};

/// What each source in a chain answered, in order. Its `Display` is one line for each source.
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
/// let attempts = chain.explain();
/// assert_eq!(attempts.as_slice()[0].relation(), Some(Relation::Active));
/// assert_eq!(attempts.as_slice()[1].relation(), Some(Relation::OtherKey));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    attempts: Vec<Attempt>,
    near_misses: Vec<NearMiss>,
}

/// What one source answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    provenance: Provenance,
    outcome: AttemptOutcome,
    relation: Option<Relation>,
    is_named: bool,
}

/// The answer of a source, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// A well-formed key.
    Found {
        /// Its fingerprint; `None` where the issuer's keys could be guessed from it.
        fingerprint: Option<Fingerprint>,
        /// What to know about the place.
        remarks: Vec<Remark>,
    },
    /// Nothing is there.
    Absent(Absence),
    /// Something is there, and it is broken.
    Broken(Problem),
    /// The search ended at an earlier source.
    NotAsked,
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

/// Something close to a place that was searched, and probably meant to be it. It keeps no part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NearMiss {
    /// A variable of a similar name is set.
    Name {
        /// The variable that is set.
        set: String,
        /// The variable that is read.
        read: String,
    },
    /// The variable of another issuer holds a text in the form of the key.
    OtherIssuer {
        /// The variable that is set.
        set: &'static str,
        /// The issuer whose key its text looks like.
        title: &'static str,
        /// The variable that is read.
        read: &'static str,
    },
}

impl Attempts {
    pub(super) const fn new(attempts: Vec<Attempt>) -> Self {
        Self { attempts, near_misses: Vec::new() }
    }

    /// The attempts of a search that found no key, with what is close to the places.
    pub(super) fn without_key(attempts: Vec<Attempt>, profile: &'static Profile) -> Self {
        let near_misses = NearMiss::find(&attempts, profile);
        Self { attempts, near_misses }
    }

    /// Asks every source, and finds how what they hold relates.
    pub(super) fn of_all(links: &[Link], profile: &'static Profile) -> Self {
        let mut active: Option<Found> = None;
        let mut stopped = false;
        let explained = links.iter().map(|link| {
            let loaded = source::load(&*link.source, profile);
            let attempt = Attempt::new(link, &loaded);
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
            Attempt { relation: Some(relation), ..attempt }
        });
        let attempts = explained.collect();
        if active.is_some() { Self::new(attempts) } else { Self::without_key(attempts, profile) }
    }

    /// Returns the attempts in the order of the chain.
    #[must_use]
    pub fn as_slice(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Returns what is close to the places that were searched, when no key was found.
    #[must_use]
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.near_misses
    }

    /// Writes where nothing was found: " in …, … and …".
    pub(super) fn write_absent_places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_absent = |attempt: &&Attempt| matches!(attempt.outcome, AttemptOutcome::Absent(_));
        let places: Vec<_> = self.attempts.iter().filter(is_absent).map(Attempt::provenance).collect();
        for (at, place) in places.iter().enumerate() {
            let before = match at {
                0 => " in ",
                _ if at + 1 == places.len() => " and ",
                _ => ", ",
            };
            write!(f, "{before}{place}")?;
        }
        Ok(())
    }

    /// Writes the attempts below a headline that says what is broken, and says each cause once.
    pub(super) fn write_below_headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, attempt) in self.attempts.iter().enumerate() {
            let (number, place) = (at + 1, &attempt.provenance);
            match &attempt.outcome {
                AttemptOutcome::Broken(Problem::Missing { .. }) => {
                    writeln!(f, "  {number}. {place}: nothing")?;
                }
                AttemptOutcome::Broken(problem) if problem.is_unasked() => {
                    writeln!(f, "  {number}. {place}: could not be asked")?;
                }
                AttemptOutcome::Broken(_) => writeln!(f, "  {number}. {place}: broken")?,
                _ => writeln!(f, "  {number}. {attempt}")?,
            }
        }
        self.write_near_misses(f)?;
        if self.attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::NotAsked) {
            f.write_str(
                "the places below it were not asked, because they may hold the key of another account\n",
            )?;
        }
        Ok(())
    }

    fn write_near_misses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.near_misses.iter().try_for_each(|near| writeln!(f, "  near miss: {near}"))
    }
}

impl Attempt {
    pub(super) fn new(link: &Link, loaded: &Result<Loaded, SourceError>) -> Self {
        let (provenance, outcome) = match loaded {
            Ok(Loaded::Found(found)) => {
                let (fingerprint, remarks) = (found.key().fingerprint(), found.remarks().to_vec());
                (found.provenance().clone(), AttemptOutcome::Found { fingerprint, remarks })
            }
            Ok(Loaded::Absent(absence)) => (link.source.provenance(), AttemptOutcome::Absent(*absence)),
            Err(error) => (error.provenance().clone(), AttemptOutcome::Broken(error.problem().clone())),
        };
        Self { provenance, outcome, relation: None, is_named: link.kind == Kind::Named }
    }

    pub(super) fn not_asked(link: &Link) -> Self {
        let (provenance, is_named) = (link.source.provenance(), link.kind == Kind::Named);
        Self { provenance, outcome: AttemptOutcome::NotAsked, relation: None, is_named }
    }

    /// Returns the place of the source.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns what the source answered.
    #[must_use]
    pub const fn outcome(&self) -> &AttemptOutcome {
        &self.outcome
    }

    /// Returns how that relates to the active key. `None` unless the chain was
    /// [explained](super::Chain::explain): loading asks no source below the active key.
    #[must_use]
    pub const fn relation(&self) -> Option<Relation> {
        self.relation
    }

    /// Returns whether the key was meant to come from here and the place is missing: a `…_FILE` whose file
    /// does not exist, a link to nothing, a place that a key reference or `with_dotenv` names and that has
    /// nothing or cannot be asked.
    #[must_use]
    pub const fn is_half_configured(&self) -> bool {
        match self.outcome {
            AttemptOutcome::Broken(
                Problem::FileGone | Problem::File(FileProblem::DanglingLink) | Problem::Missing { .. },
            ) => true,
            AttemptOutcome::Broken(Problem::NoKeychain | Problem::NoAccess | Problem::NotStarted(_)) => {
                self.is_named
            }
            _ => false,
        }
    }

    /// Whether the file can change and be read again.
    fn can_be_followed(&self) -> bool {
        let never = |remark: &Remark| matches!(remark, Remark::Unlinked | Remark::Pipe);
        !matches!(&self.outcome, AttemptOutcome::Found { remarks, .. } if remarks.iter().any(never))
    }

    /// What follows the answer where a chain is explained.
    fn shown_relation(&self, relation: Relation) -> &'static str {
        match relation {
            Relation::Nothing => "",
            Relation::Active => match &self.provenance {
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
        }
    }
}

impl NearMiss {
    /// Returns what is close to the variables that were read without success.
    fn find(attempts: &[Attempt], profile: &'static Profile) -> Vec<Self> {
        let has_nothing = |attempt: &&Attempt| {
            matches!(
                attempt.outcome,
                AttemptOutcome::Absent(_) | AttemptOutcome::Broken(Problem::Missing { .. })
            )
        };
        let mut found = Vec::new();
        for attempt in attempts.iter().filter(has_nothing) {
            let Provenance::Variable { name: read } = &attempt.provenance else { continue };
            let set = similar_names(read).into_iter().filter(|name| is_set(name));
            found.extend(set.map(|set| Self::Name { set, read: read.clone() }));
            if read == profile.variable() {
                found.extend(Self::in_another_issuers_variable(profile));
            }
        }
        found
    }

    fn in_another_issuers_variable(profile: &'static Profile) -> Option<Self> {
        let (set, is_like): (_, fn(&[u8]) -> bool) = if profile.is_same_issuer(Kanal::PROFILE) {
            (Katana::PROFILE.variable(), |text| RawKey::parse(Kanal::PROFILE, text).is_ok())
        } else if profile.is_same_issuer(Katana::PROFILE) {
            (Kanal::PROFILE.variable(), is_uuid)
        } else {
            return None;
        };
        let text = variable_text(set).map(without_mark_and_newline)?;
        let (title, read) = (profile.title(), profile.variable());
        is_like(&text).then_some(Self::OtherIssuer { set, title, read })
    }
}

fn is_set(name: &str) -> bool {
    variable_text(name).is_some_and(|text| !text.is_empty())
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, attempt) in self.attempts.iter().enumerate() {
            writeln!(f, "  {}. {attempt}", at + 1)?;
        }
        self.write_near_misses(f)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.provenance)?;
        match &self.outcome {
            AttemptOutcome::Absent(absence) => write!(f, "{absence}")?,
            AttemptOutcome::Broken(problem) if problem.is_unasked() => {
                write!(f, "could not be asked: {problem}")?;
            }
            AttemptOutcome::Broken(problem @ Problem::Missing { .. }) => write!(f, "nothing: {problem}")?,
            AttemptOutcome::Broken(problem) => write!(f, "broken: {problem}")?,
            AttemptOutcome::NotAsked => f.write_str("not asked")?,
            AttemptOutcome::Found { fingerprint, remarks } => {
                f.write_str("key found")?;
                if let Some(fingerprint) = fingerprint {
                    write!(f, ", fingerprint {fingerprint}")?;
                }
                remarks.iter().try_for_each(|remark| write!(f, "; {remark}"))?;
            }
        }
        let Some(relation) = self.relation else { return Ok(()) };
        f.write_str(self.shown_relation(relation))?;
        f.write_str(if self.is_half_configured() { " [half configured]" } else { "" })
    }
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { set, read } => {
                write!(f, "{} is set, and the variable that is read is {}", Printable(set), Printable(read))
            }
            Self::OtherIssuer { set, title, read } => {
                write!(f, "{set} holds a text in the form of a {title} key: a {title} key belongs in {read}")
            }
        }
    }
}
