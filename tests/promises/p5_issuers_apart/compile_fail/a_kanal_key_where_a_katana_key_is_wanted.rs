use keysheath::key::{ApiKey, Kanal, Katana};

fn send(_: &ApiKey<Katana>) {}

fn wrong(key: &ApiKey<Kanal>) {
    send(key);
}

fn main() {}
