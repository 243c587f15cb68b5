//! The records of a fleet and their document.

use super::*;
use crate::internal::printing::{LAST, extreme_numbers};
use crate::key::{Issuer, Kanal, Katana, RawKey};
use crate::keyset::{KeySet, Promotion, Staging};

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
    Fleet { profile: Kanal::PROFILE, records }
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
        PresenceRecord { name: "x".repeat(64), generation, oldest, refused, time_to_live: LONGEST, ..there }
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

mod room {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn shown(process: u64, at: u64) -> PresenceRecord {
        PresenceRecord {
            process,
            name: format!("number {process}"),
            generation: None,
            oldest: None,
            key: None,
            lineage: None,
            refused: None,
            shown: Moment(at),
            time_to_live: 600,
        }
    }

    fn fleet(records: impl IntoIterator<Item = PresenceRecord>) -> Fleet {
        Fleet { profile: Kanal::PROFILE, records: records.into_iter().collect() }
    }

    fn processes(fleet: &Fleet) -> Vec<u64> {
        fleet.records.iter().map(|record| record.process).collect()
    }

    fn at(second: u64) -> SystemTime {
        Moment(second).to_time()
    }

    /// Longer than any record here holds.
    const LONG: Duration = Duration::from_secs(601);

    #[test]
    fn a_record_is_forgotten_a_day_after_it_went_silent() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - DAY - 601), shown(2, now - DAY - 599), shown(3, now - 30)]);
        there.make_room(9, at(now), |_| LONG);
        assert_eq!(processes(&there), [2, 3]);
    }

    #[test]
    fn a_wrong_clock_forgets_no_record() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - 90), shown(2, now - 30), shown(3, now + 9 * DAY)]);
        for clock in [0, now, now + 3 * DAY, now + 365 * DAY] {
            // They were shown again meanwhile, as the process that has that clock saw.
            there.make_room(9, at(clock), |_| Duration::from_secs(600));
            assert_eq!(processes(&there), [1, 2, 3], "{clock}");
        }
    }

    #[test]
    fn only_a_predecessor_of_the_same_name_is_replaced() {
        let mut there = fleet([shown(1, 5), shown(2, 6), shown(3, 7)]);
        there.remove_named(&PresenceRecord { name: "number 2".into(), ..shown(3, 8) });
        assert_eq!(processes(&there), [1, 3]);
    }

    #[test]
    fn a_wrong_clock_evicts_no_record_of_a_full_document() {
        let now = 1_800_000_000;
        // Clocks of other processes that differ by up to an hour.
        let living = |process| shown(process, now - 1800 + process * 29);
        let whole: Vec<u64> = (0..128).collect();
        for clock in [0, now - 1200, now, now + 1200, now + 30 * DAY] {
            let mut there = fleet((0..128).map(living));
            // It has just come, and then has watched for not quite as long as they hold.
            for watched in [0, 1, 600] {
                there.make_room(600, at(clock), |_| Duration::from_secs(watched));
                assert_eq!(there.put(shown(600, clock)), Err(PresenceError::Full), "{clock}");
                assert_eq!(processes(&there), whole, "{clock}");
            }
            assert_eq!(there.put(shown(5, clock)), Ok(()), "one that is there already stays");
        }
    }

    #[test]
    fn a_full_document_loses_the_record_unchanged_longest() {
        let now = 1_800_000_000;
        let rest_of = |there: &PresenceRecord| match there.process {
            5 | 6 => Duration::from_secs(590 + there.process * 10),
            _ => Duration::from_secs(200),
        };
        let mut there = fleet((0..128).map(|process| shown(process, now)));
        // Room is made by one that is there, too, and never by its own record.
        there.make_room(6, at(now), rest_of);
        assert!(!processes(&there).contains(&5) && processes(&there).contains(&6));
        there.put(shown(600, now)).unwrap();
        there.make_room(601, at(now), rest_of);
        there.put(shown(601, now)).unwrap();
        assert!(!processes(&there).contains(&6));
        there.make_room(602, at(now), rest_of);
        assert_eq!(there.put(shown(602, now)), Err(PresenceError::Full));
        assert_eq!(there.records.len(), MAX_PROCESSES);
    }
}
