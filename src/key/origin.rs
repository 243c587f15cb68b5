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
//! # Ok::<(), keysheath::key::OriginError>(())
//! ```

#[cfg(any(feature = "oauth", feature = "openbao", feature = "probe"))]
mod roots;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

#[cfg(any(feature = "oauth", feature = "openbao", feature = "probe"))]
pub use roots::{Roots, RootsError};

/// The longest host name that DNS can carry, in characters (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP; a key goes over it to an IP-literal loopback address only.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

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
    scheme: Scheme,
    host: Cow<'static, str>,
    port: u16,
}

/// A text is not an origin. The error never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The text does not start with `https://` or `http://`.
    #[error("an origin starts with https:// (or http:// for a loopback address): add the scheme")]
    Scheme,
    /// There is a user name or a password before the host.
    #[error("an origin has no user name or password: remove everything up to the @")]
    UserInfo,
    /// There is a path, a query or a fragment.
    #[error("an origin is only scheme, host and port: remove what follows the host and port")]
    Trailing,
    /// The host is empty or has a character that no host name has.
    #[error(
        "the host is not a lower-case ASCII host name, IPv4 address or bracketed IPv6 address: \
         write an international name in its xn-- form, and no dot at the end"
    )]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl Origin {
    /// The origin `https://host`, on port 443, for use in a `const`.
    ///
    /// # Panics
    /// If `host` is not a lower-case host name or IPv4 address that [`Origin::parse`] accepts as it is; in a
    /// `const` that is a compile error. For other hosts use [`Origin::parse`], which does not panic.
    #[must_use]
    pub const fn https(host: &'static str) -> Self {
        assert!(is_host(host.as_bytes()), "not a lower-case host name or IPv4 address");
        Self { scheme: Scheme::Https, host: Cow::Borrowed(host), port: 443 }
    }

    /// The same origin, for use in a `const`.
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
    /// [`OriginError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = split_scheme(text).ok_or(OriginError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        Self::from_authority(scheme, rest)
    }

    /// Creates an origin from a scheme and an authority, `host` or `host:port`.
    ///
    /// # Errors
    /// As [`Origin::parse`].
    pub fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, OriginError> {
        if authority.contains('@') {
            return Err(OriginError::UserInfo);
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(OriginError::Trailing);
        }
        let (host, port) = split_port(authority)?;
        let host = match address_in_brackets(host) {
            // One of the many ways to write an address.
            Some(address) => format!("[{address}]"),
            None => Some(host.to_ascii_lowercase())
                .filter(|host| is_host(host.as_bytes()))
                .ok_or(OriginError::Host)?,
        };
        let port = match port {
            None => scheme.default_port(),
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self { scheme, host: Cow::Owned(host), port })
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in lower case; an IPv6 address in its shortest form and in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; the default one of the scheme if none was written.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is a loopback *address*: `127.0.0.0/8` or `[::1]`.
    ///
    /// The name `localhost` does not count: what it resolves to depends on the system's configuration.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match address_in_brackets(&self.host) {
            Some(address) => address.is_loopback(),
            None => self.host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
        }
    }

    /// Whether an authority, `host` or `host:port`, with this scheme is this origin. Does not allocate: it is
    /// called for each request.
    #[cfg(feature = "client")]
    pub(crate) fn is_at(&self, scheme: Scheme, authority: &str) -> bool {
        let Ok((host, port)) = split_port(authority) else {
            return false;
        };
        let port = port.map_or(Ok(scheme.default_port()), parse_port);
        let is_same = match address_in_brackets(host) {
            Some(address) => address_in_brackets(&self.host) == Some(address),
            None => host.eq_ignore_ascii_case(&self.host),
        };
        self.scheme == scheme && is_same && port == Ok(self.port)
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    /// As [`Origin::parse`].
    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

fn split_scheme(text: &str) -> Option<(Scheme, &str)> {
    let (name, rest) = text.split_once("://")?;
    if name.eq_ignore_ascii_case("https") {
        Some((Scheme::Https, rest))
    } else if name.eq_ignore_ascii_case("http") {
        Some((Scheme::Http, rest))
    } else {
        None
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), OriginError> {
    let after_host = if authority.starts_with('[') {
        authority.find(']').ok_or(OriginError::Host)? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(after_host);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        None => Err(OriginError::Host),
        Some(digits) => Ok((host, Some(digits))),
    }
}

fn parse_port(digits: &str) -> Result<u16, OriginError> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port != 0 => Ok(port),
        _ => Err(OriginError::Port),
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
