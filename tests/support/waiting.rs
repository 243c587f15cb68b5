//! Waiting with a bound.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Blocks until the condition holds; panics if it does not within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a call may need beyond its deadline on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

/// Returns what `call` returns; panics if that takes longer than `deadline` and some slack.
pub(crate) fn in_time<T: Send + 'static>(deadline: Duration, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = mpsc::channel();
    let started = thread::spawn(move || sender.send(call()));
    match result.recv_timeout(deadline + SLACK) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("no answer within {deadline:?} and {SLACK:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("the call panicked: {:?}", started.join().err()),
    }
}
