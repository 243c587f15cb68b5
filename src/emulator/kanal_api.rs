//! Kanal's paths.
//!
//! Documented: the table of refusals, the 422's shape, the order of the checks, and that any 2xx means success. Not
//! documented, and chosen here: that success is 201 for a new customer and 200 for one that was there, what its body is,
//! and the answers 408, 413 and 415. Reading orders is a stand-in, so that there is something to read.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::{self, BodyProblem};
use super::customers::Fields;
use super::rate_limit::{Allowance, RATE_LIMIT};
use super::shop::{Metered, Shop};
use super::{MAX_BODY, exchange};
use crate::failure::Meaning;
use crate::registry::{Authorize as _, Principal, Refusal, RequireKeyLayer};

/// The key and the store are looked at first, the rate limit next, and what the request says last, as documented.
pub(super) fn router(shop: &Arc<Shop>) -> Router {
    let find_store = |request: &http::request::Parts| exchange::wanted(request.uri.path());
    Router::new()
        .route("/api/v1/stores/{store_id}/customers", post(upsert))
        .route("/api/v1/stores/{store_id}/orders", get(orders))
        .route("/api/v1/stores//customers", post(no_store))
        .route("/api/v1/stores//orders", get(no_store))
        .route_layer(from_fn_with_state(Arc::clone(shop), limit))
        .route_layer(RequireKeyLayer::with_store(Arc::clone(shop), find_store))
        .fallback(|| async { answer::json(StatusCode::NOT_FOUND, &json!({ "message": "Not Found" })) })
        .with_state(Arc::clone(shop))
}

/// Writes a customer.
async fn upsert(
    State(shop): State<Arc<Shop>>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Response<Body> {
    let Some(store) = principal.store() else { return no_store().await };
    let (parts, body) = request.into_parts();
    let body = match answer::read_json(&parts.headers, body, MAX_BODY, shop.read_timeout).await {
        Ok(body) => body,
        // A body that is no JSON has no telephone number either.
        Err(BodyProblem::NotJson) => Value::Null,
        Err(problem) => return answer::json(problem.status(), &json!({ "message": problem.text() })),
    };
    match Fields::read(&body) {
        Err(errors) => invalid(&errors),
        Ok(fields) => {
            let (customer, is_new) = shop.customers.lock().upsert(store, fields);
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            answer::json(status, &json!({ "data": customer.to_json() }))
        }
    }
}

/// The documented shape.
fn invalid(errors: &Map<String, Value>) -> Response<Body> {
    let body = json!({ "message": "The given data was invalid.", "errors": errors });
    answer::json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}

async fn orders() -> Response<Body> {
    answer::json(StatusCode::OK, &json!({ "data": [] }))
}

/// Documented: 400 with `error`. Its text is not.
async fn no_store() -> Response<Body> {
    answer::json(StatusCode::BAD_REQUEST, &json!({ "error": "store_id is missing" }))
}

/// 60 requests a minute for each store.
async fn limit(
    State(shop): State<Arc<Shop>>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let allowance = principal.store().and_then(|store| shop.take_allowance(Metered::Store(store)));
    let Some(allowance) = allowance else { return next.run(request).await };
    let (mut response, remaining) = match allowance {
        Allowance::Allowed { remaining } => (next.run(request).await, remaining),
        Allowance::Refused { retry_after } => (too_many(&shop, retry_after), 0),
    };
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(RATE_LIMIT));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    response
}

fn too_many(shop: &Shop, retry_after: u64) -> Response<Body> {
    let row = Refusal::new(shop.registry.profile(), Meaning::RateLimited);
    let mut response = answer::text(StatusCode::TOO_MANY_REQUESTS, "application/json", row.body());
    response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(retry_after));
    response
}
