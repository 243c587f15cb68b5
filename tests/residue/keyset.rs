//! P2, for key sets: a key that leaves a place, a document that was written and one that was read leave no
//! freed heap block with the key in it.

use crate::support::keys::Keys;
use crate::support::residue::{KEY, KEY_BASE64, NONE, alone, residue_of};
use keysheath::key::{ApiKey, Issuer, Kanal};
use keysheath::keyset::KeySet;
use keysheath::rotation::KeyDetails;

const OTHER: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

fn key(text: &str) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(text.as_bytes()).expect("well-formed")
}

/// Measures in a process of its own, and wants nothing left behind.
fn leaves_nothing(test: &'static str, work: impl FnOnce(&Keys)) {
    alone(test, &[], || {
        let found = residue_of(|| {
            let keys = Keys::new();
            work(&keys);
            drop(format!("{:?}", *keys));
        });
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}

fn adopt(keys: &Keys) {
    keys.adopt(KeyDetails::new(&key(KEY)).with_note("a \"note\"")).unwrap();
}

#[test]
fn a_key_that_is_given_up() {
    leaves_nothing("a_key_that_is_given_up", |keys| {
        let id = keys.stage(&key(KEY)).unwrap().rotation();
        keys.abort(id).unwrap();
    });
}

#[test]
fn a_key_that_is_retired() {
    leaves_nothing("a_key_that_is_retired", |keys| {
        adopt(keys);
        keys.activate(&key(OTHER));
        assert!(keys.read().previous().is_some());
        keys.retire_previous();
    });
}

#[test]
fn a_key_that_leaks_out_of_each_place() {
    leaves_nothing("keyset::a_key_that_leaks_out_of_each_place", |keys| {
        let fingerprint = key(KEY).fingerprint().unwrap();
        adopt(keys);
        keys.compromise(fingerprint).unwrap();
        let pending = Keys::new();
        pending.stage(&key(KEY)).unwrap();
        pending.compromise(fingerprint).unwrap();
        let previous = Keys::new();
        adopt(&previous);
        previous.activate(&key(OTHER));
        previous.compromise(fingerprint).unwrap();
    });
}

#[test]
fn a_key_that_is_refused() {
    leaves_nothing("a_key_that_is_refused", |keys| {
        adopt(keys);
        assert!(keys.stage(&key(KEY)).is_err());
        assert!(keys.adopt(&key(OTHER)).is_err());
        assert!(keys.stage(KeyDetails::new(&key(OTHER)).with_note("x".repeat(101))).is_err());
    });
}

#[test]
fn a_document_that_is_written_and_read() {
    leaves_nothing("a_document_that_is_written_and_read", |keys| {
        adopt(keys);
        let read = keys.read();
        let document = read.to_document();
        let again = KeySet::from_document(Kanal::PROFILE, document.expose_secret()).unwrap();
        assert!(again.current().unwrap().key().matches(KEY.as_bytes()));
        drop(format!("{read:?} {:?}", read.summary()));
    });
}

#[test]
fn a_document_that_is_broken_behind_its_key() {
    leaves_nothing("a_document_that_is_broken_behind_its_key", |keys| {
        adopt(keys);
        let written = keys.to_document();
        let mut document = zeroize::Zeroizing::new(Vec::with_capacity(64 * 1024));
        document.extend_from_slice(written.expose_secret());
        for cut in [2, 40, 100] {
            let end = document.len().saturating_sub(cut);
            assert!(KeySet::from_document(Kanal::PROFILE, &document[..end]).is_err());
        }
        // A field that is not known, after the key.
        let end = document.len() - 2;
        document.truncate(end);
        document.extend_from_slice(b", \"x\": 1 }");
        let error = KeySet::from_document(Kanal::PROFILE, &document).map(drop).unwrap_err();
        drop(format!("{error} {error:?}"));
    });
}

#[test]
fn a_control_that_keeps_the_document_as_a_plain_text_is_caught() {
    alone("a_control_that_keeps_the_document_as_a_plain_text_is_caught", &[], || {
        let found = residue_of(|| {
            let keys = Keys::new();
            adopt(&keys);
            let plain = keys.to_document().expose_secret().to_vec();
            assert!(String::from_utf8(plain).unwrap().contains(KEY_BASE64));
        });
        assert_ne!(found, NONE, "the search is blind");
    });
}
