//! A hash table that is read without a lock, and that grows a little with each insertion.
//!
//! The content is in the slots of the table themselves, ordered by its hash: a slot's place is found by
//! scaling the hash to the table's capacity; if it is taken, the following slots are used, in order. A
//! look-up reads a few cache lines that follow each other, so that it waits for memory once.
//!
//! Slots are allocated in segments, which never move: a reader that is late reads an old slot, never freed
//! memory. When the capacity grows, the content moves up in the same slots, from the greatest hash downwards
//! and a few with each insertion. Hashes from the frontier on are placed by the new capacity already, and
//! those below still by the old one. The order is the same by both, so the table is in order all the time.

use std::sync::OnceLock;

use super::sync::{AtomicU64, Ordering};

/// How many slots the first segments have.
const UNIT: usize = 8;

/// Into how many segments each doubling is divided. With more, the memory follows the content more closely,
/// but more content is moved for each insertion.
const STEPS: usize = 8;

/// How many segments there can be. Together they have more than 2³² slots.
const SEGMENTS: usize = 27 * STEPS;

/// How many slots may be in use, of [`OF`]. With fewer, searches are shorter and the memory is larger.
const FULL: usize = 25;
const OF: usize = 32;

/// How many pieces of content an insertion moves while the capacity grows. Moving ends before the next growth
/// begins if this is at least `2 * STEPS`.
const MOVES: usize = 3 * STEPS;

/// How many free slots are passed over in place of a move.
const FREE_SLOTS: usize = 64;

/// The number of slots beyond the capacity, for content that overflows. More are allocated if needed.
const SLACK: usize = 512;

/// How many slots a search reads at once, so that it waits for all of them together.
const LANES: usize = 4;

/// One place in a table. Every word of it is read and written on its own.
pub(super) trait Slot: Default {
    type Content: Copy;

    /// Returns the hash of some content.
    fn hash_of(content: &Self::Content) -> u64;

    /// Returns the hash of this slot's content.
    fn hash(&self) -> u64;

    /// Returns whether this slot has no content. A slot that was just created has none.
    fn is_free(&self) -> bool;

    fn load(&self) -> Self::Content;

    fn store(&self, content: Self::Content);

    /// Takes the content out, and leaves the slot free.
    fn take(&self) -> Self::Content;
}

/// See the module. Readers use it in [`Versioned::read`](super::version::Versioned::read) or with the lock;
/// writers need its [`Growth`], which is behind that lock.
pub(super) struct Table<S> {
    segments: [OnceLock<Box<[S]>>; SEGMENTS],
    capacity: AtomicU64,
    /// The capacity by which hashes below the frontier are placed.
    old_capacity: AtomicU64,
    /// 0 while the capacity does not grow.
    frontier: AtomicU64,
}

/// What only the writer of a table needs.
pub(super) struct Growth<S: Slot> {
    len: usize,
    /// How many segments the capacity is made of. There may be more.
    segments: usize,
    /// Content with one hash, while it is moved.
    moving: Vec<S::Content>,
}

impl<S: Slot> Table<S> {
    pub(super) fn new() -> (Self, Growth<S>) {
        let table = Self {
            segments: [const { OnceLock::new() }; SEGMENTS],
            capacity: AtomicU64::new(0),
            old_capacity: AtomicU64::new(0),
            frontier: AtomicU64::new(0),
        };
        let growth = Growth { len: 0, segments: STEPS, moving: Vec::new() };
        (0..STEPS).for_each(|segment| table.allocate(segment));
        table.capacity.store(capacity(STEPS), Ordering::Relaxed);
        (table, growth)
    }

    /// Returns the first slot with this hash whose content is the one that is looked for.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(&S) -> bool) -> Option<(usize, &S)> {
        let mut at = self.home(hash);
        loop {
            let rest = self.rest(at);
            let Some((lanes, _)) = rest.split_first_chunk::<LANES>() else {
                // Near the end of a segment.
                for slot in rest {
                    if slot.is_free() || slot.hash() > hash {
                        return None;
                    }
                    if slot.hash() == hash && is(slot) {
                        return Some((at, slot));
                    }
                    at += 1;
                }
                if rest.is_empty() {
                    return None;
                }
                continue;
            };
            // No lane decides whether the next is read.
            let (mut same, mut last) = (0_u32, 0_u32);
            for (lane, slot) in (0..).zip(lanes) {
                let (found, is_free) = (slot.hash(), u32::from(slot.is_free()));
                same |= (u32::from(found == hash) & !is_free) << lane;
                last |= u32::from(found > hash) | is_free;
            }
            while same != 0 {
                let lane = same.trailing_zeros() as usize;
                if let Some(slot) = lanes.get(lane).filter(|slot| is(slot)) {
                    return Some((at + lane, slot));
                }
                same &= same - 1;
            }
            if last != 0 {
                return None;
            }
            at += LANES;
        }
    }

    /// Returns the first slot whose content has a hash in this range and is the one that is looked for.
    pub(super) fn find_between(
        &self,
        (first, last): (u64, u64),
        is: impl Fn(&S) -> bool,
    ) -> Option<(usize, &S)> {
        let frontier = self.frontier.load(Ordering::Relaxed);
        if first < frontier && frontier <= last {
            // Between both parts there may be very many free slots.
            self.find_placed((first, frontier - 1), &is).or_else(|| self.find_placed((frontier, last), &is))
        } else {
            self.find_placed((first, last), &is)
        }
    }

    /// The same for hashes that are all placed by one capacity.
    fn find_placed(&self, (first, last): (u64, u64), is: impl Fn(&S) -> bool) -> Option<(usize, &S)> {
        let (mut at, end) = (self.home(first), self.home(last));
        loop {
            let slot = self.slot(at)?;
            let hash = (!slot.is_free()).then(|| slot.hash());
            match hash {
                Some(hash) if hash > last => return None,
                Some(hash) if hash >= first && is(slot) => return Some((at, slot)),
                None if at >= end => return None,
                _ => at += 1,
            }
        }
    }

    /// Iterates over all slots with content, in the order of their hashes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &S> {
        let segments = self.segments.iter().map_while(OnceLock::get);
        segments.flat_map(|segment| segment.iter().filter(|slot| !slot.is_free()))
    }

    /// Allocates the next segment, which has this number. That takes milliseconds where it is large, so it is
    /// done before a lock is taken.
    pub(super) fn prepare(&self, due: Option<usize>) {
        if let Some(segment) = due {
            self.allocate(segment);
        }
    }

    /// Inserts content that is not there yet.
    pub(super) fn insert(&self, growth: &mut Growth<S>, content: S::Content) {
        if growth.is_due() {
            while self.is_growing() {
                self.continue_growth(growth);
            }
            self.grow(growth);
        }
        self.put(content);
        growth.len += 1;
    }

    /// Frees a slot.
    pub(super) fn remove(&self, growth: &mut Growth<S>, at: usize) {
        self.free(at);
        growth.len -= 1;
    }

    pub(super) fn is_growing(&self) -> bool {
        self.frontier.load(Ordering::Relaxed) != 0
    }

    /// Moves some content to where it belongs by the new capacity.
    pub(super) fn continue_growth(&self, growth: &mut Growth<S>) {
        for _ in 0..MOVES {
            let frontier = self.frontier.load(Ordering::Relaxed);
            let Some(edge) = frontier.checked_sub(1) else { return };
            let is_old = |slot: &S| !slot.is_free() && slot.hash() < frontier;
            // The last content below the frontier is where its hash is placed, or after that without a gap.
            let mut at = self.home(edge);
            while self.slot(at).is_some_and(is_old) {
                at += 1;
            }
            let lowest = at.saturating_sub(FREE_SLOTS);
            if let Some(at) = (lowest..at).rev().find(|&at| self.slot(at).is_some_and(is_old)) {
                self.move_up(growth, at);
            } else {
                let frontier = first_hash_of(lowest, self.old_capacity.load(Ordering::Relaxed));
                self.frontier.store(frontier, Ordering::Relaxed);
            }
        }
    }

    /// Moves the last content below the frontier, with all that has the same hash.
    fn move_up(&self, growth: &mut Growth<S>, mut at: usize) {
        let Some(hash) = self.slot(at).map(S::hash) else { return };
        while let Some(slot) = self.slot(at).filter(|slot| !slot.is_free() && slot.hash() == hash) {
            // Taken, so that a use that is noted meanwhile is noted where the content goes.
            growth.moving.push(slot.take());
            self.free(at);
            let Some(before) = at.checked_sub(1) else { break };
            at = before;
        }
        self.frontier.store(hash, Ordering::Relaxed);
        growth.moving.drain(..).for_each(|content| self.put(content));
        growth.moving.shrink_to(16);
    }

    /// Begins to place hashes by a greater capacity: for now the greatest hash only.
    fn grow(&self, growth: &mut Growth<S>) {
        let old = self.capacity.load(Ordering::Relaxed);
        while let Some((at, slot)) = self.find(u64::MAX, |_| true) {
            growth.moving.push(slot.take());
            self.free(at);
        }
        self.allocate(growth.segments);
        growth.segments += 1;
        self.old_capacity.store(old, Ordering::Relaxed);
        self.capacity.store(capacity(growth.segments), Ordering::Relaxed);
        self.frontier.store(u64::MAX, Ordering::Relaxed);
        growth.moving.drain(..).for_each(|content| self.put(content));
    }

    /// Puts content behind all that has no greater hash, and moves the rest up to the next free slot.
    fn put(&self, content: S::Content) {
        let hash = S::hash_of(&content);
        let mut at = self.home(hash);
        while self.slot(at).is_some_and(|slot| !slot.is_free() && slot.hash() <= hash) {
            at += 1;
        }
        let mut content = content;
        loop {
            let Some(slot) = self.slot(at) else {
                self.allocate(segment_of(at).0);
                continue;
            };
            if slot.is_free() {
                slot.store(content);
                return;
            }
            let next = slot.take();
            slot.store(content);
            content = next;
            at += 1;
        }
    }

    /// Frees a slot, and moves what follows back to fill the gap, as far as it does not belong where it is.
    fn free(&self, at: usize) {
        let Some(mut gap) = self.slot(at) else { return };
        let _ = gap.take();
        for at in at + 1.. {
            match self.slot(at) {
                Some(slot) if !slot.is_free() && self.home(slot.hash()) < at => {
                    gap.store(slot.take());
                    gap = slot;
                }
                _ => return,
            }
        }
    }

    /// The slot where a hash is placed, if it is free.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        let capacity =
            if hash >= self.frontier.load(Ordering::Relaxed) { &self.capacity } else { &self.old_capacity };
        let scaled = (u128::from(hash) * u128::from(capacity.load(Ordering::Relaxed))) >> 64;
        // Less than the capacity.
        usize::try_from(scaled).unwrap_or(usize::MAX)
    }

    #[inline]
    fn slot(&self, at: usize) -> Option<&S> {
        let (segment, offset) = segment_of(at);
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// Returns the slots from this one to the end of its segment.
    #[inline]
    fn rest(&self, at: usize) -> &[S] {
        let (segment, offset) = segment_of(at);
        let segment = self.segments.get(segment).and_then(OnceLock::get);
        segment.and_then(|segment| segment.get(offset..)).unwrap_or_default()
    }

    fn allocate(&self, segment: usize) {
        let slots = || (0..UNIT << (segment / STEPS)).map(|_| S::default()).collect();
        let segment = self.segments.get(segment).expect("a registry has at most 2³² keys");
        segment.get_or_init(slots);
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.segments.iter().map_while(OnceLock::get).map(|segment| segment.len()).sum()
    }
}

impl<S: Slot> Growth<S> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Returns the segment that the next insertion needs, if one more is too many for the capacity.
    pub(super) fn due(&self) -> Option<usize> {
        self.is_due().then_some(self.segments)
    }

    /// Returns whether one more would be too many for the capacity.
    fn is_due(&self) -> bool {
        let capacity = usize::try_from(capacity(self.segments)).unwrap_or(usize::MAX / FULL);
        self.len >= capacity * FULL / OF
    }
}

/// Returns the segment that a slot is in, and its place there.
#[inline]
const fn segment_of(at: usize) -> (usize, usize) {
    // Counted from here, the segments of one doubling begin at multiples of their length.
    let at = at + UNIT * STEPS;
    let doubling = (at.ilog2() - (UNIT * STEPS).ilog2()) as usize;
    let length = UNIT << doubling;
    (doubling * STEPS + (at >> length.ilog2()) - STEPS, at & (length - 1))
}

/// Returns the capacity of a table of so many segments: its slots without the slack.
fn capacity(segments: usize) -> u64 {
    let (doublings, steps) = (segments / STEPS, segments % STEPS);
    let slots = ((UNIT * (STEPS + steps)) << doublings) - UNIT * STEPS;
    (slots - SLACK.min(slots / 16)) as u64
}

/// Returns the first hash that is placed at this slot or after it.
fn first_hash_of(at: usize, capacity: u64) -> u64 {
    let first = ((at as u128) << 64).div_ceil(u128::from(capacity.max(1)));
    u64::try_from(first).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "../../tests/units/registry/table.rs"]
mod tests;
