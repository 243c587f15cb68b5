//! An untrusted answer of a token endpoint, over a real connection. Where the first line is a status, the
//! rest is the body of an answer that is framed as it should be; else the bytes are the whole of what comes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use keysheath::failure::Obstacle;
use keysheath::key::{KatanaApp, Profile};
use keysheath::oauth::{Endpoints, OAuthApp, TokenError, Tokens};
use keysheath::source::{Provenance, Reading, Source, SourceError};
use serde_json::Value;

const SECRET: &str = "client-secret-that-is-never-shown";
const CODE: &str = "code-that-is-never-shown";
const DEFAULT: Duration = Duration::from_secs(77);
const YEAR: f64 = 366.0 * 24.0 * 3600.0;

/// What is answered next.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static SERVER: LazyLock<SocketAddr> = LazyLock::new(serve);

static APP: LazyLock<OAuthApp<KatanaApp>> = LazyLock::new(|| {
    let url = |path: &str| format!("http://{}{path}", *SERVER);
    let endpoints = Endpoints { authorization: &url("/auth"), token: &url("/token") };
    let app = OAuthApp::new(endpoints, "an-app", Planted).expect("two URLs and a client id");
    app.with_default_lifetime(DEFAULT).with_deadline(Duration::from_secs(5))
});

static PLAIN: LazyLock<ureq::Agent> = LazyLock::new(|| {
    let config = ureq::Agent::config_builder().proxy(None).max_redirects(0).max_redirects_will_error(false);
    config.http_status_as_error(false).max_idle_connections(0).build().new_agent()
});

struct Planted;

impl Source for Planted {
    fn provenance(&self) -> Provenance {
        Provenance::other("test", "planted")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        Ok(Reading::present(SECRET.to_owned()))
    }
}

/// Answers each connection with what is in `ANSWER`, once its request has come.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut length = 0;
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let answer = ANSWER.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A client may have seen enough before the end.
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    address
}

pub fn token_answer(data: &[u8]) {
    let framed = framed(data);
    let answer = match framed {
        None => data.to_vec(),
        Some((status, body)) => {
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            [head.as_bytes(), body].concat()
        }
    };
    *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    let asked = exchange();
    if let Err(error) = &asked {
        let shown = format!("{error} {error:?}");
        for secret in [SECRET, CODE, "never-shown"] {
            assert!(!shown.contains(secret), "{secret} is shown");
        }
    }
    match framed {
        Some((status, body)) => check(status, body, &asked),
        None => compare(data, &asked),
    }
}

fn framed(data: &[u8]) -> Option<(u16, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let status = std::str::from_utf8(&data[..end]).ok()?.parse().ok()?;
    // Of these there is no body, and a 1xx is no answer yet.
    ((200..600).contains(&status) && !matches!(status, 204 | 304)).then_some((status, &data[end + 1..]))
}

fn exchange() -> Result<Tokens<KatanaApp>, TokenError> {
    let sign_in = APP.sign_in("http://127.0.0.1:1/callback").expect("a redirect URI");
    let state =
        sign_in.url().split("&state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    let code = sign_in.answer(&format!("code={CODE}&state={state}")).expect("a code");
    APP.exchange(sign_in, code)
}

/// What another reader of JSON finds in the body.
fn check(status: u16, body: &[u8], asked: &Result<Tokens<KatanaApp>, TokenError>) {
    let there = object(body);
    let field = |name: &str| there.as_ref().map_or(&Value::Null, |there| &there[name]);
    let is_success = (200..300).contains(&status);
    let speaks_of_it = (400..500).contains(&status) && status != 429;
    match asked {
        Ok(tokens) => {
            assert!(is_success, "{status} gives tokens");
            // In what is ignored there may be what the other reader does not take, such as 1e999.
            if there.is_none() {
                return;
            }
            assert_eq!(field("access_token"), tokens.access().expose_secret());
            let refresh = field("refresh_token").as_str().expect("a refresh token");
            assert!((1..=8192).contains(&refresh.len()), "of any characters, and not of any length");
            let kind = field("token_type");
            assert!(kind.is_null() || kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")));
            let expires = field("expires_in");
            let seconds = expires.as_f64().or_else(|| expires.as_str()?.parse().ok()).filter(|it| *it > 0.0);
            let lifetime = seconds.map_or(DEFAULT.as_secs_f64(), |seconds| seconds.clamp(1.0, YEAR));
            let difference = (tokens.lifetime().as_secs_f64() - lifetime).abs();
            assert!(difference < 1e-3, "{lifetime} s is {:?}", tokens.lifetime());
        }
        Err(TokenError::Refused { status: shown }) => {
            assert_eq!(*shown, status);
            assert!(speaks_of_it && *field("error") == "invalid_grant", "{status} refuses the grant");
        }
        Err(TokenError::AppRefused { code, .. }) => {
            assert!(speaks_of_it && *field("error") == *code, "{status} refuses the app");
        }
        Err(TokenError::NotTokens { .. }) => assert!(is_success, "{status} is taken for a success"),
        Err(TokenError::Unreachable(Obstacle::Redirect { .. })) => assert!((300..400).contains(&status)),
        Err(TokenError::Inconclusive { .. } | TokenError::Unreachable(_)) => {}
        Err(error) => panic!("the secret is there: {error}"),
    }
}

/// As another reader of JSON sees it, which takes less in what is ignored here: no 1e999, and no byte that is
/// no text.
fn object(body: &[u8]) -> Option<Value> {
    serde_json::from_str(&String::from_utf8_lossy(body)).ok().filter(Value::is_object)
}

/// What a plain client of the same library reads is what was read here.
fn compare(answer: &[u8], asked: &Result<Tokens<KatanaApp>, TokenError>) {
    let matters = matches!(
        asked,
        Ok(_)
            | Err(
                TokenError::NotTokens { .. } | TokenError::Unreachable(Obstacle::NotHttp | Obstacle::Broken)
            )
    );
    if !matters {
        return;
    }
    let plain = PLAIN.post(format!("http://{}/", *SERVER)).send("x").ok().and_then(|mut answer| {
        let body = answer.body_mut().with_config().limit(64 * 1024).read_to_vec().ok()?;
        (answer.status() == 200).then_some(body)
    });
    // Bytes after the end of the body are one more answer that was not asked for.
    let is_chunked = answer.to_ascii_lowercase().windows(7).any(|word| word == b"chunked");
    if plain.as_deref().is_some_and(|body| !is_chunked && !answer.ends_with(body)) {
        return;
    }
    let there = plain.as_deref().and_then(object);
    let token = there.as_ref().and_then(|there| there["access_token"].as_str());
    match asked {
        Ok(asked) if there.is_some() => assert_eq!(token, Some(asked.access().expose_secret())),
        // It was read by the one: then the other has seen the same, and did not like it.
        Err(TokenError::Unreachable(_)) => assert_eq!(token, None, "the framing is another"),
        _ => {}
    }
}
