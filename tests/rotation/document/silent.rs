//! P1, for documents: nothing that is printed shows what they hold.

use keysheath::store::{
    Document, DocumentContent, DocumentError, DocumentStore, FileStore, MemoryStore, Version,
};

use super::{content, place, there};
use crate::support::canary::{KANAL, assert_debug_silent, assert_error_silent, assert_value_silent};

fn canary() -> DocumentContent {
    content(KANAL)
}

#[test]
fn no_content_store_or_version_prints_what_the_document_holds() {
    let (_folder, path) = place();
    let file = FileStore::new(path);
    let memory = MemoryStore::new();
    for store in [&file as &dyn DocumentStore, &memory] {
        let version = store.write(&canary(), None).unwrap();
        assert_debug_silent("a version", &version);
        assert_debug_silent("a document", &there(store));
        assert_value_silent("a provenance", &store.provenance());
    }
    assert_debug_silent("a content", &canary());
    assert_debug_silent("a file store", &file);
    assert_debug_silent("a memory store", &memory);
    assert_debug_silent("a document of one's own", &Document::new(canary(), Version::new(1, 2)));
}

#[test]
fn no_error_prints_what_the_document_holds() {
    let (folder, path) = place();
    let silent = |what: &str, error: DocumentError| assert_error_silent(what, &error);
    for (what, bytes) in [
        ("a key alone", KANAL.to_owned()),
        ("a key after the name", format!("KSHDOC01{KANAL}{KANAL}{KANAL}{KANAL}")),
        ("a newer format", format!("KSHDOC{KANAL}{KANAL}{KANAL}{KANAL}")),
    ] {
        folder.write("document", bytes);
        silent(what, FileStore::new(&path).read().unwrap_err());
        silent(what, FileStore::new(&path).write(&canary(), None).unwrap_err());
    }
    let store = FileStore::new(folder.at("other"));
    let version = store.write(&canary(), None).unwrap();
    silent("a conflict", store.write(&canary(), None).unwrap_err());
    std::fs::remove_file(folder.at("other")).unwrap();
    silent("stale", store.write(&canary(), Some(&version)).unwrap_err());
    silent("too large", store.write(&content(KANAL.repeat(1000)), None).unwrap_err());
    silent("no folder", FileStore::new("/no/such/folder").write(&canary(), None).unwrap_err());
}
