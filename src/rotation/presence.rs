//! Which key each process of a fleet uses: what has to be known before the old one is deleted.
//!
//! A process [shows](Presence::show) itself in a document that the whole fleet can write: its name, the
//! generation and the fingerprint of the key in force, the oldest generation that a request of it still
//! holds, and when. That holds for a time to live, and is shown anew before that is over; a process that ends
//! takes itself out. A [`Rotation`](crate::rotation::Rotation) that was
//! [given](crate::rotation::Rotation::with_presence) the document asks nobody to delete the old key while one
//! of them uses it.
//!
//! # Rotating the key of a fleet
//!
//! | who | does what | needs of the stores |
//! |---|---|---|
//! | each service process | follows the key set with a [`Refresher`](crate::refresh::Refresher), and shows itself | reads the key set; writes presence |
//! | the rotator: one program, run by a person or a job, on any machine | stages, verifies, promotes, retires; asks [`next_step`](crate::rotation::Rotation::next_step) | writes the key set; reads presence |
//! | a person | makes the new key in the issuer's app, and deletes the old one when told to | – |
//!
//! ```text
//!    person            rotator             key set            service processes          presence
//!      │   new key        │                   │                       │                       │
//!      ├─────────────────►│ stage ───────────►│ pending               │ generation 4          │ A: 4   B: 4
//!      │                  │ verify (probe) ──►│                       │                       │
//!      │                  │ promote ─────────►│ current, previous     │                       │
//!      │                  │                   │◄─── at the next poll ─┤ A has generation 5    │
//!      │                  │                   │                       ├──────────────────────►│ A: 5   B: 4
//!      │   wait: B uses   │ next_step ◄───────┼───────────────────────┼───────────────────────┤
//!      │◄─────────────────┤                   │                       │ B has generation 5    │ A: 5   B: 5
//!      │   delete the old │ next_step ◄───────┼───────────────────────┼───────────────────────┤
//!      │◄─────────────────┤                   │                       │                       │
//!      │  (deletes it)    │ retire (probe) ──►│ current               │                       │
//! ```
//!
//! 1. **Stage and verify** in one place. Several rotators do no harm: a step is written only if the key set
//!    is unchanged, and one who was overtaken is told so. What nobody has verified is not promoted.
//! 2. **Promote** once. Every process has the new key within one poll interval of its refresher; a process
//!    whose request was refused looks at once.
//! 3. **It is safe to delete the old key** when [`next_step`](crate::rotation::Rotation::next_step) says
//!    [`Delete`](crate::rotation::NextStep::Delete): the new key was accepted for every store; the settle
//!    time is over, which is all that covers processes that show nothing; no request of the rotator's own
//!    process holds the old key; and every process that shows itself has the new key, with no request under
//!    way with an older one.
//! 4. **Silent processes** are named in that step. One that has shown an older key and then nothing for its
//!    time to live has been killed, or cannot reach the store, and may then use the old key still: a person
//!    looks before they delete.
//! 5. **Retire** sees with the probe that the right key is gone.
//!
//! A leaked key does not wait for the fleet: it is deleted at once.
//!
//! # Limits
//! - Presence is what processes say of themselves. Whoever can write the document can hold a deletion up, or
//!   let it be asked for too early; requests then fail until every process has the new key, and no key leaks.
//!   Nothing in it is secret.
//! - A process that does not show itself is not waited for, but for the settle time. Neither is a forked
//!   child: it has neither the thread that shows it nor that of a refresher.
//! - A silent process is named for a day, and in a full document until its room is needed. After that it is
//!   forgotten, by the next process that has itself seen it rest for its time to live, by a clock that nobody
//!   sets. A full document therefore takes a new process only once one that is there, or that process itself,
//!   has watched for so long.
//! - Each start of a process is a record of its own, unless its name is
//!   [unique](PresenceSettings::with_unique_name). One that is killed and started again and again can else
//!   fill a document, until the first of those records are silent.
//! - A document is for one key set. A process that follows another one of the same issuer is never seen to
//!   have the new key, and is waited for.
//! - The times are those of the machines' clocks; a minute of difference is allowed for, and half an hour
//!   where a process that has no key yet is to be taken for one that cannot take up the old one any more. A
//!   clock that is wrong by more than a time to live makes a process silent, and that is said. A machine that
//!   was suspended is silent until half a minute after it resumes.
//! - A write waits for its turn with the process's other calls: at most four to this document are under way
//!   at once, and 32 to one OpenBao.
//! - A document holds [`MAX_PROCESSES`]. A larger fleet uses several, and the rotation is given each.
//!
//! ```
//! use keysheath::handle::KeyHandle;
//! use keysheath::key::{ApiKey, Kanal};
//! use keysheath::refresh::{RefreshSettings, Refresher};
//! use keysheath::rotation::{Fleet, Presence, PresenceSettings, Rotation, RotationPolicy};
//! use keysheath::store::MemoryStore;
//!
//! let (keys, presence) = (MemoryStore::new(), MemoryStore::new()); // an OpenBaoStore, for a fleet
//!
//! // The rotator.
//! let rotation = Rotation::<Kanal>::open(keys.clone(), RotationPolicy::new())?
//!     .with_presence(presence.clone());
//! rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?.as_raw())?;
//!
//! // Each service process.
//! let refresher = Refresher::<Kanal>::from_store(keys, RefreshSettings::new())?;
//! let settings = PresenceSettings::new("shop-sync on shop-7");
//! let _shown = Presence::show(presence, &refresher.handle(), settings)?;
//!
//! // kanal: 1 process
//! //   shop-sync on shop-7 (generation 1, key …, shown 2026-11-24T09:00:00Z)
//! println!("{}", rotation.fleet()?);
//! # assert_eq!(rotation.fleet()?.records().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod fleet;
mod form;
mod record;
mod run;
mod settings;
mod watched;

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::handle::{KeyHandle, UsageObserver};
use crate::internal::back_off::random_number;
use crate::internal::background::{Health, SHUTDOWN_TIMEOUT, Worker};
use crate::internal::clocks::Clocks;
use crate::internal::events::EventSender;
use crate::internal::lock::Lock;
use crate::key::Issuer;
use crate::keyset::has_part_of;
use crate::store::DocumentStore;

pub use error::PresenceError;
pub use fleet::{Fleet, MAX_PROCESSES};
pub use form::PRESENCE_FORM_VERSION;
pub use record::PresenceRecord;
pub use settings::{DEFAULT_TIME_TO_LIVE, MAX_NAME, PresenceSettings};

use run::{Progress, Runner};

/// How long dropping blocks at most once [`SHUTDOWN_TIMEOUT`] is used up by others that were dropped before.
const LEAST_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(50);

/// Shows this process in a document of the fleet until it is dropped.
///
/// Dropping it takes the process out, and waits for that: at most five seconds for all that are dropped one
/// after another, and then 50 ms for each. Where it cannot be done, or the process is killed, the time to
/// live ends it. So keep it until the last request has its answer: a process that is out is not waited for.
/// [`close`](Presence::close) waits for a time of your own; to end several, [`stop`](Presence::stop) all of
/// them first. In async code, start and end it through your runtime's `spawn_blocking`.
///
/// A failure never touches the handle: keys are sent all the same. [`Presence::health`] tells of it, and with
/// the feature `tracing` a warning.
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
    /// Shows this process, with what a handle has in use, in a document of the fleet: once before this
    /// returns, and then whenever that changes and before the time to live is over. Blocks, as the store
    /// does; while others write at the same time, it tries for a tenth of the time to live, 10 s at least and
    /// a minute at most.
    ///
    /// A process with several handles of one issuer shows each. A fixed handle is shown too: its process is
    /// waited for until it has been restarted with the new key.
    ///
    /// # Errors
    /// [`PresenceError`], where the process could not be shown the first time. A service that is to start
    /// even so tries again later.
    pub fn show<I: Issuer>(
        store: impl DocumentStore + 'static,
        handle: &KeyHandle<I>,
        settings: PresenceSettings,
    ) -> Result<Self, PresenceError> {
        settings.check()?;
        if handle.load().is_ok_and(|now| has_part_of(&settings.name, now.current().as_raw())) {
            return Err(PresenceError::BadName { rule: "it has a part of the key in it" });
        }
        let uses = handle.usage();
        let (events, event_thread) = EventSender::start(None).map_err(no_thread)?;
        let waking = uses.clone();
        let progress = Progress { health: Health::new(), is_out: false };
        let mut worker = Worker::new(progress, event_thread, move || waking.wake(), || ());
        let mut runner = Runner {
            store: Box::new(store),
            uses: uses.clone(),
            settings,
            process: random_number(),
            link: Arc::clone(worker.link()),
            events,
            clock: Box::new(Clocks::now),
            shown: None,
        };
        runner.shown = Some(runner.show()?);
        worker.start("keysheath-presence", runner).map_err(no_thread)?;
        Ok(Self { uses, worker })
    }

    /// Returns whether the process is shown: when it last was, and what has failed since.
    #[must_use]
    pub fn health(&self) -> Health<PresenceError> {
        let mut health = self.worker.link().with(|progress| progress.health.clone());
        health.set_dropped_events(self.worker.dropped_events());
        health
    }

    /// Begins to take the process out, and returns at once. Nothing is shown any more.
    pub fn stop(&self) {
        self.worker.stop();
    }

    /// Takes the process out, and blocks until that is done or the timeout is over. Returns whether it is
    /// out. Where it is not, its thread goes on for as long as the store takes, and otherwise the time to
    /// live ends it. In a forked child nothing is waited for, and nothing is taken out.
    #[allow(clippy::must_use_candidate, reason = "it is closed for its effect")]
    pub fn close(mut self, timeout: Duration) -> bool {
        self.worker.end(timeout);
        let link = self.worker.link();
        // In a forked child, the lock may be held by a thread that does not exist there.
        !link.is_elsewhere() && link.with(|progress| progress.is_out)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // What is left of the time that dropping may block, and when that was so. It grows again with the
        // time that passes.
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
