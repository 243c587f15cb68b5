use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;

fn copy(key: &ApiKey<Kanal>) -> ApiKey<Kanal> {
    key.clone()
}

fn main() {}
