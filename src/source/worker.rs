//! Work that may hang: with a deadline, and on a bounded number of threads.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, LazyLock, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{Problem, Resource};
use crate::internal::contained::contained;
use crate::internal::lock::{Lock, recover};
use crate::key::fingerprint::wipe_stack;

/// How long a source may take unless told otherwise: 30 s, so that a person can answer a prompt.
///
/// ```
/// assert_eq!(keysheath::source::DEFAULT_DEADLINE.as_secs(), 30);
/// ```
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// How many calls to one place (a file, a program with its arguments, a service of the keychain, a secret in
/// OpenBao) may be under way at once in this process, however many sources name it.
///
/// A further call waits for its turn until its deadline, in the order of arrival, and then fails with
/// [`Problem::Queued`]. Once as many calls hang past their deadlines, further calls fail at once with
/// [`Problem::Stuck`], but for one that tries whether the place answers again: 30 s after the last of them
/// was given up, and twice as long after each try that hangs as well.
///
/// ```
/// assert_eq!(keysheath::source::MAX_CALLS_PER_PLACE, 4);
/// ```
pub const MAX_CALLS_PER_PLACE: usize = 4;

/// How many calls to all places together may be under way at once in this process. Each has a thread of its
/// own, that of a command two. A call that hangs past its deadline is not among them, so that a disk which
/// hangs takes no turn from the other places; [`MAX_CALLS_PER_PLACE`] bounds those of each place.
///
/// ```
/// assert_eq!(keysheath::source::MAX_CALLS, 64);
/// ```
pub const MAX_CALLS: usize = 64;

/// How long a place whose calls all hang is left alone before one call tries it again; twice as long after
/// each try that hangs as well, so that the threads which hang grow with the logarithm of the time.
const REST: Duration = Duration::from_secs(30);

/// A turn that came after less than this part of the deadline is no reason for a call that was too slow.
const SHORT_WAIT: u32 = 10;

/// Runs calls on threads of their own. A call that was given up is left behind and counted until it returns,
/// if it ever does; what it returns then is dropped, and so wiped.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    deadline: Duration,
    /// Whether its calls are among the [`MAX_CALLS`].
    is_counted: bool,
}

/// What a call is made to: a hash, because the name of a place may be a key in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    name: u64,
    /// What the place shares with others, and how many calls to all of them may be under way.
    server: Option<(u64, usize)>,
}

impl Place {
    pub(crate) fn of(kind: &str, name: &impl Hash) -> Self {
        Self { name: hash(kind, name), server: None }
    }

    /// A place at a server that takes no more than `limit` calls at once, to all of its places together.
    #[cfg(feature = "openbao")]
    pub(crate) fn at_server(mut self, server: &impl Hash, limit: usize) -> Self {
        self.server = Some((hash("server", server), limit.max(1)));
        self
    }
}

fn hash(kind: &str, name: &impl Hash) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one((kind, name))
}

/// The calls under way in this process.
#[derive(Default)]
struct Calls {
    places: HashMap<u64, Count>,
    servers: HashMap<u64, usize>,
    /// Those that are counted, without those left behind.
    all: usize,
    tickets: u64,
}

#[derive(Default)]
struct Count {
    under_way: usize,
    left_behind: usize,
    /// Those left behind that are held against the place no more: it has answered another call since.
    written_off: usize,
    left_last: Option<Instant>,
    /// The tickets of the calls that wait for their turn, in the order of arrival.
    waiting: VecDeque<u64>,
}

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
    fn may(&self, place: Place, is_counted: bool, ticket: u64) -> May {
        // The one who asks waits in it.
        let Some(count) = self.places.get(&place.name) else { return May::Go };
        let of_place = count.may();
        let is_first = count.waiting.front().is_none_or(|&first| first == ticket);
        let has_room = (self.all < MAX_CALLS || !is_counted)
            && place
                .server
                .is_none_or(|(server, limit)| self.servers.get(&server).copied().unwrap_or_default() < limit);
        match of_place {
            May::Go if !is_first || !has_room => May::Wait,
            of_place => of_place,
        }
    }

    fn forget_if_idle(&mut self, place: Place) {
        let is_idle = |count: &Count| count.under_way == 0 && count.waiting.is_empty();
        if self.places.get(&place.name).is_some_and(is_idle) {
            self.places.remove(&place.name);
        }
    }

    /// How many calls stand before one that waits: those of its place, or of its server, or all.
    fn before(&self, place: Place) -> usize {
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

static CALLS: LazyLock<Lock<Calls>> = LazyLock::new(Lock::default);
static RETURNED: Condvar = Condvar::new();

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock()
}

/// The right to one call; all threads of the call share it, and it ends with the last of them.
pub(crate) struct Permit {
    place: Place,
    is_counted: bool,
    left_behind: Lock<bool>,
}

impl Permit {
    /// Waits for a turn, at most for `patience`, and says how long others kept it waiting.
    fn take(place: Place, is_counted: bool, patience: Duration) -> Result<(Arc<Self>, Duration), Problem> {
        let start = Instant::now();
        let mut waited = Duration::ZERO;
        let mut calls = calls();
        calls.tickets += 1;
        let ticket = calls.tickets;
        calls.places.entry(place.name).or_default().waiting.push_back(ticket);
        let outcome = loop {
            match calls.may(place, is_counted, ticket) {
                May::Go => break Ok(()),
                May::GiveUp { hanging } => break Err(Problem::Stuck { count: hanging }),
                May::Wait => {}
            }
            let rest = patience.saturating_sub(start.elapsed());
            if rest.is_zero() {
                break Err(Problem::Queued { waited: patience, under_way: calls.before(place) });
            }
            calls = recover(RETURNED.wait_timeout(calls, rest)).0;
            waited = start.elapsed();
        };
        if let Some(count) = calls.places.get_mut(&place.name) {
            count.waiting.retain(|&other| other != ticket);
            count.under_way += usize::from(outcome.is_ok());
        }
        if outcome.is_ok() {
            calls.all += usize::from(is_counted);
            if let Some((server, _)) = place.server {
                *calls.servers.entry(server).or_default() += 1;
            }
        }
        calls.forget_if_idle(place);
        drop(calls);
        // The next in the queue may go as well, or was behind this one.
        RETURNED.notify_all();
        outcome?;
        Ok((Arc::new(Self { place, is_counted, left_behind: Lock::new(false) }), waited))
    }

    /// Notes that this call was given up. Where it returns, that is undone.
    fn leave_behind(&self) {
        let mut calls = calls();
        if let Some(count) = calls.places.get_mut(&self.place.name) {
            count.left_behind += 1;
            count.left_last = Some(Instant::now());
            *self.left_behind.lock() = true;
            calls.all -= usize::from(self.is_counted);
        }
        drop(calls);
        RETURNED.notify_all();
    }

    /// Notes that the place answers, so that those left behind are held against it no more.
    fn has_answered(&self) {
        if let Some(count) = calls().places.get_mut(&self.place.name) {
            count.written_off = count.left_behind;
        }
    }

    /// Starts another thread of the same call.
    pub(super) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>, Problem> {
        // A channel is a block with gaps, and what earlier calls left on the stack would be copied into them:
        // comparing two keys leaves words of them there.
        wipe_stack();
        let (sender, result) = mpsc::sync_channel(1);
        let permit = Arc::clone(self);
        thread::Builder::new()
            .name("keysheath-source".into())
            .spawn(move || {
                // A source may be an application's own.
                let done = contained(work);
                drop(permit);
                // Where the caller has gone, the result is dropped here.
                let _ = done.map(|done| sender.send(done));
            })
            .map_err(|_| Problem::Exhausted(Resource::Threads))?;
        Ok(result)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left_behind = *self.left_behind.get_mut();
        let mut calls = calls();
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
        calls.forget_if_idle(self.place);
        drop(calls);
        RETURNED.notify_all();
    }
}

/// The turn of a call: what is left of its deadline, and more threads for it.
pub(crate) struct Turn {
    permit: Arc<Permit>,
    times: Times,
}

/// What a call has for itself: its deadline, without the time in which others kept it waiting.
#[derive(Clone, Copy)]
struct Times {
    start: Instant,
    waited: Duration,
    deadline: Duration,
}

impl Times {
    fn rest(self, extra: Duration) -> Duration {
        let own = self.deadline.saturating_sub(self.waited).saturating_add(extra);
        own.saturating_sub(self.start.elapsed())
    }

    fn too_late(self) -> Problem {
        let Self { waited, deadline, .. } = self;
        if waited.saturating_mul(SHORT_WAIT) <= deadline {
            Problem::Deadline { after: deadline }
        } else {
            Problem::LateTurn { waited, left: deadline.saturating_sub(waited) }
        }
    }
}

impl Turn {
    /// What is left of the deadline.
    pub(crate) fn rest(&self) -> Duration {
        self.times.rest(Duration::ZERO)
    }

    /// What it means that the deadline has passed: the place is slow, or the turn came late.
    pub(crate) fn too_late(&self) -> Problem {
        self.times.too_late()
    }

    /// Starts another thread of the same call.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>, Problem> {
        self.permit.spawn(work)
    }
}

impl Worker {
    pub(crate) const fn new() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: true }
    }

    /// A worker whose calls make calls of their own, to what [`Worker::new`] runs. They are bounded by place
    /// only: were they among the [`MAX_CALLS`], as many of them could have every turn, and wait for one.
    #[cfg(feature = "rotation")]
    pub(crate) const fn around_others() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: false }
    }

    pub(crate) const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs `work` on `place` to its end or to the deadline.
    #[cfg(any(feature = "rotation", test))]
    pub(crate) fn run<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.run_with(place, Duration::ZERO, |_| work())
    }

    /// As [`Worker::run`], for work that can be ended from outside: at the deadline `end` is called, and the
    /// work is given `extra` time to see it.
    #[cfg(feature = "keychain")]
    pub(crate) fn run_or_end<T: Send + 'static>(
        &self,
        place: Place,
        extra: Duration,
        end: impl FnOnce(),
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let call = self.start(place, |_| work())?;
        let outcome = call.wait(Duration::ZERO);
        let outcome = outcome.or_else(|problem| {
            end();
            // What it gives now is how it ended.
            call.wait(extra).and(Err(problem))
        });
        call.finish(outcome.is_ok());
        outcome
    }

    /// As [`Worker::run`], for work that keeps the deadline itself and may need `extra` time to put an end to
    /// things, and that starts more threads. The call is under way until the last of them has ended.
    pub(crate) fn run_with<T: Send + 'static>(
        &self,
        place: Place,
        extra: Duration,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let call = self.start(place, work)?;
        let outcome = call.wait(extra);
        call.finish(outcome.is_ok());
        outcome
    }

    fn start<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
    ) -> Result<Call<T>, Problem> {
        let (permit, waited) = Permit::take(place, self.is_counted, self.deadline)?;
        let times = Times { start: Instant::now(), waited, deadline: self.deadline };
        let turn = Turn { permit: Arc::clone(&permit), times };
        Ok(Call { result: permit.spawn(move || work(&turn))?, permit, times })
    }
}

/// A call under way, for the one who waits for it.
struct Call<T> {
    permit: Arc<Permit>,
    result: Receiver<T>,
    times: Times,
}

impl<T> Call<T> {
    /// Waits until the deadline, and `extra` time beyond it.
    fn wait(&self, extra: Duration) -> Result<T, Problem> {
        self.result.recv_timeout(self.times.rest(extra)).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.times.too_late(),
            // The work panicked; the message is on standard error, and holds nothing of ours.
            RecvTimeoutError::Disconnected => Problem::Unreachable,
        })
    }

    /// Leaves it behind, where it goes on.
    fn finish(self, has_answered: bool) {
        // Another holder is a thread that goes on; one that has answered holds it no more.
        if Arc::strong_count(&self.permit) > 1 {
            self.permit.leave_behind();
        } else if has_answered {
            self.permit.has_answered();
        }
    }
}

#[cfg(test)]
mod tests;
