use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;

fn show(key: &ApiKey<Kanal>) -> String {
    format!("{key}")
}

fn main() {}
