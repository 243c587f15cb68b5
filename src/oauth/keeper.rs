//! Keeping an access token fresh, in this process and among all that share its grant.

mod event;
mod refreshing;
mod run;
mod schedule;
mod settings;
mod shared;
mod status;

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{GrantError, OAuthApp};
use crate::handle::KeyHandle;
use crate::internal::events::{self, EventSender, Telling};
use crate::key::Issuer;
use crate::store::DocumentStore;

pub use event::KeeperEvent;
pub use settings::KeeperSettings;
pub use status::{GrantState, KeeperError, KeeperProblem, KeeperStatus};

use run::Runner;
use shared::Shared;

/// How long a keeper that is dropped is waited for beyond its lease, to persist what a refresh has brought.
const PERSISTING: Duration = Duration::from_secs(5);

/// Keeps a live handle on a fresh access token until it is dropped.
///
/// It reads the grant on a thread of its own, publishes each new access token, and refreshes it ahead of its end, unless another
/// process that shares the store has done so or is at it. A token that its API refuses is refreshed at once: the client layers wait
/// for that. Whatever fails, the token in force stays there; [`TokenKeeper::status`] and the [events](KeeperSettings::on_event) say
/// what has failed.
///
/// It goes by the wall clock and by the monotonic one, and a token ends when either says so. After a suspend, or when a clock is set,
/// it finds out within 5 s.
///
/// New tokens are persisted before they are used. While the store does not take them they are kept, tried again, and not used
/// ([`KeeperProblem::NotPersisted`]): the token in force stays there, and those who ask for a newer one are told at once that
/// there is none.
///
/// Dropping it ends its threads and waits for that: a refresh that is under way is finished first, so that its tokens are not
/// lost, within the length of the lease and 5 s, and the last events are told. In async code, start and drop it through your
/// runtime's `spawn_blocking`.
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
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The thread that tells of events.
    telling: Option<Telling>,
    patience: Duration,
}

impl<I: Issuer> TokenKeeper<I> {
    /// Reads the grant, and keeps a new handle on its access token. Blocks as the store does; the server is asked later, on the
    /// keeper's own thread.
    ///
    /// # Errors
    /// [`KeeperError::Grant`] where there is no grant, or none that can be used; [`KeeperError::LeaseTooShort`].
    ///
    /// ```
    /// # use keysheath::oauth::{KeeperSettings, OAuthApp, TokenKeeper};
    /// # use keysheath::source::SecretFile;
    /// # use keysheath::store::MemoryStore;
    /// let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// // Nobody has signed in.
    /// assert!(TokenKeeper::start(app, MemoryStore::new(), KeeperSettings::new()).is_err());
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn start(
        app: OAuthApp<I>,
        store: impl DocumentStore + 'static,
        settings: KeeperSettings,
    ) -> Result<Self, KeeperError> {
        Self::start_into(app, store, &KeyHandle::live(), settings)
    }

    /// As [`TokenKeeper::start`], for a live handle that is there already.
    ///
    /// # Errors
    /// As [`TokenKeeper::start`]; [`KeeperError::FixedHandle`]; [`KeeperError::WentBack`] where the handle has a newer token of this
    /// grant; and [`KeeperError::OtherPublisher`] where it has its keys from a source, a key set or another grant.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::oauth::{KeeperSettings, OAuthApp, TokenKeeper};
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::source::SecretFile;
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// let handle = KeyHandle::live();
    /// assert!(TokenKeeper::start_into(app, MemoryStore::new(), &handle, KeeperSettings::new()).is_err());
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn start_into(
        app: OAuthApp<I>,
        store: impl DocumentStore + 'static,
        handle: &KeyHandle<I>,
        mut settings: KeeperSettings,
    ) -> Result<Self, KeeperError> {
        let raw = handle.to_raw().ok_or(KeeperError::FixedHandle)?;
        if settings.lease < app.deadline() {
            return Err(KeeperError::LeaseTooShort { lease: settings.lease, deadline: app.deadline() });
        }
        let patience = settings.lease + PERSISTING;
        // Before the handle counts this keeper: a failure here leaves nothing.
        let (teller, telling) = EventSender::start(settings.on_event.take()).map_err(no_thread)?;
        let shared = Arc::new(Shared::attach(raw, store.provenance(), teller.untold()));
        let mut runner = Runner::new(app, Arc::new(store), settings, Arc::clone(&shared), teller);
        // From here on, dropping it leaves the handle's reloads.
        let mut keeper = Self { handle: handle.clone(), shared, thread: None, telling, patience };
        match runner.look() {
            Ok(_) => {}
            Err(KeeperProblem::Grant(error)) => return Err(KeeperError::Grant(error)),
            Err(KeeperProblem::OtherPublisher) => return Err(KeeperError::OtherPublisher),
            Err(_) => return Err(KeeperError::WentBack),
        }
        let thread = thread::Builder::new()
            .name("keysheath-oauth".into())
            .spawn(move || runner.run())
            .map_err(no_thread)?;
        keeper.thread = Some(thread);
        Ok(keeper)
    }

    /// The handle that is kept fresh. Clone it for everything that sends the token.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::KatanaApp;
    /// # use keysheath::oauth::TokenKeeper;
    /// fn handle(keeper: &TokenKeeper<KatanaApp>) -> KeyHandle<KatanaApp> {
    ///     keeper.handle()
    /// }
    /// ```
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.handle.clone()
    }

    /// How it fares.
    ///
    /// ```
    /// # use keysheath::key::KatanaApp;
    /// # use keysheath::oauth::TokenKeeper;
    /// fn log(keeper: &TokenKeeper<KatanaApp>) {
    ///     println!("{}", keeper.status());
    /// }
    /// ```
    #[must_use]
    pub fn status(&self) -> KeeperStatus {
        self.shared.status()
    }
}

impl From<GrantError> for KeeperProblem {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn no_thread(error: std::io::Error) -> KeeperError {
    KeeperError::NoThread(error.kind())
}

impl<I: Issuer> Drop for TokenKeeper<I> {
    fn drop(&mut self) {
        self.shared.stop();
        let Some(thread) = self.thread.take() else { return };
        events::end(thread, self.telling.take(), self.patience, |patience| {
            self.shared.wait_for_end(patience)
        });
    }
}

impl<I: Issuer> fmt::Debug for TokenKeeper<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeeper({:?}, {})", self.handle, self.shared.status().provenance())
    }
}
