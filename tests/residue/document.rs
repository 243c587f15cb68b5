//! P2, for documents: writing and reading one leaves no freed heap block with the key in it.

use std::fs;

use crate::support::residue::{KEY, NONE, Residue, alone, residue_of};
use keysheath::store::{DocumentContent, DocumentError, DocumentStore, FileStore, MemoryStore};

/// Measures in a process of its own, prints a line, and wants nothing left behind.
fn leaves_nothing<T>(test: &'static str, work: impl FnOnce() -> T) {
    alone(test, &[], || {
        let found = residue_of(work);
        println!("{found}: {}", test.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}

/// A content with the planted key in it; no part of it has been elsewhere on the heap.
fn content() -> DocumentContent {
    let mut bytes = Vec::with_capacity(2400);
    for _ in 0..100 {
        bytes.extend_from_slice(KEY.as_bytes());
    }
    DocumentContent::from(bytes)
}

/// What any store does, refusals included.
fn use_of(store: &dyn DocumentStore) {
    let content = content();
    let first = store.write(&content, None).unwrap();
    let second = store.write(&content, Some(&first)).unwrap();
    assert_eq!(store.write(&content, Some(&first)), Err(DocumentError::Conflict));
    drop(content);
    let there = store.read().unwrap().unwrap();
    assert!(there.content().expose_secret().starts_with(KEY.as_bytes()));
    drop(format!("{there:?}"));
    let (clone, document) = (there.content().clone(), there.clone());
    drop(there);
    store.write(document.content(), Some(&second)).unwrap();
    drop((clone, document));
    drop(store.read().unwrap());
    // On this thread, from which the store may read.
    store.version().unwrap();
}

#[test]
fn the_control_a_copy_that_is_dropped_is_found() {
    const TEST: &str = "the_control_a_copy_that_is_dropped_is_found";
    alone(TEST, &[], || {
        let content = content();
        let found = residue_of(|| drop(content.expose_secret().to_vec()));
        println!("{found}: {}", TEST.replace('_', " "));
        assert_eq!(found, Residue { whole: 1, partial: 0 });
    });
}

#[test]
fn a_document_in_memory_leaves_nothing() {
    leaves_nothing("a_document_in_memory_leaves_nothing", || use_of(&MemoryStore::new()));
}

#[test]
fn a_document_in_a_file_leaves_nothing() {
    leaves_nothing("a_document_in_a_file_leaves_nothing", || {
        let folder = tempfile::tempdir().unwrap();
        use_of(&FileStore::new(folder.path().join("document")));
    });
}

#[test]
fn a_document_that_is_refused_leaves_nothing() {
    leaves_nothing("a_document_that_is_refused_leaves_nothing", || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("document");
        let store = FileStore::new(&path);
        store.write(&content(), None).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        assert_eq!(store.read().unwrap_err(), DocumentError::Corrupt);
        assert_eq!(store.write(&content(), None), Err(DocumentError::Corrupt));
        let mut bytes = Vec::with_capacity(32_769);
        bytes.extend_from_slice(KEY.as_bytes());
        bytes.resize(32_769, b'x');
        let large = DocumentContent::from(bytes);
        assert!(matches!(store.write(&large, None), Err(DocumentError::TooLarge { .. })));
    });
}

#[cfg(feature = "keychain")]
#[test]
fn a_document_in_the_keychain_leaves_nothing() {
    use keysheath::source::Keychain;
    use keysheath::store::KeychainStore;

    const TEST: &str = "a_document_in_the_keychain_leaves_nothing";
    crate::support::secret_service::with_keychain(TEST, |_| {
        let folder = tempfile::tempdir().unwrap();
        let store = |name: &str| KeychainStore::new(Keychain::new(), name, folder.path().join(name));
        // What the client sets up once is not part of it.
        store("first").write(&content(), None).unwrap();
        let found = residue_of(|| use_of(&store("second")));
        println!("{found}: {}", TEST.replace('_', " "));
        assert_eq!(found, NONE, "freed blocks with the key in them");
    });
}
