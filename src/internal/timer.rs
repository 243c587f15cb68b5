//! One thread in the process for all tasks in the background, however many there are.
//!
//! A task is a future that waits for [news](news_until), for a time, and for [calls](call) of what may block.
//! The thread polls those whose turn has come, and never blocks itself: whatever may block, or is foreign
//! (sources, stores, their `Drop`), is called on another thread. What remains of foreign code are the wakers
//! of an application's own tasks, which no async runtime lets block either.
//!
//! Unlike the executors of other crates, it knows of forks: a child has no thread, and starts one of its own
//! with its first task.

mod calling;
mod ready;

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Instant;

use super::bytes::wipe_stack;
use super::threads::{Lock, contained};
use ready::Ready;

#[cfg(feature = "rotation")]
pub(crate) use calling::{Begin, Worked, after_no_thread, call, work_on};

/// What the list of ready tasks stands on. The models put the checkers' in the place of these.
mod sync {
    use std::sync::MutexGuard;
    use std::time::Instant;

    use crate::internal::threads::recover;

    pub(super) use std::sync::{Condvar, Mutex};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        recover(mutex.lock())
    }

    /// Blocks until the variable is notified, or until then.
    pub(super) fn wait_on<'a, T>(
        variable: &Condvar,
        guard: MutexGuard<'a, T>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, T> {
        match until {
            None => recover(variable.wait(guard)),
            Some(until) => {
                let rest = until.saturating_duration_since(Instant::now());
                recover(variable.wait_timeout(guard, rest)).0
            }
        }
    }
}

/// A future of a task.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task in the background. What `work` owns is dropped on the thread of the tasks, so anything foreign in
/// it needs another holder, which is dropped by `leave`.
pub(super) struct Task {
    pub(super) work: Work,
    /// Called once `work` has ended, with whether that was a panic. It does not block.
    pub(super) ended: Box<dyn FnOnce(bool) + Send>,
    /// Drops what is foreign. Called on a thread that may block.
    pub(super) leave: Box<dyn FnOnce() + Send>,
    /// Called last. It does not block.
    pub(super) left: Box<dyn FnOnce() + Send>,
}

/// The thread of the tasks, for those who wake it.
pub(super) struct Timer {
    process: u32,
    ready: Ready<Task>,
}

/// The tasks, on their thread.
#[derive(Default)]
struct Tasks {
    running: HashMap<u64, Running>,
    /// When tasks are polled whose wakers are not called before. Each has one instant at most.
    due: BTreeSet<(Instant, u64)>,
    /// The number of the last task.
    last: u64,
}

struct Running {
    /// At last what drops the foreign.
    work: Work,
    /// Until `work` has ended.
    end: Option<End>,
    until: Option<Instant>,
    waker: Waker,
}

struct End {
    ended: Box<dyn FnOnce(bool) + Send>,
    leave: Box<dyn FnOnce() + Send>,
    left: Box<dyn FnOnce() + Send>,
}

static CURRENT: Lock<Option<(Arc<Timer>, ThreadId)>> = Lock::new(None);

thread_local! {
    /// When the task that is being polled is polled again at the latest.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts a task. Returns the thread that polls it.
pub(super) fn start(mut task: Task) -> io::Result<ThreadId> {
    let mut current = CURRENT.lock();
    // What a forked child has is a copy, without the thread.
    if let Some((timer, thread)) = current.as_ref().filter(|(timer, _)| timer.is_here()) {
        match timer.ready.add(task) {
            None => return Ok(*thread),
            Some(returned) => task = returned,
        }
    }
    let timer = Arc::new(Timer { process: process::id(), ready: Ready::new() });
    timer.ready.add(task);
    let own = Arc::clone(&timer);
    let builder = thread::Builder::new().name("keysheath-timer".into());
    let thread = match builder.spawn(move || Tasks::default().run(&own)) {
        Ok(thread) => thread.thread().id(),
        Err(error) => {
            // The task may hold what is the application's own, which is not dropped under a lock.
            drop(current);
            return Err(error);
        }
    };
    // The tasks of the parent process are its own, also those that its thread had not taken yet.
    let before = current.replace((timer, thread));
    std::mem::forget(before.filter(|(timer, _)| !timer.is_here()));
    Ok(thread)
}

impl Timer {
    fn is_here(&self) -> bool {
        self.process == process::id()
    }
}

/// Has the current task polled again then, unless it is woken before. Holds until its next poll.
fn poll_again_at(at: Instant) {
    UNTIL.with(|until| until.set(Some(until.get().map_or(at, |earlier| earlier.min(at)))));
}

/// In a task: waits for `news`; false at this instant.
pub(crate) async fn news_until(mut news: impl Future<Output = ()> + Unpin, until: Option<Instant>) -> bool {
    poll_fn(|context| {
        if Pin::new(&mut news).poll(context).is_ready() {
            return Poll::Ready(true);
        }
        match until {
            Some(until) if until <= Instant::now() => return Poll::Ready(false),
            Some(until) => poll_again_at(until),
            None => {}
        }
        Poll::Pending
    })
    .await
}

/// In a task: lets the others have their turn.
pub(crate) async fn give_way() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Tasks {
    /// Polls tasks until there are none.
    fn run(&mut self, timer: &Arc<Timer>) {
        loop {
            let until = self.due.first().map(|(at, _)| *at);
            let ready::Work { added, woken } = timer.ready.take(until);
            for task in added {
                let number = self.add(task, timer);
                self.poll(number);
            }
            for number in woken {
                self.poll(number);
            }
            let now = Instant::now();
            let due: Vec<_> = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, at)| *at).collect();
            for number in due {
                self.poll(number);
            }
            if self.running.is_empty() && timer.ready.end() {
                return;
            }
        }
    }

    fn add(&mut self, task: Task, timer: &Arc<Timer>) -> u64 {
        let Task { work, ended, leave, left } = task;
        self.last += 1;
        let waker = Waker::from(Arc::new(TaskWaker { timer: Arc::clone(timer), number: self.last }));
        self.running
            .insert(self.last, Running { work, end: Some(End { ended, leave, left }), until: None, waker });
        self.last
    }

    fn poll(&mut self, number: u64) {
        // It may have been woken after its end.
        let Some(task) = self.running.get_mut(&number) else { return };
        if let Some(until) = task.until.take() {
            self.due.remove(&(until, number));
        }
        UNTIL.set(None);
        let outcome =
            catch_unwind(AssertUnwindSafe(|| task.work.as_mut().poll(&mut Context::from_waker(&task.waker))));
        // A task may have compared keys.
        wipe_stack();
        let payload = match outcome {
            Ok(Poll::Pending) => {
                task.until = UNTIL.get();
                self.due.extend(task.until.map(|until| (until, number)));
                return;
            }
            Ok(Poll::Ready(())) => None,
            Err(payload) => Some(payload),
        };
        match task.end.take() {
            Some(end) => {
                task.end(end, payload);
                task.waker.wake_by_ref();
            }
            None => drop(self.running.remove(&number)),
        }
    }
}

impl Running {
    /// Tells of the end of the work, and begins to drop what is foreign.
    fn end(&mut self, End { ended, leave, left }: End, payload: Option<Box<dyn Any + Send>>) {
        contained(|| ended(payload.is_some()));
        let work = std::mem::replace(&mut self.work, Box::pin(calling::leave(leave, payload, left)));
        contained(|| drop(work));
    }
}

struct TaskWaker {
    timer: Arc<Timer>,
    number: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In a forked child, the lock may be held by a thread that does not exist there.
        if self.timer.is_here() {
            self.timer.ready.wake(self.number);
        }
    }
}

#[cfg(all(test, feature = "rotation"))]
#[path = "../../tests/units/internal/timer.rs"]
mod tests;
