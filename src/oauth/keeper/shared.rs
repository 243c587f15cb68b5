//! What a keeper and its thread share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use super::{GrantState, KeeperEvent, KeeperProblem, KeeperStatus};
use crate::handle::RawHandle;
use crate::internal::events::{DroppedEvents, EventSender};
use crate::internal::lock::{Lock, recover};
use crate::source::Provenance;

pub(super) struct Shared {
    state: Lock<State>,
    /// The thread is to end, or has ended.
    news: Condvar,
    handle: RawHandle,
    /// The handle counts those who reload it, so each leaves once.
    has_left: AtomicBool,
    untold: DroppedEvents,
}

struct State {
    status: KeeperStatus,
    is_stopping: bool,
    has_ended: bool,
}

impl Shared {
    /// Takes part in the handle's reloads.
    pub(super) fn attach(handle: RawHandle, provenance: Provenance, untold: DroppedEvents) -> Self {
        handle.attach();
        let (state, generation) = (GrantState::Good, None);
        let status = KeeperStatus { provenance, generation, state, failures: 0, problem: None, untold: 0 };
        let state = Lock::new(State { status, is_stopping: false, has_ended: false });
        Self { state, news: Condvar::new(), handle, has_left: AtomicBool::new(false), untold }
    }

    pub(super) fn handle(&self) -> RawHandle {
        self.handle.clone()
    }

    pub(super) fn status(&self) -> KeeperStatus {
        let mut status = self.lock().status.clone();
        status.untold = self.untold.count();
        status
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
            state = recover(self.news.wait_timeout(state, rest)).0;
        }
    }

    fn leave(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed) {
            self.handle.detach();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Says that the thread has ended, however it ends: nobody may wait for it for ever, or take it for well.
pub(super) struct Ending {
    pub(super) shared: Arc<Shared>,
    pub(super) teller: EventSender<KeeperEvent>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.has_ended = true;
        let mut failed = None;
        // Unless it is told to stop, only a panic ends it.
        if !state.is_stopping {
            let status = &mut state.status;
            (status.failures, status.problem) =
                (status.failures.saturating_add(1), Some(KeeperProblem::Ended));
            let (failures, provenance) = (status.failures, status.provenance.clone());
            failed = Some(KeeperEvent::Failed { problem: KeeperProblem::Ended, failures, provenance });
        }
        drop(state);
        if let Some(event) = failed {
            self.teller.tell(event);
        }
        self.shared.leave();
        self.shared.news.notify_all();
    }
}
