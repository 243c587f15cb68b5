//! Who still holds which generation.

use std::collections::BTreeMap;

use super::sync::{Arc, Event, EventListener, Mutex, lock};

/// How many holds there are on each generation.
pub(super) struct Holders {
    counts: Mutex<BTreeMap<u64, usize>>,
    fewer: Event,
}

/// One hold on a generation, until it is dropped.
pub(super) struct Hold {
    holders: Arc<Holders>,
    generation: u64,
}

impl Holders {
    pub(super) fn new() -> Self {
        Self { counts: Mutex::new(BTreeMap::new()), fewer: Event::default() }
    }

    pub(super) fn hold(holders: &Arc<Self>, generation: u64) -> Hold {
        *lock(&holders.counts).entry(generation).or_default() += 1;
        Hold { holders: Arc::clone(holders), generation }
    }

    /// Whether nobody holds this generation or an older one.
    pub(super) fn is_drained(&self, generation: u64) -> bool {
        self.oldest().is_none_or(|oldest| oldest > generation)
    }

    /// The oldest generation that somebody holds.
    pub(super) fn oldest(&self) -> Option<u64> {
        lock(&self.counts).first_key_value().map(|(oldest, _)| *oldest)
    }

    pub(super) fn fewer(&self) -> EventListener {
        self.fewer.listen()
    }

    /// Wakes those who wait for fewer, so that they look.
    pub(super) fn wake(&self) {
        self.fewer.notify_all();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = lock(&self.holders.counts);
        if let Some(count) = counts.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.generation);
            }
        }
        drop(counts);
        self.holders.wake();
    }
}
