//! An untrusted text is checked as a key.

use keysheath::key::{ApiKey, FormatError, FormatRule, Issuer, Kanal, Katana, KeyFormat, MAX_KEY_LENGTH};

/// Bounds around the width of a machine word and at both ends of what is allowed.
const FORMATS: [KeyFormat; 7] = [
    KeyFormat::exactly(1),
    KeyFormat::exactly(7),
    KeyFormat::exactly(8),
    KeyFormat::exactly(9),
    KeyFormat::between(3, 17),
    KeyFormat::between(1, MAX_KEY_LENGTH),
    KeyFormat::exactly(MAX_KEY_LENGTH),
];

/// Checks `data` against every format, and against the same rules written plainly.
pub(crate) fn parse(data: &[u8]) {
    let broken = reference(data);
    let own_length = KeyFormat::exactly(data.len().clamp(1, MAX_KEY_LENGTH));
    for format in FORMATS.iter().chain([&own_length]) {
        let (min, max) = format.lengths().into_inner();
        let accepted = broken.is_none() && (min..=max).contains(&data.len());
        assert_eq!(format.accepts(data), accepted, "not the verdict of the plain rule");
    }
    parse_as::<Kanal>(data, broken);
    parse_as::<Katana>(data, broken);
    check_screening(data, broken);
    if is_looked_at_closely(data) {
        check(&own_length, data, broken, own_length.check(data).err());
    }
}

/// Screening refuses what the check does, and of the rest what has a hint.
fn check_screening(data: &[u8], broken: Option<FormatRule>) {
    let format = KeyFormat::between(1, MAX_KEY_LENGTH);
    match (format.check(data), format.screen(data)) {
        (Err(checked), screened) => assert_eq!(screened, Err(checked)),
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(error)) => {
            assert!(broken.is_none() && error.rule() == FormatRule::Placeholder && error.hint().is_some());
            assert_eq!(format.with_placeholders().screen(data), Ok(()));
            assert!(data.len() > 1, "one character says nothing");
        }
    }
}

fn parse_as<I: Issuer>(data: &[u8], broken: Option<FormatRule>) {
    let parsed = ApiKey::<I>::parse_bytes(data);
    check(I::PROFILE.format(), data, broken, parsed.as_ref().err().copied());
    if let Some(text) =
        std::str::from_utf8(data).ok().filter(|_| parsed.is_ok() || is_looked_at_closely(data))
    {
        let taken = ApiKey::<I>::parse_owned(text.to_owned());
        match (&parsed, &taken) {
            (Ok(parsed), Ok(taken)) => assert!(parsed == taken, "take made another key than parse"),
            (Err(parsed), Err(taken)) => assert_eq!(parsed, taken),
            _ => panic!("take and parse disagree"),
        }
    }
    let Ok(key) = parsed else { return };
    assert_eq!(key.expose_secret().as_bytes(), data);
    assert!(key.matches(data), "a key does not match its own bytes");
    let mut other = data.to_vec();
    for at in 0..data.len() {
        // Every bit of the first bytes, and then one of each.
        for bit in if at < 32 { 0..8 } else { at % 8..at % 8 + 1 } {
            other[at] ^= 1 << bit;
            assert!(!key.matches(&other), "a key matches with a bit changed in byte {at}");
            other[at] ^= 1 << bit;
        }
    }
    other.push(0);
    assert!(!key.matches(&other) && !key.matches(&data[1..]), "a key matches another length");
}

/// The rule that is broken whatever the length, by RFC 6750 section 2.1 read one byte after the other.
fn reference(text: &[u8]) -> Option<FormatRule> {
    if text.is_empty() {
        return Some(FormatRule::Empty);
    }
    let mut first_padding = None;
    for (at, byte) in text.iter().enumerate() {
        let position = at + 1;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' | b'/' => {
                if let Some(position) = first_padding {
                    return Some(FormatRule::Padding { position });
                }
            }
            b'=' => first_padding = first_padding.or(Some(position)),
            _ => return Some(FormatRule::Character { position }),
        }
    }
    (first_padding == Some(1)).then_some(FormatRule::Padding { position: 1 })
}

fn check(format: &KeyFormat, text: &[u8], broken: Option<FormatRule>, found: Option<FormatError>) {
    let (min, max) = format.lengths().into_inner();
    let length =
        Some(FormatRule::Length { found: text.len() }).filter(|_| !(min..=max).contains(&text.len()));
    let rule = if text.is_empty() { broken } else { length.or(broken) };
    assert_eq!(found.map(|error| error.rule()), rule, "not the verdict of the plain rule");
    if let Some(error) = found.filter(|_| is_looked_at_closely(text)) {
        check_message(format, &error);
    }
}

/// A fuzzer that looked at the words of every message would spend its runs on them, and be led into them.
fn is_looked_at_closely(text: &[u8]) -> bool {
    !cfg!(fuzzing) || text.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) % 64 == 0
}

/// The message is made of the rule, the place, the bounds and the hint, and of nothing else.
fn check_message(format: &KeyFormat, error: &FormatError) {
    let (min, max) = format.lengths().into_inner();
    let (place, sample) = match error.rule() {
        FormatRule::Empty => (vec![], b"".as_slice()),
        FormatRule::Length { found } if min == max => (vec![found, min], b"a".as_slice()),
        FormatRule::Length { found } => (vec![found, min, max], b"a".as_slice()),
        FormatRule::Character { position } => (vec![position], b"a\x7f".as_slice()),
        FormatRule::Padding { position } => (vec![position], b"=a".as_slice()),
        rule => panic!("{rule:?} has no sample"),
    };
    // The same sentence, about a text that is known.
    let like = match error.rule() {
        FormatRule::Length { .. } if min == max => KeyFormat::exactly(9),
        FormatRule::Length { .. } => KeyFormat::between(8, 9),
        _ => KeyFormat::exactly(2),
    };
    let sample = like.check(sample).expect_err("a sample is no key").to_string();
    let (sentence, no_hint) = sample.split_once("; ").expect("a message has two parts");
    let hint = error.hint().map_or(no_hint.to_owned(), |hint| hint.to_string());

    let message = error.to_string();
    let (head, tail) = message.split_once("; ").expect("a message has two parts");
    assert_eq!(without_numbers(head), without_numbers(sentence));
    assert_eq!(numbers(head), place);
    assert_eq!(tail, hint);

    assert_eq!(format!("{error:?}"), message, "Debug shows more than the message");
}

fn numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
