//! What a refresher tells.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::shared::{Shared, Telling};
use super::{RefreshSettings, ReloadError};
use crate::fingerprint::Fingerprint;
use crate::handle::{Closed, Generation};
use crate::source::Provenance;

/// How many events wait for a callback that blocks; those beyond are counted, and not told.
///
/// ```
/// assert_eq!(keysheath::refresh::MAX_WAITING_EVENTS, 64);
/// ```
pub const MAX_WAITING_EVENTS: usize = 64;

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
    Refreshed {
        /// Its version number.
        generation: Generation,
        /// Its name; `None` where the issuer's keys could be guessed from it.
        fingerprint: Option<Fingerprint>,
        /// Where it came from.
        provenance: Provenance,
    },
    /// No key is in force any more.
    Closed {
        /// Why.
        closed: Closed,
        /// Where that was read.
        provenance: Provenance,
    },
    /// A reload failed; the last good key stays in force.
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
    /// The files of the place cannot be watched. Polling goes on.
    #[cfg(feature = "watch")]
    NotWatching {
        /// The place.
        provenance: Provenance,
        /// Why.
        problem: super::WatchProblem,
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
            Self::Closed { closed, provenance } => write!(f, "{provenance}: {closed}"),
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
            #[cfg(feature = "watch")]
            Self::NotWatching { provenance, problem } => {
                write!(f, "{provenance} is polled and not watched: {problem}")
            }
        }
    }
}

#[cfg(feature = "tracing")]
impl RefreshEvent {
    pub(super) fn trace(&self) {
        match self {
            Self::Refreshed { .. } | Self::Recovered { .. } | Self::CannotChange { .. } => {
                tracing::info!("{self}");
            }
            _ => tracing::warn!("{self}"),
        }
    }
}

/// Tells of events, without waiting for the callback.
#[derive(Clone)]
pub(super) struct Teller {
    queue: Option<SyncSender<RefreshEvent>>,
    shared: Arc<Shared>,
}

impl Teller {
    /// Starts the thread of the callback, if there is one. It ends with the last clone.
    pub(super) fn start(
        settings: &RefreshSettings,
        shared: &Arc<Shared>,
    ) -> std::io::Result<(Self, Option<JoinHandle<()>>)> {
        let shared = Arc::clone(shared);
        let Some(callback) = settings.callback() else { return Ok((Self { queue: None, shared }, None)) };
        let (queue, events) = sync_channel(MAX_WAITING_EVENTS);
        let telling = Telling::begin(Arc::clone(&shared));
        let thread = thread::Builder::new().name("keysheath-events".into()).spawn(move || {
            let _telling = telling;
            for event in events {
                // Its own message is on standard error; that it fails must not end the telling.
                let _ = catch_unwind(AssertUnwindSafe(|| callback(&event)));
            }
        })?;
        Ok((Self { queue: Some(queue), shared }, Some(thread)))
    }

    pub(super) fn tell(&self, event: RefreshEvent) {
        #[cfg(feature = "tracing")]
        event.trace();
        let Some(queue) = &self.queue else { return };
        if queue.try_send(event).is_err() {
            let mut state = self.shared.lock();
            state.status.untold = state.status.untold.saturating_add(1);
        }
    }
}
