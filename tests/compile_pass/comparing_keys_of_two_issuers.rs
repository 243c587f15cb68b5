use keysheath::issuer::{Kanal, Katana};
use keysheath::key::ApiKey;

fn same(left: &ApiKey<Katana>, right: &ApiKey<Katana>) -> bool {
    left == right
}

fn main() {}
