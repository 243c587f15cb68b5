//! The thread that shows a process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use event_listener::Listener as _;

use super::watched::watched;
use super::{Fleet, PresenceError, PresenceRecord, PresenceSettings, PresenceStatus};
use crate::handle::{Usage, UsageObserver};
use crate::internal::back_off::{doubled, random_part};
use crate::internal::clocks::{self, Clocks};
#[cfg(feature = "tracing")]
use crate::internal::events::Trace;
use crate::internal::lock::{Lock, recover};
use crate::store::{DocumentError, DocumentStore};

/// The longest pause between two tries when others write at the same time; it grows to that.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The longest wait. The clock by which a thread waits stops while the machine is suspended, so the other one
/// is looked at this often.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What the thread and those who ask it share.
pub(super) struct Shared {
    status: Lock<PresenceStatus>,
    is_stopping: AtomicBool,
    has_ended: Lock<bool>,
    /// Whether the process was taken out of the fleet.
    is_out: AtomicBool,
    ended: Condvar,
}

/// Shows one process.
pub(super) struct Runner {
    pub(super) store: Box<dyn DocumentStore>,
    pub(super) uses: UsageObserver,
    pub(super) settings: PresenceSettings,
    pub(super) process: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Box<dyn Fn() -> Clocks + Send>,
    #[cfg(feature = "tracing")]
    pub(super) trace: Trace,
}

/// A time to wait for, which is over when either clock says so. A wall clock that is set back ends it too:
/// what is shown has the time of another day then.
#[derive(Clone, Copy)]
struct Alarm {
    set: Clocks,
    span: Duration,
}

impl Alarm {
    /// What is left of it.
    fn left(&self, now: Clocks) -> Duration {
        if now.wall() < self.set.wall() {
            return Duration::ZERO;
        }
        self.span.saturating_sub(now.at_most_since(self.set))
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        let status = PresenceStatus { shown: SystemTime::now(), failures: 0, problem: None };
        Self {
            status: Lock::new(status),
            is_stopping: AtomicBool::new(false),
            has_ended: Lock::new(false),
            is_out: AtomicBool::new(false),
            ended: Condvar::new(),
        }
    }

    pub(super) fn status(&self) -> MutexGuard<'_, PresenceStatus> {
        self.status.lock()
    }

    /// Wake the thread afterwards.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    fn note_out(&self, is_out: bool) {
        self.is_out.store(is_out, Ordering::SeqCst);
    }

    pub(super) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::SeqCst)
    }

    /// Blocks until the thread has ended; false after the timeout.
    pub(super) fn wait_for_end(&self, timeout: Duration) -> bool {
        let ended = self.has_ended.lock();
        let waited = self.ended.wait_timeout_while(ended, timeout, |ended| !*ended);
        *recover(waited).0
    }
}

/// Says that the thread has ended, however it ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.is_stopping() {
            // Only a panic ends it so; its message is on standard error.
            let mut status = self.0.status();
            status.failures = status.failures.saturating_add(1);
            status.problem = Some(PresenceError::Ended);
        }
        *self.0.has_ended.lock() = true;
        self.0.ended.notify_all();
    }
}

impl Runner {
    /// Shows what is in use now, and says what that is and by which clocks.
    pub(super) fn show(&self) -> Result<(Usage, Clocks), PresenceError> {
        self.change(|fleet| {
            if self.shared.is_stopping() {
                return Ok(None);
            }
            // Looked at again for each try: what is shown late is to be what is so then.
            let (in_use, now) = (self.uses.now(), (self.clock)());
            let ttl = self.settings.time_to_live();
            let record = PresenceRecord::new(self.process, &self.settings.name, in_use, now.wall(), ttl);
            if self.settings.is_unique {
                fleet.remove_named(&record);
            }
            let mut watched = watched();
            watched.look(fleet.records(), now);
            fleet.make_room(self.process, now.wall(), |there| watched.rest_of(there, now));
            fleet.put(record)?;
            Ok(Some((in_use, now)))
        })
        .map(|shown| shown.unwrap_or_else(|| (self.uses.now(), (self.clock)())))
    }

    /// Takes the process out of the fleet.
    fn leave(&self) -> Result<(), PresenceError> {
        self.change(|fleet| Ok(fleet.remove(self.process).then_some(()))).map(drop)
    }

    /// Reads, changes, and writes if nobody else has written meanwhile. A change that is `None` is not written.
    fn change<T>(
        &self,
        change: impl Fn(&mut Fleet) -> Result<Option<T>, PresenceError>,
    ) -> Result<Option<T>, PresenceError> {
        let begun = Instant::now();
        let mut attempts: u32 = 0;
        loop {
            let (mut fleet, version) = Fleet::read_as(self.uses.profile(), &*self.store)?;
            let Some(done) = change(&mut fleet)? else { return Ok(None) };
            match self.store.write(&fleet.to_document()?, version.as_ref()) {
                Ok(_) => return Ok(Some(done)),
                Err(DocumentError::Conflict) => {
                    // One of those who write at the same time always succeeds, so that it is over once all have; each try of
                    // the others costs the store as much.
                    let pause = doubled(PAUSE.0, attempts, PAUSE.1).mul_f64(random_part());
                    attempts = attempts.saturating_add(1);
                    if begun.elapsed().saturating_add(pause) > self.settings.patience() {
                        return Err(PresenceError::Contended { attempts });
                    }
                    thread::sleep(pause);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Shows what is in use, as it was shown first, until it is told to stop.
    pub(super) fn run(self, (mut shown, at): (Usage, Clocks)) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut failures = 0;
        let after = |span| Alarm { set: (self.clock)(), span };
        let mut renewal = Alarm { set: at, span: self.settings.renewal() };
        // When a change is to be shown.
        let mut change: Option<Alarm> = None;
        loop {
            let news = self.uses.news();
            if self.shared.is_stopping() {
                // Where it cannot be said, the time to live says it.
                self.shared.note_out(self.leave().is_ok());
                return;
            }
            let now = (self.clock)();
            // One that could not be shown is tried again after the rest of that.
            let is_change = failures == 0 && self.uses.now() != shown;
            change =
                change.filter(|_| is_change).or_else(|| is_change.then(|| after(self.settings.spread())));
            let left = change.map_or(Duration::MAX, |change| change.left(now)).min(renewal.left(now));
            if !left.is_zero() {
                let _ = news.wait_deadline(clocks::after(left.min(LONGEST_WAIT)));
                continue;
            }
            change = None;
            match self.show() {
                Ok((now_shown, at)) => {
                    (shown, failures) = (now_shown, 0);
                    renewal = Alarm { set: at, span: self.settings.renewal() };
                    let mut status = self.shared.status();
                    (status.shown, status.failures, status.problem) = (at.wall(), 0, None);
                }
                Err(problem) => {
                    let (first, longest) = self.settings.rests();
                    renewal = after(doubled(first, failures, longest).mul_f64(1.0 - random_part() / 2.0));
                    failures = failures.saturating_add(1);
                    #[cfg(feature = "tracing")]
                    self.trace.line(|| {
                        let problem = problem.to_string();
                        let told = "this process cannot show which key it uses";
                        move || tracing::warn!(%problem, failures, "{told}")
                    });
                    let mut status = self.shared.status();
                    (status.failures, status.problem) = (failures, Some(problem));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    use crate::handle::KeyHandle;
    use crate::key::{Issuer as _, Kanal};
    use crate::store::MemoryStore;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A process that is shown, and its clocks, which a test sets.
    struct Shown {
        store: MemoryStore,
        shared: Arc<Shared>,
        uses: UsageObserver,
        clocks: Arc<Mutex<Clocks>>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Shown {
        fn new() -> Self {
            let (store, handle) = (MemoryStore::new(), KeyHandle::<Kanal>::live());
            let clocks = Arc::new(Mutex::new(Clocks::now()));
            let (shared, clock) = (Arc::new(Shared::new()), Arc::clone(&clocks));
            let runner = Runner {
                store: Box::new(store.clone()),
                uses: handle.uses(),
                settings: PresenceSettings::new("a"),
                process: 1,
                shared: Arc::clone(&shared),
                clock: Box::new(move || *clock.lock().unwrap()),
                #[cfg(feature = "tracing")]
                trace: crate::internal::events::Trace::here(),
            };
            let shown = runner.show().unwrap();
            let thread = Some(thread::spawn(move || runner.run(shown)));
            Self { store, shared, uses: handle.uses(), clocks, thread }
        }

        /// Sets the clocks, and lets the thread look at them, as it does of itself every half minute.
        fn set(&self, clocks: Clocks) {
            *self.clocks.lock().unwrap() = clocks;
            self.uses.wake();
        }

        fn shown(&self) -> u64 {
            let fleet = Fleet::read_as(Kanal::PROFILE, &self.store).unwrap().0;
            fleet.records()[0].shown.0
        }

        #[track_caller]
        fn is_shown_at(&self, clocks: Clocks) {
            let expected = crate::internal::utc::Moment::from(clocks.wall()).0;
            let begun = Instant::now();
            while self.shown() != expected {
                assert!(begun.elapsed() < Duration::from_secs(20), "{} is not {expected}", self.shown());
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    impl Drop for Shown {
        fn drop(&mut self) {
            self.shared.stop();
            self.uses.wake();
            let _ = self.thread.take().map(thread::JoinHandle::join);
        }
    }

    #[test]
    fn a_machine_that_was_suspended_shows_itself_at_once() {
        let shown = Shown::new();
        let start = *shown.clocks.lock().unwrap();
        let resumed = Clocks::at(start.wall() + 2 * HOUR, start.monotonic());
        shown.set(resumed);
        shown.is_shown_at(resumed);
    }

    #[test]
    fn a_clock_that_is_set_back_is_shown_at_once() {
        let shown = Shown::new();
        let start = *shown.clocks.lock().unwrap();
        let back = Clocks::at(start.wall() - HOUR, start.monotonic());
        shown.set(back);
        shown.is_shown_at(back);
        // And the monotonic clock alone is enough.
        let still = Clocks::at(back.wall(), start.monotonic() + HOUR);
        shown.set(Clocks::at(back.wall() + Duration::from_secs(2), still.monotonic()));
        shown.is_shown_at(Clocks::at(back.wall() + Duration::from_secs(2), still.monotonic()));
    }
}
