use keysheath::issuer::{Kanal, Katana};
use keysheath::key::ApiKey;

fn same(left: &ApiKey<Kanal>, right: &ApiKey<Katana>) -> bool {
    left == right
}

fn main() {}
