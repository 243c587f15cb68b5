//! The calls under way in this process, and those that wait for their turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::process;
use std::sync::{Arc, LazyLock, MutexGuard};
use std::time::{Duration, Instant};

use super::{CallError, MAX_CALLS, MAX_CALLS_PER_PLACE, Target};
use crate::internal::bytes::wipe_stack;
use crate::internal::threads::Lock;

/// How long a place whose calls all hang is left alone before one call tries it again; twice as long after
/// each try that hangs as well, so that the threads which hang grow with the logarithm of the time.
pub(super) const REST: Duration = Duration::from_secs(30);

/// The calls of this process. A forked child has none of its parent's.
struct Calls {
    process: u32,
    places: HashMap<u64, Count>,
    servers: HashMap<u64, usize>,
    /// Those that are counted, without those left behind.
    all: usize,
    /// How many wait for their turn.
    waiting: usize,
    tickets: u64,
}

#[derive(Default)]
struct Count {
    under_way: usize,
    left_behind: usize,
    /// Those left behind that are held against the place no more: it has answered another call since.
    written_off: usize,
    left_last: Option<Instant>,
    /// In the order of arrival.
    waiting: VecDeque<Waiter>,
}

/// A call that waits for its turn.
struct Waiter {
    ticket: u64,
    place: Target,
    is_counted: bool,
    since: Instant,
    seat: Arc<dyn Seat>,
}

/// A call, for what gives it its turn and for the thread that makes it.
pub(super) trait Seat: Send + Sync {
    /// Takes the turn, and how long it was waited for; or why there is none. Does not block. Gives the turn
    /// back where it cannot be used.
    fn take_turn(self: Arc<Self>, turn: Result<(Arc<Permit>, Duration), CallError>) -> Option<Arc<Permit>>;

    /// Makes the call. Returns whether it came to its end without a panic.
    fn make(&self) -> bool;

    /// Hands the outcome to the caller.
    fn deliver(&self);
}

/// A waiter that is given its turn, or refused, once no lock is held.
type Given = (Arc<dyn Seat>, Result<(Arc<Permit>, Duration), CallError>);

/// What a call may do now.
enum May {
    Go,
    Wait,
    GiveUp { hanging: usize },
}

impl Count {
    const fn hanging(&self) -> usize {
        self.left_behind - self.written_off
    }

    /// What the place itself says.
    fn may(&self) -> May {
        let hanging = self.hanging();
        if hanging < MAX_CALLS_PER_PLACE {
            return if self.under_way - self.written_off < MAX_CALLS_PER_PLACE { May::Go } else { May::Wait };
        }
        let tries = u32::try_from(hanging - MAX_CALLS_PER_PLACE).unwrap_or(u32::MAX);
        let rest = REST.saturating_mul(2_u32.saturating_pow(tries));
        let is_tried = self.under_way > self.left_behind;
        if !is_tried && self.left_last.is_none_or(|last| last.elapsed() >= rest) {
            May::Go
        } else {
            May::GiveUp { hanging }
        }
    }
}

impl Calls {
    fn new() -> Self {
        let (places, servers) = (HashMap::new(), HashMap::new());
        Self { process: process::id(), places, servers, all: 0, waiting: 0, tickets: 0 }
    }

    /// What the first call that waits for a place may do.
    fn may(&self, place: Target, is_counted: bool) -> May {
        let of_place = self.places.get(&place.name).map_or(May::Go, Count::may);
        let has_room = (self.all < MAX_CALLS || !is_counted)
            && place
                .server
                .is_none_or(|(server, limit)| self.servers.get(&server).copied().unwrap_or_default() < limit);
        match of_place {
            May::Go if !has_room => May::Wait,
            of_place => of_place,
        }
    }

    /// Gives the first call that waits for a place its turn or its refusal; `None` where it has to wait.
    fn give_first(&mut self, name: u64) -> Option<Given> {
        let first = self.places.get(&name)?.waiting.front()?;
        let (place, is_counted) = (first.place, first.is_counted);
        let may = self.may(place, is_counted);
        if matches!(may, May::Wait) {
            return None;
        }
        let count = self.places.get_mut(&name)?;
        let first = count.waiting.pop_front()?;
        self.waiting -= 1;
        let turn = if let May::GiveUp { hanging } = may {
            Err(CallError::Stuck { count: hanging })
        } else {
            count.under_way += 1;
            self.all += usize::from(is_counted);
            if let Some((server, _)) = place.server {
                *self.servers.entry(server).or_default() += 1;
            }
            let (left_behind, process) = (Lock::new(false), self.process);
            let permit = Permit { place, is_counted, left_behind, process, is_counted_off: false };
            Ok((Arc::new(permit), first.since.elapsed()))
        };
        self.forget_if_idle(name);
        Some((first.seat, turn))
    }

    /// Gives the turns that there are, in the order of arrival.
    fn give(&mut self) -> Vec<Given> {
        let mut given = Vec::new();
        if self.waiting == 0 {
            return given;
        }
        let first = |(&name, count): (&u64, &Count)| Some((count.waiting.front()?.ticket, name));
        let mut firsts: BTreeMap<u64, u64> = self.places.iter().filter_map(first).collect();
        while let Some((_, name)) = firsts.pop_first() {
            let Some(turn) = self.give_first(name) else { continue };
            given.push(turn);
            firsts.extend(self.places.get_key_value(&name).and_then(first));
        }
        given
    }

    fn forget_if_idle(&mut self, name: u64) {
        let is_idle = |count: &Count| count.under_way == 0 && count.waiting.is_empty();
        if self.places.get(&name).is_some_and(is_idle) {
            self.places.remove(&name);
        }
    }

    /// How many calls stand before one that waits: those of its place, or of its server, or all.
    fn before(&self, place: Target) -> usize {
        let of_place = self.places.get(&place.name).map_or(0, |count| count.under_way);
        if of_place >= MAX_CALLS_PER_PLACE {
            return of_place;
        }
        match place.server {
            Some((server, limit)) if self.servers.get(&server).is_some_and(|&count| count >= limit) => limit,
            _ => self.all.max(of_place),
        }
    }
}

static CALLS: LazyLock<Lock<Calls>> = LazyLock::new(|| Lock::new(Calls::new()));

fn calls() -> MutexGuard<'static, Calls> {
    let mut calls = CALLS.lock();
    if calls.process != process::id() {
        // The threads of the parent's calls do not exist here.
        std::mem::forget(std::mem::replace(&mut *calls, Calls::new()));
    }
    calls
}

/// Gives the turns that have come free. Not by recursion where one is given back: many may wait.
fn give_turns(mut calls: MutexGuard<'static, Calls>) {
    loop {
        let given = calls.give();
        drop(calls);
        if given.is_empty() {
            return;
        }
        // A call that ends here has left its traces on the stack.
        wipe_stack();
        let unused: Vec<_> = given.into_iter().filter_map(|(seat, turn)| seat.take_turn(turn)).collect();
        calls = self::calls();
        for mut permit in unused.into_iter().filter_map(Arc::into_inner) {
            permit.count_off(&mut calls);
        }
    }
}

/// Joins the queue for a place, and returns the ticket. Where nothing is in the way, the turn has been given
/// on return.
pub(super) fn join(place: Target, is_counted: bool, seat: Arc<dyn Seat>) -> u64 {
    let mut calls = calls();
    calls.tickets += 1;
    calls.waiting += 1;
    let ticket = calls.tickets;
    let waiting = &mut calls.places.entry(place.name).or_default().waiting;
    waiting.push_back(Waiter { ticket, place, is_counted, since: Instant::now(), seat });
    let is_first = waiting.len() == 1;
    // For those that wait, nothing has come free.
    let given = if is_first { calls.give_first(place.name) } else { None };
    drop(calls);
    if let Some((seat, turn)) = given {
        // It has not waited for another.
        drop(seat.take_turn(turn.map(|(permit, _)| (permit, Duration::ZERO))));
    }
    ticket
}

/// Leaves the queue. Returns how many calls stand before this one; `None` where it is in the queue no more.
pub(super) fn leave(place: Target, ticket: u64) -> Option<usize> {
    let mut calls = calls();
    let count = calls.places.get_mut(&place.name)?;
    let at = count.waiting.iter().position(|waiter| waiter.ticket == ticket)?;
    let waiter = count.waiting.remove(at);
    calls.waiting -= 1;
    let before = calls.before(place);
    calls.forget_if_idle(place.name);
    // The next may have waited for this one only.
    give_turns(calls);
    drop(waiter);
    Some(before)
}

/// The right to one call; all threads of the call share it, and it ends with the last of them.
pub(super) struct Permit {
    place: Target,
    is_counted: bool,
    left_behind: Lock<bool>,
    process: u32,
    is_counted_off: bool,
}

impl Permit {
    /// Notes that this call was given up. Where it returns, that is undone.
    pub(super) fn leave_behind(&self) {
        let mut calls = calls();
        if calls.process != self.process {
            return;
        }
        if let Some(count) = calls.places.get_mut(&self.place.name) {
            count.left_behind += 1;
            count.left_last = Some(Instant::now());
            *self.left_behind.lock() = true;
            calls.all -= usize::from(self.is_counted);
        }
        give_turns(calls);
    }

    /// Ends the call for its caller, or leaves it behind where others of its threads go on.
    pub(super) fn finish(self: Arc<Self>, has_answered: bool) {
        if Arc::strong_count(&self) > 1 {
            self.leave_behind();
        } else if has_answered && let Some(count) = calls().places.get_mut(&self.place.name) {
            // Those left behind are held against the place no more.
            count.written_off = count.left_behind;
        }
    }
}

impl Permit {
    fn count_off(&mut self, calls: &mut Calls) {
        self.is_counted_off = true;
        if calls.process != self.process {
            return;
        }
        let left_behind = *self.left_behind.get_mut();
        calls.all -= usize::from(self.is_counted && !left_behind);
        if let Some(count) = calls.places.get_mut(&self.place.name) {
            count.under_way -= 1;
            count.left_behind -= usize::from(left_behind);
            count.written_off = count.written_off.min(count.left_behind);
        }
        if let Some((server, _)) = self.place.server
            && let Some(count) = calls.servers.get_mut(&server)
        {
            *count -= 1;
            if *count == 0 {
                calls.servers.remove(&server);
            }
        }
        calls.forget_if_idle(self.place.name);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_counted_off {
            let mut calls = calls();
            self.count_off(&mut calls);
            give_turns(calls);
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/units/internal/calls.rs"]
mod tests;
