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
//! A step that takes more than the plain value has a small type for it: [`KeyDetails`] for a key with a name
//! or a note, and [`Checked`] for a step that a person vouches for in place of a probe.
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
//! let id = rotation.stage(KeyDetails::of(&new).with_note("the spring rotation"))?.rotation();
//! assert!(matches!(rotation.verify(id)?, Verification::Verified { .. }));
//! rotation.promote(id)?;
//! assert!(handle.load()?.current().matches(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"));
//! assert!(matches!(rotation.next_step()?, NextStep::Wait { .. }), "until every process has it");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod policy;
mod presence;
mod audit;
mod audit_log;
mod next_step;
mod display;
mod outcome;
mod rotator;
mod commit;
mod decide;
mod steps;
mod probing;

pub use audit::{AuditAction, AuditEvent};
pub use audit_log::AuditError;
pub use next_step::{NextStep, Reason};
pub use outcome::{Aborted, Compromised, Retirement, Staged, Transition, Verification};
pub use policy::RotationPolicy;
pub use presence::{Fleet, Presence, PresenceError, PresenceRecord, PresenceSettings};
pub use rotator::{Rotation, RotationError, RotationStatus};
pub use steps::{Checked, KeyDetails};
