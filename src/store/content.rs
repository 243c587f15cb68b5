//! What a document holds.

use std::fmt;
use std::sync::Arc;

use super::{DocumentError, Version};
use crate::internal::bytes::WipedBytes;

/// Bytes that may hold keys: shared by clones, wiped when the last of them is dropped, and never printed.
///
/// ```
/// use keysheath::store::DocumentContent;
/// let content = DocumentContent::from(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z".to_vec());
/// assert_eq!(format!("{content:?}"), "DocumentContent(24 bytes, redacted)");
/// ```
#[derive(Clone)]
pub struct DocumentContent(Arc<WipedBytes>);

impl DocumentContent {
    /// The bytes.
    ///
    /// ```
    /// # use keysheath::store::DocumentContent;
    /// assert_eq!(DocumentContent::from(b"text".to_vec()).expose_secret(), b"text");
    /// ```
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn must_fit(&self, limit: usize) -> Result<(), DocumentError> {
        if self.0.len() > limit { Err(DocumentError::TooLarge { limit }) } else { Ok(()) }
    }
}

impl From<Vec<u8>> for DocumentContent {
    /// Takes the block over as it is; it is wiped in place.
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(WipedBytes::from(bytes))
    }
}

impl From<WipedBytes> for DocumentContent {
    fn from(bytes: WipedBytes) -> Self {
        Self(Arc::new(bytes))
    }
}

impl fmt::Debug for DocumentContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentContent({} bytes, redacted)", self.0.len())
    }
}

/// What a store holds: a content and its version.
///
/// ```
/// use keysheath::store::{DocumentContent, DocumentStore, MemoryStore};
/// let store = MemoryStore::new();
/// store.write(&DocumentContent::from(b"text".to_vec()), None)?;
/// let document = store.read()?.unwrap();
/// assert_eq!(document.content().expose_secret(), b"text");
/// # Ok::<(), keysheath::store::DocumentError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Document {
    content: DocumentContent,
    version: Version,
}

impl Document {
    /// A document of a store of your own.
    ///
    /// ```
    /// use keysheath::store::{Document, DocumentContent, Version};
    /// let document = Document::new(DocumentContent::from(Vec::new()), Version::new(7, 0));
    /// ```
    #[must_use]
    pub const fn new(content: DocumentContent, version: Version) -> Self {
        Self { content, version }
    }

    /// Its bytes.
    ///
    /// ```
    /// # use keysheath::store::{Document, DocumentContent, Version};
    /// # let document = Document::new(DocumentContent::from(Vec::new()), Version::new(7, 0));
    /// assert!(document.content().expose_secret().is_empty());
    /// ```
    #[must_use]
    pub const fn content(&self) -> &DocumentContent {
        &self.content
    }

    /// Its version, to be given to [`DocumentStore::write`](super::DocumentStore::write).
    ///
    /// ```
    /// # use keysheath::store::{Document, DocumentContent, Version};
    /// # let document = Document::new(DocumentContent::from(Vec::new()), Version::new(7, 0));
    /// assert_eq!(document.version(), &Version::new(7, 0));
    /// ```
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }
}
