//! What of a handle is in use: for those who show it to other processes.

use std::sync::Arc;

use super::sync::{Event, EventListener};
use super::{Generation, KeyHandle, RawHandle};
use crate::fingerprint::Fingerprint;
use crate::issuer::{Issuer, Profile};

/// The key in force, and how far back requests go that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    /// `None` before the first key.
    pub(crate) generation: Option<Generation>,
    /// The oldest generation that a snapshot or a request of this process holds; no newer than the one in force.
    pub(crate) oldest: Option<Generation>,
    /// `None` where there is none, and for a key that has no fingerprint.
    pub(crate) key: Option<Fingerprint>,
    /// By which a key set is told from another one; `None` where the keys are of none.
    pub(crate) begun: Option<Fingerprint>,
}

/// A handle, fixed or live, seen by its numbers alone.
#[derive(Clone)]
pub(crate) struct Uses(Of);

#[derive(Clone)]
enum Of {
    Fixed { profile: &'static Profile, key: Option<Fingerprint>, woken: Arc<Event> },
    Live(RawHandle),
}

impl<I: Issuer> KeyHandle<I> {
    pub(crate) fn uses(&self) -> Uses {
        let fixed = || {
            let key = self.load().ok().and_then(|now| now.current().fingerprint());
            Of::Fixed { profile: I::PROFILE, key, woken: Arc::default() }
        };
        Uses(self.to_raw().map_or_else(fixed, Of::Live))
    }
}

impl Uses {
    pub(crate) fn profile(&self) -> &'static Profile {
        match &self.0 {
            Of::Fixed { profile, .. } => profile,
            Of::Live(live) => live.profile(),
        }
    }

    pub(crate) fn now(&self) -> InUse {
        match &self.0 {
            Of::Fixed { key, .. } => {
                let first = Some(Generation::FIRST);
                InUse { generation: first, oldest: first, key: *key, begun: None }
            }
            Of::Live(live) => live.in_use(),
        }
    }

    /// Woken when fewer hold a generation, as when another one comes into force, and by [`Uses::wake`]. Listen, then look,
    /// then wait.
    pub(crate) fn news(&self) -> EventListener {
        match &self.0 {
            Of::Fixed { woken, .. } => woken.listen(),
            Of::Live(live) => live.fewer(),
        }
    }

    pub(crate) fn wake(&self) {
        match &self.0 {
            Of::Fixed { woken, .. } => woken.notify_all(),
            Of::Live(live) => live.wake_those_who_drain(),
        }
    }
}
