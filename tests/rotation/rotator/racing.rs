//! Several processes that rotate the same key set.

use std::collections::HashSet;
use std::path::Path;

use keysheath::keyset::KeySetError;
use keysheath::rotation::{RotationError, Transition};
use keysheath::store::FileStore;

use super::*;
use crate::support::{Child, Folder};

/// What one process says of each step that was acknowledged: `action number rotation`, in a line.
fn report(action: &str, transition: &Transition) {
    if transition.is_change() {
        println!(
            "= {action} {} {}",
            transition.event().fingerprint.unwrap(),
            transition.event().rotation.unwrap()
        );
    }
}

/// Does a step; that another process was faster is no failure.
fn try_to(action: &str, step: Result<Transition, RotationError>) {
    match step {
        Ok(transition) => report(action, &transition),
        Err(RotationError::Refused(
            KeySetError::InProgress { .. }
            | KeySetError::NotPending { .. }
            | KeySetError::NotCurrent
            | KeySetError::NothingBefore
            | KeySetError::PreviousThere { .. },
        )) => {}
        Err(error) => panic!("{action}: {error}"),
    }
}

#[test]
fn two_rotating_processes_lose_no_acknowledged_step() {
    const NAME: &str = "racing::two_rotating_processes_lose_no_acknowledged_step";
    const ROUNDS: u64 = 500;
    if Child::new(NAME).is_here() {
        let variable = |name: &str| std::env::var(name).unwrap();
        let (path, first) = (variable("DOCUMENT"), variable("FIRST").parse::<u64>().unwrap());
        let rotation = Rotation::<Kanal>::open(FileStore::new(Path::new(&path)), RotationPolicy::new())
            .unwrap()
            .with_audit_file(variable("AUDIT"));
        let handle = rotation.handle();
        for number in first..first + ROUNDS {
            try_to("staged", rotation.stage(&key(number)).map(|staged| staged.transition().clone()));
            // What is there may be the other's; it is shown, and then acted on.
            rotation.status().unwrap();
            try_to("promoted", rotation.promote_unverified_now());
            if number % 7 == 0 {
                try_to("rolled", rotation.roll_back_now());
                rotation.status().unwrap();
                try_to("aborted", rotation.abort_now().map(|aborted| aborted.transition().clone()));
            }
            try_to("retired", rotation.retire_unprobed_now());
            let keys = rotation.status().unwrap();
            assert!(keys.keys().current().is_some() && sent(&handle).is_some(), "a key is always active");
        }
        println!("= end");
        return;
    }
    let folder = Folder::new();
    let path = folder.at("keys");
    let store = FileStore::new(&path);
    Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap().adopt(&key(1)).unwrap();
    let audit = folder.at("audit");
    let children = [1_000_u64, 9_000].map(|first| {
        let child = Child::new(NAME).var("DOCUMENT", &path).var("AUDIT", &audit);
        child.var("FIRST", first.to_string()).spawn()
    });
    let mut reported = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && shown.contains("= end"), "{shown}");
        // The first line of a test's output may stand behind the test's name.
        reported.extend(shown.lines().filter_map(|line| Some(line.split_once("= ")?.1.to_owned())));
    }
    consistent(&reported, &store);
    // One line for each acknowledged change, and each of them whole.
    let lines = std::fs::read_to_string(&audit).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let changes = events.filter(|event| event["repeat"] == false).count();
    assert_eq!(changes, reported.iter().filter(|line| *line != "end").count());
}

/// That what was acknowledged fits together, and with what is persisted at the end.
fn consistent(reported: &[String], store: &FileStore) {
    let of = |action: &str| -> Vec<(String, u64)> {
        let lines = reported.iter().filter_map(|line| line.strip_prefix(action)?.strip_prefix(' '));
        let parse = |line: &str| {
            let (fingerprint, rotation) = line.split_once(' ').unwrap();
            (fingerprint.to_owned(), rotation.parse().unwrap())
        };
        lines.map(parse).collect()
    };
    let (staged, promoted, retired) = (of("staged"), of("promoted"), of("retired"));
    let (rolled, aborted) = (of("rolled"), of("aborted"));
    println!(
        "{} staged, {} promoted, {} rolled back, {} aborted, {} retired",
        staged.len(),
        promoted.len(),
        rolled.len(),
        aborted.len(),
        retired.len()
    );
    // No two were given the same number, and none is missing between them: no staging was overwritten.
    let numbers: HashSet<u64> = staged.iter().map(|(_, rotation)| *rotation).collect();
    assert_eq!(numbers.len(), staged.len());
    assert_eq!(numbers, (2..2 + staged.len() as u64).collect());
    // The generation counts each change of the active key, and nothing else.
    let there = store.read().unwrap().unwrap();
    let keys = KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).unwrap();
    let generation = keys.generation().unwrap().to_string().parse::<usize>().unwrap();
    assert_eq!(generation, 1 + promoted.len() + rolled.len());
    // Each key that was staged is in a place, or was aborted or retired, and the caller knows it.
    let gone: HashSet<&str> = aborted.iter().chain(&retired).map(|(name, _)| name.as_str()).collect();
    assert_eq!(gone.len(), aborted.len() + retired.len(), "none was given up or retired twice");
    let mut held = 0;
    for (fingerprint, _) in staged.iter().chain([&(name(1).to_string(), 1)]) {
        let is_held = [keys.current(), keys.pending(), keys.previous()]
            .into_iter()
            .flatten()
            .any(|held| held.info().fingerprint().to_string() == *fingerprint);
        assert_ne!(is_held, gone.contains(fingerprint.as_str()), "{fingerprint}");
        held += usize::from(is_held);
    }
    assert_eq!(staged.len() + 1, held + gone.len());
    assert!(staged.len() > 300, "they hardly met");
}
