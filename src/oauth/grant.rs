//! The written form of a grant: JSON with a version, and the lease of the process that refreshes it.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::GrantError;
use super::answer::Secret;
use super::lease::{Lease, Taken, Timestamp, millis};
use crate::internal::clocks::BootTime;
use crate::internal::json_form::{self, FormError, Kind, Value, Writer};
use crate::key::{Fingerprint, Profile, RawKey};
use crate::store::{DocumentContent, DocumentStore, MAX_DOCUMENT, Version};

/// The form that is written. Forms 1 to this one are read.
const GRANT_FORM_VERSION: u64 = 2;

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
    pub(super) refresh: Secret,
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
            FormError::OtherIssuer => Self::Other { what: "issuer" },
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
    pub(super) fn to_document(&self, identity: &Identity) -> Result<DocumentContent, GrantError> {
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
            form.secret("refresh", self.refresh.bytes());
            form.field("refused", self.is_refused);
            match &self.lease {
                None => form.field("lease", Value::Null),
                Some(lease) => form.nested("lease", |fields| lease.write(fields)),
            }
        });
        if document.len() > MAX_DOCUMENT {
            return Err(GrantError::TooLarge { limit: MAX_DOCUMENT });
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
                return Err(GrantError::Other { what });
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
            refresh: Secret::refresh_token(&refresh)
                .ok_or(corrupt("the refresh token in it is not well-formed"))?,
            expires: Timestamp(form.expires),
            lifetime: Duration::from_millis(form.lifetime),
            is_refused: form.refused,
            lease: form.lease.map(LeaseForm::read),
        })
    }

    /// Returns the same tokens with another lease.
    pub(super) fn with_lease(&self, lease: Option<Lease>) -> Self {
        Self { access: self.access.clone_key(), refresh: self.refresh.duplicate(), lease, ..*self }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Issuer, KatanaApp};

    fn identity() -> Identity {
        Identity {
            profile: KatanaApp::PROFILE,
            client: "a \"client\\".replace(' ', "-"),
            server: "https://login.example/token".into(),
        }
    }

    fn grant() -> Grant {
        Grant {
            lineage: u64::MAX,
            id: 3,
            serial: 9,
            number: 7,
            access: RawKey::parse(KatanaApp::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap(),
            refresh: Secret::parse(b"a refresh token \"with\" marks").unwrap(),
            expires: Timestamp(1_700_000_000_123),
            lifetime: Duration::from_secs(3600),
            is_refused: true,
            lease: Some(Lease {
                holder: u64::MAX,
                length: Duration::from_millis(1500),
                taken: Some(Taken {
                    wall: Timestamp(1_700_000_000_456),
                    boot: Some(BootTime { boot: u64::MAX, millis: 77 }),
                }),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (grant, identity) = (grant(), identity());
        let document = grant.to_document(&identity).unwrap();
        let read = Grant::from_document(&identity, document.expose_secret()).unwrap();
        assert!(read.access == grant.access && read.refresh.bytes() == grant.refresh.bytes());
        assert_eq!((read.lineage, read.id, read.serial), (u64::MAX, 3, 9));
        assert_eq!(
            (read.number, read.expires, read.lifetime, read.is_refused, read.lease),
            (7, grant.expires, grant.lifetime, true, grant.lease)
        );
        assert!(grant.with_lease(None).lease.is_none());
    }

    #[test]
    fn form_1_is_read_as_a_grant_of_no_known_sign_in() {
        let (identity, document) = (identity(), grant().to_document(&identity()).unwrap());
        let text = std::str::from_utf8(document.expose_secret()).unwrap();
        let without = |text: &str, start: &str, end: &str| {
            let (before, rest) = text.split_once(start).unwrap();
            format!("{before}{}", rest.split_once(end).unwrap().1)
        };
        let text = without(text, "  \"lineage\"", "\n");
        let text = without(&text, "  \"id\"", "\n");
        let text = without(&text, "  \"serial\"", "\n");
        let text = text
            .replace(", \"taken\": 1700000000456, \"boot\": 18446744073709551615, \"since_boot\": 77", "");
        assert!(Grant::from_document(&identity, text.as_bytes()).is_err(), "form 2 has all of them");
        let text = text.replace("\"form\": 2", "\"form\": 1");
        let read = Grant::from_document(&identity, text.as_bytes()).unwrap();
        assert_eq!((read.lineage, read.id, read.serial, read.number), (0, 0, 7, 7));
        assert_eq!(read.lease.map(|lease| lease.taken), Some(None));
    }

    #[test]
    fn the_longest_tokens_fit() {
        let mut grant = grant();
        grant.access = RawKey::parse(KatanaApp::PROFILE, &[b'x'; 4096]).unwrap();
        grant.refresh = Secret::refresh_token(&[0xff; 8192]).unwrap();
        let client = "\\".repeat(2048);
        let identity = Identity { client, server: "x".repeat(2048), ..identity() };
        assert!(grant.to_document(&identity).is_ok());
    }

    #[test]
    fn another_apps_a_newer_and_a_damaged_grant_are_refused() {
        let identity = identity();
        let document = grant().to_document(&identity).unwrap();
        let text = std::str::from_utf8(document.expose_secret()).unwrap();
        for (changed, what) in [
            (Identity { profile: crate::key::Katana::PROFILE, ..identity.clone() }, "issuer"),
            (Identity { client: "another".into(), ..identity.clone() }, "client id"),
            (Identity { server: "https://login.example/".into(), ..identity.clone() }, "token endpoint"),
        ] {
            let error = Grant::from_document(&changed, text.as_bytes()).unwrap_err();
            assert_eq!(error, GrantError::Other { what });
        }
        for (from, to) in [
            ("\"form\": 2", "\"form\": 0"),
            ("\"serial\": 9", "\"serial\": 0"),
            ("\"serial\": 9,\n", ""),
            ("\"taken\": 1700000000456", "\"taken\": 18446744073709551615"),
            ("\"grant\"", "\"key set\""),
            ("\"number\": 7", "\"number\": 0"),
            ("\"number\": 7", "\"number\": 18446744073709551615"),
            ("\"number\": 7", "\"number\": -1"),
            ("\"lifetime\": 3600000", "\"lifetime\": 18446744073709551615"),
            ("\"length\": 1500", "\"length\": 18446744073709551615"),
            ("\"length\": 1500", "\"length\": 1500, \"x\": 1"),
            ("\"refused\": true", "\"refused\": true, \"refused\": true"),
            ("\"access\": \"", "\"access\": \"!"),
            ("\"refresh\": \"", "\"refresh\": \"!"),
            ("}\n", ""),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Grant::from_document(&identity, text.replacen(from, to, 2).as_bytes()).unwrap_err();
            assert!(matches!(error, GrantError::Corrupt { .. }), "{to}: {error}");
        }
        for length in 0..text.len() - 2 {
            assert!(Grant::from_document(&identity, &text.as_bytes()[..length]).is_err(), "{length}");
        }
        let newer = text.replace("\"form\": 2", "\"form\": 3, \"more\": {}");
        let error = Grant::from_document(&identity, newer.as_bytes()).unwrap_err();
        assert_eq!(error, GrantError::Newer { found: 3, known: 2 });
        let large = vec![b' '; MAX_DOCUMENT + 1];
        assert!(Grant::from_document(&identity, &large).is_err());
    }
}
