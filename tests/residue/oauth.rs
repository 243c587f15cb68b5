//! P2, for OAuth: a client secret, a code and tokens that go to a server and come from it leave no freed heap
//! block with them, over plain HTTP.
//!
//! The server runs in the parent process, because its own buffers would be found otherwise.

use std::time::Duration;

use crate::support::oidc::{app_of, state_of};
use crate::support::recorder::{Recorder, write_answer};
use crate::support::residue::{KEY, NONE, Residue, alone, residue_of};
use crate::support::tls::OwnCertificate;
use keysheath::handle::Reload;
use keysheath::key::{KatanaApp, Roots};
use keysheath::oauth::{KeeperSettings, LoopbackListener, OAuthApp, SignIn, TokenError, TokenKeeper};
use keysheath::source::{Provenance, Reading, Source, SourceError};
use keysheath::store::MemoryStore;
use zeroize::Zeroizing;

const JSON: &str = "200 OK\r\ncontent-type: application/json";

/// Gives the planted key as the client secret.
struct Planted;

impl Source for Planted {
    fn provenance(&self) -> Provenance {
        Provenance::other("test", "planted")
    }

    fn read(&self, _: &'static keysheath::key::Profile) -> Result<Reading, SourceError> {
        Ok(Reading::present(KEY.to_owned()))
    }
}

fn app() -> OAuthApp<KatanaApp> {
    let server = std::env::var("OAUTH_SERVER").unwrap();
    let app = app_of(Planted, &server);
    match std::env::var("OAUTH_ROOTS") {
        Ok(pem) => app.with_roots(Roots::from_pem(pem.as_bytes()).unwrap()),
        Err(_) => app,
    }
}

fn query(sign_in: &SignIn) -> Zeroizing<String> {
    let mut query = Zeroizing::new(String::with_capacity(4096));
    for part in ["code=", KEY, "&state=", state_of(sign_in)] {
        query.push_str(part);
    }
    query
}

/// Signs in, keeps the grant, and refreshes it once.
fn live(app: &OAuthApp<KatanaApp>) {
    let sign_in = app.sign_in("http://127.0.0.1:1/callback").unwrap();
    let code = sign_in.answer(&query(&sign_in)).unwrap();
    let tokens = app.exchange(sign_in, code).unwrap();
    drop(format!("{tokens:?}"));
    let store = MemoryStore::new();
    tokens.save(&store).unwrap();
    let keeper = TokenKeeper::start(app.clone(), store, KeeperSettings::new()).unwrap();
    let handle = keeper.handle();
    let first = handle.load().unwrap().generation();
    handle.report_refused(first);
    assert_eq!(handle.wait_newer_than(first, Duration::from_secs(120)), Some(Reload::Newer));
    drop(format!("{keeper:?} {}", keeper.status()));
}

/// The planted key in each token; the access tokens differ in what follows it.
fn serve() -> impl Fn(
    &crate::support::recorder::Request,
    &mut dyn crate::support::recorder::Connection,
) -> std::io::Result<()>
+ Send
+ Sync {
    let number = std::sync::atomic::AtomicU32::new(0);
    move |_, stream| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let body =
            format!(r#"{{"access_token":"{KEY}-{number}","refresh_token":"{KEY}","expires_in":3600}}"#);
        write_answer(stream, JSON, &body)
    }
}

fn measured(test: &str, work: impl Fn()) -> Residue {
    // What is made once, such as a random state, is made before.
    work();
    let found = residue_of(&work);
    println!("{found}: {}", test.replace('_', " "));
    found
}

#[test]
fn a_sign_in_a_grant_and_a_refresh_leave_nothing() {
    const TEST: &str = "a_sign_in_a_grant_and_a_refresh_leave_nothing";
    let server = Recorder::raw(serve());
    alone(TEST, &[("OAUTH_SERVER", &format!("http://{}", server.address))], || {
        let app = app();
        assert_eq!(measured(TEST, || live(&app)), NONE);
    });
}

#[test]
fn an_answer_that_is_no_token_response_leaves_nothing() {
    const TEST: &str = "an_answer_that_is_no_token_response_leaves_nothing";
    let server = Recorder::raw(|_, stream| {
        write_answer(stream, JSON, &format!(r#"{{"access_token":"{KEY} {KEY}","refresh_token":"{KEY}"}}"#))
    });
    alone(TEST, &[("OAUTH_SERVER", &format!("http://{}", server.address))], || {
        let app = app();
        let found = measured(TEST, || {
            let sign_in = app.sign_in("http://127.0.0.1:1/callback").unwrap();
            let code = sign_in.answer(&query(&sign_in)).unwrap();
            let error = app.exchange(sign_in, code).unwrap_err();
            assert!(matches!(error, TokenError::NotTokens { .. }));
            drop(format!("{error} {error:?}"));
        });
        assert_eq!(found, NONE);
    });
}

#[test]
fn answers_that_are_written_in_another_way_leave_nothing() {
    const TEST: &str = "answers_that_are_written_in_another_way_leave_nothing";
    // The first character as an escape, which makes a parser copy the rest; then the key where no text should
    // be. (An escaped name of a field is copied all the same.)
    let escaped = format!("\\u0051{}", &KEY[1..]);
    let cases = [
        ("200 OK", format!(r#"{{"access_token":"{escaped}","refresh_token":"{KEY}"}}"#)),
        ("200 OK", format!(r#"{{"access_token":"{KEY}","refresh_token":"{escaped}"}}"#)),
        ("200 OK", format!(r#"{{"access_token":"{KEY}","refresh_token":"{KEY}","token_type":"{escaped}"}}"#)),
        ("200 OK", format!(r#"{{"access_token":"{KEY}","refresh_token":"{KEY}","expires_in":"{escaped}"}}"#)),
        (
            "200 OK",
            format!(r#"{{"access_token":"{KEY}","refresh_token":"{KEY}","expires_in":["{escaped}"]}}"#),
        ),
        ("200 OK", format!(r#"{{"access_token":"{KEY}","refresh_token":"{KEY}","x":"{escaped}"}}"#)),
        ("200 OK", format!(r#"{{"access_token":{{"{KEY}":"{escaped}"}},"refresh_token":"{KEY}"}}"#)),
        ("200 OK", format!(r#"{{"access_token":"{KEY}","refresh_token":"{KEY}"#)),
        ("400 Bad Request", format!(r#"{{"error":"{escaped}"}}"#)),
        ("400 Bad Request", format!(r#"{{"error":["{KEY}"]}}"#)),
        ("400 Bad Request", format!(r#"{{"error":"invalid_grant","error_description":"{escaped}"}}"#)),
    ];
    let count = cases.len();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let server = Recorder::raw(move |_, stream| {
        let (status, body) = &cases[next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)];
        write_answer(stream, status, body)
    });
    alone(TEST, &[("OAUTH_SERVER", &format!("http://{}", server.address))], || {
        let app = app();
        let ask = || {
            let sign_in = app.sign_in("http://127.0.0.1:1/callback").unwrap();
            let code = sign_in.answer(&query(&sign_in)).unwrap();
            drop(format!("{:?}", app.exchange(sign_in, code)));
        };
        let found: Vec<_> = (0..count).map(|_| residue_of(ask)).collect();
        println!("{found:?}");
        assert_eq!(found, vec![NONE; count], "freed blocks with what a server said");
    });
}

#[test]
fn the_listener_leaves_nothing_of_the_code() {
    const TEST: &str = "the_listener_leaves_nothing_of_the_code";
    alone(TEST, &[("OAUTH_SERVER", "http://127.0.0.1:1")], || {
        let app = app();
        let found = measured(TEST, || {
            let listener = LoopbackListener::bind(0).unwrap();
            let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
            let address = listener.redirect_uri().split('/').nth(2).unwrap().to_owned();
            let query = query(&sign_in);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    use std::io::{Read as _, Write as _};
                    let mut stream = std::net::TcpStream::connect(&address).unwrap();
                    for part in [b"GET /callback?".as_slice(), query.as_bytes(), b" HTTP/1.1\r\n\r\n"] {
                        stream.write_all(part).unwrap();
                    }
                    stream.read_to_end(&mut Vec::new()).unwrap();
                });
                assert!(listener.wait(&sign_in, Duration::from_secs(60)).is_ok());
            });
        });
        assert_eq!(found, NONE);
    });
}

#[test]
fn over_tls_only_the_tls_library_leaves_response_plaintext() {
    const TEST: &str = "over_tls_only_the_tls_library_leaves_response_plaintext";
    let own = OwnCertificate::new();
    let server = Recorder::serve(own.accept(), serve());
    let origin = format!("https://localhost:{}", server.address.port());
    alone(TEST, &[("OAUTH_SERVER", origin.as_str()), ("OAUTH_ROOTS", &own.pem)], || {
        let app = app();
        let found = measured(TEST, || live(&app));
        // Two answers, each of which rustls decrypts into blocks of its own.
        assert!(found.whole <= 4 && found.partial <= 4, "{found}");
    });
}
