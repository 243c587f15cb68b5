//! The active key at one moment.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::core::{Before, Hold, Holders, State};
use super::refusal::Refusal;
use super::sync::Guard;
use super::{Generation, NoActiveKey, describe};
use crate::key::{ApiKey, Issuer, RawKey};

/// A key and what was made from it, or why there is none.
pub(super) struct Version<I: Issuer> {
    pub(super) key: Result<ApiKey<I>, NoActiveKey>,
    /// What the client makes from the key. Here, so that it is wiped together with the key.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl<I: Issuer> Version<I> {
    pub(super) const fn new(key: Result<ApiKey<I>, NoActiveKey>) -> Self {
        Self { key, kept: OnceLock::new() }
    }

    /// Whether this is the version of this key, or has no key for this reason.
    pub(super) fn is_of(&self, key: Result<&RawKey, NoActiveKey>) -> bool {
        match (&self.key, key) {
            (Ok(own), Ok(key)) => own.as_raw() == key,
            (Err(own), Err(no_key)) => *own == no_key,
            _ => false,
        }
    }

    /// The key of a version that a snapshot was made of.
    #[inline]
    fn expect_key(&self) -> &ApiKey<I> {
        match &self.key {
            Ok(key) => key,
            Err(_) => unreachable!("a snapshot is made of a key only"),
        }
    }
}

/// The key that was active when the handle was read. It does not change when the handle does. Drop it once
/// the request is answered: until then, its generation is not drained.
pub struct Snapshot<I: Issuer>(Holding<I>);

enum Holding<I: Issuer> {
    Current(Guard<State<Version<I>>>),
    /// The previous key, held for one request.
    Previous {
        version: Arc<Version<I>>,
        generation: Generation,
        hold: Arc<Hold>,
    },
}

/// The key that was active before, within its grace: a request that was refused may be repeated with it.
///
/// It is not counted: [`KeyHandle::drained`](super::KeyHandle::drained) does not know of a request that you
/// send with [`Previous::key`] yourself. The layers of the client hold the generation during each of their
/// requests.
pub struct Previous<'a, I: Issuer>(&'a Before<Version<I>>);

impl<I: Issuer> Snapshot<I> {
    #[inline]
    pub(super) const fn new(state: Guard<State<Version<I>>>) -> Self {
        Self(Holding::Current(state))
    }

    /// Returns the key.
    #[must_use]
    #[inline]
    pub fn current(&self) -> &ApiKey<I> {
        self.version().expect_key()
    }

    /// Returns the version number of the key.
    #[must_use]
    #[inline]
    pub fn generation(&self) -> Generation {
        match &self.0 {
            Holding::Current(state) => Generation(state.next.generation),
            Holding::Previous { generation, .. } => *generation,
        }
    }

    /// Returns the key that was active before, until its grace ends.
    #[must_use]
    pub fn previous(&self) -> Option<Previous<'_, I>> {
        let Holding::Current(state) = &self.0 else { return None };
        state.next.previous.as_ref().filter(|before| !before.until.is_over()).map(Previous)
    }

    /// Returns a snapshot of the previous key for one request. It holds that key's generation.
    pub(super) fn before(&self, holders: &Arc<Holders>) -> Option<Self> {
        let Previous(before) = self.previous()?;
        let hold = Arc::new(Holders::hold(holders, before.generation));
        let version = Arc::clone(&before.value);
        Some(Self(Holding::Previous { version, generation: Generation(before.generation), hold }))
    }

    /// Returns what `make` makes from the key. It is made once for each key, and dropped with it.
    ///
    /// The type is erased because the rooms that make something are below this one. Only one type is used.
    #[inline]
    pub(crate) fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce(&ApiKey<I>) -> T) -> &T {
        let version = self.version();
        let kept = version.kept.get_or_init(|| Box::new(make(version.expect_key())));
        match kept.downcast_ref() {
            Some(kept) => kept,
            None => unreachable!("one type is kept with a key"),
        }
    }

    /// A refusal of this key. It is certain if the issuer refused, and not a server in
    /// between.
    pub(crate) fn refusal(&self, is_certain: bool) -> Refusal<I> {
        Refusal { version: Arc::clone(self.version()), generation: self.generation(), is_certain }
    }

    #[inline]
    pub(super) fn version(&self) -> &Arc<Version<I>> {
        match &self.0 {
            Holding::Current(state) => &state.next.current,
            Holding::Previous { version, .. } => version,
        }
    }
}

impl<I: Issuer> Previous<'_, I> {
    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &ApiKey<I> {
        self.0.value.expect_key()
    }

    /// Returns the last generation in which the key was active.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        Generation(self.0.generation)
    }

    /// Returns the end of its grace by the monotonic clock. By the wall clock it may end earlier, as after
    /// the machine was suspended.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.0.until.monotonic()
    }
}

impl<I: Issuer> Clone for Snapshot<I> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Holding::Current(state) => Holding::Current(Guard::from_inner(Arc::clone(state))),
            Holding::Previous { version, generation, hold } => Holding::Previous {
                version: Arc::clone(version),
                generation: *generation,
                hold: Arc::clone(hold),
            },
        })
    }
}

impl<I: Issuer> fmt::Debug for Snapshot<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("Snapshot", self.version(), self.generation(), f)
    }
}

impl<I: Issuer> fmt::Debug for Previous<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("Previous", &self.0.value, self.generation(), f)
    }
}
