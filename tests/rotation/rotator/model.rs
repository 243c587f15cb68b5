//! No sequence of steps, answers and clocks has the only good key deleted.

use std::time::Instant;

use keysheath::rotation::{NextStep, Retirement, Verification};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Stage,
    Verify,
    Promote,
    PromoteUnverified,
    RollBack,
    Retire,
    RetireUnprobed,
    Abort,
    Compromise(u8),
    ConfirmDeleted,
    /// A person deletes one of the last keys, or undoes that, as where a store was paused.
    Delete(u8),
    Restore(u8),
    /// The issuer does not answer for a while.
    Silence(bool),
    /// The client is refused with the active key.
    Refused,
    Pass(u16),
    Jump(u16),
    SetBack(u16),
    /// The process ends, and another one goes on, with a wall clock of its own.
    Restart(i16),
    Ask,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Stage),
        4 => Just(Act::Verify),
        3 => Just(Act::Promote),
        1 => Just(Act::PromoteUnverified),
        1 => Just(Act::RollBack),
        3 => Just(Act::Retire),
        1 => Just(Act::RetireUnprobed),
        1 => Just(Act::Abort),
        1 => (0_u8..3).prop_map(Act::Compromise),
        1 => Just(Act::ConfirmDeleted),
        2 => (0_u8..3).prop_map(Act::Delete),
        1 => (0_u8..3).prop_map(Act::Restore),
        1 => any::<bool>().prop_map(Act::Silence),
        1 => Just(Act::Refused),
        4 => (0_u16..2000).prop_map(Act::Pass),
        1 => any::<u16>().prop_map(Act::Jump),
        1 => (0_u16..2000).prop_map(Act::SetBack),
        2 => any::<i16>().prop_map(|ahead| Act::Restart(ahead / 20)),
        6 => Just(Act::Ask),
    ]
}

/// What is known of the world beside the crate.
struct World {
    setup: Setup<MemoryStore>,
    /// How far the monotonic clock has come.
    own: Arc<AtomicU64>,
    keys: u64,
    is_silent: bool,
    deleted: Vec<u64>,
    /// The active key, and whether a probe accepted it since it became that, and refused it not since.
    active: (Option<u64>, bool),
    /// How much time has passed since the key became the active one.
    since: u64,
}

impl World {
    fn new() -> Self {
        let setup = empty();
        let mut world = Self {
            setup,
            own: Arc::default(),
            keys: 0,
            is_silent: false,
            deleted: Vec::new(),
            active: (None, false),
            since: 0,
        };
        world.restart();
        let first = world.create();
        world.setup.rotation.adopt(&key(first)).unwrap();
        world.look();
        world
    }

    fn restart(&mut self) {
        let (rotation, handle) = self.setup.another();
        let (wall, own, start) = (self.setup.clock.clone(), Arc::clone(&self.own), Instant::now());
        self.setup.rotation = rotation
            .with_clocks(move || wall.now(), move || start + Duration::from_secs(own.load(Ordering::SeqCst)));
        self.setup.handle = handle;
    }

    fn create(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    /// One of the last keys.
    fn recent(&self, back: u8) -> u64 {
        self.keys.saturating_sub(back.into()).max(1)
    }

    fn look(&mut self) {
        let active = self.setup.slots()[0];
        if active != self.active.0 {
            self.active = (active, false);
            self.since = 0;
        }
    }

    /// What a probe says of the active key is what the model believes.
    fn probed(&mut self) {
        let Some(active) = self.active.0.filter(|_| !self.is_silent) else { return };
        self.active.1 = !self.deleted.contains(&active);
    }

    fn answer(&self) {
        for number in 1..=self.keys {
            self.setup.answers.set(
                number,
                match (self.is_silent, self.deleted.contains(&number)) {
                    (true, _) => silent(),
                    (false, true) => refused(),
                    (false, false) => accepted(),
                },
            );
        }
    }

    fn do_it(&mut self, act: &Act) {
        self.answer();
        let rotation = &self.setup.rotation;
        let [_, has_pending, has_previous] = self.setup.slots().map(|slot| slot.is_some());
        match *act {
            Act::Stage => {
                let number = self.create();
                self.answer();
                if self.setup.rotation.stage(&key(number)).is_err() {
                    self.keys -= 1;
                }
            }
            Act::Verify => {
                let verified = rotation.verify_now();
                if let Ok(Verification::Verified { .. } | Verification::KeyRefused { .. }) = verified
                    && !has_pending
                {
                    self.probed();
                }
            }
            Act::Promote => drop(rotation.promote_now()),
            Act::PromoteUnverified => drop(rotation.promote_unverified_now()),
            Act::RollBack => drop(rotation.roll_back_now()),
            Act::Retire => match rotation.retire_now() {
                Ok(Retirement::WrongKeyDeleted { .. }) => {
                    // The key that is active again was accepted by the same look.
                    self.look();
                    self.active.1 = true;
                }
                // Without a previous key, nothing is asked.
                Ok(_) if has_previous => self.probed(),
                _ => {}
            },
            Act::RetireUnprobed => drop(rotation.retire_unprobed_now()),
            Act::Abort => drop(rotation.abort_now()),
            Act::Compromise(back) => drop(rotation.compromise(name(self.recent(back)))),
            Act::ConfirmDeleted => {
                if let Some(leaked) = rotation.status().unwrap().keys().leaked().first() {
                    rotation.confirm_deleted(leaked.fingerprint()).unwrap();
                }
                if let NextStep::DeleteAborted { key, .. } = rotation.next_step().unwrap() {
                    rotation.confirm_deleted(key.fingerprint()).unwrap();
                }
            }
            Act::Delete(back) => self.deleted.push(self.recent(back)),
            Act::Restore(back) => {
                let number = self.recent(back);
                self.deleted.retain(|deleted| *deleted != number);
            }
            Act::Silence(is_silent) => self.is_silent = is_silent,
            Act::Refused => {
                if let Ok(snapshot) = self.setup.handle.load() {
                    self.setup.handle.report_refused(snapshot.generation());
                }
            }
            Act::Pass(seconds) => {
                self.setup.clock.advance(seconds.into());
                self.own.fetch_add(seconds.into(), Ordering::SeqCst);
                self.since += u64::from(seconds);
            }
            Act::Jump(seconds) => self.setup.clock.advance(seconds.into()),
            Act::SetBack(seconds) => self.setup.clock.set_back(seconds.into()),
            Act::Restart(ahead) => {
                // Within the bound on how much clocks differ.
                let seconds = u64::from(ahead.unsigned_abs());
                if ahead < 0 {
                    self.setup.clock.set_back(seconds);
                } else {
                    self.setup.clock.advance(seconds);
                }
                self.restart();
            }
            Act::Ask => {}
        }
        self.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_has_the_only_good_key_deleted(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new();
        for (at, act) in acts.iter().enumerate() {
            world.do_it(act);
            let step = world.setup.rotation.next_step().unwrap();
            drop(step.to_string());
            if let NextStep::Delete { key, keep, is_confirmed, .. } = &step {
                let [current, _, previous] = world.setup.slots();
                let named = (Some(keep.fingerprint()), Some(key.fingerprint()));
                prop_assert_eq!(named, (current.map(name), previous.map(name)));
                prop_assert!(*is_confirmed);
                prop_assert!(world.active.1, "{} was not seen to work since: {:?}", keep, &acts[..=at]);
            }
            if let NextStep::DeleteAborted { key, keep, is_confirmed, .. } = &step {
                let [current, ..] = world.setup.slots();
                prop_assert_eq!(Some(keep.fingerprint()), current.map(name));
                let mut held = world.setup.slots().into_iter().flatten();
                prop_assert!(held.all(|held| name(held) != key.fingerprint()));
                prop_assert!(*is_confirmed);
                prop_assert!(world.active.1, "{} was not seen to work since: {:?}", keep, &acts[..=at]);
            }
        }
    }

    /// Clocks that are set, within the bound on how much they differ, shorten no wait.
    #[test]
    fn no_clock_within_the_bound_shortens_the_settle_time(
        acts in prop::collection::vec(
            prop_oneof![
                (0_u16..900).prop_map(Act::Pass),
                Just(Act::Restart(0)),
                Just(Act::Verify),
                Just(Act::Promote),
                Just(Act::Stage),
                Just(Act::RollBack),
            ],
            1..40,
        ),
        ahead in 0_u16..1800,
    ) {
        let mut world = World::new();
        // From the first restart on, by another machine's clock.
        let mut is_ahead = false;
        for act in &acts {
            if let (Act::Restart(_), false) = (act, is_ahead) {
                world.setup.clock.advance(ahead.into());
                is_ahead = true;
            }
            world.do_it(act);
            if let NextStep::Delete { .. } = world.setup.rotation.next_step().unwrap() {
                prop_assert!(world.since >= 900, "due after {} s: {:?}", world.since, acts);
            }
        }
    }
}
