//! The services that issue keys and accept them: [`Kanal`], [`Katana`], or one of your own.
//!
//! An issuer is a type without values; its [`Profile`] holds what is known of it. A service of your own takes
//! ten lines:
//!
//! ```
//! use keysheath::key::{ApiKey, Issuer, KeyFormat, Origin, Profile};
//!
//! struct Acme;
//!
//! impl Issuer for Acme {
//!     const PROFILE: &'static Profile = &Profile::new(
//!         "acme",                           // its name, in fingerprints and keychains
//!         "ACME_API_KEY",                   // the environment variable
//!         Origin::https("api.acme.example"),
//!         KeyFormat::between(20, 64),
//!         128,                              // bits of entropy in a key
//!     );
//! }
//!
//! assert!(ApiKey::<Acme>::parse("acme-9mWq4Ld7Vb3Nc6Ts1Z").is_ok());
//! ```
//!
//! # When an issuer changes its keys
//! This crate knows what an issuer documents about its keys today. If the issuer starts to issue longer keys,
//! they are refused until this crate knows about them. A program need not wait for that: it widens the
//! format, and uses the new type in place of the old one:
//!
//! ```
//! use keysheath::key::{ApiKey, Issuer, Kanal, KeyFormat, Profile};
//!
//! /// Kanal, with keys of 24 to 64 characters.
//! enum LongKanal {}
//!
//! impl Issuer for LongKanal {
//!     const PROFILE: &'static Profile = &Kanal::PROFILE.widened(KeyFormat::between(24, 64));
//! }
//!
//! assert!(ApiKey::<LongKanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z8fK2pX9m").is_ok());
//! ```
//!
//! It is the same issuer: name, origin, variable, fingerprints, documents and probes are shared.
//! [`Profile::widened`] lists the risks.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::failure::{KANAL, KATANA, PLAIN, Row};
use crate::key::{KeyFormat, Origin, ParseError};

/// A type that represents an issuer, so that the compiler keeps keys of different issuers apart.
///
/// ```
/// use keysheath::key::{Issuer, Kanal};
/// assert_eq!(Kanal::PROFILE.variable(), "KANAL_API_KEY");
/// ```
pub trait Issuer: Send + Sync + 'static {
    /// The issuer's profile.
    const PROFILE: &'static Profile;
}

/// What is known about an issuer: its name, variable, origin, the format and entropy of its keys, and the
/// meaning of its responses.
///
/// ```
/// use keysheath::key::{KeyFormat, Origin, Profile};
///
/// const ACME: Profile = Profile::new(
///     "acme",
///     "ACME_API_KEY",
///     Origin::https("api.acme.example"),
///     KeyFormat::exactly(40),
///     160,
/// );
/// assert_eq!(ACME.origin().to_string(), "https://api.acme.example");
/// ```
#[derive(PartialEq, Eq)]
pub struct Profile {
    name: &'static str,
    title: &'static str,
    variable: &'static str,
    origin: Origin,
    format: KeyFormat,
    entropy_bits: u16,
    key_page: &'static str,
    failures: &'static [Row],
}

impl Profile {
    /// Creates the profile of an issuer.
    ///
    /// `name` is 1 to 32 lower-case letters, digits and hyphens. It is part of every fingerprint, so it must
    /// never change. `variable` is the environment variable that users know. `entropy_bits` is the least
    /// entropy of a key; below 80 bits no fingerprint is shown.
    ///
    /// # Panics
    /// If a name has another form; in a `const` that is a compile error.
    #[must_use]
    pub const fn new(
        name: &'static str,
        variable: &'static str,
        origin: Origin,
        format: KeyFormat,
        entropy_bits: u16,
    ) -> Self {
        let is_name = is_plain(name.as_bytes(), b'a', b'-') && name.len() <= 32;
        assert!(is_name, "not a name: lower-case letters, digits, hyphens");
        let is_variable =
            is_plain(variable.as_bytes(), b'A', b'_') && !variable.as_bytes()[0].is_ascii_digit();
        assert!(is_variable, "not a variable: A to Z, digits, underscores");
        Self {
            name,
            title: name,
            variable,
            origin,
            format,
            entropy_bits,
            key_page: "the page of the issuer where keys are created",
            failures: PLAIN,
        }
    }

    /// Sets the name for messages. The default is the name.
    #[must_use]
    pub const fn with_title(mut self, title: &'static str) -> Self {
        self.title = title;
        self
    }

    /// Sets the page where a person creates and deletes keys, for messages.
    #[must_use]
    pub const fn with_key_page(mut self, key_page: &'static str) -> Self {
        self.key_page = key_page;
        self
    }

    /// Sets the responses that the issuer documents, in place of [`PLAIN`]. Without any, only success is
    /// conclusive.
    #[must_use]
    pub const fn with_failures(mut self, failures: &'static [Row]) -> Self {
        self.failures = failures;
        self
    }

    /// Returns the same issuer with a wider format, for keys that this crate does not know yet.
    ///
    /// It applies wherever a key is read, because everything asks the profile: parsing, sources, chains, key
    /// sets, refreshers, probes and registries. A key of one profile is a key of the other if the other's
    /// format accepts it ([`RawKey::try_into_typed`](crate::key::RawKey::try_into_typed)).
    ///
    /// # Risk
    /// A wider format catches fewer mistakes: a truncated or doubled paste that the exact length would have
    /// refused is sent to the issuer, which refuses it. Programs that share a key set must widen it alike:
    /// one that does not cannot read a document with a longer key. If shorter keys are accepted, the entropy
    /// is reduced in proportion, and below 80 bits no fingerprint is shown.
    ///
    /// # Panics
    /// If `format` refuses a length that the issuer's own format accepts; in a `const` that is a compile
    /// error.
    #[must_use]
    pub const fn widened(&'static self, format: KeyFormat) -> Self {
        let (wide, own) = (format.lengths(), self.format.lengths());
        let ((min, max), (own_min, own_max)) = ((*wide.start(), *wide.end()), (*own.start(), *own.end()));
        assert!(min <= own_min && own_max <= max, "a widened format accepts what the issuer's own does");
        let mut entropy_bits = self.entropy_bits;
        if min < own_min {
            #[allow(clippy::cast_possible_truncation, reason = "it is less than before")]
            let fewer = (self.entropy_bits as u64 * min as u64 / own_min as u64) as u16;
            entropy_bits = fewer;
        }
        let (name, title, variable) = (self.name, self.title, self.variable);
        let (key_page, failures) = (self.key_page, self.failures);
        let origin = self.origin.borrowed();
        Self { name, title, variable, origin, format, entropy_bits, key_page, failures }
    }

    /// Returns whether both are of one issuer, by name and origin. Their formats may differ.
    #[must_use]
    pub fn is_same_issuer(&self, other: &Self) -> bool {
        self.name == other.name && self.origin == other.origin
    }

    /// Returns the name in fingerprints, keychains and documents.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the name in messages.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// Returns the environment variable that holds a key; with `_FILE` appended, the path of a file that
    /// holds one.
    #[must_use]
    pub const fn variable(&self) -> &'static str {
        self.variable
    }

    /// Returns the origin that keys are sent to unless another is set.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the format of a key.
    #[must_use]
    pub const fn format(&self) -> &KeyFormat {
        &self.format
    }

    /// Returns the least entropy of a key, in bits.
    #[must_use]
    pub const fn entropy_bits(&self) -> u16 {
        self.entropy_bits
    }

    /// Returns the page where a person creates and deletes keys.
    #[must_use]
    pub const fn key_page(&self) -> &'static str {
        self.key_page
    }

    /// Returns the responses that the issuer documents.
    #[must_use]
    pub const fn failures(&self) -> &'static [Row] {
        self.failures
    }

    /// Returns the meaning of a response of this issuer. A body over 64 KiB, or one that no row describes, is
    /// inconclusive.
    ///
    /// `retry_after` is the value of that header, if there is one.
    #[cfg(feature = "client")]
    #[must_use]
    #[inline]
    pub fn classify(&self, status: u16, retry_after: Option<&[u8]>, body: &[u8]) -> crate::failure::Answer {
        crate::failure::classify(self.failures, status, retry_after, body)
    }
}

impl fmt::Debug for Profile {
    /// Prints the name alone: every error about an issuer holds its profile.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Profile({})", self.name)
    }
}

/// Whether a text has only digits, letters from `first` on, and `sign`.
const fn is_plain(text: &[u8], first: u8, sign: u8) -> bool {
    let mut at = 0;
    while at < text.len() {
        let is_letter = text[at] >= first && text[at] < first + 26;
        if !(is_letter || text[at].is_ascii_digit() || text[at] == sign) {
            return false;
        }
        at += 1;
    }
    !text.is_empty()
}

/// The issuers that this crate knows.
pub(crate) const KNOWN: &[&Profile] = &[Kanal::PROFILE, Katana::PROFILE, KatanaApp::PROFILE];

/// Kanal. A key is a token of 24 characters without a prefix, sent to `https://api.getkanal.com`.
///
/// Documented: length, variable, origin and the failure table. Not documented: the alphabet (`b64token` is
/// accepted, see [`KeyFormat`](crate::key::KeyFormat)) and the entropy. The one documented example has
/// letters and digits, and 24 of those drawn at random have 142 bits.
#[derive(Clone, Copy, Debug)]
pub enum Kanal {}

impl Issuer for Kanal {
    const PROFILE: &'static Profile = &Profile::new(
        "kanal",
        "KANAL_API_KEY",
        Origin::https("api.getkanal.com"),
        KeyFormat::exactly(24),
        142,
    )
    .with_title("Kanal")
    .with_key_page("Settings → API Keys → Add API key")
    .with_failures(KANAL);
}

/// Katana. A key is sent to `https://api.katanamrp.com`.
///
/// Documented: origin, where keys are created, both forms of error. Not documented: the format. Keys seen in
/// public have the form of a random UUID, which has 122 bits of entropy. The key is treated as opaque: 16 to
/// 512 `b64token` characters. `KATANA_API_KEY` is the variable that users name.
#[derive(Clone, Copy, Debug)]
pub enum Katana {}

impl Issuer for Katana {
    const PROFILE: &'static Profile = &Profile::new(
        "katana",
        "KATANA_API_KEY",
        Origin::https("api.katanamrp.com"),
        KeyFormat::between(16, 512),
        122,
    )
    .with_title("Katana")
    .with_key_page("Settings → API → Add new API key")
    .with_failures(KATANA);
}

/// Katana, for an app that users have authorized: it sends an access token of OAuth 2.0 and not a key that a
/// person created. It is an issuer of its own, so that a token cannot be passed where a [`Katana`] key is
/// expected, nor a key where a token is. A token is sent to `https://api.katanamrp.com`, and is refused as a
/// key is. With the feature `oauth`, `OAuthApp` obtains and refreshes tokens.
///
/// The format of a token is not documented: 16 to 4,096 `b64token` characters are accepted, which is what its
/// header can carry (RFC 6750). The probability of guessing one must be at most 2^-128 (RFC 6749, section
/// 10.10), so its entropy is 128 bits. No variable is documented; `KATANA_ACCESS_TOKEN` is the name that this
/// crate uses.
///
/// ```
/// use keysheath::key::{ApiKey, Issuer, Katana, KatanaApp};
/// assert_eq!(KatanaApp::PROFILE.origin(), Katana::PROFILE.origin());
/// assert!(ApiKey::<KatanaApp>::parse("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2ln").is_ok());
/// ```
///
/// ```compile_fail,E0308
/// use keysheath::key::{ApiKey, Katana, KatanaApp};
/// fn send(_: ApiKey<Katana>) {}
/// send(ApiKey::<KatanaApp>::parse("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2ln").unwrap());
/// ```
#[derive(Clone, Copy, Debug)]
pub enum KatanaApp {}

impl Issuer for KatanaApp {
    const PROFILE: &'static Profile = &Profile::new(
        "katana-app",
        "KATANA_ACCESS_TOKEN",
        Origin::https("api.katanamrp.com"),
        KeyFormat::between(16, 4096),
        128,
    )
    .with_title("Katana (app)")
    .with_key_page("the app's sign-in")
    .with_failures(KATANA);
}

/// The number of a Kanal store, as in the path `/api/v1/stores/{store_id}/…`.
///
/// ```
/// use keysheath::key::StoreId;
///
/// let store: StoreId = "123".parse()?;
/// assert_eq!(format!("/api/v1/stores/{store}/customers"), "/api/v1/stores/123/customers");
/// # Ok::<(), keysheath::key::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(NonZeroU64);

impl StoreId {
    /// The variable that holds a store id by convention.
    pub const VARIABLE: &'static str = "KANAL_STORE_ID";

    /// Returns the store with this number; `None` for 0.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Reads `KANAL_STORE_ID`; `None` if it is not set or empty. Your contact at Kanal knows your store's
    /// number.
    ///
    /// # Errors
    /// [`ParseError`] if it is not a positive number.
    pub fn from_env() -> Result<Option<Self>, ParseError> {
        match std::env::var_os(Self::VARIABLE) {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.to_str().ok_or(ParseError::StoreId)?.parse().map(Some),
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for StoreId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || text.is_empty() || text.starts_with('0') {
            return Err(ParseError::StoreId);
        }
        let number = text.parse().map_err(|_| ParseError::StoreIdTooLarge)?;
        Self::new(number).ok_or(ParseError::StoreId)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_id_is_a_positive_number_and_nothing_else() {
        for text in ["", "0", "-1", "+1", "007", " 1", "1 ", "1.0", "0x1", "twelve", "١٢"] {
            assert_eq!(text.parse::<StoreId>(), Err(ParseError::StoreId), "{text}");
        }
        assert_eq!("99999999999999999999".parse::<StoreId>(), Err(ParseError::StoreIdTooLarge));
        assert_eq!("18446744073709551615".parse::<StoreId>().unwrap().get(), u64::MAX);
    }
}
