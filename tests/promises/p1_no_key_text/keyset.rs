//! A key set in every state, and its refusals.

use keysheath::key::{ApiKey, Fingerprint, ParseError};
use keysheath::keyset::{KeyInfo, KeySet, KeySetError, KeyState, ManagedKey, RotationId};
use keysheath::rotation::{KeyDetails, RotationError, Staged};

use super::*;
use crate::support::keys::Keys;

fn canary() -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(KANAL.as_bytes()).unwrap()
}

#[test]
fn a_key_set_and_its_refusals_show_no_key() {
    let (key, other) = (canary(), ApiKey::<Kanal>::parse_bytes(OTHER.as_bytes()).unwrap());
    let details = || -> KeyDetails<'_, Kanal> { KeyDetails::new(&key).with_note("yearly") };
    assert_debug_silent("key details", &details());
    let keys = Keys::new();
    let refused = |error: RotationError| assert_error_silent("a refusal", &error);
    let pasted = format!("{KANAL}\n");
    for texts in
        [details().with_note(KANAL), details().with_name(KANAL), details().with_note(pasted.as_str())]
    {
        assert_debug_silent("key details", &texts);
        refused(keys.stage(texts).unwrap_err());
    }
    assert_value_silent("an adoption", &keys.adopt(details()).unwrap());
    let read: KeySet = keys.read();
    let held: &ManagedKey = read.current().unwrap();
    let info: &KeyInfo = held.info();
    assert_debug_silent("a managed key", held);
    assert_value_silent("its description", info);
    assert_debug_silent("a key set", &read);
    assert_debug_silent("its summary", &read.summary());
    refused(keys.stage(details()).unwrap_err());
    refused(keys.adopt(&other).unwrap_err());
    let staged: Staged = keys.stage(&other).unwrap();
    assert_value_silent("a staged key", &staged);
    let id: RotationId = staged.rotation();
    assert_value_silent("a rotation", &id);
    refused(keys.promote(id).unwrap_err());
    let state: KeyState = read.state_of(key.fingerprint().unwrap()).unwrap();
    assert_value_silent("a state", &state);

    let document = keys.to_document();
    let document = document.expose_secret();
    let refused = |error: KeySetError| assert_error_silent("a refused document", &error);
    for end in (0..document.len()).step_by(7) {
        refused(KeySet::from_document(Kanal::PROFILE, &document[..end]).map(drop).unwrap_err());
    }
    for text in
        [KANAL.to_owned(), format!("{{\"keysheath\": \"{KANAL}\", \"form\": 1}}"), format!("[\"{KANAL}\"]")]
    {
        refused(KeySet::from_document(Kanal::PROFILE, text.as_bytes()).map(drop).unwrap_err());
    }
    let error: ParseError = KANAL.parse::<Fingerprint>().unwrap_err();
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
