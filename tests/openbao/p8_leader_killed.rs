//! P7 and P8 on a real cluster of OpenBao, whose leader is killed in the middle of rotations, and the process
//! that rotates with it.
//!
//! A loaded client sends requests all the time. It has three handles that follow the key set over the
//! cluster: two poll quickly, and one polls so rarely that it learns of each promotion by a 401. A process of
//! its own rotates, and a person creates the keys, and deletes the old one the moment that it is asked for.
//!
//! `KEYSHEATH_LEADER_KILLS` is how many leaders are killed; `scripts/soak-openbao` kills many.

#[path = "../../src/bin/keysheath/demo/load.rs"]
mod load;
mod rotator;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use keysheath::Cadence;
use keysheath::client::OriginGuard;
use keysheath::emulator::{Emulator, Fault, FaultRule, OWN_STORE};
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Fingerprint, Issuer as _, Kanal, Origin};
use keysheath::keyset::{KeySet, ManagedKey};
use keysheath::openbao::OpenBao;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::registry::KeyId;
use keysheath::store::{DocumentStore as _, OpenBaoStore};

use crate::support::Child;
use crate::support::openbao::{Cluster, eventually};
use load::Load;
use rotator::Rotator;

const NAME: &str = "killing_the_leader_mid_rotation_costs_no_request_or_step";

/// How long an election may take on a busy machine. A client whose deadline is shorter than an election could
/// give up a request that waits for the newer key.
const PATIENCE: Duration = Duration::from_secs(90);

/// The longest time into a step at which a process is killed, in milliseconds: longer than a step takes.
const INTO_A_STEP: u64 = 60;

fn guard(origin: &Origin) -> OriginGuard<Kanal> {
    OriginGuard::for_loopback(origin.clone()).unwrap()
}

fn store(client: OpenBao) -> OpenBaoStore {
    OpenBaoStore::new(client.with_deadline(PATIENCE), "secret/shop/keys")
}

/// What is in the key set, by fingerprints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    generation: u64,
    pending: Option<Fingerprint>,
    is_verified: bool,
    current: Option<Fingerprint>,
    previous: Option<Fingerprint>,
}

impl State {
    fn in_store(store: &OpenBaoStore) -> Self {
        let there = store.read().expect("the cluster comes back");
        there.map_or_else(Self::default, |there| {
            Self::of(&KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).unwrap())
        })
    }

    fn of(keys: &KeySet) -> Self {
        let name = |held: Option<&ManagedKey>| held.map(|key| key.info().fingerprint());
        Self {
            generation: keys.generation().map_or(0, |generation| generation.to_string().parse().unwrap()),
            pending: name(keys.pending()),
            is_verified: keys.pending().is_some_and(|held| held.info().verified().is_some()),
            current: name(keys.current()),
            previous: name(keys.previous()),
        }
    }
}

/// A step, as it is sent to the rotator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stage,
    Verify,
    Promote,
    RollBack,
    /// Is a deletion asked for?
    Ask,
    Retire,
}

const PLAIN: &[Step] = &[Step::Stage, Step::Verify, Step::Promote, Step::Ask, Step::Retire];
const ROLLED_BACK: &[Step] = &[
    Step::Stage,
    Step::Verify,
    Step::Promote,
    Step::RollBack,
    Step::Verify,
    Step::Promote,
    Step::Ask,
    Step::Retire,
];

/// Who is killed at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Leader,
    LeaderAndRotator,
}

/// All but the load: the issuer, the cluster, who rotates, and what is to be true.
struct Fleet {
    emulator: Emulator,
    in_app: HashMap<Fingerprint, KeyId>,
    cluster: Cluster,
    rotator: Rotator,
    /// Reads what is there.
    witness: OpenBaoStore,
    state: State,
    random: RandomState,
    draws: u64,
    killed: [u32; 2],
}

impl Fleet {
    fn start() -> Self {
        let emulator = Emulator::kanal().start().unwrap();
        // So that the load leaves some of the machine to the cluster.
        let slow = FaultRule::new(Fault::Latency(Duration::from_millis(5)));
        emulator.add_fault(slow.with_route("/api/v1/stores/{store_id}/orders")).unwrap();
        let cluster = Cluster::start();
        cluster.wait_for_votes();
        let state = State::default();
        let rotator = Rotator::start(Child::new(NAME), &cluster, 0, emulator.origin(), [state; 2]);
        let witness = store(cluster.client(1, true));
        let in_app = HashMap::new();
        let random = RandomState::new();
        let mut fleet =
            Self { emulator, in_app, cluster, rotator, witness, state, random, draws: 0, killed: [0; 2] };
        assert_eq!(fleet.rotator.next_line().as_deref(), Some("open"));
        let key = fleet.create();
        fleet.rotator.send(&format!("adopt {}", key.expose_secret()));
        assert_eq!(fleet.rotator.next_line().as_deref(), Some("done"));
        fleet.state = State { generation: 1, current: key.fingerprint(), ..fleet.state };
        fleet.check();
        fleet
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        self.random.hash_one(self.draws) % below
    }

    /// A person creates a key in the app, and keeps it until it is staged.
    fn create(&mut self) -> ApiKey<Kanal> {
        let new = self.emulator.create_key("production-shop").unwrap();
        self.in_app.insert(new.key().fingerprint().unwrap(), new.record().id());
        new.into_key().try_into_typed().unwrap()
    }

    fn read(&self) -> State {
        State::in_store(&self.witness)
    }

    /// What was acknowledged is there. A standby may be behind for a moment, and what is lost does not come
    /// back.
    fn check(&self) {
        let mut seen = self.state;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            seen = self.read();
            if seen == self.state {
                return;
            }
        }
        panic!("{:?} was acknowledged, and {seen:?} is there", self.state);
    }

    /// What is there once a step is done.
    fn after(&self, step: Step, new: Fingerprint) -> State {
        let State { generation, pending, current, previous, .. } = self.state;
        let (next, is_verified) = (generation + 1, false);
        match step {
            Step::Stage => State { pending: Some(new), is_verified, ..self.state },
            Step::Verify => State { is_verified: true, ..self.state },
            Step::Ask => self.state,
            Step::Promote => {
                State { generation: next, pending: None, is_verified, current: pending, previous: current }
            }
            // It must be verified again.
            Step::RollBack => {
                State { generation: next, pending: current, is_verified, current: previous, previous: None }
            }
            Step::Retire => State { previous: None, ..self.state },
        }
    }

    /// Does a step, and kills a process in the middle of it.
    fn make(&mut self, step: Step, key: &ApiKey<Kanal>, victims: Option<Victims>) {
        let command = match step {
            Step::Stage => &*format!("stage {}", key.expose_secret()),
            Step::Verify => "verify",
            Step::Promote => "promote",
            Step::RollBack => "roll-back",
            Step::Ask => "ask",
            Step::Retire => "retire",
        };
        let after = self.after(step, key.fingerprint().unwrap());
        let leader = victims.map(|_| self.cluster.leader().expect("a leader"));
        let pause = Duration::from_millis(self.draw(INTO_A_STEP));
        self.rotator.send(command);
        if let Some(leader) = leader {
            std::thread::sleep(pause);
            self.cluster.kill(leader);
            self.killed[0] += 1;
        }
        if victims == Some(Victims::LeaderAndRotator) {
            let pause = Duration::from_millis(self.draw(INTO_A_STEP));
            std::thread::sleep(pause);
            self.rotator.kill();
            self.killed[1] += 1;
            let seen = self.read();
            assert!(
                seen == self.state || seen == after,
                "{seen:?} is neither {:?} nor {after:?}",
                self.state
            );
            let node = self.cluster.leader().unwrap_or(0);
            let states = [self.state, after];
            self.rotator =
                Rotator::start(Child::new(NAME), &self.cluster, node, self.emulator.origin(), states);
            assert_eq!(self.rotator.next_line().as_deref(), Some("open"));
            self.rotator.send(command);
        }
        let line = self.rotator.next_line().expect("the rotator goes on");
        if step == Step::Ask {
            let fingerprint: Fingerprint = line.parse().unwrap();
            assert_eq!(Some(fingerprint), self.state.previous, "the key that is to be deleted");
            self.emulator.delete_key(self.in_app.remove(&fingerprint).unwrap()).unwrap();
        } else {
            assert_eq!(line, "done", "{step:?}");
        }
        self.state = after;
        self.check();
    }

    /// A rotation, at one step of which a process is killed. The cluster is whole again at its end.
    fn rotate(&mut self, steps: &[Step], victims: Option<Victims>) {
        let key = self.create();
        let fatal = usize::try_from(self.draw(steps.len() as u64)).unwrap();
        for (at, step) in steps.iter().enumerate() {
            let victims = victims.filter(|_| at == fatal);
            if let Some(victims) = victims {
                println!("{victims:?} killed at {step:?}");
            }
            self.make(*step, &key, victims);
        }
        (0..3).for_each(|node| self.cluster.start_if_killed(node));
        self.cluster.wait_for(3);
        self.cluster.wait_for_votes();
    }
}

fn follow(cluster: &Cluster, node: usize, poll: Duration) -> Refresher<Kanal> {
    let short = Duration::from_millis(50);
    let settings = RefreshSettings::new()
        .with_cadence(Cadence::every(poll).with_minimum_interval(short).with_longest_back_off(short))
        .with_deadline(PATIENCE)
        .with_lag(Duration::from_secs(30))
        .on_event(move |event| println!("handle at node {node}: {event}"));
    let store = store(cluster.client(node, true));
    // This node may not have heard of the key set yet.
    eventually("the key set", || store.version().unwrap().is_some());
    Refresher::from_store(store, settings).unwrap()
}

#[test]
fn killing_the_leader_mid_rotation_costs_no_request_or_step() {
    if Child::new(NAME).is_here() {
        return rotator::work();
    }
    let kills = std::env::var("KEYSHEATH_LEADER_KILLS").map_or(2, |kills| kills.parse::<u32>().unwrap());
    let mut fleet = Fleet::start();
    let (often, rarely) = (Duration::from_millis(100), Duration::from_secs(3600));
    let followers = [(0, often), (1, often), (2, rarely)];
    let refreshers = followers.map(|(node, poll)| follow(&fleet.cluster, node, poll));
    let handles: Vec<KeyHandle<Kanal>> = refreshers.iter().map(Refresher::handle).collect();
    let load = Load::start(&guard(fleet.emulator.origin()), OWN_STORE, handles.clone());
    let mut rotations = 0;
    while fleet.killed[0] < kills {
        // Every second rotation is a calm one; every other one with a death is the rotator's as well.
        let victims = match rotations % 4 {
            1 => Some(Victims::LeaderAndRotator),
            3 => Some(Victims::Leader),
            _ => None,
        };
        fleet.rotate(if rotations % 3 == 1 { ROLLED_BACK } else { PLAIN }, victims);
        rotations += 1;
        eventually("each handle has the active key", || {
            let is_new = |handle: &KeyHandle<Kanal>| {
                handle.load().is_ok_and(|now| now.current().fingerprint() == fleet.state.current)
            };
            handles.iter().all(is_new)
        });
        // As P8 says: the next deletion comes after the answers to what was repeated in this rotation.
        let before = load.ended();
        eventually("each sender has gone on", || {
            load.ended().into_iter().zip(&before).all(|(now, then)| now >= then + 2)
        });
        assert_eq!(
            (load.failed(), load.unsent()),
            (0, 0),
            "rotation {rotations}: {:?}",
            load.first_failure()
        );
    }
    let leader = fleet.cluster.leader().expect("a leader");
    // Who leads has all that was acknowledged.
    fleet.witness = store(fleet.cluster.client(leader, false));
    assert_eq!(fleet.read(), fleet.state);
    for refresher in &refreshers {
        assert!(refresher.status().health().problem().is_none(), "{}", refresher.status());
    }
    let [leaders, rotators] = fleet.killed;
    println!(
        "{} requests, 0 failed; {rotations} rotations, {leaders} leaders and {rotators} rotators killed",
        load.answered()
    );
    assert!(load.answered() > 100 && rotators > 0);
}
