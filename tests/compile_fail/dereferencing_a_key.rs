use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;

fn text(key: &ApiKey<Kanal>) -> &str {
    key
}

fn main() {}
