//! The servers of a client: sending one request to the first of them that takes it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{HeaderValue, Method, Request};
use serde::Deserialize;

use super::json::says;
use super::{MAX_ANSWER, OpenBaoError};
use crate::failure::Obstacle;
use crate::internal::bytes::{WipedBytes, append_percent, decode_base64};
use crate::internal::threads::Lock;
use crate::internal::time::random_part;
use crate::key::{Origin, Roots};
use crate::outgoing::{Outgoing, Pool, Reply};

/// How long to wait before a request is sent once more: at first, and at most. Each is shortened at random by
/// up to a half.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How often one request follows to another member without a pause.
const MAX_REDIRECTS: u32 = 4;

/// The server's index of the last answer: the next server to answer must have reached it.
const INDEX: &str = "x-vault-index";

/// What a standby that has not seen it does: it asks the active node. Without this header it refuses the call
/// (OpenBao 2.7 with a 429), and without the other one it answers from its own store.
const INCONSISTENT: &str = "x-vault-inconsistent";

/// What a node says of an engine that it has just mounted, with a 400.
const NOT_READY: &str = "will be unavailable for a brief period";

/// The servers that a token may go to, and the connections to them.
pub(super) struct Servers {
    pub(super) members: Vec<Origin>,
    /// The path before `/v1/`, with its slash. Empty unless a proxy serves OpenBao below a path.
    pub(super) prefix: String,
    /// Whether the token may go out in the clear.
    pub(super) is_plain: bool,
    pub(super) namespace: Option<HeaderValue>,
    pub(super) roots: Option<Roots>,
    pool: Pool,
    /// The member that answered last.
    preferred: AtomicUsize,
    index: Lock<Option<Index>>,
}

/// A request, without the server that it goes to.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// What follows `/v1/`, encoded.
    pub(super) path: &'a str,
    pub(super) body: WipedBytes,
    /// Whether it may be done twice.
    pub(super) is_repeatable: bool,
}

/// What OpenBao said: one of the statuses 200, 204, 400, 403 and 404.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) body: WipedBytes,
    /// Whether the request was sent before, to a server that said that it did not take it.
    pub(super) was_repeated: bool,
}

/// What an exchange with one server means.
enum Outcome {
    Answered(Reply),
    /// Another member is to be asked, at once.
    Elsewhere(usize),
    Failed {
        error: OpenBaoError,
        /// The server has surely not done it.
        was_not_done: bool,
        may_pass: bool,
    },
}

impl Call<'_> {
    pub(super) fn get(path: &str) -> Call<'_> {
        Call { method: Method::GET, path, body: WipedBytes::default(), is_repeatable: true }
    }

    pub(super) fn post(path: &str, body: WipedBytes) -> Call<'_> {
        Call { method: Method::POST, path, body, is_repeatable: false }
    }
}

impl Servers {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            members: vec![origin],
            prefix: String::new(),
            is_plain: false,
            namespace: None,
            roots: None,
            pool: Pool::default(),
            preferred: AtomicUsize::new(0),
            index: Lock::default(),
        }
    }

    /// Copies the settings, without connections.
    pub(super) fn copy(&self) -> Self {
        Self {
            members: self.members.clone(),
            prefix: self.prefix.clone(),
            is_plain: self.is_plain,
            namespace: self.namespace.clone(),
            roots: self.roots.clone(),
            ..Self::new(self.members[0].clone())
        }
    }

    /// Sends a request until a server has taken it or nothing can be hoped for before `until`.
    pub(super) fn call(
        &self,
        call: &Call<'_>,
        token: Option<&HeaderValue>,
        until: Instant,
    ) -> Result<Answered, OpenBaoError> {
        let mut turn = self.preferred.load(Ordering::Relaxed) % self.members.len();
        let mut at = turn;
        let mut pause = PAUSES.0;
        let (mut redirects, mut sealed) = (0, 0);
        let mut was_repeated = false;
        loop {
            let (error, may_repeat) = match self.exchange(at, call, token, until) {
                Outcome::Answered(reply) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(Answered { status: reply.status, body: reply.body, was_repeated });
                }
                Outcome::Elsewhere(member) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    at = member;
                    continue;
                }
                // The cluster does not agree on who is the active one.
                Outcome::Elsewhere(_) => (OpenBaoError::NoActiveNode, true),
                Outcome::Failed { error, was_not_done, may_pass } => {
                    (error, may_pass && (was_not_done || call.is_repeatable))
                }
            };
            sealed += usize::from(error == OpenBaoError::Sealed);
            // Only a person unseals.
            let rest = until.saturating_duration_since(Instant::now());
            if !may_repeat || sealed >= self.members.len() || rest <= pause {
                return Err(error);
            }
            thread::sleep(shortened(pause));
            pause = (pause * 2).min(PAUSES.1);
            // Continue after the member whose turn it was, so that a redirect does not skip the next one.
            turn = (turn + 1) % self.members.len();
            at = turn;
            redirects = 0;
            was_repeated = true;
        }
    }

    fn exchange(&self, at: usize, call: &Call<'_>, token: Option<&HeaderValue>, until: Instant) -> Outcome {
        let rest = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let outgoing = Outgoing::new(Duration::ZERO, MAX_ANSWER).with_deadline(rest);
        let outgoing = match &self.roots {
            Some(roots) => outgoing.with_roots(roots.clone()),
            None => outgoing,
        };
        let Ok(uri) = http::Uri::try_from(format!("{}{}/v1/{}", self.members[at], self.prefix, call.path))
        else {
            let error = OpenBaoError::BadName { rule: "mount and path are too long for a URL" };
            return Outcome::Failed { error, was_not_done: true, may_pass: false };
        };
        let request = || {
            let mut request = Request::new(WipedBytes::copy_of(&call.body));
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = self.headers(token, !call.body.is_empty());
            request
        };
        let reply = if call.is_repeatable {
            self.pool.send(&outgoing, request)
        } else {
            outgoing.send_once(request())
        };
        match reply {
            Ok(reply) => self.judge(reply),
            Err(obstacle) => Outcome::Failed {
                error: OpenBaoError::NoAnswer(obstacle),
                was_not_done: matches!(
                    obstacle,
                    Obstacle::NotListening | Obstacle::Unreachable | Obstacle::HostNotFound | Obstacle::Tls
                ),
                may_pass: matches!(
                    obstacle,
                    Obstacle::NotListening
                        | Obstacle::Unreachable
                        | Obstacle::HostNotFound
                        | Obstacle::Broken
                ),
            },
        }
    }

    fn headers(&self, token: Option<&HeaderValue>, has_body: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // An agent may be set to refuse requests that a web page could make.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(namespace) = &self.namespace {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        if let Some(index) = &*self.index.lock() {
            headers.insert(INDEX, index.header());
        }
        if let Some(token) = token {
            headers.insert("x-vault-token", token.clone());
        }
        headers
    }

    fn judge(&self, reply: Reply) -> Outcome {
        let status = reply.status;
        let failed = |error, was_not_done, may_pass| Outcome::Failed { error, was_not_done, may_pass };
        if let Some(index) = reply.headers.get(INDEX) {
            let came = Index::new(index.clone());
            let mut there = self.index.lock();
            // Answers overtake each other on the way.
            if !there.as_ref().is_some_and(|there| there.is_newer_than(&came)) {
                *there = Some(came);
            }
        }
        match status {
            300..400 => match self.member(reply.headers.get(LOCATION)) {
                Some(member) => Outcome::Elsewhere(member),
                None if reply.headers.contains_key(LOCATION) => failed(OpenBaoError::Redirected, true, false),
                // A standby that does not know the active node yet.
                None => failed(OpenBaoError::NoActiveNode, true, true),
            },
            _ if reply.is_web_page => failed(OpenBaoError::NotOpenBao { status }, false, false),
            400 if says(&reply.body, NOT_READY) => failed(OpenBaoError::NotReady, true, true),
            200 | 204 | 400 | 403 | 404 => Outcome::Answered(reply),
            429 => failed(OpenBaoError::TooManyRequests, true, true),
            503 if says(&reply.body, "sealed") => failed(OpenBaoError::Sealed, true, true),
            // 412: it has not seen what was written last; 472 and 473: a standby of another kind.
            412 | 472 | 473 | 503 => failed(OpenBaoError::NoActiveNode, true, true),
            500..600 => failed(OpenBaoError::Failed { status }, false, true),
            400..500 => failed(OpenBaoError::Rejected { status }, true, false),
            _ => failed(OpenBaoError::NotOpenBao { status }, false, false),
        }
    }

    /// The member that a `Location` leads to.
    fn member(&self, location: Option<&HeaderValue>) -> Option<usize> {
        let location = location?.to_str().ok()?.parse::<http::Uri>().ok()?;
        let (scheme, authority) = (location.scheme_str()?, location.authority()?.as_str());
        self.members.iter().position(|member| member.is_at(scheme, authority))
    }
}

/// So that processes that were refused together do not come again together.
fn shortened(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - random_part() / 2.0)
}

/// What a server said of its state.
pub(super) struct Index {
    header: HeaderValue,
    /// The cluster, and how far it was. `None` where it is of another form: then which of two is the newer is
    /// not known.
    state: Option<(String, u64)>,
}

/// What OpenBao 2.7 writes, in base64.
#[derive(Deserialize)]
struct Form {
    cluster: String,
    value: String,
}

impl Index {
    pub(super) fn new(header: HeaderValue) -> Self {
        let state = decode_base64(header.as_bytes()).and_then(|json| {
            let Form { cluster, value } = serde_json::from_slice(&json).ok()?;
            Some((cluster, value.parse().ok()?))
        });
        Self { header, state }
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Whether it is surely newer: of the same cluster, and further.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (Some((cluster, value)), Some((other, than))) => cluster == other && value > than,
            _ => false,
        }
    }
}

/// The longest name, in bytes.
const MAX_NAME: usize = 512;

/// A name whose parts are separated by single slashes.
pub(super) fn check_name(name: &str) -> Result<(), OpenBaoError> {
    let bad = |rule| Err(OpenBaoError::BadName { rule });
    if name.is_empty() || name.len() > MAX_NAME {
        return bad("a mount, a path or a namespace has 1 to 512 bytes");
    }
    if name.chars().any(char::is_control) {
        return bad("a name has no control characters");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("the parts of a name are separated by single slashes, and none is empty, . or ..");
    }
    Ok(())
}

/// A name in a URL.
pub(super) fn encoded(name: &str) -> String {
    let mut encoded = WipedBytes::with_capacity(name.len());
    append_percent(&mut encoded, name.as_bytes(), b"/");
    String::from_utf8_lossy(&encoded).into_owned()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn index(json: &str) -> Index {
        Index::new(HeaderValue::from_str(&base64::prelude::BASE64_STANDARD.encode(json)).unwrap())
    }

    #[test]
    fn one_is_newer_only_where_that_is_sure() {
        let of = |cluster, value| index(&format!(r#"{{"cluster":"{cluster}","value":"{value}"}}"#));
        assert!(of("a", 38).is_newer_than(&of("a", 9)) && !of("a", 9).is_newer_than(&of("a", 38)));
        assert!(!of("a", 9).is_newer_than(&of("a", 9)) && !of("b", 38).is_newer_than(&of("a", 9)));
        for other in [index("v1:a:38"), index(r#"{"cluster":"a"}"#), index(r#"{"cluster":"a","value":"x"}"#)]
        {
            assert!(!of("a", 38).is_newer_than(&other) && !other.is_newer_than(&of("a", 1)));
        }
        // As a real server has written it.
        let real = "eyJjbHVzdGVyIjoiMGEwODE0ZTAtNGJlMC1iMzExLTY5OGMtYjIxYjQ5YzdjNDA2IiwidmFsdWUiOiIzOCJ9";
        assert_eq!(Index::new(HeaderValue::from_static(real)).state.unwrap().1, 38);
    }

    #[test]
    fn a_name_has_plain_parts_and_nothing_of_it_ends_a_path() {
        for name in ["secret", "team/secret", "shop sync/ä?#%"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "/secret", "secret/", "a//b", "a/../b", ".", "a\nb", &"a".repeat(513)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert_eq!(encoded("shop sync/ä?#%2e"), "shop%20sync/%C3%A4%3F%23%252e");
    }
}
