//! The slots of the registry's tables: what a request reads of a key is in one cache line, because with many
//! keys most of the time is spent waiting for memory.

use subtle::ConstantTimeEq as _;

use super::names::NameRef;
use super::record::{KeyId, KeyRecord, Seconds, Store, TeamId};
use super::secret::DIGEST;
use super::sync::{AtomicU64, Ordering};
use super::table::Slot;
use crate::key::{Fingerprint, StoreId};

/// The words of a key. `META` has, from the lowest bit: the team (32 bits), the fingerprint's first bytes
/// (16), the pepper's place (8); and at its end, whether there is a fingerprint, and whether there is a key.
/// `USE` has the last use (32), or 0 before the first, and the key's number with each bit inverted (32), so
/// that it is 0 in a free slot only.
const DIGEST_START: usize = 0;
const META: usize = 1;
const DIGEST_END: usize = 2;
const RESTRICTION: usize = 3;
const USE: usize = 4;
const FINGERPRINT_END: usize = 5;
const CREATED_AND_NAME: usize = 6;
const NAME_LENGTH: usize = 7;
const WORDS: usize = 8;

const IS_NAMED: u64 = 1 << 62;
const IS_THERE: u64 = 1 << 63;
const IS_PAUSED: u64 = 1 << 32;

/// A key in memory.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct KeySlot([AtomicU64; WORDS]);

/// The content of a [`KeySlot`].
#[derive(Clone, Copy)]
pub(super) struct Entry([u64; WORDS]);

/// A store in memory.
#[derive(Default)]
#[repr(align(16))]
pub(super) struct StoreSlot([AtomicU64; 2]);

/// The content of a [`StoreSlot`]: its id under the index's hash, and its state.
#[derive(Clone, Copy)]
pub(super) struct StoreEntry([u64; 2]);

const fn both((high, low): (u32, u32)) -> u64 {
    (high as u64) << 32 | low as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the halves of a word")]
const fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// Returns the halves of a digest; the first is its hash.
pub(super) const fn halves_of(digest: &[u8; DIGEST]) -> [u64; 2] {
    let both = u128::from_le_bytes(*digest);
    #[allow(clippy::cast_possible_truncation, reason = "the halves of a digest")]
    [both as u64, (both >> 64) as u64]
}

impl Slot for KeySlot {
    type Content = Entry;

    fn hash_of(content: &Entry) -> u64 {
        content.0[DIGEST_START]
    }

    #[inline]
    fn hash(&self) -> u64 {
        self.word(DIGEST_START)
    }

    #[inline]
    fn is_free(&self) -> bool {
        self.word(META) == 0
    }

    #[inline]
    fn load(&self) -> Entry {
        Entry(self.0.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    fn store(&self, content: Entry) {
        self.0.iter().zip(content.0).for_each(|(word, new)| word.store(new, Ordering::Relaxed));
    }

    fn take(&self) -> Entry {
        let mut taken = self.load();
        // A use that a request notes at this moment is taken as well, or its noting fails.
        taken.0[USE] = self.0[USE].swap(0, Ordering::Relaxed);
        self.0[META].store(0, Ordering::Relaxed);
        taken
    }
}

impl KeySlot {
    #[inline]
    fn word(&self, number: usize) -> u64 {
        self.0[number].load(Ordering::Relaxed)
    }

    /// Returns whether the key is the one with this digest, in constant time, under this pepper.
    #[inline]
    pub(super) fn is_for(&self, [start, end]: [u64; 2], pepper: u8) -> bool {
        let difference = (self.word(DIGEST_START) ^ start) | (self.word(DIGEST_END) ^ end);
        bool::from(difference.ct_eq(&0)) & (pepper_of(self.word(META)) == pepper)
    }

    pub(super) fn is_number(&self, id: KeyId) -> bool {
        !halves(self.word(USE)).0 == id.serial()
    }

    pub(super) fn is_of_team(&self, team: TeamId) -> bool {
        halves(self.word(META)).1 == team.get()
    }

    pub(super) fn pepper(&self) -> u8 {
        pepper_of(self.word(META))
    }

    /// Notes a use, unless one at the same time or later is noted: the clock may jump back, and threads may
    /// be late. Returns whether it is the first within a step of `step` seconds, so that it must be written;
    /// `None` if another key is in this slot now.
    #[inline]
    pub(super) fn note_use(&self, id: KeyId, now: Seconds, step: u32) -> Option<bool> {
        let mut word = self.word(USE);
        loop {
            let (number, last) = halves(word);
            if !number != id.serial() {
                return None;
            }
            if now.0 <= last {
                return Some(false);
            }
            let new = both((number, now.0));
            match self.0[USE].compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(now.0 / step != last / step),
                Err(changed) => word = changed,
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "these are its bits")]
const fn pepper_of(meta: u64) -> u8 {
    (meta >> 48) as u8
}

impl Entry {
    pub(super) fn new(record: &KeyRecord, digest: [u64; 2], pepper: u8, name: NameRef) -> Self {
        let fingerprint = record.fingerprint.map_or([0; 10], Fingerprint::to_bytes);
        let [first, second, end @ ..] = fingerprint;
        let is_named = if record.fingerprint.is_some() { IS_NAMED } else { 0 };
        let mut entry = [0; WORDS];
        [entry[DIGEST_START], entry[DIGEST_END]] = digest;
        entry[META] = u64::from(record.team.get())
            | u64::from(u16::from_le_bytes([first, second])) << 32
            | u64::from(pepper) << 48
            | is_named
            | IS_THERE;
        // 0 where the key serves every store.
        entry[RESTRICTION] = record.restriction.map_or(0, StoreId::get);
        entry[USE] = both((!record.id.serial(), record.last_used.map_or(0, |used| used.0)));
        entry[FINGERPRINT_END] = u64::from_le_bytes(end);
        entry[CREATED_AND_NAME] = both((record.created.0, name.place));
        entry[NAME_LENGTH] = name.length.into();
        Self(entry)
    }

    /// The same key with another digest.
    pub(super) fn with_digest(mut self, digest: [u64; 2], pepper: u8) -> Self {
        [self.0[DIGEST_START], self.0[DIGEST_END]] = digest;
        self.0[META] = self.0[META] & !(0xff << 48) | u64::from(pepper) << 48;
        self
    }

    #[inline]
    pub(super) const fn id(&self) -> KeyId {
        KeyId::new(!halves(self.0[USE]).0)
    }

    #[inline]
    pub(super) const fn team(&self) -> TeamId {
        TeamId::new(halves(self.0[META]).1)
    }

    #[inline]
    pub(super) const fn pepper(&self) -> u8 {
        pepper_of(self.0[META])
    }

    #[inline]
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        let [first, second, ..] = (self.0[META] >> 32).to_le_bytes();
        let mut bytes = [first, second, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[2..].copy_from_slice(&self.0[FINGERPRINT_END].to_le_bytes());
        (self.0[META] & IS_NAMED != 0).then(|| Fingerprint::from_bytes(bytes))
    }

    #[inline]
    pub(super) fn restriction(&self) -> Option<StoreId> {
        StoreId::new(self.0[RESTRICTION])
    }

    #[inline]
    pub(super) const fn serves(&self, store: StoreId) -> bool {
        self.0[RESTRICTION] == 0 || self.0[RESTRICTION] == store.get()
    }

    pub(super) fn name(&self) -> NameRef {
        NameRef { place: halves(self.0[CREATED_AND_NAME]).1, length: halves(self.0[NAME_LENGTH]).1 }
    }

    /// The record, with the name that [`Entry::name`] stands for.
    pub(super) fn record(&self, name: &str) -> KeyRecord {
        let used = halves(self.0[USE]).1;
        KeyRecord {
            id: self.id(),
            team: self.team(),
            name: name.into(),
            fingerprint: self.fingerprint(),
            created: Seconds(halves(self.0[CREATED_AND_NAME]).0),
            last_used: (used != 0).then_some(Seconds(used)),
            restriction: self.restriction(),
        }
    }
}

impl Slot for StoreSlot {
    type Content = StoreEntry;

    fn hash_of(content: &StoreEntry) -> u64 {
        content.0[0]
    }

    #[inline]
    fn hash(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    #[inline]
    fn is_free(&self) -> bool {
        self.0[1].load(Ordering::Relaxed) == 0
    }

    #[inline]
    fn load(&self) -> StoreEntry {
        StoreEntry(self.0.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    fn store(&self, content: StoreEntry) {
        self.0.iter().zip(content.0).for_each(|(word, new)| word.store(new, Ordering::Relaxed));
    }

    fn take(&self) -> StoreEntry {
        let taken = self.load();
        self.0[1].store(0, Ordering::Relaxed);
        taken
    }
}

impl StoreEntry {
    pub(super) const fn new(hash: u64, store: Store) -> Self {
        let is_paused = if store.is_paused { IS_PAUSED } else { 0 };
        Self([hash, store.team.get() as u64 | is_paused | IS_THERE])
    }

    #[inline]
    pub(super) const fn state(&self) -> Store {
        let [_, state] = self.0;
        Store { team: TeamId::new(halves(state).1), is_paused: state & IS_PAUSED != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(serial: u32) -> Entry {
        let record = KeyRecord {
            id: KeyId::new(serial),
            team: TeamId::new(u32::MAX - 1),
            name: "name".into(),
            fingerprint: Some(Fingerprint::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 255])),
            created: Seconds(7),
            last_used: None,
            restriction: StoreId::new(u64::MAX),
        };
        Entry::new(&record, [3, 4], 15, NameRef { place: 8, length: 4 })
    }

    #[test]
    fn a_key_fills_exactly_one_cache_line() {
        assert_eq!((size_of::<KeySlot>(), align_of::<KeySlot>()), (64, 64));
        assert_eq!((size_of::<StoreSlot>(), align_of::<StoreSlot>()), (16, 16));
    }

    #[test]
    fn every_field_of_a_key_comes_back() {
        let (slot, serial) = (KeySlot::default(), 0xfeed_f00d);
        assert!(slot.is_free());
        slot.store(entry(serial));
        assert!(!slot.is_free() && slot.is_for([3, 4], 15));
        assert!(!slot.is_for([3, 5], 15) && !slot.is_for([2, 4], 15) && !slot.is_for([3, 4], 0));
        let moved = slot.take().with_digest([5, 6], 0);
        assert!(slot.is_free());
        slot.store(moved);
        assert!(slot.is_for([5, 6], 0) && slot.is_number(KeyId::new(serial)));
        let (entry, record) = (slot.load(), slot.load().record("name"));
        assert_eq!((entry.pepper(), entry.name()), (0, NameRef { place: 8, length: 4 }));
        assert_eq!(record, self::entry(serial).record("name"));
        assert_eq!((record.team, record.created.0), (TeamId::new(u32::MAX - 1), 7));
        assert_eq!(record.fingerprint.unwrap().to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 255]);
        assert_eq!((record.restriction, record.last_used), (StoreId::new(u64::MAX), None));
    }

    #[test]
    fn a_use_is_noted_once_a_step_and_never_backwards() {
        let (slot, id) = (KeySlot::default(), KeyId::new(0));
        slot.store(entry(0));
        let note = |now| slot.note_use(id, Seconds(now), 60);
        assert_eq!([note(600), note(659), note(10), note(660)], [true, false, false, true].map(Some));
        assert_eq!(slot.load().record("").last_used, Some(Seconds(660)));
    }

    #[test]
    fn a_late_use_goes_to_no_other_key() {
        let slot = KeySlot::default();
        for serial in [0, 1, 0x8000_0000] {
            slot.store(entry(serial));
            let _ = slot.take();
            assert_eq!(slot.note_use(KeyId::new(serial), Seconds(5), 60), None, "it is free");
            slot.store(entry(serial + 1));
            assert_eq!(slot.note_use(KeyId::new(serial), Seconds(5), 60), None, "another key is there");
            assert_eq!(slot.load().record("").last_used, None);
        }
    }
}
