//! Keeping a handle up to date, from the one place that its key comes from.
//!
//! A [`Refresher`] asks one source, or reads the key set in one document store, again and again on a thread of its own, and
//! publishes what it finds to a live [`KeyHandle`]. So a process takes a new key without a restart, also one that another
//! process has promoted. It needs no async runtime.
//!
//! - **One place.** A chain is searched once, at the start. From then on only the source that answered is asked: that
//!   its key is gone, or malformed, or cannot be read, is a failed reload, and no other source is asked, which
//!   might hold the key of another account.
//! - **The last good key stays in force** while reloads fail, and [`Refresher::status`] and the
//!   [events](RefreshSettings::on_event) say so.
//! - **Never back.** A key set that is older than what is in force is not taken, such as a restored copy; nor is one that
//!   was begun with another key than the one whose keys the handle has, however new it is: another account's, or a
//!   document that was begun anew. (One that was begun anew with the very same key is not told apart by that; it is not taken
//!   until it has passed the generation in force.)
//! - **One publisher.** A handle has its keys from one source, by one refresher at a time, or from one key set. Another one is
//!   refused: a key that has leaked could come back by it.
//! - **Polled**, with jitter; with the feature `watch`, followed as well where the place is a file.
//! - **Asked** when a request was refused: [`KeyHandle::report_refused`] of the generation in force asks for a reload, and
//!   [`KeyHandle::wait_newer_than`] waits for one. However many ask, one attempt answers them; attempts keep a minimum interval, and
//!   back off while they find nothing newer.
//! - **Not misled by a replica**: a place that may be behind, as an OpenBao standby may, is asked again for the
//!   [lag](RefreshSettings::with_lag) before the first refusal of a key is final.
//! - **Within a deadline**: a place that hangs does not hang the refresher.
//! - **In turn**: a process makes at most four calls at once to one place, and 64 in all
//!   ([`MAX_CALLS`](crate::source::MAX_CALLS)); to one OpenBao 32, whatever the number of key sets in it. A refresher whose turn
//!   does not come within the deadline reports [`Queued`](crate::source::CallError::Queued), and keeps the last good key. 100 refreshers of
//!   100 key sets in one OpenBao that answers in 200 ms are all answered in 0.8 s, and in 4 s where it answers in a second.
//!
//! A forked child has no refresher: its handles keep the key that they had, and say
//! [`NoRefresher`](crate::handle::Reload::NoRefresher). Start one after the fork. A fork while another thread publishes can leave
//! locks behind that are never given back, so fork before there are threads where you can.
//!
//! An environment variable cannot change under a running process, so it is not polled, and the status says so. Keep the key in
//! a file, the keychain or a key set where it is to be rotated without a restart.
//!
//! ```
//! use std::time::Duration;
//! use keysheath::chain::Chain;
//! use keysheath::handle::Reload;
//! use keysheath::key::Kanal;
//! use keysheath::source::SecretFile;
//! use keysheath::refresh::{RefreshSettings, Refresher};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("kanal");
//! std::fs::write(&path, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
//! let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
//! let refresher = Refresher::from_chain(chain, RefreshSettings::new())?;
//! let handle = refresher.handle();
//! let old = handle.load().unwrap();
//!
//! // Somebody rotates the key, and the issuer refuses the old one.
//! std::fs::write(&path, "Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
//! let reload = handle.wait_newer_than(old.generation()).wait(Duration::from_secs(60));
//! assert_eq!(reload, Some(Reload::Newer));
//! assert!(handle.load().unwrap().current().matches(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"));
//! # Ok::<(), keysheath::refresh::RefreshError>(())
//! ```

mod asker;
mod error;
mod event;
mod pace;
mod place;
mod run;
mod settings;
mod shared;
mod status;
#[cfg(feature = "watch")]
mod watch;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crate::chain::Chain;
use crate::handle::{KeyHandle, Publisher, Reload};
use crate::internal::{
    background,
    events::{EventSender, EventThread},
};
use crate::key::Issuer;
use crate::store::DocumentStore;

pub use error::{RefreshError, ReloadError, ReloadProblem};
pub use event::{MAX_WAITING_EVENTS, RefreshEvent};
pub use settings::{DEFAULT_LAG, RefreshSettings, SHORTEST_POLL_INTERVAL};
pub use status::RefreshStatus;
#[cfg(feature = "watch")]
pub use watch::{WatchProblem, Watching};

use asker::Asker;
use place::{Outcome, Place, publish_key};
use run::Runner;
use shared::Shared;

/// Keeps a live handle up to date until it is dropped. [`Refresher::into_handle`] gives a handle that keeps its refresher.
///
/// Dropping it ends its threads, and waits for that: at most for the [deadline](RefreshSettings::with_deadline) of an attempt
/// that hangs, which is then left behind, as is a callback that hangs. In async code, start and drop it through your runtime's `spawn_blocking`. The
/// handle keeps the last key.
///
/// ```
/// use keysheath::handle::NoActiveKey;
/// use keysheath::key::Kanal;
/// use keysheath::refresh::{RefreshSettings, Refresher};
/// use keysheath::store::FileStore;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("kanal-keys");
/// let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), RefreshSettings::new())?;
/// // No key set is there yet. Once one is, this handle has its key.
/// assert_eq!(refresher.handle().load().unwrap_err(), NoActiveKey::NoKey);
/// # Ok::<(), keysheath::refresh::RefreshError>(())
/// ```
#[must_use = "the handle is kept up to date until this is dropped; `into_handle` gives a handle that keeps it"]
pub struct Refresher<I: Issuer> {
    handle: KeyHandle<I>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The thread that tells of events.
    telling: Option<EventThread>,
    /// How long dropping waits; none where a handle keeps it.
    patience: Option<Duration>,
}

impl<I: Issuer> Refresher<I> {
    /// Loads the chain, and keeps a new handle up to date from the source that answered. Blocks as [`Chain::load`] does.
    ///
    /// # Errors
    /// [`RefreshError::Chain`] when no key came out of the chain.
    ///
    /// ```no_run
    /// use keysheath::chain::Chain;
    /// use keysheath::key::Kanal;
    /// use keysheath::refresh::{RefreshSettings, Refresher};
    /// let refresher = Refresher::from_chain(Chain::<Kanal>::for_service(), RefreshSettings::new())?;
    /// println!("{:?}, {}", refresher.handle(), refresher.status());
    /// # Ok::<(), keysheath::refresh::RefreshError>(())
    /// ```
    pub fn from_chain(chain: Chain<I>, settings: RefreshSettings) -> Result<Self, RefreshError> {
        let publisher = Publisher::new();
        let (source, selected) = chain.select().map_err(RefreshError::Chain)?;
        let first = publish_key(selected.key(), selected.provenance(), &publisher, settings.grace)
            .map_err(RefreshError::Place)?;
        let place = Place::Source {
            source: Arc::from(source),
            found: selected.provenance().clone(),
            remarks: selected.remarks().to_vec(),
        };
        let asker = Asker::new(&settings);
        Self::start(publisher, place, asker, first, settings)
    }

    /// Reads the key set in a document store, and keeps its handles up to date from it. While there is no document, or no
    /// active key in it, the handles have [no active key](crate::handle::NoActiveKey). Blocks for at most the deadline.
    ///
    /// # Errors
    /// [`RefreshError::Place`] when the document cannot be read, or is not a key set of this issuer and version.
    pub fn from_store(
        store: impl DocumentStore + 'static,
        settings: RefreshSettings,
    ) -> Result<Self, RefreshError> {
        Self::of_key_set(Arc::new(store), Publisher::new(), settings)
    }

    /// As [`Refresher::from_store`], publishing to the handles that a rotation of the same key set publishes to.
    pub(crate) fn of_key_set(
        store: Arc<dyn DocumentStore>,
        publisher: Publisher<I>,
        settings: RefreshSettings,
    ) -> Result<Self, RefreshError> {
        let provenance = store.provenance();
        let mut place = Place::Store { store, provenance, taken: None };
        let mut asker = Asker::new(&settings);
        let before = publisher.generation();
        let answer = asker.ask(&place, I::PROFILE, || ());
        let first = place.take(answer, &publisher, before, settings.grace).map_err(RefreshError::Place)?;
        Self::start(publisher, place, asker, first, settings)
    }

    fn start(
        publisher: Publisher<I>,
        place: Place,
        asker: Asker,
        first: Outcome,
        mut settings: RefreshSettings,
    ) -> Result<Self, RefreshError> {
        let status = RefreshStatus {
            provenance: place.provenance(),
            remarks: place.remarks().to_vec(),
            last_success: SystemTime::now(),
            failures: 0,
            problem: None,
            untold: 0,
            #[cfg(feature = "watch")]
            watching: Watching::at_start(settings.is_watching),
        };
        let deadline = settings.deadline;
        // Before this refresher is attached, so that a failure leaves nothing.
        let (teller, telling) = EventSender::start(settings.on_event.take()).map_err(no_thread)?;
        let shared = Arc::new(Shared::new(publisher.reloader(), status, telling.dropped()));
        let handle = publisher.handle();
        let runner = Runner::new(publisher, place, settings, asker, Arc::clone(&shared), teller);
        let mut refresher =
            Self { handle, shared, thread: None, telling: Some(telling), patience: Some(deadline) };
        let thread = thread::Builder::new()
            .name("keysheath-refresh".into())
            .spawn(move || runner.run(first))
            .map_err(no_thread)?;
        refresher.thread = Some(thread);
        Ok(refresher)
    }

    /// The handle that is kept up to date while this refresher is there. Clone it for everything that sends the key.
    ///
    /// It does not keep the refresher: see [`Refresher::into_handle`].
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::refresh::{RefreshSettings, Refresher};
    /// # use keysheath::store::MemoryStore;
    /// # let refresher = Refresher::<Kanal>::from_store(MemoryStore::new(), RefreshSettings::new())?;
    /// let handle = refresher.handle();
    /// # Ok::<(), keysheath::refresh::RefreshError>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.handle.clone()
    }

    /// A handle that keeps this refresher, for programs that need nothing else of it. The refresher ends when the last clone
    /// of this handle is dropped, which does not wait for it.
    ///
    /// A [callback](RefreshSettings::on_event) that holds such a clone keeps the refresher to the end of the process.
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::refresh::{RefreshSettings, Refresher};
    /// # use keysheath::store::MemoryStore;
    /// let handle = Refresher::<Kanal>::from_store(MemoryStore::new(), RefreshSettings::new())?.into_handle();
    /// # Ok::<(), keysheath::refresh::RefreshError>(())
    /// ```
    #[must_use]
    pub fn into_handle(mut self) -> KeyHandle<I> {
        // It may be dropped in async code.
        self.patience = None;
        let handle = self.handle.clone();
        handle.keeping(Arc::new(self))
    }

    /// How it fares.
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::refresh::{RefreshSettings, Refresher};
    /// # use keysheath::store::MemoryStore;
    /// # let refresher = Refresher::<Kanal>::from_store(MemoryStore::new(), RefreshSettings::new())?;
    /// println!("{}", refresher.status());
    /// # Ok::<(), keysheath::refresh::RefreshError>(())
    /// ```
    #[must_use]
    pub fn status(&self) -> RefreshStatus {
        self.shared.status()
    }

    /// Asks the place now, whatever the intervals are, and blocks until it has answered; `None` after the timeout. An
    /// attempt that began before does not count. [`Refresher::status`] then says why one failed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::handle::Reload;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::refresh::{RefreshSettings, Refresher};
    /// # use keysheath::store::MemoryStore;
    /// # let refresher = Refresher::<Kanal>::from_store(MemoryStore::new(), RefreshSettings::new())?;
    /// assert_eq!(refresher.refresh_now(Duration::from_secs(60)), Some(Reload::Unchanged));
    /// # Ok::<(), keysheath::refresh::RefreshError>(())
    /// ```
    #[must_use]
    pub fn refresh_now(&self, timeout: Duration) -> Option<Reload> {
        self.shared.demand(timeout)
    }
}

impl<I: Issuer> Drop for Refresher<I> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return self.shared.stop() };
        if self.shared.is_elsewhere() {
            // There is nothing to end, and what the thread has locked is locked here for good.
            mem::forget((thread, self.telling.take()));
            return;
        }
        self.shared.stop();
        let Some(patience) = self.patience else { return };
        let _ = background::end(thread, self.telling.take(), patience, |rest| self.shared.wait_for_end(rest));
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn no_thread(error: std::io::Error) -> RefreshError {
    RefreshError::NoThread(error.kind())
}

impl<I: Issuer> fmt::Debug for Refresher<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refresher({:?}, {})", self.handle, self.shared.status().provenance())
    }
}
