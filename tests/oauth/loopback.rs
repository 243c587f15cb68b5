//! The listener for command-line tools, without a server behind it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use keysheath::key::KatanaApp;
use keysheath::oauth::{AuthorizationCode, LoopbackListener, OAuthApp, SignInError};

use crate::lineage::Counted;
use crate::support::oidc::{PATIENCE, state_of};

fn app() -> OAuthApp<KatanaApp> {
    OAuthApp::katana("an-app", Counted::default()).unwrap()
}

/// What each of these requests is answered, and how the sign-in ends. `STATE` in a request is the sign-in's
/// own.
fn answered(requests: &[&str]) -> (Vec<String>, Result<AuthorizationCode, SignInError>) {
    let app = app();
    let listener = LoopbackListener::bind(0).unwrap();
    let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
    let state = state_of(&sign_in).to_owned();
    let address = listener.redirect_uri().split('/').nth(2).unwrap().to_owned();
    let requests: Vec<String> = requests.iter().map(|request| request.replace("STATE", &state)).collect();
    let browser = std::thread::spawn(move || {
        let ask = |request: &String| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // What is too long is cut off by the other side.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        };
        requests.iter().map(ask).collect()
    });
    let code = listener.wait(&sign_in, PATIENCE);
    (browser.join().unwrap(), code)
}

const GOOD: &str = "GET /callback?code=abc&state=STATE HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";

#[test]
fn what_is_not_the_answer_does_not_count() {
    let long = format!("GET /callback?code={} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
    let (answers, code) = answered(&[
        "GET /favicon.ico HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST /callback?code=abc&state=STATE HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        "GET /callback/x?code=abc&state=STATE HTTP/1.1\r\n\r\n",
        "nonsense\r\n\r\n",
        "\r\n\r\n",
        &long,
        GOOD,
    ]);
    assert!(code.is_ok(), "{code:?}");
    for answer in &answers[..6] {
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    assert_eq!(answers[6], "", "what is too long is not answered");
    assert!(answers[7].starts_with("HTTP/1.1 200 ") && answers[7].contains("You have signed in"));
}

#[test]
fn the_page_shows_nothing_of_the_answer_and_sends_no_referrer() {
    let (answers, _) = answered(&[GOOD]);
    assert!(!answers[0].contains("abc"), "{}", answers[0]);
    for header in ["cache-control: no-store", "referrer-policy: no-referrer", "default-src 'none'"] {
        assert!(answers[0].contains(header), "{header}");
    }
}

#[test]
fn an_answer_with_another_state_ends_the_sign_in() {
    for forged in ["code=abc&state=guessed", "code=abc", "error=access_denied&state=x"] {
        let (answers, code) = answered(&[&format!("GET /callback?{forged} HTTP/1.1\r\n\r\n")]);
        assert_eq!(code.unwrap_err(), SignInError::WrongState);
        assert!(answers[0].starts_with("HTTP/1.1 400 ") && answers[0].contains("another sign-in"));
    }
}

#[test]
fn a_replayed_answer_finds_no_listener() {
    let app = app();
    let listener = LoopbackListener::bind(0).unwrap();
    let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
    let address = listener.redirect_uri().split('/').nth(2).unwrap().to_owned();
    assert_eq!(listener.wait(&sign_in, Duration::from_millis(50)).unwrap_err(), SignInError::Deadline);
    assert!(TcpStream::connect(address).is_err(), "nothing listens once it is over");
}

#[test]
fn a_silent_connection_times_out_and_the_next_is_served() {
    let app = app();
    let listener = LoopbackListener::bind(0).unwrap();
    let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
    let address = listener.redirect_uri().split('/').nth(2).unwrap().to_owned();
    let silent = TcpStream::connect(&address).unwrap();
    let state = state_of(&sign_in).to_owned();
    let mut second = TcpStream::connect(&address).unwrap();
    second.write_all(GOOD.replace("STATE", &state).as_bytes()).unwrap();
    assert!(listener.wait(&sign_in, PATIENCE).is_ok());
    drop(silent);
}
