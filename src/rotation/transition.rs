//! What a step did.

use std::fmt;
use std::time::Duration;

use super::next_step::{Named, Page};
use super::{AuditAction, AuditError, RotationError};
use crate::handle::Generation;
use crate::internal::printable::Printable;
use crate::internal::utc::Span;
use crate::key::{Fingerprint, Profile};
use crate::keyset::{Place, RotationId};
use crate::rotation::PresenceRecord;

/// A step that is persisted.
///
/// ```
/// # use keysheath::handle::KeyHandle;
/// # use keysheath::key::{ApiKey, Kanal};
/// # use keysheath::store::MemoryStore;
/// # use keysheath::rotation::{Rotation, RotationPolicy};
/// # let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())?;
/// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// let transition = rotation.adopt(key.as_raw())?;
/// assert_eq!(transition.to_string(), "adopted urdz-nrsd-3rmw-jtz2 (rotation 1): the key in force");
/// # Ok::<(), keysheath::rotation::RotationError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub(super) action: AuditAction,
    pub(super) profile: &'static Profile,
    pub(super) rotation: Option<RotationId>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) name: Option<String>,
    pub(super) place: Option<Place>,
    pub(super) generation: Option<Generation>,
    pub(super) is_change: bool,
    pub(super) is_published: bool,
    pub(super) unaudited: Option<AuditError>,
    pub(super) was_held: bool,
    pub(super) given_up: Option<GivenUp>,
}

/// What keeps a key that is given up, and may work, from being deleted: nothing, where it never was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    pub(super) left: Duration,
    pub(super) is_drained: bool,
    /// The processes that do not show that they have the key in force alone, or why they cannot be seen.
    pub(super) behind: Result<Vec<PresenceRecord>, Box<RotationError>>,
}

impl Transition {
    /// What was done.
    ///
    /// ```
    /// # use keysheath::rotation::{AuditAction, Transition};
    /// fn came_into_force(transition: &Transition) -> bool {
    ///     transition.action() == AuditAction::Promoted
    /// }
    /// ```
    #[must_use]
    pub const fn action(&self) -> AuditAction {
        self.action
    }

    /// The rotation that the step is about; `None` for a leaked key, which may be of any.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn log(transition: &Transition) {
    ///     println!("rotation {:?}", transition.rotation());
    /// }
    /// ```
    #[must_use]
    pub const fn rotation(&self) -> Option<RotationId> {
        self.rotation
    }

    /// The key that the step is about; `None` where a repeated step finds it forgotten.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn log(transition: &Transition) {
    ///     println!("key {:?}", transition.fingerprint());
    /// }
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The key's name in the issuer's app, as it was given or suggested.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the key was pending, in force or the previous one before the step. Where a key that is reported as compromised
    /// was not, nothing that is sent has changed: its fingerprint may have been mistyped.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn check(transition: &Transition) {
    ///     if !transition.was_held() {
    ///         eprintln!("nothing that is sent has changed: see that the fingerprint is the right one");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn was_held(&self) -> bool {
        self.was_held
    }

    /// What is left of the settle time of a key that was in force, was rolled back and is given up: so long it is not to be
    /// deleted, because other processes may still send it. Nothing for every other step.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn log(aborted: &Transition) {
    ///     println!("delete it in the app in {} s", aborted.left().as_secs());
    /// }
    /// ```
    #[must_use]
    pub fn left(&self) -> Duration {
        self.given_up.as_ref().map_or(Duration::ZERO, |given_up| given_up.left)
    }

    /// Whether no request of this process holds a key that was in force, was rolled back and is given up; so for every
    /// other step.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn may_be_deleted(aborted: &Transition) -> bool {
    ///     aborted.left().is_zero() && aborted.is_drained() && aborted.behind().is_ok_and(<[_]>::is_empty)
    /// }
    /// ```
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.given_up.as_ref().is_none_or(|given_up| given_up.is_drained)
    }

    /// The processes of the [fleet](super::Rotation::with_presence), silent ones included, that may still use a key that was
    /// in force, was rolled back and is given up; nobody for every other step.
    ///
    /// # Errors
    /// [`RotationError::Presence`], where it cannot be seen who they are. The step is done all the same.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn log(aborted: &Transition) {
    ///     match aborted.behind() {
    ///         Ok(behind) => behind.iter().for_each(|record| println!("wait for {record}")),
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// ```
    pub fn behind(&self) -> Result<&[PresenceRecord], &RotationError> {
        match self.given_up.as_ref().map(|given_up| &given_up.behind) {
            None => Ok(&[]),
            Some(Ok(behind)) => Ok(behind),
            Some(Err(error)) => Err(error),
        }
    }

    fn may_be_deleted(&self) -> bool {
        self.left().is_zero() && self.is_drained() && self.behind().is_ok_and(<[_]>::is_empty)
    }

    /// The key, for a person who looks for it in the app.
    fn to_delete(&self) -> String {
        self.name().map_or_else(|| "it".to_owned(), |name| format!("the key named {}", Printable(name)))
    }

    /// Where that key is now.
    ///
    /// ```
    /// # use keysheath::{keyset::Place, rotation::Transition};
    /// fn is_sent(transition: &Transition) -> bool {
    ///     transition.place() == Some(Place::Current)
    /// }
    /// ```
    #[must_use]
    pub const fn place(&self) -> Option<Place> {
        self.place
    }

    /// The generation that is in force now.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn log(transition: &Transition) {
    ///     println!("generation {:?}", transition.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Whether the step changed anything; not when it had been done before.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn log(transition: &Transition) {
    ///     println!("{}", if transition.is_change() { "done" } else { "it had been done before" });
    /// }
    /// ```
    #[must_use]
    pub const fn is_change(&self) -> bool {
        self.is_change
    }

    /// Whether the handle has it. It has not where something else publishes to the same handle; then open the rotation
    /// with a handle of its own.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn check(transition: &Transition) {
    ///     assert!(transition.is_published(), "one handle, one key set");
    /// }
    /// ```
    #[must_use]
    pub const fn is_published(&self) -> bool {
        self.is_published
    }

    /// Why an audit has no event of it; `None` where each has. The step is done all the same.
    ///
    /// ```
    /// # use keysheath::rotation::Transition;
    /// fn warn(transition: &Transition) {
    ///     if let Some(error) = transition.unaudited() {
    ///         eprintln!("not in the audit: {error}");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn unaudited(&self) -> Option<&AuditError> {
        self.unaudited.as_ref()
    }
}

impl fmt::Display for Transition {
    /// One line: what was done, and what a person has to know of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_change {
            f.write_str("it was so before: ")?;
        }
        write!(f, "{}", self.action)?;
        if let Some(name) = self.name() {
            write!(f, " {},", Printable(name))?;
        }
        if let Some(fingerprint) = self.fingerprint {
            write!(f, " {fingerprint}")?;
        }
        if let Some(rotation) = self.rotation {
            let is_another = self.action.ends_another() && self.fingerprint.is_some();
            write!(f, " ({}rotation {rotation})", if is_another { "replaced by " } else { "" })?;
        }
        if let Some(place) = self.place {
            write!(f, ": {place}")?;
        }
        let page = Page::to_delete(self.profile);
        match self.action {
            AuditAction::Compromised => {
                if !self.was_held {
                    f.write_str(
                        "; it was in no place of this key set, and nothing that is sent has changed: see that the \
                         fingerprint is the right one",
                    )?;
                }
                write!(f, "; delete {} now in {page}", self.to_delete())?;
            }
            AuditAction::Aborted if self.given_up.is_none() => f.write_str(if self.is_change {
                "; the issuer refuses it, so that there is nothing to delete"
            } else {
                "; no key of it is known that is still to be deleted"
            })?,
            AuditAction::Aborted if self.may_be_deleted() => {
                write!(f, "; delete {} now in {page}", self.to_delete())?;
            }
            AuditAction::Aborted => {
                f.write_str("; it was in force, so do not delete it yet")?;
                if !self.left().is_zero() {
                    write!(
                        f,
                        ": other processes have {} to take up the one in force, if this process keeps running",
                        Span(self.left())
                    )?;
                }
                if !self.is_drained() {
                    f.write_str("; requests of this process still hold it")?;
                }
                match self.behind() {
                    Ok([]) => {}
                    Ok(behind) => {
                        write!(f, "; not every process has the one in force alone: {}", Named(behind))?;
                    }
                    Err(error) => write!(f, "; {error}")?,
                }
                write!(f, "; then delete {} in {page}, as the next step will say", self.to_delete())?;
            }
            _ => {}
        }
        if !self.is_published {
            f.write_str(
                "; the handles of this process do not have it, because they have the keys of another key set",
            )?;
        }
        match &self.unaudited {
            Some(error) => write!(f, "; it is not in the audit: {error}"),
            None => Ok(()),
        }
    }
}
