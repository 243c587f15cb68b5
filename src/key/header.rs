//! The value of the `Authorization` header.
//!
//! It is here, and not with the client that shows it to users, because a handle keeps it with the key.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use http::HeaderValue;

use super::{ApiKey, Issuer, RawKey};
use crate::internal::bytes::WipedBytes;

const SCHEME: &[u8] = b"Bearer ";

/// `Bearer` and the key, as the value of an `Authorization` header: built once, marked sensitive, and shared
/// by every request that carries it. The memory is wiped when the last request is dropped.
///
/// ```
/// use keysheath::client::{BearerHeader, OriginGuard};
/// use keysheath::handle::KeyHandle;
/// use keysheath::key::{ApiKey, Kanal};
///
/// let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?);
/// // For a client that no layer fits: hold the snapshot until the answer has arrived.
/// let snapshot = handle.load()?;
/// let header = BearerHeader::for_snapshot(&snapshot);
/// assert_eq!(format!("{:?}", header.value()), "Sensitive");
/// let mut request = http::Request::get("https://api.getkanal.com/api/v1/stores/1/orders").body(())?;
/// OriginGuard::new().authorize(&mut request, header)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("authorization", "token"))]
pub struct BearerHeader<I: Issuer> {
    value: HeaderValue,
    issuer: PhantomData<fn() -> I>,
}

impl<I: Issuer> BearerHeader<I> {
    /// Builds the value from a key.
    ///
    /// # Panics
    /// Never: every format admits only what a header can carry.
    #[must_use]
    pub fn new(key: &ApiKey<I>) -> Self {
        Self::from_text(key.expose_secret().as_bytes())
    }

    /// Builds the value from a key of this issuer, in its own format or a widened one.
    pub(crate) fn from_raw(key: &RawKey) -> Option<Self> {
        key.profile().is_same_issuer(I::PROFILE).then(|| Self::from_text(key.expose_secret().as_bytes()))
    }

    fn from_text(key: &[u8]) -> Self {
        let mut text = WipedBytes::with_capacity(SCHEME.len() + key.len());
        text.append(SCHEME);
        text.append(key);
        let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(text)) else {
            unreachable!("a key passed its format, which a header can carry")
        };
        value.set_sensitive(true);
        Self { value, issuer: PhantomData }
    }

    /// Returns the value, for a request that goes to the issuer. It shares the header's memory.
    ///
    /// This bypasses the origin guard; prefer
    /// [`OriginGuard::authorize`](crate::client::OriginGuard::authorize).
    #[must_use]
    #[inline]
    pub fn value(&self) -> HeaderValue {
        self.value.clone()
    }

    /// Returns the key's bytes, to look for them where they must not be.
    #[inline]
    pub(crate) fn key_bytes(&self) -> &[u8] {
        &self.value.as_bytes()[SCHEME.len()..]
    }
}

impl<I: Issuer> Clone for BearerHeader<I> {
    /// Shares the memory; does not copy the key.
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), issuer: PhantomData }
    }
}

impl<I: Issuer> fmt::Debug for BearerHeader<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerHeader({}, redacted)", I::PROFILE.name())
    }
}
