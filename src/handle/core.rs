//! The state that handles and their publisher share, without anything about keys, so that models can drive
//! it: loom and shuttle check this file over their own locks.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use super::sync::{Arc, Event, EventListener, Guard, Mutex, Swap, lock, wait};

pub(super) struct Core<T> {
    state: Swap<State<T>>,
    /// One writer at a time, so that each decides by the latest state.
    writing: Mutex<()>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) holders: Arc<Holders>,
}

/// The active value and the previous one. Replaced as a whole, and alive for as long as a reader holds it.
pub(super) struct State<T> {
    pub(super) next: Next<T>,
    /// Grows with each change of the active value, also within a generation.
    pub(super) edition: u64,
    _hold: Hold,
}

/// The values of a state.
pub(super) struct Next<T> {
    /// Grows with every change of `current`.
    pub(super) generation: u64,
    pub(super) current: Arc<T>,
    pub(super) previous: Option<Before<T>>,
}

/// The value that was active before.
pub(super) struct Before<T> {
    pub(super) value: Arc<T>,
    /// The last generation in which it was active.
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
    /// Returns the end at this time of the monotonic clock. By the wall clock it is as far from now.
    pub(super) fn at(monotonic: Instant) -> Self {
        let remaining = monotonic.saturating_duration_since(Instant::now());
        let wall = SystemTime::now();
        Self { monotonic, wall: wall.checked_add(remaining).unwrap_or(wall) }
    }

    /// Returns whether the span is over by either clock.
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

impl<T> State<T> {
    /// Returns a state of a previous value alone, with a hold on its generation.
    pub(super) fn of_previous(before: &Before<T>, holders: &Arc<Holders>) -> Self {
        let Before { value, generation, .. } = before;
        let next = Next { generation: *generation, current: Arc::clone(value), previous: None };
        Self { next, edition: 0, _hold: Holders::hold(holders, *generation) }
    }
}

impl<T> Next<T> {
    /// Removes from `self` what may not follow the current state. Within a generation, the previous value
    /// only goes away (it was retired or has leaked): a publisher that still has it has read an older state,
    /// and would have a leaked key sent again. Its grace is not prolonged either, as by a clock that is set
    /// back.
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

    /// Replaces the state by what `next` returns, unless that is `None` or an older generation. Within a
    /// generation, the previous value ends earlier or goes away, and never comes back.
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
        self.reloads.notify();
        true
    }

    /// Returns the answer for a caller that waits for a generation newer than this one, or `None` while there
    /// is none. The ticket is the caller's, from one look to the next.
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
    fn new() -> Self {
        Self { counts: Mutex::new(BTreeMap::new()), fewer: Event::default() }
    }

    pub(super) fn hold(holders: &Arc<Self>, generation: u64) -> Hold {
        *lock(&holders.counts).entry(generation).or_default() += 1;
        Hold { holders: Arc::clone(holders), generation }
    }

    /// Returns whether this generation and all older ones have no hold.
    pub(super) fn is_drained(&self, generation: u64) -> bool {
        self.oldest().is_none_or(|oldest| oldest > generation)
    }

    /// Returns the oldest generation that has a hold.
    pub(super) fn oldest(&self) -> Option<u64> {
        lock(&self.counts).first_key_value().map(|(oldest, _)| *oldest)
    }

    /// Woken when a generation has fewer holds, and by [`Holders::wake`].
    pub(super) fn fewer(&self) -> EventListener {
        self.fewer.listen()
    }

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

/// The outcome of waiting for a newer key; see
/// [`KeyHandle::newer_than`](crate::handle::KeyHandle::newer_than).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reload {
    /// A newer generation is active.
    Newer,
    /// The source or store was read, and holds the same key.
    Unchanged,
    /// The source or store could not be read, or held no valid key. The last good key stays active.
    Failed,
    /// The source or store was read a moment ago, and is not read again yet.
    TooSoon,
    /// Nothing reloads this handle: its key is fixed, its refresher has ended, or this process is a fork,
    /// which does not have the refresher's thread.
    NoRefresher,
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newer => "a newer key is active",
            Self::Unchanged => "the place still holds the same key",
            Self::Failed => "the place could not be read; the last good key stays active",
            Self::TooSoon => "the place was read a moment ago",
            Self::NoRefresher => "nothing reloads this key",
        })
    }
}

/// Attempts to reload: one at a time, however many callers ask.
///
/// A forked child has the counts but not the reloaders, and a lock that another thread held at the fork is
/// never released there. So the process is compared first.
pub(super) struct Reloads {
    /// The process that the reloaders are in; 0 before the first.
    process: AtomicU32,
    counts: Mutex<Counts>,
    /// A key was published, an attempt has ended, or the last reloader has left.
    news: Event,
    /// An attempt is asked for, or a reloader is to end.
    work: Event,
}

struct Counts {
    reloaders: usize,
    /// Attempts are numbered from 1 in the order in which they begin.
    begun: u64,
    ended: u64,
    /// The newest attempt that a caller waits for; it may not have begun.
    asked: u64,
    outcome: Reload,
}

/// The attempt that answers a caller: the first that begins after it has asked. One that is under way may
/// have read the place before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// An attempt under way.
#[derive(Debug)]
pub(crate) struct Attempt(u64);

impl Reloads {
    fn new() -> Self {
        let counts = Counts { reloaders: 0, begun: 0, ended: 0, asked: 0, outcome: Reload::NoRefresher };
        let (news, work) = (Event::default(), Event::default());
        Self { process: AtomicU32::new(0), counts: Mutex::new(counts), news, work }
    }

    /// Adds a reloader. Each must be removed by [`Reloads::detach`].
    pub(super) fn attach(&self) {
        let mut counts = lock(&self.counts);
        if self.process.swap(process::id(), Ordering::Relaxed) != process::id() {
            // The reloaders of the parent process are not here, nor are the callers that asked them.
            (counts.reloaders, counts.asked, counts.ended) = (0, counts.begun, counts.begun);
        }
        counts.reloaders += 1;
    }

    pub(super) fn detach(&self) {
        if self.is_elsewhere() {
            return;
        }
        let mut counts = lock(&self.counts);
        counts.reloaders -= 1;
        // An attempt under way may have been that reloader's, and never ends then: another reloader makes it.
        let is_passed_on = counts.reloaders > 0 && counts.asked > counts.ended;
        if is_passed_on {
            counts.asked = counts.asked.max(counts.begun + 1);
        }
        drop(counts);
        self.news.notify_all();
        if is_passed_on {
            self.work.notify_all();
        }
    }

    /// Returns whether this process was forked from the one that the reloaders are in.
    pub(super) fn is_elsewhere(&self) -> bool {
        let process = self.process.load(Ordering::Relaxed);
        process != 0 && process != process::id()
    }

    /// Asks for an attempt. Returns `None` where there is no reloader.
    pub(super) fn ask(&self) -> Option<Ticket> {
        // A handle that never had a reloader, as a fixed one, takes no lock either.
        if self.process.load(Ordering::Relaxed) != process::id() {
            return None;
        }
        let mut counts = lock(&self.counts);
        if counts.reloaders == 0 {
            return None;
        }
        let ticket = counts.begun + 1;
        counts.asked = counts.asked.max(ticket);
        drop(counts);
        self.work.notify_all();
        Some(Ticket(ticket))
    }

    /// Returns the outcome of the attempt, once it has ended.
    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Reload> {
        let counts = lock(&self.counts);
        if counts.ended >= ticket.0 {
            Some(counts.outcome)
        } else {
            (counts.reloaders == 0).then_some(Reload::NoRefresher)
        }
    }

    /// Returns whether a caller waits for an attempt that has not begun.
    pub(super) fn is_asked(&self) -> bool {
        let counts = lock(&self.counts);
        counts.asked > counts.begun
    }

    /// Begins an attempt. It answers all callers that have asked until now.
    pub(super) fn begin(&self) -> Attempt {
        let mut counts = lock(&self.counts);
        counts.begun += 1;
        Attempt(counts.begun)
    }

    /// Ends an attempt, whose key was published before. An older attempt that ends late changes nothing.
    #[allow(clippy::needless_pass_by_value, reason = "taken, so that none ends twice")]
    pub(super) fn end(&self, attempt: Attempt, outcome: Reload) {
        let mut counts = lock(&self.counts);
        if attempt.0 > counts.ended {
            (counts.ended, counts.outcome) = (attempt.0, outcome);
        }
        drop(counts);
        self.news.notify_all();
    }

    /// Wakes the callers that wait for a newer key.
    fn notify(&self) {
        self.news.notify_all();
    }

    pub(super) fn wake_reloaders(&self) {
        self.work.notify_all();
    }

    /// Woken when a key is published, an attempt ends or a reloader leaves.
    pub(super) fn news(&self) -> EventListener {
        self.news.listen()
    }

    /// Woken when an attempt is asked for, and by [`Reloads::wake_reloaders`].
    pub(super) fn work(&self) -> EventListener {
        self.work.listen()
    }
}

/// Polls until `look` finds something. `listening` is kept from one poll to the next.
///
/// Listen, then look, then wait: in any other order, an event between the look and the listening is missed.
pub(super) fn poll_until<R>(
    listening: &mut Option<EventListener>,
    listen: impl Fn() -> EventListener,
    mut look: impl FnMut() -> Option<R>,
    context: &mut Context<'_>,
) -> Poll<R> {
    loop {
        if let Some(listener) = listening {
            ready!(Pin::new(listener).poll(context));
        }
        // A listener is polled in the next round, so that it has the waker.
        *listening = Some(listen());
        if let Some(found) = look() {
            *listening = None;
            return Poll::Ready(found);
        }
    }
}

/// Blocks until `look` finds something, or until `deadline`.
pub(super) fn wait_until<R>(
    deadline: Option<Instant>,
    listen: impl Fn() -> EventListener,
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    loop {
        let listener = listen();
        if let Some(found) = look() {
            return Some(found);
        }
        if !wait(listener, deadline) {
            return None;
        }
    }
}
