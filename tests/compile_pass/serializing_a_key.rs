use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;
use keysheath::keyref::KeyRef;

fn serialize(value: &impl serde::Serialize) {
    let _ = value;
}

fn both(key: &ApiKey<Kanal>, reference: &KeyRef) {
    serialize(reference);
}

fn main() {}
