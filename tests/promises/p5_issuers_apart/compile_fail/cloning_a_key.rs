use keysheath::key::{ApiKey, Kanal};

fn copy(key: &ApiKey<Kanal>) -> ApiKey<Kanal> {
    key.clone()
}

fn main() {}
