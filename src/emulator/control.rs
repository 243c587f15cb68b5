//! The control plane: the methods of [`Emulator`](super::Emulator) over HTTP, for the holder of the token.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use http::header::{CACHE_CONTROL, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tower_service::Service as _;
use zeroize::Zeroizing;

use super::api;
use super::fault::{Fault, FaultRule, FaultStatus};
use super::records::{Customer, JournalEntry};
use super::server::{Answer, Answering};
use super::shop::{Api, EmulatorError, Shop, TEAM};
use crate::failure::{Meaning, Row};
use crate::internal::bytes::base64url;
use crate::key::{KeyFormat, Origin, Profile, RawKey, StoreId};
use crate::registry::{KeyId, KeyRecord, Principal, RegistryError, RequireKeyLayer, StaticKeys, TeamId};

/// The largest body that the control plane reads, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// The token is parsed, compared and printed as a key is.
const PROFILE: &Profile = &Profile::new(
    "keysheath-control",
    "KEYSHEATH_CONTROL_TOKEN",
    Origin::https("control.invalid"),
    KeyFormat::exactly(43),
    256,
)
.with_title("the emulator's control plane")
.with_failures(&[
    Row::new(401, "/error", Some("the control token is missing"), Meaning::KeyMissing),
    Row::new(401, "/error", Some("this is not the control token"), Meaning::KeyRefused),
]);

/// Returns what answers on the control plane's port, and its token.
pub(super) fn plane(shop: &Arc<Shop>, port: u16) -> Result<(Arc<Answer>, RawKey), EmulatorError> {
    let token = new_token()?;
    let router = router(shop, token.clone_key());
    let host = format!("127.0.0.1:{port}");
    let answer = move |request: Request<_>, _| -> Answering {
        let (mut router, refusal) = (router.clone(), refusal(&host, &request));
        Box::pin(async move {
            let mut response = match refusal {
                Some(why) => problem(StatusCode::FORBIDDEN, why).into_response(),
                None => match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            };
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        })
    };
    Ok((Arc::new(answer), token))
}

fn new_token() -> Result<RawKey, EmulatorError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| EmulatorError::NoRandomness)?;
    RawKey::parse(PROFILE, &base64url(&*bytes)).map_err(|_| EmulatorError::NoRandomness)
}

/// Why a request is refused whatever its token: a page in a browser sent it, perhaps under a host name that
/// the page's author made to resolve to 127.0.0.1 (DNS rebinding).
fn refusal<B>(host: &str, request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let is_ours = hosts.next().is_some_and(|found| found == host) && hosts.next().is_none();
    let authority = request.uri().authority();
    if !is_ours || authority.is_some_and(|authority| authority.as_str() != host) {
        return Some(
            "the control plane answers only under its address and port, such as http://127.0.0.1:40123",
        );
    }
    Principal::has_browser_headers(headers).then_some("the control plane does not answer pages in a browser")
}

fn router(shop: &Arc<Shop>, token: RawKey) -> Router {
    Router::new()
        .route("/keys", get(list_keys).post(create_key))
        .route("/keys/{id}", delete(delete_key))
        .route("/keys/{id}/delete-after", post(delete_key_after))
        .route("/stores/{id}", put(put_store))
        .route("/stores/{id}/pause", post(pause_store))
        .route("/stores/{id}/resume", post(resume_store))
        .route("/stores/{id}/customers", get(list_customers))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/journal", get(journal))
        .route("/reset", post(reset))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such path on the control plane") })
        .layer(RequireKeyLayer::new(Arc::new(StaticKeys::new(token))))
        .with_state(Arc::clone(shop))
}

type Shared = State<Arc<Shop>>;
type Answered = Result<Response<Body>, Problem>;

async fn list_keys(State(shop): Shared, Query(query): Query<Map<String, Value>>) -> Answered {
    let team = match query.get("team").and_then(Value::as_str) {
        None => TEAM,
        Some(text) => TeamId::new(text.parse().map_err(|_| bad("team is a number"))?),
    };
    let keys: Vec<Value> = shop.registry.keys(team).iter().map(key_json).collect();
    Ok(api::json(StatusCode::OK, &json!({ "keys": keys })))
}

/// The only answer that holds a key.
async fn create_key(State(shop): Shared, request: Request<Body>) -> Answered {
    let body = object(&shop, request, &["name", "team", "store"]).await?;
    let name = body.get("name").and_then(Value::as_str).ok_or_else(|| bad("name is a text"))?;
    let team = body.get("team").map_or(Ok(TEAM), team)?;
    let restriction = match body.get("store") {
        None | Some(Value::Null) => None,
        Some(_) if shop.api != Api::Kanal => return Err(bad("Katana has no stores: leave store out")),
        Some(number) => {
            Some(number.as_u64().and_then(StoreId::new).ok_or_else(|| bad("store is a positive number"))?)
        }
    };
    let new = match restriction {
        None => shop.registry.create_key(team, name),
        Some(store) => shop.registry.create_key_for_store(team, name, store),
    };
    let new = new.map_err(|error| refused(&error))?;
    let mut shown = key_json(new.record());
    shown["key"] = Value::from(new.key().expose_secret());
    Ok(api::json(StatusCode::CREATED, &shown))
}

async fn delete_key(State(shop): Shared, Path(id): Path<String>) -> Answered {
    done(shop.delete_key(key_id(&id)?))
}

async fn delete_key_after(State(shop): Shared, Path(id): Path<String>, request: Request<Body>) -> Answered {
    let id = key_id(&id)?;
    let body = object(&shop, request, &["requests"]).await?;
    let requests = body.get("requests").and_then(Value::as_u64);
    done(shop.delete_key_after(id, requests.ok_or_else(|| bad("requests is a number from 0"))?))
}

async fn put_store(State(shop): Shared, Path(id): Path<String>, request: Request<Body>) -> Answered {
    let store = store_id(&id)?;
    let body = object(&shop, request, &["team"]).await?;
    done(shop.registry.put_store(store, body.get("team").map_or(Ok(TEAM), team)?))
}

async fn pause_store(State(shop): Shared, Path(id): Path<String>) -> Answered {
    done(shop.registry.pause_store(store_id(&id)?))
}

async fn resume_store(State(shop): Shared, Path(id): Path<String>) -> Answered {
    done(shop.registry.resume_store(store_id(&id)?))
}

async fn list_customers(State(shop): Shared, Path(id): Path<String>) -> Answered {
    let customers = shop.customers.lock().in_store(store_id(&id)?);
    let customers: Vec<Value> = customers.iter().map(Customer::to_json).collect();
    Ok(api::json(StatusCode::OK, &json!({ "customers": customers })))
}

async fn list_faults(State(shop): Shared) -> Response<Body> {
    let faults = shop.faults.lock().list();
    let faults: Vec<Value> = faults.iter().map(fault_json).collect();
    api::json(StatusCode::OK, &json!({ "faults": faults }))
}

async fn add_fault(State(shop): Shared, request: Request<Body>) -> Answered {
    let body = object(&shop, request, RULE_FIELDS).await?;
    let rule = read_rule(&body).map_err(bad)?;
    let number = shop.faults.lock().add(rule).map_err(bad)?;
    Ok(api::json(StatusCode::CREATED, &json!({ "id": number })))
}

async fn clear_faults(State(shop): Shared) -> Answered {
    shop.faults.lock().clear();
    done(Ok(()))
}

async fn journal(State(shop): Shared) -> Response<Body> {
    let entries: Vec<Value> = shop.journal.lock().entries().iter().map(entry_json).collect();
    api::json(StatusCode::OK, &json!({ "journal": entries }))
}

async fn reset(State(shop): Shared) -> Answered {
    shop.reset();
    done(Ok(()))
}

/// Reads a body that is an object without other fields than these.
async fn object(shop: &Shop, request: Request<Body>, fields: &[&str]) -> Result<Map<String, Value>, Problem> {
    let (parts, body) = request.into_parts();
    let read = api::read_json(&parts.headers, body, MAX_BODY, shop.read_timeout).await;
    match read.map_err(|why| problem(why.status(), why.text()))? {
        Value::Object(object) if object.keys().all(|name| fields.contains(&name.as_str())) => Ok(object),
        Value::Object(_) => {
            Err(bad(format!("there is an unknown field; the known ones are {}", fields.join(", "))))
        }
        _ => Err(bad("the body must be a JSON object")),
    }
}

fn entry_json(entry: &JournalEntry) -> Value {
    json!({
        "number": entry.number,
        "time": seconds(entry.time),
        "method": entry.method,
        "path": entry.path,
        "store": entry.store.map(StoreId::get),
        "key": entry.key.map(|key| key.to_string()),
        "status": entry.status,
        "fault": entry.fault,
    })
}

fn key_json(record: &KeyRecord) -> Value {
    let store = record.restriction().map(StoreId::get);
    json!({
        "id": record.id().to_string(),
        "team": record.team().get(),
        "name": record.name(),
        "fingerprint": record.fingerprint().map(|fingerprint| fingerprint.to_string()),
        "created": seconds(record.created()),
        "last_used": record.last_used().map(seconds),
        "store": store,
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn team(number: &Value) -> Result<TeamId, Problem> {
    let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(TeamId::new).ok_or_else(|| bad("team is a number"))
}

fn key_id(text: &str) -> Result<KeyId, Problem> {
    text.parse().map_err(|error: RegistryError| refused(&error))
}

fn store_id(text: &str) -> Result<StoreId, Problem> {
    text.parse().map_err(|error: crate::key::ParseError| bad(error.to_string()))
}

fn done(result: Result<(), RegistryError>) -> Answered {
    result.map_err(|error| refused(&error))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Why a request is refused. The text holds nothing of the request.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    text: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        api::json(self.status, &json!({ "error": self.text }))
    }
}

fn refused(error: &RegistryError) -> Problem {
    let status = match error {
        RegistryError::NoSuchKey | RegistryError::NoSuchStore => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    problem(status, error.to_string())
}

fn bad(text: impl Into<String>) -> Problem {
    problem(StatusCode::BAD_REQUEST, text)
}

fn problem(status: StatusCode, text: impl Into<String>) -> Problem {
    Problem { status, text: text.into() }
}

/// The fields of a fault rule.
const RULE_FIELDS: &[&str] = &["fault", "key", "store", "route", "nth", "times", "probability"];

/// Reads a fault rule. An error names the field that is wrong, and holds nothing of it.
fn read_rule(body: &Map<String, Value>) -> Result<FaultRule, &'static str> {
    let mut rule = FaultRule::new(read_fault(body.get("fault").unwrap_or(&Value::Null))?);
    if let Some(key) = body.get("key") {
        let key = key.as_str().and_then(|text| text.parse().ok());
        rule = rule.with_key(key.ok_or("key is a key's number: 8 hexadecimal digits in a text")?);
    }
    if let Some(store) = body.get("store") {
        let store = store.as_u64().and_then(StoreId::new);
        rule = rule.with_store(store.ok_or("store is a positive number")?);
    }
    if let Some(route) = body.get("route") {
        rule = rule.with_route(route.as_str().ok_or("route is a text")?);
    }
    if let Some(nth) = body.get("nth") {
        rule = rule.with_start(nth.as_u64().ok_or("nth is a number from 1")?);
    }
    if let Some(times) = body.get("times") {
        rule = rule.with_times(times.as_u64().ok_or("times is a number")?);
    }
    if let Some(probability) = body.get("probability") {
        rule = rule.with_probability(probability.as_f64().ok_or("probability is a number from 0 to 1")?);
    }
    Ok(rule)
}

fn read_fault(fault: &Value) -> Result<Fault, &'static str> {
    const WHAT: &str = "fault is \"reset\", \"truncated_body\", { \"latency_ms\": 200 } or \
                        { \"status\": 503, \"retry_after\": 2, \"body\": \"…\" }";
    match fault {
        Value::String(name) if name == "reset" => Ok(Fault::Reset),
        Value::String(name) if name == "truncated_body" => Ok(Fault::TruncatedBody),
        Value::Object(fields) if fields.contains_key("latency_ms") && fields.len() == 1 => {
            let millis = fields.get("latency_ms").and_then(Value::as_u64).ok_or("latency_ms is a number")?;
            Ok(Fault::Latency(Duration::from_millis(millis)))
        }
        Value::Object(fields) => {
            let known = ["status", "retry_after", "body"];
            if !fields.contains_key("status") || !fields.keys().all(|name| known.contains(&name.as_str())) {
                return Err(WHAT);
            }
            let status = fields.get("status").and_then(Value::as_u64);
            let status = status.and_then(|number| u16::try_from(number).ok());
            let mut fault = Fault::status(status.ok_or("status is a number from 200 to 599")?);
            if let Some(seconds) = fields.get("retry_after") {
                let seconds = seconds.as_u64().and_then(|number| u32::try_from(number).ok());
                fault = fault.with_retry_after(seconds.ok_or("retry_after is a number of seconds")?);
            }
            if let Some(body) = fields.get("body") {
                fault = fault.with_body(body.as_str().ok_or("body is a text")?);
            }
            Ok(fault)
        }
        _ => Err(WHAT),
    }
}

fn fault_json(status: &FaultStatus) -> Value {
    let FaultStatus { number, rule, applied } = status;
    let fault = match &rule.fault {
        Fault::Reset => json!("reset"),
        Fault::TruncatedBody => json!("truncated_body"),
        Fault::Latency(time) => json!({ "latency_ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }),
        Fault::Status { status, retry_after, body } => {
            json!({ "status": status, "retry_after": retry_after, "body": body })
        }
    };
    json!({
        "id": number,
        "fault": fault,
        "key": rule.key.map(|key| key.to_string()),
        "store": rule.store.map(StoreId::get),
        "route": rule.route,
        "nth": rule.start.unwrap_or(1),
        "times": rule.times,
        "probability": rule.probability,
        "applied": applied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<FaultRule, &'static str> {
        read_rule(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap())
    }

    #[test]
    fn a_rule_is_read_as_it_is_built() {
        let text = r#"{ "fault": { "status": 503, "retry_after": 2, "body": "x" }, "key": "00000001",
                        "store": 123, "route": "/v1/*", "nth": 3, "times": 2, "probability": 0.5 }"#;
        let built = FaultRule::new(Fault::status(503).with_retry_after(2).with_body("x"))
            .with_key("00000001".parse().unwrap())
            .with_store(StoreId::new(123).unwrap())
            .with_route("/v1/*")
            .with_start(3)
            .with_times(2)
            .with_probability(0.5);
        assert_eq!(read_text(text), Ok(built));
        for (text, fault) in [
            (r#"{ "fault": "reset" }"#, Fault::Reset),
            (r#"{ "fault": "truncated_body" }"#, Fault::TruncatedBody),
            (r#"{ "fault": { "latency_ms": 20 } }"#, Fault::Latency(Duration::from_millis(20))),
        ] {
            assert_eq!(read_text(text), Ok(FaultRule::new(fault)));
        }
    }

    #[test]
    fn an_invalid_rule_is_refused() {
        for text in [
            "{}",
            r#"{ "fault": "explode" }"#,
            r#"{ "fault": 7 }"#,
            r#"{ "fault": {} }"#,
            r#"{ "fault": { "status": 503, "latency_ms": 7 } }"#,
            r#"{ "fault": { "status": 70000 } }"#,
            r#"{ "fault": { "status": 503, "retry_after": -1 } }"#,
            r#"{ "fault": { "status": 503, "body": {} } }"#,
            r#"{ "fault": "reset", "key": "all" }"#,
            r#"{ "fault": "reset", "store": 0 }"#,
            r#"{ "fault": "reset", "nth": "first" }"#,
            r#"{ "fault": "reset", "times": -1 }"#,
            r#"{ "fault": "reset", "route": 7 }"#,
            r#"{ "fault": "reset", "probability": "often" }"#,
        ] {
            assert!(read_text(text).is_err(), "{text}");
        }
    }
}
