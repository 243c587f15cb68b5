//! What every store does, whatever is behind it.

use std::collections::HashSet;

use keysheath::store::{DocumentError, DocumentStore, FileStore, MemoryStore, Version};

use super::{MAX_DOCUMENT, content, place, text, there};

/// Runs each part on an empty store of its own. `open` opens the same place once more, as another process
/// would.
pub(super) fn keeps_the_contract(open: &dyn Fn(&str) -> Box<dyn DocumentStore>) {
    nothing_is_there_before_the_first_write(&*open("one"));
    what_must_not_exist_is_not_written_over(&*open("two"), &*open("two"));
    an_older_version_is_a_conflict_and_changes_nothing(&*open("three"), &*open("three"));
    every_write_has_a_version_of_its_own(&*open("four"));
    any_bytes_up_to_the_bound_are_kept_and_one_more_is_refused(&*open("five"));
    a_reader_of_the_old_one_is_told_by_any_store(&*open("six"), &*open("six"));
}

fn nothing_is_there_before_the_first_write(store: &dyn DocumentStore) {
    assert!(store.read().unwrap().is_none());
    let unchanged = Version::new(1, 0);
    assert_eq!(store.write(&content("text"), Some(&unchanged)), Err(DocumentError::Conflict));
    assert!(store.read().unwrap().is_none());
    let version = store.write(&content("text"), None).unwrap();
    assert_eq!((text(store), there(store).version()), ("text".to_owned(), &version));
}

fn what_must_not_exist_is_not_written_over(store: &dyn DocumentStore, other: &dyn DocumentStore) {
    let version = store.write(&content("first"), None).unwrap();
    for store in [store, other] {
        assert_eq!(store.write(&content("second"), None), Err(DocumentError::Conflict));
        assert_eq!((text(store), there(store).version()), ("first".to_owned(), &version));
    }
}

fn an_older_version_is_a_conflict_and_changes_nothing(store: &dyn DocumentStore, other: &dyn DocumentStore) {
    let first = store.write(&content("first"), None).unwrap();
    let second = other.write(&content("second"), Some(&first)).unwrap();
    for wrong in [Some(&first), None, Some(&Version::new(2, 0))] {
        assert_eq!(store.write(&content("third"), wrong), Err(DocumentError::Conflict));
        assert_eq!((text(other), there(other).version()), ("second".to_owned(), &second));
    }
    store.write(&content("third"), Some(&second)).unwrap();
    assert_eq!(text(other), "third");
}

fn every_write_has_a_version_of_its_own(store: &dyn DocumentStore) {
    let mut versions = HashSet::new();
    let mut last = None;
    // The same two contents by turns: a reader of the first `a` must see that it is not the second.
    for number in 0..10 {
        let version = store.write(&content(["a", "b"][number % 2]), last.as_ref()).unwrap();
        assert!(versions.insert(version), "{version:?} came twice");
        last = Some(version);
    }
    for version in versions {
        if Some(version) != last {
            assert_eq!(store.write(&content("a"), Some(&version)), Err(DocumentError::Conflict));
        }
    }
}

fn any_bytes_up_to_the_bound_are_kept_and_one_more_is_refused(store: &dyn DocumentStore) {
    let limit = store.limit();
    let mut last = None;
    for bytes in [vec![], vec![0; 1], (0..=255).collect(), vec![0xff; limit]] {
        last = Some(store.write(&content(&bytes), last.as_ref()).unwrap());
        assert_eq!(there(store).content().expose_secret(), bytes);
    }
    for length in [limit + 1, limit * 2, 1 << 20] {
        let refused = store.write(&content(vec![1; length]), last.as_ref());
        assert_eq!(refused, Err(DocumentError::TooLarge { limit }));
    }
    assert_eq!(there(store).content().expose_secret(), vec![0xff; limit]);
    store.write(&content("short again"), last.as_ref()).unwrap();
    assert_eq!(text(store), "short again");
}

fn a_reader_of_the_old_one_is_told_by_any_store(store: &dyn DocumentStore, other: &dyn DocumentStore) {
    let mut last = None;
    for number in 0..20 {
        let (writes, reads) = if number % 2 == 0 { (store, other) } else { (other, store) };
        let version = writes.write(&content(number.to_string()), last.as_ref()).unwrap();
        let late = reads.write(&content("late"), last.as_ref());
        assert_eq!(late, Err(DocumentError::Conflict));
        assert_eq!((text(reads), there(reads).version()), (number.to_string(), &version));
        last = Some(version);
    }
}

#[test]
fn a_document_in_memory_keeps_the_contract() {
    let stores = [(); 6].map(|()| MemoryStore::new());
    let names = ["one", "two", "three", "four", "five", "six"];
    keeps_the_contract(&|name| {
        let at = names.iter().position(|other| *other == name).unwrap();
        Box::new(stores[at].clone())
    });
    assert_eq!(MemoryStore::new().limit(), MAX_DOCUMENT);
    assert_eq!(MemoryStore::new().provenance().to_string(), "memory document");
}

#[test]
fn a_document_in_a_file_keeps_the_contract() {
    let (folder, path) = place();
    keeps_the_contract(&|name| Box::new(FileStore::new(folder.at(name))));
    let store = FileStore::new(&path);
    assert_eq!(store.limit(), MAX_DOCUMENT);
    assert_eq!(store.provenance().to_string(), format!("file {}", path.display()));
}
