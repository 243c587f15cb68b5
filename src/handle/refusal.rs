//! Keys that the issuer refused, and what takes that back.

#[cfg(feature = "client")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "client")]
use super::NewerKey;
#[cfg(feature = "client")]
use super::version::Version;
use super::{Generation, Inner, KeyHandle};
use crate::key::Issuer;

/// What a handle knows of refusals; 0 is none, because the first generation is 1. Requests read it without a lock.
#[derive(Default)]
pub(super) struct Refusals {
    /// The latest generation that the issuer refused.
    refused: AtomicU64,
    /// The latest generation that a 401 without a body was about: who refused it is not known.
    doubted: AtomicU64,
    /// Grows with each refusal or doubt that is news.
    news: AtomicU64,
    /// Grows with each refusal or doubt, so that an earlier request takes none of them back.
    reports: AtomicU64,
}

/// How many reports of refusals were known when a request was sent.
#[cfg(feature = "client")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known(u64);

impl Refusals {
    pub(super) fn refused(&self) -> Option<Generation> {
        Generation::counted(self.refused.load(Ordering::Relaxed))
    }

    #[cfg(feature = "client")]
    fn known(&self) -> Known {
        Known(self.reports.load(Ordering::Acquire))
    }

    #[cfg(feature = "rotation")]
    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Whether this generation was refused or doubted.
    #[cfg(feature = "rotation")]
    pub(super) fn is_about(&self, generation: Generation) -> bool {
        [&self.refused, &self.doubted].iter().any(|cell| cell.load(Ordering::Relaxed) == generation.0)
    }

    /// Notes a refusal; false where it is no news.
    fn refuse(&self, generation: Generation) -> bool {
        // First, so that who takes back what is noted below knows of it.
        self.reports.fetch_add(1, Ordering::Release);
        let is_news = self.refused.fetch_max(generation.0, Ordering::Relaxed) < generation.0;
        if is_news {
            self.news.fetch_add(1, Ordering::Release);
        }
        is_news
    }

    #[cfg(feature = "client")]
    fn doubt(&self, generation: Generation) {
        self.reports.fetch_add(1, Ordering::Release);
        if self.refused() < Some(generation)
            && self.doubted.fetch_max(generation.0, Ordering::Relaxed) < generation.0
        {
            self.news.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes back what was noted of this generation, and of no other. True where that was a refusal.
    pub(super) fn accept(&self, generation: Generation) -> bool {
        let take_back = |cell: &AtomicU64| {
            cell.compare_exchange(generation.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        take_back(&self.doubted);
        take_back(&self.refused)
    }
}

/// A key that the issuer refused, and the generation in which it was sent. The generation is not held by it.
///
/// The key, because a newer generation may have it active again: that is what a rollback does.
#[cfg(feature = "client")]
pub(crate) struct Refusal<I: Issuer> {
    pub(super) version: Arc<Version<I>>,
    pub(super) generation: Generation,
    /// Whether it was the issuer, for sure.
    pub(super) is_certain: bool,
}

#[cfg(feature = "client")]
impl<I: Issuer> Refusal<I> {
    /// Whether this is the key that was refused.
    pub(super) fn is_of(&self, version: &Version<I>) -> bool {
        matches!((&self.version.key, &version.key), (Ok(refused), Ok(key)) if refused == key)
    }
}

#[cfg(feature = "client")]
impl<I: Issuer> Clone for Refusal<I> {
    fn clone(&self) -> Self {
        Self { version: Arc::clone(&self.version), ..*self }
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// Notes that the issuer refused the key of this generation. The latest generation counts, in whatever order the
    /// answers come; one that this handle has not had yet is another handle's, and ignored. Where it is the active one,
    /// the refresher is asked for a newer key; a late answer about an older one asks for nothing.
    ///
    /// The client layers call it on [`Meaning::KeyRefused`](crate::failure::Meaning::KeyRefused), and on nothing else.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// handle.report_refused(handle.load()?.generation());
    /// assert!(handle.refused().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report_refused(&self, generation: Generation) {
        self.note_refused(generation);
        #[cfg(feature = "rotation")]
        if let (Inner::Live(live), true) = (&self.inner, generation == self.generation()) {
            live.core.reloads.ask();
        }
    }

    /// Takes back that the issuer refused the key of this generation: it accepted a request that was sent with it after
    /// that. What was reported of another generation stays. It costs one read of an atomic where nothing was refused.
    ///
    /// The client layers call it on what [accepts the key](crate::failure::Meaning::accepts_key).
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let sent = handle.load()?.generation();
    /// handle.report_refused(sent);
    /// handle.report_accepted(sent);
    /// assert_eq!(handle.refused(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report_accepted(&self, generation: Generation) {
        if self.refusals().accept(generation) {
            self.tell_of_refusals();
        }
    }

    /// The latest generation that was reported as refused. Where it is the active one, the key needs a person. An answer
    /// that accepts the key, of a request that was sent later, takes the report back; so does a rotation whose probe
    /// sees its key accepted.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert_eq!(handle.refused(), None);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn refused(&self) -> Option<Generation> {
        self.refusals().refused()
    }

    /// For a request that is sent now; see [`KeyHandle::accepted`].
    #[cfg(feature = "client")]
    #[inline]
    pub(crate) fn known_refusals(&self) -> Known {
        self.refusals().known()
    }

    /// As [`KeyHandle::report_accepted`], of a request that was sent when so many refusals were known: the answer to one
    /// that was sent before the refusal takes nothing back.
    #[cfg(feature = "client")]
    #[inline]
    pub(crate) fn accepted(&self, generation: Generation, known: Known) {
        // There was never a refusal, or there is one that is newer than the request.
        if known == Known(0) || known != self.known_refusals() {
            return;
        }
        self.report_accepted(generation);
    }

    /// As [`KeyHandle::report_refused`], for who then waits for another key: the report and the waiting ask for one
    /// attempt, and not for one each where the first has begun in between. Where the key that was refused is active
    /// again in a newer generation, the refusal is about that one.
    #[cfg(feature = "client")]
    pub(crate) fn reload_instead_of(&self, refusal: &Refusal<I>) -> NewerKey<I> {
        let generation = self.in_force_again(refusal).unwrap_or(refusal.generation);
        self.note(refusal, generation);
        let reload = self.reload_past(generation).instead_of(refusal);
        if generation == self.generation() { reload.asked() } else { reload }
    }

    /// The active generation, if its key is the one that was refused.
    #[cfg(feature = "client")]
    pub(super) fn in_force_again(&self, refusal: &Refusal<I>) -> Option<Generation> {
        let now = self.load().ok().filter(|now| refusal.is_of(now.version()))?;
        Some(now.generation())
    }

    #[cfg(feature = "client")]
    pub(super) fn note(&self, refusal: &Refusal<I>, generation: Generation) {
        // A key that was stopped has left its generation to another one.
        let is_others = || self.load().is_ok_and(|now| !refusal.is_of(now.version()));
        if generation == self.generation() && is_others() {
            return;
        }
        if refusal.is_certain {
            self.note_refused(generation);
        } else if generation <= self.generation() {
            self.refusals().doubt(generation);
        }
    }

    fn note_refused(&self, generation: Generation) {
        if generation <= self.generation() && self.refusals().refuse(generation) {
            self.tell_of_refusals();
        }
    }

    /// What is shown to other processes has changed.
    fn tell_of_refusals(&self) {
        match &self.inner {
            #[cfg(feature = "rotation")]
            Inner::Fixed(fixed) => fixed.news.notify_all(),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => live.core.holders.wake(),
            #[cfg(not(feature = "rotation"))]
            Inner::Fixed(_) => {}
        }
    }

    #[inline]
    fn refusals(&self) -> &Refusals {
        match &self.inner {
            Inner::Fixed(fixed) => &fixed.refusals,
            #[cfg(feature = "rotation")]
            Inner::Live(live) => &live.refusals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ApiKey, Kanal};

    fn handle() -> KeyHandle<Kanal> {
        KeyHandle::fixed(ApiKey::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap())
    }

    #[test]
    fn an_accepted_answer_takes_back_its_own_generation_alone() {
        let handle = handle();
        let first = handle.load().unwrap().generation();
        handle.report_refused(first);
        handle.report_accepted(Generation(2));
        assert_eq!(handle.refused(), Some(first));
        handle.report_accepted(first);
        assert_eq!(handle.refused(), None);
    }

    #[cfg(feature = "client")]
    #[test]
    fn an_answer_to_an_earlier_request_takes_nothing_back() {
        let handle = handle();
        let first = handle.load().unwrap().generation();
        for _ in 0..3 {
            let earlier = handle.known_refusals();
            handle.report_refused(first);
            handle.accepted(first, earlier);
            assert_eq!(handle.refused(), Some(first));
            handle.accepted(first, handle.known_refusals());
            assert_eq!(handle.refused(), None);
        }
    }
    #[cfg(feature = "client")]
    #[test]
    fn an_answer_takes_back_no_refusal_of_a_later_request() {
        let handle = handle();
        let first = handle.load().unwrap().generation();
        handle.report_refused(first);
        let between = handle.known_refusals();
        handle.report_refused(first);
        handle.accepted(first, between);
        assert_eq!(handle.refused(), Some(first));
        handle.accepted(first, handle.known_refusals());
        assert_eq!(handle.refused(), None);
    }
}
