//! What processes show of themselves, and what goes wrong with it.

use keysheath::handle::KeyHandle;
use keysheath::rotation::{Fleet, Presence, PresenceError, PresenceRecord, PresenceSettings};
use keysheath::store::{DocumentContent, DocumentStore as _, MemoryStore};

use super::*;

#[test]
fn presence_shows_no_key() {
    let store = MemoryStore::new();
    let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse(KANAL).unwrap());
    let settings = PresenceSettings::new("shop-sync on shop-7");
    assert_debug_silent("settings", &settings);
    let presence = Presence::show(store.clone(), &handle, settings).unwrap();
    assert_debug_silent("presence", &presence);
    let status = presence.health();
    assert_value_silent("a status", &status);
    let fleet: Fleet = Fleet::read::<Kanal>(&store).unwrap();
    assert_value_silent("a fleet", &fleet);
    let record: &PresenceRecord = &fleet.records()[0];
    assert_value_silent("a record", record);
    let document = fleet.to_document().unwrap();
    let text = std::str::from_utf8(document.expose_secret()).unwrap();
    assert_silent("the document", text);
}

#[test]
fn presence_errors_show_no_key() {
    let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse(KANAL).unwrap());
    for name in [KANAL.to_owned(), format!("{KANAL}\n"), KANAL.repeat(9)] {
        let error: PresenceError =
            Presence::show(MemoryStore::new(), &handle, PresenceSettings::new(name)).unwrap_err();
        assert_error_silent("a name", &error);
    }
    let whole = Fleet::read::<Kanal>(&MemoryStore::new()).unwrap().to_document().unwrap();
    let whole = std::str::from_utf8(whole.expose_secret()).unwrap();
    for harm in [
        KANAL.to_owned(),
        whole.replace("kanal", KANAL),
        whole.replace("presence", KANAL),
        whole.replace('[', &format!("[\"{KANAL}\"")),
        whole.replace("processes", KANAL),
        whole.replace(": 1", &format!(": \"{KANAL}\"")),
    ] {
        let store = MemoryStore::new();
        store.write(&DocumentContent::from(harm.into_bytes()), None).unwrap();
        let error = Fleet::read::<Kanal>(&store).unwrap_err();
        assert_error_silent("a document", &error);
    }
}
