//! What is checked of the thread that runs tasks: its list of what is ready. A task is a number here that its
//! news count up to.

use super::ready::Ready;
use super::sync::{Arc, Mutex, lock};
use super::thread;

/// The news of a few tasks, and the list by which they are polled.
struct Tasks {
    ready: Ready<u64>,
    news: Vec<Mutex<u32>>,
}

fn tasks(count: usize) -> Arc<Tasks> {
    Arc::new(Tasks { ready: Ready::new(), news: (0..count).map(|_| Mutex::new(0)).collect() })
}

impl Tasks {
    fn news_of(&self, number: u64) -> &Mutex<u32> {
        &self.news[usize::try_from(number).unwrap()]
    }

    /// As a waker's owner does.
    fn tell(&self, number: u64) {
        *lock(self.news_of(number)) += 1;
        self.ready.wake(number);
    }

    /// Polls tasks until each has had so many news.
    fn poll_until(&self, wanted: u32) {
        let mut had: Vec<u32> = self.news.iter().map(|_| 0).collect();
        while had.iter().any(|had| *had < wanted) {
            for number in self.ready.take(None).woken {
                had[usize::try_from(number).unwrap()] = *lock(self.news_of(number));
            }
        }
    }
}

pub(super) fn a_wake_up_is_not_lost() {
    let tasks = tasks(2);
    let wakers = [0, 1].map(|number| {
        let tasks = Arc::clone(&tasks);
        thread::spawn(move || tasks.tell(number))
    });
    tasks.poll_until(1);
    for waker in wakers {
        waker.join().unwrap();
    }
}

pub(super) fn news_during_a_poll_have_the_task_polled_again() {
    let tasks = tasks(1);
    let waker = {
        let tasks = Arc::clone(&tasks);
        thread::spawn(move || {
            tasks.tell(0);
            tasks.tell(0);
        })
    };
    tasks.poll_until(2);
    waker.join().unwrap();
}

/// Each task ends as soon as it is taken, so the thread may end after the first one.
pub(super) fn a_task_that_comes_as_the_thread_ends_is_not_lost() {
    let tasks = tasks(0);
    assert!(tasks.ready.add(0).is_none());
    let thread = {
        let tasks = Arc::clone(&tasks);
        thread::spawn(move || {
            let mut taken = tasks.ready.take(None).added.len();
            while !tasks.ready.end() {
                taken += tasks.ready.take(None).added.len();
            }
            taken
        })
    };
    let accepted = [1, 2].into_iter().filter(|number| tasks.ready.add(*number).is_none()).count();
    assert_eq!(thread.join().unwrap(), 1 + accepted);
}

/// Three threads tell all tasks again and again.
pub(super) fn many_tasks_that_wake_each_other() {
    const TIMES: u32 = 2;

    let tasks = tasks(4);
    let wakers = [0, 1, 2].map(|first: u64| {
        let tasks = Arc::clone(&tasks);
        thread::spawn(move || {
            for time in 0..u64::from(TIMES) * 4 {
                tasks.tell((first + time) % 4);
                thread::yield_now();
            }
        })
    });
    tasks.poll_until(3 * TIMES);
    for waker in wakers {
        waker.join().unwrap();
    }
}
