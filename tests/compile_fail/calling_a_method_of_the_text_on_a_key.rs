use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;

fn length(key: &ApiKey<Kanal>) -> usize {
    key.len()
}

fn main() {}
