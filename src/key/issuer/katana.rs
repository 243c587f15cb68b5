//! Katana: a manufacturing ERP.

use super::{Issuer, Profile};
use crate::failure::KATANA;
use crate::key::{KeyFormat, Origin};

/// Katana. A key is sent to `https://api.katanamrp.com`.
///
/// Documented: origin, where keys are made, both error shapes. Not documented: the format. Keys that people
/// show in public have the shape of a random UUID, which has 122 bits of entropy; the key is taken as
/// opaque, 16 to 512 `b64token` characters. `KATANA_API_KEY` is what users call the variable.
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
