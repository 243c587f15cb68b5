//! The settle time by two clocks: clocks that differ, jump and stand still, and commands that run for a
//! second.

use std::io::{BufRead as _, BufReader};
use std::time::Instant;

use keysheath::rotation::NextStep;
use keysheath::store::FileStore;

use super::*;
use crate::support::faketime::{set, wait_for_a_jump, with_clock};
use crate::support::{Child, Folder};

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

/// A process with clocks of its own: what its wall clock shows, and how far its monotonic one has come.
#[derive(Clone)]
struct Process {
    wall: Clock,
    own: Arc<AtomicU64>,
}

impl Process {
    /// One whose wall clock is so many seconds ahead.
    fn ahead(seconds: u64) -> Self {
        let wall = Clock::new();
        wall.advance(seconds);
        Self { wall, own: Arc::default() }
    }

    fn pass(&self, seconds: u64) {
        self.wall.advance(seconds);
        self.own.fetch_add(seconds, Ordering::SeqCst);
    }

    fn open(&self, store: &MemoryStore) -> Rotation<Kanal> {
        let (wall, own, start) = (self.wall.clone(), Arc::clone(&self.own), Instant::now());
        let answers = Answers::default();
        answers.accept(1);
        answers.accept(2);
        Rotation::<Kanal>::open(store.clone(), RotationPolicy::new())
            .unwrap()
            .with_clocks(move || wall.now(), move || start + Duration::from_secs(own.load(Ordering::SeqCst)))
            .with_probe(answers)
    }
}

/// A process that has promoted key 2.
fn promoter() -> (Process, Rotation<Kanal>) {
    let process = Process::ahead(0);
    let rotation = process.open(&MemoryStore::new());
    promote_key_2(&rotation);
    (process, rotation)
}

/// The minutes that are left to wait; none where the deletion is due.
#[track_caller]
fn left(rotation: &Rotation<Kanal>) -> Option<u64> {
    match rotation.next_step().unwrap() {
        NextStep::Wait { remaining, .. } => Some(remaining.as_secs() / MINUTE),
        NextStep::Delete { .. } => None,
        other => panic!("{other}"),
    }
}

#[test]
fn a_promoter_whose_clock_is_behind_makes_no_deletion_due() {
    let store = MemoryStore::new();
    promote_key_2(&Process::ahead(0).open(&store));
    // Another machine, by whose clock that was 20 minutes ago.
    let process = Process::ahead(20 * MINUTE);
    let service = process.open(&store);
    assert!(left(&service).is_some());
    process.pass(14 * MINUTE);
    assert!(left(&service).is_some());
    process.pass(MINUTE);
    assert_eq!(left(&service), None, "it has seen the promotion for as long as the settle time");
}

#[test]
fn a_command_that_runs_for_a_second_a_day_comes_to_the_deletion() {
    let store = MemoryStore::new();
    promote_key_2(&Process::ahead(0).open(&store));
    for (minutes, expected) in [(0, Some(45)), (15, Some(30)), (44, Some(1)), (45, None), (24 * 60, None)] {
        assert_eq!(left(&Process::ahead(minutes * MINUTE).open(&store)), expected, "after {minutes} minutes");
    }
    // Where the clocks are known to agree, it says so.
    let policy = RotationPolicy::new().with_clock_skew(Duration::from_secs(MINUTE));
    let clock = Process::ahead(16 * MINUTE).wall;
    let rotation = Rotation::<Kanal>::open(store, policy).unwrap();
    assert_eq!(left(&rotation.with_clock(move || clock.now())), None);
}

#[test]
fn a_clock_that_jumps_forward_makes_no_deletion_due() {
    let (process, rotation) = promoter();
    process.pass(5 * MINUTE);
    process.wall.advance(DAY);
    assert_eq!(left(&rotation), Some(10));
    process.pass(10 * MINUTE);
    assert_eq!(left(&rotation), None);
}

#[test]
fn a_promotion_in_the_future_is_settled_by_what_a_process_sees() {
    let store = MemoryStore::new();
    promote_key_2(&Process::ahead(2 * DAY).open(&store));
    let process = Process::ahead(0);
    let rotation = process.open(&store);
    assert_eq!(left(&rotation), Some(2 * 24 * 60 + 45), "what a command has to wait that starts each time");
    assert!(rotation.status().unwrap().clock_behind().is_some());
    process.pass(15 * MINUTE);
    assert_eq!(left(&rotation), None);
}

#[test]
fn each_promotion_is_waited_for_again() {
    let (process, rotation) = promoter();
    process.pass(20 * MINUTE);
    assert_eq!(left(&rotation), None);
    rotation.roll_back_now().unwrap();
    drop(rotation.verify_now().unwrap());
    rotation.promote_now().unwrap();
    drop(rotation.verify_now().unwrap());
    assert_eq!(left(&rotation), Some(15));
}

#[test]
fn a_rolled_back_key_is_kept_for_the_settle_time_by_both_clocks() {
    let (process, rotation) = promoter();
    rotation.roll_back_now().unwrap();
    process.wall.advance(DAY);
    assert_eq!(rotation.abort_now().unwrap().remaining_settle(), Duration::from_secs(15 * MINUTE));
}

#[test]
fn no_key_is_deleted_for_one_that_was_just_created() {
    let policy = RotationPolicy::new().with_grace(Duration::ZERO).with_settle(Duration::from_secs(10));
    let (clock, answers) = (Clock::new(), Answers::default());
    answers.accept(2);
    let now = clock.clone();
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), policy)
        .unwrap()
        .with_clock(move || now.now())
        .with_probe(answers);
    promote_key_2(&rotation);
    clock.advance(119);
    assert!(
        matches!(rotation.next_step().unwrap(), NextStep::Wait { remaining, .. } if remaining.as_secs() == 1)
    );
    clock.advance(1);
    assert_eq!(left(&rotation), None);
}

#[test]
fn a_real_wall_clock_that_is_set_forward_settles_nothing() {
    const TEST: &str = "clocks::a_real_wall_clock_that_is_set_forward_settles_nothing";
    if Child::new(TEST).is_here() {
        let path = std::env::var("KEYS").unwrap();
        let answers = Answers::default();
        answers.accept(2);
        let rotation = Rotation::<Kanal>::open(FileStore::new(path), RotationPolicy::new());
        let rotation = rotation.unwrap().with_probe(answers);
        promote_key_2(&rotation);
        wait_for_a_jump("promoted at");
        println!("says {}", rotation.next_step().unwrap());
        return;
    }
    let folder = Folder::new();
    let child = Child::new(TEST).var("KEYS", folder.at("keys"));
    let mut child = with_clock(child, &folder).spawn();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(shown.any(|line| line.contains("promoted at")));
    set(&folder, "+2h");
    let said = shown.find(|line| line.contains("says ")).unwrap_or_default();
    assert!(child.wait().unwrap().success());
    assert!(said.contains("wait, and keep"), "{said}");
}

#[test]
fn a_grace_that_ended_in_a_suspend_is_over() {
    const TEST: &str = "clocks::a_grace_that_ended_in_a_suspend_is_over";
    if Child::new(TEST).is_here() {
        let policy = RotationPolicy::new().with_grace(Duration::from_secs(1800));
        let rotation = Rotation::<Kanal>::open(MemoryStore::new(), policy).unwrap();
        let handle = rotation.handle();
        rotation.adopt(&key(1)).unwrap();
        rotation.stage(&key(2)).unwrap();
        rotation.promote_unverified_now().unwrap();
        assert!(handle.load().unwrap().previous().is_some());
        wait_for_a_jump("promoted at");
        // Nothing has been published since.
        println!("has a previous key: {}", handle.load().unwrap().previous().is_some());
        return;
    }
    let folder = Folder::new();
    let mut child = with_clock(Child::new(TEST), &folder).spawn();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(shown.any(|line| line.contains("promoted at")));
    set(&folder, "+2h");
    let said = shown.find(|line| line.contains("previous key")).unwrap_or_default();
    assert!(child.wait().unwrap().success());
    assert!(said.contains("previous key: false"), "{said}");
}
