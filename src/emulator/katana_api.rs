//! Katana's paths.
//!
//! Documented: `GET /v1/products`, both shapes of errors, and the rate limit with `Retry-After`. Not documented in what
//! this project is built from, and chosen here: that pages count from 1 and hold 50 unless `limit` says otherwise, up to
//! 250, what a product consists of, and the texts of 404 and 422.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;
use http::{HeaderValue, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::answer;
use super::rate_limit::Allowance;
use super::seeded::Seeded;
use super::shop::{Api, Metered, Shop};
use crate::failure::{KATANA, Meaning};
use crate::registry::{Principal, RequireKeyLayer};

/// How many products there are.
pub(super) const PRODUCTS: usize = 120;

/// How many products a page holds, unless `limit` says otherwise, and at most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 250;

/// A product. With the same seed there are the same.
#[derive(Debug)]
pub(super) struct Product {
    id: u64,
    name: String,
    sku: String,
}

impl Product {
    pub(super) fn list(seed: u64) -> Vec<Self> {
        const WHAT: [&str; 8] = ["Table", "Chair", "Lamp", "Shelf", "Bench", "Stool", "Desk", "Frame"];
        let mut random = Seeded::new(seed, 3);
        let made = (1..=PRODUCTS as u64).zip(WHAT.iter().cycle()).map(|(id, what)| {
            let number = random.next() % 100_000;
            Self {
                id,
                name: format!("{what} {id}"),
                sku: format!("{}-{number:05}", what.to_ascii_uppercase()),
            }
        });
        made.collect()
    }

    fn to_json(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "type": "product", "variants": [{ "sku": self.sku }] })
    }
}

pub(super) fn router(shop: &Arc<Shop>) -> Router {
    let not_found = |State(shop): State<Arc<Shop>>| async move {
        error(&shop, StatusCode::NOT_FOUND, "NotFoundError", "Not Found", None)
    };
    Router::new()
        .route("/v1/products", get(products))
        .route_layer(from_fn_with_state(Arc::clone(shop), limit))
        .route_layer(RequireKeyLayer::new(Arc::clone(shop)))
        .fallback(not_found)
        .with_state(Arc::clone(shop))
}

async fn products(State(shop): State<Arc<Shop>>, uri: Uri) -> Response<Body> {
    let query = uri.query().unwrap_or_default();
    let (Some(limit), Some(page)) = (number(query, "limit", PAGE), number(query, "page", 1)) else {
        let details = json!([{ "message": "limit and page are numbers from 1" }]);
        let text = "The request query is invalid.";
        return error(
            &shop,
            StatusCode::UNPROCESSABLE_ENTITY,
            "UnprocessableEntityError",
            text,
            Some(details),
        );
    };
    let limit = limit.min(MAX_PAGE);
    let products = shop.products.iter().skip((page - 1).saturating_mul(limit)).take(limit);
    let data: Vec<Value> = products.map(Product::to_json).collect();
    answer::json(StatusCode::OK, &json!({ "data": data }))
}

/// The number of this name in a query. `None` where there is something else than a number from 1.
fn number(query: &str, name: &str, default: usize) -> Option<usize> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    match pairs.find(|(found, _)| *found == name) {
        None => Some(default),
        Some((_, value)) => value.parse().ok().filter(|number| *number > 0),
    }
}

/// 60 requests in 60 seconds for each key.
async fn limit(
    State(shop): State<Arc<Shop>>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let allowance = principal.key().and_then(|key| shop.take_allowance(Metered::Key(key)));
    let Some(Allowance::Refused { retry_after }) = allowance else { return next.run(request).await };
    let body = documented(&shop, Meaning::RateLimited);
    let mut response = answer::text(StatusCode::TOO_MANY_REQUESTS, "application/json", body);
    response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(retry_after));
    response
}

/// The documented body for this, in the shape that was asked for.
pub(super) fn documented(shop: &Shop, meaning: Meaning) -> String {
    let rows = KATANA.iter().filter(|row| row.meaning() == meaning);
    let mut bodies = rows.filter_map(crate::failure::Row::body);
    let found = bodies.find(|body| body.starts_with(r#"{"error":"#) == is_nested(shop));
    found.unwrap_or_default()
}

/// Gives a refusal of the key, which is flat, the shape that was asked for.
pub(super) fn in_shape(shop: &Shop, response: Response<Body>) -> Response<Body> {
    if response.status() != StatusCode::UNAUTHORIZED || !is_nested(shop) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(documented(shop, Meaning::KeyRefused)))
}

fn error(
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
    answer::json(status, &body)
}

fn is_nested(shop: &Shop) -> bool {
    shop.api == Api::Katana { nested: true }
}
