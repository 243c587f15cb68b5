//! Keys that the issuer refused, and what clears a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Generation, KeyHandle, NewerKey, Version};
use crate::key::Issuer;

/// The refusals that a handle knows of; 0 is none, because the first generation is 1. Requests read it
/// without a lock.
#[derive(Default)]
pub(super) struct Refusals {
    /// The latest generation that the issuer refused.
    refused: AtomicU64,
    /// The latest generation that a 401 without a body was about: it is not known who refused it.
    doubted: AtomicU64,
    /// Grows with each refusal or doubt of a newer generation.
    news: AtomicU64,
    /// Grows with each refusal or doubt, so that an earlier request clears none of them.
    reports: AtomicU64,
}

/// How many reports of refusals were known when a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known(u64);

impl Refusals {
    pub(super) fn refused(&self) -> Option<Generation> {
        Generation::numbered(self.refused.load(Ordering::Relaxed))
    }

    fn known(&self) -> Known {
        Known(self.reports.load(Ordering::Acquire))
    }

    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Returns whether this generation was refused or doubted.
    pub(super) fn is_about(&self, generation: Generation) -> bool {
        [&self.refused, &self.doubted].iter().any(|cell| cell.load(Ordering::Relaxed) == generation.0)
    }

    /// Notes a refusal; returns whether it is of a newer generation than the last one.
    fn refuse(&self, generation: Generation) -> bool {
        // First, so that a request that clears what is noted below was sent after it.
        self.reports.fetch_add(1, Ordering::Release);
        let is_news = self.refused.fetch_max(generation.0, Ordering::Relaxed) < generation.0;
        if is_news {
            self.news.fetch_add(1, Ordering::Release);
        }
        is_news
    }

    fn doubt(&self, generation: Generation) {
        self.reports.fetch_add(1, Ordering::Release);
        if self.refused() < Some(generation)
            && self.doubted.fetch_max(generation.0, Ordering::Relaxed) < generation.0
        {
            self.news.fetch_add(1, Ordering::Release);
        }
    }

    /// Clears the refusal and the doubt of this generation, and of no other. Returns whether there was a
    /// refusal.
    pub(super) fn accept(&self, generation: Generation) -> bool {
        let clear = |cell: &AtomicU64| {
            cell.compare_exchange(generation.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        clear(&self.doubted);
        clear(&self.refused)
    }
}

/// A key that was refused, and the generation in which it was sent. It does not hold the generation.
///
/// The key itself, because a newer generation may have it active again: that is what a rollback does.
pub(crate) struct Refusal<I: Issuer> {
    pub(super) version: Arc<Version<I>>,
    pub(super) generation: Generation,
    /// Whether it was certainly the issuer that refused.
    pub(super) is_certain: bool,
}

impl<I: Issuer> Refusal<I> {
    /// Returns whether this is the key that was refused.
    pub(super) fn is_of(&self, version: &Version<I>) -> bool {
        matches!((&self.version.key, &version.key), (Ok(refused), Ok(key)) if refused == key)
    }
}

impl<I: Issuer> Clone for Refusal<I> {
    fn clone(&self) -> Self {
        Self { version: Arc::clone(&self.version), ..*self }
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// Notes that the issuer refused the key of this generation. The latest generation counts, in whatever
    /// order the answers come; one that this handle has not had yet is another handle's, and is ignored. If
    /// the generation is the active one, the refresher is asked for a newer key; a late answer about an older
    /// one asks for nothing.
    ///
    /// The client layers call it on [`Meaning::KeyRefused`](crate::failure::Meaning::KeyRefused) only.
    pub fn report_refused(&self, generation: Generation) {
        self.note_refused(generation);
        if generation == self.generation() {
            self.live.core.reloads.ask();
        }
    }

    /// Clears the refusal of this generation: the issuer accepted a request that was sent with its key after
    /// the refusal. A refusal of another generation stays. It costs one read of an atomic where nothing was
    /// refused.
    ///
    /// The client layers call it on answers that [accept the key](crate::failure::Meaning::accepts_key).
    pub fn report_accepted(&self, generation: Generation) {
        if self.live.refusals.accept(generation) {
            self.live.core.holders.wake();
        }
    }

    /// Returns the latest generation that was reported as refused. If it is the active one, a person must
    /// replace the key. An answer that accepts the key, to a request that was sent later, clears the report;
    /// so does a rotation whose probe sees the key accepted.
    #[must_use]
    pub fn refused(&self) -> Option<Generation> {
        self.live.refusals.refused()
    }

    /// For a request that is sent now; see [`KeyHandle::accepted`].
    #[inline]
    pub(crate) fn known_refusals(&self) -> Known {
        self.live.refusals.known()
    }

    /// As [`KeyHandle::report_accepted`], of a request that was sent when so many refusals were known: the
    /// answer to a request that was sent before the refusal clears nothing.
    #[inline]
    pub(crate) fn accepted(&self, generation: Generation, known: Known) {
        // There was never a refusal, or there is one that is newer than the request.
        if known == Known(0) || known != self.known_refusals() {
            return;
        }
        self.report_accepted(generation);
    }

    /// As [`KeyHandle::report_refused`], for a caller that then waits for another key: the report and the
    /// wait ask for one attempt together, and not for one each if the first has begun in between. If the key
    /// that was refused is active again in a newer generation, the refusal is about that one.
    pub(crate) fn reload_instead_of(&self, refusal: &Refusal<I>) -> NewerKey<I> {
        let generation = self.active_again(refusal).unwrap_or(refusal.generation);
        self.note(refusal, generation);
        let reload = NewerKey::new(self, generation).instead_of(refusal);
        if generation == self.generation() { reload.asked() } else { reload }
    }

    /// Returns the active generation, if its key is the one that was refused.
    pub(super) fn active_again(&self, refusal: &Refusal<I>) -> Option<Generation> {
        let now = self.load().ok().filter(|now| refusal.is_of(now.version()))?;
        Some(now.generation())
    }

    pub(super) fn note(&self, refusal: &Refusal<I>, generation: Generation) {
        // A key that was stopped has left its generation to another one.
        let is_others = || self.load().is_ok_and(|now| !refusal.is_of(now.version()));
        if generation == self.generation() && is_others() {
            return;
        }
        if refusal.is_certain {
            self.note_refused(generation);
        } else if generation <= self.generation() {
            self.live.refusals.doubt(generation);
        }
    }

    fn note_refused(&self, generation: Generation) {
        if generation <= self.generation() && self.live.refusals.refuse(generation) {
            // Observers show it to other processes.
            self.live.core.holders.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{FIRST, GRACE, SECOND, THIRD, api_key, fixed, key, live, numbered, publish};
    use super::super::{NoActiveKey, Reload};
    use super::*;
    use crate::key::Kanal;

    #[test]
    fn an_accepted_answer_clears_its_own_generation_only() {
        let handle = fixed();
        let first = handle.load().unwrap().generation();
        handle.report_refused(first);
        handle.report_accepted(Generation(2));
        assert_eq!(handle.refused(), Some(first));
        handle.report_accepted(first);
        assert_eq!(handle.refused(), None);
    }

    #[test]
    fn an_answer_to_an_earlier_request_clears_nothing() {
        let handle = fixed();
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
    #[test]
    fn an_answer_clears_no_refusal_of_a_later_request() {
        let handle = fixed();
        let first = handle.load().unwrap().generation();
        handle.report_refused(first);
        let between = handle.known_refusals();
        handle.report_refused(first);
        handle.accepted(first, between);
        assert_eq!(handle.refused(), Some(first));
        handle.accepted(first, handle.known_refusals());
        assert_eq!(handle.refused(), None);
    }

    #[test]
    fn a_report_of_a_generation_not_had_yet_is_ignored() {
        let handle = fixed();
        handle.report_refused(Generation(2));
        assert_eq!(handle.refused(), None);
        handle.report_refused(Generation(1));
        assert_eq!(handle.clone().refused(), Some(Generation(1)));
    }

    #[test]
    fn a_refused_key_is_replaced_by_the_newer_or_the_previous_one() {
        let refusal = |handle: &KeyHandle<Kanal>| handle.load().unwrap().refusal(true);
        let fixed = fixed();
        assert!(fixed.load_instead_of(&refusal(&fixed)).is_none());
        let (handle, publisher) = live();
        publisher.publish_next(&key(FIRST), GRACE);
        let first = refusal(&handle);
        assert!(handle.load_instead_of(&first).is_none(), "there is no other");
        publisher.publish_next(&key(SECOND), GRACE);
        let second = refusal(&handle);
        let instead = |refusal| handle.load_instead_of(refusal);
        assert!(instead(&first).unwrap().current().matches(SECOND.as_bytes()), "the newer one");
        assert!(instead(&second).unwrap().current().matches(FIRST.as_bytes()), "the previous one");
        publisher.publish_next(&key(THIRD), Duration::ZERO);
        let third = refusal(&handle);
        assert!(instead(&second).unwrap().current().matches(THIRD.as_bytes()));
        assert!(instead(&third).is_none(), "the grace is over");
    }

    #[test]
    fn a_refused_key_is_not_replaced_where_no_key_is_active() {
        let (handle, publisher) = live();
        publisher.publish(&numbered(1, Ok(&key(FIRST))));
        let refusal = handle.load().unwrap().refusal(true);
        publisher.publish(&numbered(2, Err(NoActiveKey::Compromised)));
        assert!(handle.load_instead_of(&refusal).is_none());
    }

    #[test]
    fn a_rollback_to_the_refused_key_does_not_answer_the_refusal() {
        let (handle, publisher) = live();
        let reloader = publisher.reloader();
        publisher.publish(&numbered(1, Ok(&key(FIRST))));
        let refusal = handle.load().unwrap().refusal(true);
        let waiting = handle.reload_instead_of(&refusal);
        // What the refresher reads was written in the middle of a rotation.
        let attempt = reloader.begin();
        publisher.publish(&numbered(3, Ok(&key(FIRST))));
        reloader.end(attempt, Reload::Newer);
        assert!(handle.load_instead_of(&refusal).is_none());
        let asks = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        while !reloader.is_asked() && !asks.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(handle.refused(), Some(Generation(3)), "the refusal is of the active key");
        let attempt = reloader.begin();
        publisher.publish(&numbered(4, Ok(&key(SECOND))));
        reloader.end(attempt, Reload::Newer);
        assert_eq!(asks.join().unwrap(), Some(Reload::Newer));
        assert!(handle.load_instead_of(&refusal).unwrap().current().matches(SECOND.as_bytes()));
        drop(reloader);
    }

    #[test]
    fn a_late_refusal_of_a_key_that_is_active_again_asks_to_reload() {
        let (handle, publisher) = live();
        let reloader = publisher.reloader();
        publisher.publish(&numbered(1, Ok(&key(FIRST))));
        let refusal = handle.load().unwrap().refusal(true);
        publisher.publish(&numbered(2, Ok(&key(SECOND))));
        drop(handle.reload_instead_of(&refusal));
        assert!(!reloader.is_asked(), "another key is active");
        publisher.publish(&numbered(3, Ok(&key(FIRST))));
        drop(handle.reload_instead_of(&refusal));
        assert!(reloader.is_asked());
        assert_eq!(handle.refused(), Some(Generation(3)));
        drop(reloader);
    }

    #[test]
    fn only_a_refusal_of_the_active_generation_asks_for_a_reload() {
        let (handle, publisher) = live();
        let reloader = publisher.reloader();
        for text in [FIRST, SECOND] {
            publisher.publish_next(&key(text), GRACE);
        }
        handle.report_refused(Generation(1));
        assert!(!reloader.is_asked());
        assert_eq!(handle.refused(), Some(Generation(1)));
        handle.report_refused(Generation(2));
        assert!(reloader.is_asked());
        handle.report_refused(Generation(1));
        assert_eq!(handle.refused(), Some(Generation(2)));
        drop(reloader);
    }

    #[test]
    fn a_late_refusal_of_a_stopped_key_is_not_of_its_successor() {
        let (handle, publisher) = live();
        publish(&publisher, 2, SECOND, Some(FIRST));
        let sent = handle.load().unwrap();
        handle.stop(&api_key(SECOND));
        let _reload = handle.reload_instead_of(&sent.refusal(true));
        assert_eq!(handle.refused(), None);
    }
}
