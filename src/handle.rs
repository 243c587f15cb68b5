//! The key in force, shared by everything that sends it.
//!
//! A [`KeyHandle`] is cheap to clone and to read. [`KeyHandle::load`] gives a [`Snapshot`]: the key in force at that
//! moment, and its [`Generation`], the version number by which a late answer is told from one about the key of now.
//!
//! A handle is *fixed*, on one key for ever, or *live* (feature `rotation`): then a refresher or a rotation publishes to
//! it, and whoever sends learns of a new key without a restart. A live handle may have no key in force: none was loaded
//! yet, or the one that was has leaked and there is no other. It is [`NoActiveKey`] then, and says why.
//!
//! ```
//! use keysheath::handle::KeyHandle;
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
//! let snapshot = handle.load()?;
//! assert_eq!(format!("{handle:?}"), "KeyHandle(kanal, generation 1, urdz-nrsd-3rmw-jtz2)");
//!
//! // The issuer says that it does not know the key that was sent.
//! handle.report_refused(snapshot.generation());
//! assert_eq!(handle.refused(), Some(snapshot.generation()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod closed;
#[cfg(feature = "rotation")]
mod core;
#[cfg(feature = "rotation")]
mod holders;
#[cfg(feature = "rotation")]
mod in_use;
#[cfg(feature = "rotation")]
mod live;
mod refusal;
mod reload;
mod reload_past;
#[cfg(feature = "rotation")]
mod reloads;
mod snapshot;
mod stop;
#[cfg(feature = "rotation")]
mod sync;
mod version;
#[cfg(feature = "rotation")]
mod wait;
#[cfg(feature = "rotation")]
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::key::{ApiKey, Issuer};

pub use closed::NoActiveKey;
#[cfg(feature = "rotation")]
pub(crate) use in_use::{Usage, UsageObserver};
#[cfg(feature = "rotation")]
pub(crate) use live::{Publication, Published, RawHandle, SourceClaim};
#[cfg(feature = "client")]
pub(crate) use refusal::{Known, Refusal};
pub use reload::Reload;
pub use reload_past::NewerKey;
#[cfg(feature = "rotation")]
pub use snapshot::Previous;
pub use snapshot::Snapshot;
pub use stop::Stop;
#[cfg(feature = "rotation")]
pub use waiting::{Drained, Subscription};

use refusal::Refusals;
use version::Version;

/// The version number of a key within one handle: it grows with every key that comes into force.
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// assert_eq!(handle.load()?.generation().to_string(), "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

/// The view of the key in force. Clones see the same key.
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Katana};
/// let handle = KeyHandle::fixed(ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")?);
/// assert!(handle.load()?.current() == handle.clone().load()?.current());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("secret", "token", "credential"))]
pub struct KeyHandle<I: Issuer> {
    inner: Inner<I>,
    /// What ends with the last of the clones that have it.
    #[cfg(feature = "rotation")]
    kept: Option<Arc<dyn Send + Sync>>,
}

enum Inner<I: Issuer> {
    Fixed(Arc<Fixed<I>>),
    #[cfg(feature = "rotation")]
    Live(Arc<live::Live<I>>),
}

struct Fixed<I: Issuer> {
    version: Arc<Version<I>>,
    refusals: Refusals,
    is_stopped: AtomicBool,
    /// Woken when a refusal is noted, and to end a wait for that.
    #[cfg(feature = "rotation")]
    news: sync::Event,
}

impl Generation {
    const FIRST: Self = Self(1);

    /// 0 is none.
    fn counted(number: u64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The generation with this number; the first is 1.
    #[cfg(feature = "rotation")]
    pub(crate) const fn numbered(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    #[cfg(feature = "rotation")]
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// The generation before this one; `None` for the first.
    #[cfg(feature = "rotation")]
    pub(crate) const fn before(self) -> Option<Self> {
        Self::numbered(self.0.saturating_sub(1))
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// A handle on one key that never changes.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn fixed(key: ApiKey<I>) -> Self {
        let version = Arc::new(Version::new(Ok(key)));
        let fixed = Fixed {
            version,
            refusals: Refusals::default(),
            is_stopped: AtomicBool::new(false),
            #[cfg(feature = "rotation")]
            news: sync::Event::default(),
        };
        Self::of(Inner::Fixed(Arc::new(fixed)))
    }

    const fn of(inner: Inner<I>) -> Self {
        Self {
            inner,
            #[cfg(feature = "rotation")]
            kept: None,
        }
    }

    /// The same handle, which keeps something until its last clone is dropped.
    #[cfg(feature = "rotation")]
    pub(crate) fn keeping(&self, kept: Arc<dyn Send + Sync>) -> Self {
        Self { inner: self.inner.clone(), kept: Some(kept) }
    }

    /// A handle whose key comes from a refresher or a rotation. It is [`NoActiveKey::NoKey`] until one of them publishes.
    ///
    /// ```
    /// # use keysheath::handle::{NoActiveKey, KeyHandle};
    /// # use keysheath::key::Kanal;
    /// let handle = KeyHandle::<Kanal>::live();
    /// assert_eq!(handle.load().unwrap_err(), NoActiveKey::NoKey);
    /// ```
    #[cfg(feature = "rotation")]
    #[must_use]
    pub fn live() -> Self {
        Self::of(Inner::Live(Arc::new(live::Live::new())))
    }

    /// The key in force, with its generation. It takes no lock and makes nothing.
    ///
    /// # Errors
    /// [`NoActiveKey`] when no key is in force. That of a fixed handle is, until it is [stopped](KeyHandle::stop).
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// println!("sending key {:?}", handle.load()?.current());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn load(&self) -> Result<Snapshot<I>, NoActiveKey> {
        match &self.inner {
            Inner::Fixed(fixed) if fixed.is_stopped.load(Ordering::Acquire) => Err(NoActiveKey::Compromised),
            Inner::Fixed(fixed) => Ok(Snapshot::fixed(Arc::clone(&fixed.version))),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => {
                let state = live.core.load();
                match &state.next.current.key {
                    Ok(_) => Ok(Snapshot::live(state)),
                    Err(closed) => Err(*closed),
                }
            }
        }
    }

    /// Whether its key can change, so that it is worth to ask for a newer one.
    #[cfg(feature = "client")]
    pub(crate) fn is_live(&self) -> bool {
        match &self.inner {
            Inner::Fixed(_) => false,
            #[cfg(feature = "rotation")]
            Inner::Live(_) => true,
        }
    }

    /// What to send in place of a key that was refused: the one in force, if it is another, or else the previous one within
    /// its grace, whose generation is held meanwhile. Both are looked for in one state, so that the key that was refused
    /// is not found as the previous one of a newer.
    #[cfg(feature = "client")]
    pub(crate) fn load_instead_of(&self, refusal: &Refusal<I>) -> Option<Snapshot<I>> {
        let now = self.load().ok()?;
        if !refusal.is_of(now.version()) {
            return Some(now);
        }
        match &self.inner {
            Inner::Fixed(_) => None,
            #[cfg(feature = "rotation")]
            Inner::Live(live) => now.before(&live.core.holders),
        }
    }

    /// With the issuer as a value, for those who publish. None for a fixed handle.
    #[cfg(feature = "rotation")]
    pub(crate) fn to_raw(&self) -> Option<RawHandle> {
        match &self.inner {
            Inner::Fixed(_) => None,
            Inner::Live(live) => Some(RawHandle::of(Arc::clone(live))),
        }
    }

    /// 0 before the first key.
    fn generation(&self) -> Generation {
        match &self.inner {
            Inner::Fixed(_) => Generation::FIRST,
            #[cfg(feature = "rotation")]
            Inner::Live(live) => Generation(live.core.load().next.generation),
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
        Self {
            inner: self.inner.clone(),
            #[cfg(feature = "rotation")]
            kept: self.kept.clone(),
        }
    }
}

impl<I: Issuer> Clone for Inner<I> {
    fn clone(&self) -> Self {
        match self {
            Self::Fixed(fixed) => Self::Fixed(Arc::clone(fixed)),
            #[cfg(feature = "rotation")]
            Self::Live(live) => Self::Live(Arc::clone(live)),
        }
    }
}

impl<I: Issuer> fmt::Debug for KeyHandle<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Fixed(fixed) => describe("KeyHandle", &fixed.version, Generation::FIRST, f),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => {
                let state = live.core.load();
                describe("KeyHandle", &state.next.current, Generation(state.next.generation), f)
            }
        }
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
