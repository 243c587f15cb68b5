//! The record of one process, and the document of the records: versioned JSON.

use std::fmt;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{LONGEST, MAX_PROCESSES, PresenceError, check_name};
use crate::handle::{Generation, Usage};
use crate::internal::json_form::{self, FormError, Kind, Writer};
use crate::internal::printing::{Moment, Printable, Utc};
use crate::key::{Fingerprint, Profile};
use crate::keyset::{KeyInfo, KeySetSummary};
use crate::store::{DocumentContent, MAX_DOCUMENT};

/// How much the clocks of two machines may differ before a record counts as silent.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// How much the clocks of a process and of a rotator may differ before the order of what they did is
/// mistaken: the default of [`RotationPolicy`](crate::rotation::RotationPolicy).
const CLOCK_SKEW: Duration = Duration::from_secs(30 * 60);

/// What one process has shown of its keys, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRecord {
    /// A random number of this start of the process.
    pub(super) process: u64,
    pub(super) name: String,
    pub(super) generation: Option<Generation>,
    pub(super) oldest: Option<Generation>,
    pub(super) key: Option<Fingerprint>,
    pub(super) lineage: Option<Fingerprint>,
    /// No newer than the generation.
    pub(super) refused: Option<Generation>,
    pub(super) shown: Moment,
    /// In seconds.
    pub(super) time_to_live: u32,
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

    /// Whether no request of the process was in flight with an older key.
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

    /// Whether the time to live, and a minute for clocks that differ, has passed: the process was killed, or
    /// cannot reach the document. The same holds if its clock is that much ahead.
    #[must_use]
    pub fn is_silent_at(&self, now: SystemTime) -> bool {
        let apart = Moment::from(now).0.abs_diff(self.shown.0);
        Duration::from_secs(apart) > self.time_to_live().saturating_add(CLOCK_SLACK)
    }

    /// Whether the process uses the active key of a key set and none before it, or had no key yet when that
    /// one was active already.
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

/// Writes the document of these records.
pub(super) fn write(
    profile: &'static Profile,
    records: &[PresenceRecord],
) -> Result<DocumentContent, PresenceError> {
    let form = if records.iter().any(|record| record.refused.is_some()) { 2 } else { 1 };
    let document = json_form::seal(KIND, form, profile.name(), |form| {
        form.list("processes", records, |list, record| {
            list.item_object(|fields| write_record(fields, record));
        });
    });
    if document.len() > MAX_DOCUMENT {
        return Err(PresenceError::Full);
    }
    Ok(document.into())
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

/// Reads the records of a document.
pub(super) fn read(profile: &'static Profile, document: &[u8]) -> Result<Vec<PresenceRecord>, PresenceError> {
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
    Ok(records)
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
mod tests {
    use super::*;
    use crate::internal::printing::{LAST, extreme_numbers};
    use crate::key::{Issuer, Kanal, Katana, RawKey};
    use crate::keyset::{KeySet, Promotion, Staging};
    use crate::rotation::Fleet;

    fn read(profile: &'static Profile, document: &[u8]) -> Result<Fleet, PresenceError> {
        Fleet::from_document(profile, document)
    }

    fn write(fleet: &Fleet) -> Result<DocumentContent, PresenceError> {
        fleet.to_document()
    }

    #[test]
    fn a_process_without_a_key_yet_may_still_take_the_old_one() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second);
        let key = |text: &[u8]| RawKey::parse(Kanal::PROFILE, text).unwrap();
        let mut keys = KeySet::new(Kanal::PROFILE).unwrap();
        keys.adopt(key(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"), Staging::at(at(0))).unwrap();
        let staged = keys.stage(key(b"Zs1T6cN3bV7dL4qW9Xp2Kf8A"), Staging::at(at(1000))).unwrap();
        keys.promote(staged.rotation(), Promotion::Unverified, at(2000)).unwrap();
        let nothing = Usage { generation: None, oldest: None, key: None, lineage: None, refused: None };
        for (shown, is_up_to_date) in
            [(0, false), (2000, false), (2060, false), (3799, false), (3800, true), (9000, true)]
        {
            let record = PresenceRecord::new(1, "a", nothing, at(shown), 600);
            assert_eq!(record.is_up_to_date(&keys.summary()), is_up_to_date, "{shown}");
        }
    }

    fn record(process: u64) -> PresenceRecord {
        PresenceRecord {
            process,
            name: "shop-sync on shop-7 (blue)".into(),
            generation: Generation::numbered(7),
            oldest: Generation::numbered(6),
            key: Some(Fingerprint::of("kanal", b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")),
            lineage: Some(Fingerprint::of("kanal", b"Zs1T6cN3bV7dL4qW9Xp2Kf8A")),
            refused: None,
            shown: Moment(1_795_510_531),
            time_to_live: 600,
        }
    }

    fn fleet(records: Vec<PresenceRecord>) -> Fleet {
        Fleet::of(Kanal::PROFILE, records)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let none = PresenceRecord { generation: None, oldest: None, key: None, lineage: None, ..record(2) };
        let records = vec![record(u64::MAX), none];
        let document = write(&fleet(records.clone())).unwrap();
        assert_eq!(read(Kanal::PROFILE, document.expose_secret()).unwrap().records(), records);
    }

    /// A whole day, and what clocks may differ by.
    const LONGEST_HOLD: u64 = LONGEST as u64 + 60;

    proptest::proptest! {
        #[test]
        fn any_numbers_are_read_or_corrupt_and_delay_nothing_for_long(
            process in extreme_numbers(),
            numbers in [extreme_numbers(), extreme_numbers(), extreme_numbers()],
            shown in extreme_numbers(),
            ttl in extreme_numbers(),
            now in extreme_numbers(),
        ) {
            let [generation, oldest, refused] = numbers;
            let document = format!(
                r#"{{"keysheath":"presence","form":2,"issuer":"kanal","processes":[{{
                "process":{process},"name":"a","generation":{generation},"oldest":{oldest},
                "refused":{refused},"shown":{shown},"ttl":{ttl}}}]}}"#
            );
            if let Ok(fleet) = read(Kanal::PROFILE, document.as_bytes()) {
                drop(format!("{fleet} {fleet:?}"));
                let record = &fleet.records()[0];
                let apart = now.min(LAST).abs_diff(shown);
                assert!(record.is_silent_at(Moment(now).to_time()) || apart <= LONGEST_HOLD);
                assert_eq!(record.shown(), Moment(shown).to_time());
                let again = write(&fleet).unwrap();
                assert_eq!(read(Kanal::PROFILE, again.expose_secret()).unwrap().records(), fleet.records());
                let mut fleet = fleet;
                fleet.make_room(0, Moment(now).to_time(), |_| Duration::from_secs(now));
            }
        }
    }

    #[test]
    fn a_refusal_is_written_in_form_2_and_nothing_else_is() {
        let form_of = |records| {
            let document = write(&fleet(records)).unwrap();
            let opened = json_form::open::<Form<'_>>(KIND, "kanal", document.expose_secret());
            (opened.map(|(form, _)| form).ok(), document)
        };
        assert_eq!(form_of(vec![record(1)]).0, Some(1));
        for refused in [7, 6] {
            let refused = Generation::numbered(refused);
            let records = vec![record(1), PresenceRecord { refused, ..record(2) }];
            let (form, document) = form_of(records.clone());
            assert_eq!(form, Some(2));
            assert_eq!(read(Kanal::PROFILE, document.expose_secret()).unwrap().records(), records);
        }
    }

    #[test]
    fn the_most_processes_fit_with_the_longest_names() {
        let number = Generation::numbered(99_999);
        let (generation, oldest, refused) = (number, number, number);
        let long = |process| {
            let there = record(u64::MAX - process);
            PresenceRecord {
                name: "x".repeat(64),
                generation,
                oldest,
                refused,
                time_to_live: LONGEST,
                ..there
            }
        };
        assert!(write(&fleet((0..128).map(long).collect())).is_ok());
        let error = write(&fleet((0..200).map(long).collect())).unwrap_err();
        assert_eq!(error, PresenceError::Full);
    }

    #[test]
    fn another_issuers_a_newer_and_a_damaged_document_are_refused() {
        let document = write(&fleet(vec![record(5)])).unwrap();
        let text = std::str::from_utf8(document.expose_secret()).unwrap();
        assert_eq!(read(Katana::PROFILE, text.as_bytes()).unwrap_err(), PresenceError::OtherIssuer);
        let newer = text.replace("\"form\": 1", "\"form\": 3, \"more\": {}");
        let error = read(Kanal::PROFILE, newer.as_bytes()).unwrap_err();
        assert_eq!(error, PresenceError::Newer { found: 3, known: 2 });
        for (from, to) in [
            ("\"form\": 1", "\"form\": 0"),
            ("\"presence\"", "\"key set\""),
            ("\"process\":5", "\"process\":-5"),
            ("shop-sync on shop-7 (blue)", ""),
            ("\"generation\":7", "\"generation\":5"),
            ("\"oldest\":6", "\"oldest\":0"),
            ("\"ttl\":600", "\"ttl\":99999999999"),
            ("\"shown\":", "\"refused\":8,\"shown\":"),
            ("\"ttl\":600", "\"ttl\":600,\"x\":1"),
            ("\"key\":\"", "\"key\":\"!"),
            ("(blue)", "\\u0007"),
            ("(blue)", "\u{e4}"),
            ("}]", "}, { }]"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = read(Kanal::PROFILE, text.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(matches!(error, PresenceError::Corrupt { .. }), "{to}: {error}");
        }
        let many = fleet((0..=128).map(record).collect());
        let many = write(&many).unwrap();
        let error = read(Kanal::PROFILE, many.expose_secret()).unwrap_err();
        assert_eq!(error, corrupt("it has too many processes"));
        let record = text.split(": [").nth(1).unwrap().split(']').next().unwrap();
        let twice = text.replace(record, &format!("{record}, {record}"));
        assert_eq!(read(Kanal::PROFILE, twice.as_bytes()).unwrap_err(), corrupt("a process is in it twice"));
        for length in 0..text.len() - 2 {
            assert!(read(Kanal::PROFILE, &text.as_bytes()[..length]).is_err(), "{length}");
        }
        assert!(read(Kanal::PROFILE, &vec![b' '; MAX_DOCUMENT + 1]).is_err());
    }
}
