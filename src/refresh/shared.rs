//! What a refresher and its thread share.

use std::process;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use super::{RefreshEvent, RefreshStatus, ReloadError, ReloadProblem};
use crate::handle::{Reload, Reloader};
use crate::internal::events::{DroppedEvents, EventSender};
use crate::internal::lock::{Lock, recover};

pub(super) struct Shared {
    state: Lock<State>,
    /// An attempt or the thread has ended.
    ended: Condvar,
    pub(super) reloader: Reloader,
    untold: DroppedEvents,
    /// The process that the thread is in.
    process: u32,
}

pub(super) struct State {
    pub(super) status: RefreshStatus,
    pub(super) is_stopping: bool,
    has_ended: bool,
    /// How many attempts were demanded, and how many of those demands were met.
    pub(super) demanded: u64,
    pub(super) met: u64,
    pub(super) outcome: Reload,
}

impl Shared {
    pub(super) fn new(reloader: Reloader, status: RefreshStatus, untold: DroppedEvents) -> Self {
        let state = State {
            status,
            is_stopping: false,
            has_ended: false,
            demanded: 0,
            met: 0,
            outcome: Reload::NoRefresher,
        };
        let (state, ended) = (Lock::new(state), Condvar::new());
        Self { state, ended, reloader, untold, process: process::id() }
    }

    pub(super) fn status(&self) -> RefreshStatus {
        let mut status = self.lock().status.clone();
        status.untold = self.untold.count();
        status
    }

    /// Whether this is a forked child, which has no thread.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.process != process::id()
    }

    /// Tells the thread to end, and those who wait for a reload that there will be none.
    pub(super) fn stop(&self) {
        self.lock().is_stopping = true;
        self.reloader.leave();
        self.reloader.wake();
    }

    /// Blocks until the thread has ended; false after the timeout.
    pub(super) fn wait_for_end(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.has_ended.then_some(())).is_some()
    }

    /// Demands an attempt and waits for it, whatever the pace is; `None` after the timeout.
    pub(super) fn demand(&self, timeout: Duration) -> Option<Reload> {
        if self.is_elsewhere() {
            return Some(Reload::NoRefresher);
        }
        let mut state = self.lock();
        state.demanded += 1;
        let demand = state.demanded;
        drop(state);
        self.reloader.wake();
        self.wait(timeout, |state| {
            if state.met >= demand {
                return Some(state.outcome);
            }
            state.has_ended.then_some(Reload::NoRefresher)
        })
    }

    /// Tells those who wait for an attempt or for the end to look.
    pub(super) fn tell(&self) {
        self.ended.notify_all();
    }

    fn wait<R>(&self, timeout: Duration, look: impl Fn(&State) -> Option<R>) -> Option<R> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return None;
            }
            state = recover(self.ended.wait_timeout(state, rest)).0;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Says that the thread has ended, however it ends: nobody may wait for it for ever, or take it for well.
pub(super) struct Ending {
    shared: Arc<Shared>,
    teller: EventSender<RefreshEvent>,
}

impl Ending {
    pub(super) const fn new(shared: Arc<Shared>, teller: EventSender<RefreshEvent>) -> Self {
        Self { shared, teller }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.has_ended = true;
        let mut failed = None;
        // Unless it is told to stop, only a panic ends it.
        if !state.is_stopping {
            let status = &mut state.status;
            let error = ReloadError::new(status.provenance.clone(), ReloadProblem::Ended);
            status.failures = status.failures.saturating_add(1);
            status.problem = Some(error.clone());
            failed = Some(RefreshEvent::Failed { error, failures: status.failures });
        }
        drop(state);
        if let Some(event) = failed {
            self.teller.send(event);
        }
        self.shared.reloader.leave();
        self.shared.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use std::sync::Mutex;

    use super::*;
    use crate::handle::Publisher;
    use crate::key::Kanal;
    use crate::source::Provenance;

    #[test]
    fn a_refresher_that_a_panic_has_ended_says_so() {
        let publisher = Publisher::<Kanal>::new();
        let told = Arc::<Mutex<Vec<RefreshEvent>>>::default();
        let keeps = Arc::clone(&told);
        let callback = move |event: &RefreshEvent| {
            keeps.lock().unwrap().push(event.clone());
        };
        let (teller, telling) = EventSender::start(Some(Arc::new(callback))).unwrap();
        let status = RefreshStatus {
            provenance: Provenance::File { path: "kanal".into() },
            remarks: Vec::new(),
            last_success: SystemTime::now(),
            failures: 0,
            problem: None,
            untold: 0,
            #[cfg(feature = "watch")]
            watching: super::super::Watching::at_start(false),
        };
        let shared = Arc::new(Shared::new(publisher.reloader(), status, telling.dropped()));
        let ending = Ending::new(Arc::clone(&shared), teller);
        let thread = std::thread::spawn(move || {
            let _ending = ending;
            std::panic::resume_unwind(Box::new(()));
        });
        let _ = crate::internal::background::end(thread, Some(telling), Duration::from_secs(60), |rest| {
            shared.wait_for_end(rest)
        });
        let status = shared.status();
        assert_eq!(status.problem().unwrap().problem(), &ReloadProblem::Ended);
        assert_eq!(status.failures_in_a_row(), 1);
        assert!(matches!(&told.lock().unwrap()[..], [RefreshEvent::Failed { failures: 1, .. }]));
        assert_eq!(shared.demand(Duration::from_secs(60)), Some(Reload::NoRefresher));
    }
}
