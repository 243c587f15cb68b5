//! A key that leaked: what is remembered of it, and what the operator sees.

use keysheath::keyset::{KeySet, UndeletedKey};
use keysheath::rotation::{NextStep, Rotation, RotationError, RotationPolicy};
use keysheath::store::MemoryStore;

use super::*;
use crate::support::keys::Keys;
use crate::support::steps::Now as _;

fn canary() -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(KANAL.as_bytes()).unwrap()
}

#[test]
fn a_leaked_key_shows_nothing_of_itself_until_it_is_deleted() {
    let fingerprint = canary().fingerprint().unwrap();
    let keys = Keys::new();
    let unknown: RotationError = keys.confirm_deleted(fingerprint).unwrap_err();
    assert_error_silent("a key that did not leak", &unknown);
    keys.adopt(&canary()).unwrap();
    keys.compromise(fingerprint).unwrap();
    let read: KeySet = keys.read();
    let leaked: &UndeletedKey = &read.leaked()[0];
    assert_debug_silent("a leaked key", leaked);
    assert_debug_silent("its key set", &read);

    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap();
    rotation.adopt(&canary()).unwrap();
    rotation.stage(&ApiKey::<Kanal>::parse_bytes(OTHER.as_bytes()).unwrap()).unwrap();
    assert_value_silent("a report", &rotation.compromise(fingerprint).unwrap());
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
    rotation.adopt(&ApiKey::<Kanal>::parse_bytes(OTHER.as_bytes()).unwrap()).unwrap();
    rotation.stage(&canary()).unwrap();
    rotation.abort_now().unwrap();
    let status = rotation.status().unwrap();
    let given_up: &UndeletedKey = &status.keys().aborted()[0];
    assert_debug_silent("a key that was given up", given_up);
    assert_value_silent("a status", &status);
    let step: NextStep = rotation.next_step().unwrap();
    assert!(matches!(step, NextStep::DeleteAborted { .. }), "{step}");
    assert_value_silent("a next step", &step);
    assert_value_silent("a confirmation", &rotation.confirm_deleted(given_up.fingerprint()).unwrap());
}
