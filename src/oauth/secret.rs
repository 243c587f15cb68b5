//! What this module holds in secret and is no key: refresh tokens, codes, verifiers.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretBox};

/// The longest one that is taken, in bytes.
pub(super) const MAX_SECRET: usize = 4096;

/// The longest refresh token that is kept, in bytes.
pub(super) const MAX_REFRESH: usize = 8192;

/// Unless it is a refresh token, 1 to 4,096 bytes of visible ASCII and spaces, which is what RFC 6749 (appendix A) allows of each of them. Wiped when
/// dropped, and never printed.
pub(super) struct Secret(SecretBox<[u8]>);

impl Secret {
    /// None for what breaks the format.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let is_text = text.iter().all(|byte| (b' '..=b'~').contains(byte));
        let fits = (1..=MAX_SECRET).contains(&text.len());
        // One block of the exact size, so nothing is left behind by growing.
        (is_text && fits).then(|| Self(SecretBox::new(Box::from(text))))
    }

    /// A refresh token, of any bytes: what cannot be had again is kept as it comes. None for an empty one, and for one of more
    /// than [`MAX_REFRESH`].
    pub(super) fn refresh_token(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_REFRESH).contains(&bytes.len()).then(|| Self(SecretBox::new(Box::from(bytes))))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    pub(super) fn duplicate(&self) -> Self {
        Self(SecretBox::new(Box::from(self.bytes())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
