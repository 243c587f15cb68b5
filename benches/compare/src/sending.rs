//! A request with its `Authorization` header.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use keysheath::client::{BearerHeader, BearerLayer, OriginGuard};
use keysheath::handle::KeyHandle;
use tower::{Layer, Service, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use tower_http::set_header::SetRequestHeaderLayer;

use super::{KEY, answer, kanal, row};

const ADDRESS: &str = "https://api.getkanal.com/api/v1/stores/123/orders?page=2";

pub(super) fn rows() {
    header();
    layers();
    reqwest_requests();
}

fn header() {
    let header = BearerHeader::new(&kanal());
    let ours = || drop(black_box(black_box(&header).value()));
    let theirs = || {
        let text = format!("Bearer {}", black_box(KEY));
        drop(black_box(HeaderValue::from_str(&text)));
    };
    let peer = "`format!(\"Bearer …\")`, `HeaderValue::from_str`, drop";
    row("`BearerHeader::value`, drop", ours, peer, theirs);
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Drops the request and answers 200, with a short body.
#[inline(never)]
fn client(request: Request<()>) -> std::future::Ready<Answer> {
    drop(black_box(request));
    ready(Ok(Response::new(Full::new(Bytes::from_static(b"{}")))))
}

/// A whole call, over a client that does nothing. Both copy the request, which the call takes.
fn layers() {
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_static(ADDRESS);
    let layer = BearerLayer::new(KeyHandle::fixed(kanal()), OriginGuard::new());
    let layered = RefCell::new(layer.layer(service_fn(client)));
    let ours = || answer(layered.borrow_mut().call(black_box(&request).clone())).is_ok();
    let what = "a call through `BearerLayer`: the origin checked, the answer classified";

    let mut value = HeaderValue::from_str(&format!("Bearer {KEY}")).expect("a header's value");
    value.set_sensitive(true);
    let set = SetRequestHeaderLayer::overriding(AUTHORIZATION, value);
    let set = RefCell::new(set.layer(service_fn(client)));
    let theirs = || answer(set.borrow_mut().call(black_box(&request).clone())).is_ok();
    row(what, ours, "tower-http's `SetRequestHeaderLayer`: neither", theirs);

    let bearer = RefCell::new(AddAuthorizationLayer::bearer(KEY).layer(service_fn(client)));
    let theirs = || answer(bearer.borrow_mut().call(black_box(&request).clone())).is_ok();
    row(what, ours, "tower-http's `AddAuthorizationLayer::bearer`: neither", theirs);

    let nothing = RefCell::new(service_fn(client));
    let theirs = || answer(nothing.borrow_mut().call(black_box(&request).clone())).is_ok();
    row(what, ours, "the same call without any header", theirs);
}

/// A request as reqwest's builder makes it, without sending it.
fn reqwest_requests() {
    let client = reqwest::Client::new();
    let header = BearerHeader::new(&kanal());
    let ours = || {
        let mut request = black_box(&client).get(ADDRESS).build().expect("an address");
        request.headers_mut().insert(AUTHORIZATION, black_box(&header).value());
        request.headers().len()
    };
    let theirs = || {
        let request = black_box(&client).get(ADDRESS).bearer_auth(black_box(KEY)).build();
        request.expect("an address").headers().len()
    };
    row("a request of reqwest, `BearerHeader::value` inserted", ours, "reqwest's `bearer_auth`", theirs);
}
