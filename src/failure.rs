//! The one table of answers that an issuer documents, shared by everything that reads or writes them.
//!
//! A [`Row`] is data: a status, a place in the JSON body and the text that stands there. The client
//! recognises an answer by it, and a server that stands in for the issuer answers with it.
//!
//! Nothing outside the table says that a key is bad. A proxy's 401, a 5xx, a time-out: all of them are
//! [`Meaning::Inconclusive`], because throwing away a good key on a doubtful answer is an outage. Where no answer
//! came at all, an [`Obstacle`] says why.
//!
//! ```
//! use keysheath::failure::{Meaning, KANAL};
//!
//! let row = KANAL.iter().find(|row| row.meaning() == Meaning::KeyRefused).unwrap();
//! assert_eq!(row.status(), 401);
//! assert_eq!(row.body().as_deref(), Some(r#"{ "error": "Invalid API key" }"#));
//! ```

#[cfg(feature = "client")]
mod classify;
mod obstacle;

use std::fmt;
use std::time::Duration;

#[cfg(feature = "client")]
pub(crate) use classify::{MAX_BODY, classify, is_documented, seconds};
pub use obstacle::Obstacle;

/// What an answer of an issuer means for the key that was sent.
///
/// ```
/// use keysheath::failure::Meaning;
/// assert!(Meaning::KeyRefused.refuses_key());
/// assert!(!Meaning::StoreForbidden.refuses_key());
/// assert!(!Meaning::RateLimited.refuses_key());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meaning {
    /// Any 2xx: the key, and the store if the path names one, were accepted.
    Accepted,
    /// The request carried no key.
    KeyMissing,
    /// The issuer does not know the key, or it was deleted.
    KeyRefused,
    /// The key is good, and not for this store.
    StoreForbidden,
    /// The store is unknown or paused; the key may be good.
    StoreNotFound,
    /// The path has no store id.
    StoreMissing,
    /// The key and the store passed, and the content of the request did not.
    RequestInvalid,
    /// The content of the request was refused; whether the key was looked at before is not documented.
    ContentRefused,
    /// Too many requests; says nothing about the key.
    RateLimited,
    /// Not an answer that the issuer documents; says nothing about the key.
    Inconclusive,
}

impl Meaning {
    /// Whether the issuer itself said that the key is bad. True for [`Meaning::KeyRefused`] only.
    ///
    /// ```
    /// # use keysheath::failure::Meaning;
    /// assert!(!Meaning::Inconclusive.refuses_key());
    /// ```
    #[must_use]
    pub const fn refuses_key(self) -> bool {
        matches!(self, Self::KeyRefused)
    }

    /// Whether the answer shows that the issuer accepted the key, whatever else it complained of.
    ///
    /// Kanal documents that it detects authentication and store problems before it validates a request, so its
    /// [`Meaning::RequestInvalid`] counts. (That nothing is written in that case is inferred.) Katana documents no
    /// such order, so its [`Meaning::ContentRefused`] does not.
    ///
    /// ```
    /// # use keysheath::failure::Meaning;
    /// assert!(Meaning::RequestInvalid.accepts_key());
    /// assert!(!Meaning::StoreNotFound.accepts_key());
    /// ```
    #[must_use]
    pub const fn accepts_key(self) -> bool {
        matches!(self, Self::Accepted | Self::RequestInvalid)
    }

    const fn explanation(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::KeyMissing => "the request carried no key",
            Self::KeyRefused => "the key is unknown or was deleted",
            Self::StoreForbidden => "the key is good, and not for this store",
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
                "send the key in an Authorization header, and look for a proxy that strips it"
            }
            Self::KeyRefused => {
                "create a new key, put it where this one is stored, and delete this one if it is still listed"
            }
            Self::StoreForbidden => {
                "check the store id, and whether the key is restricted to another store; keep the key"
            }
            Self::StoreNotFound => {
                "check the store id with your contact at the issuer, and whether the store is paused; keep the key"
            }
            Self::StoreMissing => "put the numeric store id into the path",
            Self::RequestInvalid | Self::ContentRefused => {
                "mend the fields that the answer names; keep the key"
            }
            Self::RateLimited => {
                "wait as long as Retry-After says, then send the request again; keep the key"
            }
            Self::Inconclusive => {
                "send the request again later, and look at what stands between you and the issuer; keep the key"
            }
        }
    }
}

/// One documented answer.
///
/// ```
/// use keysheath::failure::{Meaning, Row};
///
/// /// An issuer of your own that answers 401 with `{"code":"bad_key"}`.
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
    /// An answer with this status, whose JSON body has `text` at `field`, a JSON Pointer (RFC 6901) without escapes.
    /// Where the issuer documents the shape and not the text, `text` is `None`.
    ///
    /// ```
    /// use keysheath::failure::{Meaning, Row};
    /// const ROW: Row = Row::new(403, "/error/code", Some("no_store"), Meaning::StoreForbidden);
    /// ```
    #[must_use]
    pub const fn new(status: u16, field: &'static str, text: Option<&'static str>, meaning: Meaning) -> Self {
        Self { status, field, text, meaning, body: None }
    }

    /// With the whole body as the issuer documents it, where there is more in it than the telling text.
    ///
    /// ```
    /// use keysheath::failure::{Meaning, Row};
    /// const ROW: Row = Row::new(401, "/name", Some("Unauthorized"), Meaning::KeyRefused)
    ///     .with_body(r#"{"code":401,"name":"Unauthorized"}"#);
    /// assert_eq!(ROW.body().as_deref(), Some(r#"{"code":401,"name":"Unauthorized"}"#));
    /// ```
    #[must_use]
    pub const fn with_body(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }

    /// The HTTP status.
    ///
    /// ```
    /// assert_eq!(keysheath::failure::KANAL[0].status(), 401);
    /// ```
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What the answer means.
    ///
    /// ```
    /// # use keysheath::failure::{KANAL, Meaning};
    /// assert_eq!(KANAL[0].meaning(), Meaning::KeyMissing);
    /// ```
    #[must_use]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// The body of this answer: as it is documented, or made of the text and its place. `None` where only the shape is
    /// documented.
    ///
    /// ```
    /// use keysheath::failure::{KANAL, Meaning, Row};
    /// assert!(KANAL[0].body().unwrap().contains("API key is missing"));
    /// let nested = Row::new(401, "/error/code", Some("bad_key"), Meaning::KeyRefused);
    /// assert_eq!(nested.body().unwrap(), r#"{ "error": { "code": "bad_key" } }"#);
    /// ```
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

/// A text as JSON writes it.
fn quoted(text: &str) -> String {
    use fmt::Write as _;

    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\0'..='\x1f' => {
                // Writing to a `String` cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What an issuer of your own answers that names no rows of its own, through the feature
/// `registry`'s `RequireKeyLayer`, and what its clients therefore understand. Each is the issuer's own word, as any other row
/// is; an issuer that answers in other words names them in its profile, by `with_failures`.
///
/// ```
/// use keysheath::failure::{Meaning, PLAIN};
/// assert_eq!(PLAIN[1].meaning(), Meaning::KeyRefused);
/// ```
pub const PLAIN: &[Row] = &[
    Row::new(401, "/error", Some("API key is missing"), Meaning::KeyMissing),
    Row::new(401, "/error", Some("Invalid API key"), Meaning::KeyRefused),
    Row::new(403, "/error", Some("API key does not authorize this store"), Meaning::StoreForbidden),
    Row::new(404, "/error", Some("Store not found or paused"), Meaning::StoreNotFound),
];

/// Kanal's answers. The first four rows are its documented table, word for word, and so is the last; of the other two it
/// documents the shape.
///
/// ```
/// use keysheath::failure::{Meaning, KANAL};
/// assert_eq!(KANAL[2].meaning(), Meaning::StoreForbidden);
/// ```
pub const KANAL: &[Row] = &[
    Row::new(401, "/error", Some("API key is missing"), Meaning::KeyMissing),
    Row::new(401, "/error", Some("Invalid API key"), Meaning::KeyRefused),
    Row::new(403, "/error", Some("API key does not authorize this store"), Meaning::StoreForbidden),
    Row::new(404, "/error", Some("Store not found or paused"), Meaning::StoreNotFound),
    Row::new(400, "/error", None, Meaning::StoreMissing),
    Row::new(422, "/errors", None, Meaning::RequestInvalid),
    Row::new(429, "/message", Some("Too Many Attempts."), Meaning::RateLimited),
];

/// Katana's answers, in both of the documented shapes: flat, and nested under `error`.
///
/// Katana documents that a request without a valid key fails, and the same 401 for both cases; a 401
/// after a key was sent therefore means that the key was refused. That it looks at the key before it looks at the
/// content of a request is not documented, so its 422 says nothing about the key.
///
/// ```
/// use keysheath::failure::{Meaning, KATANA};
/// assert!(KATANA.iter().all(|row| row.status() != 401 || row.meaning() == Meaning::KeyRefused));
/// ```
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

/// An answer, classified. Its `Display` says what happened and what to do next; no byte of the body is
/// kept, because a server may echo the key in it.
///
/// ```
/// # #[cfg(feature = "client")] {
/// use keysheath::key::{Issuer, Kanal};
///
/// let answer = Kanal::PROFILE.classify(403, None, br#"{ "error": "API key does not authorize this store" }"#);
/// assert!(answer.to_string().contains("keep the key"));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    meaning: Meaning,
    retry_after: Option<Duration>,
}

impl Answer {
    /// An answer of an issuer that has no table, as a probe of your own read it.
    ///
    /// ```
    /// use keysheath::failure::{Answer, Meaning};
    /// assert_eq!(Answer::new(204, Meaning::Accepted).to_string(), "204: accepted");
    /// ```
    #[must_use]
    pub const fn new(status: u16, meaning: Meaning) -> Self {
        Self { status, meaning, retry_after: None }
    }

    /// The HTTP status.
    ///
    /// ```
    /// # #[cfg(feature = "client")] {
    /// # use keysheath::key::{Issuer, Kanal};
    /// assert_eq!(Kanal::PROFILE.classify(503, None, b"").status(), 503);
    /// # }
    /// ```
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What it means for the key.
    ///
    /// ```
    /// # #[cfg(feature = "client")] {
    /// # use keysheath::failure::Meaning;
    /// # use keysheath::key::{Issuer, Kanal};
    /// assert_eq!(Kanal::PROFILE.classify(200, None, b"{}").meaning(), Meaning::Accepted);
    /// # }
    /// ```
    #[must_use]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// How long the issuer asks to wait, from a `Retry-After` in seconds (the form that both document).
    ///
    /// ```
    /// # #[cfg(feature = "client")] {
    /// # use std::time::Duration;
    /// # use keysheath::key::{Issuer, Katana};
    /// let answer = Katana::PROFILE.classify(429, Some(b"7"), b"");
    /// assert_eq!(answer.retry_after(), Some(Duration::from_secs(7)));
    /// # }
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
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
            write!(f, " (Retry-After: {} s)", wait.as_secs())?;
        }
        Ok(())
    }
}
