//! Bytes that are wiped, and the codecs that write into them: base64, percent encoding, hexadecimal, JSON
//! texts.
//!
//! The codecs go through no formatting machinery and no library call that would keep a copy, and their errors
//! name nothing of the input.

use std::fmt;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, DerefMut, Range};

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Bytes that may be secret. They are wiped when dropped, spare capacity included, and are never printed.
///
/// Make it with the capacity that it needs. Appending past that moves the bytes to a larger block and wipes
/// the old one; `Vec` would free the old block as it is.
#[derive(Default)]
pub(crate) struct WipedBytes(Zeroizing<Vec<u8>>);

impl WipedBytes {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self::from(Vec::with_capacity(capacity))
    }

    /// `length` zero bytes, to be read into.
    pub(crate) fn zeroed(length: usize) -> Self {
        Self::from(vec![0; length])
    }

    /// A copy in a block of the exact size.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.append(&[byte]);
    }

    pub(crate) fn extend(&mut self, bytes: impl IntoIterator<Item = u8>) {
        bytes.into_iter().for_each(|byte| self.push(byte));
    }

    /// Appends `length` zero bytes and returns them, to be written to.
    pub(crate) fn append_zeroed(&mut self, length: usize) -> &mut [u8] {
        self.reserve(length);
        let start = self.0.len();
        self.0.resize(start + length, 0);
        &mut self.0[start..]
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Keeps what is in a range. The bytes stay in the block, which is wiped as a whole.
    pub(crate) fn keep(&mut self, range: Range<usize>) {
        let length = range.len();
        self.0.copy_within(range, 0);
        self.0.truncate(length);
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        if needed > self.0.capacity() {
            let mut larger = Self::with_capacity(needed.max(self.0.capacity() * 2).max(64));
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
    }
}

impl From<Vec<u8>> for WipedBytes {
    /// Takes the block over as it is.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl Deref for WipedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for WipedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for WipedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for WipedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, redacted", self.len())
    }
}

/// Overwrites what a call that has just returned left on the stack. The hash leaves a copy of the key there,
/// and the next value with padding that is moved to the heap would take parts of it along.
#[inline(never)]
pub(crate) fn wipe_stack() {
    // The compiler must assume that the array is read, so it writes it.
    black_box(&mut [0_u8; 2048]);
}

/// How deep the calls of this crate reach that read a key, with room to spare. The deepest is a handshake
/// with OpenBao: on x86-64 it takes 51 KiB, and without optimizations 157.
pub(crate) const CALL: usize = if cfg!(debug_assertions) { 512 * 1024 } else { 96 * 1024 };

/// As [`wipe_stack`], for what a whole call has left.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "it is the stack that is wiped")]
pub(crate) fn wipe_call() {
    black_box(&mut [0_u8; CALL]);
}

/// Reads to the end into one block. `None` if there are more than `limit` bytes.
pub(crate) fn read_at_most(reader: impl Read, limit: usize) -> io::Result<Option<WipedBytes>> {
    read_of_length(reader, 0, limit)
}

/// As [`read_at_most`], of a regular file that has this length: where the first read gives as much, and could
/// have given more, that is the end, and it is not asked for.
pub(crate) fn read_of_length(
    mut reader: impl Read,
    expected: u64,
    limit: usize,
) -> io::Result<Option<WipedBytes>> {
    let mut bytes = WipedBytes::zeroed(limit + 1);
    let mut length = 0;
    while length < bytes.len() {
        match reader.read(&mut bytes[length..]) {
            Ok(count) if count == 0 || length == 0 && count <= limit && count as u64 == expected => {
                bytes.truncate(length + count);
                return Ok(Some(bytes));
            }
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Appends `bytes` in base64: standard alphabet, padded.
pub(crate) fn append_base64(out: &mut WipedBytes, bytes: &[u8]) {
    append_encoded(&STANDARD, out, bytes);
}

/// `bytes` in base64url without padding.
pub(crate) fn base64url(bytes: &[u8]) -> WipedBytes {
    let mut out = WipedBytes::default();
    append_encoded(&URL_SAFE_NO_PAD, &mut out, bytes);
    out
}

/// Not by the library's `encode_string`, which leaves a copy on the stack.
fn append_encoded(engine: &GeneralPurpose, out: &mut WipedBytes, bytes: &[u8]) {
    let (start, most) = (out.len(), bytes.len().div_ceil(3) * 4);
    // There is room, and nothing else can fail.
    let length = engine.encode_slice(bytes, out.append_zeroed(most)).unwrap_or(0);
    out.truncate(start + length);
}

/// Decodes base64 in the standard alphabet, padded. `None` if it is anything else.
pub(crate) fn decode_base64(text: &[u8]) -> Option<WipedBytes> {
    let mut decoded = WipedBytes::zeroed(base64::decoded_len_estimate(text.len()));
    // The library's error names the symbol that it did not like, so it goes no further.
    let length = STANDARD.decode_slice(text, &mut decoded).ok()?;
    decoded.truncate(length);
    Some(decoded)
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn hex_digits(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

/// Appends `bytes` in lower-case hexadecimal.
pub(crate) fn append_hex(out: &mut WipedBytes, bytes: &[u8]) {
    for &byte in bytes {
        out.append(&hex_digits(byte, LOWER));
    }
}

/// Appends `bytes`, each as `%XX` unless it is unreserved (RFC 3986, section 2.3) or one of `plain`.
pub(crate) fn append_percent(out: &mut WipedBytes, bytes: &[u8], plain: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            out.push(byte);
        } else {
            let [high, low] = hex_digits(byte, UPPER);
            out.append(&[b'%', high, low]);
        }
    }
}

/// Reads `%XX`, and returns the byte and what follows. `None` if `text` does not begin with it.
pub(crate) fn percent_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, rest @ ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(*high)? << 4 | digit(*low)?, rest))
}

/// Appends UTF-8 as a JSON text, with its quotation marks.
pub(crate) fn append_json_text(out: &mut WipedBytes, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.append(&[b'\\', byte]),
            0..0x20 => {
                out.append(b"\\u00");
                out.append(&hex_digits(byte, LOWER));
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut WipedBytes)) -> String {
        let mut out = WipedBytes::default();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn appending_keeps_what_was_there() {
        let mut bytes = WipedBytes::with_capacity(2);
        for part in [&b"a"[..], b"bc", b"", b"defghijkl"] {
            bytes.append(part);
        }
        bytes.append_zeroed(1)[0] = b'm';
        assert_eq!(&*bytes, b"abcdefghijklm");
        bytes.keep(1..4);
        assert_eq!((&*bytes, format!("{bytes:?}")), (&b"bcd"[..], "3 bytes, redacted".to_owned()));
    }

    #[test]
    fn base64_is_padded_and_of_the_standard_alphabet() {
        for (bytes, text) in [(&b""[..], ""), (b"8fK2", "OGZLMg=="), (b"\xfb\xff", "+/8=")] {
            assert_eq!(written(|out| append_base64(out, bytes)), text);
            assert_eq!(&*decode_base64(text.as_bytes()).unwrap(), bytes);
        }
        assert_eq!(&*base64url(b"\xfb\xff"), b"-_8");
        for text in ["OGZLMg", "OGZLMg==\n", "OGZL\nMg==", "OGZL Mg==", "--__", "OGZLMh=="] {
            assert!(decode_base64(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn percent_and_hexadecimal_digits_are_read_again() {
        assert_eq!(written(|out| append_hex(out, b"\x0a\xfe")), "0afe");
        assert_eq!(written(|out| append_percent(out, "a/b c\u{e4}".as_bytes(), b"/")), "a/b%20c%C3%A4");
        for byte in 0..=255 {
            let text = written(|out| append_percent(out, &[byte], b""));
            let read = percent_byte(text.as_bytes()).unwrap_or((text.as_bytes()[0], b""));
            assert_eq!(read, (byte, &b""[..]));
        }
        assert_eq!(percent_byte(b"%3fx"), Some((b'?', &b"x"[..])));
        for text in ["", "a", "%", "%4", "%zz", "%+1"] {
            assert_eq!(percent_byte(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn another_parser_reads_the_same_json_text(text: String) {
            let json = written(|out| append_json_text(out, text.as_bytes()));
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
