use keysheath::key::{ApiKey, IssuerMismatch, Kanal, RawKey};

fn build(raw: RawKey) -> Result<ApiKey<Kanal>, IssuerMismatch> {
    raw.try_into_typed()
}

fn main() {}
