//! A sign-in: the URL for the person, the answer that comes back, and a listener for it on this machine, as a
//! command-line tool needs it (RFC 8252, section 7.3).

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hmac_sha256::Hash;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::SignInError;
use crate::internal::bytes::{WipedBytes, append_percent, base64url, percent_byte};

/// The longest answer that is read, in bytes: a code of the longest kind, and a state.
const MAX_QUERY: usize = 16 * 1024;

/// The longest code, in bytes.
const MAX_CODE: usize = 4096;

/// A sign-in in progress. It holds the `state` and the PKCE verifier, which prove that the answer belongs to
/// it, so keep it where it was begun, such as in the person's session at a web server.
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
    state: WipedBytes,
    verifier: Option<WipedBytes>,
}

/// The code of a sign-in. It can be used once and for a short time, with the app's client secret.
pub struct AuthorizationCode(WipedBytes);

impl SignIn {
    pub(super) fn begin(
        endpoint: &str,
        fields: &[(&str, &[u8])],
        redirect_uri: &str,
        has_pkce: bool,
    ) -> Result<Self, SignInError> {
        let state = random()?;
        let verifier = if has_pkce { Some(random()?) } else { None };
        let challenge = verifier.as_deref().map(challenge);
        let mut fields = fields.to_vec();
        fields.push(("state", &*state));
        if let Some(challenge) = &challenge {
            fields
                .extend([("code_challenge", challenge.as_bytes()), ("code_challenge_method", &b"S256"[..])]);
        }
        let query = encode_form(&fields);
        // A form is ASCII.
        let url = format!("{endpoint}?{}", String::from_utf8_lossy(&query));
        Ok(Self { url, redirect_uri: redirect_uri.to_owned(), state, verifier })
    }

    /// Returns the URL that the person opens in a browser. It contains the `state`, so it is for that person
    /// only.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns where the answer comes to.
    #[must_use]
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Reads the answer: the query of the request to the redirect URI. The state is checked first.
    ///
    /// # Errors
    /// [`SignInError::Denied`] if the person refused; the others for any other reason.
    pub fn answer(&self, query: &str) -> Result<AuthorizationCode, SignInError> {
        if query.len() > MAX_QUERY {
            return Err(SignInError::Malformed);
        }
        let fields = decode_form(query).ok_or(SignInError::Malformed)?;
        let one = |wanted: &[u8]| {
            let mut found = fields.iter().filter(|(name, _)| **name == *wanted).map(|(_, value)| value);
            match (found.next(), found.next()) {
                (value, None) => Ok(value),
                _ => Err(SignInError::Malformed),
            }
        };
        let is_ours = one(b"state")?.is_some_and(|state| bool::from(state.ct_eq(&*self.state)));
        if !is_ours {
            return Err(SignInError::WrongState);
        }
        match (one(b"code")?, one(b"error")?) {
            (Some(code), None) if is_code(code) => Ok(AuthorizationCode(WipedBytes::copy_of(code))),
            (_, Some(error)) if **error == *b"access_denied" => Err(SignInError::Denied),
            (_, Some(_)) => Err(SignInError::Refused),
            _ => Err(SignInError::Malformed),
        }
    }

    pub(super) fn verifier(&self) -> Option<&[u8]> {
        self.verifier.as_deref()
    }
}

impl AuthorizationCode {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a code is 1 to 4,096 bytes of visible ASCII and spaces, which is what RFC 6749 (appendix A)
/// allows.
fn is_code(text: &[u8]) -> bool {
    (1..=MAX_CODE).contains(&text.len()) && text.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// 256 random bits as 43 characters, the minimum length of a verifier (RFC 7636, section 4.1).
fn random() -> Result<WipedBytes, SignInError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| SignInError::NoRandomness)?;
    Ok(base64url(&*bytes))
}

/// The S256 challenge of a verifier (RFC 7636, section 4.2). It goes through the browser and is not secret.
fn challenge(verifier: &[u8]) -> String {
    String::from_utf8_lossy(&base64url(&Hash::hash(verifier))).into_owned()
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

/// Writes an `application/x-www-form-urlencoded` form.
pub(super) fn encode_form(fields: &[(&str, &[u8])]) -> WipedBytes {
    // Each byte takes three at most, so the block never grows.
    let most = fields.iter().map(|(name, value)| (name.len() + value.len()) * 3 + 2).sum();
    let mut form = WipedBytes::with_capacity(most);
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            form.push(b'&');
        }
        append_percent(&mut form, name.as_bytes(), b"");
        form.push(b'=');
        append_percent(&mut form, value, b"");
    }
    form
}

/// A name and its value.
type Field = (WipedBytes, WipedBytes);

/// Returns the fields of a form, in order; `None` if a `%` is not followed by two hex digits.
fn decode_form(form: &str) -> Option<Vec<Field>> {
    let field = |field: &str| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        Some((decode_part(name)?, decode_part(value)?))
    };
    form.split('&').filter(|part| !part.is_empty()).map(field).collect()
}

fn decode_part(text: &str) -> Option<WipedBytes> {
    let mut decoded = WipedBytes::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = match first {
            b'%' => {
                let (byte, after) = percent_byte(rest)?;
                rest = after;
                decoded.push(byte);
                continue;
            }
            b'+' => b' ',
            byte => *byte,
        };
        decoded.push(byte);
        rest = after;
    }
    Some(decoded)
}

/// The path that the answer comes to.
const PATH: &str = "/callback";

/// The longest head of a request that is read, in bytes; the query of an answer is the most of it.
const MAX_HEAD: usize = MAX_QUERY + 16 * 1024;

/// How long one connection may take to send its request. A browser may open one that it does not use.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How often new connections are accepted.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(20);

/// Listens on 127.0.0.1 for the answer of one sign-in.
///
/// It takes one answer and then ends. Anything but a `GET` of its path, such as a browser's request for an
/// icon, is answered with 404 and does not count. An answer with another `state` is refused and ends it,
/// because it is forged or of an earlier sign-in. It reads at most 32 KiB and for 5 s for each request, and
/// serves one at a time.
///
/// ```
/// use keysheath::oauth::LoopbackListener;
/// let listener = LoopbackListener::bind(0)?;
/// assert!(listener.redirect_uri().starts_with("http://127.0.0.1:"));
/// # Ok::<(), keysheath::oauth::SignInError>(())
/// ```
#[derive(Debug)]
pub struct LoopbackListener {
    listener: TcpListener,
    redirect_uri: String,
}

impl LoopbackListener {
    /// Listens on this port, or on a free one for 0. Register `http://127.0.0.1/callback` with the server,
    /// with the port if the server demands one.
    ///
    /// # Errors
    /// [`SignInError::Listener`] if the port is taken or not allowed.
    pub fn bind(port: u16) -> Result<Self, SignInError> {
        let failed = |error: io::Error| SignInError::Listener(error.kind());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, redirect_uri: format!("http://127.0.0.1:{port}{PATH}") })
    }

    /// Returns where it listens, for [`OAuthApp::sign_in`](super::OAuthApp::sign_in).
    #[must_use]
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Blocks until the answer of the sign-in has come, and shows the person a page with the outcome.
    ///
    /// # Errors
    /// As [`SignIn::answer`], and [`SignInError::Deadline`] if none comes in time.
    pub fn wait(self, sign_in: &SignIn, timeout: Duration) -> Result<AuthorizationCode, SignInError> {
        let start = Instant::now();
        loop {
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return Err(SignInError::Deadline);
            }
            match self.listener.accept() {
                Ok((stream, _)) => {
                    // A connection that breaks carried nothing.
                    if let Ok(Some(answer)) = serve(stream, sign_in, rest.min(REQUEST_TIMEOUT)) {
                        return answer;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(ACCEPT_INTERVAL.min(rest));
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(SignInError::Listener(error.kind())),
            }
        }
    }
}

/// Reads one request and answers it. `None` if it is not the answer of a sign-in.
fn serve(
    mut stream: TcpStream,
    sign_in: &SignIn,
    patience: Duration,
) -> io::Result<Option<Result<AuthorizationCode, SignInError>>> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(patience))?;
    let Some(head) = read_head(&mut stream, patience)? else { return Ok(None) };
    // "GET /callback?code=… HTTP/1.1"
    let target = std::str::from_utf8(&head).ok().and_then(|head| {
        let mut words = head.lines().next()?.split(' ');
        if words.next() == Some("GET") { words.next() } else { None }
    });
    let query = target.and_then(|target| match target.split_once('?') {
        Some((path, query)) => (path == PATH).then_some(query),
        None => (target == PATH).then_some(""),
    });
    let answer = query.map(|query| sign_in.answer(query));
    let (status, page) = page(answer.as_ref());
    // The answer has come even if the browser does not take the page.
    let _ = write_page(&mut stream, status, page);
    Ok(answer)
}

/// `None` if the head does not end in time or within the bound.
fn read_head(stream: &mut TcpStream, patience: Duration) -> io::Result<Option<WipedBytes>> {
    let start = Instant::now();
    // It may hold a code, and never grows.
    let mut head = WipedBytes::zeroed(MAX_HEAD);
    let mut length = 0;
    while length < head.len() {
        let rest = patience.saturating_sub(start.elapsed());
        if rest.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(rest))?;
        match stream.read(&mut head[length..]) {
            Ok(0) => return Ok(None),
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            head.truncate(length);
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Fixed texts only: nothing of the request is shown.
const fn page(answer: Option<&Result<AuthorizationCode, SignInError>>) -> (&'static str, &'static str) {
    match answer {
        None => ("404 Not Found", "There is nothing here."),
        Some(Ok(_)) => {
            ("200 OK", "You have signed in. Close this page, and go back to the program that asked you to.")
        }
        Some(Err(SignInError::Denied)) => {
            ("200 OK", "You did not let the program in. Nothing was changed. You may close this page.")
        }
        Some(Err(SignInError::WrongState)) => (
            "400 Bad Request",
            "This answer belongs to another sign-in, so it was not used. Start again from the program.",
        ),
        Some(Err(_)) => (
            "400 Bad Request",
            "The sign-in did not work. The program that asked you to says what to do next.",
        ),
    }
}

fn write_page(stream: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta \
         charset=\"utf-8\"><title>Sign-in</title><p>{text}</p></html>\n"
    );
    // The code is in this page's address, and no other page may learn it.
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: \
         no-store\r\nreferrer-policy: no-referrer\r\ncontent-security-policy: default-src \
         'none'\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()?;
    stream.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> (SignIn, String) {
        let sign_in = SignIn::begin("https://login.example/a", &[], "https://shop.example/c", true).unwrap();
        let state = String::from_utf8(sign_in.state.to_vec()).unwrap();
        (sign_in, state)
    }

    #[test]
    fn the_challenge_is_that_of_the_standards_example() {
        // RFC 7636, appendix B.
        let verifier = b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn an_answer_counts_only_with_the_state_of_this_sign_in() {
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
    fn an_answer_without_exactly_one_code_is_refused() {
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

    #[test]
    fn a_form_round_trips_and_has_only_plain_characters() {
        let all: Vec<u8> = (0..=255).collect();
        let form = encode_form(&[("a b", &all), ("", b""), ("x", b"1&2=3")]);
        let text = std::str::from_utf8(&form).unwrap();
        assert!(text.starts_with("a%20b=%00%01") && text.ends_with("&=&x=1%262%3D3"), "{text}");
        let fields = decode_form(text).unwrap();
        let (name, value) = &fields[0];
        assert_eq!((&**name, &**value), (&b"a b"[..], all.as_slice()));
        assert_eq!(&*fields[2].1, b"1&2=3");
    }

    #[test]
    fn a_percent_sign_without_two_digits_is_not_a_form() {
        for form in ["a=%", "a=%4", "a=%zz", "%=1"] {
            assert!(decode_form(form).is_none(), "{form}");
        }
        assert_eq!(decode_form("a=1+2&&b").unwrap().len(), 2);
    }
}
