//! What the probes share: whom they ask, how long they wait, and reading the answer.

use std::fmt;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, HeaderValue};
use zeroize::Zeroizing;

use crate::client::{BearerHeader, OriginGuard};
use crate::failure::{Answer, Obstacle};
use crate::key::{Issuer, RawKey, Roots};
use crate::outgoing::{self, Outgoing};

/// How long one request of a probe may take unless told otherwise, from looking up the host's name to the last byte
/// of the answer: 10 s.
///
/// ```
/// assert_eq!(keysheath::probe::DEFAULT_DEADLINE.as_secs(), 10);
/// ```
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How long one request of a probe may take at most; a longer deadline counts as this.
///
/// ```
/// assert_eq!(keysheath::probe::MAX_DEADLINE.as_secs(), 60 * 60);
/// ```
pub const MAX_DEADLINE: Duration = outgoing::MAX_DEADLINE;

/// The largest body of an answer that is read, in bytes; a larger one is inconclusive.
///
/// ```
/// assert_eq!(keysheath::probe::MAX_ANSWER, 64 * 1024);
/// ```
pub const MAX_ANSWER: usize = outgoing::MAX_ANSWER;

/// Asks issuer `I` at one origin.
pub(super) struct Asking<I: Issuer> {
    guard: OriginGuard<I>,
    outgoing: Outgoing,
}

impl<I: Issuer> Asking<I> {
    pub(super) fn new() -> Self {
        Self { guard: OriginGuard::new(), outgoing: Outgoing::new(DEFAULT_DEADLINE, MAX_ANSWER) }
    }

    pub(super) fn at(mut self, guard: OriginGuard<I>) -> Self {
        self.guard = guard;
        self
    }

    pub(super) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.outgoing = self.outgoing.with_deadline(deadline);
        self
    }

    pub(super) fn with_roots(mut self, roots: Roots) -> Self {
        self.outgoing = self.outgoing.with_roots(roots);
        self
    }

    /// The header for a key of this issuer.
    pub(super) fn header(key: &RawKey) -> Result<BearerHeader<I>, Obstacle> {
        let (name, asked) = (key.profile().name(), I::PROFILE.name());
        BearerHeader::of_raw(key).ok_or(Obstacle::OtherIssuer { key: name, asked })
    }

    /// Sends one request and reads the answer. `request` has a path and no origin.
    pub(super) fn ask(
        &self,
        header: &BearerHeader<I>,
        mut request: Request<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Obstacle> {
        let uri = format!("{}{}", self.guard.origin(), request.uri());
        *request.uri_mut() = uri.parse().map_err(|_| Obstacle::Guarded)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.guard.authorize(&mut request, header).map_err(|_| Obstacle::Guarded)?;
        let reply = self.outgoing.send(request)?;
        // A sign-in page of something in between comes with a 200. Any other answer is read by the issuer's table.
        if reply.is_web_page && (200..300).contains(&reply.status) {
            return Err(Obstacle::WebPage { status: reply.status });
        }
        Ok(I::PROFILE.classify(reply.status, reply.retry_after(), &reply.body))
    }
}

impl<I: Issuer> Clone for Asking<I> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), outgoing: self.outgoing.clone() }
    }
}

impl<I: Issuer> fmt::Debug for Asking<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.guard, self.outgoing)
    }
}
