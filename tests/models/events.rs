//! What stands for `arc-swap`, `event-listener` and waits that end at some time.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::sync::{Arc, Condvar, Mutex, MutexGuard};

pub(super) struct Swap<T>(Mutex<Arc<T>>);

pub(super) struct Guard<T>(Arc<T>);

impl<T> Swap<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    pub(super) fn load(&self) -> Guard<T> {
        Guard(Arc::clone(&lock(&self.0)))
    }

    pub(super) fn swap(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *lock(&self.0), value)
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[derive(Default)]
pub(super) struct Event(Arc<Signal>);

pub(super) struct EventListener {
    signal: Arc<Signal>,
    since: usize,
}

struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    times: usize,
    wakers: Vec<Waker>,
}

impl Default for Signal {
    fn default() -> Self {
        Self { state: Mutex::new(State::default()), changed: Condvar::new() }
    }
}

impl Event {
    pub(super) fn listen(&self) -> EventListener {
        EventListener { signal: Arc::clone(&self.0), since: lock(&self.0.state).times }
    }

    pub(super) fn notify_all(&self) {
        let mut state = lock(&self.0.state);
        state.times += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.0.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Future for EventListener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.signal.state);
        if state.times > self.since {
            return Poll::Ready(());
        }
        state.wakers.push(context.waker().clone());
        Poll::Pending
    }
}

/// A model has no time: where nothing comes, the checker finds a deadlock.
#[allow(clippy::needless_pass_by_value, reason = "as in the file that this stands for")]
pub(super) fn wait(listener: EventListener, deadline: Option<Instant>) -> bool {
    assert!(deadline.is_none());
    let mut state = lock(&listener.signal.state);
    while state.times == listener.since {
        state = listener.signal.changed.wait(state).unwrap();
    }
    true
}

/// As [`wait`], for a condition variable.
pub(super) fn wait_on<'a, T>(
    variable: &Condvar,
    guard: MutexGuard<'a, T>,
    until: Option<Instant>,
) -> MutexGuard<'a, T> {
    assert!(until.is_none());
    variable.wait(guard).unwrap()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
