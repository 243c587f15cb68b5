use keysheath::issuer::Kanal;
use keysheath::key::{ApiKey, IssuerMismatch, RawKey};

fn build(raw: RawKey) -> Result<ApiKey<Kanal>, IssuerMismatch> {
    Ok(ApiKey { raw, issuer: std::marker::PhantomData })
}

fn main() {}
