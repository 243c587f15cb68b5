//! Making a key's text.

use std::io;

use zeroize::Zeroizing;

use super::RegistryError;
use crate::key::{Profile, RawKey};

/// Letters and digits: what the one documented key consists of.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// How long a key is where its format leaves that open: 24 × log₂ 62 = 142.9 bits.
const LENGTH: usize = 24;

/// Where random bytes come from.
pub(super) type Random = dyn FnMut(&mut [u8]) -> io::Result<()> + Send;

/// The operating system's generator.
pub(super) fn system(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::from)
}

/// How many characters a key of this issuer gets, and how many bits that are, rounded down.
pub(super) fn length_and_entropy(profile: &Profile) -> (usize, u16) {
    let (min, max) = profile.format().bounds();
    let length = LENGTH.clamp(min, max);
    // log₂ 62 is 5.954; a thousandth less is never too much.
    let bits = length * 5954 / 1000;
    (length, u16::try_from(bits).unwrap_or(u16::MAX))
}

/// A new key. Each character is drawn from 62 with the same probability: of each random byte six bits are taken, which
/// makes 64 values, and the two that stand for no character are thrown away. A remainder (`byte % 62`) would draw the
/// first eight characters more often.
pub(super) fn key(
    profile: &'static Profile,
    random: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> Result<RawKey, RegistryError> {
    let (length, _) = length_and_entropy(profile);
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    let mut bytes = Zeroizing::new([0_u8; 32]);
    // Of 32 bytes one is thrown away; a generator that gives nothing else would hang.
    for _ in 0..length {
        random(&mut *bytes).map_err(|error| RegistryError::NoRandomness(error.kind()))?;
        let drawn = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        let missing = length - text.len();
        text.extend(drawn.take(missing));
        if text.len() == length {
            break;
        }
    }
    if text.len() < length {
        return Err(RegistryError::NoRandomness(io::ErrorKind::InvalidData));
    }
    RawKey::parse(profile, &text).map_err(|_| RegistryError::NotAFormatOfLettersAndDigits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Issuer, Kanal, Katana};

    /// Pearson's statistic over the 62 characters of many keys. For 61 degrees of freedom it is above 113 once in 20,000
    /// runs; a remainder in place of the rejection makes it some hundreds.
    #[test]
    fn each_character_is_drawn_as_often_as_every_other() {
        const KEYS: u32 = 10_000;
        let mut counts = [0_u32; 62];
        for _ in 0..KEYS {
            let key = key(Kanal::PROFILE, &mut system).unwrap();
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
    fn a_place_in_the_key_says_nothing_about_the_next() {
        const KEYS: u32 = 4_000;
        let mut pairs = vec![0_u32; 62 * 62];
        let at = |byte: u8| ALPHABET.iter().position(|&known| known == byte).unwrap();
        for _ in 0..KEYS {
            let key = key(Kanal::PROFILE, &mut system).unwrap();
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
    fn every_value_of_a_random_byte_leads_to_a_character_or_is_thrown_away() {
        let mut next = 0_u8;
        let mut counting = |bytes: &mut [u8]| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
            Ok(())
        };
        let text: Vec<u8> = (0..31)
            .flat_map(|_| key(Katana::PROFILE, &mut counting).unwrap().expose_secret().as_bytes().to_vec())
            .collect();
        // The bytes of a call that are not used are not kept for the next, so only the start of the order is sure.
        assert_eq!(&text[..24], b"ABCDEFGHIJKLMNOPQRSTUVWX");
        assert!(text.iter().all(u8::is_ascii_alphanumeric));
    }

    #[test]
    fn no_randomness_is_an_error_and_no_key() {
        let mut broken = |_: &mut [u8]| Err(io::Error::from(io::ErrorKind::Unsupported));
        let error = key(Kanal::PROFILE, &mut broken).unwrap_err();
        assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::Unsupported));
    }

    #[test]
    fn a_generator_that_gives_no_character_is_an_error_and_not_a_hang() {
        let mut stuck = |bytes: &mut [u8]| {
            bytes.fill(63);
            Ok(())
        };
        let error = key(Kanal::PROFILE, &mut stuck).unwrap_err();
        assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::InvalidData));
    }
}
