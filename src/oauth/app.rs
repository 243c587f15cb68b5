//! An app as its authorisation server knows it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::answer::{self, Answer};
use super::endpoints::{Endpoints, MAX_PARAMETER};
use super::grant::Identity;
use super::secret::Secret;
use super::sign_in::{AuthorizationCode, SignIn};
use super::tokens::{Refreshed, Tokens};
use super::{SetupError, TokenError, form};
use crate::failure::Obstacle;
use crate::internal::clocks::Clocks;
use crate::key::{Issuer, Katana, KatanaApp, KeyFormat, Origin, Profile, RawKey, Roots};
use crate::outgoing::{MAX_ANSWER, MAX_DEADLINE, Outgoing, Unanswered};
use crate::source::{self, Loaded, Source};

/// How long an access token is taken to live where its server does not say: 1 h. Neither RFC 6749 nor Katana's documentation
/// has a number; a token that ends earlier is refused, and a refresh follows.
///
/// ```
/// assert_eq!(keysheath::oauth::DEFAULT_LIFETIME.as_secs(), 3600);
/// ```
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How long the exchange of a code may take at the token endpoint unless told otherwise: 10 s.
///
/// ```
/// assert_eq!(keysheath::oauth::DEFAULT_DEADLINE.as_secs(), 10);
/// ```
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// A client secret, for loading it. Its format is not documented; what holds for Katana's keys is taken to hold for it.
const CLIENT_SECRET: &Profile = &Profile::new(
    "oauth-client-secret",
    "KATANA_CLIENT_SECRET",
    Origin::https("login.katanamrp.com"),
    // A test server's secret is often a word, and no caller could widen this format.
    KeyFormat::between(8, 512).allowing_placeholders(),
    128,
)
.with_title("the app's authorisation server")
.with_key_page("the app's page at the issuer");

/// An app that others let in: its client id, where its client secret is, and its authorisation server. Its access tokens are
/// keys of issuer `I`.
///
/// The secret is never a part of the program: it comes from a [`Source`], which a [`KeyRef`](crate::source::KeyRef) names,
/// and is read anew for each request to the token endpoint: 8 to 512 `b64token` characters. It goes there in the body of the
/// request, as Katana documents, and nowhere else.
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
    endpoints: Endpoints,
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

/// Why there are no tokens.
pub(super) struct Failed {
    pub(super) error: TokenError,
    /// Whether what was sent may have been used up all the same.
    pub(super) leaves_doubt: bool,
}

impl Failed {
    fn answered(error: TokenError) -> Self {
        Self { leaves_doubt: error.leaves_doubt(), error }
    }

    fn of(unanswered: Unanswered) -> Self {
        let Unanswered { obstacle, is_sent } = unanswered;
        Self { error: TokenError::Unreachable(obstacle), leaves_doubt: is_sent }
    }
}

impl OAuthApp<KatanaApp> {
    /// An app of Katana's, with the endpoints, the audience and the scope that Katana documents.
    ///
    /// # Errors
    /// [`SetupError::Value`] for what cannot be a client id.
    ///
    /// ```
    /// # use keysheath::{oauth::OAuthApp, source::SecretFile};
    /// let app = OAuthApp::katana("my-client-id", SecretFile::new("/run/secrets/katana-client"))?;
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn katana(client_id: &str, secret: impl Source + 'static) -> Result<Self, SetupError> {
        Self::new(Endpoints::katana(), client_id, secret)?
            .with_audience(&Katana::PROFILE.origin().to_string())?
            .with_scope("offline_access")
    }
}

impl<I: Issuer> OAuthApp<I> {
    /// An app of any server of the same kind, without audience and scope.
    ///
    /// # Errors
    /// As [`OAuthApp::katana`].
    ///
    /// ```
    /// use keysheath::key::KatanaApp;
    /// use keysheath::oauth::{Endpoints, OAuthApp};
    /// use keysheath::source::SecretFile;
    /// let local = Endpoints::new("http://127.0.0.1:3000/auth", "http://127.0.0.1:3000/token")?;
    /// let app = OAuthApp::<KatanaApp>::new(local, "my-client-id", SecretFile::new("client-secret"))?;
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn new(
        endpoints: Endpoints,
        client_id: &str,
        secret: impl Source + 'static,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            endpoints,
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

    /// The same app at other endpoints, such as a server that stands in for Katana's in a test.
    ///
    /// ```
    /// # use keysheath::{oauth::{Endpoints, OAuthApp}, source::SecretFile};
    /// let local = Endpoints::new("http://127.0.0.1:3000/auth", "http://127.0.0.1:3000/token")?;
    /// let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?.at(local);
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    #[must_use]
    pub fn at(mut self, endpoints: Endpoints) -> Self {
        self.endpoints = endpoints;
        self
    }

    /// With an audience: the API that the tokens are for.
    ///
    /// # Errors
    /// [`SetupError::Value`] for what cannot be one.
    ///
    /// ```
    /// # use keysheath::{oauth::OAuthApp, source::SecretFile};
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// let app = app.with_audience("https://api.example")?;
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn with_audience(mut self, audience: &str) -> Result<Self, SetupError> {
        self.audience = Some(checked(audience, "audience")?);
        Ok(self)
    }

    /// With a scope: words with single spaces between them.
    ///
    /// # Errors
    /// [`SetupError::Value`] for what cannot be one.
    ///
    /// ```
    /// # use keysheath::{oauth::OAuthApp, source::SecretFile};
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// let app = app.with_scope("openid offline_access")?;
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn with_scope(mut self, scope: &str) -> Result<Self, SetupError> {
        if scope.split(' ').any(str::is_empty) {
            return Err(SetupError::Value { what: "scope" });
        }
        checked(&scope.replace(' ', "-"), "scope")?;
        self.scope = Some(scope.to_owned());
        Ok(self)
    }

    /// Without PKCE (RFC 7636), for a server that refuses what it does not know. Katana does not document whether it takes
    /// it; RFC 9700 asks for it.
    #[must_use]
    pub fn without_pkce(mut self) -> Self {
        self.has_pkce = false;
        self
    }

    /// How long an access token lives where the server does not say; [`DEFAULT_LIFETIME`] unless set, at least 1 s, and at most 366
    /// days.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::{oauth::OAuthApp, source::SecretFile};
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// let app = app.with_default_lifetime(Duration::from_secs(600));
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    #[must_use]
    pub fn with_default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = lifetime.clamp(answer::SHORTEST_LIFETIME, answer::LONGEST_LIFETIME);
        self
    }

    /// How long the exchange of a code may take, from looking up the host's name to the last byte of the answer;
    /// [`DEFAULT_DEADLINE`] unless set, and at most an hour. A refresh is bounded by its
    /// [lease](super::KeeperSettings::with_lease), which is at least as long: what a late answer brings cannot be had again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::{oauth::OAuthApp, source::SecretFile};
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// let app = app.with_deadline(Duration::from_secs(5));
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_DEADLINE);
        self
    }

    /// Trusts these authorities, and no others, for the token endpoint.
    ///
    /// ```
    /// # use keysheath::key::Roots;
    /// # use keysheath::oauth::OAuthApp;
    /// # use keysheath::source::SecretFile;
    /// fn own(app: OAuthApp<keysheath::key::KatanaApp>, roots: Roots) -> OAuthApp<keysheath::key::KatanaApp> {
    ///     app.with_roots(roots)
    /// }
    /// ```
    #[must_use]
    pub fn with_roots(mut self, roots: Roots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// The client id, which is no secret.
    ///
    /// ```
    /// # use keysheath::{oauth::OAuthApp, source::SecretFile};
    /// # let app = OAuthApp::katana("my-client-id", SecretFile::new("client-secret"))?;
    /// assert_eq!(app.client_id(), "my-client-id");
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Begins a sign-in that ends at `redirect_uri`, as it is registered with the server. Nothing is sent: a person opens
    /// [`SignIn::url`] in a browser. The client secret is loaded first, and that it cannot be is an error here, before a person
    /// has done anything. Blocks as its source does.
    ///
    /// # Errors
    /// [`SetupError::Secret`] and [`SetupError::NoSecret`], which name the place; [`SetupError::Value`] for what cannot be a
    /// redirect URI; and [`SetupError::NoRandomness`].
    ///
    /// ```
    /// use keysheath::oauth::{OAuthApp, SetupError};
    /// use keysheath::source::SecretFile;
    ///
    /// let app = OAuthApp::katana("my-client-id", SecretFile::new("/run/secrets/not-there"))?;
    /// let error = app.sign_in("https://shop.example/katana/callback").unwrap_err();
    /// assert!(matches!(error, SetupError::NoSecret { .. }));
    /// assert!(error.to_string().contains("/run/secrets/not-there"));
    /// # Ok::<(), keysheath::oauth::SetupError>(())
    /// ```
    pub fn sign_in(&self, redirect_uri: &str) -> Result<SignIn, SetupError> {
        let redirect_uri = checked(redirect_uri, "redirect URI")?;
        self.load_secret().map_err(SetupError::of_secret)?;
        let fields = [
            ("response_type", Some("code")),
            ("client_id", Some(self.client_id.as_str())),
            ("redirect_uri", Some(redirect_uri.as_str())),
            ("scope", self.scope.as_deref()),
            ("audience", self.audience.as_deref()),
        ];
        let fields = fields.iter().filter_map(|(name, value)| Some((*name, (*value)?.as_bytes())));
        SignIn::begin(
            self.endpoints.authorisation(),
            &fields.collect::<Vec<_>>(),
            &redirect_uri,
            self.has_pkce,
        )
    }

    /// Exchanges the code that a sign-in has brought for tokens. Blocks, at most for the deadline. A code is good once; the
    /// sign-in is used up with it.
    ///
    /// # Errors
    /// [`TokenError`]; a code that is too old or was used before is [`TokenError::Refused`].
    ///
    /// ```no_run
    /// use keysheath::key::KatanaApp;
    /// use keysheath::oauth::{AuthorizationCode, OAuthApp, SignIn, TokenError};
    /// fn finish(app: &OAuthApp<KatanaApp>, sign_in: SignIn, code: AuthorizationCode) -> Result<(), TokenError> {
    ///     let tokens = app.exchange(sign_in, code)?;
    ///     println!("{tokens:?}");
    ///     Ok(())
    /// }
    /// ```
    #[allow(clippy::needless_pass_by_value, reason = "taken, because neither is good for a second time")]
    pub fn exchange(&self, sign_in: SignIn, code: AuthorizationCode) -> Result<Tokens<I>, TokenError> {
        let mut fields = vec![
            ("grant_type", &b"authorization_code"[..]),
            ("code", code.secret().bytes()),
            ("redirect_uri", sign_in.redirect_uri().as_bytes()),
        ];
        if let Some(verifier) = sign_in.verifier() {
            fields.push(("code_verifier", verifier.bytes()));
        }
        let secret = self.load_secret()?;
        let outgoing = Outgoing::new(self.deadline, MAX_ANSWER);
        let (answer, asked) = self.ask(&fields, &secret, outgoing).map_err(|failed| failed.error)?;
        let access = answer.access?;
        let rule = "there is no refresh token; the scope must have offline_access";
        let refresh = answer.refresh.ok_or(TokenError::NotTokens { status: 200, rule })?;
        Ok(Tokens::of_sign_in(access, refresh, asked, self.identity()))
    }

    /// Exchanges a refresh token for new tokens. The client secret was loaded before, because that may take any time. Nothing is
    /// sent once `lease` has passed since `begun` by either clock; an answer is waited for until `whole` has passed.
    pub(super) fn refresh(
        &self,
        token: &Secret,
        client_secret: &RawKey,
        sending: (Clocks, Duration),
        whole: Duration,
    ) -> Result<Refreshed<I>, Failed> {
        let fields = [("grant_type", &b"refresh_token"[..]), ("refresh_token", token.bytes())];
        let outgoing =
            Outgoing::new(whole.min(MAX_DEADLINE), MAX_ANSWER).sending_within(sending.0, sending.1);
        let (answer, asked) = self.ask(&fields, client_secret, outgoing)?;
        match answer {
            Answer { refresh: None, access: Err(error) } => Err(Failed::answered(error)),
            answer => Ok(Refreshed { answer, asked }),
        }
    }

    /// What tells one grant from another's.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            profile: I::PROFILE,
            client: self.client_id.clone(),
            server: self.endpoints.token().to_owned(),
        }
    }

    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What the token endpoint answers, and when it was asked.
    fn ask(
        &self,
        fields: &[(&str, &[u8])],
        secret: &RawKey,
        outgoing: Outgoing,
    ) -> Result<(Answer<I>, Clocks), Failed> {
        let client =
            [("client_id", self.client_id.as_bytes()), ("client_secret", secret.expose_secret().as_bytes())];
        let body = form::encode(&[fields, &client[..]].concat());
        let request = Request::post(self.endpoints.token())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(body)
            .map_err(|_| Failed::of(Unanswered::from(Obstacle::Guarded)))?;
        let outgoing = match &self.roots {
            Some(roots) => outgoing.with_roots(roots.clone()),
            None => outgoing,
        };
        // Before it is sent: a token cannot live longer than that.
        let asked = Clocks::now();
        let reply = outgoing.send(request).map_err(Failed::of)?;
        let answer = answer::read::<I>(&reply, self.default_lifetime).map_err(Failed::answered)?;
        Ok((answer, asked))
    }

    pub(super) fn load_secret(&self) -> Result<RawKey, TokenError> {
        match source::load(&*self.secret, CLIENT_SECRET).map_err(TokenError::Secret)? {
            Loaded::Found(found) => Ok(found.into_key()),
            Loaded::Absent(absence) => {
                Err(TokenError::NoSecret { provenance: self.secret.provenance(), absence })
            }
        }
    }
}

/// A value that stands in a form or a URL.
fn checked(value: &str, what: &'static str) -> Result<String, SetupError> {
    let is_visible = value.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = (1..=MAX_PARAMETER).contains(&value.len());
    if is_visible && fits { Ok(value.to_owned()) } else { Err(SetupError::Value { what }) }
}

impl<I: Issuer> Clone for OAuthApp<I> {
    fn clone(&self) -> Self {
        Self {
            endpoints: self.endpoints.clone(),
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
        // The client id is no secret, but a person may have put the secret in its place.
        write!(
            f,
            "OAuthApp({}, {:?}, secret from {})",
            I::PROFILE.name(),
            self.endpoints,
            self.secret.provenance()
        )
    }
}
