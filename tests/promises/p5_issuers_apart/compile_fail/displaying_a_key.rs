use keysheath::key::{ApiKey, Kanal};

fn show(key: &ApiKey<Kanal>) -> String {
    format!("{key}")
}

fn main() {}
