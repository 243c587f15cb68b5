//! The value of the `Authorization` header.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::handle::Snapshot;
#[cfg(feature = "probe")]
use crate::key::RawKey;
use crate::key::{ApiKey, Issuer};

const SCHEME: &[u8] = b"Bearer ";

/// `Bearer` and the key, as the value of an `Authorization` header: built once, marked sensitive, and shared by
/// every request that carries it. The memory is wiped when the last of them is gone.
///
/// ```
/// use keysheath::client::BearerHeader;
/// use keysheath::key::{ApiKey, Katana};
///
/// let key = ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")?;
/// let header = BearerHeader::new(&key);
/// assert_eq!(format!("{:?}", header.value()), "Sensitive");
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[doc(alias("authorization", "token"))]
pub struct BearerHeader<I: Issuer> {
    value: HeaderValue,
    issuer: PhantomData<fn() -> I>,
}

/// The wiped memory that all clones of the header share.
struct Shared(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<I: Issuer> BearerHeader<I> {
    /// Builds the value from a key.
    ///
    /// # Panics
    /// Never: every format admits only what a header can carry.
    ///
    /// ```
    /// # use keysheath::client::BearerHeader;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let header = BearerHeader::new(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn new(key: &ApiKey<I>) -> Self {
        Self::of_text(key.expose_secret().as_bytes())
    }

    /// The value for a key of this issuer, in its own format or a widened one.
    #[cfg(feature = "probe")]
    pub(crate) fn of_raw(key: &RawKey) -> Option<Self> {
        key.profile().is_same_issuer(I::PROFILE).then(|| Self::of_text(key.expose_secret().as_bytes()))
    }

    fn of_text(key: &[u8]) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(SCHEME.len() + key.len()));
        text.extend_from_slice(SCHEME);
        text.extend_from_slice(key);
        let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(Shared(text))) else {
            unreachable!("a key passed its format, which a header can carry")
        };
        value.set_sensitive(true);
        Self { value, issuer: PhantomData }
    }

    /// The value for the key of a snapshot. It is built once for each key of a handle, however often it is asked for, and
    /// wiped together with the key.
    ///
    /// ```
    /// use keysheath::client::{BearerHeader, OriginGuard};
    /// use keysheath::handle::KeyHandle;
    /// use keysheath::key::{ApiKey, Kanal};
    ///
    /// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// // For a client that no layer fits: hold the snapshot until the answer is there.
    /// let snapshot = handle.load()?;
    /// let mut request = http::Request::get("https://api.getkanal.com/api/v1/stores/1/orders").body(())?;
    /// OriginGuard::new().authorize(&mut request, BearerHeader::of(&snapshot))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn of(snapshot: &Snapshot<I>) -> &Self {
        snapshot.kept(Self::new)
    }

    /// The value, for a request that goes to the issuer. It shares the header's memory.
    ///
    /// This skips the origin guard; prefer [`OriginGuard::authorize`](super::OriginGuard::authorize).
    ///
    /// ```
    /// # use keysheath::client::BearerHeader;
    /// # use keysheath::key::{ApiKey, Kanal};
    /// # let header = BearerHeader::new(&ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
    /// assert!(header.value().is_sensitive());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        self.value.clone()
    }

    /// The key's bytes, to look for them where they must not be.
    pub(super) fn key_bytes(&self) -> &[u8] {
        &self.value.as_bytes()[SCHEME.len()..]
    }
}

impl<I: Issuer> Clone for BearerHeader<I> {
    /// Shares the memory; no copy of the key is made.
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), issuer: PhantomData }
    }
}

impl<I: Issuer> fmt::Debug for BearerHeader<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerHeader({}, redacted)", I::PROFILE.name())
    }
}
