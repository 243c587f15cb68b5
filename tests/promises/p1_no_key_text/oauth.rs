//! An app's sign-in, its tokens and their keeper, with the canary as the client secret, as the code and as
//! each token.

use keysheath::Cadence;
use keysheath::handle::Reload;
use keysheath::key::KatanaApp;
use keysheath::oauth::{
    AuthorizationCode, Endpoints, GrantError, GrantState, GrantView, KeeperEvent, KeeperSettings,
    KeeperStatus, LoopbackListener, OAuthApp, SignIn, SignInError, TokenError, TokenKeeper, Tokens,
};
use keysheath::store::{DocumentContent, DocumentStore as _, MemoryStore};

use super::*;
use crate::support::oidc::{app_of, state_of};
use crate::support::recorder::{Recorder, write_answer};

const PATIENCE: Duration = Duration::from_secs(120);

const JSON: &str = "200 OK\r\ncontent-type: application/json";

fn app(server: &Recorder, folder: &Folder) -> OAuthApp<KatanaApp> {
    let secret = SecretFile::new(folder.write("client-secret", KATANA));
    let app = app_of(secret, &format!("http://{}", server.address));
    assert_debug_silent("OAuthApp", &app);
    app
}

fn exchange(app: &OAuthApp<KatanaApp>) -> Result<Tokens<KatanaApp>, TokenError> {
    let sign_in: SignIn = app.sign_in("http://127.0.0.1:1/callback").unwrap();
    assert_debug_silent("SignIn", &sign_in);
    let state = state_of(&sign_in).to_owned();
    assert!(!format!("{sign_in:?}").contains(&state));
    let code: AuthorizationCode = sign_in.answer(&format!("code={KATANA}&state={state}")).unwrap();
    assert_debug_silent("AuthorizationCode", &code);
    for answer in [
        format!("code={KATANA}&state={KATANA}"),
        format!("error={KATANA}&error_description={KATANA}&state={state}"),
        format!("{KATANA}={KATANA}&state={state}"),
        format!("code={KATANA}%zz&state={state}"),
    ] {
        let error: SignInError = sign_in.answer(&answer).unwrap_err();
        assert_error_silent("a sign-in without a code", &error);
    }
    app.exchange(sign_in, code)
}

/// What a server says that gives everything back that it was sent, and the canary besides.
fn echo(status: &'static str, body: &str) -> Recorder {
    let body = body.replace("CANARY", KATANA);
    Recorder::raw(move |request, stream| {
        let body = body.replace("ECHO", &request.body);
        write_answer(stream, &format!("{status}\r\nx-key: {KATANA}"), &body)
    })
}

const TOKENS: &str = r#"{"access_token":"CANARY","refresh_token":"CANARY","expires_in":3600}"#;

#[test]
fn errors_of_a_token_endpoint_show_nothing_sent_or_received() {
    let folder = Folder::new();
    for (status, body) in [
        (JSON, "CANARY"),
        (JSON, r#"{"access_token":"CANARY CANARY","refresh_token":"CANARY"}"#),
        (JSON, r#"{"access_token":{"CANARY":1},"refresh_token":"CANARY"}"#),
        (JSON, r#"{"access_token":"CANARY","token_type":"CANARY"}"#),
        (JSON, r#"{"access_token":"CANARY"}"#),
        ("400 CANARY", r#"{"error":"invalid_grant","error_description":"CANARY ECHO"}"#),
        ("400 Bad", r#"{"error":"CANARY"}"#),
        ("401 Bad", r#"{"error":"invalid_client","x":"CANARY"}"#),
        ("403 Bad", "<html>CANARY ECHO"),
        ("302 Found\r\nlocation: /CANARY", "CANARY"),
        ("500 CANARY", "CANARY ECHO"),
    ] {
        let server = echo(status, body);
        let error: TokenError = exchange(&app(&server, &folder)).unwrap_err();
        assert_error_silent("a token endpoint that gives no tokens", &error);
    }
    let garbage = Recorder::raw(|request, stream| write!(stream, "{KATANA}\r\n{}", request.body));
    assert_error_silent("what does not speak HTTP", &exchange(&app(&garbage, &folder)).unwrap_err());
    let malformed = folder.write("malformed", format!("{KATANA} {KATANA}"));
    let app = OAuthApp::katana("shop-sync", SecretFile::new(malformed)).unwrap();
    let error: SignInError = app.sign_in("http://127.0.0.1:1/callback").unwrap_err();
    assert_error_silent("a malformed client secret", &error);
    let with_user = format!("https://{KATANA}@login.example/");
    for error in [
        app.clone().with_endpoints(Endpoints { authorization: KATANA, token: KATANA }).unwrap_err(),
        app.with_endpoints(Endpoints { authorization: &with_user, token: "https://x/" }).unwrap_err(),
        OAuthApp::katana(&format!("{KATANA}\n"), SecretFile::new("x")).unwrap_err(),
    ] {
        assert_error_silent("an app that is not described well", &error);
    }
    // A person may take the one for the other.
    let swapped = OAuthApp::katana(KATANA, SecretFile::new("x")).unwrap();
    assert_debug_silent("an app whose client id is its secret", &swapped);
}

#[test]
fn tokens_their_document_and_their_keeper_show_nothing() {
    let folder = Folder::new();
    let server = echo(JSON, TOKENS);
    let app = app(&server, &folder);
    let tokens = exchange(&app).unwrap();
    assert!(tokens.access().matches(KATANA.as_bytes()));
    assert_debug_silent("Tokens", &tokens);
    let store = MemoryStore::new();
    tokens.save(&store).unwrap();
    let settings: KeeperSettings = KeeperSettings::new()
        .with_cadence(Cadence::every(Duration::from_millis(20)))
        .on_event(|event: &KeeperEvent| assert_value_silent("an event", event));
    assert_debug_silent("settings", &settings);
    let keeper = TokenKeeper::start(app.clone(), store.clone(), settings.clone()).unwrap();
    let look = || {
        assert_debug_silent("TokenKeeper", &keeper);
        let status: KeeperStatus = keeper.status();
        assert_value_silent("a keeper's status", &status);
        let state: GrantState = status.state();
        assert_value_silent("a grant's state", &state);
        if let Some(problem) = status.health().problem() {
            let problem: &GrantError = problem;
            assert_error_silent("why a refresh failed", problem);
        }
        status
    };
    look();
    let view: GrantView = app.grant_in(&store).unwrap();
    assert_value_silent("a grant that is looked at", &view);
    let good = store.read().unwrap().unwrap();
    let text = good.content().expose_secret();
    let version = *good.version();
    let garbage: [&[u8]; 4] = [KATANA.as_bytes(), &text[..text.len() - 3], b"", &text[9..]];
    let mut version = version;
    for harm in garbage {
        version = store.write(&DocumentContent::from(harm.to_vec()), Some(&version)).unwrap();
        let seen = look().health().consecutive_failures();
        while look().health().consecutive_failures() <= seen {
            std::thread::sleep(Duration::from_millis(5));
        }
        let error: GrantError =
            TokenKeeper::start(app.clone(), store.clone(), settings.clone()).map(|_| ()).unwrap_err();
        assert_error_silent("a keeper that does not start", &error);
        assert_error_silent("a grant that cannot be looked at", &app.grant_in(&store).unwrap_err());
        let error: GrantError = exchange(&app).unwrap().save(&store).unwrap_err();
        assert_error_silent("tokens that are not saved", &error);
    }
}

/// Drives a keeper through every event that it reports, and returns how many there were.
fn count_events(folder: &Folder, settings: &KeeperSettings) -> usize {
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
    let number = AtomicU32::new(0);
    let server = Recorder::raw(move |request, stream| {
        let body = TOKENS.replacen("CANARY", &format!("{KATANA}{}", number.load(Ordering::SeqCst)), 1);
        let body = body.replace("CANARY", KATANA);
        match number.fetch_add(1, Ordering::SeqCst) {
            1 => write_answer(stream, "429 Too Many", KATANA),
            3 => write_answer(stream, "503 Down", &format!("{KATANA} {}", request.body)),
            5 => write_answer(stream, "400 Bad", r#"{"error":"invalid_grant"}"#),
            _ => write_answer(stream, JSON, &body),
        }
    });
    let app = app(&server, folder).with_deadline(Duration::from_secs(2));
    let store = MemoryStore::new();
    exchange(&app).unwrap().save(&store).unwrap();
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&count);
    let settings = settings.clone().on_event(move |event: &KeeperEvent| {
        assert_value_silent("an event", event);
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let keeper = TokenKeeper::start(app.clone(), store.clone(), settings).unwrap();
    let handle = keeper.handle();
    let start = std::time::Instant::now();
    while keeper.status().state() != GrantState::Refused {
        assert!(start.elapsed() < PATIENCE, "{}", keeper.status());
        let now = handle.load().unwrap().generation();
        handle.report_refused(now);
        assert_ne!(handle.wait_newer_than(now, PATIENCE), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(keeper);
    count.load(Ordering::SeqCst)
}

fn quick() -> KeeperSettings {
    KeeperSettings::new()
        .with_cadence(
            Cadence::new()
                .with_minimum_interval(Duration::from_millis(10))
                .with_longest_back_off(Duration::from_millis(10)),
        )
        .with_lease(Duration::from_secs(2))
}

/// Three tokens, three failures, two recoveries, doubt and refusal.
const EVENTS: usize = 10;

#[test]
fn nothing_that_a_keeper_tells_shows_a_token() {
    assert_eq!(count_events(&Folder::new(), &quick()), EVENTS);
}

#[cfg(feature = "tracing")]
#[test]
fn what_a_keeper_tells_tracing_shows_no_token() {
    use crate::support::traced::Collector;

    // The keeper's thread has no subscriber but the one of the whole process.
    in_silent_child("oauth::what_a_keeper_tells_tracing_shows_no_token", &[], || {
        let collector = Collector::default();
        tracing::subscriber::set_global_default(collector.clone()).unwrap();
        assert_eq!(count_events(&Folder::new(), &quick()), EVENTS);
        let lines = collector.lines();
        let own: Vec<&String> = lines.iter().filter(|line| line.contains("keysheath::oauth")).collect();
        let levels = own.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>();
        let expected = "INFO WARN INFO INFO WARN WARN INFO INFO WARN WARN";
        assert_eq!(levels.join(" "), expected, "{own:#?}");
        assert_silent("what tracing receives", &lines.join("\n"));
    });
}

#[test]
fn the_listener_shows_nothing_of_what_comes() {
    let folder = Folder::new();
    let secret = folder.write("client-secret", KATANA);
    let app = OAuthApp::katana("shop-sync", SecretFile::new(secret)).unwrap();
    let listener = LoopbackListener::bind(0).unwrap();
    assert_debug_silent("LoopbackListener", &listener);
    let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
    let address = listener.redirect_uri().split('/').nth(2).unwrap().to_owned();
    let browser = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /callback?code={KATANA}&state={KATANA} HTTP/1.1\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    assert_error_silent("a forged answer", &listener.wait(&sign_in, PATIENCE).unwrap_err());
    assert_silent("the page", &browser.join().unwrap());
}

#[test]
fn no_log_line_shows_a_token_a_code_or_the_client_secret() {
    static LINES: Lines = Lines::new();
    in_silent_child("oauth::no_log_line_shows_a_token_a_code_or_the_client_secret", &[], || {
        LINES.install();
        let folder = Folder::new();
        let chunked = Recorder::raw(|_, stream| {
            let body = TOKENS.replace("CANARY", KATANA);
            write!(stream, "HTTP/1.1 {JSON}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")?;
            write!(stream, "{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        });
        let unbounded = Recorder::raw(|_, stream| {
            write!(stream, "HTTP/1.1 {JSON}\r\n\r\n{}", TOKENS.replace("CANARY", KATANA))
        });
        // The head of an answer is logged; a token endpoint has no secret there.
        let answer = |head: &'static str, body: &str| {
            let body = body.replace("CANARY", KATANA);
            Recorder::raw(move |request, stream| {
                write_answer(stream, head, &body.replace("ECHO", &request.body))
            })
        };
        for server in [answer(JSON, TOKENS), chunked, unbounded] {
            let app = app(&server, &folder);
            let store = MemoryStore::new();
            exchange(&app).unwrap().save(&store).unwrap();
            let keeper = TokenKeeper::start(app, store, KeeperSettings::new()).unwrap();
            let now = keeper.handle().load().unwrap().generation();
            keeper.handle().report_refused(now);
            // Whether the server's token is another one or not, it was asked for.
            assert_ne!(keeper.handle().wait_newer_than(now, PATIENCE), Some(Reload::NoRefresher));
        }
        let _ = exchange(&app(&answer("500 Oops", "CANARY ECHO"), &folder)).unwrap_err();
        let lines = LINES.all().join("\n");
        assert!(lines.contains("ureq_proto") && lines.lines().count() > 100, "nothing was logged");
        assert_silent("what is logged", &lines);
    });
}
