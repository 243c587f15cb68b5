//! Which key each process of a fleet uses: what must be known before the old key is deleted.
//!
//! A process [shows](Presence::show) itself in a document that the whole fleet can write: its name, the
//! generation and the fingerprint of its active key, the oldest generation that one of its requests holds,
//! and the time. A [`Rotation`](crate::rotation::Rotation) that has [the
//! document](crate::rotation::Rotation::with_presence) asks no person to delete the old key while one of them
//! uses it.

mod fleet;
mod record;
mod run;

use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::handle::{KeyHandle, UsageObserver};
use crate::internal::background::{Health, SHUTDOWN_TIMEOUT, Worker};
use crate::internal::events::EventSender;
use crate::internal::panics::Lock;
use crate::internal::time::{Clocks, random_number, random_part};
use crate::key::Issuer;
use crate::keyset::{Hidden, has_part_of};
use crate::store::{DocumentError, DocumentStore};

pub use fleet::Fleet;
pub use record::PresenceRecord;

use fleet::MAX_PROCESSES;
use run::{Progress, Runner};

/// The longest name of a process, in characters.
const MAX_NAME: usize = 64;

const DEFAULT_TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// The bounds of a time to live: a second and a day.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(LONGEST as u64));

/// In seconds: a day.
const LONGEST: u32 = 24 * 60 * 60;

/// The bounds of the time for which a write is tried when other processes write at the same time.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

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
///   this thread nor that of a refresher.
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

    /// Begins to take the process out of the document, and returns at once.
    pub fn stop(&self) {
        self.worker.stop();
    }

    /// Takes the process out of the document and blocks until that is done, at most for the timeout. Returns
    /// whether it is out. If not, its thread goes on for as long as the store takes, and the record expires
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

/// The name by which a process shows itself, and for how long what it shows holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PresenceSettings {
    name: String,
    is_unique: bool,
    time_to_live: Duration,
}

impl PresenceSettings {
    /// Sets the name by which a person recognizes the process: 1 to 64 printable ASCII characters, without
    /// `"` and `\`. It need not be unique, and must not be secret. What is shown holds for 10 minutes.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_unique: false, time_to_live: DEFAULT_TIME_TO_LIVE }
    }

    /// Declares that no other process has this name at the same time, such as a pod of a stateful set or the
    /// one service on a machine. A record of that name is then one of a predecessor that was killed, and is
    /// replaced: it delays no deletion, and a process that restarts again and again does not fill the
    /// document. Of two running processes of one such name, only one is seen.
    #[must_use]
    pub const fn with_unique_name(mut self) -> Self {
        self.is_unique = true;
        self
    }

    /// Sets for how long what is shown holds: a second to a day, in whole seconds; 10 minutes by default. It
    /// is renewed after about a third of it. Choose it longer than an outage of the store: a process that
    /// cannot reach the store for so long counts as silent.
    #[must_use]
    pub fn with_time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = Duration::from_secs(time.clamp(BOUNDS.0, BOUNDS.1).as_secs());
        self
    }

    /// In seconds.
    fn time_to_live(&self) -> u32 {
        u32::try_from(self.time_to_live.as_secs()).unwrap_or(u32::MAX)
    }

    /// How long after it was shown it is renewed. Processes that were started together drift apart.
    fn renewal(&self) -> Duration {
        (self.time_to_live / 3).mul_f64(1.0 - 0.2 * random_part())
    }

    /// How long after a change it is shown. A promotion changes every process of a fleet at once.
    fn spread(&self) -> Duration {
        (self.time_to_live / 20).mul_f64(random_part())
    }

    /// The pauses after failed attempts: the first, and the longest, which leaves several attempts before it
    /// is silent.
    fn rests(&self) -> (Duration, Duration) {
        (self.time_to_live / 60, self.time_to_live / 6)
    }

    /// For how long a write is tried when others write at the same time, as when a whole fleet starts at
    /// once.
    fn patience(&self) -> Duration {
        (self.time_to_live / 10).clamp(PATIENCE.0, PATIENCE.1)
    }

    fn check(&self) -> Result<(), PresenceError> {
        check_name(&self.name).map_err(|rule| PresenceError::BadName { rule })
    }
}

/// Without the name: a person may have pasted a key there.
impl fmt::Debug for PresenceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceSettings")
            .field("name", &Hidden(Some(&self.name)))
            .field("is_unique", &self.is_unique)
            .field("time_to_live", &self.time_to_live)
            .finish()
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("it is empty, or too long");
    }
    let may_be = |c: u8| matches!(c, b' '..=b'~') && !matches!(c, b'"' | b'\\');
    if name.bytes().all(may_be) {
        Ok(())
    } else {
        Err("it has other characters than printable ASCII without quotes and backslashes")
    }
}

/// This process is not shown, or the fleet cannot be read: why, and what to do next. The place is what
/// [`DocumentStore::provenance`] says. Requests go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The document cannot be read or written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The document is not a presence document. It was not changed.
    #[error(
        "the presence document is damaged, or something else ({rule}): use a place of its own for it, or \
         remove it; it was not changed"
    )]
    #[non_exhaustive]
    Corrupt {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The document was written by a newer version of this crate.
    #[error(
        "the presence document has form {found}, and this version knows {known}: use the newer keysheath"
    )]
    #[non_exhaustive]
    Newer {
        /// Its form.
        found: u64,
        /// The newest form that is known.
        known: u64,
    },
    /// The document is for the keys of another issuer.
    #[error("the presence document is for another issuer's keys: use one for each issuer")]
    OtherIssuer,
    /// The name of this process is invalid.
    #[error("the process cannot be shown by this name: {rule} (1 to {MAX_NAME} characters)")]
    #[non_exhaustive]
    BadName {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The document is full.
    #[error(
        "{MAX_PROCESSES} processes show themselves in this document already, and this one has seen none of \
         them silent for its time to live: try again after that, or use another document for the rest, and \
         give both to the rotation"
    )]
    Full,
    /// Other processes have written each time before this one could.
    #[error("other processes have written the presence document first, {attempts} times; it is tried again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The thread that shows the process has panicked. The process is no longer shown.
    #[error("the thread that shows this process has panicked: see standard error, and restart")]
    Ended,
    /// No thread could be started.
    #[error("no thread can be started to show the process ({0}): check this user's limits")]
    NoThread(ErrorKind),
}
