//! OpenBao as a cluster of three, with standbys that answer reads from their own stores.
//!
//! `KEYSHEATH_OPENBAO_ROUNDS` is how many rounds the racing processes do; `scripts/soak-openbao` does 500.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::steps::Now as _;
use keysheath::key::{ApiKey, Issuer as _, Kanal, Origin, Roots};
use keysheath::keyset::{KeySet, KeySetError};
use keysheath::openbao::{Login, OpenBao};
use keysheath::rotation::{NextStep, Rotation, RotationError, RotationPolicy, Transition};
use keysheath::store::{Document, DocumentContent, DocumentError, DocumentStore, OpenBaoStore};

use crate::support::Child;
use crate::support::openbao::{Cluster, PATIENCE, eventually};
use crate::support::passing::{Late, Passing};

fn key(number: u64) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(format!("KanalKey{number:016}").as_bytes()).unwrap()
}

fn content(text: &str) -> DocumentContent {
    DocumentContent::from(text.as_bytes().to_vec())
}

fn store(client: OpenBao) -> OpenBaoStore {
    OpenBaoStore::new(client.with_deadline(Duration::from_secs(30)), "secret/shop/keys")
}

fn standby(cluster: &Cluster) -> usize {
    let leader = cluster.leader().expect("a leader");
    (0..3).find(|node| *node != leader).unwrap()
}

/// Writes fifty times, and reads after each. How many of the looks did not see what was written last.
fn stale_of_fifty(store: &OpenBaoStore) -> usize {
    let mut stale = 0;
    let mut last = store.version().unwrap();
    for number in 0..50 {
        // As large as it may be: the longer a standby has to do with it.
        match store.write(&content(&format!("{number:030000}")), last.as_ref()) {
            Ok(version) => last = Some(version),
            // The store looks at what is there before it writes.
            Err(DocumentError::Conflict) => stale += 1,
            Err(error) => panic!("write {number}: {error}"),
        }
        let read = store.read().map(|there| there.map(|there| *there.version()));
        stale += [read, store.version()].into_iter().filter(|seen| *seen != Ok(last)).count();
    }
    stale
}

#[test]
fn fifty_writes_through_a_standby_each_see_the_one_before() {
    let cluster = Cluster::start();
    assert_eq!(stale_of_fifty(&store(cluster.client(standby(&cluster), false))), 0);
}

/// One header says how far a standby must be, and the other what it does where it is not: without the first
/// it answers from its own store, and without the second it refuses the call (by a 429, which the client
/// would ask again).
#[test]
fn a_standby_forwards_a_call_only_with_both_headers() {
    let cluster = Cluster::start();
    let (leader, node) = (cluster.leader().unwrap(), standby(&cluster));
    let through = |without: Option<&'static str>| {
        // A new client has no index to send, so that its first look may be behind by what the client before
        // it has written.
        let newest = store(cluster.client(leader, false)).version().unwrap();
        eventually("the standby has what the leader has", || {
            store(cluster.client(node, false)).version().is_ok_and(|seen| seen == newest)
        });
        let late = Late {
            leader: cluster.origin(leader).to_string(),
            standby: cluster.origin(node).to_string(),
            process: cluster.process(node),
        };
        let passing = Passing::to_late(late, &cluster.pem, without);
        let client = OpenBao::at(passing.origin.clone(), Login::token(cluster.token.clone())).unwrap();
        let stale = stale_of_fifty(&store(client));
        let refused = passing.count(|passed| matches!(passed.status, 412 | 429));
        println!("without {without:?}: {stale} stale, {refused} refused");
        (stale, refused, passing.seen())
    };
    let (stale, refused, seen) = through(None);
    assert_eq!((stale, refused), (0, 0));
    let mut is_indexed = false;
    for passed in &seen {
        let has = |name: &str| passed.headers.iter().any(|header| header == name);
        assert!(has("x-vault-inconsistent"), "{passed:?}");
        assert!(has("x-vault-index") || !is_indexed, "{passed:?}");
        is_indexed |= passed.is_indexed;
    }
    assert!(is_indexed && seen.len() > 150, "{}", seen.len());

    // Some of the fifty are enough, and none is rare. Then they are done again.
    let sum_until = |without, is_seen: fn(usize, usize) -> bool| {
        let (start, mut sum) = (Instant::now(), (0, 0));
        while !is_seen(sum.0, sum.1) && start.elapsed() < PATIENCE {
            let (stale, refused, _) = through(Some(without));
            sum = (sum.0 + stale, sum.1 + refused);
        }
        sum
    };
    let (stale, refused) = sum_until("x-vault-index", |stale, _| stale > 0);
    assert!(stale > 0 && refused == 0, "without the index: {stale} stale, {refused} refused");
    let (stale, refused) = sum_until("x-vault-inconsistent", |_, refused| refused > 0);
    assert!(stale == 0 && refused > 0, "without the word to hand on: {stale} stale, {refused} refused");
}

/// Does a step until the cluster has taken it. That another process was faster is no failure.
fn report(action: &str, step: Result<Transition, RotationError>) {
    match step {
        Ok(transition) => {
            if transition.is_change() {
                println!(
                    "= {action} {} {}",
                    transition.event().fingerprint.unwrap(),
                    transition.event().rotation.unwrap()
                );
            }
        }
        Err(
            RotationError::Refused(
                KeySetError::InProgress { .. }
                | KeySetError::NotPending { .. }
                | KeySetError::NotCurrent
                | KeySetError::NothingBefore
                | KeySetError::PreviousThere { .. },
            )
            | RotationError::Contended { .. },
        ) => {}
        Err(error) => panic!("{action}: {error}"),
    }
}

#[test]
fn eight_processes_that_race_lose_no_acknowledged_step() {
    const NAME: &str = "eight_processes_that_race_lose_no_acknowledged_step";
    let rounds = std::env::var("KEYSHEATH_OPENBAO_ROUNDS").map_or(5, |rounds| rounds.parse::<u64>().unwrap());
    if Child::new(NAME).is_here() {
        let variable = |name: &str| std::env::var(name).unwrap();
        let members: Vec<_> =
            variable("MEMBERS").split(' ').map(|text| Origin::parse(text).unwrap()).collect();
        let first = variable("FIRST").parse::<u64>().unwrap();
        let at = usize::try_from(first / 10_000).unwrap() % 3;
        let client = OpenBao::at(members[at].clone(), Login::token(variable("TOKEN"))).unwrap();
        let client = client.with_roots(Roots::from_pem(variable("ROOTS").as_bytes()).unwrap());
        let store = store(client.with_members(members).unwrap());
        let rotation = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap();
        for number in first..first + rounds {
            report("staged", rotation.stage(&key(number)).map(|staged| staged.transition().clone()));
            rotation.status().unwrap();
            report("promoted", rotation.promote_unverified_now());
            report("retired", rotation.retire_unprobed_now());
        }
        println!("= end");
        return;
    }
    let cluster = Cluster::start();
    let there = store(cluster.client(0, true));
    let rotation = Rotation::<Kanal>::open(there.clone(), RotationPolicy::new()).unwrap();
    rotation.adopt(&key(1)).unwrap();
    let members: Vec<_> = (0..3).map(|node| cluster.origin(node).to_string()).collect();
    let children: Vec<_> = (1..=8_u64)
        .map(|number| {
            let child = Child::new(NAME).var("MEMBERS", members.join(" ")).var("TOKEN", &cluster.token);
            child.var("ROOTS", &cluster.pem).var("FIRST", (number * 10_000).to_string()).spawn()
        })
        .collect();
    let (mut staged, mut promoted) = (HashSet::new(), HashSet::new());
    for child in children {
        let output = child.wait_with_output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && shown.contains("= end"), "{shown}");
        for line in shown.lines().filter_map(|line| line.split_once("= ")) {
            let words: Vec<_> = line.1.split(' ').map(str::to_owned).collect();
            match words[0].as_str() {
                "staged" => assert!(staged.insert(words[1].clone()), "staged twice: {}", words[1]),
                "promoted" => assert!(promoted.insert(words[1].clone()), "promoted twice: {}", words[1]),
                _ => {}
            }
        }
    }
    println!("{} staged, {} promoted", staged.len(), promoted.len());
    // Each promotion that was acknowledged has made one generation, and none was overwritten.
    let document: Document = there.read().unwrap().unwrap();
    let keys = KeySet::from_document(Kanal::PROFILE, document.content().expose_secret()).unwrap();
    let generation: usize = keys.generation().unwrap().to_string().parse().unwrap();
    assert_eq!(generation, promoted.len() + 1, "a promotion was lost");
    assert!(!promoted.is_empty());
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start();
    cluster.wait_for_votes();
    let leader = cluster.leader().unwrap();
    // The address is the node that will be killed.
    let there = store(cluster.client(leader, true));
    let rotation = Rotation::<Kanal>::open(there.clone(), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    rotation.adopt(&key(1)).unwrap();
    let is_ending = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            let mut number = 1;
            let mut rounds_after = 0;
            while rounds_after < 3 {
                rounds_after += u32::from(is_ending.load(Ordering::SeqCst));
                let next = key(number + 1);
                until_done(|| rotation.stage(&next));
                let keys = read(&there);
                assert!(
                    keys.pending().is_some_and(|held| held.key().matches(next.expose_secret().as_bytes()))
                );
                until_done(|| rotation.promote_unverified_now());
                until_done(|| rotation.retire_unprobed_now());
                number += 1;
                assert!(read(&there).current().unwrap().key().matches(next.expose_secret().as_bytes()));
            }
            number
        });
        thread::sleep(Duration::from_millis(500));
        cluster.kill(leader);
        is_ending.store(true, Ordering::SeqCst);
        rotating.join().unwrap()
    });
    let keys = read(&there);
    assert!(keys.current().unwrap().key().matches(key(last).expose_secret().as_bytes()));
    assert!(handle.load().unwrap().current().matches(key(last).expose_secret().as_bytes()));
    let new = cluster.leader().expect("another leader");
    assert_ne!(new, leader);
    // It comes back as a standby, and catches up.
    cluster.start_node(leader);
    cluster.wait_for(3);
    let version = there.version().unwrap();
    let start = Instant::now();
    while store(cluster.client(leader, true)).version() != Ok(version) {
        assert!(start.elapsed() < Duration::from_secs(60), "it has not caught up after a minute");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_standby_that_has_lost_the_others_asks_for_no_deletion() {
    let mut cluster = Cluster::start();
    cluster.wait_for_votes();
    let leader = cluster.leader().unwrap();
    let node = standby(&cluster);
    let policy = RotationPolicy::new()
        .with_grace(Duration::ZERO)
        .with_settle(Duration::ZERO)
        .with_activation(Duration::ZERO);
    let open = |client| Rotation::<Kanal>::open(store(client), policy.clone()).unwrap();
    let rotation = open(cluster.client(leader, true));
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    rotation.promote_unverified_now().unwrap();
    assert!(matches!(rotation.next_step().unwrap(), NextStep::Delete { .. }));
    // What a standby has heard of by now.
    let late = cluster.client(node, true).with_deadline(Duration::from_secs(5));
    eventually("the standby has heard of it", || {
        OpenBaoStore::new(late.clone(), "secret/shop/keys")
            .version()
            .is_ok_and(|version| version == store(cluster.client(leader, true)).version().unwrap())
    });
    (0..3).filter(|other| *other != node).for_each(|other| cluster.kill(other));
    let late = OpenBaoStore::new(late, "secret/shop/keys");
    let rotation = Rotation::<Kanal>::open(late, policy).unwrap();
    assert_eq!(rotation.status().unwrap().keys().generation().unwrap().to_string(), "2", "it answers reads");
    let error = rotation.next_step().unwrap_err();
    assert!(
        matches!(error, RotationError::Document { problem: DocumentError::Unavailable(_), .. }),
        "{error}"
    );
}

fn read(store: &OpenBaoStore) -> KeySet {
    let document = store.read().unwrap().unwrap();
    KeySet::from_document(Kanal::PROFILE, document.content().expose_secret()).unwrap()
}

/// Does a step again for as long as the store is away. A step that was done without saying so is done.
fn until_done<T>(step: impl Fn() -> Result<T, RotationError>) {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match step() {
            Ok(_) => return,
            Err(
                RotationError::Unsure { problem: problem @ DocumentError::Unavailable(_), .. }
                | RotationError::Document { problem: problem @ DocumentError::Unavailable(_), .. },
            ) => println!("again: {problem}"),
            Err(error) => panic!("{error}"),
        }
        assert!(std::time::Instant::now() < end, "the store did not come back");
    }
}
