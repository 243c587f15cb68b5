//! The presence document: versioned JSON.

use std::str::FromStr as _;

use serde::Deserialize;

use super::{Fleet, LONGEST, MAX_PROCESSES, PresenceError, PresenceRecord, check_name};
use crate::handle::Generation;
use crate::internal::json_form::{self, FormError, Kind, Writer};
use crate::internal::utc::Moment;
use crate::key::{Fingerprint, Profile};
use crate::store::{DocumentContent, MAX_DOCUMENT};

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

pub(super) fn write(fleet: &Fleet) -> Result<DocumentContent, PresenceError> {
    let form = if fleet.records().iter().any(|record| record.refused.is_some()) { 2 } else { 1 };
    let document = json_form::seal(KIND, form, fleet.profile().name(), |form| {
        form.list("processes", fleet.records(), |list, record| {
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

pub(super) fn read(profile: &'static Profile, document: &[u8]) -> Result<Fleet, PresenceError> {
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
    Ok(Fleet::of(profile, records))
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
    use std::time::Duration;

    use super::*;
    use crate::internal::utc::{LAST, extreme_numbers};
    use crate::key::{Issuer, Kanal, Katana};

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
