//! A rotation: its key set, its probe, its audit and its clocks.

use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::{Instant, SystemTime};

use super::audit_log::{AuditError, AuditLog};
use super::error::RotationError;
use super::policy::RotationPolicy;
use super::presence::Fleet;
use super::settle::Sight;
use crate::handle::{Generation, KeyHandle, Publisher};
use crate::internal::clocks::Clocks;
use crate::internal::lock::Lock;
use crate::key::Issuer;
use crate::probe::Probe;
use crate::refresh::{RefreshError, RefreshSettings, Refresher};
use crate::store::DocumentStore;

/// The rotation of the keys of one key set. Share it between threads, or open one for each.
///
/// ```
/// use keysheath::key::Kanal;
/// use keysheath::rotation::{AuditLog, Rotation, RotationPolicy};
/// use keysheath::store::FileStore;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let (path, audit) = (folder.path().join("kanal-keys"), folder.path().join("keys.jsonl"));
/// let rotation = Rotation::<Kanal>::open(FileStore::new(path), RotationPolicy::new())?
///     .with_audit(AuditLog::file(audit))
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

    /// Adds an audit log.
    #[must_use]
    pub fn with_audit(mut self, audit: AuditLog) -> Self {
        self.audit.push(audit);
        self
    }

    /// Sets the name of the person or program that acts: at most [`MAX_PERSON`](crate::keyset::MAX_PERSON)
    /// printable characters. Each step refuses other names.
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
