//! What the thread of the tasks has to do: tasks that were added, and tasks whose waker was called.
//!
//! Loom and shuttle check this file over their own locks: `tests/models/main.rs`.
//!
//! A wake-up cannot get lost. A task's waker puts its number here after the news is there, and the thread
//! takes the number out before it polls the task: so either that poll sees the news, or the number is put
//! here again after it was taken, and the task is polled once more.

use std::collections::BTreeSet;
use std::time::Instant;

use super::sync::{Condvar, Mutex, lock, wait_on};

/// Filled by any thread, and emptied by one.
pub(super) struct Ready<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    work: Work<T>,
    has_ended: bool,
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
        Self { state: Mutex::new(State { work: Work::new(), has_ended: false }), filled: Condvar::new() }
    }

    /// Adds a task. Gives it back if the thread has ended.
    pub(super) fn add(&self, task: T) -> Option<T> {
        let mut state = lock(&self.state);
        if state.has_ended {
            return Some(task);
        }
        let was_empty = state.work.is_empty();
        state.work.added.push(task);
        drop(state);
        self.notify(was_empty);
        None
    }

    /// Has a task polled. However often it is called until then, that is once.
    pub(super) fn wake(&self, number: u64) {
        let mut state = lock(&self.state);
        let was_empty = state.work.is_empty();
        state.work.woken.insert(number);
        drop(state);
        self.notify(was_empty);
    }

    /// The thread waits only where it has seen nothing, and then takes everything.
    fn notify(&self, was_empty: bool) {
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Takes everything. Blocks while there is nothing, until this instant at the latest.
    pub(super) fn take(&self, until: Option<Instant>) -> Work<T> {
        let mut state = lock(&self.state);
        while state.work.is_empty() && until.is_none_or(|until| until > Instant::now()) {
            state = wait_on(&self.filled, state, until);
        }
        std::mem::replace(&mut state.work, Work::new())
    }

    /// Ends it, for a thread that has no task left. Returns false if one was added meanwhile.
    pub(super) fn end(&self) -> bool {
        let mut state = lock(&self.state);
        state.has_ended = state.work.added.is_empty();
        state.has_ended
    }
}
