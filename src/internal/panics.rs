//! Panics: a mutex that one elsewhere does not make unusable, and foreign code whose panic ends here.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LockResult, Mutex, MutexGuard, PoisonError, TryLockError};

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
mod tests {
    use super::*;

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
}
