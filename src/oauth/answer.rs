//! The encoding of requests to a token endpoint, its answers, and the secrets in both.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretBox};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AppProblem, TokenError};
use crate::failure;
use crate::internal::bytes::{WipedBytes, append_percent, percent_byte};
use crate::internal::json_form::{read as read_object, text};
use crate::key::{ApiKey, Issuer};
use crate::outgoing::Reply;

/// Writes an `application/x-www-form-urlencoded` form.
pub(super) fn encode_form(fields: &[(&str, &[u8])]) -> WipedBytes {
    // Each byte takes three at most, so the block never grows.
    let most = fields.iter().map(|(name, value)| (name.len() + value.len()) * 3 + 2).sum();
    let mut form = WipedBytes::with_capacity(most);
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            form.push(b'&');
        }
        append_percent(&mut form, name.as_bytes(), b"");
        form.push(b'=');
        append_percent(&mut form, value, b"");
    }
    form
}

/// A name and its value.
type Field = (WipedBytes, WipedBytes);

/// Returns the fields of a form, in order; `None` if a `%` is not followed by two hex digits.
pub(super) fn decode_form(form: &str) -> Option<Vec<Field>> {
    let field = |field: &str| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        Some((decode_part(name)?, decode_part(value)?))
    };
    form.split('&').filter(|part| !part.is_empty()).map(field).collect()
}

fn decode_part(text: &str) -> Option<WipedBytes> {
    let mut decoded = WipedBytes::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = match first {
            b'%' => {
                let (byte, after) = percent_byte(rest)?;
                rest = after;
                decoded.push(byte);
                continue;
            }
            b'+' => b' ',
            byte => *byte,
        };
        decoded.push(byte);
        rest = after;
    }
    Some(decoded)
}

/// The bounds of the lifetime of an access token.
pub(super) const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest secret but a refresh token, in bytes.
const MAX_SECRET: usize = 4096;

/// The longest refresh token, in bytes.
const MAX_REFRESH: usize = 8192;

/// A refresh token, a code or a verifier. Wiped when dropped, and never printed.
pub(super) struct Secret(SecretBox<[u8]>);

impl Secret {
    /// Takes 1 to 4,096 bytes of visible ASCII and spaces, which is what RFC 6749 (appendix A) allows.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let is_text = text.iter().all(|byte| (b' '..=b'~').contains(byte));
        let fits = (1..=MAX_SECRET).contains(&text.len());
        // One block of the exact size, so nothing is left behind by growing.
        (is_text && fits).then(|| Self(SecretBox::new(Box::from(text))))
    }

    /// Takes a refresh token of 1 to 8,192 bytes of any kind: it cannot be had again, so it is kept as it
    /// comes.
    pub(super) fn refresh_token(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_REFRESH).contains(&bytes.len()).then(|| Self(SecretBox::new(Box::from(bytes))))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    pub(super) fn duplicate(&self) -> Self {
        Self(SecretBox::new(Box::from(self.bytes())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A token response. The refresh token cannot be had again, so it is kept whatever is wrong with the rest.
pub(super) struct Answer<I: Issuer> {
    /// `None` if the server sent none: the old one stays valid (RFC 6749, section 6).
    pub(super) refresh: Option<Secret>,
    /// With its lifetime.
    pub(super) access: Result<(ApiKey<I>, Duration), TokenError>,
}

/// RFC 6749, section 5.1; other fields are ignored.
#[derive(Deserialize)]
struct Success<'a> {
    #[serde(borrow)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_token: Option<&'a RawValue>,
    #[serde(borrow)]
    token_type: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
}

/// RFC 6749, section 5.2.
#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Reads the tokens, or why there are none.
pub(super) fn read<I: Issuer>(reply: &Reply, default_lifetime: Duration) -> Result<Answer<I>, TokenError> {
    let status = reply.status;
    if !(200..300).contains(&status) {
        return Err(refusal(reply));
    }
    let Some(answer) = first_object::<Success<'_>>(&reply.body) else {
        // A proxy's sign-in page comes with a 200.
        return Err(if reply.is_web_page {
            TokenError::Inconclusive { status, retry_after: None }
        } else {
            TokenError::NotTokens { status, rule: "it is not a JSON object of that kind" }
        });
    };
    let refresh = answer.refresh_token.and_then(text).and_then(|token| Secret::refresh_token(&token));
    let lifetime = answer.expires_in.and_then(lifetime).unwrap_or(default_lifetime);
    let access = access(&answer).map(|access| (access, lifetime));
    Ok(Answer { refresh, access: access.map_err(|rule| TokenError::NotTokens { status, rule }) })
}

fn access<I: Issuer>(answer: &Success<'_>) -> Result<ApiKey<I>, &'static str> {
    let is_bearer = |kind: &RawValue| text(kind).is_some_and(|kind| kind.eq_ignore_ascii_case(b"bearer"));
    if answer.token_type.is_some_and(|kind| !is_bearer(kind)) {
        return Err("the token is of another type than Bearer");
    }
    let access = answer.access_token.ok_or("there is no access token")?;
    let access = text(access).and_then(|access| ApiKey::parse_bytes(&access).ok());
    access.ok_or("the access token is not well-formed")
}

/// Reads the object that a body begins with: neither a byte order mark nor trailing bytes may cost the
/// tokens.
fn first_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // The parser would also take an array, by the order of the fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    T::deserialize(&mut serde_json::Deserializer::from_slice(body)).ok()
}

/// The standard demands a number, and some servers send a string. `None` for anything but a positive number:
/// that must not cost the tokens beside it.
fn lifetime(seconds: &RawValue) -> Option<Duration> {
    let number = |text: &str| text.parse::<f64>().ok();
    let seconds = match text(seconds) {
        Some(text) => number(std::str::from_utf8(&text).ok()?)?,
        None => number(seconds.get())?,
    };
    if seconds.is_nan() || seconds <= 0.0 {
        return None;
    }
    let lifetime = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFETIME);
    Some(lifetime.clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME))
}

fn refusal(reply: &Reply) -> TokenError {
    let status = reply.status;
    let retry_after = reply.retry_after().and_then(failure::seconds);
    // Only the server's own code counts, and only in an answer about the request: not with a 429 or a 5xx.
    if !(400..500).contains(&status) || status == 429 {
        return TokenError::Inconclusive { status, retry_after };
    }
    let answer: Option<Failure<'_>> = read_object(&reply.body);
    let Some(code) = answer.and_then(|answer| text(answer.error?)) else {
        return TokenError::Inconclusive { status, retry_after };
    };
    if *code == *b"invalid_grant" {
        return TokenError::Refused { status };
    }
    match AppProblem::from_code(&code) {
        Some(problem) => TokenError::AppRefused { status, problem },
        None => TokenError::Inconclusive { status, retry_after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal::bytes::WipedBytes;
    use crate::key::KatanaApp;

    const ACCESS: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

    fn reply(status: u16, body: &str) -> Reply {
        let body = WipedBytes::copy_of(body.as_bytes());
        let is_web_page = body.starts_with(b"<");
        Reply { status, headers: http::HeaderMap::new(), is_web_page, body }
    }

    fn asked(status: u16, body: &str) -> Result<(ApiKey<KatanaApp>, Duration), TokenError> {
        read(&reply(status, body), Duration::from_secs(77))?.access
    }

    #[test]
    fn an_invalid_lifetime_costs_no_token() {
        for (text, seconds) in [
            ("3600", 3600.0),
            ("\"3600\"", 3600.0),
            ("1.5", 1.5),
            ("0.1", 1.0),
            ("0", 77.0),
            ("-5", 77.0),
            ("null", 77.0),
            ("\"soon\"", 77.0),
            ("\"NaN\"", 77.0),
            ("[1]", 77.0),
            ("{}", 77.0),
            ("1e300", 366.0 * 24.0 * 3600.0),
        ] {
            let body =
                format!(r#"{{"access_token":"{ACCESS}","refresh_token":"r","expires_in":{text},"x":{{}}}}"#);
            let lifetime = asked(200, &body).map(|(_, lifetime)| lifetime.as_secs_f64());
            assert_eq!(lifetime, Ok(seconds), "{text}");
        }
    }

    #[test]
    fn a_success_without_an_access_token_is_not_tokens() {
        for body in [
            "",
            "[]",
            r#"["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z","r","Bearer",3600]"#,
            "{}",
            r#"{"refresh_token":"r"}"#,
            r#"{"access_token":"short","refresh_token":"r"}"#,
            r#"{"access_token":"8fK2pX9mWq4Ld7Vb3Nc6 s1Z","refresh_token":"r"}"#,
            r#"{"access_token":"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z","refresh_token":"r","token_type":"DPoP"}"#,
            r#"{"access_token":"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z","refresh_token":"r""#,
        ] {
            let error = asked(200, body).map(|_| ()).unwrap_err();
            assert!(matches!(error, TokenError::NotTokens { .. }), "{body}: {error}");
        }
        assert_eq!(
            asked(200, "<html>").map(|_| ()),
            Err(TokenError::Inconclusive { status: 200, retry_after: None })
        );
    }

    #[test]
    fn the_refresh_token_is_kept_whatever_is_wrong_beside_it() {
        let long = "x".repeat(5000);
        for (rest, is_good) in [
            (format!(r#""access_token":"{ACCESS}","token_type":"bearer""#), true),
            (format!(r#""access_token":"{ACCESS}","expires_in":"never","scope":[]"#), true),
            (format!(r#""access_token":"{ACCESS}","expires_in":{{"x":1}}"#), true),
            (format!(r#""access_token":"{ACCESS}","token_type":"DPoP""#), false),
            (format!(r#""access_token":"{ACCESS}","token_type":7"#), false),
            (format!(r#""access_token":"{long}""#), false),
            (r#""access_token":"short""#.to_owned(), false),
            (r#""access_token":null"#.to_owned(), false),
            (r#""access_token":[1,{"a":2}]"#.to_owned(), false),
            (r#""scope":"x""#.to_owned(), false),
        ] {
            for (token, json) in [("new", "new"), ("a\n\u{e9}", r"a\n\u00e9")] {
                let object = format!(r#"{{{rest},"refresh_token":"{json}"}}"#);
                for body in [object.clone(), format!("\u{feff}{object}"), format!("{object}\n--\n<p>")] {
                    let answer = read::<KatanaApp>(&reply(200, &body), DEFAULT).unwrap();
                    assert_eq!(answer.refresh.unwrap().bytes(), token.as_bytes(), "{body}");
                    assert_eq!(answer.access.is_ok(), is_good, "{body}");
                }
            }
        }
        // With the wrong kind of content, as some proxies and servers label it.
        let mut page = reply(200, &format!(r#"{{"access_token":"{ACCESS}","refresh_token":"new"}}"#));
        page.is_web_page = true;
        assert_eq!(read::<KatanaApp>(&page, DEFAULT).unwrap().refresh.unwrap().bytes(), b"new");
        for none in [r#""""#, "null", "7"] {
            let body = format!(r#"{{"access_token":"{ACCESS}","refresh_token":{none}}}"#);
            assert!(read::<KatanaApp>(&reply(200, &body), DEFAULT).unwrap().refresh.is_none());
        }
    }

    const DEFAULT: Duration = Duration::from_secs(1);

    #[test]
    fn only_the_servers_own_code_refuses_the_grant() {
        let refusal = r#"{"error":"invalid_grant","error_description":"no"}"#;
        for status in [400, 401, 403] {
            assert_eq!(asked(status, refusal).map(|_| ()), Err(TokenError::Refused { status }));
        }
        for status in [429, 500, 502, 503, 504, 302, 199] {
            assert_eq!(
                asked(status, refusal).map(|_| ()),
                Err(TokenError::Inconclusive { status, retry_after: None })
            );
        }
        for body in [
            "",
            "<html>invalid_grant</html>",
            "{}",
            r#"{"error":5}"#,
            r#"{"error":"access_denied"}"#,
            r#"["invalid_grant"]"#,
        ] {
            assert_eq!(
                asked(400, body).map(|_| ()),
                Err(TokenError::Inconclusive { status: 400, retry_after: None }),
                "{body}"
            );
        }
        let problem = AppProblem::Client;
        let client = asked(401, r#"{"error":"invalid_client"}"#).map(|_| ());
        assert_eq!(client, Err(TokenError::AppRefused { status: 401, problem }));
    }

    #[test]
    fn a_form_round_trips_and_has_only_plain_characters() {
        let all: Vec<u8> = (0..=255).collect();
        let form = encode_form(&[("a b", &all), ("", b""), ("x", b"1&2=3")]);
        let text = std::str::from_utf8(&form).unwrap();
        assert!(text.starts_with("a%20b=%00%01") && text.ends_with("&=&x=1%262%3D3"), "{text}");
        let fields = decode_form(text).unwrap();
        let (name, value) = &fields[0];
        assert_eq!((&**name, &**value), (&b"a b"[..], all.as_slice()));
        assert_eq!(&*fields[2].1, b"1&2=3");
    }

    #[test]
    fn a_percent_sign_without_two_digits_is_not_a_form() {
        for form in ["a=%", "a=%4", "a=%zz", "%=1"] {
            assert!(decode_form(form).is_none(), "{form}");
        }
        assert_eq!(decode_form("a=1+2&&b").unwrap().len(), 2);
    }
}
