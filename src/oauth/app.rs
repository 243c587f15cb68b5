//! An app as its authorization server knows it, and where that server is.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::grant::Identity;
use super::sign_in::{AuthorizationCode, SignIn, encode_form};
use super::tokens::{self, GrantView, Refreshed, TokenResponse, Tokens};
use super::{GrantError, SignInError, TokenError};
use crate::failure::{MAX_BODY, Obstacle};
use crate::internal::time::Clocks;
use crate::key::{Issuer, Katana, KatanaApp, KeyFormat, Origin, Profile, RawKey, Roots};
use crate::outgoing::{MAX_DEADLINE, Outgoing, Unanswered};
use crate::source::{self, Loaded, Problem, Source, SourceError};
use crate::store::DocumentStore;

/// The lifetime of an access token if its server does not say. Neither RFC 6749 nor Katana's documentation
/// has a number; a token that ends earlier is refused, and a refresh follows.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60 * 60);

const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// The longest URL of an endpoint, client id, audience, scope or redirect URI, in bytes.
const MAX_PARAMETER: usize = 2048;

/// The profile of a client secret. Its format is not documented; that of Katana's keys is assumed.
const CLIENT_SECRET: &Profile = &Profile::new(
    "oauth-client-secret",
    "KATANA_CLIENT_SECRET",
    Origin::https("login.katanamrp.com"),
    // A test server's secret is often a word, and no caller could widen this format.
    KeyFormat::between(8, 512).with_placeholders(),
    128,
)
.with_title("the app's authorization server")
.with_key_page("the app's page at the issuer");

/// The two URLs of an authorization server.
///
/// Both use TLS; plain HTTP is for a server on this machine that is named by its loopback address.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints<'a> {
    /// Where a person signs in.
    pub authorization: &'a str,
    /// Where tokens are given. The client secret is sent there, and nowhere else.
    pub token: &'a str,
}

/// An app that users grant access: its client id, the source of its client secret, and its authorization
/// server. Its access tokens are keys of issuer `I`.
///
/// The secret is never part of the program. It comes from a [`Source`], such as a
/// [`KeyRef`](crate::source::KeyRef) names, and is read for each request to the token endpoint: 8 to 512
/// `b64token` characters. It is sent there in the body of the request, as Katana documents, and nowhere else.
///
/// ```
/// use keysheath::oauth::OAuthApp;
/// use keysheath::source::KeyRef;
///
/// let secret: KeyRef = "env:KATANA_CLIENT_SECRET".parse()?;
/// let app = OAuthApp::katana("my-client-id", secret.source()?)?;
/// assert_eq!(app.client_id(), "my-client-id");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OAuthApp<I: Issuer> {
    /// Where a person signs in.
    authorization: String,
    /// The token endpoint.
    token: String,
    client_id: String,
    secret: Arc<dyn Source>,
    audience: Option<String>,
    scope: Option<String>,
    has_pkce: bool,
    default_lifetime: Duration,
    deadline: Duration,
    roots: Option<Roots>,
    issuer: PhantomData<fn() -> I>,
}

fn checked_url(url: &str, which: &'static str) -> Result<String, SignInError> {
    let refused = || SignInError::Endpoint { which };
    let path_is_plain =
        |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte));
    let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let origin = Origin::parse(&format!("{scheme}://{authority}")).map_err(|_| refused())?;
    let may_be_used = origin.scheme() == "https" || origin.is_loopback();
    let fits = url.len() <= MAX_PARAMETER;
    if may_be_used && fits && path_is_plain(path) { Ok(format!("{origin}{path}")) } else { Err(refused()) }
}

/// Why there are no tokens.
pub(super) struct RefreshFailure {
    pub(super) error: TokenError,
    /// Whether the refresh token may have been used up nevertheless.
    pub(super) leaves_doubt: bool,
}

impl RefreshFailure {
    fn answered(error: TokenError) -> Self {
        Self { leaves_doubt: error.leaves_doubt(), error }
    }

    fn of(unanswered: Unanswered) -> Self {
        let Unanswered { obstacle, is_sent } = unanswered;
        Self { error: TokenError::Unreachable(obstacle), leaves_doubt: is_sent }
    }
}

impl OAuthApp<KatanaApp> {
    /// Creates an app at Katana, with the endpoints, the audience and the scope that Katana documents.
    ///
    /// # Errors
    /// [`SignInError::Value`] for an invalid client id.
    pub fn katana(client_id: &str, secret: impl Source + 'static) -> Result<Self, SignInError> {
        let endpoints = Endpoints {
            authorization: "https://login.katanamrp.com/authorize",
            token: "https://login.katanamrp.com/oauth/token",
        };
        Self::new(endpoints, client_id, secret)?
            .with_audience(&Katana::PROFILE.origin().to_string())?
            .with_scope("offline_access")
    }
}

impl<I: Issuer> OAuthApp<I> {
    /// Creates an app at any server of the same kind, without audience and scope.
    ///
    /// # Errors
    /// As [`OAuthApp::katana`] and [`OAuthApp::with_endpoints`].
    pub fn new(
        endpoints: Endpoints<'_>,
        client_id: &str,
        secret: impl Source + 'static,
    ) -> Result<Self, SignInError> {
        Ok(Self {
            authorization: checked_url(endpoints.authorization, "authorization")?,
            token: checked_url(endpoints.token, "token")?,
            client_id: checked(client_id, "client id")?,
            secret: Arc::new(secret),
            audience: None,
            scope: None,
            has_pkce: true,
            default_lifetime: DEFAULT_LIFETIME,
            deadline: DEFAULT_DEADLINE,
            roots: None,
            issuer: PhantomData,
        })
    }

    /// Sets the endpoints, such as those of a test server.
    ///
    /// # Errors
    /// [`SignInError::Endpoint`] for anything but an https URL or an http URL of a loopback address, without
    /// user information, query and fragment, of at most 2,048 bytes.
    pub fn with_endpoints(mut self, endpoints: Endpoints<'_>) -> Result<Self, SignInError> {
        self.authorization = checked_url(endpoints.authorization, "authorization")?;
        self.token = checked_url(endpoints.token, "token")?;
        Ok(self)
    }

    /// Sets the audience: the API that the tokens are for.
    ///
    /// # Errors
    /// [`SignInError::Value`] for an invalid one.
    pub fn with_audience(mut self, audience: &str) -> Result<Self, SignInError> {
        self.audience = Some(checked(audience, "audience")?);
        Ok(self)
    }

    /// Sets the scope: words with single spaces between them.
    ///
    /// # Errors
    /// [`SignInError::Value`] for an invalid one.
    pub fn with_scope(mut self, scope: &str) -> Result<Self, SignInError> {
        if scope.split(' ').any(str::is_empty) {
            return Err(SignInError::Value { what: "scope" });
        }
        checked(&scope.replace(' ', "-"), "scope")?;
        self.scope = Some(scope.to_owned());
        Ok(self)
    }

    /// Turns PKCE (RFC 7636) off, for a server that refuses unknown parameters. Katana does not document
    /// whether it accepts it; RFC 9700 asks for it.
    #[must_use]
    pub fn without_pkce(mut self) -> Self {
        self.has_pkce = false;
        self
    }

    /// Sets the lifetime of an access token if the server does not say; 1 h by default, at least 1 s and at
    /// most 366 days.
    #[must_use]
    pub fn with_default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = lifetime.clamp(tokens::SHORTEST_LIFETIME, tokens::LONGEST_LIFETIME);
        self
    }

    /// Sets how long the exchange of a code may take, from the lookup of the host's name to the last byte of
    /// the answer; 10 s by default, at most an hour. A refresh is bounded by its
    /// [lease](super::KeeperSettings::with_lease), which is at least as long, because the tokens of a late
    /// answer cannot be had again.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_DEADLINE);
        self
    }

    /// Trusts these certificate authorities, and no others, for the token endpoint.
    #[must_use]
    pub fn with_roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Returns the client id, which is not secret.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Begins a sign-in that ends at `redirect_uri`, as it is registered with the server. Nothing is sent: a
    /// person opens [`SignIn::url`] in a browser. The client secret is loaded first, so that a missing one is
    /// an error before a person has done anything. Blocks as its source does.
    ///
    /// # Errors
    /// [`SignInError::Secret`], which names the place; [`SignInError::Value`] for an invalid redirect URI;
    /// and [`SignInError::NoRandomness`].
    pub fn sign_in(&self, redirect_uri: &str) -> Result<SignIn, SignInError> {
        let redirect_uri = checked(redirect_uri, "redirect URI")?;
        self.load_secret().map_err(SignInError::Secret)?;
        let fields = [
            ("response_type", Some("code")),
            ("client_id", Some(self.client_id.as_str())),
            ("redirect_uri", Some(redirect_uri.as_str())),
            ("scope", self.scope.as_deref()),
            ("audience", self.audience.as_deref()),
        ];
        let fields = fields.iter().filter_map(|(name, value)| Some((*name, (*value)?.as_bytes())));
        SignIn::begin(&self.authorization, &fields.collect::<Vec<_>>(), &redirect_uri, self.has_pkce)
    }

    /// Exchanges the code of a sign-in for tokens. Blocks, at most for the deadline. Both the code and the
    /// sign-in can be used once.
    ///
    /// # Errors
    /// [`TokenError`]; a code that is too old or was used before is [`TokenError::Refused`].
    #[allow(clippy::needless_pass_by_value, reason = "neither can be used twice")]
    pub fn exchange(&self, sign_in: SignIn, code: AuthorizationCode) -> Result<Tokens<I>, TokenError> {
        let mut fields = vec![
            ("grant_type", &b"authorization_code"[..]),
            ("code", code.bytes()),
            ("redirect_uri", sign_in.redirect_uri().as_bytes()),
        ];
        if let Some(verifier) = sign_in.verifier() {
            fields.push(("code_verifier", verifier));
        }
        let secret = self.load_secret().map_err(TokenError::Secret)?;
        let outgoing = Outgoing::new(self.deadline, MAX_BODY);
        let (answer, asked) = self.ask(&fields, &secret, outgoing).map_err(|failed| failed.error)?;
        let access = answer.access?;
        let rule = "there is no refresh token; the scope must have offline_access";
        let refresh = answer.refresh.ok_or(TokenError::NotTokens { status: 200, rule })?;
        Ok(Tokens::of_sign_in(access, refresh, asked, self.identity()))
    }

    /// Reads the grant in a document store: whether a person has signed in, and whether one must again.
    /// Changes and sends nothing. Blocks as the store does.
    ///
    /// # Errors
    /// [`GrantError::None`] if no one has signed in yet; the others if the document is not a grant of this
    /// app.
    pub fn grant_in(&self, store: &dyn DocumentStore) -> Result<GrantView, GrantError> {
        GrantView::read(store, &self.identity())
    }

    /// Exchanges a refresh token for new tokens. The client secret is loaded by the caller, because that may
    /// take any time. Nothing is sent once the span of `sending` has passed since its reading by either
    /// clock; the answer is awaited until `whole` has passed.
    pub(super) fn refresh(
        &self,
        token: &[u8],
        client_secret: &RawKey,
        sending: (Clocks, Duration),
        whole: Duration,
    ) -> Result<Refreshed<I>, RefreshFailure> {
        let fields = [("grant_type", &b"refresh_token"[..]), ("refresh_token", token)];
        let outgoing = Outgoing::new(whole.min(MAX_DEADLINE), MAX_BODY).sending_within(sending.0, sending.1);
        let (answer, asked) = self.ask(&fields, client_secret, outgoing)?;
        match answer {
            TokenResponse { refresh: None, access: Err(error) } => Err(RefreshFailure::answered(error)),
            answer => Ok(Refreshed { answer, asked }),
        }
    }

    /// What tells this app's grants from others.
    pub(super) fn identity(&self) -> Identity {
        Identity { profile: I::PROFILE, client: self.client_id.clone(), server: self.token.clone() }
    }

    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Returns what the token endpoint answers, and when it was asked.
    fn ask(
        &self,
        fields: &[(&str, &[u8])],
        secret: &RawKey,
        outgoing: Outgoing,
    ) -> Result<(TokenResponse<I>, Clocks), RefreshFailure> {
        let client =
            [("client_id", self.client_id.as_bytes()), ("client_secret", secret.expose_secret().as_bytes())];
        let body = encode_form(&[fields, &client[..]].concat());
        let request = Request::post(&self.token)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(body)
            .map_err(|_| RefreshFailure::of(Unanswered::from(Obstacle::Guarded)))?;
        let outgoing = match &self.roots {
            Some(roots) => outgoing.with_roots(roots.clone()),
            None => outgoing,
        };
        // Before it is sent: the lifetime of a token begins no earlier.
        let asked = Clocks::now();
        let reply = outgoing.send(request).map_err(RefreshFailure::of)?;
        let answer = tokens::read::<I>(&reply, self.default_lifetime).map_err(RefreshFailure::answered)?;
        Ok((answer, asked))
    }

    /// Returns the source of the client secret.
    pub(super) fn secret(&self) -> Arc<dyn Source> {
        Arc::clone(&self.secret)
    }

    pub(super) fn load_secret(&self) -> Result<RawKey, SourceError> {
        match source::load(&*self.secret, CLIENT_SECRET)? {
            Loaded::Found(found) => Ok(found.into_key()),
            Loaded::Absent(absence) => {
                Err(SourceError::new(self.secret.provenance(), Problem::Missing { absence }))
            }
        }
    }
}

/// A value for a form or a URL.
fn checked(value: &str, what: &'static str) -> Result<String, SignInError> {
    let is_visible = value.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = (1..=MAX_PARAMETER).contains(&value.len());
    if is_visible && fits { Ok(value.to_owned()) } else { Err(SignInError::Value { what }) }
}

impl<I: Issuer> Clone for OAuthApp<I> {
    fn clone(&self) -> Self {
        Self {
            authorization: self.authorization.clone(),
            token: self.token.clone(),
            client_id: self.client_id.clone(),
            secret: Arc::clone(&self.secret),
            audience: self.audience.clone(),
            scope: self.scope.clone(),
            roots: self.roots.clone(),
            ..*self
        }
    }
}

impl<I: Issuer> fmt::Debug for OAuthApp<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the client id: a person may have put the secret in its place.
        let (name, secret) = (I::PROFILE.name(), self.secret.provenance());
        write!(f, "OAuthApp({name}, {}, {}, secret from {secret})", self.authorization, self.token)
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
            assert!(checked_url(url, "token").is_ok(), "{url}");
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
            assert_eq!(checked_url(url, "token"), Err(SignInError::Endpoint { which: "token" }), "{url}");
        }
        assert_eq!(checked_url("https://LOGIN.example", "token"), Ok("https://login.example/".to_owned()));
    }
}
