//! Keys that leaked and that a person still has to delete.

use std::time::SystemTime;

use super::held::{Held, RotationId};
use super::{KeySet, KeySetError, MAX_COMPROMISED, MAX_REPORTED, Step};
use crate::internal::utc::Moment;
use crate::key::Fingerprint;
use crate::store::DocumentContent;

/// A compromised key that was in a place of the key set, and that nobody has said is deleted. The key itself is gone.
///
/// ```
/// use std::time::SystemTime;
/// use keysheath::key::{ApiKey, Issuer, Kanal};
/// use keysheath::keyset::{KeySet, LeakedKey, Staging};
///
/// let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, SystemTime::now());
/// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// let fingerprint = key.fingerprint().unwrap();
/// keys.adopt(key.into_raw(), Staging::at(now))?;
/// keys.compromise(fingerprint, now)?;
/// let leaked: &LeakedKey = &keys.leaked()[0];
/// assert_eq!(leaked.fingerprint(), fingerprint);
/// # Ok::<(), keysheath::keyset::KeySetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeakedKey {
    pub(super) fingerprint: Fingerprint,
    pub(super) staged: Moment,
    pub(super) name: Option<String>,
}

impl LeakedKey {
    /// Its one-way name.
    ///
    /// ```
    /// # use keysheath::keyset::LeakedKey;
    /// fn log(leaked: &LeakedKey) {
    ///     println!("{}", leaked.fingerprint());
    /// }
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its name in the issuer's app, as it was given or suggested; an app shows no fingerprints.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// When it was staged or adopted; an app shows no fingerprints.
    ///
    /// ```
    /// # use keysheath::keyset::LeakedKey;
    /// fn log(leaked: &LeakedKey) {
    ///     println!("{:?}", leaked.staged());
    /// }
    /// ```
    #[must_use]
    pub fn staged(&self) -> SystemTime {
        self.staged.to_time()
    }
}

impl KeySet {
    /// The compromised keys that were in a place of this key set and that nobody has said are deleted, the oldest first.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.leaked().is_empty());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub fn leaked(&self) -> &[LeakedKey] {
        &self.leaked
    }

    /// Notes that a person has deleted a key that leaked, or one that was given up. Its fingerprint stays among the
    /// compromised or the retired ones.
    ///
    /// # Errors
    /// [`KeySetError::NotCompromised`] for a key that is neither compromised nor retired.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let (mut keys, now) = (KeySet::new(Kanal::PROFILE)?, SystemTime::now());
    /// # let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// # let fingerprint = key.fingerprint().unwrap();
    /// # keys.adopt(key.into_raw(), Staging::at(now))?;
    /// keys.compromise(fingerprint, now)?;
    /// keys.confirm_deleted(fingerprint)?;
    /// assert!(keys.leaked().is_empty() && keys.compromised() == [fingerprint]);
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    pub fn confirm_deleted(&mut self, fingerprint: Fingerprint) -> Result<Step, KeySetError> {
        let newest = RotationId(self.rotation);
        if let Some(at) = self.given_up.iter().position(|given_up| given_up.fingerprint == fingerprint) {
            return Ok(Step::Done(self.given_up.remove(at).rotation));
        }
        if self.retired.contains(&fingerprint) {
            return Ok(Step::Unchanged(newest));
        }
        if !self.compromised.contains(&fingerprint) {
            return Err(KeySetError::NotCompromised);
        }
        let before = self.leaked.len();
        self.leaked.retain(|leaked| leaked.fingerprint != fingerprint);
        Ok(if self.leaked.len() < before { Step::Done(newest) } else { Step::Unchanged(newest) })
    }

    /// Lists one more. A key in a place is never refused: it must be able to leave it. Nor is one that was given up.
    pub(super) fn remember_compromised(&mut self, fingerprint: Fingerprint) -> Result<(), KeySetError> {
        let slots = [&self.pending, &self.current, &self.previous];
        let held = slots.into_iter().flatten().find(|held| held.fingerprint() == fingerprint);
        let held = held.map(|held: &Held| (held.staged, held.name.clone()));
        let given_up = self.given_up.iter().find(|given_up| given_up.fingerprint == fingerprint);
        match held.or_else(|| given_up.map(|given_up| (given_up.staged, given_up.name.clone()))) {
            Some((staged, name)) => self.leaked.push(LeakedKey { fingerprint, staged, name }),
            None if self.compromised.len() >= MAX_REPORTED => return Err(KeySetError::TooManyCompromised),
            None => {}
        }
        if self.compromised.len() == MAX_COMPROMISED {
            self.forget_the_oldest();
        }
        self.compromised.push(fingerprint);
        Ok(())
    }

    /// One that was deleted, or else the oldest of all.
    fn forget_the_oldest(&mut self) {
        let waits =
            |fingerprint: &Fingerprint| self.leaked.iter().any(|leaked| leaked.fingerprint == *fingerprint);
        let at = self.compromised.iter().position(|fingerprint| !waits(fingerprint)).unwrap_or(0);
        let forgotten = self.compromised.remove(at);
        self.leaked.retain(|leaked| leaked.fingerprint != forgotten);
    }

    /// Writes the key set into at most `limit` bytes, where that can be done by forgetting keys that are gone: first the
    /// retired and then the compromised ones that no person has to delete any more, then the others in the same order; in
    /// each, the oldest first.
    pub(crate) fn write_within(&mut self, limit: usize) -> DocumentContent {
        loop {
            let document = self.to_document();
            if document.expose_secret().len() <= limit {
                return document;
            }
            let has_settled = self.compromised.len() > self.leaked.len();
            if self.oldest_settled().is_some() || (!self.retired.is_empty() && !has_settled) {
                self.forget_the_oldest_retired();
            } else if !self.compromised.is_empty() {
                self.forget_the_oldest();
            } else {
                return document;
            }
        }
    }

    /// Whether each of them is listed as compromised, and once.
    pub(super) fn are_leaked_compromised(&self) -> bool {
        let mut names: Vec<Fingerprint> = self.leaked.iter().map(LeakedKey::fingerprint).collect();
        names.sort_unstable();
        names.dedup();
        names.len() == self.leaked.len() && names.iter().all(|name| self.compromised.contains(name))
    }
}
