//! The steps that a person can be asked for, and why a key is to be created.

use std::time::{Duration, SystemTime};

use crate::key::{Fingerprint, Profile};
use crate::keyset::{Place, RotationId};
use crate::rotation::PresenceRecord;

/// What a person has to do now. Its `Display` tells them, in the issuer's own words for where.
///
/// ```
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::Kanal;
/// # use keysheath::store::MemoryStore;
/// # use keysheath::rotation::{NextStep, Rotation, RotationPolicy};
/// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
/// let step = rotation.next_step()?;
/// assert!(matches!(step, NextStep::Create { .. }));
/// assert!(step.to_string().contains("Settings → API Keys → Add API key"));
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// Report a leak once more: this process has stopped a key that is not persisted as compromised. Until that is done,
    /// other processes send it.
    #[non_exhaustive]
    ReportLeak {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
    },
    /// Create a key in the app, and stage it.
    Create {
        /// Whose.
        profile: &'static Profile,
        /// What to call it there. No name is suggested twice.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// Verify a key.
    #[non_exhaustive]
    Verify {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
        /// Pending, or in force.
        place: Place,
        /// For the key in force: the rotation that is under way, which is to be aborted before this one is rolled back.
        under_way: Option<RotationId>,
        /// Whether there is a previous key to roll back to.
        can_roll_back: bool,
    },
    /// See by hand that a key works: there is no probe.
    #[non_exhaustive]
    VerifyByHand {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
    },
    /// Promote the pending key.
    #[non_exhaustive]
    Promote {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
    },
    /// Abort the rotation: the issuer refuses the pending key.
    #[non_exhaustive]
    Abort {
        /// Which key.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
        /// Its rotation.
        rotation: RotationId,
    },
    /// Wait: the previous key, or one that was rolled back and given up, may still be in use, or the issuer may not know the
    /// active key yet.
    #[non_exhaustive]
    Wait {
        /// The key that is to be kept until then.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
        /// The rotation of the active key, or of the one that was given up.
        rotation: RotationId,
        /// What is left, by the clocks of this process if it keeps running, of the settle time and of the time in which
        /// the issuer may not know the active key yet: of the one that takes longer.
        left: Duration,
        /// Whether `left` is of the latter.
        is_activating: bool,
        /// From when on a process that starts then finds both over; `None` where they are over here. It has the written
        /// times alone, so that it adds a [bound on how much clocks differ](super::RotationPolicy::with_clock_skew).
        again: Option<SystemTime>,
        /// Whether no request of this process holds the key.
        is_drained: bool,
        /// The processes of the fleet that show that they do not have the key in force alone.
        behind: Vec<PresenceRecord>,
    },
    /// Delete the previous key in the app, and retire it.
    #[non_exhaustive]
    Delete {
        /// Whose.
        profile: &'static Profile,
        /// The key to delete.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known; an app shows no fingerprints.
        name: Option<String>,
        /// When it was staged.
        staged: SystemTime,
        /// What was noted of it then.
        note: Option<String>,
        /// The key to keep.
        keep: Fingerprint,
        /// The name of the key to keep, where it is known.
        keep_name: Option<String>,
        /// The rotation to retire: that of the key to keep.
        rotation: RotationId,
        /// Whether a probe accepted the key to keep since it was promoted, and a probe will see that the right one was deleted.
        /// If not, the person must see to both.
        is_confirmed: bool,
        /// How many processes show that they have the key in force alone; `None` where the rotation was given no
        /// [presence](super::Rotation::with_presence). With none, the person must see that nobody uses the old one.
        shown: Option<usize>,
        /// The processes that have shown something else, and then nothing for their time to live. The person must see
        /// that they use the old key no more.
        silent: Vec<PresenceRecord>,
    },
    /// Delete a key that was given up in the app, and confirm that it is deleted.
    #[non_exhaustive]
    DeleteGivenUp {
        /// Whose.
        profile: &'static Profile,
        /// The key to delete.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known; an app shows no fingerprints.
        name: Option<String>,
        /// Its rotation, which was aborted.
        rotation: RotationId,
        /// When it was staged.
        staged: SystemTime,
        /// The key to keep.
        keep: Fingerprint,
        /// The name of the key to keep, where it is known.
        keep_name: Option<String>,
        /// Whether a probe accepted the key to keep since it was promoted. If not, the person must see to it.
        is_confirmed: bool,
        /// As of [`NextStep::Delete`], for a key that was in force.
        shown: Option<usize>,
        /// As of [`NextStep::Delete`], for a key that was in force.
        silent: Vec<PresenceRecord>,
    },
    /// Delete a key that leaked in the app, at once, and confirm that it is deleted.
    #[non_exhaustive]
    DeleteLeaked {
        /// Whose.
        profile: &'static Profile,
        /// The key to delete.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known; an app shows no fingerprints.
        name: Option<String>,
        /// When it was staged.
        staged: SystemTime,
        /// The key in force, which is to be kept; `None` where there is none.
        keep: Option<Fingerprint>,
        /// The name of the key to keep, where it is known.
        keep_name: Option<String>,
    },
    /// Retire the previous key: the issuer has refused one of the two keys, so that somebody has deleted one.
    #[non_exhaustive]
    Confirm {
        /// The previous key.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
        /// The key in force.
        in_force: Fingerprint,
        /// Its name in the app, where it is known.
        in_force_name: Option<String>,
        /// The rotation to retire: that of the key in force.
        rotation: RotationId,
        /// Whether the previous key was refused, as it is once a person has deleted it.
        is_previous_refused: bool,
        /// Whether the key in force was refused.
        is_current_refused: bool,
    },
    /// See why the issuer refuses the active key: this process, or another one of the fleet, was told so.
    #[non_exhaustive]
    Refused {
        /// Whose.
        profile: &'static Profile,
        /// The key in force.
        fingerprint: Fingerprint,
        /// Its rotation.
        rotation: RotationId,
        /// The previous key, where there is one to go back to.
        previous: Option<Fingerprint>,
        /// The rotation that is under way, which is to be aborted before this one is rolled back.
        under_way: Option<RotationId>,
        /// What to call the next one.
        name: String,
        /// Whether there is a probe to verify the key with.
        has_probe: bool,
    },
    /// Nothing.
    #[non_exhaustive]
    Nothing {
        /// When the key in force becomes too old; `None` where that is later than a clock can tell.
        due: Option<SystemTime>,
    },
}

impl NextStep {
    /// The rotation that the step names; `None` where it is about none, or about a key that leaked.
    ///
    /// ```
    /// # use keysheath::key::Kanal;
    /// # use keysheath::rotation::{NextStep, Rotation, RotationError};
    /// fn verify(rotation: &Rotation<Kanal>) -> Result<(), RotationError> {
    ///     let step = rotation.next_step()?;
    ///     if let (NextStep::Verify { .. }, Some(id)) = (&step, step.rotation()) {
    ///         println!("{}", rotation.verify(id)?);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub const fn rotation(&self) -> Option<RotationId> {
        match self {
            Self::Verify { rotation, .. }
            | Self::VerifyByHand { rotation, .. }
            | Self::Promote { rotation, .. }
            | Self::Abort { rotation, .. }
            | Self::Wait { rotation, .. }
            | Self::Delete { rotation, .. }
            | Self::DeleteGivenUp { rotation, .. }
            | Self::Confirm { rotation, .. }
            | Self::Refused { rotation, .. } => Some(*rotation),
            Self::ReportLeak { .. }
            | Self::Create { .. }
            | Self::DeleteLeaked { .. }
            | Self::Nothing { .. } => None,
        }
    }
}

/// Why a key is to be created.
///
/// ```
/// use keysheath::rotation::Reason;
/// assert_ne!(Reason::NoKey, Reason::FellBack);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is none.
    NoKey,
    /// The only one has leaked; delete that first.
    #[non_exhaustive]
    Leaked {
        /// The oldest key that leaked and that nobody has said is deleted.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
    },
    /// A probe saw that the issuer refuses the active key, and there is no other that works.
    #[non_exhaustive]
    Refused {
        /// The active key.
        fingerprint: Fingerprint,
    },
    /// The key that was to replace the active one was deleted.
    FellBack,
    /// The key in force becomes too old soon.
    #[non_exhaustive]
    Soon {
        /// When.
        due: SystemTime,
    },
    /// The key in force is too old.
    #[non_exhaustive]
    Overdue {
        /// Since when.
        due: SystemTime,
    },
}
