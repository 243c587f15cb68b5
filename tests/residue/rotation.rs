//! P2, for rotations: a key that leaves each place leaves no freed heap block with it.

use crate::support::residue::{KEY, NONE, alone, residue_of};
use crate::support::steps::Now as _;
use keysheath::failure::{Answer, Meaning};
use keysheath::key::{ApiKey, Fingerprint, Kanal, RawKey};
use keysheath::probe::{Finding, Probe, Report};
use keysheath::rotation::{KeyDetails, Retirement, Rotation, RotationPolicy};
use keysheath::store::{FileStore, MemoryStore};

const OTHER: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

fn key(text: &str) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(text.as_bytes()).expect("well-formed")
}

fn name(text: &str) -> Fingerprint {
    key(text).fingerprint().unwrap()
}

/// Accepts one key and refuses every other.
struct Accepts(&'static str);

impl Probe for Accepts {
    fn probe(&self, key: &RawKey) -> Report {
        let is_it = key.matches(self.0.as_bytes());
        let meaning = if is_it { Meaning::Accepted } else { Meaning::KeyRefused };
        Report::new(Finding::new(Ok(Answer::new(200, meaning))))
    }
}

fn open(accepted: &'static str) -> Rotation<Kanal> {
    Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())
        .unwrap()
        .with_probe(Accepts(accepted))
        .on_event(|event| drop(event.to_json()))
        .with_operator("anna")
}

/// Measures in a process of its own, and wants nothing left behind.
fn leaves_nothing(test: &'static str, work: impl FnOnce()) {
    alone(test, &[], || {
        let found = residue_of(work);
        println!("{test}: {found}");
        assert_eq!(found, NONE);
    });
}

#[test]
fn a_key_that_is_adopted_replaced_and_retired() {
    leaves_nothing("a_key_that_is_adopted_replaced_and_retired", || {
        let rotation = open(OTHER);
        rotation.adopt(&key(KEY)).unwrap();
        rotation.stage(KeyDetails::new(&key(OTHER)).with_note("spring")).unwrap();
        let _ = rotation.verify_now().unwrap();
        rotation.promote_now().unwrap();
        assert!(matches!(rotation.retire_now().unwrap(), Retirement::Retired { .. }));
        drop(format!("{} {:?}", rotation.status().unwrap(), rotation.next_step().unwrap()));
    });
}

#[test]
fn a_key_that_is_staged_verified_and_given_up() {
    leaves_nothing("a_key_that_is_staged_verified_and_given_up", || {
        let rotation = open(KEY);
        rotation.adopt(&key(OTHER)).unwrap();
        rotation.stage(&key(KEY)).unwrap();
        let _ = rotation.verify_now().unwrap();
        rotation.promote_now().unwrap();
        rotation.roll_back_now().unwrap();
        rotation.abort_now().unwrap();
        assert!(rotation.stage(&key(KEY)).is_err(), "it is retired");
    });
}

#[test]
fn a_key_that_was_deleted_by_mistake_and_one_that_is_refused() {
    leaves_nothing("a_key_that_was_deleted_by_mistake_and_one_that_is_refused", || {
        let policy = RotationPolicy::new().with_activation(std::time::Duration::ZERO);
        let rotation =
            Rotation::<Kanal>::open(MemoryStore::new(), policy).unwrap().with_probe(Accepts(OTHER));
        rotation.adopt(&key(OTHER)).unwrap();
        rotation.stage(&key(KEY)).unwrap();
        let _ = rotation.verify_now().unwrap();
        rotation.promote_unverified_now().unwrap();
        assert!(matches!(rotation.retire_now().unwrap(), Retirement::WrongKeyDeleted { .. }));
    });
}

#[test]
fn a_key_that_leaks_out_of_each_place() {
    leaves_nothing("rotation::a_key_that_leaks_out_of_each_place", || {
        let current = open(OTHER);
        current.adopt(&key(KEY)).unwrap();
        current.compromise(name(KEY)).unwrap();
        assert!(current.compromise_with_note(name(OTHER), OTHER).is_err());
        let pending = open(OTHER);
        pending.stage(&key(KEY)).unwrap();
        pending.compromise(name(KEY)).unwrap();
        let previous = open(OTHER);
        previous.adopt(&key(KEY)).unwrap();
        previous.stage(&key(OTHER)).unwrap();
        previous.promote_unverified_now().unwrap();
        previous.compromise(name(KEY)).unwrap();
    });
}

#[test]
fn a_key_that_is_rotated_in_a_file() {
    leaves_nothing("a_key_that_is_rotated_in_a_file", || {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("keys"));
        let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
        rotation.adopt(&key(KEY)).unwrap();
        rotation.stage(&key(OTHER)).unwrap();
        rotation.promote_unverified_now().unwrap();
        // Another process's view, with a copy of its own.
        drop(Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap());
        rotation.retire_unprobed_now().unwrap();
    });
}

#[test]
fn a_control_that_keeps_the_key_as_a_plain_text_is_caught() {
    alone("a_control_that_keeps_the_key_as_a_plain_text_is_caught", &[], || {
        let found = residue_of(|| {
            let rotation = open(OTHER);
            let plain = String::from(KEY);
            rotation.adopt(&key(&plain)).unwrap();
        });
        assert_ne!(found, NONE, "the search is blind");
    });
}
