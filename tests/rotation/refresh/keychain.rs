//! A keychain that changes, locks and goes away while a refresher reads it, against a real Secret Service; P6
//! among it: below it in the chain stands a file with a good key of another account.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::{ApiKey, Kanal};
use keysheath::refresh::{RefreshSettings, Refresher, ReloadProblem};
use keysheath::source::{Absence, CallError, Keychain, KeychainItem, Problem, SecretFile};
use keysheath::store::{DocumentError, KeychainStore};

use crate::support::KEY;
use crate::support::refreshing::{
    PATIENCE, SECOND, THIRD, activate, eventually, has, key_set, only_asked, parsed, persist, quick, quickly,
};
use crate::support::secret_service::{Bus, in_session, store_with_secret_tool, with_keychain};

/// Where a deadline is under test.
const SHORT: Duration = Duration::from_millis(600);

fn folder() -> PathBuf {
    PathBuf::from(env::var_os("XDG_RUNTIME_DIR").expect("runs in a session"))
}

fn patient() -> Keychain {
    Keychain::new().with_deadline(PATIENCE)
}

fn save(key: &str) {
    let key = ApiKey::<Kanal>::parse(key).unwrap();
    patient().save("kanal", key.as_raw()).unwrap();
}

/// With the key in the keychain, and another one in the file below it.
fn of_item(settings: RefreshSettings) -> Refresher<Kanal> {
    save(KEY);
    let lower = folder().join("lower");
    std::fs::write(&lower, THIRD).unwrap();
    let item = KeychainItem::new(patient(), "kanal");
    let chain = Chain::new().with(item).with(SecretFile::new(lower));
    Refresher::from_chain(chain, settings.with_deadline(PATIENCE)).unwrap()
}

#[track_caller]
fn fails(refresher: &Refresher<Kanal>, expected: impl Fn(&ReloadProblem) -> bool) {
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    let problem = refresher.status().health().problem().unwrap().problem().clone();
    assert!(expected(&problem), "{problem}");
    assert!(has(&refresher.handle(), KEY), "another key is active");
}

fn is(expected: Problem) -> impl Fn(&ReloadProblem) -> bool {
    move |problem| *problem == ReloadProblem::Source(expected.clone())
}

#[test]
fn an_item_that_is_replaced_comes_into_force() {
    with_keychain("keychain::an_item_that_is_replaced_comes_into_force", |_| {
        let refresher = of_item(quick());
        save(SECOND);
        eventually("it is polled", || has(&refresher.handle(), SECOND));
    });
}

#[test]
fn a_bad_item_keeps_the_last_good_key_and_no_fallback_is_read() {
    with_keychain("keychain::a_bad_item_keeps_the_last_good_key_and_no_fallback_is_read", |service| {
        let refresher = of_item(only_asked());
        let store = |text: &str| {
            store_with_secret_tool(&["service", Keychain::SERVICE, "username", "kanal"], text);
        };
        assert!(patient().delete("kanal").unwrap());
        fails(&refresher, |problem| *problem == ReloadProblem::Absent(Absence::NoItem));
        store("");
        fails(&refresher, is(Problem::Empty));
        store(&format!("{SECOND}\n\n"));
        fails(&refresher, |problem| matches!(problem, ReloadProblem::Source(Problem::Malformed(_))));
        store(KEY);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
        service.end_daemon();
        fails(&refresher, is(Problem::NoKeychain));
        service.restart();
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
        save(SECOND);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    });
}

#[test]
fn a_keychain_locked_midway_keeps_the_key_until_it_is_unlocked() {
    with_keychain("keychain::a_keychain_locked_midway_keeps_the_key_until_it_is_unlocked", |service| {
        let refresher = of_item(only_asked());
        let document = KeychainStore::new(patient(), "kanal-keys", folder().join("lock"));
        let keys = key_set(&[KEY]);
        persist(&document, &keys.to_document());
        let of_store =
            Refresher::<Kanal>::from_store(document.clone(), only_asked().with_deadline(PATIENCE)).unwrap();
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
        service.lock();
        fails(&refresher, is(Problem::NoAccess));
        fails(&of_store, |problem| {
            *problem == ReloadProblem::Document(DocumentError::Unavailable(Problem::NoAccess))
        });
        // Restarted, it is unlocked.
        service.restart();
        for refresher in [&refresher, &of_store] {
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
            assert_eq!(refresher.status().health().consecutive_failures(), 0);
        }
        activate(&keys, SECOND);
        persist(&document, &keys.to_document());
        assert_eq!(of_store.refresh_now(PATIENCE), Some(Reload::Newer));
        keys.compromise(parsed(SECOND).fingerprint().unwrap()).unwrap();
        persist(&document, &keys.to_document());
        assert_eq!(of_store.refresh_now(PATIENCE), Some(Reload::Newer));
        assert!(has(&of_store.handle(), KEY), "the previous key is active again");
    });
}

#[test]
fn an_unanswered_prompt_ends_at_the_refreshers_deadline() {
    in_session("keychain::an_unanswered_prompt_ends_at_the_refreshers_deadline", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        save(KEY);
        // Its own deadline is longer; a call that hangs is left to it.
        let item = KeychainItem::new(patient().with_deadline(SHORT * 4), "kanal");
        let settings = only_asked().with_deadline(SHORT);
        let refresher = Refresher::from_chain(Chain::<Kanal>::new().with(item), settings).unwrap();
        service.lock();
        fails(&refresher, is(Problem::Call(CallError::Deadline { after: SHORT })));
        service.wait_for_prompt();
        service.restart();
        eventually("it recovers", || refresher.refresh_now(PATIENCE) == Some(Reload::Unchanged));
    });
}

#[test]
fn a_refresher_recovers_from_abandoned_prompts_by_itself() {
    in_session("keychain::a_refresher_recovers_from_abandoned_prompts_by_itself", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        save(KEY);
        let item = KeychainItem::new(patient().with_deadline(SHORT), "kanal");
        let settings = quick()
            .with_deadline(PATIENCE)
            .with_cadence(quickly().with_minimum_interval(Duration::from_millis(10)));
        let refresher = Refresher::from_chain(Chain::<Kanal>::new().with(item), settings).unwrap();
        service.lock();
        // More than may hang at once.
        let failed = |count| {
            move |refresher: &Refresher<Kanal>| refresher.status().health().consecutive_failures() >= count
        };
        for count in 1..=6 {
            let _ = refresher.refresh_now(PATIENCE);
            eventually("an attempt fails", || failed(count)(&refresher));
        }
        service.restart();
        save(SECOND);
        // No person and no program asks it to.
        eventually("it recovers", || has(&refresher.handle(), SECOND));
        assert!(refresher.status().health().problem().is_none());
    });
}
