//! A grant: its written form, JSON with a version; the lease of the process that refreshes it; and when its
//! access token is due.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::GrantError;
use crate::internal::bytes::WipedBytes;
use crate::internal::json_form::{self, FormError, Kind, Value, Writer};
use crate::internal::time::{BootTime, Clocks};
use crate::key::{Fingerprint, Profile, RawKey};
use crate::store::{DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version};

/// The form that is written. Forms 1 to this one are read.
const GRANT_FORM_VERSION: u64 = 2;

/// The longest refresh token, in bytes.
const MAX_REFRESH: usize = 8192;

/// Whether a refresh token can be kept: 1 to 8,192 bytes of any kind, because it cannot be had again.
pub(super) fn is_refresh_token(bytes: &[u8]) -> bool {
    (1..=MAX_REFRESH).contains(&bytes.len())
}

/// The longest lifetime and lease that are read, in milliseconds: a little over two years.
const MAX_MILLIS: u64 = 1 << 36;

/// What a person has granted an app: the newest tokens, and how far they have come.
#[derive(Debug)]
pub(super) struct Grant {
    /// The first sign-in in this place, which tells its grants from those of other accounts; 0 in form 1.
    pub(super) lineage: u64,
    /// The sign-in of these tokens; 0 in form 1.
    pub(super) id: u64,
    /// Grows with every refresh token: of two documents, the one with the greater serial is the newer.
    pub(super) serial: u64,
    /// Grows with every access token; it is the generation in the handle.
    pub(super) number: u64,
    pub(super) access: RawKey,
    pub(super) refresh: WipedBytes,
    /// When the access token ends, by the clock of the machine that requested it.
    pub(super) expires: Timestamp,
    pub(super) lifetime: Duration,
    /// The server has refused the refresh token: a person must sign in again.
    pub(super) is_refused: bool,
    pub(super) lease: Option<Lease>,
}

/// The app and the server of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) profile: &'static Profile,
    pub(super) client: String,
    pub(super) server: String,
}

impl Identity {
    /// The lineage of this app's grants in a handle. What is hashed is not secret.
    pub(super) fn fingerprint(&self, lineage: u64) -> Fingerprint {
        let text = format!("{}\n{}\n{lineage}", self.client, self.server);
        Fingerprint::of("keysheath-grant", text.as_bytes())
    }
}

/// Forms 1 and 2.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(rename = "keysheath")]
    _kind: &'a str,
    #[serde(rename = "form")]
    _version: u64,
    #[serde(rename = "issuer")]
    _issuer: &'a str,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    server: Cow<'a, str>,
    /// These three from form 2 on.
    lineage: Option<u64>,
    id: Option<u64>,
    serial: Option<u64>,
    number: u64,
    expires: u64,
    lifetime: u64,
    /// In base64, both.
    #[serde(borrow)]
    access: &'a RawValue,
    #[serde(borrow)]
    refresh: &'a RawValue,
    refused: bool,
    lease: Option<LeaseForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseForm {
    holder: u64,
    length: u64,
    /// These from form 2 on.
    taken: Option<u64>,
    boot: Option<u64>,
    since_boot: Option<u64>,
}

const KIND: Kind = Kind { name: "grant", newest: GRANT_FORM_VERSION, limit: MAX_DOCUMENT };

const fn corrupt(rule: &'static str) -> GrantError {
    GrantError::Corrupt { rule }
}

impl From<FormError> for GrantError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::TooLarge => corrupt("it is larger than one can be"),
            FormError::Corrupt { rule } => corrupt(rule),
            FormError::Newer { found, known } => Self::Newer { found, known },
            FormError::OtherIssuer => Self::OtherApp { what: "issuer" },
        }
    }
}

/// Reads the grant of this app in a store.
pub(super) fn read(
    store: &dyn DocumentStore,
    identity: &Identity,
) -> Result<Option<(Grant, Version)>, GrantError> {
    let Some(document) = store.read()? else { return Ok(None) };
    let grant = Grant::from_document(identity, document.content().expose_secret())?;
    Ok(Some((grant, *document.version())))
}

impl Grant {
    /// Returns JSON with the tokens, to be stored as a key is.
    pub(super) fn to_document(&self, identity: &Identity) -> Result<DocumentContent, DocumentError> {
        let document = json_form::seal(KIND, GRANT_FORM_VERSION, identity.profile.name(), |form| {
            form.field("client", &*identity.client);
            form.field("server", &*identity.server);
            for (name, number) in [
                ("lineage", self.lineage),
                ("id", self.id),
                ("serial", self.serial),
                ("number", self.number),
                ("expires", self.expires.0),
                ("lifetime", millis(self.lifetime)),
            ] {
                form.field(name, number);
            }
            form.secret("access", self.access.expose_secret().as_bytes());
            form.secret("refresh", &self.refresh);
            form.field("refused", self.is_refused);
            match &self.lease {
                None => form.field("lease", Value::Null),
                Some(lease) => form.nested("lease", |fields| lease.write(fields)),
            }
        });
        if document.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge { limit: MAX_DOCUMENT });
        }
        Ok(document.into())
    }

    pub(super) fn from_document(identity: &Identity, document: &[u8]) -> Result<Self, GrantError> {
        let (version, form) = json_form::open::<Form<'_>>(KIND, identity.profile.name(), document)?;
        for (what, is_other) in [
            ("client id", form.client != identity.client),
            ("token endpoint", form.server != identity.server),
        ] {
            if is_other {
                return Err(GrantError::OtherApp { what });
            }
        }
        let has_serial = form.lineage.is_some() && form.id.is_some() && form.serial.is_some();
        if version > 1 && !has_serial {
            return Err(corrupt("a field is missing, unknown or not as it is written"));
        }
        let serial = form.serial.unwrap_or(form.number);
        let lengths = [form.lifetime, form.lease.as_ref().map_or(0, |lease| lease.length)];
        let begun = form.lease.as_ref().and_then(|lease| lease.taken).unwrap_or(1);
        // So that numbers can be added to and fit a signed one.
        let is_in_bounds = [form.number, serial, form.expires.max(1), begun.max(1)]
            .iter()
            .all(|number| (1..u64::MAX >> 1).contains(number));
        if !is_in_bounds || lengths.iter().any(|length| *length > MAX_MILLIS) {
            return Err(corrupt("a number in it is out of bounds"));
        }
        let token = |value| json_form::secret(value).ok_or(corrupt("a token in it is not base64"));
        let (access, refresh) = (token(form.access)?, token(form.refresh)?);
        Ok(Self {
            lineage: form.lineage.unwrap_or(0),
            id: form.id.unwrap_or(0),
            serial,
            number: form.number,
            access: RawKey::parse(identity.profile, &access)
                .map_err(|_| corrupt("the access token in it is not well-formed"))?,
            refresh: Some(refresh)
                .filter(|refresh| is_refresh_token(refresh))
                .ok_or(corrupt("the refresh token in it is not well-formed"))?,
            expires: Timestamp(form.expires),
            lifetime: Duration::from_millis(form.lifetime),
            is_refused: form.refused,
            lease: form.lease.map(LeaseForm::read),
        })
    }

    /// Returns the same tokens with another lease.
    pub(super) fn with_lease(&self, lease: Option<Lease>) -> Self {
        Self { access: self.access.clone_key(), refresh: WipedBytes::copy_of(&self.refresh), lease, ..*self }
    }
}

impl Lease {
    fn write(&self, fields: &mut Writer<'_>) {
        fields.field("holder", self.holder);
        fields.field("length", millis(self.length));
        if let Some(taken) = &self.taken {
            fields.field("taken", taken.wall.0);
            if let Some(BootTime { boot, millis }) = taken.boot {
                fields.field("boot", boot);
                fields.field("since_boot", millis);
            }
        }
    }
}

impl LeaseForm {
    fn read(self) -> Lease {
        let boot = self.boot.zip(self.since_boot).map(|(boot, millis)| BootTime { boot, millis });
        let taken = self.taken.map(|wall| Taken { wall: Timestamp(wall), boot });
        Lease { holder: self.holder, length: Duration::from_millis(self.length), taken }
    }
}

/// By how much the wall clocks of two machines may differ.
///
/// A process that has not watched a lease for its whole length, such as one that a timer starts, goes by its
/// date. On the machine of the holder it uses the clock that counts from the machine's start (Linux) beside
/// the wall clock, and needs no allowance. On another machine it has only the wall clock, and takes the lease
/// for over this much later.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(30 * 60);

/// The right of one process to use the refresh token once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) holder: u64,
    pub(super) length: Duration,
    /// `None` in form 1, which has no date.
    pub(super) taken: Option<Taken>,
}

/// When a lease was taken, by the clocks of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) wall: Timestamp,
    pub(super) boot: Option<BootTime>,
}

/// One reading of all clocks that a lease is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) clocks: Clocks,
    pub(super) boot: Option<BootTime>,
}

/// Milliseconds since 1970, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp(pub(super) u64);

impl Timestamp {
    pub(super) fn of(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Now {
    pub(super) fn read() -> Self {
        Self { clocks: Clocks::now(), boot: BootTime::now() }
    }
}

impl Lease {
    /// A lease that `holder` takes now.
    pub(super) fn taken_now(holder: u64, length: Duration) -> Self {
        let taken = Taken { wall: Timestamp::of(SystemTime::now()), boot: BootTime::now() };
        Self { holder, length, taken: Some(taken) }
    }

    /// Whether it is over for a process that has seen it since `since`: by every clock that can tell. A wrong
    /// clock can make processes wait, and must not make two of them use one refresh token.
    pub(super) fn is_over(&self, since: Clocks, now: Now) -> bool {
        // The monotonic clock never shows more than has passed.
        let watched = now.clocks.monotonic().saturating_duration_since(since.monotonic());
        watched >= self.length || self.is_over_by_date(now.clocks.wall(), now.boot)
    }

    /// Whether its date alone says that it is over.
    pub(super) fn is_over_by_date(&self, wall: SystemTime, boot: Option<BootTime>) -> bool {
        let Some(taken) = self.taken else { return false };
        let by_wall = Timestamp::of(wall).since(taken.wall);
        match (taken.boot, boot) {
            (Some(then), Some(now)) if then.boot == now.boot => {
                // Machines that were resumed from one snapshot share a start; the wall clock tells them
                // apart.
                let by_boot = Duration::from_millis(now.millis.saturating_sub(then.millis));
                by_boot.min(by_wall) >= self.length
            }
            _ => by_wall >= self.length.saturating_add(MAX_CLOCK_DIFFERENCE),
        }
    }
}

/// How long before the end of its access token a grant in doubt is tried, at most.
const LAST_MOMENT: Duration = Duration::from_secs(30);

/// The document as it was last read.
pub(super) struct Seen {
    pub(super) version: Version,
    /// When its lease was first seen.
    pub(super) since: Clocks,
    pub(super) serial: u64,
    pub(super) number: u64,
    pub(super) lease: Option<Lease>,
    pub(super) is_refused: bool,
    pub(super) token: TokenTimes,
}

/// A time to come. It is reached when either clock says so, so neither a suspended machine nor a set clock
/// delays it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    from: Clocks,
    after: Duration,
}

/// The times of an access token.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenTimes {
    pub(super) ends: Due,
    /// When it is refreshed.
    pub(super) due: Due,
    /// When it is refreshed even if the grant is in doubt.
    pub(super) last_moment: Due,
}

impl Due {
    pub(super) const fn after(from: Clocks, after: Duration) -> Self {
        Self { from, after }
    }

    pub(super) fn is_over(self, now: Clocks) -> bool {
        now.has_expired(self.from, self.after)
    }

    /// How long until then.
    pub(super) fn rest(self, now: Clocks) -> Duration {
        self.after.saturating_sub(now.at_most_since(self.from))
    }
}

impl Seen {
    /// Whether there is a lease that its holder may still use.
    pub(super) fn is_leased(&self, now: Now) -> bool {
        self.lease.is_some_and(|lease| !lease.is_over(self.since, now))
    }
}

impl TokenTimes {
    /// A token that ends after `rest` and is refreshed ahead of its end by this percentage of its lifetime,
    /// at most 95.
    pub(super) fn ending(from: Clocks, rest: Duration, lifetime: Duration, ahead: f64) -> Self {
        let part = |percent: f64| lifetime.mul_f64(percent / 100.0);
        let last = (lifetime / 10).min(LAST_MOMENT);
        Self {
            ends: Due::after(from, rest),
            due: Due::after(from, rest.saturating_sub(part(ahead.min(95.0)))),
            last_moment: Due::after(from, rest.saturating_sub(last)),
        }
    }
}

/// How long an access token from the document is still valid. `unwatched` is the time since the last read,
/// `None` at the start: a token that came since then is no older than that, whatever the wall clocks say.
pub(super) fn rest_of(
    expires: Timestamp,
    lifetime: Duration,
    clock: Timestamp,
    unwatched: Option<Duration>,
) -> Duration {
    let youngest = lifetime;
    let oldest = unwatched.map_or(Duration::ZERO, |unwatched| youngest.saturating_sub(unwatched));
    expires.since(clock).clamp(oldest, youngest)
}

#[cfg(test)]
#[path = "../../tests/units/oauth/grant.rs"]
mod tests;
