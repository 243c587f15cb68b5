//! The control plane: the same as the methods of [`Emulator`](super::Emulator), over HTTP and for the one who has the
//! token.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, HOST};
use http::{HeaderValue, Request, Response, StatusCode, request};
use serde_json::{Map, Value, json};
use tower_service::Service as _;
use zeroize::Zeroizing;

use super::answer;
use super::rule_json;
use super::server::Answer;
use super::shop::{Api, Shop};
use super::{EmulatorError, TEAM};
use crate::failure::{Meaning, Row};
use crate::key::{KeyFormat, Origin, Profile, RawKey, StoreId};
use crate::registry::{
    KeyId, KeyRecord, RegistryError, RequireKeyLayer, Restriction, StaticKeys, TeamId, is_from_browser,
};

/// The largest body that the control plane reads, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// The token is read, compared and printed as a key is.
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

/// What answers on the control plane's port, and the token that it asks for.
pub(super) fn plane(shop: &Arc<Shop>, port: u16) -> Result<(Arc<Answer>, RawKey), EmulatorError> {
    let token = new_token()?;
    let router = router(shop, token.clone_key());
    let host = format!("127.0.0.1:{port}");
    let answer = move |request: Request<_>, _| -> super::server::Answering {
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
    let mut text = Zeroizing::new([0_u8; 43]);
    let written = BASE64_URL_SAFE_NO_PAD.encode_slice(*bytes, &mut *text);
    let text = written.ok().and_then(|_| RawKey::parse(PROFILE, &*text).ok());
    text.ok_or(EmulatorError::NoRandomness)
}

/// Why a request is refused whatever its token: a page in a browser sent it, or one reached this port under a name of its
/// own, which it made to mean 127.0.0.1 (DNS rebinding).
fn refusal<B>(host: &str, request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let is_ours = hosts.next().is_some_and(|found| found == host) && hosts.next().is_none();
    let authority = request.uri().authority();
    if !is_ours || authority.is_some_and(|authority| authority.as_str() != host) {
        return Some(
            "the control plane answers under its address and port alone, such as http://127.0.0.1:40123",
        );
    }
    is_from_browser(headers).then_some("the control plane does not answer pages in a browser")
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
    Ok(answer::json(StatusCode::OK, &json!({ "keys": keys })))
}

/// This is the one answer that holds a key.
async fn create_key(State(shop): Shared, request: axum::extract::Request) -> Answered {
    let body = object(&shop, request, &["name", "team", "store"]).await?;
    let name = body.get("name").and_then(Value::as_str).ok_or_else(|| bad("name is a text"))?;
    let team = body.get("team").map_or(Ok(TEAM), team)?;
    let restriction = match body.get("store") {
        None | Some(Value::Null) => Restriction::None,
        Some(_) if shop.api != Api::Kanal => return Err(bad("Katana has no stores: leave store out")),
        Some(number) => Restriction::Store(
            number.as_u64().and_then(StoreId::new).ok_or_else(|| bad("store is a positive number"))?,
        ),
    };
    let new = shop.registry.create_key(team, name, restriction).map_err(|error| refused(&error))?;
    let mut shown = key_json(new.record());
    shown["key"] = Value::from(new.key().expose_secret());
    Ok(answer::json(StatusCode::CREATED, &shown))
}

async fn delete_key(State(shop): Shared, Path(id): Path<String>) -> Answered {
    done(shop.delete_key(key_id(&id)?))
}

async fn delete_key_after(
    State(shop): Shared,
    Path(id): Path<String>,
    request: axum::extract::Request,
) -> Answered {
    let id = key_id(&id)?;
    let body = object(&shop, request, &["requests"]).await?;
    let requests = body.get("requests").and_then(Value::as_u64);
    done(shop.delete_key_after(id, requests.ok_or_else(|| bad("requests is a number from 0"))?))
}

async fn put_store(State(shop): Shared, Path(id): Path<String>, request: axum::extract::Request) -> Answered {
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
    let customers = shop.customers.lock().of(store_id(&id)?);
    let customers: Vec<Value> = customers.iter().map(super::Customer::to_json).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "customers": customers })))
}

async fn list_faults(State(shop): Shared) -> Response<Body> {
    let faults = shop.faults.lock().list();
    let faults = faults.iter().map(|(id, rule, applied)| rule_json::write(*id, rule, *applied));
    answer::json(StatusCode::OK, &json!({ "faults": faults.collect::<Vec<Value>>() }))
}

async fn add_fault(State(shop): Shared, request: axum::extract::Request) -> Answered {
    let body = object(&shop, request, rule_json::FIELDS).await?;
    let rule = rule_json::read(&body).map_err(bad)?;
    let id = shop.faults.lock().add(rule).map_err(|error| bad(error.to_string()))?;
    Ok(answer::json(StatusCode::CREATED, &json!({ "id": id.0 })))
}

async fn clear_faults(State(shop): Shared) -> Answered {
    shop.faults.lock().clear();
    done(Ok(()))
}

async fn journal(State(shop): Shared) -> Response<Body> {
    let entries = shop.journal.lock().entries();
    let entries = entries.iter().map(|entry| {
        json!({
            "number": entry.number,
            "time": seconds(entry.time),
            "method": entry.method,
            "path": entry.path,
            "store": entry.store.map(StoreId::get),
            "key": entry.key.map(|key| key.to_string()),
            "status": entry.status,
            "fault": entry.fault.map(|fault| fault.0),
        })
    });
    answer::json(StatusCode::OK, &json!({ "journal": entries.collect::<Vec<Value>>() }))
}

async fn reset(State(shop): Shared) -> Answered {
    shop.reset();
    done(Ok(()))
}

/// Reads a body that is an object with no other fields than these.
async fn object(
    shop: &Shop,
    request: request::Request<Body>,
    fields: &[&str],
) -> Result<Map<String, Value>, Problem> {
    let (parts, body) = request.into_parts();
    let read = answer::read_json(&parts.headers, body, MAX_BODY, shop.read_timeout).await;
    match read.map_err(|why| problem(why.status(), why.text()))? {
        Value::Object(object) if object.keys().all(|name| fields.contains(&name.as_str())) => Ok(object),
        Value::Object(_) => Err(bad(format!("there is an unknown field; known are {}", fields.join(", ")))),
        _ => Err(bad("the body must be a JSON object")),
    }
}

fn key_json(record: &KeyRecord) -> Value {
    let store = match record.restriction() {
        Restriction::None => None,
        Restriction::Store(store) => Some(store.get()),
    };
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
    text.parse().map_err(|error: crate::key::StoreIdError| bad(error.to_string()))
}

fn done(result: Result<(), RegistryError>) -> Answered {
    result.map_err(|error| refused(&error))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// What is wrong with a request. It holds nothing of it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    text: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        answer::json(self.status, &json!({ "error": self.text }))
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
