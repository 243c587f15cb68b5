//! Passing events on without waiting for those who receive them.
//!
//! Callbacks and subscribers of `tracing` are foreign code: they may block, panic, or call back. So they run
//! on threads of their own, never on a background thread of this crate or in a step of a rotation, and never
//! in a `Drop`. Each callback has its own thread. All lines for `tracing` share one thread in the process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::threads::join;
use super::threads::{Lock, contained};

pub(crate) use lines::{Trace, flush};

/// How many events wait for a callback that blocks.
const MAX_WAITING: usize = 64;

/// An event that is passed to a callback and to `tracing`.
pub(crate) trait Event: Clone + Send + 'static {
    /// Passes it to `tracing`, at its level.
    fn trace(&self);
}

/// A callback for events. Its `Debug` says no more than that there is one.
pub(crate) struct Callback<E>(Arc<dyn Fn(&E) + Send + Sync>);

impl<E> Callback<E> {
    pub(crate) fn new(function: impl Fn(&E) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }
}

impl<E> Clone for Callback<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> fmt::Debug for Callback<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// Sends events to the callback and to `tracing`.
pub(crate) struct EventSender<E> {
    queue: Option<SyncSender<E>>,
    trace: Trace,
    dropped: DroppedEvents,
}

/// How many events were dropped, because the callback or the subscriber blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct DroppedEvents(Arc<AtomicU64>);

/// The thread of a callback, if there is one.
#[derive(Default)]
pub(crate) struct EventThread {
    thread: Option<JoinHandle<()>>,
    /// Nothing is sent on it: it is disconnected when the thread ends, however that ends.
    ended: Option<Lock<Receiver<()>>>,
    dropped: DroppedEvents,
}

impl<E: Event> EventSender<E> {
    /// Starts the thread of the callback, if there is one. It ends with the last clone of the sender. Lines
    /// for `tracing` go to the subscriber of the calling thread; see [`Trace::here`].
    pub(crate) fn start(callback: Option<Callback<E>>) -> std::io::Result<(Self, EventThread)> {
        let mut sender = Self { queue: None, trace: Trace::here(), dropped: DroppedEvents::default() };
        let mut events = EventThread { dropped: sender.dropped.clone(), ..EventThread::default() };
        let Some(callback) = callback else { return Ok((sender, events)) };
        let (queue, queued) = sync_channel(MAX_WAITING);
        let (ending, ended) = sync_channel::<()>(0);
        events.ended = Some(Lock::new(ended));
        events.thread = Some(thread::Builder::new().name("keysheath-events".into()).spawn(move || {
            let _ending = ending;
            for event in queued {
                contained(|| (callback.0)(&event));
            }
            // What it has captured is foreign as well.
            contained(|| drop(callback));
        })?);
        sender.queue = Some(queue);
        Ok((sender, events))
    }

    /// Does not block. An event for which there is no room is counted.
    pub(crate) fn send(&self, event: E) {
        if !self.trace.line(|| {
            let event = event.clone();
            move || event.trace()
        }) {
            self.dropped.add_one();
        }
        let Some(queue) = &self.queue else { return };
        if queue.try_send(event).is_err() {
            self.dropped.add_one();
        }
    }
}

impl<E> Clone for EventSender<E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), trace: self.trace.clone(), dropped: self.dropped.clone() }
    }
}

impl DroppedEvents {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl EventThread {
    pub(crate) fn dropped(&self) -> DroppedEvents {
        self.dropped.clone()
    }

    /// Whether this is the calling thread.
    pub(super) fn is_current(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id())
    }

    /// Blocks until the last event was passed on, once all senders are dropped. Returns false if that takes
    /// longer than the timeout; the thread is left behind then.
    pub(super) fn end(self, timeout: Duration) -> bool {
        let start = Instant::now();
        let (Some(thread), Some(ended)) = (self.thread, self.ended) else { return true };
        let ended = ended.into_inner();
        ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
            && join(thread, timeout.saturating_sub(start.elapsed()))
    }
}

/// Writes a line for `tracing` by its macro of a level; nothing in a build without that feature.
macro_rules! trace_line {
    ($level:ident: $($line:tt)+) => {{
        // Without this, two lines of different levels would be the same nothing.
        let _ = stringify!($level);
        #[cfg(feature = "tracing")]
        ::tracing::$level!($($line)+);
    }};
}
pub(crate) use trace_line;

/// What takes the place of lines in a build without `tracing`.
#[cfg(not(feature = "tracing"))]
mod lines {
    #[derive(Clone)]
    pub(crate) struct Trace;

    #[allow(clippy::unused_self, reason = "the signatures are those with `tracing`")]
    impl Trace {
        pub(crate) const fn here() -> Self {
            Self
        }

        pub(crate) fn line<G>(&self, _: impl FnOnce() -> G) -> bool {
            true
        }

        pub(crate) fn line_and_wait<G>(&self, _: impl FnOnce() -> G) {}
    }

    pub(crate) fn flush(_: std::time::Duration) {}
}

/// Lines for `tracing`, on one thread in the process.
#[cfg(feature = "tracing")]
mod lines {
    use std::collections::VecDeque;
    use std::process;
    use std::sync::{Condvar, MutexGuard};
    use std::thread::{self, ThreadId};
    use std::time::{Duration, Instant};

    use tracing::dispatcher::{WeakDispatch, get_default, with_default};
    use tracing::level_filters::LevelFilter;
    use tracing::subscriber::NoSubscriber;

    use crate::internal::threads::{Lock, contained, recover};

    /// How many lines wait for a subscriber that blocks. Lines beyond are lost; a warning says how many.
    const MAX_WAITING_LINES: usize = 1024;

    /// How long a step of a rotation, or dropping, waits for its lines. Nothing waits while one line takes
    /// longer.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

    static LINES: Lines =
        Lines { state: Lock::new(State::new()), work: Condvar::new(), done: Condvar::new() };

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
        /// The subscriber of the calling thread. If it has none, or that one is gone when a line is passed
        /// on, the global one.
        pub(crate) fn here() -> Self {
            // Weak, so that a subscriber is only ever dropped on the thread of lines.
            Self(get_default(tracing::Dispatch::downgrade))
        }

        /// Queues a line; `make` returns what emits it, and is not called while nothing subscribes. Returns
        /// false if the line is lost, because too many wait. Does not block.
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
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use std::sync::Mutex;

    use super::*;

    #[derive(Clone)]
    struct Number(u32);

    impl Event for Number {
        fn trace(&self) {}
    }

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }

    fn finish(sender: EventSender<Number>, events: EventThread) {
        drop(sender);
        assert!(events.end(Duration::from_secs(60)));
    }

    #[test]
    fn a_panic_whose_payload_panics_again_ends_no_events() {
        let told = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&told);
        let (sender, events) = EventSender::start(Some(Callback::new(move |number: &Number| {
            counted.fetch_add(u64::from(number.0), Ordering::SeqCst);
            std::panic::panic_any(PanicsWhenDropped);
        })))
        .unwrap();
        for number in [1, 10, 100] {
            sender.send(Number(number));
        }
        finish(sender, events);
        assert_eq!(told.load(Ordering::SeqCst), 111);
    }

    #[test]
    fn what_a_callback_captured_is_dropped_beside() {
        struct Slow(Arc<AtomicBool>);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.store(thread::current().name() == Some("keysheath-events"), Ordering::SeqCst);
                panic!("dropping what was captured fails");
            }
        }
        let is_beside = Arc::new(AtomicBool::new(false));
        let captured = Slow(Arc::clone(&is_beside));
        let callback = move |_: &Number| {
            let _ = &captured;
        };
        let (sender, events) = EventSender::start(Some(Callback::new(callback))).unwrap();
        sender.send(Number(1));
        finish(sender, events);
        assert!(is_beside.load(Ordering::SeqCst));
    }

    #[test]
    fn events_beyond_the_queue_are_counted() {
        let (shut, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let callback = move |_: &Number| {
            let _ = gate.lock().unwrap().recv();
        };
        let (sender, events) = EventSender::start(Some(Callback::new(callback))).unwrap();
        for number in 0..200 {
            sender.send(Number(number));
        }
        let dropped = sender.dropped.count();
        let waiting = u64::try_from(MAX_WAITING).unwrap();
        assert!((200 - waiting - 1..=200 - waiting).contains(&dropped), "{dropped}");
        drop(shut);
        finish(sender, events);
    }
}
