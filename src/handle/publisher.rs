//! The side of a handle that changes its key: what a refresher, a rotation and a token keeper own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::core::{Attempt, Before, Core, Next, Reload, Reloads, Until};
use super::refusal::Refusals;
use super::sync::{EventListener, Mutex, lock};
use super::{Generation, KeyHandle, NoActiveKey, Version};
use crate::key::{ApiKey, Fingerprint, Issuer, Profile, RawKey};

/// How many stopped keys are remembered. Beyond that, the one that was stopped first is forgotten.
const MAX_STOPPED: usize = 256;

/// What the clones of a handle share with its publisher.
pub(super) struct Live<I: Issuer> {
    pub(super) core: Core<Version<I>>,
    pub(super) refusals: Refusals,
    /// Whether there is, or was, a publisher.
    pub(super) has_publisher: bool,
    /// Keys that are not sent any more. Locked while the state is replaced.
    stopped: Mutex<Vec<Stopped>>,
    /// The generation whose own key was stopped; 0 for none.
    stopped_in: AtomicU64,
    /// The key that began the key set, once that has had an active key. Locked while the state is replaced.
    lineage: Mutex<Option<Fingerprint>>,
}

/// The result of [`KeyHandle::stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// The key was active. The previous key is active again, because its grace has not ended.
    FellBack,
    /// The key was active. No key is active now.
    NoActiveKey,
    /// The key was not active. It does not become active any more.
    NotActive,
}

/// A key that was stopped.
#[derive(PartialEq)]
enum Stopped {
    Name(Fingerprint),
    /// One that has no fingerprint.
    Key(RawKey),
}

impl Stopped {
    fn new(key: &RawKey) -> Self {
        key.fingerprint().map_or_else(|| Self::Key(key.clone_key()), Self::Name)
    }
}

impl<I: Issuer> Live<I> {
    pub(super) fn new(generation: u64, key: Result<ApiKey<I>, NoActiveKey>, has_publisher: bool) -> Self {
        Self {
            core: Core::new(generation, Version::new(key)),
            refusals: Refusals::default(),
            has_publisher,
            stopped: Mutex::new(Vec::new()),
            stopped_in: AtomicU64::new(0),
            lineage: Mutex::new(None),
        }
    }

    /// Returns the active generation; 0 before the first key.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.core.load().next.generation)
    }

    fn is_stopped(&self, key: &RawKey) -> bool {
        let stopped = Stopped::new(key);
        lock(&self.stopped).contains(&stopped)
    }

    fn remember(&self, stopped: Stopped) {
        // A fixed handle gets no other key.
        if !self.has_publisher {
            return;
        }
        let mut all = lock(&self.stopped);
        all.retain(|other| *other != stopped);
        if all.len() >= MAX_STOPPED {
            all.remove(0);
        }
        all.push(stopped);
    }

    fn stop(&self, stopped: Stopped) -> Stop {
        let mut stop = Stop::NotActive;
        self.core.update(|there| {
            let is_it = |version: &Version<I>| {
                version.key.as_ref().is_ok_and(|key| Stopped::new(key.as_raw()) == stopped)
            };
            let was_active = is_it(&there.current);
            let previous = there.previous.as_ref().filter(|before| !is_it(&before.value));
            self.remember(stopped);
            if !was_active && previous.is_some() == there.previous.is_some() {
                return None;
            }
            let generation = there.generation;
            if !was_active {
                return Some(Next { generation, current: Arc::clone(&there.current), previous: None });
            }
            self.stopped_in.store(generation, Ordering::Release);
            let falls_back = previous.filter(|before| !before.until.is_over());
            stop = if falls_back.is_some() { Stop::FellBack } else { Stop::NoActiveKey };
            let no_key = || Arc::new(Version::new(Err(NoActiveKey::Compromised)));
            let current = falls_back.map_or_else(no_key, |before| Arc::clone(&before.value));
            Some(Next { generation, current, previous: None })
        });
        stop
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// Stops a key that has leaked: from now on, this handle and its clones do not give it out. The previous
    /// key becomes active again while its grace lasts; otherwise the handle has
    /// [no active key](crate::handle::NoActiveKey::Compromised) until another one is published to it.
    ///
    /// It needs no store and no network, and does not block. It holds in this process for this handle and its
    /// clones, and is not undone: a refresher or a rotation that finds the same key again does not publish
    /// it. (The 256 keys that were stopped last are remembered.) Other processes do not learn of it, and
    /// requests in flight are not cancelled. So record the compromise in the key set as well, and
    /// delete the key in the app.
    #[allow(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn stop(&self, leaked: &ApiKey<I>) -> Stop {
        self.live.stop(Stopped::new(leaked.as_raw()))
    }
}

/// What changes the key of its handles. Clones within the crate share the handles: a rotation and its
/// refreshers.
pub(crate) struct Publisher<I: Issuer>(Arc<Live<I>>);

/// The keys of a key set, as they are to be in a handle.
pub(crate) struct Publication<'a> {
    /// `None` for a key set that never had an active key.
    pub(crate) generation: Option<Generation>,
    /// The key that began the key set. It differs between key sets.
    pub(crate) lineage: Option<Fingerprint>,
    pub(crate) current: Result<&'a RawKey, NoActiveKey>,
    /// With the end of its grace.
    pub(crate) previous: Option<(&'a RawKey, Instant)>,
}

/// The result of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// Another key is active, or none.
    Newer,
    /// The active key is the same.
    Same,
    /// Nothing was changed: the handle has a newer generation, or another key in the same one, or is another
    /// issuer's; or the key of a source was stopped.
    Refused,
    /// Nothing was changed: this is another key set than the one whose keys the handle has.
    OtherLineage,
}

impl<I: Issuer> Publisher<I> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Live::new(0, Err(NoActiveKey::NoKey), true)))
    }

    pub(crate) fn handle(&self) -> KeyHandle<I> {
        KeyHandle::new(Arc::clone(&self.0))
    }

    /// Returns the active generation; 0 before the first key.
    pub(crate) fn generation(&self) -> Generation {
        self.0.generation()
    }

    /// Returns the latest generation that the issuer refused.
    pub(crate) fn refused(&self) -> Option<Generation> {
        self.0.refusals.refused()
    }

    /// Returns the number of the latest report, where the active generation was refused, or doubted for a 401
    /// without a body.
    pub(crate) fn news_of_refusal(&self) -> Option<u64> {
        let news = self.0.refusals.news();
        self.0.refusals.is_about(self.generation()).then_some(news)
    }

    /// As [`KeyHandle::stop`], for a key of which only the fingerprint is known.
    pub(crate) fn stop(&self, leaked: Fingerprint) -> Stop {
        self.0.stop(Stopped::Name(leaked))
    }

    /// Returns whether the key that was published last was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        let stopped_in = self.0.stopped_in.load(Ordering::Acquire);
        stopped_in > 0 && stopped_in == self.generation().0
    }

    /// Returns whether this key was stopped in this process. It may still be active, pending or previous in
    /// the key set.
    pub(crate) fn has_stopped(&self, key: Fingerprint) -> bool {
        lock(&self.0.stopped).contains(&Stopped::Name(key))
    }

    /// Clears the refusal of this generation, whose key was seen to be accepted since. A refusal of another
    /// generation stays.
    pub(crate) fn note_accepted(&self, generation: Generation) {
        if self.0.refusals.accept(generation) {
            self.0.core.holders.wake();
        }
    }

    /// Returns whether no request of this process uses this generation or an older one.
    pub(crate) fn is_drained(&self, generation: Generation) -> bool {
        self.0.core.holders.is_drained(generation.0)
    }

    /// Takes part in reloads.
    pub(crate) fn reloader(&self) -> Reloader {
        self.0.core.reloads.attach();
        Reloader { reloads: Arc::clone(&self.0.core.reloads), has_left: AtomicBool::new(false) }
    }

    /// Publishes the keys of a key set, if they are of the same key set and not older than those of the
    /// handle.
    pub(crate) fn publish(&self, keys: &Publication<'_>) -> Published {
        let live = &self.0;
        let generation = keys.generation.map_or(0, |generation| generation.0);
        let mut published = Published::Refused;
        live.core.update(|there| {
            let mut lineage = lock(&live.lineage);
            if lineage.is_some() && keys.lineage.is_some() && *lineage != keys.lineage {
                published = Published::OtherLineage;
                return None;
            }
            let is_current_stopped = keys.current.is_ok_and(|key| live.is_stopped(key));
            if is_current_stopped && generation == there.generation {
                published = Published::Same;
                return None;
            }
            let previous = keys.previous.filter(|(key, _)| !live.is_stopped(key));
            let (current, previous) = match previous {
                Some((key, until)) if is_current_stopped && Instant::now() < until => (Ok(key), None),
                _ if is_current_stopped => (Err(NoActiveKey::Compromised), None),
                previous => (keys.current, previous),
            };
            let is_same = there.current.is_of(current);
            if generation < there.generation || (generation == there.generation && !is_same) {
                return None;
            }
            let current = reuse(there, current)?;
            let previous = match previous {
                None => None,
                Some((key, until)) => {
                    let value = reuse(there, Ok(key))?;
                    let until = Until::at(until);
                    Some(Before { value, generation: generation.saturating_sub(1), until })
                }
            };
            // A key set that has had no active key may be replaced by another one.
            *lineage = keys.lineage.filter(|_| generation > 0);
            if is_current_stopped {
                live.stopped_in.store(generation, Ordering::Release);
            }
            published = if generation == there.generation { Published::Same } else { Published::Newer };
            Some(Next { generation, current, previous })
        });
        published
    }

    /// Publishes the key of a source as the next generation, if it is not active already. The key that was
    /// active becomes the previous key for as long as `grace`.
    pub(crate) fn publish_next(&self, key: &RawKey, grace: Duration) -> Published {
        let live = &self.0;
        let mut published = Published::Refused;
        live.core.update(|there| {
            if there.current.is_of(Ok(key)) {
                published = Published::Same;
                return None;
            }
            if live.is_stopped(key) {
                return None;
            }
            let current = reuse(there, Ok(key))?;
            let until = Instant::now().checked_add(grace);
            let previous = until.filter(|_| there.current.key.is_ok()).map(|until| Before {
                value: Arc::clone(&there.current),
                generation: there.generation,
                until: Until::at(until),
            });
            published = Published::Newer;
            Some(Next { generation: there.generation + 1, current, previous })
        });
        published
    }
}

/// Returns the version of this key that the state has already, with what was made from it, or a new one.
/// `None` for another issuer's key.
fn reuse<I: Issuer>(there: &Next<Version<I>>, key: Result<&RawKey, NoActiveKey>) -> Option<Arc<Version<I>>> {
    let versions = [Some(&there.current), there.previous.as_ref().map(|before| &before.value)];
    if let Some(version) = versions.into_iter().flatten().find(|version| version.is_of(key)) {
        return Some(Arc::clone(version));
    }
    let key = match key {
        Ok(key) => Ok(key.clone_key().try_into_typed::<I>().ok()?),
        Err(no_key) => Err(no_key),
    };
    Some(Arc::new(Version::new(key)))
}

impl<I: Issuer> Clone for Publisher<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I: Issuer> fmt::Debug for Publisher<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, generation {}", I::PROFILE.name(), self.generation())
    }
}

/// Makes the attempts that the callers of a handle ask for, until it leaves or is dropped.
pub(crate) struct Reloader {
    reloads: Arc<Reloads>,
    has_left: AtomicBool,
}

impl Reloader {
    /// Answers the callers that wait with [`Reload::NoRefresher`], unless another reloader is left.
    pub(crate) fn leave(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed) {
            self.reloads.detach();
        }
    }

    /// Returns whether a caller waits for an attempt that has not begun.
    pub(crate) fn is_asked(&self) -> bool {
        self.reloads.is_asked()
    }

    /// Begins an attempt: it answers all callers that have asked until now.
    pub(crate) fn begin(&self) -> Attempt {
        self.reloads.begin()
    }

    /// Ends an attempt. Publish its key before.
    pub(crate) fn end(&self, attempt: Attempt, outcome: Reload) {
        self.reloads.end(attempt, outcome);
    }

    /// Woken when an attempt is asked for, and by [`Reloader::wake`]. Listen, then look, then wait.
    pub(crate) fn work(&self) -> EventListener {
        self.reloads.work()
    }

    pub(crate) fn wake(&self) {
        self.reloads.wake_reloaders();
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The active key, and the oldest generation that requests under way use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// `None` before the first key.
    pub(crate) generation: Option<Generation>,
    /// The oldest generation that a snapshot or a request of this process holds; no newer than the active
    /// one.
    pub(crate) oldest: Option<Generation>,
    /// `None` where there is no active key, and for a key that has no fingerprint.
    pub(crate) key: Option<Fingerprint>,
    /// The key that began the key set; `None` where the keys are of none.
    pub(crate) lineage: Option<Fingerprint>,
    /// The latest generation that the issuer refused.
    pub(crate) refused: Option<Generation>,
}

/// Observes which generations of a handle are used, without access to its keys.
#[derive(Clone)]
pub(crate) struct UsageObserver(Arc<dyn Observed>);

/// A handle of any issuer.
trait Observed: Send + Sync {
    fn profile(&self) -> &'static Profile;
    fn usage(&self) -> Usage;
    fn news(&self) -> EventListener;
    fn wake(&self);
}

impl<I: Issuer> Observed for Live<I> {
    fn profile(&self) -> &'static Profile {
        I::PROFILE
    }

    /// A change in the middle of it shows as older than it is, and never as newer.
    fn usage(&self) -> Usage {
        let oldest = self.core.holders.oldest().map(Generation);
        // Read after the state: it is set before the first key of a key set becomes active, and stays.
        let state = self.core.load();
        let lineage = *lock(&self.lineage);
        let generation = Generation(state.next.generation);
        let oldest = oldest.map_or(generation, |oldest| oldest.min(generation));
        let has_had_key = generation >= Generation::FIRST;
        Usage {
            generation: has_had_key.then_some(generation),
            oldest: has_had_key.then_some(oldest),
            key: state.next.current.key.as_ref().ok().and_then(ApiKey::fingerprint),
            lineage,
            refused: self.refusals.refused(),
        }
    }

    fn news(&self) -> EventListener {
        self.core.holders.fewer()
    }

    fn wake(&self) {
        self.core.holders.wake();
    }
}

impl<I: Issuer> KeyHandle<I> {
    pub(crate) fn usage(&self) -> UsageObserver {
        UsageObserver(Arc::clone(&self.live) as _)
    }
}

impl UsageObserver {
    pub(crate) fn profile(&self) -> &'static Profile {
        self.0.profile()
    }

    pub(crate) fn now(&self) -> Usage {
        self.0.usage()
    }

    /// Woken when a generation has fewer holds, as when another one becomes active, when a refusal is noted
    /// or cleared, and by [`UsageObserver::wake`]. Listen, then look, then wait.
    pub(crate) fn news(&self) -> EventListener {
        self.0.news()
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}
