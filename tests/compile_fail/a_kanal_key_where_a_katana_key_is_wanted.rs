use keysheath::issuer::{Kanal, Katana};
use keysheath::key::ApiKey;

fn send(_: &ApiKey<Katana>) {}

fn wrong(key: &ApiKey<Kanal>) {
    send(key);
}

fn main() {}
