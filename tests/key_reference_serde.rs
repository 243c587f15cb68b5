//! Key references in config files.
#![cfg(feature = "serde")]

mod support;

use std::collections::BTreeMap;

use keysheath::keyref::KeyRef;
use serde_json::{Value, json};
use support::{KEY, assert_nothing_of_in, assert_prints_nothing_of};

/// Digits that may be a key: Katana documents no format.
const DIGITS: &str = "18264739501827364950";

#[test]
fn a_reference_is_written_as_its_text_and_read_again() {
    for text in [
        "env:KANAL_API_KEY",
        "file:C:\\keys\\kanal?encoding=base64",
        "dotenv:a%23b/.env#A",
        "systemd:kanal_api_key",
        "keychain:shop-sync/kanal",
        "command:op read op://shop/kanal/key",
        "openbao:mount/path#field",
    ] {
        let reference: KeyRef = text.parse().unwrap();
        let written = serde_json::to_string(&reference).unwrap();
        assert_eq!(written, json!(text).to_string());
        assert_eq!(serde_json::from_str::<KeyRef>(&written).unwrap(), reference);
        assert_eq!(serde_json::from_slice::<KeyRef>(written.as_bytes()).unwrap(), reference);
        assert_eq!(serde_json::from_reader::<_, KeyRef>(written.as_bytes()).unwrap(), reference);
        assert_eq!(serde_json::from_value::<KeyRef>(json!(text)).unwrap(), reference);
    }
}

#[test]
fn a_reference_may_be_escaped_in_json_and_stand_in_a_document() {
    let document = r#"{"shop": "command:op read a\u0025\u0032\u0030b", "other": null}"#;
    let read: BTreeMap<String, Option<KeyRef>> = serde_json::from_str(document).unwrap();
    assert_eq!(read["shop"].as_ref().unwrap().to_string(), "command:op read a%20b");
    assert_eq!(read["other"], None);
    // Reading a reference from a file allows nothing.
    assert!(read["shop"].as_ref().unwrap().source().is_err());
}

#[test]
fn a_string_that_is_no_reference_is_refused_and_not_printed() {
    for text in [KEY.to_owned(), format!("env:A={KEY}"), format!("{KEY}:"), format!("Bearer {KEY}\n")] {
        for error in [
            serde_json::from_value::<KeyRef>(json!(text)).unwrap_err(),
            serde_json::from_str::<KeyRef>(&json!(text).to_string()).unwrap_err(),
        ] {
            assert_prints_nothing_of(&error, KEY);
        }
    }
    let error = serde_json::from_value::<KeyRef>(json!(KEY)).unwrap_err();
    assert!(error.to_string().contains("if this is the key itself"), "{error}");
}

#[test]
fn a_value_of_every_other_type_is_refused_and_not_printed() {
    let values = [
        DIGITS.to_owned(),
        format!("-{}", &DIGITS[..18]),
        format!("{DIGITS}{DIGITS}"),
        format!("{DIGITS}.5"),
        format!("1.{DIGITS}e5"),
        "18264739.5".to_owned(),
        "true".to_owned(),
        "null".to_owned(),
        format!("[\"{KEY}\"]"),
        format!("[{DIGITS}]"),
        format!("{{\"key\": \"{KEY}\"}}"),
        format!("{{\"{KEY}\": {DIGITS}}}"),
    ];
    for text in values {
        let value: Value = serde_json::from_str(&text).unwrap();
        for error in [
            serde_json::from_str::<KeyRef>(&text).unwrap_err(),
            serde_json::from_value::<KeyRef>(value.clone()).unwrap_err(),
            serde_json::from_str::<Vec<KeyRef>>(&format!("[{text}]")).unwrap_err(),
            serde_json::from_value::<Vec<KeyRef>>(json!([value])).unwrap_err(),
        ] {
            let printed = format!("{error} {error:?}");
            assert_nothing_of_in(KEY, &printed);
            assert_nothing_of_in(DIGITS, &printed);
            assert_nothing_of_in("true", &printed);
            // As serde prints a number of that size.
            assert_nothing_of_in("826473950182736", &printed);
            assert!(printed.contains("key reference"), "{text}: {printed}");
            assert!(printed.contains("env:NAME"), "{text}: {printed}");
        }
    }
}

#[test]
fn json_that_ends_early_or_goes_on_is_refused_and_not_printed() {
    for text in [format!("\"env:{KEY}"), format!("\"env:A\" {KEY}"), KEY.to_owned(), format!("\"\\u{KEY}\"")]
    {
        let error = serde_json::from_str::<KeyRef>(&text).unwrap_err();
        assert_prints_nothing_of(&error, KEY);
    }
}
