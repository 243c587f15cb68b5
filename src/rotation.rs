//! Rotating a key without a failed request: its key set, the store of that, a probe, and the handle that
//! sends.
//!
//! A person creates the new key in the issuer's app and deletes the old one there. A [`Rotation`] does what
//! lies between, and [`next_step`](Rotation::next_step) says what the person has to do now. Each step is
//! **persisted, then published**: it is written to the document store, only if that has not changed
//! meanwhile; then the handle has it; then it is sent to the audit. So memory is never ahead of the store,
//! and a process that dies in the middle repeats the last step.
//!
//! | step | what it does | asks the issuer |
//! |---|---|---|
//! | [`adopt`](Rotation::adopt) | makes the key in use the active one; once, to begin | no |
//! | [`stage`](Rotation::stage) | persists a new key before anything else happens to it | no |
//! | [`verify`](Rotation::verify) | records that the new key works, for every store of the probe | yes |
//! | [`promote`](Rotation::promote) | makes it active; the old key becomes the previous one | no |
//! | [`roll_back`](Rotation::roll_back) | makes the previous key active again | no |
//! | [`retire`](Rotation::retire) | forgets the previous key once the issuer refuses it | yes |
//! | [`abort`](Rotation::abort) | retires the pending key | no |
//! | [`compromise`](Rotation::compromise) | takes a leaked key out of the key set for good | no |
//! | [`confirm_deleted`](Rotation::confirm_deleted) | records the deletion of a leaked or aborted key | no |
//!
//! If the wrong key was deleted, the old one becomes active again at once and the result says so.
//!
//! # Naming the rotation of a step
//! A step names the rotation that it acts on by the [`RotationId`](crate::keyset::RotationId) from
//! [`stage`](Rotation::stage), [`status`](Rotation::status) or [`next_step`](Rotation::next_step). If another
//! thread or process has ended that rotation meanwhile, the step is refused and changes nothing: no caller
//! acts on a key that it has not seen.
//!
//! Where a plain value is not enough, a step takes a small type: [`KeyDetails`] for a key with a name or a
//! note, and [`CheckedBy::Person`] for a rotation that a person has checked without a probe. A leak with a
//! note has a [step of its own](Rotation::compromise_with_note).
//!
//! # Clocks
//! The deletion of a key is asked for only once the settle time since the promotion is over by the wall
//! clock, and by the monotonic clock of a process that saw the promotion all that time. A process that has
//! just started has only the written time, and adds a [bound on how much clocks
//! differ](RotationPolicy::with_clock_skew).
//!
//! # A fleet
//! Processes on other machines follow the key set in a store that they share, such as OpenBao. They show
//! which key they use: see [`Presence`].
//!
//! # Blocking
//! Everything here blocks, up to the deadlines of the store, the probe and the audit file. In async code,
//! call it through your runtime's `spawn_blocking`.
//!
//! ```
//! use keysheath::failure::{Answer, Meaning};
//! use keysheath::key::{ApiKey, Kanal, RawKey};
//! use keysheath::probe::{Finding, Probe, Report};
//! use keysheath::rotation::{KeyDetails, NextStep, Rotation, RotationPolicy, Verification};
//! use keysheath::store::MemoryStore;
//!
//! struct AlwaysAccepted; // in place of an HttpProbe
//! impl Probe for AlwaysAccepted {
//!     fn probe(&self, _: &RawKey) -> Report {
//!         Report::new(Finding::new(Ok(Answer::new(201, Meaning::Accepted))))
//!     }
//! }
//!
//! let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?
//!     .with_probe(AlwaysAccepted)
//!     .with_operator("anna");
//! let handle = rotation.handle(); // what the client sends with
//! rotation.adopt(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?)?;
//!
//! let new = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A")?;
//! let id = rotation.stage(KeyDetails::new(&new).with_note("the spring rotation"))?.rotation();
//! assert!(matches!(rotation.verify(id)?, Verification::Verified { .. }));
//! rotation.promote(id)?;
//! assert!(handle.load()?.current().matches(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"));
//! assert!(matches!(rotation.next_step()?, NextStep::Wait { .. }), "until every process has it");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod policy;
mod presence;
mod audit;
mod display;
mod status;
mod commit;
mod decide;
mod steps;
mod probing;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::{Instant, SystemTime};

use crate::handle::{Generation, KeyHandle, Publisher};
use crate::internal::threads::Lock;
use crate::internal::time::Clocks;
use crate::key::{Fingerprint, Issuer};
use crate::keyset::KeySetError;
use crate::probe::Probe;
use crate::refresh::{RefreshError, RefreshSettings, Refresher};
use crate::source::Provenance;
use crate::store::{DocumentError, DocumentStore};

pub use audit::{AuditAction, AuditError, AuditEvent};
pub use commit::Transition;
pub use policy::RotationPolicy;
pub use presence::{Fleet, Presence, PresenceError, PresenceRecord, PresenceSettings};
pub use probing::{Retirement, Verification};
pub use status::{NextStep, Reason, RotationStatus};
pub use steps::{Aborted, CheckedBy, Compromised, KeyDetails, Staged};

use audit::AuditLog;
use policy::Sight;

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
    store: Arc<dyn DocumentStore>,
    publisher: Publisher<I>,
    policy: RotationPolicy,
    probe: Option<Box<dyn Probe>>,
    audit: Vec<AuditLog>,
    operator: Option<String>,
    clocks: Box<dyn Fn() -> Clocks + Send + Sync>,
    /// The documents that the processes of the fleet show themselves in.
    presence: Vec<Box<dyn DocumentStore>>,
    seen: Lock<Seen>,
}

/// What this `Rotation` has seen, and what it could not record.
#[derive(Default)]
struct Seen {
    sight: Option<Sight>,
    /// The generation whose refusal the audit has.
    raised_refusal: Option<Generation>,
    /// The number of events that an audit log lacks, and why it lacks the last one.
    unaudited: Option<(u64, AuditError)>,
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
    /// result [says so](Transition::unaudited).
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

    /// Adds a document that processes of the fleet [show](Presence::show) themselves in, so that
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
        self.with_both_clocks(move || {
            let wall = clock();
            let passed = wall.duration_since(start).unwrap_or_default();
            Clocks::at(wall, monotonic.checked_add(passed).unwrap_or(monotonic))
        })
    }

    /// Sets the wall clock and the monotonic clock, for tests of clocks that are changed.
    #[must_use]
    pub fn with_clocks(
        self,
        wall: impl Fn() -> SystemTime + Send + Sync + 'static,
        monotonic: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> Self {
        self.with_both_clocks(move || Clocks::at(wall(), monotonic()))
    }

    fn with_both_clocks(mut self, clocks: impl Fn() -> Clocks + Send + Sync + 'static) -> Self {
        self.clocks = Box::new(clocks);
        // What was seen until now was seen by other clocks.
        self.seen().sight = None;
        self
    }

    fn now(&self) -> Clocks {
        (self.clocks)()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }
}

impl<I: Issuer> fmt::Debug for Rotation<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rotation({:?} in {})", self.publisher, self.store.provenance())
    }
}

/// Why a step failed, or why it is not known whether it was persisted, and what to do next.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
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
        "there is no probe to ask the issuer with: give one; without a probe, say that a person has checked \
         it: `CheckedBy::Person(id)`"
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

impl fmt::Debug for RotationError {
    /// As [`Display`](fmt::Display): a `main` that ends with the error prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
