use keysheath::key::{ApiKey, Kanal};

fn length(key: &ApiKey<Kanal>) -> usize {
    key.expose_secret().len()
}

fn main() {}
