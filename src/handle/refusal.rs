//! A key that the issuer refused.

use std::sync::Arc;

use super::Generation;
use super::version::Version;
use crate::issuer::Issuer;

/// A key that the issuer refused, and the generation in which it was sent. The generation is not held by it.
///
/// The key, because a newer generation may have it in force again: that is what a rollback does.
pub(crate) struct Refusal<I: Issuer> {
    pub(super) version: Arc<Version<I>>,
    pub(super) generation: Generation,
}

impl<I: Issuer> Refusal<I> {
    /// Whether this is the key that was refused.
    pub(super) fn is_of(&self, version: &Version<I>) -> bool {
        matches!((&self.version.key, &version.key), (Ok(refused), Ok(key)) if refused == key)
    }
}

impl<I: Issuer> Clone for Refusal<I> {
    fn clone(&self) -> Self {
        Self { version: Arc::clone(&self.version), generation: self.generation }
    }
}
