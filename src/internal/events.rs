//! Passing events on without waiting for those who receive them.
//!
//! Callbacks and subscribers of `tracing` are foreign code: they may block, panic, or call back. So they run
//! on threads of their own, never on a background thread of this crate or in a step of a rotation, and never
//! in a `Drop`. Each callback has its own thread. All lines for `tracing` share one thread in the process.

#[cfg(feature = "tracing")]
mod lines;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::background::join;
use super::panics::{Lock, contained};

#[cfg(feature = "tracing")]
pub(crate) use lines::Trace;

/// How many events wait for a callback that blocks.
const MAX_WAITING: usize = 64;

/// An event that is passed to a callback and to `tracing`.
pub(crate) trait Event: Clone + Send + 'static {
    /// Passes it to `tracing`, at its level.
    #[cfg(feature = "tracing")]
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
    #[cfg(feature = "tracing")]
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
        let mut sender = Self {
            queue: None,
            #[cfg(feature = "tracing")]
            trace: Trace::here(),
            dropped: DroppedEvents::default(),
        };
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
        #[cfg(feature = "tracing")]
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
        Self {
            queue: self.queue.clone(),
            #[cfg(feature = "tracing")]
            trace: self.trace.clone(),
            dropped: self.dropped.clone(),
        }
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

/// Blocks until the lines for `tracing` until now were passed on: at most for the timeout.
pub(super) fn flush(timeout: Duration) {
    #[cfg(feature = "tracing")]
    lines::flush(timeout);
    #[cfg(not(feature = "tracing"))]
    let _ = timeout;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use std::sync::Mutex;

    use super::*;

    #[derive(Clone)]
    struct Number(u32);

    impl Event for Number {
        #[cfg(feature = "tracing")]
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
