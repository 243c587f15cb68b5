//! An untrusted text is read as a key reference.

use std::collections::HashSet;
use std::sync::LazyLock;

use keysheath::source::{KeyRef, KeyRefError, Provenance};

/// One bad reference for each message, so that every message is known beforehand and none can hold a byte of
/// the text that it is about.
const BAD: [&str; 69] = [
    "text",
    "other:text",
    "env:",
    "env:a#b",
    "env:%00",
    "env:%zz",
    "env:a b",
    "env:A?b",
    "file:",
    "file:a#b",
    "file:%00",
    "file:..",
    "dotenv:a",
    "dotenv:#b",
    "dotenv:a#",
    "dotenv:a#b#c",
    "dotenv:a#b c",
    "dotenv:%00#b",
    "dotenv:..#b",
    "systemd:",
    "systemd:a#b",
    "systemd:%00",
    "systemd:..",
    "keychain:",
    "keychain:a#b",
    "keychain:%00",
    "keychain:a/b/c",
    "command:",
    "command:a#b",
    "command:'",
    "command: ",
    "openbao:a",
    "openbao:#b",
    "openbao:a/b#",
    "openbao:a#b",
    "openbao:a/b#b#c",
    "env: a",
    "env:A?field=%41",
    "env:A?owner=1",
    "file:~",
    "file:$a",
    "file:*",
    "file://a",
    "file: a",
    "dotenv:~#b",
    "dotenv:$a#b",
    "dotenv:*#b",
    "dotenv://a#b",
    "dotenv: a#b",
    "systemd: a",
    "keychain: a",
    "command:~",
    "command:$a",
    "openbao: a/b#c",
    "openbao:a/b# c",
    "openbao:a/data/b#c",
    "openbao:a/%00#b",
    "file:a?owner=b",
    "file:a?group=b",
    "env:A?line=0",
    "env:A?field=",
    "env:A?encoding=b",
    "env:aaaaaaaaaaaaaaaaaaaaaaA1",
    "file:aaaaaaaaaaaaaaaaaaaaaaA1",
    "systemd:aaaaaaaaaaaaaaaaaaaaaaA1",
    "keychain:aaaaaaaaaaaaaaaaaaaaaaA1",
    "command:aaaaaaaaaaaaaaaaaaaaaaA1",
    "openbao:a/aaaaaaaaaaaaaaaaaaaaaaA1#c",
    "openbao:a/b#aaaaaaaaaaaaaaaaaaaaaaA1",
];

/// References that are read and cannot be resolved in some build.
const UNRESOLVED: [&str; 4] = ["command:a", "openbao:a/b#c", "keychain:a", "dotenv:a#b"];

static MESSAGES: LazyLock<HashSet<[String; 2]>> = LazyLock::new(|| {
    let parsed = |text: &str| text.parse::<KeyRef>();
    let bad = BAD.map(|text| parsed(text).expect_err("a bad reference"));
    let unresolved = UNRESOLVED.map(|text| parsed(text).expect("a good reference").source().err());
    let too_long = parsed(&"a".repeat(5000)).expect_err("a bad reference");
    let all = bad.into_iter().chain(unresolved.into_iter().flatten()).chain([too_long]);
    all.map(shown).collect()
});

/// Reads `data` (what is not UTF-8 replaced) as a reference, prints it, reads that, and asks for its source.
pub(crate) fn key_ref(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let reference = match text.parse::<KeyRef>() {
        Ok(reference) => reference,
        Err(error) => return check_error(error),
    };
    let printed = reference.to_string();
    assert!(!printed.contains(char::is_control), "a control character is printed");
    assert!(printed.parse().as_ref() == Ok(&reference), "what is printed is read as another reference");

    let source = reference.source();
    let is_command = text.starts_with("command:");
    if is_command {
        assert_eq!(source.err(), Some(KeyRefError::CommandsNotAllowed), "a command ran unasked");
        check_command(&text, &reference);
        return;
    }
    match source {
        Err(error) => check_error(error),
        Ok(source) => check_place(&source.provenance()),
    }
}

fn check_error(error: KeyRefError) {
    assert!(MESSAGES.contains(&shown(error)), "a message that is not among the constant ones: {error}");
}

fn shown(error: KeyRefError) -> [String; 2] {
    [error.to_string(), format!("{error:?}")]
}

/// A command shows its program and how many arguments it has: as many other arguments look the same.
fn check_command(text: &str, reference: &KeyRef) {
    let words = text.strip_prefix("command:").and_then(|text| text.split('?').next()).unwrap_or_default();
    let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
    let count = if words == program { 0 } else { arguments.split(' ').count() };
    let twin = format!("command:{program}{}", " x".repeat(count)).parse::<KeyRef>();
    let twin = twin.expect("the program was good, and the arguments are");
    assert_eq!(format!("{reference:?}"), format!("{twin:?}"), "Debug shows an argument");
    let place = |reference: &KeyRef| {
        let allowed = reference.clone().allow_commands();
        format!("{:?}", allowed.source().expect("a command that is allowed").provenance())
    };
    assert_eq!(place(reference), place(&twin), "the provenance shows an argument");
}

/// What was read cannot climb out of where it stands.
fn check_place(place: &Provenance) {
    match place {
        Provenance::File { path } | Provenance::Dotenv { path, .. } => {
            let path = path.to_str().expect("it was a text");
            assert!(!path.split(['/', '\\']).any(|part| part == ".."), "a path climbs");
        }
        Provenance::Systemd { name } => {
            assert!(!name.contains(['/', '\\']) && name != "..", "a credential climbs");
        }
        Provenance::Variable { name } => assert!(!name.contains(['=', '\0']) && !name.is_empty()),
        Provenance::Keychain { service, name } => {
            assert!(!service.is_empty() && !name.is_empty() && !name.contains('/'));
        }
        Provenance::OpenBao { place, field, .. } => {
            assert!(!place.is_empty() && field.as_ref().is_some_and(|field| !field.is_empty()));
            assert!(!place.split('/').any(|part| part == ".."), "a path climbs");
        }
        place => panic!("an unexpected place: {place:?}"),
    }
}
