//! The active key, shared by everything that sends it.
//!
//! A [`KeyHandle`] is cheap to clone and to read. [`KeyHandle::load`] returns a [`Snapshot`]: the key that is
//! active at that moment, and its [`Generation`], the version number that tells a late answer from one about
//! the active key.
//!
//! Handles come from a publisher: a refresher or a rotation (feature `rotation`), or a token keeper (feature
//! `oauth`). All handles of one publisher show the same key, so a process takes a new key without a restart.
//! A handle cannot publish. [`KeyHandle::fixed`] is a handle without a publisher.
//!
//! A handle may have no active key: none was loaded yet, or the active one has leaked and there is no other.
//! The error [`NoActiveKey`] says which.
//!
//! ```
//! use keysheath::handle::KeyHandle;
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
//! let snapshot = handle.load()?;
//! assert_eq!(format!("{handle:?}"), "KeyHandle(kanal, generation 1, urdz-nrsd-3rmw-jtz2)");
//!
//! // The issuer answers that it does not know the key that was sent.
//! handle.report_refused(snapshot.generation());
//! assert_eq!(handle.refused(), Some(snapshot.generation()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(all(feature = "client", feature = "rotation")),
    allow(dead_code, unused_imports, reason = "publishers and the client use it")
)]

mod core;
mod publisher;
mod refusal;
mod sync;
#[cfg(test)]
#[path = "../tests/units/handle/publishing.rs"]
mod tests;
mod waiting;

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "client")]
use std::sync::OnceLock;
use std::time::Instant;

#[cfg(feature = "client")]
use crate::key::header::BearerHeader;
use crate::key::{ApiKey, Issuer, RawKey};
use core::{Before, Holders, State};
use publisher::Live;
use sync::Guard;

pub use core::Reload;
pub use publisher::Stop;
pub(crate) use publisher::{Publication, Published, Publisher, Reloader, Usage, UsageObserver};
pub(crate) use refusal::{Known, Refusal};
pub(crate) use waiting::NewerKey;
pub use waiting::Subscription;

/// The version number of a key within one handle: it grows with every key that becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

/// A view of the active key. Clones show the same key.
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Katana};
/// let handle = KeyHandle::fixed(ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")?);
/// println!("sending key {:?}", handle.load()?.current());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("secret", "token", "credential"))]
pub struct KeyHandle<I: Issuer> {
    live: Arc<Live<I>>,
    /// Dropped with the last of the clones that have it.
    kept: Option<Arc<dyn Send + Sync>>,
}

/// The key that was active when the handle was read. It does not change when the handle does. Drop it once
/// the request is answered: until then, its generation is not drained.
pub struct Snapshot<I: Issuer>(
    // One of the previous key, for a request that is repeated with it, has a state that was never the
    // handle's.
    Guard<State<Version<I>>>,
);

/// The key that was active before, within its grace: a request that was refused may be repeated with it.
///
/// It is not counted: [`KeyHandle::drained`](super::KeyHandle::drained) does not know of a request that you
/// send with [`Previous::key`] yourself. The layers of the client hold the generation during each of their
/// requests.
pub struct Previous<'a, I: Issuer>(&'a Before<Version<I>>);

/// A key and what was made from it, or why there is none.
struct Version<I: Issuer> {
    key: Result<ApiKey<I>, NoActiveKey>,
    /// Here, so that it is wiped together with the key.
    #[cfg(feature = "client")]
    header: OnceLock<BearerHeader<I>>,
}

/// No key is active, so nothing is sent: the reason, and what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NoActiveKey {
    /// No key has been active yet.
    #[error(
        "no key is active: none was loaded yet, or the key set has none; stage one, verify it and promote it"
    )]
    NoKey,
    /// The active key has leaked, and there is no other to send.
    #[error(
        "no key is active: the active one has leaked, and there is no other; delete it in the app, create a \
         new one, stage it, verify it and promote it"
    )]
    Compromised,
}

impl Generation {
    pub(crate) const FIRST: Self = Self(1);

    /// Returns the generation with this number; the first is 1.
    pub(crate) const fn numbered(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// Returns the generation before this one; `None` for the first.
    pub(crate) const fn before(self) -> Option<Self> {
        Self::numbered(self.0.saturating_sub(1))
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// Creates a handle on one key, without a publisher.
    #[must_use]
    pub fn fixed(key: ApiKey<I>) -> Self {
        Self::new(Arc::new(Live::new(Generation::FIRST.0, Ok(key), false)))
    }

    const fn new(live: Arc<Live<I>>) -> Self {
        Self { live, kept: None }
    }

    /// Returns the same handle, which keeps something until its last clone is dropped.
    pub(crate) fn keeping(&self, kept: Arc<dyn Send + Sync>) -> Self {
        Self { live: Arc::clone(&self.live), kept: Some(kept) }
    }

    /// Returns the active key, with its generation. Lock-free; does not allocate.
    ///
    /// # Errors
    /// [`NoActiveKey`] where no key is active. A fixed handle has one until it is [stopped](KeyHandle::stop).
    #[inline]
    pub fn load(&self) -> Result<Snapshot<I>, NoActiveKey> {
        let state = self.live.core.load();
        match &state.next.current.key {
            Ok(_) => Ok(Snapshot(state)),
            Err(no_key) => Err(*no_key),
        }
    }

    /// Returns whether its key can change, so that it is worth waiting for a newer one.
    pub(crate) fn has_publisher(&self) -> bool {
        self.live.has_publisher
    }

    /// Returns the key to send in place of one that was refused: the active one, if it is another, or else
    /// the previous one within its grace, whose generation is held meanwhile. Both are read from one state,
    /// so that the refused key is not found as the previous one of a newer key.
    pub(crate) fn load_instead_of(&self, refusal: &Refusal<I>) -> Option<Snapshot<I>> {
        let now = self.load().ok()?;
        if !refusal.is_of(now.version()) {
            return Some(now);
        }
        now.before(&self.live.core.holders)
    }

    /// Returns the active generation; 0 before the first key.
    fn generation(&self) -> Generation {
        self.live.generation()
    }
}

impl<I: Issuer> Snapshot<I> {
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
        Generation(self.0.next.generation)
    }

    /// Returns the key that was active before, until its grace ends.
    #[must_use]
    pub fn previous(&self) -> Option<Previous<'_, I>> {
        self.0.next.previous.as_ref().filter(|before| !before.until.is_over()).map(Previous)
    }

    /// Returns a snapshot of the previous key for one request. It holds that key's generation.
    fn before(&self, holders: &Arc<Holders>) -> Option<Self> {
        let Previous(before) = self.previous()?;
        Some(Self(Guard::from_inner(Arc::new(State::of_previous(before, holders)))))
    }

    /// Returns the header that carries the key. It is built once for each key, and dropped with it.
    #[cfg(feature = "client")]
    #[inline]
    pub(crate) fn header(&self) -> &BearerHeader<I> {
        let version = self.version();
        version.header.get_or_init(|| BearerHeader::new(version.expect_key()))
    }

    /// Creates a refusal of this key. It is certain if the issuer refused, and not a server in between.
    pub(crate) fn refusal(&self, is_certain: bool) -> Refusal<I> {
        Refusal { version: Arc::clone(self.version()), generation: self.generation(), is_certain }
    }

    #[inline]
    fn version(&self) -> &Arc<Version<I>> {
        &self.0.next.current
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

impl<I: Issuer> Version<I> {
    const fn new(key: Result<ApiKey<I>, NoActiveKey>) -> Self {
        Self {
            key,
            #[cfg(feature = "client")]
            header: OnceLock::new(),
        }
    }

    /// Returns whether this is the version of this key, or has no key for this reason.
    fn is_of(&self, key: Result<&RawKey, NoActiveKey>) -> bool {
        match (&self.key, key) {
            (Ok(own), Ok(key)) => own.as_raw() == key,
            (Err(own), Err(no_key)) => *own == no_key,
            _ => false,
        }
    }

    /// Returns the key of a version that a snapshot was made of.
    #[inline]
    fn expect_key(&self) -> &ApiKey<I> {
        match &self.key {
            Ok(key) => key,
            Err(_) => unreachable!("a snapshot is made of a key only"),
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<I: Issuer> Clone for KeyHandle<I> {
    fn clone(&self) -> Self {
        Self { live: Arc::clone(&self.live), kept: self.kept.clone() }
    }
}

impl<I: Issuer> fmt::Debug for KeyHandle<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.live.core.load();
        describe("KeyHandle", &state.next.current, Generation(state.next.generation), f)
    }
}

impl<I: Issuer> Clone for Snapshot<I> {
    fn clone(&self) -> Self {
        Self(Guard::from_inner(Arc::clone(&self.0)))
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

fn describe<I: Issuer>(
    name: &str,
    version: &Version<I>,
    generation: Generation,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let issuer = I::PROFILE.name();
    match version.key.as_ref().map(ApiKey::fingerprint) {
        Ok(Some(fingerprint)) => write!(f, "{name}({issuer}, generation {generation}, {fingerprint})"),
        Ok(None) => write!(f, "{name}({issuer}, generation {generation}, redacted)"),
        Err(_) => write!(f, "{name}({issuer}, generation {generation}, no key)"),
    }
}
