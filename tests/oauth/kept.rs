//! What cannot be had again, and what is done so that it is not lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keysheath::handle::Reload;
use keysheath::key::{KatanaApp, Roots};
use keysheath::oauth::{
    GrantError, GrantState, KeeperSettings, OAuthApp, SignInError, TokenError, TokenKeeper,
};
use keysheath::store::{DocumentContent, DocumentStore, FileStore, MemoryStore};
use rustix::process::{Pid, Signal, kill_process};

use crate::answers::{JSON, app, exchange, good, granted, refused, refused_once};
use crate::support::oidc::{CLIENT_SECRET, at_server, eventually};
use crate::support::recorder::{Recorder, Request, write_answer};
use crate::support::tls::OwnCertificate;
use crate::support::{Child, Folder};
use crate::{Late, child, lines, own, print_second_token, quick, variable};

#[test]
fn a_bad_access_token_costs_no_refresh_token() {
    let long = "x".repeat(5000);
    for body in [
        format!(r#"{{"access_token":"{long}","refresh_token":"refresh-1","expires_in":3600}}"#),
        r#"{"access_token":"short","refresh_token":"refresh-1"}"#.to_owned(),
        r#"{"access_token":"access-token-of-number-1","token_type":"DPoP","refresh_token":"refresh-1"}"#
            .to_owned(),
        r#"{"refresh_token":"refresh-1","expires_in":[]}"#.to_owned(),
        r#"{"access_token":["access-token-of-number-1"],"refresh_token":"refresh-1"} trailing"#.to_owned(),
    ] {
        let folder = Folder::new();
        let shown = body.chars().take(60).collect::<String>();
        let (app, store, server) =
            granted(&folder, move |number| (JSON, if number == 1 { body.clone() } else { good(number) }));
        let keeper = TokenKeeper::start(app, store, quick()).unwrap();
        let first = keeper.handle().load().unwrap().generation();
        refused_once(&keeper);
        eventually("the failure", || keeper.status().health().problem().is_some());
        let problem = keeper.status().health().problem().cloned();
        assert!(matches!(problem, Some(GrantError::Token(TokenError::NotTokens { .. }))), "{problem:?}");
        assert_eq!(keeper.handle().load().unwrap().generation(), first, "{shown}");
        eventually("a good answer", || refused(&keeper) == Some(Reload::Newer));
        let second = &server.requests()[2];
        assert!(second.body.contains("&refresh_token=refresh-1&"), "{shown}: {}", second.body);
        assert_eq!(keeper.status().state(), GrantState::Good);
    }
}

#[test]
fn a_token_endpoint_that_takes_12_s_is_waited_for() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| {
        std::thread::sleep(Duration::from_secs(12));
        (JSON, good(number))
    });
    // The defaults: a deadline of 10 s, and a lease of 30 s.
    let keeper = TokenKeeper::start(app, store, KeeperSettings::new()).unwrap();
    assert_eq!(refused(&keeper), Some(Reload::Newer), "{}", keeper.status());
    assert_eq!((keeper.status().state(), keeper.status().health().problem()), (GrantState::Good, None));
}

/// The same app, at a server over TLS with this certificate.
fn over_tls(app: OAuthApp<KatanaApp>, port: u16, pem: &[u8]) -> OAuthApp<KatanaApp> {
    at_server(app, &format!("https://localhost:{port}")).with_roots(Roots::from_pem(pem).unwrap())
}

#[test]
fn a_holder_that_was_stopped_reads_a_late_answer() {
    const TEST: &str = "kept::a_holder_that_was_stopped_reads_a_late_answer";
    if Child::new(TEST).is_here() {
        let pem = std::fs::read(variable("OIDC_ROOTS")).unwrap();
        let (app, store) = own();
        let app = over_tls(app, variable("OIDC_PORT").parse().unwrap(), &pem);
        let settings = quick().with_lease(Duration::from_secs(9));
        let keeper = TokenKeeper::start(app.with_deadline(Duration::from_secs(6)), store, settings).unwrap();
        refused_once(&keeper);
        return print_second_token(&keeper, Duration::from_secs(30));
    }
    let (folder, holder) = (Folder::new(), Arc::new(AtomicU32::new(0)));
    let pid = Arc::clone(&holder);
    let certificate = OwnCertificate::new();
    let server = Recorder::serve(certificate.accept(), move |request: &Request, stream| {
        if request.body.contains("authorization_code") {
            return write_answer(stream, JSON, &good(0));
        }
        // The holder is stopped while it waits, as a suspended machine is; the answer comes, and waits for
        // it. It is more than one read takes.
        let holder = Pid::from_raw(pid.load(Ordering::SeqCst).cast_signed()).unwrap();
        kill_process(holder, Signal::STOP).unwrap();
        let long = format!("{{\"scope\":\"{}\",", "x".repeat(40_000));
        write_answer(stream, JSON, &good(1).replacen('{', &long, 1))?;
        std::thread::sleep(Duration::from_secs(11));
        kill_process(holder, Signal::CONT).unwrap();
        Ok(())
    });
    let app = over_tls(app(server.address, &folder), server.address.port(), certificate.pem.as_bytes());
    exchange(&app).unwrap().save(&FileStore::new(folder.at("grant"))).unwrap();
    let mut child = child(TEST, server.address.port(), &folder)
        .var("OIDC_ROOTS", folder.write("roots", &certificate.pem))
        .spawn();
    holder.store(child.id(), Ordering::SeqCst);
    let shown = lines(&mut child).filter(|line| line.contains("came to")).collect::<String>();
    assert!(child.wait().unwrap().success());
    assert!(shown.contains("good, access token 2"), "{shown}");
    let grant = FileStore::new(folder.at("grant")).read().unwrap().unwrap().content().clone();
    let text = String::from_utf8(grant.expose_secret().to_vec()).unwrap();
    assert!(text.contains("\"number\": 2,"), "its tokens are persisted");
    assert_eq!(server.requests().len(), 2, "the exchange, and one refresh");
}

#[test]
fn after_a_503_a_keeper_does_not_wait_for_its_own_lease() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| match number {
        1 => ("503 Down", "{}".into()),
        number => (JSON, good(number)),
    });
    let keeper = TokenKeeper::start(app, store, quick()).unwrap();
    let start = Instant::now();
    eventually("a newer token", || refused(&keeper) == Some(Reload::Newer));
    assert!(start.elapsed() < Duration::from_secs(5), "a lease is 20 s: {:?}", start.elapsed());
    assert_eq!(keeper.status().state(), GrantState::Good);
}

#[test]
fn a_lease_that_is_written_too_late_sends_nothing() {
    let folder = Folder::new();
    let (app, store, server) = granted(&folder, |number| (JSON, good(number)));
    let app = app.with_deadline(Duration::from_secs(1));
    let settings = quick().with_lease(Duration::from_millis(1500));
    let late = Late(store, Duration::from_millis(1200));
    let keeper = TokenKeeper::start(app, late, settings).unwrap();
    refused_once(&keeper);
    eventually("the failure", || keeper.status().health().problem() == Some(&GrantError::SlowStore));
    assert_eq!(keeper.status().state(), GrantState::Good, "nothing is in doubt");
    assert_eq!(server.requests().len(), 1, "the exchange alone");
}

#[test]
fn a_server_that_could_not_be_reached_leaves_no_doubt() {
    // It takes the connection and says nothing in TLS, so nothing is sent until the deadline.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("https://{}", silent.local_addr().unwrap());
    let folder = Folder::new();
    let (app, store, other) = granted(&folder, |number| (JSON, good(number)));
    let there = store.read().unwrap().unwrap();
    let text = std::str::from_utf8(there.content().expose_secret()).unwrap();
    let text = text.replace(&format!("http://{}", other.address), &origin);
    store.write(&DocumentContent::from(text.into_bytes()), Some(there.version())).unwrap();
    let app = at_server(app, &origin).with_deadline(Duration::from_secs(1));
    let keeper = TokenKeeper::start(app, store.clone(), quick().with_lease(Duration::from_secs(1))).unwrap();
    refused_once(&keeper);
    eventually("the failure", || keeper.status().health().problem().is_some());
    assert!(matches!(
        keeper.status().health().problem(),
        Some(GrantError::Token(TokenError::Unreachable(_)))
    ));
    assert_eq!(keeper.status().state(), GrantState::Good, "{}", keeper.status());
    let text = String::from_utf8(store.read().unwrap().unwrap().content().expose_secret().to_vec()).unwrap();
    assert!(text.contains("\"lease\": null"), "{text}");
}

#[test]
fn a_lease_shorter_than_the_deadline_is_refused() {
    let folder = Folder::new();
    let (app, store, _server) = granted(&folder, |number| (JSON, good(number)));
    let start = |deadline: u64, lease: u64| {
        let app = app.clone().with_deadline(Duration::from_secs(deadline));
        let settings = quick().with_lease(Duration::from_secs(lease));
        TokenKeeper::start(app, store.clone(), settings).map(|_| ())
    };
    let error = start(10, 9).unwrap_err();
    assert!(matches!(error, GrantError::LeaseTooShort { .. }), "{error}");
    assert!(error.to_string().contains("9s") && error.to_string().contains("10s"), "{error}");
    assert_eq!(start(9, 9), Ok(()));
}

#[test]
fn a_lease_is_10_ms_at_least_and_a_day_at_most() {
    let day = Duration::from_secs(24 * 60 * 60);
    let least = Duration::from_millis(10);
    for (asked, kept) in
        [(Duration::ZERO, least), (least, least), (day, day), (Duration::MAX, day), (day * 2, day)]
    {
        let settings = KeeperSettings::new().with_lease(asked);
        assert!(format!("{settings:?}").contains(&format!("lease: {kept:?}")), "{settings:?}");
    }
}

#[test]
fn tokens_that_a_store_did_not_take_are_saved_elsewhere() {
    use crate::slow_stores::Failing;

    let folder = Folder::new();
    let (app, _, _server) = granted(&folder, |number| (JSON, good(number)));
    let (broken, place, third) = (Failing::default(), MemoryStore::new(), MemoryStore::new());
    broken.fail.store(u32::MAX, Ordering::SeqCst);
    let tokens = exchange(&app).unwrap();
    assert!(tokens.save(&broken).is_err());
    tokens.save(&place).unwrap();
    let version = *place.read().unwrap().unwrap().version();
    // Once more is no harm, and another place would use one refresh token twice.
    tokens.save(&place).unwrap();
    assert_eq!(*place.read().unwrap().unwrap().version(), version);
    assert_eq!(tokens.save(&third), Err(GrantError::SavedElsewhere));
    assert!(third.read().unwrap().is_none());
    // Written, and said not to be.
    let writes = Failing { writes: true, ..Failing::default() };
    writes.fail.store(1, Ordering::SeqCst);
    let tokens = exchange(&app).unwrap();
    assert!(tokens.save(&writes).is_err());
    let version = *writes.read().unwrap().unwrap().version();
    tokens.save(&writes).unwrap();
    assert_eq!(*writes.read().unwrap().unwrap().version(), version, "it is found there");
}

#[test]
fn a_missing_secret_is_reported_before_the_browser_opens() {
    use keysheath::source::{Problem, SecretFile};

    let folder = Folder::new();
    let app = |name: &str| OAuthApp::katana("shop-sync", SecretFile::new(folder.at(name))).unwrap();
    let error = app("not-there").sign_in("http://127.0.0.1:1/callback").unwrap_err();
    let SignInError::Secret(place) = &error else { panic!("{error}") };
    assert!(matches!(place.problem(), Problem::Missing { .. }), "{error}");
    assert!(error.to_string().contains(folder.at("not-there").to_str().unwrap()), "{error}");
    let says = |part: &str| error.to_string().contains(part);
    assert!(says("the client secret is missing") && says("put it there before a person signs in"), "{error}");
    assert!(!says("the key"), "{error}");
    folder.write("bad", "x y");
    let error = app("bad").sign_in("http://127.0.0.1:1/callback").unwrap_err();
    assert!(matches!(error, SignInError::Secret(_)), "{error}");
    assert!(error.to_string().contains(folder.at("bad").to_str().unwrap()), "{error}");
    folder.write("good", CLIENT_SECRET);
    assert!(app("good").sign_in("http://127.0.0.1:1/callback").is_ok());
}
