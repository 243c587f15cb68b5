//! Numbers and times at their ends, and texts that have a key in them.

use proptest::prelude::*;

use super::*;

/// A document with keys in all places, and what probes saw.
fn document() -> String {
    let (mut keys, _) = promoted();
    keys.note_refused(name(1), time(4)).unwrap();
    keys.note_accepted(name(2), time(4)).unwrap();
    keys.stage(key(3), Staging::at(time(5)).with_name("three")).unwrap();
    keys.compromise(name(3), time(6)).unwrap();
    keys.stage(key(4), Staging::at(time(7)).with_name("four")).unwrap();
    String::from_utf8(keys.to_document().expose_secret().to_vec()).unwrap()
}

/// Where each number stands, and its end.
fn numbers(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    for start in 0..bytes.len() {
        let is_after = |before: &str| text[..start].ends_with(before);
        if bytes[start].is_ascii_digit() && (is_after("\": ") || is_after("\", ")) {
            let end = start + text[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
            found.push((start, end));
        }
    }
    found
}

fn number() -> impl Strategy<Value = u64> {
    let ends = [0, 1, (1 << 53) - 2, (1 << 53) - 1, 1 << 53, 253_402_300_799, 253_402_300_800, u64::MAX - 1];
    prop_oneof![
        any::<u64>(),
        prop::sample::select(ends.to_vec()),
        Just(u64::MAX),
        (0_u64..64).prop_map(|shift| u64::MAX >> shift),
    ]
}

/// All that can be done with a key set.
fn drive(keys: &mut KeySet, at: SystemTime) {
    let rotations: Vec<RotationId> = [keys.current(), keys.pending(), keys.previous()]
        .into_iter()
        .flatten()
        .map(|key| key.info().rotation())
        .collect();
    drop(format!("{keys:?} {:?}", keys.leaked()));
    for &rotation in &rotations {
        drop(keys.roll_back(rotation, at));
        drop(keys.verify(rotation, at));
        drop(keys.promote(rotation, Promotion::Unverified, at));
        drop(keys.fall_back(rotation, at));
        drop(keys.retire(rotation));
        drop(keys.abort(rotation));
    }
    drop(keys.stage(key(50), Staging::at(at)));
    drop(keys.adopt(key(51), Staging::at(at)));
    drop(keys.note_refused(name(50), at));
    drop(keys.compromise(name(50), at));
    drop(keys.confirm_deleted(name(50)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_number_in_a_document_panics_or_makes_it_unreadable(
        changes in prop::collection::vec((any::<prop::sample::Index>(), number()), 1..4),
        seconds in number(),
    ) {
        let mut text = document();
        for (index, value) in changes {
            let places = numbers(&text);
            let (start, end) = places[index.index(places.len())];
            text.replace_range(start..end, &value.to_string());
        }
        let Ok(mut keys) = KeySet::from_document(Kanal::PROFILE, text.as_bytes()) else { return Ok(()) };
        for held in [keys.current(), keys.pending(), keys.previous()].into_iter().flatten() {
            let info = held.info();
            for at in [Some(info.staged()), info.promoted(), info.demoted()].into_iter().flatten() {
                // Every clock can add to it, and none takes it for 1970.
                prop_assert!(at.checked_add(Duration::from_secs(100 * 365 * 86_400)).is_some());
            }
        }
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(time(1));
        drive(&mut keys, at);
        let document = keys.to_document();
        let read = KeySet::from_document(Kanal::PROFILE, document.expose_secret());
        let written = String::from_utf8_lossy(document.expose_secret());
        prop_assert!(read.is_ok(), "{:?}: {text} became {written}", read.err());
    }
}

#[test]
fn the_last_number_is_read_and_no_step_goes_beyond_it() {
    let last = (1_u64 << 53) - 1;
    let text = document();
    for field in ["generation", "rotation"] {
        let start = text.find(&format!("  \"{field}\": ")).unwrap() + field.len() + 6;
        let end = start + text[start..].find(',').unwrap();
        let with = |number: u64| format!("{}{number}{}", &text[..start], &text[end..]);
        assert!(KeySet::from_document(Kanal::PROFILE, with(last + 1).as_bytes()).is_err(), "{field}");
        let mut keys = KeySet::from_document(Kanal::PROFILE, with(last).as_bytes()).unwrap();
        assert_eq!(keys.compromise(name(2), time(9)), Err(KeySetError::Exhausted));
        let rotation = keys.pending().unwrap().info().rotation();
        keys.abort(rotation).unwrap();
        assert_eq!(keys.stage(key(60), staging()), Err(KeySetError::Exhausted));
        assert_eq!(keys.to_document().expose_secret(), keys.to_document().expose_secret());
    }
}

#[test]
fn a_time_that_no_clock_shows_is_refused() {
    let text = document();
    for field in ["staged", "verified", "promoted", "demoted", "confirmed", "refused"] {
        let start =
            text.find(&format!("\"{field}\": ")).unwrap_or_else(|| panic!("no {field}")) + field.len() + 4;
        let end = start + text[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
        let text = format!("{}{}{}", &text[..start], u64::MAX, &text[end..]);
        let read = KeySet::from_document(Kanal::PROFILE, text.as_bytes()).map(drop);
        assert!(matches!(read, Err(KeySetError::Corrupt { .. })), "{field}: {read:?}");
    }
}

#[test]
fn what_a_person_typed_is_not_shown_for_debugging() {
    let staging = Staging::at(time(1)).with_name("a name").by("anna").with_note(key(1).expose_secret());
    let shown = format!("{staging:?}");
    for text in [key(1).expose_secret(), "anna", "a name"] {
        assert!(!shown.contains(text), "{shown}");
    }
    assert!(shown.contains("24 characters"), "{shown}");
}

#[test]
fn a_part_of_a_held_key_in_any_form_is_refused_in_a_note() {
    const KEYS: [&str; 3] =
        ["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "Zs1T6cN3bV7dL4qW9Xp2Kf8A", "q7RtY2wLx9Vb4Nm6Kd3Hs8Pz"];
    let parse = |text: &str| RawKey::parse(Kanal::PROFILE, text.as_bytes()).unwrap();
    // By `base64`, `base64 | tr '+/' '-_'` and `xxd -p` of the second key.
    for note in [
        "Zs1T6cN3bV7dL4qW9Xp2Kf8",
        "zs1t6cn3",
        "A8fK2pX9Wq4Ld7Vb",
        "WnMxVDZjTjNiVjdkTDRxVzlYcDJLZjhB",
        "5a733154366334",
        "%5A%73%31%54%36%63%4E%33",
        "Z s 1 T 6 c N 3 b V 7",
    ] {
        let mut keys = empty();
        let in_note = Err(KeySetError::KeyInNote);
        // For the key itself.
        assert_eq!(
            keys.adopt(parse(KEYS[1]), Staging::at(time(1)).with_note(note)).map(drop),
            in_note,
            "{note}"
        );
        for text in [note.to_owned(), format!("it is {note}, I think")] {
            let staging = Staging::at(time(1)).by(text);
            assert_eq!(keys.stage(parse(KEYS[1]), staging).map(drop), in_note, "{note}");
        }
        assert!(keys.adopt(parse(KEYS[0]), Staging::at(time(1)).with_note("by 8fK2pX9 and others")).is_ok());
        assert!(keys.stage(parse(KEYS[2]), Staging::at(time(1)).with_name("production-2026-11-r2")).is_ok());
    }
}
