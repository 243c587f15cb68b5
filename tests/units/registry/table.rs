//! The table against the standard map, under generated operations; many equal hashes, growth, readers.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// A hash, and a number that is unique.
#[derive(Default)]
struct Pair([AtomicU64; 2]);

impl Slot for Pair {
    type Content = (u64, u64);

    fn hash_of(content: &(u64, u64)) -> u64 {
        content.0
    }

    fn hash(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    fn is_free(&self) -> bool {
        self.0[1].load(Ordering::Relaxed) == 0
    }

    fn load(&self) -> (u64, u64) {
        (self.hash(), self.0[1].load(Ordering::Relaxed))
    }

    fn store(&self, (hash, number): (u64, u64)) {
        self.0[0].store(hash, Ordering::Relaxed);
        self.0[1].store(number, Ordering::Relaxed);
    }

    fn take(&self) -> (u64, u64) {
        let taken = self.load();
        self.0[1].store(0, Ordering::Relaxed);
        taken
    }
}

/// A table, and what should be in it: each number with its hash.
struct Both {
    table: Table<Pair>,
    growth: Growth<Pair>,
    expected: HashMap<u64, u64>,
    next: u64,
}

impl Both {
    fn new() -> Self {
        let (table, growth) = Table::new();
        Self { table, growth, expected: HashMap::new(), next: 1 }
    }

    fn insert(&mut self, hash: u64) {
        let number = self.next;
        self.next += 1;
        self.put((hash, number));
    }

    fn put(&mut self, (hash, number): (u64, u64)) {
        self.table.prepare(self.growth.due());
        self.table.insert(&mut self.growth, (hash, number));
        self.expected.insert(number, hash);
    }

    fn at(&self, hash: u64, number: u64) -> Option<usize> {
        self.table.find(hash, |slot| slot.load().1 == number).map(|(at, _)| at)
    }

    fn remove(&mut self, number: u64) {
        let hash = self.expected.remove(&number).unwrap();
        let at = self.at(hash, number).expect("it is there");
        self.table.remove(&mut self.growth, at);
    }

    /// Looks for everything that should be there, and for neighbours that should not.
    fn check(&self) {
        assert_eq!(self.growth.len(), self.expected.len());
        let all: Vec<(u64, u64)> = self.table.iter().map(Slot::load).collect();
        assert!(all.is_sorted_by_key(|(hash, _)| *hash), "it is in the order of the hashes");
        let expected: BTreeSet<(u64, u64)> =
            self.expected.iter().map(|(&number, &hash)| (hash, number)).collect();
        assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), expected);
        assert_eq!(all.len(), expected.len(), "nothing is there twice");
        for &(hash, number) in &expected {
            assert!(self.at(hash, number).is_some(), "{hash:x}");
            assert!(self.at(hash, self.next).is_none());
            let half = hash & !u64::from(u32::MAX);
            for range in [(hash, hash), (half, half | u64::from(u32::MAX)), (0, u64::MAX)] {
                let found = self.table.find_between(range, |slot| slot.load().1 == number);
                assert!(found.is_some(), "{hash:x} in {range:x?}");
            }
            for other in [hash.wrapping_add(1), hash.wrapping_sub(1)] {
                let has_it = expected.range((other, 0)..=(other, u64::MAX)).next().is_some();
                assert_eq!(self.table.find(other, |_| true).is_some(), has_it, "{other:x}");
            }
        }
    }
}

/// A hash: anywhere, one of few, or near an end.
fn hash() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => any::<u64>(),
        2 => (0..4_u64).prop_map(|few| few * 0x5555_5555_5555_5555),
        1 => (0..4_u64).prop_map(|near| u64::MAX - near),
        1 => 0..4_u64,
        2 => (0..64_u64, any::<u32>()).prop_map(|(high, low)| high << 58 | u64::from(low)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    /// Inserts many with consecutive, equal or spread hashes.
    InsertMany(u64, u64, u8),
    Remove(u16),
    RemoveMany(u16, u8),
    Rehash(u16, u64),
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    let apart = prop_oneof![Just(0), Just(1), Just(0x0123_4567_89ab_cdef), Just(1 << 40)];
    prop_oneof![
        4 => hash().prop_map(Step::Insert),
        2 => (hash(), apart, any::<u8>()).prop_map(|(first, by, count)| Step::InsertMany(first, by, count)),
        4 => any::<u16>().prop_map(Step::Remove),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(which, count)| Step::RemoveMany(which, count)),
        2 => (any::<u16>(), hash()).prop_map(|(which, hash)| Step::Rehash(which, hash)),
        4 => Just(Step::Grow),
    ]
}

fn run(steps: &[Step]) {
    let mut both = Both::new();
    let which = |both: &Both, which: u16| {
        let mut numbers: Vec<u64> = both.expected.keys().copied().collect();
        numbers.sort_unstable();
        (!numbers.is_empty()).then(|| numbers[usize::from(which) % numbers.len()])
    };
    for step in steps {
        match *step {
            Step::Insert(hash) => both.insert(hash),
            Step::InsertMany(first, apart, count) => {
                (0..u64::from(count)).for_each(|at| both.insert(first.wrapping_add(apart.wrapping_mul(at))));
            }
            Step::Remove(place) => {
                if let Some(number) = which(&both, place) {
                    both.remove(number);
                }
            }
            Step::RemoveMany(place, count) => {
                (0..count)
                    .for_each(|_| which(&both, place).into_iter().for_each(|number| both.remove(number)));
            }
            Step::Rehash(place, hash) => {
                if let Some(number) = which(&both, place) {
                    both.remove(number);
                    both.put((hash, number));
                }
            }
            Step::Grow => both.table.continue_growth(&mut both.growth),
        }
        both.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_the_standard_map_holds(steps in proptest::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}

#[test]
fn thousands_of_equal_hashes_are_kept_and_removed() {
    for hash in [0, 1, u64::MAX / 3, u64::MAX - 1, u64::MAX] {
        let mut both = Both::new();
        (0..800).for_each(|_| both.insert(hash));
        both.check();
        (1..800).step_by(2).for_each(|number| both.remove(number));
        both.check();
        assert!(both.table.slots() < 2 * 800 * OF / FULL, "{}", both.table.slots());
    }
}

#[test]
fn a_table_that_is_emptied_while_it_grows_is_usable() {
    let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut both = Both::new();
    while both.expected.len() < 6_000 || !both.table.is_growing() {
        both.insert(spread(both.next));
    }
    let numbers: Vec<u64> = both.expected.keys().copied().collect();
    numbers.iter().filter(|number| *number % 50 != 0).for_each(|number| both.remove(*number));
    both.check();
    while both.table.is_growing() {
        both.table.continue_growth(&mut both.growth);
    }
    both.check();
    let slots = both.table.slots();
    (0..4_000).for_each(|_| both.insert(spread(both.next)));
    both.check();
    assert_eq!(both.table.slots(), slots, "freed places are used again");
}

#[test]
fn growth_ends_before_the_next_begins_and_memory_stays_close() {
    let mut both = Both::new();
    let mut random = 1_u64;
    let mut most = 0;
    for count in 1..=20_000_usize {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let was_growing = both.table.is_growing();
        let before = both.table.capacity.load(Ordering::Relaxed);
        both.insert((random ^ (random >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd));
        if both.table.capacity.load(Ordering::Relaxed) != before {
            assert!(!was_growing, "{count}");
        }
        both.table.continue_growth(&mut both.growth);
        if count > 1000 {
            most = most.max(both.table.slots() * 1000 / count);
        }
    }
    assert!(most < 1560, "{most} slots for a thousand keys");
    both.check();
}

#[test]
fn every_slot_is_in_one_segment_and_they_follow_each_other() {
    let (mut segment, mut offset) = (0, 0);
    for at in 0..100_000 {
        if offset == UNIT << (segment / STEPS) {
            (segment, offset) = (segment + 1, 0);
        }
        assert_eq!(segment_of(at), (segment, offset), "{at}");
        offset += 1;
    }
    for segments in STEPS..200 {
        let slots: usize = (0..segments).map(|segment| UNIT << (segment / STEPS)).sum();
        assert_eq!(capacity(segments), (slots - (slots / 16).min(SLACK)) as u64);
        assert_eq!(segment_of(slots), (segments, 0));
    }
}

#[test]
fn the_first_hash_of_a_slot_is_placed_there() {
    let home = |hash: u64, capacity: u64| (u128::from(hash) * u128::from(capacity)) >> 64;
    for capacity in [1, 60, 64, 1000, 12_345_678, u64::from(u32::MAX)] {
        for at in [0, 1, 7, capacity / 2, capacity.saturating_sub(1)].into_iter().filter(|at| *at < capacity)
        {
            let first = first_hash_of(usize::try_from(at).unwrap(), capacity);
            assert_eq!(home(first, capacity), u128::from(at));
            assert!(first == 0 || home(first - 1, capacity) < u128::from(at));
        }
    }
}
