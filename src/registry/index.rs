//! The keys in memory, found by their digest.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
use subtle::ConstantTimeEq as _;

use super::pepper::DIGEST;
use super::record::{KeyId, KeyRecord, Restriction, Seconds, TeamId};
use crate::fingerprint::Fingerprint;
use crate::issuer::StoreId;

/// How many slots are allocated at once, so that growing moves no key.
const CHUNK: u32 = 1024;

/// Keys in slots, and a table of slots by digest.
///
/// The digest is keyed, so whoever sends keys cannot choose where they fall in the table; its first 64 bits are the hash
/// as they are.
#[derive(Default)]
pub(super) struct Index {
    /// Those without a key may be empty.
    chunks: Vec<Chunk>,
    /// The first slot that was never taken.
    end: u32,
    /// The slots before it that were given back, and those that records had left out. Few records may have large gaps,
    /// and the file they come from is not trusted, so a gap takes no memory by its size.
    free: Vec<u32>,
    gaps: Vec<Range<u32>>,
    by_digest: HashTable<u32>,
}

/// The slots that are allocated together; none where no key is among them.
#[derive(Default)]
struct Chunk {
    entries: Box<[Option<Entry>]>,
    /// When the key in each slot was created: apart, because no request asks.
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

impl Index {
    /// The key with this digest, if there is one. The table is asked by the digest's hash, and what it finds is compared
    /// in constant time.
    #[inline]
    pub(super) fn find(&self, digest: &[u8; DIGEST], pepper: u8) -> Option<(KeyId, &Entry)> {
        let same = |slot: &u32| {
            self.entry(*slot)
                .is_some_and(|entry| bool::from(entry.digest.ct_eq(digest)) && entry.pepper == pepper)
        };
        let slot = *self.by_digest.find(hash(digest), same)?;
        let entry = self.entry(slot)?;
        Some((KeyId::new(entry.serial, slot), entry))
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Entry> {
        self.entry(id.slot()).filter(|entry| entry.serial == id.serial())
    }

    /// The slot that the next key takes; `None` where four billion are taken.
    pub(super) fn next_slot(&self) -> Option<u32> {
        let free = self.free.last().copied();
        let free = free.or_else(|| self.gaps.last().map(|gap| gap.start));
        free.or_else(|| Some(self.end).filter(|end| *end < u32::MAX))
    }

    /// Puts a key into the slot that its number names: the next one, or one beyond all that were ever taken.
    pub(super) fn insert(&mut self, record: &KeyRecord, digest: [u8; DIGEST], pepper: u8) {
        let slot = record.id.slot();
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
        let (chunk, at) = place(slot);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, Chunk::default);
        }
        if self.chunks[chunk].entries.is_empty() {
            let (entries, created) = (0..CHUNK).map(|_| (None, Seconds(0))).unzip::<_, _, Vec<_>, Vec<_>>();
            self.chunks[chunk] = Chunk { entries: entries.into(), created: created.into() };
        }
        self.take_slot(slot);
        self.chunks[chunk].entries[at] = Some(entry);
        self.chunks[chunk].created[at] = record.created;
        self.link(slot, &digest);
    }

    /// Takes a key out. `false` where there is none with this number.
    pub(super) fn remove(&mut self, id: KeyId) -> bool {
        let Some(entry) = self.get(id) else { return false };
        let digest = entry.digest;
        self.unlink(id.slot(), &digest);
        let (chunk, at) = place(id.slot());
        self.chunks[chunk].entries[at] = None;
        self.free.push(id.slot());
        true
    }

    /// Moves a key to another digest, unless it is gone.
    pub(super) fn rehash(&mut self, id: KeyId, digest: [u8; DIGEST], pepper: u8) -> bool {
        let Some(old) = self.get(id).map(|entry| entry.digest) else { return false };
        self.unlink(id.slot(), &old);
        let (chunk, at) = place(id.slot());
        if let Some(entry) = &mut self.chunks[chunk].entries[at] {
            (entry.digest, entry.pepper) = (digest, pepper);
        }
        self.link(id.slot(), &digest);
        true
    }

    /// What is known of a key.
    pub(super) fn record(&self, id: KeyId) -> Option<KeyRecord> {
        let entry = self.get(id)?;
        let (chunk, at) = place(id.slot());
        let used = entry.last_used.load(Ordering::Relaxed);
        Some(KeyRecord {
            id,
            team: entry.team,
            name: entry.name.clone(),
            fingerprint: entry.fingerprint(),
            created: self.chunks[chunk].created[at],
            last_used: (used != 0).then_some(Seconds(used)),
            restriction: StoreId::new(entry.restriction).map_or(Restriction::None, Restriction::Store),
        })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (KeyId, &Entry)> {
        // From the chunk's place, because a chunk may be empty.
        let slots = self.chunks.iter().zip((0_u32..).step_by(CHUNK as usize));
        let slots = slots.flat_map(|(chunk, first)| chunk.entries.iter().zip(first..=first + (CHUNK - 1)));
        slots.filter_map(|(entry, slot)| entry.as_ref().map(|entry| (KeyId::new(entry.serial, slot), entry)))
    }

    pub(super) fn len(&self) -> usize {
        self.by_digest.len()
    }

    fn take_slot(&mut self, slot: u32) {
        if slot >= self.end {
            if slot > self.end {
                self.gaps.push(self.end..slot);
            }
            self.end = slot + 1;
        } else if self.free.last() == Some(&slot) {
            self.free.pop();
        } else if let Some(gap) = self.gaps.last_mut() {
            gap.start += 1;
            if gap.start == gap.end {
                self.gaps.pop();
            }
        }
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        let (chunk, at) = place(slot);
        self.chunks.get(chunk)?.entries.get(at)?.as_ref()
    }

    fn link(&mut self, slot: u32, digest: &[u8; DIGEST]) {
        let chunks = &self.chunks;
        self.by_digest.insert_unique(hash(digest), slot, |slot| {
            let (chunk, at) = place(*slot);
            chunks[chunk].entries[at].as_ref().map_or(0, |entry| hash(&entry.digest))
        });
    }

    fn unlink(&mut self, slot: u32, digest: &[u8; DIGEST]) {
        if let Ok(found) = self.by_digest.find_entry(hash(digest), |known| *known == slot) {
            found.remove();
        }
    }
}

const fn place(slot: u32) -> (usize, usize) {
    ((slot / CHUNK) as usize, (slot % CHUNK) as usize)
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

    fn record(serial: u32, slot: u32) -> KeyRecord {
        KeyRecord {
            id: KeyId::new(serial, slot),
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
            assert_eq!(index.next_slot(), Some(number));
            index.insert(&record(number, number), digest(number), 0);
        }
        for number in (0..3000).step_by(2) {
            assert!(index.remove(KeyId::new(number, number)));
            assert!(!index.remove(KeyId::new(number, number)), "it is gone");
        }
        for number in (1..3000).step_by(4) {
            assert!(index.rehash(KeyId::new(number, number), digest(number + 10_000), 1));
        }
        for number in 0..3000 {
            let moved = number % 4 == 1;
            let found = index.find(&digest(number), 0).map(|(id, _)| id);
            let there = number % 2 == 1 && !moved;
            assert_eq!(found, there.then(|| KeyId::new(number, number)), "{number}");
            let found = index.find(&digest(number + 10_000), 1).map(|(id, _)| id);
            assert_eq!(found, moved.then(|| KeyId::new(number, number)), "{number}");
        }
        assert_eq!(index.len(), 1500);
        assert_eq!(index.entries().count(), 1500);
    }

    #[test]
    fn a_slot_is_taken_again_by_another_number() {
        let mut index = Index::default();
        index.insert(&record(0, 0), digest(0), 0);
        index.remove(KeyId::new(0, 0));
        assert_eq!(index.next_slot(), Some(0));
        index.insert(&record(1, 0), digest(1), 0);
        assert!(index.get(KeyId::new(0, 0)).is_none());
        assert!(!index.remove(KeyId::new(0, 0)));
        assert!(index.get(KeyId::new(1, 0)).is_some());
    }

    #[test]
    fn gaps_of_kept_records_are_filled_later() {
        let mut index = Index::default();
        index.insert(&record(9, 2), digest(9), 0);
        index.insert(&record(7, 5), digest(7), 0);
        let mut slots = Vec::new();
        for serial in 10..15 {
            let slot = index.next_slot().unwrap();
            slots.push(slot);
            index.insert(&record(serial, slot), digest(serial), 0);
        }
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 3, 4, 6]);
        let ids: Vec<_> = index.entries().map(|(id, _)| id.slot()).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_gap_of_four_billion_slots_takes_no_memory_by_its_size() {
        let mut index = Index::default();
        index.insert(&record(9, 2), digest(9), 0);
        index.insert(&record(u32::MAX, u32::MAX - 1), digest(7), 0);
        assert_eq!(index.chunks.iter().filter(|chunk| !chunk.entries.is_empty()).count(), 2);
        assert_eq!((index.free.len(), index.gaps.len()), (0, 2));
        assert_eq!(index.entries().map(|(id, _)| id.slot()).collect::<Vec<_>>(), [2, u32::MAX - 1]);
        index.remove(KeyId::new(9, 2));
        assert_eq!(index.next_slot(), Some(2));
    }

    #[test]
    fn a_digest_that_comes_late_does_not_go_to_the_key_that_took_the_slot() {
        let mut index = Index::default();
        index.insert(&record(0, 0), digest(0), 1);
        index.remove(KeyId::new(0, 0));
        index.insert(&record(1, 0), digest(1), 0);
        assert!(!index.rehash(KeyId::new(0, 0), digest(7), 0), "the key is gone");
        assert!(index.find(&digest(7), 0).is_none());
        assert_eq!(index.find(&digest(1), 0).map(|(id, _)| id), Some(KeyId::new(1, 0)));
    }

    #[test]
    fn a_digest_under_another_pepper_is_not_found() {
        let mut index = Index::default();
        index.insert(&record(0, 0), digest(0), 1);
        assert!(index.find(&digest(0), 0).is_none());
    }

    #[test]
    fn a_use_is_noted_once_a_step_and_never_backwards() {
        let mut index = Index::default();
        index.insert(&record(0, 0), digest(0), 0);
        let id = KeyId::new(0, 0);
        let entry = index.get(id).unwrap();
        assert!(entry.note_use(Seconds(600), 60));
        assert!(!entry.note_use(Seconds(659), 60));
        assert!(!entry.note_use(Seconds(10), 60));
        assert!(entry.note_use(Seconds(660), 60));
        assert_eq!(index.record(id).unwrap().last_used, Some(Seconds(660)));
    }
}
