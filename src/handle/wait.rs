//! Waiting until something is so: listen, then look, then wait. In any other order, what happens between the look and
//! the listening is missed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::sync::{EventListener, wait};

/// Polls for `look` to find something. `listening` is kept from one poll to the next.
pub(super) fn poll_until<R>(
    listening: &mut Option<EventListener>,
    listen: impl Fn() -> EventListener,
    mut look: impl FnMut() -> Option<R>,
    context: &mut Context<'_>,
) -> Poll<R> {
    loop {
        if let Some(listener) = listening {
            ready!(Pin::new(listener).poll(context));
        }
        // A listener is polled in the next round, so that it has the waker.
        *listening = Some(listen());
        if let Some(found) = look() {
            *listening = None;
            return Poll::Ready(found);
        }
    }
}

/// Blocks until `look` finds something, or until `deadline`.
pub(super) fn wait_until<R>(
    deadline: Option<Instant>,
    listen: impl Fn() -> EventListener,
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    loop {
        let listener = listen();
        if let Some(found) = look() {
            return Some(found);
        }
        if !wait(listener, deadline) {
            return None;
        }
    }
}
