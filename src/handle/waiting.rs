//! Waiting for the next change, or for an old key to be drained: in async code of any runtime, or blocking.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::core::State;
use super::sync::EventListener;
use super::version::Version;
use super::wait::{poll_until, wait_until};
use super::{Generation, Inner, KeyHandle, NoActiveKey, Snapshot};
use crate::key::Issuer;

/// Waits until nobody holds a generation; see [`KeyHandle::drained`]. Await it, or [`wait`](Drained::wait).
///
/// ```
/// use std::time::Duration;
/// use keysheath::handle::{Generation, KeyHandle};
/// use keysheath::key::Kanal;
/// fn say(handle: &KeyHandle<Kanal>, old: Generation) {
///     if handle.drained(old).wait(Duration::from_secs(5)) {
///         println!("no request of this process holds the old key any more");
///     }
/// }
/// ```
#[must_use = "nothing is waited for until it is awaited"]
pub struct Drained<I: Issuer> {
    handle: KeyHandle<I>,
    generation: Generation,
    listening: Listening,
}

/// Tells of each change of the key in force; see [`KeyHandle::subscribe`].
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::Kanal;
/// async fn log(handle: KeyHandle<Kanal>) {
///     let mut subscription = handle.subscribe();
///     loop {
///         match subscription.changed().await {
///             Ok(snapshot) => println!("now in force: {snapshot:?}"),
///             Err(closed) => println!("{closed}"),
///         }
///     }
/// }
/// ```
pub struct Subscription<I: Issuer> {
    handle: KeyHandle<I>,
    /// What was seen last: its generation, and which edition of it.
    seen: (Generation, u64),
    listening: Listening,
}

/// What a future listens to, from one poll to the next.
#[derive(Default)]
pub(super) struct Listening(Option<EventListener>);

impl<I: Issuer> KeyHandle<I> {
    /// Tells of every change of the key in force from now on. Changes that come faster than they are asked for are told
    /// as one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let mut subscription = handle.subscribe();
    /// assert!(subscription.wait(Duration::from_millis(1)).is_none());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Subscription<I> {
        let seen = match &self.inner {
            Inner::Fixed(_) => (Generation::FIRST, 0),
            Inner::Live(live) => seen_in(&live.core.load()),
        };
        Subscription { handle: self.clone(), seen, listening: Listening::default() }
    }

    /// Waits until no snapshot of this generation or an older one is there, and no request that was sent with it is without
    /// an answer: then this process needs the old key no more. (A request that is refused may be repeated with the
    /// previous key while its grace lasts; it counts while it is under way.)
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let in_force = handle.load()?.generation();
    /// assert!(!handle.drained(in_force).wait(Duration::from_millis(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drained(&self, generation: Generation) -> Drained<I> {
        Drained { handle: self.clone(), generation, listening: Listening::default() }
    }

    /// Whether [`KeyHandle::drained`] would be ready now.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert!(!handle.is_drained(handle.load()?.generation()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_drained(&self, generation: Generation) -> bool {
        match &self.inner {
            Inner::Fixed(_) => generation < Generation::FIRST,
            Inner::Live(live) => live.core.holders.is_drained(generation.0),
        }
    }
}

impl<I: Issuer> Drained<I> {
    /// Blocks until it is so; false after the timeout.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::handle::{Generation, KeyHandle};
    /// # use keysheath::key::Kanal;
    /// fn may_delete(handle: &KeyHandle<Kanal>, old: Generation) -> bool {
    ///     handle.drained(old).wait(Duration::from_secs(60))
    /// }
    /// ```
    #[must_use]
    pub fn wait(self, timeout: Duration) -> bool {
        let look = || self.handle.is_drained(self.generation).then_some(());
        match &self.handle.inner {
            Inner::Fixed(_) => look().or_else(|| sleep(timeout)),
            Inner::Live(live) => wait(timeout, || live.core.holders.fewer(), look),
        }
        .is_some()
    }
}

impl<I: Issuer> Future for Drained<I> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let look = || this.handle.is_drained(this.generation).then_some(());
        match &this.handle.inner {
            Inner::Fixed(_) => look().map_or(Poll::Pending, Poll::Ready),
            Inner::Live(live) => this.listening.poll(|| live.core.holders.fewer(), look, context),
        }
    }
}

impl<I: Issuer> Subscription<I> {
    /// Waits for the next change, and gives what is in force after it. Of a key that never changes it waits for ever.
    ///
    /// # Errors
    /// [`NoActiveKey`] when no key is in force any more.
    ///
    /// ```
    /// # use keysheath::handle::Subscription;
    /// # use keysheath::key::Kanal;
    /// async fn log(mut subscription: Subscription<Kanal>) {
    ///     println!("{:?}", subscription.changed().await);
    /// }
    /// ```
    pub async fn changed(&mut self) -> Result<Snapshot<I>, NoActiveKey> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    /// As [`Subscription::changed`], blocking; None after the timeout.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::handle::Subscription;
    /// # use keysheath::key::Kanal;
    /// fn log(mut subscription: Subscription<Kanal>) {
    ///     while let Some(now) = subscription.wait(Duration::from_secs(3600)) {
    ///         println!("{now:?}");
    ///     }
    /// }
    /// ```
    pub fn wait(&mut self, timeout: Duration) -> Option<Result<Snapshot<I>, NoActiveKey>> {
        let Self { handle, seen, .. } = self;
        let look = || look_for_change(handle, seen);
        match &handle.inner {
            Inner::Fixed(_) => sleep(timeout),
            Inner::Live(live) => wait(timeout, || live.core.reloads.news(), look),
        }
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Result<Snapshot<I>, NoActiveKey>> {
        let Self { handle, seen, listening } = self;
        match &handle.inner {
            Inner::Fixed(_) => Poll::Pending,
            Inner::Live(live) => {
                listening.poll(|| live.core.reloads.news(), || look_for_change(handle, seen), context)
            }
        }
    }
}

fn seen_in<I: Issuer>(state: &State<Version<I>>) -> (Generation, u64) {
    (Generation(state.next.generation), state.edition)
}

fn look_for_change<I: Issuer>(
    handle: &KeyHandle<I>,
    seen: &mut (Generation, u64),
) -> Option<Result<Snapshot<I>, NoActiveKey>> {
    let Inner::Live(live) = &handle.inner else { return None };
    // Both of one state: what is published between two looks would be told twice.
    let state = live.core.load();
    let now = seen_in(&state);
    if now == *seen {
        return None;
    }
    *seen = now;
    let closed = state.next.current.key.as_ref().err().copied();
    Some(closed.map_or_else(|| Ok(Snapshot::live(state)), Err))
}

impl Listening {
    pub(super) fn poll<R>(
        &mut self,
        listen: impl Fn() -> EventListener,
        look: impl FnMut() -> Option<R>,
        context: &mut Context<'_>,
    ) -> Poll<R> {
        poll_until(&mut self.0, listen, look, context)
    }
}

/// Blocks until there is something, at most for the timeout.
pub(super) fn wait<R>(
    timeout: Duration,
    listen: impl Fn() -> EventListener,
    look: impl FnMut() -> Option<R>,
) -> Option<R> {
    wait_until(Instant::now().checked_add(timeout), listen, look)
}

/// What waiting for a change of a fixed key comes to.
fn sleep<R>(timeout: Duration) -> Option<R> {
    std::thread::sleep(timeout);
    None
}

impl<I: Issuer> fmt::Debug for Drained<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drained({:?}, generation {})", self.handle, self.generation)
    }
}

impl<I: Issuer> fmt::Debug for Subscription<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?}, seen generation {})", self.handle, self.seen.0)
    }
}
