//! Keys that were given up and that a person still has to delete.

use std::time::SystemTime;

use super::held::{Held, RotationId};
use super::{KeySet, MAX_RETIRED};
use crate::internal::utc::Moment;
use crate::key::Fingerprint;

/// A retired key that was given up, may still work, and whose deletion is not confirmed. Its text is not stored.
///
/// ```
/// use std::time::SystemTime;
/// use keysheath::key::{ApiKey, Issuer, Kanal};
/// use keysheath::keyset::{AbortedKey, KeySet, Staging};
///
/// let mut keys = KeySet::new(Kanal::PROFILE)?;
/// let key = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
/// let fingerprint = key.fingerprint().unwrap();
/// let rotation = keys.stage(key.into_raw(), Staging::at(SystemTime::now()))?.rotation();
/// keys.abort(rotation)?;
/// let given_up: &AbortedKey = &keys.given_up()[0];
/// assert_eq!((given_up.fingerprint(), given_up.rotation()), (fingerprint, rotation));
/// keys.confirm_deleted(fingerprint)?;
/// assert!(keys.given_up().is_empty());
/// # Ok::<(), keysheath::keyset::KeySetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortedKey {
    pub(super) fingerprint: Fingerprint,
    pub(super) rotation: RotationId,
    pub(super) staged: Moment,
    /// When it was rolled back.
    pub(super) demoted: Option<Moment>,
    pub(super) name: Option<String>,
}

impl AbortedKey {
    /// Its one-way name.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The rotation that its staging began.
    #[must_use]
    pub const fn rotation(&self) -> RotationId {
        self.rotation
    }

    /// Its name in the issuer's app, as it was given or suggested; an app shows no fingerprints.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// When it was staged.
    #[must_use]
    pub fn staged(&self) -> SystemTime {
        self.staged.to_time()
    }

    /// When it was rolled back; `None` where it never was in force.
    #[must_use]
    pub fn demoted(&self) -> Option<SystemTime> {
        self.demoted.map(Moment::to_time)
    }
}

impl KeySet {
    /// Returns the keys that were given up, that no probe saw refused, and whose deletion is not confirmed, the oldest first.
    /// Each is among the [retired](KeySet::retired) ones, and is forgotten with them.
    #[must_use]
    pub fn given_up(&self) -> &[AbortedKey] {
        &self.given_up
    }

    pub(super) fn remember_given_up(&mut self, held: Held) {
        self.remember_retired(held.fingerprint);
        if held.refused.is_none() {
            let Held { fingerprint, rotation, staged, demoted, name, .. } = held;
            self.given_up.push(AbortedKey { fingerprint, rotation, staged, demoted, name });
        }
    }

    pub(super) fn remember_retired(&mut self, fingerprint: Fingerprint) {
        if self.retired.len() == MAX_RETIRED {
            self.forget_the_oldest_retired();
        }
        self.retired.push(fingerprint);
    }

    /// The place in the list of the oldest retired key that no person has to delete any more.
    pub(super) fn oldest_settled(&self) -> Option<usize> {
        let waits =
            |fingerprint: &Fingerprint| self.given_up.iter().any(|key| key.fingerprint == *fingerprint);
        self.retired.iter().position(|fingerprint| !waits(fingerprint))
    }

    /// One that no person has to delete any more, or else the oldest of all.
    pub(super) fn forget_the_oldest_retired(&mut self) {
        let forgotten = self.retired.remove(self.oldest_settled().unwrap_or(0));
        self.given_up.retain(|key| key.fingerprint != forgotten);
    }

    /// Whether each of them is listed as retired, and once, and has a number that was given.
    pub(super) fn are_given_up_retired(&self) -> bool {
        let mut names: Vec<Fingerprint> = self.given_up.iter().map(AbortedKey::fingerprint).collect();
        names.sort_unstable();
        names.dedup();
        names.len() == self.given_up.len()
            && names.iter().all(|name| self.retired.contains(name))
            && self.given_up.iter().all(|key| (1..=self.rotation).contains(&key.rotation.0))
    }
}
