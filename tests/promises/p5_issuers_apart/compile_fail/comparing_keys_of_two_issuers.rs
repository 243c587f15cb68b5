use keysheath::key::{ApiKey, Kanal, Katana};

fn same(left: &ApiKey<Kanal>, right: &ApiKey<Katana>) -> bool {
    left == right
}

fn main() {}
