//! The refresher's thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use event_listener::Listener as _;

use super::pace::{Pace, Turn, next_poll};
use super::place::{Answer, Outcome, Place};
#[cfg(feature = "watch")]
use super::watch::{self, Watch, Watching};
use super::{RefreshEvent, RefreshSettings, RefreshStatus, ReloadError};
use crate::handle::{Generation, RawHandle, Reload};
use crate::issuer::Profile;
use crate::source::worker::{self, Worker};
use crate::source::{DEFAULT_DEADLINE, Problem};

/// What the refresher and its thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// An attempt or the thread has ended.
    ended: Condvar,
    handle: RawHandle,
    /// The handle counts its refreshers, so each leaves once.
    has_left: AtomicBool,
}

struct State {
    status: RefreshStatus,
    is_stopping: bool,
    has_ended: bool,
    /// How many attempts were demanded, and how many of those demands were met.
    demanded: u64,
    met: u64,
    outcome: Reload,
}

/// What is to be done next.
enum Next {
    Stop,
    Reload {
        was_asked: bool,
    },
    TooSoon,
    /// Until then, or until there is news.
    Wait(Option<Instant>),
}

pub(super) struct Runner {
    place: Place,
    handle: RawHandle,
    settings: RefreshSettings,
    shared: Arc<Shared>,
    asker: Asker,
    pace: Pace,
    poll: Option<Instant>,
    /// As this refresher saw it last.
    generation: Generation,
    #[cfg(feature = "watch")]
    watch: Option<Arc<Watch>>,
    #[cfg(feature = "watch")]
    changed: Option<Instant>,
}

/// How long a call that was left behind is given to come back before the place is called again. The crate's own sources keep
/// a deadline of their own, and until then another call would hang where the first one does.
const RETURN: Duration = DEFAULT_DEADLINE.saturating_mul(2);

/// Asks a place within a deadline.
pub(super) struct Asker {
    worker: Worker,
    place: worker::Place,
    last: Option<Call>,
}

struct Call {
    begun: Instant,
    /// Held for as long as the call is under way.
    under_way: Weak<()>,
}

impl Shared {
    /// Takes part in the handle's reloads.
    pub(super) fn attach(handle: RawHandle, status: RefreshStatus) -> Self {
        handle.attach();
        let state = State {
            status,
            is_stopping: false,
            has_ended: false,
            demanded: 0,
            met: 0,
            outcome: Reload::NoRefresher,
        };
        Self { state: Mutex::new(state), ended: Condvar::new(), handle, has_left: AtomicBool::new(false) }
    }

    pub(super) fn status(&self) -> RefreshStatus {
        self.lock().status.clone()
    }

    /// Tells the thread to end, and those who wait for a reload that there will be none.
    pub(super) fn stop(&self) {
        self.lock().is_stopping = true;
        self.leave();
        self.handle.wake_reloaders();
    }

    /// Blocks until the thread has ended; false after the timeout.
    pub(super) fn wait_for_end(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.has_ended.then_some(())).is_some()
    }

    /// Demands an attempt and waits for it, whatever the pace is; `None` after the timeout.
    pub(super) fn demand(&self, timeout: Duration) -> Option<Reload> {
        let mut state = self.lock();
        state.demanded += 1;
        let demand = state.demanded;
        drop(state);
        self.handle.wake_reloaders();
        self.wait(timeout, |state| {
            if state.met >= demand {
                return Some(state.outcome);
            }
            state.has_ended.then_some(Reload::NoRefresher)
        })
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
            state = self.ended.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
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
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.leave();
        self.0.ended.notify_all();
    }
}

impl Asker {
    pub(super) fn new(settings: &RefreshSettings) -> Self {
        // Of its own: two refreshers of one place do not wait for each other.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let place = worker::Place::of("refresher", &NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { worker: Worker::around_others().with_deadline(settings.deadline), place, last: None }
    }

    /// Asks the place; past the deadline it is left behind. `prepare` is done before, within the same deadline.
    pub(super) fn ask(
        &mut self,
        place: &Place,
        profile: &'static Profile,
        prepare: impl FnOnce() + Send + 'static,
    ) -> Result<Answer, Problem> {
        if self.last.as_ref().is_some_and(Call::still_hangs) {
            return Err(Problem::Stuck { count: 1 });
        }
        let under_way = Arc::new(());
        self.last = Some(Call { begun: Instant::now(), under_way: Arc::downgrade(&under_way) });
        let question = place.question(profile);
        self.worker.run(self.place, move || {
            prepare();
            let answer = question();
            drop(under_way);
            answer
        })
    }
}

impl Call {
    fn still_hangs(&self) -> bool {
        self.under_way.strong_count() > 0 && self.begun.elapsed() < RETURN
    }
}

impl Runner {
    pub(super) fn new(place: Place, settings: RefreshSettings, asker: Asker, shared: Arc<Shared>) -> Self {
        let handle = shared.handle.clone();
        #[cfg(feature = "watch")]
        let watch = place.file().filter(|_| settings.is_watching).map(|file| Watch::of(file, handle.clone()));
        #[cfg(feature = "watch")]
        if let Some(watch) = &watch {
            let watch = Arc::clone(watch);
            // Where it hangs, the watch says so.
            let _ = asker.worker.run(asker.place, move || watch.arm());
        }
        let now = Instant::now();
        Self {
            pace: Pace::new(&settings),
            // So that what changed between loading it and watching it is seen.
            #[cfg(feature = "watch")]
            changed: watch.is_some().then_some(now),
            #[cfg(feature = "watch")]
            watch,
            poll: if place.provenance().is_fixed() { None } else { next_poll(&settings, now) },
            generation: handle.generation(),
            place,
            handle,
            settings,
            shared,
            asker,
        }
    }

    /// Reloads until it is told to stop. `first` is what the start has put in force.
    pub(super) fn run(mut self, first: Outcome) {
        let _ending = Ending(Arc::clone(&self.shared));
        #[cfg(feature = "watch")]
        self.tell_watching();
        self.tell_newer(first);
        let provenance = self.place.provenance();
        if provenance.is_fixed() {
            self.settings.tell(&RefreshEvent::CannotChange { provenance });
        }
        loop {
            let news = self.handle.work();
            match self.next(Instant::now()) {
                Next::Stop => return,
                Next::Reload { was_asked } => self.reload(was_asked),
                Next::TooSoon => self.handle.end(self.handle.begin(), Reload::TooSoon),
                Next::Wait(Some(until)) => drop(news.wait_deadline(until)),
                Next::Wait(None) => news.wait(),
            }
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let state = self.shared.lock();
        if state.is_stopping {
            return Next::Stop;
        }
        let is_demanded = state.demanded > state.met;
        drop(state);
        let in_force = self.handle.generation();
        if self.generation != in_force {
            self.generation = in_force;
            self.pace.renewed();
        }
        let mut until = self.poll;
        #[cfg(feature = "watch")]
        if let Some(due) = self.watch_due(now) {
            until = Some(until.map_or(due, |until| until.min(due)));
        }
        let turn = if self.handle.is_asked() { Some(self.pace.turn(now)) } else { None };
        if is_demanded || until.is_some_and(|until| until <= now) || turn == Some(Turn::Now) {
            return Next::Reload { was_asked: turn == Some(Turn::Now) };
        }
        match turn {
            Some(Turn::TooSoon) => Next::TooSoon,
            Some(Turn::At(at)) => Next::Wait(Some(until.map_or(at, |until| until.min(at)))),
            _ => Next::Wait(until),
        }
    }

    /// When the files that have changed are to be read.
    #[cfg(feature = "watch")]
    fn watch_due(&mut self, now: Instant) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        if watch.take_change() {
            self.changed.get_or_insert(now);
        }
        self.changed.map(|changed| changed + watch::DEBOUNCE)
    }

    fn reload(&mut self, was_asked: bool) {
        let attempt = self.handle.begin();
        let demanded = self.shared.lock().demanded;
        let result = self.ask();
        let in_force = self.handle.generation();
        let outcome = match &result {
            Ok(Outcome::Newer { .. }) => Reload::Newer,
            // A rotation in this process was faster.
            Ok(Outcome::Same) if self.generation != in_force => Reload::Newer,
            Ok(Outcome::Same) => Reload::Unchanged,
            Err(_) => Reload::Failed,
        };
        self.generation = in_force;
        let now = Instant::now();
        if self.poll.is_some_and(|poll| poll <= now) {
            self.poll = next_poll(&self.settings, now);
        }
        self.pace.ended(now, was_asked, outcome);
        let failed_before = self.note(&result);
        self.handle.end(attempt, outcome);
        let mut state = self.shared.lock();
        (state.met, state.outcome) = (state.met.max(demanded), outcome);
        drop(state);
        self.shared.ended.notify_all();
        self.tell(result, failed_before);
    }

    fn ask(&mut self) -> Result<Outcome, ReloadError> {
        let before = self.handle.generation();
        let answer = self.answer();
        if self.shared.lock().is_stopping {
            // Whoever dropped the refresher does not expect another key.
            return Ok(Outcome::Same);
        }
        self.place.take(answer, &self.handle, before, self.settings.grace)
    }

    fn answer(&mut self) -> Result<Answer, Problem> {
        let profile = self.handle.profile();
        #[cfg(feature = "watch")]
        if let Some(watch) = &self.watch {
            // First, so that what changes while the place is read is seen after it.
            self.changed = None;
            let watch = Arc::clone(watch);
            return self.asker.ask(&self.place, profile, move || watch.arm());
        }
        self.asker.ask(&self.place, profile, || ())
    }

    /// Notes how an attempt ended, and gives how many had failed before it.
    fn note(&self, result: &Result<Outcome, ReloadError>) -> u32 {
        let mut state = self.shared.lock();
        let status = &mut state.status;
        let failed_before = status.failures;
        match result {
            Ok(_) => {
                status.last_success = SystemTime::now();
                (status.failures, status.problem) = (0, None);
            }
            Err(error) => {
                status.failures = status.failures.saturating_add(1);
                status.problem = Some(error.clone());
            }
        }
        failed_before
    }

    fn tell(&mut self, result: Result<Outcome, ReloadError>, failed_before: u32) {
        #[cfg(feature = "watch")]
        self.tell_watching();
        match result {
            Ok(outcome) => {
                if failed_before > 0 {
                    let (provenance, failures) = (self.place.provenance(), failed_before);
                    self.settings.tell(&RefreshEvent::Recovered { provenance, failures });
                }
                self.tell_newer(outcome);
            }
            Err(error) => {
                let failures = failed_before.saturating_add(1);
                self.settings.tell(&RefreshEvent::Failed { error, failures });
            }
        }
    }

    fn tell_newer(&self, outcome: Outcome) {
        if let Outcome::Newer { generation, current, provenance } = outcome {
            self.settings.tell(&match current {
                Ok(fingerprint) => RefreshEvent::Refreshed { generation, fingerprint, provenance },
                Err(closed) => RefreshEvent::Closed { closed, provenance },
            });
        }
    }

    /// Notes whether the files are watched, and tells of it where that is new.
    #[cfg(feature = "watch")]
    fn tell_watching(&self) {
        let Some(watch) = &self.watch else { return };
        let now = watch.state();
        let before = std::mem::replace(&mut self.shared.lock().status.watching, now);
        if let Watching::Failed(problem) = now
            && before != now
        {
            let provenance = self.place.provenance();
            self.settings.tell(&RefreshEvent::NotWatching { provenance, problem });
        }
    }
}
