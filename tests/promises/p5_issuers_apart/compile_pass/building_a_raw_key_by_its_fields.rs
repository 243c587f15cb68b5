use keysheath::key::{FormatError, Issuer, Kanal, RawKey};

fn build(text: &[u8]) -> Result<RawKey, FormatError> {
    RawKey::parse(Kanal::PROFILE, text)
}

fn main() {}
