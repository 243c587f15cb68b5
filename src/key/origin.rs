//! The web origin that a key belongs to: scheme, host and port, and nothing else.
//!
//! An [`Origin`] is compared as a whole. A key for `https://api.getkanal.com` is not sent to
//! `https://api.getkanal.com:8443`, to `http://api.getkanal.com`, nor to a sub-domain.
//!
//! ```
//! use keysheath::key::Origin;
//!
//! let origin = Origin::parse("https://API.getkanal.com:443/")?;
//! assert_eq!(origin, Origin::https("api.getkanal.com"));
//! assert_eq!(origin.to_string(), "https://api.getkanal.com");
//! # Ok::<(), keysheath::key::ParseError>(())
//! ```

#[cfg(test)]
#[path = "../../tests/units/key/origin.rs"]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::key::ParseError;

/// The longest host name that DNS can carry, in characters (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

const HTTPS: &str = "https";
const HTTP: &str = "http";

/// Scheme, host and port of a server.
///
/// Hosts are stored in lower case, an IPv6 address in its shortest form, in brackets. International names are
/// accepted only in their ASCII form (`xn--…`), so that no look-alike letter passes unnoticed.
///
/// ```
/// use keysheath::key::Origin;
///
/// const SHOP: Origin = Origin::https("api.shop.example");
/// assert_eq!(SHOP.host(), "api.shop.example");
/// assert_eq!(SHOP.port(), 443);
/// assert!(!SHOP.is_loopback());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: &'static str,
    host: Cow<'static, str>,
    port: u16,
}

impl Origin {
    /// Returns the origin `https://host`, on port 443, for use in a `const`.
    ///
    /// # Panics
    /// If `host` is not a lower-case host name or IPv4 address that [`Origin::parse`] accepts as it is; in a
    /// `const` that is a compile error. For other hosts use [`Origin::parse`], which does not panic.
    #[must_use]
    pub const fn https(host: &'static str) -> Self {
        assert!(is_host(host.as_bytes()), "not a lower-case host name or IPv4 address");
        Self { scheme: HTTPS, host: Cow::Borrowed(host), port: 443 }
    }

    /// Returns the same origin, for use in a `const`.
    pub(crate) const fn borrowed(&'static self) -> Self {
        let host = match &self.host {
            Cow::Borrowed(host) => host,
            Cow::Owned(host) => host.as_str(),
        };
        Self { scheme: self.scheme, host: Cow::Borrowed(host), port: self.port }
    }

    /// Parses an origin such as `https://api.getkanal.com` or `http://127.0.0.1:8080`. A final `/` is
    /// allowed, and upper case becomes lower case.
    ///
    /// # Errors
    /// [`ParseError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (name, rest) = text.split_once("://").ok_or(ParseError::OriginScheme)?;
        let scheme = [HTTPS, HTTP].into_iter().find(|scheme| name.eq_ignore_ascii_case(scheme));
        let scheme = scheme.ok_or(ParseError::OriginScheme)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(ParseError::OriginUserInfo);
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(ParseError::OriginTrailing);
        }
        let (host, port) = split_port(authority)?;
        let host = match address_in_brackets(host) {
            // One of the many ways to write an address.
            Some(address) => format!("[{address}]"),
            None => Some(host.to_ascii_lowercase())
                .filter(|host| is_host(host.as_bytes()))
                .ok_or(ParseError::OriginHost)?,
        };
        let port = match port {
            None => default_port(scheme),
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self { scheme, host: Cow::Owned(host), port })
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Returns the host in lower case; an IPv6 address in its shortest form and in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; the default one of the scheme if none was written.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the host is a loopback *address*: `127.0.0.0/8` or `[::1]`.
    ///
    /// The name `localhost` does not count: what it resolves to depends on the system's configuration.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match address_in_brackets(&self.host) {
            Some(address) => address.is_loopback(),
            None => self.host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
        }
    }

    /// Returns whether an authority, `host` or `host:port`, with this scheme is this origin. An authority
    /// with user information is not. Does not allocate: it is called for each request.
    #[inline]
    pub(crate) fn is_at(&self, scheme: &str, authority: &str) -> bool {
        // As it is usually written, and then in any spelling.
        self.scheme == scheme
            && match authority.strip_prefix(&*self.host) {
                Some("") => self.port == default_port(scheme),
                _ => self.is_spelled(authority),
            }
    }

    fn is_spelled(&self, authority: &str) -> bool {
        let Ok((host, port)) = split_port(authority) else {
            return false;
        };
        let port = port.map_or(Ok(default_port(self.scheme)), parse_port);
        let is_same = match address_in_brackets(host) {
            Some(address) => address_in_brackets(&self.host) == Some(address),
            None => host.eq_ignore_ascii_case(&self.host),
        };
        is_same && port == Ok(self.port)
    }
}

impl FromStr for Origin {
    type Err = ParseError;

    /// As [`Origin::parse`].
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.port != default_port(self.scheme) {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == HTTPS { 443 } else { 80 }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), ParseError> {
    let after_host = if authority.starts_with('[') {
        authority.find(']').ok_or(ParseError::OriginHost)? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(after_host);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        None => Err(ParseError::OriginHost),
        Some(digits) => Ok((host, Some(digits))),
    }
}

fn parse_port(digits: &str) -> Result<u16, ParseError> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port != 0 => Ok(port),
        _ => Err(ParseError::OriginPort),
    }
}

fn address_in_brackets(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether this is a host name or an IPv4 address, and not one of the many other ways to write an address.
const fn is_host(host: &[u8]) -> bool {
    // If the last label is a number, resolvers and browsers read the whole as an IPv4 address in one of its
    // old spellings (127.1, 0x7f.1), so only the dotted quad is accepted.
    let mut last = host.len();
    while last > 0 && host[last - 1] != b'.' {
        last -= 1;
    }
    let is_hexadecimal = host.len() > last + 1 && host[last] == b'0' && host[last + 1] == b'x';
    let mut is_numeric = true;
    let mut at = last;
    while at < host.len() {
        is_numeric &= host[at].is_ascii_digit();
        at += 1;
    }
    is_host_name(host) && (!(is_numeric || is_hexadecimal) || is_dotted_quad(host))
}

/// Four numbers from 0 to 255 without leading zeros.
const fn is_dotted_quad(host: &[u8]) -> bool {
    let (mut parts, mut digits, mut number) = (1, 0, 0_u32);
    let mut at = 0;
    while at < host.len() {
        match host[at] {
            b'.' if digits > 0 => (parts, digits, number) = (parts + 1, 0, 0),
            digit @ b'0'..=b'9' if digits == 0 || number != 0 => {
                (digits, number) = (digits + 1, number * 10 + (digit - b'0') as u32);
            }
            _ => return false,
        }
        if number > 255 {
            return false;
        }
        at += 1;
    }
    parts == 4 && digits > 0
}

/// Letters, digits, hyphens and underscores in labels between single dots.
const fn is_host_name(host: &[u8]) -> bool {
    if host.is_empty() || host.len() > MAX_HOST {
        return false;
    }
    let mut label = 0;
    let mut at = 0;
    while at < host.len() {
        match host[at] {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            _ => return false,
        }
        at += 1;
    }
    label != 0
}

#[cfg(any(feature = "oauth", feature = "openbao", feature = "probe"))]
pub(super) mod roots {
    use std::fmt;
    use std::sync::Arc;

    use ureq::tls::{PemItem, parse_pem};

    /// The most certificates that are accepted: public sets have about 150.
    const MAX_ROOTS: usize = 1024;

    /// The certificates of your own authorities, trusted for an origin in place of the built-in public ones
    /// (Mozilla's).
    ///
    /// ```no_run
    /// use keysheath::client::OriginGuard;
    /// use keysheath::key::{Katana, Origin, Roots};
    /// use keysheath::probe::HttpProbe;
    ///
    /// let roots = Roots::from_pem(&std::fs::read("/etc/ssl/shop-ca.pem")?)?;
    /// let gateway = OriginGuard::<Katana>::for_https(Origin::parse("https://gateway.example")?)?;
    /// let probe = HttpProbe::by_product_list().with_guard(gateway).with_roots(roots);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[derive(Clone, PartialEq, Eq)]
    pub struct Roots(Arc<[Vec<u8>]>);

    /// A text is not a set of roots. The error holds no part of the text.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[non_exhaustive]
    pub enum RootsError {
        /// There is no certificate in the text.
        #[error(
            "there is no certificate in it: give the authority's in PEM, with its BEGIN CERTIFICATE and END \
             CERTIFICATE lines"
        )]
        NoCertificate,
        /// The text is not PEM.
        #[error("it is not complete PEM: give it as the authority's tool wrote it")]
        NotPem,
        /// There is a private key in the text, which does not belong here.
        #[error(
            "there is a private key in it: give the certificates alone, and check who else can read that key"
        )]
        PrivateKey,
        /// There are more than 1024 certificates.
        #[error(
            "there are more than {MAX_ROOTS} certificates in it: give only those of your own authorities"
        )]
        TooMany,
    }

    impl Roots {
        /// Parses one or more certificates in PEM. Whether each is an authority's is checked when a server is
        /// contacted: a certificate that is not one has no effect.
        ///
        /// # Errors
        /// [`RootsError`] if there is no certificate, too many, something that is not PEM, or a private key.
        pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
            let mut roots = Vec::new();
            for item in parse_pem(pem) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => roots.push(certificate.der().to_vec()),
                    Ok(PemItem::PrivateKey(_)) => return Err(RootsError::PrivateKey),
                    // A kind of item that a later version of the parser knows.
                    Ok(_) => {}
                    Err(_) => return Err(RootsError::NotPem),
                }
                if roots.len() > MAX_ROOTS {
                    return Err(RootsError::TooMany);
                }
            }
            if roots.is_empty() {
                return Err(RootsError::NoCertificate);
            }
            Ok(Self(roots.into()))
        }

        /// Returns the number of certificates; never 0.
        #[must_use]
        #[allow(clippy::len_without_is_empty, reason = "there is always one")]
        pub fn len(&self) -> usize {
            self.0.len()
        }

        /// Each certificate in DER.
        pub(crate) fn der(&self) -> impl Iterator<Item = &[u8]> {
            self.0.iter().map(Vec::as_slice)
        }
    }

    impl fmt::Debug for Roots {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Roots({} certificates)", self.len())
        }
    }
}
