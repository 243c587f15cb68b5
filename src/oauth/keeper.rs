//! Keeping an access token fresh, in this process and among all that share its grant.

mod refreshing;
mod run;
mod schedule;
mod settings;
mod status;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{KeeperError, KeeperProblem, OAuthApp};
use crate::handle::{KeyHandle, Publisher};
use crate::internal::background::{Health, SHUTDOWN_TIMEOUT, Worker};
use crate::internal::events::EventSender;
use crate::key::Issuer;
use crate::store::DocumentStore;

pub use settings::KeeperSettings;
pub use status::{GrantState, KeeperEvent, KeeperStatus};

use run::Runner;

/// Keeps a live handle on a fresh access token until it is dropped.
///
/// It reads the grant on a thread of its own, publishes each new access token, and refreshes it ahead of its
/// end, unless another process that shares the store has done so or is at it. A token that its API refuses is
/// refreshed at once: the client layers wait for that. Whatever fails, the token in force stays there;
/// [`TokenKeeper::status`] and the [events](KeeperSettings::on_event) say what has failed.
///
/// It goes by the wall clock and by the monotonic one, and a token ends when either says so. After a suspend,
/// or when a clock is set, it finds out within 5 s.
///
/// New tokens are persisted before they are used. While the store does not take them they are kept, tried
/// again, and not used ([`KeeperProblem::NotPersisted`]): the token in force stays there, and those who ask
/// for a newer one are told at once that there is none.
///
/// Dropping it ends its threads and waits for that: a refresh that is under way is finished first, so that
/// its tokens are not lost, within the length of the lease and 5 s, and the last events are told. In async
/// code, start and drop it through your runtime's `spawn_blocking`.
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
    /// Reads the grant, and keeps its handles on its access token. Blocks as the store does; the server is
    /// asked later, on the keeper's own thread.
    ///
    /// # Errors
    /// [`KeeperError::Grant`] where there is no grant, or none that can be used;
    /// [`KeeperError::LeaseTooShort`].
    pub fn start(
        app: OAuthApp<I>,
        store: impl DocumentStore + 'static,
        mut settings: KeeperSettings,
    ) -> Result<Self, KeeperError> {
        if settings.lease < app.deadline() {
            return Err(KeeperError::LeaseTooShort { lease: settings.lease, deadline: app.deadline() });
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
        // A refresh that is under way is finished, so that its tokens are not lost.
        worker.set_drop_timeout(settings.lease + SHUTDOWN_TIMEOUT);
        let link = Arc::clone(worker.link());
        let mut runner = Runner::new(app, Arc::new(store), settings, (publisher, reloader), link, events);
        match runner.look() {
            Ok(_) => {}
            Err(KeeperProblem::Grant(error)) => return Err(KeeperError::Grant(error)),
            Err(_) => unreachable!("a new handle takes any grant"),
        }
        worker.start("keysheath-oauth", runner).map_err(no_thread)?;
        Ok(Self { handle, worker })
    }

    /// The handle that is kept fresh. Clone it for everything that sends the token.
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.handle.clone()
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> KeeperStatus {
        let mut status = self.worker.link().with(|status| status.clone());
        status.health.set_dropped_events(self.worker.dropped_events());
        status
    }

    /// Ends the keeper and blocks until it has ended, at most for the timeout. Returns whether it has:
    /// `false` means that its thread is left behind, and may still be persisting the tokens of a refresh. In
    /// a forked child it does nothing.
    #[allow(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn close(mut self, timeout: Duration) -> bool {
        self.worker.end(timeout)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn no_thread(error: std::io::Error) -> KeeperError {
    KeeperError::NoThread(error.kind())
}

impl<I: Issuer> fmt::Debug for TokenKeeper<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeeper({:?}, {})", self.handle, self.status().provenance())
    }
}
