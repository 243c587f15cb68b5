//! Telling of events without waiting for who hears of them.
//!
//! Callbacks and subscribers of `tracing` are foreign code: they may block, panic, or call back. So they run on threads of
//! their own, never on the thread of a refresher, a keeper, a presence or a step of a rotation, and never in a `Drop`.
//! Each callback has its own thread. All lines for `tracing` share one thread in the process.

#[cfg(feature = "tracing")]
mod lines;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::contained::{contained, discard};

use crate::internal::lock::Lock;

#[cfg(feature = "tracing")]
pub(crate) use lines::Trace;

/// How many events wait for a callback that blocks.
pub(crate) const MAX_WAITING: usize = 64;

/// How often the end of a thread is looked for that has said that it is at its end.
const LOOK: Duration = Duration::from_millis(1);

/// An event that is passed to a callback and to `tracing`.
pub(crate) trait Event: Clone + Send + 'static {
    /// Gives it to `tracing`, at the level that it has.
    #[cfg(feature = "tracing")]
    fn trace(&self);
}

/// Whom to tell.
pub(crate) type Callback<E> = Arc<dyn Fn(&E) + Send + Sync>;

/// Tells of events.
pub(crate) struct EventSender<E> {
    queue: Option<SyncSender<E>>,
    #[cfg(feature = "tracing")]
    trace: Trace,
    untold: DroppedEvents,
}

/// How many events were not told, because the callback or the subscriber blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct DroppedEvents(Arc<AtomicU64>);

/// The thread of a callback.
pub(crate) struct Telling {
    thread: JoinHandle<()>,
    /// Nothing comes by it: it is cut off when the thread ends, however that ends.
    ended: Lock<Receiver<()>>,
}

impl<E: Event> EventSender<E> {
    /// Starts the thread of the callback, if there is one. It ends with the last clone. Lines for `tracing` go to the
    /// subscriber of the calling thread; see [`Trace::here`].
    pub(crate) fn start(callback: Option<Callback<E>>) -> std::io::Result<(Self, Option<Telling>)> {
        let mut teller = Self {
            queue: None,
            #[cfg(feature = "tracing")]
            trace: Trace::here(),
            untold: DroppedEvents::default(),
        };
        let Some(callback) = callback else { return Ok((teller, None)) };
        let (queue, events) = sync_channel(MAX_WAITING);
        let (ending, ended) = sync_channel::<()>(0);
        let thread = thread::Builder::new().name("keysheath-events".into()).spawn(move || {
            let _ending = ending;
            for event in events {
                contained(|| callback(&event));
            }
            // What it has captured is foreign as well.
            contained(|| drop(callback));
        })?;
        teller.queue = Some(queue);
        Ok((teller, Some(Telling { thread, ended: Lock::new(ended) })))
    }

    /// Does not block. An event for which there is no room is counted.
    pub(crate) fn tell(&self, event: E) {
        #[cfg(feature = "tracing")]
        if !self.trace.line(|| {
            let event = event.clone();
            move || event.trace()
        }) {
            self.untold.add_one();
        }
        let Some(queue) = &self.queue else { return };
        if queue.try_send(event).is_err() {
            self.untold.add_one();
        }
    }

    pub(crate) fn untold(&self) -> DroppedEvents {
        self.untold.clone()
    }
}

impl<E> Clone for EventSender<E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            #[cfg(feature = "tracing")]
            trace: self.trace.clone(),
            untold: self.untold.clone(),
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

/// Ends the thread of who tells, which is told to stop, and then that of the callback, so that the last event is told.
/// What hangs is left behind after the timeout. `has_ended` waits for the first.
pub(crate) fn end(
    thread: JoinHandle<()>,
    telling: Option<Telling>,
    timeout: Duration,
    has_ended: impl FnOnce(Duration) -> bool,
) {
    let start = Instant::now();
    let rest = || timeout.saturating_sub(start.elapsed());
    let here = thread::current().id();
    let is_here = |thread: &JoinHandle<()>| thread.thread().id() == here;
    // A callback that holds the last reference drops it on the very thread.
    if is_here(&thread)
        || telling.as_ref().is_some_and(|telling| is_here(&telling.thread))
        || !has_ended(timeout)
        || !join(thread, rest())
    {
        return;
    }
    if let Some(telling) = telling {
        let ended = telling.ended.into_inner();
        if ended.recv_timeout(rest()) == Err(RecvTimeoutError::Disconnected) {
            join(telling.thread, rest());
        }
    }
    #[cfg(feature = "tracing")]
    lines::flush(rest());
}

/// Joins a thread that is at its end; false where it hangs in what it drops, and is left behind.
fn join(thread: JoinHandle<()>, timeout: Duration) -> bool {
    let start = Instant::now();
    while !thread.is_finished() {
        if start.elapsed() >= timeout {
            return false;
        }
        thread::sleep(LOOK);
    }
    if let Err(payload) = thread.join() {
        discard(payload);
    }
    true
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

    /// Ends the teller's side, and waits for the callback's.
    fn finish(teller: EventSender<Number>, telling: Option<Telling>) {
        drop(teller);
        end(thread::spawn(|| ()), telling, Duration::from_secs(60), |_| true);
    }

    #[test]
    fn a_panic_whose_payload_panics_again_ends_no_telling() {
        let told = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&told);
        let (teller, telling) = EventSender::start(Some(Arc::new(move |number: &Number| {
            counted.fetch_add(u64::from(number.0), Ordering::SeqCst);
            std::panic::panic_any(PanicsWhenDropped);
        })))
        .unwrap();
        for number in [1, 10, 100] {
            teller.tell(Number(number));
        }
        finish(teller, telling);
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
        let (teller, telling) = EventSender::start(Some(Arc::new(callback))).unwrap();
        teller.tell(Number(1));
        finish(teller, telling);
        assert!(is_beside.load(Ordering::SeqCst));
    }

    #[test]
    fn events_beyond_the_queue_are_counted() {
        let (shut, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let callback = move |_: &Number| {
            let _ = gate.lock().unwrap().recv();
        };
        let (teller, telling) = EventSender::start(Some(Arc::new(callback))).unwrap();
        for number in 0..200 {
            teller.tell(Number(number));
        }
        let untold = teller.untold().count();
        let waiting = u64::try_from(MAX_WAITING).unwrap();
        assert!((200 - waiting - 1..=200 - waiting).contains(&untold), "{untold}");
        drop(shut);
        finish(teller, telling);
    }

    #[test]
    fn a_thread_that_hangs_in_what_it_drops_is_left_behind() {
        let (open, gate) = sync_channel::<()>(0);
        let hangs = thread::spawn(move || {
            let _ = gate.recv();
        });
        let start = Instant::now();
        end(hangs, None, Duration::from_millis(50), |_| true);
        assert!(start.elapsed() < Duration::from_secs(30));
        drop(open);
    }
}
