//! The steps that a person can be asked for.

use std::time::{Duration, SystemTime};

use super::presence::PresenceRecord;
use crate::key::{Fingerprint, Profile};
use crate::keyset::{KeyInfo, KeyState, RotationId, UndeletedKey};

/// What a person has to do now. Its `Display` says so, with the names that the issuer's app uses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// Report a leak again: this process stopped sending a key that is not persisted as compromised. Until it
    /// is, other processes send it.
    #[non_exhaustive]
    ReportLeak {
        /// The key.
        key: KeyInfo,
    },
    /// Create a key in the app, and stage it.
    Create {
        /// The issuer.
        profile: &'static Profile,
        /// The suggested name. No name is suggested twice.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// Verify a key.
    #[non_exhaustive]
    Verify {
        /// The key.
        key: KeyInfo,
        /// Pending, or active.
        state: KeyState,
        /// For the active key: the rotation in progress, which must be aborted before this one is rolled
        /// back.
        in_progress: Option<RotationId>,
        /// Whether there is a previous key to roll back to.
        can_roll_back: bool,
    },
    /// Check by hand that a key works: there is no probe.
    #[non_exhaustive]
    VerifyByHand {
        /// The key.
        key: KeyInfo,
    },
    /// Promote the pending key.
    #[non_exhaustive]
    Promote {
        /// The key.
        key: KeyInfo,
    },
    /// Abort the rotation: the issuer refuses the pending key.
    #[non_exhaustive]
    Abort {
        /// The key.
        key: KeyInfo,
    },
    /// Wait: the previous key, or one that was rolled back and aborted, may still be in use, or the issuer
    /// may not know the active key yet.
    #[non_exhaustive]
    Wait {
        /// The key that must be kept until then.
        fingerprint: Fingerprint,
        /// Its name in the app, if it is known.
        name: Option<String>,
        /// The rotation of the active key, or of the aborted one.
        rotation: RotationId,
        /// The rest of the settle time or of the activation time, whichever is longer, by the clocks of this
        /// process if it keeps running.
        remaining: Duration,
        /// Whether `remaining` is of the activation time.
        is_activating: bool,
        /// When a process that starts then finds both over; `None` if they are over here. It has only the
        /// written times, and so adds the [bound on how much clocks
        /// differ](super::RotationPolicy::with_clock_skew).
        ask_again: Option<SystemTime>,
        /// Whether no request of this process holds the key.
        is_drained: bool,
        /// The processes of the fleet that may still use the key.
        still_using: Vec<PresenceRecord>,
    },
    /// Delete the previous key in the app, and retire it.
    #[non_exhaustive]
    Delete {
        /// The issuer.
        profile: &'static Profile,
        /// The key to delete.
        key: KeyInfo,
        /// The active key, which must be kept. Its rotation is the one to retire.
        keep: KeyInfo,
        /// Whether a probe accepted the key to keep since it was promoted, and will see that the right one
        /// was deleted. If not, the person must check both.
        is_confirmed: bool,
        /// How many processes use the active key only; `None` without a
        /// [presence](super::Rotation::with_presence). If it is zero, the person must check that no process
        /// uses the old key.
        shown: Option<usize>,
        /// The processes that last showed another key, and then nothing for their time to live. The person
        /// must check that they no longer use the old key.
        silent: Vec<PresenceRecord>,
    },
    /// Delete an aborted key in the app, and confirm that it is deleted.
    #[non_exhaustive]
    DeleteAborted {
        /// The issuer.
        profile: &'static Profile,
        /// The key to delete.
        key: UndeletedKey,
        /// The active key, which must be kept.
        keep: KeyInfo,
        /// Whether a probe accepted the key to keep since it was promoted. If not, the person must check it.
        is_confirmed: bool,
        /// As in [`NextStep::Delete`], for a key that was active.
        shown: Option<usize>,
        /// As in [`NextStep::Delete`], for a key that was active.
        silent: Vec<PresenceRecord>,
    },
    /// Delete a leaked key in the app at once, and confirm that it is deleted.
    #[non_exhaustive]
    DeleteLeaked {
        /// The issuer.
        profile: &'static Profile,
        /// The key to delete.
        key: UndeletedKey,
        /// The active key, which must be kept; `None` if there is none.
        keep: Option<KeyInfo>,
    },
    /// Retire the previous key: the issuer refused one of the two keys, so a person has deleted one.
    #[non_exhaustive]
    Confirm {
        /// The active key. Its rotation is the one to retire.
        current: KeyInfo,
        /// The previous key.
        previous: KeyInfo,
        /// Whether the active key was refused.
        is_current_refused: bool,
        /// Whether the previous key was refused, as it is once a person has deleted it.
        is_previous_refused: bool,
    },
    /// Find out why the issuer refuses the active key to this process or to another one of the fleet.
    #[non_exhaustive]
    Refused {
        /// The issuer.
        profile: &'static Profile,
        /// The active key.
        key: KeyInfo,
        /// The previous key, if there is one to go back to.
        previous: Option<KeyInfo>,
        /// The rotation in progress, which must be aborted before this one is rolled back.
        in_progress: Option<RotationId>,
        /// The suggested name of the next key.
        name: String,
        /// Whether there is a probe to verify the key with.
        has_probe: bool,
    },
    /// Nothing.
    #[non_exhaustive]
    Nothing {
        /// When the active key reaches the largest age; `None` if that is later than a clock can represent.
        due: Option<SystemTime>,
    },
}

impl NextStep {
    /// Returns the rotation that the step names; `None` if it names none, or is about a leaked key.
    #[must_use]
    pub const fn rotation(&self) -> Option<RotationId> {
        match self {
            Self::Verify { key, .. }
            | Self::VerifyByHand { key }
            | Self::Promote { key }
            | Self::Abort { key }
            | Self::Delete { keep: key, .. }
            | Self::Confirm { current: key, .. }
            | Self::Refused { key, .. } => Some(key.rotation()),
            Self::Wait { rotation, .. } => Some(*rotation),
            Self::DeleteAborted { key, .. } => key.rotation(),
            Self::ReportLeak { .. }
            | Self::Create { .. }
            | Self::DeleteLeaked { .. }
            | Self::Nothing { .. } => None,
        }
    }
}

/// Why a key must be created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is none.
    NoKey,
    /// The only one has leaked; delete that first.
    #[non_exhaustive]
    Leaked {
        /// The oldest leaked key whose deletion is not confirmed.
        key: UndeletedKey,
    },
    /// A probe saw that the issuer refuses the active key, and no other key works.
    #[non_exhaustive]
    Refused {
        /// The active key.
        key: KeyInfo,
    },
    /// The key that was to replace the active one was deleted.
    FellBack,
    /// The active key reaches the largest age soon.
    #[non_exhaustive]
    Soon {
        /// When.
        due: SystemTime,
    },
    /// The active key is older than the largest age.
    #[non_exhaustive]
    Overdue {
        /// Since when.
        due: SystemTime,
    },
}
