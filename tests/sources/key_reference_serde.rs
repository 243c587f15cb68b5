//! Key references in config files.

use std::collections::BTreeMap;

use crate::support::{KEY, assert_nothing_of_in, assert_prints_nothing_of};
use keysheath::source::{KeyRef, KeyRefError};
use serde_json::{Value, json};

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

/// Values in the place of a reference, as JSON and as TOML write them.
fn values() -> Vec<String> {
    vec![
        DIGITS[..18].to_owned(),
        format!("-{}", &DIGITS[..18]),
        "18264739.5".to_owned(),
        "true".to_owned(),
        format!("[\"{KEY}\"]"),
        format!("[{}, [\"{KEY}\"]]", &DIGITS[..18]),
        format!("\"{KEY}\""),
        format!("\"env:A={KEY}\""),
        format!("\"{KEY}:\""),
        format!("\"Bearer {KEY}\\n\""),
    ]
}

/// Asserts that a value is kept as one that says what it is when it is used, and shows nothing of it.
fn assert_is_none(read: &KeyRef) {
    let error = read.source().err().expect("no source");
    assert_eq!(read.problem(), Some(error));
    let written = serde_json::to_string(read).unwrap_err();
    let printed = format!("{read} {read:?} {error} {error:?} {written}");
    for secret in [KEY, DIGITS, "true", "826473950182736"] {
        assert_nothing_of_in(secret, &printed);
    }
}

#[test]
fn what_is_no_reference_is_reported_when_it_is_used() {
    let more = [
        "null".to_owned(),
        DIGITS.to_owned(),
        format!("{DIGITS}{DIGITS}"),
        format!("1.{DIGITS}e5"),
        format!("{{\"key\": \"{KEY}\"}}"),
        format!("{{\"{KEY}\": {DIGITS}}}"),
    ];
    for text in values().into_iter().chain(more) {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_is_none(&serde_json::from_str(&text).unwrap());
        assert_is_none(&serde_json::from_value(value.clone()).unwrap());
        let list: Vec<KeyRef> = serde_json::from_str(&format!("[\"env:A\", {text}, \"env:B\"]")).unwrap();
        assert_is_none(&list[1]);
        assert_eq!((list[0].to_string(), list[2].to_string()), ("env:A".to_owned(), "env:B".to_owned()));
    }
    let kept: KeyRef = serde_json::from_value(json!(KEY)).unwrap();
    assert!(kept.problem().unwrap().to_string().contains("if this is the key itself"));
    let number: KeyRef = serde_json::from_str(DIGITS).unwrap();
    assert_eq!(number.problem(), Some(KeyRefError::NotText));
}

#[test]
fn a_key_in_place_of_a_reference_in_toml_is_read_and_not_shown() {
    #[derive(Debug, serde::Deserialize)]
    struct Config {
        name: String,
        key: KeyRef,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Strict {
        #[allow(dead_code, reason = "what is read is not looked at")]
        key: u8,
    }

    for value in values() {
        let text = format!("name = \"shop\"\nkey = {value}\n");
        let config: Config = toml::from_str(&text).unwrap();
        assert_eq!(config.name, "shop");
        assert_is_none(&config.key);
        assert_nothing_of_in(KEY, &format!("{config:?}"));
    }
    // The library prints the line of an error, so there must be none.
    let error = toml::from_str::<Strict>(&format!("key = \"{KEY}\"\n")).unwrap_err();
    assert!(error.to_string().contains(KEY), "toml prints no line any more: {error}");
    let config: Config = toml::from_str("name = \"shop\"\nkey = \"env:SHOP?field=k\"\n").unwrap();
    assert_eq!(config.key.to_string(), "env:SHOP?field=k");
}

#[test]
fn json_that_ends_early_or_goes_on_is_refused_and_not_printed() {
    for text in
        [format!("\"env:{KEY}"), format!("\"env:A\" {KEY}"), format!("\"\\u{KEY}\""), format!("[\"{KEY}\"")]
    {
        let error = serde_json::from_str::<KeyRef>(&text).unwrap_err();
        assert_prints_nothing_of(&error, KEY);
    }
}
