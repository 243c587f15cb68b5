//! Work that may hang: with a deadline, and on a bounded number of threads.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Problem;

/// How long a source may take unless told otherwise: 30 s, so that a person can answer a prompt.
///
/// ```
/// assert_eq!(keysheath::source::DEFAULT_DEADLINE.as_secs(), 30);
/// ```
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// How many calls to one place (a file, a program with its arguments, a service of the keychain) may be under way at once in this
/// process, however many sources name it. A further call waits for its turn until its deadline; once as many calls
/// hang past theirs, further calls fail at once.
///
/// ```
/// assert_eq!(keysheath::source::MAX_CALLS_PER_PLACE, 4);
/// ```
pub const MAX_CALLS_PER_PLACE: usize = 4;

/// How many calls to all places together may be under way at once in this process. Each has a thread of its own, that
/// of a command two.
///
/// ```
/// assert_eq!(keysheath::source::MAX_CALLS, 64);
/// ```
pub const MAX_CALLS: usize = 64;

/// Runs calls on threads of their own. A call that nobody waits for any more is left behind and counted
/// until it returns, if it ever does; what it returns then is dropped, and so wiped.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    deadline: Duration,
    /// Whether its calls are among the [`MAX_CALLS`].
    is_counted: bool,
}

/// What a call is made to: a hash, because the name of a place may be a key in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) fn of(kind: &str, name: &impl Hash) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(HASHER.hash_one((kind, name)))
    }
}

/// The calls under way in this process.
#[derive(Default)]
struct Calls {
    places: HashMap<Place, Count>,
    all: usize,
}

#[derive(Clone, Copy, Default)]
struct Count {
    under_way: usize,
    left_behind: usize,
}

static CALLS: LazyLock<Mutex<Calls>> = LazyLock::new(Mutex::default);
static RETURNED: Condvar = Condvar::new();

fn calls() -> MutexGuard<'static, Calls> {
    // Each change is made as a whole, so a panic elsewhere has left none half-way.
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to one call; all threads of the call share it, and it ends with the last of them.
pub(crate) struct Permit {
    place: Place,
    is_counted: bool,
    left_behind: Mutex<bool>,
}

impl Permit {
    /// Waits for a turn, at most for `patience`.
    fn take(place: Place, is_counted: bool, patience: Duration) -> Result<Arc<Self>, Problem> {
        let start = Instant::now();
        let mut calls = calls();
        loop {
            let count = calls.places.get(&place).copied().unwrap_or_default();
            if count.left_behind >= MAX_CALLS_PER_PLACE {
                return Err(Problem::Stuck { count: count.left_behind });
            }
            if count.under_way < MAX_CALLS_PER_PLACE && (calls.all < MAX_CALLS || !is_counted) {
                calls.all += usize::from(is_counted);
                calls.places.entry(place).or_default().under_way += 1;
                return Ok(Arc::new(Self { place, is_counted, left_behind: Mutex::new(false) }));
            }
            let rest = patience.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return Err(Problem::Deadline { after: patience });
            }
            calls = RETURNED.wait_timeout(calls, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes that nobody waits for this call any more. Where it returns, that is undone.
    fn leave_behind(&self) {
        if let Some(count) = calls().places.get_mut(&self.place) {
            count.left_behind += 1;
            *self.left_behind.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
        RETURNED.notify_all();
    }

    /// Starts another thread of the same call.
    pub(super) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Receiver<T>, Problem> {
        let (sender, result) = mpsc::sync_channel(1);
        let permit = Arc::clone(self);
        thread::Builder::new()
            .name("keysheath-source".into())
            .spawn(move || {
                let done = work();
                drop(permit);
                // Nobody may be waiting any more; then the result is dropped here.
                let _ = sender.send(done);
            })
            .map_err(|error| Problem::Unreadable(error.kind()))?;
        Ok(result)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left_behind = *self.left_behind.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut calls = calls();
        calls.all -= usize::from(self.is_counted);
        if let Some(count) = calls.places.get_mut(&self.place) {
            count.under_way -= 1;
            count.left_behind -= usize::from(left_behind);
            if count.under_way == 0 {
                calls.places.remove(&self.place);
            }
        }
        drop(calls);
        RETURNED.notify_all();
    }
}

impl Worker {
    pub(crate) const fn new() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: true }
    }

    /// A worker whose calls make calls of their own, to what [`Worker::new`] runs. They are bounded by place only: were
    /// they among the [`MAX_CALLS`], as many of them could have every turn, and wait for one.
    #[cfg(feature = "rotation")]
    pub(crate) const fn around_others() -> Self {
        Self { deadline: DEFAULT_DEADLINE, is_counted: false }
    }

    pub(crate) const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs `work` on `place` to its end or to the deadline.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.run_with(place, Duration::ZERO, |_| work())
    }

    /// As [`Worker::run`], for work that keeps the deadline itself and may need `extra` time to put an end to things,
    /// and that starts more threads. The call is under way until the last of them has ended.
    pub(crate) fn run_with<T: Send + 'static>(
        &self,
        place: Place,
        extra: Duration,
        work: impl FnOnce(&Arc<Permit>) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        let permit = Permit::take(place, self.is_counted, self.deadline)?;
        let own = Arc::clone(&permit);
        let result = permit.spawn(move || work(&own))?;
        let patience = self.deadline.saturating_add(extra).saturating_sub(start.elapsed());
        let outcome = result.recv_timeout(patience);
        // Another holder is a thread that goes on; one that has answered holds it no more.
        if Arc::strong_count(&permit) > 1 {
            permit.leave_behind();
        }
        outcome.map_err(|error| match error {
            RecvTimeoutError::Timeout => Problem::Deadline { after: self.deadline },
            // The work panicked; the message is on standard error, and holds nothing of ours.
            RecvTimeoutError::Disconnected => Problem::Unreachable,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// A place that no other test calls.
    fn place(name: &str) -> Place {
        Place::of("test", &name)
    }

    #[test]
    fn work_that_hangs_is_left_behind_counted_and_bounded_whoever_asks() {
        let place = place("hangs");
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..MAX_CALLS_PER_PLACE {
            let held = Arc::clone(&held);
            let worker = Worker::new().with_deadline(Duration::from_millis(20));
            let outcome = worker.run(place, move || drop(held.lock().map(|held| held.recv())));
            assert!(matches!(outcome, Err(Problem::Deadline { .. })));
        }
        let stuck = Worker::new().run(place, || ());
        assert_eq!(stuck, Err(Problem::Stuck { count: MAX_CALLS_PER_PLACE }));
        assert_eq!(Worker::new().run(Place::of("test", &"another"), || 7), Ok(7));
        drop(release);
        let patience = Instant::now() + Duration::from_secs(10);
        while Worker::new().run(place, || ()).is_err() {
            assert!(Instant::now() < patience, "the calls were not counted off");
        }
    }

    #[test]
    fn many_calls_at_once_take_turns_and_all_are_answered() {
        let place = place("turns");
        let at_once = Arc::new(Mutex::new((0, 0)));
        thread::scope(|scope| {
            for _ in 0..40 {
                let at_once = Arc::clone(&at_once);
                scope.spawn(move || {
                    let outcome = Worker::new().run(place, move || {
                        let mut counts = at_once.lock().unwrap();
                        counts.0 += 1;
                        counts.1 = counts.1.max(counts.0);
                        drop(counts);
                        thread::sleep(Duration::from_millis(5));
                        at_once.lock().unwrap().0 -= 1;
                        at_once.lock().unwrap().1
                    });
                    assert!(outcome.unwrap() <= MAX_CALLS_PER_PLACE);
                });
            }
        });
        assert!(!calls().places.contains_key(&place), "every call was counted off");
    }

    #[test]
    fn calls_that_are_answered_never_count_as_hanging_however_many_there_are() {
        let place = place("many");
        let barrier = Barrier::new(64);
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..100 {
                        assert_eq!(Worker::new().run(place, || 7), Ok(7));
                    }
                });
            }
        });
    }

    #[test]
    fn a_call_that_waits_for_its_turn_keeps_its_deadline() {
        let place = place("waits");
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        thread::scope(|scope| {
            for _ in 0..MAX_CALLS_PER_PLACE {
                let held = Arc::clone(&held);
                scope.spawn(move || {
                    Worker::new().run(place, move || drop(held.lock().map(|held| held.recv())))
                });
            }
            while calls().places.get(&place).is_none_or(|count| count.under_way < MAX_CALLS_PER_PLACE) {
                thread::yield_now();
            }
            let after = Duration::from_millis(20);
            let outcome = Worker::new().with_deadline(after).run(place, || ());
            assert_eq!(outcome, Err(Problem::Deadline { after }));
            drop(release);
        });
        assert_eq!(Worker::new().run(place, || 7), Ok(7));
    }

    #[test]
    fn a_call_is_under_way_until_its_last_thread_has_ended() {
        let place = place("threads");
        let (release, held) = mpsc::channel::<()>();
        let outcome = Worker::new().run_with(place, Duration::ZERO, move |permit| {
            permit.spawn(move || held.recv().is_err()).unwrap()
        });
        let still = calls().places[&place];
        assert_eq!((still.under_way, still.left_behind), (1, 1));
        drop(release);
        assert_eq!(outcome.unwrap().recv(), Ok(true));
    }

    #[test]
    fn work_that_panics_is_an_error_and_does_not_count_as_stuck() {
        let place = place("panics");
        for _ in 0..=MAX_CALLS_PER_PLACE {
            let outcome: Result<(), Problem> =
                Worker::new().run(place, || std::panic::resume_unwind(Box::new(())));
            assert_eq!(outcome, Err(Problem::Unreachable));
        }
        assert_eq!(Worker::new().run(place, || 7), Ok(7));
    }

    #[cfg(feature = "rotation")]
    #[test]
    fn calls_around_others_leave_every_turn_to_those() {
        let gate = Arc::new(Barrier::new(2 * MAX_CALLS + 1));
        let calls: Vec<_> = (0..2 * MAX_CALLS)
            .map(|number| {
                let gate = Arc::clone(&gate);
                let outer = Place::of("test around", &number);
                thread::spawn(move || {
                    Worker::around_others().run(outer, move || {
                        gate.wait();
                        Worker::new().run(Place::of("test within", &number), || 7)
                    })
                })
            })
            .collect();
        // All of them are under way now, and none has made its own call.
        gate.wait();
        for call in calls {
            assert_eq!(call.join().unwrap(), Ok(Ok(7)));
        }
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_no_panic() {
        let worker = Worker::new().with_deadline(Duration::MAX);
        assert_eq!(worker.run(place("clock"), || 7), Ok(7));
    }
}
