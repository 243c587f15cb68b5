//! Who made a request, and what a request that is not authorised is answered.

use http::HeaderMap;

use super::record::{KeyId, Restriction, TeamId};
use crate::failure::{Meaning, PLAIN, Row};
use crate::key::{Fingerprint, Profile, StoreId};

/// What a request wants to do something with. A type of your own that authorises refuses what it does not know.
///
/// ```
/// use keysheath::registry::RequestedStore;
/// assert_eq!(RequestedStore::from_segment("123").store().unwrap().get(), 123);
/// assert_eq!(RequestedStore::from_segment("0"), RequestedStore::NotAStore);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestedStore {
    /// No store: the service has none, or the path does not name one. A key that is restricted to a store is refused.
    NoStore,
    /// No store, for a service that keeps each key to its store itself, by [`Principal::restriction`].
    NoStoreForAnyKey,
    /// This store.
    Store(StoreId),
    /// What stands where a store's number belongs is none.
    NotAStore,
}

impl RequestedStore {
    /// What a path has where a store's number belongs.
    ///
    /// ```
    /// # use keysheath::registry::RequestedStore;
    /// for text in ["", "-1", "twelve", "99999999999999999999"] {
    ///     assert_eq!(RequestedStore::from_segment(text), RequestedStore::NotAStore);
    /// }
    /// ```
    #[must_use]
    pub fn from_segment(segment: &str) -> Self {
        segment.parse().map_or(Self::NotAStore, Self::Store)
    }

    /// The store, if it is one.
    ///
    /// ```
    /// # use keysheath::registry::RequestedStore;
    /// assert_eq!(RequestedStore::NoStore.store(), None);
    /// ```
    #[must_use]
    pub const fn store(self) -> Option<StoreId> {
        match self {
            Self::Store(store) => Some(store),
            Self::NoStore | Self::NoStoreForAnyKey | Self::NotAStore => None,
        }
    }
}

/// Whose key a request was sent with. It holds nothing secret.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{Authorize, KeyRegistry, Restriction, TeamId, RequestedStore};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
/// let mut headers = HeaderMap::new();
/// let value = format!("Bearer {}", new.key().expose_secret());
/// headers.insert("authorization", HeaderValue::try_from(value).unwrap());
///
/// let principal = registry.authorize(&headers, RequestedStore::NoStore).unwrap();
/// assert_eq!(principal.key(), Some(new.record().id()));
/// assert_eq!(principal.team(), Some(TeamId::new(1)));
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal {
    pub(super) key: Option<KeyId>,
    pub(super) team: Option<TeamId>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) store: Option<StoreId>,
    pub(super) restriction: Restriction,
    pub(super) is_previous: bool,
    pub(super) from_browser: bool,
}

impl Principal {
    /// The key's number in its registry; `None` for one of [`StaticKeys`](super::StaticKeys).
    ///
    /// ```
    /// # use keysheath::registry::Principal;
    /// fn log(principal: &Principal) {
    ///     println!("key {:?}", principal.key());
    /// }
    /// ```
    #[must_use]
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// The key's team; `None` for one of [`StaticKeys`](super::StaticKeys).
    ///
    /// ```
    /// # use keysheath::registry::Principal;
    /// fn log(principal: &Principal) {
    ///     println!("team {:?}", principal.team());
    /// }
    /// ```
    #[must_use]
    pub const fn team(&self) -> Option<TeamId> {
        self.team
    }

    /// The key's one-way name, for a log.
    ///
    /// ```
    /// # use keysheath::registry::Principal;
    /// fn log(principal: &Principal) {
    ///     println!("key {:?}", principal.fingerprint());
    /// }
    /// ```
    #[must_use]
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// The store that the request is authorised for, if it named one.
    ///
    /// ```
    /// # use keysheath::registry::Principal;
    /// fn log(principal: &Principal) {
    ///     println!("store {:?}", principal.store());
    /// }
    /// ```
    #[must_use]
    pub const fn store(&self) -> Option<StoreId> {
        self.store
    }

    /// Which stores the key may be used for. A request for a store is within it already; where a request names none, and
    /// the layer was told to let such a key through, the service looks here.
    #[must_use]
    pub const fn restriction(&self) -> Restriction {
        self.restriction
    }

    /// Whether it is the previous of [`StaticKeys`](super::StaticKeys): its holder has not taken up the new one yet.
    ///
    /// ```
    /// # use keysheath::registry::Principal;
    /// fn log(principal: &Principal) {
    ///     if principal.is_previous() {
    ///         println!("somebody still sends the previous key");
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn is_previous(&self) -> bool {
        self.is_previous
    }

    /// Whether a browser sent the request (it has `Origin`, `Sec-Fetch-Site`, `Sec-Fetch-Dest` or `Sec-Fetch-User`): the key has then reached a client
    /// that a customer controls, and should be rotated. Whoever sends a request by hand can leave those headers out.
    ///
    /// ```
    /// # use keysheath::registry::Principal;
    /// fn log(principal: &Principal) {
    ///     if principal.from_browser() {
    ///         println!("a browser has the key {:?}", principal.fingerprint());
    ///     }
    /// }
    /// ```
    #[must_use]
    pub const fn from_browser(&self) -> bool {
        self.from_browser
    }
}

/// Says who made a request, or with which row of the issuer's table it is to be answered.
///
/// [`KeyRegistry`](super::KeyRegistry) and [`StaticKeys`](super::StaticKeys) do, and a type of your own can.
///
/// ```
/// use keysheath::registry::{Authorize, RequestedStore};
///
/// fn is_allowed(keys: &dyn Authorize, headers: &http::HeaderMap) -> bool {
///     keys.authorize(headers, RequestedStore::NoStore).is_ok()
/// }
/// ```
pub trait Authorize: Send + Sync {
    /// Whose keys these are.
    fn profile(&self) -> &'static Profile;

    /// Looks at a request's headers.
    ///
    /// # Errors
    /// The one [`Refusal`] that the request is to be answered with.
    fn authorize(&self, headers: &HeaderMap, wanted: RequestedStore) -> Result<Principal, Refusal>;
}

/// The row of the issuer's table that a request is answered with.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// use keysheath::registry::{Authorize, KeyRegistry, RequestedStore};
///
/// let registry = KeyRegistry::in_memory(Kanal::PROFILE)?;
/// let refusal = registry.authorize(&http::HeaderMap::new(), RequestedStore::NoStore).unwrap_err();
/// assert_eq!(refusal.status(), 401);
/// assert_eq!(refusal.body(), r#"{ "error": "API key is missing" }"#);
/// assert_eq!(refusal.challenge().as_deref(), Some(r#"Bearer realm="kanal""#));
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    profile: &'static Profile,
    meaning: Meaning,
    row: &'static Row,
}

impl Refusal {
    /// The refusal with this meaning: the issuer's first row for it. An issuer that does not tell a missing key from a
    /// wrong one gives the row for the wrong one, and one that documents neither gives a row of [`PLAIN`].
    ///
    /// ```
    /// use keysheath::failure::Meaning;
    /// use keysheath::key::{Issuer, Katana};
    /// use keysheath::registry::Refusal;
    /// let refusal = Refusal::of(Katana::PROFILE, Meaning::KeyMissing);
    /// assert!(refusal.body().contains("UnauthorizedError"));
    /// ```
    #[must_use]
    pub fn of(profile: &'static Profile, meaning: Meaning) -> Self {
        let find = |rows: &'static [Row], meaning| rows.iter().find(|row| row.meaning() == meaning);
        let row = find(profile.failures(), meaning)
            .or_else(|| {
                find(profile.failures(), Meaning::KeyRefused).filter(|_| meaning == Meaning::KeyMissing)
            })
            .or_else(|| find(PLAIN, meaning))
            .unwrap_or(&PLAIN[1]);
        Self { profile, meaning, row }
    }

    /// Why.
    ///
    /// ```
    /// # use keysheath::failure::Meaning;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::Refusal;
    /// assert!(Refusal::of(Kanal::PROFILE, Meaning::KeyRefused).meaning().refuses_key());
    /// ```
    #[must_use]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// The HTTP status.
    ///
    /// ```
    /// # use keysheath::failure::Meaning;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::Refusal;
    /// assert_eq!(Refusal::of(Kanal::PROFILE, Meaning::StoreForbidden).status(), 403);
    /// ```
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.row.status()
    }

    /// The JSON body, as the issuer documents it.
    ///
    /// ```
    /// # use keysheath::failure::Meaning;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::Refusal;
    /// let refusal = Refusal::of(Kanal::PROFILE, Meaning::StoreForbidden);
    /// assert_eq!(refusal.body(), r#"{ "error": "API key does not authorize this store" }"#);
    /// ```
    #[must_use]
    pub fn body(&self) -> String {
        self.row.body().unwrap_or_default()
    }

    /// The value of `WWW-Authenticate` (RFC 6750, section 3): without an error code where there were no credentials,
    /// `invalid_token` with 401, `insufficient_scope` with 403, and no such header with another status.
    ///
    /// ```
    /// # use keysheath::failure::Meaning;
    /// # use keysheath::key::{Issuer, Kanal};
    /// # use keysheath::registry::Refusal;
    /// let refused = Refusal::of(Kanal::PROFILE, Meaning::KeyRefused);
    /// assert_eq!(refused.challenge().unwrap(), r#"Bearer realm="kanal", error="invalid_token""#);
    /// assert_eq!(Refusal::of(Kanal::PROFILE, Meaning::StoreNotFound).challenge(), None);
    /// ```
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
