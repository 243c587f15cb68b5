//! Which requests may carry a key.

use std::fmt;
use std::marker::PhantomData;

use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};

use super::BearerHeader;
use crate::key::issuer::KNOWN;
use crate::key::{Issuer, Origin, Scheme};

/// Lets a key of issuer `I` go to the issuer's origin, and nowhere else.
///
/// For a test server or a gateway, one other origin can be named in the issuer's stead, by hand:
/// [`OriginGuard::for_loopback`] and [`OriginGuard::for_https`].
///
/// ```
/// use keysheath::client::OriginGuard;
/// use keysheath::key::Katana;
///
/// let guard = OriginGuard::<Katana>::new();
/// assert_eq!(guard.origin().to_string(), "https://api.katanamrp.com");
/// ```
pub struct OriginGuard<I: Issuer> {
    origin: Origin,
    issuer: PhantomData<fn() -> I>,
}

/// A request that must not carry the key; the request is unchanged. It holds no part of the request.
///
/// ```
/// use keysheath::client::{BearerHeader, GuardError, OriginGuard};
/// use keysheath::key::{ApiKey, Kanal};
///
/// let header = BearerHeader::new(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
/// let mut request = http::Request::get("http://api.getkanal.com/").body(()).unwrap();
/// let error = OriginGuard::new().authorize(&mut request, &header).unwrap_err();
/// assert!(matches!(error, GuardError::OtherOrigin { .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The URI is a path, or has no scheme.
    #[error(
        "the request's URI has no scheme and host, so where it goes cannot be checked: \
         give it the whole URI, starting with {expected}"
    )]
    NotAbsolute {
        /// Where a key may go.
        expected: Origin,
    },
    /// The URI is not one that HTTP can carry.
    #[error(
        "the request's URI is longer than 65,534 bytes or cannot be read, so where it goes cannot be checked: \
         mend the URI, it is to start with {expected}"
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
        "the request goes to another origin than {expected}, so it was not given the key: mend the URI, or name \
         the origin with for_https or for_loopback if it is meant"
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
    /// The key stands in the URI, where logs and proxies read it.
    #[error(
        "the key stands in the request's URI, where logs keep it: remove it there, and rotate the key if the URI was ever sent"
    )]
    KeyInUri,
}

/// An origin that a guard must not be told to trust.
///
/// ```
/// use keysheath::client::{OriginGuard, OverrideError};
/// use keysheath::key::{Kanal, Origin};
///
/// let origin = Origin::parse("http://localhost:8080").unwrap();
/// assert_eq!(OriginGuard::<Kanal>::for_loopback(origin).unwrap_err(), OverrideError::NotLoopback);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// The host is a name, or another address.
    #[error(
        "a loopback server is named by its address, 127.0.0.1 or [::1]; a name such as localhost may resolve elsewhere"
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
        /// Whose server it is.
        issuer: &'static str,
    },
}

impl<I: Issuer> OriginGuard<I> {
    /// For the issuer's own origin.
    ///
    /// ```
    /// # use keysheath::client::OriginGuard;
    /// # use keysheath::key::Kanal;
    /// assert_eq!(OriginGuard::<Kanal>::new().origin().host(), "api.getkanal.com");
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::at(I::PROFILE.origin().clone())
    }

    /// For a server on this machine in the issuer's stead, named by its loopback address, with or without TLS.
    ///
    /// # Errors
    /// [`OverrideError::NotLoopback`] for a host name, `localhost` included, and for any other address.
    ///
    /// ```
    /// # use keysheath::client::OriginGuard;
    /// # use keysheath::key::{Kanal, Origin};
    /// let server = Origin::parse("http://127.0.0.1:8080").unwrap();
    /// assert!(OriginGuard::<Kanal>::for_loopback(server).is_ok());
    /// ```
    pub fn for_loopback(origin: Origin) -> Result<Self, OverrideError> {
        if origin.is_loopback() { Ok(Self::at(origin)) } else { Err(OverrideError::NotLoopback) }
    }

    /// For another https origin in the issuer's stead, such as a gateway of your own. Whoever runs it can read
    /// the key. A server in the domain of another issuer that this crate knows is refused.
    ///
    /// # Errors
    /// [`OverrideError::NotHttps`] for plain HTTP, [`OverrideError::OtherIssuer`] for a Kanal key that is to go to
    /// Katana, and the other way round.
    ///
    /// ```
    /// # use keysheath::client::OriginGuard;
    /// # use keysheath::key::{Kanal, Origin};
    /// let gateway = Origin::parse("https://gateway.shop.example").unwrap();
    /// assert!(OriginGuard::<Kanal>::for_https(gateway).is_ok());
    /// ```
    pub fn for_https(origin: Origin) -> Result<Self, OverrideError> {
        if origin.scheme() != Scheme::Https {
            return Err(OverrideError::NotHttps);
        }
        // A Katana app's tokens go where Katana's keys do.
        let mut others = KNOWN.iter().filter(|other| other.origin() != I::PROFILE.origin());
        match others.find(|other| is_in_domain_of(origin.host(), other.origin().host())) {
            Some(other) => Err(OverrideError::OtherIssuer { issuer: other.title() }),
            None => Ok(Self::at(origin)),
        }
    }

    /// The one origin that a key may go to.
    ///
    /// ```
    /// # use keysheath::client::OriginGuard;
    /// # use keysheath::key::Kanal;
    /// assert_eq!(OriginGuard::<Kanal>::new().origin().port(), 443);
    /// ```
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Puts the key on a request that goes to the guard's origin, as its one `Authorization` header.
    ///
    /// # Errors
    /// [`GuardError`] when the request goes elsewhere, or where that cannot be told, or it carries credentials
    /// in another way. The request is then unchanged.
    ///
    /// ```
    /// # use keysheath::client::{BearerHeader, OriginGuard};
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let header = BearerHeader::new(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap());
    /// let mut request = http::Request::get("https://api.getkanal.com/api/v1/stores/1/orders").body(()).unwrap();
    /// OriginGuard::new().authorize(&mut request, &header)?;
    /// # Ok::<(), keysheath::client::GuardError>(())
    /// ```
    pub fn authorize<B>(&self, request: &mut Request<B>, header: &BearerHeader<I>) -> Result<(), GuardError> {
        self.check(request.uri(), request.headers(), header)?;
        request.headers_mut().insert(AUTHORIZATION, header.value());
        Ok(())
    }

    /// As [`OriginGuard::authorize`], for a request of another type, by where it goes and its headers.
    #[cfg(feature = "reqwest")]
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

    /// Whether a request, by where it goes and its headers, may be given the key. It allocates nothing,
    /// because it is asked for each request.
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
        let scheme = match scheme.as_str() {
            "https" => Some(Scheme::Https),
            "http" => Some(Scheme::Http),
            _ => None,
        };
        let same = scheme.is_some_and(|scheme| self.origin.is_at(scheme, authority.as_str()));
        if same { Ok(()) } else { Err(GuardError::OtherOrigin { expected: expected() }) }
    }

    fn is_host(&self, host: &[u8]) -> bool {
        Authority::try_from(host).is_ok_and(|host| self.origin.is_at(self.origin.scheme(), host.as_str()))
    }

    const fn at(origin: Origin) -> Self {
        Self { origin, issuer: PhantomData }
    }
}

/// Whether `host` is in the domain that `api`, an issuer's host such as `api.getkanal.com`, is in.
fn is_in_domain_of(host: &str, api: &str) -> bool {
    let domain = api.split_once('.').map_or(api, |(_, domain)| domain);
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether the key stands in the path or the query, as it is or with `%XX` for some of its characters.
fn has_key(uri: &Uri, key: &[u8]) -> bool {
    let Some(text) = uri.path_and_query() else {
        return false;
    };
    let text = text.as_str().as_bytes();
    let Some(&first) = key.first() else {
        return false;
    };
    // Each character of the key takes a byte at least, so it begins no later than this. Most bytes are neither.
    let starts = text.len().saturating_sub(key.len() - 1);
    let begins = |start: &usize| text[*start] == first || text[*start] == b'%';
    (0..starts).filter(begins).any(|start| starts_with_key(&text[start..], key))
}

fn starts_with_key(mut text: &[u8], key: &[u8]) -> bool {
    for &wanted in key {
        let (byte, length) = match text {
            [b'%', high, low, ..] => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => (high * 16 + low, 3),
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

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
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
