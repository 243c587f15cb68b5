//! A child that is forked while a refresher runs: it has the handle, and not the thread.

use std::process;

use keysheath::handle::Reload;

use crate::support::forked::forked;
use crate::support::refreshing::{PATIENCE, SECOND, Scripted, eventually, has, of, only_asked};
use crate::support::{KEY, in_child};

#[test]
fn a_forked_child_is_told_at_once_that_nothing_reloads() {
    in_child::<&str>("forked::a_forked_child_is_told_at_once_that_nothing_reloads", &[], || {
        let source = Scripted::new(KEY);
        let refresher = of(&source, only_asked());
        let handle = refresher.handle();
        let parent = process::id();
        let status = forked(|| {
            let generation = handle.load().unwrap().generation();
            handle.report_refused(generation);
            let awaited = std::pin::pin!(handle.newer_than(generation));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let awaited = std::future::Future::poll(awaited, &mut context);
            process::id() != parent
                && has(&handle, KEY)
                && handle.wait_newer_than(generation, PATIENCE) == Some(Reload::NoRefresher)
                && awaited == std::task::Poll::Ready(Reload::NoRefresher)
                && refresher.refresh_now(PATIENCE) == Some(Reload::NoRefresher)
        });
        assert_eq!(status, Some(0), "the child is answered, and does not hang");
        source.gives(SECOND);
        let generation = handle.load().unwrap().generation();
        assert_eq!(handle.wait_newer_than(generation, PATIENCE), Some(Reload::Newer), "the parent goes on");
        assert!(has(&handle, SECOND));
    });
}

#[test]
fn a_forked_child_can_drop_its_copy_and_start_its_own_refresher() {
    in_child::<&str>("forked::a_forked_child_can_drop_its_copy_and_start_its_own_refresher", &[], || {
        let source = Scripted::new(KEY);
        let start = || of(&source, only_asked());
        let refresher = start();
        let handle = refresher.handle();
        let mut copy = Some(refresher);
        let status = forked(|| {
            drop(copy.take());
            let own = start();
            source.gives(SECOND);
            let generation = own.handle().load().unwrap().generation();
            own.handle().wait_newer_than(generation, PATIENCE) == Some(Reload::Newer)
        });
        assert_eq!(status, Some(0));
        source.gives(SECOND);
        eventually("the parent's refresher is as it was", || {
            handle.wait_newer_than(handle.load().unwrap().generation(), PATIENCE).is_some()
                && has(&handle, SECOND)
        });
        drop(copy);
    });
}
