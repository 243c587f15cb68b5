//! Sources in order, and what each of them answered.
//!
//! A chain asks its sources one after another and takes the first key. It goes on only past a source that has
//! nothing: a malformed key, a file that others may write or a keychain that does not answer ends the search
//! with an error, because the next source may hold the key of another account.
//!
//! The [`Attempts`] says what every source answered. [`Chain::explain`] asks the lower sources as well, and shows
//! which of them hold another key, the same key, or half a configuration.
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
//! println!("{:?} from {}\n{}", loaded.key(), loaded.provenance(), loaded.trail());
//! # Ok::<(), keysheath::chain::ChainError>(())
//! ```

mod explanation;
mod near_miss;
mod selected;
mod trail;

use std::fmt;
use std::marker::PhantomData;

use crate::key::{ApiKey, Issuer, Profile, RawKey};
use crate::source::{
    self, FileVariable, Found, KeyRef, KeyRefError, Loaded, Source, SystemdCredential, Variable,
};

pub use explanation::{Explained, Explanation, Relation};
pub use near_miss::NearMiss;
pub use selected::{ChainError, Selected};
pub use trail::{AttemptOutcome, Attempts, Step};

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
    raw: RawChain,
    issuer: PhantomData<fn() -> I>,
}

/// Sources of keys of an issuer that is a value, in order.
///
/// ```
/// use keysheath::chain::RawChain;
/// use keysheath::key::{Issuer, Kanal, Katana};
///
/// for profile in [Kanal::PROFILE, Katana::PROFILE] {
///     let chain = RawChain::for_service(profile);
///     println!("{}:\n{}", profile.title(), chain.explain());
/// }
/// ```
pub struct RawChain {
    profile: &'static Profile,
    links: Vec<Link>,
}

struct Link {
    source: Box<dyn Source>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Added as a source, or looked at by convention.
    Plain,
    /// Named as the place of the key: nothing there is an error ([`Source::required`]).
    Named,
    /// The keychain of the standard chain, which may ask its user and so comes after a `.env`.
    StandardKeychain,
}

impl<I: Issuer> Chain<I> {
    /// A chain without sources.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Katana;
    /// assert!(Chain::<Katana>::new().load().is_err());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::from_raw(RawChain::new(I::PROFILE))
    }

    /// The places where a service's key usually is: the environment variable, the file that its `_FILE` partner names,
    /// and the systemd credential. None of them can ask anybody anything.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// println!("{}", Chain::<Kanal>::for_service().explain());
    /// ```
    #[must_use]
    pub fn for_service() -> Self {
        Self::from_raw(RawChain::for_service(I::PROFILE))
    }

    /// The places where a key of this issuer usually is: those of [`Chain::for_service`], and then the keychain item
    /// of the issuer's name, in the service `keysheath`.
    ///
    /// The places and their order are the same in every build. Without the feature `keychain` the last place cannot be
    /// read: when no earlier place has a key, loading ends there with
    /// [`Problem::NotBuilt`](source::Problem::NotBuilt), as it ends at a keychain that does not answer. It is not skipped,
    /// because the key may be there. A program that never uses the keychain loads from [`Chain::for_service`].
    ///
    /// A `.env` is not included, because anyone who can place a file in the working directory would choose the
    /// account: add it by name with `with_dotenv`.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// println!("{}", Chain::<Kanal>::standard().explain());
    /// ```
    #[must_use]
    pub fn standard() -> Self {
        Self::from_raw(RawChain::standard(I::PROFILE))
    }

    /// Adds a source at the end.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Command;
    /// let chain = Chain::<Kanal>::for_service().with(Command::new("pass").args(["show", "shop/kanal"]));
    /// ```
    #[must_use]
    pub fn with(self, source: impl Source + 'static) -> Self {
        Self::from_raw(self.raw.with(source))
    }

    /// Adds the issuer's variable of a `.env` file at the end; in the [standard](Chain::standard) chain, before its
    /// keychain, which may ask its user. Parent folders are not searched. A file that is not there, or does not set the variable,
    /// is an error: where it may be missing, add a [`DotenvFile`](source::DotenvFile) with [`with`](Self::with).
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// let chain = Chain::<Kanal>::standard().with_dotenv(".env");
    /// ```
    #[cfg(feature = "dotenv")]
    #[must_use]
    pub fn with_dotenv(self, path: impl Into<std::path::PathBuf>) -> Self {
        Self::from_raw(self.raw.with_dotenv(path))
    }

    /// Adds the source that a key reference names, at the end. Nothing there is an error.
    ///
    /// # Errors
    /// As [`KeyRef::source`].
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::KeyRef;
    /// let reference: KeyRef = "file:/run/secrets/kanal".parse()?;
    /// let chain = Chain::<Kanal>::new().with_reference(&reference)?;
    /// # Ok::<(), keysheath::source::KeyRefError>(())
    /// ```
    pub fn with_reference(self, reference: &KeyRef) -> Result<Self, KeyRefError> {
        self.raw.with_reference(reference).map(Self::from_raw)
    }

    /// Asks the sources in order and takes the first key. Blocks.
    ///
    /// # Errors
    /// [`ChainError::NoKey`] when every source has nothing, [`ChainError::Broken`] at the first one that has
    /// something else than a key.
    ///
    /// ```no_run
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// let key = Chain::<Kanal>::for_service().load()?.into_key();
    /// # Ok::<(), keysheath::chain::ChainError>(())
    /// ```
    pub fn load(&self) -> Result<Selected<ApiKey<I>>, ChainError> {
        let Selected { key, provenance, trail } = self.raw.load()?;
        match key.try_into_typed() {
            Ok(key) => Ok(Selected { key, provenance, trail }),
            Err(_) => unreachable!("the chain loads keys of its own profile only"),
        }
    }

    /// Asks every source, the lower ones too, and says how what they hold relates. Blocks, and runs the
    /// commands in the chain.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Variable;
    /// let explanation = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE")).explain();
    /// assert!(explanation.to_string().contains("not set"));
    /// ```
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.raw.explain()
    }

    /// The same chain with its issuer as a value.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// let chain = Chain::<Kanal>::for_service().into_raw();
    /// ```
    #[must_use]
    pub fn into_raw(self) -> RawChain {
        self.raw
    }

    const fn from_raw(raw: RawChain) -> Self {
        Self { raw, issuer: PhantomData }
    }
}

impl RawChain {
    /// A chain without sources, for keys of the issuer of `profile`.
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// assert!(RawChain::new(Kanal::PROFILE).load().is_err());
    /// ```
    #[must_use]
    pub const fn new(profile: &'static Profile) -> Self {
        Self { profile, links: Vec::new() }
    }

    /// As [`Chain::for_service`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// let chain = RawChain::for_service(Kanal::PROFILE);
    /// ```
    #[must_use]
    pub fn for_service(profile: &'static Profile) -> Self {
        Self::new(profile)
            .with(Variable::of(profile))
            .with(FileVariable::of(profile))
            .with(SystemdCredential::of(profile))
    }

    /// As [`Chain::standard`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// let chain = RawChain::standard(Kanal::PROFILE);
    /// ```
    #[must_use]
    pub fn standard(profile: &'static Profile) -> Self {
        let mut chain = Self::for_service(profile);
        chain.links.push(Link { source: source::keychain_of(profile), kind: Kind::StandardKeychain });
        chain
    }

    /// As [`Chain::with`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::source::Variable;
    /// let chain = RawChain::new(Kanal::PROFILE).with(Variable::new("SHOP_TWO_KEY"));
    /// ```
    #[must_use]
    pub fn with(mut self, source: impl Source + 'static) -> Self {
        self.links.push(Link { source: Box::new(source), kind: Kind::Plain });
        self
    }

    /// As [`Chain::with_dotenv`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// let chain = RawChain::standard(Kanal::PROFILE).with_dotenv(".env");
    /// ```
    #[cfg(feature = "dotenv")]
    #[must_use]
    pub fn with_dotenv(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        let standard = self.links.iter().position(|link| link.kind == Kind::StandardKeychain);
        let place = standard.unwrap_or(self.links.len());
        let source = source::DotenvFile::new(path, self.profile.variable()).required();
        self.links.insert(place, Link { source: Box::new(source), kind: Kind::Named });
        self
    }

    /// As [`Chain::with_reference`].
    ///
    /// # Errors
    /// As [`KeyRef::source`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::source::KeyRef;
    /// let reference: KeyRef = "env:SHOP_TWO_KEY".parse()?;
    /// let chain = RawChain::new(Kanal::PROFILE).with_reference(&reference)?;
    /// # Ok::<(), keysheath::source::KeyRefError>(())
    /// ```
    pub fn with_reference(mut self, reference: &KeyRef) -> Result<Self, KeyRefError> {
        self.links.push(Link { source: reference.source()?, kind: Kind::Named });
        Ok(self)
    }

    /// As [`Chain::load`].
    ///
    /// # Errors
    /// As [`Chain::load`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::source::SecretFile;
    /// let chain = RawChain::new(Kanal::PROFILE).with(SecretFile::new("/run/secrets/no-such-key"));
    /// assert!(chain.load().is_err());
    /// ```
    pub fn load(&self) -> Result<Selected<RawKey>, ChainError> {
        let (_, selected) = self.search()?;
        #[cfg(feature = "tracing")]
        selected.trace_remarks();
        Ok(selected)
    }

    /// As [`RawChain::load`], with the one source that is asked from then on.
    #[cfg(feature = "rotation")]
    pub(crate) fn select(mut self) -> Result<(Box<dyn Source>, Selected<RawKey>), ChainError> {
        let (at, selected) = self.search()?;
        Ok((self.links.swap_remove(at).source, selected))
    }

    /// The key, and the place in the chain of the source that has it.
    fn search(&self) -> Result<(usize, Selected<RawKey>), ChainError> {
        let mut steps = Vec::with_capacity(self.links.len());
        let mut links = self.links.iter();
        let mut outcome = None;
        for link in links.by_ref() {
            let loaded = source::load(&*link.source, self.profile);
            steps.push(Step::of(&*link.source, &loaded));
            match loaded {
                Ok(Loaded::Absent(_)) => {}
                Ok(Loaded::Found(found)) => outcome = Some(Ok(found)),
                Err(error) => outcome = Some(Err(error)),
            }
            if outcome.is_some() {
                break;
            }
        }
        let at = steps.len().saturating_sub(1);
        steps.extend(links.map(|link| Step::not_asked(&*link.source)));
        let profile = self.profile;
        let near_misses =
            if matches!(outcome, Some(Ok(_))) { Vec::new() } else { NearMiss::of(&steps, profile) };
        let trail = Attempts::new(steps, near_misses);
        match outcome {
            None => Err(ChainError::NoKey { profile, trail }),
            Some(Err(error)) => Err(ChainError::Broken { profile, error: Box::new(error), trail }),
            Some(Ok(found)) => {
                let provenance = found.provenance().clone();
                Ok((at, Selected { provenance, key: found.into_key(), trail }))
            }
        }
    }

    /// As [`Chain::explain`].
    ///
    /// ```
    /// # use keysheath::chain::RawChain;
    /// # use keysheath::key::{Issuer, Kanal};
    /// println!("{}", RawChain::for_service(Kanal::PROFILE).explain());
    /// ```
    #[must_use]
    pub fn explain(&self) -> Explanation {
        let mut explained = Vec::with_capacity(self.links.len());
        let mut in_force: Option<Found> = None;
        let mut stopped = false;
        for link in &self.links {
            let loaded = source::load(&*link.source, self.profile);
            let step = Step::of(&*link.source, &loaded);
            let relation = match loaded {
                Ok(Loaded::Absent(_)) => Relation::Nothing,
                Err(_) if in_force.is_some() || stopped => Relation::BrokenBelow,
                Err(_) => Relation::Stops,
                Ok(Loaded::Found(found)) => match &in_force {
                    Some(first) if first.key() == found.key() => Relation::SameKey,
                    Some(_) => Relation::OtherKey,
                    None if stopped => Relation::BehindBroken,
                    None => {
                        in_force = Some(found);
                        Relation::InForce
                    }
                },
            };
            stopped |= relation == Relation::Stops;
            explained.push(Explained::new(step, relation, link.kind == Kind::Named));
        }
        let near_misses = if in_force.is_some() {
            Vec::new()
        } else {
            let steps: Vec<Step> = explained.iter().map(|place| place.step().clone()).collect();
            NearMiss::of(&steps, self.profile)
        };
        Explanation::new(explained, near_misses)
    }
}

impl<I: Issuer> Default for Chain<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Issuer> fmt::Debug for Chain<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

impl fmt::Debug for RawChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({}", self.profile.name())?;
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
    use crate::source::Problem;

    #[test]
    fn an_unbuilt_keychain_is_broken_and_not_absent() {
        let mut chain = Chain::<Kanal>::standard();
        let explanation = chain.explain();
        let last = explanation.places().last().expect("the chain has places").step();
        let problem = Problem::NotBuilt { feature: "keychain" };
        assert_eq!(last.provenance().to_string(), "keychain item keysheath/kanal");
        assert_eq!(last.witness(), &AttemptOutcome::Broken(problem.clone()));

        chain.raw.links.drain(..3);
        let error = chain.with(Variable::new("NO_SUCH_VARIABLE")).load().expect_err("no place has a key");
        let message = error.to_string();
        assert!(
            message.contains(
                "keysheath/kanal could not be asked: this build cannot read it: enable the feature \
            `keychain` of keysheath"
            ),
            "{message}"
        );
        let ChainError::Broken { error, trail, .. } = error else { panic!("{message}") };
        assert_eq!(error.problem(), &problem);
        assert_eq!(trail.steps()[1].witness(), &AttemptOutcome::NotAsked);
    }
}
