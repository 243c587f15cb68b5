//! A key that leaked: what is remembered of it, and what a person is told.

use std::time::SystemTime;

use keysheath::keyset::{AbortedKey, KeySet, KeySetError, LeakedKey, Staging};
use keysheath::rotation::{NextStep, Rotation, RotationPolicy};
use keysheath::store::MemoryStore;

use super::*;
use crate::support::steps::Now as _;

fn canary() -> RawKey {
    RawKey::parse(Kanal::PROFILE, KANAL.as_bytes()).unwrap()
}

#[test]
fn a_key_that_leaked_shows_nothing_of_itself_until_it_is_deleted() {
    let fingerprint = canary().fingerprint().unwrap();
    let mut keys = KeySet::new(Kanal::PROFILE).unwrap();
    let unknown: KeySetError = keys.confirm_deleted(fingerprint).unwrap_err();
    assert_error_silent("a key that did not leak", &unknown);
    keys.adopt(canary(), Staging::at(SystemTime::now())).unwrap();
    keys.compromise(fingerprint, SystemTime::now()).unwrap();
    let leaked: &LeakedKey = &keys.leaked()[0];
    assert_debug_silent("a leaked key", leaked);
    assert_debug_silent("its key set", &keys);

    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap();
    rotation.adopt(&canary()).unwrap();
    rotation.stage(&RawKey::parse(Kanal::PROFILE, OTHER.as_bytes()).unwrap(), None).unwrap();
    assert_value_silent("a report", &rotation.compromise(fingerprint, None).unwrap());
    let step: NextStep = rotation.next_step().unwrap();
    assert!(matches!(step, NextStep::DeleteLeaked { .. }), "{step}");
    assert_value_silent("a next step", &step);
    assert_value_silent("a status", &rotation.status().unwrap());
    assert_value_silent("a confirmation", &rotation.confirm_deleted(fingerprint).unwrap());
    assert_value_silent("what was given up", &rotation.abort_now().unwrap());
}

#[test]
fn a_key_that_was_given_up_shows_nothing_of_itself() {
    let policy = RotationPolicy::new().with_activation(std::time::Duration::ZERO);
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), policy).unwrap();
    rotation.adopt(&RawKey::parse(Kanal::PROFILE, OTHER.as_bytes()).unwrap()).unwrap();
    rotation.stage(&canary(), None).unwrap();
    rotation.abort_now().unwrap();
    let status = rotation.status().unwrap();
    let given_up: &AbortedKey = &status.given_up()[0];
    assert_debug_silent("a key that was given up", given_up);
    assert_value_silent("a status", &status);
    let step: NextStep = rotation.next_step().unwrap();
    assert!(matches!(step, NextStep::DeleteGivenUp { .. }), "{step}");
    assert_value_silent("a next step", &step);
    assert_value_silent("a confirmation", &rotation.confirm_deleted(given_up.fingerprint()).unwrap());
}
