//! A key set in every state, and its refusals.

use std::time::SystemTime;

use keysheath::key::{Fingerprint, FingerprintError};
use keysheath::keyset::{Held, KeySet, KeySetError, Place, Promotion, RotationId, Staging, Step};

use super::*;

fn canary() -> RawKey {
    RawKey::parse(Kanal::PROFILE, KANAL.as_bytes()).unwrap()
}

#[test]
fn a_key_set_and_its_refusals_show_no_key() {
    let now = SystemTime::now();
    let staging = || -> Staging { Staging::at(now).by("anna").with_note("yearly") };
    assert_debug_silent("a staging", &staging());
    let mut keys = KeySet::new(Kanal::PROFILE).unwrap();
    let step: Step = keys.adopt(canary(), staging()).unwrap();
    assert_debug_silent("a step", &step);
    let held: &Held = keys.current().unwrap();
    assert_debug_silent("a key in its place", held);
    assert_debug_silent("a key set", &keys);
    let refused = |error: KeySetError| assert_error_silent("a refusal", &error);
    refused(keys.stage(canary(), staging()).unwrap_err());
    refused(keys.adopt(RawKey::parse(Kanal::PROFILE, OTHER.as_bytes()).unwrap(), staging()).unwrap_err());
    let katana = RawKey::parse(Katana::PROFILE, KATANA.as_bytes()).unwrap();
    refused(keys.stage(katana, staging()).unwrap_err());
    for texts in [staging().with_note(KANAL), staging().by(KANAL), staging().with_note(format!("{KANAL}\n"))]
    {
        let mut empty = KeySet::new(Kanal::PROFILE).unwrap();
        refused(empty.stage(canary(), texts).unwrap_err());
    }
    let rotation: RotationId =
        keys.stage(RawKey::parse(Kanal::PROFILE, OTHER.as_bytes()).unwrap(), staging()).unwrap().rotation();
    assert_value_silent("a rotation", &rotation);
    refused(keys.promote(rotation, Promotion::Verified, now).unwrap_err());
    let place: Place = keys.place_of(canary().fingerprint().unwrap()).unwrap();
    assert_value_silent("a place", &place);

    let document = keys.to_document();
    let document = document.expose_secret();
    for end in (0..document.len()).step_by(7) {
        refused(KeySet::from_document(Kanal::PROFILE, &document[..end]).map(drop).unwrap_err());
    }
    for text in
        [KANAL.to_owned(), format!("{{\"keysheath\": \"{KANAL}\", \"form\": 1}}"), format!("[\"{KANAL}\"]")]
    {
        refused(KeySet::from_document(Kanal::PROFILE, text.as_bytes()).map(drop).unwrap_err());
    }
    let error: FingerprintError = KANAL.parse::<Fingerprint>().unwrap_err();
    assert_error_silent("no fingerprint", &error);
}

#[cfg(feature = "keychain")]
#[test]
fn a_document_store_shows_where_it_is_and_nothing_that_it_holds() {
    use keysheath::source::Keychain;
    use keysheath::store::{DocumentContent, KeychainStore};

    let store = KeychainStore::new(Keychain::new(), "kanal", "/tmp/kanal.lock");
    assert_debug_silent("a store", &store);
    assert_debug_silent("a content", &DocumentContent::from(KANAL.as_bytes().to_vec()));
}
