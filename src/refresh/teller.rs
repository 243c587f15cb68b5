//! Telling a callback of events, without waiting for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::MAX_WAITING_EVENTS;

/// What somebody is told of.
pub(crate) trait Event: Send + 'static {
    /// Gives it to `tracing`, at the level that it has.
    #[cfg(feature = "tracing")]
    fn trace(&self);
}

/// Whom to tell.
pub(crate) type Callback<E> = Arc<dyn Fn(&E) + Send + Sync>;

/// Tells of events.
pub(crate) struct Teller<E> {
    queue: Option<SyncSender<E>>,
    untold: Untold,
}

/// How many events were not told, because the callback blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untold(Arc<AtomicU64>);

/// The thread of a callback.
pub(crate) struct Telling {
    thread: JoinHandle<()>,
    /// Nothing comes by it: it is cut off when the thread ends, however that ends.
    ended: Mutex<Receiver<()>>,
}

impl<E: Event> Teller<E> {
    /// Starts the thread of the callback, if there is one. It ends with the last clone.
    pub(crate) fn start(callback: Option<Callback<E>>) -> std::io::Result<(Self, Option<Telling>)> {
        let untold = Untold::default();
        let Some(callback) = callback else { return Ok((Self { queue: None, untold }, None)) };
        let (queue, events) = sync_channel(MAX_WAITING_EVENTS);
        let (ending, ended) = sync_channel::<()>(0);
        let thread = thread::Builder::new().name("keysheath-events".into()).spawn(move || {
            let _ending = ending;
            for event in events {
                // Its own message is on standard error; that it fails must not end the telling.
                let _ = catch_unwind(AssertUnwindSafe(|| callback(&event)));
            }
        })?;
        let telling = Telling { thread, ended: Mutex::new(ended) };
        Ok((Self { queue: Some(queue), untold }, Some(telling)))
    }

    pub(crate) fn tell(&self, event: E) {
        #[cfg(feature = "tracing")]
        event.trace();
        let Some(queue) = &self.queue else { return };
        if queue.try_send(event).is_err() {
            self.untold.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn untold(&self) -> Untold {
        self.untold.clone()
    }
}

impl<E> Clone for Teller<E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), untold: self.untold.clone() }
    }
}

impl Untold {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends the thread of who tells, which is told to stop, and then that of the callback: the last event is told. What hangs is left
/// behind after the timeout. `has_ended` waits for the first.
pub(crate) fn end(
    thread: JoinHandle<()>,
    telling: Option<Telling>,
    timeout: Duration,
    has_ended: impl FnOnce(Duration) -> bool,
) {
    let start = Instant::now();
    let here = thread::current().id();
    let is_here = |thread: &JoinHandle<()>| thread.thread().id() == here;
    // A callback that holds the last reference drops it on the very thread.
    if is_here(&thread)
        || telling.as_ref().is_some_and(|telling| is_here(&telling.thread))
        || !has_ended(timeout)
    {
        return;
    }
    // Its panic, if it had one, is on standard error.
    let _ = thread.join();
    let Some(telling) = telling else { return };
    let ended = telling.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rest = timeout.saturating_sub(start.elapsed());
    if ended.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
        let _ = telling.thread.join();
    }
}
