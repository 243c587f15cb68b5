//! The thread that shows a process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use event_listener::Listener as _;

use super::{Fleet, PresenceError, PresenceRecord, PresenceSettings, PresenceStatus};
use crate::back_off::{doubled, random_part};
use crate::document::{DocumentError, DocumentStore};
use crate::handle::{InUse, Uses};
#[cfg(feature = "tracing")]
use crate::internal::events::Trace;

/// The longest pause between two tries when others write at the same time; it grows to that.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What the thread and those who ask it share.
pub(super) struct Shared {
    status: Mutex<PresenceStatus>,
    is_stopping: AtomicBool,
    has_ended: Mutex<bool>,
    ended: Condvar,
}

/// Shows one process.
pub(super) struct Runner {
    pub(super) store: Box<dyn DocumentStore>,
    pub(super) uses: Uses,
    pub(super) settings: PresenceSettings,
    pub(super) process: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) unchanged: RefCell<Unchanged>,
    #[cfg(feature = "tracing")]
    pub(super) trace: Trace,
}

/// Since when each record has been as it is, by a clock that nobody sets: what is to be forgotten must have been silent
/// before these eyes.
#[derive(Default)]
pub(super) struct Unchanged(HashMap<u64, (SystemTime, Instant)>);

impl Unchanged {
    fn look(&mut self, records: &[PresenceRecord], now: Instant) {
        let seen = |record: &PresenceRecord| {
            let before = self.0.get(&record.process).filter(|(shown, _)| *shown == record.shown());
            (record.process, before.copied().unwrap_or((record.shown(), now)))
        };
        self.0 = records.iter().map(seen).collect();
    }

    fn time_of(&self, record: &PresenceRecord, now: Instant) -> Duration {
        self.0.get(&record.process).map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        let status = PresenceStatus { shown: SystemTime::now(), failures: 0, problem: None };
        Self {
            status: Mutex::new(status),
            is_stopping: AtomicBool::new(false),
            has_ended: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    pub(super) fn status(&self) -> MutexGuard<'_, PresenceStatus> {
        // Each change is made as a whole, so a panic elsewhere has left none half-way.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wake the thread afterwards.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Blocks until the thread has ended; false after the timeout.
    pub(super) fn wait_for_end(&self, timeout: Duration) -> bool {
        let ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(ended, timeout, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
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
        *self.0.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.ended.notify_all();
    }
}

impl Runner {
    /// Shows what is in use now, and says what that is.
    pub(super) fn show(&self) -> Result<InUse, PresenceError> {
        self.change(|fleet| {
            if self.shared.is_stopping() {
                return Ok(None);
            }
            // Looked at again for each try: what is shown late is to be what is so then.
            let (in_use, now) = (self.uses.now(), SystemTime::now());
            let ttl = self.settings.time_to_live();
            let record = PresenceRecord::new(self.process, &self.settings.name, in_use, now, ttl);
            if self.settings.is_unique {
                fleet.remove_named(&record);
            }
            let (mut unchanged, seen_at) = (self.unchanged.borrow_mut(), Instant::now());
            unchanged.look(fleet.records(), seen_at);
            fleet.forget(now, |there| unchanged.time_of(there, seen_at));
            fleet.put(record)?;
            Ok(Some(in_use))
        })
        .map(|shown| shown.unwrap_or_else(|| self.uses.now()))
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
                    if begun.elapsed() + pause > self.settings.patience() {
                        return Err(PresenceError::Contended { attempts });
                    }
                    thread::sleep(pause);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Shows what is in use, as it was shown first, until it is told to stop.
    pub(super) fn run(self, mut shown: InUse) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut failures = 0;
        let mut renewal = after(self.settings.renewal());
        // When a change is to be shown.
        let mut change: Option<Instant> = None;
        loop {
            let news = self.uses.news();
            if self.shared.is_stopping() {
                // Where it cannot be said, the time to live says it.
                let _ = self.leave();
                return;
            }
            let now = Instant::now();
            // One that could not be shown is tried again after the rest of that.
            let is_change = failures == 0 && self.uses.now() != shown;
            change =
                change.filter(|_| is_change).or_else(|| is_change.then(|| after(self.settings.spread())));
            let due = change.map_or(renewal, |change| change.min(renewal));
            if now < due {
                let _ = news.wait_deadline(due);
                continue;
            }
            change = None;
            match self.show() {
                Ok(now_shown) => {
                    (shown, failures) = (now_shown, 0);
                    renewal = after(self.settings.renewal());
                    let mut status = self.shared.status();
                    (status.shown, status.failures, status.problem) = (SystemTime::now(), 0, None);
                }
                Err(problem) => {
                    let (first, longest) = self.settings.rests();
                    renewal = after(doubled(first, failures, longest).mul_f64(1.0 - random_part() / 2.0));
                    failures = failures.saturating_add(1);
                    #[cfg(feature = "tracing")]
                    self.trace.line(|| {
                        let problem = problem.to_string();
                        move || tracing::warn!(%problem, failures, "this process cannot show which key it uses")
                    });
                    let mut status = self.shared.status();
                    (status.failures, status.problem) = (failures, Some(problem));
                }
            }
        }
    }
}

fn after(time: Duration) -> Instant {
    Instant::now() + time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_unchanged_since_it_was_seen_first_as_it_is() {
        let nothing = InUse { generation: None, oldest: None, key: None, begun: None, refused: None };
        let shown = |process, second| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            PresenceRecord::new(process, "a", nothing, at, 600)
        };
        let (mut unchanged, start) = (Unchanged::default(), Instant::now());
        let minute = |count: u32| start + Duration::from_secs(60) * count;
        let (silent, living) = (shown(1, 5), shown(2, 5));
        assert_eq!(unchanged.time_of(&silent, start), Duration::ZERO, "it was never seen");
        unchanged.look(&[silent.clone(), living], start);
        let living = shown(2, 300);
        unchanged.look(&[silent.clone(), living.clone()], minute(5));
        assert_eq!(unchanged.time_of(&silent, minute(9)), Duration::from_secs(9 * 60));
        assert_eq!(unchanged.time_of(&living, minute(9)), Duration::from_secs(4 * 60));
        unchanged.look(&[], minute(10));
        assert_eq!(unchanged.time_of(&silent, minute(10)), Duration::ZERO, "who comes again is new");
    }
}
