//! The current and the previous key of one service.

use std::fmt;
use std::sync::RwLock;

use http::HeaderMap;

use super::authorize::{Authorize, Principal, Refusal, RequestedStore, presented};
use crate::failure::Meaning;
use crate::internal::threads::recover;
use crate::key::{IssuerMismatch, Profile, RawKey};

/// The keys that one service accepts: a current one, and the previous one until all clients use the new one.
/// They can be replaced while they are in use; share them in an [`Arc`](std::sync::Arc).
///
/// There are no teams and stores, so a request that names a store is authorized as any other. A text in the
/// place of a store's number that is not one is refused as an unknown store.
///
/// ```
/// use keysheath::key::{ApiKey, Kanal};
/// use keysheath::registry::StaticKeys;
///
/// let first = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
/// let keys = StaticKeys::new(first.into_raw());
///
/// let second = ApiKey::<Kanal>::parse("Zs1T6cN3bV7dL4qW9Xp2Kf8A").unwrap();
/// keys.replace(second.into_raw())?; // both are accepted
/// keys.drop_previous(); // the second only
/// # Ok::<(), keysheath::key::IssuerMismatch>(())
/// ```
pub struct StaticKeys {
    profile: &'static Profile,
    keys: RwLock<Keys>,
}

struct Keys {
    current: RawKey,
    previous: Option<RawKey>,
}

impl StaticKeys {
    /// Accepts this key only.
    #[must_use]
    pub fn new(current: RawKey) -> Self {
        Self { profile: current.profile(), keys: RwLock::new(Keys { current, previous: None }) }
    }

    /// Makes a new key the current one, and the current one the previous one; an older previous key is
    /// refused from now on. Has no effect if the key is the current one already.
    ///
    /// # Errors
    /// [`IssuerMismatch`], with the key in it, if it is another issuer's.
    pub fn replace(&self, new: RawKey) -> Result<(), IssuerMismatch> {
        let new = new.of_issuer(self.profile)?;
        let mut keys = recover(self.keys.write());
        if keys.current != new {
            keys.previous = Some(std::mem::replace(&mut keys.current, new));
        }
        Ok(())
    }

    /// Refuses the previous key from now on. Returns `false` if there was none.
    pub fn drop_previous(&self) -> bool {
        recover(self.keys.write()).previous.take().is_some()
    }
}

impl Authorize for StaticKeys {
    fn profile(&self) -> &'static Profile {
        self.profile
    }

    fn authorize(&self, headers: &HeaderMap, requested: RequestedStore) -> Result<Principal, Refusal> {
        let refused = |meaning| Refusal::new(self.profile, meaning);
        let key = presented(headers, self.profile.format()).map_err(refused)?;
        let keys = recover(self.keys.read());
        // Both are compared, so that the time does not reveal which one matched.
        let is_current = keys.current.matches(key);
        let previous = keys.previous.as_ref().filter(|previous| previous.matches(key));
        let found = if is_current { Some(&keys.current) } else { previous };
        let found = found.ok_or_else(|| refused(Meaning::KeyRefused))?;
        if requested == RequestedStore::NotAStore {
            return Err(refused(Meaning::StoreNotFound));
        }
        Ok(Principal {
            key: None,
            team: None,
            fingerprint: found.fingerprint(),
            store: requested.store(),
            restriction: None,
            is_previous: !is_current,
            is_from_browser: Principal::has_browser_headers(headers),
        })
    }
}

impl fmt::Debug for StaticKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = recover(self.keys.read());
        write!(f, "StaticKeys({:?}, {:?})", keys.current, keys.previous)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::key::{Issuer, Kanal, Katana};

    fn key(text: &str) -> RawKey {
        RawKey::parse(Kanal::PROFILE, text.as_bytes()).unwrap()
    }

    fn ask(keys: &StaticKeys, key: &str) -> Result<bool, Meaning> {
        let value = HeaderValue::try_from(format!("Bearer {key}")).unwrap();
        let headers = [(http::header::AUTHORIZATION, value)].into_iter().collect();
        let answer = keys.authorize(&headers, RequestedStore::NoStore);
        answer.map(|principal| principal.is_previous()).map_err(|refusal| refusal.meaning())
    }

    #[test]
    fn the_current_and_the_previous_key_are_accepted() {
        const KEYS: [&str; 3] =
            ["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "Zs1T6cN3bV7dL4qW9Xp2Kf8A", "hY5nRt8Qz2Lw7Jd4Xk9Gv3Ba"];
        let keys = StaticKeys::new(key(KEYS[0]));
        assert_eq!(KEYS.map(|key| ask(&keys, key).is_ok()), [true, false, false]);
        keys.replace(key(KEYS[1])).unwrap();
        assert_eq!(KEYS.map(|key| ask(&keys, key).ok()), [Some(true), Some(false), None]);
        keys.replace(key(KEYS[1])).unwrap();
        assert_eq!(ask(&keys, KEYS[0]), Ok(true), "the same key again changes nothing");
        keys.replace(key(KEYS[2])).unwrap();
        assert_eq!(KEYS.map(|key| ask(&keys, key).ok()), [None, Some(true), Some(false)]);
        assert!(keys.drop_previous() && !keys.drop_previous());
        assert_eq!(
            KEYS.map(|key| ask(&keys, key)),
            [Err(Meaning::KeyRefused), Err(Meaning::KeyRefused), Ok(false)]
        );
    }

    #[test]
    fn what_is_no_store_is_refused_after_the_key_check() {
        const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
        let keys = StaticKeys::new(key(KEY));
        let ask = |text: &str, requested| {
            let value = HeaderValue::try_from(format!("Bearer {text}")).unwrap();
            let headers = [(http::header::AUTHORIZATION, value)].into_iter().collect();
            keys.authorize(&headers, requested).map(drop).map_err(|refusal| refusal.meaning())
        };
        assert_eq!(ask(KEY, RequestedStore::NotAStore), Err(Meaning::StoreNotFound));
        assert_eq!(ask("Zs1T6cN3bV7dL4qW9Xp2Kf8A", RequestedStore::NotAStore), Err(Meaning::KeyRefused));
        for requested in
            [RequestedStore::NoStore, RequestedStore::NoStoreForAnyKey, RequestedStore::from_segment("7")]
        {
            assert_eq!(ask(KEY, requested), Ok(()));
        }
    }

    #[test]
    fn a_key_of_another_issuer_is_refused() {
        let keys = StaticKeys::new(key("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
        let other = RawKey::parse(Katana::PROFILE, b"0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
        assert!(keys.replace(other).is_err());
        assert_eq!(ask(&keys, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"), Ok(false));
    }
}
