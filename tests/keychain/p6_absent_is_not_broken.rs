//! P6 for the keychain: an item that is absent is passed over; everything else that is no key ends the
//! search, and the source below is not asked, because it may hold the key of another account.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keysheath::chain::{Attempt, AttemptOutcome, Chain, ChainError, Relation};
use keysheath::key::{Issuer as _, Kanal};
use keysheath::source::{
    Absence, CallError, KeyRef, Keychain, KeychainItem, Problem, SecretFile, Source as _,
};

use crate::support::canary::assert_hides;
use crate::support::secret_service::{Bus, in_session, store_with_secret_tool, with_keychain};
use crate::support::waiting::{SLACK, in_time};

/// The default deadline, as the docs of `source` say.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
const LOWER_KEY: &str = "hY5nRt8Qz2Lw7Jd4Xk9Gv3Ba";

/// Where a deadline is under test.
const SHORT: Duration = Duration::from_millis(600);
/// Where it is not.
const LONG: Duration = Duration::from_secs(20);

/// A file below the keychain, with a good key of another account.
fn lower_source() -> SecretFile {
    let folder = env::var_os("XDG_RUNTIME_DIR").expect("runs in a session");
    let path = PathBuf::from(folder).join("lower-key");
    fs::write(&path, LOWER_KEY).expect("writable");
    SecretFile::new(path)
}

fn by_item(deadline: Duration) -> Chain<Kanal> {
    let item = KeychainItem::new(Keychain::new().with_deadline(deadline), "kanal");
    Chain::new().with(item).with(lower_source())
}

fn by_reference(reference: &str) -> Chain<Kanal> {
    let reference: KeyRef = reference.parse().expect("a reference");
    Chain::new().with_reference(&reference).expect("a keychain reference").with(lower_source())
}

fn store(text: &str) {
    store_with_secret_tool(&["service", Keychain::SERVICE, "username", "kanal"], text);
}

#[track_caller]
fn goes_on(chain: Chain<Kanal>) {
    let selected = in_time(LONG, move || chain.load()).expect("the lower source has a key");
    assert_eq!(selected.key().expose_secret(), LOWER_KEY);
    assert_eq!(selected.provenance(), &lower_source().provenance());
    let steps = selected.attempts().as_slice();
    assert_eq!(steps[0].outcome(), &AttemptOutcome::Absent(Absence::NoItem));
    assert!(matches!(steps[1].outcome(), AttemptOutcome::Found { .. }));
}

/// The problem at which the chain ended, without asking the source below, within `deadline`.
#[track_caller]
fn stops(chain: Chain<Kanal>, deadline: Duration) -> Problem {
    let start = Instant::now();
    let error = in_time(deadline, move || chain.load()).expect_err("a broken place ends the search");
    assert!(start.elapsed() <= deadline + SLACK);
    for planted in [KEY, LOWER_KEY] {
        assert_hides(&error, planted);
    }
    let ChainError::Broken { error, attempts, .. } = error else { panic!("not broken: {error}") };
    let [first, second] = attempts.as_slice() else { panic!("not two steps: {attempts}") };
    assert_eq!(first.outcome(), &AttemptOutcome::Broken(error.problem().clone()));
    assert_eq!(first.provenance().to_string(), "keychain item keysheath/kanal");
    assert_eq!(second.outcome(), &AttemptOutcome::NotAsked);
    assert_eq!(second.provenance(), &lower_source().provenance());
    error.problem().clone()
}

/// As [`stops`], for the item and for the reference; they say the same.
#[track_caller]
fn both_stop() -> Problem {
    let problem = stops(by_item(LONG), LONG);
    assert_eq!(stops(by_reference("keychain:kanal"), LONG), problem);
    assert_eq!(stops(by_reference("keychain:keysheath/kanal"), LONG), problem);
    problem
}

#[test]
fn an_absent_item_is_passed_over() {
    with_keychain("an_absent_item_is_passed_over", |_| {
        goes_on(by_item(LONG));
        let missing = Problem::Missing { absence: Absence::NoItem };
        assert_eq!(stops(by_reference("keychain:kanal"), LONG), missing);
        assert_eq!(stops(by_reference("keychain:kanal?encoding=base64"), LONG), missing);
        // The same chains with an item there: it is the keychain that is asked.
        store(KEY);
        for chain in [by_item(LONG), by_reference("keychain:kanal")] {
            let selected = chain.load().expect("there is an item");
            assert_eq!(selected.key().expose_secret(), KEY);
            assert_eq!(selected.attempts().as_slice()[1].outcome(), &AttemptOutcome::NotAsked);
        }
    });
}

#[test]
fn a_missing_default_collection_is_passed_over() {
    in_session("a_missing_default_collection_is_passed_over", || {
        let _service = Bus::start().with_daemon_without_collection();
        goes_on(by_item(LONG));
        let missing = Problem::Missing { absence: Absence::NoItem };
        assert_eq!(stops(by_reference("keychain:kanal"), LONG), missing);
    });
}

#[test]
fn an_empty_item_stops_the_chain() {
    with_keychain("an_empty_item_stops_the_chain", |_| {
        store("");
        assert_eq!(both_stop(), Problem::Empty);
        assert_eq!(stops(by_reference("keychain:kanal?encoding=base64"), LONG), Problem::Empty);
    });
}

#[test]
fn a_malformed_item_stops_the_chain() {
    with_keychain("a_malformed_item_stops_the_chain", |_| {
        for text in [format!("{KEY}\n\n"), format!("{KEY}{KEY}"), format!("Bearer {KEY}"), "  ".to_owned()] {
            store(&text);
            assert!(matches!(both_stop(), Problem::Malformed(_)), "{}", text.len());
        }
        store(&format!("{KEY}!"));
        let problem = stops(by_reference("keychain:kanal?encoding=base64"), LONG);
        assert_eq!(problem, Problem::NotBase64);
    });
}

#[test]
fn ambiguous_items_stop_the_chain() {
    with_keychain("ambiguous_items_stop_the_chain", |_| {
        store(KEY);
        let second = ["service", Keychain::SERVICE, "username", "kanal", "shop", "two"];
        store_with_secret_tool(&second, KEY);
        assert_eq!(both_stop(), Problem::Ambiguous { count: 2 });
    });
}

#[test]
fn no_bus_stops_the_chain() {
    in_session("no_bus_stops_the_chain", || assert_eq!(both_stop(), Problem::NoKeychain));
}

#[test]
fn no_keychain_on_the_bus_stops_the_chain() {
    in_session("no_keychain_on_the_bus_stops_the_chain", || {
        let _bus = Bus::start();
        assert_eq!(both_stop(), Problem::NoKeychain);
    });
}

#[test]
fn a_locked_keychain_stops_the_chain() {
    with_keychain("a_locked_keychain_stops_the_chain", |service| {
        store(KEY);
        service.lock();
        assert_eq!(both_stop(), Problem::NoAccess);
    });
}

#[test]
fn an_unanswered_unlock_prompt_stops_the_chain() {
    in_session("an_unanswered_unlock_prompt_stops_the_chain", || {
        let service = Bus::start_with_silent_prompter().with_daemon();
        store(KEY);
        service.lock();
        assert_eq!(stops(by_item(SHORT), SHORT), Problem::Call(CallError::Deadline { after: SHORT }));
        service.wait_for_prompt();
    });
}

#[test]
fn a_stopped_keychain_stops_chains_and_references_in_time() {
    with_keychain("a_stopped_keychain_stops_chains_and_references_in_time", |service| {
        store(KEY);
        service.stop();
        assert_eq!(stops(by_item(SHORT), SHORT), Problem::Call(CallError::Deadline { after: SHORT }));
        let item = KeychainItem::for_issuer(Kanal::PROFILE).with_deadline(SHORT);
        assert_eq!(
            stops(Chain::new().with(item).with(lower_source()), SHORT),
            Problem::Call(CallError::Deadline { after: SHORT })
        );
        // A reference cannot set its deadline, so this one takes as long as the default.
        let problem = stops(by_reference("keychain:kanal"), DEFAULT_DEADLINE);
        assert_eq!(problem, Problem::Call(CallError::Deadline { after: DEFAULT_DEADLINE }));
    });
}

#[test]
fn a_stopped_chain_does_not_fall_through_when_loaded_again() {
    with_keychain("a_stopped_chain_does_not_fall_through_when_loaded_again", |service| {
        store(KEY);
        let chain = by_item(LONG);
        assert_eq!(chain.load().expect("there is an item").key().expose_secret(), KEY);
        service.end_daemon();
        let error = chain.load().expect_err("the daemon is gone");
        assert!(matches!(error, ChainError::Broken { .. }), "{error}");
        service.restart();
        assert_eq!(chain.load().expect("it is back").key().expose_secret(), KEY);
    });
}

#[test]
fn explain_names_what_stops_the_chain_and_what_follows_it() {
    with_keychain("explain_names_what_stops_the_chain_and_what_follows_it", |service| {
        store(KEY);
        service.lock();
        let attempts = by_item(LONG).explain();
        let relations: Vec<_> = attempts.as_slice().iter().map(Attempt::relation).collect();
        assert_eq!(relations, [Some(Relation::Stops), Some(Relation::BehindBroken)]);
    });
}
