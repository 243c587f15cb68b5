//! Calls that a task makes: on other threads, one after another where they are quick.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::{news_until, poll_again_at};
use crate::internal::calls::{CallError, Caller, Target};
use crate::internal::threads::{Lock, contained, discard};
use crate::internal::time;

/// For how long a call keeps the next scheduled one from beginning, unless it ends before. So a thousand
/// tasks whose time comes at once need one thread where a call takes less, and as many as it takes
/// milliseconds where it takes more. A call that hangs delays those behind it by this, and many slow calls
/// delay the last of them by as many milliseconds.
const YOUNG: Duration = Duration::from_millis(1);

/// How long after a thread could not be started it is tried again.
const NO_THREAD: Duration = Duration::from_secs(1);

/// When a call begins.
#[derive(Clone, Copy)]
pub(crate) enum Begin {
    /// At once, because a caller is waiting for it.
    Now,
    /// After the scheduled calls before it.
    InOrder,
}

/// In a task: as [`Caller::run`], without blocking. The time until it may begin is not of its deadline.
pub(crate) async fn call<T: Send + 'static>(
    begin: Begin,
    caller: &Caller,
    place: Target,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CallError> {
    let start = match begin {
        Begin::Now => None,
        Begin::InOrder => Some(Start::take().await),
    };
    let (mut work, mut pending_call) = (Some(work), None);
    let result = poll_fn(|context| {
        if let Some(work) = work.take() {
            let waker = context.waker().clone();
            pending_call = Some(caller.begin(place, |_| work(), move || waker.wake()));
        }
        let Some(call) = &mut pending_call else { unreachable!("it was begun") };
        if let Some(result) = call.poll(Instant::now()) {
            return Poll::Ready(result);
        }
        poll_again_at(call.until());
        Poll::Pending
    })
    .await;
    drop(start);
    result
}

/// What came of work on another thread.
pub(crate) enum Worked<S, R> {
    Done(S, R),
    /// What it worked on was dropped on that thread.
    Panicked,
    /// No thread could be started. Nothing was done.
    NoThread(S),
}

/// In a task: has another thread work on something, for as long as that takes, and returns both.
pub(crate) async fn work_on<S: Send + 'static, R: Send + 'static>(
    begin: Begin,
    state: S,
    work: impl FnOnce(&mut S) -> R + Send + 'static,
) -> Worked<S, R> {
    // Here, so that it is still there if no thread can be started.
    let both = Arc::new(Lock::new(Some((state, work))));
    let place = Target::of("task", &Arc::as_ptr(&both).addr());
    let caller = Caller::around_others().with_deadline(Duration::MAX);
    let taken = Arc::clone(&both);
    let work = move || {
        let (mut state, work) = taken.lock().take()?;
        let result = work(&mut state);
        Some((state, result))
    };
    match call(begin, &caller, place, work).await {
        Ok(Some((state, result))) => Worked::Done(state, result),
        _ => both.lock().take().map_or(Worked::Panicked, |(state, _)| Worked::NoThread(state)),
    }
}

/// In a task: waits until it may be tried again to start a thread.
pub(crate) async fn after_no_thread() {
    news_until(pending(), Some(time::after(NO_THREAD))).await;
}

/// Drops what is foreign, and what a panic carried, on a thread that may block. Then calls `left`.
pub(super) async fn leave(
    leave: Box<dyn FnOnce() + Send>,
    payload: Option<Box<dyn Any + Send>>,
    left: Box<dyn FnOnce() + Send>,
) {
    let mut both = Some((leave, payload));
    loop {
        let work = |both: &mut Option<(Box<dyn FnOnce() + Send>, _)>| {
            if let Some((leave, payload)) = both.take() {
                contained(leave);
                if let Some(payload) = payload {
                    discard(payload);
                }
            }
        };
        match work_on(Begin::Now, both, work).await {
            Worked::Done(..) | Worked::Panicked => break,
            Worked::NoThread(again) => both = again,
        }
        after_no_thread().await;
    }
    // Now that thread takes no lock any more.
    left();
}

thread_local! {
    static STARTS: RefCell<Starts> = const { RefCell::new(Starts::new()) };
}

/// Who may begin a call. Only the thread of the tasks asks, so a forked child has its own.
struct Starts {
    /// The call that has begun last, until it has ended.
    last: Option<(u64, Instant)>,
    waiting: VecDeque<(u64, Waker)>,
    numbers: u64,
}

impl Starts {
    const fn new() -> Self {
        Self { last: None, waiting: VecDeque::new(), numbers: 0 }
    }

    /// The next one looks whether it may begin, or until when it waits.
    fn wake_next(&self) {
        if let Some((_, waker)) = self.waiting.front() {
            waker.wake_by_ref();
        }
    }
}

/// The right to begin one call; before it is given, the place in the queue.
struct Start(u64);

impl Start {
    async fn take() -> Self {
        let start = STARTS.with_borrow_mut(|starts| {
            starts.numbers += 1;
            Self(starts.numbers)
        });
        let mut is_waiting = false;
        poll_fn(|context| {
            STARTS.with_borrow_mut(|starts| {
                if !std::mem::replace(&mut is_waiting, true) {
                    starts.waiting.push_back((start.0, context.waker().clone()));
                }
                if starts.waiting.front().is_some_and(|(first, _)| *first != start.0) {
                    return Poll::Pending;
                }
                let now = Instant::now();
                if let Some((_, since)) = starts.last
                    && since + YOUNG > now
                {
                    poll_again_at(since + YOUNG);
                    return Poll::Pending;
                }
                starts.waiting.pop_front();
                starts.last = Some((start.0, now));
                starts.wake_next();
                Poll::Ready(())
            })
        })
        .await;
        start
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        // Not on the thread of the tasks if the task was never started, and after that thread's own data.
        let _ = STARTS.try_with(|starts| {
            let mut starts = starts.borrow_mut();
            starts.waiting.retain(|(number, _)| *number != self.0);
            starts.last.take_if(|(number, _)| *number == self.0);
            starts.wake_next();
        });
    }
}
