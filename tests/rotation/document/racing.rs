//! Many writers at once: none overwrites what another has written.

use std::path::Path;
use std::thread;

use keysheath::store::{Document, DocumentError, DocumentStore, FileStore, MemoryStore};

use super::{content, place, text};
use crate::support::Child;

/// Adds 1 to the number that the document holds, whatever others do, and gives how often another one came
/// first.
pub(super) fn add_one(store: &dyn DocumentStore) -> usize {
    let mut conflicts = 0;
    loop {
        let there = store.read().unwrap();
        let number = there.as_ref().map_or(0, |there| {
            std::str::from_utf8(there.content().expose_secret()).unwrap().parse::<usize>().unwrap()
        });
        let unchanged = there.as_ref().map(Document::version);
        match store.write(&content((number + 1).to_string()), unchanged) {
            Ok(_) => return conflicts,
            Err(DocumentError::Conflict) => conflicts += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_thousand_additions_by_each_of_two_processes_are_kept() {
    const NAME: &str = "racing::a_thousand_additions_by_each_of_two_processes_are_kept";
    const ROUNDS: usize = 1_000;
    if Child::new(NAME).is_here() {
        let store = FileStore::new(Path::new(&std::env::var_os("DOCUMENT").unwrap()));
        let conflicts: usize = (0..ROUNDS).map(|_| add_one(&store)).sum();
        println!("conflicts: {conflicts}");
        return;
    }
    let (_folder, path) = place();
    let children = [(); 2].map(|()| Child::new(NAME).var("DOCUMENT", &path).spawn());
    let mut conflicts = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{shown}");
        let count =
            shown.lines().find_map(|line| line.split_once("conflicts: ")).expect("it came to its end").1;
        conflicts += count.parse::<usize>().unwrap();
    }
    println!("{conflicts} conflicts");
    assert_eq!(text(&FileStore::new(path)), (2 * ROUNDS).to_string());
    assert!(conflicts > 0, "they never met");
}

#[test]
fn concurrent_threads_and_readers_lose_nothing_and_see_no_stale() {
    let (_folder, path) = place();
    let file = FileStore::new(path);
    let memory = MemoryStore::new();
    for store in [&file as &dyn DocumentStore, &memory] {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..200).map(|_| add_one(store)).sum::<usize>());
            }
            scope.spawn(|| {
                for _ in 0..500 {
                    store.read().unwrap();
                }
            });
        });
        assert_eq!(text(store), "400");
    }
}
