//! P1 for the keychain: what zbus and everything else below it logs shows no part of a key.

use std::time::Duration;

use keysheath::key::{ApiKey, Issuer as _, Kanal};
use keysheath::source::{self, CallError, Keychain, KeychainItem, Loaded, Problem, SourceError};

use crate::support::canary::{assert_hides, traces_of};
use crate::support::logged::Lines;
use crate::support::secret_service::{SecretService, store_with_secret_tool, with_keychain};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
const SHORT: Duration = Duration::from_millis(600);

static LINES: Lines = Lines::new();

/// The first line that shows a part of the key, and which part.
fn leak() -> Option<(&'static str, String)> {
    LINES.all().into_iter().find_map(|line| Some((*traces_of(KEY, &line).first()?, line)))
}

fn load(keychain: &Keychain, name: &str) -> Result<Loaded, SourceError> {
    source::load(&KeychainItem::new(keychain.clone(), name), Kanal::PROFILE)
}

#[track_caller]
fn problem<T: std::fmt::Debug>(outcome: Result<T, SourceError>) -> Problem {
    let error = outcome.expect_err("it is broken");
    assert_hides(&error, KEY);
    error.problem().clone()
}

fn drive(service: &mut SecretService) {
    let keychain = Keychain::new();
    let key = ApiKey::<Kanal>::parse(KEY).expect("well-formed");
    keychain.save("kanal", key.as_raw()).expect("saved");
    keychain.save("kanal", key.as_raw()).expect("saved over it");
    assert!(matches!(load(&keychain, "kanal"), Ok(Loaded::Found(_))));
    assert_eq!(keychain.list().expect("listed"), ["kanal"]);
    assert!(matches!(load(&keychain, "absent"), Ok(Loaded::Absent(_))));

    let second = ["service", Keychain::SERVICE, "username", "kanal", "shop", "two"];
    store_with_secret_tool(&second, KEY);
    assert_eq!(problem(load(&keychain, "kanal")), Problem::Ambiguous { count: 2 });
    assert_eq!(problem(keychain.save("kanal", key.as_raw())), Problem::Ambiguous { count: 2 });
    assert_eq!(problem(keychain.delete("kanal")), Problem::Ambiguous { count: 2 });

    // Not UTF-8, stored by another tool.
    let entry = keyring::v1::Entry::new(Keychain::SERVICE, "bytes").expect("it has its store");
    entry.set_secret(&[KEY.as_bytes(), b"\xff"].concat()).expect("stored");
    assert!(matches!(problem(load(&keychain, "bytes")), Problem::Malformed(_)));
    store_with_secret_tool(&["service", Keychain::SERVICE, "username", "line"], &format!("{KEY}\n\n"));
    assert!(matches!(problem(load(&keychain, "line")), Problem::Malformed(_)));
    assert_eq!(problem(keychain.save("a/b", key.as_raw())), Problem::NotStorable);

    assert!(keychain.delete("line").expect("deleted"));
    service.restart();
    keychain.save("fresh", key.as_raw()).expect("saved after a restart");
    service.lock();
    assert_eq!(problem(load(&keychain, "fresh")), Problem::NoAccess);
    assert_eq!(problem(keychain.save("fresh", key.as_raw())), Problem::NoAccess);
    service.restart();
    service.stop();
    let impatient = keychain.with_deadline(SHORT);
    let late = impatient.save("fresh", key.as_raw());
    assert_eq!(problem(late), Problem::Call(CallError::Deadline { after: SHORT }));
    service.resume();
    service.end_daemon();
    assert_eq!(problem(load(&impatient, "fresh")), Problem::NoKeychain);
}

#[test]
fn nothing_that_is_logged_below_the_keychain_shows_a_key() {
    with_keychain("nothing_that_is_logged_below_the_keychain_shows_a_key", |service| {
        LINES.install();
        let traced = crate::support::traced::Collector::default();
        tracing::subscriber::set_global_default(traced.clone()).expect("the child has no other subscriber");
        drive(service);
        assert_eq!(leak(), None, "a line of the log shows a part of the key");
        let lines = traced.lines();
        let leak = lines.iter().find(|line| !traces_of(KEY, line).is_empty());
        assert_eq!(leak, None, "an event or a span shows a part of the key");
        let of_zbus = lines.iter().filter(|line| line.contains(" zbus")).count();
        assert!(of_zbus > 50, "zbus logged {of_zbus} lines only, of {}", lines.len());
        println!("{} lines, {of_zbus} events and spans of zbus", LINES.all().len());
    });
}

#[test]
fn a_key_that_is_logged_in_any_of_its_forms_is_noticed() {
    with_keychain("a_key_that_is_logged_in_any_of_its_forms_is_noticed", |_| {
        use base64::Engine as _;

        LINES.install();
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("x{KEY}"));
        let forms = [KEY.to_owned(), format!("…{}…", &KEY[3..9]), encoded, format!("{:?}", KEY.as_bytes())];
        for form in forms {
            assert_eq!(leak(), None);
            log::trace!("{form}");
            assert!(leak().is_some(), "not noticed: {form}");
            LINES.clear();
        }
        // As keyring-core does by itself, with the error that it makes of a secret that is not text.
        let entry = keyring::v1::Entry::new(Keychain::SERVICE, "bytes").expect("it has its store");
        entry.set_secret(&[KEY.as_bytes(), b"\xff"].concat()).expect("stored");
        log::error!("{:?}", entry.get_password().expect_err("not text"));
        assert!(leak().is_some());
    });
}
