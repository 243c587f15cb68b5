//! Key sets that are written down, by this version and by earlier ones, and what is none.

use crate::keyset::form::FORM_VERSION;
use crate::store::MAX_DOCUMENT;

use super::*;

/// A document as each released form writes it: key 2 active, key 3 pending, key 1 previous, key 4 retired,
/// key 5 compromised, and key 6 as well, which was pending and is not said to be deleted.
const RELEASED: [&str; 1] = [include_str!("form_1.json")];

fn read(text: &str) -> Result<KeySet, KeySetError> {
    KeySet::from_document(Kanal::PROFILE, text.as_bytes())
}

/// The key set that [`RELEASED`] holds.
fn example() -> KeySet {
    let mut keys = adopted();
    let given_up = keys.stage(key(4), staging()).unwrap().rotation();
    keys.abort(given_up).unwrap();
    keys.confirm_deleted(name(4)).unwrap();
    let note = "the \"yearly\" one \\ spring";
    let rotation = keys.stage(key(2), Staging::at(time(10)).by("anna").with_note(note)).unwrap().rotation();
    keys.verify(rotation, time(11)).unwrap();
    keys.promote(rotation, Promotion::Verified, time(12)).unwrap();
    keys.compromise(name(5), time(13)).unwrap();
    keys.stage(key(6), Staging::at(time(13))).unwrap();
    keys.compromise(name(6), time(13)).unwrap();
    let place = Variable::new("KANAL_API_KEY").provenance();
    keys.stage(key(3), Staging::at(time(14)).loaded_from(&place)).unwrap();
    keys
}

#[test]
fn documents_of_every_released_form_are_read() {
    assert_eq!(RELEASED.len() as u64, FORM_VERSION, "each form has a document here");
    for text in RELEASED {
        let keys = read(text).unwrap();
        assert_eq!(
            keys.to_document().expose_secret().to_vec(),
            example().to_document().expose_secret().to_vec()
        );
    }
}

#[test]
fn this_form_is_written_as_it_was_released() {
    assert_eq!(
        String::from_utf8(example().to_document().expose_secret().to_vec()).unwrap(),
        RELEASED[RELEASED.len() - 1]
    );
}

#[test]
fn a_newer_form_is_refused_and_says_so() {
    let newer = RELEASED[0].replace("\"form\": 1", "\"form\": 2");
    assert_eq!(read(&newer).unwrap_err(), KeySetError::Newer { found: 2, known: FORM_VERSION });
    // Also where there is something new in it.
    let newer = newer.replace("\"issuer\"", "\"something\": [1, 2], \"issuer\"");
    assert_eq!(read(&newer).unwrap_err(), KeySetError::Newer { found: 2, known: FORM_VERSION });
}

#[test]
fn a_document_that_is_cut_off_anywhere_is_refused() {
    let text = RELEASED[0].trim_end();
    for end in 0..text.len() {
        assert!(matches!(read(&text[..end]), Err(KeySetError::Corrupt { .. })), "{end}");
    }
    assert!(read(text).is_ok());
}

#[test]
fn a_hand_edited_document_is_refused_where_it_is_inconsistent() {
    let one = RELEASED[0];
    let [first, second, sixth] = [1, 4, 6].map(|number| name(number).to_string());
    for (what, text) in [
        ("nothing", String::new()),
        ("no object", "[]".to_owned()),
        ("another thing", one.replace("key set", "shopping list")),
        ("form 0", one.replace("\"form\": 1", "\"form\": 0")),
        ("a form that is a text", one.replace("\"form\": 1", "\"form\": \"1\"")),
        ("a field that is not known", one.replace("\"issuer\"", "\"comment\": \"x\", \"issuer\"")),
        ("a field that is missing", one.replace("\"generation\": 2,", "")),
        ("a field twice", one.replace("\"generation\": 2,", "\"generation\": 2, \"generation\": 3,")),
        ("a negative number", one.replace("\"generation\": 2", "\"generation\": -2")),
        ("no generation", one.replace("\"generation\": 2", "\"generation\": 0")),
        ("a rotation too few", one.replace("\"rotation\": 5,\n", "\"rotation\": 4,\n")),
        ("keys and no beginning", one.replace(&format!("\"begun\": \"{first}\""), "\"begun\": null")),
        ("a beginning that is none", one.replace(&format!("\"begun\": \"{first}"), "\"begun\": \"x")),
        ("a key that is no base64", one.replace("\"key\": \"S", "\"key\": \"*")),
        ("a key that is too short", one.replace("\"key\": \"S2V5", "\"key\": \"")),
        ("a fingerprint that is none", one.replace(&second, "urdz-nrsd-3rmw")),
        ("a fingerprint in capitals", one.replace(&second, &second.to_uppercase())),
        (
            "a leaked key that is not compromised",
            one.replace(&format!("[[\"{sixth}\""), &format!("[[\"{second}\"")),
        ),
        ("a leaked key twice", one.replace("\", 13]]", &format!("\", 13], [\"{sixth}\", 13]]"))),
        ("a leaked key without a time", one.replace("\", 13]]", "\"]]")),
        ("a key in two places", one.replace(&second, &first)),
        ("a long note", one.replace("spring", &"x".repeat(101))),
        ("a note with a line break", one.replace("spring", "spr\\ning")),
        ("more after it", format!("{one}{one}")),
    ] {
        let error = read(&text).map(drop).unwrap_err();
        assert!(matches!(error, KeySetError::Corrupt { .. }), "{what}: {error:?}");
        assert!(!error.to_string().contains("Key0"));
    }
    let other = one.replace("\"issuer\": \"kanal\"", "\"issuer\": \"katana\"");
    assert_eq!(read(&other).map(drop), Err(KeySetError::OtherIssuer));
    assert_eq!(
        KeySet::from_document(Katana::PROFILE, one.as_bytes()).map(drop),
        Err(KeySetError::OtherIssuer)
    );
    let large = format!("{one}{}", " ".repeat(MAX_DOCUMENT));
    assert_eq!(read(&large).map(drop), Err(KeySetError::TooLarge));
}

#[test]
fn the_longest_keys_and_notes_fit_into_a_document() {
    const LONG: &Profile =
        &Profile::new("long", "LONG", Origin::https("long.example"), KeyFormat::exactly(4096), 128);
    let long = |fill: char| {
        let text: String = std::iter::repeat_n(fill, 4096).collect();
        RawKey::parse(LONG, text.as_bytes()).unwrap()
    };
    let noted = || Staging::at(SystemTime::now()).by("ü".repeat(64)).with_note("\"".repeat(100));
    let mut keys = KeySet::new(LONG).unwrap();
    keys.adopt(long('a'), noted()).unwrap();
    let rotation = keys.stage(long('b'), noted()).unwrap().rotation();
    keys.promote(rotation, Promotion::Unverified, SystemTime::now()).unwrap();
    keys.stage(long('c'), noted()).unwrap();
    for number in 0..MAX_REPORTED {
        keys.compromise(name(number), time(1)).unwrap();
    }
    // The last second of the year 9999: no later time is written down, and every platform's clock can tell
    // it.
    let far = time(253_402_300_799);
    for number in 0..MAX_COMPROMISED {
        let pending = keys.pending().unwrap().info().fingerprint();
        keys.compromise(pending, far).unwrap();
        let text = format!("d{number:04095}");
        keys.stage(RawKey::parse(LONG, text.as_bytes()).unwrap(), Staging::at(far)).unwrap();
    }
    assert_eq!(keys.leaked().len(), MAX_COMPROMISED);
    let document = keys.to_document();
    let document = document.expose_secret();
    assert!(document.len() <= MAX_DOCUMENT, "{}", document.len());
    assert!(KeySet::from_document(LONG, document).is_ok());
}

#[test]
fn a_key_set_keeps_the_name_of_the_key_that_began_it() {
    let keys = example();
    assert_eq!(keys.lineage(), Some(name(1)));
    let read = KeySet::from_document(Kanal::PROFILE, keys.to_document().expose_secret()).unwrap();
    assert_eq!(read.lineage(), Some(name(1)));
    assert_eq!(KeySet::new(Kanal::PROFILE).unwrap().lineage(), None);
    let mut staged = KeySet::new(Kanal::PROFILE).unwrap();
    let rotation = staged.stage(key(2), staging()).unwrap().rotation();
    staged.abort(rotation).unwrap();
    staged.adopt(key(3), staging()).unwrap();
    assert_eq!(staged.lineage(), Some(name(2)), "it stays");
}

#[test]
fn a_key_that_was_given_up_is_written_and_read() {
    let mut keys = example();
    let pending = keys.pending().unwrap().info().rotation();
    keys.abort(pending).unwrap();
    keys.stage(key(7), Staging::at(time(20)).with_name("the \"seventh\"")).unwrap();
    keys.abort(keys.pending().unwrap().info().rotation()).unwrap();
    let document = keys.to_document();
    let text = std::str::from_utf8(document.expose_secret()).unwrap();
    let line = format!("\n  \"given_up\": [{{\"fingerprint\":\"{}\",\"rotation\":5,\"staged\":", name(3));
    assert!(text.contains(&line), "{text}");
    let again = read(text).unwrap();
    assert_eq!(again.aborted(), keys.aborted());
    assert_eq!(again.aborted()[1].name(), Some("the \"seventh\""));
    // One that is not retired was not given up.
    let other = text
        .replace(&format!("\"fingerprint\":\"{}\"", name(3)), &format!("\"fingerprint\":\"{}\"", name(9)));
    assert!(matches!(read(&other), Err(KeySetError::Corrupt { .. })));
}
