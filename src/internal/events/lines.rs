//! Lines for `tracing`, on one thread in the process.

use std::collections::VecDeque;
use std::process;
use std::sync::{Condvar, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tracing::dispatcher::{WeakDispatch, get_default, with_default};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::NoSubscriber;

use crate::internal::panics::{Lock, contained, recover};

/// How many lines wait for a subscriber that blocks. Lines beyond are lost; a warning says how many.
const MAX_WAITING_LINES: usize = 1024;

/// How long a step of a rotation, or dropping, waits for its lines. Nothing waits while one line takes
/// longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

static LINES: Lines = Lines { state: Lock::new(State::new()), work: Condvar::new(), done: Condvar::new() };

/// The subscriber that lines go to.
#[derive(Clone)]
pub(crate) struct Trace(WeakDispatch);

struct Lines {
    state: Lock<State>,
    /// A line was queued.
    work: Condvar,
    /// A line was passed on.
    done: Condvar,
}

struct State {
    waiting: VecDeque<Line>,
    /// How many lines were queued, and how many of those were passed on.
    queued: u64,
    done: u64,
    lost: u64,
    /// Since when a line is being passed on.
    since: Option<Instant>,
    /// The thread, and its process: a forked child has none.
    thread: Option<(u32, ThreadId)>,
}

struct Line {
    to: Trace,
    emit: Box<dyn FnOnce() + Send>,
}

impl Trace {
    /// The subscriber of the calling thread. If it has none, or that one is gone when a line is passed on,
    /// the global one.
    pub(crate) fn here() -> Self {
        // Weak, so that a subscriber is only ever dropped on the thread of lines.
        Self(get_default(tracing::Dispatch::downgrade))
    }

    /// Queues a line; `make` returns what emits it, and is not called while nothing subscribes. Returns false
    /// if the line is lost, because too many wait. Does not block.
    pub(crate) fn line<G: FnOnce() + Send + 'static>(&self, make: impl FnOnce() -> G) -> bool {
        if LevelFilter::current() == LevelFilter::OFF {
            return true;
        }
        LINES.queue(Line { to: self.clone(), emit: Box::new(make()) })
    }

    /// As [`Trace::line`], and blocks until the line was passed on, at most for [`PATIENCE`].
    pub(crate) fn line_and_wait<G: FnOnce() + Send + 'static>(&self, make: impl FnOnce() -> G) {
        if self.line(make) {
            flush(PATIENCE);
        }
    }
}

/// Blocks until the lines queued so far were passed on, at most for the timeout and for [`PATIENCE`].
pub(crate) fn flush(timeout: Duration) {
    LINES.flush(timeout.min(PATIENCE));
}

impl State {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), queued: 0, done: 0, lost: 0, since: None, thread: None }
    }

    /// Whether the thread runs in this process.
    fn has_thread(&self) -> bool {
        self.thread.is_some_and(|(process, _)| process == process::id())
    }
}

impl Lines {
    fn queue(&'static self, line: Line) -> bool {
        let mut state = self.lock();
        if !state.has_thread() {
            let Ok(thread) =
                thread::Builder::new().name("keysheath-tracing".into()).spawn(move || self.run())
            else {
                state.lost += 1;
                return false;
            };
            // The parent passes on the lines that a forked child has a copy of.
            *state = State { thread: Some((process::id(), thread.thread().id())), ..State::new() };
        }
        if state.waiting.len() >= MAX_WAITING_LINES {
            state.lost += 1;
            return false;
        }
        state.waiting.push_back(line);
        state.queued += 1;
        drop(state);
        self.work.notify_one();
        true
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let Some(Line { to, emit }) = state.waiting.pop_front() else {
                state = recover(self.work.wait(state));
                continue;
            };
            let lost = std::mem::take(&mut state.lost);
            state.since = Some(Instant::now());
            drop(state);
            if lost > 0 {
                contained(|| to.emit(|| warn_lost(lost)));
            }
            contained(|| to.emit(emit));
            state = self.lock();
            (state.since, state.done) = (None, state.done + 1);
            self.done.notify_all();
        }
    }

    fn flush(&self, timeout: Duration) {
        let start = Instant::now();
        let mut state = self.lock();
        let last = state.queued;
        let here = thread::current().id();
        if !state.has_thread() || state.thread.is_some_and(|(_, thread)| thread == here) {
            return;
        }
        while state.done < last {
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() || state.since.is_some_and(|since| since.elapsed() >= PATIENCE) {
                return;
            }
            state = recover(self.done.wait_timeout(state, rest)).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn warn_lost(lost: u64) {
    tracing::warn!(lost, "lines were lost, because the subscriber blocks");
}

impl Trace {
    /// On the thread of lines only: all of this is foreign code.
    fn emit(&self, line: impl FnOnce()) {
        match self.0.upgrade().filter(|to| !to.is::<NoSubscriber>()) {
            Some(to) => with_default(&to, line),
            // With no subscriber here, and a single one on another thread, `tracing` would cache that no
            // subscriber wants this line, and that subscriber would never get it.
            None if get_default(tracing::Dispatch::is::<NoSubscriber>) => {}
            None => line(),
        }
    }
}
