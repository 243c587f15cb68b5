//! What a refresher tells.

use std::fmt;

use super::ReloadError;
use crate::handle::{Generation, NoActiveKey};
use crate::internal::events::{Event, MAX_WAITING};
use crate::key::Fingerprint;
use crate::source::{Provenance, Remark};

/// How many events wait for a callback that blocks; those beyond are counted, and not told.
///
/// ```
/// assert_eq!(keysheath::refresh::MAX_WAITING_EVENTS, 64);
/// ```
pub const MAX_WAITING_EVENTS: usize = MAX_WAITING;

/// What happened to a refresher; see [`RefreshSettings::on_event`](super::RefreshSettings::on_event). Its `Display` is a
/// line for a log.
///
/// ```
/// use keysheath::refresh::RefreshEvent;
/// fn log(event: &RefreshEvent) {
///     match event {
///         RefreshEvent::Failed { failures: 1, .. } => eprintln!("warning: {event}"),
///         RefreshEvent::Failed { .. } => {}
///         _ => println!("{event}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshEvent {
    /// A key is in force that was not before; at the start, the first one.
    #[non_exhaustive]
    Refreshed {
        /// Its version number.
        generation: Generation,
        /// Its name; `None` where the issuer's keys could be guessed from it.
        fingerprint: Option<Fingerprint>,
        /// Where it came from.
        provenance: Provenance,
    },
    /// No key is in force any more.
    #[non_exhaustive]
    NoActiveKey {
        /// Why.
        closed: NoActiveKey,
        /// Where that was read.
        provenance: Provenance,
    },
    /// A reload failed; the last good key stays in force.
    #[non_exhaustive]
    Failed {
        /// Where and why.
        error: ReloadError,
        /// How many have failed in a row, this one included.
        failures: u32,
    },
    /// A reload succeeded after others had failed.
    Recovered {
        /// Where.
        provenance: Provenance,
        /// How many had failed.
        failures: u32,
    },
    /// The place cannot change while the process runs, so it is not polled. It is told once, at the start.
    CannotChange {
        /// The place.
        provenance: Provenance,
    },
    /// The key was found, and with it something that a person should know, such as a file that every user can read. It is
    /// told once for as long as it is so.
    #[non_exhaustive]
    Remarked {
        /// The place.
        provenance: Provenance,
        /// What.
        remark: Remark,
    },
    /// The files of the place cannot be watched. Polling goes on.
    #[cfg(feature = "watch")]
    #[non_exhaustive]
    NotWatching {
        /// The place.
        provenance: Provenance,
        /// Why.
        problem: super::WatchProblem,
    },
    /// The files of the place are watched again, after [`RefreshEvent::NotWatching`].
    #[cfg(feature = "watch")]
    #[non_exhaustive]
    WatchingAgain {
        /// The place.
        provenance: Provenance,
    },
}

impl fmt::Display for RefreshEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refreshed { generation, fingerprint, provenance } => {
                write!(f, "generation {generation} is in force")?;
                if let Some(fingerprint) = fingerprint {
                    write!(f, ", fingerprint {fingerprint}")?;
                }
                write!(f, ", from {provenance}")
            }
            Self::NoActiveKey { closed, provenance } => write!(f, "{provenance}: {closed}"),
            Self::Failed { error, failures } => {
                write!(f, "{error}; the last good key stays in force (reloads failed in a row: {failures})")
            }
            Self::Recovered { provenance, failures } => {
                write!(f, "{provenance} can be read again (reloads that had failed: {failures})")
            }
            Self::CannotChange { provenance } => write!(
                f,
                "{provenance} cannot change while the process runs, so it is not polled: after a rotation, restart"
            ),
            Self::Remarked { provenance, remark } => write!(f, "{provenance}: {remark}"),
            #[cfg(feature = "watch")]
            Self::NotWatching { provenance, problem } => {
                write!(f, "{provenance} is polled and not watched: {problem}")
            }
            #[cfg(feature = "watch")]
            Self::WatchingAgain { provenance } => write!(f, "{provenance} is watched again"),
        }
    }
}

impl Event for RefreshEvent {
    #[cfg(feature = "tracing")]
    fn trace(&self) {
        match self {
            Self::Refreshed { .. } | Self::Recovered { .. } | Self::CannotChange { .. } => {
                tracing::info!("{self}");
            }
            #[cfg(feature = "watch")]
            Self::WatchingAgain { .. } => tracing::info!("{self}"),
            _ => tracing::warn!("{self}"),
        }
    }
}
