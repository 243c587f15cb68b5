//! The keychain against a real Secret Service: what it holds, who else reads and writes it, and every way in
//! which it does not answer.
#![cfg(all(feature = "keychain", target_os = "linux"))]

mod support;

use std::env;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keysheath::format::Hint;
use keysheath::issuer::{Issuer, Kanal, Katana};
use keysheath::key::ApiKey;
use keysheath::source::{
    self, Absence, Keychain, KeychainItem, Loaded, MAX_STUCK, Problem, Source, SourceError,
};

use support::canary::assert_hides;
use support::child::in_child;
use support::in_time::in_time;
use support::secret_service::{
    Bus, in_session, private_folder, secret_tool, store_with_secret_tool, with_keychain,
};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
const OTHER_KEY: &str = "hY5nRt8Qz2Lw7Jd4Xk9Gv3Ba";

/// Where a deadline is under test.
const SHORT: Duration = Duration::from_millis(600);
/// Where it is not.
const LONG: Duration = Duration::from_secs(20);

fn patient() -> Keychain {
    Keychain::new().with_deadline(LONG)
}

fn impatient() -> Keychain {
    Keychain::new().with_deadline(SHORT)
}

fn save(keychain: &Keychain, name: &str, key: &str) -> Result<(), SourceError> {
    let key = ApiKey::<Kanal>::parse(key).expect("well-formed");
    let (keychain, name) = (keychain.clone(), name.to_owned());
    in_time(LONG, move || keychain.save(&name, key.as_raw()))
}

fn load(keychain: &Keychain, name: &str) -> Result<Loaded, SourceError> {
    load_from(KeychainItem::new(keychain.clone(), name))
}

fn load_from(source: impl Source + 'static) -> Result<Loaded, SourceError> {
    in_time(LONG, move || source::load(&source, Kanal::PROFILE))
}

#[track_caller]
fn assert_holds(keychain: &Keychain, name: &str, key: &str) {
    match load(keychain, name) {
        Ok(Loaded::Found(found)) => assert_eq!(found.key().expose_secret(), key),
        other => panic!("no key of {name}: {other:?}"),
    }
}

#[track_caller]
fn assert_absent(keychain: &Keychain, name: &str) {
    assert!(matches!(load(keychain, name), Ok(Loaded::Absent(Absence::NoItem))));
}

/// The problem of an outcome that says where it is and shows nothing of either key.
#[track_caller]
fn problem<T: std::fmt::Debug>(outcome: Result<T, SourceError>) -> Problem {
    let error = outcome.expect_err("it is broken");
    assert_hides(&error, KEY);
    assert_hides(&error, OTHER_KEY);
    assert!(error.to_string().starts_with("keychain item "), "{error}");
    error.problem().clone()
}

/// What every call on the keychain gives, each within `deadline`.
#[track_caller]
fn every_call(keychain: &Keychain, deadline: Duration) -> [Problem; 4] {
    let key = ApiKey::<Kanal>::parse(KEY).expect("well-formed");
    let [a, b, c, d] = std::array::from_fn(|_| keychain.clone());
    [
        problem(in_time(deadline, move || source::load(&KeychainItem::new(a, "kanal"), Kanal::PROFILE))),
        problem(in_time(deadline, move || b.save("kanal", key.as_raw()))),
        problem(in_time(deadline, move || c.list())),
        problem(in_time(deadline, move || d.delete("kanal"))),
    ]
}

// What it holds.

#[test]
fn a_key_that_is_saved_is_loaded_listed_and_deleted() {
    with_keychain("a_key_that_is_saved_is_loaded_listed_and_deleted", |_| {
        let keychain = patient();
        assert_absent(&keychain, "kanal");
        assert_eq!(keychain.list().unwrap(), Vec::<String>::new());
        save(&keychain, "kanal", KEY).unwrap();
        save(&keychain, "a second shop", OTHER_KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
        assert_holds(&keychain, "a second shop", OTHER_KEY);
        assert_eq!(keychain.list().unwrap(), ["a second shop", "kanal"]);
        assert!(keychain.delete("kanal").unwrap());
        assert_absent(&keychain, "kanal");
        assert_holds(&keychain, "a second shop", OTHER_KEY);
        assert_eq!(keychain.list().unwrap(), ["a second shop"]);
    });
}

#[test]
fn a_key_that_is_saved_again_replaces_the_first() {
    with_keychain("a_key_that_is_saved_again_replaces_the_first", |_| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        save(&keychain, "kanal", OTHER_KEY).unwrap();
        assert_holds(&keychain, "kanal", OTHER_KEY);
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
    });
}

#[test]
fn deleting_what_is_not_there_says_so() {
    with_keychain("deleting_what_is_not_there_says_so", |_| {
        let keychain = patient();
        assert!(!keychain.delete("kanal").unwrap());
        save(&keychain, "kanal", KEY).unwrap();
        assert!(keychain.delete("kanal").unwrap());
        assert!(!keychain.delete("kanal").unwrap());
    });
}

#[test]
fn services_do_not_see_each_others_items() {
    with_keychain("services_do_not_see_each_others_items", |_| {
        let (ours, theirs) = (patient(), Keychain::of_service("shop-sync").with_deadline(LONG));
        save(&ours, "kanal", KEY).unwrap();
        assert_absent(&theirs, "kanal");
        assert_eq!(theirs.list().unwrap(), Vec::<String>::new());
        assert!(!theirs.delete("kanal").unwrap());
        save(&theirs, "kanal", OTHER_KEY).unwrap();
        assert_holds(&ours, "kanal", KEY);
        assert_holds(&theirs, "kanal", OTHER_KEY);
    });
}

#[test]
fn a_clone_and_a_new_value_see_what_was_saved() {
    with_keychain("a_clone_and_a_new_value_see_what_was_saved", |_| {
        let first = patient();
        save(&first, "kanal", KEY).unwrap();
        assert_holds(&first.clone(), "kanal", KEY);
        assert_holds(&patient(), "kanal", KEY);
    });
}

#[test]
fn a_name_that_cannot_be_stored_is_refused_by_every_call_and_nothing_is_stored() {
    let name = "a_name_that_cannot_be_stored_is_refused_by_every_call_and_nothing_is_stored";
    with_keychain(name, |_| {
        let keychain = patient();
        let long = "n".repeat(256);
        for name in ["", "a/b", "a\nb", "a\0b", "a\u{7f}b", &long] {
            assert_eq!(problem(save(&keychain, name, KEY)), Problem::NotStorable, "{name:?}");
            assert_eq!(problem(load(&keychain, name)), Problem::NotStorable, "{name:?}");
            assert_eq!(problem(keychain.delete(name)), Problem::NotStorable, "{name:?}");
            let other = Keychain::of_service(name).with_deadline(LONG);
            assert_eq!(every_call(&other, LONG), [const { Problem::NotStorable }; 4], "{name:?}");
        }
        assert_eq!(keychain.list().unwrap(), Vec::<String>::new());
        // The longest name, spaces and other scripts can be.
        for name in ["n".repeat(255).as_str(), " ", "магазин", "a=b&c:d"] {
            save(&keychain, name, KEY).unwrap();
            assert_holds(&keychain, name, KEY);
        }
    });
}

// Other tools.

#[test]
fn secret_tool_reads_what_we_wrote_and_we_read_what_it_wrote() {
    with_keychain("secret_tool_reads_what_we_wrote_and_we_read_what_it_wrote", |_| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        let output = secret_tool(&["lookup", "service", "keysheath", "username", "kanal"], "");
        assert!(output.status.success());
        assert_eq!(output.stdout, KEY.as_bytes());

        store_with_secret_tool(&["service", "keysheath", "username", "theirs"], OTHER_KEY);
        assert_holds(&keychain, "theirs", OTHER_KEY);
        // The same attributes are the same item to both.
        store_with_secret_tool(&["service", "keysheath", "username", "kanal"], OTHER_KEY);
        assert_holds(&keychain, "kanal", OTHER_KEY);
        save(&keychain, "theirs", KEY).unwrap();
        assert_eq!(keychain.list().unwrap(), ["kanal", "theirs"]);

        let output = secret_tool(&["clear", "service", "keysheath", "username", "kanal"], "");
        assert!(output.status.success());
        assert_absent(&keychain, "kanal");
    });
}

#[test]
fn the_keyring_crate_reads_what_we_wrote_and_we_read_what_it_wrote_and_each_deletes() {
    let name = "the_keyring_crate_reads_what_we_wrote_and_we_read_what_it_wrote_and_each_deletes";
    with_keychain(name, |_| {
        let keychain = patient();
        let entry = |name| keyring::v1::Entry::new(Keychain::SERVICE, name).expect("it has its store");
        save(&keychain, "ours", KEY).unwrap();
        assert_eq!(entry("ours").get_password().unwrap(), KEY);
        entry("theirs").set_password(OTHER_KEY).unwrap();
        assert_holds(&keychain, "theirs", OTHER_KEY);
        assert_eq!(keychain.list().unwrap(), ["ours", "theirs"]);

        entry("ours").set_secret(OTHER_KEY.as_bytes()).unwrap();
        assert_holds(&keychain, "ours", OTHER_KEY);
        save(&keychain, "theirs", KEY).unwrap();
        assert_eq!(entry("theirs").get_secret().unwrap(), KEY.as_bytes());

        entry("ours").delete_credential().unwrap();
        assert_absent(&keychain, "ours");
        assert!(keychain.delete("theirs").unwrap());
        assert!(matches!(entry("theirs").get_secret(), Err(keyring::v1::Error::NoEntry)));
    });
}

#[test]
fn an_item_with_a_trailing_newline_is_malformed_and_the_hint_says_so() {
    with_keychain("an_item_with_a_trailing_newline_is_malformed_and_the_hint_says_so", |_| {
        store_with_secret_tool(&["service", "keysheath", "username", "kanal"], &format!("{KEY}\n"));
        let outcome = load(&patient(), "kanal");
        let message = outcome.as_ref().expect_err("malformed").to_string();
        let Problem::Malformed(error) = problem(outcome) else { panic!("{message}") };
        assert_eq!(error.hint(), Some(Hint::TrailingNewline));
        assert!(message.contains("it ends with a line break: remove it"), "{message}");
        assert!(message.starts_with("keychain item keysheath/kanal: "), "{message}");
    });
}

#[test]
fn an_empty_item_is_malformed_and_not_absent() {
    with_keychain("an_empty_item_is_malformed_and_not_absent", |_| {
        store_with_secret_tool(&["service", "keysheath", "username", "kanal"], "");
        let keychain = patient();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::Empty);
        let encoded = KeychainItem::new(keychain.clone(), "kanal").base64();
        assert_eq!(problem(load_from(encoded)), Problem::Empty);
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
    });
}

#[test]
fn an_item_of_another_issuers_format_is_malformed() {
    with_keychain("an_item_of_another_issuers_format_is_malformed", |_| {
        let katana = "a1B2c3D4-e5F6-4a7B-8c9D-0e1F2a3B4c5D";
        let key = ApiKey::<Katana>::parse(katana).unwrap();
        let keychain = patient();
        keychain.save("katana", key.as_raw()).unwrap();
        let outcome = load(&keychain, "katana");
        assert_hides(outcome.as_ref().expect_err("not Kanal's"), katana);
        assert!(matches!(problem(outcome), Problem::Malformed(_)));
        let item = KeychainItem::new(keychain, "katana");
        assert!(matches!(source::load(&item, Katana::PROFILE), Ok(Loaded::Found(_))));
    });
}

#[test]
fn an_item_that_is_not_text_is_malformed() {
    with_keychain("an_item_that_is_not_text_is_malformed", |_| {
        let bytes: Vec<u8> = (0..24).map(|byte| byte | 0x80).collect();
        keyring::v1::Entry::new(Keychain::SERVICE, "kanal").unwrap().set_secret(&bytes).unwrap();
        assert!(matches!(problem(load(&patient(), "kanal")), Problem::Malformed(_)));
    });
}

#[test]
fn an_item_in_base64_is_decoded_when_asked_for_and_malformed_otherwise() {
    with_keychain("an_item_in_base64_is_decoded_when_asked_for_and_malformed_otherwise", |_| {
        let keychain = patient();
        let encoded = STANDARD.encode(KEY);
        store_with_secret_tool(&["service", "keysheath", "username", "kanal"], &encoded);
        let source = KeychainItem::new(keychain.clone(), "kanal");
        let Ok(Loaded::Found(found)) = load_from(source.base64()) else { panic!("no key") };
        assert_eq!(found.key().expose_secret(), KEY);
        assert!(matches!(problem(load(&keychain, "kanal")), Problem::Malformed(_)));

        store_with_secret_tool(&["service", "keysheath", "username", "plain"], KEY);
        let source = KeychainItem::new(keychain, "plain").base64();
        assert!(matches!(problem(load_from(source)), Problem::Malformed(_) | Problem::NotBase64));
    });
}

#[test]
fn two_matching_items_are_ambiguous_and_the_message_says_what_to_do() {
    with_keychain("two_matching_items_are_ambiguous_and_the_message_says_what_to_do", |_| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        let second = ["service", "keysheath", "username", "kanal", "xdg:schema", "org.example.Other"];
        store_with_secret_tool(&second, OTHER_KEY);
        let outcome = load(&keychain, "kanal");
        let message = outcome.as_ref().expect_err("ambiguous").to_string();
        assert!(
            message.contains("2 items in the keychain match, from this tool or another one"),
            "{message}"
        );
        assert!(message.contains("secret-tool clear"), "{message}");
        assert_eq!(problem(outcome), Problem::Ambiguous { count: 2 });
        // None of the two is overwritten or deleted, and the list shows that there are two.
        assert_eq!(problem(save(&keychain, "kanal", KEY)), Problem::Ambiguous { count: 2 });
        assert_eq!(problem(keychain.delete("kanal")), Problem::Ambiguous { count: 2 });
        assert_eq!(keychain.list().unwrap(), ["kanal", "kanal"]);

        let third = ["service", "keysheath", "username", "kanal", "shop", "two"];
        store_with_secret_tool(&third, OTHER_KEY);
        assert_eq!(problem(load(&keychain, "kanal")), Problem::Ambiguous { count: 3 });

        // The remedy of the message works.
        assert!(secret_tool(&[&["clear"], &second[..]].concat(), "").status.success());
        assert!(secret_tool(&[&["clear"], &third[..]].concat(), "").status.success());
        assert_holds(&keychain, "kanal", KEY);
    });
}

// No keychain.

#[track_caller]
fn assert_no_keychain() {
    assert_eq!(every_call(&patient(), LONG), [const { Problem::NoKeychain }; 4]);
    let message = load(&patient(), "kanal").expect_err("there is none").to_string();
    assert!(
        message.contains("a Secret Service (such as gnome-keyring) must run on the session bus"),
        "{message}"
    );
    assert!(message.contains("DBUS_SESSION_BUS_ADDRESS"), "{message}");
}

#[test]
fn a_bus_address_where_nothing_listens_is_no_keychain() {
    in_session("a_bus_address_where_nothing_listens_is_no_keychain", assert_no_keychain);
}

#[test]
fn no_bus_address_and_no_bus_in_the_runtime_folder_is_no_keychain() {
    let folder = private_folder();
    let name = "no_bus_address_and_no_bus_in_the_runtime_folder_is_no_keychain";
    in_child(name, &[("XDG_RUNTIME_DIR", folder.path().as_os_str())], || {
        assert_eq!(env::var_os("DBUS_SESSION_BUS_ADDRESS"), None, "the child inherited a bus");
        assert_no_keychain();
    });
}

#[test]
fn a_bus_address_that_is_none_is_no_keychain() {
    for address in ["", "nonsense", "unix:path="] {
        let name = "a_bus_address_that_is_none_is_no_keychain";
        in_child(name, &[("DBUS_SESSION_BUS_ADDRESS", address)], assert_no_keychain);
    }
}

#[test]
fn a_bus_without_a_secret_service_is_no_keychain() {
    in_session("a_bus_without_a_secret_service_is_no_keychain", || {
        let _bus = Bus::start();
        assert_no_keychain();
    });
}

#[test]
fn a_keychain_that_comes_later_is_found_by_the_same_value() {
    in_session("a_keychain_that_comes_later_is_found_by_the_same_value", || {
        let keychain = patient();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::NoKeychain);
        let bus = Bus::start();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::NoKeychain);
        let _service = bus.with_daemon();
        save(&keychain, "kanal", KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
    });
}

#[test]
fn without_a_default_collection_nothing_is_there_and_nothing_can_be_saved() {
    in_session("without_a_default_collection_nothing_is_there_and_nothing_can_be_saved", || {
        let _service = Bus::start().with_daemon_without_collection();
        let keychain = patient();
        assert_absent(&keychain, "kanal");
        assert_eq!(keychain.list().unwrap(), Vec::<String>::new());
        assert!(!keychain.delete("kanal").unwrap());
        let outcome = save(&keychain, "kanal", KEY);
        let message = outcome.as_ref().expect_err("no collection").to_string();
        assert!(message.contains("it is locked, or it has no default collection"), "{message}");
        assert!(message.contains("unlock or create it"), "{message}");
        assert_eq!(problem(outcome), Problem::NoAccess);
    });
}

// Locked, stopped, restarted.

#[test]
fn a_locked_keychain_where_nobody_can_be_asked_refuses_every_call() {
    with_keychain("a_locked_keychain_where_nobody_can_be_asked_refuses_every_call", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.lock();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoAccess }; 4]);
        // A name that is not there yet: absent to a reader, and refused to a writer.
        assert_absent(&keychain, "other");
        assert_eq!(problem(save(&keychain, "other", KEY)), Problem::NoAccess);
        // What was refused has changed nothing.
        service.restart();
        assert_holds(&keychain, "kanal", KEY);
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
    });
}

#[test]
fn a_locked_keychain_whose_prompt_nobody_answers_ends_at_the_deadline() {
    in_session("a_locked_keychain_whose_prompt_nobody_answers_ends_at_the_deadline", || {
        let service = Bus::start_with_silent_prompter().with_daemon();
        save(&patient(), "kanal", KEY).unwrap();
        service.lock();
        let keychain = impatient();
        let start = Instant::now();
        let outcome = every_call(&keychain, SHORT);
        assert_eq!(outcome, [const { Problem::Deadline { after: SHORT } }; 4]);
        assert!(start.elapsed() >= SHORT * 4, "it did not wait for an answer");
        service.wait_for_prompt();
    });
}

#[test]
fn a_prompt_that_hangs_for_ever_does_not_block_the_same_value_later() {
    in_session("a_prompt_that_hangs_for_ever_does_not_block_the_same_value_later", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        let keychain = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
        service.lock();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::Deadline { after: SHORT });
        // The call still waits, with the store that it was given, for a prompt that is gone.
        service.restart();
        assert_holds(&keychain.with_deadline(LONG), "kanal", KEY);
    });
}

#[test]
fn a_prompt_that_is_dismissed_within_the_deadline_refuses_access() {
    in_session("a_prompt_that_is_dismissed_within_the_deadline_refuses_access", || {
        let service = Bus::start_with_silent_prompter().with_daemon();
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.lock();
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(&keychain, "kanal"));
            service.dismiss_prompt();
            assert_eq!(problem(loading.join().expect("no panic")), Problem::NoAccess);
        });
    });
}

#[test]
fn a_stopped_daemon_ends_at_the_deadline_and_works_once_it_goes_on() {
    with_keychain("a_stopped_daemon_ends_at_the_deadline_and_works_once_it_goes_on", |service| {
        let opened = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        assert_holds(&opened, "kanal", KEY);
        service.stop();
        // Both a store that was open before and one that is to be opened.
        for keychain in [&opened, &impatient()] {
            let outcome = load(keychain, "kanal");
            let message = outcome.as_ref().expect_err("it is stopped").to_string();
            assert!(message.contains("there was no answer within 600 ms"), "{message}");
            assert_eq!(problem(outcome), Problem::Deadline { after: SHORT });
        }
        service.resume();
        assert_holds(&opened.with_deadline(LONG), "kanal", KEY);
    });
}

#[test]
fn calls_that_hang_are_bounded_and_counted_off_when_they_return() {
    with_keychain("calls_that_hang_are_bounded_and_counted_off_when_they_return", |service| {
        let keychain = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
        service.stop();
        for _ in 0..MAX_STUCK {
            assert_eq!(problem(load(&keychain, "kanal")), Problem::Deadline { after: SHORT });
        }
        // At once, whatever is called, and for clones as well.
        let start = Instant::now();
        let stuck = [const { Problem::Stuck { count: MAX_STUCK } }; 4];
        assert_eq!(every_call(&keychain, SHORT), stuck);
        assert_eq!(every_call(&keychain.clone(), SHORT), stuck);
        assert!(start.elapsed() < SHORT, "it waited");
        service.resume();
        let patience = Instant::now() + LONG;
        while load(&keychain, "kanal").is_err() {
            assert!(Instant::now() < patience, "the calls were not counted off");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_holds(&keychain.with_deadline(LONG), "kanal", KEY);
    });
}

#[test]
fn a_save_that_passed_its_deadline_may_still_happen() {
    with_keychain("a_save_that_passed_its_deadline_may_still_happen", |service| {
        let keychain = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
        service.stop();
        assert_eq!(problem(save(&keychain, "kanal", OTHER_KEY)), Problem::Deadline { after: SHORT });
        service.resume();
        let patience = Instant::now() + LONG;
        let second = patient();
        loop {
            let Ok(Loaded::Found(found)) = load(&second, "kanal") else { panic!("no key") };
            if found.key().expose_secret() == OTHER_KEY {
                break;
            }
            assert!(Instant::now() < patience, "the documentation says that it may, and it never does");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn the_same_value_works_after_a_restart_of_the_daemon() {
    with_keychain("the_same_value_works_after_a_restart_of_the_daemon", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.restart();
        assert_holds(&keychain, "kanal", KEY);
        service.restart();
        save(&keychain, "kanal", OTHER_KEY).unwrap();
        service.restart();
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
        assert_holds(&keychain, "kanal", OTHER_KEY);
        service.restart();
        assert!(keychain.delete("kanal").unwrap());
        service.restart();
        assert_absent(&keychain, "kanal");
        save(&keychain, "kanal", KEY).unwrap();
    });
}

#[test]
fn a_daemon_or_a_bus_that_ends_is_no_keychain() {
    with_keychain("a_daemon_or_a_bus_that_ends_is_no_keychain", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.end_daemon();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoKeychain }; 4]);
        service.restart();
        assert_holds(&keychain, "kanal", KEY);
        service.end_bus();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoKeychain }; 4]);
    });
}

#[test]
fn a_daemon_that_ends_during_a_call_is_an_error_before_the_deadline() {
    with_keychain("a_daemon_that_ends_during_a_call_is_an_error_before_the_deadline", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.stop();
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(&keychain, "kanal"));
            std::thread::sleep(Duration::from_millis(300));
            service.end_daemon();
            assert_eq!(problem(loading.join().expect("no panic")), Problem::NoKeychain);
        });
    });
}
