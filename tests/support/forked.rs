//! A child that is forked while this process has threads: it has none of them.
#![allow(unsafe_code, reason = "std has no fork")]

use std::time::{Duration, Instant};

/// Runs the body in a forked child, and gives its exit status; none where it had to be killed.
pub(crate) fn forked(body: impl FnOnce() -> bool) -> Option<i32> {
    // SAFETY: the child calls no function of this test's other threads, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a child can be forked");
    if child == 0 {
        let is_so = body();
        // SAFETY: nothing is run at this exit.
        unsafe { libc::_exit(i32::from(!is_so)) };
    }
    let (start, mut status) = (Instant::now(), 0);
    // SAFETY: it is the child that was forked above, and nothing else waits for it.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if start.elapsed() > Duration::from_secs(20) {
            // SAFETY: as above.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, &raw mut status, 0);
            }
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}
