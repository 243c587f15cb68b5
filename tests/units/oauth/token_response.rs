//! What a token response may hold, and what is read from it.

use super::*;
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
                assert_eq!(&*answer.refresh.unwrap(), token.as_bytes(), "{body}");
                assert_eq!(answer.access.is_ok(), is_good, "{body}");
            }
        }
    }
    // With the wrong kind of content, as some proxies and servers label it.
    let mut page = reply(200, &format!(r#"{{"access_token":"{ACCESS}","refresh_token":"new"}}"#));
    page.is_web_page = true;
    assert_eq!(&*read::<KatanaApp>(&page, DEFAULT).unwrap().refresh.unwrap(), b"new");
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
    let client = asked(401, r#"{"error":"invalid_client"}"#).map(|_| ());
    assert_eq!(client, Err(TokenError::AppRefused { status: 401, code: "invalid_client" }));
}
