//! Stopping a key that has leaked, in this process and at once.

#[cfg(feature = "rotation")]
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::KeyHandle;
#[cfg(feature = "rotation")]
use super::NoActiveKey;
#[cfg(feature = "rotation")]
use super::core::Next;
#[cfg(feature = "rotation")]
use super::live::Live;
#[cfg(feature = "rotation")]
use super::sync::lock;
#[cfg(feature = "rotation")]
use super::version::Version;
use super::{Fixed, Inner};
#[cfg(feature = "rotation")]
use crate::key::Fingerprint;
#[cfg(feature = "rotation")]
use crate::key::RawKey;
use crate::key::{ApiKey, Issuer};

/// What [`KeyHandle::stop`] did.
///
/// ```
/// use keysheath::handle::{NoActiveKey, KeyHandle, Stop};
/// use keysheath::key::{ApiKey, Kanal};
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// let leaked = handle.load()?;
/// assert_eq!(handle.stop(leaked.current()), Stop::NoActiveKey);
/// assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// The key was active. The previous key is active again, because its grace has not ended.
    FellBack,
    /// The key was active. No key is active now.
    NoActiveKey,
    /// The key was not active. It does not become active any more.
    NotActive,
}

/// A key that was stopped.
#[cfg(feature = "rotation")]
#[derive(PartialEq)]
pub(super) enum Stopped {
    Name(Fingerprint),
    /// One that has no fingerprint.
    Key(RawKey),
}

#[cfg(feature = "rotation")]
impl Stopped {
    pub(super) fn is(&self, key: &RawKey) -> bool {
        match self {
            Self::Name(name) => key.fingerprint().as_ref() == Some(name),
            Self::Key(stopped) => stopped == key,
        }
    }
}

impl<I: Issuer> KeyHandle<I> {
    /// Stops a key that has leaked: from now on, this handle and its clones do not give it out. The previous key becomes
    /// active again while its grace lasts; otherwise the handle is
    /// [closed](crate::handle::NoActiveKey::Compromised) until another key is published to it.
    ///
    /// It needs no store and no network, and does not block. It holds in this process until the handle is dropped, and
    /// is not undone: a refresher or a rotation that finds the same key again does not publish it. Other processes do
    /// not learn of it, and requests that are under way are not cut off. So record the compromise in the key set as
    /// well, and delete the key in the app.
    ///
    /// ```
    /// # use keysheath::handle::{KeyHandle, Stop};
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// let active = handle.load()?;
    /// if handle.stop(active.current()) == Stop::NoActiveKey {
    ///     eprintln!("no request is sent until there is another key");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn stop(&self, leaked: &ApiKey<I>) -> Stop {
        match &self.inner {
            Inner::Fixed(fixed) => fixed.stop(leaked),
            #[cfg(feature = "rotation")]
            Inner::Live(live) => live.stop_key(match leaked.fingerprint() {
                Some(name) => Stopped::Name(name),
                None => Stopped::Key(leaked.as_raw().clone_key()),
            }),
        }
    }
}

impl<I: Issuer> Fixed<I> {
    fn stop(&self, leaked: &ApiKey<I>) -> Stop {
        if self.version.key.as_ref().is_ok_and(|key| key == leaked) {
            self.is_stopped.store(true, Ordering::Release);
            return Stop::NoActiveKey;
        }
        Stop::NotActive
    }
}

#[cfg(feature = "rotation")]
impl<I: Issuer> Live<I> {
    pub(super) fn stop_key(&self, stopped: Stopped) -> Stop {
        let mut stop = Stop::NotActive;
        self.core.update(|there| {
            let is_it = |version: &Version<I>| version.key.as_ref().is_ok_and(|key| stopped.is(key.as_raw()));
            let was_active = is_it(&there.current);
            let previous = there.previous.as_ref().filter(|before| !is_it(&before.value));
            let mut all = lock(&self.stopped);
            if !all.contains(&stopped) {
                all.push(stopped);
            }
            drop(all);
            if !was_active && previous.is_some() == there.previous.is_some() {
                return None;
            }
            let generation = there.generation;
            if !was_active {
                return Some(Next { generation, current: Arc::clone(&there.current), previous: None });
            }
            self.stopped_in.store(generation, Ordering::Release);
            let falls_back = previous.filter(|before| !before.until.is_over());
            stop = if falls_back.is_some() { Stop::FellBack } else { Stop::NoActiveKey };
            let closed = || Arc::new(Version::new(Err(NoActiveKey::Compromised)));
            let current = falls_back.map_or_else(closed, |before| Arc::clone(&before.value));
            Some(Next { generation, current, previous: None })
        });
        stop
    }
}

#[cfg(test)]
mod tests {
    use super::super::NoActiveKey;
    use super::*;
    use crate::key::Kanal;

    const FIRST: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
    const SECOND: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";

    fn key(text: &str) -> ApiKey<Kanal> {
        ApiKey::parse(text).unwrap()
    }

    #[test]
    fn a_fixed_handle_and_its_clones_are_closed() {
        let handle = KeyHandle::fixed(key(FIRST));
        assert_eq!(handle.stop(&key(SECOND)), Stop::NotActive);
        let clone = handle.clone();
        assert_eq!(handle.stop(&key(FIRST)), Stop::NoActiveKey);
        assert_eq!(clone.load().unwrap_err(), NoActiveKey::Compromised);
    }

    #[cfg(feature = "rotation")]
    mod live {
        use std::time::{Duration, Instant};

        use super::super::super::{Generation, Publication, Published, RawHandle};
        use super::*;

        const GRACE: Duration = Duration::from_secs(600);
        const THIRD: &str = "Qw3Er5Ty7Ui9Op1As2Df4Gh6";

        fn live() -> (KeyHandle<Kanal>, RawHandle) {
            let handle = KeyHandle::live();
            let raw = handle.to_raw().unwrap();
            (handle, raw)
        }

        fn publish(raw: &RawHandle, generation: u64, current: &str, previous: Option<&str>) -> Published {
            let (current, previous) = (key(current), previous.map(key));
            raw.publish(&Publication {
                generation: Generation::numbered(generation),
                begun: None,
                current: Ok(current.as_raw()),
                previous: previous.as_ref().map(|key| (key.as_raw(), Instant::now() + GRACE)),
            })
        }

        fn active(handle: &KeyHandle<Kanal>) -> Option<Vec<u8>> {
            handle.load().ok().map(|now| now.current().expose_secret().as_bytes().to_vec())
        }

        #[test]
        fn the_previous_key_is_active_again_within_its_grace() {
            let (handle, raw) = live();
            publish(&raw, 4, SECOND, Some(FIRST));
            let mut subscription = handle.subscribe();
            assert_eq!(handle.stop(&key(SECOND)), Stop::FellBack);
            assert_eq!(active(&handle).as_deref(), Some(FIRST.as_bytes()));
            let told = subscription.wait(Duration::ZERO).expect("it is told").unwrap();
            assert!(told.previous().is_none());
            assert_eq!(handle.stop(&key(FIRST)), Stop::NoActiveKey, "it leaks as well");
            assert_eq!(
                subscription.wait(Duration::ZERO).expect("it is told").unwrap_err(),
                NoActiveKey::Compromised
            );
        }

        #[test]
        fn past_the_grace_the_handle_is_closed() {
            let (handle, raw) = live();
            raw.publish_next(key(FIRST).as_raw(), GRACE);
            raw.publish_next(key(SECOND).as_raw(), Duration::ZERO);
            assert_eq!(handle.stop(&key(SECOND)), Stop::NoActiveKey);
        }

        #[test]
        fn no_document_and_no_source_brings_a_stopped_key_back() {
            let (handle, raw) = live();
            publish(&raw, 4, SECOND, None);
            assert_eq!(raw.stop(key(SECOND).fingerprint().unwrap()), Stop::NoActiveKey);
            // The store could not be written, so it has the leaked key still, also as another generation.
            assert_eq!(publish(&raw, 4, SECOND, Some(FIRST)), Published::Same);
            assert_eq!((active(&handle), raw.is_stopped()), (None, true));
            assert_eq!(publish(&raw, 5, SECOND, None), Published::Newer);
            assert_eq!((active(&handle), raw.is_stopped()), (None, true));
            assert_eq!(publish(&raw, 6, THIRD, Some(SECOND)), Published::Newer);
            assert_eq!((active(&handle).as_deref(), raw.is_stopped()), (Some(THIRD.as_bytes()), false));
            assert!(handle.load().unwrap().previous().is_none());

            let (handle, raw) = live();
            raw.publish_next(key(FIRST).as_raw(), GRACE);
            handle.stop(&key(FIRST));
            assert_eq!(raw.publish_next(key(FIRST).as_raw(), GRACE), Published::Refused);
            assert_eq!(active(&handle), None);
            assert_eq!(raw.publish_next(key(SECOND).as_raw(), GRACE), Published::Newer);
            assert_eq!(active(&handle).as_deref(), Some(SECOND.as_bytes()));
        }

        #[test]
        fn a_key_that_is_stopped_before_it_is_active_never_is() {
            let (handle, raw) = live();
            publish(&raw, 1, FIRST, None);
            assert_eq!(handle.stop(&key(SECOND)), Stop::NotActive);
            publish(&raw, 2, SECOND, Some(FIRST));
            assert_eq!(active(&handle).as_deref(), Some(FIRST.as_bytes()));
            publish(&raw, 3, THIRD, Some(SECOND));
            assert!(handle.load().unwrap().previous().is_none());
        }

        #[test]
        fn a_previous_key_that_is_stopped_is_not_fallen_back_to() {
            let (handle, raw) = live();
            publish(&raw, 2, SECOND, Some(FIRST));
            assert_eq!(handle.stop(&key(FIRST)), Stop::NotActive);
            assert!(handle.load().unwrap().previous().is_none());
            assert_eq!(handle.stop(&key(SECOND)), Stop::NoActiveKey);
        }

        #[cfg(feature = "client")]
        #[test]
        fn a_late_refusal_of_a_stopped_key_is_not_about_its_successor() {
            let (handle, raw) = live();
            publish(&raw, 2, SECOND, Some(FIRST));
            let sent = handle.load().unwrap();
            handle.stop(&key(SECOND));
            let _reload = handle.reload_instead_of(&sent.refusal(true));
            assert_eq!(handle.refused(), None);
        }
    }
}
