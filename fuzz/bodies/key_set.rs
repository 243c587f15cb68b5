//! An untrusted document is read as a key set.

use keysheath::key::{Issuer, Kanal};
use keysheath::keyset::{KeySet, KeySetError, KeyState, ManagedKey};

/// The largest document, in bytes.
const MAX_DOCUMENT: usize = 32_768;

pub fn key_set(data: &[u8]) {
    let keys = match KeySet::from_document(Kanal::PROFILE, data) {
        Ok(keys) => keys,
        Err(error) => {
            assert_eq!(error == KeySetError::TooLarge, data.len() > MAX_DOCUMENT);
            assert!(!format!("{error} {error:?}").contains("S2V5"), "a key is shown");
            return;
        }
    };
    // Each key is in one place, and a leaked one in none of the three.
    let slots = [
        (keys.current(), KeyState::Current),
        (keys.pending(), KeyState::Pending),
        (keys.previous(), KeyState::Previous),
    ];
    for (held, place) in slots.into_iter().filter_map(|(held, place)| Some((held?, place))) {
        assert_eq!(keys.state_of(held.info().fingerprint()), Some(place));
        assert_eq!(held.key().fingerprint(), Some(held.info().fingerprint()));
        assert!(!keys.compromised().contains(&held.info().fingerprint()), "a leaked key is back");
    }
    assert!(keys.current().is_none() || keys.generation().is_some());
    // What is written of it is read as the same.
    let written = keys.to_document();
    assert!(written.expose_secret().len() <= MAX_DOCUMENT);
    let again = KeySet::from_document(Kanal::PROFILE, written.expose_secret()).expect("it was just written");
    assert_eq!(again.to_document().expose_secret(), written.expose_secret());
    let texts = |held: Option<&ManagedKey>| {
        held.map(|held| {
            format!("{:?}{:?}{:?}", held.info().by(), held.info().loaded_from(), held.info().note())
        })
    };
    assert_eq!(texts(again.pending()), texts(keys.pending()));
}
