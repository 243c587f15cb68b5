//! Making answers, and reading bodies within bounds.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyProblem {
    /// It is not said to be JSON.
    NotSaidToBeJson,
    /// It is longer than it may be.
    TooLong,
    /// It did not arrive in time.
    TooSlow,
    /// It ended early, or is malformed as HTTP.
    Broken,
    /// It is not JSON.
    NotJson,
}

impl BodyProblem {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NotSaidToBeJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::NotJson => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NotSaidToBeJson => "The content type must be application/json.",
            Self::TooLong => "The body is too long.",
            Self::TooSlow => "The body did not arrive in time.",
            Self::Broken => "The body is broken.",
            Self::NotJson => "The body must be a JSON object.",
        }
    }
}

/// Reads a body of JSON of at most `limit` bytes, which has `time` to arrive.
pub(super) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
) -> Result<Value, BodyProblem> {
    if !is_json(headers) {
        return Err(BodyProblem::NotSaidToBeJson);
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

/// Reads a body of at most `limit` bytes for `time`, and throws it away.
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

/// An answer of JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    text(status, "application/json", body.to_string())
}

/// An answer.
pub(super) fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
