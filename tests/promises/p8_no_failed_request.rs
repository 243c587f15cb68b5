//! P8: no repeatable request fails because of a planned rotation.
//!
//! A loaded client against the emulator, while keys rotate again and again: rolled back, aborted and retired,
//! and the old one deleted the moment that a person is asked to, whether everybody has taken the new one up
//! or not. Beside the service that rotates there are one that polls quickly, one that polls so rarely that it
//! learns of each promotion by a 401, and a process of its own.
//!
//! `scripts/soak` runs the same with a million requests.

#[path = "../../src/bin/keysheath/demo/load.rs"]
mod load;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use crate::support::steps::Now as _;
use keysheath::Cadence;
use keysheath::client::OriginGuard;
use keysheath::emulator::{Emulator, OWN_STORE};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Fingerprint, Kanal, Origin};
use keysheath::probe::HttpProbe;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::registry::KeyId;
use keysheath::rotation::{NextStep, Retirement, Rotation, RotationPolicy, Verification};
use keysheath::store::FileStore;

use crate::support::Child;
use crate::support::waiting::eventually;
use load::Load;

/// How many requests and rotations there are to be at least, each a variable's or this.
fn at_least(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number")),
        Err(_) => otherwise,
    }
}

fn settings(poll: Duration) -> RefreshSettings {
    let short = Duration::from_millis(5);
    RefreshSettings::new()
        .with_cadence(Cadence::every(poll).with_minimum_interval(short).with_longest_back_off(short))
}

/// The emulator, the rotation and what the app shows.
struct Shop {
    emulator: Emulator,
    rotation: Rotation<Kanal>,
    handle: KeyHandle<Kanal>,
    in_app: HashMap<Fingerprint, KeyId>,
}

impl Shop {
    fn open(path: &Path) -> Self {
        let emulator = Emulator::kanal().start().unwrap();
        let probe = HttpProbe::by_invalid_customer(OWN_STORE, []).with_guard(guard(emulator.origin()));
        let policy = RotationPolicy::new()
            .with_grace(Duration::ZERO)
            .with_settle(Duration::ZERO)
            .with_activation(Duration::ZERO);
        let rotation = Rotation::<Kanal>::open(FileStore::new(path), policy).unwrap().with_probe(probe);
        let handle = rotation.handle();
        let mut shop = Self { emulator, rotation, handle, in_app: HashMap::new() };
        let key = shop.create();
        shop.rotation.adopt(&key).unwrap();
        shop
    }

    fn create(&mut self) -> ApiKey<Kanal> {
        let new = self.emulator.create_key("production-shop").unwrap();
        self.in_app.insert(new.key().fingerprint().unwrap(), new.record().id());
        new.into_key().try_into_typed().unwrap()
    }

    fn delete(&mut self, fingerprint: Fingerprint) {
        self.emulator.delete_key(self.in_app.remove(&fingerprint).unwrap()).unwrap();
    }

    fn stage_and_promote(&mut self) {
        let key = self.create();
        self.rotation.stage(&key).unwrap();
        self.verify_and_promote();
    }

    fn verify_and_promote(&self) {
        let verification = self.rotation.verify_now().unwrap();
        assert!(matches!(verification, Verification::Verified { .. }), "{verification}");
        self.rotation.promote_now().unwrap();
    }

    /// Deletes the old key as soon as that is asked for, which is when this process holds it no more.
    fn finish(&mut self) {
        eventually("the deletion is asked for", || match self.rotation.next_step().unwrap() {
            NextStep::Wait { .. } => false,
            NextStep::Verify { key, .. } => {
                drop(self.rotation.verify(key.rotation()).unwrap());
                false
            }
            _ => true,
        });
        match self.rotation.next_step().unwrap() {
            NextStep::Delete { key, .. } => self.delete(key.fingerprint()),
            step => panic!("a deletion was to be asked for: {step}"),
        }
        let retirement = self.rotation.retire_now().unwrap();
        assert!(matches!(retirement, Retirement::Retired { .. }), "{retirement}");
    }

    /// One planned rotation; some go wrong on the way, as people do.
    fn rotate(&mut self, number: u64) {
        if number % 5 == 4 {
            let key = self.create();
            let aborted = self.rotation.stage(&key).unwrap().transition().event().fingerprint.unwrap();
            self.rotation.abort_now().unwrap();
            self.delete(aborted);
        }
        self.stage_and_promote();
        if number % 3 == 2 {
            self.rotation.roll_back_now().unwrap();
            self.verify_and_promote();
        }
        self.finish();
    }
}

/// The other process, which ends with the test, also when that fails.
struct Other(std::process::Child);

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many requests each sender of the other process has ended, at least.
fn ended_in(progress: &Path) -> u64 {
    std::fs::read_to_string(progress).map_or(0, |text| text.parse().unwrap())
}

fn guard(origin: &Origin) -> OriginGuard<Kanal> {
    OriginGuard::for_loopback(origin.clone()).unwrap()
}

#[test]
fn no_repeatable_request_fails_because_of_a_planned_rotation() {
    let child = Child::new("no_repeatable_request_fails_because_of_a_planned_rotation");
    if child.is_here() {
        return follow();
    }
    let requests = at_least("KEYSHEATH_SOAK_REQUESTS", 20_000);
    let rotations = at_least("KEYSHEATH_SOAK_ROTATIONS", 30);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kanal-keys");
    let mut shop = Shop::open(&path);
    let quick =
        Refresher::<Kanal>::from_store(FileStore::new(&path), settings(Duration::from_millis(20))).unwrap();
    let rare =
        Refresher::<Kanal>::from_store(FileStore::new(&path), settings(Duration::from_secs(3600))).unwrap();
    let handles = [shop.handle.clone(), quick.handle(), rare.handle()];
    let load = Load::start(&guard(shop.emulator.origin()), OWN_STORE, handles);
    let end = folder.path().join("stop");
    let progress = folder.path().join("progress");
    let origin = shop.emulator.origin().to_string();
    let child = child.var("KEYS", &path).var("ORIGIN", origin).var("STOP", &end).var("PROGRESS", &progress);
    let mut other = Other(child.spawn());
    let mut lines = BufReader::new(other.0.stdout.take().unwrap()).lines();
    // The test harness writes into the same pipe.
    let mut next =
        || lines.by_ref().map(Result::unwrap).find_map(|line| line.strip_prefix("= ").map(str::to_owned));
    assert_eq!(next().as_deref(), Some("sending"));

    let mut number = 0;
    while number < rotations || load.answered() < requests {
        shop.rotate(number);
        number += 1;
        // A request is repeated once. So that none is refused twice, the next rotation begins when each that
        // was refused in this one has its answer.
        let (here, there) = (load.ended(), ended_in(&progress));
        eventually("each sender has gone on", || {
            let has_gone_on = |(now, then): (u64, &u64)| now >= then + 2;
            load.ended().into_iter().zip(&here).all(has_gone_on) && ended_in(&progress) >= there + 2
        });
        assert_eq!(load.failed(), 0, "rotation {number}: {:?}", load.first_failure());
    }
    let generation = shop.handle.load().unwrap().generation();
    eventually("the rare one has followed", || {
        rare.handle().load().is_ok_and(|now| now.generation() == generation)
    });
    assert_eq!((load.failed(), load.unsent()), (0, 0), "{:?}", load.first_failure());

    std::fs::write(&end, "").unwrap();
    let counts = next().expect("the process says what it counted");
    assert!(other.0.wait().unwrap().success());
    let (answered, failed) = counts.split_once(' ').unwrap();
    assert_eq!(failed, "0 failed");
    let answered: u64 = answered.parse().unwrap();
    assert!(answered > requests / 100, "the process took part: {answered}");
    println!("{} requests, {number} rotations, 0 failed", load.answered() + answered);
}

/// What runs in a process of its own: the same load, over the same document, until a file says that it is to
/// stop.
fn follow() {
    let variable = |name| std::env::var_os(name).unwrap();
    let origin = Origin::parse(variable("ORIGIN").to_str().unwrap()).unwrap();
    let store = FileStore::new(variable("KEYS"));
    let refresher = Refresher::<Kanal>::from_store(store, settings(Duration::from_millis(200))).unwrap();
    let load = Load::start(&guard(&origin), OWN_STORE, [refresher.handle()]);
    eventually("the first answer", || load.answered() > 0);
    println!("\n= sending");
    let stop = variable("STOP");
    let (stop, progress) = (Path::new(&stop), variable("PROGRESS"));
    while !stop.exists() {
        std::thread::sleep(Duration::from_millis(1));
        let ended = load.ended().into_iter().min().unwrap_or(0);
        let new = Path::new(&progress).with_extension("new");
        std::fs::write(&new, ended.to_string()).and_then(|()| std::fs::rename(&new, &progress)).unwrap();
    }
    println!("\n= {} {} failed", load.answered(), load.failed() + load.unsent());
}

#[test]
fn the_load_detects_a_client_whose_key_never_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(&folder.path().join("kanal-keys"));
    let key = shop.handle.load().unwrap().current().clone_key();
    let load = Load::start(&guard(shop.emulator.origin()), OWN_STORE, [KeyHandle::fixed(key)]);
    eventually("the first answer", || load.answered() > 0);
    shop.rotate(0);
    eventually("the first failure", || load.failed() > 0);
    let expected = "an answer 401 Unauthorized to generation 1, sent once";
    assert_eq!(load.first_failure().as_deref(), Some(expected));
}
