//! An untrusted response is classified: the first line is the status, the second `Retry-After`, the rest the
//! body.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use keysheath::failure::{Answer, Meaning};
use keysheath::key::{Issuer, Kanal, Katana, Profile};
use serde_json::Value;

/// The largest body that is read.
const MAX_BODY: usize = 64 * 1024;

/// Classifies `data` as a response of both issuers, with its own status and as a 401.
pub(crate) fn classify(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'\n');
    let status = status(parts.next().unwrap_or_default());
    let retry_after = parts.next().filter(|value| !value.is_empty());
    let body = parts.next().unwrap_or_default();
    let json = serde_json::from_slice::<Value>(body).ok();
    for profile in [Kanal::PROFILE, Katana::PROFILE] {
        let documented = body.len() <= MAX_BODY && refuses(profile, json.as_ref());
        for status in [status, 401] {
            let answer = profile.classify(status, retry_after, body);
            check(&answer, status, retry_after, documented);
        }
    }
}

/// Reads a status: a number as it is, anything else folded into one.
fn status(text: &[u8]) -> u16 {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| {
        text.iter().fold(0, |sum: u16, &byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)))
    })
}

/// Returns whether the issuer documents this body as "the key is bad".
fn refuses(profile: &Profile, body: Option<&Value>) -> bool {
    let Some(body) = body else { return false };
    let is = |value: &Value, text: &str| value.as_str() == Some(text);
    if profile == Kanal::PROFILE {
        return body.is_object() && is(&body["error"], "Invalid API key");
    }
    let unauthorized = |body: &Value| body.is_object() && is(&body["name"], "UnauthorizedError");
    unauthorized(body) || unauthorized(&body["error"])
}

fn check(answer: &Answer, status: u16, retry_after: Option<&[u8]>, documented: bool) {
    let meaning = answer.meaning();
    assert_eq!(answer.status(), status);
    assert_eq!(meaning == Meaning::Accepted, (200..300).contains(&status), "{status} is {meaning:?}");
    assert_eq!(meaning == Meaning::RateLimited, status == 429, "{status} is {meaning:?}");
    assert_eq!(meaning == Meaning::KeyRefused, status == 401 && documented, "{status} is {meaning:?}");
    assert_eq!(meaning.refuses_key(), meaning == Meaning::KeyRefused);
    assert_eq!(answer.retry_after(), retry_after.and_then(seconds), "not the seconds of the header");

    // The text consists of the status, the meaning and the seconds only, so another answer with the same
    // values has the same text.
    let mut expected = status.to_string();
    expected.push_str(&SAMPLES[&meaning]);
    if let Some(wait) = answer.retry_after() {
        expected = format!("{expected} (Retry-After: {} s)", wait.as_secs());
    }
    assert_eq!(answer.to_string(), expected, "the answer prints more than its fields");
}

/// The text of each meaning after the status.
static SAMPLES: LazyLock<HashMap<Meaning, String>> = LazyLock::new(|| {
    let kanal = [
        (Meaning::Accepted, 200, ""),
        (Meaning::KeyMissing, 401, r#"{"error":"API key is missing"}"#),
        (Meaning::KeyRefused, 401, r#"{"error":"Invalid API key"}"#),
        (Meaning::StoreForbidden, 403, r#"{"error":"API key does not authorize this store"}"#),
        (Meaning::StoreNotFound, 404, r#"{"error":"Store not found or paused"}"#),
        (Meaning::StoreMissing, 400, r#"{"error":""}"#),
        (Meaning::RequestInvalid, 422, r#"{"errors":{}}"#),
        (Meaning::RateLimited, 429, ""),
        (Meaning::Inconclusive, 500, ""),
    ];
    let katana = [(Meaning::ContentRefused, 422, r#"{"details":[]}"#)];
    let kanal = kanal.map(|sample| (Kanal::PROFILE, sample));
    let samples = kanal.into_iter().chain(katana.map(|sample| (Katana::PROFILE, sample)));
    let shown = samples.map(|(profile, (meaning, status, body))| {
        let answer = profile.classify(status, None, body.as_bytes());
        assert_eq!(answer.meaning(), meaning);
        let shown = answer.to_string();
        (meaning, shown.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned())
    });
    shown.collect()
});

fn seconds(value: &[u8]) -> Option<Duration> {
    let mut seconds = 0_u64;
    for digit in value {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        seconds = seconds.checked_mul(10)?.checked_add(digit.into())?;
    }
    let fits = !value.is_empty() && seconds <= u32::MAX.into();
    fits.then(|| Duration::from_secs(seconds))
}
