//! P2, for refreshers: a key that a reload has replaced, and one that a reload did not take, leave no freed
//! heap block with the key in it once they are no longer held.

use std::time::Duration;

use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::Refresher;
use keysheath::source::SecretFile;
use keysheath::store::{FileStore, MemoryStore};

use crate::support::Folder;
use crate::support::refreshing::{PATIENCE, SECOND, Scripted, activate, has, key_set, only_asked, persist};
use crate::support::residue::{KEY, NONE, alone, residue_of};

/// Measures in a process of its own, and wants nothing left behind.
fn leaves_nothing(test: &'static str, prepare: impl FnOnce(&Folder), work: impl FnOnce(&Folder)) {
    alone(test, &[], || {
        let folder = Folder::new();
        prepare(&folder);
        let found = residue_of(|| work(&folder));
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}

#[test]
fn a_key_of_a_file_that_is_replaced() {
    leaves_nothing(
        "a_key_of_a_file_that_is_replaced",
        |folder| drop(folder.write("key", KEY)),
        |folder| {
            let chain = Chain::<Kanal>::new().with(SecretFile::new(folder.at("key")));
            let refresher = Refresher::from_chain(chain, only_asked().with_grace(Duration::ZERO)).unwrap();
            let held = refresher.handle().load().unwrap();
            folder.write("key", SECOND);
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
            assert!(held.current().matches(KEY.as_bytes()), "its holder still has it");
        },
    );
}

#[test]
fn a_key_that_was_the_previous_one() {
    leaves_nothing(
        "a_key_that_was_the_previous_one",
        |folder| drop(folder.write("key", KEY)),
        |folder| {
            let chain = Chain::<Kanal>::new().with(SecretFile::new(folder.at("key")));
            let refresher = Refresher::from_chain(chain, only_asked()).unwrap();
            for key in [SECOND, "Qw3Er5Ty7Ui9Op1As2Df4Gh6"] {
                folder.write("key", key);
                assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
            }
        },
    );
}

#[test]
fn a_key_of_a_key_set_that_is_replaced_and_one_that_goes_back() {
    leaves_nothing(
        "a_key_of_a_key_set_that_is_replaced_and_one_that_goes_back",
        |folder| persist(&FileStore::new(folder.at("keys")), &key_set(&[KEY]).to_document()),
        |folder| {
            let path = folder.at("keys");
            let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), only_asked()).unwrap();
            assert!(has(&refresher.handle(), KEY));
            let old = std::fs::read(&path).map(zeroize::Zeroizing::new).unwrap();
            let keys = key_set(&[KEY]);
            activate(&keys, SECOND);
            persist(&FileStore::new(&path), &keys.to_document());
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
            std::fs::write(&path, &*old).unwrap();
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        },
    );
}

#[test]
fn a_key_that_comes_too_late_to_be_taken() {
    let test = "a_key_that_comes_too_late_to_be_taken";
    alone(test, &[], || {
        let source = Scripted::new(SECOND);
        let chain = Chain::<Kanal>::new().with(source.clone());
        let refresher =
            Refresher::from_chain(chain, only_asked().with_deadline(Duration::from_millis(20))).unwrap();
        let found = residue_of(|| {
            source.does(|_| {
                std::thread::sleep(Duration::from_millis(200));
                Ok(crate::support::refreshing::text(KEY))
            });
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        });
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
        assert!(has(&refresher.handle(), SECOND));
    });
}

#[test]
fn a_control_that_copies_the_key_out_of_the_handle_is_caught() {
    alone("a_control_that_copies_the_key_out_of_the_handle_is_caught", &[], || {
        let found = residue_of(|| {
            let store = MemoryStore::new();
            persist(&store, &key_set(&[KEY]).to_document());
            let refresher = Refresher::<Kanal>::from_store(store, only_asked()).unwrap();
            drop(refresher.handle().load().unwrap().current().expose_secret().to_owned());
        });
        assert_ne!(found, NONE, "the search is blind");
    });
}
