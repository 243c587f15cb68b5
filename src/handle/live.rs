//! A handle whose key changes, with its issuer as a value: what a refresher and a rotation publish to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::core::{Before, Core, Next};
use super::holders::Holders;
use super::reloads::{Attempt, Reloads};
use super::sync::EventListener;
use super::version::Version;
use super::{Closed, Generation, Reload};
use crate::issuer::{Issuer, Profile};
use crate::key::RawKey;

/// What clones of a live handle share.
pub(super) struct Live<I: Issuer> {
    pub(super) core: Core<Version<I>>,
    /// The latest generation that the issuer refused; 0 for none, because the first generation is 1.
    pub(super) refused: AtomicU64,
}

/// A live handle, erased. It publishes and is told of work, and gives no key out.
#[derive(Clone)]
pub(crate) struct RawHandle {
    live: Arc<dyn Publish>,
    reloads: Arc<Reloads>,
    holders: Arc<Holders>,
}

/// The keys of a key set, as they are to be in a handle.
pub(crate) struct Numbered<'a> {
    /// None for a key set that never had a key in force.
    pub(crate) generation: Option<Generation>,
    pub(crate) current: Result<&'a RawKey, Closed>,
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
    /// Nothing was changed: the handle has a newer generation, or another key in the same one, or is another issuer's.
    Refused,
}

trait Publish: Send + Sync {
    fn profile(&self) -> &'static Profile;
    fn generation(&self) -> Generation;
    fn refused(&self) -> Option<Generation>;
    fn note_accepted(&self, generation: Generation);
    fn publish(&self, keys: &Numbered<'_>) -> Published;
    fn publish_next(&self, key: &RawKey, grace: Duration) -> Published;
}

impl<I: Issuer> Live<I> {
    pub(super) fn new() -> Self {
        Self { core: Core::new(0, Version::new(Err(Closed::NoKey))), refused: AtomicU64::new(0) }
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

    /// Takes back that the issuer refused the key of this generation: it was seen to accept it since. What was reported of
    /// another generation stays.
    pub(crate) fn note_accepted(&self, generation: Generation) {
        self.live.note_accepted(generation);
    }

    /// Puts the keys of a key set in force, if they are not older than what is there.
    pub(crate) fn publish(&self, keys: &Numbered<'_>) -> Published {
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

    fn refused(&self) -> Option<Generation> {
        Generation::refused(&self.refused)
    }

    fn note_accepted(&self, generation: Generation) {
        // Where it fails, there is a report of another generation, or none.
        let _ = self.refused.compare_exchange(generation.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn publish(&self, keys: &Numbered<'_>) -> Published {
        let generation = keys.generation.map_or(0, |generation| generation.0);
        let mut published = Published::Refused;
        self.core.update(|there| {
            let is_same = holds(&there.current, keys.current);
            if generation < there.generation || (generation == there.generation && !is_same) {
                return None;
            }
            let current = reuse(there, keys.current)?;
            let previous = match keys.previous {
                None => None,
                Some((key, until)) => {
                    let value = reuse(there, Ok(key))?;
                    Some(Before { value, generation: generation.saturating_sub(1), until })
                }
            };
            published = if generation == there.generation { Published::Same } else { Published::Newer };
            Some(Next { generation, current, previous })
        });
        published
    }

    fn publish_next(&self, key: &RawKey, grace: Duration) -> Published {
        let mut published = Published::Refused;
        self.core.update(|there| {
            if holds(&there.current, Ok(key)) {
                published = Published::Same;
                return None;
            }
            let current = reuse(there, Ok(key))?;
            let until = Instant::now().checked_add(grace);
            let previous = until.filter(|_| there.current.key.is_ok()).map(|until| Before {
                value: Arc::clone(&there.current),
                generation: there.generation,
                until,
            });
            published = Published::Newer;
            Some(Next { generation: there.generation + 1, current, previous })
        });
        published
    }
}

/// Whether a version is of this key, or as closed.
fn holds<I: Issuer>(version: &Version<I>, key: Result<&RawKey, Closed>) -> bool {
    match (&version.key, key) {
        (Ok(there), Ok(key)) => there.as_raw() == key,
        (Err(there), Err(closed)) => *there == closed,
        _ => false,
    }
}

/// The version of this key that is there, with what was made out of it, or a new one. None for another issuer's key.
fn reuse<I: Issuer>(there: &Next<Version<I>>, key: Result<&RawKey, Closed>) -> Option<Arc<Version<I>>> {
    let versions = [Some(&there.current), there.previous.as_ref().map(|before| &before.value)];
    if let Some(version) = versions.into_iter().flatten().find(|version| holds(version, key)) {
        return Some(Arc::clone(version));
    }
    let key = match key {
        Ok(key) => Ok(key.clone_key().typed::<I>().ok()?),
        Err(closed) => Err(closed),
    };
    Some(Arc::new(Version::new(key)))
}

impl fmt::Debug for RawHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawHandle({}, generation {})", self.profile().name(), self.generation())
    }
}
