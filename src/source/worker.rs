//! Work that may hang, with a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::Problem;

/// How long a source may take unless told otherwise: 30 s, so that a person can answer a prompt.
///
/// ```
/// assert_eq!(keysheath::source::DEFAULT_DEADLINE.as_secs(), 30);
/// ```
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// How many calls of one source may hang at once; past that, further calls fail at once.
///
/// ```
/// assert_eq!(keysheath::source::MAX_STUCK, 4);
/// ```
pub const MAX_STUCK: usize = 4;

/// Runs calls on threads of their own. A call that nobody waits for any more is left behind and counted
/// until it returns, if it ever does; what it returns then is dropped, and so wiped.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    deadline: Duration,
    stuck: Arc<AtomicUsize>,
}

/// One call under way.
pub(super) struct Call<T> {
    result: Receiver<T>,
    end: Arc<End>,
}

/// Who came to the end of a call first: the call itself, or the patience of who waited for it.
struct End {
    state: AtomicU8,
    stuck: Arc<AtomicUsize>,
}

const RUNNING: u8 = 0;
const LEFT_BEHIND: u8 = 1;
const RETURNED: u8 = 2;

impl End {
    fn returned(&self) {
        if self.state.swap(RETURNED, Ordering::AcqRel) == LEFT_BEHIND {
            self.stuck.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn left_behind(&self) {
        self.stuck.fetch_add(1, Ordering::AcqRel);
        let claimed = self.state.compare_exchange(RUNNING, LEFT_BEHIND, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_err() {
            self.stuck.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Notes the end of the work, also when it panics.
struct NoteEnd(Arc<End>);

impl Drop for NoteEnd {
    fn drop(&mut self) {
        self.0.returned();
    }
}

impl<T> Call<T> {
    /// Waits for the result.
    pub(super) fn wait(&self, time: Duration) -> Result<T, RecvTimeoutError> {
        self.result.recv_timeout(time)
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.end.left_behind();
    }
}

impl Worker {
    pub(super) fn new() -> Self {
        Self { deadline: DEFAULT_DEADLINE, stuck: Arc::default() }
    }

    pub(super) const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Starts `work` on a thread of its own.
    pub(super) fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Call<T>, Problem> {
        let count = self.stuck.load(Ordering::Acquire);
        if count >= MAX_STUCK {
            return Err(Problem::Stuck { count });
        }
        let end = Arc::new(End { state: AtomicU8::new(RUNNING), stuck: Arc::clone(&self.stuck) });
        let (sender, result) = mpsc::sync_channel(1);
        let note = NoteEnd(Arc::clone(&end));
        thread::Builder::new()
            .name("keysheath-source".into())
            .spawn(move || {
                let done = work();
                drop(note);
                // Nobody may be waiting any more; then the result is dropped here.
                let _ = sender.send(done);
            })
            .map_err(|error| Problem::Unreadable(error.kind()))?;
        Ok(Call { result, end })
    }

    /// Runs `work` to its end or to the deadline.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        match self.start(work)?.wait(self.deadline) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => Err(Problem::Deadline { after: self.deadline }),
            // The work panicked; the message is on standard error, and holds nothing of ours.
            Err(RecvTimeoutError::Disconnected) => Err(Problem::Unreachable),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_that_hangs_is_left_behind_counted_and_bounded() {
        let worker = Worker::new().with_deadline(Duration::from_millis(20));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..MAX_STUCK {
            let held = Arc::clone(&held);
            let outcome = worker.run(move || drop(held.lock().map(|held| held.recv())));
            assert!(matches!(outcome, Err(Problem::Deadline { .. })));
        }
        assert!(matches!(worker.run(|| ()), Err(Problem::Stuck { count: MAX_STUCK })));
        drop(release);
        let patience = Instant::now() + Duration::from_secs(10);
        while worker.run(|| ()).is_err() {
            assert!(Instant::now() < patience, "the calls were not counted off");
        }
    }

    #[test]
    fn calls_that_are_answered_in_time_are_not_bounded() {
        let worker = Worker::new();
        let barrier = Arc::new(std::sync::Barrier::new(MAX_STUCK * 3));
        thread::scope(|scope| {
            for _ in 0..MAX_STUCK * 3 {
                let (worker, barrier) = (worker.clone(), Arc::clone(&barrier));
                scope.spawn(move || assert!(worker.run(move || barrier.wait().is_leader()).is_ok()));
            }
        });
    }

    #[test]
    fn work_that_panics_is_an_error_and_does_not_count_as_stuck() {
        let worker = Worker::new();
        for _ in 0..=MAX_STUCK {
            let outcome: Result<(), Problem> = worker.run(|| std::panic::resume_unwind(Box::new(())));
            assert_eq!(outcome, Err(Problem::Unreachable));
        }
        assert_eq!(worker.run(|| 7), Ok(7));
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_no_panic() {
        let worker = Worker::new().with_deadline(Duration::MAX);
        assert_eq!(worker.run(|| 7), Ok(7));
    }
}
