//! Writing what requests change, behind them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Condvar, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::RegistryError;
use super::record::{Change, Changed, KeyId, RecordError, RecordStore, Seconds, StoredDigest};
use crate::internal::clocks;
#[cfg(feature = "tracing")]
use crate::internal::events::Trace;
use crate::internal::lock::{Lock, recover};

/// How exactly the last use of a key is written, in seconds: what is in memory is exact, what is written is
/// at most so much older.
pub(super) const USE_STEP: u32 = 60;

/// How many keys may have something waiting. Beyond them a last use is not written until the next one, and a
/// key stays under its older pepper until it is used again.
const WAITING: usize = 8192;

/// How long changes are gathered before they are written together; and after a failure, until they are tried
/// again.
const GATHER: Duration = Duration::from_secs(2);

/// How long dropping waits for the last write. A disk that hangs longer does not keep the process from
/// ending.
const PATIENCE: Duration = Duration::from_secs(10);

/// A thread that gathers changes and writes them.
pub(super) struct WriteBehind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Lock<State>,
    /// For the thread: something was asked for.
    asked: Condvar,
    /// For those who asked: it was done.
    done: Condvar,
    #[cfg(feature = "tracing")]
    trace: Trace,
}

/// Held for an instant only, and never while something is written.
#[derive(Default)]
struct State {
    waiting: HashMap<KeyId, Waiting>,
    /// How many flushes were asked for, and how many of them are done.
    flushes: u64,
    flushed: u64,
    failed: Option<RecordError>,
    is_ending: bool,
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waiting {
    used: Option<Seconds>,
    digest: Option<StoredDigest>,
}

impl WriteBehind {
    pub(super) fn start(records: Arc<dyn RecordStore>) -> Result<Self, RegistryError> {
        let shared = Arc::new(Shared {
            state: Lock::default(),
            asked: Condvar::new(),
            done: Condvar::new(),
            #[cfg(feature = "tracing")]
            trace: Trace::here(),
        });
        let end = End(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("keysheath-records".into())
            .spawn(move || {
                end.0.run(&*records);
                // Closed before those who wait for the end are told of it.
                drop(records);
                drop(end);
            })
            .map_err(|error| RecordError::Io(error.kind()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes a change in; never waits for a write. `false` where too many are waiting.
    pub(super) fn note(&self, change: Change) -> bool {
        self.shared.state().note(change)
    }

    /// Has everything written that was noted before, and waits for it.
    pub(super) fn flush(&self) -> Result<(), RecordError> {
        let mut state = self.shared.state();
        state.flushes += 1;
        let mine = state.flushes;
        self.shared.asked.notify_one();
        while state.flushed < mine && !state.has_ended {
            state = recover(self.shared.done.wait(state));
        }
        let ended = RecordError::Io(io::ErrorKind::BrokenPipe);
        let failed = if state.flushed < mine { Some(ended) } else { state.failed };
        failed.map_or(Ok(()), Err)
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        let until = clocks::after(PATIENCE);
        let mut state = self.shared.state();
        state.is_ending = true;
        self.shared.asked.notify_one();
        while !state.has_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = recover(self.shared.done.wait_timeout(state, left)).0;
        }
        drop(state);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, records: &dyn RecordStore) {
        let mut state = self.state();
        loop {
            let due = clocks::after(GATHER);
            while state.flushed == state.flushes && !state.is_ending {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() && !state.waiting.is_empty() {
                    break;
                }
                // Nothing waits, so nothing is due: the next change is gathered for as long as any other.
                let left = if left.is_zero() { GATHER } else { left };
                state = recover(self.asked.wait_timeout(state, left)).0;
            }
            let (asked, is_last) = (state.flushes, state.is_ending);
            let batch = std::mem::take(&mut state.waiting);
            drop(state);
            let outcome = write(records, &batch);
            state = self.state();
            if let Err(error) = outcome {
                state.put_back(batch);
                #[cfg(feature = "tracing")]
                if state.failed.is_none() {
                    self.trace.line(|| {
                        let error = error.to_string();
                        move || tracing::warn!(%error, "last uses of keys could not be written; it is tried again")
                    });
                }
                state.failed = Some(error);
            } else {
                state.failed = None;
            }
            state.flushed = asked;
            self.done.notify_all();
            if is_last {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Tells those who wait that the thread is at its end, even if it panicked.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.done.notify_all();
    }
}

impl State {
    fn note(&mut self, Change { id, what }: Change) -> bool {
        let has_room = self.waiting.len() < WAITING;
        let waiting = match self.waiting.entry(id) {
            Entry::Occupied(waiting) => waiting.into_mut(),
            Entry::Vacant(place) if has_room => place.insert(Waiting::default()),
            Entry::Vacant(_) => return false,
        };
        match what {
            Changed::Used(used) => waiting.used = waiting.used.max(Some(used)),
            Changed::Digest(digest) => waiting.digest = Some(digest),
        }
        true
    }

    /// What could not be written waits for the next time, under what has been noted since. At most twice
    /// [`WAITING`] wait then, and while they do nothing new is taken in.
    fn put_back(&mut self, batch: HashMap<KeyId, Waiting>) {
        for (id, older) in batch {
            let waiting = self.waiting.entry(id).or_default();
            waiting.used = waiting.used.max(older.used);
            waiting.digest = waiting.digest.or(older.digest);
        }
    }
}

fn write(records: &dyn RecordStore, batch: &HashMap<KeyId, Waiting>) -> Result<(), RecordError> {
    if batch.is_empty() {
        return Ok(());
    }
    let changes: Vec<Change> = batch
        .iter()
        .flat_map(|(&id, waiting)| {
            let used = waiting.used.map(Changed::Used);
            let digest = waiting.digest.map(Changed::Digest);
            used.into_iter().chain(digest).map(move |what| Change { id, what })
        })
        .collect();
    records.write_behind(&changes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use std::sync::Mutex;

    use super::*;
    use crate::key::{Profile, StoreId};
    use crate::registry::Peppers;
    use crate::registry::record::{Records, Store, StoredKey, sealed::Sealed};

    /// A store that keeps what is written behind, fails when it is told to, and hangs for as long as it is
    /// told to.
    #[derive(Default)]
    struct Fake {
        written: Mutex<HashMap<KeyId, u32>>,
        fails: AtomicBool,
        panics: AtomicBool,
        hang: Mutex<()>,
    }

    impl Sealed for Arc<Fake> {}

    impl RecordStore for Arc<Fake> {
        fn load(&self, _: &'static Profile, _: &Arc<Peppers>) -> Result<Records, RegistryError> {
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
            assert!(!self.panics.load(Ordering::SeqCst), "as this test wants it");
            if self.fails.load(Ordering::SeqCst) {
                return Err(RecordError::ReadOnly);
            }
            let mut written = self.written.lock().unwrap();
            for change in changes {
                if let Changed::Used(used) = change.what {
                    written.insert(change.id, used.0);
                }
            }
            Ok(())
        }

        fn is_kept(&self) -> bool {
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
    fn what_was_noted_is_written_after_a_flush_and_at_the_end() {
        let (fake, behind) = behind();
        assert!(behind.note(used(1, 60)) && behind.note(used(1, 180)) && behind.note(used(1, 120)));
        assert_eq!(behind.flush(), Ok(()));
        assert_eq!(written(&fake, 1), Some(180), "the latest, in whatever order they came");
        assert!(behind.note(used(2, 60)));
        drop(behind);
        assert_eq!(written(&fake, 2), Some(60));
    }

    #[test]
    fn a_failure_is_told_by_flush_and_tried_again() {
        let (fake, behind) = behind();
        fake.fails.store(true, Ordering::SeqCst);
        assert!(behind.note(used(1, 60)), "a request is not told");
        assert_eq!(behind.flush(), Err(RecordError::ReadOnly));
        assert_eq!(behind.flush(), Err(RecordError::ReadOnly));
        assert!(behind.note(used(1, 120)) && behind.note(used(2, 60)));
        fake.fails.store(false, Ordering::SeqCst);
        assert_eq!(behind.flush(), Ok(()));
        assert_eq!((written(&fake, 1), written(&fake, 2)), (Some(120), Some(60)));
    }

    #[test]
    fn while_a_write_hangs_nobody_waits_and_no_more_is_kept_than_the_bound() {
        let (fake, behind) = behind();
        let hang = fake.hang.lock().unwrap();
        let bound = u32::try_from(WAITING).unwrap();
        let begin = Instant::now();
        let taken = (0..3 * bound).filter(|&key| behind.note(used(key, 60))).count();
        assert!(begin.elapsed() < Duration::from_secs(2), "it waited for the write");
        // One batch may be on its way already.
        assert!((WAITING..=2 * WAITING).contains(&taken), "{taken}");
        assert!(!behind.note(used(u32::MAX, 60)), "there is no more room");
        assert!(behind.note(used(3 * bound - 1, 60)) || behind.note(used(0, 60)), "what waits takes no more");
        drop(hang);
        assert_eq!(behind.flush(), Ok(()));
        assert!(behind.note(used(u32::MAX, 60)), "there is room again");
        assert_eq!(fake.written.lock().unwrap().len(), taken);
    }

    #[test]
    fn under_a_stream_of_uses_that_never_pauses_they_are_written_all_the_same() {
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
    fn a_write_that_panics_leaves_nobody_waiting() {
        let (fake, behind) = behind();
        fake.panics.store(true, Ordering::SeqCst);
        behind.note(used(1, 60));
        assert_eq!(behind.flush(), Err(RecordError::Io(io::ErrorKind::BrokenPipe)));
        assert_eq!(behind.flush(), Err(RecordError::Io(io::ErrorKind::BrokenPipe)));
        drop(behind);
    }
}
