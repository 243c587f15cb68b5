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

mod known;

use std::fmt;

#[cfg(feature = "client")]
use crate::failure::{self, Answer};
use crate::failure::{PLAIN, Row};
use crate::key::{KeyFormat, Origin};

pub(crate) use known::KNOWN;
#[cfg(feature = "oauth")]
pub use known::KatanaApp;
pub use known::{Kanal, Katana, StoreId, StoreIdError};

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
        assert!(is_name(name.as_bytes()), "not a name: lower-case letters, digits, hyphens");
        assert!(is_variable(variable.as_bytes()), "not a variable: A to Z, digits, underscores");
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

    /// The same issuer with a wider format, for keys that this crate does not know yet.
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

    /// Whether both are of one issuer, by name and origin. Their formats may differ.
    #[must_use]
    pub fn is_same_issuer(&self, other: &Self) -> bool {
        self.name == other.name && self.origin == other.origin
    }

    /// The name in fingerprints, keychains and documents.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The name in messages.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// The environment variable that holds a key; with `_FILE` appended, the path of a file that holds one.
    #[must_use]
    pub const fn variable(&self) -> &'static str {
        self.variable
    }

    /// The origin that keys are sent to unless another is set.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The format of a key.
    #[must_use]
    pub const fn format(&self) -> &KeyFormat {
        &self.format
    }

    /// The least entropy of a key, in bits.
    #[must_use]
    pub const fn entropy_bits(&self) -> u16 {
        self.entropy_bits
    }

    /// The page where a person creates and deletes keys.
    #[must_use]
    pub const fn key_page(&self) -> &'static str {
        self.key_page
    }

    /// The responses that the issuer documents.
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
    pub fn classify(&self, status: u16, retry_after: Option<&[u8]>, body: &[u8]) -> Answer {
        failure::classify(self.failures, status, retry_after, body)
    }
}

impl fmt::Debug for Profile {
    /// Prints the name alone: every error about an issuer holds its profile.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Profile({})", self.name)
    }
}

const fn is_name(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        if !matches!(name[at], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        at += 1;
    }
    !name.is_empty() && name.len() <= 32
}

const fn is_variable(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        if !matches!(name[at], b'A'..=b'Z' | b'0'..=b'9' | b'_') {
            return false;
        }
        at += 1;
    }
    !name.is_empty() && !name[0].is_ascii_digit()
}
