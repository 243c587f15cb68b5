//! What asking the issuer came to.

use std::fmt;

use super::{NextStep, Transition};
use crate::key::Fingerprint;
use crate::keyset::{Labelled, Place};
use crate::probe::{Report, Verdict};

/// What [`Rotation::verify`](super::Rotation::verify) came to. An acceptance and a refusal are noted; otherwise nothing was
/// changed.
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
    #[non_exhaustive]
    Verified {
        /// The step.
        transition: Transition,
        /// What each place answered.
        report: Report,
    },
    /// The issuer does not know the key, which was staged a moment ago: it may not know it yet.
    #[non_exhaustive]
    NotYet {
        /// What each place answered.
        report: Report,
    },
    /// The issuer says that it does not know the key, and that is noted.
    #[non_exhaustive]
    KeyRefused {
        /// What each place answered.
        report: Report,
        /// Where the key is: pending, or in force.
        place: Place,
        /// What to do now.
        next: Box<NextStep>,
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
    #[non_exhaustive]
    StillAccepted {
        /// The previous key.
        fingerprint: Fingerprint,
        /// Its name in the app, where it is known.
        name: Option<String>,
        /// Whether it should be gone: the settle time has passed, and no request of this process and no process of the
        /// [fleet](super::Rotation::with_presence) may use it.
        is_overdue: bool,
    },
    /// The key in force was deleted in place of the previous one, which works and is in force again.
    #[non_exhaustive]
    WrongKeyDeleted {
        /// The step: the fall back.
        transition: Transition,
        /// The key that was deleted. It is retired.
        deleted: Fingerprint,
        /// The key that is in force again.
        in_force: Fingerprint,
        /// The name of that key in the app, where it is known.
        name: Option<String>,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The issuer refuses both keys, and that is noted: there is no key to fall back to.
    #[non_exhaustive]
    BothRefused {
        /// The key in force.
        current: Fingerprint,
        /// The previous key.
        previous: Fingerprint,
        /// What to do now.
        next: Box<NextStep>,
    },
    /// The answers do not tell. Both keys stay.
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
            // Without the report, which would have another key created.
            Self::NotYet { .. } => {
                return f.write_str(
                    "the issuer does not know the key yet, which was staged a moment ago; nothing was changed: verify it \
                     again in a moment",
                );
            }
            Self::KeyRefused { report, place: Place::Current, next } => {
                return write!(
                    f,
                    "THE ISSUER REFUSES THE ACTIVE KEY, so that requests fail; {next}\n{report}"
                );
            }
            Self::KeyRefused { report, next, .. } => {
                return write!(f, "the pending key does not work; {next}\n{report}");
            }
            Self::StoreRefused { report } => (
                "the key does not serve every store; nothing was changed: see below which, create a key for all of \
                 them, or correct the probe's list",
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
            Self::StillAccepted { fingerprint, name, is_overdue } => {
                let key = Labelled { name: name.as_deref(), fingerprint: *fingerprint };
                if *is_overdue {
                    write!(f, "OVERDUE: {key} still works: delete it in the app, then retire it")
                } else {
                    write!(f, "{key} still works, and may be in use: wait until its deletion is asked for")
                }
            }
            Self::WrongKeyDeleted { deleted, in_force, name, next, .. } => {
                let key = Labelled { name: name.as_deref(), fingerprint: *in_force };
                write!(
                    f,
                    "THE WRONG KEY WAS DELETED: {deleted} is gone, and {key}, which should have been, is in force \
                     again: do not delete that one; {}",
                    next.without_reason()
                )
            }
            Self::BothRefused { current, previous, next } => write!(
                f,
                "BOTH KEYS ARE REFUSED: {current}, in force, and {previous}, the previous one, so that no request can \
                 succeed; {next}, and verify and promote it: that retires the previous one"
            ),
            Self::Undecided { current, previous }
                if [current, previous].map(Report::verdict)
                    == [Verdict::StoreRefused, Verdict::KeyRefused] =>
            {
                write!(
                    f,
                    "the previous key is refused, and the key in force does not serve every store: stage a key for every \
                     store, verify and promote it, which retires the previous one\nthe key in force: \
                     {current}\nthe previous key: {previous}"
                )
            }
            Self::Undecided { current, previous } => write!(
                f,
                "the answers do not tell, and both keys stay: retire it again later\nthe key in force: \
                 {current}\nthe previous key: {previous}"
            ),
        }
    }
}
