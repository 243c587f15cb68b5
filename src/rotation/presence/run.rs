//! The task that shows a process, its settings, and what it has seen of others.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::sync::{Arc, LazyLock, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::fleet::{Fleet, LONGEST, MAX_PROCESSES, PresenceError, PresenceRecord, check_name};
use crate::handle::{Usage, UsageObserver};
use crate::internal::events::{Event, EventSender, trace_line};
use crate::internal::printing::Moment;
use crate::internal::threads::Lock;
use crate::internal::threads::{Health, Link};
use crate::internal::time::{self, Clocks, doubled, random_part};
use crate::internal::timer::{Begin, Worked, after_no_thread, news_until, work_on};
use crate::keyset::Hidden;
use crate::store::{DocumentError, DocumentStore};

/// The pause between two tries when other processes write at the same time doubles from the first to the
/// second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The longest wait without a look at both clocks: the clock by which a task waits stops while the machine
/// is suspended.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

const DEFAULT_TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// The bounds of a time to live: a second and a day.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(LONGEST as u64));

/// The bounds of the time for which a write is tried when other processes write at the same time.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// The name by which a process shows itself, and for how long what it shows holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PresenceSettings {
    name: String,
    is_unique: bool,
    time_to_live: Duration,
}

impl PresenceSettings {
    /// Sets the name by which a person recognizes the process: 1 to 64 printable ASCII characters, without
    /// `"` and `\`. It need not be unique, and must not be secret. What is shown holds for 10 minutes.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_unique: false, time_to_live: DEFAULT_TIME_TO_LIVE }
    }

    /// Declares that no other process has this name at the same time, such as a pod of a stateful set or the
    /// one service on a machine. A record of that name is then one of a predecessor that was killed, and is
    /// replaced: it delays no deletion, and a process that restarts again and again does not fill the
    /// document. Of two running processes of one such name, only one is seen.
    #[must_use]
    pub const fn with_unique_name(mut self) -> Self {
        self.is_unique = true;
        self
    }

    /// Sets for how long what is shown holds: a second to a day, in whole seconds; 10 minutes by default. It
    /// is renewed after about a third of it. Choose it longer than an outage of the store: a process that
    /// cannot reach the store for so long counts as silent.
    #[must_use]
    pub fn with_time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = Duration::from_secs(time.clamp(BOUNDS.0, BOUNDS.1).as_secs());
        self
    }

    /// In seconds.
    fn time_to_live(&self) -> u32 {
        u32::try_from(self.time_to_live.as_secs()).unwrap_or(u32::MAX)
    }

    /// Returns how long after it was shown it is renewed. Processes that were started together drift apart.
    fn renewal(&self) -> Duration {
        (self.time_to_live / 3).mul_f64(1.0 - 0.2 * random_part())
    }

    /// Returns how long after a change it is shown. A promotion changes every process of a fleet at once.
    fn spread(&self) -> Duration {
        (self.time_to_live / 20).mul_f64(random_part())
    }

    /// Returns the pauses after failed attempts: the first, and the longest, which leaves several attempts
    /// before it is silent.
    fn rests(&self) -> (Duration, Duration) {
        (self.time_to_live / 60, self.time_to_live / 6)
    }

    /// For how long a write is tried when others write at the same time, as when a whole fleet starts at
    /// once.
    fn patience(&self) -> Duration {
        (self.time_to_live / 10).clamp(PATIENCE.0, PATIENCE.1)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn check(&self) -> Result<(), PresenceError> {
        check_name(&self.name).map_err(|rule| PresenceError::BadName { rule })
    }
}

/// Without the name: a person may have pasted a key there.
impl fmt::Debug for PresenceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceSettings")
            .field("name", &Hidden(Some(&self.name)))
            .field("is_unique", &self.is_unique)
            .field("time_to_live", &self.time_to_live)
            .finish()
    }
}

/// What the task shares with its owner.
pub(super) struct Progress {
    pub(super) health: Health<PresenceError>,
    /// Whether the process was taken out of the document.
    pub(super) is_out: bool,
}

/// Shows one process.
pub(super) struct Runner {
    pub(super) store: Arc<dyn DocumentStore>,
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
    /// Returns what is left of it.
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

    fn after(&self, span: Duration) -> Alarm {
        Alarm { set: (self.clock)(), span }
    }

    /// Returns the function to call if the task panics.
    pub(super) fn on_panic(&self) -> impl FnOnce() + Send + use<> {
        let (link, events) = (Arc::clone(&self.link), self.events.clone());
        move || _ = fail(&link, &events, PresenceError::Ended)
    }

    /// The task: shows what is in use until it is stopped. The store is asked on another thread.
    pub(super) async fn keep_shown(mut self: Box<Self>) {
        let Some((mut shown, at)) = self.shown else { return };
        let mut failures = 0;
        let mut renewal = Alarm { set: at, span: self.settings.renewal() };
        // When a change is to be shown.
        let mut change: Option<Alarm> = None;
        loop {
            let news = self.uses.news();
            if self.link.is_stopping() {
                // If the process cannot be taken out, its record expires.
                let (runner, is_out) =
                    self.on_other_thread(Begin::Now, |runner| runner.leave().is_ok()).await;
                runner.link.with(|progress| progress.is_out = is_out);
                return;
            }
            let now = (self.clock)();
            // After a failure, the change is shown by the next try.
            let is_change = failures == 0 && self.uses.now() != shown;
            change = change
                .filter(|_| is_change)
                .or_else(|| is_change.then(|| self.after(self.settings.spread())));
            let left = change.map_or(Duration::MAX, |change| change.left(now)).min(renewal.left(now));
            if !left.is_zero() {
                news_until(news, Some(time::after(left.min(LONGEST_WAIT)))).await;
                continue;
            }
            change = None;
            let result;
            (self, result) = self.on_other_thread(Begin::InOrder, |runner| runner.show()).await;
            match result {
                Ok((now_shown, at)) => {
                    (shown, failures) = (now_shown, 0);
                    renewal = Alarm { set: at, span: self.settings.renewal() };
                    self.link.with(|progress| progress.health.succeed(at.wall()));
                }
                Err(problem) => {
                    let (first, longest) = self.settings.rests();
                    renewal =
                        self.after(doubled(first, failures, longest).mul_f64(1.0 - random_part() / 2.0));
                    failures = fail(&self.link, &self.events, problem);
                }
            }
        }
    }

    /// A panic there is one of this task. Where no thread can be started, that is a failure, and it is tried
    /// again.
    async fn on_other_thread<R: Send + 'static>(
        mut self: Box<Self>,
        begin: Begin,
        work: fn(&mut Self) -> R,
    ) -> (Box<Self>, R) {
        loop {
            match work_on(begin, self, move |runner| work(runner)).await {
                Worked::Done(runner, result) => return (runner, result),
                Worked::Panicked => resume_unwind(Box::new(())),
                Worked::NoThread(runner) => self = runner,
            }
            fail(&self.link, &self.events, PresenceError::NoThread(ErrorKind::WouldBlock));
            after_no_thread().await;
        }
    }
}

/// Returns how many attempts have failed in a row, this one included.
fn fail(link: &Link<Progress>, events: &EventSender<NotShown>, problem: PresenceError) -> u32 {
    let failures = link.with(|progress| progress.health.fail(problem.clone()));
    events.send(NotShown { problem, failures });
    failures
}

/// How many records are remembered.
const MOST: usize = 16 * MAX_PROCESSES;

/// Since when this process has seen each record unchanged, by its own clocks. A record is removed only if it
/// was seen unchanged for its time to live: the time that is written in it is that of another machine, whose
/// clock or this one's may be wrong.
///
/// Records are identified by the random number of their process, so those of all documents are kept together.
#[derive(Default)]
struct Watched(HashMap<u64, Sight>);

#[derive(Clone, Copy)]
struct Sight {
    shown: Moment,
    since: Clocks,
    looked: Instant,
}

/// Returns what this process has seen, shared by all its presences: one that was refused room and asks again
/// goes on watching.
fn watched() -> MutexGuard<'static, Watched> {
    static WATCHED: LazyLock<Lock<Watched>> = LazyLock::new(Lock::default);
    WATCHED.lock()
}

impl Watched {
    fn look(&mut self, records: &[PresenceRecord], now: Clocks) {
        for record in records {
            let new = Sight { shown: record.shown, since: now, looked: now.monotonic() };
            let sight = self.0.entry(record.process).or_insert(new);
            if sight.shown != record.shown {
                *sight = new;
            }
            sight.looked = now.monotonic();
        }
        if self.0.len() > MOST {
            let mut looked: Vec<_> = self.0.values().map(|sight| sight.looked).collect();
            looked.sort_unstable();
            let oldest = looked[looked.len() - MOST];
            self.0.retain(|_, sight| sight.looked >= oldest);
        }
    }

    /// For how long a record has been seen unchanged, by the clock that shows less.
    fn rest_of(&self, record: &PresenceRecord, now: Clocks) -> Duration {
        self.0.get(&record.process).map_or(Duration::ZERO, |sight| now.at_least_since(sight.since))
    }
}

#[cfg(test)]
#[path = "../../../tests/units/rotation/presence.rs"]
mod tests;
