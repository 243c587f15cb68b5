//! What each source in a chain answered, and the error when none has a key.

use std::fmt;

use crate::internal::printable::Printable;
use crate::key::{Fingerprint, FormatRule, Hint, Issuer as _, Kanal, Katana, Profile, RawKey};
use crate::source::{
    Absence, Loaded, Problem, Provenance, Remark, SecretText, Source, SourceError, is_uuid, similar_names,
    variable_text,
};

/// What each source in a chain answered, in order. Its `Display` is one line for each source.
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

/// A chain gave no key.
#[non_exhaustive]
pub enum ChainError {
    /// Every source answered that it has nothing.
    #[non_exhaustive]
    NoKey {
        /// The issuer whose key was wanted.
        profile: &'static Profile,
        /// What every source answered.
        attempts: Attempts,
    },
    /// A source is broken or could not be asked. The sources after it were not asked.
    #[non_exhaustive]
    Broken {
        /// The issuer whose key was wanted.
        profile: &'static Profile,
        /// What is broken, where, and what to do next.
        error: Box<SourceError>,
        /// What every source answered.
        attempts: Attempts,
    },
}

impl Attempts {
    pub(super) const fn new(attempts: Vec<Attempt>) -> Self {
        Self { attempts, near_misses: Vec::new() }
    }

    /// The attempts of a search that found no key, with what is close to the places.
    pub(super) fn without_key(attempts: Vec<Attempt>, profile: &'static Profile) -> Self {
        let near_misses = NearMiss::find(attempts.iter(), profile);
        Self { attempts, near_misses }
    }

    /// The attempts in the order of the chain.
    #[must_use]
    pub fn as_slice(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What is close to the places that were searched, when no key was found.
    #[must_use]
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.near_misses
    }

    /// Writes where nothing was found: " in …, … and …".
    fn write_absent_places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn write_below_headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        write_near_misses(&self.near_misses, f)?;
        if self.attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::NotAsked) {
            f.write_str(
                "the places below it were not asked, because they may hold the key of another account\n",
            )?;
        }
        Ok(())
    }
}

impl Attempt {
    pub(super) fn new(source: &dyn Source, loaded: &Result<Loaded, SourceError>) -> Self {
        match loaded {
            Ok(Loaded::Found(found)) => Self {
                provenance: found.provenance().clone(),
                outcome: AttemptOutcome::Found {
                    fingerprint: found.key().fingerprint(),
                    remarks: found.remarks().to_vec(),
                },
            },
            Ok(Loaded::Absent(absence)) => {
                Self { provenance: source.provenance(), outcome: AttemptOutcome::Absent(*absence) }
            }
            Err(error) => Self {
                provenance: error.provenance().clone(),
                outcome: AttemptOutcome::Broken(error.problem().clone()),
            },
        }
    }

    pub(super) fn not_asked(source: &dyn Source) -> Self {
        Self { provenance: source.provenance(), outcome: AttemptOutcome::NotAsked }
    }

    /// The place of the source.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What the source answered.
    #[must_use]
    pub const fn outcome(&self) -> &AttemptOutcome {
        &self.outcome
    }
}

impl NearMiss {
    /// What is close to the variables that were read without success.
    pub(super) fn find<'a>(
        attempts: impl Iterator<Item = &'a Attempt>,
        profile: &'static Profile,
    ) -> Vec<Self> {
        let has_nothing = |attempt: &&Attempt| {
            matches!(
                attempt.outcome,
                AttemptOutcome::Absent(_) | AttemptOutcome::Broken(Problem::Missing { .. })
            )
        };
        let mut found = Vec::new();
        for attempt in attempts.filter(has_nothing) {
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
        let text = variable_text(set).map(SecretText::without_mark_and_newline)?;
        let (title, read) = (profile.title(), profile.variable());
        is_like(text.bytes()).then_some(Self::OtherIssuer { set, title, read })
    }
}

fn is_set(name: &str) -> bool {
    variable_text(name).is_some_and(|text| !text.bytes().is_empty())
}

impl ChainError {
    /// What every source answered.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        match self {
            Self::NoKey { attempts, .. } | Self::Broken { attempts, .. } => attempts,
        }
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, attempt) in self.attempts.iter().enumerate() {
            writeln!(f, "  {}. {attempt}", at + 1)?;
        }
        write_near_misses(&self.near_misses, f)
    }
}

pub(super) fn write_near_misses(near_misses: &[NearMiss], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    near_misses.iter().try_for_each(|near| writeln!(f, "  near miss: {near}"))
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.provenance)?;
        match &self.outcome {
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

impl std::error::Error for ChainError {}

impl fmt::Display for ChainError {
    /// What is missing or wrong, and a line for each source. Each cause is said once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoKey { profile, .. } | Self::Broken { profile, .. }) = self;
        let title = profile.title();
        let create = format_args!("create one in {title} ({})", profile.key_page());
        match self {
            Self::NoKey { attempts, .. } if attempts.attempts.is_empty() => writeln!(
                f,
                "no {title} key was found: the chain has no sources: add the place of the key; where there \
                 is no key yet, {create}"
            ),
            Self::NoKey { attempts, .. } => write!(
                f,
                "no {title} key was found: {create}, and put it into one of these places:\n{attempts}"
            ),
            Self::Broken { error, attempts, .. } => {
                let problem = error.problem();
                if problem.is_unasked() {
                    let place = error.provenance();
                    write!(f, "no {title} key was found")?;
                    if matches!(problem, Problem::NotBuilt { .. }) {
                        attempts.write_absent_places(f)?;
                    }
                    write!(f, ", and {place} could not be asked: {problem}")?;
                    if attempts.attempts.len() > 1 {
                        f.write_str("; or put the key into another place of the chain")?;
                    }
                } else if matches!(problem, Problem::Missing { .. }) {
                    write!(f, "no {title} key was found; {error}")?;
                } else {
                    write!(f, "the search for a {title} key ended at a broken place: {error}")?;
                }
                if problem.is_unasked()
                    || matches!(problem, Problem::Missing { .. })
                    || is_placeholder(problem)
                {
                    write!(f, "; where there is no key yet, {create}")?;
                }
                f.write_str("\n")?;
                attempts.write_below_headline(f)
            }
        }
    }
}

fn is_placeholder(problem: &Problem) -> bool {
    matches!(problem, Problem::Malformed(error)
        if error.rule() == FormatRule::Placeholder || error.hint() == Some(Hint::Placeholder))
}

impl fmt::Debug for ChainError {
    /// As [`Display`](fmt::Display): a `main` that ends with the error prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
