//! A key in the place of a name, and what is said about a reference that is none.

use super::*;

#[test]
fn a_key_in_the_place_of_a_name_is_refused_and_not_kept() {
    for text in [
        format!("env:{KEY}"),
        format!("file:{KEY}"),
        format!("file:\"{KEY}\""),
        format!("file:/run/secrets/{KEY}"),
        format!("file:C:\\keys\\{KEY}"),
        format!("systemd:{KEY}"),
        format!("keychain:{KEY}"),
        format!("keychain:shop/{KEY}"),
        format!("dotenv:.env#{KEY}"),
        format!("dotenv:{KEY}#A"),
        format!("command:{KEY}"),
        format!("openbao:secret/{KEY}#key"),
        format!("openbao:secret/shop#{KEY}"),
        format!("env:A?field={KEY}"),
    ] {
        let error = refused(&text);
        assert!(error.to_string().contains("looks like a key"), "{error}");
        let reference = KeyRef::from_text(&text);
        assert_nothing_of_in(KEY, &format!("{error} {error:?} {reference} {reference:?}"));
    }
}

#[test]
fn a_key_shaped_name_is_accepted_with_one_character_escaped() {
    let written = format!("%{:02X}{}", KEY.as_bytes()[0], &KEY[1..]);
    for text in [
        format!("keychain:{written}"),
        format!("file:/run/{written}/x"),
        format!("env:A?field={written}"),
        format!("command:{written} {written}"),
    ] {
        assert_eq!(parse(&text).to_string(), text);
        assert_eq!(parse(&text), parse(&parse(&text).to_string()));
    }
    let middle = format!("keychain:{}%{:02X}{}", &KEY[..5], KEY.as_bytes()[5], &KEY[6..]);
    assert_eq!(parse(&middle), parse(&format!("keychain:{written}")));
    for text in [
        "keychain:8fk2px9mwq4ld7vb3nc6ts1z",
        "keychain:8fK2pX9mWq4Ld7Vb3Nc6Ts1",
        "file:/a-8fK2pX9mWq4Ld7Vb3Nc6Ts1Z",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn an_error_of_a_reference_says_what_is_wrong_with_it() {
    for (text, words) in [
        ("ENV:KANAL_API_KEY", "in lower case"),
        ("file:/a?owner=alice", "the option owner is "),
        ("file:/a?group=alice", "the option group is "),
        ("file:/a?line=0", "the option line is "),
        ("file:/a?field=", "the option field is "),
        ("file:/a?encoding=hex", "the option encoding is "),
    ] {
        let error = refused(text);
        assert!(error.to_string().contains(words), "{text}: {error}");
        // A program that ends with the error prints its `Debug`.
        assert_eq!(format!("{error:?}"), error.to_string());
    }
    let bare = refused(KEY).to_string();
    assert!(!bare.contains("into one of those places"), "{bare}");
}
