//! The answers of a token endpoint, the tokens in them, and what a store says of the grant that they become.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::grant::{self, Grant, Identity, Lease, Now, Timestamp};
use super::{GrantError, TokenError};
use crate::failure;
use crate::handle::Generation;
use crate::internal::bytes::WipedBytes;
use crate::internal::json_form::{read as read_object, text};
use crate::internal::time::{Clocks, doubled, random_number, random_part};
use crate::key::{ApiKey, Issuer};
use crate::outgoing::Reply;
use crate::store::{DocumentError, DocumentStore};

/// The bounds of the lifetime of an access token.
pub(super) const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A token response. The refresh token cannot be had again, so it is kept whatever is wrong with the rest.
pub(super) struct TokenResponse<I: Issuer> {
    /// `None` if the server sent none: the old one stays valid (RFC 6749, section 6).
    pub(super) refresh: Option<WipedBytes>,
    /// With its lifetime.
    pub(super) access: Result<(ApiKey<I>, Duration), TokenError>,
}

/// RFC 6749, section 5.1; other fields are ignored.
#[derive(Deserialize)]
struct SuccessFields<'a> {
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
struct ErrorFields<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The error codes that are about the app: RFC 6749, section 5.2, and RFC 8707.
const APP_CODES: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

/// Reads the tokens, or why there are none.
pub(super) fn read<I: Issuer>(
    reply: &Reply,
    default_lifetime: Duration,
) -> Result<TokenResponse<I>, TokenError> {
    let status = reply.status;
    if !(200..300).contains(&status) {
        return Err(refusal(reply));
    }
    let Some(answer) = first_object::<SuccessFields<'_>>(&reply.body) else {
        // A proxy's sign-in page comes with a 200.
        return Err(if reply.is_web_page {
            TokenError::Inconclusive { status, retry_after: None }
        } else {
            TokenError::NotTokens { status, rule: "it is not a JSON object of that kind" }
        });
    };
    let refresh = answer.refresh_token.and_then(text).filter(|token| grant::is_refresh_token(token));
    let lifetime = answer.expires_in.and_then(lifetime).unwrap_or(default_lifetime);
    let access = access(&answer).map(|access| (access, lifetime));
    Ok(TokenResponse { refresh, access: access.map_err(|rule| TokenError::NotTokens { status, rule }) })
}

fn access<I: Issuer>(answer: &SuccessFields<'_>) -> Result<ApiKey<I>, &'static str> {
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
    let answer: Option<ErrorFields<'_>> = read_object(&reply.body);
    let Some(code) = answer.and_then(|answer| text(answer.error?)) else {
        return TokenError::Inconclusive { status, retry_after };
    };
    if *code == *b"invalid_grant" {
        return TokenError::Refused { status };
    }
    match APP_CODES.iter().find(|known| known.as_bytes() == &*code) {
        Some(code) => TokenError::AppRefused { status, code },
        None => TokenError::Inconclusive { status, retry_after },
    }
}

/// How often [`Tokens::save`] tries when other processes write at the same time.
const TRIES: u32 = 16;

/// The pause between two tries doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// An access token and a refresh token of a sign-in. Save them first: the code that they came for cannot be
/// used again. If saving fails, they can be saved again or in another place.
#[must_use = "they are lost unless they are saved"]
pub struct Tokens<I: Issuer> {
    access: ApiKey<I>,
    refresh: WipedBytes,
    lifetime: Duration,
    /// When the server was asked.
    asked: Clocks,
    /// Tells this sign-in from others.
    id: u64,
    is_saved: AtomicBool,
    identity: Identity,
}

/// The outcome of a refresh.
pub(super) struct Refreshed<I: Issuer> {
    pub(super) answer: TokenResponse<I>,
    /// When the server was asked.
    pub(super) asked: Clocks,
}

impl<I: Issuer> Refreshed<I> {
    /// Returns the grant after `before`, and what is wrong with the new access token; the grant keeps the old
    /// one then.
    pub(super) fn into_grant(self, before: &Grant) -> (Grant, Option<TokenError>) {
        let mut grant = before.with_lease(None);
        grant.serial += 1;
        if let Some(refresh) = self.answer.refresh {
            grant.refresh = refresh;
        }
        match self.answer.access {
            Err(error) => (grant, Some(error)),
            Ok((access, lifetime)) => {
                grant.number += 1;
                grant.access = access.into_raw();
                grant.expires = end(self.asked, lifetime);
                grant.lifetime = lifetime;
                (grant, None)
            }
        }
    }
}

/// Returns when an access token ends that was asked for at this time.
fn end(asked: Clocks, lifetime: Duration) -> Timestamp {
    Timestamp::of(asked.wall().checked_add(lifetime).unwrap_or(asked.wall()))
}

impl<I: Issuer> Tokens<I> {
    pub(super) fn of_sign_in(
        (access, lifetime): (ApiKey<I>, Duration),
        refresh: WipedBytes,
        asked: Clocks,
        identity: Identity,
    ) -> Self {
        let id = random_number().max(1);
        Self { access, refresh, lifetime, asked, id, is_saved: AtomicBool::new(false), identity }
    }

    /// Returns the access token alone, such as for one request of a command-line tool.
    #[must_use]
    pub const fn access(&self) -> &ApiKey<I> {
        &self.access
    }

    /// Returns the lifetime of the access token, from the request for it.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Writes the tokens to a document store as its grant. A grant of the same app there is replaced; each
    /// keeper of that store then uses the new tokens and sends
    /// [`KeeperEvent::Replaced`](super::KeeperEvent::Replaced). Blocks as the store does.
    ///
    /// After a failure, they can be saved again: if the failed call did write them, the next one finds them.
    /// Once they are saved, they cannot be saved in another place, because two places would use one refresh
    /// token twice.
    ///
    /// # Errors
    /// [`GrantError`] if the store cannot be used, or holds something else; [`GrantError::SavedElsewhere`].
    pub fn save(&self, store: &dyn DocumentStore) -> Result<(), GrantError> {
        for tries in 0..TRIES {
            let there = grant::read(store, &self.identity)?;
            if there.as_ref().is_some_and(|(there, _)| there.id == self.id) {
                self.is_saved.store(true, Ordering::Relaxed);
                return Ok(());
            }
            if self.is_saved.load(Ordering::Relaxed) {
                return Err(GrantError::SavedElsewhere);
            }
            let grant = self.grant_after(there.as_ref().map(|(there, _)| there));
            let content = grant.to_document(&self.identity)?;
            match store.write(&content, there.as_ref().map(|(_, version)| version)) {
                Err(DocumentError::Conflict) => {
                    thread::sleep(doubled(PAUSE.0, tries, PAUSE.1).mul_f64(0.5 + random_part() / 2.0));
                }
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.is_saved.store(true, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        Err(DocumentError::Conflict.into())
    }

    /// Returns the grant to write after the one that is there.
    fn grant_after(&self, there: Option<&Grant>) -> Grant {
        Grant {
            lineage: there.map_or(self.id, |there| there.lineage),
            id: self.id,
            serial: there.map_or(0, |there| there.serial) + 1,
            number: there.map_or(0, |there| there.number) + 1,
            access: self.access.as_raw().clone_key(),
            refresh: WipedBytes::copy_of(&self.refresh),
            expires: end(self.asked, self.lifetime),
            lifetime: self.lifetime,
            is_refused: false,
            lease: None,
        }
    }
}

impl<I: Issuer> fmt::Debug for Tokens<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({:?}, for {} s)", self.access, self.lifetime.as_secs())
    }
}

/// The state of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantState {
    /// The next refresh is expected to succeed.
    Good,
    /// A refresh was begun and its outcome is unknown: the next one may be refused.
    InDoubt,
    /// The server has refused the refresh token: a person must sign in again.
    Refused,
}

impl fmt::Display for GrantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::InDoubt => {
                "in doubt: a refresh was begun and its outcome is unknown, so a person may have to sign in \
                 again"
            }
            Self::Refused => "refused by the server: a person must sign in again",
        })
    }
}

/// What a document store says of a grant, without its tokens; see
/// [`OAuthApp::grant_in`](super::OAuthApp::grant_in). Its `Display` is one line for a person.
#[derive(Clone, Copy, Debug)]
pub struct GrantView {
    generation: Generation,
    expires: Timestamp,
    lifetime: Duration,
    is_refused: bool,
    lease: Option<Lease>,
    read: Now,
}

impl PartialEq for GrantView {
    /// Whether both show the same grant, whenever each was read.
    fn eq(&self, other: &Self) -> bool {
        let shown = |view: &Self| (view.generation, view.expires, view.lifetime, view.is_refused, view.lease);
        shown(self) == shown(other)
    }
}

impl Eq for GrantView {}

impl GrantView {
    /// Reads the grant in a store.
    pub(super) fn read(store: &dyn DocumentStore, identity: &Identity) -> Result<Self, GrantError> {
        let (grant, _) = grant::read(store, identity)?.ok_or(GrantError::None)?;
        Ok(Self {
            generation: Generation::numbered(grant.number).ok_or(GrantError::None)?,
            expires: grant.expires,
            lifetime: grant.lifetime,
            is_refused: grant.is_refused,
            lease: grant.lease,
            read: Now::read(),
        })
    }

    /// Returns the number of the newest access token.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns how long the access token is valid from now: by the wall clock, or by the monotonic clock
    /// since the grant was read, whichever is less.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let now = Now::read().clocks;
        let then = self.remaining_at(self.read.clocks.wall());
        self.remaining_at(now.wall()).min(then.saturating_sub(now.at_most_since(self.read.clocks)))
    }

    /// Returns how long the access token is valid from this time, by the clock of the machine that requested
    /// it; at most its whole lifetime.
    #[must_use]
    pub fn remaining_at(&self, moment: SystemTime) -> Duration {
        self.expires.since(Timestamp::of(moment)).min(self.lifetime)
    }

    /// Returns the state: in doubt if a refresh was begun and, by the date in its lease, is over.
    #[must_use]
    pub fn state(&self) -> GrantState {
        let Now { clocks, boot } = self.read;
        match self.lease {
            _ if self.is_refused => GrantState::Refused,
            Some(lease) if lease.is_over_by_date(clocks.wall(), boot) => GrantState::InDoubt,
            _ => GrantState::Good,
        }
    }

    /// Returns whether a refresh is in progress, or was begun and its outcome is unknown.
    /// [`GrantView::state`] tells the two apart by the date of the lease.
    #[must_use]
    pub const fn has_lease(&self) -> bool {
        self.lease.is_some()
    }
}

impl fmt::Display for GrantView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access token {}, valid for {} s", self.generation, self.remaining().as_secs())?;
        match self.state() {
            GrantState::Good if self.has_lease() => {
                f.write_str("; a refresh is in progress, or was begun and its outcome is unknown")
            }
            GrantState::Good => Ok(()),
            state => write!(f, "; {state}"),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/units/oauth/token_response.rs"]
mod tests;
