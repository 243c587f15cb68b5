//! The index of keys: by digest and by number, in any order, and under readers without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::registry::record::Seconds;

fn record(serial: u32) -> KeyRecord {
    KeyRecord {
        id: KeyId::new(serial),
        team: TeamId::new(1),
        name: format!("name {serial}").into(),
        fingerprint: None,
        created: Seconds(1),
        last_used: None,
        restriction: None,
    }
}

fn digest(number: u32) -> [u8; DIGEST] {
    // Few different hashes, so that the table has to compare.
    let mut digest = [0; DIGEST];
    digest[0] = (number % 3) as u8;
    digest[12..].copy_from_slice(&number.to_le_bytes());
    digest
}

fn spread(number: u32) -> [u8; DIGEST] {
    u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes()
}

fn found(index: &Index, digest: &[u8; DIGEST], pepper: u8) -> Option<KeyId> {
    index.read(|| index.find(digest, pepper).map(|found| found.entry.id()))
}

#[test]
fn keys_are_found_moved_and_removed_in_any_order() {
    for (digest, count) in [(digest as fn(u32) -> _, 600), (spread, 3000)] {
        let index = Index::new();
        for number in 0..count {
            index.insert(&record(number), digest(number), 0);
        }
        for number in (0..count).step_by(2) {
            assert!(index.remove(KeyId::new(number)));
            assert!(!index.remove(KeyId::new(number)), "it was removed");
        }
        for number in (1..count).step_by(4) {
            assert!(index.rehash(KeyId::new(number), digest(number + 10_000), 1));
        }
        for number in 0..count {
            let moved = number % 4 == 1;
            let there = number % 2 == 1 && !moved;
            assert_eq!(found(&index, &digest(number), 0), there.then(|| KeyId::new(number)), "{number}");
            let at_new = found(&index, &digest(number + 10_000), 1);
            assert_eq!(at_new, moved.then(|| KeyId::new(number)), "{number}");
            assert_eq!(index.record(KeyId::new(number)), (number % 2 == 1).then(|| record(number)));
        }
        let half = count as usize / 2;
        assert_eq!((index.len(), index.records_of(TeamId::new(1)).len()), (half, half));
        assert_eq!((index.count_under(0), index.count_under(1)), (half / 2, half / 2));
    }
}

#[test]
fn a_freed_place_is_reused_for_another_number() {
    let index = Index::new();
    let slots = index.keys.slots();
    for number in 0..10_000 {
        index.insert(&record(number), digest(number), 0);
        assert_eq!(index.record(KeyId::new(number)), Some(record(number)));
        assert!(index.remove(KeyId::new(number)));
        assert_eq!(index.record(KeyId::new(number)), None);
    }
    assert_eq!((index.len(), index.keys.slots()), (0, slots));
    assert!(index.cold.lock().serials.pages.is_empty());
}

#[test]
fn memory_depends_on_the_count_of_keys_only() {
    let index = Index::new();
    let serials: Vec<u32> = (0..5_000).map(|number| number * 858_993).collect();
    for &serial in &serials {
        index.insert(&record(serial), spread(serial), 0);
    }
    assert!(index.keys.slots() < 7_500, "{}", index.keys.slots());
    assert_eq!(index.cold.lock().serials.pages.len(), 5_000);
    assert!(serials.iter().all(|&serial| index.record(KeyId::new(serial)) == Some(record(serial))));
    assert!(index.record(KeyId::new(1)).is_none());
    index.insert(&record(u32::MAX), digest(u32::MAX), 0);
    assert_eq!(index.record(KeyId::new(u32::MAX)), Some(record(u32::MAX)));
}

#[test]
fn a_late_digest_goes_to_no_other_key() {
    let index = Index::new();
    index.insert(&record(0), digest(0), 1);
    index.remove(KeyId::new(0));
    index.insert(&record(1), digest(1), 0);
    assert!(!index.rehash(KeyId::new(0), digest(7), 0), "the key was removed");
    assert_eq!(found(&index, &digest(7), 0), None);
    assert_eq!(found(&index, &digest(1), 0), Some(KeyId::new(1)));
}

#[test]
fn a_digest_under_another_pepper_is_not_found() {
    let index = Index::new();
    index.insert(&record(0), digest(0), 1);
    assert_eq!(found(&index, &digest(0), 0), None);
}

#[test]
fn a_use_of_a_key_that_moved_meanwhile_is_noted_for_it() {
    let index = Index::new();
    (0..2).for_each(|number| index.insert(&record(number), spread(number), 0));
    let found = index.read(|| index.find(&spread(0), 0)).unwrap();
    assert!(index.rehash(KeyId::new(0), spread(100), 0));
    assert!(index.note_use(&found, Seconds(60), 60));
    assert_eq!(index.record(KeyId::new(0)).unwrap().last_used, Some(Seconds(60)));
    assert!(index.remove(KeyId::new(0)));
    index.insert(&record(2), spread(0), 0);
    assert!(!index.note_use(&found, Seconds(120), 60), "the key was removed");
    assert!([1, 2].iter().all(|&other| index.record(KeyId::new(other)).unwrap().last_used.is_none()));
}

#[test]
fn stores_are_found_and_changed() {
    let index = Index::new();
    let store = |number: u64| StoreId::new(number).unwrap();
    let state = |number: u32, is_paused| Store { team: TeamId::new(number), is_paused };
    let seen =
        |number| index.read(|| index.store(store(number))).map(|seen| (seen.team.get(), seen.is_paused));
    for number in 1..2000 {
        index.put_store(store(u64::from(number) << 20), state(number, false));
        assert_eq!(seen(u64::from(number) << 20), Some((number, false)));
    }
    index.put_store(store(u64::MAX), state(u32::MAX, true));
    index.put_store(store(5 << 20), state(7, true));
    assert_eq!((seen(u64::MAX), seen(5 << 20)), (Some((u32::MAX, true)), Some((7, true))));
    assert!((6..2000).all(|number| seen(u64::from(number) << 20) == Some((number, false))));
    assert_eq!((seen(1), seen(2000 << 20)), (None, None));
}

/// While one thread adds, removes and moves other keys, so that all keys move in the table, three others
/// always find the keys that stay, as they are, and note uses of them.
#[test]
fn readers_find_each_key_that_stays_while_others_come_and_go() {
    const STAY: u32 = 64;
    let (index, is_over) = (Index::new(), AtomicBool::new(false));
    let (clock, looks) = (AtomicU64::new(1), AtomicU64::new(0));
    (0..STAY).for_each(|number| index.insert(&record(number), spread(number), 0));
    thread::scope(|scope| {
        for thread in 0..3 {
            let (index, is_over, clock, looks) = (&index, &is_over, &clock, &looks);
            scope.spawn(move || {
                let mut number = thread;
                while !is_over.load(Ordering::Relaxed) {
                    number = (number + 1) % STAY;
                    let found = index.read(|| index.find(&spread(number), 0)).expect("it stays");
                    assert_eq!(found.entry.id(), KeyId::new(number));
                    let now = u32::try_from(clock.fetch_add(1, Ordering::Relaxed)).unwrap();
                    index.note_use(&found, Seconds(now), 60);
                    let used = index.read(|| index.find(&spread(number), 0)).expect("it stays").entry;
                    assert!(used.record("").last_used >= Some(Seconds(now)), "a noted use is lost");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut next = STAY;
        for _ in 0..6 {
            let first = next;
            for number in first..first + 4000 {
                index.insert(&record(number), spread(number), 0);
            }
            for number in (first..first + 4000).step_by(3) {
                assert!(index.rehash(KeyId::new(number), spread(number + 0x4000_0000), 1));
            }
            (first..first + 4000).for_each(|number| assert!(index.remove(KeyId::new(number))));
            next += 4000;
        }
        while looks.load(Ordering::Relaxed) < 1000 {
            thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(index.len(), STAY as usize);
    let last = clock.load(Ordering::Relaxed);
    let used = |number| index.record(KeyId::new(number)).unwrap().last_used.map(|used| u64::from(used.0));
    assert!((0..STAY).all(|number| used(number).is_none_or(|used| used < last)));
}
