//! The keychain against a real Secret Service: what it holds, who else reads and writes it, and every way in
//! which it does not answer.
#![cfg(all(feature = "keychain", target_os = "linux"))]

#[path = "../support/mod.rs"]
mod support;
mod p1_log;
mod p6_absent_is_not_broken;
mod hidden;
mod restarts;
mod unreachable;

use std::env;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keysheath::key::{ApiKey, Hint, Issuer, Kanal, Katana};
use keysheath::source::{
    self, Absence, Keychain, KeychainItem, Loaded, Problem, Resource, Source, SourceError,
};

use support::MAX_CALLS_PER_PLACE;
use support::canary::assert_hides;
use support::child::in_child;
use support::secret_service::{
    Bus, in_session, private_folder, secret_tool, store_with_secret_tool, with_keychain,
};
use support::waiting::in_time;

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

/// Waits until it is so.
#[track_caller]
fn eventually(is_so: impl Fn() -> bool) {
    let patience = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < patience, "it never comes");
        std::thread::sleep(Duration::from_millis(20));
    }
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
        let (ours, theirs) = (patient(), Keychain::for_service("shop-sync").with_deadline(LONG));
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
fn every_call_refuses_a_name_that_cannot_be_stored() {
    let name = "every_call_refuses_a_name_that_cannot_be_stored";
    with_keychain(name, |_| {
        let keychain = patient();
        let long = "n".repeat(256);
        for name in ["", "a/b", "a\nb", "a\0b", "a\u{7f}b", &long] {
            assert_eq!(problem(save(&keychain, name, KEY)), Problem::NotStorable, "{name:?}");
            assert_eq!(problem(load(&keychain, name)), Problem::NotStorable, "{name:?}");
            assert_eq!(problem(keychain.delete(name)), Problem::NotStorable, "{name:?}");
            let other = Keychain::for_service(name).with_deadline(LONG);
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
fn we_and_the_keyring_crate_read_and_delete_each_others_items() {
    let name = "we_and_the_keyring_crate_read_and_delete_each_others_items";
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
fn an_item_with_two_final_newlines_is_malformed_with_a_hint() {
    with_keychain("an_item_with_two_final_newlines_is_malformed_with_a_hint", |_| {
        store_with_secret_tool(&["service", "keysheath", "username", "kanal"], &format!("{KEY}\n\n"));
        let outcome = load(&patient(), "kanal");
        let message = outcome.as_ref().expect_err("malformed").to_string();
        let Problem::Malformed(error) = problem(outcome) else { panic!("{message}") };
        assert_eq!(error.hint(), Some(Hint::TrailingNewline));
        assert!(message.contains("it ends with a line break: remove it"), "{message}");
        assert!(message.starts_with("keychain item keysheath/kanal: "), "{message}");
        // One is removed, as of a file.
        store_with_secret_tool(&["service", "keysheath", "username", "kanal"], &format!("{KEY}\n"));
        assert!(matches!(load(&patient(), "kanal"), Ok(Loaded::Found(_))));
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
        assert_eq!(problem(outcome), Problem::OtherIssuer { other: "Katana", wanted: "Kanal" });
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
fn a_base64_item_is_decoded_on_request_else_malformed() {
    with_keychain("a_base64_item_is_decoded_on_request_else_malformed", |_| {
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
fn two_matching_items_are_ambiguous_and_the_error_helps() {
    with_keychain("two_matching_items_are_ambiguous_and_the_error_helps", |_| {
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
        for said in ["`Keychain::keep_one`", "alone deletes all of them", "`application` or `xdg:schema`"] {
            assert!(message.contains(said), "{message}");
        }
        assert_eq!(problem(outcome), Problem::Ambiguous { count: 2 });
        // None of the two is overwritten or deleted, and the list shows that there are two.
        assert_eq!(problem(save(&keychain, "kanal", KEY)), Problem::Ambiguous { count: 2 });
        assert_eq!(problem(keychain.delete("kanal")), Problem::Ambiguous { count: 2 });
        assert_eq!(keychain.list().unwrap(), ["kanal", "kanal"]);

        let third = ["service", "keysheath", "username", "kanal", "application", "shop two"];
        store_with_secret_tool(&third, OTHER_KEY);
        assert_eq!(problem(load(&keychain, "kanal")), Problem::Ambiguous { count: 3 });

        // The remedies of the message work, and keep the only copy.
        let by_attribute = |attribute: &[&str]| {
            let both = ["clear", "service", "keysheath", "username", "kanal"];
            assert!(secret_tool(&[&both, attribute].concat(), "").status.success());
        };
        by_attribute(&third[4..]);
        assert_eq!(problem(load(&keychain, "kanal")), Problem::Ambiguous { count: 2 });
        by_attribute(&second[4..]);
        assert_holds(&keychain, "kanal", KEY);
    });
}

#[test]
fn one_of_several_items_is_kept_by_the_key_that_it_holds() {
    with_keychain("one_of_several_items_is_kept_by_the_key_that_it_holds", |_| {
        let keychain = patient();
        let keys = || {
            let keys = keychain.load_all("kanal", Kanal::PROFILE).unwrap();
            let mut keys: Vec<String> = keys.iter().map(|key| key.expose_secret().to_owned()).collect();
            keys.sort();
            keys
        };
        let key = |text| ApiKey::<Kanal>::parse(text).unwrap();
        assert!(keys().is_empty());
        assert_eq!(keychain.keep_one("kanal", key(KEY).as_raw()).unwrap(), None);
        save(&keychain, "kanal", KEY).unwrap();
        save(&keychain, "another", KEY).unwrap();
        assert_eq!(keychain.keep_one("kanal", key(KEY).as_raw()).unwrap(), Some(0));
        for (attribute, text) in [("application", OTHER_KEY), ("shop", OTHER_KEY), ("more", KEY)] {
            let attributes = ["service", "keysheath", "username", "kanal", attribute, "one"];
            store_with_secret_tool(&attributes, text);
        }
        assert_eq!(keys(), [KEY, KEY, OTHER_KEY, OTHER_KEY]);
        // A key that none of them holds deletes nothing.
        let none = key("Qw3eRt5yUi7oPa9sDf2gHj4k");
        assert_eq!(keychain.keep_one("kanal", none.as_raw()).unwrap(), None);
        assert_eq!(keys().len(), 4);
        assert_eq!(keychain.keep_one("kanal", key(OTHER_KEY).as_raw()).unwrap(), Some(3));
        assert_holds(&keychain, "kanal", OTHER_KEY);
        assert_holds(&keychain, "another", KEY);
    });
}
