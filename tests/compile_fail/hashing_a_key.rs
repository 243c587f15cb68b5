use std::hash::{DefaultHasher, Hash};

use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;

fn hash(key: &ApiKey<Kanal>, hasher: &mut DefaultHasher) {
    hash_it(key, hasher);
}

fn hash_it(value: &impl Hash, hasher: &mut DefaultHasher) {
    value.hash(hasher);
}

fn main() {}
