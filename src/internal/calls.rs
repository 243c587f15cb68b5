//! Blocking calls: with a deadline, and on a bounded number of threads.

mod queue;
mod slot;
mod workers;

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::bytes::wipe_stack;
use super::time::later;
use queue::Permit;
use slot::Slot;
use workers::Threads;

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

/// How many calls to all places together may be under way at once in this process. Each has a thread, that
/// of a command two. A call that hangs past its deadline is not among them, so that a disk which
/// hangs takes no turn from the other places; [`MAX_CALLS_PER_PLACE`] bounds those of each place.
pub(crate) const MAX_CALLS: usize = 64;

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

/// An argument of hidden methods, which no other crate can implement: it cannot name it.
#[derive(Clone, Copy, Debug)]
pub struct Seal(());

impl Seal {
    #[cfg(feature = "rotation")]
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// Makes calls on other threads. A call that was given up is left behind and counted until it returns, if it
/// ever does; what it returns then is dropped, and so wiped.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    deadline: Duration,
    /// Whether its calls are among the [`MAX_CALLS`].
    is_counted: bool,
    threads: Threads,
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
        let permit = Arc::clone(&self.permit);
        workers::spawn_part(work, permit)
    }
}

impl Caller {
    pub(crate) const fn new() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: true, threads: Threads::Own }
    }

    /// A worker whose calls make calls of their own, to what [`Caller::new`] runs. They are bounded by place
    /// only: were they among the [`MAX_CALLS`], as many of them could have every turn, and wait for one.
    pub(crate) const fn around_others() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: false, threads: Threads::Own }
    }

    /// Makes the calls on threads that are kept for the next ones. For this crate's own code alone: what the
    /// work leaves deep on the stack is not wiped.
    pub(crate) const fn on_kept_threads(mut self) -> Self {
        self.threads = Threads::Kept;
        self
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
        let call = self.start(place, |_| work(), None);
        if let Some(outcome) = call.slot.wait(call.until(), Duration::ZERO) {
            return outcome;
        }
        let outcome = call.at_deadline();
        if outcome.is_err() {
            call.slot.expect_no_answer();
            end();
            // It sees that it is ended; what it gives now comes too late.
            drop(call.slot.wait(call.until(), extra));
        }
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
        self.start(place, work, None).wait(extra)
    }

    /// Begins a call without blocking. `wake` is called once the outcome is there, on any thread, and not at
    /// the deadline.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        place: Target,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
        wake: impl FnOnce() + Send + 'static,
    ) -> PendingCall<T> {
        self.start(place, work, Some(Box::new(wake)))
    }

    fn start<T: Send + 'static>(
        &self,
        place: Target,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
        wake: Option<slot::Wake>,
    ) -> PendingCall<T> {
        // What earlier calls left on the stack would be copied into the gaps of the blocks that are made
        // here: comparing two keys leaves words of them there.
        wipe_stack();
        let begun = Instant::now();
        let slot = Slot::new(self.deadline, self.threads, Box::new(work), wake);
        let ticket = queue::join(place, self.is_counted, Arc::clone(&slot) as _);
        PendingCall { slot, place, ticket, begun, deadline: self.deadline }
    }
}

/// A call that its caller polls, or waits for. Dropping it leaves the call behind, where it goes on.
#[must_use]
pub(crate) struct PendingCall<T> {
    slot: Arc<Slot<T>>,
    place: Target,
    ticket: u64,
    begun: Instant,
    deadline: Duration,
}

impl<T> PendingCall<T> {
    /// Returns the outcome, once, when there is one. At the deadline that is an error.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Result<T, CallError>> {
        if let Some(outcome) = self.slot.take_outcome() {
            return Some(outcome);
        }
        if now < self.until() || self.slot.is_left() {
            return None;
        }
        let outcome = self.at_deadline();
        self.leave();
        Some(outcome)
    }

    /// When there is an outcome at the latest: the deadline.
    pub(crate) fn until(&self) -> Instant {
        later(self.begun, self.deadline)
    }

    /// Waits until the deadline, and if its turn came until then, `extra` time beyond it.
    fn wait(&self, extra: Duration) -> Result<T, CallError> {
        self.slot.wait(self.until(), extra).unwrap_or_else(|| self.at_deadline())
    }

    /// Returns why there is no outcome at the deadline, or one that has come at this instant. A call that
    /// still waits for its turn gives it up.
    fn at_deadline(&self) -> Result<T, CallError> {
        let waited = self.deadline;
        if let Some(under_way) = queue::leave(self.place, self.ticket) {
            return Err(CallError::Queued { waited, under_way });
        }
        // Where its turn comes just now, that is too late.
        let too_late = |times: Option<Times>| {
            times.map_or(CallError::LateTurn { waited, left: Duration::ZERO }, Times::too_late)
        };
        self.slot.outcome_or_times().unwrap_or_else(|times| Err(too_late(times)))
    }

    fn leave(&self) {
        if self.slot.leave() {
            queue::leave(self.place, self.ticket);
        }
    }
}

impl<T> Drop for PendingCall<T> {
    fn drop(&mut self) {
        self.leave();
    }
}
