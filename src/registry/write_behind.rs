//! Writes what requests change, after them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::RegistryError;
use super::record::{Change, Changed, KeyId, RecordError, RecordStore, Seconds, StoredDigest};
use crate::internal::events::{Event, EventSender, trace_line};
use crate::internal::files::FileProblem;
use crate::internal::threads::{Health, Link, Task, Worker};

/// The step in which the last use of a key is written, in seconds. The last use in memory is exact; the
/// written one is older by less than a step.
pub(super) const USE_STEP: u32 = 60;

/// How many keys may have changes in the queue. Beyond them, a last use is not written until the next one,
/// and a key stays under its older pepper until its next use.
const CAPACITY: usize = 8192;

/// How long changes are gathered before they are written together, and the wait before a retry.
const GATHER: Duration = Duration::from_secs(2);

/// How long [`WriteBehind::flush`] waits for the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long dropping waits for the last write. A disk that hangs longer does not keep the process from
/// ending.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// A thread that gathers changes and writes them.
pub(super) struct WriteBehind {
    worker: Worker<State>,
}

/// Locked only for an instant, and never while something is written.
struct State {
    queue: HashMap<KeyId, Queued>,
    /// How many flushes were requested, and how many of them are done.
    requested: u64,
    flushed: u64,
    health: Health<RecordError>,
}

#[derive(Clone, Copy, Default)]
struct Queued {
    used: Option<Seconds>,
    digest: Option<StoredDigest>,
}

/// The loop of the thread.
struct Writing {
    link: Arc<Link<State>>,
    records: Arc<dyn RecordStore>,
    events: EventSender<NotWritten>,
}

/// The first of several failures to write.
#[derive(Clone, Copy)]
struct NotWritten(RecordError);

impl Event for NotWritten {
    fn trace(&self) {
        trace_line!(warn: error = %self.0, "last uses of keys could not be written; retrying");
    }
}

/// Returns that the records could not be written.
const fn unwritten(kind: io::ErrorKind) -> RecordError {
    RecordError::File(FileProblem::Unwritable(kind))
}

impl WriteBehind {
    pub(super) fn start(records: Arc<dyn RecordStore>) -> Result<Self, RegistryError> {
        let failed = |error: io::Error| unwritten(error.kind());
        let (events, thread) = EventSender::start(None).map_err(failed)?;
        let state = State { queue: HashMap::new(), requested: 0, flushed: 0, health: Health::new() };
        let mut worker = Worker::new(state, thread, || (), || ());
        worker.set_drop_timeout(DROP_TIMEOUT);
        let link = Arc::clone(worker.link());
        worker.start("keysheath-records", Writing { link, records, events }).map_err(failed)?;
        Ok(Self { worker })
    }

    /// Queues a change; never waits for a write. Returns `false` if the queue is full.
    pub(super) fn note(&self, change: Change) -> bool {
        self.worker.link().with(|state| state.note(change))
    }

    /// Writes everything that was noted before, and blocks until that is done.
    pub(super) fn flush(&self) -> Result<(), RecordError> {
        let link = self.worker.link();
        let ended = unwritten(io::ErrorKind::BrokenPipe);
        if link.is_elsewhere() {
            return Err(ended);
        }
        let mine = link.notify(|state| {
            state.requested += 1;
            state.requested
        });
        let outcome = link.wait(FLUSH_TIMEOUT, |shared| match shared.state.health.problem() {
            failed if shared.state.flushed >= mine => Some(failed.copied().map_or(Ok(()), Err)),
            _ if shared.has_ended => Some(Err(ended)),
            _ => None,
        });
        outcome.unwrap_or(Err(unwritten(io::ErrorKind::TimedOut)))
    }

    /// Writes what is queued, and ends the thread. Returns whether that was done within the timeout. A panic
    /// in a write has lost its changes.
    pub(super) fn close(mut self, timeout: Duration) -> bool {
        let is_written = |state: &mut State| state.queue.is_empty() && state.health.problem().is_none();
        self.worker.end(timeout) && self.worker.link().with(is_written)
    }

    pub(super) fn health(&self) -> Health<RecordError> {
        let mut health = self.worker.link().with(|state| state.health.clone());
        health.set_dropped_events(self.worker.dropped_events());
        health
    }
}

impl Task for Writing {
    fn run(&mut self) {
        loop {
            let is_due = |state: &State| state.flushed != state.requested;
            self.link.wait(GATHER, |shared| (is_due(&shared.state) || shared.is_stopping).then_some(()));
            let is_last = self.link.is_stopping();
            let (requested, batch) =
                self.link.with(|state| (state.requested, std::mem::take(&mut state.queue)));
            let outcome = write(&*self.records, &batch);
            let is_first_failure = self.link.notify(|state| {
                state.flushed = requested;
                match outcome {
                    Ok(()) if batch.is_empty() => false,
                    Ok(()) => {
                        state.health.succeed(SystemTime::now());
                        false
                    }
                    Err(error) => {
                        state.put_back(batch);
                        state.health.fail(error) == 1
                    }
                }
            });
            if let (Err(error), true) = (outcome, is_first_failure) {
                self.events.send(NotWritten(error));
            }
            if is_last {
                return;
            }
        }
    }

    fn on_panic(&mut self) {
        self.link.notify(|state| state.health.fail(unwritten(io::ErrorKind::BrokenPipe)));
    }
}

impl State {
    fn note(&mut self, Change { id, what }: Change) -> bool {
        let has_room = self.queue.len() < CAPACITY;
        let queued = match self.queue.entry(id) {
            Entry::Occupied(queued) => queued.into_mut(),
            Entry::Vacant(place) if has_room => place.insert(Queued::default()),
            Entry::Vacant(_) => return false,
        };
        match what {
            Changed::Used(used) => queued.used = queued.used.max(Some(used)),
            Changed::Digest(digest) => queued.digest = Some(digest),
        }
        true
    }

    /// Queues what could not be written, below newer changes. The queue then has at most twice [`CAPACITY`],
    /// and takes no new key until it is below that again.
    fn put_back(&mut self, batch: HashMap<KeyId, Queued>) {
        for (id, older) in batch {
            let queued = self.queue.entry(id).or_default();
            queued.used = queued.used.max(older.used);
            queued.digest = queued.digest.or(older.digest);
        }
    }
}

fn write(records: &dyn RecordStore, batch: &HashMap<KeyId, Queued>) -> Result<(), RecordError> {
    if batch.is_empty() {
        return Ok(());
    }
    let changes: Vec<Change> = batch
        .iter()
        .flat_map(|(&id, queued)| {
            let used = queued.used.map(Changed::Used);
            let digest = queued.digest.map(Changed::Digest);
            used.into_iter().chain(digest).map(move |what| Change { id, what })
        })
        .collect();
    records.write_behind(&changes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use std::sync::Mutex;

    use super::*;
    use crate::key::{Profile, StoreId};
    use crate::registry::Pepper;
    use crate::registry::record::{Records, Store, StoredKey};

    /// A store that records what is written, and fails, panics or hangs on demand.
    #[derive(Default)]
    struct Fake {
        written: Mutex<HashMap<KeyId, u32>>,
        fails: AtomicBool,
        panics: AtomicBool,
        hang: Mutex<()>,
    }

    impl RecordStore for Arc<Fake> {
        fn load(&self, _: &'static Profile, _: &Arc<Pepper>) -> Result<Records, RegistryError> {
            unreachable!()
        }

        fn insert(&self, _: &StoredKey) -> Result<(), RecordError> {
            unreachable!()
        }

        fn delete(&self, _: KeyId) -> Result<(), RecordError> {
            unreachable!()
        }

        fn put_store(&self, _: StoreId, _: Store) -> Result<(), RecordError> {
            unreachable!()
        }

        fn write_behind(&self, changes: &[Change]) -> Result<(), RecordError> {
            drop(self.hang.lock());
            assert!(!self.panics.load(Ordering::SeqCst), "as this test demands");
            if self.fails.load(Ordering::SeqCst) {
                return Err(RecordError::from(FileProblem::ReadOnly));
            }
            let mut written = self.written.lock().unwrap();
            for change in changes {
                if let Changed::Used(used) = change.what {
                    written.insert(change.id, used.0);
                }
            }
            Ok(())
        }

        fn is_persistent(&self) -> bool {
            true
        }
    }

    fn behind() -> (Arc<Fake>, WriteBehind) {
        let fake = Arc::new(Fake::default());
        let behind = WriteBehind::start(Arc::new(Arc::clone(&fake))).unwrap();
        (fake, behind)
    }

    fn used(key: u32, seconds: u32) -> Change {
        Change { id: KeyId::new(key), what: Changed::Used(Seconds(seconds)) }
    }

    fn written(fake: &Fake, key: u32) -> Option<u32> {
        fake.written.lock().unwrap().get(&KeyId::new(key)).copied()
    }

    #[test]
    fn a_change_is_written_by_a_flush_and_at_the_end() {
        let (fake, behind) = behind();
        assert!(behind.note(used(1, 60)) && behind.note(used(1, 180)) && behind.note(used(1, 120)));
        assert_eq!(behind.flush(), Ok(()));
        assert_eq!(written(&fake, 1), Some(180), "the latest, in any order");
        assert!(behind.note(used(2, 60)));
        assert!(behind.close(Duration::from_secs(10)));
        assert_eq!(written(&fake, 2), Some(60));
    }

    #[test]
    fn a_failure_is_returned_by_flush_and_retried() {
        let (fake, behind) = behind();
        fake.fails.store(true, Ordering::SeqCst);
        assert!(behind.note(used(1, 60)), "a request does not fail");
        assert_eq!(behind.flush(), Err(RecordError::from(FileProblem::ReadOnly)));
        assert_eq!(behind.flush(), Err(RecordError::from(FileProblem::ReadOnly)));
        assert!(behind.note(used(1, 120)) && behind.note(used(2, 60)));
        fake.fails.store(false, Ordering::SeqCst);
        assert_eq!(behind.flush(), Ok(()));
        assert_eq!((written(&fake, 1), written(&fake, 2)), (Some(120), Some(60)));
        assert_eq!(behind.health().consecutive_failures(), 0);
    }

    #[test]
    fn closing_says_whether_the_last_write_succeeded_in_time() {
        let (fake, failing) = behind();
        fake.fails.store(true, Ordering::SeqCst);
        assert!(failing.note(used(1, 60)));
        assert!(!failing.close(Duration::from_secs(10)), "the last write failed");

        let (fake, hanging) = behind();
        assert!(hanging.note(used(1, 60)));
        let hang = fake.hang.lock().unwrap();
        let begin = Instant::now();
        assert!(!hanging.close(Duration::from_millis(100)), "the last write hangs");
        assert!(begin.elapsed() < Duration::from_secs(2), "it waited for the write");
        drop(hang);
    }

    #[test]
    fn a_hanging_write_blocks_no_caller_and_the_queue_is_bounded() {
        let (fake, behind) = behind();
        let hang = fake.hang.lock().unwrap();
        let bound = u32::try_from(CAPACITY).unwrap();
        let begin = Instant::now();
        let taken = (0..3 * bound).filter(|&key| behind.note(used(key, 60))).count();
        assert!(begin.elapsed() < Duration::from_secs(2), "it waited for the write");
        // One batch may be in the hanging write already.
        assert!((CAPACITY..=2 * CAPACITY).contains(&taken), "{taken}");
        assert!(!behind.note(used(u32::MAX, 60)), "there is no more room");
        assert!(
            behind.note(used(3 * bound - 1, 60)) || behind.note(used(0, 60)),
            "no queued key takes a newer use"
        );
        drop(hang);
        assert_eq!(behind.flush(), Ok(()));
        assert!(behind.note(used(u32::MAX, 60)), "there is room again");
        assert_eq!(fake.written.lock().unwrap().len(), taken);
    }

    #[test]
    fn under_a_constant_stream_of_uses_they_are_still_written() {
        let (fake, behind) = behind();
        let until = Instant::now() + 3 * GATHER;
        let mut at = 1;
        while written(&fake, 1).is_none() {
            assert!(Instant::now() < until, "nothing was written");
            behind.note(used(1, at));
            at += 1;
        }
    }

    #[test]
    fn a_write_that_panics_leaves_no_caller_blocked() {
        let (fake, behind) = behind();
        fake.panics.store(true, Ordering::SeqCst);
        behind.note(used(1, 60));
        assert_eq!(behind.flush(), Err(unwritten(io::ErrorKind::BrokenPipe)));
        assert_eq!(behind.flush(), Err(unwritten(io::ErrorKind::BrokenPipe)));
        assert!(!behind.close(Duration::from_secs(10)), "the change is lost");
    }
}
