//! Keychains that do not show what they hold while they are locked, as `KeePassXC` does.

use super::*;
use crate::support::fake_secret_service::{Person, StandIn};

use keysheath::source::CallError;
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, KeychainStore};

/// Runs `body` in a child with a stand-in of these collections.
fn with_stand_in(name: &'static str, collections: &[&str], body: impl FnOnce(&StandIn)) {
    in_session(name, || {
        let _bus = Bus::start();
        body(&StandIn::start(collections));
    });
}

fn store() -> KeychainStore {
    let folder = env::var_os("XDG_RUNTIME_DIR").expect("runs in a session");
    KeychainStore::new(patient(), "keys", std::path::Path::new(&folder).join("lock"))
}

fn text(text: &str) -> DocumentContent {
    DocumentContent::from(text.as_bytes().to_vec())
}

#[test]
fn a_stand_in_holds_what_is_saved_as_a_keychain_does() {
    with_stand_in("hidden::a_stand_in_holds_what_is_saved_as_a_keychain_does", &["shop"], |stand_in| {
        let keychain = patient();
        assert_absent(&keychain, "kanal");
        save(&keychain, "kanal", KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
        save(&keychain, "kanal", OTHER_KEY).unwrap();
        assert_holds(&patient(), "kanal", OTHER_KEY);
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
        assert!(keychain.delete("kanal").unwrap());
        assert_absent(&keychain, "kanal");
        assert_eq!((stand_in.items(), stand_in.prompted()), (0, 0));
    });
}

#[test]
fn what_a_locked_collection_hides_is_unlocked_for_every_call() {
    with_stand_in(
        "hidden::what_a_locked_collection_hides_is_unlocked_for_every_call",
        &["shop"],
        |stand_in| {
            let keychain = patient();
            save(&keychain, "kanal", KEY).unwrap();
            let mut prompts = 0;
            let mut locked = |call: &dyn Fn()| {
                stand_in.lock("shop");
                call();
                prompts += 1;
                assert_eq!(stand_in.prompted(), prompts, "a person is asked once");
            };
            locked(&|| assert_holds(&keychain, "kanal", KEY));
            locked(&|| save(&keychain, "kanal", OTHER_KEY).unwrap());
            locked(&|| assert_eq!(keychain.list().unwrap(), ["kanal"]));
            locked(&|| assert_eq!(keychain.load_all("kanal", Kanal::PROFILE).unwrap().len(), 1));
            assert_eq!(stand_in.items(), 1, "no second item was made");
            locked(&|| assert!(keychain.delete("kanal").unwrap()));
            // Once it is unlocked, absence is proved.
            locked(&|| assert_absent(&keychain, "kanal"));
        },
    );
}

#[test]
fn what_a_locked_collection_may_hide_is_not_absent() {
    with_stand_in("hidden::what_a_locked_collection_may_hide_is_not_absent", &["shop"], |stand_in| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        stand_in.lock("shop");
        stand_in.person(Person::Dismisses);
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoAccess }; 4]);
        let message = load(&keychain, "kanal").expect_err("locked").to_string();
        assert!(message.contains("may be in any locked collection"), "{message}");
        stand_in.person(Person::IsAway);
        assert_eq!(
            every_call(&impatient(), SHORT),
            [const { Problem::Call(CallError::Deadline { after: SHORT }) }; 4]
        );
        assert_eq!(stand_in.items(), 1);
        stand_in.person(Person::Unlocks);
        assert_holds(&keychain, "kanal", KEY);
    });
}

#[test]
fn a_second_collection_that_is_locked_may_hide_it_too() {
    with_stand_in(
        "hidden::a_second_collection_that_is_locked_may_hide_it_too",
        &["shop", "private"],
        |stand_in| {
            stand_in.lock("private");
            stand_in.person(Person::Dismisses);
            let keychain = patient();
            assert_eq!(every_call(&keychain, LONG), [const { Problem::NoAccess }; 4]);
            // The way out, for a collection that cannot be unlocked.
            let of_default = patient().with_default_collection_only();
            assert_absent(&of_default, "kanal");
            assert_eq!(of_default.list().unwrap(), Vec::<String>::new());
            assert!(!of_default.delete("kanal").unwrap());
            save(&of_default, "kanal", KEY).unwrap();
            assert_holds(&of_default, "kanal", KEY);
            // What is found is found.
            assert_holds(&keychain, "kanal", KEY);
            assert_eq!(problem(keychain.list()), Problem::NoAccess);
        },
    );
}

#[test]
fn a_service_without_collections_shows_and_proves_nothing() {
    with_stand_in("hidden::a_service_without_collections_shows_and_proves_nothing", &["shop"], |stand_in| {
        stand_in.close_databases();
        for keychain in [patient(), patient().with_default_collection_only()] {
            assert_eq!(every_call(&keychain, LONG), [const { Problem::NoAccess }; 4]);
        }
    });
}

#[test]
fn a_key_set_in_a_locked_keychain_is_not_begun_a_second_time() {
    with_stand_in(
        "hidden::a_key_set_in_a_locked_keychain_is_not_begun_a_second_time",
        &["shop"],
        |stand_in| {
            let store = store();
            store.write(&text("first"), None).unwrap();
            stand_in.lock("shop");
            stand_in.person(Person::Dismisses);
            let unavailable = || DocumentError::Unavailable(Problem::NoAccess);
            assert_eq!(store.read().unwrap_err(), unavailable());
            // Another process, which has seen nothing yet.
            let fresh = self::store();
            assert_eq!(fresh.read().unwrap_err(), unavailable());
            assert_eq!(fresh.write(&text("a second beginning"), None).unwrap_err(), unavailable());
            assert_eq!(stand_in.items(), 1);
            stand_in.person(Person::Unlocks);
            assert_eq!(fresh.write(&text("a second beginning"), None), Err(DocumentError::Conflict));
            assert_eq!(fresh.read().unwrap().unwrap().content().expose_secret(), b"first");
        },
    );
}

#[test]
fn a_keychain_that_asks_before_it_writes_is_answered_or_not() {
    with_stand_in(
        "hidden::a_keychain_that_asks_before_it_writes_is_answered_or_not",
        &["shop"],
        |stand_in| {
            stand_in.asks_to_write();
            stand_in.person(Person::Dismisses);
            assert_eq!(problem(save(&patient(), "kanal", KEY)), Problem::NoAccess);
            assert_eq!(stand_in.items(), 0);
            stand_in.person(Person::Unlocks);
            save(&patient(), "kanal", KEY).unwrap();
            assert_holds(&patient(), "kanal", KEY);
        },
    );
}

#[test]
fn a_prompt_to_write_ends_when_its_service_is_gone() {
    in_session("hidden::a_prompt_to_write_ends_when_its_service_is_gone", || {
        let _bus = Bus::start();
        let stand_in = StandIn::start(&["shop"]);
        stand_in.asks_to_write();
        stand_in.person(Person::IsAway);
        let late = Problem::Call(CallError::Deadline { after: SHORT });
        for _ in 0..MAX_CALLS_PER_PLACE {
            assert_eq!(problem(save(&impatient(), "kanal", KEY)), late);
        }
        let stuck = Problem::Call(CallError::Stuck { count: MAX_CALLS_PER_PLACE });
        assert_eq!(problem(load(&patient(), "kanal")), stuck);
        drop(stand_in);
        let _stand_in = StandIn::start(&["shop"]);
        eventually(|| matches!(load(&patient(), "kanal"), Ok(Loaded::Absent(_))));
    });
}

#[test]
fn a_write_that_hangs_keeps_its_lock_until_it_is_done() {
    with_stand_in("hidden::a_write_that_hangs_keeps_its_lock_until_it_is_done", &["shop"], |stand_in| {
        let first = store().write(&text("first"), None).unwrap();
        let folder = env::var_os("XDG_RUNTIME_DIR").expect("runs in a session");
        let lock = std::path::Path::new(&folder).join("lock");
        let hurried = KeychainStore::new(impatient(), "keys", lock).with_deadline(SHORT);
        stand_in.holds_writes(true);
        let late = hurried.write(&text("late"), Some(&first));
        assert_eq!(
            late,
            Err(DocumentError::Unavailable(Problem::Call(CallError::Deadline { after: SHORT })))
        );
        // It may still be done, so nothing may be written meanwhile.
        let next = hurried.write(&text("next"), Some(&first));
        assert_eq!(next, Err(DocumentError::Locked { after: SHORT }));
        stand_in.holds_writes(false);
        eventually(|| store().read().is_ok_and(|read| read.unwrap().content().expose_secret() == b"late"));
    });
}
