//! Real processes: many at once, and ones that are killed.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child as Process, ChildStdout};

use keysheath::Cadence;
use keysheath::store::FileStore;

use super::*;
use crate::support::Child;
use crate::support::forked::forked;
use crate::support::in_child;

/// A child, and what it writes: it would fail if nothing read that.
struct Follower(Process, Lines<BufReader<ChildStdout>>);

impl Follower {
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn ends_well(mut self) {
        let shown: Vec<_> = self.1.map(Result::unwrap).collect();
        assert!(self.0.wait().unwrap().success(), "{shown:?}");
    }
}

/// Starts a child, and waits until it is shown.
fn start(test: &'static str, folder: &Folder, name: &str) -> Follower {
    let child = Child::new(test).var("FOLDER", folder.path()).var("NAME", name);
    let mut child = child.spawn();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("= shown")), "{name} did not begin");
    Follower(child, lines)
}

/// In a child: follows the key set and shows itself, until the file of its name is there.
fn follow() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let (folder, name) = (std::path::PathBuf::from(variable("FOLDER")), variable("NAME"));
    let poll = RefreshSettings::new().with_cadence(Cadence::every(Duration::from_millis(100)));
    let refresher = Refresher::<Kanal>::from_store(FileStore::new(folder.join("keys")), poll).unwrap();
    let store = FileStore::new(folder.join("presence"));
    let presence = Presence::show(store, &refresher.handle(), settings(&name)).unwrap();
    println!("= shown");
    eventually("the end", || folder.join(format!("end-{name}")).exists());
    assert!(presence.health().problem().is_none(), "{}", presence.health());
}

fn rotator(folder: &Folder) -> Rotator<FileStore> {
    Rotator::new(FileStore::new(folder.at("keys")), FileStore::new(folder.at("presence")))
}

#[test]
fn eight_processes_share_one_file_take_the_new_key_and_leave() {
    const TEST: &str = "processes::eight_processes_share_one_file_take_the_new_key_and_leave";
    if Child::new(TEST).is_here() {
        return follow();
    }
    let folder = Folder::new();
    let rotator = rotator(&folder);
    let mut all: Vec<String> = (1..=8).map(|number| format!("worker-{number}")).collect();
    let children: Vec<_> = all.iter().map(|name| start(TEST, &folder, name)).collect();
    let mut shown = names(rotator.rotation.fleet().unwrap().records());
    shown.sort();
    assert_eq!(shown, all);
    rotator.promote(2);
    eventually("all have the new key", || rotator.waits_for().is_empty());
    assert_eq!(rotator.deletes(), (Some(8), vec![]));
    for name in all.drain(..) {
        folder.write(&format!("end-{name}"), "");
    }
    children.into_iter().for_each(Follower::ends_well);
    assert!(rotator.rotation.fleet().unwrap().records().is_empty(), "who ends takes itself out");
}

#[test]
fn a_killed_process_delays_a_deletion_and_is_named_afterwards() {
    const TEST: &str = "processes::a_killed_process_delays_a_deletion_and_is_named_afterwards";
    if Child::new(TEST).is_here() {
        return follow();
    }
    let folder = Folder::new();
    let rotator = rotator(&folder);
    let [killed, living] = ["killed", "living"].map(|name| start(TEST, &folder, name));
    killed.kill();
    rotator.promote(2);
    eventually("the living one has the new key", || rotator.waits_for() == ["killed"]);
    // A second, and the minute for clocks that differ. The other one goes on to show itself, by a clock that
    // is behind the rotator's by less than that.
    rotator.ahead.store(58, Ordering::SeqCst);
    eventually("its time is over", || {
        let step = rotator.next();
        matches!(&step, NextStep::Delete { shown: Some(1), silent, .. } if names(silent) == ["killed"])
    });
    let step = rotator.next().to_string();
    let begins = format!(
        "first check yourself that these silent processes no longer use the old key: killed (generation 1, \
         key {}, shown ",
        name(1)
    );
    assert!(step.starts_with(&begins) && step.contains("); then delete the key"), "{step}");
    folder.write("end-living", "");
    living.ends_well();
}

#[test]
fn a_forked_child_leaves_the_record_and_waits_for_no_thread() {
    in_child("processes::a_forked_child_leaves_the_record_and_waits_for_no_thread", &[("NONE", "")], || {
        let store = MemoryStore::new();
        let show = || Presence::show(store.clone(), &no_key(), settings("a")).unwrap();
        let mut both = vec![show(), show()];
        let status = forked(|| {
            let begun = Instant::now();
            let is_out = both.pop().is_some_and(|presence| presence.close(PATIENCE));
            both.clear();
            !is_out && begun.elapsed() < Duration::from_secs(4)
        });
        assert_eq!(status, Some(0));
        assert_eq!(Fleet::read::<Kanal>(&store).unwrap().records().len(), 2);
        drop(both);
        assert!(Fleet::read::<Kanal>(&store).unwrap().records().is_empty());
    });
}
