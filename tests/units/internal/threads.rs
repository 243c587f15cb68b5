//! Background threads, and locks that a panic leaves usable.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const SOON: Duration = Duration::from_secs(60);

/// Counts to `panics_at`, and panics there; else until it is stopped.
struct Counts {
    link: Arc<Link<u32>>,
    panics_at: u32,
    dropped: Dropped,
}

struct Dropped(Option<Receiver<()>>, Arc<AtomicU32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.as_ref().map(Receiver::recv);
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl Task for Counts {
    fn run(&mut self) {
        let _ = &self.dropped;
        while !self.link.is_stopping() {
            self.link.notify(|count| *count += 1);
            assert!(self.link.with(|count| *count) < self.panics_at, "as this test wants it");
            self.link.sleep(Duration::from_millis(1));
        }
    }

    fn on_panic(&mut self) {
        self.link.with(|count| *count = 0);
    }
}

struct Started {
    worker: Worker<u32>,
    left: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
    open: Sender<()>,
}

fn started(panics_at: u32, hangs: bool) -> Started {
    let (left, dropped) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
    let leaves = Arc::clone(&left);
    let mut worker =
        Worker::new(0, EventThread::default(), || (), move || _ = leaves.fetch_add(1, Ordering::SeqCst));
    let (open, gate) = channel();
    let task = Counts {
        link: Arc::clone(worker.link()),
        panics_at,
        dropped: Dropped(hangs.then_some(gate), Arc::clone(&dropped)),
    };
    worker.start("keysheath-test", task).unwrap();
    Started { worker, left, dropped, open }
}

#[test]
fn a_stopped_thread_is_joined_and_leaves_once() {
    let Started { mut worker, left, dropped, .. } = started(u32::MAX, false);
    let link = Arc::clone(worker.link());
    assert_eq!(link.wait(SOON, |shared| (shared.state > 3).then_some(shared.state > 3)), Some(true));
    assert!(worker.end(SOON));
    drop(worker);
    assert_eq!((left.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn a_panic_is_noted_before_the_end_is_announced() {
    let Started { mut worker, left, dropped, .. } = started(3, false);
    let seen = worker.link().wait(SOON, |shared| shared.has_ended.then_some(shared.state));
    assert_eq!(seen, Some(0));
    assert!(worker.end(SOON));
    assert_eq!((left.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn a_thread_that_hangs_in_a_drop_is_left_behind() {
    let Started { mut worker, open, dropped, .. } = started(u32::MAX, true);
    assert!(!worker.end(Duration::from_millis(50)));
    assert!(worker.end(Duration::ZERO), "nothing is left to wait for");
    drop(open);
    let start = Instant::now();
    while dropped.load(Ordering::SeqCst) == 0 {
        assert!(start.elapsed() < SOON);
    }
}

#[test]
fn a_worker_that_was_never_started_leaves_as_well() {
    let left = Arc::<AtomicU32>::default();
    let leaves = Arc::clone(&left);
    drop(Worker::new((), EventThread::default(), || (), move || _ = leaves.fetch_add(1, Ordering::SeqCst)));
    assert_eq!(left.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panic_under_the_lock_leaves_it_usable() {
    let mut lock = Lock::new(7);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = lock.lock();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    assert_eq!(*lock.get_mut(), 7);
    assert_eq!(*lock.lock(), 7);
    assert_eq!(lock.try_lock().map(|held| *held), Some(7));
    let held = lock.lock();
    assert!(lock.try_lock().is_none());
    drop(held);
    assert_eq!(lock.into_inner(), 7);
}
