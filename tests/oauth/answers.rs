//! What a token endpoint may answer that a real one does not: a stand-in says it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keysheath::client::{OriginGuard, OverrideError};
use keysheath::failure::Obstacle;
use keysheath::handle::Reload;
use keysheath::key::{Kanal, Katana, KatanaApp, Origin, Profile};
use keysheath::oauth::{GrantError, GrantState, OAuthApp, TokenError, TokenKeeper, Tokens};
use keysheath::source::{Provenance, Reading, SecretFile, Source, SourceError};
use keysheath::store::{DocumentContent, DocumentStore as _, MemoryStore};

use crate::quick;
use crate::support::oidc::{CLIENT_SECRET, PATIENCE, app_at, app_of, eventually, state_of};
use crate::support::recorder::{Recorder, Request, write_answer};
use crate::support::{Folder, in_child};

pub(crate) const JSON: &str = "200 OK\r\ncontent-type: application/json";

/// A good answer, the one of this number.
pub(crate) fn good(number: u32) -> String {
    format!(
        r#"{{"access_token":"access-token-of-number-{number}","refresh_token":"refresh-{number}",
            "token_type":"Bearer","expires_in":3600}}"#
    )
}

pub(crate) fn app(address: SocketAddr, folder: &Folder) -> OAuthApp<KatanaApp> {
    app_at(address.port(), &folder.write("client-secret", CLIENT_SECRET))
}

/// Exchanges a made-up code.
pub(crate) fn exchange(app: &OAuthApp<KatanaApp>) -> Result<Tokens<KatanaApp>, TokenError> {
    let sign_in = app.sign_in("http://127.0.0.1:1/callback").unwrap();
    let code = sign_in.answer(&format!("code=a-code%2B1&state={}", state_of(&sign_in))).unwrap();
    app.exchange(sign_in, code)
}

/// What comes of an answer.
fn answered(head: &'static str, body: impl Into<String>) -> Result<Tokens<KatanaApp>, TokenError> {
    let body = body.into();
    let server = Recorder::raw(move |_, stream| write_answer(stream, head, &body));
    exchange(&app(server.address, &Folder::new()))
}

#[test]
fn a_code_is_sent_as_documented_with_the_secret_in_the_body() {
    let server = Recorder::raw(|_, stream| write_answer(stream, JSON, &good(1)));
    assert!(exchange(&app(server.address, &Folder::new())).is_ok());
    let [request] = &server.requests()[..] else { panic!("one request") };
    assert_eq!(request.line(), "POST /token");
    assert_eq!(request.header("content-type"), ["application/x-www-form-urlencoded"]);
    assert!(request.header("authorization").is_empty() && !request.head.contains(CLIENT_SECRET));
    let (start, rest) = request.body.split_once("&code_verifier=").unwrap();
    assert_eq!(
        start,
        "grant_type=authorization_code&code=a-code%2B1&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcallback"
    );
    assert_eq!(rest.get(43..), Some(&*format!("&client_id=shop-sync&client_secret={CLIENT_SECRET}")));
}

#[test]
fn a_missing_lifetime_is_the_default_and_other_fields_ignored() {
    let body = r#"{"refresh_token":"r","extra":{"a":[1,"x"]},"access_token":"access-token-of-number-1",
        "scope":"x","id_token":null}"#;
    let tokens = answered(JSON, body).unwrap();
    assert_eq!(tokens.lifetime(), Duration::from_secs(3600));
    let server = Recorder::raw(move |_, stream| write_answer(stream, JSON, body));
    let folder = Folder::new();
    let app = app(server.address, &folder).with_default_lifetime(Duration::from_secs(60));
    assert_eq!(exchange(&app).unwrap().lifetime().as_secs(), 60);
}

#[test]
fn tokens_with_escapes_in_their_json_are_read() {
    let body = r#"{"access_token":"access\/token\u002dof-number-1","refresh_token":"a\\b\"c"}"#;
    let tokens = answered(JSON, body).unwrap();
    assert!(tokens.access().matches(b"access/token-of-number-1"));
}

#[test]
fn a_chunked_response_is_read_as_any_other() {
    let server = Recorder::raw(|_, stream| {
        let body = good(7);
        let (first, second) = body.split_at(20);
        write!(stream, "HTTP/1.1 {JSON}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")?;
        for part in [first, second] {
            write!(stream, "{:x};x=y\r\n", part.len())?;
            stream.flush()?;
            std::thread::sleep(Duration::from_millis(30));
            write!(stream, "{part}\r\n")?;
        }
        write!(stream, "0\r\n\r\n")
    });
    let tokens = exchange(&app(server.address, &Folder::new())).unwrap();
    assert!(tokens.access().matches(b"access-token-of-number-7"));
}

#[test]
fn huge_html_and_malformed_answers_bring_no_tokens_nor_refuse() {
    let large = format!(r#"{{"x":"{}",{}"#, "x".repeat(10 << 20), &good(1)[1..]);
    let limit = 64 * 1024;
    assert_eq!(answered(JSON, large).unwrap_err(), TokenError::Unreachable(Obstacle::TooLarge { limit }));
    let page = "<html>invalid_grant: Sign in to the network</html>";
    for head in ["200 OK\r\ncontent-type: text/html", "400 Bad\r\ncontent-type: text/html", "502 Bad Gateway"]
    {
        let error = answered(head, page).unwrap_err();
        assert!(matches!(error, TokenError::Inconclusive { .. }), "{error}");
    }
    let error = answered(JSON, "not JSON").unwrap_err();
    assert!(matches!(error, TokenError::NotTokens { status: 200, .. }), "{error}");
    let busy = answered("429 Too Many\r\nretry-after: 7", r#"{"error":"invalid_grant"}"#).unwrap_err();
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(7)));
    for error in [busy, error] {
        assert!(!error.refuses_grant());
    }
}

#[test]
fn the_secret_and_the_tokens_follow_no_redirect_and_no_proxy() {
    const TEST: &str = "answers::the_secret_and_the_tokens_follow_no_redirect_and_no_proxy";
    let other = Recorder::plain("200 OK");
    let proxy = format!("http://{}", other.address);
    let variables = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"];
    in_child(TEST, &variables.map(|name| (name, proxy.clone())), || {
        let elsewhere = Recorder::plain("200 OK");
        for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
            let head = format!("{status}\r\nlocation: http://{}/token", elsewhere.address);
            let server = Recorder::plain(&head);
            let error = exchange(&app(server.address, &Folder::new())).unwrap_err();
            assert!(matches!(error, TokenError::Unreachable(Obstacle::Redirect { .. })), "{error}");
            assert_eq!(server.requests().len(), 1);
        }
        assert!(elsewhere.requests().is_empty());
    });
    assert!(other.requests().is_empty(), "the proxy saw a request");
}

#[test]
fn a_token_goes_where_katanas_keys_go_and_no_other_key_does() {
    let guard = |text: &str| OriginGuard::<KatanaApp>::for_https(Origin::parse(text).unwrap()).map(|_| ());
    assert_eq!(OriginGuard::<KatanaApp>::new().origin(), OriginGuard::<Katana>::new().origin());
    assert_eq!(guard("https://sandbox.katanamrp.com"), Ok(()));
    assert_eq!(guard("https://gateway.shop.example"), Ok(()));
    assert_eq!(guard("https://api.getkanal.com"), Err(OverrideError::OtherIssuer { issuer: "Kanal" }));
    let kanal = OriginGuard::<Kanal>::for_https(Origin::parse("https://api.katanamrp.com").unwrap());
    assert!(kanal.is_err());
}

/// A keeper of a grant whose refreshes are answered in this way; the answers are numbered from 1.
fn keeper(
    folder: &Folder,
    answer: impl Fn(u32) -> (&'static str, String) + Send + Sync + 'static,
) -> (TokenKeeper<KatanaApp>, Recorder) {
    let (app, store, server) = granted(folder, answer);
    (TokenKeeper::start(app, store, quick()).unwrap(), server)
}

/// A grant whose refreshes are answered in this way; the answers are numbered from 1.
pub(crate) fn granted(
    folder: &Folder,
    answer: impl Fn(u32) -> (&'static str, String) + Send + Sync + 'static,
) -> (OAuthApp<KatanaApp>, MemoryStore, Recorder) {
    let number = AtomicU32::new(0);
    let server = Recorder::raw(move |request: &Request, stream| {
        if request.body.contains("authorization_code") {
            return write_answer(stream, JSON, &good(0));
        }
        let (head, body) = answer(1 + number.fetch_add(1, Ordering::SeqCst));
        write_answer(stream, head, &body)
    });
    let (app, store) = (app(server.address, folder), MemoryStore::new());
    exchange(&app).unwrap().save(&store).unwrap();
    (app, store, server)
}

/// Has the token refused, and lets one attempt come of it: to ask for a newer one as well may make another.
pub(crate) fn refused_once(keeper: &TokenKeeper<KatanaApp>) {
    keeper.handle().report_refused(keeper.handle().load().unwrap().generation());
}

pub(crate) fn refused(keeper: &TokenKeeper<KatanaApp>) -> Option<Reload> {
    let now = keeper.handle().load().unwrap().generation();
    keeper.handle().report_refused(now);
    keeper.handle().wait_newer_than(now, PATIENCE)
}

#[test]
fn an_inconclusive_answer_keeps_the_token_and_the_grant() {
    let folder = Folder::new();
    let (keeper, _server) = keeper(&folder, |number| match number {
        1 => ("429 Too Many", "{}".into()),
        2 => ("401 No", r#"{"error":"invalid_client"}"#.into()),
        number => (JSON, good(number)),
    });
    let first = keeper.handle().load().unwrap();
    for problem in ["429", "invalid_client"] {
        refused_once(&keeper);
        eventually(problem, || keeper.status().to_string().contains(problem));
        assert_eq!(keeper.status().state(), GrantState::Good);
        assert_eq!(keeper.handle().load().unwrap().generation(), first.generation());
    }
    eventually("the third answer", || refused(&keeper) == Some(Reload::Newer));
    assert!(keeper.handle().load().unwrap().current().matches(b"access-token-of-number-3"));
    assert_eq!(
        (keeper.status().health().problem(), keeper.status().health().consecutive_failures()),
        (None, 0)
    );
}

#[test]
fn in_doubt_the_refresh_token_is_not_used_a_second_time() {
    let folder = Folder::new();
    for (head, body) in
        [("503 Down", "{}"), (JSON, "not JSON"), (JSON, "<html>"), ("500 Oops", "invalid_grant")]
    {
        let (keeper, server) = keeper(&folder, move |_| (head, body.into()));
        refused_once(&keeper);
        eventually("the failure", || keeper.status().health().problem().is_some());
        eventually("doubt", || keeper.status().state() == GrantState::InDoubt);
        let status = keeper.status();
        assert!(matches!(status.health().problem(), Some(GrantError::Token(_))));
        // Polls see the lease that stays, and send nothing.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(server.requests().len(), 2, "the exchange, and one refresh");
        let status = keeper.status();
        assert_eq!(
            (status.state(), status.health().consecutive_failures()),
            (GrantState::InDoubt, 1),
            "{status}"
        );
        assert!(keeper.handle().load().is_ok());
    }
}

/// A connection over TLS on which the server's words come in the clear.
struct Corrupting(crate::support::tls::Stream);

impl std::io::Read for Corrupting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Write for Corrupting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.sock.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.sock.flush()
    }
}

#[test]
fn tls_that_breaks_leaves_doubt_only_after_the_request() {
    let folder = Folder::new();
    let own = crate::support::tls::OwnCertificate::new();
    let accept = own.accept();
    let broken = Recorder::serve(
        move |stream| accept(stream).map(Corrupting),
        |_, stream| write_answer(stream, JSON, &good(1)),
    );
    let unknown = Recorder::start("200 OK", crate::support::tls::OwnCertificate::new().accept());
    for (server, obstacle, state) in
        [(&broken, Obstacle::Broken, GrantState::InDoubt), (&unknown, Obstacle::Tls, GrantState::Good)]
    {
        let origin = format!("https://localhost:{}", server.address.port());
        let roots = keysheath::key::Roots::from_pem(own.pem.as_bytes()).unwrap();
        let secret = SecretFile::new(folder.write("client-secret", CLIENT_SECRET));
        let app = app_of(secret, &origin).with_roots(roots);
        assert_eq!(exchange(&app).unwrap_err(), TokenError::Unreachable(obstacle));
        // The grant of a server at that place, as a keeper finds it.
        let (_, store, other) = granted(&folder, |_| ("500 Oops", String::new()));
        let there = store.read().unwrap().unwrap();
        let text = std::str::from_utf8(there.content().expose_secret()).unwrap();
        let text = text.replace(&format!("http://{}", other.address), &origin);
        let content = DocumentContent::from(text.into_bytes());
        store.write(&content, Some(there.version())).unwrap();
        let keeper = TokenKeeper::start(app, store, quick()).unwrap();
        refused_once(&keeper);
        eventually("a failure", || keeper.status().health().problem().is_some());
        eventually("its state", || keeper.status().state() == state);
        assert_eq!(
            keeper.status().health().problem(),
            Some(&GrantError::Token(TokenError::Unreachable(obstacle)))
        );
    }
    assert_eq!(broken.requests().len(), 2, "the exchange, and one refresh");
}

#[test]
fn the_longest_default_lifetime_is_one_that_can_be_read_again() {
    let (folder, store) = (Folder::new(), MemoryStore::new());
    let server = Recorder::raw(|_, stream| {
        let body = r#"{"access_token":"access-token-of-number-1","refresh_token":"r"}"#;
        write_answer(stream, JSON, body)
    });
    let app = app(server.address, &folder).with_default_lifetime(Duration::MAX);
    let tokens = exchange(&app).unwrap();
    assert_eq!(tokens.lifetime(), Duration::from_secs(366 * 24 * 60 * 60));
    tokens.save(&store).unwrap();
    let keeper =
        TokenKeeper::start(app, store, quick().with_refresh_ahead(90).with_refresh_jitter(90)).unwrap();
    assert_eq!(keeper.status().health().consecutive_failures(), 0, "{}", keeper.status());
}

/// A client secret that takes its time, during which no one may hold the lease.
struct Slow(MemoryStore, Arc<AtomicU32>);

impl Source for Slow {
    fn provenance(&self) -> Provenance {
        Provenance::other("test", "slow")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        std::thread::sleep(Duration::from_millis(300));
        if let Some(there) = self.0.read().unwrap() {
            let text = std::str::from_utf8(there.content().expose_secret()).unwrap().to_owned();
            self.1.fetch_add(u32::from(!text.contains("\"lease\": null")), Ordering::SeqCst);
        }
        Ok(Reading::present(CLIENT_SECRET.to_owned()))
    }
}

#[test]
fn a_slow_client_secret_takes_no_time_of_a_lease() {
    let (folder, store, leased) = (Folder::new(), MemoryStore::new(), Arc::<AtomicU32>::default());
    let (_, granted, server) = granted(&folder, |number| (JSON, good(number)));
    let there = granted.read().unwrap().unwrap();
    store.write(there.content(), None).unwrap();
    let slow = Slow(store.clone(), Arc::clone(&leased));
    let app = app_of(slow, &format!("http://{}", server.address));
    let keeper = TokenKeeper::start(app, store, quick()).unwrap();
    eventually("a newer token", || refused(&keeper) == Some(Reload::Newer));
    assert_eq!(leased.load(Ordering::SeqCst), 0, "the lease was held while the secret was loaded");
}

#[test]
fn without_a_new_refresh_token_the_old_one_stays_valid() {
    let folder = Folder::new();
    let (keeper, server) = keeper(&folder, |number| {
        (JSON, format!(r#"{{"access_token":"access-token-of-number-{number}","expires_in":3600}}"#))
    });
    for _ in 0..2 {
        eventually("a newer token", || refused(&keeper) == Some(Reload::Newer));
    }
    for request in &server.requests()[1..] {
        assert!(
            request.body.starts_with("grant_type=refresh_token&refresh_token=refresh-0&"),
            "{}",
            request.body
        );
    }
    assert_eq!(server.requests().len(), 3);
}
