//! A key set as it is written down: JSON, with a version.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr as _;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::key::{KeyInfo, ManagedKey, RotationId, UndeletedKey};
use super::texts::check_text;
use super::{KeySet, KeySetError, LAST_TIME, MAX_COMPROMISED, MAX_NOTE, MAX_PERSON, MAX_RETIRED};
use crate::internal::utc::Moment;
use crate::key::{Fingerprint, Profile, RawKey};
use crate::store::{DocumentContent, MAX_DOCUMENT, json};

/// The form that is written. Forms 1 to this one are read.
pub(super) const FORM_VERSION: u64 = 1;

/// Form 1. Everything is borrowed from the document, so that no copy of a key is made that is not wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(rename = "keysheath")]
    _kind: &'a str,
    #[serde(rename = "form")]
    _version: u64,
    issuer: &'a str,
    generation: u64,
    rotation: u64,
    #[serde(borrow)]
    begun: Option<&'a str>,
    #[serde(borrow)]
    current: Option<Slot<'a>>,
    #[serde(borrow)]
    pending: Option<Slot<'a>>,
    #[serde(borrow)]
    previous: Option<Slot<'a>>,
    #[serde(borrow)]
    retired: Vec<&'a str>,
    /// It is written where there are such keys alone, as the versions before it did without.
    #[serde(borrow, default)]
    given_up: Vec<GivenUp<'a>>,
    #[serde(borrow)]
    compromised: Vec<&'a str>,
    #[serde(borrow)]
    leaked: Vec<Leaked<'a>>,
}

/// Written as a list: a fingerprint, the time of staging, and the name in the app where it is known.
#[derive(Deserialize)]
struct Leaked<'a>(&'a str, u64, #[serde(borrow, default)] Option<Cow<'a, str>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenUp<'a> {
    fingerprint: &'a str,
    rotation: u64,
    staged: u64,
    demoted: Option<u64>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot<'a> {
    /// In base64.
    key: &'a str,
    rotation: u64,
    staged: u64,
    verified: Option<u64>,
    promoted: Option<u64>,
    demoted: Option<u64>,
    confirmed: Option<u64>,
    refused: Option<u64>,
    fell_back: Option<u64>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    by: Option<Cow<'a, str>>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    note: Option<Cow<'a, str>>,
}

const fn corrupt(rule: &'static str) -> KeySetError {
    KeySetError::Corrupt { rule }
}

impl KeySet {
    /// The key set as a document: JSON with the keys in it, so it belongs where a key does.
    #[must_use]
    pub fn to_document(&self) -> DocumentContent {
        // It never grows, so no block with a key in it is left behind.
        let mut text = Zeroizing::new(String::with_capacity(self.longest().max(MAX_DOCUMENT)));
        let written = write!(
            text,
            "{{\n  \"keysheath\": \"key set\",\n  \"form\": {FORM_VERSION},\n  \"issuer\": \"{}\",\n  \
             \"generation\": {},\n  \"rotation\": {},\n",
            self.profile.name(),
            self.generation,
            self.rotation
        );
        // Writing to a `String` cannot fail.
        let _ = written;
        let _ = match self.lineage {
            Some(lineage) => writeln!(text, "  \"begun\": \"{lineage}\","),
            None => writeln!(text, "  \"begun\": null,"),
        };
        for (name, slot) in
            [("current", &self.current), ("pending", &self.pending), ("previous", &self.previous)]
        {
            let _ = write!(text, "  \"{name}\": ");
            match slot {
                None => text.push_str("null"),
                Some(held) => write_slot(&mut text, held),
            }
            text.push_str(",\n");
        }
        write_list(&mut text, "retired", &self.retired);
        text.push_str(",\n");
        write_given_up(&mut text, &self.aborted);
        write_list(&mut text, "compromised", &self.compromised);
        text.push_str(",\n");
        write_leaked(&mut text, &self.leaked);
        text.push_str("\n}\n");
        DocumentContent::from(std::mem::take(&mut *text).into_bytes())
    }

    /// No less than the length of the document: what stands beside texts and keys, and those with each byte
    /// escaped.
    fn longest(&self) -> usize {
        let long = |text: &Option<String>| text.as_ref().map_or(0, |text| 2 * text.len());
        let slot = |ManagedKey { key, info }: &ManagedKey| {
            let texts = [&info.name, &info.by, &info.loaded_from, &info.note].map(long).iter().sum::<usize>();
            512 + 2 * key.expose_secret().len() + texts
        };
        let slots = self.slots().map(slot).sum::<usize>();
        let leaked = self.leaked.iter().map(|leaked| 64 + long(&leaked.name)).sum::<usize>();
        let aborted = self.aborted.iter().map(|key| 160 + long(&key.name)).sum::<usize>();
        1024 + slots + 32 * (self.retired.len() + self.compromised.len()) + leaked + aborted
    }

    /// Reads a document that [`KeySet::to_document`] wrote, in this version or an earlier one.
    ///
    /// # Errors
    /// [`KeySetError::Newer`] for a document of a newer form, [`KeySetError::OtherIssuer`], and
    /// [`KeySetError::TooLarge`] or [`KeySetError::Corrupt`] for what is no key set.
    pub fn from_document(profile: &'static Profile, document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > MAX_DOCUMENT {
            return Err(KeySetError::TooLarge);
        }
        let not_whole = |_| corrupt("it is not whole, or not JSON");
        let form = json::form_of(document, "key set").map_err(not_whole)?;
        let form = form.ok_or(corrupt("it does not say that it is a key set"))?;
        if form > FORM_VERSION {
            return Err(KeySetError::Newer { found: form, known: FORM_VERSION });
        }
        let form: Form<'_> = serde_json::from_slice(document)
            .map_err(|_| corrupt("a field is missing, unknown or not as it is written"))?;
        Self::read(profile, form)
    }

    fn read(profile: &'static Profile, form: Form<'_>) -> Result<Self, KeySetError> {
        if form.issuer != profile.name() {
            return Err(KeySetError::OtherIssuer);
        }
        let slot = |slot: Option<Slot<'_>>| slot.map(|slot| read_slot(profile, slot)).transpose();
        let keys = Self {
            generation: form.generation,
            rotation: form.rotation,
            lineage: form.begun.map(read_fingerprint).transpose()?,
            current: slot(form.current)?,
            pending: slot(form.pending)?,
            previous: slot(form.previous)?,
            retired: read_list(&form.retired, MAX_RETIRED)?,
            aborted: form.given_up.into_iter().map(read_given_up).collect::<Result<_, _>>()?,
            compromised: read_list(&form.compromised, MAX_COMPROMISED)?,
            leaked: read_leaked(form.leaked)?,
            ..Self::new(profile)?
        };
        if keys.is_consistent() {
            Ok(keys)
        } else {
            Err(corrupt("a key is in two places, or a number is wrong"))
        }
    }
}

fn write_slot(text: &mut String, ManagedKey { key, info }: &ManagedKey) {
    text.push_str("{ \"key\": \"");
    json::push_base64(text, key.expose_secret().as_bytes());
    let _ = write!(text, "\", \"rotation\": {}, \"staged\": {}", info.rotation, info.staged.0);
    for (name, moment) in [
        ("verified", info.verified),
        ("promoted", info.promoted),
        ("demoted", info.demoted),
        ("confirmed", info.confirmed),
        ("refused", info.refused),
        ("fell_back", info.fell_back),
    ] {
        if let Some(Moment(seconds)) = moment {
            let _ = write!(text, ", \"{name}\": {seconds}");
        }
    }
    let texts = [("name", &info.name), ("by", &info.by), ("from", &info.loaded_from), ("note", &info.note)];
    for (name, value) in texts {
        if let Some(value) = value {
            let _ = write!(text, ", \"{name}\": ");
            json::push_quoted(text, value);
        }
    }
    text.push_str(" }");
}

fn write_list(text: &mut String, name: &str, list: &[Fingerprint]) {
    let _ = write!(text, "  \"{name}\": [");
    for (at, fingerprint) in list.iter().enumerate() {
        let _ = write!(text, "{}\"{fingerprint}\"", if at == 0 { "" } else { ", " });
    }
    text.push(']');
}

fn write_given_up(text: &mut String, list: &[UndeletedKey]) {
    for (at, UndeletedKey { fingerprint, rotation, staged, demoted, name }) in list.iter().enumerate() {
        text.push_str(if at == 0 { "  \"given_up\": [" } else { ", " });
        let _ = write!(
            text,
            "{{ \"fingerprint\": \"{fingerprint}\", \"rotation\": {}, \"staged\": {}",
            rotation.map_or(0, RotationId::number),
            staged.0
        );
        if let Some(Moment(seconds)) = demoted {
            let _ = write!(text, ", \"demoted\": {seconds}");
        }
        if let Some(name) = name {
            text.push_str(", \"name\": ");
            json::push_quoted(text, name);
        }
        text.push_str(if at + 1 == list.len() { " }],\n" } else { " }" });
    }
}

fn write_leaked(text: &mut String, list: &[UndeletedKey]) {
    text.push_str("  \"leaked\": [");
    for (at, UndeletedKey { fingerprint, staged, name, .. }) in list.iter().enumerate() {
        let _ = write!(text, "{}[\"{fingerprint}\", {}", if at == 0 { "" } else { ", " }, staged.0);
        if let Some(name) = name {
            text.push_str(", ");
            json::push_quoted(text, name);
        }
        text.push(']');
    }
    text.push(']');
}

fn read_slot(profile: &'static Profile, slot: Slot<'_>) -> Result<ManagedKey, KeySetError> {
    let key = json::read_base64(slot.key).ok_or(corrupt("a key in it is not base64"))?;
    let key = RawKey::parse(profile, &key).map_err(|_| corrupt("a key in it is not well-formed"))?;
    let names = [&slot.name, &slot.by, &slot.from].map(|name| (name, MAX_PERSON));
    for (text, longest) in names.into_iter().chain([(&slot.note, MAX_NOTE)]) {
        read_text(text.as_deref(), longest)?;
    }
    let moment = |seconds: Option<u64>| seconds.map(read_moment).transpose();
    let info = KeyInfo {
        fingerprint: key.fingerprint().ok_or(KeySetError::Weak)?,
        rotation: RotationId(slot.rotation),
        staged: read_moment(slot.staged)?,
        verified: moment(slot.verified)?,
        promoted: moment(slot.promoted)?,
        demoted: moment(slot.demoted)?,
        confirmed: moment(slot.confirmed)?,
        refused: moment(slot.refused)?,
        fell_back: moment(slot.fell_back)?,
        name: slot.name.map(Cow::into_owned),
        by: slot.by.map(Cow::into_owned),
        loaded_from: slot.from.map(Cow::into_owned),
        note: slot.note.map(Cow::into_owned),
    };
    Ok(ManagedKey { key, info })
}

fn read_given_up(key: GivenUp<'_>) -> Result<UndeletedKey, KeySetError> {
    read_text(key.name.as_deref(), MAX_PERSON)?;
    Ok(UndeletedKey {
        fingerprint: read_fingerprint(key.fingerprint)?,
        rotation: Some(RotationId(key.rotation)),
        staged: read_moment(key.staged)?,
        demoted: key.demoted.map(read_moment).transpose()?,
        name: key.name.map(Cow::into_owned),
    })
}

fn read_leaked(list: Vec<Leaked<'_>>) -> Result<Vec<UndeletedKey>, KeySetError> {
    // How many there are is bounded by the compromised ones, each of which is here once at most.
    if list.len() > MAX_COMPROMISED {
        return Err(corrupt("it remembers more keys than there may be"));
    }
    let read = |Leaked(fingerprint, staged, name)| {
        read_text(name.as_deref(), MAX_PERSON)?;
        let (fingerprint, staged) = (read_fingerprint(fingerprint)?, read_moment(staged)?);
        Ok(UndeletedKey {
            fingerprint,
            rotation: None,
            staged,
            demoted: None,
            name: name.map(Cow::into_owned),
        })
    };
    list.into_iter().map(read).collect()
}

/// A time that no clock shows would panic, or be taken for a day in 1970, where it is added to or compared.
const fn read_moment(seconds: u64) -> Result<Moment, KeySetError> {
    if seconds <= LAST_TIME {
        Ok(Moment(seconds))
    } else {
        Err(corrupt("a time in it is after the year 9999"))
    }
}

fn read_text(text: Option<&str>, longest: usize) -> Result<(), KeySetError> {
    check_text(text, longest).map_err(|_| corrupt("a note in it is too long, or not printable"))
}

fn read_list(list: &[&str], longest: usize) -> Result<Vec<Fingerprint>, KeySetError> {
    if list.len() > longest {
        return Err(corrupt("it remembers more keys than there may be"));
    }
    list.iter().map(|text| read_fingerprint(text)).collect()
}

fn read_fingerprint(text: &str) -> Result<Fingerprint, KeySetError> {
    Fingerprint::from_str(text).map_err(|_| corrupt("a fingerprint in it is none"))
}
