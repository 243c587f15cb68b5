//! A short one-way name of a key, the same in every tool and every log.
//!
//! SHA-256 over `keysheath-fp-v1`, a zero byte, the issuer's name, a zero byte and the key; the first 80
//! bits, in lower-case base32 (RFC 4648) in groups of four. This will not change. Anyone can recompute it:
//!
//! ```sh
//! read -rs KEY   # typed or pasted, so that no history keeps it
//! printf 'keysheath-fp-v1\0kanal\0%s' "$KEY" | sha256sum | cut -c1-20 | tr a-f A-F \
//!   | basenc --base16 -d | base32 | tr A-Z a-z | sed 's/..../&-/g; s/-$//'
//! ```
//!
//! # Security
//! A fingerprint lets its holder test guesses of the key offline. A [`Profile`] therefore states how much
//! entropy its issuer's keys have, and below [`MIN_ENTROPY_BITS`] there is no fingerprint. Two keys whose
//! fingerprints differ are different. The probability that two of a million keys share a fingerprint is about
//! 4 in 10¹³.
//!
//! ```
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
//! assert_eq!(key.fingerprint().unwrap().to_string(), "urdz-nrsd-3rmw-jtz2");
//! # Ok::<(), keysheath::key::FormatError>(())
//! ```
//!
//! [`Profile`]: crate::key::Profile

use std::fmt;
use std::str::FromStr;

use crate::internal::bytes::wipe_stack;
use crate::key::ParseError;

/// Below this entropy a key could be guessed from its fingerprint, so it has none.
pub const MIN_ENTROPY_BITS: u16 = 80;

const DOMAIN: &[u8] = b"keysheath-fp-v1\0";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A one-way name of a key. It is not secret, and compares like any value.
#[doc(alias("redact", "mask", "hash"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 10]);

impl Fingerprint {
    pub(crate) fn of(issuer: &str, key: &[u8]) -> Self {
        let fingerprint = Self::hash(issuer, key);
        wipe_stack();
        fingerprint
    }

    /// Not inlined, so that what it leaves on the stack is where [`wipe_stack`] writes.
    #[inline(never)]
    fn hash(issuer: &str, key: &[u8]) -> Self {
        let mut hash = hmac_sha256::Hash::new();
        hash.update(DOMAIN);
        hash.update(issuer.as_bytes());
        hash.update([0]);
        hash.update(key);
        let mut short = [0; 10];
        short.copy_from_slice(&hash.finalize()[..10]);
        Self(short)
    }
}

#[cfg(feature = "registry")]
impl Fingerprint {
    /// Returns the fingerprint that was stored as these bytes.
    pub(crate) const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for storing.
    pub(crate) const fn to_bytes(self) -> [u8; 10] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        // Two halves of 40 bits, each eight characters of five bits.
        for (half, bytes) in self.0.chunks_exact(5).enumerate() {
            let bits = bytes.iter().fold(0_u64, |bits, &byte| (bits << 8) | u64::from(byte));
            for at in 0..8 {
                if at == 4 || (at == 0 && half > 0) {
                    f.write_char('-')?;
                }
                let five = (bits >> (35 - 5 * at)) & 31;
                f.write_char(char::from(ALPHABET[usize::try_from(five).unwrap_or(0)]))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = ParseError;

    /// Reads what `Display` prints, and nothing else.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; 10];
        let groups: Vec<&str> = text.split('-').collect();
        if groups.len() != 4 || groups.iter().any(|group| group.len() != 4) {
            return Err(ParseError::Fingerprint);
        }
        for (pair, half) in groups.chunks_exact(2).zip(bytes.chunks_exact_mut(5)) {
            let mut bits = 0_u64;
            for character in pair.iter().flat_map(|group| group.bytes()) {
                let five =
                    ALPHABET.iter().position(|&known| known == character).ok_or(ParseError::Fingerprint)?;
                bits = (bits << 5) | u64::try_from(five).map_err(|_| ParseError::Fingerprint)?;
            }
            half.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
