//! What a keeper reports: its status, and its events.

use std::fmt;

use super::super::KeeperProblem;
use crate::handle::Generation;
use crate::internal::background::Health;
use crate::internal::events::Event;
use crate::source::Provenance;

/// The state of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantState {
    /// The next refresh is expected to succeed.
    Good,
    /// A refresh was begun and its outcome is unknown: the next one may be refused.
    InDoubt,
    /// The server has refused the refresh token.
    Refused,
}

/// The status of a [`TokenKeeper`](super::TokenKeeper). Its `Display` is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperStatus {
    pub(super) provenance: Provenance,
    pub(super) generation: Option<Generation>,
    pub(super) state: GrantState,
    pub(super) health: Health<KeeperProblem>,
}

/// What happened to a [`TokenKeeper`](super::TokenKeeper); see
/// [`KeeperSettings::on_event`](super::KeeperSettings::on_event). Its `Display` is a line for a log.
///
/// `Refused`, `InDoubt` and `Replaced` need a person. A `Failed` with one failure is worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeeperEvent {
    /// Another access token is active; at the start, the first one.
    #[non_exhaustive]
    Refreshed {
        /// Its number in the grant.
        generation: Generation,
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// A person has signed in again and saved the tokens in this place. From now on the access token is of
    /// that sign-in, which may be another account's.
    #[non_exhaustive]
    Replaced {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// The store had an older copy of the grant, whose refresh token is used up. This keeper has written the
    /// newest back.
    #[non_exhaustive]
    WrittenBack {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// An attempt failed. The active access token stays active.
    #[non_exhaustive]
    Failed {
        /// Why.
        problem: KeeperProblem,
        /// How many have failed in a row, this one included.
        failures: u32,
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// An attempt succeeded after others had failed.
    Recovered {
        /// How many had failed.
        failures: u32,
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// The server refuses the grant, as it has said or as the document says: a person must sign in again.
    Refused {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// The grant is in doubt: a refresh was begun and its outcome is unknown, so a person may have to sign in
    /// again.
    InDoubt {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
}

impl KeeperStatus {
    /// Returns where the grant is persisted.
    #[must_use]
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns the number of the access token that was published last.
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Returns the state of the grant, as this keeper saw it last.
    #[must_use]
    pub const fn state(&self) -> GrantState {
        self.state
    }

    /// Returns how the attempts go. A failure of the server ends with new tokens, not when the store can be
    /// read.
    #[must_use]
    pub const fn health(&self) -> &Health<KeeperProblem> {
        &self.health
    }
}

impl fmt::Display for GrantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::InDoubt => {
                "in doubt: a refresh was begun and its outcome is unknown, so a person may have to sign in again"
            }
            Self::Refused => "refused by the server: a person must sign in again",
        })
    }
}

impl fmt::Display for KeeperStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant in {}, {}", self.provenance, self.state)?;
        if let Some(generation) = self.generation {
            write!(f, ", access token {generation}")?;
        }
        write!(f, "; {}", self.health)
    }
}

impl fmt::Display for KeeperEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refreshed { generation, provenance } => {
                write!(f, "access token {generation} of the grant in {provenance} is active")
            }
            Self::Replaced { provenance } => {
                write!(
                    f,
                    "the grant in {provenance} is of another sign-in than before: check that it is intended"
                )
            }
            Self::WrittenBack { provenance } => write!(
                f,
                "the grant in {provenance} was an older copy, whose refresh token is used up, and the newest was written \
                 back: find out what put the copy there"
            ),
            Self::Failed { problem, failures, provenance } => write!(
                f,
                "grant in {provenance}: {problem}; the active access token stays active (consecutive failures: {failures})"
            ),
            Self::Recovered { failures, provenance } => {
                write!(f, "the grant in {provenance} has recovered (failed attempts before: {failures})")
            }
            Self::Refused { provenance } => {
                write!(f, "the grant in {provenance} is {}", GrantState::Refused)
            }
            Self::InDoubt { provenance } => write!(f, "the grant in {provenance} is {}", GrantState::InDoubt),
        }
    }
}

impl Event for KeeperEvent {
    #[cfg(feature = "tracing")]
    fn trace(&self) {
        match self {
            Self::Refreshed { .. } | Self::Recovered { .. } => tracing::info!("{self}"),
            _ => tracing::warn!("{self}"),
        }
    }
}
