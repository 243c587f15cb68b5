//! The next step, in words for a person.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::presence::PresenceRecord;
use super::status::{NextStep, Reason};
use crate::internal::printing::{Printable, Span, Utc};
use crate::key::{Fingerprint, Profile};
use crate::keyset::{KeyInfo, KeyState, Labeled, RotationId, UndeletedKey};

/// How many processes one sentence names.
const MOST_NAMED: usize = 8;

/// A page of the issuer's app.
pub(super) struct Page {
    title: &'static str,
    path: &'static str,
}

impl Page {
    fn to_create(profile: &Profile) -> Self {
        Self { title: profile.title(), path: profile.key_page() }
    }

    /// Without the button that adds a key, which is the last part of the path.
    pub(super) fn to_delete(profile: &Profile) -> Self {
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
            Self::ReportLeak { key } => write!(
                f,
                "{} was stopped here as leaked, but that is not persisted, and other processes still send \
                 it: report it as compromised again",
                key.label()
            ),
            Self::Create { profile, reason, .. } => {
                write!(f, "{}{}", Because { reason, profile }, self.without_reason())
            }
            Self::Verify { key, state: KeyState::Pending, .. } => {
                write!(f, "verify the pending key {}, or abort it", Numbered(key))
            }
            Self::Verify { key, can_roll_back: false, .. } => {
                write!(f, "verify the active key, {}, before another one is deleted", Numbered(key))
            }
            Self::Verify { key, in_progress, .. } => write!(
                f,
                "verify the active key, {}, before the old one is deleted; if it does not work, {}roll back",
                Numbered(key),
                First(*in_progress)
            ),
            Self::VerifyByHand { key } => write!(
                f,
                "there is no probe: check yourself that the pending key {} works for every store, and \
                 promote it (without a probe, say that a person has checked it: `CheckedBy::Person(id)`); or \
                 abort it",
                Numbered(key)
            ),
            Self::Promote { key } => write!(f, "promote the verified key {}", Numbered(key)),
            Self::Abort { key } => write!(
                f,
                "the issuer refuses {}, which is pending (rotation {}): check whether it was deleted, or \
                 copied from another account; abort it, and create another",
                key.label(),
                key.rotation()
            ),
            Self::Wait {
                fingerprint,
                name,
                rotation: _,
                remaining,
                is_activating,
                ask_again,
                is_drained,
                still_using,
            } => {
                let key = Labeled { name: name.as_deref(), fingerprint: *fingerprint };
                write!(f, "wait, and keep {key}: ")?;
                let time =
                    TimeLeft { remaining: *remaining, is_activating: *is_activating, ask_again: *ask_again };
                why_to_wait(&time, *is_drained, still_using, f)
            }
            Self::Delete { .. } | Self::DeleteAborted { .. } | Self::DeleteLeaked { .. } => self.deletion(f),
            Self::Confirm { .. } | Self::Refused { .. } => self.refusal(f),
            Self::Nothing { due: Some(due) } => write!(f, "nothing to do until {:#}", Utc(*due)),
            Self::Nothing { due: None } => f.write_str("nothing to do"),
        }
    }
}

impl NextStep {
    /// Returns the step, for a sentence that gives the reason itself.
    pub(super) const fn without_reason(&self) -> WithoutReason<'_> {
        WithoutReason(self)
    }

    fn deletion(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete { profile, key, keep, is_confirmed, shown, silent } => {
                what_to_check_first(keep, *is_confirmed, *shown, silent, f)?;
                let (page, staged) = (Page::to_delete(profile), Utc(key.staged()));
                write!(f, "delete {} in {page}: the one taken in on {staged:#}", ToDelete::previous(key))?;
                if let Some(note) = key.note() {
                    write!(f, " (note: {})", Printable(note))?;
                }
                write!(f, ", and not {}; then retire it", keep.label())?;
                f.write_str(if *is_confirmed {
                    ", and keysheath will confirm that the right one is gone"
                } else {
                    " without a probe"
                })
            }
            Self::DeleteAborted { profile, key, keep, is_confirmed, shown, silent } => {
                what_to_check_first(keep, *is_confirmed, *shown, silent, f)?;
                write!(
                    f,
                    "delete {} in {}: the one taken in on {:#} and aborted, and not {}; then confirm that it \
                     is deleted",
                    ToDelete::gone("", key),
                    Page::to_delete(profile),
                    Utc(key.staged()),
                    keep.label()
                )
            }
            Self::DeleteLeaked { profile, key, keep } => {
                let (page, staged) = (Page::to_delete(profile), Utc(key.staged()));
                let key = ToDelete::gone("leaked ", key);
                write!(f, "delete {key} in {page} now: the one taken in on {staged:#}")?;
                if let Some(keep) = keep {
                    write!(f, ", and not {}", keep.label())?;
                }
                f.write_str("; then confirm that it is deleted")
            }
            _ => Ok(()),
        }
    }

    fn refusal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirm { current, previous, is_current_refused, is_previous_refused } => {
                let (current, previous) = (current.label(), previous.label());
                match (is_previous_refused, is_current_refused) {
                    (true, true) => write!(
                        f,
                        "the issuer has refused the active key, {current}, and the previous one, {previous}: \
                         retire the previous key now, and keysheath will check whether one of them works"
                    ),
                    (false, true) => write!(
                        f,
                        "the issuer has refused the active key, {current}: retire the previous key now, and \
                         keysheath will check whether the wrong one was deleted, and fall back to {previous}"
                    ),
                    (..) => write!(
                        f,
                        "the issuer refuses the previous key, {previous}, as it does once that is deleted: \
                         retire it now, and keysheath will check whether {current} works"
                    ),
                }
            }
            Self::Refused { profile, key, previous, in_progress, name, has_probe } => {
                let (fingerprint, name) = (key.fingerprint(), Printable(name));
                write!(f, "the issuer has refused the active key, {fingerprint}: ")?;
                f.write_str(if *has_probe { "verify it" } else { "check whether it was deleted" })?;
                match previous {
                    Some(previous) => write!(
                        f,
                        ", and do not delete the previous one, {}; if it was deleted, {}roll back and abort \
                         rotation {}",
                        previous.fingerprint(),
                        First(*in_progress),
                        key.rotation()
                    ),
                    None => write!(
                        f,
                        "; if it was deleted, create a key named {name} in {}, stage, verify and promote it",
                        Page::to_create(profile)
                    ),
                }
            }
            _ => Ok(()),
        }
    }
}

pub(super) struct WithoutReason<'a>(&'a NextStep);

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

/// A key with its rotation.
struct Numbered<'a>(&'a KeyInfo);

impl fmt::Display for Numbered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rotation {})", self.0.fingerprint(), self.0.rotation())
    }
}

/// What must be done before a rotation is rolled back.
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

impl<'a> ToDelete<'a> {
    fn previous(key: &'a KeyInfo) -> Self {
        Self { kind: "", name: key.name(), fingerprint: key.fingerprint() }
    }

    fn gone(kind: &'static str, key: &'a UndeletedKey) -> Self {
        Self { kind, name: key.name(), fingerprint: key.fingerprint() }
    }
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

/// The rest of a wait.
struct TimeLeft {
    remaining: Duration,
    is_activating: bool,
    ask_again: Option<SystemTime>,
}

impl fmt::Display for TimeLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remaining = Span(self.remaining);
        if self.is_activating {
            write!(f, "the issuer has {remaining} to learn the active key")?;
        } else {
            write!(f, "other processes have {remaining} to take up the active key")?;
        }
        match self.ask_again {
            Some(time) => {
                write!(f, ", if this process keeps running; otherwise ask again after {}", Utc(time))
            }
            None => Ok(()),
        }
    }
}

fn why_to_wait(
    time: &TimeLeft,
    is_drained: bool,
    still_using: &[PresenceRecord],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut reasons = Joined::by("; ");
    if time.remaining.is_zero() && is_drained && still_using.is_empty() {
        return f.write_str("ask for the next step, which checks which processes use it");
    }
    if !time.remaining.is_zero() {
        reasons.next(f)?;
        write!(f, "{time}")?;
    }
    if !is_drained {
        reasons.next(f)?;
        f.write_str("requests of this process still hold it")?;
    }
    if !still_using.is_empty() {
        reasons.next(f)?;
        write!(f, "still using the old key: {}", Named(still_using))?;
    }
    Ok(())
}

/// Returns what only a person can check before the old key is deleted.
fn what_to_check_first(
    keep: &KeyInfo,
    is_confirmed: bool,
    shown: Option<usize>,
    silent: &[PresenceRecord],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let is_fleet_empty = shown == Some(0) && silent.is_empty();
    if is_confirmed && !is_fleet_empty && silent.is_empty() {
        return Ok(());
    }
    f.write_str("first check yourself ")?;
    let mut checks = Joined::by(", and ");
    if !is_confirmed {
        checks.next(f)?;
        write!(f, "that the key {} works for every store", keep.fingerprint())?;
    }
    if is_fleet_empty {
        checks.next(f)?;
        f.write_str("that no process uses the old key, because none shows itself")?;
    }
    if !silent.is_empty() {
        checks.next(f)?;
        write!(f, "that these silent processes no longer use the old key: {}", Named(silent))?;
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
            Reason::NoKey => f.write_str("there is no active key: adopt the one in use, or "),
            Reason::Leaked { key } => write!(
                f,
                "there is no active key, because the only one leaked: first delete {} in {}; then ",
                ToDelete::gone("", key),
                Page::to_delete(self.profile)
            ),
            Reason::Refused { key } => {
                let fingerprint = key.fingerprint();
                write!(f, "the issuer refuses the active key, {fingerprint}, and requests fail: ")
            }
            Reason::FellBack => f.write_str(
                "the new key was deleted, and the one that it was to replace is active again; do not delete \
                 that: ",
            ),
            Reason::Soon { due } => write!(f, "the active key must be replaced by {:#}: ", Utc(*due)),
            Reason::Overdue { due } => write!(f, "the active key is overdue since {:#}: ", Utc(*due)),
        }
    }
}

/// Writes a separator before each part of a sentence but the first.
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

/// Processes, as many as fit into a sentence.
pub(super) struct Named<'a>(pub(super) &'a [PresenceRecord]);

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
