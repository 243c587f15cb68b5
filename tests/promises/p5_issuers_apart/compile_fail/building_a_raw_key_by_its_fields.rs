use keysheath::key::{FormatError, Issuer, Kanal, RawKey};

fn build(text: &[u8]) -> Result<RawKey, FormatError> {
    Ok(RawKey { bytes: Box::<[u8]>::from(text).into(), profile: Kanal::PROFILE })
}

fn main() {}
