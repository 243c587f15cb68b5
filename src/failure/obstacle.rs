//! What stands in the way of an answer.

use std::time::Duration;

/// Why an issuer gave no answer that can be read. None of these says anything about the key, and none holds a
/// byte of what was sent or received.
///
/// ```
/// use keysheath::failure::Obstacle;
///
/// let redirect = Obstacle::Redirect { status: 302 };
/// assert!(redirect.to_string().starts_with("302: the server points elsewhere, and the key was not taken along"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The key is another issuer's; nothing was sent.
    #[error(
        "this is a key of {key}, and {asked} was to be asked, so nothing was sent; next: ask with a probe for {key}"
    )]
    OtherIssuer {
        /// The name of the issuer of the key.
        key: &'static str,
        /// The name of the issuer that was to be asked.
        asked: &'static str,
    },
    /// The origin guard did not let the key onto the request; nothing was sent.
    #[error(
        "the origin guard did not give the request the key, so nothing was sent; next: check that the key is not a \
         part of the request's path"
    )]
    Guarded,
    /// The deadline passed before the whole answer was there.
    #[error(
        "no whole answer within {after:?}; next: ask again later, or with a longer deadline, and look at what stands \
         between you and the issuer; keep the key"
    )]
    Deadline {
        /// The deadline.
        after: Duration,
    },
    /// The host's name has no address.
    #[error(
        "the host's name was not found; next: check the origin, and this machine's name service; keep the key"
    )]
    HostNotFound,
    /// Nothing listens at the host and port.
    #[error("nothing listens there; next: check the origin's host and port; keep the key")]
    NotListening,
    /// The network did not let the connection through.
    #[error(
        "the host cannot be reached; next: check this machine's network, routes and firewall; keep the key"
    )]
    Unreachable,
    /// The connection ended before the whole answer was there.
    #[error(
        "the connection ended before the whole answer was there; next: ask again later, and look at what stands \
         between you and the issuer; keep the key"
    )]
    Broken,
    /// There is no TLS with a server that a trusted authority vouches for; nothing was sent.
    #[error(
        "no TLS connection to a server that a trusted authority vouches for, so nothing was sent; next: check the \
         origin and this machine's clock, and name the authority if it is one of your own; keep the key"
    )]
    Tls,
    /// The server points to another place.
    #[error(
        "{status}: the server points elsewhere, and the key was not taken along; next: check the origin, and look at \
         what stands between you and the issuer; keep the key"
    )]
    Redirect {
        /// The HTTP status.
        status: u16,
    },
    /// A success with a web page in it, where the issuer answers with JSON.
    #[error(
        "{status}: a web page came, and the issuer sends none; next: look at what stands between you and the issuer, \
         such as a sign-in page; keep the key"
    )]
    WebPage {
        /// The HTTP status.
        status: u16,
    },
    /// The answer is larger than any that the issuer documents.
    #[error(
        "the answer is larger than {limit} bytes; next: check the origin, and look at what stands between you and the \
         issuer; keep the key"
    )]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// What came is not HTTP.
    #[error(
        "what answered does not speak HTTP; next: check the origin's scheme, host and port; keep the key"
    )]
    NotHttp,
    /// Something else failed on this machine.
    #[error(
        "the request failed on this machine; next: ask again later, and check its limits on memory, \
             threads and open files; keep the key"
    )]
    Local,
}
