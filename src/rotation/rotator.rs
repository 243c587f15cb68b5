//! A rotation: its parts, its status, and its errors.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::audit::AuditEvent;
use super::audit_log::{AuditError, AuditLog};
use super::policy::{Age, RotationPolicy, Sight};
use super::presence::{Fleet, PresenceError};
use crate::handle::{Generation, KeyHandle, Publisher};
use crate::internal::panics::Lock;
use crate::internal::printing::{Printable, Span, Utc};
use crate::internal::time::Clocks;
use crate::key::{Fingerprint, Issuer};
use crate::keyset::{KeyInfo, KeySetError, KeySetSummary};
use crate::probe::Probe;
use crate::refresh::{RefreshError, RefreshSettings, Refresher};
use crate::source::Provenance;
use crate::store::{DocumentError, DocumentStore};

/// The rotation of the keys of one key set. Share it between threads, or open one for each.
///
/// ```
/// use keysheath::key::Kanal;
/// use keysheath::rotation::{Rotation, RotationPolicy};
/// use keysheath::store::FileStore;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let (path, audit) = (folder.path().join("kanal-keys"), folder.path().join("keys.jsonl"));
/// let rotation = Rotation::<Kanal>::open(FileStore::new(path), RotationPolicy::new())?
///     .with_audit_file(audit)
///     .with_operator("anna");
/// println!("{}", rotation.next_step()?);
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
pub struct Rotation<I: Issuer> {
    pub(super) store: Arc<dyn DocumentStore>,
    pub(super) publisher: Publisher<I>,
    pub(super) policy: RotationPolicy,
    pub(super) probe: Option<Box<dyn Probe>>,
    pub(super) audit: Vec<AuditLog>,
    pub(super) operator: Option<String>,
    clocks: Box<dyn Fn() -> Clocks + Send + Sync>,
    /// The documents that the processes of the fleet show themselves in.
    pub(super) presence: Vec<Box<dyn DocumentStore>>,
    seen: Lock<Seen>,
}

/// What this `Rotation` has seen, and what it could not record.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) sight: Option<Sight>,
    /// The generation whose refusal the audit has.
    pub(super) raised_refusal: Option<Generation>,
    /// The number of events that an audit log lacks, and why it lacks the last one.
    pub(super) unaudited: Option<(u64, AuditError)>,
}

impl<I: Issuer> Rotation<I> {
    /// Opens the key set in a store, which may be empty, and publishes its active key to the
    /// [handles](Rotation::handle) of this rotation.
    ///
    /// # Errors
    /// [`RotationError::Document`] or [`RotationError::Unreadable`] if the key set cannot be read.
    pub fn open(store: impl DocumentStore + 'static, policy: RotationPolicy) -> Result<Self, RotationError> {
        let rotation = Self {
            store: Arc::new(store),
            publisher: Publisher::new(),
            policy,
            probe: None,
            audit: Vec::new(),
            operator: None,
            clocks: Box::new(Clocks::now),
            presence: Vec::new(),
            seen: Lock::default(),
        };
        rotation.look(rotation.now())?;
        Ok(rotation)
    }

    /// Returns a handle on the active key, for a program that rotates and sends. All handles of this rotation
    /// show the same key; once the rotation is dropped, they keep the last one.
    ///
    /// It shows what this rotation has read or written. [`Rotation::start_refresher`] also takes what other
    /// processes promote.
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.publisher.handle()
    }

    /// Starts a refresher of the same key set, which publishes to the handles of this rotation. It may
    /// outlive the rotation.
    ///
    /// # Errors
    /// As for [`Refresher::from_store`].
    pub fn start_refresher(&self, settings: RefreshSettings) -> Result<Refresher<I>, RefreshError> {
        Refresher::publish_to(Arc::clone(&self.store), self.publisher.clone(), settings)
    }

    /// Sets the probe for [`verify`](Rotation::verify) and [`retire`](Rotation::retire). It should ask for
    /// every store that the keys serve.
    #[must_use]
    pub fn with_probe(mut self, probe: impl Probe + 'static) -> Self {
        self.probe = Some(Box::new(probe));
        self
    }

    /// Adds an audit file of JSON lines, one for each event, each in one write that is synced before the step
    /// returns.
    ///
    /// A new file is created with mode 600. An existing one must be a regular file of this user that no other
    /// user can read or write, and either empty or an audit; symbolic and hard links are refused, and so are
    /// names that end in `.lock` or `.keysheath-new`. A relative path is resolved now. The file is opened for
    /// each line, so that it can be renamed at any time, as `logrotate` does; it is never truncated or
    /// removed here. A rotation writes some ten lines of less than 1 KiB. A line that a full disk has cut
    /// short is ended before the next one. If it cannot be written, the step is done nevertheless, and its
    /// result [says so](super::Transition::unaudited).
    #[must_use]
    pub fn with_audit_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.audit.push(AuditLog::file(path.into()));
        self
    }

    /// Reports each event once its step is persisted and published, on a thread for that alone.
    ///
    /// The step waits at most 5 s for it, so that its result can say whether the event was recorded. A panic
    /// of the callback is caught. A rotation may have several callbacks and audit files.
    #[must_use]
    pub fn on_event(mut self, callback: impl Fn(&AuditEvent) + Send + Sync + 'static) -> Self {
        self.audit.push(AuditLog::Callback(Arc::new(callback)));
        self
    }

    /// Sets the name of the person or program that acts: at most 64 printable characters. Each step
    /// refuses other names.
    #[must_use]
    pub fn with_operator(mut self, name: impl Into<String>) -> Self {
        self.operator = Some(name.into());
        self
    }

    /// Adds a document that processes of the fleet [show](super::Presence::show) themselves in, so that
    /// [`next_step`](Rotation::next_step) asks for no deletion of a key that one of them uses. A fleet that
    /// does not fit into one document has several.
    #[must_use]
    pub fn with_presence(mut self, store: impl DocumentStore + 'static) -> Self {
        self.presence.push(Box::new(store));
        self
    }

    /// Returns what the processes of the fleet show now: no process without a
    /// [presence](Rotation::with_presence).
    ///
    /// # Errors
    /// [`RotationError::Presence`].
    pub fn fleet(&self) -> Result<Fleet, RotationError> {
        let mut fleet = Fleet::empty(I::PROFILE);
        for store in &self.presence {
            let read = Fleet::read_as(I::PROFILE, &**store);
            let (shown, _) =
                read.map_err(|problem| RotationError::Presence { place: store.provenance(), problem })?;
            fleet.join(shown);
        }
        Ok(fleet)
    }

    /// Sets a clock for tests, as both the wall clock and the monotonic one. The grace that a handle counts
    /// down follows the machine's own.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let (start, monotonic) = (clock(), Instant::now());
        self.with_clocks(move || {
            let wall = clock();
            let passed = wall.duration_since(start).unwrap_or_default();
            (wall, monotonic.checked_add(passed).unwrap_or(monotonic))
        })
    }

    /// Sets the wall clock and the monotonic clock, for tests of clocks that are changed.
    #[must_use]
    pub fn with_clocks(mut self, clocks: impl Fn() -> (SystemTime, Instant) + Send + Sync + 'static) -> Self {
        self.clocks = Box::new(move || {
            let (wall, monotonic) = clocks();
            Clocks::at(wall, monotonic)
        });
        // What was seen until now was seen by other clocks.
        self.seen().sight = None;
        self
    }

    pub(super) fn now(&self) -> Clocks {
        (self.clocks)()
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }
}

impl<I: Issuer> fmt::Debug for Rotation<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rotation({:?} in {})", self.publisher, self.store.provenance())
    }
}

/// How far a clock may be behind the written times before the status says so: times are written in whole
/// seconds, and the clocks of two machines differ.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// The status of a rotation: the keys and their states, the age of the active key, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationStatus {
    keys: KeySetSummary,
    age: Option<Duration>,
    due: Option<SystemTime>,
    is_due_soon: bool,
    is_overdue: bool,
    clock_behind: Option<Duration>,
    refused: Option<Generation>,
    unaudited: Option<(u64, AuditError)>,
}

impl<I: Issuer> Rotation<I> {
    /// Returns the current status. A newer active key is published.
    ///
    /// # Errors
    /// [`RotationError::Document`] and [`RotationError::Unreadable`].
    pub fn status(&self) -> Result<RotationStatus, RotationError> {
        self.status_at(self.now().wall())
    }

    /// Returns the status at another time, for example next week.
    ///
    /// # Errors
    /// As for [`Rotation::status`].
    pub fn status_at(&self, now: SystemTime) -> Result<RotationStatus, RotationError> {
        let keys = self.look(self.now())?.0.summary();
        let age = keys.current().map(|current| Age::of(current, &self.policy, now));
        Ok(RotationStatus {
            age: age.as_ref().map(|age| age.since_staging),
            due: age.as_ref().and_then(|age| age.due),
            is_due_soon: age.as_ref().is_some_and(|age| age.is_due_soon),
            is_overdue: age.as_ref().is_some_and(|age| age.is_overdue),
            clock_behind: clock_behind(&keys, now),
            refused: self.publisher.refused().filter(|refused| Some(*refused) <= keys.generation()),
            unaudited: self.seen().unaudited.clone(),
            keys,
        })
    }
}

/// How far the clock is behind the latest written time.
fn clock_behind(keys: &KeySetSummary, now: SystemTime) -> Option<Duration> {
    let times = |key: &KeyInfo| {
        [Some(key.staged()), key.verified(), key.promoted(), key.demoted()].into_iter().flatten()
    };
    let behind = keys.slots().flat_map(times).max()?.duration_since(now).ok()?;
    (behind > CLOCK_SLACK).then_some(behind)
}

impl RotationStatus {
    /// Returns the keys and their states.
    #[must_use]
    pub const fn keys(&self) -> &KeySetSummary {
        &self.keys
    }

    /// Returns the time since the active key was staged or adopted; zero if the clock was set back since.
    #[must_use]
    pub const fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns when the active key reaches the largest age of the policy.
    #[must_use]
    pub const fn due(&self) -> Option<SystemTime> {
        self.due
    }

    /// Returns whether that is within the policy's warning, and not past.
    #[must_use]
    pub const fn is_due_soon(&self) -> bool {
        self.is_due_soon
    }

    /// Returns whether that is past; never if the clock was set back since the staging.
    #[must_use]
    pub const fn is_overdue(&self) -> bool {
        self.is_overdue
    }

    /// Returns how far the clock is behind the latest written time, if that is more than a minute. Then waits
    /// are longer, and nothing is due.
    #[must_use]
    pub const fn clock_behind(&self) -> Option<Duration> {
        self.clock_behind
    }

    /// Returns the latest generation that the issuer refused to requests of this process. If it is the active
    /// one, a person must look at the key.
    #[must_use]
    pub const fn refused(&self) -> Option<Generation> {
        self.refused
    }

    /// Returns whether the issuer refused the active key to this process or to a probe.
    #[must_use]
    pub fn is_active_key_refused(&self) -> bool {
        let by_probe = self.keys.current().is_some_and(|current| current.refused().is_some());
        by_probe || (self.refused.is_some() && self.refused == self.keys.generation())
    }

    /// Returns the number of events of this `Rotation` that an audit log lacks.
    #[must_use]
    pub fn unaudited(&self) -> u64 {
        self.unaudited.as_ref().map_or(0, |(count, _)| *count)
    }

    /// Returns why an audit log lacks the last of them.
    #[must_use]
    pub fn audit_error(&self) -> Option<&AuditError> {
        self.unaudited.as_ref().map(|(_, error)| error)
    }
}

impl fmt::Display for RotationStatus {
    /// Writes a line for each key, and one for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = &self.keys;
        match keys.generation() {
            None => write!(f, "{}: no key yet", keys.profile().name())?,
            Some(generation) => write!(f, "{}: generation {generation}", keys.profile().name())?,
        }
        for (name, key) in
            [("active", keys.current()), ("pending", keys.pending()), ("previous", keys.previous())]
        {
            if let Some(key) = key {
                write!(f, "\n  {name}: {key}")?;
            }
        }
        if let (Some(age), Some(due)) = (self.age, self.due) {
            write!(f, "\n  age: {}, due on {:#}", Span(age), Utc(due))?;
            if self.is_overdue {
                f.write_str(", OVERDUE")?;
            } else if self.is_due_soon {
                f.write_str(", soon")?;
            }
        }
        for aborted in keys.aborted() {
            write!(f, "\n  aborted: {}", aborted.label())?;
            if let Some(rotation) = aborted.rotation() {
                write!(f, " (rotation {rotation})")?;
            }
            let staged = Utc(aborted.staged());
            write!(f, ", staged {staged}, to be deleted when the next step says so")?;
        }
        for fingerprint in keys.compromised() {
            write!(f, "\n  compromised: {fingerprint}")?;
            if let Some(leaked) = keys.leaked().iter().find(|leaked| leaked.fingerprint() == *fingerprint) {
                if let Some(name) = leaked.name() {
                    write!(f, ", named {}", Printable(name))?;
                }
                write!(f, ", staged {}, TO BE DELETED: its deletion is not confirmed", Utc(leaked.staged()))?;
            }
        }
        if self.is_active_key_refused() {
            f.write_str("\n  REFUSED: the issuer has refused the active key")?;
        }
        if let Some(behind) = self.clock_behind {
            write!(f, "\n  the clock is {} behind the written times: check it", Span(behind))?;
        }
        if let Some((count, error)) = &self.unaudited {
            write!(f, "\n  {count} events are not in the audit: {error}")?;
        }
        Ok(())
    }
}

/// Why a step failed, or why it is not known whether it was persisted, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The key set cannot be read or written. Nothing was changed.
    #[error("{place}: {problem}")]
    Document {
        /// Where the key set is.
        place: Provenance,
        /// What is wrong.
        problem: DocumentError,
    },
    /// The document is no key set, or another issuer's. It was left as it is.
    #[error("{place}: {problem}")]
    #[non_exhaustive]
    Unreadable {
        /// Where the key set should be.
        place: Provenance,
        /// What is wrong.
        problem: KeySetError,
    },
    /// The presence of the fleet cannot be read.
    #[error("cannot read which processes use which key, {place}: {problem}")]
    Presence {
        /// Where the presence is.
        place: Provenance,
        /// What is wrong.
        problem: PresenceError,
    },
    /// The step was refused. Nothing was changed.
    #[error("{0}")]
    Refused(KeySetError),
    /// The store failed while the step was being written.
    #[error(
        "{place}: {problem}; it is not known whether the step was persisted: repeat it, which is harmless"
    )]
    #[non_exhaustive]
    Unsure {
        /// Where the key set is.
        place: Provenance,
        /// What is wrong.
        problem: DocumentError,
    },
    /// Others wrote before this step each time. Nothing was changed.
    #[error("{place}: others changed the key set {attempts} times meanwhile: repeat the step")]
    Contended {
        /// Where the key set is.
        place: Provenance,
        /// The number of attempts.
        attempts: u32,
    },
    /// There is no probe.
    #[error(
        "there is no probe to ask the issuer with: give one, or promote without verification and retire \
         without a probe"
    )]
    NoProbe,
    /// A leaked key is no longer sent by this process, but that is not persisted.
    #[error(
        "{cause}; this process no longer sends the leaked key {fingerprint}, but that is not persisted: \
         other processes do not know yet, and still send the key, as this one will after a restart. Report \
         the leak again as soon as the cause is removed; if the leak cannot wait, delete the key in the app \
         now: the requests of every process then fail until another key is promoted"
    )]
    #[non_exhaustive]
    LeakNotPersisted {
        /// Which key.
        fingerprint: Fingerprint,
        /// Why it is not persisted.
        cause: Box<RotationError>,
    },
}
