//! Looking a request's key up: the path that every request takes.

use http::HeaderMap;

use super::behind::USE_STEP;
use super::credentials::Credentials;
use super::index::Entry;
use super::principal::{Authorize, Principal, Refusal, RequestedStore};
use super::record::{Change, Changed, KeyId, Restriction, StoredDigest};
use super::{KeyRegistry, Tables};
use crate::failure::Meaning;
#[cfg(feature = "tracing")]
use crate::internal::events::Trace;
#[cfg(feature = "emulator")]
use crate::key::Fingerprint;
use crate::key::Profile;

impl Authorize for KeyRegistry {
    fn profile(&self) -> &'static Profile {
        self.profile
    }

    fn authorize(&self, headers: &HeaderMap, wanted: RequestedStore) -> Result<Principal, Refusal> {
        let refused = |meaning| Refusal::of(self.profile, meaning);
        let Credentials { key, from_browser } = Credentials::read(headers, self.profile.format());
        let key = key.map_err(refused)?;
        let now = self.now();
        let tables = self.read();
        let (id, entry) = self.find(&tables, key).ok_or_else(|| refused(Meaning::KeyRefused))?;
        if let Some(meaning) = Self::store_refusal(&tables, entry, wanted) {
            return Err(refused(meaning));
        }
        let principal = Principal {
            key: Some(id),
            team: Some(entry.team()),
            fingerprint: entry.fingerprint(),
            store: wanted.store(),
            restriction: entry.restriction(),
            is_previous: false,
            from_browser,
        };
        let (is_noted, is_under_older) = (entry.note_use(now, USE_STEP), entry.pepper() != 0);
        drop(tables);
        if is_noted {
            self.note(id, Changed::Used(now));
        }
        if is_under_older {
            self.rehash(id, key);
        }
        if from_browser {
            #[cfg(feature = "tracing")]
            Trace::here().line(|| {
                move || {
                    tracing::warn!(
                        key = %id,
                        "a browser sent a request with this key, so it has reached a client that a customer controls: \
                         rotate it"
                    );
                }
            });
            (self.on_browser)(&principal);
        }
        Ok(principal)
    }
}

impl KeyRegistry {
    /// Looks for a key under each pepper.
    pub(super) fn find<'a>(&self, tables: &'a Tables, key: &[u8]) -> Option<(KeyId, &'a Entry)> {
        let mut peppers = self.peppers.all().iter().zip(0_u8..);
        peppers.find_map(|(pepper, place)| tables.keys.find(&pepper.digest(key), place))
    }

    /// Whose key a request came with, whatever it may be used for. No use of the key is noted.
    #[cfg(feature = "emulator")]
    pub(crate) fn sender(&self, headers: &HeaderMap) -> Option<(KeyId, Option<Fingerprint>)> {
        let key = Credentials::read(headers, self.profile.format()).key.ok()?;
        let tables = self.read();
        self.find(&tables, key).map(|(id, entry)| (id, entry.fingerprint()))
    }

    /// Which row wins when several apply: see the module's documentation. `None` where none does.
    fn store_refusal(tables: &Tables, entry: &Entry, wanted: RequestedStore) -> Option<Meaning> {
        let store = match wanted {
            RequestedStore::NoStoreForAnyKey => return None,
            RequestedStore::NoStore if entry.restriction() == Restriction::None => return None,
            RequestedStore::NoStore => return Some(Meaning::StoreForbidden),
            RequestedStore::NotAStore => return Some(Meaning::StoreNotFound),
            RequestedStore::Store(store) => store,
        };
        match tables.stores.get(&store) {
            None => Some(Meaning::StoreNotFound),
            Some(found) if found.team != entry.team() || !entry.serves(store) => {
                Some(Meaning::StoreForbidden)
            }
            Some(found) if found.is_paused => Some(Meaning::StoreNotFound),
            Some(_) => None,
        }
    }

    /// Moves a key that was used to the current pepper.
    fn rehash(&self, id: KeyId, key: &[u8]) {
        let pepper = self.peppers.current();
        let digest = pepper.digest(key);
        let change = Changed::Digest(StoredDigest { digest, pepper: pepper.id() });
        // What is not going to be written is not done in memory either: the old pepper would seem to be free.
        if self.note(id, change) {
            self.write().keys.rehash(id, digest, 0);
        }
    }

    /// Hands a change to be written behind the request. `false` where too many are waiting.
    fn note(&self, id: KeyId, what: Changed) -> bool {
        self.behind.as_ref().is_none_or(|behind| behind.note(Change { id, what }))
    }
}
