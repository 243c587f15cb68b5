//! Authorizing a request: reading its headers, who sent it, or how to refuse it.

use std::sync::Arc;

use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderName};

use super::KeyRegistry;
use super::index::Found;
use super::record::{Change, Changed, KeyId, Store, StoredDigest, TeamId};
use super::secret::DIGEST;
use super::slots::Entry;
use super::write_behind::USE_STEP;
use crate::failure::{Meaning, PLAIN, Row};
use crate::internal::events::{Trace, trace_line};
use crate::key::{Fingerprint, KeyFormat, Profile, StoreId};

/// The authentication scheme, in any case (RFC 9110, section 11.1).
const SCHEME: &[u8] = b"bearer";

/// How many spaces may separate the scheme and the key. RFC 9110 sets no limit.
const MAX_SPACES: usize = 64;

/// The headers, besides `Origin`, that only browsers send. `Sec-Fetch-Mode` is not one: Node's `fetch` sends
/// it from servers.
static BROWSER: [HeaderName; 3] = [
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-user"),
];

/// The store that a request is for. An implementation of [`Authorize`] must refuse variants that it does not
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestedStore {
    /// No store: the service has none, or the path does not name one. A key that is restricted to a store is
    /// refused.
    NoStore,
    /// No store, for a service that keeps each key to its store itself, by [`Principal::restriction`].
    NoStoreForAnyKey,
    /// This store.
    Store(StoreId),
    /// The text in the place of a store's number is not one.
    NotAStore,
}

impl RequestedStore {
    /// Reads the path segment in the place of a store's number.
    #[must_use]
    pub fn from_segment(segment: &str) -> Self {
        segment.parse().map_or(Self::NotAStore, Self::Store)
    }

    /// Returns the store, if this is one.
    #[must_use]
    pub const fn store(self) -> Option<StoreId> {
        match self {
            Self::Store(store) => Some(store),
            Self::NoStore | Self::NoStoreForAnyKey | Self::NotAStore => None,
        }
    }
}

/// The owner of the key that a request was sent with. It holds nothing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal {
    pub(super) key: Option<KeyId>,
    pub(super) team: Option<TeamId>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) store: Option<StoreId>,
    pub(super) restriction: Option<StoreId>,
    pub(super) is_previous: bool,
    pub(super) is_from_browser: bool,
}

impl Principal {
    /// Returns the key's number in its registry; `None` for [`StaticKeys`](super::StaticKeys).
    #[must_use]
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// Returns the key's team; `None` for [`StaticKeys`](super::StaticKeys).
    #[must_use]
    pub const fn team(&self) -> Option<TeamId> {
        self.team
    }

    /// Returns the key's fingerprint, for a log.
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Returns the store that the request is authorized for, if it named one.
    #[must_use]
    pub const fn store(&self) -> Option<StoreId> {
        self.store
    }

    /// Returns the only store that the key may be used for; `None` if it serves every store of its team. A
    /// request for a store has been checked against it already; with [`RequestedStore::NoStoreForAnyKey`],
    /// the service must check it.
    #[must_use]
    pub const fn restriction(&self) -> Option<StoreId> {
        self.restriction
    }

    /// Returns whether it is the previous key of [`StaticKeys`](super::StaticKeys): its holder does not use
    /// the new one yet.
    #[must_use]
    pub const fn is_previous(&self) -> bool {
        self.is_previous
    }

    /// Returns whether a browser sent the request (it has `Origin`, `Sec-Fetch-Site`, `Sec-Fetch-Dest` or
    /// `Sec-Fetch-User`). The key has then reached a client that a customer controls, and should be rotated.
    /// A hand-made request can omit those headers.
    #[must_use]
    pub const fn is_from_browser(&self) -> bool {
        self.is_from_browser
    }

    /// Returns whether a browser sent a request with these headers.
    #[inline]
    pub(crate) fn has_browser_headers(headers: &HeaderMap) -> bool {
        headers.keys().any(is_sent_by_browsers)
    }
}

/// Authorizes requests: [`KeyRegistry`](super::KeyRegistry), [`StaticKeys`](super::StaticKeys), or your own
/// type.
pub trait Authorize: Send + Sync {
    /// Returns the issuer of the keys.
    fn profile(&self) -> &'static Profile;

    /// Checks a request's headers.
    ///
    /// # Errors
    /// The [`Refusal`] to answer the request with.
    fn authorize(&self, headers: &HeaderMap, requested: RequestedStore) -> Result<Principal, Refusal>;
}

impl<T: Authorize + ?Sized> Authorize for &T {
    fn profile(&self) -> &'static Profile {
        (**self).profile()
    }

    fn authorize(&self, headers: &HeaderMap, requested: RequestedStore) -> Result<Principal, Refusal> {
        (**self).authorize(headers, requested)
    }
}

impl<T: Authorize + ?Sized> Authorize for Box<T> {
    fn profile(&self) -> &'static Profile {
        (**self).profile()
    }

    fn authorize(&self, headers: &HeaderMap, requested: RequestedStore) -> Result<Principal, Refusal> {
        (**self).authorize(headers, requested)
    }
}

impl<T: Authorize + ?Sized> Authorize for Arc<T> {
    fn profile(&self) -> &'static Profile {
        (**self).profile()
    }

    fn authorize(&self, headers: &HeaderMap, requested: RequestedStore) -> Result<Principal, Refusal> {
        (**self).authorize(headers, requested)
    }
}

/// The row of the issuer's table that a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    profile: &'static Profile,
    meaning: Meaning,
    row: &'static Row,
}

impl Refusal {
    /// Creates the refusal with this meaning: the issuer's first row for it. An issuer that has one answer
    /// for a missing and a wrong key gives that row, and an issuer that documents neither gives a row of
    /// [`PLAIN`].
    #[must_use]
    pub fn new(profile: &'static Profile, meaning: Meaning) -> Self {
        let find = |rows: &'static [Row], meaning| rows.iter().find(|row| row.meaning() == meaning);
        let row = find(profile.failures(), meaning)
            .or_else(|| {
                find(profile.failures(), Meaning::KeyRefused).filter(|_| meaning == Meaning::KeyMissing)
            })
            .or_else(|| find(PLAIN, meaning))
            .unwrap_or(&PLAIN[1]);
        Self { profile, meaning, row }
    }

    /// Returns the reason.
    #[must_use]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.row.status()
    }

    /// Returns the JSON body, as the issuer documents it.
    #[must_use]
    pub fn body(&self) -> String {
        self.row.body().unwrap_or_default()
    }

    /// Returns the value of `WWW-Authenticate` (RFC 6750, section 3): without an error code if there were no
    /// credentials, `invalid_token` with 401, `insufficient_scope` with 403; `None` with another status.
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        let realm = self.profile.name();
        match (self.meaning, self.status()) {
            (Meaning::KeyMissing, 401) => Some(format!("Bearer realm=\"{realm}\"")),
            (_, 401) => Some(format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")),
            (_, 403) => Some(format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\"")),
            _ => None,
        }
    }
}

/// Returns the text in the issuer's format that a request came with, or the reason why there is none.
///
/// Only a request without an `Authorization` header has no key. Anything else in the header, and several
/// headers, count as an unknown key: RFC 6750 also allows 400, but Kanal documents no row for that.
#[inline]
pub(super) fn presented<'a>(headers: &'a HeaderMap, format: &KeyFormat) -> Result<&'a [u8], Meaning> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Meaning::KeyMissing),
        (Some(value), None) => key(value.as_bytes(), format).ok_or(Meaning::KeyRefused),
        (Some(_), Some(_)) => Err(Meaning::KeyRefused),
    }
}

#[inline]
fn is_sent_by_browsers(name: &HeaderName) -> bool {
    // Most names are among those that `http` knows, and are told apart from these without a look at a letter.
    *name == ORIGIN || BROWSER.contains(name)
}

/// Returns the key in the value of an `Authorization` header, if it is well-formed. A value that is too long
/// is not read.
fn key<'a>(value: &'a [u8], format: &KeyFormat) -> Option<&'a [u8]> {
    let longest = *format.lengths().end();
    if value.len() > SCHEME.len() + MAX_SPACES + longest {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    if !scheme.eq_ignore_ascii_case(SCHEME) || spaces == 0 || spaces > MAX_SPACES {
        return None;
    }
    Some(&rest[spaces..]).filter(|key| format.accepts(key))
}

impl Authorize for KeyRegistry {
    fn profile(&self) -> &'static Profile {
        self.profile
    }

    fn authorize(&self, headers: &HeaderMap, requested: RequestedStore) -> Result<Principal, Refusal> {
        let refused = |meaning| Refusal::new(self.profile, meaning);
        let key = presented(headers, self.profile.format()).map_err(refused)?;
        let digest = self.pepper.current().digest(key);
        // Both at one time, so that a key is not accepted for a store that it never had a right to.
        let (found, store) = self.index.read(|| {
            let found = self.find(&digest, key);
            let store = found.as_ref().and(requested.store());
            (found, store.and_then(|store| self.index.store(store)))
        });
        // What does not depend on the key comes now, while the processor waits for the key's cache line.
        let (now, is_from_browser) = (self.now(), Principal::has_browser_headers(headers));
        let found = found.ok_or_else(|| refused(Meaning::KeyRefused))?;
        let entry = &found.entry;
        if let Some(meaning) = store_refusal(entry, requested, store) {
            return Err(refused(meaning));
        }
        let id = entry.id();
        let principal = Principal {
            key: Some(id),
            team: Some(entry.team()),
            fingerprint: entry.fingerprint(),
            store: requested.store(),
            restriction: entry.restriction(),
            is_previous: false,
            is_from_browser,
        };
        let is_under_older = entry.pepper() != 0;
        let is_new_use = self.index.note_use(&found, now, USE_STEP);
        if is_new_use {
            self.note(id, Changed::Used(now));
        }
        if is_under_older {
            self.rehash(id, key);
        }
        if is_from_browser {
            Trace::here().line(|| {
                move || {
                    trace_line!(warn:
                        key = %id,
                        "a browser sent a request with this key, so it has reached a client that a customer \
                         controls: rotate it"
                    );
                }
            });
            (self.on_browser)(&principal);
        }
        Ok(principal)
    }
}

impl KeyRegistry {
    /// Looks for a key under each pepper; its digest under the current one is given. Only to be called in
    /// [`Index::read`](super::index::Index::read): a key may move from one pepper to another meanwhile.
    #[inline]
    fn find(&self, digest: &[u8; DIGEST], key: &[u8]) -> Option<Found<'_>> {
        self.index.find(digest, 0).or_else(|| {
            let mut older = self.pepper.all().zip(0_u8..).skip(1);
            older.find_map(|(pepper, place)| self.index.find(&pepper.digest(key), place))
        })
    }

    /// Returns the key with this text.
    pub(super) fn entry_of(&self, key: &[u8]) -> Option<Entry> {
        let digest = self.pepper.current().digest(key);
        self.index.read(|| self.find(&digest, key).map(|found| found.entry))
    }

    /// Returns the key that a request came with, whatever its restriction. Does not count as a use of the
    /// key.
    pub(crate) fn sender(&self, headers: &HeaderMap) -> Option<(KeyId, Option<Fingerprint>)> {
        let key = presented(headers, self.profile.format()).ok()?;
        self.entry_of(key).map(|entry| (entry.id(), entry.fingerprint()))
    }

    /// Moves a key that was used to the current pepper.
    fn rehash(&self, id: KeyId, key: &[u8]) {
        let pepper = self.pepper.current();
        let digest = pepper.digest(key);
        let change = Changed::Digest(StoredDigest { digest, pepper: pepper.id() });
        // Skip the in-memory change if it cannot be persisted: the old pepper would seem to be unused.
        if self.note(id, change) {
            self.index.rehash(id, digest, 0);
        }
    }

    /// Queues a change to be written after the request. Returns `false` if the queue is full.
    fn note(&self, id: KeyId, what: Changed) -> bool {
        self.behind.as_ref().is_none_or(|behind| behind.note(Change { id, what }))
    }
}

/// Decides which refusal applies; see "Order of refusals" in the module's documentation. `found` is the
/// requested store, if it exists.
#[inline]
fn store_refusal(entry: &Entry, requested: RequestedStore, found: Option<Store>) -> Option<Meaning> {
    let store = match requested {
        RequestedStore::NoStoreForAnyKey => return None,
        RequestedStore::NoStore if entry.restriction().is_none() => return None,
        RequestedStore::NoStore => return Some(Meaning::StoreForbidden),
        RequestedStore::NotAStore => return Some(Meaning::StoreNotFound),
        RequestedStore::Store(store) => store,
    };
    match found {
        None => Some(Meaning::StoreNotFound),
        Some(found) if found.team != entry.team() || !entry.serves(store) => Some(Meaning::StoreForbidden),
        Some(found) if found.is_paused => Some(Meaning::StoreNotFound),
        Some(_) => None,
    }
}

#[cfg(test)]
#[path = "../../tests/units/registry/credentials.rs"]
mod tests;
