//! A key, its issuer, its format, its fingerprint, and the origin that it is sent to.
//!
//! [`ApiKey`] carries its issuer in its type, so that a Kanal key cannot be passed where a Katana key is
//! wanted. [`RawKey`] is the same key with its issuer as a value, for code that serves both.
//!
//! # Security
//! The text is in memory while the key lives: code that can read the memory of this process can read the key.
//! Moving an `ApiKey` moves a pointer, not the text. Copies made from [`ApiKey::expose_secret`] belong to the
//! caller. SECURITY.md lists what other libraries and the operating system keep.
//!
//! ```
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
//! assert!(key.matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
//! assert_eq!(format!("{key:?}"), "ApiKey(kanal, urdz-nrsd-3rmw-jtz2)");
//! # Ok::<(), keysheath::key::FormatError>(())
//! ```

pub(crate) mod fingerprint;
pub(crate) mod format;
#[cfg(feature = "client")]
pub(crate) mod header;
pub(crate) mod issuer;
pub(crate) mod origin;

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretBox};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use fingerprint::{Fingerprint, MIN_ENTROPY_BITS};
pub use format::{FormatError, FormatRule, Hint, KeyFormat, MAX_KEY_LENGTH};
pub use issuer::{Issuer, Kanal, Katana, KatanaApp, Profile, StoreId};
pub use origin::Origin;
#[cfg(any(feature = "oauth", feature = "openbao", feature = "probe"))]
pub use origin::roots::{Roots, RootsError};

/// A well-formed key of issuer `I`.
///
/// It has no `Display`, `Clone`, `Hash`, `Serialize` or `Deref`: each of them would copy or print the text
/// implicitly. [`ApiKey::clone_key`] and [`ApiKey::expose_secret`] do so by name.
///
/// ```
/// use keysheath::key::{ApiKey, Katana};
///
/// let key: ApiKey<Katana> = "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071".parse()?;
/// assert_eq!(key.expose_secret().len(), 36);
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[doc(alias("secret", "token", "credential", "redact"))]
pub struct ApiKey<I: Issuer> {
    raw: RawKey,
    issuer: PhantomData<fn() -> I>,
}

/// A well-formed key whose issuer is a value: a [`Profile`].
///
/// ```
/// use keysheath::key::{Issuer, Kanal, Katana, RawKey};
///
/// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
/// assert_eq!(key.profile().title(), "Kanal");
/// assert!(key.try_into_typed::<Katana>().is_err());
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[doc(alias("secret", "token", "credential"))]
pub struct RawKey {
    bytes: SecretBox<[u8]>,
    profile: &'static Profile,
}

/// A key is not one of the requested issuer. It returns the key.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
pub struct IssuerMismatch {
    key: RawKey,
    wanted: &'static Profile,
}

/// A text is not a fingerprint, a store id or an origin. The error never holds the text.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not four groups of four characters from `a-z` and `2-7`.
    #[error("a fingerprint has four groups of four of the characters a-z and 2-7, as in urdz-nrsd-3rmw-jtz2")]
    Fingerprint,
    /// The store id is not a number of decimal digits without a leading zero.
    #[error("a store id is a positive number such as 123, without sign, spaces or leading zeros")]
    StoreId,
    /// The store id does not fit in 64 bits.
    #[error("the store id is too large: it has at most 20 digits")]
    StoreIdTooLarge,
    /// The origin does not start with `https://` or `http://`.
    #[error("an origin starts with https:// (or http:// for a loopback address): add the scheme")]
    OriginScheme,
    /// There is a user name or a password before the origin's host.
    #[error("an origin has no user name or password: remove everything up to the @")]
    OriginUserInfo,
    /// There is a path, a query or a fragment after the origin.
    #[error("an origin is only scheme, host and port: remove what follows the host and port")]
    OriginTrailing,
    /// The origin's host is empty or has a character that no host name has.
    #[error(
        "the host is not a lower-case ASCII host name, IPv4 address or bracketed IPv6 address: \
         write an international name in its xn-- form, and no dot at the end"
    )]
    OriginHost,
    /// The origin's port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    OriginPort,
}

impl fmt::Debug for ParseError {
    /// As [`Display`](fmt::Display): a `main` that ends with the error prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<I: Issuer> ApiKey<I> {
    /// Checks a text and copies it into memory that is wiped when the key is dropped.
    ///
    /// The memory of the text itself belongs to the caller and is not wiped: use [`ApiKey::parse_owned`] for
    /// a `String`. A placeholder that is well-formed is accepted: loading from a
    /// [`Source`](crate::source::Source) refuses it, and [`KeyFormat::screen`](crate::key::KeyFormat::screen)
    /// checks any other text.
    ///
    /// # Errors
    /// [`FormatError`] when the text breaks the issuer's format. Nothing is trimmed.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// As [`ApiKey::parse`], for bytes that may not be UTF-8.
    ///
    /// # Errors
    /// As [`ApiKey::parse`].
    #[inline]
    pub fn parse_bytes(text: &[u8]) -> Result<Self, FormatError> {
        // Not by way of `RawKey::parse`: the key would be moved from one result to the other.
        I::PROFILE.format().check(text)?;
        Ok(Self::from_raw(RawKey::copy(I::PROFILE, text)))
    }

    /// As [`ApiKey::parse`], and wipes the given text, its spare capacity included, also when it is not a
    /// key.
    ///
    /// # Errors
    /// As [`ApiKey::parse`].
    pub fn parse_owned(text: String) -> Result<Self, FormatError> {
        Self::parse(&Zeroizing::new(text))
    }

    /// Returns the text of the key. This is the only way to read it, so every use can be found by this name.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.raw.expose_secret()
    }

    /// Returns whether untrusted bytes of any length are this key. For bytes of the key's length, the time
    /// does not depend on them.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.raw.matches(candidate)
    }

    /// Copies the key into memory of its own.
    #[must_use]
    pub fn clone_key(&self) -> Self {
        Self::from_raw(self.raw.clone_key())
    }

    /// Returns the fingerprint; `None` where the issuer's keys could be guessed from it.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.raw.fingerprint()
    }

    /// Converts the key into one whose issuer is a value.
    #[must_use]
    pub fn into_raw(self) -> RawKey {
        self.raw
    }

    /// Returns the key as one whose issuer is a value.
    #[must_use]
    pub const fn as_raw(&self) -> &RawKey {
        &self.raw
    }

    const fn from_raw(raw: RawKey) -> Self {
        Self { raw, issuer: PhantomData }
    }
}

impl<I: Issuer> FromStr for ApiKey<I> {
    type Err = FormatError;

    /// As [`ApiKey::parse`]: the memory of `text` belongs to the caller and is not wiped.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        Self::parse(text)
    }
}

impl RawKey {
    /// As [`ApiKey::parse_bytes`], for the issuer of `profile`.
    ///
    /// # Errors
    /// [`FormatError`] when the text breaks the issuer's format.
    #[inline]
    pub fn parse(profile: &'static Profile, text: &[u8]) -> Result<Self, FormatError> {
        profile.format().check(text)?;
        Ok(Self::copy(profile, text))
    }

    /// Returns the profile of the issuer.
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// As [`ApiKey::expose_secret`].
    ///
    /// # Panics
    /// Never: every format admits ASCII only.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        match std::str::from_utf8(self.bytes()) {
            Ok(text) => text,
            Err(_) => unreachable!("a key passed its format, which is ASCII"),
        }
    }

    /// As [`ApiKey::matches`].
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        equal(self.bytes(), candidate)
    }

    /// As [`ApiKey::clone_key`].
    #[must_use]
    pub fn clone_key(&self) -> Self {
        Self::copy(self.profile, self.bytes())
    }

    /// As [`ApiKey::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let strong = self.profile.entropy_bits() >= MIN_ENTROPY_BITS;
        strong.then(|| Fingerprint::of(self.profile.name(), self.bytes()))
    }

    /// As [`RawKey::parse`], for a text from a place that holds keys: a placeholder is refused.
    pub(crate) fn load(profile: &'static Profile, text: &[u8]) -> Result<Self, FormatError> {
        // A key of few bits can look like a placeholder by chance.
        if profile.entropy_bits() >= MIN_ENTROPY_BITS {
            profile.format().screen(text)?;
        }
        Self::parse(profile, text)
    }

    /// Converts the key into one with its issuer in the type.
    ///
    /// # Errors
    /// [`IssuerMismatch`], which returns the key, when the key is another issuer's, or when it is of a
    /// [widened](Profile::widened) format and `I` does not allow its length.
    pub fn try_into_typed<I: Issuer>(self) -> Result<ApiKey<I>, IssuerMismatch> {
        self.of_issuer(I::PROFILE).map(ApiKey::from_raw)
    }

    /// Returns the same key under `profile`, if it is a key of that issuer and format.
    pub(crate) fn of_issuer(mut self, profile: &'static Profile) -> Result<Self, IssuerMismatch> {
        if self.is_of(profile) {
            self.profile = profile;
            Ok(self)
        } else {
            Err(IssuerMismatch { key: self, wanted: profile })
        }
    }

    /// Returns whether this is a key of the issuer and format of `profile`.
    pub(crate) fn is_of(&self, profile: &Profile) -> bool {
        self.profile.is_same_issuer(profile) && profile.format().accepts(self.bytes())
    }

    #[inline]
    fn copy(profile: &'static Profile, text: &[u8]) -> Self {
        // `Box::from` allocates one block of the exact size, so no growing or shrinking leaves a copy behind.
        // A length that the compiler knows needs no call for the copy.
        let block = match <&[u8; 24]>::try_from(text) {
            Ok(text) => Box::from(&text[..]),
            Err(_) => Box::from(text),
        };
        Self { bytes: SecretBox::new(block), profile }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes.expose_secret()
    }
}

impl IssuerMismatch {
    /// Returns the key.
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }

    fn message(&self) -> String {
        let (found, wanted) = (self.key.profile, self.wanted);
        if found.is_same_issuer(wanted) {
            format!(
                "this key of {} has a length that the requested format does not allow: widen that format as \
                 well",
                found.name()
            )
        } else {
            format!("this is a key of {}, and a key of {} is needed", found.name(), wanted.name())
        }
    }
}

/// Compares words and folds them into one verdict; only a difference in length returns early.
#[inline]
fn equal(left: &[u8], right: &[u8]) -> bool {
    // With a length that the compiler knows, there is no loop.
    match (<&[u8; 24]>::try_from(left), <&[u8; 24]>::try_from(right)) {
        (Ok(left), Ok(right)) => difference(left, right).ct_eq(&0).into(),
        _ => equal_of_any_length(left, right),
    }
}

#[inline(never)]
fn equal_of_any_length(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && difference(left, right).ct_eq(&0).into()
}

/// 0 if two texts of the same length are equal, else another number.
#[inline]
fn difference(left: &[u8], right: &[u8]) -> u128 {
    const WORD: usize = size_of::<u128>();

    let word = |bytes: &[u8; WORD]| u128::from_ne_bytes(*bytes);
    let mut difference = 0;
    if let (Some(left_end), Some(right_end)) = (left.last_chunk(), right.last_chunk()) {
        for (left, right) in left.as_chunks().0.iter().zip(right.as_chunks().0) {
            difference |= word(left) ^ word(right);
        }
        // This may compare some bytes a second time.
        difference |= word(left_end) ^ word(right_end);
    } else {
        for (left, right) in left.iter().zip(right) {
            difference |= u128::from(left ^ right);
        }
    }
    difference
}

impl PartialEq for RawKey {
    /// Constant-time over the bytes. Keys of different issuers are different.
    fn eq(&self, other: &Self) -> bool {
        self.profile.is_same_issuer(other.profile) && equal(self.bytes(), other.bytes())
    }
}

impl Eq for RawKey {}

impl<I: Issuer> PartialEq for ApiKey<I> {
    /// Constant-time over the bytes.
    fn eq(&self, other: &Self) -> bool {
        equal(self.raw.bytes(), other.raw.bytes())
    }
}

impl<I: Issuer> Eq for ApiKey<I> {}

impl fmt::Debug for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("RawKey", self, f)
    }
}

impl<I: Issuer> fmt::Debug for ApiKey<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("ApiKey", &self.raw, f)
    }
}

fn describe(name: &str, key: &RawKey, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let issuer = key.profile.name();
    match key.fingerprint() {
        Some(fingerprint) => write!(f, "{name}({issuer}, {fingerprint})"),
        None => write!(f, "{name}({issuer}, redacted)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

    #[test]
    fn every_way_to_parse_gives_the_same_key_or_error() {
        let key = ApiKey::<Kanal>::parse(KEY).unwrap();
        assert_eq!(KEY.parse::<ApiKey<Kanal>>().unwrap(), key);
        assert_eq!(ApiKey::parse_owned(KEY.to_owned()).unwrap(), key);
        assert_eq!(ApiKey::parse_bytes(KEY.as_bytes()).unwrap(), key);
        assert_eq!((key.clone_key(), key.expose_secret()), (ApiKey::parse(KEY).unwrap(), KEY));
        for text in ["", "too short", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\n"] {
            let error = text.parse::<ApiKey<Kanal>>().unwrap_err();
            assert_eq!(ApiKey::<Kanal>::parse_owned(text.to_owned()).unwrap_err(), error);
        }
        assert!(ApiKey::<Kanal>::parse_bytes(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1\xff").is_err());
        assert!(
            key.matches(KEY.as_bytes()) && !key.matches(b"") && !key.matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1z")
        );
    }

    #[test]
    fn a_difference_at_any_place_of_any_length_counts() {
        for length in 0..=50 {
            let text = vec![b'a'; length];
            assert!(equal(&text, &text) && !equal(&text, &[&text[..], b"a"].concat()));
            for place in 0..length {
                for bit in 0..8 {
                    let mut other = text.clone();
                    other[place] ^= 1 << bit;
                    assert!(!equal(&text, &other) && !equal(&other, &text), "{length} {place} {bit}");
                }
            }
        }
    }

    #[test]
    fn a_key_of_another_issuer_comes_back() {
        let raw = ApiKey::<Kanal>::parse(KEY).unwrap().into_raw();
        assert_eq!(raw.profile(), Kanal::PROFILE);
        let mismatch = raw.try_into_typed::<Katana>().unwrap_err();
        assert_eq!(mismatch.to_string(), "this is a key of kanal, and a key of katana is needed");
        assert_eq!(mismatch.into_key().try_into_typed::<Kanal>().unwrap().expose_secret(), KEY);
    }
}
