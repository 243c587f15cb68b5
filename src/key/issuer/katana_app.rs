//! Katana, as an app that acts for its users sees it.

use super::{Issuer, Profile};
use crate::failure::KATANA;
use crate::key::{KeyFormat, Origin};

/// Katana, for an app that others have let in: what it sends is an access token of OAuth 2.0, and not a key that a person
/// has made. It is an issuer of its own, so that a token cannot be passed where a [`Katana`](super::Katana) key is wanted, nor
/// the other way round. A token is sent to `https://api.katanamrp.com`, and refused as a key is.
///
/// The format of a token is not documented: 16 to 4,096 `b64token` characters, which is what its header can carry
/// (RFC 6750). The chance of guessing one must be at most 2^-128 (RFC 6749, section 10.10), so its entropy is 128 bits.
/// Nothing documents a variable; `KATANA_ACCESS_TOKEN` is this crate's name for one.
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
