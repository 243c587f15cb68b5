//! One request and its answer: whose it is, which fault it meets, and what is written down.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tower_service::Service as _;

use super::MAX_BODY;
use super::answer;
use super::fault::{Asked, Fault};
use super::journal::{JournalEntry, shown_method, shown_path};
use super::katana_api;
use super::shop::{Api, Sender, Shop, Turn};
use super::wire::{Fate, truncated};
use crate::failure::Meaning;
use crate::registry::{Authorize as _, Refusal, RequestedStore};

/// No answer of the emulator's own is longer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Answers a request, unless a fault has it end otherwise.
pub(super) async fn exchange(
    shop: Arc<Shop>,
    router: Router,
    fate: Fate,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let mut note = Note::of(&shop, &request);
    if note.turn == Turn::Refused {
        // From here on it has a key that is not known.
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer"));
    }
    let path = request.uri().path();
    let asked = Asked { key: note.sender.map(|sender| sender.key), store: note.entry.store, path };
    let met = shop.faults.lock().meet(&asked);
    let fault = met.map(|(id, fault)| {
        note.entry.fault = Some(id);
        fault
    });
    let response = match fault {
        Some(Fault::Reset) => {
            // A client that is still writing would see a broken pipe in place of the reset.
            answer::skip(request.into_body(), MAX_BODY, shop.read_timeout).await;
            match fate.reset().await {}
        }
        Some(Fault::Status { status, retry_after, body }) => faulty(&shop, status, retry_after, body),
        Some(Fault::Latency(time)) => {
            tokio::time::sleep(time).await;
            route(&shop, router, request).await
        }
        // An answer to HEAD has no body to cut.
        Some(Fault::TruncatedBody) if request.method() != Method::HEAD => {
            truncate(route(&shop, router, request).await, fate).await
        }
        Some(Fault::TruncatedBody) | None => route(&shop, router, request).await,
    };
    note.entry.status = Some(response.status().as_u16());
    response
}

/// Which store a path of Kanal's is for: its number follows the first segment `stores`. Where nothing stands there the
/// request names no store, which Kanal documents an answer for, whatever the key is restricted to.
pub(super) fn wanted(path: &str) -> RequestedStore {
    let mut segments = path.split('/');
    match segments.find(|segment| *segment == "stores").and(segments.next()) {
        None | Some("") => RequestedStore::NoStoreForAnyKey,
        Some(segment) => RequestedStore::from_segment(segment),
    }
}

async fn route(shop: &Shop, mut router: Router, request: Request<Incoming>) -> Response<Body> {
    let response = match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    katana_api::in_shape(shop, response)
}

fn faulty(shop: &Shop, status: u16, retry_after: Option<u32>, body: Option<String>) -> Response<Body> {
    let body = body.unwrap_or_else(|| match (status, shop.api) {
        (429, Api::Kanal) => Refusal::new(shop.registry.profile(), Meaning::RateLimited).body(),
        (429, Api::Katana { .. }) => katana_api::documented(shop, Meaning::RateLimited),
        _ => String::new(),
    });
    let media_type = match body.as_bytes().first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "text/html",
        _ => "text/plain",
    };
    // A rule's status was checked when it was added.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer::text(status, media_type, body);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn truncate(response: Response<Body>, fate: Fate) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, MAX_ANSWER).await.unwrap_or_default();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, truncated(&whole, fate))
}

/// Written down when it is dropped, so that a request whose client has gone away is too.
struct Note {
    shop: Arc<Shop>,
    entry: JournalEntry,
    sender: Option<Sender>,
    turn: Turn,
}

impl Note {
    fn of(shop: &Arc<Shop>, request: &Request<Incoming>) -> Self {
        let path = request.uri().path();
        let wanted = wanted(path);
        let sender = shop.sender(request.headers());
        let turn = sender.map_or(Turn::Free, |sender| shop.count(sender.key));
        // A key that has had its requests is not known any more.
        let sender = sender.filter(|_| turn != Turn::Refused);
        let entry = JournalEntry {
            number: 0,
            time: SystemTime::UNIX_EPOCH,
            method: shown_method(request.method()),
            path: shown_path(path),
            store: wanted.store(),
            key: sender.and_then(|sender| sender.fingerprint),
            status: None,
            fault: None,
        };
        Self { shop: Arc::clone(shop), entry, sender, turn }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.entry.time = self.shop.now();
        self.shop.journal.lock().write(self.entry.clone());
        if let (Turn::Counted, Some(sender)) = (self.turn, self.sender) {
            self.shop.answered(sender.key);
        }
    }
}
