//! Sending one request to whichever of the named servers takes it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{HeaderValue, Method, Request};

use super::index::Index;
use super::{MAX_ANSWER, OpenBaoError, json};
use crate::failure::Obstacle;
use crate::internal::back_off::random_part;
use crate::internal::bytes::WipedBytes;
use crate::internal::lock::Lock;
use crate::key::{Origin, Roots, Scheme};
use crate::outgoing::{Kept, Outgoing, Reply};

/// How long to wait before a request is sent once more: at first, and at most. Each is shortened at random by up to a half.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How often one request follows to another member without a pause.
const MAX_REDIRECTS: u32 = 4;

/// What was read or written last, as the server itself calls it: whoever answers next has to have seen it.
const INDEX: &str = "x-vault-index";

/// What a standby that has not seen it does: it asks the active node. Without this header it refuses the call (OpenBao 2.7 with
/// a 429), and without the other one it answers from its own store.
const INCONSISTENT: &str = "x-vault-inconsistent";

/// What a node says of an engine that it has just mounted, with a 400.
const NOT_READY: &str = "will be unavailable for a brief period";

/// The servers that a token may go to, and the connections to them.
pub(super) struct Servers {
    pub(super) members: Vec<Origin>,
    /// What stands before `/v1/` in each path, with its slash; nothing, unless a proxy serves OpenBao below a path.
    pub(super) prefix: String,
    /// Whether the token may go out in the clear.
    pub(super) is_plain: bool,
    pub(super) namespace: Option<HeaderValue>,
    pub(super) roots: Option<Roots>,
    kept: Kept,
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
    #[cfg_attr(not(feature = "rotation"), allow(dead_code, reason = "only a write asks"))]
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
            kept: Kept::default(),
            preferred: AtomicUsize::new(0),
            index: Lock::default(),
        }
    }

    /// As it is, with no connections of its own yet.
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
            // From the one whose turn it was: where it pointed is not to hide the one after it.
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
            self.kept.send(&outgoing, request)
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
        let scheme = if location.scheme_str()? == "https" { Scheme::Https } else { Scheme::Http };
        let origin = Origin::from_authority(scheme, location.authority()?.as_str()).ok()?;
        self.members.iter().position(|member| *member == origin)
    }
}

/// Whether one of an answer's errors has these words.
pub(super) fn says(body: &[u8], words: &str) -> bool {
    let errors = json::Errors::read(body).and_then(|answer| answer.errors).unwrap_or_default();
    let says = |text: &[u8]| text.windows(words.len()).any(|part| part == words.as_bytes());
    errors.into_iter().filter_map(json::text).any(|error| says(&error))
}

/// So that processes that were refused together do not come again together.
fn shortened(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - random_part() / 2.0)
}
