//! Signing in at a real server.

use keysheath::emulator::Emulator;
use keysheath::key::{Issuer as _, Katana, RawKey};
use keysheath::oauth::{LoopbackListener, SignIn, SignInError, TokenError, TokenKeeper};
use keysheath::source::{Problem, SecretFile};
use keysheath::store::{DocumentStore as _, MemoryStore};

use crate::support::oidc::{Browser, Decision, Oidc, PATIENCE, eventually, visit};
use crate::{products, quick};

/// The query of the address that the server sends back to.
fn query(back: &str) -> &str {
    back.split_once('?').unwrap().1
}

fn begun(oidc: &Oidc) -> SignIn {
    oidc.app().sign_in("http://127.0.0.1:1/callback").unwrap()
}

#[test]
fn a_person_signs_in_by_loopback_and_the_token_works_as_a_key() {
    let oidc = Oidc::start("");
    let tokens = oidc.sign_in();
    assert_eq!(tokens.lifetime().as_secs(), 3600);
    // The emulator takes the text of the token for a key of Katana's that it has made.
    let as_key = RawKey::parse(Katana::PROFILE, tokens.access().expose_secret().as_bytes()).unwrap();
    let emulator = Emulator::katana().with_key(as_key).start().unwrap();
    let store = MemoryStore::new();
    tokens.save(&store).unwrap();
    let keeper = TokenKeeper::start(oidc.app(), store, quick()).unwrap();
    let (status, sent) = products(&keeper.handle(), emulator.origin());
    assert_eq!((status, sent.is_repeated()), (200, false));
    // And the server's own API takes it as well.
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 200);
    assert_eq!(keeper.status().health().consecutive_failures(), 0, "{}", keeper.status());
}

#[test]
fn a_person_who_refuses_is_reported_and_sees_no_change() {
    let oidc = Oidc::start("");
    let app = oidc.app();
    let listener = LoopbackListener::bind(0).unwrap();
    let sign_in = app.sign_in(listener.redirect_uri()).unwrap();
    let url = sign_in.url().to_owned();
    let person = std::thread::spawn(move || visit(&Browser::default().sign_in(&url, Decision::Deny)));
    assert_eq!(listener.wait(&sign_in, PATIENCE).unwrap_err(), SignInError::Denied);
    let page = person.join().unwrap();
    assert!(page.body.contains("You did not let the program in"), "{}", page.body);
    assert_eq!(oidc.count("exchanged"), 0);
}

#[test]
fn an_answer_is_good_for_its_own_sign_in_and_no_other() {
    let oidc = Oidc::start("");
    let (mine, other) = (begun(&oidc), begun(&oidc));
    let back = Browser::default().sign_in(mine.url(), Decision::Agree);
    assert_eq!(other.answer(query(&back)).unwrap_err(), SignInError::WrongState);
    // A code that was slipped in with the right state fails at the server, because the verifier is another
    // sign-in's.
    let code = mine.answer(query(&back)).unwrap();
    let error = oidc.app().exchange(other, code).unwrap_err();
    assert!(error.refuses_grant(), "{error}");
}

#[test]
fn a_code_that_is_used_twice_revokes_what_it_has_brought() {
    let oidc = Oidc::start("");
    // Without PKCE, so that another sign-in can bring the code a second time.
    let app = oidc.app().without_pkce();
    let begun = || app.sign_in("http://127.0.0.1:1/callback").unwrap();
    let (sign_in, again) = (begun(), begun());
    let back = Browser::default().sign_in(sign_in.url(), Decision::Agree);
    let code = sign_in.answer(query(&back)).unwrap();
    let second = sign_in.answer(query(&back)).unwrap();
    let store = MemoryStore::new();
    app.exchange(sign_in, code).unwrap().save(&store).unwrap();
    let error = app.exchange(again, second).unwrap_err();
    assert!(error.refuses_grant(), "{error}");
    let keeper = TokenKeeper::start(app, store, quick()).unwrap();
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 401, "the server has revoked the grant");
    eventually("a refused grant", || keeper.status().state() == keysheath::oauth::GrantState::Refused);
}

#[test]
fn a_code_that_is_too_old_is_refused() {
    let oidc = Oidc::start("\"codeTtl\": 1");
    let sign_in = begun(&oidc);
    let back = Browser::default().sign_in(sign_in.url(), Decision::Agree);
    let code = sign_in.answer(query(&back)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let error = oidc.app().exchange(sign_in, code).unwrap_err();
    assert_eq!(error, TokenError::Refused { status: 400 });
}

#[test]
fn without_pkce_the_same_server_takes_the_code_too() {
    let oidc = Oidc::start("");
    let app = oidc.app().without_pkce();
    let sign_in = app.sign_in("http://127.0.0.1:1/callback").unwrap();
    assert!(!sign_in.url().contains("code_challenge"));
    let back = Browser::default().sign_in(sign_in.url(), Decision::Agree);
    let code = sign_in.answer(query(&back)).unwrap();
    assert!(app.exchange(sign_in, code).is_ok());
}

#[test]
fn a_wrong_client_secret_refuses_the_app_and_not_the_grant() {
    let oidc = Oidc::start("");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let exchange = |app: &keysheath::oauth::OAuthApp<_>| {
        let sign_in = begun(&oidc);
        let back = Browser::default().sign_in(sign_in.url(), Decision::Agree);
        let code = sign_in.answer(query(&back)).unwrap();
        app.exchange(sign_in, code).map(|_| ()).unwrap_err()
    };
    let app = crate::support::oidc::app_at(oidc.port, &path);
    let TokenError::Secret(error) = exchange(&app) else { panic!("there is no such file") };
    assert!(matches!(error.problem(), Problem::Missing { .. }), "{error}");
    assert!(TokenError::Secret(error).to_string().contains("no sign-in can be finished without it"));
    std::fs::write(&path, "not the secret").unwrap();
    assert!(matches!(exchange(&app), TokenError::Secret(_)), "it is malformed");
    std::fs::write(&path, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    assert_eq!(exchange(&app), TokenError::AppRefused { status: 401, code: "invalid_client" });
}

#[test]
fn the_url_has_katanas_parameters_and_state_and_pkce() {
    let folder = crate::support::Folder::new();
    let secret = SecretFile::new(folder.write("client-secret", crate::support::oidc::CLIENT_SECRET));
    let app = keysheath::oauth::OAuthApp::katana("an-app", secret).unwrap();
    let sign_in = app.sign_in("https://shop.example/back?x=1").unwrap();
    let (endpoint, query) = sign_in.url().split_once('?').unwrap();
    assert_eq!(endpoint, "https://login.katanamrp.com/authorize");
    let fields: Vec<&str> = query.split('&').collect();
    assert_eq!(
        fields[..5],
        [
            "response_type=code",
            "client_id=an-app",
            "redirect_uri=https%3A%2F%2Fshop.example%2Fback%3Fx%3D1",
            "scope=offline_access",
            "audience=https%3A%2F%2Fapi.katanamrp.com",
        ]
    );
    let value = |name: &str| fields.iter().find_map(|field| field.strip_prefix(name)).unwrap();
    assert_eq!((value("state=").len(), value("code_challenge=").len()), (43, 43));
    assert_eq!(value("code_challenge_method="), "S256");
    assert_ne!(app.sign_in("https://shop.example/back").unwrap().url(), sign_in.url());
}

#[test]
fn signing_in_again_replaces_only_the_grant() {
    let oidc = Oidc::start("");
    let store = MemoryStore::new();
    oidc.grant_in(&store);
    let keeper = TokenKeeper::start(oidc.app(), store.clone(), quick()).unwrap();
    let first = keeper.handle().load().unwrap();
    oidc.grant_in(&store);
    eventually("the new token", || keeper.handle().load().unwrap().generation() > first.generation());
    assert_eq!(products(&keeper.handle(), &oidc.origin()).0, 200);
    drop(keeper);

    let version = *store.read().unwrap().unwrap().version();
    store.write(&keysheath::store::DocumentContent::from(b"{}".to_vec()), Some(&version)).unwrap();
    assert!(oidc.sign_in().save(&store).is_err(), "what is there may be somebody's");
}
