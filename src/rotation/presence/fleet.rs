//! What the processes of a fleet show, and the document of it: versioned JSON.

use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::handle::{Generation, Usage};
use crate::internal::json_form::{self, FormError, Kind, Writer};
use crate::internal::printing::{Moment, Printable, Utc};
use crate::key::{Fingerprint, Issuer, Profile};
use crate::keyset::{KeyInfo, KeySetSummary};
use crate::store::{DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version};

/// How many processes can show themselves in one document. A larger fleet uses several documents.
pub(super) const MAX_PROCESSES: usize = 128;

/// The longest name of a process, in characters.
const MAX_NAME: usize = 64;

/// The longest time to live, in seconds: a day.
pub(super) const LONGEST: u32 = 24 * 60 * 60;

/// How much the clocks of two machines may differ before a record counts as silent.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// How much the clocks of a process and of a rotator may differ before the order of what they did is
/// mistaken: the default of [`RotationPolicy`](crate::rotation::RotationPolicy).
const CLOCK_SKEW: Duration = Duration::from_secs(30 * 60);

/// How long after it went silent a record is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What one process has shown of its keys, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRecord {
    /// A random number of this start of the process.
    pub(super) process: u64,
    name: String,
    generation: Option<Generation>,
    oldest: Option<Generation>,
    key: Option<Fingerprint>,
    lineage: Option<Fingerprint>,
    /// No newer than the generation.
    refused: Option<Generation>,
    pub(super) shown: Moment,
    /// In seconds.
    time_to_live: u32,
}

impl PresenceRecord {
    pub(super) fn new(process: u64, name: &str, in_use: Usage, now: SystemTime, time_to_live: u32) -> Self {
        let Usage { generation, oldest, key, lineage, refused } = in_use;
        let (name, shown) = (name.to_owned(), Moment::from(now));
        Self { process, name, generation, oldest, key, lineage, refused, shown, time_to_live }
    }

    /// Returns the name of the process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the active generation; `None` before the first key. It is that of the process's own handle: if
    /// the key is of a key set, the key set's generation.
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Returns the active key; `None` if there is none.
    #[must_use]
    pub const fn key(&self) -> Option<Fingerprint> {
        self.key
    }

    /// Returns the latest generation that the issuer refused to the process; `None` if it refused none, or
    /// accepted that generation since. It is counted as [`generation`](PresenceRecord::generation).
    #[must_use]
    pub const fn refused(&self) -> Option<Generation> {
        self.refused
    }

    /// Returns the active key if the issuer refused it: the requests of that process fail.
    #[must_use]
    pub fn refused_key(&self) -> Option<Fingerprint> {
        self.key.filter(|_| self.refused.is_some() && self.refused == self.generation)
    }

    /// Returns whether no request of the process was in flight with an older key.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.oldest == self.generation
    }

    /// Returns when the process showed this, by its own clock, to the second.
    #[must_use]
    pub fn shown(&self) -> SystemTime {
        self.shown.to_time()
    }

    /// Returns for how long after that it holds.
    #[must_use]
    pub const fn time_to_live(&self) -> Duration {
        Duration::from_secs(self.time_to_live as u64)
    }

    /// Returns whether the time to live, and a minute for clocks that differ, has passed: the process was
    /// killed, or cannot reach the document. The same holds if its clock is that much ahead.
    #[must_use]
    pub fn is_silent_at(&self, now: SystemTime) -> bool {
        let apart = Moment::from(now).0.abs_diff(self.shown.0);
        Duration::from_secs(apart) > self.time_to_live().saturating_add(CLOCK_SLACK)
    }

    /// Returns whether the process uses the active key of a key set and none before it, or had no key yet
    /// when that one was active already.
    pub(crate) fn is_up_to_date(&self, keys: &KeySetSummary) -> bool {
        let current = keys.current();
        if self.generation.is_none() {
            // It may have taken the old key since, if that was active when it showed this.
            let since = current.map(|current| current.promoted().unwrap_or_else(|| current.staged()));
            let since = since.and_then(|since| since.checked_add(CLOCK_SKEW));
            return since.is_some_and(|since| self.shown() >= since);
        }
        // Generations of another key set say nothing; a key is the same everywhere.
        let is_now = self.lineage != keys.lineage() || self.generation == keys.generation();
        self.is_drained() && is_now && self.key == current.map(KeyInfo::fingerprint)
    }
}

impl fmt::Display for PresenceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", Printable(&self.name))?;
        match (self.generation, self.key) {
            (None, _) => f.write_str("no key yet")?,
            (Some(generation), None) => write!(f, "generation {generation}, no key")?,
            (Some(generation), Some(key)) => write!(f, "generation {generation}, key {key}")?,
        }
        if let Some(oldest) = self.oldest.filter(|_| !self.is_drained()) {
            write!(f, ", requests with generation {oldest} in flight")?;
        }
        if let Some(refused) = self.refused {
            write!(f, ", generation {refused} was REFUSED")?;
        }
        write!(f, ", shown {})", Utc(self.shown()))
    }
}

/// The records of the processes of a fleet. Its `Display` is a line for each.
#[derive(Clone, Debug)]
pub struct Fleet {
    profile: &'static Profile,
    records: Vec<PresenceRecord>,
}

impl Fleet {
    pub(crate) const fn empty(profile: &'static Profile) -> Self {
        Self { profile, records: Vec::new() }
    }

    /// Reads the records in a document store; none if there is no document yet. Blocks, as the store does.
    ///
    /// # Errors
    /// [`PresenceError::Document`], [`PresenceError::Newer`], [`PresenceError::OtherIssuer`],
    /// [`PresenceError::Corrupt`].
    pub fn read<I: Issuer>(store: &dyn DocumentStore) -> Result<Self, PresenceError> {
        Ok(Self::read_as(I::PROFILE, store)?.0)
    }

    pub(crate) fn read_as(
        profile: &'static Profile,
        store: &dyn DocumentStore,
    ) -> Result<(Self, Option<Version>), PresenceError> {
        let Some(there) = store.read()? else { return Ok((Self::empty(profile), None)) };
        Ok((Self::from_document(profile, there.content().expose_secret())?, Some(*there.version())))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`PresenceError::Newer`], [`PresenceError::OtherIssuer`] and [`PresenceError::Corrupt`].
    pub fn from_document(profile: &'static Profile, document: &[u8]) -> Result<Self, PresenceError> {
        let (_, form) = json_form::open::<Form<'_>>(KIND, profile.name(), document)?;
        if form.processes.len() > MAX_PROCESSES {
            return Err(corrupt("it has too many processes"));
        }
        let records = form.processes.iter().map(read_record).collect::<Result<Vec<_>, _>>()?;
        let is_twice = |(at, record): (usize, &PresenceRecord)| {
            records[..at].iter().any(|before| before.process == record.process)
        };
        if records.iter().enumerate().any(is_twice) {
            return Err(corrupt("a process is in it twice"));
        }
        Ok(Self { profile, records })
    }

    /// Returns the fleet as a document: JSON, with nothing secret in it.
    ///
    /// # Errors
    /// [`PresenceError::Full`].
    pub fn to_document(&self) -> Result<DocumentContent, PresenceError> {
        let form = if self.records.iter().any(|record| record.refused.is_some()) { 2 } else { 1 };
        let document = json_form::seal(KIND, form, self.profile.name(), |form| {
            form.list("processes", &self.records, |list, record| {
                list.item_object(|fields| write_record(fields, record));
            });
        });
        if document.len() > MAX_DOCUMENT { Err(PresenceError::Full) } else { Ok(document.into()) }
    }

    /// Returns the profile of the keys' issuer.
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// Returns a record for each process, silent ones included, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> &[PresenceRecord] {
        &self.records
    }

    /// Adds the records of another document of the same issuer.
    pub(crate) fn join(&mut self, other: Self) {
        self.records.extend(other.records);
    }

    /// Puts a record in place of an earlier one of the same process. Make room first.
    pub(super) fn put(&mut self, record: PresenceRecord) -> Result<(), PresenceError> {
        if let Some(there) = self.records.iter_mut().find(|there| there.process == record.process) {
            *there = record;
            return Ok(());
        }
        if self.records.len() >= MAX_PROCESSES {
            return Err(PresenceError::Full);
        }
        self.records.push(record);
        Ok(())
    }

    /// Returns whether the record was there.
    pub(super) fn remove(&mut self, process: u64) -> bool {
        let before = self.records.len();
        self.records.retain(|there| there.process != process);
        self.records.len() < before
    }

    /// Removes the records of other processes of the same name.
    pub(super) fn remove_named(&mut self, record: &PresenceRecord) {
        self.records.retain(|there| there.process == record.process || there.name != record.name);
    }

    /// Makes room for the process of this number. Only records are removed that were seen unchanged for their
    /// time to live: those that have been silent for a day by the time that is written in them, and in a full
    /// document the one unchanged longest. The document counts as full for a process that is in it, too: that
    /// one may have watched for longer than one that comes.
    pub(super) fn make_room(
        &mut self,
        process: u64,
        now: SystemTime,
        rest_of: impl Fn(&PresenceRecord) -> Duration,
    ) {
        let is_gone =
            |there: &PresenceRecord| there.process != process && rest_of(there) > there.time_to_live();
        self.records.retain(|there| {
            let since = now.duration_since(there.shown()).unwrap_or_default();
            since <= there.time_to_live().saturating_add(FORGOTTEN_AFTER) || !is_gone(there)
        });
        if self.records.len() >= MAX_PROCESSES {
            let gone = self.records.iter().enumerate().filter(|(_, there)| is_gone(there));
            if let Some((longest, _)) = gone.max_by_key(|(_, there)| rest_of(there)) {
                self.records.remove(longest);
            }
        }
    }
}

impl fmt::Display for Fleet {
    /// Writes a line for each process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = SystemTime::now();
        let count = self.records.len();
        write!(f, "{}: {count} process{}", self.profile.name(), if count == 1 { "" } else { "es" })?;
        for record in &self.records {
            let silent = if record.is_silent_at(now) { ", SILENT" } else { "" };
            write!(f, "\n  {record}{silent}")?;
        }
        Ok(())
    }
}

/// This process is not shown, or the fleet cannot be read: why, and what to do next. The place is what
/// [`DocumentStore::provenance`] says. Requests go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The document cannot be read or written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The document is not a presence document. It was not changed.
    #[error(
        "the presence document is damaged, or something else ({rule}): use a place of its own for it, or \
         remove it; it was not changed"
    )]
    #[non_exhaustive]
    Corrupt {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The document was written by a newer version of this crate.
    #[error(
        "the presence document has form {found}, and this version knows {known}: use the newer keysheath"
    )]
    #[non_exhaustive]
    Newer {
        /// Its form.
        found: u64,
        /// The newest form that is known.
        known: u64,
    },
    /// The document is for the keys of another issuer.
    #[error("the presence document is for another issuer's keys: use one for each issuer")]
    OtherIssuer,
    /// The name of this process is invalid.
    #[error("the process cannot be shown by this name: {rule} (1 to {MAX_NAME} characters)")]
    #[non_exhaustive]
    BadName {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The document is full.
    #[error(
        "{MAX_PROCESSES} processes show themselves in this document already, and this one has seen none of \
         them silent for its time to live: try again after that, or use another document for the rest, and \
         give both to the rotation"
    )]
    Full,
    /// Other processes have written each time before this one could.
    #[error("other processes have written the presence document first, {attempts} times; it is tried again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// What shows the process has panicked. The process is no longer shown.
    #[error("what shows this process has panicked: see standard error, and restart")]
    Ended,
    /// No thread could be started.
    #[error("no thread can be started to show the process ({0}): check this user's limits")]
    NoThread(ErrorKind),
}

/// Checks the name of a process.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("it is empty, or too long");
    }
    let may_be = |c: u8| matches!(c, b' '..=b'~') && !matches!(c, b'"' | b'\\');
    if name.bytes().all(may_be) {
        Ok(())
    } else {
        Err("it has other characters than printable ASCII without quotes and backslashes")
    }
}

/// The newest form. Forms 1 to this one are read. The lowest one that can represent the records is written,
/// so that processes with an older version of this crate can read it.
const PRESENCE_FORM_VERSION: u64 = 2;

const KIND: Kind = Kind { name: "presence", newest: PRESENCE_FORM_VERSION, limit: MAX_DOCUMENT };

/// Forms 1 and 2. The second has refused generations.
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
    processes: Vec<RecordForm<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordForm<'a> {
    process: u64,
    name: &'a str,
    generation: u64,
    oldest: u64,
    key: Option<&'a str>,
    #[serde(rename = "begun")]
    lineage: Option<&'a str>,
    #[serde(default)]
    refused: u64,
    shown: u64,
    ttl: u32,
}

const fn corrupt(rule: &'static str) -> PresenceError {
    PresenceError::Corrupt { rule }
}

impl From<FormError> for PresenceError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::TooLarge => corrupt("it is too large"),
            FormError::Corrupt { rule } => corrupt(rule),
            FormError::Newer { found, known } => Self::Newer { found, known },
            FormError::OtherIssuer => Self::OtherIssuer,
        }
    }
}

fn write_record(fields: &mut Writer<'_>, record: &PresenceRecord) {
    let number = |generation: Option<Generation>| generation.map_or(0, Generation::number);
    fields.field("process", record.process);
    fields.field("name", &*record.name);
    fields.field("generation", number(record.generation));
    fields.field("oldest", number(record.oldest));
    for (name, fingerprint) in [("key", record.key), ("begun", record.lineage)] {
        let fingerprint = fingerprint.map(|fingerprint| fingerprint.to_string());
        fields.optional(name, fingerprint.as_deref());
    }
    fields.optional("refused", record.refused.map(Generation::number));
    fields.field("shown", record.shown.0);
    fields.field("ttl", u64::from(record.time_to_live));
}

fn read_record(form: &RecordForm<'_>) -> Result<PresenceRecord, PresenceError> {
    check_name(form.name).map_err(corrupt)?;
    let fingerprint = |text: Option<&str>| {
        let read =
            |text| Fingerprint::from_str(text).map_err(|_| corrupt("a fingerprint in it is not well-formed"));
        text.map(read).transpose()
    };
    if form.oldest > form.generation || (form.oldest == 0) != (form.generation == 0) {
        return Err(corrupt("a generation in it is older than the oldest one"));
    }
    if form.refused > form.generation {
        return Err(corrupt("a generation in it was refused before it was active"));
    }
    Ok(PresenceRecord {
        process: form.process,
        name: form.name.to_owned(),
        generation: Generation::numbered(form.generation),
        oldest: Generation::numbered(form.oldest),
        key: fingerprint(form.key)?,
        lineage: fingerprint(form.lineage)?,
        refused: Generation::numbered(form.refused),
        shown: Moment(form.shown),
        // A time to live above the configurable limit would delay a deletion for years.
        time_to_live: form.ttl.min(LONGEST),
    })
}

#[cfg(test)]
#[path = "../../../tests/units/rotation/fleet.rs"]
mod tests;
