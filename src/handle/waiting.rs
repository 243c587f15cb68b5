//! Waiting for a newer key, for the next change, or until an old key is drained: in async code of any
//! runtime, or blocking.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::core::{Reload, State, Ticket, poll_until, wait_until};
use super::refusal::Refusal;
use super::sync::EventListener;
use super::{Generation, KeyHandle, NoActiveKey, Snapshot, Version};
use crate::key::Issuer;

/// Waits for a newer generation.
pub(crate) struct NewerKey<I: Issuer> {
    handle: KeyHandle<I>,
    past: Generation,
    ticket: Option<Ticket>,
    listening: Option<EventListener>,
    /// The key that does not count as an answer, however new its generation is.
    refusal: Option<Refusal<I>>,
}

/// Reports each change of the active key; returned by [`KeyHandle::subscribe`].
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::Kanal;
/// async fn log(handle: KeyHandle<Kanal>) {
///     let mut subscription = handle.subscribe();
///     loop {
///         match subscription.changed().await {
///             Ok(snapshot) => println!("the active key is now {snapshot:?}"),
///             Err(no_key) => println!("{no_key}"),
///         }
///     }
/// }
/// ```
pub struct Subscription<I: Issuer> {
    handle: KeyHandle<I>,
    /// The generation that was seen last, and which edition of it.
    seen: (Generation, u64),
    listening: Option<EventListener>,
}

impl<I: Issuer> KeyHandle<I> {
    /// Waits for a generation newer than this one: returns at once where there is one already, and otherwise
    /// when the refresher has read its source or store. Callers that wait at the same time share one attempt.
    /// An attempt that began before a caller asked does not answer it.
    ///
    /// It needs no async runtime. The wait is bounded by the settings of the refresher: an attempt that is
    /// under way, the rest of the minimum interval, and one more attempt. While the refresher backs off, the
    /// answer is [`Reload::TooSoon`] at once. Where nothing reloads the handle, as in a forked child, which
    /// does not have the refresher's thread, it is [`Reload::NoRefresher`] at once.
    ///
    /// The waker of the task that awaits it is called on the thread that all refreshers of the process share.
    /// As those of every async runtime do, it must neither block nor panic, nor poll the task in place.
    pub fn newer_than(&self, generation: Generation) -> impl Future<Output = Reload> + Send + Unpin + use<I> {
        NewerKey::new(self, generation)
    }

    /// As [`KeyHandle::newer_than`], but blocks; returns `None` after the timeout.
    #[must_use]
    pub fn wait_newer_than(&self, generation: Generation, timeout: Duration) -> Option<Reload> {
        NewerKey::new(self, generation).wait(timeout)
    }

    /// Reports every change of the active key from now on. Changes that come faster than they are read are
    /// reported as one.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<I> {
        Subscription { handle: self.clone(), seen: seen_in(&self.live.core.load()), listening: None }
    }

    /// Waits until there is no snapshot of this generation or an older one, and no request with it is without
    /// an answer. This process then does not use the old key any more. (A request that is refused may be
    /// repeated with the previous key during its grace; it counts while it is under way.)
    pub fn drained(&self, generation: Generation) -> impl Future<Output = ()> + Send + Unpin + use<I> {
        let (handle, mut listening) = (self.clone(), None);
        poll_fn(move |context| {
            let look = || handle.is_drained(generation).then_some(());
            poll_until(&mut listening, || handle.live.core.holders.fewer(), look, context)
        })
    }

    /// As [`KeyHandle::drained`], but blocks; returns false after the timeout.
    #[must_use]
    pub fn wait_drained(&self, generation: Generation, timeout: Duration) -> bool {
        let look = || self.is_drained(generation).then_some(());
        wait_for(timeout, || self.live.core.holders.fewer(), look).is_some()
    }

    /// Returns whether [`KeyHandle::drained`] would return at once.
    #[must_use]
    pub fn is_drained(&self, generation: Generation) -> bool {
        self.live.core.holders.is_drained(generation.0)
    }
}

impl<I: Issuer> NewerKey<I> {
    pub(super) fn new(handle: &KeyHandle<I>, past: Generation) -> Self {
        Self { handle: handle.clone(), past, ticket: None, listening: None, refusal: None }
    }

    pub(super) fn wait(mut self, timeout: Duration) -> Option<Reload> {
        let handle = self.handle.clone();
        let reloads = &handle.live.core.reloads;
        if !handle.has_publisher() || reloads.is_elsewhere() {
            return Some(self.without_asking());
        }
        wait_for(timeout, || reloads.news(), || self.look())
    }

    fn look(&mut self) -> Option<Reload> {
        loop {
            let outcome = self.handle.live.core.look_past(self.past.0, &mut self.ticket)?;
            // A newer generation with the key that was refused is no answer: wait for one after it.
            let again = self.refusal.as_ref().filter(|_| outcome == Reload::Newer);
            let Some((refusal, generation)) =
                again.and_then(|refusal| Some((refusal, self.handle.active_again(refusal)?)))
            else {
                return Some(outcome);
            };
            self.handle.note(refusal, generation);
            (self.past, self.ticket) = (generation, None);
        }
    }

    /// For a fixed handle and in a forked child: asking and listening take locks that may never be released
    /// in the child.
    fn without_asking(&self) -> Reload {
        if self.handle.generation() > self.past { Reload::Newer } else { Reload::NoRefresher }
    }

    /// Waits for another key than the one that was refused.
    pub(super) fn instead_of(self, refusal: &Refusal<I>) -> Self {
        Self { refusal: Some(refusal.clone()), ..self }
    }

    /// Asks for an attempt now, and not only when it is first polled.
    pub(super) fn asked(mut self) -> Self {
        self.ticket = self.handle.live.core.reloads.ask();
        self
    }
}

impl<I: Issuer> Future for NewerKey<I> {
    type Output = Reload;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reload> {
        let this = self.get_mut();
        let handle = this.handle.clone();
        let reloads = &handle.live.core.reloads;
        if !handle.has_publisher() || reloads.is_elsewhere() {
            return Poll::Ready(this.without_asking());
        }
        let mut listening = this.listening.take();
        let poll = poll_until(&mut listening, || reloads.news(), || this.look(), context);
        this.listening = listening;
        poll
    }
}

impl<I: Issuer> Subscription<I> {
    /// Waits for the next change, and returns the key that is active after it. It never returns where the key
    /// does not change any more.
    ///
    /// # Errors
    /// [`NoActiveKey`] where no key is active after the change.
    pub async fn changed(&mut self) -> Result<Snapshot<I>, NoActiveKey> {
        let Self { handle, seen, listening } = self;
        poll_fn(|context| {
            poll_until(
                listening,
                || handle.live.core.reloads.news(),
                || look_for_change(handle, seen),
                context,
            )
        })
        .await
    }

    /// As [`Subscription::changed`], but blocks; returns `None` after the timeout.
    pub fn wait(&mut self, timeout: Duration) -> Option<Result<Snapshot<I>, NoActiveKey>> {
        let Self { handle, seen, .. } = self;
        wait_for(timeout, || handle.live.core.reloads.news(), || look_for_change(handle, seen))
    }
}

fn seen_in<I: Issuer>(state: &State<Version<I>>) -> (Generation, u64) {
    (Generation(state.next.generation), state.edition)
}

fn look_for_change<I: Issuer>(
    handle: &KeyHandle<I>,
    seen: &mut (Generation, u64),
) -> Option<Result<Snapshot<I>, NoActiveKey>> {
    // Both are of one state: a key that is published between two looks would be reported twice.
    let state = handle.live.core.load();
    let now = seen_in(&state);
    if now == *seen {
        return None;
    }
    *seen = now;
    let no_key = state.next.current.key.as_ref().err().copied();
    Some(no_key.map_or_else(|| Ok(Snapshot(state)), Err))
}

/// Blocks until `look` finds something, at most for the timeout.
fn wait_for<R>(
    timeout: Duration,
    listen: impl Fn() -> EventListener,
    look: impl FnMut() -> Option<R>,
) -> Option<R> {
    wait_until(Instant::now().checked_add(timeout), listen, look)
}

impl<I: Issuer> fmt::Debug for Subscription<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?}, seen generation {})", self.handle, self.seen.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Published;
    use super::super::tests::{FIRST, GRACE, SECOND, SHORT, fixed, key, live, numbered};
    use super::*;

    #[test]
    fn waiting_for_a_newer_key_of_a_fixed_handle_returns_at_once() {
        let handle = fixed();
        let far = Duration::from_secs(3600);
        assert_eq!(handle.wait_newer_than(Generation(1), far), Some(Reload::NoRefresher));
        assert_eq!(handle.wait_newer_than(Generation(0), far), Some(Reload::Newer));
    }

    #[test]
    fn each_generation_is_reported_once() {
        let (handle, publisher) = live();
        let keys = [key(FIRST), key(SECOND)];
        let mut subscription = handle.subscribe();
        let publisher = std::thread::spawn(move || {
            for round in 0..100_000 {
                publisher.publish_next(&keys[round % 2], GRACE);
            }
        });
        let mut last = Generation(0);
        while last < Generation(100_000) {
            let now = subscription.wait(Duration::from_secs(60)).unwrap().unwrap().generation();
            assert!(now > last, "{now} was published after {last}");
            last = now;
        }
        publisher.join().unwrap();
    }

    #[test]
    fn a_generation_is_drained_when_its_last_snapshot_is_dropped() {
        let (handle, publisher) = live();
        publisher.publish(&numbered(1, Ok(&key(FIRST))));
        let snapshot = handle.load().unwrap();
        let clone = snapshot.clone();
        assert!(!handle.is_drained(Generation(1)), "it is active");
        publisher.publish(&numbered(2, Ok(&key(SECOND))));
        drop(snapshot);
        assert!(!handle.wait_drained(Generation(1), SHORT), "a snapshot is there");
        let waiting = handle.clone();
        let waits = std::thread::spawn(move || waiting.wait_drained(Generation(1), Duration::from_secs(60)));
        drop(clone);
        assert!(waits.join().unwrap());
        assert!(!handle.is_drained(Generation(2)));
    }

    #[test]
    fn a_request_with_the_previous_key_holds_its_generation() {
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        publisher.publish_next(&key(SECOND), GRACE);
        assert!(handle.is_drained(Generation(1)));
        let refusal = handle.load().unwrap().refusal(true);
        let previous = handle.load_instead_of(&refusal).unwrap();
        assert_eq!(previous.generation(), Generation(1));
        assert!(!handle.is_drained(Generation(1)));
        drop(previous);
        assert!(handle.is_drained(Generation(1)));
    }

    #[test]
    fn callers_share_one_attempt_that_began_after_they_asked() {
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        let reloader = publisher.reloader();
        let early = reloader.begin();
        let asking = [0, 1, 2].map(|_| {
            let waiting = NewerKey::new(&handle, Generation(1));
            std::thread::spawn(move || waiting.wait(Duration::from_secs(60)))
        });
        while !reloader.is_asked() {
            std::thread::yield_now();
        }
        reloader.end(early, Reload::Unchanged);
        std::thread::sleep(SHORT);
        assert!(asking.iter().all(|asks| !asks.is_finished()));
        let attempt = reloader.begin();
        assert!(!reloader.is_asked());
        reloader.end(attempt, Reload::Failed);
        for asks in asking {
            assert_eq!(asks.join().unwrap(), Some(Reload::Failed));
        }
        drop(reloader);
    }

    #[test]
    fn an_older_attempt_that_ends_late_changes_nothing() {
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        let (one, other) = (publisher.reloader(), publisher.reloader());
        let older = one.begin();
        let waiting = NewerKey::new(&handle, Generation(1)).asked();
        let newer = other.begin();
        other.end(newer, Reload::Unchanged);
        one.end(older, Reload::Failed);
        assert_eq!(waiting.wait(Duration::ZERO), Some(Reload::Unchanged));
    }

    #[test]
    fn an_attempt_of_a_reloader_that_leaves_is_made_by_another() {
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        let (one, other) = (publisher.reloader(), publisher.reloader());
        let waiting = NewerKey::new(&handle, Generation(1)).asked();
        // It never ends, as that of a refresher that is stopped or panics.
        let _attempt = one.begin();
        assert!(!other.is_asked());
        one.leave();
        assert!(other.is_asked());
        other.end(other.begin(), Reload::Unchanged);
        assert_eq!(waiting.wait(Duration::ZERO), Some(Reload::Unchanged));
        other.leave();
        assert_eq!(handle.wait_newer_than(Generation(1), SHORT), Some(Reload::NoRefresher));
    }

    #[test]
    fn a_wait_ends_when_a_key_is_published_or_the_reloader_leaves() {
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        assert_eq!(handle.wait_newer_than(Generation(1), SHORT), Some(Reload::NoRefresher));
        let reloader = publisher.reloader();
        assert_eq!(handle.wait_newer_than(Generation(1), SHORT), None);
        let mut subscription = handle.subscribe();
        let waiting = NewerKey::new(&handle, Generation(1));
        let asks = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        publisher.publish_next(&key(SECOND), GRACE);
        assert_eq!(asks.join().unwrap(), Some(Reload::Newer));
        let told = subscription.wait(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(told.generation(), Generation(2));
        assert!(subscription.wait(SHORT).is_none(), "it is reported once");
        let waiting = NewerKey::new(&handle, Generation(2));
        let asks = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        while !reloader.is_asked() {
            std::thread::yield_now();
        }
        drop(reloader);
        assert_eq!(asks.join().unwrap(), Some(Reload::NoRefresher));
    }

    #[test]
    fn the_futures_do_the_same_as_the_blocking_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        let reloader = publisher.reloader();
        let mut subscription = handle.subscribe();
        let (reload, drained) = (handle.newer_than(Generation(1)), handle.drained(Generation(1)));
        let publisher = std::thread::spawn(move || {
            while !reloader.is_asked() {
                std::thread::yield_now();
            }
            publisher.publish_next(&key(SECOND), GRACE)
        });
        runtime.block_on(async {
            assert_eq!(reload.await, Reload::Newer);
            assert_eq!(subscription.changed().await.unwrap().generation(), Generation(2));
            drained.await;
        });
        assert_eq!(publisher.join().unwrap(), Published::Newer);
    }
}
