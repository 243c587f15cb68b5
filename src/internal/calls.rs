//! Blocking calls: with a deadline, and on a bounded number of threads.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, LazyLock, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::bytes::wipe_stack;
use super::threads::{Lock, contained, recover};

/// The default deadline of a source: 30 s, so that a person can answer a prompt.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// How many calls to one place (a file, a program with its arguments, a service of the keychain, a secret in
/// OpenBao) may be under way at once in this process, however many sources name it.
///
/// A further call waits for its turn until its deadline, in the order of arrival, and then fails with
/// [`CallError::Queued`]. Once as many calls hang past their deadlines, further calls fail at once with
/// [`CallError::Stuck`], but for one that tries whether the place answers again: 30 s after the last of them
/// was given up, and twice as long after each try that hangs as well.
pub(crate) const MAX_CALLS_PER_PLACE: usize = 4;

/// How many calls to all places together may be under way at once in this process. Each has a thread of its
/// own, that of a command two. A call that hangs past its deadline is not among them, so that a disk which
/// hangs takes no turn from the other places; [`MAX_CALLS_PER_PLACE`] bounds those of each place.
pub(crate) const MAX_CALLS: usize = 64;

/// How long a place whose calls all hang is left alone before one call tries it again; twice as long after
/// each try that hangs as well, so that the threads which hang grow with the logarithm of the time.
const REST: Duration = Duration::from_secs(30);

/// A turn that came after less than this part of the deadline is no reason for a call that was too slow.
const SHORT_WAIT: u32 = 10;

/// Why a blocking call gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing came within the deadline.
    #[error(
        "there was no answer within {} ms: unlock it or answer its prompt, or raise the deadline",
        .after.as_millis()
    )]
    Deadline {
        /// The deadline.
        after: Duration,
    },
    /// Other calls to the place were under way until the deadline. It was not asked.
    #[error(
        "it was not asked: the call waited {} ms for its turn, and {under_way} calls are under way; \
         make fewer at once (threads can share one handle), or raise the deadline",
        .waited.as_millis()
    )]
    Queued {
        /// How long the call waited: its whole deadline.
        waited: Duration,
        /// How many other calls were under way at the end.
        under_way: usize,
    },
    /// The call's turn came late, and nothing came in the rest of the deadline.
    #[error(
        "the call waited {} ms for its turn behind others, and there was no answer in the {} ms that were \
         left: make fewer calls at once (threads can share one handle), or raise the deadline",
        .waited.as_millis(), .left.as_millis()
    )]
    LateTurn {
        /// How long the call waited for its turn.
        waited: Duration,
        /// The rest of the deadline.
        left: Duration,
    },
    /// Too many earlier calls still hang. The place is asked again after a while.
    #[error(
        "{count} earlier calls to it still hang, so it was not asked; it is tried again from time to time: \
         answer what it waits for, or restart it"
    )]
    Stuck {
        /// How many.
        count: usize,
    },
    /// The operating system has no thread left for the call.
    #[error(
        "the operating system has no threads left: start fewer, or raise the limit (`ulimit -u`, systemd's \
         TasksMax=, a container's pids limit)"
    )]
    NoThread,
    /// The call panicked. The message is on standard error.
    #[error("the call panicked; the message is on standard error")]
    Panicked,
}

/// Runs calls on threads of their own. A call that was given up is left behind and counted until it returns,
/// if it ever does; what it returns then is dropped, and so wiped.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    deadline: Duration,
    /// Whether its calls are among the [`MAX_CALLS`].
    is_counted: bool,
}

/// What a call is made to: a hash, because the name of a place may be a key in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    name: u64,
    /// What the place shares with others, and how many calls to all of them may be under way.
    server: Option<(u64, usize)>,
}

impl Target {
    pub(crate) fn of(kind: &str, name: &impl Hash) -> Self {
        Self { name: hash(kind, name), server: None }
    }

    /// A place at a server that takes no more than `limit` calls at once, to all of its places together.
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
    fn may(&self, place: Target, is_counted: bool, ticket: u64) -> May {
        // The caller waits in it.
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

    fn forget_if_idle(&mut self, place: Target) {
        let is_idle = |count: &Count| count.under_way == 0 && count.waiting.is_empty();
        if self.places.get(&place.name).is_some_and(is_idle) {
            self.places.remove(&place.name);
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

static CALLS: LazyLock<Lock<Calls>> = LazyLock::new(Lock::default);
static RETURNED: Condvar = Condvar::new();

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock()
}

/// The right to one call; all threads of the call share it, and it ends with the last of them.
pub(crate) struct Permit {
    place: Target,
    is_counted: bool,
    left_behind: Lock<bool>,
}

impl Permit {
    /// Waits for a turn, at most for `patience`, and says how long others kept it waiting.
    fn take(place: Target, is_counted: bool, patience: Duration) -> Result<(Arc<Self>, Duration), CallError> {
        let start = Instant::now();
        let mut waited = Duration::ZERO;
        let mut calls = calls();
        calls.tickets += 1;
        let ticket = calls.tickets;
        calls.places.entry(place.name).or_default().waiting.push_back(ticket);
        let outcome = loop {
            match calls.may(place, is_counted, ticket) {
                May::Go => break Ok(()),
                May::GiveUp { hanging } => break Err(CallError::Stuck { count: hanging }),
                May::Wait => {}
            }
            let rest = patience.saturating_sub(start.elapsed());
            if rest.is_zero() {
                break Err(CallError::Queued { waited: patience, under_way: calls.before(place) });
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
    pub(crate) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>, CallError> {
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
            .map_err(|_| CallError::NoThread)?;
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

    fn too_late(self) -> CallError {
        let Self { waited, deadline, .. } = self;
        if waited.saturating_mul(SHORT_WAIT) <= deadline {
            CallError::Deadline { after: deadline }
        } else {
            CallError::LateTurn { waited, left: deadline.saturating_sub(waited) }
        }
    }
}

impl Turn {
    /// What is left of the deadline.
    pub(crate) fn rest(&self) -> Duration {
        self.times.rest(Duration::ZERO)
    }

    /// What it means that the deadline has passed: the place is slow, or the turn came late.
    pub(crate) fn too_late(&self) -> CallError {
        self.times.too_late()
    }

    /// Starts another thread of the same call.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>, CallError> {
        self.permit.spawn(work)
    }
}

impl Caller {
    pub(crate) const fn new() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: true }
    }

    /// A worker whose calls make calls of their own, to what [`Caller::new`] runs. They are bounded by place
    /// only: were they among the [`MAX_CALLS`], as many of them could have every turn, and wait for one.
    pub(crate) const fn around_others() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: false }
    }

    pub(crate) const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs `work` on `place` to its end or to the deadline.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        place: Target,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.run_with(place, Duration::ZERO, |_| work())
    }

    /// As [`Caller::run`], for work that can be ended from outside: at the deadline `end` is called, and the
    /// work is given `extra` time to see it.
    #[cfg(feature = "keychain")]
    pub(crate) fn run_or_end<T: Send + 'static>(
        &self,
        place: Target,
        extra: Duration,
        end: impl FnOnce(),
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
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

    /// As [`Caller::run`], for work that keeps the deadline itself and may need `extra` time to put an end to
    /// things, and that starts more threads. The call is under way until the last of them has ended.
    pub(crate) fn run_with<T: Send + 'static>(
        &self,
        place: Target,
        extra: Duration,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let call = self.start(place, work)?;
        let outcome = call.wait(extra);
        call.finish(outcome.is_ok());
        outcome
    }

    fn start<T: Send + 'static>(
        &self,
        place: Target,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
    ) -> Result<Call<T>, CallError> {
        let (permit, waited) = Permit::take(place, self.is_counted, self.deadline)?;
        let times = Times { start: Instant::now(), waited, deadline: self.deadline };
        let turn = Turn { permit: Arc::clone(&permit), times };
        Ok(Call { result: permit.spawn(move || work(&turn))?, permit, times })
    }
}

/// A call under way, for its caller.
struct Call<T> {
    permit: Arc<Permit>,
    result: Receiver<T>,
    times: Times,
}

impl<T> Call<T> {
    /// Waits until the deadline, and `extra` time beyond it.
    fn wait(&self, extra: Duration) -> Result<T, CallError> {
        self.result.recv_timeout(self.times.rest(extra)).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.times.too_late(),
            // The work panicked; the message is on standard error, and holds nothing of ours.
            RecvTimeoutError::Disconnected => CallError::Panicked,
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
#[path = "../../tests/units/internal/calls.rs"]
mod tests;
