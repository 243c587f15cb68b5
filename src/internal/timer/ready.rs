//! What the thread of the tasks has to do: tasks that were added, and tasks whose waker was called.
//!
//! Loom and shuttle check this file over their own locks: `tests/models/main.rs`.
//!
//! A wake-up cannot get lost. A task's waker puts its number here after the news is there, and the thread
//! takes the number out before it polls the task: so either that poll sees the news, or the number is put
//! here again after it was taken, and the task is polled once more.

use std::collections::BTreeSet;
use std::time::Instant;

use super::sync::{Condvar, Mutex, lock, wait};

/// Filled by any thread, and emptied by one.
pub(super) struct Ready<T> {
    work: Mutex<Work<T>>,
    filled: Condvar,
}

/// What was taken.
pub(super) struct Work<T> {
    /// Tasks that were added.
    pub(super) added: Vec<T>,
    /// The numbers of tasks whose waker was called.
    pub(super) woken: BTreeSet<u64>,
}

impl<T> Work<T> {
    const fn new() -> Self {
        Self { added: Vec::new(), woken: BTreeSet::new() }
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.woken.is_empty()
    }
}

impl<T> Ready<T> {
    pub(super) fn new() -> Self {
        Self { work: Mutex::new(Work::new()), filled: Condvar::new() }
    }

    /// Adds a task.
    pub(super) fn add(&self, task: T) {
        self.fill(|work| work.added.push(task));
    }

    /// Has a task polled. However often it is called until then, that is once.
    pub(super) fn wake(&self, number: u64) {
        self.fill(|work| {
            work.woken.insert(number);
        });
    }

    fn fill(&self, change: impl FnOnce(&mut Work<T>)) {
        let mut work = lock(&self.work);
        // The thread waits only where it has seen nothing, and then takes everything.
        let was_empty = work.is_empty();
        change(&mut work);
        drop(work);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Returns whether a task was added that was not taken.
    pub(super) fn has_added(&self) -> bool {
        !lock(&self.work).added.is_empty()
    }

    /// Takes everything. Blocks while there is nothing, until this instant at the latest.
    pub(super) fn take(&self, until: Option<Instant>) -> Work<T> {
        let mut work = lock(&self.work);
        while work.is_empty() && until.is_none_or(|until| until > Instant::now()) {
            work = wait(&self.filled, work, until);
        }
        std::mem::replace(&mut *work, Work::new())
    }
}
