//! Where an authorisation server is asked.

use std::fmt;

use super::SetupError;
use crate::key::{Origin, Scheme};

/// The longest URL of an endpoint, client id, audience, scope or redirect URI, in bytes.
///
/// ```
/// assert_eq!(keysheath::oauth::MAX_PARAMETER, 2048);
/// ```
pub const MAX_PARAMETER: usize = 2048;

/// The two URLs of an authorisation server: where a person signs in, and where tokens are had.
///
/// Both go over TLS; plain HTTP is for a server on this machine that is named by its loopback address.
///
/// ```
/// use keysheath::oauth::Endpoints;
/// let katana = Endpoints::katana();
/// assert_eq!(katana.authorisation(), "https://login.katanamrp.com/authorize");
/// assert_eq!(katana.token(), "https://login.katanamrp.com/oauth/token");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoints {
    authorisation: String,
    token: String,
}

impl Endpoints {
    /// Those that Katana documents.
    ///
    /// ```
    /// # use keysheath::oauth::Endpoints;
    /// println!("{:?}", Endpoints::katana());
    /// ```
    #[must_use]
    pub fn katana() -> Self {
        Self {
            authorisation: "https://login.katanamrp.com/authorize".into(),
            token: "https://login.katanamrp.com/oauth/token".into(),
        }
    }

    /// Those of another server of the same kind, or of one on this machine.
    ///
    /// # Errors
    /// [`SetupError::Endpoint`] for what is no https URL, or no http URL of a loopback address; and for user information, a
    /// query or a fragment in it.
    ///
    /// ```
    /// # use keysheath::oauth::Endpoints;
    /// assert!(Endpoints::new("http://127.0.0.1:3000/auth", "http://127.0.0.1:3000/token").is_ok());
    /// assert!(Endpoints::new("http://localhost:3000/auth", "http://127.0.0.1:3000/token").is_err());
    /// ```
    pub fn new(authorisation: &str, token: &str) -> Result<Self, SetupError> {
        Ok(Self { authorisation: check(authorisation, "authorisation")?, token: check(token, "token")? })
    }

    /// Where a person signs in.
    ///
    /// ```
    /// # use keysheath::oauth::Endpoints;
    /// assert!(Endpoints::katana().authorisation().ends_with("/authorize"));
    /// ```
    #[must_use]
    pub fn authorisation(&self) -> &str {
        &self.authorisation
    }

    /// Where tokens are had.
    ///
    /// ```
    /// # use keysheath::oauth::Endpoints;
    /// assert!(Endpoints::katana().token().ends_with("/oauth/token"));
    /// ```
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

fn check(url: &str, which: &'static str) -> Result<String, SetupError> {
    let refused = || SetupError::Endpoint { which };
    let path_is_plain =
        |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte));
    let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let origin = Origin::parse(&format!("{scheme}://{authority}")).map_err(|_| refused())?;
    let may_be_used = origin.scheme() == Scheme::Https || origin.is_loopback();
    let fits = url.len() <= MAX_PARAMETER;
    if may_be_used && fits && path_is_plain(path) { Ok(format!("{origin}{path}")) } else { Err(refused()) }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoints({}, {})", self.authorisation, self.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_addresses_are_endpoints() {
        for url in [
            "https://login.example/authorize",
            "https://LOGIN.example:8443",
            "http://127.0.0.1:1/x/y",
            "http://[::1]/",
        ] {
            assert!(check(url, "token").is_ok(), "{url}");
        }
        let long = format!("https://login.example/{}", "x".repeat(MAX_PARAMETER));
        for url in [
            "",
            "login.example/authorize",
            "http://login.example/authorize",
            "http://localhost/authorize",
            "http://127.0.0.1.example/authorize",
            "ftp://login.example/authorize",
            "https://user@login.example/authorize",
            "https://login.example/authorize?x=1",
            "https://login.example?x=1",
            "https://login.example/authorize#x",
            "https://login.example/a b",
            "https://login.example/a\r\nhost: x",
            &long,
        ] {
            assert_eq!(check(url, "token"), Err(SetupError::Endpoint { which: "token" }), "{url}");
        }
        assert_eq!(check("https://LOGIN.example", "token"), Ok("https://login.example/".to_owned()));
    }
}
