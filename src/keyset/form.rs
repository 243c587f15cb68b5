//! The document of a key set: versioned JSON.

use std::borrow::Cow;
use std::str::FromStr as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{KeyInfo, ManagedKey, RotationId, UndeletedKey};
use super::staging::check_text;
use super::{KeySet, KeySetError, LAST_NUMBER, MAX_COMPROMISED, MAX_NOTE, MAX_PERSON, MAX_RETIRED};
use crate::internal::json_form::{self, FormError, Kind, Value, Writer};
use crate::internal::printing::{LAST, Moment};
use crate::key::{Fingerprint, Profile, RawKey};
use crate::store::{DocumentContent, MAX_DOCUMENT};

/// The form that is written. Forms 1 to this one are read.
pub(super) const FORM_VERSION: u64 = 1;

/// Form 1. All fields borrow from the document, so that there is no copy of a key that is not zeroized.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(rename = "keysheath")]
    _kind: &'a str,
    #[serde(rename = "form")]
    _version: u64,
    #[serde(rename = "issuer")]
    _issuer: &'a str,
    generation: u64,
    rotation: u64,
    #[serde(borrow, rename = "begun")]
    lineage: Option<&'a str>,
    #[serde(borrow)]
    current: Option<Slot<'a>>,
    #[serde(borrow)]
    pending: Option<Slot<'a>>,
    #[serde(borrow)]
    previous: Option<Slot<'a>>,
    #[serde(borrow)]
    retired: Vec<&'a str>,
    /// Written only if there are such keys: earlier versions do not know the field.
    #[serde(borrow, default, rename = "given_up")]
    aborted: Vec<Aborted<'a>>,
    #[serde(borrow)]
    compromised: Vec<&'a str>,
    #[serde(borrow)]
    leaked: Vec<Leaked<'a>>,
}

/// Written as a list: the fingerprint, the time of staging, and the name in the app if it is known.
#[derive(Deserialize)]
struct Leaked<'a>(&'a str, u64, #[serde(borrow, default)] Option<Cow<'a, str>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Aborted<'a> {
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
    #[serde(borrow)]
    key: &'a RawValue,
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

const KIND: Kind = Kind { name: "key set", newest: FORM_VERSION, limit: MAX_DOCUMENT };

impl From<FormError> for KeySetError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::TooLarge => Self::TooLarge,
            FormError::Corrupt { rule } => corrupt(rule),
            FormError::Newer { found, known } => Self::Newer { found, known },
            FormError::OtherIssuer => Self::OtherIssuer,
        }
    }
}

const fn corrupt(rule: &'static str) -> KeySetError {
    KeySetError::Corrupt { rule }
}

impl KeySet {
    /// Returns the key set as a document: JSON that contains the keys, so store it as you would a key.
    #[must_use]
    pub fn to_document(&self) -> DocumentContent {
        json_form::seal(KIND, FORM_VERSION, self.profile.name(), |form| {
            form.field("generation", self.generation);
            form.field("rotation", self.rotation);
            match self.lineage {
                Some(lineage) => form.field("begun", &*lineage.to_string()),
                None => form.field("begun", Value::Null),
            }
            for (name, slot) in
                [("current", &self.current), ("pending", &self.pending), ("previous", &self.previous)]
            {
                match slot {
                    None => form.field(name, Value::Null),
                    Some(key) => form.nested(name, |fields| write_slot(fields, key)),
                }
            }
            write_list(form, "retired", &self.retired);
            if !self.aborted.is_empty() {
                form.list("given_up", &self.aborted, |list, key| {
                    list.item_object(|fields| write_aborted(fields, key));
                });
            }
            write_list(form, "compromised", &self.compromised);
            form.list("leaked", &self.leaked, |list, key| {
                list.item_list(|fields| {
                    fields.item(&*key.fingerprint.to_string());
                    fields.item(key.staged.0);
                    if let Some(name) = &key.name {
                        fields.item(&**name);
                    }
                });
            });
        })
        .into()
    }

    /// Reads a document that [`KeySet::to_document`] wrote, in this version or an earlier one.
    ///
    /// # Errors
    /// [`KeySetError::Newer`] for a document of a newer form, [`KeySetError::OtherIssuer`], and
    /// [`KeySetError::TooLarge`] or [`KeySetError::Corrupt`] for anything that is not a key set.
    pub fn from_document(profile: &'static Profile, document: &[u8]) -> Result<Self, KeySetError> {
        let (_, form) = json_form::open::<Form<'_>>(KIND, profile.name(), document)?;
        Self::read(profile, form)
    }

    fn read(profile: &'static Profile, form: Form<'_>) -> Result<Self, KeySetError> {
        let slot = |slot: Option<Slot<'_>>| slot.map(|slot| read_slot(profile, slot)).transpose();
        let keys = Self {
            generation: form.generation,
            rotation: form.rotation,
            lineage: form.lineage.map(read_fingerprint).transpose()?,
            current: slot(form.current)?,
            pending: slot(form.pending)?,
            previous: slot(form.previous)?,
            retired: read_list(&form.retired, MAX_RETIRED)?,
            aborted: form.aborted.into_iter().map(read_aborted).collect::<Result<_, _>>()?,
            compromised: read_list(&form.compromised, MAX_COMPROMISED)?,
            leaked: read_leaked(form.leaked)?,
            ..Self::new(profile)?
        };
        if keys.is_consistent() {
            Ok(keys)
        } else {
            Err(corrupt("a key has two states, or a number is wrong"))
        }
    }

    /// Writes the key set into at most `limit` bytes, if forgetting keys that left it makes that possible.
    ///
    /// First the retired and then the compromised ones that no person still has to delete, then the others in
    /// the same order; the oldest first in each.
    pub(crate) fn write_within(&mut self, limit: usize) -> DocumentContent {
        loop {
            let document = self.to_document();
            if document.expose_secret().len() <= limit {
                return document;
            }
            let has_deleted = self.compromised.len() > self.leaked.len();
            if oldest_deleted(&self.retired, &self.aborted).is_some()
                || (!self.retired.is_empty() && !has_deleted)
            {
                forget_oldest(&mut self.retired, &mut self.aborted);
            } else if !self.compromised.is_empty() {
                forget_oldest(&mut self.compromised, &mut self.leaked);
            } else {
                return document;
            }
        }
    }

    /// Returns whether each key is in one state only, and each number was given. A document that this crate
    /// wrote is consistent.
    fn is_consistent(&self) -> bool {
        let infos = || self.slots().map(ManagedKey::info);
        let named = infos().map(KeyInfo::fingerprint);
        let all: Vec<_> =
            named.chain(self.retired.iter().copied()).chain(self.compromised.iter().copied()).collect();
        let rotations: Vec<_> = infos().map(|info| info.rotation().0).collect();
        let is_counted = |rotation: u64| (1..=self.rotation).contains(&rotation);
        let are_in = |keys: &[UndeletedKey], list: &[Fingerprint]| {
            let given: Vec<_> = keys.iter().map(UndeletedKey::fingerprint).collect();
            given.iter().all(|fingerprint| list.contains(fingerprint)) && are_distinct(given)
        };
        are_distinct(all)
            && rotations.iter().all(|rotation| is_counted(*rotation))
            && are_distinct(rotations)
            && self.rotation <= LAST_NUMBER
            && self.generation <= LAST_NUMBER
            && self.lineage.is_some() == (self.rotation > 0)
            && (self.current.is_none() || self.generation > 0)
            && (self.previous.is_none() || self.current.is_some())
            && are_in(&self.leaked, &self.compromised)
            && are_in(&self.aborted, &self.retired)
            && self.aborted.iter().all(|key| key.rotation().is_some_and(|rotation| is_counted(rotation.0)))
    }
}

fn write_slot(fields: &mut Writer<'_>, ManagedKey { key, info }: &ManagedKey) {
    fields.secret("key", key.expose_secret().as_bytes());
    fields.field("rotation", info.rotation.number());
    fields.field("staged", info.staged.0);
    for (name, moment) in [
        ("verified", info.verified),
        ("promoted", info.promoted),
        ("demoted", info.demoted),
        ("confirmed", info.confirmed),
        ("refused", info.refused),
        ("fell_back", info.fell_back),
    ] {
        fields.optional(name, moment.map(|moment| moment.0));
    }
    for (name, value) in
        [("name", &info.name), ("by", &info.by), ("from", &info.loaded_from), ("note", &info.note)]
    {
        fields.optional(name, value.as_deref());
    }
}

fn write_list(form: &mut Writer<'_>, name: &str, fingerprints: &[Fingerprint]) {
    form.list(name, fingerprints, |list, fingerprint| list.item(&*fingerprint.to_string()));
}

fn write_aborted(fields: &mut Writer<'_>, key: &UndeletedKey) {
    fields.field("fingerprint", &*key.fingerprint.to_string());
    fields.field("rotation", key.rotation.map_or(0, RotationId::number));
    fields.field("staged", key.staged.0);
    fields.optional("demoted", key.demoted.map(|moment| moment.0));
    fields.optional("name", key.name.as_deref());
}

fn read_slot(profile: &'static Profile, slot: Slot<'_>) -> Result<ManagedKey, KeySetError> {
    let key = json_form::secret(slot.key).ok_or(corrupt("a key in it is not base64"))?;
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

fn read_aborted(key: Aborted<'_>) -> Result<UndeletedKey, KeySetError> {
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
    // Each is a compromised key, and is listed at most once.
    if list.len() > MAX_COMPROMISED {
        return Err(corrupt("it remembers too many keys"));
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

/// Refuses times that no clock shows: adding to one could panic, and comparing with one would be meaningless.
const fn read_moment(seconds: u64) -> Result<Moment, KeySetError> {
    if seconds <= LAST { Ok(Moment(seconds)) } else { Err(corrupt("a time in it is after the year 9999")) }
}

fn read_text(text: Option<&str>, longest: usize) -> Result<(), KeySetError> {
    check_text(text, longest).map_err(|_| corrupt("a note in it is too long, or not printable"))
}

fn read_list(list: &[&str], longest: usize) -> Result<Vec<Fingerprint>, KeySetError> {
    if list.len() > longest {
        return Err(corrupt("it remembers too many keys"));
    }
    list.iter().map(|text| read_fingerprint(text)).collect()
}

fn read_fingerprint(text: &str) -> Result<Fingerprint, KeySetError> {
    Fingerprint::from_str(text).map_err(|_| corrupt("a fingerprint in it is not well-formed"))
}

fn are_distinct<T: Ord>(mut values: Vec<T>) -> bool {
    values.sort_unstable();
    values.windows(2).all(|two| two[0] < two[1])
}

/// Returns the index of the oldest fingerprint whose key no person still has to delete.
fn oldest_deleted(list: &[Fingerprint], undeleted: &[UndeletedKey]) -> Option<usize> {
    list.iter().position(|fingerprint| undeleted.iter().all(|key| key.fingerprint() != *fingerprint))
}

/// Forgets the oldest that no person still has to delete, or else the oldest of all.
pub(super) fn forget_oldest(list: &mut Vec<Fingerprint>, undeleted: &mut Vec<UndeletedKey>) {
    let oldest = oldest_deleted(list, undeleted).unwrap_or(0);
    let forgotten = list.remove(oldest);
    undeleted.retain(|key| key.fingerprint() != forgotten);
}
