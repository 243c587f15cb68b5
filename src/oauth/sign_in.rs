//! A person's sign-in under way: the URL to open, and the answer that comes back.

use std::fmt;

use hmac_sha256::Hash;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::answer::Secret;
use super::{SetupError, SignInError, form};
use crate::internal::bytes::base64url;

/// The longest answer that is read, in bytes: a code of the longest kind, and a state.
pub(super) const MAX_QUERY: usize = 16 * 1024;

/// A sign-in under way. It holds what proves that the answer belongs to it: the `state` and the PKCE
/// verifier, so it stays with the one who has begun it, such as in the session of the person at a web server.
///
/// ```no_run
/// use keysheath::oauth::{OAuthApp, SignInError};
/// use keysheath::source::KeyRef;
///
/// let secret: KeyRef = "env:KATANA_CLIENT_SECRET".parse()?;
/// let app = OAuthApp::katana("my-client-id", secret.source()?)?;
/// let sign_in = app.sign_in("https://shop.example/katana/callback")?;
/// println!("open {}", sign_in.url());
///
/// // What comes to the redirect URI, after its question mark.
/// let forged = sign_in.answer("code=abc&state=guessed");
/// assert_eq!(forged.unwrap_err(), SignInError::WrongState);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SignIn {
    url: String,
    redirect_uri: String,
    state: Secret,
    verifier: Option<Secret>,
}

/// A code that a sign-in has brought: good once and not for long, with the app's client secret.
pub struct AuthorizationCode(Secret);

impl SignIn {
    pub(super) fn begin(
        endpoint: &str,
        fields: &[(&str, &[u8])],
        redirect_uri: &str,
        has_pkce: bool,
    ) -> Result<Self, SetupError> {
        let state = random()?;
        let verifier = if has_pkce { Some(random()?) } else { None };
        let challenge = verifier.as_ref().map(challenge);
        let mut fields = fields.to_vec();
        fields.push(("state", state.bytes()));
        if let Some(challenge) = &challenge {
            fields
                .extend([("code_challenge", challenge.as_bytes()), ("code_challenge_method", &b"S256"[..])]);
        }
        let query = form::encode(&fields);
        // A form is ASCII.
        let url = format!("{endpoint}?{}", String::from_utf8_lossy(&query));
        Ok(Self { url, redirect_uri: redirect_uri.to_owned(), state, verifier })
    }

    /// What the person opens in a browser. It has the `state` in it, so it is for that person only.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the answer comes to.
    #[must_use]
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Reads the answer, the query of the request that came to the redirect URI. The state is looked at
    /// first: what does not belong to this sign-in says nothing.
    ///
    /// # Errors
    /// [`SignInError`], which says whether the person said no.
    pub fn answer(&self, query: &str) -> Result<AuthorizationCode, SignInError> {
        if query.len() > MAX_QUERY {
            return Err(SignInError::Malformed);
        }
        let fields = form::decode(query).ok_or(SignInError::Malformed)?;
        let one = |wanted: &[u8]| {
            let mut found = fields.iter().filter(|(name, _)| **name == *wanted).map(|(_, value)| value);
            match (found.next(), found.next()) {
                (value, None) => Ok(value),
                _ => Err(SignInError::Malformed),
            }
        };
        let is_ours = one(b"state")?.is_some_and(|state| bool::from(state.ct_eq(self.state.bytes())));
        if !is_ours {
            return Err(SignInError::WrongState);
        }
        match (one(b"code")?, one(b"error")?) {
            (Some(code), None) => Secret::parse(code).map(AuthorizationCode).ok_or(SignInError::Malformed),
            (_, Some(error)) if **error == *b"access_denied" => Err(SignInError::Denied),
            (_, Some(_)) => Err(SignInError::Refused),
            (None, None) => Err(SignInError::Malformed),
        }
    }

    pub(super) const fn verifier(&self) -> Option<&Secret> {
        self.verifier.as_ref()
    }
}

impl AuthorizationCode {
    pub(super) const fn secret(&self) -> &Secret {
        &self.0
    }
}

/// 256 bits as 43 characters, which is also what a verifier must have at least (RFC 7636, section 4.1).
fn random() -> Result<Secret, SetupError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| SetupError::NoRandomness)?;
    Secret::parse(&base64url(&*bytes)).ok_or(SetupError::NoRandomness)
}

/// The S256 challenge of a verifier (RFC 7636, section 4.2); it goes through the browser and is no secret.
fn challenge(verifier: &Secret) -> String {
    String::from_utf8_lossy(&base64url(&Hash::hash(verifier.bytes()))).into_owned()
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignIn(to {})", self.redirect_uri)
    }
}

impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizationCode(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> (SignIn, String) {
        let sign_in = SignIn::begin("https://login.example/a", &[], "https://shop.example/c", true).unwrap();
        let state = String::from_utf8(sign_in.state.bytes().to_vec()).unwrap();
        (sign_in, state)
    }

    #[test]
    fn the_challenge_is_that_of_the_standards_own_example() {
        // RFC 7636, appendix B.
        let verifier = Secret::parse(b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn an_answer_is_believed_only_with_the_state_of_this_sign_in() {
        let (sign_in, state) = begun();
        let (_, other) = begun();
        assert_ne!(state, other);
        assert!(sign_in.answer(&format!("code=abc&state={state}&iss=https%3A%2F%2Flogin")).is_ok());
        for wrong in [
            "code=abc".to_owned(),
            "code=abc&state=".to_owned(),
            format!("code=abc&state={other}"),
            format!("code=abc&state={}", &state[1..]),
            format!("error=access_denied&state={other}"),
            String::new(),
        ] {
            assert_eq!(sign_in.answer(&wrong).unwrap_err(), SignInError::WrongState, "{wrong}");
        }
    }

    #[test]
    fn an_answer_without_one_code_is_none() {
        let (sign_in, state) = begun();
        let long = "x".repeat(MAX_QUERY);
        for (answer, error) in [
            ("error=access_denied", SignInError::Denied),
            ("error=access_denied&code=abc", SignInError::Denied),
            ("error=invalid_scope&error_description=no", SignInError::Refused),
            ("", SignInError::Malformed),
            ("code=", SignInError::Malformed),
            ("code=%00", SignInError::Malformed),
            ("code=%zz", SignInError::Malformed),
            ("code=a&code=b", SignInError::Malformed),
            ("code=a&state=b", SignInError::Malformed),
            (&format!("code={long}"), SignInError::Malformed),
        ] {
            let answer = format!("state={state}&{answer}");
            assert_eq!(sign_in.answer(&answer).unwrap_err(), error, "{answer}");
        }
    }
}
