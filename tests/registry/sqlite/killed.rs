//! A process that is killed at any instant of a long run of creating and deleting.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use keysheath::failure::Meaning;
use keysheath::registry::{KeyId, RequestedStore};
use rusqlite::Connection;

use super::{Place, ask, create, open};
use crate::support::Child;

const NAME: &str = "killed::a_finished_change_survives_a_kill_at_any_instant";

const KILLS: u64 = 50;

/// Creates and deletes until it is killed, and writes a line before and after each step.
fn run_until_killed(folder: &Path) -> ! {
    let registry = open(folder);
    let mut out = std::io::stdout();
    let mut report = |line: String| {
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    report("= opened\n".to_owned());
    let mut alive = Vec::new();
    loop {
        for _ in 0..3 {
            let (id, key) = create(&registry, "name", None);
            report(format!("+ {id} {key}\n"));
            // So that a last use is queued, too.
            assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
            alive.push((id, key));
        }
        for _ in 0..2 {
            let (id, key) = alive.swap_remove(alive.len() / 2);
            report(format!("? {id} {key}\n"));
            registry.delete_key(id).unwrap();
            report(format!("- {id} {key}\n"));
        }
    }
}

/// The outcome of one run: keys that must be accepted, that must be refused, and those whose deletion was in
/// progress.
#[derive(Default)]
struct Ledger {
    accepted: Vec<(KeyId, String)>,
    refused: Vec<(KeyId, String)>,
    either: Option<(KeyId, String)>,
}

impl Ledger {
    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(step), Some(id), Some(key)) = (words.next(), words.next(), words.next()) else { return };
        let key = (id.parse().unwrap(), key.to_owned());
        match step {
            "+" => self.accepted.push(key),
            "?" => {
                self.accepted.retain(|other| *other != key);
                self.either = Some(key);
            }
            "-" => {
                self.either = None;
                self.refused.push(key);
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_finished_change_survives_a_kill_at_any_instant() {
    if Child::new(NAME).is_here() {
        run_until_killed(Path::new(&std::env::var_os("FOLDER").unwrap()));
    }
    let place = Place::new();
    drop(place.create());
    let random = RandomState::new();
    let mut ledger = Ledger::default();
    let (mut with_log, mut in_between) = (0, 0);
    for kill in 0..KILLS {
        let child = Child::new(NAME).var("FOLDER", place.0.path());
        let after = Duration::from_micros(random.hash_one(kill) % 150_000);
        child.run_until_killed(Some(after), |line| ledger.read(line));

        with_log += u32::from(!place.beside().is_empty());
        in_between += u32::from(ledger.either.is_some());
        let registry = place.open();
        for (id, key) in &ledger.accepted {
            assert_eq!(ask(&registry, key, RequestedStore::NoStore), None, "{id} was made and is refused");
        }
        for (id, key) in &ledger.refused {
            let answer = ask(&registry, key, RequestedStore::NoStore);
            assert_eq!(answer, Some(Meaning::KeyRefused), "{id} was deleted and is accepted");
            assert!(registry.key(*id).is_none());
        }
        if let Some((id, key)) = ledger.either.take() {
            // Its state must not change any more.
            match ask(&registry, &key, RequestedStore::NoStore) {
                None => ledger.accepted.push((id, key)),
                Some(_) => ledger.refused.push((id, key)),
            }
        }
        drop(registry);
        let verdict: String = Connection::open(place.path())
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(verdict, "ok");
    }
    println!(
        "{KILLS} kills: {} keys accepted, {} refused, {with_log} logs left, {in_between} within a deletion",
        ledger.accepted.len(),
        ledger.refused.len()
    );
    assert!(ledger.refused.len() > 20, "the runs were too short");
    assert!(u64::from(with_log) > KILLS / 2, "most were killed with the records open");
}
