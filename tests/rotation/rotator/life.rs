//! The whole life of keys against a server that answers as Kanal documents.

use keysheath::client::OriginGuard;
use keysheath::emulator::{Emulator, Fault, FaultRule, OWN_STORE, PAUSED_STORE, TEAM};
use keysheath::key::StoreId;
use keysheath::probe::{HttpProbe, Verdict};
use keysheath::registry::NewKey;
use keysheath::rotation::{NextStep, Reason, Retirement, RotationError, Verification};
use keysheath::store::FileStore;

use super::*;
use crate::support::Folder;

/// Far less than the latency that is asked for, and far more than an answer takes.
const DEADLINE: Duration = Duration::from_secs(2);

const SECOND_STORE: u64 = 777;

struct Life<S> {
    emulator: Emulator,
    store: S,
    handle: KeyHandle<Kanal>,
    clock: Clock,
    rotation: Rotation<Kanal>,
}

/// A server, the key that it was started with as the active one, and a probe for two stores.
fn life<S: DocumentStore + Clone + 'static>(store: S) -> Life<S> {
    let emulator = Emulator::start().unwrap();
    let second = StoreId::new(SECOND_STORE).unwrap();
    emulator.put_store(second, TEAM).unwrap();
    let probe = HttpProbe::by_invalid_customer(OWN_STORE, [second])
        .with_guard(OriginGuard::for_loopback(emulator.origin().clone()).unwrap())
        .with_deadline(DEADLINE);
    let clock = Clock::new();
    let time = clock.clone();
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new())
        .unwrap()
        .with_probe(probe)
        .with_clock(move || time.now())
        .with_operator("anna");
    rotation.adopt(&typed(emulator.key())).unwrap();
    let handle = rotation.handle();
    Life { emulator, store, handle, clock, rotation }
}

/// The emulator answers for any issuer, and this one for Kanal.
fn typed(key: &RawKey) -> ApiKey<Kanal> {
    key.clone_key().try_into_typed().unwrap()
}

impl<S: DocumentStore> Life<S> {
    fn sends(&self, key: &RawKey) -> bool {
        self.handle.load().is_ok_and(|snapshot| snapshot.current().as_raw() == key)
    }

    fn document(&self) -> Vec<u8> {
        self.store.read().unwrap().unwrap().content().expose_secret().to_vec()
    }

    /// A key that was created, staged, verified and promoted.
    fn replace(&self) -> NewKey {
        let new = self.emulator.create_key("production").unwrap();
        self.rotation.stage(&typed(new.key())).unwrap();
        assert!(matches!(self.rotation.verify_now().unwrap(), Verification::Verified { .. }));
        self.rotation.promote_now().unwrap();
        self.clock.advance(3_600);
        assert!(matches!(self.rotation.next_step().unwrap(), NextStep::Verify { .. }));
        assert!(matches!(self.rotation.verify_now().unwrap(), Verification::Verified { .. }));
        new
    }
}

fn whole_life(life: &Life<impl DocumentStore>) {
    let mut old = life.emulator.key_id();
    for _ in 0..3 {
        let new = life.replace();
        assert!(life.sends(new.key()));
        assert!(matches!(life.rotation.next_step().unwrap(), NextStep::Delete { .. }));
        assert!(matches!(
            life.rotation.retire_now().unwrap(),
            Retirement::StillAccepted { is_overdue: true, .. }
        ));
        life.emulator.delete_key(old).unwrap();
        assert!(matches!(life.rotation.retire_now().unwrap(), Retirement::Retired { .. }));
        assert!(matches!(life.rotation.next_step().unwrap(), NextStep::Nothing { .. }));
        old = new.record().id();
    }
}

#[test]
fn keys_live_their_whole_life_over_memory() {
    whole_life(&life(MemoryStore::new()));
}

#[test]
fn keys_live_their_whole_life_over_a_file() {
    let folder = Folder::new();
    let life = life(FileStore::new(folder.at("keys")));
    whole_life(&life);
    // Another process sees what is active.
    let store = FileStore::new(folder.at("keys"));
    let handle = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap().handle();
    assert!(life.sends(handle.load().unwrap().current().as_raw()));
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::Reset,
        Fault::TruncatedBody,
        Fault::Latency(Duration::from_secs(5)),
        Fault::status(429).with_retry_after(7),
        Fault::status(500),
        Fault::status(503).with_body(r#"{ "error": "Invalid API key" }"#),
        Fault::status(401).with_body("<html>Please sign in</html>"),
    ]
}

#[test]
fn no_fault_on_the_way_changes_anything_at_any_step() {
    let life = life(MemoryStore::new());
    let new = life.emulator.create_key("production").unwrap();
    life.rotation.stage(&typed(new.key())).unwrap();
    life.clock.advance(3_600);
    let during = |fault: &Fault, ask: &dyn Fn()| {
        let before = life.document();
        life.emulator.add_fault(FaultRule::new(fault.clone())).unwrap();
        ask();
        life.emulator.clear_faults();
        assert_eq!(life.document(), before, "{fault:?}");
    };
    for fault in faults() {
        during(&fault, &|| {
            let verification = life.rotation.verify_now().unwrap();
            assert!(matches!(verification, Verification::Inconclusive { .. }), "{fault:?}: {verification}");
        });
    }
    assert!(matches!(life.rotation.verify_now().unwrap(), Verification::Verified { .. }));
    life.rotation.promote_now().unwrap();
    life.clock.advance(3_600);
    life.emulator.delete_key(life.emulator.key_id()).unwrap();
    for fault in faults() {
        during(&fault, &|| {
            let retirement = life.rotation.retire_now().unwrap();
            assert!(matches!(retirement, Retirement::Undecided { .. }), "{fault:?}: {retirement}");
        });
    }
    assert!(matches!(life.rotation.retire_now().unwrap(), Retirement::Retired { .. }));
}

#[test]
fn a_key_restricted_to_one_of_two_stores_is_not_verified() {
    let life = life(MemoryStore::new());
    let restricted = life.emulator.registry().create_key_for_store(TEAM, "one", OWN_STORE).unwrap();
    life.rotation.stage(&typed(restricted.key())).unwrap();
    let Verification::StoreRefused { report, .. } = life.rotation.verify_now().unwrap() else { panic!() };
    let refused: Vec<u64> = report
        .findings()
        .iter()
        .filter(|finding| finding.verdict() == Verdict::StoreRefused)
        .map(|finding| finding.store().unwrap().get())
        .collect();
    assert_eq!(refused, [SECOND_STORE]);
    assert!(matches!(life.rotation.promote_now(), Err(RotationError::Refused(_))));
    assert!(life.sends(life.emulator.key()));
    // A paused store says nothing against the key either.
    life.emulator.pause_store(OWN_STORE).unwrap();
    assert!(matches!(life.rotation.verify_now().unwrap(), Verification::StoreRefused { .. }));
    assert_ne!(OWN_STORE, PAUSED_STORE);
}

#[test]
fn where_a_person_deletes_the_wrong_key_the_old_one_takes_over() {
    let life = life(MemoryStore::new());
    let new = life.replace();
    life.emulator.delete_key(new.record().id()).unwrap();
    assert!(matches!(life.rotation.retire_now().unwrap(), Retirement::WrongKeyDeleted { .. }));
    assert!(life.sends(life.emulator.key()));
    assert!(matches!(life.rotation.next_step().unwrap(), NextStep::Create { reason: Reason::FellBack, .. }));
    // And where both are deleted, each stays in its place.
    let new = life.replace();
    life.emulator.delete_key(new.record().id()).unwrap();
    life.emulator.delete_key(life.emulator.key_id()).unwrap();
    assert!(matches!(life.rotation.retire_now().unwrap(), Retirement::BothRefused { .. }));
    assert!(life.sends(new.key()));
    assert!(matches!(life.rotation.next_step().unwrap(), NextStep::Create { .. }));
}
