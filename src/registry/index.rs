//! The keys in memory, found by digest.

use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
use subtle::ConstantTimeEq as _;

use super::record::{KeyId, KeyRecord, Seconds, TeamId};
use super::secret::DIGEST;
use crate::key::{Fingerprint, StoreId};

/// How many places are allocated at once. Growing by chunks moves no key.
const CHUNK: u32 = 1024;

/// Keys in places, and two tables of places: by digest and by the key's number.
///
/// A place is the position of a key in this process. Places are reused, so the memory is proportional to the
/// count of keys, whatever their numbers are.
///
/// The digest is keyed, so a client cannot choose where its keys fall in the table; the digest's first 64
/// bits are the hash.
#[derive(Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    /// The first place that was never used.
    end: u32,
    /// The places before it that are free again.
    free: Vec<u32>,
    by_digest: HashTable<u32>,
    by_serial: HashTable<u32>,
}

/// Places that are allocated together.
struct Chunk {
    entries: Box<[Option<Entry>]>,
    /// When the key in each place was created. Separate, because no request reads it.
    created: Box<[Seconds]>,
}

/// A key in memory: what a request reads, in one cache line, because with many keys most of the time is spent
/// waiting for memory.
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
    /// Whether there is a fingerprint.
    is_named: bool,
    fingerprint: [u8; 10],
}

fn hash(digest: &[u8; DIGEST]) -> u64 {
    let ([hash, _], _) = digest.as_chunks::<8>() else { unreachable!("a digest has 16 bytes") };
    u64::from_le_bytes(*hash)
}

/// Spreads consecutive numbers over all 64 bits.
const fn hash_of_serial(serial: u32) -> u64 {
    (serial as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// Returns the key with this digest. The table is searched by the digest's hash, and each candidate is
    /// compared in constant time.
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

    /// Puts a key into a free place. There must be no key with its number.
    pub(super) fn insert(&mut self, record: &KeyRecord, digest: [u8; DIGEST], pepper: u8) {
        let entry = Entry {
            digest,
            restriction: record.restriction.map_or(0, StoreId::get),
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

    /// Removes a key. Returns `false` if there is none with this number.
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

    /// Moves a key to another digest. Returns `false` if there is no such key.
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

    /// Returns the record of a key.
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

    /// Iterates over every key, in no particular order.
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

    pub(super) fn restriction(&self) -> Option<StoreId> {
        StoreId::new(self.restriction)
    }

    pub(super) fn serves(&self, store: StoreId) -> bool {
        self.restriction == 0 || self.restriction == store.get()
    }

    /// Notes a use. Returns `true` if it is the first within a step of `step` seconds, so that it must be
    /// written.
    #[inline]
    pub(super) fn note_use(&self, now: Seconds, step: u32) -> bool {
        // The clock may jump back, and threads may be late; the last use never goes back.
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

    #[test]
    fn an_entry_fills_exactly_one_cache_line() {
        assert_eq!((size_of::<Option<Entry>>(), align_of::<Option<Entry>>()), (64, 64));
    }

    #[test]
    fn keys_are_found_moved_and_removed_in_any_order() {
        let mut index = Index::default();
        for number in 0..3000 {
            index.insert(&record(number), digest(number), 0);
        }
        for number in (0..3000).step_by(2) {
            assert!(index.remove(KeyId::new(number)));
            assert!(!index.remove(KeyId::new(number)), "it was removed");
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
    fn a_freed_place_is_reused_for_another_number() {
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
    fn memory_depends_on_the_count_of_keys_only() {
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
    fn a_late_digest_goes_to_no_other_key() {
        let mut index = Index::default();
        index.insert(&record(0), digest(0), 1);
        index.remove(KeyId::new(0));
        index.insert(&record(1), digest(1), 0);
        assert!(!index.rehash(KeyId::new(0), digest(7), 0), "the key was removed");
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
