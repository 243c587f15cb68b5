//! The value of the `Authorization` header, and which requests may carry it.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::handle::Snapshot;
use crate::internal::bytes::{WipedBytes, percent_byte};
use crate::key::issuer::KNOWN;
use crate::key::{ApiKey, Issuer, Origin, RawKey};

const SCHEME: &[u8] = b"Bearer ";

/// `Bearer` and the key, as the value of an `Authorization` header: built once, marked sensitive, and shared
/// by every request that carries it. The memory is wiped when the last request is dropped.
///
/// ```
/// use keysheath::client::{BearerHeader, OriginGuard};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
///
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// // For a client that no layer fits: hold the snapshot until the answer has arrived.
/// let snapshot = handle.load()?;
/// let header = BearerHeader::for_snapshot(&snapshot);
/// assert_eq!(format!("{:?}", header.value()), "Sensitive");
/// let mut request = http::Request::get("https://api.getkanal.com/api/v1/stores/1/orders").body(())?;
/// OriginGuard::new().authorize(&mut request, header)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("authorization", "token"))]
pub struct BearerHeader<I: Issuer> {
    value: HeaderValue,
    issuer: PhantomData<fn() -> I>,
}

impl<I: Issuer> BearerHeader<I> {
    /// Builds the value from a key.
    ///
    /// # Panics
    /// Never: every format admits only what a header can carry.
    #[must_use]
    pub fn new(key: &ApiKey<I>) -> Self {
        Self::from_text(key.expose_secret().as_bytes())
    }

    /// Builds the value from a key of this issuer, in its own format or a widened one.
    pub(crate) fn from_raw(key: &RawKey) -> Option<Self> {
        key.profile().is_same_issuer(I::PROFILE).then(|| Self::from_text(key.expose_secret().as_bytes()))
    }

    fn from_text(key: &[u8]) -> Self {
        let mut text = WipedBytes::with_capacity(SCHEME.len() + key.len());
        text.append(SCHEME);
        text.append(key);
        let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(text)) else {
            unreachable!("a key passed its format, which a header can carry")
        };
        value.set_sensitive(true);
        Self { value, issuer: PhantomData }
    }

    /// Returns the value for the key of a snapshot. It is built once for each key of a handle, and wiped
    /// together with the key.
    #[must_use]
    #[inline]
    pub fn for_snapshot(snapshot: &Snapshot<I>) -> &Self {
        snapshot.kept(Self::new)
    }

    /// Returns the value, for a request that goes to the issuer. It shares the header's memory.
    ///
    /// This bypasses the origin guard; prefer [`OriginGuard::authorize`].
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        self.value.clone()
    }

    /// Returns the key's bytes, to look for them where they must not be.
    fn key_bytes(&self) -> &[u8] {
        &self.value.as_bytes()[SCHEME.len()..]
    }
}

impl<I: Issuer> Clone for BearerHeader<I> {
    /// Shares the memory; does not copy the key.
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), issuer: PhantomData }
    }
}

impl<I: Issuer> fmt::Debug for BearerHeader<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerHeader({}, redacted)", I::PROFILE.name())
    }
}

/// Lets a key of issuer `I` go to the issuer's origin, and nowhere else.
///
/// For a test server or a gateway, [`OriginGuard::for_loopback`] and [`OriginGuard::for_https`] name one
/// other origin that replaces the issuer's.
///
/// ```
/// use keysheath::client::{BearerHeader, GuardError, OriginGuard};
/// use keysheath::key::{ApiKey, Katana};
///
/// let guard = OriginGuard::<Katana>::new();
/// assert_eq!(guard.origin().to_string(), "https://api.katanamrp.com");
///
/// let header = BearerHeader::new(&ApiKey::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap());
/// let mut request = http::Request::get("http://api.katanamrp.com/").body(()).unwrap();
/// let error = guard.authorize(&mut request, &header).unwrap_err();
/// assert!(matches!(error, GuardError::OtherOrigin { .. }));
/// ```
pub struct OriginGuard<I: Issuer> {
    origin: Origin,
    issuer: PhantomData<fn() -> I>,
}

/// A request that must not carry the key; the request is unchanged. The error holds no part of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The URI is a path, or has no scheme.
    #[error(
        "the request's URI has no scheme and host, so its origin cannot be checked: use a whole URI that \
         starts with {expected}"
    )]
    NotAbsolute {
        /// Where a key may go.
        expected: Origin,
    },
    /// The URI is not one that HTTP can carry.
    #[error(
        "the request's URI is longer than 65,534 bytes or malformed, so its origin cannot be checked: \
         correct the URI, it must start with {expected}"
    )]
    Unreadable {
        /// Where a key may go.
        expected: Origin,
    },
    /// The URI has a user name or a password.
    #[error(
        "the request's URI has user information before its host: remove it, a key goes in one header only"
    )]
    UserInfo,
    /// The URI has another scheme, host or port.
    #[error(
        "the request goes to another origin than {expected}, so it does not get the key: correct the URI, or \
         name the origin with for_https or for_loopback if it is intended"
    )]
    OtherOrigin {
        /// Where a key may go.
        expected: Origin,
    },
    /// The `Host` header names another server, or there are several.
    #[error("the request's Host header disagrees with its URI: remove the header, the client writes it")]
    OtherHost,
    /// There is an `Authorization` header already.
    #[error("the request has an Authorization header already: remove it, a request carries one")]
    AlreadyAuthorized,
    /// The key is in the URI, where logs and proxies read it.
    #[error(
        "the key is in the request's URI, where logs keep it: remove it there, and rotate the key if the URI \
         was ever sent"
    )]
    KeyInUri,
}

/// An origin that a guard must not trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// The host is a name, or another address.
    #[error(
        "a loopback server is named by its address, 127.0.0.1 or [::1]; a name such as localhost may resolve \
         to another machine"
    )]
    NotLoopback,
    /// The scheme is not https.
    #[error("a key goes over TLS only: name an https origin")]
    NotHttps,
    /// The host is another issuer's.
    #[error(
        "this is a server of {issuer}, which must not get another issuer's key: use the key of {issuer} there"
    )]
    OtherIssuer {
        /// The issuer whose server it is.
        issuer: &'static str,
    },
}

impl<I: Issuer> OriginGuard<I> {
    /// Creates a guard for the issuer's own origin.
    #[must_use]
    pub fn new() -> Self {
        Self::at(I::PROFILE.origin().clone())
    }

    /// Creates a guard for a server on this machine that replaces the issuer's, named by its loopback
    /// address, with or without TLS.
    ///
    /// # Errors
    /// [`OverrideError::NotLoopback`] for a host name, `localhost` included, and for any other address.
    pub fn for_loopback(origin: Origin) -> Result<Self, OverrideError> {
        if origin.is_loopback() { Ok(Self::at(origin)) } else { Err(OverrideError::NotLoopback) }
    }

    /// Creates a guard for another https origin, such as your own gateway. Its operator can read the key. A
    /// server in the domain of another issuer that this crate knows is refused.
    ///
    /// # Errors
    /// [`OverrideError::NotHttps`] for plain HTTP, [`OverrideError::OtherIssuer`] for a Kanal key and a
    /// server of Katana, and the other way round.
    pub fn for_https(origin: Origin) -> Result<Self, OverrideError> {
        if origin.scheme() != "https" {
            return Err(OverrideError::NotHttps);
        }
        // A Katana app's tokens go where Katana's keys do.
        let mut others = KNOWN.iter().filter(|other| other.origin() != I::PROFILE.origin());
        match others.find(|other| is_in_domain_of(origin.host(), other.origin().host())) {
            Some(other) => Err(OverrideError::OtherIssuer { issuer: other.title() }),
            None => Ok(Self::at(origin)),
        }
    }

    /// Returns the one origin that a key may go to.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Puts the key on a request that goes to the guard's origin, as its one `Authorization` header.
    ///
    /// # Errors
    /// [`GuardError`] if the request goes elsewhere, or that cannot be determined, or it carries credentials
    /// in another way. The request is then unchanged.
    pub fn authorize<B>(&self, request: &mut Request<B>, header: &BearerHeader<I>) -> Result<(), GuardError> {
        self.check(request.uri(), request.headers(), header)?;
        request.headers_mut().insert(AUTHORIZATION, header.value());
        Ok(())
    }

    /// As [`OriginGuard::authorize`], for a request of another type.
    pub(super) fn authorize_headers(
        &self,
        uri: &Uri,
        headers: &mut HeaderMap,
        header: &BearerHeader<I>,
    ) -> Result<(), GuardError> {
        self.check(uri, headers, header)?;
        headers.insert(AUTHORIZATION, header.value());
        Ok(())
    }

    /// Checks whether a request may carry the key. Does not allocate, because it runs for each request.
    fn check(&self, uri: &Uri, headers: &HeaderMap, header: &BearerHeader<I>) -> Result<(), GuardError> {
        self.check_uri(uri)?;
        if has_key(uri, header.key_bytes()) {
            return Err(GuardError::KeyInUri);
        }
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => {}
            (Some(host), None) if self.is_host(host.as_bytes()) => {}
            _ => return Err(GuardError::OtherHost),
        }
        if headers.contains_key(AUTHORIZATION) {
            return Err(GuardError::AlreadyAuthorized);
        }
        Ok(())
    }

    fn check_uri(&self, uri: &Uri) -> Result<(), GuardError> {
        let expected = || self.origin.clone();
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(GuardError::NotAbsolute { expected: expected() });
        };
        if authority.as_str().contains('@') {
            return Err(GuardError::UserInfo);
        }
        let same = self.origin.is_at(scheme.as_str(), authority.as_str());
        if same { Ok(()) } else { Err(GuardError::OtherOrigin { expected: expected() }) }
    }

    fn is_host(&self, host: &[u8]) -> bool {
        Authority::try_from(host).is_ok_and(|host| self.origin.is_at(self.origin.scheme(), host.as_str()))
    }

    const fn at(origin: Origin) -> Self {
        Self { origin, issuer: PhantomData }
    }
}

/// Returns whether `host` is in the same domain as `api`, an issuer's host such as `api.getkanal.com`.
fn is_in_domain_of(host: &str, api: &str) -> bool {
    let domain = api.split_once('.').map_or(api, |(_, domain)| domain);
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns whether the path or the query contains the key, as it is or with `%XX` for some characters.
fn has_key(uri: &Uri, key: &[u8]) -> bool {
    let Some(text) = uri.path_and_query() else {
        return false;
    };
    let text = text.as_str().as_bytes();
    let Some(&first) = key.first() else {
        return false;
    };
    // Each character of the key takes at least one byte, so the key begins no later than this.
    let starts = text.len().saturating_sub(key.len() - 1);
    let begins = |start: &usize| text[*start] == first || text[*start] == b'%';
    (0..starts).filter(begins).any(|start| starts_with_key(&text[start..], key))
}

fn starts_with_key(mut text: &[u8], key: &[u8]) -> bool {
    for &wanted in key {
        let (byte, length) = match text {
            [b'%', _, _, ..] => match percent_byte(text) {
                Some((byte, _)) => (byte, 3),
                None => return false,
            },
            [byte, ..] => (*byte, 1),
            [] => return false,
        };
        if byte != wanted {
            return false;
        }
        text = &text[length..];
    }
    true
}

impl<I: Issuer> Default for OriginGuard<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Issuer> Clone for OriginGuard<I> {
    fn clone(&self) -> Self {
        Self::at(self.origin.clone())
    }
}

impl<I: Issuer> fmt::Debug for OriginGuard<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OriginGuard({}, {})", I::PROFILE.name(), self.origin)
    }
}
