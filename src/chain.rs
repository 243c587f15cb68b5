//! Sources in order, and what each of them answered.
//!
//! A [`Chain`] asks its sources one after another and takes the first key. It continues only past a source
//! that has nothing. A malformed key, a file that others may write or a keychain that does not answer ends
//! the search with an error, because the next source may hold the key of another account.
//!
//! [`Attempts`] lists what every source answered. [`Chain::explain`] also asks the sources below the first
//! key, and shows which of them hold another key, the same key, or half a configuration.
//!
//! Loading blocks; see [`source`].
//!
//! ```
//! use keysheath::chain::Chain;
//! use keysheath::key::Kanal;
//! use keysheath::source::{SecretFile, Variable};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("kanal");
//! std::fs::write(&path, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\n").unwrap();
//! let chain = Chain::<Kanal>::new()
//!     .with(Variable::new("SHOP_TWO_KEY"))
//!     .with(SecretFile::new(&path));
//!
//! let loaded = chain.load()?;
//! println!("{:?} from {}\n{}", loaded.key(), loaded.provenance(), loaded.attempts());
//! # Ok::<(), keysheath::chain::ChainError>(())
//! ```

mod attempts;

use std::fmt;
use std::marker::PhantomData;

use crate::internal::events::{Trace, trace_line};
use crate::key::{ApiKey, FormatRule, Hint, Issuer, Profile};
use crate::source::{
    self, Found, KeyRef, KeyRefError, Loaded, Problem, Provenance, Remark, SecretFile, Source, SourceError,
    Variable,
};

pub use attempts::{Attempt, AttemptOutcome, Attempts, NearMiss, Relation};

/// Sources of keys of issuer `I`, in order.
///
/// ```no_run
/// use keysheath::chain::Chain;
/// use keysheath::key::Kanal;
///
/// let key = Chain::<Kanal>::for_service().load()?.into_key();
/// # Ok::<(), keysheath::chain::ChainError>(())
/// ```
#[doc(alias("provider", "credential", "load"))]
pub struct Chain<I: Issuer> {
    links: Vec<Link>,
    issuer: PhantomData<fn() -> I>,
}

struct Link {
    source: Box<dyn Source>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A source that may have nothing.
    Plain,
    /// Named as the place of the key: nothing there is an error ([`Source::required`]).
    Named,
    /// The keychain of the standard chain. It may show a prompt, so it comes after a `.env`.
    StandardKeychain,
}

impl<I: Issuer> Chain<I> {
    /// Creates a chain without sources.
    #[must_use]
    pub const fn new() -> Self {
        Self { links: Vec::new(), issuer: PhantomData }
    }

    /// The places where the key of a service usually is: the environment variable, the file that its `_FILE`
    /// partner names, and the systemd credential. None of them can show a prompt.
    #[must_use]
    pub fn for_service() -> Self {
        let profile = I::PROFILE;
        Self::new()
            .with(Variable::for_issuer(profile))
            .with(SecretFile::named_by_variable(profile.variable()))
            .with(SecretFile::systemd_credential(profile.variable().to_ascii_lowercase()))
    }

    /// The places where a key of this issuer usually is: those of [`Chain::for_service`], and then the
    /// keychain item of the issuer's name, in the service `keysheath`.
    ///
    /// The places and their order are the same in every build. Without the feature `keychain` the last place
    /// cannot be read: when no earlier place has a key, loading ends there with [`Problem::NotBuilt`], as it
    /// ends at a keychain that does not answer. It is not skipped, because the key may be there. A program
    /// that never uses the keychain loads from [`Chain::for_service`].
    ///
    /// A `.env` is not included, because anyone who can place a file in the working directory would choose
    /// the account: add it by name with `with_dotenv`.
    #[must_use]
    pub fn standard() -> Self {
        Self::for_service().link(source::keychain_of(I::PROFILE), Kind::StandardKeychain)
    }

    /// Adds a source at the end.
    #[must_use]
    pub fn with(self, source: impl Source + 'static) -> Self {
        self.link(Box::new(source), Kind::Plain)
    }

    /// Adds the issuer's variable of a `.env` file: at the end, but before the keychain of the
    /// [standard](Chain::standard) chain, which may show a prompt. Parent folders are not searched.
    ///
    /// A file that does not exist, or that does not set the variable, is an error. Where it may be missing,
    /// add a [`DotenvFile`](source::DotenvFile) with [`with`](Self::with).
    #[cfg(feature = "dotenv")]
    #[must_use]
    pub fn with_dotenv(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        let keychain = self.links.iter().position(|link| link.kind == Kind::StandardKeychain);
        let source = source::DotenvFile::new(path, I::PROFILE.variable()).required();
        let link = Link { source: Box::new(source), kind: Kind::Named };
        self.links.insert(keychain.unwrap_or(self.links.len()), link);
        self
    }

    /// Adds the source that a key reference names, at the end. Nothing there is an error.
    ///
    /// # Errors
    /// As [`KeyRef::source`].
    pub fn with_reference(self, reference: &KeyRef) -> Result<Self, KeyRefError> {
        Ok(self.link(reference.source()?, Kind::Named))
    }

    fn link(mut self, source: Box<dyn Source>, kind: Kind) -> Self {
        self.links.push(Link { source, kind });
        self
    }

    /// Asks the sources in order and takes the first key. Blocks.
    ///
    /// # Errors
    /// [`ChainError::NoKey`] when every source has nothing, [`ChainError::Broken`] at the first one that has
    /// something other than a key, or that cannot be asked.
    pub fn load(&self) -> Result<Selected<I>, ChainError> {
        let (_, found, attempts) = search(&self.links, I::PROFILE)?;
        trace_remarks(&found);
        let (provenance, remarks) = (found.provenance().clone(), found.remarks().to_vec());
        match found.into_key().try_into_typed() {
            Ok(key) => Ok(Selected { key, provenance, remarks, attempts }),
            Err(_) => unreachable!("the chain loads keys of its own profile only"),
        }
    }

    /// As [`Chain::load`], with the one source that is asked from then on.
    #[cfg(feature = "rotation")]
    pub(crate) fn select(mut self) -> Result<(Box<dyn Source>, Found), ChainError> {
        let (at, found, _) = search(&self.links, I::PROFILE)?;
        Ok((self.links.swap_remove(at).source, found))
    }

    /// Asks every source, also those below the first key, and reports how what they hold
    /// [relates](Attempt::relation). Blocks, and runs the commands in the chain.
    #[must_use]
    pub fn explain(&self) -> Attempts {
        Attempts::of_all(&self.links, I::PROFILE)
    }
}

/// The position of the first source that has a key, the key, and what every source answered.
fn search(links: &[Link], profile: &'static Profile) -> Result<(usize, Found, Attempts), ChainError> {
    let mut attempts = Vec::with_capacity(links.len());
    let mut outcome = None;
    for link in links {
        if outcome.is_some() {
            attempts.push(Attempt::not_asked(link));
            continue;
        }
        let loaded = source::load(&*link.source, profile);
        attempts.push(Attempt::new(link, &loaded));
        outcome = match loaded {
            Ok(Loaded::Absent(_)) => None,
            Ok(Loaded::Found(found)) => Some(Ok((attempts.len() - 1, found))),
            Err(error) => Some(Err(error)),
        };
    }
    match outcome {
        Some(Ok((at, found))) => Ok((at, found, Attempts::new(attempts))),
        Some(Err(error)) => {
            let attempts = Attempts::without_key(attempts, profile);
            Err(ChainError::Broken { profile, error: Box::new(error), attempts })
        }
        None => Err(ChainError::NoKey { profile, attempts: Attempts::without_key(attempts, profile) }),
    }
}

fn trace_remarks(found: &Found) {
    for remark in found.remarks() {
        Trace::here().line_and_wait(|| {
            let (place, remark) = (found.provenance().to_string(), *remark);
            move || trace_line!(warn: "{place}: {remark}")
        });
    }
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

/// A key, where it came from, and what every source answered.
pub struct Selected<I: Issuer> {
    key: ApiKey<I>,
    provenance: Provenance,
    remarks: Vec<Remark>,
    attempts: Attempts,
}

impl<I: Issuer> Selected<I> {
    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &ApiKey<I> {
        &self.key
    }

    /// Returns the key.
    #[must_use]
    pub fn into_key(self) -> ApiKey<I> {
        self.key
    }

    /// Returns where the key came from.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns what a person should know about the place, such as that every user can read the file. With the
    /// feature `tracing`, loading a chain logs a warning for each.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Returns what every source answered.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        &self.attempts
    }
}

impl<I: Issuer> fmt::Debug for Selected<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, provenance, remarks, attempts } = self;
        let mut shown = f.debug_struct("Selected");
        shown.field("key", key).field("provenance", provenance).field("remarks", remarks);
        shown.field("attempts", attempts).finish()
    }
}

impl ChainError {
    /// Returns what every source answered.
    #[must_use]
    pub const fn attempts(&self) -> &Attempts {
        match self {
            Self::NoKey { attempts, .. } | Self::Broken { attempts, .. } => attempts,
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
            Self::NoKey { attempts, .. } if attempts.as_slice().is_empty() => writeln!(
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
                    if attempts.as_slice().len() > 1 {
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

impl<I: Issuer> Default for Chain<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Issuer> fmt::Debug for Chain<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({}", I::PROFILE.name())?;
        for link in &self.links {
            write!(f, ", {}", link.source.provenance())?;
        }
        f.write_str(")")
    }
}

#[cfg(all(test, not(feature = "keychain")))]
mod tests {
    use super::*;
    use crate::key::Kanal;

    #[test]
    fn an_unbuilt_keychain_is_broken_and_not_absent() {
        let mut chain = Chain::<Kanal>::standard();
        let attempts = chain.explain();
        let last = attempts.as_slice().last().expect("the chain has places");
        let problem = Problem::NotBuilt { feature: "keychain" };
        assert_eq!(last.provenance().to_string(), "keychain item keysheath/kanal");
        assert_eq!(last.outcome(), &AttemptOutcome::Broken(problem.clone()));

        chain.links.drain(..3);
        for name in ["NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE_EITHER"] {
            let source = Box::new(Variable::new(name));
            chain.links.insert(0, Link { source, kind: Kind::Plain });
        }
        let chain = chain.with(Variable::new("NOT_REACHED"));
        let error = chain.load().expect_err("no place has a key");
        let message = error.to_string();
        let expected = "no Kanal key was found in variable NO_SUCH_VARIABLE_EITHER and variable \
            NO_SUCH_VARIABLE, and keychain item keysheath/kanal could not be asked: this build cannot read \
            it, because the feature `keychain` of keysheath is off: enable it; or put the key into another \
            place";
        assert!(message.starts_with(expected), "{message}");
        let ChainError::Broken { error, attempts, .. } = error else { panic!("{message}") };
        assert_eq!(error.problem(), &problem);
        assert_eq!(attempts.as_slice()[3].outcome(), &AttemptOutcome::NotAsked);
    }
}
