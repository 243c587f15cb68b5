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
mod snapshot;
mod sync;
mod waiting;

use std::fmt;
use std::sync::Arc;

use crate::key::{ApiKey, Issuer};

pub use core::Reload;
pub use publisher::Stop;
pub(crate) use publisher::{Publication, Published, Publisher, Reloader, Usage, UsageObserver};
pub(crate) use refusal::{Known, Refusal};
pub use snapshot::{Previous, Snapshot};
pub use waiting::{Drained, NewerKey, Subscription};

use publisher::Live;
use snapshot::Version;

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

    /// The generation with this number; the first is 1.
    pub(crate) const fn numbered(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// The generation before this one; `None` for the first.
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
            Ok(_) => Ok(Snapshot::new(state)),
            Err(no_key) => Err(*no_key),
        }
    }

    /// Whether its key can change, so that it is worth waiting for a newer one.
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

    /// 0 before the first key.
    fn generation(&self) -> Generation {
        self.live.generation()
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

#[cfg(test)]
mod tests;
