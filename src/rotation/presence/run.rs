//! The thread that shows a process.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use event_listener::Listener as _;

use super::fleet::watched;
use super::{Fleet, PresenceError, PresenceRecord, PresenceSettings};
use crate::handle::{Usage, UsageObserver};
use crate::internal::background::{Health, Link, Task};
use crate::internal::events::{Event, EventSender, trace_line};
use crate::internal::time::{self, Clocks, doubled, random_part};
use crate::store::{DocumentError, DocumentStore};

/// The pause between two tries when other processes write at the same time doubles from the first to the
/// second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The longest wait without a look at both clocks: the clock by which a thread waits stops while the machine
/// is suspended.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What the thread shares with its owner.
pub(super) struct Progress {
    pub(super) health: Health<PresenceError>,
    /// Whether the process was taken out of the document.
    pub(super) is_out: bool,
}

/// Shows one process.
pub(super) struct Runner {
    pub(super) store: Box<dyn DocumentStore>,
    pub(super) uses: UsageObserver,
    pub(super) settings: PresenceSettings,
    pub(super) process: u64,
    pub(super) link: Arc<Link<Progress>>,
    pub(super) clock: Box<dyn Fn() -> Clocks + Send>,
    pub(super) events: EventSender<NotShown>,
    /// What was shown last, and when.
    pub(super) shown: Option<(Usage, Clocks)>,
}

/// The process could not be shown.
#[derive(Clone)]
pub(super) struct NotShown {
    problem: PresenceError,
    failures: u32,
}

impl Event for NotShown {
    fn trace(&self) {
        let Self { problem, failures } = self;
        trace_line!(warn: %problem, failures, "this process cannot show which key it uses");
    }
}

/// A span that ends when either clock says so. A wall clock that is set back ends it too: the record then has
/// the time of another day.
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

impl Runner {
    /// Shows what is in use now. Returns that and the clocks.
    pub(super) fn show(&self) -> Result<(Usage, Clocks), PresenceError> {
        self.change(|fleet| {
            if self.link.is_stopping() {
                return Ok(None);
            }
            // Read again for each try: what is shown late must be current then.
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

    /// Takes the process out of the document.
    fn leave(&self) -> Result<(), PresenceError> {
        self.change(|fleet| Ok(fleet.remove(self.process).then_some(()))).map(drop)
    }

    /// Reads, changes, and writes unless another process has written meanwhile. A change that is `None` is
    /// not written.
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
                    // Of the processes that write at the same time, one always succeeds, so this ends once
                    // all have.
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

    /// Shows what is in use until the thread is stopped.
    fn keep_shown(&mut self) {
        let Some((mut shown, at)) = self.shown else { return };
        let mut failures = 0;
        let after = |span| Alarm { set: (self.clock)(), span };
        let mut renewal = Alarm { set: at, span: self.settings.renewal() };
        // When a change is to be shown.
        let mut change: Option<Alarm> = None;
        loop {
            let news = self.uses.news();
            if self.link.is_stopping() {
                // If the process cannot be taken out, its record expires.
                let is_out = self.leave().is_ok();
                self.link.with(|progress| progress.is_out = is_out);
                return;
            }
            let now = (self.clock)();
            // After a failure, the change is shown by the next try.
            let is_change = failures == 0 && self.uses.now() != shown;
            change =
                change.filter(|_| is_change).or_else(|| is_change.then(|| after(self.settings.spread())));
            let left = change.map_or(Duration::MAX, |change| change.left(now)).min(renewal.left(now));
            if !left.is_zero() {
                let _ = news.wait_deadline(time::after(left.min(LONGEST_WAIT)));
                continue;
            }
            change = None;
            match self.show() {
                Ok((now_shown, at)) => {
                    (shown, failures) = (now_shown, 0);
                    renewal = Alarm { set: at, span: self.settings.renewal() };
                    self.link.with(|progress| progress.health.succeed(at.wall()));
                }
                Err(problem) => {
                    let (first, longest) = self.settings.rests();
                    renewal = after(doubled(first, failures, longest).mul_f64(1.0 - random_part() / 2.0));
                    failures = self.fail(problem);
                }
            }
        }
    }

    /// Returns how many attempts have failed in a row, this one included.
    fn fail(&self, problem: PresenceError) -> u32 {
        let failures = self.link.with(|progress| progress.health.fail(problem.clone()));
        self.events.send(NotShown { problem, failures });
        failures
    }
}

impl Task for Runner {
    fn run(&mut self) {
        self.keep_shown();
    }

    fn on_panic(&mut self) {
        self.fail(PresenceError::Ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    use crate::handle::Publisher;
    use crate::internal::background::Worker;
    use crate::key::{Issuer as _, Kanal};
    use crate::store::MemoryStore;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A process that is shown, and its clocks, which a test sets.
    struct Shown {
        store: MemoryStore,
        uses: UsageObserver,
        clocks: Arc<Mutex<Clocks>>,
        _worker: Worker<Progress>,
    }

    impl Shown {
        fn new() -> Self {
            let (store, handle) = (MemoryStore::new(), Publisher::<Kanal>::new().handle());
            let clocks = Arc::new(Mutex::new(Clocks::now()));
            let (uses, clock) = (handle.usage(), Arc::clone(&clocks));
            let (events, event_thread) = EventSender::start(None).unwrap();
            let progress = Progress { health: Health::new(), is_out: false };
            let waking = uses.clone();
            let mut worker = Worker::new(progress, event_thread, move || waking.wake(), || ());
            let mut runner = Runner {
                store: Box::new(store.clone()),
                uses: uses.clone(),
                settings: PresenceSettings::new("a"),
                process: 1,
                link: Arc::clone(worker.link()),
                clock: Box::new(move || *clock.lock().unwrap()),
                events,
                shown: None,
            };
            runner.shown = Some(runner.show().unwrap());
            worker.start("keysheath-presence", runner).unwrap();
            Self { store, uses, clocks, _worker: worker }
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
            let expected = crate::internal::printing::Moment::from(clocks.wall()).0;
            let begun = Instant::now();
            while self.shown() != expected {
                assert!(begun.elapsed() < Duration::from_secs(20), "{} is not {expected}", self.shown());
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn a_machine_that_was_suspended_is_shown_at_once() {
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
