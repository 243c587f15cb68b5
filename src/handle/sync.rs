//! What the concurrent parts of a handle stand on. The models in `tests/models/main.rs` put loom's and
//! shuttle's in the place of these.

use std::time::Instant;

use arc_swap::ArcSwap;
use event_listener::Listener as _;

pub(super) use event_listener::EventListener;
pub(super) use std::sync::{Arc, Mutex, MutexGuard};

/// A value that is replaced as a whole, and read without a lock.
pub(super) struct Swap<T>(ArcSwap<T>);

/// A value that was read. It stays alive while this does.
pub(super) type Guard<T> = arc_swap::Guard<Arc<T>>;

impl<T> Swap<T> {
    pub(super) fn new(value: T) -> Self {
        Self(ArcSwap::from_pointee(value))
    }

    #[inline]
    pub(super) fn load(&self) -> Guard<T> {
        self.0.load()
    }

    /// Gives the old value back.
    pub(super) fn swap(&self, value: Arc<T>) -> Arc<T> {
        self.0.swap(value)
    }
}

/// Something that others wait for.
#[derive(Default)]
pub(super) struct Event(event_listener::Event);

impl Event {
    /// A caller that listens before it looks is woken by events after the look.
    pub(super) fn listen(&self) -> EventListener {
        self.0.listen()
    }

    pub(super) fn notify_all(&self) {
        self.0.notify(usize::MAX);
    }
}

/// Blocks until the listener is woken; false once the deadline has passed.
pub(super) fn wait(listener: EventListener, deadline: Option<Instant>) -> bool {
    if let Some(deadline) = deadline {
        return listener.wait_deadline(deadline).is_some();
    }
    listener.wait();
    true
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under a lock of a handle is made as a whole, so a panic elsewhere has left none half-way.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
