//! Reads a request's headers.

use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderName};

use crate::failure::Meaning;
use crate::key::KeyFormat;

/// The authentication scheme, in any case (RFC 9110, section 11.1).
const SCHEME: &[u8] = b"bearer";

/// How many spaces may separate the scheme and the key. RFC 9110 sets no limit.
const MAX_SPACES: usize = 64;

/// The headers, besides `Origin`, that only browsers send. `Sec-Fetch-Mode` is not one: Node's `fetch` sends
/// it from servers.
const BROWSER: [&str; 3] = ["sec-fetch-site", "sec-fetch-dest", "sec-fetch-user"];

/// What a request's headers say about its sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials<'a> {
    /// A text in the issuer's format, or the reason why there is none.
    pub(super) key: Result<&'a [u8], Meaning>,
    /// Whether a browser sent the request.
    pub(super) is_from_browser: bool,
}

impl<'a> Credentials<'a> {
    /// Reads the headers once.
    ///
    /// Only a request without an `Authorization` header has no key. Anything else in the header, and several
    /// headers, count as an unknown key: RFC 6750 also allows 400, but Kanal documents no row for that.
    pub(super) fn read(headers: &'a HeaderMap, format: &KeyFormat) -> Self {
        let mut authorization = None;
        let (mut several, mut is_from_browser) = (false, false);
        for (name, value) in headers {
            if name == AUTHORIZATION {
                several |= authorization.replace(value.as_bytes()).is_some();
            } else {
                is_from_browser |= is_sent_by_browsers(name);
            }
        }
        let key = match authorization {
            None => Err(Meaning::KeyMissing),
            Some(value) if !several => key(value, format).ok_or(Meaning::KeyRefused),
            Some(_) => Err(Meaning::KeyRefused),
        };
        Self { key, is_from_browser }
    }
}

/// Returns whether a browser sent a request with these headers.
pub(crate) fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.keys().any(is_sent_by_browsers)
}

fn is_sent_by_browsers(name: &HeaderName) -> bool {
    name == ORIGIN || BROWSER.contains(&name.as_str())
}

/// Returns the key in the value of an `Authorization` header, if it is well-formed. A value that is too long
/// is not read.
fn key<'a>(value: &'a [u8], format: &KeyFormat) -> Option<&'a [u8]> {
    let longest = *format.lengths().end();
    if value.len() > SCHEME.len() + MAX_SPACES + longest {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    if !scheme.eq_ignore_ascii_case(SCHEME) || spaces == 0 || spaces > MAX_SPACES {
        return None;
    }
    Some(&rest[spaces..]).filter(|key| format.accepts(key))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::key::{Issuer, Kanal};

    const KEY: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

    fn read(headers: &HeaderMap) -> Result<&[u8], Meaning> {
        Credentials::read(headers, Kanal::PROFILE.format()).key
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
        for values in
            [[good.as_bytes(), good.as_bytes()], [b"", good.as_bytes()], [good.as_bytes(), b"Basic x"]]
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
            assert_eq!(
                Credentials::read(&headers, Kanal::PROFILE.format()).is_from_browser,
                browser,
                "{name}"
            );
        }
    }
}
