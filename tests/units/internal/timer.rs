//! Tasks in the background.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use event_listener::Event;

use super::*;
use crate::internal::calls::{CallError, Caller, Target};
use crate::internal::time;

const SOON: Duration = Duration::from_secs(60);

fn nothing() {}

/// Starts a task that tells how it has ended: whether by a panic.
fn started(work: impl Future<Output = ()> + Send + 'static) -> Receiver<bool> {
    started_with(work, nothing)
}

fn started_with(
    work: impl Future<Output = ()> + Send + 'static,
    leave: impl FnOnce() + Send + 'static,
) -> Receiver<bool> {
    let (ended, end) = channel();
    let ended = Box::new(move |has_panicked| ended.send(has_panicked).unwrap_or_default());
    start(Task { work: Box::pin(work), ended, leave: Box::new(leave), left: Box::new(nothing) }).unwrap();
    end
}

fn caller(name: &str) -> (Caller, Target) {
    (Caller::around_others(), Target::of("test", &name))
}

/// A call that hangs until the sender is dropped.
fn hanging() -> (Sender<()>, impl FnOnce() + Send) {
    let (release, held) = channel::<()>();
    (release, move || held.recv().unwrap_or_default())
}

#[test]
fn all_tasks_are_polled_on_one_thread() {
    let (told, threads) = channel();
    let all: Vec<_> = (0..100)
        .map(|number| {
            let told = told.clone();
            started(async move {
                for _ in 0..3 {
                    told.send(thread::current().id()).unwrap();
                    let until = time::after(Duration::from_millis(number % 7));
                    assert!(!news_until(std::future::pending(), Some(until)).await);
                }
            })
        })
        .collect();
    drop(told);
    assert!(all.iter().all(|end| end.recv_timeout(SOON) == Ok(false)));
    let threads: Vec<_> = threads.iter().collect();
    assert_eq!(threads.len(), 300);
    assert!(threads.iter().all(|thread| *thread == threads[0]));
}

#[test]
fn news_from_any_thread_wake_a_task_each_time() {
    const TIMES: usize = 10_000;
    let (asked, answered) = (Arc::new(Event::new()), Arc::new(Event::new()));
    let count = Arc::<AtomicUsize>::default();
    let (hears, answers, counts) = (Arc::clone(&asked), Arc::clone(&answered), Arc::clone(&count));
    let end = started(async move {
        for time in 1..=TIMES {
            loop {
                let news = hears.listen();
                if counts.load(Ordering::SeqCst) >= time {
                    break;
                }
                assert!(news_until(news, None).await);
            }
            answers.notify(usize::MAX);
        }
    });
    for _ in 0..TIMES {
        let answer = answered.listen();
        count.fetch_add(1, Ordering::SeqCst);
        asked.notify(usize::MAX);
        event_listener::Listener::wait_timeout(answer, SOON).expect("the task has heard it");
    }
    assert_eq!(end.recv_timeout(SOON), Ok(false));
}

#[test]
fn a_panic_ends_its_task_and_no_other() {
    let (has_left, left) = channel();
    let event = Arc::new(Event::new());
    let waits = event.listen();
    let other = started(async move { assert!(news_until(waits, None).await) });
    let panics = started_with(async { std::panic::resume_unwind(Box::new(())) }, move || {
        has_left.send(()).unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    assert_eq!(panics.recv_timeout(SOON), Ok(true));
    assert_eq!(left.recv_timeout(SOON), Ok(()));
    event.notify(1);
    assert_eq!(other.recv_timeout(SOON), Ok(false));
}

#[test]
fn what_leaves_may_block_and_delays_no_task() {
    let (release, hangs) = hanging();
    let (told, thread) = channel();
    let leaves = move || {
        told.send(thread::current().id()).unwrap();
        hangs();
    };
    let (own, ran) = channel();
    let first = started_with(async move { own.send(thread::current().id()).unwrap() }, leaves);
    assert_eq!(first.recv_timeout(SOON), Ok(false));
    assert_ne!(thread.recv_timeout(SOON), ran.recv_timeout(SOON));
    assert_eq!(started(async {}).recv_timeout(SOON), Ok(false));
    drop(release);
}

#[test]
fn calls_that_hang_keep_no_other_from_beginning() {
    const CALLS: usize = 40;
    // Each waits for all others.
    let all = Arc::new(Barrier::new(CALLS));
    let ends: Vec<_> = (0..CALLS)
        .map(|number| {
            let all = Arc::clone(&all);
            let (caller, place) = caller(&format!("hang {number}"));
            let caller = caller.with_deadline(SOON);
            started(
                async move { _ = call(Begin::InOrder, &caller, place, move || all.wait()).await.unwrap() },
            )
        })
        .collect();
    assert!(ends.iter().all(|end| end.recv_timeout(SOON) == Ok(false)));
}

#[test]
fn a_call_past_its_deadline_is_left_behind() {
    let (release, hangs) = hanging();
    let (caller, place) = caller("deadline");
    let after = Duration::from_millis(20);
    let caller = caller.with_deadline(after);
    let end = started(async move {
        assert_eq!(call(Begin::InOrder, &caller, place, hangs).await, Err(CallError::Deadline { after }));
        assert_eq!(call(Begin::Now, &caller.with_deadline(SOON), place, || 7).await, Ok(7));
    });
    assert_eq!(end.recv_timeout(SOON), Ok(false));
    drop(release);
}

#[test]
fn a_call_that_panics_is_an_error_and_ends_no_task() {
    let (caller, place) = caller("panic");
    let end = started(async move {
        let panics = || std::panic::resume_unwind(Box::new(()));
        assert_eq!(call::<()>(Begin::Now, &caller, place, panics).await, Err(CallError::Panicked));
    });
    assert_eq!(end.recv_timeout(SOON), Ok(false));
}

#[test]
fn what_a_task_owns_is_dropped_before_it_leaves() {
    struct Owned(Arc<AtomicBool>);
    impl Drop for Owned {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let is_dropped = Arc::<AtomicBool>::default();
    let owned = Owned(Arc::clone(&is_dropped));
    let (told, left) = channel();
    let leaves = move || told.send(is_dropped.load(Ordering::SeqCst)).unwrap();
    let end = started_with(async move { drop(owned) }, leaves);
    assert_eq!(end.recv_timeout(SOON), Ok(false));
    assert_eq!(left.recv_timeout(SOON), Ok(true));
}

#[test]
fn the_thread_of_the_tasks_tells_that_a_task_has_left() {
    let (told, threads) = channel();
    let [own, leaver] = [told.clone(), told.clone()];
    let tell = |told: Sender<_>| move || told.send(thread::current().id()).unwrap();
    let task = Task {
        work: Box::pin(async move { tell(own)() }),
        ended: Box::new(|_| ()),
        leave: Box::new(tell(leaver)),
        left: Box::new(tell(told)),
    };
    start(task).unwrap();
    let [own, leaver, told] = [(); 3].map(|()| threads.recv_timeout(SOON).unwrap());
    // Whatever has dropped what is foreign takes no lock after that, so that a fork finds none taken.
    assert_eq!(told, own);
    assert_ne!(leaver, own);
}
