//! A key in a handle, and what is made out of it.

#[cfg(feature = "client")]
use std::any::Any;
#[cfg(feature = "client")]
use std::sync::OnceLock;

use super::NoActiveKey;
use crate::key::{ApiKey, Issuer};

/// What a handle holds in one place: a key, or why there is none.
pub(super) struct Version<I: Issuer> {
    pub(super) key: Result<ApiKey<I>, NoActiveKey>,
    /// What the client makes out of the key. Here, so that it is wiped together with the key.
    #[cfg(feature = "client")]
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl<I: Issuer> Version<I> {
    pub(super) const fn new(key: Result<ApiKey<I>, NoActiveKey>) -> Self {
        Self {
            key,
            #[cfg(feature = "client")]
            kept: OnceLock::new(),
        }
    }

    /// The key of a version that a snapshot was made of.
    #[inline]
    pub(super) fn expect_key(&self) -> &ApiKey<I> {
        match &self.key {
            Ok(key) => key,
            Err(_) => unreachable!("a snapshot is made of a key only"),
        }
    }

    /// What `make` makes out of the key, made once for each key and dropped with it.
    ///
    /// Erased, because the modules that make something stand below this one; there is one of them.
    #[cfg(feature = "client")]
    pub(super) fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce(&ApiKey<I>) -> T) -> &T {
        let kept = self.kept.get_or_init(|| Box::new(make(self.expect_key())));
        match kept.downcast_ref() {
            Some(kept) => kept,
            None => unreachable!("one type is kept with a key"),
        }
    }
}
