//! The state of a live handle: what is in force, and what was before it. Here is nothing of keys, so that models can
//! drive it.

use std::time::{Instant, SystemTime};

use super::holders::{Hold, Holders};
use super::reload::Reload;
use super::reloads::{Reloads, Ticket};
use super::sync::{Arc, Guard, Mutex, Swap, lock};

pub(super) struct Core<T> {
    state: Swap<State<T>>,
    /// One writer at a time, so that each decides by what is there.
    writing: Mutex<()>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) holders: Arc<Holders>,
}

/// What is in force. It is replaced as a whole, and alive for as long as anybody holds it.
pub(super) struct State<T> {
    pub(super) next: Next<T>,
    /// Grows with each change of what is current, also within a generation.
    pub(super) edition: u64,
    _hold: Hold,
}

/// What is, or is to be, in force.
pub(super) struct Next<T> {
    /// Grows with every change of `current`.
    pub(super) generation: u64,
    pub(super) current: Arc<T>,
    pub(super) previous: Option<Before<T>>,
}

/// What was in force before.
pub(super) struct Before<T> {
    pub(super) value: Arc<T>,
    /// The last generation in which it was in force.
    pub(super) generation: u64,
    /// The end of its grace.
    pub(super) until: Until,
}

/// The end of a span by both clocks. The monotonic one stands still while the machine is suspended.
#[derive(Clone, Copy)]
pub(super) struct Until {
    monotonic: Instant,
    wall: SystemTime,
}

impl Until {
    /// The end that the monotonic clock shows then; by the wall clock it is as far from now.
    pub(super) fn at(monotonic: Instant) -> Self {
        let left = monotonic.saturating_duration_since(Instant::now());
        let wall = SystemTime::now();
        Self { monotonic, wall: wall.checked_add(left).unwrap_or(wall) }
    }

    /// Whether either clock says so.
    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.monotonic || SystemTime::now() >= self.wall
    }

    pub(super) const fn monotonic(self) -> Instant {
        self.monotonic
    }

    fn earlier(self, other: Self) -> Self {
        Self { monotonic: self.monotonic.min(other.monotonic), wall: self.wall.min(other.wall) }
    }
}

impl<T> Next<T> {
    /// That which is to follow what is there. A generation begins with what was before it, which is then retired or has
    /// leaked; whoever says otherwise has read an older state, and would have a leaked key sent again. Neither is its grace
    /// prolonged, as by a clock that is set back.
    fn after(mut self, there: &Self) -> Self {
        if self.generation == there.generation {
            self.previous = self.previous.and_then(|before| {
                let same = there.previous.as_ref().filter(|same| Arc::ptr_eq(&same.value, &before.value))?;
                Some(Before { until: before.until.earlier(same.until), ..before })
            });
        }
        self
    }
}

impl<T> Core<T> {
    pub(super) fn new(generation: u64, current: T) -> Self {
        let holders = Arc::new(Holders::new());
        let next = Next { generation, current: Arc::new(current), previous: None };
        let state = State { next, edition: 0, _hold: Holders::hold(&holders, generation) };
        let (writing, reloads) = (Mutex::new(()), Arc::new(Reloads::new()));
        Self { state: Swap::new(state), writing, reloads, holders }
    }

    #[inline]
    pub(super) fn load(&self) -> Guard<State<T>> {
        self.state.load()
    }

    /// Replaces the state by what `next` makes of it, unless that is nothing or an older generation. Within a generation,
    /// what was before it ends earlier or is gone, and never comes back.
    pub(super) fn update(&self, next: impl FnOnce(&Next<T>) -> Option<Next<T>>) -> bool {
        let writing = lock(&self.writing);
        let there = self.state.load();
        let next = next(&there.next).filter(|next| next.generation >= there.next.generation);
        let next = next.map(|next| next.after(&there.next));
        let is_change = next.as_ref().is_some_and(|next| !Arc::ptr_eq(&next.current, &there.next.current));
        let edition = there.edition + u64::from(is_change);
        drop(there);
        let Some(next) = next else { return false };
        let hold = Holders::hold(&self.holders, next.generation);
        let old = self.state.swap(Arc::new(State { next, edition, _hold: hold }));
        drop(writing);
        drop(old);
        self.reloads.tell();
        true
    }

    /// What there is to say to somebody who waits for a generation past one; the ticket is theirs from look to look.
    pub(super) fn look_past(&self, generation: u64, ticket: &mut Option<Ticket>) -> Option<Reload> {
        if self.load().next.generation > generation {
            return Some(Reload::Newer);
        }
        *ticket = ticket.or_else(|| self.reloads.ask());
        let outcome = match *ticket {
            Some(asked) => self.reloads.outcome(asked)?,
            None => Reload::NoRefresher,
        };
        // A key may have been published since the look above, before the attempt ended or the reloader left.
        Some(if self.load().next.generation > generation {
            Reload::Newer
        } else if outcome == Reload::Newer {
            Reload::Unchanged
        } else {
            outcome
        })
    }
}
