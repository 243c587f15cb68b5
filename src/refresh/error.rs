//! What can go wrong with a refresher and with one of its reloads.

use std::io::ErrorKind;

use crate::chain::ChainError;
use crate::handle::Generation;
use crate::keyset::KeySetError;
use crate::source::{Absence, Problem, Provenance};
use crate::store::DocumentError;

/// A refresher could not be started: why, and what to do next.
///
/// ```
/// use keysheath::chain::Chain;
/// use keysheath::key::Kanal;
/// use keysheath::refresh::{RefreshError, RefreshSettings, Refresher};
///
/// let error = Refresher::from_chain(Chain::<Kanal>::new(), RefreshSettings::new()).unwrap_err();
/// assert!(matches!(error, RefreshError::Chain(_)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// No key came out of the chain.
    #[error("{0}")]
    Chain(ChainError),
    /// The document of a store, or the key of a source, cannot be used.
    #[error("{0}")]
    Place(ReloadError),
    /// The operating system gave no thread.
    #[error("the refresher's thread could not be started ({0}): raise the limit of threads or of memory")]
    NoThread(ErrorKind),
}

/// A reload failed: where, why, and what to do next. The last good key stays in force.
///
/// It holds no byte of what was read.
///
/// ```
/// use keysheath::refresh::{ReloadError, ReloadProblem};
/// fn log(error: &ReloadError) {
///     if matches!(error.problem(), ReloadProblem::Absent(_)) {
///         println!("the key is gone from {}", error.provenance());
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provenance}: {problem}")]
pub struct ReloadError {
    provenance: Provenance,
    problem: ReloadProblem,
}

/// Why a reload failed, and what to do next.
///
/// ```
/// use keysheath::refresh::ReloadProblem;
/// assert!(ReloadProblem::Gone.to_string().contains("restore it"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadProblem {
    /// The source that the key came from has none any more. No other place is asked: it may hold the key of another
    /// account.
    #[error("{0}, and the key in force came from here, so no other place is asked: put the key back here")]
    Absent(Absence),
    /// The source has something, and a key cannot be had from it.
    #[error("{0}")]
    Source(Problem),
    /// The variable names another file than the one that the key came from.
    #[error(
        "the variable names another file than before, which may hold the key of another account: restart to take it"
    )]
    OtherFile,
    /// The document cannot be had.
    #[error("{0}")]
    Document(DocumentError),
    /// The document is not a key set of this issuer.
    #[error("{0}")]
    KeySet(KeySetError),
    /// There was a document, or a key in force, and there is no document.
    #[error("there is no document any more, and a key is in force: restore it from a backup")]
    Gone,
    /// The key set is an older one than what is in force.
    #[error(
        "its key set is older than generation {in_force}, which is in force: see who put an older copy there or began \
         it anew, and restore the newer one; a restart takes the older one"
    )]
    #[non_exhaustive]
    WentBack {
        /// What is in force.
        in_force: Generation,
    },
    /// It is not the key set that the handle has its keys from: it was begun with another key.
    #[error(
        "its key set is not the one whose keys the handle has (it was begun with another key): see who began it anew \
         or put another one there, and restore the right one; a restart takes this one"
    )]
    OtherKeySet,
    /// The refresher has ended by a panic, of a source or a store of your own.
    #[error(
        "the refresher has ended by a panic, which is on standard error, and reloads no more: start another one, or \
         restart"
    )]
    Ended,
    /// The key there was stopped in this process, because it has leaked.
    #[error(
        "the key there was stopped in this process, because it has leaked, and is not sent again: create a new key in \
         the app, and put it there; in a key set, record the compromise first"
    )]
    Stopped,
    /// The key set has another key in the generation that is in force.
    #[error(
        "its key set has another key as generation {in_force} than the one in force: see who began it anew, and \
         restore the right one; a restart takes this one"
    )]
    #[non_exhaustive]
    OtherKey {
        /// What is in force.
        in_force: Generation,
    },
}

impl ReloadError {
    pub(super) const fn new(provenance: Provenance, problem: ReloadProblem) -> Self {
        Self { provenance, problem }
    }

    /// Where.
    ///
    /// ```
    /// # use keysheath::refresh::ReloadError;
    /// fn log(error: &ReloadError) {
    ///     println!("{}", error.provenance());
    /// }
    /// ```
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Why.
    ///
    /// ```
    /// # use keysheath::refresh::ReloadError;
    /// fn log(error: &ReloadError) {
    ///     println!("{}", error.problem());
    /// }
    /// ```
    #[must_use]
    pub const fn problem(&self) -> &ReloadProblem {
        &self.problem
    }
}
