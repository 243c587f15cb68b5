//! Writers that are killed at any instant.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use keysheath::document::{DocumentStore, FileStore};

use super::{content, place, there};
use crate::support::Child;

const NAME: &str = "killed::what_has_returned_survives_a_kill_at_any_instant";

const KILLS: u64 = 300;

/// The number with some kilobytes after it, so that a document that is not whole shows.
fn text_of(number: u64) -> String {
    format!("{number} {}", "x".repeat(usize::try_from(number % 5).unwrap() * 3000))
}

fn number_in(store: &FileStore) -> u64 {
    let document = there(store);
    let text = std::str::from_utf8(document.content().expose_secret()).unwrap();
    let number = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text, text_of(number), "it is not whole");
    number
}

/// Writes until it is killed, and says before and after each write which it is.
fn run_until_killed(path: &Path) -> ! {
    let store = FileStore::new(path);
    let mut out = std::io::stdout();
    let mut number = number_in(&store);
    let mut version = *there(&store).version();
    out.write_all(b"= opened\n").unwrap();
    loop {
        number += 1;
        version = store.write(&content(text_of(number)), Some(&version)).unwrap();
        out.write_all(format!("{number}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_has_returned_survives_a_kill_at_any_instant() {
    if Child::new(NAME).is_here() {
        run_until_killed(Path::new(&std::env::var_os("DOCUMENT").unwrap()));
    }
    let (folder, path) = place();
    let store = FileStore::new(&path);
    store.write(&content(text_of(0)), None).unwrap();
    let random = RandomState::new();
    let (mut left, mut untold) = (0, 0);
    for kill in 0..KILLS {
        let mut child = Child::new(NAME).var("DOCUMENT", &path).spawn();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.ends_with("= opened\n") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child has not opened the document");
        }
        let microseconds = random.hash_one(kill) % 20_000;
        let killing = thread::spawn(move || {
            thread::sleep(Duration::from_micros(microseconds));
            child.kill().unwrap();
            child.wait().unwrap()
        });
        let mut told = None;
        loop {
            line.clear();
            out.read_line(&mut line).unwrap();
            // A line that the kill has cut short was not told.
            let Some(line) = line.strip_suffix('\n') else { break };
            told = Some(line.parse::<u64>().unwrap());
        }
        killing.join().unwrap();

        left += u64::from(folder.at("document.new").exists());
        let number = number_in(&store);
        if let Some(told) = told {
            assert!(number == told || number == told + 1, "{told} was told, and {number} is there");
            untold += u64::from(number == told + 1);
        }
        // The next writer is not kept off, and removes what was left.
        let version = *there(&store).version();
        store.write(&content(text_of(number + 1)), Some(&version)).unwrap();
        assert!(!folder.at("document.new").exists());
    }
    println!("{KILLS} kills: {left} left a file behind, {untold} had written and not yet told");
    assert!(left > 0, "no kill came within a write");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the document and its lock");
}
