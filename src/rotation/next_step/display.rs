//! The next step, in words for a person.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::{NextStep, Reason};
use crate::internal::printable::Printable;
use crate::internal::utc::{Span, Utc};
use crate::key::{Fingerprint, Profile};
use crate::keyset::{Labelled, Place, RotationId};
use crate::rotation::PresenceRecord;

/// How many processes are named in one sentence.
const MOST_NAMED: usize = 8;

/// Where in the issuer's app.
pub(in crate::rotation) struct Page {
    title: &'static str,
    path: &'static str,
}

impl Page {
    fn to_create(profile: &Profile) -> Self {
        Self { title: profile.title(), path: profile.key_page() }
    }

    /// Without the button that adds a key, which is the last part of the way.
    pub(in crate::rotation) fn to_delete(profile: &Profile) -> Self {
        let path = profile.key_page();
        Self { title: profile.title(), path: path.rsplit_once(" → ").map_or(path, |(path, _)| path) }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.title, self.path)
    }
}

impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReportLeak { fingerprint, name } => {
                let key = Labelled { name: name.as_deref(), fingerprint: *fingerprint };
                write!(
                    f,
                    "{key} was stopped here as leaked, but that is not persisted, and other processes still send it: report \
                     it as compromised once more"
                )
            }
            Self::Create { profile, reason, .. } => {
                write!(f, "{}{}", Because { reason, profile }, self.without_reason())
            }
            Self::Verify { fingerprint, rotation, place: Place::Pending, .. } => {
                write!(f, "verify the pending key {fingerprint} (rotation {rotation}), or abort it")
            }
            Self::Verify { fingerprint, rotation, can_roll_back: false, .. } => write!(
                f,
                "verify the active key, {fingerprint} (rotation {rotation}), before another one is deleted"
            ),
            Self::Verify { fingerprint, rotation, under_way, .. } => {
                write!(
                    f,
                    "verify the active key, {fingerprint} (rotation {rotation}), before the old one is deleted; if it does \
                     not work, {}roll back",
                    First(*under_way)
                )
            }
            Self::VerifyByHand { fingerprint, rotation } => write!(
                f,
                "there is no probe: see for yourself that the pending key {fingerprint} (rotation {rotation}) works for \
                 every store, then promote it unverified; or abort it"
            ),
            Self::Promote { fingerprint, rotation } => {
                write!(f, "promote the verified key {fingerprint} (rotation {rotation})")
            }
            Self::Abort { fingerprint, name, rotation } => {
                let key = Labelled { name: name.as_deref(), fingerprint: *fingerprint };
                write!(
                    f,
                    "the issuer refuses {key}, which is pending (rotation {rotation}): see whether it was deleted, or copied \
                     from another account; abort it, and create another"
                )
            }
            Self::Wait { fingerprint, name, rotation: _, left, is_activating, again, is_drained, behind } => {
                let key = Labelled { name: name.as_deref(), fingerprint: *fingerprint };
                write!(f, "wait, and keep {key}: ")?;
                why_to_wait(
                    &TimeLeft { left: *left, is_activating: *is_activating, again: *again },
                    *is_drained,
                    behind,
                    f,
                )
            }
            Self::Delete { .. } | Self::DeleteGivenUp { .. } | Self::DeleteLeaked { .. } => self.deletion(f),
            Self::Confirm { .. } => self.confirmation(f),
            Self::Refused { .. } => self.refused(f),
            Self::Nothing { due: Some(due) } => write!(f, "nothing to do until {:#}", Utc(*due)),
            Self::Nothing { due: None } => f.write_str("nothing to do"),
        }
    }
}

impl NextStep {
    /// The step, where what was told before it is the reason.
    pub(in crate::rotation) const fn without_reason(&self) -> WithoutReason<'_> {
        WithoutReason(self)
    }

    fn deletion(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete {
                profile,
                fingerprint,
                name,
                staged,
                note,
                keep,
                keep_name,
                rotation: _,
                is_confirmed,
                shown,
                silent,
            } => {
                what_to_see_first(*keep, *is_confirmed, *shown, silent, f)?;
                let page = Page::to_delete(profile);
                let key = ToDelete { kind: "", name: name.as_deref(), fingerprint: *fingerprint };
                write!(f, "delete {key} in {page}: the one taken in on {:#}", Utc(*staged))?;
                if let Some(note) = note {
                    write!(f, " (noted: {})", Printable(note))?;
                }
                let keep = Labelled { name: keep_name.as_deref(), fingerprint: *keep };
                write!(f, ", and not {keep}; then retire it")?;
                f.write_str(if *is_confirmed {
                    ", and keysheath will confirm that the right one is gone"
                } else {
                    " unprobed"
                })
            }
            Self::DeleteGivenUp {
                profile,
                fingerprint,
                name,
                rotation: _,
                staged,
                keep,
                keep_name,
                is_confirmed,
                shown,
                silent,
            } => {
                what_to_see_first(*keep, *is_confirmed, *shown, silent, f)?;
                let page = Page::to_delete(profile);
                let key = ToDelete { kind: "", name: name.as_deref(), fingerprint: *fingerprint };
                let keep = Labelled { name: keep_name.as_deref(), fingerprint: *keep };
                write!(
                    f,
                    "delete {key} in {page}: the one taken in on {:#} and given up, and not {keep}; then confirm that it is \
                     deleted",
                    Utc(*staged)
                )
            }
            Self::DeleteLeaked { profile, fingerprint, name, staged, keep, keep_name } => {
                let page = Page::to_delete(profile);
                let key = ToDelete { kind: "leaked ", name: name.as_deref(), fingerprint: *fingerprint };
                write!(f, "delete {key} in {page} now: the one taken in on {:#}", Utc(*staged))?;
                if let Some(keep) = keep {
                    write!(f, ", and not {}", Labelled { name: keep_name.as_deref(), fingerprint: *keep })?;
                }
                f.write_str("; then confirm that it is deleted")
            }
            _ => Ok(()),
        }
    }

    fn confirmation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirm {
                fingerprint,
                name,
                in_force,
                in_force_name,
                rotation: _,
                is_previous_refused,
                is_current_refused,
            } => {
                let previous = Labelled { name: name.as_deref(), fingerprint: *fingerprint };
                let current = Labelled { name: in_force_name.as_deref(), fingerprint: *in_force };
                match (is_previous_refused, is_current_refused) {
                    (true, true) => write!(
                        f,
                        "the issuer has refused the active key, {current}, and the previous one, {previous}: retire the \
                         previous key now, and keysheath will see whether one of them works"
                    ),
                    (false, true) => write!(
                        f,
                        "the issuer has refused the active key, {current}: retire the previous key now, and keysheath will \
                         see whether the wrong one was deleted, and fall back to {previous}"
                    ),
                    (..) => write!(
                        f,
                        "the issuer refuses the previous key, {previous}, as it does once that is deleted: retire it now, \
                         and keysheath will see whether {current} works"
                    ),
                }
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Refused { profile, fingerprint, rotation, previous, under_way, name, has_probe } = self
        else {
            return Ok(());
        };
        let name = Printable(name);
        write!(f, "the issuer has refused the active key, {fingerprint}: ")?;
        f.write_str(if *has_probe { "verify it" } else { "see whether it was deleted" })?;
        if let Some(previous) = previous {
            return write!(
                f,
                ", and do not delete the previous one, {previous}; if it was deleted, {}roll back and abort \
                 rotation {rotation}",
                First(*under_way)
            );
        }
        write!(
            f,
            "; if it was deleted, create a key named {name} in {}, stage, verify and promote it",
            Page::to_create(profile)
        )
    }
}

pub(in crate::rotation) struct WithoutReason<'a>(&'a NextStep);

impl fmt::Display for WithoutReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NextStep::Create { profile, name, .. } => {
                let page = Page::to_create(profile);
                write!(f, "create a key named {} in {page}, then stage it", Printable(name))
            }
            step => write!(f, "{step}"),
        }
    }
}

/// What has to be done before a rotation is rolled back.
struct First(Option<RotationId>);

impl fmt::Display for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rotation) => write!(f, "abort rotation {rotation}, which is pending, then "),
            None => Ok(()),
        }
    }
}

/// A key for a person who deletes it: the name first, because an app shows no fingerprints.
struct ToDelete<'a> {
    kind: &'static str,
    name: Option<&'a str>,
    fingerprint: Fingerprint,
}

impl fmt::Display for ToDelete<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, fingerprint } = self;
        match name {
            Some(name) => {
                write!(f, "the {kind}key named {} (fingerprint {fingerprint})", Printable(name))
            }
            None => write!(f, "the {kind}key with fingerprint {fingerprint}"),
        }
    }
}

/// What is left of a wait.
struct TimeLeft {
    left: Duration,
    is_activating: bool,
    again: Option<SystemTime>,
}

impl fmt::Display for TimeLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = Span(self.left);
        if self.is_activating {
            write!(f, "the issuer has {left} to come to know the key in force")?;
        } else {
            write!(f, "other processes have {left} to take up the key in force")?;
        }
        match self.again {
            Some(again) => {
                write!(f, ", if this process keeps running; otherwise ask again after {}", Utc(again))
            }
            None => Ok(()),
        }
    }
}

fn why_to_wait(
    time: &TimeLeft,
    is_drained: bool,
    behind: &[PresenceRecord],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut reasons = Joined::by("; ");
    if time.left.is_zero() && is_drained && behind.is_empty() {
        return f.write_str("ask for the next step, which looks at who uses it");
    }
    if !time.left.is_zero() {
        reasons.next(f)?;
        write!(f, "{time}")?;
    }
    if !is_drained {
        reasons.next(f)?;
        f.write_str("requests of this process still hold it")?;
    }
    if !behind.is_empty() {
        reasons.next(f)?;
        write!(f, "not every process has the key in force alone: {}", Named(behind))?;
    }
    Ok(())
}

/// What nobody but a person can see before the old key is deleted.
fn what_to_see_first(
    keep: Fingerprint,
    is_confirmed: bool,
    shown: Option<usize>,
    silent: &[PresenceRecord],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let is_nobody_there = shown == Some(0) && silent.is_empty();
    if is_confirmed && !is_nobody_there && silent.is_empty() {
        return Ok(());
    }
    f.write_str("first see for yourself ")?;
    let mut sights = Joined::by(", and ");
    if !is_confirmed {
        sights.next(f)?;
        write!(f, "that the key {keep} works for every store")?;
    }
    if is_nobody_there {
        sights.next(f)?;
        f.write_str("that no process uses the old key, for none shows itself")?;
    }
    if !silent.is_empty() {
        sights.next(f)?;
        write!(f, "that these, which are silent, use the old key no more: {}", Named(silent))?;
    }
    f.write_str("; then ")
}

struct Because<'a> {
    reason: &'a Reason,
    profile: &'a Profile,
}

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::NoKey => f.write_str("no key is in force: adopt the one in use, or "),
            Reason::Leaked { fingerprint, name } => write!(
                f,
                "no key is in force, because the only one leaked: first delete {} in {}; then ",
                ToDelete { kind: "", name: name.as_deref(), fingerprint: *fingerprint },
                Page::to_delete(self.profile)
            ),
            Reason::Refused { fingerprint } => {
                write!(f, "the issuer refuses the active key, {fingerprint}, and requests fail: ")
            }
            Reason::FellBack => f.write_str(
                "the new key was deleted, and the one that it was to replace is active again; do not delete that: ",
            ),
            Reason::Soon { due } => write!(f, "the key in force is to be replaced by {:#}: ", Utc(*due)),
            Reason::Overdue { due } => write!(f, "the key in force is overdue since {:#}: ", Utc(*due)),
        }
    }
}

/// Writes what stands between the parts of a sentence, from the second one on.
struct Joined {
    by: &'static str,
    is_first: bool,
}

impl Joined {
    const fn by(by: &'static str) -> Self {
        Self { by, is_first: true }
    }

    fn next(&mut self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if std::mem::take(&mut self.is_first) { Ok(()) } else { f.write_str(self.by) }
    }
}

/// Processes, as many as a sentence can bear.
pub(in crate::rotation) struct Named<'a>(pub(in crate::rotation) &'a [PresenceRecord]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Joined::by(", ");
        for record in self.0.iter().take(MOST_NAMED) {
            names.next(f)?;
            write!(f, "{record}")?;
        }
        match self.0.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
