//! The issuers that this crate knows: Kanal, a messaging and store platform, and Katana, a manufacturing ERP.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use super::{Issuer, Profile};
use crate::failure::{KANAL, KATANA};
use crate::key::{KeyFormat, Origin};

/// All of them.
pub(crate) const KNOWN: &[&Profile] = &[
    Kanal::PROFILE,
    Katana::PROFILE,
    #[cfg(feature = "oauth")]
    KatanaApp::PROFILE,
];

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

/// Katana, for an app that users have authorised: it sends an access token of OAuth 2.0 and not a key that a
/// person created. It is an issuer of its own, so that a token cannot be passed where a [`Katana`] key is
/// expected, nor a key where a token is. A token is sent to `https://api.katanamrp.com`, and is refused as a
/// key is.
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
#[cfg(feature = "oauth")]
#[derive(Clone, Copy, Debug)]
pub enum KatanaApp {}

#[cfg(feature = "oauth")]
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
/// # Ok::<(), keysheath::key::StoreIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(NonZeroU64);

/// A text or the environment has no store id. The error never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreIdError {
    /// `KANAL_STORE_ID` is not set, or empty.
    #[error("KANAL_STORE_ID is not set: ask your contact at Kanal for your store's number")]
    Missing,
    /// The text is not a number of decimal digits without a leading zero.
    #[error("a store id is a positive number such as 123, without sign, spaces or leading zeros")]
    NotPositive,
    /// The number does not fit in 64 bits.
    #[error("the store id is too large: it has at most 20 digits")]
    TooLarge,
}

impl StoreId {
    /// The variable that holds a store id by convention.
    pub const VARIABLE: &'static str = "KANAL_STORE_ID";

    /// The store with this number; `None` for 0.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Reads `KANAL_STORE_ID`.
    ///
    /// # Errors
    /// [`StoreIdError::Missing`] if it is not set or empty, the others if it is not a positive number.
    pub fn from_env() -> Result<Self, StoreIdError> {
        match std::env::var_os(Self::VARIABLE) {
            None => Err(StoreIdError::Missing),
            Some(text) if text.is_empty() => Err(StoreIdError::Missing),
            Some(text) => text.to_str().ok_or(StoreIdError::NotPositive)?.parse(),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for StoreId {
    type Err = StoreIdError;

    fn from_str(text: &str) -> Result<Self, StoreIdError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || text.is_empty() || text.starts_with('0') {
            return Err(StoreIdError::NotPositive);
        }
        let number = text.parse().map_err(|_| StoreIdError::TooLarge)?;
        Self::new(number).ok_or(StoreIdError::NotPositive)
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
            assert_eq!(text.parse::<StoreId>(), Err(StoreIdError::NotPositive), "{text}");
        }
        assert_eq!("99999999999999999999".parse::<StoreId>(), Err(StoreIdError::TooLarge));
        assert_eq!("18446744073709551615".parse::<StoreId>().unwrap().get(), u64::MAX);
    }
}
