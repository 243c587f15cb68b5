use keysheath::client::{BearerHeader, OriginGuard};
use keysheath::key::{Kanal, Katana};

fn authorize(guard: &OriginGuard<Katana>, header: &BearerHeader<Kanal>, request: &mut http::Request<()>) {
    guard.authorize(request, header).unwrap();
}

fn main() {}
