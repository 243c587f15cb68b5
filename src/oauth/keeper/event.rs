//! What a keeper tells.

use std::fmt;

use super::KeeperProblem;
use crate::handle::Generation;
use crate::internal::events::Event;
use crate::source::Provenance;

/// What happened to a keeper; see [`KeeperSettings::on_event`](super::KeeperSettings::on_event). Its `Display` is a line for a
/// log.
///
/// ```
/// use keysheath::oauth::KeeperEvent;
/// fn log(event: &KeeperEvent) {
///     match event {
///         KeeperEvent::Refused { .. } | KeeperEvent::InDoubt { .. } => eprintln!("call somebody: {event}"),
///         KeeperEvent::Replaced { .. } => eprintln!("somebody has signed in: {event}"),
///         KeeperEvent::Failed { failures: 1, .. } => eprintln!("warning: {event}"),
///         KeeperEvent::Failed { .. } => {}
///         _ => println!("{event}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeeperEvent {
    /// An access token is in force that was not before; at the start, the first one.
    #[non_exhaustive]
    Refreshed {
        /// Its number in the grant.
        generation: Generation,
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// Somebody has signed in again and saved the tokens in this place: from now on the access token is of that sign-in, which may
    /// be another account's.
    #[non_exhaustive]
    Replaced {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// The store had an older copy of the grant, whose refresh token is used up. This keeper has written the newest back.
    #[non_exhaustive]
    WrittenBack {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// An attempt failed; the access token in force stays there.
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
    /// The grant has become one that the server has refused, as this keeper was told by the server or by the document: a person
    /// must sign in again.
    Refused {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
    /// The grant has become one in doubt: a refresh was begun and nobody knows how it ended, so a person may have to sign in
    /// again.
    InDoubt {
        /// Where the grant is persisted.
        provenance: Provenance,
    },
}

impl fmt::Display for KeeperEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refreshed { generation, provenance } => {
                write!(f, "access token {generation} of the grant in {provenance} is in force")
            }
            Self::Replaced { provenance } => {
                write!(
                    f,
                    "the grant in {provenance} is of another sign-in than before: see whether that is meant"
                )
            }
            Self::WrittenBack { provenance } => write!(
                f,
                "the grant in {provenance} was an older copy, whose refresh token is used up, and the newest was written back: \
                 see what has put the copy there"
            ),
            Self::Failed { problem, failures, provenance } => write!(
                f,
                "grant in {provenance}: {problem}; the access token in force stays there (failed in a row: {failures})"
            ),
            Self::Recovered { failures, provenance } => {
                write!(f, "the grant in {provenance} is well again (attempts that had failed: {failures})")
            }
            Self::Refused { provenance } => {
                write!(f, "the grant in {provenance} is refused by the server: somebody must sign in again")
            }
            Self::InDoubt { provenance } => write!(
                f,
                "the grant in {provenance} is in doubt, because a refresh was begun and its end is not known: somebody may \
                 have to sign in again"
            ),
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
