//! The keys and stores in memory, found by digest and by number.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use super::names::Names;
use super::record::{KeyId, KeyRecord, Seconds, Store, TeamId};
use super::secret::DIGEST;
use super::slots::{Entry, KeySlot, StoreEntry, StoreSlot, halves_of};
use super::table::{Growth, Slot as _, Table};
use super::version::{Versioned, Writer};
use crate::key::StoreId;

/// Every key and every store of a registry.
///
/// Requests read it without a lock, in [`Index::read`]. What they do not read is behind the lock.
///
/// A key's digest is keyed, so a client cannot choose where its keys fall in the table; the digest's first 64
/// bits are the hash.
pub(super) struct Index {
    keys: Table<KeySlot>,
    stores: Table<StoreSlot>,
    cold: Versioned<Cold>,
    /// Random, so that the ids of stores cannot be chosen to collide in the table.
    store_hash: [u64; 2],
}

/// What no request reads.
struct Cold {
    keys: Growth<KeySlot>,
    stores: Growth<StoreSlot>,
    serials: Serials,
    names: Names,
}

/// A key that was found, and the slot that it was in.
pub(super) struct Found<'a> {
    pub(super) entry: Entry,
    slot: &'a KeySlot,
}

impl Index {
    pub(super) fn new() -> Self {
        let ((keys, growth_of_keys), (stores, growth_of_stores)) = (Table::new(), Table::new());
        let cold = Cold {
            keys: growth_of_keys,
            stores: growth_of_stores,
            serials: Serials::default(),
            names: Names::default(),
        };
        let random = RandomState::new();
        let store_hash = [random.hash_one(0), random.hash_one(1) | 1];
        Self { keys, stores, cold: Versioned::new(cold), store_hash }
    }

    /// Calls `look`, which uses [`Index::find`] and [`Index::store`], and returns what it found at one time.
    /// It may be called several times. Takes no lock, unless changes follow each other without a pause.
    #[inline]
    pub(super) fn read<R>(&self, look: impl Fn() -> R) -> R {
        self.cold.read(look)
    }

    /// Returns the key with this digest. The table is searched by the digest's hash, and each candidate is
    /// compared in constant time.
    #[inline]
    pub(super) fn find(&self, digest: &[u8; DIGEST], pepper: u8) -> Option<Found<'_>> {
        let digest = halves_of(digest);
        let (_, slot) = self.keys.find(digest[0], |slot| slot.is_for(digest, pepper))?;
        Some(Found { entry: slot.load(), slot })
    }

    /// Returns a store.
    #[inline]
    pub(super) fn store(&self, store: StoreId) -> Option<Store> {
        // The hash stands for one store only.
        let (_, slot) = self.stores.find(self.hash_of_store(store), |_| true)?;
        Some(slot.load().state())
    }

    /// Notes a use of a key that was found. Returns whether it is the first within a step of `step` seconds,
    /// so that it must be written.
    #[inline]
    pub(super) fn note_use(&self, found: &Found<'_>, now: Seconds, step: u32) -> bool {
        let id = found.entry.id();
        found.slot.note_use(id, now, step).unwrap_or_else(|| self.note_use_elsewhere(id, now, step))
    }

    /// The key was moved or removed after it was found.
    #[cold]
    fn note_use_elsewhere(&self, id: KeyId, now: Seconds, step: u32) -> bool {
        let cold = self.cold.lock();
        self.slot(&cold, id).and_then(|(_, slot)| slot.note_use(id, now, step)).unwrap_or(false)
    }

    /// Adds a key. There must be none with its number.
    pub(super) fn insert(&self, record: &KeyRecord, digest: [u8; DIGEST], pepper: u8) {
        let digest = halves_of(&digest);
        let due = self.cold.lock().keys.due();
        self.keys.prepare(due);
        let mut writer = self.cold.write();
        let cold = writer.locked();
        let entry = Entry::new(record, digest, pepper, cold.names.insert(&record.name));
        cold.serials.insert(record.id, digest[0]);
        writer.change(|cold| self.keys.insert(&mut cold.keys, entry));
        self.grow(&mut writer);
    }

    /// Removes a key. Returns `false` if there is none with this number.
    pub(super) fn remove(&self, id: KeyId) -> bool {
        let mut writer = self.cold.write();
        let cold = writer.locked();
        let Some((at, slot)) = self.slot(cold, id) else { return false };
        cold.serials.remove(id);
        cold.names.remove(slot.load().name());
        writer.change(|cold| self.keys.remove(&mut cold.keys, at));
        true
    }

    /// Moves a key to another digest. Returns `false` if there is no such key.
    pub(super) fn rehash(&self, id: KeyId, digest: [u8; DIGEST], pepper: u8) -> bool {
        let digest = halves_of(&digest);
        let mut writer = self.cold.write();
        let cold = writer.locked();
        let Some((at, slot)) = self.slot(cold, id) else { return false };
        cold.serials.insert(id, digest[0]);
        // There is room, because the same key is removed first.
        writer.change(|cold| {
            let entry = slot.take().with_digest(digest, pepper);
            self.keys.remove(&mut cold.keys, at);
            self.keys.insert(&mut cold.keys, entry);
        });
        self.grow(&mut writer);
        true
    }

    /// Adds a store, or changes its state.
    pub(super) fn put_store(&self, store: StoreId, state: Store) {
        let hash = self.hash_of_store(store);
        let entry = StoreEntry::new(hash, state);
        let due = self.cold.lock().stores.due();
        self.stores.prepare(due);
        let mut writer = self.cold.write();
        writer.change(|cold| match self.stores.find(hash, |_| true) {
            Some((_, slot)) => slot.store(entry),
            None => self.stores.insert(&mut cold.stores, entry),
        });
        if self.stores.is_growing() {
            writer.change(|cold| self.stores.continue_growth(&mut cold.stores));
        }
    }

    /// Returns the record of a key.
    pub(super) fn record(&self, id: KeyId) -> Option<KeyRecord> {
        let cold = self.cold.lock();
        let (_, slot) = self.slot(&cold, id)?;
        let entry = slot.load();
        Some(entry.record(cold.names.get(entry.name())))
    }

    /// Returns the records of a team's keys, in no particular order.
    pub(super) fn records_of(&self, team: TeamId) -> Vec<KeyRecord> {
        let cold = self.cold.lock();
        let own = self.keys.iter().filter(|slot| slot.is_of_team(team)).map(KeySlot::load);
        own.map(|entry| entry.record(cold.names.get(entry.name()))).collect()
    }

    /// Returns how many keys are under a pepper.
    pub(super) fn count_under(&self, pepper: u8) -> usize {
        let _cold = self.cold.lock();
        self.keys.iter().filter(|slot| slot.pepper() == pepper).count()
    }

    pub(super) fn len(&self) -> usize {
        self.cold.lock().keys.len()
    }

    fn grow(&self, writer: &mut Writer<'_, Cold>) {
        if self.keys.is_growing() {
            writer.change(|cold| self.keys.continue_growth(&mut cold.keys));
        }
    }

    fn slot(&self, cold: &Cold, id: KeyId) -> Option<(usize, &KeySlot)> {
        let start = u64::from(cold.serials.get(id)?) << 32;
        self.keys.find_between((start, start | u64::from(u32::MAX)), |slot| slot.is_number(id))
    }

    /// Maps each store to another number, and no two to one.
    const fn hash_of_store(&self, store: StoreId) -> u64 {
        let [start, factor] = self.store_hash;
        let mixed = (store.get() ^ start).wrapping_mul(factor);
        (mixed ^ (mixed >> 32)).wrapping_mul(factor)
    }
}

/// How many numbers of keys one page has.
const PAGE: u32 = 16;

/// The first half of each key's hash by the key's number. From it, the key's slot is found.
///
/// Numbers follow each other, so pages of them have little beside what they hold; a page that becomes empty
/// is freed, so the memory is proportional to the count of keys, whatever their numbers are.
#[derive(Default)]
struct Serials {
    pages: BTreeMap<u32, Page>,
}

#[derive(Default)]
struct Page {
    hashes: [u32; PAGE as usize],
    /// A bit for each number that is there.
    present: u16,
}

impl Serials {
    fn insert(&mut self, id: KeyId, hash: u64) {
        let (page, at) = Self::split(id);
        let page = self.pages.entry(page).or_default();
        #[allow(clippy::cast_possible_truncation, reason = "the first half")]
        let half = (hash >> 32) as u32;
        page.hashes[at] = half;
        page.present |= 1 << at;
    }

    fn get(&self, id: KeyId) -> Option<u32> {
        let (page, at) = Self::split(id);
        let page = self.pages.get(&page)?;
        (page.present >> at & 1 == 1).then(|| page.hashes[at])
    }

    fn remove(&mut self, id: KeyId) {
        let (number, at) = Self::split(id);
        if let Some(page) = self.pages.get_mut(&number) {
            page.present &= !(1 << at);
            if page.present == 0 {
                self.pages.remove(&number);
            }
        }
    }

    const fn split(id: KeyId) -> (u32, usize) {
        (id.serial() / PAGE, (id.serial() % PAGE) as usize)
    }
}

#[cfg(test)]
#[path = "../../tests/units/registry/index.rs"]
mod tests;
