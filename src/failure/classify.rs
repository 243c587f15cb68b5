//! Classifies a response by the table.

use std::time::Duration;

use serde_json::Value;

use super::{Answer, Meaning, PLAIN, Row};

/// The largest body that is read, in bytes; documented answers have under 1 KiB.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// Classifies a response by the rows that its issuer documents; the first row that matches decides.
///
/// For a meaning that the issuer does not document, a registry of this crate answers with a row of [`PLAIN`],
/// which is therefore understood. That the key is refused must be the issuer's own row.
#[inline]
pub(crate) fn classify(rows: &[Row], status: u16, retry_after: Option<&[u8]>, body: &[u8]) -> Answer {
    let meaning = match status {
        200..=299 => Meaning::Accepted,
        429 => Meaning::RateLimited,
        _ => from_rows(rows, status, body),
    };
    Answer { retry_after: retry_after.and_then(whole_seconds), ..Answer::new(status, meaning) }
}

fn from_rows(rows: &[Row], status: u16, body: &[u8]) -> Meaning {
    if body.len() > MAX_BODY || !is_documented(rows, status) {
        return Meaning::Inconclusive;
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Meaning::Inconclusive;
    };
    let mut rows = rows_for(rows, status);
    rows.find(|row| fits(row, &body)).map_or(Meaning::Inconclusive, Row::meaning)
}

/// Returns whether the body of an answer with this status can mean something.
pub(crate) fn is_documented(rows: &[Row], status: u16) -> bool {
    rows_for(rows, status).next().is_some()
}

fn rows_for(rows: &[Row], status: u16) -> impl Iterator<Item = &Row> {
    let is_open = |row: &&Row| {
        row.meaning() != Meaning::KeyRefused && !rows.iter().any(|own| own.meaning() == row.meaning())
    };
    rows.iter().chain(PLAIN.iter().filter(is_open)).filter(move |row| row.status() == status)
}

fn fits(row: &Row, body: &Value) -> bool {
    match (body.pointer(row.field), row.text) {
        (Some(Value::String(found)), Some(text)) => found == text,
        (Some(found), None) => !found.is_null(),
        _ => false,
    }
}

/// Reads a `Retry-After` in seconds. Its other form, a date, is documented by neither issuer and gives
/// `None`.
pub(crate) fn seconds(value: &[u8]) -> Option<Duration> {
    whole_seconds(value).map(|seconds| Duration::from_secs(seconds.into()))
}

fn whole_seconds(value: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(value).ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::super::{KANAL, KATANA};
    use super::*;

    fn meaning(rows: &[Row], status: u16, body: &str) -> Meaning {
        classify(rows, status, None, body.as_bytes()).meaning()
    }

    #[test]
    fn each_documented_row_recognizes_its_own_body() {
        for rows in [KANAL, KATANA] {
            for row in rows {
                let Some(body) = row.body() else { continue };
                assert_eq!(meaning(rows, row.status(), &body), row.meaning(), "{body}");
            }
        }
    }

    #[test]
    fn a_custom_row_recognizes_its_own_body() {
        for field in ["/code", "/error/code", "/a/b/c", "/wei\"rd\\"] {
            for text in ["bad_key", "the \"key\" is bad", "back\\slash", "line\nbreak\u{1}", "schlüssel"] {
                let rows = [Row::new(401, field, Some(text), Meaning::KeyRefused)];
                let body = rows[0].body().unwrap();
                assert_eq!(meaning(&rows, 401, &body), Meaning::KeyRefused, "{body}");
            }
        }
    }

    #[test]
    fn the_documented_shapes_are_recognized() {
        let flat = r#"{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}"#;
        let nested = r#"{"error":{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}}"#;
        let invalid = r#"{"message":"m","errors":{"phone":["required"]}}"#;
        assert_eq!(meaning(KATANA, 401, flat), Meaning::KeyRefused);
        assert_eq!(meaning(KATANA, 401, nested), Meaning::KeyRefused);
        assert_eq!(meaning(KANAL, 422, invalid), Meaning::RequestInvalid);
        assert!(meaning(KANAL, 422, invalid).accepts_key(), "Kanal documents that it checks the key first");
        for details in [r#"{"details":[]}"#, r#"{"error":{"details":[]}}"#] {
            assert_eq!(meaning(KATANA, 422, details), Meaning::ContentRefused);
            assert!(!meaning(KATANA, 422, details).accepts_key(), "Katana does not document it");
        }
        assert_eq!(meaning(KANAL, 400, r#"{"error":"any"}"#), Meaning::StoreMissing);
        assert!(!Meaning::StoreNotFound.accepts_key() && !Meaning::StoreForbidden.refuses_key());
        assert!(KATANA.iter().all(|row| row.status() != 401 || row.meaning().refuses_key()));
        let nested = Row::new(401, "/error/code", Some("bad_key"), Meaning::KeyRefused);
        assert_eq!(nested.body().as_deref(), Some(r#"{ "error": { "code": "bad_key" } }"#));
    }

    #[test]
    fn an_answer_without_a_row_is_inconclusive() {
        let refused = r#"{ "error": "Invalid API key" }"#;
        for (status, body) in [
            (401, ""),
            (401, "<html>proxy</html>"),
            (401, r#"{"error":"Unauthorized"}"#),
            (401, r#"{"error":{"name":"Invalid API key"}}"#),
            (401, r#"["Invalid API key"]"#),
            (401, "{ \"error\": \"Invalid API key\""),
            (403, refused),
            (404, refused),
            (407, refused),
            (301, refused),
            (500, refused),
            (503, ""),
            (0, ""),
            (999, refused),
        ] {
            assert_eq!(meaning(KANAL, status, body), Meaning::Inconclusive, "{status} {body}");
        }
        let padded = format!("{}{refused}", " ".repeat(MAX_BODY));
        assert_eq!(meaning(KANAL, 401, &padded), Meaning::Inconclusive);
        let deep = "[".repeat(MAX_BODY);
        assert_eq!(meaning(KANAL, 401, &deep), Meaning::Inconclusive);
    }

    #[test]
    fn retry_after_is_read_in_seconds_only() {
        let read = |value: &[u8]| classify(KATANA, 429, Some(value), b"").retry_after();
        assert_eq!(read(b"30"), Some(Duration::from_secs(30)));
        for value in
            [&b""[..], b"-1", b"+5", b"1.5", b"99999999999", b"\xff", b"Wed, 21 Oct 2026 07:28:00 GMT"]
        {
            assert_eq!(read(value), None);
        }
    }
}
