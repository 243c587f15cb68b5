use keysheath::format::FormatError;
use keysheath::issuer::{Issuer, Kanal};
use keysheath::key::RawKey;

fn build(text: &[u8]) -> Result<RawKey, FormatError> {
    Ok(RawKey { storage: text.into(), profile: Kanal::PROFILE })
}

fn main() {}
