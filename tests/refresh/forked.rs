//! A child that is forked while a refresher runs: it has the handle, and not the thread.
#![allow(unsafe_code, reason = "std has no fork")]

use std::process;
use std::time::{Duration, Instant};

use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::issuer::Kanal;
use keysheath::refresh::Refresher;

use super::common::{PATIENCE, SECOND, Scripted, eventually, has, only_asked};
use crate::support::{KEY, in_child};

/// Runs the body in a forked child, and gives its exit status; none where it had to be killed.
fn forked(body: impl FnOnce() -> bool) -> Option<i32> {
    // SAFETY: the child calls no function of this test's other threads, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a child can be forked");
    if child == 0 {
        let is_so = body();
        // SAFETY: nothing is run at this exit.
        unsafe { libc::_exit(i32::from(!is_so)) };
    }
    let (start, mut status) = (Instant::now(), 0);
    // SAFETY: it is the child that was forked above, and nobody else waits for it.
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

#[test]
fn a_forked_child_is_told_at_once_that_nothing_reloads() {
    in_child::<&str>("forked::a_forked_child_is_told_at_once_that_nothing_reloads", &[], || {
        let source = Scripted::new(KEY);
        let refresher =
            Refresher::of_chain(Chain::<Kanal>::new().with(source.clone()), only_asked()).unwrap();
        let handle = refresher.handle();
        let parent = process::id();
        let status = forked(|| {
            let generation = handle.load().unwrap().generation();
            handle.report_refused(generation);
            let awaited = std::pin::pin!(handle.reload_past(generation));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let awaited = std::future::Future::poll(awaited, &mut context);
            process::id() != parent
                && has(&handle, KEY)
                && handle.reload_past(generation).wait(PATIENCE) == Some(Reload::NoRefresher)
                && awaited == std::task::Poll::Ready(Reload::NoRefresher)
                && refresher.refresh_now(PATIENCE) == Some(Reload::NoRefresher)
        });
        assert_eq!(status, Some(0), "the child is answered, and does not hang");
        source.gives(SECOND);
        let generation = handle.load().unwrap().generation();
        assert_eq!(handle.reload_past(generation).wait(PATIENCE), Some(Reload::Newer), "the parent goes on");
        assert!(has(&handle, SECOND));
    });
}

#[test]
fn a_forked_child_drops_its_copy_and_starts_a_refresher_of_its_own() {
    in_child::<&str>("forked::a_forked_child_drops_its_copy_and_starts_a_refresher_of_its_own", &[], || {
        let source = Scripted::new(KEY);
        let start = || Refresher::of_chain(Chain::<Kanal>::new().with(source.clone()), only_asked()).unwrap();
        let refresher = start();
        let handle = refresher.handle();
        let mut copy = Some(refresher);
        let status = forked(|| {
            drop(copy.take());
            let own = start();
            source.gives(SECOND);
            let generation = own.handle().load().unwrap().generation();
            own.handle().reload_past(generation).wait(PATIENCE) == Some(Reload::Newer)
        });
        assert_eq!(status, Some(0));
        source.gives(SECOND);
        eventually("the parent's refresher is as it was", || {
            handle.reload_past(handle.load().unwrap().generation()).wait(PATIENCE).is_some()
                && has(&handle, SECOND)
        });
        drop(copy);
    });
}
