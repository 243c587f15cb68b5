//! Threads: the life cycle of one in the background, a mutex that a panic elsewhere does not make unusable,
//! and foreign code whose panic ends here.
//!
//! [`Worker`] is the owner's side and [`Link`] what the owner shares with what runs in the background. That
//! is a [task](Worker::run), which shares one thread with all others of the process, or a [`Task`] with a
//! thread of its own where there are few of its kind and it blocks most of the time.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Arc, Condvar, LockResult, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant, SystemTime};

use super::events::{self, DroppedEvents, EventThread};
use super::printing::Utc;
use super::{bytes, timer};

/// How long dropping a type that owns a thread blocks at most, unless its documentation says otherwise.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a thread that has announced its end is checked for it.
const POLL: Duration = Duration::from_millis(1);

/// The loop of a background thread.
pub(crate) trait Task: Send + 'static {
    /// Runs until [`Link::is_stopping`].
    fn run(&mut self);

    /// Called on the thread if [`run`](Self::run) has panicked: records it in the status and reports it. The
    /// message of the panic is on standard error.
    fn on_panic(&mut self);
}

/// What a thread shares with its owner.
pub(crate) struct Link<S> {
    shared: Lock<Shared<S>>,
    changed: Condvar,
    /// Wakes a loop that does not wait on this link.
    wake: Box<dyn Fn() + Send + Sync>,
    /// A forked child has a copy of the link, but not the thread.
    process: u32,
}

/// What a [`Link`] guards. The lock is held for moments only.
pub(crate) struct Shared<S> {
    pub(crate) state: S,
    pub(crate) is_stopping: bool,
    pub(crate) has_ended: bool,
    /// Whether what a task has kept is dropped as well.
    has_left: bool,
    /// The thread that drops it.
    leaver: Option<ThreadId>,
    /// Called once: when the thread is stopped, or ends by itself.
    leave: Option<Box<dyn FnOnce() + Send>>,
}

/// Owns a task or a thread in the background, and the thread of its event callback. Dropping it stops both
/// and blocks until they have ended, at most for [`SHUTDOWN_TIMEOUT`] or for the bound of
/// [`set_drop_timeout`](Self::set_drop_timeout).
pub(crate) struct Worker<S: Send + 'static> {
    link: Arc<Link<S>>,
    running: Option<Running>,
    events: Option<EventThread>,
    dropped_events: DroppedEvents,
    drop_timeout: Duration,
}

/// What runs in the background.
enum Running {
    Thread(JoinHandle<()>),
    /// A task, and the thread that it shares.
    Task(ThreadId),
}

/// How a background thread is doing: when its work last succeeded, and what has failed since. Its `Display`
/// is a part of a line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health<P> {
    last_success: SystemTime,
    failures: u32,
    problem: Option<P>,
    dropped_events: u64,
}

impl<P> Health<P> {
    /// Returns when the work last succeeded; at first, when it was started.
    #[must_use]
    pub const fn last_success(&self) -> SystemTime {
        self.last_success
    }

    /// Returns how many attempts have failed since the last success.
    #[must_use]
    pub const fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// Returns why the last attempt failed; `None` if it did not.
    #[must_use]
    pub const fn problem(&self) -> Option<&P> {
        self.problem.as_ref()
    }

    /// Returns how many events were dropped: the callback was blocking and 64 waited for it, or a subscriber
    /// of `tracing` was blocking.
    #[must_use]
    pub const fn dropped_events(&self) -> u64 {
        self.dropped_events
    }

    /// Starts as a success.
    pub(crate) fn new() -> Self {
        Self { last_success: SystemTime::now(), failures: 0, problem: None, dropped_events: 0 }
    }

    /// Records a success, and returns how many attempts had failed before it.
    pub(crate) fn succeed(&mut self, at: SystemTime) -> u32 {
        self.last_success = at;
        self.problem = None;
        std::mem::take(&mut self.failures)
    }

    /// Records a failure, and returns how many attempts have failed with it.
    pub(crate) fn fail(&mut self, problem: P) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.problem = Some(problem);
        self.failures
    }

    pub(crate) const fn set_dropped_events(&mut self, count: u64) {
        self.dropped_events = count;
    }
}

impl<P: fmt::Display> fmt::Display for Health<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "last success {}", Utc(self.last_success))?;
        if let Some(problem) = &self.problem {
            write!(f, ", consecutive failures since: {}; {problem}", self.failures)?;
        }
        if self.dropped_events > 0 {
            write!(
                f,
                "; events dropped because the callback or the subscriber blocks: {}",
                self.dropped_events
            )?;
        }
        Ok(())
    }
}

impl<S: Send + 'static> Worker<S> {
    /// A worker of which nothing runs yet. `wake` wakes a loop that does not wait on the link. `leave` is
    /// called once: when the worker is stopped, or when it ends by itself.
    pub(crate) fn new(
        state: S,
        events: EventThread,
        wake: impl Fn() + Send + Sync + 'static,
        leave: impl FnOnce() + Send + 'static,
    ) -> Self {
        let leave: Option<Box<dyn FnOnce() + Send>> = Some(Box::new(leave));
        let link = Link {
            shared: Lock::new(Shared {
                state,
                is_stopping: false,
                has_ended: false,
                has_left: false,
                leaver: None,
                leave,
            }),
            changed: Condvar::new(),
            wake: Box::new(wake),
            process: process::id(),
        };
        Self {
            link: Arc::new(link),
            running: None,
            dropped_events: events.dropped(),
            events: Some(events),
            drop_timeout: SHUTDOWN_TIMEOUT,
        }
    }

    /// Runs `work` as a task, on the thread that all tasks share: it must neither block nor drop what is
    /// foreign. Another holder of that is `keeps`, which is dropped on a thread that may block, after the end
    /// was announced. `on_panic` is as [`Task::on_panic`].
    pub(crate) fn run(
        &mut self,
        work: impl Future<Output = ()> + Send + 'static,
        on_panic: impl FnOnce() + Send + 'static,
        keeps: impl Send + 'static,
    ) -> std::io::Result<()> {
        let [ending, leaving, leaver] = [(); 3].map(|()| Arc::clone(&self.link));
        let ended = move |has_panicked| {
            if has_panicked {
                contained(on_panic);
            }
            ending.announce_end();
        };
        let leave = move || {
            leaver.lock().leaver = Some(thread::current().id());
            contained(|| drop(keeps));
        };
        let left = move || leaving.announce_leave();
        // A future has room for what it does not hold yet, and is moved as a whole.
        bytes::wipe_stack();
        let (ended, leave, left) = (Box::new(ended), Box::new(leave), Box::new(left));
        let task = timer::Task { work: Box::pin(work), ended, leave, left };
        self.running = Some(Running::Task(timer::start(task)?));
        Ok(())
    }

    /// Starts a thread for this task alone. What the task owns is dropped on it, after the end was announced.
    pub(crate) fn start(&mut self, name: &str, mut task: impl Task) -> std::io::Result<()> {
        let link = Arc::clone(&self.link);
        self.running = Some(Running::Thread(thread::Builder::new().name(name.into()).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| task.run()));
            if outcome.is_err() {
                contained(|| task.on_panic());
            }
            link.announce_end();
            contained(|| drop(task));
            if let Err(payload) = outcome {
                discard(payload);
            }
        })?));
        Ok(())
    }

    pub(crate) const fn link(&self) -> &Arc<Link<S>> {
        &self.link
    }

    /// How many events were dropped.
    pub(crate) fn dropped_events(&self) -> u64 {
        self.dropped_events.count()
    }

    /// Sets how long dropping blocks at most.
    pub(crate) const fn set_drop_timeout(&mut self, timeout: Duration) {
        self.drop_timeout = timeout;
    }

    /// Asks it to end. Returns at once; does nothing in a forked child.
    pub(crate) fn stop(&self) {
        // In a forked child, a lock may be held by a thread that does not exist there.
        if !self.link.is_elsewhere() {
            self.link.stop();
        }
    }

    /// Stops it and blocks until it has ended, then until its last events were passed on: at most for the
    /// timeout. Returns whether all of it has ended. What has not is left behind. In a forked child, and on
    /// one of the threads themselves, nothing is waited for.
    pub(crate) fn end(&mut self, timeout: Duration) -> bool {
        self.stop();
        let events = self.events.take();
        let Some(running) = self.running.take() else { return true };
        if self.link.is_elsewhere() {
            // They are threads of another process: neither joined nor detached.
            std::mem::forget((running, events));
            return false;
        }
        let has_ended = |timeout| self.link.wait(timeout, |shared| shared.has_ended.then_some(())).is_some();
        let has_left = |timeout| self.link.wait(timeout, |shared| shared.has_left.then_some(())).is_some();
        if self.link.lock().leaver == Some(thread::current().id()) {
            return false;
        }
        end(running, events, timeout, has_ended, has_left)
    }
}

impl<S: Send + 'static> Drop for Worker<S> {
    fn drop(&mut self) {
        self.end(self.drop_timeout);
    }
}

impl<S> Link<S> {
    /// Whether this is a copy in a forked child.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.process != process::id()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Reads or changes the state. Does not wake those who wait on the link.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut S) -> R) -> R {
        work(&mut self.lock().state)
    }

    /// Changes the state, and wakes the loop and those who wait on the link.
    pub(crate) fn notify<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = self.with(change);
        self.changed.notify_all();
        (self.wake)();
        result
    }

    /// Blocks until `look` finds something; `None` after the timeout. It is called again after each change.
    pub(crate) fn wait<R>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&mut Shared<S>) -> Option<R>,
    ) -> Option<R> {
        let start = Instant::now();
        let mut shared = self.lock();
        loop {
            if let Some(found) = look(&mut shared) {
                return Some(found);
            }
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return None;
            }
            shared = recover(self.changed.wait_timeout(shared, rest)).0;
        }
    }

    /// Sleeps for this long, or until the thread is asked to end.
    pub(crate) fn sleep(&self, time: Duration) {
        self.wait(time, |shared| shared.is_stopping.then_some(()));
    }

    fn stop(&self) {
        let mut shared = self.lock();
        shared.is_stopping = true;
        self.leave(shared);
        (self.wake)();
    }

    fn announce_end(&self) {
        let mut shared = self.lock();
        shared.has_ended = true;
        self.leave(shared);
    }

    fn announce_leave(&self) {
        self.lock().has_left = true;
        self.changed.notify_all();
    }

    fn leave(&self, mut shared: MutexGuard<'_, Shared<S>>) {
        let leave = shared.leave.take();
        drop(shared);
        self.changed.notify_all();
        if let Some(leave) = leave {
            leave();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared<S>> {
        self.shared.lock()
    }
}

/// Blocks until what was asked to end has ended, then until its last events were passed on. Returns whether
/// all of it has ended; what has not is left behind after the timeout. `has_ended` waits for the end to be
/// announced, and `has_left` for what a task does after that.
fn end(
    running: Running,
    events: Option<EventThread>,
    timeout: Duration,
    has_ended: impl FnOnce(Duration) -> bool,
    has_left: impl FnOnce(Duration) -> bool,
) -> bool {
    let start = Instant::now();
    let rest = || timeout.saturating_sub(start.elapsed());
    // A callback that holds the last reference drops it on its own thread.
    let is_current =
        running.thread() == thread::current().id() || events.as_ref().is_some_and(EventThread::is_current);
    if is_current || !has_ended(timeout) {
        return false;
    }
    let is_gone = match running {
        Running::Thread(thread) => join(thread, rest()),
        Running::Task(_) => has_left(rest()),
    };
    if !is_gone {
        return false;
    }
    let are_passed_on = events.is_none_or(|events| events.end(rest()));
    events::flush(rest());
    are_passed_on
}

impl Running {
    fn thread(&self) -> ThreadId {
        match self {
            Self::Thread(thread) => thread.thread().id(),
            Self::Task(thread) => *thread,
        }
    }
}

/// Joins a thread that has announced its end. Returns false if it hangs in what it drops; it is left behind
/// then.
pub(super) fn join(thread: JoinHandle<()>, timeout: Duration) -> bool {
    let start = Instant::now();
    while !thread.is_finished() {
        if start.elapsed() >= timeout {
            return false;
        }
        thread::sleep(POLL);
    }
    if let Err(payload) = thread.join() {
        discard(payload);
    }
    true
}

/// A value behind a mutex that ignores poisoning.
///
/// Poisoning says that a thread panicked while it held the lock, so the value may be half changed. In this
/// crate each critical section leaves the value whole at every point that can panic: it replaces it as a
/// whole, or makes the change after the last foreign call. Honouring the poison would turn one panic into the
/// failure of every later call.
#[derive(Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Blocks until this thread holds the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        recover(self.0.lock())
    }

    /// Returns the guard, or `None` if another thread holds the lock.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        recover(self.0.get_mut())
    }

    pub(crate) fn into_inner(self) -> T {
        recover(self.0.into_inner())
    }
}

/// Does not take the lock, and does not print the value: it may hold a secret.
impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}

/// Returns the value of a lock or of a wait on a condition variable, poisoned or not, for the reason that
/// [`Lock`] gives.
pub(crate) fn recover<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// Runs foreign code; `None` where it panics. The message of the panic is on standard error.
pub(crate) fn contained<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(foreign)).map_err(discard).ok()
}

/// Drops what a panic carried, which may panic in turn: on a thread's last line that would abort the process.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // It may go on like that, so this one is leaked.
        std::mem::forget(second);
    }
}

#[cfg(test)]
#[path = "../../tests/units/internal/threads.rs"]
mod tests;
