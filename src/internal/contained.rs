//! Foreign code whose panic ends here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
