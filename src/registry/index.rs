//! The keys in memory, found by their digest.

use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
use subtle::ConstantTimeEq as _;

use super::pepper::DIGEST;
use super::record::{KeyId, KeyRecord, Restriction, Seconds, TeamId};
use crate::key::{Fingerprint, StoreId};

/// How many places are allocated at once, so that growing moves no key.
const CHUNK: u32 = 1024;

/// Keys in places, and two tables of places: by digest and by the key's number.
///
/// A place is where a key lies in this process, and nothing outside knows it. Places are taken in turn and given again, so
/// the memory follows the number of keys, whatever their numbers are.
///
/// The digest is keyed, so a client cannot choose where its keys fall in the table; the digest's first 64 bits are the hash
/// as they are.
#[derive(Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    /// The first place that was never taken.
    end: u32,
    /// The places before it that were given back.
    free: Vec<u32>,
    by_digest: HashTable<u32>,
    by_serial: HashTable<u32>,
}

/// The places that are allocated together.
struct Chunk {
    entries: Box<[Option<Entry>]>,
    /// When the key in each place was created: apart, because no request asks.
    created: Box<[Seconds]>,
}

/// A key in memory: what a request asks for, in one line of a processor's cache, because with many keys the time goes
/// into waiting for memory.
#[repr(align(64))]
pub(super) struct Entry {
    digest: [u8; DIGEST],
    /// 0 where the key serves every store.
    restriction: u64,
    name: Box<str>,
    team: TeamId,
    serial: u32,
    /// 0 before the first use.
    last_used: AtomicU32,
    pepper: u8,
    /// Whether `fingerprint` is one.
    is_named: bool,
    fingerprint: [u8; 10],
}

fn hash(digest: &[u8; DIGEST]) -> u64 {
    let ([hash, _], _) = digest.as_chunks::<8>() else { unreachable!("a digest has 16 bytes") };
    u64::from_le_bytes(*hash)
}

/// Spreads numbers that follow one another over all 64 bits.
const fn hash_of_serial(serial: u32) -> u64 {
    (serial as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// The key with this digest, if there is one. The table is asked by the digest's hash, and what it finds is compared
    /// in constant time.
    #[inline]
    pub(super) fn find(&self, digest: &[u8; DIGEST], pepper: u8) -> Option<(KeyId, &Entry)> {
        let same = |place: &u32| {
            self.entry(*place)
                .is_some_and(|entry| bool::from(entry.digest.ct_eq(digest)) && entry.pepper == pepper)
        };
        let entry = self.entry(*self.by_digest.find(hash(digest), same)?)?;
        Some((KeyId::new(entry.serial), entry))
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Entry> {
        self.entry(self.place(id)?)
    }

    /// Puts a key into a free place. No key with its number is there.
    pub(super) fn insert(&mut self, record: &KeyRecord, digest: [u8; DIGEST], pepper: u8) {
        let entry = Entry {
            digest,
            restriction: match record.restriction {
                Restriction::None => 0,
                Restriction::Store(store) => store.get(),
            },
            name: record.name.clone(),
            team: record.team,
            serial: record.id.serial(),
            last_used: AtomicU32::new(record.last_used.map_or(0, |used| used.0)),
            pepper,
            is_named: record.fingerprint.is_some(),
            fingerprint: record.fingerprint.map_or([0; 10], Fingerprint::to_bytes),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        });
        let (chunk, at) = split(place);
        if self.chunks.len() <= chunk {
            let (entries, created) = (0..CHUNK).map(|_| (None, Seconds(0))).unzip::<_, _, Vec<_>, Vec<_>>();
            self.chunks.push(Chunk { entries: entries.into(), created: created.into() });
        }
        self.chunks[chunk].entries[at] = Some(entry);
        self.chunks[chunk].created[at] = record.created;
        self.link(place, &digest);
        let chunks = &self.chunks;
        self.by_serial.insert_unique(hash_of_serial(record.id.serial()), place, |place| {
            entry_of(chunks, *place).map_or(0, |entry| hash_of_serial(entry.serial))
        });
    }

    /// Takes a key out. `false` where there is none with this number.
    pub(super) fn remove(&mut self, id: KeyId) -> bool {
        let Some(place) = self.place(id) else { return false };
        let Some(digest) = self.entry(place).map(|entry| entry.digest) else { return false };
        self.unlink(place, &digest);
        let hash = hash_of_serial(id.serial());
        if let Ok(found) = self.by_serial.find_entry(hash, |known| *known == place) {
            found.remove();
        }
        let (chunk, at) = split(place);
        self.chunks[chunk].entries[at] = None;
        self.free.push(place);
        true
    }

    /// Moves a key to another digest, unless it is gone.
    pub(super) fn rehash(&mut self, id: KeyId, digest: [u8; DIGEST], pepper: u8) -> bool {
        let Some(place) = self.place(id) else { return false };
        let Some(old) = self.entry(place).map(|entry| entry.digest) else { return false };
        self.unlink(place, &old);
        let (chunk, at) = split(place);
        if let Some(entry) = &mut self.chunks[chunk].entries[at] {
            (entry.digest, entry.pepper) = (digest, pepper);
        }
        self.link(place, &digest);
        true
    }

    /// What is known of a key.
    pub(super) fn record(&self, id: KeyId) -> Option<KeyRecord> {
        let place = self.place(id)?;
        let entry = self.entry(place)?;
        let (chunk, at) = split(place);
        let used = entry.last_used.load(Ordering::Relaxed);
        Some(KeyRecord {
            id,
            team: entry.team,
            name: entry.name.clone(),
            fingerprint: entry.fingerprint(),
            created: self.chunks[chunk].created[at],
            last_used: (used != 0).then_some(Seconds(used)),
            restriction: entry.restriction(),
        })
    }

    /// Every key, in no order that means anything.
    pub(super) fn entries(&self) -> impl Iterator<Item = (KeyId, &Entry)> {
        let entries = self.chunks.iter().flat_map(|chunk| chunk.entries.iter());
        entries.flatten().map(|entry| (KeyId::new(entry.serial), entry))
    }

    pub(super) fn len(&self) -> usize {
        self.by_digest.len()
    }

    fn place(&self, id: KeyId) -> Option<u32> {
        let same = |place: &u32| self.entry(*place).is_some_and(|entry| entry.serial == id.serial());
        self.by_serial.find(hash_of_serial(id.serial()), same).copied()
    }

    fn entry(&self, place: u32) -> Option<&Entry> {
        entry_of(&self.chunks, place)
    }

    fn link(&mut self, place: u32, digest: &[u8; DIGEST]) {
        let chunks = &self.chunks;
        self.by_digest.insert_unique(hash(digest), place, |place| {
            entry_of(chunks, *place).map_or(0, |entry| hash(&entry.digest))
        });
    }

    fn unlink(&mut self, place: u32, digest: &[u8; DIGEST]) {
        if let Ok(found) = self.by_digest.find_entry(hash(digest), |known| *known == place) {
            found.remove();
        }
    }
}

fn entry_of(chunks: &[Chunk], place: u32) -> Option<&Entry> {
    let (chunk, at) = split(place);
    chunks.get(chunk)?.entries.get(at)?.as_ref()
}

const fn split(place: u32) -> (usize, usize) {
    ((place / CHUNK) as usize, (place % CHUNK) as usize)
}

impl Entry {
    pub(super) const fn team(&self) -> TeamId {
        self.team
    }

    pub(super) const fn pepper(&self) -> u8 {
        self.pepper
    }

    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.is_named.then(|| Fingerprint::from_bytes(self.fingerprint))
    }

    pub(super) fn restriction(&self) -> Restriction {
        StoreId::new(self.restriction).map_or(Restriction::None, Restriction::Store)
    }

    pub(super) fn serves(&self, store: StoreId) -> bool {
        self.restriction == 0 || self.restriction == store.get()
    }

    /// Notes a use. `true` where that is more than `step` seconds after the last one that was noted so.
    #[inline]
    pub(super) fn note_use(&self, now: Seconds, step: u32) -> bool {
        // The clock may jump back, and threads may come late; the last use never goes back.
        let last = self.last_used.fetch_max(now.0, Ordering::Relaxed);
        if now.0 <= last {
            return false;
        }
        now.0 / step != last / step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(serial: u32) -> KeyRecord {
        KeyRecord {
            id: KeyId::new(serial),
            team: TeamId::new(1),
            name: "name".into(),
            fingerprint: None,
            created: Seconds(1),
            last_used: None,
            restriction: Restriction::None,
        }
    }

    fn digest(number: u32) -> [u8; DIGEST] {
        // Few hashes, so that the table has to compare.
        let mut digest = [0; DIGEST];
        digest[0] = (number % 3) as u8;
        digest[12..].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn an_entry_fills_one_line_of_the_cache_and_no_more() {
        assert_eq!((size_of::<Option<Entry>>(), align_of::<Option<Entry>>()), (64, 64));
    }

    #[test]
    fn keys_are_found_moved_and_taken_out_in_any_order() {
        let mut index = Index::default();
        for number in 0..3000 {
            index.insert(&record(number), digest(number), 0);
        }
        for number in (0..3000).step_by(2) {
            assert!(index.remove(KeyId::new(number)));
            assert!(!index.remove(KeyId::new(number)), "it is gone");
        }
        for number in (1..3000).step_by(4) {
            assert!(index.rehash(KeyId::new(number), digest(number + 10_000), 1));
        }
        for number in 0..3000 {
            let moved = number % 4 == 1;
            let found = index.find(&digest(number), 0).map(|(id, _)| id);
            let there = number % 2 == 1 && !moved;
            assert_eq!(found, there.then(|| KeyId::new(number)), "{number}");
            let found = index.find(&digest(number + 10_000), 1).map(|(id, _)| id);
            assert_eq!(found, moved.then(|| KeyId::new(number)), "{number}");
            assert_eq!(index.record(KeyId::new(number)), (number % 2 == 1).then(|| record(number)));
        }
        assert_eq!(index.len(), 1500);
        assert_eq!(index.entries().count(), 1500);
    }

    #[test]
    fn a_place_that_was_given_back_is_taken_by_another_number() {
        let mut index = Index::default();
        for number in 0..10_000 {
            index.insert(&record(number), digest(number), 0);
            assert_eq!(index.get(KeyId::new(number)).unwrap().serial, number);
            assert!(index.remove(KeyId::new(number)));
            assert!(index.get(KeyId::new(number)).is_none());
        }
        assert_eq!((index.end, index.chunks.len(), index.free.len()), (1, 1, 1));
        assert!(index.by_digest.is_empty() && index.by_serial.is_empty());
    }

    #[test]
    fn numbers_far_apart_take_the_memory_of_their_count() {
        let mut index = Index::default();
        let serials: Vec<u32> = (0..5_000).map(|number| number * 858_993).collect();
        for &serial in &serials {
            index.insert(&record(serial), digest(serial), 0);
        }
        assert_eq!((index.end, index.chunks.len()), (5_000, 5));
        assert!(serials.iter().all(|&serial| index.get(KeyId::new(serial)).is_some()));
        assert!(index.get(KeyId::new(1)).is_none());
        index.insert(&record(u32::MAX), digest(u32::MAX), 0);
        assert_eq!(index.record(KeyId::new(u32::MAX)), Some(record(u32::MAX)));
    }

    #[test]
    fn a_digest_that_comes_late_goes_to_no_other_key() {
        let mut index = Index::default();
        index.insert(&record(0), digest(0), 1);
        index.remove(KeyId::new(0));
        index.insert(&record(1), digest(1), 0);
        assert!(!index.rehash(KeyId::new(0), digest(7), 0), "the key is gone");
        assert!(index.find(&digest(7), 0).is_none());
        assert_eq!(index.find(&digest(1), 0).map(|(id, _)| id), Some(KeyId::new(1)));
    }

    #[test]
    fn a_digest_under_another_pepper_is_not_found() {
        let mut index = Index::default();
        index.insert(&record(0), digest(0), 1);
        assert!(index.find(&digest(0), 0).is_none());
    }

    #[test]
    fn a_use_is_noted_once_a_step_and_never_backwards() {
        let mut index = Index::default();
        index.insert(&record(0), digest(0), 0);
        let id = KeyId::new(0);
        let entry = index.get(id).unwrap();
        assert!(entry.note_use(Seconds(600), 60));
        assert!(!entry.note_use(Seconds(659), 60));
        assert!(!entry.note_use(Seconds(10), 60));
        assert!(entry.note_use(Seconds(660), 60));
        assert_eq!(index.record(id).unwrap().last_used, Some(Seconds(660)));
    }
}
