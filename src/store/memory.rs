//! A document in memory.

use std::sync::Arc;

use super::{Document, DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version};
use crate::internal::lock::Lock;
use crate::source::Provenance;

/// A document that is gone with the process: for tests, and for keys that need not outlive it. Clones share it.
///
/// ```
/// use keysheath::store::{DocumentContent, DocumentStore, MemoryStore};
/// let store = MemoryStore::new();
/// assert!(store.read()?.is_none());
/// store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// assert!(store.clone().read()?.is_some());
/// # Ok::<(), keysheath::store::DocumentError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    document: Arc<Lock<Option<Document>>>,
}

impl MemoryStore {
    /// An empty store.
    ///
    /// ```
    /// # use keysheath::store::MemoryStore;
    /// let store = MemoryStore::new();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl DocumentStore for MemoryStore {
    fn provenance(&self) -> Provenance {
        Provenance::other("memory", "document")
    }

    fn limit(&self) -> usize {
        MAX_DOCUMENT
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        Ok(self.document.lock().clone())
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        content.must_fit(self.limit())?;
        let mut there = self.document.lock();
        let version = Version::next(there.as_ref().map(Document::version), unchanged)?;
        *there = Some(Document::new(content.clone(), version));
        Ok(version)
    }
}
