//! Keeps handles up to date from the place that their key comes from.
//!
//! A [`Refresher`] reads one source, or the key set in one document store, again and again in the background,
//! and publishes what it finds to its handles. So a process takes a new key without a restart, also one that
//! another process has promoted. It needs no async runtime.
//!
//! - **One place.** A chain is searched once, at the start. From then on only the source that answered is
//!   read: if its key is gone, malformed or unreadable, the reload fails, and no other source is read, which
//!   might hold the key of another account.
//! - **The last good key stays active** while reloads fail, and [`Refresher::status`] and the
//!   [events](RefreshSettings::on_event) say so.
//! - **Never back.** A key set that is older than the active key is not taken, such as a restored copy; nor
//!   is one that was begun with another key, however new it is: another account's, or a document that was
//!   begun again. (One that was begun again with the very same key has the same lineage; it is not taken
//!   until it has passed the active generation.)
//! - **Polled**, with jitter; with the feature `watch`, files can be followed as well.
//! - **Asked** when a request was refused: [`KeyHandle::report_refused`] of the active generation asks for a
//!   reload, and [`KeyHandle::newer_than`] waits for one. However many callers ask, one attempt answers
//!   them; attempts keep a minimum interval, and back off while they find nothing newer.
//! - **Tolerant of replicas**: a place that may be behind, as an OpenBao standby may, is read again for the
//!   [lag](RefreshSettings::with_lag) before the first refusal of a key is final.
//! - **Within a deadline**: a place that hangs does not hang the refresher, nor another one.
//! - **On one thread**, however many refreshers a process has. It never blocks: the places are read on other
//!   threads, one after another where that is quick. A [callback](RefreshSettings::on_event) has a thread of
//!   its own.
//! - **Bounded**: a process makes at most four calls at once to one place, and 64 in all
//!   (see [`source`](crate::source)); to one OpenBao 32, whatever the number of key sets in it. A
//!   refresher whose turn does not come within the deadline reports
//!   [`Queued`](crate::source::CallError::Queued), and keeps the last good key. 100 refreshers of 100 key
//!   sets in one OpenBao that answers in 200 ms are all answered in 0.8 s, and in 4 s where it answers in a
//!   second.
//!
//! A forked child has no refresher: its handles keep the key that they had, and answer
//! [`NoRefresher`](crate::handle::Reload::NoRefresher). Start one after the fork. A fork while another thread
//! publishes can leave locks behind that are never released, so fork before there are threads where you can.
//!
//! An environment variable cannot change in a running process, so it is not polled, and the status says so.
//! Keep the key in a file, the keychain or a key set if it is to be rotated without a restart.
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
//! // The key is rotated, and the issuer refuses the old one.
//! std::fs::write(&path, "Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
//! let reload = handle.wait_newer_than(old.generation(), Duration::from_secs(60));
//! assert_eq!(reload, Some(Reload::Newer));
//! assert!(handle.load().unwrap().current().matches(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"));
//! # Ok::<(), keysheath::refresh::RefreshError>(())
//! ```

mod place;
mod report;
mod run;
mod settings;
#[cfg(feature = "watch")]
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::chain::Chain;
use crate::handle::{KeyHandle, Publisher, Reload};
use crate::internal::events::EventSender;
use crate::internal::threads::Worker;
use crate::key::Issuer;
use crate::store::DocumentStore;

pub use report::{RefreshError, RefreshEvent, RefreshStatus, ReloadError, ReloadProblem, WatchProblem};
pub use settings::RefreshSettings;

use place::{Asker, Outcome, Place, publish_key};
use run::{Progress, Runner};

/// Keeps its handles up to date until it is dropped. [`Refresher::into_handle`] returns a handle that keeps
/// the refresher.
///
/// Dropping it ends it and blocks until that is done, its callback's thread included: at most for the
/// [deadline](RefreshSettings::with_deadline); what hangs longer is left behind. In async code, start and
/// drop it in your runtime's `spawn_blocking`, or use [`Refresher::close`] there. The handles keep the last
/// key.
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
/// // There is no key set yet. Once there is, this handle has its key.
/// assert_eq!(refresher.handle().load().unwrap_err(), NoActiveKey::NoKey);
/// # Ok::<(), keysheath::refresh::RefreshError>(())
/// ```
#[must_use = "the handles are kept up to date until this is dropped; `into_handle` returns a handle that \
              keeps it"]
pub struct Refresher<I: Issuer> {
    handle: KeyHandle<I>,
    worker: Worker<Progress>,
}

impl<I: Issuer> Refresher<I> {
    /// Loads the chain, and keeps its handles up to date from the source that answered. Blocks as
    /// [`Chain::load`] does.
    ///
    /// # Errors
    /// [`RefreshError::Chain`] if the chain has no key.
    pub fn from_chain(chain: Chain<I>, settings: RefreshSettings) -> Result<Self, RefreshError> {
        let publisher = Publisher::new();
        let (source, selected) = chain.select().map_err(RefreshError::Chain)?;
        let first = publish_key(selected.key(), selected.provenance(), &publisher, settings.grace)
            .map_err(RefreshError::Place)?;
        let place = Place::Source {
            source: Arc::from(source),
            found: selected.provenance().clone(),
            remarks: selected.remarks().to_vec(),
            same: None,
        };
        let asker = Asker::new(&settings);
        Self::start(publisher, place, asker, first, settings)
    }

    /// Reads the key set in a document store, and keeps its handles up to date from it. While there is no
    /// document, or no active key in it, the handles have [no active key](crate::handle::NoActiveKey). Blocks
    /// for at most the deadline.
    ///
    /// # Errors
    /// [`RefreshError::Place`] when the document cannot be read, or is not a key set of this issuer and
    /// version.
    pub fn from_store(
        store: impl DocumentStore + 'static,
        settings: RefreshSettings,
    ) -> Result<Self, RefreshError> {
        Self::publish_to(Arc::new(store), Publisher::new(), settings)
    }

    /// As [`Refresher::from_store`], publishing to the handles that a rotation of the same key set publishes
    /// to.
    pub(crate) fn publish_to(
        store: Arc<dyn DocumentStore>,
        publisher: Publisher<I>,
        settings: RefreshSettings,
    ) -> Result<Self, RefreshError> {
        let provenance = store.provenance();
        let mut place = Place::Store { store, provenance, taken: None };
        let mut asker = Asker::new(&settings);
        let before = publisher.generation();
        let answer = asker.ask_blocking(&place, I::PROFILE);
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
        // Before this refresher is attached, so that a failure leaves nothing.
        let (events, event_thread) = EventSender::start(settings.on_event.take()).map_err(no_thread)?;
        let reloader = Arc::new(publisher.reloader());
        let (waking, leaving) = (Arc::clone(&reloader), Arc::clone(&reloader));
        let progress = Progress::new(&place, &settings);
        let mut worker = Worker::new(progress, event_thread, move || waking.wake(), move || leaving.leave());
        worker.set_drop_timeout(settings.deadline);
        let handle = publisher.handle();
        let link = Arc::clone(worker.link());
        let runner = Runner::new((publisher, reloader), place, settings, asker, link, events, first);
        let (on_panic, foreign) = (runner.on_panic(), runner.foreign());
        worker.run(runner.poll_until_stopped(), on_panic, foreign).map_err(no_thread)?;
        Ok(Self { handle, worker })
    }

    /// Returns a handle that is kept up to date as long as this refresher exists. Clone it for everything
    /// that sends the key. It does not keep the refresher: see [`Refresher::into_handle`].
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.handle.clone()
    }

    /// Returns a handle that keeps this refresher, for programs that need nothing else of it. The refresher
    /// ends when the last clone of this handle is dropped, which does not wait for it.
    ///
    /// A [callback](RefreshSettings::on_event) that holds such a clone keeps the refresher until the process
    /// ends.
    #[must_use]
    pub fn into_handle(mut self) -> KeyHandle<I> {
        // It may be dropped in async code.
        self.worker.set_drop_timeout(Duration::ZERO);
        let handle = self.handle.clone();
        handle.keeping(Arc::new(self))
    }

    /// Returns the current status.
    #[must_use]
    pub fn status(&self) -> RefreshStatus {
        let mut status = self.worker.link().with(|progress| progress.status.clone());
        status.health.set_dropped_events(self.worker.dropped_events());
        status
    }

    /// Reads the place now, whatever the intervals are, and blocks until it has answered; returns `None`
    /// after the timeout. An attempt that began before does not count. [`Refresher::status`] says why an
    /// attempt failed.
    #[must_use]
    pub fn refresh_now(&self, timeout: Duration) -> Option<Reload> {
        let link = self.worker.link();
        if link.is_elsewhere() {
            return Some(Reload::NoRefresher);
        }
        let demand = link.notify(Progress::demand);
        link.wait(timeout, |shared| {
            let met = shared.state.outcome_of(demand);
            met.or_else(|| shared.has_ended.then_some(Reload::NoRefresher))
        })
    }

    /// Ends the refresher and blocks until that is done, at most for the timeout. Returns whether it is:
    /// `false` means that a place or a callback hangs, and is left behind. The handles keep the last key. In
    /// a forked child it does nothing.
    #[allow(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn close(mut self, timeout: Duration) -> bool {
        self.worker.end(timeout)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn no_thread(error: std::io::Error) -> RefreshError {
    RefreshError::NoThread(error.kind())
}

impl<I: Issuer> fmt::Debug for Refresher<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refresher({:?}, {})", self.handle, self.status().provenance())
    }
}
