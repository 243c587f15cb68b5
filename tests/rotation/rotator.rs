//! Rotations: the whole life of keys, what goes wrong at each step, and several rotators at once.

mod audit;
mod stale_replica;
mod broken;
mod clocks;
mod followed;
mod full_disk;
mod aborted;
mod guard;
#[cfg(feature = "keychain")]
mod keychain;
mod leaks_and_aborts;
#[cfg(all(feature = "emulator", feature = "probe"))]
mod life;
#[cfg(feature = "keychain")]
mod limits;
mod model;
mod named;
mod outcomes;
mod racing;
mod refusals;
mod time;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support::steps::Now as _;
use keysheath::failure::{Answer, Meaning, Obstacle};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Fingerprint, Issuer, Kanal, RawKey};
use keysheath::keyset::{KeySet, KeyState};
use keysheath::probe::{Finding, Probe, Report};
use keysheath::refresh::RefreshSettings;
use keysheath::rotation::{AuditEvent, KeyDetails, Rotation, RotationPolicy};
use keysheath::store::{DocumentStore, MemoryStore};

/// A well-formed key for each number.
fn key(number: u64) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(format!("Key{number:021}").as_bytes()).unwrap()
}

fn name(number: u64) -> Fingerprint {
    key(number).fingerprint().unwrap()
}

/// The numbers of the keys that are persisted as active, pending and previous.
fn slots(store: &dyn DocumentStore) -> [Option<u64>; 3] {
    let Some(there) = store.read().unwrap() else { return [None; 3] };
    let keys = KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).unwrap();
    [keys.current(), keys.pending(), keys.previous()].map(|slot| {
        slot.map(|held| held.key().expose_secret().trim_start_matches("Key").parse::<u64>().unwrap())
    })
}

/// The number of the key that a handle sends.
fn sent(handle: &KeyHandle<Kanal>) -> Option<u64> {
    let snapshot = handle.load().ok()?;
    Some(snapshot.current().expose_secret().trim_start_matches("Key").parse().unwrap())
}

/// Where a key is, as it is persisted.
fn place(store: &dyn DocumentStore, number: u64) -> Option<KeyState> {
    let there = store.read().unwrap()?;
    KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).unwrap().state_of(name(number))
}

/// A clock that a test sets, in seconds.
#[derive(Clone)]
struct Clock(Arc<AtomicU64>);

/// 2026-11-24T08:55:31Z.
const START: u64 = 1_795_510_531;

impl Clock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn set_back(&self, seconds: u64) {
        self.0.fetch_sub(seconds, Ordering::SeqCst);
    }
}

/// What an issuer answers about each key; one that it was not given is unknown there.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<HashMap<Fingerprint, Report>>>);

impl Answers {
    fn set(&self, number: u64, report: Report) {
        self.0.lock().unwrap().insert(name(number), report);
    }

    fn accept(&self, number: u64) {
        self.set(number, accepted());
    }

    fn refuse(&self, number: u64) {
        self.set(number, refused());
    }
}

impl Probe for Answers {
    fn probe(&self, key: &RawKey) -> Report {
        self.0.lock().unwrap().get(&key.fingerprint().unwrap()).cloned().unwrap_or_else(refused)
    }
}

fn answer(status: u16, meaning: Meaning) -> Report {
    Report::new(Finding::new(Ok(Answer::new(status, meaning))))
}

fn accepted() -> Report {
    answer(201, Meaning::Accepted)
}

fn refused() -> Report {
    answer(401, Meaning::KeyRefused)
}

fn forbidden() -> Report {
    answer(403, Meaning::StoreForbidden)
}

fn silent() -> Report {
    Report::new(Finding::new(Err(Obstacle::Broken)))
}

/// A rotation over a store, with all that a test turns.
struct Setup<S> {
    store: S,
    handle: KeyHandle<Kanal>,
    clock: Clock,
    answers: Answers,
    events: Arc<Mutex<Vec<AuditEvent>>>,
    rotation: Rotation<Kanal>,
}

impl<S: DocumentStore + Clone + 'static> Setup<S> {
    fn over(store: S) -> Self {
        let (clock, answers, events) = (Clock::new(), Answers::default(), Arc::default());
        let rotation = another(&store, &clock, &answers, &events);
        let handle = rotation.handle();
        Self { store, handle, clock, answers, events, rotation }
    }

    /// Another one over the same document, with a handle of its own, as in another process.
    fn another(&self) -> (Rotation<Kanal>, KeyHandle<Kanal>) {
        let rotation = another(&self.store, &self.clock, &self.answers, &self.events);
        let handle = rotation.handle();
        (rotation, handle)
    }

    /// Makes key 2 active and key 1 previous; the issuer accepts both.
    fn promote(&self) {
        self.answers.accept(1);
        self.answers.accept(2);
        promote_key_2(&self.rotation);
    }

    fn slots(&self) -> [Option<u64>; 3] {
        slots(&self.store)
    }

    /// The events that the audit has, by their names.
    fn actions(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|event| event.action.to_string()).collect()
    }
}

fn another<S: DocumentStore + Clone + 'static>(
    store: &S,
    clock: &Clock,
    answers: &Answers,
    events: &Arc<Mutex<Vec<AuditEvent>>>,
) -> Rotation<Kanal> {
    let (clock, events) = (clock.clone(), Arc::clone(events));
    Rotation::<Kanal>::open(store.clone(), RotationPolicy::new().with_key_name("production-shop"))
        .unwrap()
        .with_clock(move || clock.now())
        .with_probe(answers.clone())
        .on_event(move |event| events.lock().unwrap().push(event.clone()))
        .with_operator("anna")
}

/// Takes in key 1, and promotes key 2 over it; the probe is asked about it before and after.
fn promote_key_2(rotation: &Rotation<Kanal>) {
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    drop(rotation.verify_now().unwrap());
    rotation.promote_now().unwrap();
    drop(rotation.verify_now().unwrap());
}

/// Nothing yet.
fn empty() -> Setup<MemoryStore> {
    Setup::over(MemoryStore::new())
}

/// Key 1 active.
fn adopted() -> Setup<MemoryStore> {
    let setup = empty();
    setup.rotation.adopt(&key(1)).unwrap();
    setup.answers.accept(1);
    setup
}

/// Key 1 active and key 2 pending.
fn staged() -> Setup<MemoryStore> {
    let setup = adopted();
    setup.rotation.stage(KeyDetails::new(&key(2)).with_note("spring")).unwrap();
    setup
}

/// Key 2 active and key 1 previous.
fn promoted() -> Setup<MemoryStore> {
    let setup = staged();
    setup.answers.accept(2);
    assert!(matches!(setup.rotation.verify_now(), Ok(keysheath::rotation::Verification::Verified { .. })));
    setup.rotation.promote_now().unwrap();
    setup
}
