//! Waiting for a newer key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(feature = "rotation")]
use super::reloads::Ticket;
#[cfg(feature = "rotation")]
use super::waiting::{self, Listening};
use super::{Generation, Inner, KeyHandle, Reload};
use crate::issuer::Issuer;

/// Waits for a generation past one; see [`KeyHandle::reload_past`]. Await it, or [`wait`](ReloadPast::wait).
///
/// ```
/// use std::time::Duration;
/// use keysheath::{handle::{KeyHandle, Reload}, issuer::Kanal, key::ApiKey};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let reload = handle.reload_past(handle.load()?.generation()).wait(Duration::from_secs(1));
/// assert_eq!(reload, Some(Reload::NoRefresher));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is asked for until it is awaited"]
pub struct ReloadPast<I: Issuer> {
    handle: KeyHandle<I>,
    past: Generation,
    #[cfg(feature = "rotation")]
    ticket: Option<Ticket>,
    #[cfg(feature = "rotation")]
    listening: Listening,
}

impl<I: Issuer> KeyHandle<I> {
    /// Waits for a generation past this one: at once where it is there already, and otherwise until the refresher has asked
    /// its source or store. Those who ask at the same time share one attempt, and an attempt that began before they
    /// asked does not answer them.
    ///
    /// It needs no runtime. It takes as long as an attempt that is under way, the rest of the refresher's minimum interval and
    /// one attempt; while the refresher backs off, the answer is [`Reload::TooSoon`], without waiting.
    ///
    /// ```
    /// # use keysheath::{handle::{KeyHandle, Reload}, issuer::Kanal};
    /// async fn after_a_refusal(handle: &KeyHandle<Kanal>) -> Result<bool, keysheath::handle::Closed> {
    ///     let sent = handle.load()?.generation();
    ///     Ok(handle.reload_past(sent).await == Reload::Newer)
    /// }
    /// ```
    pub fn reload_past(&self, generation: Generation) -> ReloadPast<I> {
        ReloadPast {
            handle: self.clone(),
            past: generation,
            #[cfg(feature = "rotation")]
            ticket: None,
            #[cfg(feature = "rotation")]
            listening: Listening::default(),
        }
    }
}

impl<I: Issuer> ReloadPast<I> {
    /// Blocks until there is an answer; None after the timeout.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::{handle::{KeyHandle, Reload}, issuer::Kanal};
    /// fn after_a_refusal(handle: &KeyHandle<Kanal>) -> Result<bool, keysheath::handle::Closed> {
    ///     let sent = handle.load()?.generation();
    ///     Ok(handle.reload_past(sent).wait(Duration::from_secs(10)) == Some(Reload::Newer))
    /// }
    /// ```
    #[must_use]
    #[cfg_attr(not(feature = "rotation"), allow(unused_variables, reason = "a fixed key is not waited for"))]
    pub fn wait(self, timeout: Duration) -> Option<Reload> {
        match &self.handle.inner {
            Inner::Fixed(_) => Some(self.of_a_fixed_key()),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => {
                let mut ticket = self.ticket;
                let look = || live.core.look_past(self.past.0, &mut ticket);
                waiting::wait(timeout, || live.core.reloads.news(), look)
            }
        }
    }

    /// Has asked already, and not only when it is first polled.
    #[cfg_attr(not(feature = "rotation"), allow(unused_mut, reason = "a fixed key is not asked for"))]
    pub(super) fn asked(mut self) -> Self {
        match &self.handle.inner {
            Inner::Fixed(_) => {}
            #[cfg(feature = "rotation")]
            Inner::Live(live) => self.ticket = live.core.reloads.ask(),
        }
        self
    }

    fn of_a_fixed_key(&self) -> Reload {
        if self.past < Generation::FIRST { Reload::Newer } else { Reload::NoRefresher }
    }
}

impl<I: Issuer> Future for ReloadPast<I> {
    type Output = Reload;

    #[cfg_attr(not(feature = "rotation"), allow(unused_variables, reason = "a fixed key is not waited for"))]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reload> {
        let this = self.get_mut();
        match &this.handle.inner {
            Inner::Fixed(_) => Poll::Ready(this.of_a_fixed_key()),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => {
                let look = || live.core.look_past(this.past.0, &mut this.ticket);
                this.listening.poll(|| live.core.reloads.news(), look, context)
            }
        }
    }
}

impl<I: Issuer> fmt::Debug for ReloadPast<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReloadPast({:?}, past generation {})", self.handle, self.past)
    }
}
