//! An untrusted document is read as the presence of a fleet.

use keysheath::key::{Issuer, Kanal};
use keysheath::rotation::{Fleet, PresenceError};

/// The largest document, in bytes.
const MAX_DOCUMENT: usize = 32_768;

pub fn presence(data: &[u8]) {
    let fleet = match Fleet::from_document(Kanal::PROFILE, data) {
        Ok(fleet) => fleet,
        Err(error) => {
            let shown = format!("{error} {error:?}");
            // What stands in a document is not shown, but for its form's number.
            assert!(!shown.contains("S2V5"), "a text of the document is shown");
            return;
        }
    };
    assert!(data.len() <= MAX_DOCUMENT && fleet.records().len() <= 128);
    let _ = fleet.to_string();
    for record in fleet.records() {
        let name = record.name();
        assert!((1..=64).contains(&name.len()) && !name.bytes().any(|byte| byte.is_ascii_control()));
        // No time is so far away that it cannot be told.
        let _ = (record.is_silent_at(std::time::SystemTime::now()), record.shown(), record.time_to_live());
        assert!(record.generation().is_some() || record.is_drained());
    }
    // What is written of it is read as the same. Spaces that were left out may make it too large.
    let written = match fleet.to_document() {
        Ok(written) => written,
        Err(error) => return assert_eq!(error, PresenceError::Full),
    };
    let again = Fleet::from_document(Kanal::PROFILE, written.expose_secret()).expect("it was just written");
    assert_eq!(again.records(), fleet.records());
}
