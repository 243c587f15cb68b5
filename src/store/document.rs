//! A document: its content and its version, and how both lie in a file or in a keychain item.
//!
//! There, a header is before the content: `KSHDOC01`, the version's two numbers (big-endian), and SHA-256
//! over those and the content. It tells a document that was cut short or edited from a whole one; it proves
//! nothing about who wrote it.

use std::fmt;
use std::sync::Arc;

use hmac_sha256::Hash;

use super::DocumentError;
use crate::internal::bytes::{WipedBytes, wipe_stack};
use crate::internal::threads::Lock;
use crate::internal::time::random_number;

/// Bytes that may hold keys: shared by clones, wiped when the last of them is dropped, and never printed.
#[derive(Clone)]
pub struct DocumentContent(Arc<WipedBytes>);

impl DocumentContent {
    /// Returns the bytes.
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
#[derive(Clone, Debug)]
pub struct Document {
    content: DocumentContent,
    version: Version,
}

impl Document {
    /// Creates a document of a store of your own.
    #[must_use]
    pub const fn new(content: DocumentContent, version: Version) -> Self {
        Self { content, version }
    }

    /// Returns its bytes.
    #[must_use]
    pub const fn content(&self) -> &DocumentContent {
        &self.content
    }

    /// Returns its version, to be given to [`DocumentStore::write`](super::DocumentStore::write).
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }
}

/// Which document it is. It changes with every write, also when the same content is written again, and no
/// part of the content is in it: it is a number that grows, and one that was drawn for this write.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    sequence: u64,
    nonce: u64,
}

impl Version {
    /// Creates the version of a document in a store of your own. `sequence` grows with every write; if it can
    /// start over, because the document can be deleted, `nonce` is drawn for each write, and otherwise it is
    /// 0.
    #[must_use]
    pub const fn new(sequence: u64, nonce: u64) -> Self {
        Self { sequence, nonce }
    }

    /// The largest number that is read. What is written after it would not be read again, and nothing comes
    /// near it.
    pub(super) const LAST: u64 = u64::MAX >> 1;

    pub(super) const fn parts(&self) -> (u64, u64) {
        (self.sequence, self.nonce)
    }

    /// The version of what is written next, one that no document has had, if what is there is still what the
    /// writer has read.
    pub(super) fn next(there: Option<&Self>, unchanged: Option<&Self>) -> Result<Self, DocumentError> {
        if there != unchanged {
            return Err(DocumentError::Conflict);
        }
        let sequence = number(there) + 1;
        if sequence > Self::LAST {
            return Err(DocumentError::Corrupt);
        }
        Ok(Self { sequence, nonce: random_number() })
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.sequence)
    }
}

/// The newest version that a store has seen; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Lock<Option<Version>>>);

impl Seen {
    /// Looks at the place, and says whether it gives an older document than it gave before that look. (A look
    /// at the same time may well give a newer one.)
    pub(super) fn look(
        &self,
        read: impl FnOnce() -> Result<Option<Document>, DocumentError>,
    ) -> Result<Option<Document>, DocumentError> {
        self.look_by(read, Document::version)
    }

    /// As [`Seen::look`], at the version alone.
    pub(super) fn look_at_version(
        &self,
        read: impl FnOnce() -> Result<Option<Version>, DocumentError>,
    ) -> Result<Option<Version>, DocumentError> {
        self.look_by(read, |version| version)
    }

    fn look_by<T>(
        &self,
        read: impl FnOnce() -> Result<Option<T>, DocumentError>,
        version: impl Fn(&T) -> &Version,
    ) -> Result<Option<T>, DocumentError> {
        let before = number(self.0.lock().as_ref());
        let there = read()?;
        let version = there.as_ref().map(version);
        if number(version) < before {
            return Err(DocumentError::Stale);
        }
        self.note(version);
        Ok(there)
    }

    /// Notes what is there.
    pub(super) fn note(&self, there: Option<&Version>) {
        let mut seen = self.0.lock();
        if number(there) >= number(seen.as_ref()) {
            *seen = there.copied();
        }
    }
}

fn number(version: Option<&Version>) -> u64 {
    version.map_or(0, |version| version.sequence)
}

/// How many bytes stand before the content.
pub(super) const HEADER: usize = NUMBERS_END + 32;

const NAME: &[u8] = b"KSHDOC";
const FORMAT: &[u8] = b"01";
const MAGIC_END: usize = NAME.len() + FORMAT.len();
const NUMBERS_END: usize = MAGIC_END + 16;

/// Returns the header of a content.
pub(super) fn header(version: &Version, content: &DocumentContent) -> [u8; HEADER] {
    let (sequence, nonce) = version.parts();
    let mut header = [0; HEADER];
    header[..NAME.len()].copy_from_slice(NAME);
    header[NAME.len()..MAGIC_END].copy_from_slice(FORMAT);
    header[MAGIC_END..MAGIC_END + 8].copy_from_slice(&sequence.to_be_bytes());
    header[MAGIC_END + 8..NUMBERS_END].copy_from_slice(&nonce.to_be_bytes());
    let digest = digest(&header[..NUMBERS_END], content.expose_secret());
    header[NUMBERS_END..].copy_from_slice(&digest);
    header
}

/// Whether these bytes may be the begin of a document, as they are where a write was interrupted.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    bytes.iter().zip(NAME).all(|(byte, expected)| byte == expected)
}

/// Reads header and content. The content stays in the block, which is wiped as a whole.
pub(super) fn open(mut bytes: WipedBytes) -> Result<Document, DocumentError> {
    if !bytes.starts_with(NAME) || bytes.len() < HEADER {
        return Err(DocumentError::Corrupt);
    }
    if !bytes[NAME.len()..].starts_with(FORMAT) {
        return Err(DocumentError::Newer);
    }
    let number = |at: usize| bytes[at..at + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let (sequence, nonce) = (number(MAGIC_END), number(MAGIC_END + 8));
    let (header, content) = bytes.split_at(HEADER);
    let is_whole = header[NUMBERS_END..] == digest(&header[..NUMBERS_END], content);
    if !is_whole || sequence == 0 || sequence > Version::LAST {
        return Err(DocumentError::Corrupt);
    }
    let end = bytes.len();
    bytes.keep(HEADER..end);
    Ok(Document::new(DocumentContent::from(bytes), Version::new(sequence, nonce)))
}

fn digest(numbers: &[u8], content: &[u8]) -> [u8; 32] {
    let digest = hash(numbers, content);
    // The hash keeps the end of the content on the stack, which may contain a key.
    wipe_stack();
    digest
}

/// Not inlined, so that what it leaves on the stack lies where [`wipe_stack`] then writes.
#[inline(never)]
fn hash(numbers: &[u8], content: &[u8]) -> [u8; 32] {
    let mut hash = Hash::new();
    hash.update(numbers);
    hash.update(content);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_or_missing_document_is_stale() {
        let seen = Seen::default();
        let document = |sequence| Document::new(DocumentContent::from(Vec::new()), Version::new(sequence, 5));
        let look = |there: Option<Document>| seen.look(|| Ok(there)).map(|_| ());
        assert_eq!(look(None), Ok(()));
        assert_eq!(look(Some(document(2))), Ok(()));
        assert_eq!(look(Some(document(1))), Err(DocumentError::Stale));
        assert_eq!(look(None), Err(DocumentError::Stale));
        assert_eq!(look(Some(document(2))), Ok(()));
        seen.note(Some(&Version::new(7, 5)));
        assert_eq!(look(Some(document(6))), Err(DocumentError::Stale));
    }

    #[test]
    fn an_overtaken_read_is_not_stale_and_resets_nothing() {
        let seen = Seen::default();
        let document = Document::new(DocumentContent::from(Vec::new()), Version::new(1, 5));
        let look = seen.look(|| {
            seen.note(Some(&Version::new(2, 5)));
            Ok(Some(document.clone()))
        });
        assert!(look.is_ok());
        assert!(matches!(seen.look(|| Ok(Some(document))), Err(DocumentError::Stale)));
    }

    #[test]
    fn a_recreated_document_has_a_different_version() {
        let first = Version::next(None, None).unwrap();
        assert_eq!(first.sequence, 1);
        assert_ne!(Version::next(None, None).unwrap(), first);
        assert_eq!(Version::next(Some(&first), Some(&first)).unwrap().sequence, 2);
        let again = Version { sequence: 1, ..Version::next(None, None).unwrap() };
        assert_eq!(Version::next(Some(&again), Some(&first)), Err(DocumentError::Conflict));
    }

    #[test]
    fn the_last_number_is_not_passed() {
        let last = Version::new(Version::LAST, 0);
        assert_eq!(Version::next(Some(&last), Some(&last)), Err(DocumentError::Corrupt));
    }

    fn sealed(content: &[u8]) -> WipedBytes {
        let content = DocumentContent::from(content.to_vec());
        let header = header(&Version::new(7, 9), &content);
        WipedBytes::from([&header, content.expose_secret()].concat())
    }

    #[test]
    fn what_was_sealed_is_opened() {
        for content in [&b""[..], b"a", &[0xff; 5000]] {
            let document = open(sealed(content)).unwrap();
            assert_eq!(document.content().expose_secret(), content);
            assert_eq!(document.version(), &Version::new(7, 9));
        }
    }

    #[test]
    fn every_byte_counts_and_so_does_the_length() {
        let whole = sealed(b"some content");
        for at in 0..whole.len() {
            let mut changed = WipedBytes::copy_of(&whole);
            changed[at] ^= 1;
            let expected = if (NAME.len()..MAGIC_END).contains(&at) {
                DocumentError::Newer
            } else {
                DocumentError::Corrupt
            };
            assert_eq!(open(changed).unwrap_err(), expected, "byte {at}");
            assert_eq!(open(WipedBytes::copy_of(&whole[..at])).unwrap_err(), DocumentError::Corrupt);
        }
        let longer = WipedBytes::from([&whole[..], b"\n"].concat());
        assert_eq!(open(longer).unwrap_err(), DocumentError::Corrupt);
    }

    proptest::proptest! {
        #[test]
        fn any_numbers_in_a_header_are_read_or_corrupt(
            sequence in crate::internal::printing::extreme_numbers(),
            nonce in crate::internal::printing::extreme_numbers(),
        ) {
            let header = header(&Version::new(sequence, nonce), &DocumentContent::from(Vec::new()));
            if let Ok(document) = open(WipedBytes::copy_of(&header)) {
                let version = *document.version();
                assert_eq!(version, Version::new(sequence, nonce));
                // What is written after it can be read again.
                if let Ok(next) = Version::next(Some(&version), Some(&version)) {
                    let header = super::header(&next, &DocumentContent::from(Vec::new()));
                    assert!(open(WipedBytes::copy_of(&header)).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_number_that_no_store_writes_is_corrupt() {
        for sequence in [0, Version::LAST + 1, u64::MAX] {
            let content = DocumentContent::from(Vec::new());
            let header = header(&Version::new(sequence, 0), &content);
            assert_eq!(open(WipedBytes::copy_of(&header)).unwrap_err(), DocumentError::Corrupt);
        }
    }
}
