use keysheath::key::{ApiKey, IssuerMismatch, Kanal, RawKey};

fn build(raw: RawKey) -> Result<ApiKey<Kanal>, IssuerMismatch> {
    Ok(ApiKey { raw, issuer: std::marker::PhantomData })
}

fn main() {}
