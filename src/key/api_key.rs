//! An API key in memory: checked, wiped when dropped, compared in constant time, and printed as its
//! fingerprint.
//!
//! [`ApiKey`] carries its issuer in its type, so that a Kanal key cannot go where a Katana key is wanted.
//! [`RawKey`] is the same key with its issuer as a value, for code that serves both.
//!
//! # What is out of scope
//! The text is in memory while the key lives: whoever may read this process's memory may read the key.
//! Moving an `ApiKey` moves a pointer, not the text. What you make out of [`ApiKey::expose_secret`] is
//! yours to wipe. What other libraries and the operating system keep is listed in SECURITY.md.
//!
//! ```
//! use keysheath::key::{ApiKey, Kanal};
//!
//! let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
//! assert!(key.matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
//! assert_eq!(format!("{key:?}"), "ApiKey(kanal, urdz-nrsd-3rmw-jtz2)");
//! # Ok::<(), keysheath::key::FormatError>(())
//! ```

use std::fmt;
use std::marker::PhantomData;

use secrecy::{ExposeSecret, SecretBox};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::key::{Fingerprint, FormatError, Issuer, MIN_ENTROPY_BITS, Profile};

/// A well-formed key of issuer `I`.
///
/// It has no `Display`, `Clone`, `Hash`, `Serialize` or `Deref`: each of them would copy or print the
/// text unasked. [`ApiKey::clone_key`] and [`ApiKey::expose_secret`] do so by name.
///
/// ```
/// use keysheath::key::{ApiKey, Katana};
///
/// let key = ApiKey::<Katana>::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")?;
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
    storage: Storage,
    profile: &'static Profile,
}

/// Where the bytes are. Private, so that another kind of memory changes nothing outside.
enum Storage {
    Heap(SecretBox<[u8]>),
}

/// A key was asked for as one of another issuer. The key comes back unharmed.
///
/// ```
/// use keysheath::key::{Issuer, Kanal, Katana, RawKey};
///
/// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
/// let mismatch = key.try_into_typed::<Katana>().unwrap_err();
/// assert_eq!(mismatch.to_string(), "this is a key of kanal, and one of katana is wanted");
/// assert!(mismatch.into_key().try_into_typed::<Kanal>().is_ok());
/// # Ok::<(), keysheath::key::FormatError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{}", self.words())]
pub struct IssuerMismatch {
    key: RawKey,
    wanted: &'static Profile,
}

impl<I: Issuer> ApiKey<I> {
    /// Checks a text and copies it into memory that is wiped when the key is dropped.
    ///
    /// The text itself is left alone: prefer [`ApiKey::take`] where you own it. A text that looks like a placeholder is
    /// accepted where it is well-formed: loading a [`Source`](crate::source::Source) refuses it, and
    /// [`KeyFormat::screen`](crate::key::KeyFormat::screen) does so for a text of your own.
    ///
    /// # Errors
    /// [`FormatError`] when the text breaks the issuer's format; nothing is trimmed.
    ///
    /// ```
    /// use keysheath::key::{ApiKey, Kanal};
    /// assert!(ApiKey::<Kanal>::parse("too short").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// As [`ApiKey::parse`], for bytes that may not be text.
    ///
    /// # Errors
    /// As [`ApiKey::parse`].
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// assert!(ApiKey::<Kanal>::parse_bytes(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1\xff").is_err());
    /// ```
    pub fn parse_bytes(text: &[u8]) -> Result<Self, FormatError> {
        Ok(Self::from_raw(RawKey::parse(I::PROFILE, text)?))
    }

    /// As [`ApiKey::parse`], and wipes the given text, its spare capacity included, whether it was a key or
    /// not.
    ///
    /// # Errors
    /// As [`ApiKey::parse`].
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let typed_in = String::from("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z");
    /// let key = ApiKey::<Kanal>::take(typed_in)?;
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    pub fn take(text: String) -> Result<Self, FormatError> {
        let text = Zeroizing::new(text);
        Self::parse(&text)
    }

    /// The key's text. This is the only way to read it, so that every use can be found by its name.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert!(key.expose_secret().starts_with("8fK2"));
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.raw.expose_secret()
    }

    /// Whether untrusted bytes of any length are this key. For bytes of the key's length, the time does not
    /// depend on them.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert!(!key.matches(b""));
    /// assert!(!key.matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1z"));
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.raw.matches(candidate)
    }

    /// A second copy of the key in memory of its own.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert!(key.clone_key() == key);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn clone_key(&self) -> Self {
        Self::from_raw(self.raw.clone_key())
    }

    /// The key's one-way name; `None` where the issuer's keys could be guessed from it.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// println!("using key {}", key.fingerprint().unwrap());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.raw.fingerprint()
    }

    /// The same key with its issuer as a value.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let raw = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?.into_raw();
    /// assert_eq!(raw.profile().name(), "kanal");
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn into_raw(self) -> RawKey {
        self.raw
    }

    /// A view of the same key with its issuer as a value.
    ///
    /// ```
    /// # use keysheath::key::{ApiKey, Kanal};
    /// let key = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert_eq!(key.as_raw().profile().name(), "kanal");
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub const fn as_raw(&self) -> &RawKey {
        &self.raw
    }

    const fn from_raw(raw: RawKey) -> Self {
        Self { raw, issuer: PhantomData }
    }
}

impl RawKey {
    /// As [`ApiKey::parse_bytes`], for the issuer of `profile`.
    ///
    /// # Errors
    /// [`FormatError`] when the text breaks the issuer's format.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// assert!(RawKey::parse(Kanal::PROFILE, b"").is_err());
    /// ```
    #[inline]
    pub fn parse(profile: &'static Profile, text: &[u8]) -> Result<Self, FormatError> {
        profile.format().check(text)?;
        Ok(Self { storage: Storage::copy_of(text), profile })
    }

    /// The issuer's profile.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert_eq!(key.profile(), Kanal::PROFILE);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// As [`ApiKey::expose_secret`].
    ///
    /// # Panics
    /// Never: every format admits ASCII only.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert_eq!(key.expose_secret().len(), 24);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        match std::str::from_utf8(self.bytes()) {
            Ok(text) => text,
            Err(_) => unreachable!("a key passed its format, which is ASCII"),
        }
    }

    /// As [`ApiKey::matches`].
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert!(key.matches(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"));
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        equal(self.bytes(), candidate)
    }

    /// As [`ApiKey::clone_key`].
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert_eq!(key.clone_key(), key);
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn clone_key(&self) -> Self {
        Self { storage: Storage::copy_of(self.bytes()), profile: self.profile }
    }

    /// As [`ApiKey::fingerprint`].
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert!(key.fingerprint().is_some());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let strong = self.profile.entropy_bits() >= MIN_ENTROPY_BITS;
        strong.then(|| Fingerprint::of(self.profile.name(), self.bytes()))
    }

    /// As [`RawKey::parse`], for a text from a place where a key is kept: what looks like a placeholder is refused.
    pub(crate) fn load(profile: &'static Profile, text: &[u8]) -> Result<Self, FormatError> {
        // A key of few bits may look so by chance.
        if profile.entropy_bits() >= MIN_ENTROPY_BITS {
            profile.format().screen(text)?;
        }
        Self::parse(profile, text)
    }

    /// The same key with its issuer in its type.
    ///
    /// # Errors
    /// [`IssuerMismatch`], with the key in it, when the key is another issuer's, or of a
    /// [widened](Profile::widened) format and longer or shorter than `I` allows.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// assert!(key.try_into_typed::<Kanal>().is_ok());
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    pub fn try_into_typed<I: Issuer>(self) -> Result<ApiKey<I>, IssuerMismatch> {
        self.of_issuer(I::PROFILE).map(ApiKey::from_raw)
    }

    /// The same key under `profile`, where it is a key of that issuer and format.
    pub(crate) fn of_issuer(mut self, profile: &'static Profile) -> Result<Self, IssuerMismatch> {
        if self.is_of(profile) {
            self.profile = profile;
            Ok(self)
        } else {
            Err(IssuerMismatch { key: self, wanted: profile })
        }
    }

    /// Whether this is a key of the issuer and format of `profile`.
    pub(crate) fn is_of(&self, profile: &Profile) -> bool {
        self.profile.is_same_issuer(profile) && profile.format().accepts(self.bytes())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Heap(bytes) => bytes.expose_secret(),
        }
    }
}

impl IssuerMismatch {
    /// Gives the key back.
    ///
    /// ```
    /// # use keysheath::key::{Issuer, Kanal, Katana, RawKey};
    /// let key = RawKey::parse(Kanal::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    /// let key = key.try_into_typed::<Katana>().unwrap_err().into_key();
    /// assert_eq!(key.profile().name(), "kanal");
    /// # Ok::<(), keysheath::key::FormatError>(())
    /// ```
    #[must_use]
    pub fn into_key(self) -> RawKey {
        self.key
    }

    fn words(&self) -> String {
        let (found, wanted) = (self.key.profile, self.wanted);
        if found.is_same_issuer(wanted) {
            format!(
                "this key of {} has a length that the format wanted here does not allow: widen that format as well",
                found.name()
            )
        } else {
            format!("this is a key of {}, and one of {} is wanted", found.name(), wanted.name())
        }
    }
}

impl Storage {
    #[inline]
    fn copy_of(text: &[u8]) -> Self {
        // `Box::from` makes one block of the exact size, so nothing is left behind by growing or shrinking.
        Self::Heap(SecretBox::new(Box::from(text)))
    }
}

/// Equality by machine words folded into one verdict; only the lengths decide anything early.
#[inline]
fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let (left_words, left_tail) = left.as_chunks::<8>();
    let (right_words, right_tail) = right.as_chunks::<8>();
    let mut difference = 0;
    for (left, right) in left_words.iter().zip(right_words) {
        difference |= u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
    }
    for (left, right) in left_tail.iter().zip(right_tail) {
        difference |= u64::from(left ^ right);
    }
    difference.ct_eq(&0).into()
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
