//! Which key each process of a fleet uses: what must be known before the old key is deleted.
//!
//! A process [shows](Presence::show) itself in a document that the whole fleet can write: its name, the
//! generation and the fingerprint of its active key, the oldest generation that one of its requests holds,
//! and the time. A [`Rotation`](crate::rotation::Rotation) that has [the
//! document](crate::rotation::Rotation::with_presence) asks no person to delete the old key while one of them
//! uses it.

mod fleet;
mod run;

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::handle::{KeyHandle, UsageObserver};
use crate::internal::events::EventSender;
use crate::internal::threads::Lock;
use crate::internal::threads::{Health, SHUTDOWN_TIMEOUT, Worker};
use crate::internal::time::{Clocks, random_number};
use crate::key::Issuer;
use crate::keyset::has_part_of;
use crate::store::DocumentStore;

pub use fleet::{Fleet, PresenceError, PresenceRecord};
pub use run::PresenceSettings;

use run::{Progress, Runner};

/// How long dropping blocks at most once [`SHUTDOWN_TIMEOUT`] is used up by others that were dropped before.
const LEAST_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(50);

/// Shows this process in a document of the fleet until it is dropped.
///
/// What is shown holds for a time to live, and is renewed before that ends. A failure never touches the
/// handle: requests go on. [`Presence::health`] reports it, and with the feature `tracing` a warning.
///
/// # Ending
/// Dropping takes the process out of the document and blocks until that is done: at most 5 s for all that are
/// dropped one after another, and then 50 ms for each. If that fails, or the process is killed, the record
/// expires. Drop it after the last request: once out, the process no longer delays a deletion.
/// [`close`](Presence::close) waits for a time of your own; to end several, [`stop`](Presence::stop) all of
/// them first. In async code, start and end it in your runtime's `spawn_blocking`.
///
/// # Limits
/// - Presence is what processes say of themselves. A writer of the document can delay a deletion, or let it
///   be asked for too early; requests then fail until every process has the new key, and no key leaks.
///   Nothing in the document is secret.
/// - Only the settle time covers a process that does not show itself. A forked child is one: it has neither
///   this nor a refresher.
/// - A silent process is named for a day, and in a full document until its room is needed. Then it is
///   forgotten, by the next process that has itself seen its record unchanged for its time to live, by a
///   clock that cannot be set. A full document therefore takes a new process only once one that is there, or
///   that process itself, has watched for so long.
/// - Each start of a process is a record of its own, unless its name is
///   [unique](PresenceSettings::with_unique_name). A process that is killed and started again and again can
///   fill a document, until its first records are silent.
/// - A document is for one key set. A process that follows another one of the same issuer is never seen to
///   have the new key, and delays the deletion.
/// - The times are those of the machines' clocks. A minute of difference is allowed for, and half an hour
///   before a process without a key yet counts as one that cannot take the old one any more. A clock that is
///   wrong by more than a time to live makes a process silent, and that is reported. A machine that was
///   suspended is silent until half a minute after it resumes.
/// - A write waits for its turn with the process's other calls: at most four to this document run at once,
///   and 32 to one OpenBao.
/// - A document holds 128 processes. A larger fleet uses several, and the rotation is given each.
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// use keysheath::store::MemoryStore;
/// use keysheath::rotation::{Presence, PresenceSettings};
///
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
/// let presence = Presence::show(MemoryStore::new(), &handle, PresenceSettings::new("shop-sync on shop-7"))?;
/// assert!(presence.health().problem().is_none());
/// # Ok::<(), keysheath::rotation::PresenceError>(())
/// ```
#[must_use = "the process is shown until this is dropped"]
pub struct Presence {
    uses: UsageObserver,
    worker: Worker<Progress>,
}

impl Presence {
    /// Shows this process, with the keys that a handle has in use: once before this returns, then whenever
    /// that changes and before the time to live ends. Blocks, as the store does; while other processes write
    /// at the same time, it tries for a tenth of the time to live, at least 10 s and at most a minute.
    ///
    /// A process with several handles of one issuer shows each. A fixed handle can be shown too: its process
    /// delays a deletion until it has been restarted with the new key.
    ///
    /// # Errors
    /// [`PresenceError`] if the process could not be shown the first time. A service that starts nevertheless
    /// tries again later.
    pub fn show<I: Issuer>(
        store: impl DocumentStore + 'static,
        handle: &KeyHandle<I>,
        settings: PresenceSettings,
    ) -> Result<Self, PresenceError> {
        settings.check()?;
        if handle.load().is_ok_and(|now| has_part_of(settings.name(), now.current().as_raw())) {
            return Err(PresenceError::BadName { rule: "it has a part of the key in it" });
        }
        let uses = handle.usage();
        let (events, event_thread) = EventSender::start(None).map_err(no_thread)?;
        let waking = uses.clone();
        let progress = Progress { health: Health::new(), is_out: false };
        let mut worker = Worker::new(progress, event_thread, move || waking.wake(), || ());
        let store: Arc<dyn DocumentStore> = Arc::new(store);
        let mut runner = Box::new(Runner {
            store: Arc::clone(&store),
            uses: uses.clone(),
            settings,
            process: random_number(),
            link: Arc::clone(worker.link()),
            events,
            clock: Box::new(Clocks::now),
            shown: None,
        });
        runner.shown = Some(runner.show()?);
        let on_panic = runner.on_panic();
        worker.run(runner.keep_shown(), on_panic, store).map_err(no_thread)?;
        Ok(Self { uses, worker })
    }

    /// Returns whether the process is shown: when it last was, and what has failed since.
    #[must_use]
    pub fn health(&self) -> Health<PresenceError> {
        let mut health = self.worker.link().with(|progress| progress.health.clone());
        health.set_dropped_events(self.worker.dropped_events());
        health
    }

    /// Begins to take the process out of the document, and returns at once.
    pub fn stop(&self) {
        self.worker.stop();
    }

    /// Takes the process out of the document and blocks until that is done, at most for the timeout. Returns
    /// whether it is out. If not, that goes on for as long as the store takes, and the record expires
    /// at the latest. In a forked child it does nothing.
    #[allow(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn close(mut self, timeout: Duration) -> bool {
        self.worker.end(timeout);
        let link = self.worker.link();
        // In a forked child, the lock may be held by a thread that does not exist there.
        !link.is_elsewhere() && link.with(|progress| progress.is_out)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // How much longer dropping may block, and when that was so. It grows again as time passes.
        static LEFT: LazyLock<Lock<(Duration, Instant)>> =
            LazyLock::new(|| Lock::new((SHUTDOWN_TIMEOUT, Instant::now())));
        let left = || LEFT.lock();

        if self.worker.link().is_elsewhere() {
            return;
        }
        self.stop();
        let begun = Instant::now();
        let timeout = {
            let mut left = left();
            let rest = begun.saturating_duration_since(left.1);
            *left = (left.0.saturating_add(rest).min(SHUTDOWN_TIMEOUT), begun);
            left.0
        };
        self.worker.end(timeout.max(LEAST_SHUTDOWN_TIMEOUT));
        let mut left = left();
        *left = (left.0.saturating_sub(begun.elapsed()), Instant::now());
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn no_thread(error: std::io::Error) -> PresenceError {
    PresenceError::NoThread(error.kind())
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presence({:?})", self.uses.now())
    }
}
