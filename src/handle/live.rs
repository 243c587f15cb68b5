//! A handle whose key changes, with its issuer as a value: what a refresher and a rotation publish to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::core::{Before, Core, Next, Until};
use super::holders::Holders;
use super::refusal::Refusals;
use super::reloads::{Attempt, Reloads};
use super::stop::Stopped;
use super::sync::{EventListener, Mutex, lock};
use super::version::Version;
use super::{Generation, NoActiveKey, Reload, Stop, Usage};
use crate::key::{ApiKey, Fingerprint, Issuer, Profile, RawKey};

/// What clones of a live handle share.
pub(super) struct Live<I: Issuer> {
    pub(super) core: Core<Version<I>>,
    pub(super) refusals: Refusals,
    /// Keys that are not to be sent any more. Locked while the state is replaced.
    pub(super) stopped: Mutex<Vec<Stopped>>,
    /// The generation whose own key was stopped; 0 for none.
    pub(super) stopped_in: AtomicU64,
    /// Locked while the state is replaced, and never the other way round.
    publisher: Mutex<Publisher>,
}

/// Who publishes to a handle. Key sets number their keys, and a source's keys are numbered as they come; beside each
/// other, each would undo what the other has done, and a compromised key would come back.
#[derive(Clone, Copy)]
enum Publisher {
    Nobody,
    /// One refresher of a source, and after its end another one.
    Source {
        is_there: bool,
    },
    /// Refreshers and rotations of one key set: once it had a key in force, the one that this key began.
    KeySet {
        begun: Option<Fingerprint>,
    },
}

/// The right of one refresher to publish a source's keys to a handle, until it is dropped.
pub(crate) struct SourceClaim(RawHandle);

/// A live handle, erased. It publishes and is told of work, and gives no key out.
#[derive(Clone)]
pub(crate) struct RawHandle {
    live: Arc<dyn Publish>,
    reloads: Arc<Reloads>,
    holders: Arc<Holders>,
}

/// The keys of a key set, as they are to be in a handle.
pub(crate) struct Publication<'a> {
    /// None for a key set that never had a key in force.
    pub(crate) generation: Option<Generation>,
    /// The key that began the key set, by which it is told from others.
    pub(crate) begun: Option<Fingerprint>,
    pub(crate) current: Result<&'a RawKey, NoActiveKey>,
    /// With the end of its grace.
    pub(crate) previous: Option<(&'a RawKey, Instant)>,
}

/// What publishing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// Another key is in force, or none.
    Newer,
    /// The key in force is the same.
    Same,
    /// Nothing was changed: the handle has a newer generation, or another key in the same one, or is another issuer's;
    /// or it is a source's key that was stopped.
    Refused,
    /// Nothing was changed: the handle has its keys from a source, or from another key set.
    OtherPublisher,
}

trait Publish: Send + Sync {
    fn profile(&self) -> &'static Profile;
    fn generation(&self) -> Generation;
    /// The generation, its key's fingerprint, and that of the key set's first key.
    fn in_force(&self) -> (Generation, Option<Fingerprint>, Option<Fingerprint>);
    fn refused(&self) -> Option<Generation>;
    fn refusals(&self) -> &Refusals;
    fn stop(&self, leaked: Fingerprint) -> Stop;
    fn is_stopped(&self) -> bool;
    fn has_stopped(&self, key: Fingerprint) -> bool;
    fn note_accepted(&self, generation: Generation);
    fn claim_for_source(&self) -> bool;
    fn release_source(&self);
    fn is_for_key_sets(&self) -> bool;
    fn claim_for_key_set(&self) -> bool;
    fn publish(&self, keys: &Publication<'_>) -> Published;
    fn publish_next(&self, key: &RawKey, grace: Duration) -> Published;
}

impl<I: Issuer> Live<I> {
    pub(super) fn new() -> Self {
        Self {
            core: Core::new(0, Version::new(Err(NoActiveKey::NoKey))),
            refusals: Refusals::default(),
            stopped: Mutex::new(Vec::new()),
            stopped_in: AtomicU64::new(0),
            publisher: Mutex::new(Publisher::Nobody),
        }
    }
}

impl Publisher {
    /// Whether the keys of the key set that was begun with this key may be published.
    fn takes(self, key_set: Option<Fingerprint>) -> bool {
        match self {
            Self::Nobody | Self::KeySet { begun: None } => true,
            Self::KeySet { begun } => key_set.is_none() || begun == key_set,
            Self::Source { .. } => false,
        }
    }
}

impl Drop for SourceClaim {
    fn drop(&mut self) {
        self.0.live.release_source();
    }
}

impl RawHandle {
    pub(super) fn of<I: Issuer>(live: Arc<Live<I>>) -> Self {
        let (reloads, holders) = (Arc::clone(&live.core.reloads), Arc::clone(&live.core.holders));
        Self { live, reloads, holders }
    }

    pub(crate) fn profile(&self) -> &'static Profile {
        self.live.profile()
    }

    /// 0 before the first key.
    pub(crate) fn generation(&self) -> Generation {
        self.live.generation()
    }

    /// The latest generation that the issuer refused.
    pub(crate) fn refused(&self) -> Option<Generation> {
        self.live.refused()
    }

    /// Whether the active generation was refused, or doubted for a 401 without a body; and which news that is.
    pub(crate) fn news_of_refusal(&self) -> Option<u64> {
        let refusals = self.live.refusals();
        let news = refusals.news();
        refusals.is_about(self.generation()).then_some(news)
    }

    /// As [`KeyHandle::stop`](super::KeyHandle::stop), for a key that is known by its fingerprint.
    pub(crate) fn stop(&self, leaked: Fingerprint) -> Stop {
        self.live.stop(leaked)
    }

    /// Whether the key that was published last was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.live.is_stopped()
    }

    /// Whether this key was stopped here. It may be in force, pending or previous in what is persisted still.
    pub(crate) fn has_stopped(&self, key: Fingerprint) -> bool {
        self.live.has_stopped(key)
    }

    /// Takes back that the issuer refused the key of this generation: it was seen to accept it since. What was reported of
    /// another generation stays.
    pub(crate) fn note_accepted(&self, generation: Generation) {
        self.live.note_accepted(generation);
    }

    /// For one who is to publish a source's keys. None while another one does, and where a key set is published.
    pub(crate) fn claim_for_source(&self) -> Option<SourceClaim> {
        self.live.claim_for_source().then(|| SourceClaim(self.clone()))
    }

    /// Whether key sets may be published.
    pub(crate) fn is_for_key_sets(&self) -> bool {
        self.live.is_for_key_sets()
    }

    /// For one who is to publish a key set that may be empty yet. False where a source's keys are published.
    pub(crate) fn claim_for_key_set(&self) -> bool {
        self.live.claim_for_key_set()
    }

    /// Puts the keys of a key set in force, if they are not older than what is there.
    pub(crate) fn publish(&self, keys: &Publication<'_>) -> Published {
        self.live.publish(keys)
    }

    /// Puts a key of a source in force, as the next generation, if it is not in force already. What was in force is the
    /// previous key for as long as `grace`.
    pub(crate) fn publish_next(&self, key: &RawKey, grace: Duration) -> Published {
        self.live.publish_next(key, grace)
    }

    /// Whether nobody holds this generation or an older one.
    pub(crate) fn is_drained(&self, generation: Generation) -> bool {
        self.holders.is_drained(generation.0)
    }

    /// What is in use now. What a change in the middle of it would tell wrongly, it tells as older than it is.
    pub(crate) fn in_use(&self) -> Usage {
        let oldest = self.holders.oldest().map(Generation);
        let (generation, key, begun) = self.live.in_force();
        let has_had_key = generation >= Generation::FIRST;
        let oldest = oldest.map_or(generation, |oldest| oldest.min(generation));
        Usage {
            generation: has_had_key.then_some(generation),
            oldest: Some(oldest).filter(|_| has_had_key),
            key,
            begun,
            refused: self.live.refused(),
        }
    }

    /// Woken when fewer hold a generation. Listen, then look, then wait.
    pub(crate) fn fewer(&self) -> EventListener {
        self.holders.fewer()
    }

    pub(crate) fn wake_those_who_drain(&self) {
        self.holders.wake();
    }

    /// Takes part as one who reloads. As many times as it was attached, it must be detached.
    pub(crate) fn attach(&self) {
        self.reloads.attach();
    }

    pub(crate) fn detach(&self) {
        self.reloads.detach();
    }

    /// Whether somebody waits for an attempt that has not begun.
    pub(crate) fn is_asked(&self) -> bool {
        self.reloads.is_asked()
    }

    /// Begins an attempt: it answers all who have asked until now.
    pub(crate) fn begin(&self) -> Attempt {
        self.reloads.begin()
    }

    /// Ends an attempt. Publish first what it found.
    pub(crate) fn end(&self, attempt: Attempt, outcome: Reload) {
        self.reloads.end(attempt, outcome);
    }

    /// Woken when an attempt is asked for, and by [`RawHandle::wake_reloaders`]. Listen, then look, then wait.
    pub(crate) fn work(&self) -> EventListener {
        self.reloads.work()
    }

    pub(crate) fn wake_reloaders(&self) {
        self.reloads.wake_reloaders();
    }
}

impl<I: Issuer> Publish for Live<I> {
    fn profile(&self) -> &'static Profile {
        I::PROFILE
    }

    fn generation(&self) -> Generation {
        Generation(self.core.load().next.generation)
    }

    fn in_force(&self) -> (Generation, Option<Fingerprint>, Option<Fingerprint>) {
        // It is set before a key set's first key comes into force, and stays.
        let state = self.core.load();
        let begun = match *lock(&self.publisher) {
            Publisher::KeySet { begun } => begun,
            Publisher::Nobody | Publisher::Source { .. } => None,
        };
        let key = state.next.current.key.as_ref().ok().and_then(ApiKey::fingerprint);
        (Generation(state.next.generation), key, begun)
    }

    fn refused(&self) -> Option<Generation> {
        self.refusals.refused()
    }

    fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    fn stop(&self, leaked: Fingerprint) -> Stop {
        self.stop_key(Stopped::Name(leaked))
    }

    fn is_stopped(&self) -> bool {
        let stopped_in = self.stopped_in.load(Ordering::Acquire);
        stopped_in > 0 && stopped_in == Publish::generation(self).0
    }

    fn has_stopped(&self, key: Fingerprint) -> bool {
        lock(&self.stopped).contains(&Stopped::Name(key))
    }

    fn note_accepted(&self, generation: Generation) {
        if self.refusals.accept(generation) {
            self.core.holders.wake();
        }
    }

    fn claim_for_source(&self) -> bool {
        let mut publisher = lock(&self.publisher);
        let may = matches!(*publisher, Publisher::Nobody | Publisher::Source { is_there: false });
        if may {
            *publisher = Publisher::Source { is_there: true };
        }
        may
    }

    fn release_source(&self) {
        let has_keys = Publish::generation(self) >= Generation::FIRST;
        *lock(&self.publisher) =
            if has_keys { Publisher::Source { is_there: false } } else { Publisher::Nobody };
    }

    fn is_for_key_sets(&self) -> bool {
        lock(&self.publisher).takes(None)
    }

    fn claim_for_key_set(&self) -> bool {
        let mut publisher = lock(&self.publisher);
        if let Publisher::Nobody = *publisher {
            *publisher = Publisher::KeySet { begun: None };
        }
        publisher.takes(None)
    }

    fn publish(&self, keys: &Publication<'_>) -> Published {
        let generation = keys.generation.map_or(0, |generation| generation.0);
        let mut published = Published::Refused;
        self.core.update(|there| {
            let mut who = lock(&self.publisher);
            if !who.takes(keys.begun) {
                published = Published::OtherPublisher;
                return None;
            }
            let stopped = lock(&self.stopped);
            let is_stopped = |key: &RawKey| stopped.iter().any(|stopped| stopped.is(key));
            let of_stopped = keys.current.is_ok_and(is_stopped);
            if of_stopped && generation == there.generation {
                published = Published::Same;
                return None;
            }
            let previous = keys.previous.filter(|(key, _)| !is_stopped(key));
            let (current, previous) = match previous {
                Some((key, until)) if of_stopped && Instant::now() < until => (Ok(key), None),
                _ if of_stopped => (Err(NoActiveKey::Compromised), None),
                previous => (keys.current, previous),
            };
            drop(stopped);
            let is_same = holds(&there.current, current);
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
            // A key set that has had no key in force can still be given up for another one.
            let begun = keys.begun.filter(|_| generation > 0);
            *who = Publisher::KeySet { begun };
            if of_stopped {
                self.stopped_in.store(generation, Ordering::Release);
            }
            published = if generation == there.generation { Published::Same } else { Published::Newer };
            Some(Next { generation, current, previous })
        });
        published
    }

    fn publish_next(&self, key: &RawKey, grace: Duration) -> Published {
        let mut published = Published::Refused;
        self.core.update(|there| {
            if let Publisher::KeySet { .. } = *lock(&self.publisher) {
                published = Published::OtherPublisher;
                return None;
            }
            if holds(&there.current, Ok(key)) {
                published = Published::Same;
                return None;
            }
            if lock(&self.stopped).iter().any(|stopped| stopped.is(key)) {
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

/// Whether a version is of this key, or as closed.
fn holds<I: Issuer>(version: &Version<I>, key: Result<&RawKey, NoActiveKey>) -> bool {
    match (&version.key, key) {
        (Ok(there), Ok(key)) => there.as_raw() == key,
        (Err(there), Err(closed)) => *there == closed,
        _ => false,
    }
}

/// The version of this key that is there, with what was made out of it, or a new one. None for another issuer's key.
fn reuse<I: Issuer>(there: &Next<Version<I>>, key: Result<&RawKey, NoActiveKey>) -> Option<Arc<Version<I>>> {
    let versions = [Some(&there.current), there.previous.as_ref().map(|before| &before.value)];
    if let Some(version) = versions.into_iter().flatten().find(|version| holds(version, key)) {
        return Some(Arc::clone(version));
    }
    let key = match key {
        Ok(key) => Ok(key.clone_key().try_into_typed::<I>().ok()?),
        Err(closed) => Err(closed),
    };
    Some(Arc::new(Version::new(key)))
}

impl fmt::Debug for RawHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawHandle({}, generation {})", self.profile().name(), self.generation())
    }
}
