//! An untrusted answer of a sign-in: as a query, and as a request to the loopback listener. `STATE` in it
//! stands for the state of the sign-in, which cannot be guessed.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Duration;

use keysheath::key::{KatanaApp, Profile};
use keysheath::oauth::{LoopbackListener, OAuthApp, SignIn, SignInError};
use keysheath::source::{Provenance, Reading, Source, SourceError};

/// How long the listener may wait; it never has to.
const PATIENCE: Duration = Duration::from_secs(60);

static APP: LazyLock<OAuthApp<KatanaApp>> =
    LazyLock::new(|| OAuthApp::katana("an-app", Planted).expect("a client id"));

struct Planted;

impl Source for Planted {
    fn provenance(&self) -> Provenance {
        Provenance::other("test", "planted")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        Ok(Reading::present("client-secret-of-the-app".to_owned()))
    }
}

pub fn sign_in(data: &[u8]) {
    let Ok(listener) = LoopbackListener::bind(0) else { return };
    let sign_in = APP.sign_in(listener.redirect_uri()).expect("a redirect URI");
    let state =
        sign_in.url().split("&state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    let text = String::from_utf8_lossy(data);
    let has_state = text.contains("STATE");
    let query = text.replace("STATE", state);
    let answer = as_query(&sign_in, &query, state);
    assert!(
        has_state || matches!(answer, Err(SignInError::WrongState | SignInError::Malformed)),
        "{answer:?}"
    );
    as_request(listener, &sign_in, data, state);
}

fn as_query(sign_in: &SignIn, query: &str, state: &str) -> Result<(), SignInError> {
    let read = |query: &str| sign_in.answer(query).map(|_| ());
    let answer = read(query);
    if let Err(error) = &answer {
        assert!(!format!("{error} {error:?}").contains(state), "the state is shown");
    }
    // What has another name changes nothing, and a second state or code is one too many.
    let is_whole = answer != Err(SignInError::Malformed);
    if query.len() < 8 * 1024 && is_whole {
        assert_eq!(read(&format!("{query}&x=%41+&&y")), answer);
        if answer != Err(SignInError::WrongState) {
            assert_eq!(read(&format!("{query}&state={state}")), Err(SignInError::Malformed));
            assert_eq!(read(&format!("{query}&state=x")), Err(SignInError::Malformed));
            assert_eq!(read(&query.replace(state, &state[1..])), Err(SignInError::WrongState));
        }
        if answer.is_ok() {
            assert_eq!(read(&format!("{query}&code=x")), Err(SignInError::Malformed));
            assert_eq!(read(&format!("{query}&error=access%5Fdenied")), Err(SignInError::Denied));
        }
    }
    answer
}

/// The bytes as the head of a request, and a good request after it: so the listener never waits.
fn as_request(listener: LoopbackListener, sign_in: &SignIn, data: &[u8], state: &str) {
    let mut head = Vec::with_capacity(data.len() + 64);
    let mut rest = data;
    while let Some(at) = rest.windows(5).position(|word| word == b"STATE") {
        head.extend_from_slice(&rest[..at]);
        head.extend_from_slice(state.as_bytes());
        rest = &rest[at + 5..];
    }
    head.extend_from_slice(rest);
    head.extend_from_slice(b"\r\n\r\n");
    if head.len() > 16 * 1024 {
        return;
    }
    // "GET TARGET HTTP/1.1", where the whole head is text.
    let target = std::str::from_utf8(&head).ok().and_then(|head| {
        let line = head.split(['\n']).next()?.trim_end_matches('\r');
        line.strip_prefix("GET ")?.split(' ').next()
    });
    let query = target.and_then(|target| match target.strip_prefix("/callback")? {
        "" => Some(""),
        rest => rest.strip_prefix('?'),
    });
    let expected = query.map_or(Ok(()), |query| sign_in.answer(query).map(|_| ()));

    let address = listener.redirect_uri().split('/').nth(2).expect("an address").to_owned();
    // They are dropped without reading the page, which resets them: else each would keep its port for a
    // minute.
    let mut first = TcpStream::connect(&address).expect("it listens");
    first.write_all(&head).expect("it is taken");
    let mut second = TcpStream::connect(&address).expect("it listens");
    write!(second, "GET /callback?code=abc&state={state} HTTP/1.1\r\n\r\n").expect("it is taken");
    let answer = listener.wait(sign_in, PATIENCE).map(|_| ());
    assert_eq!(answer, expected, "the listener sees another answer than stands in the request");
}
