use keysheath::key::{ApiKey, Kanal};

fn length(key: &ApiKey<Kanal>) -> usize {
    key.len()
}

fn main() {}
