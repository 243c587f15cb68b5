//! What of a handle is in use: for those who show it to other processes.

use std::sync::Arc;

use super::sync::{Event, EventListener};
use super::{Fixed, Generation, Inner, KeyHandle, RawHandle};
use crate::key::{ApiKey, Fingerprint, Issuer, Profile};

/// The key in force, and how far back requests go that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// `None` before the first key.
    pub(crate) generation: Option<Generation>,
    /// The oldest generation that a snapshot or a request of this process holds; no newer than the one in force.
    pub(crate) oldest: Option<Generation>,
    /// `None` where there is none, and for a key that has no fingerprint.
    pub(crate) key: Option<Fingerprint>,
    /// By which a key set is told from another one; `None` where the keys are of none.
    pub(crate) begun: Option<Fingerprint>,
    /// The latest generation that the issuer refused.
    pub(crate) refused: Option<Generation>,
}

/// A handle, fixed or live, seen by its numbers alone.
#[derive(Clone)]
pub(crate) struct UsageObserver(Of);

#[derive(Clone)]
enum Of {
    Fixed { profile: &'static Profile, key: Option<Fingerprint>, fixed: Arc<dyn Refusable> },
    Live(RawHandle),
}

/// A fixed handle, erased.
trait Refusable: Send + Sync {
    fn refused(&self) -> Option<Generation>;
    fn news(&self) -> &Event;
}

impl<I: Issuer> Refusable for Fixed<I> {
    fn refused(&self) -> Option<Generation> {
        self.refusals.refused()
    }

    fn news(&self) -> &Event {
        &self.news
    }
}

impl<I: Issuer> KeyHandle<I> {
    pub(crate) fn uses(&self) -> UsageObserver {
        UsageObserver(match &self.inner {
            Inner::Fixed(fixed) => {
                let key = fixed.version.key.as_ref().ok().and_then(ApiKey::fingerprint);
                Of::Fixed { profile: I::PROFILE, key, fixed: Arc::clone(fixed) as _ }
            }
            Inner::Live(live) => Of::Live(RawHandle::of(Arc::clone(live))),
        })
    }
}

impl UsageObserver {
    pub(crate) fn profile(&self) -> &'static Profile {
        match &self.0 {
            Of::Fixed { profile, .. } => profile,
            Of::Live(live) => live.profile(),
        }
    }

    pub(crate) fn now(&self) -> Usage {
        match &self.0 {
            Of::Fixed { key, fixed, .. } => {
                let first = Some(Generation::FIRST);
                let refused = fixed.refused();
                Usage { generation: first, oldest: first, key: *key, begun: None, refused }
            }
            Of::Live(live) => live.in_use(),
        }
    }

    /// Woken when fewer hold a generation, as when another one comes into force, when a refusal is noted or
    /// taken back, and by [`UsageObserver::wake`]. Listen, then look, then wait.
    pub(crate) fn news(&self) -> EventListener {
        match &self.0 {
            Of::Fixed { fixed, .. } => fixed.news().listen(),
            Of::Live(live) => live.fewer(),
        }
    }

    pub(crate) fn wake(&self) {
        match &self.0 {
            Of::Fixed { fixed, .. } => fixed.news().notify_all(),
            Of::Live(live) => live.wake_those_who_drain(),
        }
    }
}
