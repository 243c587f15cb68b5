use keysheath::key::{FormatError, Issuer, Kanal, RawKey};

fn build(text: &[u8]) -> Result<RawKey, FormatError> {
    Ok(RawKey { storage: text.into(), profile: Kanal::PROFILE })
}

fn main() {}
