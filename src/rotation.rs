//! Rotating a key: its key set, the place where that is persisted, a probe, and the handle that sends.
//!
//! A person makes the new key in the issuer's app and deletes the old one there; a [`Rotation`] does what lies between, and
//! [`next_step`](Rotation::next_step) tells the person what to do now. Each step is **persisted, then published**: it
//! is written to the document store, only if nobody else has written meanwhile; then the handle has it; then it is
//! told to the audit. So memory is never ahead of the store, and whoever dies in the middle does the last step again.
//!
//! | step | what it does | asks the issuer |
//! |---|---|---|
//! | [`adopt`](Rotation::adopt) | takes the key in use as the one in force; once, to begin | no |
//! | [`stage`](Rotation::stage) | persists a new key before anything else happens to it | no |
//! | [`verify`](Rotation::verify) | notes that the new key works, for every store of the probe | yes |
//! | [`promote`](Rotation::promote) | brings it into force; the old key is the previous one, and has its grace | no |
//! | [`roll_back`](Rotation::roll_back) | brings the previous key back into force | no |
//! | [`retire`](Rotation::retire) | forgets the previous key once the issuer refuses it and accepts the one in force | yes |
//! | [`abort`](Rotation::abort) | gives the pending key up | no |
//! | [`compromise`](Rotation::compromise) | a leaked key leaves every place at once, and comes back to none | no |
//! | [`confirm_deleted`](Rotation::confirm_deleted) | notes that a person has deleted a leaked key, or an aborted one | no |
//!
//! # Which rotation a step is about
//! A step names the rotation that it is about, by the number from [`status`](Rotation::status),
//! [`next_step`](Rotation::next_step) or the [`Transition`] of an earlier step. Where another thread or process has ended
//! that rotation meanwhile, the step is refused and changes nothing: no caller acts on a key that it has not seen.
//!
//! # Clocks
//! A key is asked to be deleted only once the settle time since the promotion is over by the wall clock and by the monotonic
//! one of a process that saw the promotion all that time. A process that has just started has the written time alone,
//! and adds a [bound on how much clocks differ](RotationPolicy::with_clock_skew).
//!
//! # A fleet
//! Processes on other machines follow the key set in a store that they share, such as OpenBao. Which of them use the old key still is
//! what they show: [`Presence`] has the walk-through.
//!
//! # Blocking
//! Everything here blocks, for the deadlines of the store, the probe and the audit file. In async code, call it through
//! your runtime's `spawn_blocking`.
//!
//! ```
//! use keysheath::handle::KeyHandle;
//! use keysheath::key::{ApiKey, Kanal, RawKey};
//! use keysheath::store::MemoryStore;
//! use keysheath::failure::{Answer, Meaning};
//! use keysheath::probe::{Finding, Probe, Report};
//! use keysheath::rotation::{NextStep, Rotation, RotationPolicy, Verification};
//!
//! struct AlwaysAccepted; // in place of a KanalProbe
//! impl Probe for AlwaysAccepted {
//!     fn probe(&self, _: &RawKey) -> Report {
//!         Report::new(Finding::new(Ok(Answer::new(201, Meaning::Accepted))))
//!     }
//! }
//!
//! let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?
//!     .with_probe(AlwaysAccepted)
//!     .by("anna");
//! let handle = rotation.handle();
//! rotation.adopt(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap().as_raw())?;
//!
//! let new = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
//! let staged = rotation.stage(new.as_raw(), Some("the spring rotation"))?;
//! let id = staged.rotation().expect("a staged key begins a rotation");
//! assert!(matches!(rotation.verify(id)?, Verification::Verified { .. }));
//! rotation.promote(id)?;
//! assert!(handle.load().unwrap().current().matches(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"));
//! assert!(matches!(rotation.next_step()?, NextStep::Wait { .. }), "until every process has it");
//! # Ok::<(), keysheath::rotation::RotationError>(())
//! ```

mod audit;
mod commit;
mod details;
mod error;
mod leak;
mod next_step;
mod outcome;
mod policy;
#[cfg(test)]
mod power_cut;
mod presence;
mod probing;
mod settle;
mod slot;
mod status;
mod steps;
mod transition;

use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::{Instant, SystemTime};

use crate::handle::{Generation, KeyHandle, Publisher};
use crate::internal::clocks::Clocks;
use crate::internal::lock::Lock;
use crate::key::Issuer;
use crate::probe::Probe;
use crate::refresh::{RefreshError, RefreshSettings, Refresher};
use crate::store::DocumentStore;

pub use audit::{AuditAction, AuditError, AuditEvent, AuditLog};
pub use commit::MAX_CONFLICTS;
pub use details::KeyDetails;
pub use error::RotationError;
pub use next_step::{NextStep, Reason};
pub use outcome::{Retirement, Verification};
pub use policy::{
    DEFAULT_ACTIVATION, DEFAULT_CLOCK_SKEW, DEFAULT_GRACE, DEFAULT_MAX_AGE, DEFAULT_SETTLE, DEFAULT_WARNING,
    RotationPolicy,
};
pub use presence::{Fleet, MAX_PROCESSES, Presence, PresenceError, PresenceRecord, PresenceSettings};
pub use slot::SlotStatus;
pub use status::RotationStatus;
pub use transition::Transition;

use settle::Sight;

/// The rotation of the keys of one key set. Share it between threads as it is, or open one for each.
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::Kanal;
/// use keysheath::store::FileStore;
/// use keysheath::rotation::{Rotation, RotationPolicy};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("kanal-keys");
/// let rotation = Rotation::<Kanal>::open(FileStore::new(path), RotationPolicy::new())?;
/// println!("{}", rotation.next_step()?);
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
pub struct Rotation<I: Issuer> {
    store: Arc<dyn DocumentStore>,
    publisher: Publisher<I>,
    policy: RotationPolicy,
    probe: Option<Box<dyn Probe>>,
    audit: Vec<AuditLog>,
    by: Option<String>,
    clocks: Box<dyn Fn() -> Clocks + Send + Sync>,
    /// Where the processes of the fleet show themselves.
    presence: Vec<Box<dyn DocumentStore>>,
    seen: Lock<Seen>,
}

/// What this `Rotation` has seen, and what it could not tell.
#[derive(Default)]
struct Seen {
    sight: Option<Sight>,
    /// The generation whose refusal the audit was told of.
    told_refused: Option<Generation>,
    /// How many events are missing from an audit, and why the last one is.
    unaudited: Option<(u64, AuditError)>,
}

impl<I: Issuer> Rotation<I> {
    /// Opens the key set in a store, which may be empty, and publishes its active key to the
    /// [handles](Rotation::handle) of this rotation.
    ///
    /// # Errors
    /// [`RotationError::Document`] or [`RotationError::Unreadable`] when the key set cannot be read.
    pub fn open(store: impl DocumentStore + 'static, policy: RotationPolicy) -> Result<Self, RotationError> {
        let rotation = Self {
            store: Arc::new(store),
            publisher: Publisher::new(),
            policy,
            probe: None,
            audit: Vec::new(),
            by: None,
            clocks: Box::new(Clocks::now),
            presence: Vec::new(),
            seen: Lock::default(),
        };
        rotation.look(rotation.now())?;
        Ok(rotation)
    }

    /// Returns a handle on the active key, for a program that rotates and sends. All handles of this rotation show the
    /// same key; once the rotation is dropped, they keep the last one.
    ///
    /// It shows what this rotation has read or written. [`Rotation::start_refresher`] also takes what other processes
    /// promote.
    #[must_use]
    pub fn handle(&self) -> KeyHandle<I> {
        self.publisher.handle()
    }

    /// Starts a refresher of the same key set, which publishes to the handles of this rotation. It may outlive the
    /// rotation.
    ///
    /// # Errors
    /// As [`Refresher::from_store`].
    pub fn start_refresher(&self, settings: RefreshSettings) -> Result<Refresher<I>, RefreshError> {
        Refresher::publish_to(Arc::clone(&self.store), self.publisher.clone(), settings)
    }

    /// With a probe, for [`verify`](Rotation::verify) and [`retire`](Rotation::retire). It should ask for every store
    /// that the keys serve.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::{probe::Probe, rotation::{Rotation, RotationError, RotationPolicy}};
    /// fn open(probe: impl Probe + 'static) -> Result<Rotation<Kanal>, RotationError> {
    ///     Ok(Rotation::open(MemoryStore::new(), RotationPolicy::new())?.with_probe(probe))
    /// }
    /// ```
    #[must_use]
    pub fn with_probe(mut self, probe: impl Probe + 'static) -> Self {
        self.probe = Some(Box::new(probe));
        self
    }

    /// With one more place that audit events go to.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{AuditLog, Rotation, RotationPolicy};
    /// let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?
    ///     .with_audit(AuditLog::file("/var/log/shop-sync/keys.jsonl"));
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    #[must_use]
    pub fn with_audit(mut self, audit: AuditLog) -> Self {
        self.audit.push(audit);
        self
    }

    /// Says who acts: a person or a program, in at most [`MAX_PERSON`](crate::keyset::MAX_PERSON) printable characters.
    /// Longer names and others are refused by each step.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?.by("anna");
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// With a document that processes of the fleet [show](crate::rotation::Presence::show) themselves in, so that
    /// [`next_step`](Rotation::next_step) asks nobody to delete a key that one of them uses. A fleet that does not fit
    /// into one has several.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// let (keys, presence) = (MemoryStore::new(), MemoryStore::new());
    /// let rotation = Rotation::<Kanal>::open(keys, RotationPolicy::new())?.with_presence(presence);
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    #[must_use]
    pub fn with_presence(mut self, store: impl DocumentStore + 'static) -> Self {
        self.presence.push(Box::new(store));
        self
    }

    /// What the processes of the fleet show now: nobody, where no [presence](Rotation::with_presence) was given.
    ///
    /// # Errors
    /// [`RotationError::Presence`].
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::rotation::{Rotation, RotationError};
    /// fn show(rotation: &Rotation<Kanal>) -> Result<(), RotationError> {
    ///     println!("{}", rotation.fleet()?);
    ///     Ok(())
    /// }
    /// ```
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

    /// With another clock, for tests: it stands for the wall clock and the monotonic one. The grace that a handle counts down
    /// runs by the machine's own.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::Kanal;
    /// # use keysheath::store::MemoryStore;
    /// # use keysheath::rotation::{Rotation, RotationPolicy};
    /// let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?
    ///     .with_clock(|| SystemTime::UNIX_EPOCH);
    /// # Ok::<(), keysheath::rotation::RotationError>(())
    /// ```
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let (start, monotonic) = (clock(), Instant::now());
        self.with_clocks(move || {
            let wall = clock();
            let passed = wall.duration_since(start).unwrap_or_default();
            (wall, monotonic.checked_add(passed).unwrap_or(monotonic))
        })
    }

    /// With another wall clock and another monotonic one, for tests of clocks that are set.
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
