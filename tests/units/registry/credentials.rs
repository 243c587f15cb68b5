//! Reading the headers of a request: one key, in one header, from a server or a browser.

use http::HeaderValue;

use super::*;
use crate::key::{Issuer, Kanal};

const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

fn read(headers: &HeaderMap) -> Result<&[u8], Meaning> {
    presented(headers, Kanal::PROFILE.format())
}

fn with(values: &[&[u8]]) -> HeaderMap {
    let value = |value: &&[u8]| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
    values.iter().map(value).collect()
}

#[test]
fn a_well_formed_header_is_read_in_each_spelling() {
    for value in [
        format!("Bearer {KEY}"),
        format!("bearer {KEY}"),
        format!("BEARER {KEY}"),
        format!("bEaReR    {KEY}"),
        format!("Bearer{}{KEY}", " ".repeat(MAX_SPACES)),
    ] {
        assert_eq!(read(&with(&[value.as_bytes()])), Ok(KEY.as_bytes()), "{value}");
    }
}

#[test]
fn no_header_is_a_missing_key_and_a_malformed_one_is_unknown() {
    assert_eq!(read(&HeaderMap::new()), Err(Meaning::KeyMissing));
    let good = format!("Bearer {KEY}");
    let malformed = [
        String::new(),
        " ".to_owned(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer      ".to_owned(),
        KEY.to_owned(),
        format!("Bearer{KEY}"),
        format!("Bearer\t{KEY}"),
        format!("Bearer \t{KEY}"),
        format!(" Bearer {KEY}"),
        format!("Bearer {KEY} "),
        format!("Bearer {KEY}\t"),
        format!("Bearer {KEY},"),
        format!("Bearer {KEY}, Bearer {KEY}"),
        format!("Bearer {KEY} {KEY}"),
        format!("Bearer \"{KEY}\""),
        format!("Bearer token={KEY}"),
        format!("Bearer: {KEY}"),
        format!("Basic {KEY}"),
        format!("Token {KEY}"),
        format!("Bear {KEY}"),
        format!("Bearers {KEY}"),
        format!("Bearer Bearer {KEY}"),
        format!("Bearer {}", &KEY[1..]),
        format!("Bearer {KEY}A"),
        format!("Bearer {}!", &KEY[1..]),
        format!("Bearer ={}", &KEY[1..]),
        format!("Bearer {}", "A".repeat(1_000_000)),
        format!("Bearer{}{KEY}", " ".repeat(MAX_SPACES + 1)),
        format!("Bearer{}", " ".repeat(1_000_000)),
        format!("Bearer \u{feff}{}", &KEY[3..]),
        format!("Bearer\u{a0}{KEY}"),
    ];
    for value in &malformed {
        assert_eq!(read(&with(&[value.as_bytes()])), Err(Meaning::KeyRefused), "{value:.100}");
    }
    assert_eq!(read(&with(&[b"Bearer \xff\xfe"])), Err(Meaning::KeyRefused));
    for values in [[good.as_bytes(), good.as_bytes()], [b"", good.as_bytes()], [good.as_bytes(), b"Basic x"]]
    {
        assert_eq!(read(&with(&values)), Err(Meaning::KeyRefused), "two headers");
    }
}

#[test]
fn a_browser_is_recognized_by_its_headers() {
    for (name, browser) in [
        ("origin", true),
        ("sec-fetch-site", true),
        ("sec-fetch-dest", true),
        ("sec-fetch-user", true),
        ("sec-fetch-mode", false),
        ("sec-gpc", false),
        ("referer", false),
        ("user-agent", false),
    ] {
        let headers = [(http::HeaderName::from_static(name), HeaderValue::from_static("null"))];
        let headers: HeaderMap = headers.into_iter().collect();
        assert_eq!(Principal::has_browser_headers(&headers), browser, "{name}");
    }
}
