//! What a keeper and its thread share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{GrantState, KeeperStatus};
use crate::handle::RawHandle;
use crate::source::Provenance;

pub(super) struct Shared {
    state: Mutex<State>,
    /// The thread is to end, or has ended.
    news: Condvar,
    handle: RawHandle,
    /// The handle counts those who reload it, so each leaves once.
    has_left: AtomicBool,
}

struct State {
    status: KeeperStatus,
    is_stopping: bool,
    has_ended: bool,
}

impl Shared {
    /// Takes part in the handle's reloads.
    pub(super) fn attach(handle: RawHandle, provenance: Provenance) -> Self {
        handle.attach();
        let (state, generation) = (GrantState::Good, None);
        let status = KeeperStatus { provenance, generation, state, failures: 0, problem: None };
        let state = State { status, is_stopping: false, has_ended: false };
        Self { state: Mutex::new(state), news: Condvar::new(), handle, has_left: AtomicBool::new(false) }
    }

    pub(super) fn handle(&self) -> RawHandle {
        self.handle.clone()
    }

    pub(super) fn status(&self) -> KeeperStatus {
        self.lock().status.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut KeeperStatus)) {
        change(&mut self.lock().status);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Tells the thread to end, and those who wait for a token that there will be none.
    pub(super) fn stop(&self) {
        self.lock().is_stopping = true;
        self.news.notify_all();
        self.leave();
        self.handle.wake_reloaders();
    }

    /// Sleeps, until the keeper is dropped at most.
    pub(super) fn sleep(&self, time: Duration) {
        self.wait(time, |state| state.is_stopping);
    }

    /// Blocks until the thread has ended; false after the timeout.
    pub(super) fn wait_for_end(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.has_ended)
    }

    fn wait(&self, timeout: Duration, is_over: impl Fn(&State) -> bool) -> bool {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            let rest = timeout.saturating_sub(start.elapsed());
            if is_over(&state) || rest.is_zero() {
                return is_over(&state);
            }
            state = self.news.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn leave(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed) {
            self.handle.detach();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is made as a whole, so a panic elsewhere has left none half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the thread has ended, however it ends: nobody may wait for it for ever.
pub(super) struct Ending(pub(super) Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.leave();
        self.0.news.notify_all();
    }
}
