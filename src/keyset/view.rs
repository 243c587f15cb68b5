//! What is in a key set.

use std::fmt;

use super::{Held, KeySet, Place};
use crate::handle::Generation;
use crate::key::{Fingerprint, Profile};

impl KeySet {
    /// Where the key with this fingerprint is; `None` where this key set never had it, or has forgotten it.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Place, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// let fingerprint = key.fingerprint().unwrap();
    /// keys.adopt(key.into_raw(), Staging::at(std::time::SystemTime::now()))?;
    /// assert_eq!(keys.place_of(fingerprint), Some(Place::Current));
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub fn place_of(&self, fingerprint: Fingerprint) -> Option<Place> {
        let slots = [
            (&self.pending, Place::Pending),
            (&self.current, Place::Current),
            (&self.previous, Place::Previous),
        ];
        let is_in = |slot: &Option<Held>| slot.as_ref().is_some_and(|held| held.fingerprint() == fingerprint);
        let slot = slots.into_iter().find(|(slot, _)| is_in(slot)).map(|(_, place)| place);
        let listed = |list: &[Fingerprint], place| list.contains(&fingerprint).then_some(place);
        slot.or_else(|| listed(&self.compromised, Place::Compromised))
            .or_else(|| listed(&self.retired, Place::Retired))
    }

    /// Whose keys these are.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert_eq!(KeySet::new(Kanal::PROFILE)?.profile(), Kanal::PROFILE);
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// The fingerprint of the first key that this key set took in; `None` before that. It stays for ever, and tells this
    /// key set from another one of the same issuer: a handle that has the keys of one refuses those of the other.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Issuer, Kanal};
    /// # use keysheath::keyset::{KeySet, Staging};
    /// # let mut keys = KeySet::new(Kanal::PROFILE)?;
    /// let first = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    /// let fingerprint = first.fingerprint();
    /// let rotation = keys.stage(first.into_raw(), Staging::at(std::time::SystemTime::now()))?.rotation();
    /// keys.abort(rotation)?;
    /// assert_eq!(keys.begun(), fingerprint);
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn begun(&self) -> Option<Fingerprint> {
        self.begun
    }

    /// The version number of what is in force; `None` before the first key.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.generation().is_none());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        Generation::numbered(self.generation)
    }

    /// The key in force; `None` before the first one, and where the only one was compromised.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.current().is_none());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn current(&self) -> Option<&Held> {
        self.current.as_ref()
    }

    /// The key that is to be in force next.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.pending().is_none());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn pending(&self) -> Option<&Held> {
        self.pending.as_ref()
    }

    /// The key that was in force before.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.previous().is_none());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub const fn previous(&self) -> Option<&Held> {
        self.previous.as_ref()
    }

    /// The fingerprints of the last [`MAX_RETIRED`](super::MAX_RETIRED) keys that were retired or given up, the oldest first.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.retired().is_empty());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub fn retired(&self) -> &[Fingerprint] {
        &self.retired
    }

    /// The fingerprints of the keys that have leaked.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::keyset::KeySet;
    /// assert!(KeySet::new(Kanal::PROFILE)?.compromised().is_empty());
    /// # Ok::<(), keysheath::keyset::KeySetError>(())
    /// ```
    #[must_use]
    pub fn compromised(&self) -> &[Fingerprint] {
        &self.compromised
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({}, generation {}", self.profile.name(), self.generation)?;
        for (name, slot) in
            [("current", &self.current), ("previous", &self.previous), ("pending", &self.pending)]
        {
            match slot {
                Some(held) => write!(f, ", {name} {}", held.fingerprint())?,
                None => write!(f, ", {name} none")?,
            }
        }
        f.write_str(")")
    }
}
