//! What Kanal and Katana answer.
//!
//! Kanal documents the table of refusals, the shape of the 422, the order of the checks, and that any 2xx
//! means success. It does not document, and this module chose: 201 for a new customer and 200 for a known
//! one, the body of both, and the answers 408, 413 and 415. Reading orders is made up, so that there is
//! something to read.
//!
//! Katana documents `GET /v1/products`, both shapes of errors, and the rate limit with `Retry-After`. This
//! module chose: pages count from 1 and hold 50 products unless `limit` says otherwise, at most 250; the
//! fields of a product; and the texts of 404 and 422.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::records::{Allowance, Fields, Product, RATE_LIMIT};
use super::shop::{Api, Metered, Shop};
use crate::failure::{KATANA, Meaning, Row};
use crate::registry::{Authorize as _, Principal, Refusal, RequestedStore, RequireKeyLayer};

/// The largest body of a request, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// The products of a page, unless `limit` says otherwise, and at most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 250;

/// Returns the routes of the emulated service.
pub(super) fn router(shop: &Arc<Shop>) -> Router {
    match shop.api {
        Api::Kanal => kanal(shop),
        Api::Katana { .. } => katana(shop),
    }
}

/// The key and the store are examined first, then the rate limit, then the body, as documented.
fn kanal(shop: &Arc<Shop>) -> Router {
    let find_store = |request: &http::request::Parts| requested_store(request.uri.path());
    Router::new()
        .route("/api/v1/stores/{store_id}/customers", post(upsert))
        .route("/api/v1/stores/{store_id}/orders", get(orders))
        .route("/api/v1/stores//customers", post(no_store))
        .route("/api/v1/stores//orders", get(no_store))
        .route_layer(from_fn_with_state(Arc::clone(shop), limit_by_store))
        .route_layer(RequireKeyLayer::for_stores_by(Arc::clone(shop), find_store))
        .fallback(|| async { json(StatusCode::NOT_FOUND, &json!({ "message": "Not Found" })) })
        .with_state(Arc::clone(shop))
}

fn katana(shop: &Arc<Shop>) -> Router {
    let not_found = |State(shop): State<Arc<Shop>>| async move {
        katana_error(&shop, StatusCode::NOT_FOUND, "NotFoundError", "Not Found", None)
    };
    Router::new()
        .route("/v1/products", get(products))
        .route_layer(from_fn_with_state(Arc::clone(shop), limit_by_key))
        .route_layer(RequireKeyLayer::new(Arc::clone(shop)))
        .fallback(not_found)
        .with_state(Arc::clone(shop))
}

/// Returns the store that a path of Kanal's names: the segment after the first `stores`. An empty one names
/// no store, for which Kanal documents an answer to any key.
pub(super) fn requested_store(path: &str) -> RequestedStore {
    let mut segments = path.split('/');
    match segments.find(|segment| *segment == "stores").and(segments.next()) {
        None | Some("") => RequestedStore::NoStoreForAnyKey,
        Some(segment) => RequestedStore::from_segment(segment),
    }
}

async fn upsert(
    State(shop): State<Arc<Shop>>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Response<Body> {
    let Some(store) = principal.store() else { return no_store().await };
    let (parts, body) = request.into_parts();
    let body = match read_json(&parts.headers, body, MAX_BODY, shop.read_timeout).await {
        Ok(body) => body,
        // It has no telephone number either, which is the documented answer.
        Err(BodyProblem::NotJson) => Value::Null,
        Err(problem) => return json(problem.status(), &json!({ "message": problem.text() })),
    };
    match Fields::read(&body) {
        Err(errors) => {
            let body = json!({ "message": "The given data was invalid.", "errors": errors });
            json(StatusCode::UNPROCESSABLE_ENTITY, &body)
        }
        Ok(fields) => {
            let (customer, is_new) = shop.customers.lock().upsert(store, fields);
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            json(status, &json!({ "data": customer.to_json() }))
        }
    }
}

async fn orders() -> Response<Body> {
    json(StatusCode::OK, &json!({ "data": [] }))
}

/// The status and the member `error` are documented; its text is not.
async fn no_store() -> Response<Body> {
    json(StatusCode::BAD_REQUEST, &json!({ "error": "store_id is missing" }))
}

async fn products(State(shop): State<Arc<Shop>>, uri: Uri) -> Response<Body> {
    let query = uri.query().unwrap_or_default();
    let (Some(limit), Some(page)) = (number(query, "limit", PAGE), number(query, "page", 1)) else {
        let details = json!([{ "message": "limit and page are numbers from 1" }]);
        let (status, name) = (StatusCode::UNPROCESSABLE_ENTITY, "UnprocessableEntityError");
        return katana_error(&shop, status, name, "The request query is invalid.", Some(details));
    };
    let limit = limit.min(MAX_PAGE);
    let products = shop.products.iter().skip((page - 1).saturating_mul(limit)).take(limit);
    let data: Vec<Value> = products.map(Product::to_json).collect();
    json(StatusCode::OK, &json!({ "data": data }))
}

/// The value of a query's parameter; `None` if it is not a number from 1.
fn number(query: &str, name: &str, default: usize) -> Option<usize> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    match pairs.find(|(found, _)| *found == name) {
        None => Some(default),
        Some((_, value)) => value.parse().ok().filter(|number| *number > 0),
    }
}

async fn limit_by_store(
    State(shop): State<Arc<Shop>>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let allowance = principal.store().and_then(|store| shop.take_allowance(Metered::Store(store)));
    let (mut response, remaining) = match allowance {
        None => return next.run(request).await,
        Some(Allowance::Allowed { remaining }) => (next.run(request).await, remaining),
        Some(Allowance::Refused { retry_after }) => (too_many(&shop, retry_after), 0),
    };
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(RATE_LIMIT));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    response
}

async fn limit_by_key(
    State(shop): State<Arc<Shop>>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: Next,
) -> Response<Body> {
    match principal.key().and_then(|key| shop.take_allowance(Metered::Key(key))) {
        Some(Allowance::Refused { retry_after }) => too_many(&shop, retry_after),
        _ => next.run(request).await,
    }
}

fn too_many(shop: &Shop, retry_after: u64) -> Response<Body> {
    let body = rate_limited(shop);
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "application/json", body);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
    response
}

/// Returns the documented body of a 429.
pub(super) fn rate_limited(shop: &Shop) -> String {
    match shop.api {
        Api::Kanal => Refusal::new(shop.registry.profile(), Meaning::RateLimited).body(),
        Api::Katana { .. } => documented_by_katana(shop, Meaning::RateLimited),
    }
}

fn documented_by_katana(shop: &Shop, meaning: Meaning) -> String {
    let mut bodies = KATANA.iter().filter(|row| row.meaning() == meaning).filter_map(Row::body);
    let found = bodies.find(|body| body.starts_with(r#"{"error":"#) == is_nested(shop));
    found.unwrap_or_default()
}

/// Nests the refusal of a key, if the settings ask for it.
pub(super) fn in_shape(shop: &Shop, response: Response<Body>) -> Response<Body> {
    if response.status() != StatusCode::UNAUTHORIZED || !is_nested(shop) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(documented_by_katana(shop, Meaning::KeyRefused)))
}

fn katana_error(
    shop: &Shop,
    status: StatusCode,
    name: &str,
    message: &str,
    details: Option<Value>,
) -> Response<Body> {
    let mut body = json!({ "statusCode": status.as_u16(), "name": name, "message": message });
    if let Some(details) = details {
        body["details"] = details;
    }
    if is_nested(shop) {
        body = json!({ "error": body });
    }
    json(status, &body)
}

fn is_nested(shop: &Shop) -> bool {
    shop.api == Api::Katana { nested: true }
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyProblem {
    WrongMediaType,
    TooLong,
    TooSlow,
    /// It ended early, or is malformed as HTTP.
    Broken,
    NotJson,
}

impl BodyProblem {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::WrongMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::NotJson => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::WrongMediaType => "The content type must be application/json.",
            Self::TooLong => "The body is too long.",
            Self::TooSlow => "The body did not arrive in time.",
            Self::Broken => "The body is broken.",
            Self::NotJson => "The body must be a JSON object.",
        }
    }
}

/// Reads a JSON body of at most `limit` bytes that arrives within `time`.
pub(super) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
) -> Result<Value, BodyProblem> {
    if !is_json(headers) {
        return Err(BodyProblem::WrongMediaType);
    }
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyProblem::TooLong);
    }
    let read = tokio::time::timeout(time, Limited::new(body, limit).collect()).await;
    let read = read.map_err(|_| BodyProblem::TooSlow)?.map_err(|error| {
        if error.is::<LengthLimitError>() { BodyProblem::TooLong } else { BodyProblem::Broken }
    })?;
    serde_json::from_slice(&read.to_bytes()).map_err(|_| BodyProblem::NotJson)
}

/// Reads and discards a body: at most `limit` bytes, and for at most `time`.
pub(super) async fn skip<B>(body: B, limit: usize, time: Duration)
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // How it ends makes no difference.
    tokio::time::timeout(time, Limited::new(body, limit).collect()).await.ok();
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json") || media_type.to_ascii_lowercase().ends_with("+json")
}

pub(super) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    text(status, "application/json", body.to_string())
}

pub(super) fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
