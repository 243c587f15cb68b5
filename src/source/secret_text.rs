//! A text on its way from a source to a key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Problem;

/// Bytes that may be a key: wiped when dropped, spare capacity included, and never printed.
///
/// ```
/// use keysheath::source::SecretText;
/// let text = SecretText::from(String::from("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
/// assert_eq!(format!("{text:?}"), "SecretText(redacted)");
/// ```
pub struct SecretText(Zeroizing<Vec<u8>>);

impl SecretText {
    /// An empty text that takes `capacity` bytes without moving.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    #[cfg(any(feature = "keychain", feature = "openbao"))]
    pub(super) const fn from_wiped(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends without leaving a copy behind: where the block is too small, the old one is wiped.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Self::with_capacity(needed.max(self.0.capacity() * 2));
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// What every file-like source does: removes one leading byte order mark and one final newline (`\n` or
    /// `\r\n`), and nothing else.
    pub(super) fn without_mark_and_newline(mut self) -> Self {
        let mut end = self.0.len();
        if self.0.ends_with(b"\n") {
            end -= if self.0.ends_with(b"\r\n") { 2 } else { 1 };
        }
        let start = if self.0.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        // The bytes stay in the block, which is wiped as a whole.
        self.0.copy_within(start.min(end)..end, 0);
        self.0.truncate(end.saturating_sub(start));
        self
    }

    pub(super) fn decode_base64(self) -> Result<Self, Problem> {
        let mut decoded = Self::with_capacity(0);
        decoded.0 = Zeroizing::new(vec![0; base64::decoded_len_estimate(self.0.len())]);
        // The library's error names the symbol that it did not like, so it goes no further.
        let length = STANDARD.decode_slice(&*self.0, &mut decoded.0).map_err(|_| Problem::NotBase64)?;
        decoded.0.truncate(length);
        Ok(decoded)
    }
}

impl From<Vec<u8>> for SecretText {
    /// Takes the block over as it is; it is wiped in place when the text is dropped.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<String> for SecretText {
    /// Takes the block over as it is; it is wiped in place when the text is dropped.
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(bytes: &[u8]) -> Vec<u8> {
        let text = SecretText::from(bytes.to_vec()).without_mark_and_newline();
        text.bytes().to_vec()
    }

    #[test]
    fn one_mark_and_one_newline_are_removed_and_nothing_else() {
        assert_eq!(stripped(b"key"), b"key");
        assert_eq!(stripped(b"key\n"), b"key");
        assert_eq!(stripped(b"key\r\n"), b"key");
        assert_eq!(stripped(b"key\n\n"), b"key\n");
        assert_eq!(stripped(b"key\r"), b"key\r");
        assert_eq!(stripped(b" key \n"), b" key ");
        assert_eq!(stripped(b"\xef\xbb\xbfkey"), b"key");
        assert_eq!(stripped(b"\xef\xbb\xbf\xef\xbb\xbfkey"), b"\xef\xbb\xbfkey");
        assert_eq!(stripped(b"\xef\xbb\xbf\n"), b"");
        assert_eq!(stripped(b"\n"), b"");
        assert_eq!(stripped(b""), b"");
    }

    #[test]
    fn base64_is_one_padded_line_of_the_standard_alphabet() {
        let decode = |text: &str| SecretText::from(text.to_owned()).decode_base64();
        assert_eq!(decode("OGZLMg==").unwrap().bytes(), b"8fK2");
        for text in ["OGZLMg", "OGZLMg==\n", "OGZL\nMg==", "OGZL Mg==", "--__", "OGZLMh=="] {
            assert!(matches!(decode(text), Err(Problem::NotBase64)), "{text}");
        }
    }

    #[test]
    fn appending_keeps_what_was_there() {
        let mut text = SecretText::with_capacity(2);
        for part in [&b"a"[..], b"bc", b"", b"defghijkl"] {
            text.append(part);
        }
        assert_eq!(text.bytes(), b"abcdefghijkl");
    }
}
