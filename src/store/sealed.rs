//! How a document lies in a file or in a keychain item: a header, and the content as it is.
//!
//! The header is `KSHDOC01`, the version's two numbers (big-endian), and SHA-256 over those and the content.
//! It tells a document that was cut short or edited from a whole one; it proves nothing about who wrote it.

use hmac_sha256::Hash;

use super::{Document, DocumentContent, DocumentError, Version};
use crate::internal::bytes::WipedBytes;
use crate::internal::bytes::wipe_stack;

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
    // The hash keeps the end of the content on the stack, and a key may stand there.
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
