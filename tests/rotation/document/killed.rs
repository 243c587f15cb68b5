//! Writers that are killed at any instant.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use keysheath::store::{DocumentStore, FileStore, Version};

use super::{content, place, there};
use crate::support::Child;

/// The number with some kilobytes after it, so that a document that is not whole shows.
fn text_of(number: u64, limit: usize) -> String {
    format!("{number} {}", "x".repeat(usize::try_from(number % 5).unwrap() * (limit / 5)))
}

fn number_in(store: &dyn DocumentStore) -> u64 {
    let document = there(store);
    let text = std::str::from_utf8(document.content().expose_secret()).unwrap();
    let number = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text, text_of(number, store.limit()), "it is not whole");
    number
}

fn write_number(store: &dyn DocumentStore, number: u64, unchanged: Option<&Version>) -> Version {
    store.write(&content(text_of(number, store.limit())), unchanged).unwrap()
}

/// Writes until it is killed, and says after each write which it was.
pub(super) fn run_until_killed(store: &dyn DocumentStore) -> ! {
    let mut out = std::io::stdout();
    let mut number = number_in(store);
    let mut version = *there(store).version();
    out.write_all(b"= opened\n").unwrap();
    loop {
        number += 1;
        version = write_number(store, number, Some(&version));
        out.write_all(format!("{number}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// Kills a writer that `spawn` starts, again and again, and each time sees that the document is whole: the
/// last one that was reported, or the next; and that the next writer can go on. Gives how often it was the
/// next.
pub(super) fn survives(
    kills: u64,
    longest: Duration,
    store: &dyn DocumentStore,
    spawn: impl Fn() -> std::process::Child,
    after_each_kill: &mut dyn FnMut(),
) -> u64 {
    write_number(store, 0, None);
    let mut last = 0;
    let random = RandomState::new();
    let mut unreported = 0;
    for kill in 0..kills {
        let mut child = spawn();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.ends_with("= opened\n") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child has not opened the document");
        }
        let microseconds = random.hash_one(kill) % u64::try_from(longest.as_micros()).unwrap();
        let killing = thread::spawn(move || {
            thread::sleep(Duration::from_micros(microseconds));
            child.kill().unwrap();
            child.wait().unwrap()
        });
        let mut reported = last;
        loop {
            line.clear();
            out.read_line(&mut line).unwrap();
            // A line that the kill has cut short does not count.
            let Some(line) = line.strip_suffix('\n') else { break };
            reported = line.parse().unwrap();
        }
        killing.join().unwrap();
        after_each_kill();

        let number = number_in(store);
        assert!(
            number == reported || number == reported + 1,
            "{reported} was reported, and {number} is there"
        );
        unreported += u64::from(number == reported + 1);
        // The next writer is not kept off.
        last = number + 1;
        write_number(store, last, Some(there(store).version()));
    }
    unreported
}

#[test]
fn a_finished_change_survives_a_kill_at_any_instant() {
    const NAME: &str = "killed::a_finished_change_survives_a_kill_at_any_instant";
    const KILLS: u64 = 300;
    if Child::new(NAME).is_here() {
        run_until_killed(&FileStore::new(Path::new(&std::env::var_os("DOCUMENT").unwrap())));
    }
    let (folder, path) = place();
    let mut left = 0;
    let spawn = || Child::new(NAME).var("DOCUMENT", &path).spawn();
    let unreported = survives(KILLS, Duration::from_millis(20), &FileStore::new(&path), spawn, &mut || {
        left += u64::from(folder.at("document.keysheath-new").exists());
    });
    println!("{KILLS} kills: {left} left a file behind, {unreported} had written and not yet reported it");
    assert!(left > 0, "no kill came within a write");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the document and its lock");
}
