//! What documents in JSON share: what they say of themselves, and keys in base64. No copy of a key is made
//! that is not wiped, and no error of a library, which may print what it did not like, goes further.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::internal::bytes::WipedBytes;

/// What a document says of itself, in every form.
#[derive(Deserialize)]
struct Head<'a> {
    keysheath: &'a str,
    form: u64,
}

/// The form of a document of this kind; None for one of another kind, and an error for what is not whole.
pub(crate) fn form_of(document: &[u8], kind: &str) -> Result<Option<u64>, NotWhole> {
    let head: Head<'_> = serde_json::from_slice(document).map_err(|_| NotWhole)?;
    Ok(Some(head.form).filter(|form| head.keysheath == kind && *form > 0))
}

/// It is cut short, or not JSON.
pub(crate) struct NotWhole;

/// Writes a secret in base64. Not by the library's `encode_string`, which leaves a copy on the stack.
pub(crate) fn push_base64(text: &mut String, secret: &[u8]) {
    let mut encoded = WipedBytes::zeroed(secret.len().div_ceil(3) * 4);
    let length = STANDARD.encode_slice(secret, &mut encoded).unwrap_or(0);
    // Base64 is ASCII, and the block is as large as it must be.
    text.push_str(std::str::from_utf8(&encoded[..length]).unwrap_or_default());
}

/// What a base64 text stands for; None where it is none.
pub(crate) fn read_base64(text: &str) -> Option<WipedBytes> {
    let mut decoded = WipedBytes::zeroed(base64::decoded_len_estimate(text.len()));
    let length = STANDARD.decode_slice(text, &mut decoded).ok()?;
    decoded.truncate(length);
    Some(decoded)
}

/// Writes a printable text as JSON does.
pub(crate) fn push_quoted(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}
