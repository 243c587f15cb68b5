//! Beside the limit: what no way of doing it could go below.

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use keysheath::client::BearerHeader;
use keysheath::handle::KeyHandle;
use keysheath::key::ApiKey;
use prefixed_api_key::sha2::{Digest as _, Sha256};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::{KEY, Kanal, kanal, row};

pub(super) fn rows() {
    equality();
    parsing();
    shared();
}

fn equality() {
    let (left, right) = (kanal(), kanal());
    let what = "`ApiKey == ApiKey`";
    let ours = || black_box(&left) == black_box(&right);
    let array: [u8; 24] = *KEY.as_bytes().first_chunk().expect("24 bytes");
    let (a, b) = (array, array);
    row(what, ours, "limit: `==` of `[u8; 24]`", || black_box(&a) == black_box(&b));
    let (a, b) = (SecretString::from(KEY), SecretString::from(KEY));
    let exposed = || black_box(&a).expose_secret() == black_box(&b).expose_secret();
    row(what, ours, "`secrecy`: `==` of what is exposed, not in constant time", exposed);
    let constant = || {
        let (a, b) = (black_box(&a).expose_secret(), black_box(&b).expose_secret());
        bool::from(a.as_bytes().ct_eq(b.as_bytes()))
    };
    row(what, ours, "`secrecy` and `subtle`: `ct_eq` of what is exposed", constant);
}

fn parsing() {
    let what = "`ApiKey::parse`, drop";
    let ours = || drop(black_box(ApiKey::<Kanal>::parse(black_box(KEY))));
    let block = || drop(black_box(Box::<[u8]>::from(black_box(KEY.as_bytes()))));
    row(what, ours, "limit: an allocation of 24 bytes, filled and freed", block);
    let secret = || drop(black_box(SecretString::from(black_box(KEY))));
    row(what, ours, "`SecretString::from`, drop: no format", secret);
    let key = kanal();
    let printed = || black_box(&key).fingerprint();
    let hash = || Sha256::digest(black_box(KEY.as_bytes()));
    row("`ApiKey::fingerprint`", printed, "limit: SHA-256 of 24 bytes", hash);
}

fn shared() {
    let header = BearerHeader::new(&kanal());
    let value = || drop(black_box(black_box(&header).value()));
    let shared = Arc::new(KEY);
    let arc = || drop(black_box(Arc::clone(black_box(&shared))));
    row("`BearerHeader::value`, drop", value, "limit: `Arc::clone`, drop", arc);
    let handle = KeyHandle::fixed(kanal());
    let load = || drop(black_box(black_box(&handle).load()));
    let swap = ArcSwap::from_pointee(kanal());
    let swapped = || drop(black_box(black_box(&swap).load()));
    row("`KeyHandle::load`, drop", load, "limit: `ArcSwap::load`, drop", swapped);
}
