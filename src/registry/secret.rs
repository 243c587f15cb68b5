//! The registry's secrets: drawing a key, and the peppers under which keys are digested.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::iter;

use zeroize::Zeroizing;

use super::RegistryError;
use crate::internal::bytes::WipedBytes;
use crate::key::{Fingerprint, KeyFormat, Origin, Profile, RawKey};
use crate::source::{self, Absence, KeyRef, KeyRefError, Loaded, Problem, SourceError};

/// Letters and digits, as in the one documented key.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The length of a key if its format allows it: 24 × log₂ 62 = 142.9 bits.
const LENGTH: usize = 24;

/// A generator of random bytes.
pub(super) type Random = dyn FnMut(&mut [u8]) -> io::Result<()> + Send;

/// Fills bytes by the operating system's generator.
pub(super) fn system(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::from)
}

/// Returns how many characters a new key of this issuer has, and its entropy in bits, rounded down.
pub(super) fn length_and_entropy(profile: &Profile) -> (usize, u16) {
    let (min, max) = profile.format().lengths().into_inner();
    let length = LENGTH.clamp(min, max);
    // log₂ 62 is 5.954; a thousandth less is never too much.
    let bits = length * 5954 / 1000;
    (length, u16::try_from(bits).unwrap_or(u16::MAX))
}

/// Draws a new key. Each of the 62 characters has the same probability: six bits of each random byte give 64
/// values, and the two without a character are rejected. A remainder (`byte % 62`) would draw the first eight
/// characters more often.
pub(super) fn draw_key(
    profile: &'static Profile,
    random: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> Result<RawKey, RegistryError> {
    let (length, _) = length_and_entropy(profile);
    let mut text = WipedBytes::with_capacity(length);
    let mut bytes = Zeroizing::new([0_u8; 32]);
    // On average one of 32 bytes is rejected; without this bound, a generator of such bytes only would hang.
    for _ in 0..length {
        random(&mut *bytes).map_err(|error| RegistryError::NoRandomness(error.kind()))?;
        let drawn = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        let missing = length - text.len();
        text.extend(drawn.take(missing).copied());
        if text.len() == length {
            break;
        }
    }
    if text.len() < length {
        return Err(RegistryError::NoRandomness(io::ErrorKind::InvalidData));
    }
    RawKey::parse(profile, &text).map_err(|_| RegistryError::NotAFormatOfLettersAndDigits)
}

/// The format of a pepper: 32 to 512 `b64token` characters, such as `openssl rand -base64 32` prints. It is
/// loaded as a key is, and never sent.
const PROFILE: &Profile = &Profile::new(
    "keysheath-pepper",
    "KEYSHEATH_PEPPER",
    Origin::https("pepper.invalid"),
    // `is_weak` refuses what is plainly not random.
    KeyFormat::between(32, 512).with_placeholders(),
    128,
)
.with_title("pepper")
.with_key_page("a terminal, with `openssl rand -base64 32`");

/// The context of BLAKE3's key derivation. It must never change.
const CONTEXT: &str = "keysheath 2026-11-24 registry pepper v1";

/// The same, for the seals of rows, so that a digest is never a valid seal.
const SEAL_CONTEXT: &str = "keysheath 2026-11-28 registry row seal v1";

/// How many peppers a registry takes.
pub(super) const MAX_PEPPERS: usize = 16;

/// The minimum number of different characters in a pepper. 32 random ones have more than twice as many.
const LEAST_VARIETY: usize = 8;

/// The length of a digest, in bytes.
pub(super) const DIGEST: usize = 16;

/// A secret that is stored apart from the records. Keys are digested under it, so that the records alone
/// do not allow guesses to be tested or keys to be added.
///
/// Create one with `openssl rand -base64 32`. The records contain its fingerprint, from which a pepper that a
/// person made up could be guessed; a pepper that is plainly not random is refused. Store it apart from the
/// records: in a systemd credential or another file.
///
/// To rotate a pepper, load a new one [with the old one as an older one](Pepper::with_older). A key under an
/// older pepper moves to the current one when it is used. Drop the old one once
/// [`keys_under`](super::KeyRegistry::keys_under) returns 0. Each older pepper costs one more hash for an
/// unknown key.
///
/// ```
/// use keysheath::registry::Pepper;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("pepper");
/// # std::fs::write(&path, "mY8Qz3vT1nW5xR7kJ2hG9fD4sA6pL0oIuYtReWqZxCv=\n").unwrap();
/// let reference = format!("file:{}", path.display()).parse()?;
/// let pepper = Pepper::from_reference(&reference)?;
/// println!("{pepper:?}"); // its fingerprint
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pepper {
    current: Box<PepperKeys>,
    #[allow(clippy::vec_box, reason = "a vector that grows or is emptied leaves copies in freed memory")]
    older: Vec<Box<PepperKeys>>,
}

/// What is derived from the text of one pepper.
pub(super) struct PepperKeys {
    digest: Zeroizing<[u8; 32]>,
    seal: Zeroizing<[u8; 32]>,
    id: Fingerprint,
}

/// A pepper could not be loaded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PepperError {
    /// The reference cannot be resolved here.
    #[error("{0}")]
    Reference(KeyRefError),
    /// There is none.
    #[error(
        "there is no pepper at {place}: {absence}; create one with `openssl rand -base64 32` and put it there"
    )]
    Absent {
        /// The place that was read.
        place: source::Provenance,
        /// Why there is none.
        absence: Absence,
    },
    /// The text there is not a pepper.
    #[error(
        "the text at {place} is not a pepper, which is 32 to 512 letters, digits and -._~+/ in one line (and \
         = at its end): create one with `openssl rand -base64 32` and put only that there; if keys are under \
         a pepper already, restore that one"
    )]
    #[non_exhaustive]
    Malformed {
        /// The place that was read.
        place: source::Provenance,
    },
    /// The source failed.
    #[error("the pepper cannot be loaded from {0}")]
    Source(SourceError),
    /// It is not random.
    #[error(
        "the pepper at {place} could be guessed: create one with `openssl rand -base64 32` and put it there"
    )]
    Weak {
        /// The place that was read.
        place: source::Provenance,
    },
}

impl Pepper {
    /// Loads the pepper that a key reference names. Blocks; see [`source`].
    ///
    /// # Errors
    /// [`PepperError`] if it is absent, cannot be read, is not 32 to 512 `b64token` characters, or is not
    /// random.
    pub fn from_reference(reference: &KeyRef) -> Result<Self, PepperError> {
        let place = reference.source().map_err(PepperError::Reference)?;
        let loaded = source::load(&*place, PROFILE).map_err(|error| match error.problem() {
            Problem::Missing { absence } => {
                PepperError::Absent { place: error.provenance().clone(), absence: *absence }
            }
            // The advice of these is about keys, which a person copies from a page.
            Problem::Malformed(_) | Problem::Empty => {
                PepperError::Malformed { place: error.provenance().clone() }
            }
            _ => PepperError::Source(error),
        });
        match loaded? {
            Loaded::Found(found) if is_weak(found.key()) => {
                Err(PepperError::Weak { place: found.provenance().clone() })
            }
            Loaded::Found(found) => Ok(Self::from_text(found.key())),
            Loaded::Absent(absence) => Err(PepperError::Absent { place: place.provenance(), absence }),
        }
    }

    /// Draws a random pepper, for records that end with the process.
    ///
    /// # Errors
    /// [`RegistryError::NoRandomness`] if the operating system's generator fails.
    pub fn random() -> Result<Self, RegistryError> {
        Ok(Self::from_text(&draw_key(PROFILE, &mut system)?))
    }

    fn from_text(text: &RawKey) -> Self {
        let text = text.expose_secret().as_bytes();
        Self {
            current: Box::new(PepperKeys {
                digest: Zeroizing::new(blake3::derive_key(CONTEXT, text)),
                seal: Zeroizing::new(blake3::derive_key(SEAL_CONTEXT, text)),
                id: Fingerprint::of(PROFILE.name(), text),
            }),
            older: Vec::new(),
        }
    }

    /// Adds a pepper that keys may still be under, unless it is there already. A registry takes at most 16.
    #[must_use]
    pub fn with_older(mut self, older: Self) -> Self {
        for pepper in iter::once(older.current).chain(older.older) {
            if self.named(pepper.id).is_none() {
                self.older.push(pepper);
            }
        }
        self
    }

    /// Returns the fingerprint that records are marked with: that of the current pepper.
    #[must_use]
    pub fn id(&self) -> Fingerprint {
        self.current().id
    }

    /// Returns the current one first, then the older ones.
    pub(super) fn all(&self) -> impl Iterator<Item = &PepperKeys> {
        iter::once(&*self.current).chain(self.older.iter().map(|pepper| &**pepper))
    }

    pub(super) fn current(&self) -> &PepperKeys {
        &self.current
    }

    /// Returns the pepper with this fingerprint.
    pub(super) fn named(&self, id: Fingerprint) -> Option<&PepperKeys> {
        self.all().find(|pepper| pepper.id == id)
    }

    /// Returns the place of a pepper in [`Pepper::all`].
    pub(super) fn place_of(&self, id: Fingerprint) -> Option<u8> {
        self.all().position(|pepper| pepper.id == id).and_then(|place| u8::try_from(place).ok())
    }
}

impl PepperKeys {
    pub(super) const fn id(&self) -> Fingerprint {
        self.id
    }

    /// Digests a key: the first 128 bits of BLAKE3 in its keyed mode.
    #[inline]
    pub(super) fn digest(&self, key: &[u8]) -> [u8; DIGEST] {
        first_half(&blake3::keyed_hash(&self.digest, key))
    }

    /// Seals a row.
    pub(super) fn seal(&self, row: &[u8]) -> [u8; DIGEST] {
        first_half(&blake3::keyed_hash(&self.seal, row))
    }
}

fn first_half(hash: &blake3::Hash) -> [u8; DIGEST] {
    let mut half = [0; DIGEST];
    half.copy_from_slice(&hash.as_bytes()[..DIGEST]);
    half
}

/// Returns whether a text has so few different characters that it cannot be random.
fn is_weak(text: &RawKey) -> bool {
    let different: HashSet<u8> = text.expose_secret().bytes().collect();
    different.len() < LEAST_VARIETY
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_tuple("Pepper");
        self.all().for_each(|pepper| _ = shown.field(&format_args!("{}", pepper.id)));
        shown.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Issuer, Kanal, Katana};

    /// Pearson's statistic over the 62 characters of many keys. For 61 degrees of freedom it is above 113
    /// once in 20,000 runs; a remainder in place of the rejection makes it some hundreds.
    #[test]
    fn each_character_is_drawn_equally_often() {
        const KEYS: u32 = 10_000;
        let mut counts = [0_u32; 62];
        for _ in 0..KEYS {
            let key = draw_key(Kanal::PROFILE, &mut system).unwrap();
            for byte in key.expose_secret().bytes() {
                counts[ALPHABET.iter().position(|&known| known == byte).unwrap()] += 1;
            }
        }
        let expected = f64::from(KEYS * 24) / 62.0;
        let statistic: f64 =
            counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert!(statistic < 113.0, "χ² = {statistic}: {counts:?}");
        assert!(statistic > 25.0, "χ² = {statistic}: more even than chance: {counts:?}");
    }

    #[test]
    fn a_character_says_nothing_about_the_next() {
        const KEYS: u32 = 4_000;
        let mut pairs = vec![0_u32; 62 * 62];
        let at = |byte: u8| ALPHABET.iter().position(|&known| known == byte).unwrap();
        for _ in 0..KEYS {
            let key = draw_key(Kanal::PROFILE, &mut system).unwrap();
            for pair in key.expose_secret().as_bytes().chunks_exact(2) {
                pairs[at(pair[0]) * 62 + at(pair[1])] += 1;
            }
        }
        let expected = f64::from(KEYS * 12) / f64::from(62 * 62);
        let statistic: f64 =
            pairs.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        // 3,843 degrees of freedom: mean 3,843, standard deviation 88.
        assert!((3_843.0 - 5.0 * 88.0..3_843.0 + 5.0 * 88.0).contains(&statistic), "χ² = {statistic}");
    }

    #[test]
    fn every_random_byte_gives_a_character_or_is_rejected() {
        let mut next = 0_u8;
        let mut counting = |bytes: &mut [u8]| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
            Ok(())
        };
        let text: Vec<u8> = (0..31)
            .flat_map(|_| {
                draw_key(Katana::PROFILE, &mut counting).unwrap().expose_secret().as_bytes().to_vec()
            })
            .collect();
        // Unused bytes of a call are not kept for the next, so only the start of the order is known.
        assert_eq!(&text[..24], b"ABCDEFGHIJKLMNOPQRSTUVWX");
        assert!(text.iter().all(u8::is_ascii_alphanumeric));
    }

    #[test]
    fn without_randomness_no_key_is_drawn() {
        let mut broken = |_: &mut [u8]| Err(io::Error::from(io::ErrorKind::Unsupported));
        let error = draw_key(Kanal::PROFILE, &mut broken).unwrap_err();
        assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::Unsupported));
    }

    #[test]
    fn a_generator_that_gives_no_character_does_not_hang() {
        let mut stuck = |bytes: &mut [u8]| {
            bytes.fill(63);
            Ok(())
        };
        let error = draw_key(Kanal::PROFILE, &mut stuck).unwrap_err();
        assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::InvalidData));
    }
}
