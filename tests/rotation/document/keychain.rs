//! A document in the keychain, against a real Secret Service.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use keysheath::FileProblem;
use keysheath::key::{Issuer, Kanal};
use keysheath::source::{self, CallError, Keychain, KeychainItem, Problem};
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, KeychainStore};

use super::contract::keeps_the_contract;
use super::killed::{run_until_killed, survives};
use super::racing::add_one;
use super::{content, text, there};
use crate::support::canary::{KANAL, assert_debug_silent, assert_error_silent};
use crate::support::secret_service::{Bus, in_session, store_with_secret_tool, with_keychain};
use crate::support::{Child, Folder, set_mode};

/// Where a deadline is under test.
const SHORT: Duration = Duration::from_millis(600);

fn store_at(lock: &Path, name: &str) -> KeychainStore {
    KeychainStore::new(Keychain::new(), name, lock)
}

/// A store whose document holds `first`.
fn written() -> (Folder, KeychainStore) {
    let folder = Folder::new();
    let store = store_at(&folder.at("lock"), "keys");
    store.write(&content("first"), None).unwrap();
    (folder, store)
}

/// A process of the same test with the same keychain.
fn in_this_session(name: &'static str) -> Child {
    let of_the_session = ["DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"];
    of_the_session
        .into_iter()
        .fold(Child::new(name), |child, variable| child.var(variable, env::var_os(variable).unwrap()))
}

#[test]
fn a_document_in_the_keychain_keeps_the_contract() {
    with_keychain("keychain::a_document_in_the_keychain_keeps_the_contract", |_| {
        let folder = Folder::new();
        keeps_the_contract(&|name| Box::new(store_at(&folder.at(name), name)));
        let store = store_at(&folder.at("lock"), "keys");
        assert_eq!(store.limit(), 2504);
        assert_eq!(store.provenance().to_string(), "keychain item keysheath/keys");
    });
}

#[test]
fn what_is_stored_is_never_more_than_windows_keeps() {
    with_keychain("keychain::what_is_stored_is_never_more_than_windows_keeps", |_| {
        let folder = Folder::new();
        let store = store_at(&folder.at("lock"), "keys");
        store.write(&content(vec![b'x'; store.limit()]), None).unwrap();
        let item = keyring::v1::Entry::new(Keychain::SERVICE, "keys").unwrap().get_secret().unwrap();
        assert_eq!(item.len(), 2560);
    });
}

#[test]
fn a_hundred_additions_by_each_of_two_processes_are_kept() {
    const NAME: &str = "keychain::a_hundred_additions_by_each_of_two_processes_are_kept";
    const ROUNDS: usize = 100;
    if let Some(lock) = env::var_os("LOCK") {
        let store = store_at(Path::new(&lock), "keys");
        let conflicts: usize = (0..ROUNDS).map(|_| add_one(&store)).sum();
        println!("conflicts: {conflicts}");
        return;
    }
    with_keychain(NAME, |_| {
        let folder = Folder::new();
        let lock = folder.at("lock");
        let children = [(); 2].map(|()| in_this_session(NAME).var("LOCK", &lock).spawn());
        for child in children {
            let output = child.wait_with_output().unwrap();
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && shown.contains("conflicts: "), "{shown}");
        }
        assert_eq!(text(&store_at(&lock, "keys")), (2 * ROUNDS).to_string());
    });
}

#[test]
fn what_has_returned_survives_a_kill_of_the_writer() {
    const NAME: &str = "keychain::what_has_returned_survives_a_kill_of_the_writer";
    const KILLS: u64 = 50;
    if let Some(lock) = env::var_os("LOCK") {
        run_until_killed(&store_at(Path::new(&lock), "keys"));
    }
    with_keychain(NAME, |_| {
        let folder = Folder::new();
        let lock = folder.at("lock");
        let spawn = || in_this_session(NAME).var("LOCK", &lock).spawn();
        let unreported =
            survives(KILLS, Duration::from_millis(100), &store_at(&lock, "keys"), spawn, &mut || ());
        println!("{KILLS} kills: {unreported} had written and not yet reported it");
    });
}

#[test]
fn a_second_item_of_one_name_is_ambiguous_and_changes_nothing() {
    with_keychain("keychain::a_second_item_of_one_name_is_ambiguous_and_changes_nothing", |_| {
        let (_folder, store) = written();
        let version = *there(&store).version();
        store_with_secret_tool(&["service", "keysheath", "username", "keys", "more", "yes"], "theirs");
        let ambiguous = DocumentError::Keychain(Problem::Ambiguous { count: 2 });
        assert_eq!(store.read().unwrap_err(), ambiguous);
        assert_eq!(store.write(&content("second"), Some(&version)), Err(ambiguous.clone()));
        assert!(ambiguous.to_string().contains("delete the others"), "{ambiguous}");
    });
}

#[test]
fn a_foreign_item_is_corrupt_and_untouched_ours_is_no_key() {
    with_keychain("keychain::a_foreign_item_is_corrupt_and_untouched_ours_is_no_key", |_| {
        let (_folder, store) = written();
        let version = *there(&store).version();
        let item = KeychainItem::new(Keychain::new(), "keys");
        let problem = source::load(&item, Kanal::PROFILE).unwrap_err().problem().clone();
        assert!(matches!(problem, Problem::Malformed(_)), "{problem}");
        for text in ["", "theirs", KANAL] {
            store_with_secret_tool(&["service", "keysheath", "username", "keys"], text);
            assert_eq!(store.read().unwrap_err(), DocumentError::Corrupt);
            for unchanged in [Some(&version), None] {
                assert_eq!(store.write(&content("second"), unchanged), Err(DocumentError::Corrupt));
            }
            let entry = keyring::v1::Entry::new(Keychain::SERVICE, "keys").unwrap();
            assert_eq!(entry.get_secret().unwrap(), text.as_bytes());
        }
    });
}

#[test]
fn an_item_that_is_gone_is_stale_to_a_reader_that_saw_it() {
    with_keychain("keychain::an_item_that_is_gone_is_stale_to_a_reader_that_saw_it", |_| {
        let (folder, store) = written();
        assert!(Keychain::new().delete("keys").unwrap());
        assert_eq!(store.read().unwrap_err(), DocumentError::Stale);
        assert_eq!(store.write(&content("second"), None), Err(DocumentError::Stale));
        store_at(&folder.at("lock"), "keys").write(&content("second"), None).unwrap();
    });
}

#[test]
fn a_keychain_that_is_not_there_or_is_locked_is_unavailable() {
    in_session("keychain::a_keychain_that_is_not_there_or_is_locked_is_unavailable", || {
        let folder = Folder::new();
        let none = store_at(&folder.at("lock"), "keys");
        let unavailable = DocumentError::Unavailable(Problem::NoKeychain);
        assert_eq!(none.read().unwrap_err(), unavailable);
        assert_eq!(none.write(&content("first"), None), Err(unavailable));

        let mut service = Bus::start().with_daemon();
        let (_folder, store) = written();
        let version = *there(&store).version();
        service.lock();
        let unavailable = DocumentError::Unavailable(Problem::NoAccess);
        assert_eq!(store.read().unwrap_err(), unavailable);
        assert_eq!(store.write(&content("second"), Some(&version)), Err(unavailable));
        service.restart();
        assert_eq!(text(&store), "first");
        store.write(&content("second"), Some(&version)).unwrap();
    });
}

#[test]
fn a_hanging_keychain_is_unavailable_and_keeps_the_lock() {
    with_keychain("keychain::a_hanging_keychain_is_unavailable_and_keeps_the_lock", |service| {
        let (folder, store) = written();
        let version = *there(&store).version();
        let hurried = KeychainStore::new(Keychain::new().with_deadline(SHORT), "keys", folder.at("lock"))
            .with_deadline(SHORT);
        service.stop();
        let start = Instant::now();
        let late = hurried.write(&content("second"), Some(&version));
        assert_eq!(
            late,
            Err(DocumentError::Unavailable(Problem::Call(CallError::Deadline { after: SHORT })))
        );
        // The keychain may still be about to write.
        let next = hurried.write(&content("third"), Some(&version));
        assert_eq!(next, Err(DocumentError::Locked { after: SHORT }));
        assert!(start.elapsed() < SHORT * 10, "it did not end at the deadline");
        service.resume();
        let version = *there(&store).version();
        store.write(&content("fourth"), Some(&version)).unwrap();
        assert_eq!(text(&store), "fourth");
    });
}

#[test]
fn a_lock_that_is_not_private_is_refused_and_the_item_stays() {
    with_keychain("keychain::a_lock_that_is_not_private_is_refused_and_the_item_stays", |_| {
        let (folder, store) = written();
        let version = *there(&store).version();
        let refused =
            |lock: &Path| store_at(lock, "keys").write(&content("second"), Some(&version)).unwrap_err();
        set_mode(&folder.at("lock"), 0o644);
        let check = |name: &str, problem: FileProblem| {
            let path = folder.at(name);
            let error = refused(&path);
            assert!(error.to_string().contains(&format!("the lock file {}", path.display())), "{error}");
            assert_eq!(error, DocumentError::LockFile { path, problem });
        };
        check("lock", FileProblem::NotPrivate);
        std::os::unix::fs::symlink("lock", folder.at("link")).unwrap();
        check("link", FileProblem::NotPrivate);
        check("no/lock", FileProblem::NoFolder);
        set_mode(folder.path(), 0o770);
        check("other", FileProblem::OpenFolder);
        assert_eq!(text(&store), "first");
    });
}

#[test]
fn nothing_that_is_printed_shows_what_the_keychain_holds() {
    with_keychain("keychain::nothing_that_is_printed_shows_what_the_keychain_holds", |_| {
        let folder = Folder::new();
        let store = store_at(&folder.at("lock"), "keys");
        let canary = DocumentContent::from(KANAL.as_bytes().to_vec());
        let version = store.write(&canary, None).unwrap();
        assert_debug_silent("a store", &store);
        assert_debug_silent("a document", &there(&store));
        assert_error_silent("a conflict", &store.write(&canary, None).unwrap_err());
        store_with_secret_tool(&["service", "keysheath", "username", "keys", "more", KANAL], KANAL);
        assert_error_silent("ambiguous", &store.read().unwrap_err());
        assert_error_silent("ambiguous", &store.write(&canary, Some(&version)).unwrap_err());
    });
}
