//! Keeping an access token fresh, in this process and among all that share its grant.

mod refreshing;
mod run;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{GrantError, GrantState, OAuthApp};
use crate::handle::{Generation, KeyHandle, Publisher};
use crate::internal::events::{Callback, Event, EventSender, trace_line};
use crate::internal::threads::{Health, SHUTDOWN_TIMEOUT, Worker};
use crate::internal::time::{Cadence, LONGEST, SHORTEST};
use crate::key::Issuer;
use crate::source::Provenance;
use crate::store::DocumentStore;

use run::Runner;

/// Keeps a handle on a fresh access token until it is dropped.
///
/// It reads the grant in the background, publishes each new access token, and refreshes it ahead of its
/// end, unless another process that shares the store has done so or is doing it. A token that the API refuses
/// is refreshed at once; the client layers wait for that. Whatever fails, the active token stays active;
/// [`TokenKeeper::status`] and the [events](KeeperSettings::on_event) report what has failed.
///
/// A token ends when either the wall clock or the monotonic one says so. After a suspend, or when a clock is
/// set, the keeper notices within 5 s.
///
/// New tokens are persisted before they are used. While the store refuses them they are kept, tried again,
/// and not used ([`GrantError::NotPersisted`]); callers that ask for a newer token are answered at once
/// that there is none.
///
/// Dropping it ends it and blocks until that is done: a refresh in progress is finished first, so
/// that its tokens are not lost, and the last events are passed on. It blocks for at most the lease and 5 s;
/// [`close`](Self::close) blocks for a time of your own. In async code, start and end it in your runtime's
/// `spawn_blocking`.
///
/// ```no_run
/// use keysheath::oauth::{KeeperSettings, OAuthApp, TokenKeeper};
/// use keysheath::source::KeyRef;
/// use keysheath::store::FileStore;
///
/// let secret: KeyRef = "env:KATANA_CLIENT_SECRET".parse()?;
/// let app = OAuthApp::katana("my-client-id", secret.source()?)?;
/// let keeper = TokenKeeper::start(app, FileStore::new("katana-grant"), KeeperSettings::new())?;
/// println!("{:?}, {}", keeper.handle(), keeper.status());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the token is kept fresh until this is dropped"]
pub struct TokenKeeper<I: Issuer> {
    handle: KeyHandle<I>,
    worker: Worker<KeeperStatus>,
}

impl<I: Issuer> TokenKeeper<I> {
    /// Reads the grant and starts the keeper. Blocks as the store does; the server is asked later, in the
    /// background.
    ///
    /// # Errors
    /// [`GrantError`] if there is no usable grant; [`GrantError::LeaseTooShort`]; [`GrantError::NoThread`].
    pub fn start(
        app: OAuthApp<I>,
        store: impl DocumentStore + 'static,
        mut settings: KeeperSettings,
    ) -> Result<Self, GrantError> {
        if settings.lease < app.deadline() {
            return Err(GrantError::LeaseTooShort { lease: settings.lease, deadline: app.deadline() });
        }
        let status = KeeperStatus {
            provenance: store.provenance(),
            generation: None,
            state: GrantState::Good,
            health: Health::new(),
        };
        let (events, event_thread) = EventSender::start(settings.on_event.take()).map_err(no_thread)?;
        let publisher = Publisher::new();
        let handle = publisher.handle();
        let reloader = Arc::new(publisher.reloader());
        let (waking, leaving) = (Arc::clone(&reloader), Arc::clone(&reloader));
        let mut worker = Worker::new(status, event_thread, move || waking.wake(), move || leaving.leave());
        // A refresh in progress is finished, so that its tokens are not lost.
        worker.set_drop_timeout(settings.lease + SHUTDOWN_TIMEOUT);
        let link = Arc::clone(worker.link());
        let runner = Runner::new(app, Arc::new(store), settings, (publisher, reloader), link, events);
        let mut runner = Box::new(runner);
        runner.look()?;
        let (on_panic, foreign) = (runner.on_panic(), runner.foreign());
        worker.run(runner.poll(), on_panic, foreign).map_err(no_thread)?;
        Ok(Self { handle, worker })
    }

    /// Returns the handle that is kept fresh. Clone it for everything that sends the token.
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.handle.clone()
    }

    /// Returns the current status.
    #[must_use]
    pub fn status(&self) -> KeeperStatus {
        let mut status = self.worker.link().with(|status| status.clone());
        status.health.set_dropped_events(self.worker.dropped_events());
        status
    }

    /// Ends the keeper and blocks until it has ended, at most for the timeout. Returns whether it has:
    /// `false` means that its work is left behind, and may still be persisting the tokens of a refresh. In
    /// a forked child it does nothing.
    #[allow(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn close(mut self, timeout: Duration) -> bool {
        self.worker.end(timeout)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn no_thread(error: std::io::Error) -> GrantError {
    GrantError::NoThread(error.kind())
}

impl<I: Issuer> fmt::Debug for TokenKeeper<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeeper({:?}, {})", self.handle, self.status().provenance())
    }
}

/// The settings of a [`TokenKeeper`].
///
/// | setting | default |
/// |---|---|
/// | [cadence](Self::with_cadence): polls of the store | 30 s |
/// | – minimum interval between attempts to refresh | 1 s |
/// | – longest back-off | 5 min |
/// | [refresh ahead](Self::with_refresh_ahead) of the end of an access token | 20 % of its lifetime |
/// | [jitter](Self::with_refresh_jitter), added to that at random | up to 10 % of its lifetime |
/// | [lease](Self::with_lease) of a refresh | 30 s |
/// | [grace](Self::with_grace) of the previous token | 1 min |
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    cadence: Cadence,
    /// In percent, both.
    ahead: u8,
    jitter: u8,
    lease: Duration,
    grace: Duration,
    on_event: Option<Callback<KeeperEvent>>,
}

impl KeeperSettings {
    /// Returns the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cadence: Cadence::new(),
            ahead: 20,
            jitter: 10,
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            on_event: None,
        }
    }

    /// Sets how often the store is read, so that what another process has refreshed is seen, and how attempts
    /// to refresh back off while they fail, or while a token is refused as soon as it is there.
    #[must_use]
    pub const fn with_cadence(mut self, cadence: Cadence) -> Self {
        self.cadence = cadence;
        self
    }

    /// Sets how much of its lifetime an access token has left when it is refreshed, in percent; at most 90.
    #[must_use]
    pub fn with_refresh_ahead(mut self, percent: u8) -> Self {
        self.ahead = percent.min(90);
        self
    }

    /// Sets how much of its lifetime may be added to that at random, in percent, so that processes do not
    /// refresh together; at most 90.
    #[must_use]
    pub fn with_refresh_jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(90);
        self
    }

    /// Sets the length of a lease; at most a day, and at least the app's
    /// [deadline](super::OAuthApp::with_deadline): a keeper does not start with a shorter one. The
    /// refresh token is sent in the first two thirds of it or not at all, and the answer is awaited until its
    /// end. Processes that share a grant may differ in it.
    #[must_use]
    pub fn with_lease(mut self, length: Duration) -> Self {
        self.lease = length.clamp(SHORTEST, LONGEST);
        self
    }

    /// Sets how long a refused request may be repeated with the previous token.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the callback for events. It is called in order, on a thread of its own, so a callback that blocks
    /// delays no refresh. Up to 64 events wait for it; events beyond are dropped, and the status counts them.
    /// A panic in it is caught.
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&KeeperEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Callback::new(tell));
        self
    }

    /// The time of a lease within which the refresh token is sent.
    fn sending_bound(&self) -> Duration {
        self.lease / 3 * 2
    }

    /// How long to wait after so many useless attempts in a row.
    fn rest(&self, in_a_row: u32) -> Duration {
        self.cadence.back_off(in_a_row.saturating_sub(1))
    }
}

impl Default for KeeperSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// The status of a [`TokenKeeper`]. Its `Display` is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperStatus {
    provenance: Provenance,
    generation: Option<Generation>,
    state: GrantState,
    health: Health<GrantError>,
}

/// What happened to a [`TokenKeeper`]; see
/// [`KeeperSettings::on_event`]. Its `Display` is a line for a log.
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
        problem: GrantError,
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
    pub const fn health(&self) -> &Health<GrantError> {
        &self.health
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
                "the grant in {provenance} was an older copy, whose refresh token is used up, and the newest \
                 was written back: find out what put the copy there"
            ),
            Self::Failed { problem, failures, provenance } => write!(
                f,
                "grant in {provenance}: {problem}; the active access token stays active (consecutive \
                 failures: {failures})"
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
    fn trace(&self) {
        match self {
            Self::Refreshed { .. } | Self::Recovered { .. } => trace_line!(info: "{self}"),
            _ => trace_line!(warn: "{self}"),
        }
    }
}
