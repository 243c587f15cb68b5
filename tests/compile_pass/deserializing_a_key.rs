use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;
use keysheath::keyref::KeyRef;

fn deserialize<'de, T: serde::Deserialize<'de>>(_: fn(T)) {}

fn both(key: fn(ApiKey<Kanal>), reference: fn(KeyRef)) {
    deserialize(reference);
}

fn main() {}
