//! The one table of answers that an issuer documents. The client, the registry and the emulator share it.
//!
//! A [`Row`] is data: a status, a place in the JSON body and the text at that place. The client
//! recognizes an answer by it, and the registry and the emulator answer with it.
//!
//! Only a row of the table says that a key is bad. A proxy's 401, a 5xx and a timeout are
//! [`Meaning::Inconclusive`], because discarding a good key after a doubtful answer is an outage.
//! Where there was no answer at all, an [`Obstacle`] says why.
//!
//! ```
//! use keysheath::failure::{Answer, Meaning, KANAL};
//!
//! let row = KANAL.iter().find(|row| row.meaning() == Meaning::KeyRefused).unwrap();
//! assert_eq!(row.status(), 401);
//! assert_eq!(row.body().as_deref(), Some(r#"{ "error": "Invalid API key" }"#));
//! assert_eq!(Answer::new(204, Meaning::Accepted).to_string(), "204: accepted");
//! ```

#[cfg(feature = "client")]
mod classify;

use std::fmt;
use std::time::Duration;

use crate::internal::bytes::{WipedBytes, append_json_text};

#[cfg(feature = "client")]
pub(crate) use classify::{MAX_BODY, classify, is_documented, seconds};

/// What an answer of an issuer means for the key that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// Any 2xx: the key, and the store if the path names one, were accepted.
    Accepted,
    /// The request carried no key.
    KeyMissing,
    /// The issuer does not know the key, or it was deleted.
    KeyRefused,
    /// The key is good, but not for this store.
    StoreForbidden,
    /// The store is unknown or paused; the key may be good.
    StoreNotFound,
    /// The path has no store id.
    StoreMissing,
    /// The key and the store were accepted; the content of the request was not.
    RequestInvalid,
    /// The content of the request was refused; the issuer does not document whether it checked the key first.
    ContentRefused,
    /// Too many requests; says nothing about the key.
    RateLimited,
    /// Not an answer that the issuer documents; says nothing about the key.
    Inconclusive,
}

impl Meaning {
    /// Returns whether the issuer itself said that the key is bad: true for [`Meaning::KeyRefused`] only.
    #[must_use]
    pub const fn refuses_key(self) -> bool {
        matches!(self, Self::KeyRefused)
    }

    /// Returns whether the answer shows that the issuer accepted the key, even if it refused the request.
    ///
    /// Kanal documents that it detects authentication and store problems before it validates a request, so
    /// its [`Meaning::RequestInvalid`] counts. (That nothing is written in that case is inferred.) Katana
    /// documents no such order, so its [`Meaning::ContentRefused`] does not count.
    #[must_use]
    pub const fn accepts_key(self) -> bool {
        matches!(self, Self::Accepted | Self::RequestInvalid)
    }

    const fn explanation(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::KeyMissing => "the request carried no key",
            Self::KeyRefused => "the key is unknown or was deleted",
            Self::StoreForbidden => "the key is good, but not for this store",
            Self::StoreNotFound => "the store is unknown or paused; the key may be good",
            Self::StoreMissing => "the request names no store",
            Self::RequestInvalid => "the key was accepted; the content of the request was not",
            Self::ContentRefused => "the content of the request was refused; this says nothing about the key",
            Self::RateLimited => "too many requests; this says nothing about the key",
            Self::Inconclusive => "not an answer that the issuer documents; this says nothing about the key",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Accepted => "nothing to do",
            Self::KeyMissing => {
                "send the key in an Authorization header, and look for a proxy that removes the header"
            }
            Self::KeyRefused => {
                "create a new key, put it where this one is stored, and delete this one if it is still listed"
            }
            Self::StoreForbidden => {
                "check the store id, and whether the key is restricted to another store; keep the key"
            }
            Self::StoreNotFound => {
                "check the store id with your contact at the issuer, and whether the store is paused; keep \
                 the key"
            }
            Self::StoreMissing => "put the numeric store id into the path",
            Self::RequestInvalid | Self::ContentRefused => {
                "correct the fields that the answer names; keep the key"
            }
            Self::RateLimited => {
                "wait as long as Retry-After says, then send the request again; keep the key"
            }
            Self::Inconclusive => {
                "send the request again later, and check what is between you and the issuer; keep the key"
            }
        }
    }
}

/// One documented answer.
///
/// ```
/// use keysheath::failure::{Meaning, Row};
///
/// /// A custom issuer that answers 401 with `{"code":"bad_key"}`.
/// const ROWS: &[Row] = &[Row::new(401, "/code", Some("bad_key"), Meaning::KeyRefused)];
/// assert_eq!(ROWS[0].body().as_deref(), Some(r#"{ "code": "bad_key" }"#));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    status: u16,
    field: &'static str,
    text: Option<&'static str>,
    meaning: Meaning,
    body: Option<&'static str>,
}

impl Row {
    /// Creates a row for an answer with this status, whose JSON body has `text` at `field`, a JSON Pointer
    /// (RFC 6901) without escapes. Where the issuer documents the shape only, `text` is `None`.
    #[must_use]
    pub const fn new(status: u16, field: &'static str, text: Option<&'static str>, meaning: Meaning) -> Self {
        Self { status, field, text, meaning, body: None }
    }

    /// Sets the whole body as the issuer documents it, where it has more in it than the text.
    #[must_use]
    pub const fn with_body(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns what the answer means.
    #[must_use]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Returns the body of this answer: as it is documented, or built from the text and its place. `None`
    /// where only the shape is documented.
    #[must_use]
    pub fn body(&self) -> Option<String> {
        if let Some(body) = self.body {
            return Some(body.to_owned());
        }
        let names = self.field.strip_prefix('/')?.split('/');
        let text = quoted(self.text?);
        Some(names.rev().fold(text, |inner, name| format!("{{ {}: {inner} }}", quoted(name))))
    }
}

/// Quotes a text as JSON.
fn quoted(text: &str) -> String {
    let mut quoted = WipedBytes::default();
    append_json_text(&mut quoted, text.as_bytes());
    String::from_utf8_lossy(&quoted).into_owned()
}

/// The answers of a custom issuer that names no rows of its own: what `RequireKeyLayer` (feature
/// `registry`) answers, and what its clients therefore understand. Each is the issuer's own answer, as any
/// other row is. An issuer with other answers names them in its profile, by `with_failures`.
pub const PLAIN: &[Row] = &[
    Row::new(401, "/error", Some("API key is missing"), Meaning::KeyMissing),
    Row::new(401, "/error", Some("Invalid API key"), Meaning::KeyRefused),
    Row::new(403, "/error", Some("API key does not authorize this store"), Meaning::StoreForbidden),
    Row::new(404, "/error", Some("Store not found or paused"), Meaning::StoreNotFound),
];

/// Kanal's answers. The first four rows and the last are its documented table, word for word; of the other
/// two it documents the shape.
pub const KANAL: &[Row] = &[
    Row::new(401, "/error", Some("API key is missing"), Meaning::KeyMissing),
    Row::new(401, "/error", Some("Invalid API key"), Meaning::KeyRefused),
    Row::new(403, "/error", Some("API key does not authorize this store"), Meaning::StoreForbidden),
    Row::new(404, "/error", Some("Store not found or paused"), Meaning::StoreNotFound),
    Row::new(400, "/error", None, Meaning::StoreMissing),
    Row::new(422, "/errors", None, Meaning::RequestInvalid),
    Row::new(429, "/message", Some("Too Many Attempts."), Meaning::RateLimited),
];

/// Katana's answers, in both documented shapes: flat, and nested under `error`.
///
/// Katana documents one 401 for a missing and for an invalid key; a 401 after a key was sent therefore means
/// that the key was refused. It does not document that it checks the key before the content of a request, so
/// its 422 says nothing about the key.
pub const KATANA: &[Row] = &[
    Row::new(401, "/name", Some("UnauthorizedError"), Meaning::KeyRefused)
        .with_body(r#"{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}"#),
    Row::new(401, "/error/name", Some("UnauthorizedError"), Meaning::KeyRefused)
        .with_body(r#"{"error":{"statusCode":401,"name":"UnauthorizedError","message":"Unauthorized"}}"#),
    Row::new(422, "/error/details", None, Meaning::ContentRefused),
    Row::new(422, "/details", None, Meaning::ContentRefused),
    Row::new(429, "/name", Some("TooManyRequests"), Meaning::RateLimited)
        .with_body(r#"{"statusCode":429,"name":"TooManyRequests","message":"Too Many Requests"}"#),
    Row::new(429, "/error/name", Some("TooManyRequests"), Meaning::RateLimited)
        .with_body(r#"{"error":{"statusCode":429,"name":"TooManyRequests","message":"Too Many Requests"}}"#),
];

/// A classified answer. Its `Display` says what happened and what to do next. No byte of the body is kept,
/// because a server may echo the key in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    meaning: Meaning,
    /// In seconds.
    retry_after: Option<u32>,
}

impl Answer {
    /// Creates an answer from what a custom probe has read of an issuer without a table.
    #[must_use]
    #[inline]
    pub const fn new(status: u16, meaning: Meaning) -> Self {
        Self { status, meaning, retry_after: None }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns what the answer means for the key.
    #[must_use]
    #[inline]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Returns how long the issuer asks to wait, from a `Retry-After` in seconds (the form that both issuers
    /// document).
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.retry_after {
            Some(seconds) => Some(Duration::from_secs(seconds as u64)),
            None => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, meaning) = (self.status, self.meaning);
        write!(f, "{status}: {}", meaning.explanation())?;
        if meaning != Meaning::Accepted {
            write!(f, "; next: {}", meaning.remedy())?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, " (Retry-After: {wait} s)")?;
        }
        Ok(())
    }
}

/// Why there is no readable answer of the issuer. No variant says anything about the key, and none holds a
/// byte of what was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The key is another issuer's; nothing was sent.
    #[error("this is a key of {key}, not of {asked}, so nothing was sent; next: use a probe for {key}")]
    OtherIssuer {
        /// The name of the issuer of the key.
        key: &'static str,
        /// The name of the issuer of the probe.
        asked: &'static str,
    },
    /// The origin guard did not put the key on the request; nothing was sent.
    #[error(
        "the origin guard did not put the key on the request, so nothing was sent; next: check that the key \
         is not part of the request's path"
    )]
    Guarded,
    /// The deadline passed before the whole answer had arrived.
    #[error(
        "no whole answer within {after:?}; next: try again later, or with a longer deadline, and check what \
         is between you and the issuer; keep the key"
    )]
    Deadline {
        /// The deadline.
        after: Duration,
    },
    /// The host's name has no address.
    #[error("the host's name was not found; next: check the origin and this machine's DNS; keep the key")]
    HostNotFound,
    /// Nothing listens at the host and port.
    #[error("nothing listens there; next: check the origin's host and port; keep the key")]
    NotListening,
    /// The network did not let the connection through.
    #[error(
        "the host cannot be reached; next: check this machine's network, routes and firewall; keep the key"
    )]
    Unreachable,
    /// The connection ended before the whole answer had arrived.
    #[error(
        "the connection ended before the whole answer had arrived; next: try again later, and check what is \
         between you and the issuer; keep the key"
    )]
    Broken,
    /// No TLS connection to a server with a trusted certificate; nothing was sent.
    #[error(
        "no TLS connection to a server with a trusted certificate, so nothing was sent; next: check the \
         origin and this machine's clock, and set the root certificates if the authority is your own; keep \
         the key"
    )]
    Tls,
    /// The server redirects to another URL.
    #[error(
        "{status}: the server redirects to another URL, and the key was not sent there; next: check the \
         origin, and what is between you and the issuer; keep the key"
    )]
    Redirect {
        /// The HTTP status.
        status: u16,
    },
    /// A success with a web page in it, where the issuer answers with JSON.
    #[error(
        "{status}: the answer is a web page, and the issuer sends none; next: check what is between you and \
         the issuer, such as a sign-in page; keep the key"
    )]
    WebPage {
        /// The HTTP status.
        status: u16,
    },
    /// The answer is larger than any that the issuer documents.
    #[error(
        "the answer is larger than {limit} bytes; next: check the origin, and what is between you and the \
         issuer; keep the key"
    )]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The server does not speak HTTP.
    #[error("the server does not speak HTTP; next: check the origin's scheme, host and port; keep the key")]
    NotHttp,
    /// Something else failed on this machine.
    #[error(
        "the request failed on this machine; next: try again later, and check its limits on memory, threads \
         and open files; keep the key"
    )]
    Local,
}
