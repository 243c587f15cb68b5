use keysheath::key::{ApiKey, Kanal};

fn text(key: &ApiKey<Kanal>) -> &str {
    key
}

fn main() {}
