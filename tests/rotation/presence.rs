//! Presence: what each process of a fleet shows of the key that it uses, and what a rotator makes of it.

mod broken;
mod other_words;
mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::steps::Now as _;
use keysheath::Cadence;
use keysheath::chain::Chain;
use keysheath::failure::{Answer, Meaning};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Fingerprint, Kanal, RawKey};
use keysheath::probe::{Finding, Probe, Report};
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::rotation::{
    Fleet, NextStep, Presence, PresenceRecord, PresenceSettings, Rotation, RotationPolicy,
};
use keysheath::source::SecretFile;
use keysheath::store::{DocumentStore, MemoryStore};

use crate::support::Folder;
use crate::support::waiting::{PATIENCE, eventually};

fn key(number: u64) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(format!("Key{number:021}").as_bytes()).unwrap()
}

fn name(number: u64) -> Fingerprint {
    key(number).fingerprint().unwrap()
}

/// A handle that has had no key.
fn no_key() -> KeyHandle<Kanal> {
    Rotation::open(MemoryStore::new(), RotationPolicy::new()).unwrap().handle()
}

struct AlwaysAccepted;

impl Probe for AlwaysAccepted {
    fn probe(&self, _: &RawKey) -> Report {
        Report::new(Finding::new(Ok(Answer::new(201, Meaning::Accepted))))
    }
}

/// A rotator, and its clock: so many seconds ahead.
struct Rotator<S> {
    keys: S,
    presence: S,
    rotation: Rotation<Kanal>,
    ahead: Arc<AtomicU64>,
}

impl<S: DocumentStore + Clone + 'static> Rotator<S> {
    /// With key 1 active, and no time to wait but for the fleet.
    fn new(keys: S, presence: S) -> Self {
        let policy = RotationPolicy::new()
            .with_grace(Duration::ZERO)
            .with_settle(Duration::ZERO)
            .with_activation(Duration::ZERO);
        let ahead = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&ahead);
        let rotation = Rotation::<Kanal>::open(keys.clone(), policy).unwrap();
        let rotation = rotation
            .with_probe(AlwaysAccepted)
            .with_presence(presence.clone())
            .with_clock(move || SystemTime::now() + Duration::from_secs(clock.load(Ordering::SeqCst)));
        rotation.adopt(&key(1)).unwrap();
        Self { keys, presence, rotation, ahead }
    }

    fn promote(&self, number: u64) {
        self.rotation.stage(&key(number)).unwrap();
        let _ = self.rotation.verify_now().unwrap();
        self.rotation.promote_now().unwrap();
        let _ = self.rotation.verify_now().unwrap();
    }

    fn next(&self) -> NextStep {
        self.rotation.next_step().unwrap()
    }

    /// The names of those that are waited for.
    #[track_caller]
    fn waits_for(&self) -> Vec<String> {
        match self.next() {
            NextStep::Wait { still_using, .. } => names(&still_using),
            NextStep::Delete { .. } => Vec::new(),
            other => panic!("{other}"),
        }
    }

    /// How many have shown only the active key, and the names of the silent.
    #[track_caller]
    fn deletes(&self) -> (Option<usize>, Vec<String>) {
        match self.next() {
            NextStep::Delete { key, shown, silent, .. } => {
                assert_eq!(key.fingerprint(), name(1));
                (shown, names(&silent))
            }
            other => panic!("{other}"),
        }
    }

    fn refresher(&self) -> Refresher<Kanal> {
        let settings = RefreshSettings::new().with_cadence(Cadence::every(Duration::from_secs(3600)));
        Refresher::from_store(self.keys.clone(), settings).unwrap()
    }

    fn show(&self, handle: &KeyHandle<Kanal>, name: &str) -> Presence {
        Presence::show(self.presence.clone(), handle, settings(name)).unwrap()
    }
}

fn in_memory() -> Rotator<MemoryStore> {
    Rotator::new(MemoryStore::new(), MemoryStore::new())
}

/// So short that a change is shown within 50 ms, and what is shown is renewed within 330 ms.
fn settings(name: &str) -> PresenceSettings {
    PresenceSettings::new(name).with_time_to_live(Duration::from_secs(1))
}

fn names(records: &[PresenceRecord]) -> Vec<String> {
    records.iter().map(|record| record.name().to_owned()).collect()
}

#[test]
fn a_process_with_the_old_key_delays_a_deletion_and_is_named() {
    let rotator = in_memory();
    let (fast, slow) = (rotator.refresher(), rotator.refresher());
    let _shown = [rotator.show(&fast.handle(), "fast"), rotator.show(&slow.handle(), "slow")];
    rotator.promote(2);
    let _ = fast.refresh_now(PATIENCE);
    eventually("the fast one shows the new key", || rotator.waits_for() == ["slow"]);
    let step = rotator.next().to_string();
    let begins = format!(
        "wait, and keep the key {}: still using the old key: slow (generation 1, key {}, shown ",
        name(1),
        name(1)
    );
    assert!(step.starts_with(&begins), "{step}");
    let _ = slow.refresh_now(PATIENCE);
    eventually("the slow one shows it too", || rotator.waits_for().is_empty());
    assert_eq!(rotator.deletes(), (Some(2), vec![]));
    let step = rotator.next().to_string();
    assert!(step.starts_with(&format!("delete the key with fingerprint {} in Kanal", name(1))), "{step}");
}

#[test]
fn a_request_in_flight_with_the_old_key_delays_a_deletion() {
    let rotator = in_memory();
    let refresher = rotator.refresher();
    let handle = refresher.handle();
    let _shown = rotator.show(&handle, "busy");
    let request = handle.load().unwrap();
    rotator.promote(2);
    let _ = refresher.refresh_now(PATIENCE);
    eventually("it shows the new key", || {
        rotator.rotation.fleet().unwrap().records()[0].key() == Some(name(2))
    });
    let record = rotator.rotation.fleet().unwrap().records()[0].clone();
    assert!(!record.is_drained());
    assert!(record.to_string().contains("generation 2, "), "{record}");
    assert!(record.to_string().contains("requests with generation 1 in flight"), "{record}");
    assert_eq!(rotator.waits_for(), ["busy"]);
    drop(request);
    eventually("it is drained", || rotator.waits_for().is_empty());
    assert_eq!(rotator.deletes(), (Some(1), vec![]));
}

#[test]
fn a_second_promotion_after_a_rollback_is_not_the_first() {
    let rotator = in_memory();
    rotator.promote(2);
    let refresher = rotator.refresher();
    // It is not shown again in this test.
    let rare = PresenceSettings::new("late").with_time_to_live(Duration::from_secs(86_400));
    let presence = Presence::show(rotator.presence.clone(), &refresher.handle(), rare);
    assert_eq!(rotator.deletes(), (Some(1), vec![]));
    rotator.rotation.roll_back_now().unwrap();
    let _ = rotator.rotation.verify_now().unwrap();
    rotator.rotation.promote_now().unwrap();
    let _ = rotator.rotation.verify_now().unwrap();
    // The key is the same one again, and in between the process may have gone back as well.
    assert_eq!(rotator.rotation.status().unwrap().keys().generation().unwrap().to_string(), "4");
    assert_eq!(rotator.waits_for(), ["late"]);
    drop(presence);
    assert_eq!(rotator.deletes(), (Some(0), vec![]));
}

#[test]
fn without_any_presence_a_person_is_asked_to_check() {
    let rotator = in_memory();
    rotator.promote(2);
    let step = rotator.next().to_string();
    let begins = "first check yourself that no process uses the old key, because none shows itself; then \
                  delete the key";
    assert!(step.starts_with(begins), "{step}");
}

#[test]
fn a_fleet_shortens_no_settle_time_and_delays_no_leaked_key() {
    let store = MemoryStore::new();
    let policy = RotationPolicy::new().with_settle(Duration::from_secs(900));
    let presence = MemoryStore::new();
    let rotation = Rotation::<Kanal>::open(store, policy).unwrap();
    let rotation = rotation.with_presence(presence.clone());
    rotation.adopt(&key(1)).unwrap();
    let fixed = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(2).expose_secret()).unwrap());
    let old = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(1).expose_secret()).unwrap());
    let _up_to_date = Presence::show(presence.clone(), &fixed, settings("new")).unwrap();
    rotation.stage(&key(2)).unwrap();
    rotation.promote_unverified_now().unwrap();
    let NextStep::Wait { remaining, still_using, .. } = rotation.next_step().unwrap() else { panic!() };
    assert!(remaining > Duration::from_secs(800) && still_using.is_empty());
    let _behind = Presence::show(presence, &old, settings("old")).unwrap();
    let step = rotation.next_step().unwrap().to_string();
    assert!(step.contains("other processes have ") && step.contains("; still using the old key: "), "{step}");
    rotation.compromise(name(1)).unwrap();
    assert!(matches!(rotation.next_step().unwrap(), NextStep::DeleteLeaked { .. }));
}

#[test]
fn a_process_whose_key_is_of_no_key_set_is_told_by_its_key() {
    let rotator = in_memory();
    let folder = Folder::new();
    let path = folder.write("kanal", key(1).expose_secret());
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let of_file = Refresher::from_chain(chain, RefreshSettings::new()).unwrap();
    let fixed = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(1).expose_secret()).unwrap());
    let empty = no_key();
    let _file = rotator.show(&of_file.handle(), "file");
    let never = rotator.show(&fixed, "fixed");
    let begins = rotator.show(&empty, "empty");
    assert!(rotator.rotation.fleet().unwrap().to_string().contains("empty (no key yet, shown "));
    rotator.promote(2);
    // What has no key for as long as a minute after the promotion takes up the new one; before that it is not
    // known.
    assert_eq!(rotator.waits_for(), ["file", "fixed", "empty"]);
    drop(begins);
    std::fs::write(&path, key(2).expose_secret()).unwrap();
    let _ = of_file.refresh_now(PATIENCE);
    eventually("the file's key is shown", || rotator.waits_for() == ["fixed"]);
    drop(never);
    assert_eq!(rotator.deletes(), (Some(1), vec![]));
}

#[test]
fn a_process_with_another_key_set_is_not_up_to_date() {
    let (rotator, other) = (in_memory(), in_memory());
    other.promote(7);
    other.rotation.retire_unprobed_now().unwrap();
    other.promote(8);
    let refresher = other.refresher();
    let _shown = rotator.show(&refresher.handle(), "stray");
    rotator.promote(2);
    assert_eq!(rotator.rotation.fleet().unwrap().records()[0].generation().unwrap().to_string(), "3");
    assert_eq!(rotator.waits_for(), ["stray"]);
}

#[test]
fn a_fleet_can_have_several_documents() {
    let (one, two) = (MemoryStore::new(), MemoryStore::new());
    let handle = no_key();
    let _shown = [
        Presence::show(one.clone(), &handle, settings("a")).unwrap(),
        Presence::show(two.clone(), &handle, settings("b")).unwrap(),
    ];
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new());
    let rotation = rotation.unwrap().with_presence(one).with_presence(two);
    assert_eq!(names(rotation.fleet().unwrap().records()), ["a", "b"]);
}

#[test]
fn a_change_is_shown_long_before_the_renewal() {
    let rotator = in_memory();
    let refresher = rotator.refresher();
    // A change is shown within 12 s, and a renewal is more than 64 s away, which is not awaited here.
    let rare = PresenceSettings::new("rare").with_time_to_live(Duration::from_secs(240));
    let _shown = Presence::show(rotator.presence.clone(), &refresher.handle(), rare).unwrap();
    rotator.promote(2);
    let _ = refresher.refresh_now(PATIENCE);
    eventually("it shows the new key", || rotator.waits_for().is_empty());
}

#[test]
fn a_process_of_a_unique_name_replaces_its_predecessor() {
    let rotator = in_memory();
    let old = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(1).expose_secret()).unwrap());
    let _other = rotator.show(&old, "another");
    // It is not shown again in this test.
    let unique = || PresenceSettings::new("shop-7").with_unique_name();
    let predecessor = Presence::show(rotator.presence.clone(), &old, unique()).unwrap();
    // As if it had been killed.
    std::mem::forget(predecessor);
    let new = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(2).expose_secret()).unwrap());
    rotator.promote(2);
    assert_eq!(rotator.waits_for(), ["another", "shop-7"]);
    let _again = Presence::show(rotator.presence.clone(), &new, unique()).unwrap();
    let fleet = rotator.rotation.fleet().unwrap();
    assert!(fleet.records().iter().any(|record| record.key() == Some(name(2))));
    assert_eq!(names(fleet.records()), ["another", "shop-7"]);
}

#[test]
fn a_refused_key_is_shown_until_another_is_active() {
    let rotator = in_memory();
    let refresher = rotator.refresher();
    let fixed = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(1).expose_secret()).unwrap());
    let _shown = [rotator.show(&refresher.handle(), "live"), rotator.show(&fixed, "fixed")];
    let refused = || -> Vec<_> {
        let fleet = rotator.rotation.fleet().unwrap();
        fleet.records().iter().map(PresenceRecord::refused_key).collect()
    };
    assert_eq!(refused(), [None, None]);
    for handle in [refresher.handle(), fixed] {
        handle.report_refused(handle.load().unwrap().generation());
    }
    eventually("both refusals are shown", || refused() == [Some(name(1)), Some(name(1))]);
    let step = rotator.rotation.fleet().unwrap().to_string();
    assert!(step.contains("generation 1 was REFUSED"), "{step}");
    rotator.promote(2);
    let _ = refresher.refresh_now(PATIENCE);
    eventually("the new key is not refused", || refused() == [None, Some(name(1))]);
    let record = rotator.rotation.fleet().unwrap().records()[0].clone();
    assert_eq!(record.refused().map(|refused| refused.to_string()), Some("1".to_owned()));
}
