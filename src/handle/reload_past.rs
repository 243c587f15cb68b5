//! Waiting for a newer key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(feature = "client")]
use super::Refusal;
#[cfg(feature = "rotation")]
use super::live::Live;
#[cfg(feature = "rotation")]
use super::reloads::Ticket;
#[cfg(feature = "rotation")]
use super::waiting::{self, Listening};
use super::{Generation, Inner, KeyHandle, Reload};
use crate::key::Issuer;

/// Waits for a generation past one; see [`KeyHandle::reload_past`]. Await it, or [`wait`](NewerKey::wait).
///
/// ```
/// use std::time::Duration;
/// use keysheath::handle::{KeyHandle, Reload};
/// use keysheath::key::{ApiKey, Kanal};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let reload = handle.reload_past(handle.load()?.generation()).wait(Duration::from_secs(1));
/// assert_eq!(reload, Some(Reload::NoRefresher));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is asked for until it is awaited"]
pub struct NewerKey<I: Issuer> {
    handle: KeyHandle<I>,
    past: Generation,
    #[cfg(feature = "rotation")]
    ticket: Option<Ticket>,
    #[cfg(feature = "rotation")]
    listening: Listening,
    /// What is not to be taken for an answer, however new its generation is.
    #[cfg(all(feature = "rotation", feature = "client"))]
    refusal: Option<Refusal<I>>,
}

impl<I: Issuer> KeyHandle<I> {
    /// Waits for a generation past this one: at once where it is there already, and otherwise until the refresher has asked
    /// its source or store. Those who ask at the same time share one attempt, and an attempt that began before they
    /// asked does not answer them.
    ///
    /// It needs no runtime. It takes as long as an attempt that is under way, the rest of the refresher's minimum interval and
    /// one attempt, each of which is bounded by the settings of its refresher; while the refresher backs off, the answer
    /// is [`Reload::TooSoon`], without waiting. In a forked child, which has no thread of the refresher, it is
    /// [`Reload::NoRefresher`].
    ///
    /// ```
    /// # use keysheath::handle::{KeyHandle, Reload};
    /// # use keysheath::key::Kanal;
    /// async fn after_a_refusal(handle: &KeyHandle<Kanal>) -> Result<bool, keysheath::handle::NoActiveKey> {
    ///     let sent = handle.load()?.generation();
    ///     Ok(handle.reload_past(sent).await == Reload::Newer)
    /// }
    /// ```
    pub fn reload_past(&self, generation: Generation) -> NewerKey<I> {
        NewerKey {
            handle: self.clone(),
            past: generation,
            #[cfg(feature = "rotation")]
            ticket: None,
            #[cfg(feature = "rotation")]
            listening: Listening::default(),
            #[cfg(all(feature = "rotation", feature = "client"))]
            refusal: None,
        }
    }
}

impl<I: Issuer> NewerKey<I> {
    /// Blocks until there is an answer; None after the timeout.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keysheath::handle::{KeyHandle, Reload};
    /// # use keysheath::key::Kanal;
    /// fn after_a_refusal(handle: &KeyHandle<Kanal>) -> Result<bool, keysheath::handle::NoActiveKey> {
    ///     let sent = handle.load()?.generation();
    ///     Ok(handle.reload_past(sent).wait(Duration::from_secs(10)) == Some(Reload::Newer))
    /// }
    /// ```
    #[must_use]
    #[cfg_attr(not(feature = "rotation"), allow(unused_variables, reason = "nothing is waited for"))]
    pub fn wait(self, timeout: Duration) -> Option<Reload> {
        let (handle, past) = (self.handle.clone(), self.past);
        #[cfg(feature = "rotation")]
        let mut waiting = self;
        match &handle.inner {
            Inner::Fixed(_) => Some(of_a_fixed_key(past)),
            #[cfg(feature = "rotation")]
            Inner::Live(live) if live.core.reloads.is_elsewhere() => Some(in_a_fork(live, past)),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => waiting::wait(timeout, || live.core.reloads.news(), || waiting.look(live)),
        }
    }

    /// What there is to say now, if anything.
    #[cfg(feature = "rotation")]
    fn look(&mut self, live: &Live<I>) -> Option<Reload> {
        loop {
            let outcome = live.core.look_past(self.past.0, &mut self.ticket)?;
            if !self.goes_on_after(outcome) {
                return Some(outcome);
            }
        }
    }

    /// A newer generation with the very key that was refused is no answer: the wait is then for one past it.
    #[cfg(feature = "rotation")]
    #[cfg_attr(
        not(feature = "client"),
        allow(clippy::unused_self, reason = "nobody says which key was refused")
    )]
    fn goes_on_after(&mut self, outcome: Reload) -> bool {
        #[cfg(feature = "client")]
        if outcome == Reload::Newer
            && let Some(again) = self.refusal.as_ref().and_then(|refusal| self.handle.in_force_again(refusal))
        {
            self.note_again(again);
            (self.past, self.ticket) = (again, None);
            return true;
        }
        let _ = outcome;
        false
    }

    #[cfg(all(feature = "rotation", feature = "client"))]
    fn note_again(&self, again: Generation) {
        if let Some(refusal) = &self.refusal {
            self.handle.note(refusal, again);
        }
    }

    /// For another key than the one that was refused.
    #[cfg(feature = "client")]
    pub(super) fn instead_of(self, refusal: &Refusal<I>) -> Self {
        #[cfg(feature = "rotation")]
        return Self { refusal: Some(refusal.clone()), ..self };
        #[cfg(not(feature = "rotation"))]
        {
            let _ = refusal;
            self
        }
    }

    /// Has asked already, and not only when it is first polled.
    #[cfg(feature = "client")]
    #[cfg_attr(not(feature = "rotation"), allow(unused_mut, reason = "a fixed key is not asked for"))]
    pub(super) fn asked(mut self) -> Self {
        match &self.handle.inner {
            Inner::Fixed(_) => {}
            #[cfg(feature = "rotation")]
            Inner::Live(live) => self.ticket = live.core.reloads.ask(),
        }
        self
    }
}

fn of_a_fixed_key(past: Generation) -> Reload {
    if past < Generation::FIRST { Reload::Newer } else { Reload::NoRefresher }
}

/// In a forked child nothing is asked for and nothing is listened to: both take locks that may never be given back.
#[cfg(feature = "rotation")]
fn in_a_fork<I: Issuer>(live: &Live<I>, past: Generation) -> Reload {
    if live.core.load().next.generation > past.0 { Reload::Newer } else { Reload::NoRefresher }
}

impl<I: Issuer> Future for NewerKey<I> {
    type Output = Reload;

    #[cfg_attr(not(feature = "rotation"), allow(unused_variables, reason = "a fixed key is not waited for"))]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reload> {
        let this = self.get_mut();
        let handle = this.handle.clone();
        match &handle.inner {
            Inner::Fixed(_) => Poll::Ready(of_a_fixed_key(this.past)),
            #[cfg(feature = "rotation")]
            Inner::Live(live) if live.core.reloads.is_elsewhere() => Poll::Ready(in_a_fork(live, this.past)),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => {
                let mut listening = std::mem::take(&mut this.listening);
                let poll = listening.poll(|| live.core.reloads.news(), || this.look(live), context);
                this.listening = listening;
                poll
            }
        }
    }
}

impl<I: Issuer> fmt::Debug for NewerKey<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewerKey({:?}, past generation {})", self.handle, self.past)
    }
}
