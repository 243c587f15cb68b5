//! A person who always does what the next step says: whatever has gone wrong before, it ends with a key that
//! works.

use std::sync::atomic::AtomicBool;

use keysheath::rotation::{CheckedBy, NextStep, Presence, PresenceSettings, Retirement, Verification};
use keysheath::source::{Problem, Provenance};
use keysheath::store::{Document, DocumentContent, DocumentError, Version};
use proptest::prelude::*;

use super::*;
use crate::support::stores::pass_on;

/// A store that may take no writes for a while.
#[derive(Clone, Default)]
struct Stuck {
    store: MemoryStore,
    is_stuck: Arc<AtomicBool>,
}

impl DocumentStore for Stuck {
    pass_on!(store: limit, read);

    fn provenance(&self) -> Provenance {
        Provenance::other("stuck", "store")
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        if self.is_stuck.load(Ordering::SeqCst) {
            return Err(DocumentError::Unavailable(Problem::Unreachable));
        }
        self.store.write(content, unchanged)
    }
}

/// What goes wrong before a step.
#[derive(Clone, Debug)]
enum Fault {
    Nothing,
    /// A person deletes one of the last keys.
    Delete(u8),
    /// A person stages a key: one that works, or one of another account.
    Stage(bool),
    PromoteUnverified,
    RollBack,
    Leak(u8),
    /// The store takes no writes, or does again.
    Stuck(bool),
    Silence(bool),
    Restart,
    Pass(u16),
    SetBack(u16),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        10 => Just(Fault::Nothing),
        2 => (0_u8..3).prop_map(Fault::Delete),
        2 => any::<bool>().prop_map(Fault::Stage),
        1 => Just(Fault::PromoteUnverified),
        1 => Just(Fault::RollBack),
        1 => (0_u8..3).prop_map(Fault::Leak),
        1 => any::<bool>().prop_map(Fault::Stuck),
        1 => any::<bool>().prop_map(Fault::Silence),
        1 => Just(Fault::Restart),
        2 => (0_u16..2000).prop_map(Fault::Pass),
        1 => (0_u16..2000).prop_map(Fault::SetBack),
    ]
}

struct Person {
    setup: Setup<Stuck>,
    has_probe: bool,
    keys: u64,
    works: Vec<u64>,
    is_silent: bool,
}

impl Person {
    fn new(has_probe: bool) -> Self {
        let setup = Setup::over(Stuck::default());
        let mut person = Self { setup, has_probe, keys: 0, works: Vec::new(), is_silent: false };
        person.restart();
        let first = person.create(true);
        person.setup.rotation.adopt(&key(first)).unwrap();
        person
    }

    fn restart(&mut self) {
        let clock = self.setup.clock.clone();
        let rotation = Rotation::<Kanal>::open(self.setup.store.clone(), RotationPolicy::new()).unwrap();
        let handle = rotation.handle();
        let rotation = rotation.with_clock(move || clock.now());
        self.setup.rotation =
            if self.has_probe { rotation.with_probe(self.setup.answers.clone()) } else { rotation };
        self.setup.handle = handle;
    }

    fn create(&mut self, works: bool) -> u64 {
        self.keys += 1;
        if works {
            self.works.push(self.keys);
        }
        self.answer();
        self.keys
    }

    fn recent(&self, back: u8) -> u64 {
        self.keys.saturating_sub(back.into()).max(1)
    }

    fn delete(&mut self, fingerprint: Fingerprint) {
        self.works.retain(|number| name(*number) != fingerprint);
        self.answer();
    }

    fn answer(&self) {
        for number in 1..=self.keys {
            let known = if self.works.contains(&number) { accepted() } else { refused() };
            self.setup.answers.set(number, if self.is_silent { silent() } else { known });
        }
    }

    /// The service sends a request.
    fn send(&self) {
        if let (Some(number), false) = (sent(&self.setup.handle), self.is_silent) {
            let generation = self.setup.handle.load().unwrap().generation();
            if self.works.contains(&number) {
                self.setup.handle.report_accepted(generation);
            } else {
                self.setup.handle.report_refused(generation);
            }
        }
    }

    fn suffer(&mut self, fault: &Fault) {
        let rotation = &self.setup.rotation;
        match *fault {
            Fault::Nothing => {}
            Fault::Delete(back) => self.delete(name(self.recent(back))),
            Fault::Stage(works) => {
                let number = self.create(works);
                drop(self.setup.rotation.stage(&key(number)));
            }
            Fault::PromoteUnverified => drop(rotation.promote_unverified_now()),
            Fault::RollBack => drop(rotation.roll_back_now()),
            Fault::Leak(back) => drop(rotation.compromise(name(self.recent(back)))),
            Fault::Stuck(is_stuck) => self.setup.store.is_stuck.store(is_stuck, Ordering::SeqCst),
            Fault::Silence(is_silent) => self.is_silent = is_silent,
            Fault::Restart => self.restart(),
            Fault::Pass(seconds) => self.setup.clock.advance(seconds.into()),
            Fault::SetBack(seconds) => self.setup.clock.set_back(seconds.into()),
        }
        self.answer();
    }

    /// Does what the step says, to the letter. An error is one of the step that was asked for.
    fn follow(&mut self, step: &NextStep) -> Result<(), keysheath::rotation::RotationError> {
        let said = step.to_string();
        let works = |person: &Self, wanted| person.works.iter().any(|number| name(*number) == wanted);
        match step {
            NextStep::Create { .. } => {
                let number = self.create(true);
                self.setup.rotation.stage(&key(number)).map(drop)
            }
            NextStep::Verify { key, .. } => {
                let verified = self.setup.rotation.verify(key.rotation())?;
                if let Verification::NotYet { .. } = verified {
                    self.setup.clock.advance(60);
                }
                Ok(())
            }
            NextStep::VerifyByHand { key, .. } if works(self, key.fingerprint()) => {
                self.setup.rotation.promote(CheckedBy::Person(key.rotation())).map(drop)
            }
            NextStep::VerifyByHand { key, .. } | NextStep::Abort { key, .. } => {
                self.setup.rotation.abort(key.rotation()).map(drop)
            }
            NextStep::Promote { key, .. } => self.setup.rotation.promote(key.rotation()).map(drop),
            NextStep::Wait { remaining, .. } => {
                self.setup.clock.advance(remaining.as_secs().max(60));
                Ok(())
            }
            NextStep::Delete { key, keep, .. } => {
                if !self.has_probe && !works(self, keep.fingerprint()) {
                    // "first check yourself that the key works": a request will tell.
                    return Ok(());
                }
                self.delete(key.fingerprint());
                if self.has_probe {
                    self.setup.rotation.retire(keep.rotation()).map(drop)
                } else {
                    self.setup.rotation.retire(CheckedBy::Person(keep.rotation())).map(drop)
                }
            }
            NextStep::DeleteAborted { keep, .. } if !self.has_probe && !works(self, keep.fingerprint()) => {
                Ok(())
            }
            NextStep::DeleteLeaked { key, .. } | NextStep::DeleteAborted { key, .. } => {
                self.delete(key.fingerprint());
                self.setup.rotation.confirm_deleted(key.fingerprint()).map(drop)
            }
            NextStep::Confirm { current, .. } => self.setup.rotation.retire(current.rotation()).map(drop),
            NextStep::Refused { key, has_probe: true, .. } => {
                self.setup.rotation.verify(key.rotation()).map(drop)
            }
            NextStep::Refused { key, .. } if works(self, key.fingerprint()) => Ok(()),
            NextStep::Refused { key, previous: Some(_), .. } => {
                if let Some((_, after)) = said.split_once("abort rotation ")
                    && let Some((under_way, _)) = after.split_once(", which is pending, then ")
                {
                    self.setup.rotation.abort(under_way.parse().unwrap())?;
                }
                self.setup.rotation.roll_back(key.rotation())?;
                self.setup.rotation.abort(key.rotation()).map(drop)
            }
            NextStep::Refused { .. } => {
                let number = self.create(true);
                let staged = self.setup.rotation.stage(&key(number))?;
                self.setup.rotation.promote(CheckedBy::Person(staged.rotation())).map(drop)
            }
            _ if said.contains("report it as compromised again") => {
                let leaked = (1..=self.keys).find(|number| said.contains(&name(*number).to_string()));
                self.setup.rotation.compromise(name(leaked.unwrap())).map(drop)
            }
            _ => Ok(()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_does_what_is_said_ends_with_a_key_that_works(
        has_probe in any::<bool>(),
        is_short_lived in any::<bool>(),
        faults in prop::collection::vec(fault(), 1..40),
    ) {
        let mut person = Person::new(has_probe);
        for fault in &faults {
            person.suffer(fault);
            person.send();
            let step = person.setup.rotation.next_step().unwrap();
            // What fails now fails by a fault.
            drop(person.follow(&step));
        }
        for quiet in [Fault::Stuck(false), Fault::Silence(false)] {
            person.suffer(&quiet);
        }
        let mut said = Vec::new();
        loop {
            person.setup.clock.advance(60);
            // What a process knows of a leak that is not persisted ends with it.
            let is_leak = person.setup.rotation.next_step().unwrap().to_string().contains("once more");
            if is_short_lived && !is_leak {
                person.restart();
            }
            person.send();
            let step = person.setup.rotation.next_step().unwrap();
            said.push(step.to_string());
            prop_assert!(said.len() < 200, "{} does not end: {:?}", said[said.len() - 1], faults);
            if let NextStep::Nothing { .. } = step {
                break;
            }
            let done = person.follow(&step);
            prop_assert!(done.is_ok(), "{} is said, and fails: {:?} after {:?}", step, done, faults);
        }
        let [current, pending, previous] = slots(&person.setup.store);
        prop_assert_eq!((pending, previous), (None, None));
        prop_assert!(current.is_some_and(|current| person.works.contains(&current)), "{:?}", faults);
        prop_assert_eq!(sent(&person.setup.handle), current);
    }
}

#[test]
fn a_leak_that_is_not_persisted_comes_before_every_deletion() {
    let setup = Setup::over(Stuck::default());
    setup.promote();
    setup.store.is_stuck.store(true, Ordering::SeqCst);
    setup.rotation.compromise(name(2)).unwrap_err();
    assert_eq!(sent(&setup.handle), Some(1), "it is the only good key now");
    setup.clock.advance(86_400);
    let step = setup.rotation.next_step().unwrap();
    assert!(!matches!(step, NextStep::Delete { .. }), "{step}");
    assert!(step.to_string().contains("report it as compromised again"), "{step}");
    setup.store.is_stuck.store(false, Ordering::SeqCst);
    setup.rotation.compromise(name(2)).unwrap();
    let step = setup.rotation.next_step().unwrap();
    assert!(matches!(&step, NextStep::DeleteLeaked { key, .. } if key.fingerprint() == name(2)), "{step}");
}

#[test]
fn a_refused_new_key_has_no_other_key_deleted() {
    let presence = MemoryStore::new();
    let setup = promoted();
    drop(setup.rotation.verify_now().unwrap());
    // A process of the fleet has key 1 still.
    let behind = Rotation::<Kanal>::open(adopted().store, RotationPolicy::new()).unwrap().handle();
    let _shown = Presence::show(presence.clone(), &behind, PresenceSettings::new("shop-7")).unwrap();
    let later = || SystemTime::now() + Duration::from_secs(300);
    let (tool, _) = setup.another();
    let policy = RotationPolicy::new().with_clock_skew(Duration::ZERO);
    drop(tool);
    let tool = Rotation::<Kanal>::open(setup.store.clone(), policy)
        .unwrap()
        .with_probe(setup.answers.clone())
        .with_presence(presence)
        .with_clock(later);
    let step = tool.next_step().unwrap();
    assert!(matches!(&step, NextStep::Wait { still_using, .. } if still_using.len() == 1), "{step}");
    tool.stage(&key(3)).unwrap();
    // It was accepted once, so that it is none of "not yet".
    setup.answers.accept(3);
    drop(tool.verify_now().unwrap());
    setup.answers.refuse(3);
    let outcome = tool.verify_now().unwrap();
    let Verification::KeyRefused { next, .. } = &outcome else { panic!("{outcome}") };
    assert!(matches!(&**next, NextStep::Abort { key, .. } if key.fingerprint() == name(3)), "{outcome}");
}

#[test]
fn no_error_asks_for_a_key_to_be_deleted() {
    let setup = promoted();
    setup.rotation.stage(&key(3)).unwrap();
    let error = setup.rotation.promote_unverified_now().unwrap_err().to_string();
    assert!(error.contains("still the previous one") && !error.contains("delete"), "{error}");
}

#[test]
fn what_a_replica_shows_is_not_called_overdue() {
    let setup = Setup::over(WriteBehind::default());
    setup.promote();
    setup.clock.advance(86_400);
    let is_overdue = || match setup.rotation.retire_now().unwrap() {
        Retirement::StillAccepted { is_overdue, .. } => is_overdue,
        other => panic!("{other}"),
    };
    assert!(is_overdue());
    setup.store.is_behind.store(true, Ordering::SeqCst);
    assert!(!is_overdue(), "key 1 may be active again");
}

/// A store that knows whether what it gives is old.
#[derive(Clone, Default)]
struct WriteBehind {
    store: MemoryStore,
    is_behind: Arc<AtomicBool>,
}

impl DocumentStore for WriteBehind {
    pass_on!(store: limit, read, write);

    fn provenance(&self) -> Provenance {
        Provenance::other("replica", "store")
    }

    fn is_current(&self, _: &Document) -> Result<bool, DocumentError> {
        Ok(!self.is_behind.load(Ordering::SeqCst))
    }
}

#[test]
fn an_active_key_for_some_stores_only_is_replaced() {
    let setup = promoted();
    setup.answers.set(2, forbidden());
    setup.answers.refuse(1);
    let outcome = setup.rotation.retire_now().unwrap();
    assert!(matches!(outcome, Retirement::Undecided { .. }), "{outcome}");
    assert!(outcome.to_string().contains("stage a key for every store"), "{outcome}");
    setup.rotation.stage(&key(3)).unwrap();
    setup.answers.accept(3);
    for _ in 0..3 {
        match setup.rotation.next_step().unwrap() {
            NextStep::Verify { key, .. } => drop(setup.rotation.verify(key.rotation()).unwrap()),
            NextStep::Promote { key, .. } => drop(setup.rotation.promote(key.rotation()).unwrap()),
            _ => {}
        }
    }
    assert_eq!(setup.slots(), [Some(3), None, Some(2)], "the one that the issuer does not know is retired");
}
