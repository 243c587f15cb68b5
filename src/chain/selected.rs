//! What loading a chain gives.

use std::fmt;

use super::trail::Below;
use super::{AttemptOutcome, Attempts};
#[cfg(feature = "tracing")]
use crate::internal::events::Trace;
use crate::key::Profile;
use crate::key::{FormatRule, Hint};
use crate::source::{Problem, Provenance, Remark, SourceError};

/// A key, where it came from, and what every source answered. `K` is an [`ApiKey`](crate::key::ApiKey) or a
/// [`RawKey`](crate::key::RawKey).
///
/// ```no_run
/// # use keysheath::chain::Chain;
/// # use keysheath::key::Kanal;
/// let selected = Chain::<Kanal>::for_service().load()?;
/// println!("{:?}, {}", selected.key(), selected.provenance());
/// # Ok::<(), keysheath::chain::ChainError>(())
/// ```
#[derive(Debug)]
pub struct Selected<K> {
    pub(super) key: K,
    pub(super) provenance: Provenance,
    pub(super) trail: Attempts,
}

/// No key came out of a chain.
///
/// ```
/// use keysheath::chain::{Chain, ChainError};
/// use keysheath::key::Kanal;
///
/// let error = Chain::<Kanal>::new().load().unwrap_err();
/// assert!(matches!(error, ChainError::NoKey { .. }));
/// assert!(error.to_string().contains("Settings → API Keys"));
/// ```
#[non_exhaustive]
pub enum ChainError {
    /// Every source answered that it has nothing.
    #[non_exhaustive]
    NoKey {
        /// The issuer whose key was wanted.
        profile: &'static Profile,
        /// What every source answered.
        trail: Attempts,
    },
    /// A source has something that is broken, or could not be asked; the sources after it were not asked.
    #[non_exhaustive]
    Broken {
        /// The issuer whose key was wanted.
        profile: &'static Profile,
        /// What is broken, where, and what to do next.
        error: Box<SourceError>,
        /// What every source answered.
        trail: Attempts,
    },
}

impl ChainError {
    /// What every source answered.
    ///
    /// ```
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::source::Variable;
    /// let chain = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE"));
    /// assert_eq!(chain.load().unwrap_err().trail().steps().len(), 1);
    /// ```
    #[must_use]
    pub const fn trail(&self) -> &Attempts {
        match self {
            Self::NoKey { trail, .. } | Self::Broken { trail, .. } => trail,
        }
    }
}

impl<K> Selected<K> {
    /// The key.
    ///
    /// ```no_run
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// println!("{:?}", Chain::<Kanal>::for_service().load()?.key());
    /// # Ok::<(), keysheath::chain::ChainError>(())
    /// ```
    #[must_use]
    pub const fn key(&self) -> &K {
        &self.key
    }

    /// Gives the key out.
    ///
    /// ```no_run
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// let key = Chain::<Kanal>::for_service().load()?.into_key();
    /// # Ok::<(), keysheath::chain::ChainError>(())
    /// ```
    #[must_use]
    pub fn into_key(self) -> K {
        self.key
    }

    /// Where the key came from.
    ///
    /// ```no_run
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// println!("from {}", Chain::<Kanal>::for_service().load()?.provenance());
    /// # Ok::<(), keysheath::chain::ChainError>(())
    /// ```
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What a person should know about the place, such as that every user can read the file. With the feature `tracing`,
    /// loading a chain gives a warning for each.
    ///
    /// ```no_run
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// for remark in Chain::<Kanal>::for_service().load()?.remarks() {
    ///     eprintln!("{remark}");
    /// }
    /// # Ok::<(), keysheath::chain::ChainError>(())
    /// ```
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        let found = self.trail.steps().iter().find_map(|step| match step.witness() {
            AttemptOutcome::Found { remarks, .. } => Some(&**remarks),
            _ => None,
        });
        found.unwrap_or_default()
    }

    #[cfg(feature = "tracing")]
    pub(super) fn trace_remarks(&self) {
        for remark in self.remarks() {
            Trace::here().line_and_wait(|| {
                let (place, remark) = (self.provenance.to_string(), *remark);
                move || tracing::warn!("{place}: {remark}")
            });
        }
    }

    /// What every source answered.
    ///
    /// ```no_run
    /// # use keysheath::chain::Chain;
    /// # use keysheath::key::Kanal;
    /// print!("{}", Chain::<Kanal>::for_service().load()?.trail());
    /// # Ok::<(), keysheath::chain::ChainError>(())
    /// ```
    #[must_use]
    pub const fn trail(&self) -> &Attempts {
        &self.trail
    }
}

impl std::error::Error for ChainError {}

impl fmt::Display for ChainError {
    /// What is missing or wrong, and a line for each source. Each cause is said once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey { profile, trail } if trail.steps().is_empty() => writeln!(
                f,
                "no {} key was found: the chain has no sources: add the place of the key; where there is no key yet, {}",
                profile.title(),
                Create(profile)
            ),
            Self::NoKey { profile, trail } => write!(
                f,
                "no {} key was found: {}, and put it into one of these places:\n{trail}",
                profile.title(),
                Create(profile)
            ),
            Self::Broken { profile, error, trail } if error.problem().is_unasked() => write!(
                f,
                "no {} key was found, and {} could not be asked: {}{}; where there is no key yet, {}\n{}{}",
                profile.title(),
                error.provenance(),
                error.problem(),
                if trail.steps().len() > 1 { "; or put the key into another place of the chain" } else { "" },
                Create(profile),
                Below(trail),
                below(trail)
            ),
            Self::Broken { profile, error, trail } if matches!(error.problem(), Problem::Missing { .. }) => {
                write!(
                    f,
                    "no {} key was found; {error}; where there is no key yet, {}\n{}{}",
                    profile.title(),
                    Create(profile),
                    Below(trail),
                    below(trail)
                )
            }
            Self::Broken { profile, error, trail } => write!(
                f,
                "the search for a {} key ended at a broken place: {error}{}\n{}{}",
                profile.title(),
                CreateInstead(error.problem(), profile),
                Below(trail),
                below(trail)
            ),
        }
    }
}

/// Where a person makes a key.
struct Create<'a>(&'a Profile);

impl fmt::Display for Create<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create one in {} ({})", self.0.title(), self.0.key_page())
    }
}

/// Where a person creates a key, if the value was a placeholder.
struct CreateInstead<'a>(&'a Problem, &'a Profile);

impl fmt::Display for CreateInstead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_placeholder = matches!(self.0, Problem::Malformed(error)
            if error.rule() == FormatRule::Placeholder || error.hint() == Some(Hint::Placeholder));
        if is_placeholder { write!(f, "; where there is no key yet, {}", Create(self.1)) } else { Ok(()) }
    }
}

impl fmt::Debug for ChainError {
    /// As [`Display`](fmt::Display): a `main` that ends with the error prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the places below a broken one were not asked, where there are any.
fn below(trail: &Attempts) -> &'static str {
    if trail.steps().iter().any(|step| *step.witness() == AttemptOutcome::NotAsked) {
        "the places below it were not asked, because they may hold the key of another account\n"
    } else {
        ""
    }
}
