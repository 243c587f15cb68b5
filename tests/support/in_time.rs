//! Calls that must not hang.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// What a call may need beyond its deadline on a busy machine.
pub const SLACK: Duration = Duration::from_secs(2);

/// What `call` gives; a panic when it takes longer than `deadline` and some slack.
pub fn in_time<T: Send + 'static>(deadline: Duration, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = mpsc::channel();
    let started = thread::spawn(move || sender.send(call()));
    match result.recv_timeout(deadline + SLACK) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("no answer within {deadline:?} and {SLACK:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("the call panicked: {:?}", started.join().err()),
    }
}
