//! The key in force, shared by everything that sends it.
//!
//! A [`KeyHandle`] is cheap to clone and to read. [`KeyHandle::load`] gives a [`Snapshot`]: the key in force at that
//! moment, and its [`Generation`], the version number by which a late answer is told from one about the key of now.
//!
//! ```
//! use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
//!
//! let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
//! let snapshot = handle.load();
//! assert_eq!(format!("{handle:?}"), "KeyHandle(kanal, generation 1, urdz-nrsd-3rmw-jtz2)");
//!
//! // The issuer says that it does not know the key that was sent.
//! handle.report_refused(snapshot.generation());
//! assert_eq!(handle.refused(), Some(snapshot.generation()));
//! # Ok::<(), keysheath::format::FormatError>(())
//! ```

#[cfg(feature = "client")]
use std::any::Any;
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "client")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::issuer::Issuer;
use crate::key::ApiKey;

/// The version number of a key within one handle: it grows with every key that comes into force.
///
/// ```
/// use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// assert_eq!(handle.load().generation().to_string(), "1");
/// # Ok::<(), keysheath::format::FormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

/// The live view of the key in force. Clones see the same key.
///
/// ```
/// use keysheath::{handle::KeyHandle, issuer::Katana, key::ApiKey};
/// let handle = KeyHandle::fixed(ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")?);
/// assert!(handle.load().current() == handle.clone().load().current());
/// # Ok::<(), keysheath::format::FormatError>(())
/// ```
pub struct KeyHandle<I: Issuer> {
    shared: Arc<Shared<I>>,
}

struct Shared<I: Issuer> {
    current: Arc<Version<I>>,
    /// The latest generation that the issuer refused; 0 for none, because the first generation is 1.
    refused: AtomicU64,
}

struct Version<I: Issuer> {
    key: ApiKey<I>,
    generation: Generation,
    /// What the client makes out of the key. Here, so that it is wiped together with the key.
    #[cfg(feature = "client")]
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// The key in force when it was asked for. It stays the same however the handle goes on, so keep it no longer than
/// one request takes.
///
/// ```
/// use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// assert!(handle.load().current().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
/// # Ok::<(), keysheath::format::FormatError>(())
/// ```
pub struct Snapshot<I: Issuer> {
    version: Arc<Version<I>>,
}

impl Generation {
    const FIRST: Self = Self(1);

    /// The generation with this number; the first is 1.
    #[cfg(feature = "rotation")]
    pub(crate) const fn numbered(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// A handle on one key that never changes.
    ///
    /// ```
    /// # use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub fn fixed(key: ApiKey<I>) -> Self {
        Self::at(key, Generation::FIRST)
    }

    /// The key in force, with its generation. It takes no lock and makes nothing.
    ///
    /// ```
    /// # use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// println!("sending key {:?}", handle.load().current());
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub fn load(&self) -> Snapshot<I> {
        Snapshot { version: Arc::clone(&self.shared.current) }
    }

    /// Notes that the issuer refused the key of this generation. The latest generation counts, in whatever order the
    /// answers come; one that this handle has not had yet is another handle's, and ignored.
    ///
    /// The client layers call it on [`Meaning::KeyRefused`](crate::failure::Meaning::KeyRefused), and on nothing else.
    ///
    /// ```
    /// # use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// handle.report_refused(handle.load().generation());
    /// assert!(handle.refused().is_some());
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    pub fn report_refused(&self, generation: Generation) {
        if generation <= self.shared.current.generation {
            self.shared.refused.fetch_max(generation.0, Ordering::Relaxed);
        }
    }

    /// The latest generation that was reported as refused. Where it is the one in force, the key needs a person.
    ///
    /// ```
    /// # use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert_eq!(handle.refused(), None);
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub fn refused(&self) -> Option<Generation> {
        let refused = Generation(self.shared.refused.load(Ordering::Relaxed));
        (refused >= Generation::FIRST).then_some(refused)
    }

    fn at(key: ApiKey<I>, generation: Generation) -> Self {
        let current = Version {
            key,
            generation,
            #[cfg(feature = "client")]
            kept: OnceLock::new(),
        };
        Self { shared: Arc::new(Shared { current: Arc::new(current), refused: AtomicU64::new(0) }) }
    }
}

impl<I: Issuer> Snapshot<I> {
    /// The key.
    ///
    /// ```
    /// # use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert_eq!(handle.load().current().expose_secret().len(), 24);
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub fn current(&self) -> &ApiKey<I> {
        &self.version.key
    }

    /// Its version number.
    ///
    /// ```
    /// # use keysheath::{handle::KeyHandle, issuer::Kanal, key::ApiKey};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert_eq!(handle.load().generation(), handle.load().generation());
    /// # Ok::<(), keysheath::format::FormatError>(())
    /// ```
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.version.generation
    }

    /// What `make` makes out of the key, made once for each key and dropped with it.
    ///
    /// Erased, because the modules that make something stand below this one; there is one of them.
    #[cfg(feature = "client")]
    pub(crate) fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce(&ApiKey<I>) -> T) -> &T {
        let kept = self.version.kept.get_or_init(|| Box::new(make(&self.version.key)));
        match kept.downcast_ref() {
            Some(kept) => kept,
            None => unreachable!("one type is kept with a key"),
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
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<I: Issuer> Clone for Snapshot<I> {
    fn clone(&self) -> Self {
        Self { version: Arc::clone(&self.version) }
    }
}

impl<I: Issuer> fmt::Debug for KeyHandle<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("KeyHandle", &self.shared.current, f)
    }
}

impl<I: Issuer> fmt::Debug for Snapshot<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("Snapshot", &self.version, f)
    }
}

fn describe<I: Issuer>(name: &str, version: &Version<I>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (issuer, generation) = (I::PROFILE.name(), version.generation);
    match version.key.fingerprint() {
        Some(fingerprint) => write!(f, "{name}({issuer}, generation {generation}, {fingerprint})"),
        None => write!(f, "{name}({issuer}, generation {generation}, redacted)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Kanal;

    fn handle_at(generation: u64) -> KeyHandle<Kanal> {
        let key = ApiKey::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
        KeyHandle::at(key, Generation(generation))
    }

    #[test]
    fn a_late_report_of_an_older_generation_does_not_overwrite_a_newer_one() {
        let handle = handle_at(3);
        for (reported, latest) in [(1, 1), (3, 3), (2, 3), (3, 3)] {
            handle.report_refused(Generation(reported));
            assert_eq!(handle.clone().refused(), Some(Generation(latest)));
        }
    }

    #[test]
    fn a_report_of_a_generation_that_the_handle_has_not_had_is_ignored() {
        let handle = handle_at(3);
        handle.report_refused(Generation(4));
        assert_eq!(handle.refused(), None);
    }

    #[test]
    fn a_snapshot_outlives_its_handle() {
        let snapshot = handle_at(1).load();
        assert!(snapshot.clone().current().matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
    }

    #[cfg(feature = "client")]
    #[test]
    fn what_is_made_out_of_a_key_is_made_once_for_all_clones_and_dropped_with_the_key() {
        let handle = handle_at(1);
        let made = Arc::new(());
        for handle in [handle.clone(), handle.clone(), handle.clone()] {
            let first = Arc::strong_count(&made) == 1;
            handle.load().kept(|_| {
                assert!(first, "made a second time");
                Arc::clone(&made)
            });
        }
        assert_eq!(Arc::strong_count(&made), 2);
        drop(handle);
        assert_eq!(Arc::strong_count(&made), 1);
    }
}
