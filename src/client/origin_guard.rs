//! Which requests may carry a key.

use std::fmt;
use std::marker::PhantomData;

use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};

use crate::handle::Snapshot;
use crate::internal::bytes::percent_byte;
use crate::key::header::BearerHeader;
use crate::key::issuer::KNOWN;
use crate::key::{Issuer, Origin};

impl<I: Issuer> BearerHeader<I> {
    /// Returns the value for the key of a snapshot. It is built once for each key of a handle, and wiped
    /// together with the key.
    #[must_use]
    #[inline]
    pub fn for_snapshot(snapshot: &Snapshot<I>) -> &Self {
        snapshot.header()
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
        if headers.is_empty() { Ok(()) } else { self.check_headers(headers) }
    }

    fn check_headers(&self, headers: &HeaderMap) -> Result<(), GuardError> {
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
        if let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority())
            && self.origin.is_at(scheme.as_str(), authority.as_str())
        {
            return Ok(());
        }
        Err(self.elsewhere(uri))
    }

    /// Says why a URI is not one of the guard's origin.
    #[cold]
    fn elsewhere(&self, uri: &Uri) -> GuardError {
        let expected = self.origin.clone();
        match (uri.scheme(), uri.authority()) {
            (Some(_), Some(authority)) if authority.as_str().contains('@') => GuardError::UserInfo,
            (Some(_), Some(_)) => GuardError::OtherOrigin { expected },
            _ => GuardError::NotAbsolute { expected },
        }
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
    let starts = &text[..text.len().saturating_sub(key.len() - 1)];
    let begins = |byte: u8| byte == first || byte == b'%';
    // Without an exit, so that the compiler looks at many bytes at once.
    let is_candidate = starts.iter().fold(false, |found, &byte| found | begins(byte));
    is_candidate && (0..starts.len()).any(|start| begins(text[start]) && starts_with_key(&text[start..], key))
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
