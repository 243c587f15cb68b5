//! The key in force at one moment.

#[cfg(feature = "client")]
use std::any::Any;
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "rotation")]
use std::time::Instant;

#[cfg(feature = "client")]
use super::Refusal;
#[cfg(feature = "rotation")]
use super::core::State;
#[cfg(all(feature = "rotation", feature = "client"))]
use super::holders::Hold;
#[cfg(all(feature = "rotation", feature = "client"))]
use super::holders::Holders;
#[cfg(feature = "rotation")]
use super::sync::Guard;
use super::version::Version;
use super::{Generation, describe};
use crate::key::{ApiKey, Issuer};

/// The key in force when it was asked for. It stays the same however the handle goes on, so keep it no longer than
/// one request takes: while it is there, its generation is not drained.
///
/// ```
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// assert!(handle.load()?.current().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot<I: Issuer>(Holding<I>);

enum Holding<I: Issuer> {
    Fixed(Arc<Version<I>>),
    #[cfg(feature = "rotation")]
    Live(Guard<State<Version<I>>>),
    /// What was in force before, held for one request.
    #[cfg(all(feature = "rotation", feature = "client"))]
    Before {
        version: Arc<Version<I>>,
        generation: Generation,
        hold: Arc<Hold>,
    },
}

/// The key that was in force before, within its grace: a request that was refused may be repeated with it.
///
/// What it gives out is not counted: [`KeyHandle::drained`](super::KeyHandle::drained) of its generation knows nothing of a
/// request that you send with [`Previous::key`] yourself. The layers of the client hold it for each request of theirs.
///
/// ```
/// use keysheath::handle::Snapshot;
/// use keysheath::key::Kanal;
/// fn log(snapshot: &Snapshot<Kanal>) {
///     if let Some(previous) = snapshot.previous() {
///         println!("{:?} is good until {:?}", previous.key(), previous.until());
///     }
/// }
/// ```
#[cfg(feature = "rotation")]
pub struct Previous<'a, I: Issuer>(&'a super::core::Before<Version<I>>);

impl<I: Issuer> Snapshot<I> {
    pub(super) const fn fixed(version: Arc<Version<I>>) -> Self {
        Self(Holding::Fixed(version))
    }

    #[cfg(feature = "rotation")]
    #[inline]
    pub(super) const fn live(state: Guard<State<Version<I>>>) -> Self {
        Self(Holding::Live(state))
    }

    /// The key.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert_eq!(handle.load()?.current().expose_secret().len(), 24);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn current(&self) -> &ApiKey<I> {
        self.version().expect_key()
    }

    /// Its version number.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert_eq!(handle.load()?.generation(), handle.load()?.generation());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn generation(&self) -> Generation {
        match &self.0 {
            Holding::Fixed(_) => Generation::FIRST,
            #[cfg(feature = "rotation")]
            Holding::Live(state) => Generation(state.next.generation),
            #[cfg(all(feature = "rotation", feature = "client"))]
            Holding::Before { generation, .. } => *generation,
        }
    }

    /// The key that was in force before, until its grace ends.
    ///
    /// ```
    /// # use keysheath::handle::KeyHandle;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert!(handle.load()?.previous().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "rotation")]
    #[must_use]
    pub fn previous(&self) -> Option<Previous<'_, I>> {
        let Holding::Live(state) = &self.0 else { return None };
        state.next.previous.as_ref().filter(|before| !before.until.is_over()).map(Previous)
    }

    /// The same for one request that is sent with it; its generation is held meanwhile.
    #[cfg(all(feature = "rotation", feature = "client"))]
    pub(super) fn before(&self, holders: &Arc<Holders>) -> Option<Self> {
        let Previous(before) = self.previous()?;
        let hold = Arc::new(Holders::hold(holders, before.generation));
        let version = Arc::clone(&before.value);
        Some(Self(Holding::Before { version, generation: Generation(before.generation), hold }))
    }

    /// What `make` makes out of the key, made once for each key and dropped with it.
    #[cfg(feature = "client")]
    #[inline]
    pub(crate) fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce(&ApiKey<I>) -> T) -> &T {
        self.version().kept(make)
    }

    /// That its key was refused: by the issuer for sure, or by one who did not say.
    #[cfg(feature = "client")]
    pub(crate) fn refusal(&self, is_certain: bool) -> Refusal<I> {
        Refusal { version: Arc::clone(self.version()), generation: self.generation(), is_certain }
    }

    #[inline]
    pub(super) fn version(&self) -> &Arc<Version<I>> {
        match &self.0 {
            Holding::Fixed(version) => version,
            #[cfg(feature = "rotation")]
            Holding::Live(state) => &state.next.current,
            #[cfg(all(feature = "rotation", feature = "client"))]
            Holding::Before { version, .. } => version,
        }
    }
}

#[cfg(feature = "rotation")]
impl<I: Issuer> Previous<'_, I> {
    /// The key.
    ///
    /// ```
    /// # use keysheath::handle::Previous;
    /// # use keysheath::key::Kanal;
    /// fn log(previous: &Previous<'_, Kanal>) {
    ///     println!("{:?}", previous.key());
    /// }
    /// ```
    #[must_use]
    pub fn key(&self) -> &ApiKey<I> {
        self.0.value.expect_key()
    }

    /// The last generation in which it was in force.
    ///
    /// ```
    /// # use keysheath::handle::Previous;
    /// # use keysheath::key::Kanal;
    /// fn log(previous: &Previous<'_, Kanal>) {
    ///     println!("generation {}", previous.generation());
    /// }
    /// ```
    #[must_use]
    pub const fn generation(&self) -> Generation {
        Generation(self.0.generation)
    }

    /// The end of its grace by the monotonic clock. By the wall clock it may end earlier, as where the machine was suspended.
    ///
    /// ```
    /// # use keysheath::handle::Previous;
    /// # use keysheath::key::Kanal;
    /// fn left(previous: &Previous<'_, Kanal>) -> std::time::Duration {
    ///     previous.until().saturating_duration_since(std::time::Instant::now())
    /// }
    /// ```
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.0.until.monotonic()
    }
}

impl<I: Issuer> Clone for Snapshot<I> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Holding::Fixed(version) => Holding::Fixed(Arc::clone(version)),
            #[cfg(feature = "rotation")]
            Holding::Live(state) => Holding::Live(Guard::from_inner(Arc::clone(state))),
            #[cfg(all(feature = "rotation", feature = "client"))]
            Holding::Before { version, generation, hold } => Holding::Before {
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

#[cfg(feature = "rotation")]
impl<I: Issuer> fmt::Debug for Previous<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("Previous", &self.0.value, self.generation(), f)
    }
}
