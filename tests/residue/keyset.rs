//! P2, for key sets: a key that leaves a place, a document that was written and one that was read leave no freed heap block
//! with the key in it.

use std::time::SystemTime;

use crate::support::residue::{KEY, KEY_BASE64, NONE, alone, residue_of};
use keysheath::key::{Issuer, Kanal, RawKey};
use keysheath::keyset::{KeySet, Promotion, Staging};

const OTHER: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

fn key(text: &str) -> RawKey {
    RawKey::parse(Kanal::PROFILE, text.as_bytes()).expect("well-formed")
}

fn staging() -> Staging {
    Staging::at(SystemTime::UNIX_EPOCH).by("anna").with_note("a \"note\"")
}

/// Measures in a process of its own, and wants nothing left behind.
fn leaves_nothing(test: &'static str, work: impl FnOnce(&mut KeySet)) {
    alone(test, &[], || {
        let found = residue_of(|| {
            let mut keys = KeySet::new(Kanal::PROFILE).unwrap();
            work(&mut keys);
            drop(format!("{keys:?}"));
        });
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}

#[test]
fn a_key_that_is_given_up() {
    leaves_nothing("a_key_that_is_given_up", |keys| {
        let rotation = keys.stage(key(KEY), staging()).unwrap().rotation();
        keys.abort(rotation).unwrap();
    });
}

#[test]
fn a_key_that_is_retired() {
    leaves_nothing("a_key_that_is_retired", |keys| {
        keys.adopt(key(KEY), staging()).unwrap();
        let rotation = keys.stage(key(OTHER), staging()).unwrap().rotation();
        keys.verify(rotation, SystemTime::now()).unwrap();
        keys.promote(rotation, Promotion::Verified, SystemTime::now()).unwrap();
        keys.retire(rotation).unwrap();
    });
}

#[test]
fn a_key_that_leaks_out_of_each_place() {
    leaves_nothing("keyset::a_key_that_leaks_out_of_each_place", |keys| {
        let fingerprint = key(KEY).fingerprint().unwrap();
        keys.adopt(key(KEY), staging()).unwrap();
        keys.compromise(fingerprint, SystemTime::now()).unwrap();
        let mut pending = KeySet::new(Kanal::PROFILE).unwrap();
        pending.stage(key(KEY), staging()).unwrap();
        pending.compromise(fingerprint, SystemTime::now()).unwrap();
        let mut previous = KeySet::new(Kanal::PROFILE).unwrap();
        previous.adopt(key(KEY), staging()).unwrap();
        let rotation = previous.stage(key(OTHER), staging()).unwrap().rotation();
        previous.promote(rotation, Promotion::Unverified, SystemTime::now()).unwrap();
        previous.compromise(fingerprint, SystemTime::now()).unwrap();
    });
}

#[test]
fn a_key_that_is_refused() {
    leaves_nothing("a_key_that_is_refused", |keys| {
        keys.adopt(key(KEY), staging()).unwrap();
        assert!(keys.stage(key(KEY), staging()).is_err());
        assert!(keys.adopt(key(OTHER), staging()).is_err());
        assert!(keys.stage(key(OTHER), staging().with_note("x".repeat(101))).is_err());
    });
}

#[test]
fn a_document_that_is_written_and_read() {
    leaves_nothing("a_document_that_is_written_and_read", |keys| {
        keys.adopt(key(KEY), staging()).unwrap();
        let document = keys.to_document();
        let read = KeySet::from_document(Kanal::PROFILE, document.expose_secret()).unwrap();
        assert!(read.current().unwrap().key().matches(KEY.as_bytes()));
    });
}

#[test]
fn a_document_that_is_broken_behind_its_key() {
    leaves_nothing("a_document_that_is_broken_behind_its_key", |keys| {
        keys.adopt(key(KEY), staging()).unwrap();
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
            let mut keys = KeySet::new(Kanal::PROFILE).unwrap();
            keys.adopt(key(KEY), staging()).unwrap();
            let plain = keys.to_document().expose_secret().to_vec();
            assert!(String::from_utf8(plain).unwrap().contains(KEY_BASE64));
        });
        assert_ne!(found, NONE, "the search is blind");
    });
}
