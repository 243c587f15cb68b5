use keysheath::key::{ApiKey, Kanal, Katana};

fn same(left: &ApiKey<Katana>, right: &ApiKey<Katana>) -> bool {
    left == right
}

fn main() {}
