//! What asking the issuer came to.

use std::fmt;

use super::Transition;
use crate::fingerprint::Fingerprint;
use crate::probe::Report;

/// What [`Rotation::verify`](super::Rotation::verify) came to. But for `Verified`, nothing was changed.
///
/// ```
/// use keysheath::rotation::Verification;
/// fn may_promote(verification: &Verification) -> bool {
///     matches!(verification, Verification::Verified { .. })
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the key may not be verified"]
#[non_exhaustive]
pub enum Verification {
    /// Every place accepted the key, and that is noted.
    Verified {
        /// The step.
        transition: Transition,
        /// What each place answered.
        report: Report,
    },
    /// The issuer does not know the key, which was staged a moment ago: it may not know it yet.
    NotYet {
        /// What each place answered.
        report: Report,
    },
    /// The issuer says that it does not know the key.
    KeyRefused {
        /// What each place answered.
        report: Report,
    },
    /// The key does not serve every store; the report names them.
    StoreRefused {
        /// What each place answered.
        report: Report,
    },
    /// Nothing was learnt about the key.
    Inconclusive {
        /// What each place answered.
        report: Report,
    },
}

/// What [`Rotation::retire`](super::Rotation::retire) came to.
///
/// ```
/// use keysheath::rotation::Retirement;
/// fn needs_a_person(retirement: &Retirement) -> bool {
///     !matches!(retirement, Retirement::Retired { .. })
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the wrong key may have been deleted"]
#[non_exhaustive]
pub enum Retirement {
    /// The previous key is refused and the one in force accepted, so the previous one is retired; or there was none.
    Retired {
        /// The step.
        transition: Transition,
    },
    /// The previous key still works: nobody has deleted it. Nothing was changed.
    StillAccepted {
        /// The previous key.
        fingerprint: Fingerprint,
        /// Whether it should be gone: the settle time has passed, and no request of this process and no process of the
        /// [fleet](super::Rotation::with_presence) may use it.
        is_overdue: bool,
    },
    /// The key in force was deleted in place of the previous one, which works and is in force again.
    WrongKeyDeleted {
        /// The step: the fall back.
        transition: Transition,
        /// The key that was deleted. It is retired.
        deleted: Fingerprint,
        /// The key that is in force again.
        in_force: Fingerprint,
    },
    /// The issuer refuses both keys. Nothing was changed: there is no key to fall back to.
    BothRefused {
        /// The key in force.
        current: Fingerprint,
        /// The previous key.
        previous: Fingerprint,
    },
    /// The answers do not tell. Nothing was changed.
    Undecided {
        /// What was answered about the key in force.
        current: Report,
        /// What was answered about the previous key.
        previous: Report,
    },
}

impl fmt::Display for Verification {
    /// What it came to and what to do next, and the report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (says, report) = match self {
            Self::Verified { transition, report } => return write!(f, "{transition}\n{report}"),
            Self::NotYet { report } => (
                "the issuer does not know the key yet; nothing was changed: verify it again in a moment",
                report,
            ),
            Self::KeyRefused { report } => (
                "the issuer does not know the key; nothing was changed: see whether it was deleted, or copied from \
                 another account; abort it, and create another",
                report,
            ),
            Self::StoreRefused { report } => (
                "the key does not serve every store; nothing was changed: see below which, create a key for all of \
                 them, or mend the probe's list",
                report,
            ),
            Self::Inconclusive { report } => {
                ("nothing was learnt about the key; nothing was changed: verify it again later", report)
            }
        };
        write!(f, "{says}\n{report}")
    }
}

impl fmt::Display for Retirement {
    /// What it came to and what to do next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired { transition } => write!(f, "{transition}"),
            Self::StillAccepted { fingerprint, is_overdue: true } => {
                write!(f, "OVERDUE: the key {fingerprint} still works: delete it in the app, then retire it")
            }
            Self::StillAccepted { fingerprint, is_overdue: false } => write!(
                f,
                "the key {fingerprint} still works, and may be in use: wait until its deletion is asked for"
            ),
            Self::WrongKeyDeleted { transition, deleted, in_force } => write!(
                f,
                "THE WRONG KEY WAS DELETED: {deleted} is gone, and {in_force}, which should have been, is in force \
                 again: do not delete that one; create another key and stage it\n{transition}"
            ),
            Self::BothRefused { current, previous } => write!(
                f,
                "BOTH KEYS ARE REFUSED: {current}, in force, and {previous}, the previous one; nothing was changed, and \
                 no request can succeed: create a key at once, stage it, report both of these as compromised or retire \
                 the previous one without a probe, then verify and promote the new one"
            ),
            Self::Undecided { current, previous } => write!(
                f,
                "the answers do not tell, and nothing was changed: retire it again later\nthe key in force: \
                 {current}\nthe previous key: {previous}"
            ),
        }
    }
}
