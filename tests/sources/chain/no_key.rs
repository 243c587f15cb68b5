//! Texts that are no key: each is refused with advice of its own, and well-formed placeholders are refused
//! when loaded.

use std::process::Command;

use keysheath::key::{Hint, Issuer, Kanal, Katana, Profile, RawKey};
use keysheath::source::{self, KeyRef, Loaded, Problem, SecretFile};

use crate::support::{Folder, KEY, KEY_IN_BASE64, OTHER_KEY, assert_prints_nothing_of};

const UUID: &str = "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071";

/// The message about a file with this text, which must not hold a key.
fn message(profile: &'static Profile, text: &str) -> String {
    let folder = Folder::new();
    let error = match source::load(&SecretFile::new(folder.write("key", text)), profile) {
        Err(error) => error,
        Ok(loaded) => panic!("{text:?}: {loaded:?}"),
    };
    assert!(
        matches!(error.problem(), Problem::Malformed(_) | Problem::Reference { .. }),
        "{text:?}: {error}"
    );
    for length in [6, 12] {
        for at in (0..KEY.len() - length).step_by(length) {
            assert_prints_nothing_of(&error, &KEY[at..at + length]);
        }
    }
    error.problem().to_string()
}

#[test]
fn a_well_formed_placeholder_is_refused_when_loaded() {
    let cases: &[(&'static Profile, &[&str], &str)] = &[
        (
            Katana::PROFILE,
            &[
                "YOUR_API_KEY_HERE",
                "changeme-changeme",
                "your-katana-api-key",
                "replace_me_with_your_key",
                "example-api-key-1",
                "test-test-test-test",
                "xxxx-xxxx-xxxx-xxxx",
                "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
                "00000000-0000-0000-0000-000000000000",
                "12345678-1234-1234-1234-123456789abc",
                "abcdefghijklmnopqrstuvwxyz",
                "1234567890123456",
                "deadbeef-dead-beef-dead-beefdeadbeef",
            ],
            "placeholder",
        ),
        (
            Kanal::PROFILE,
            &[
                "xxxxxxxxxxxxxxxxxxxxxxxx",
                "XXXXXXXXXXXXXXXXXXXXXXXX",
                "YOUR_KANAL_API_KEY__HERE",
                "my-super-secret-api-key1",
                "abcdefghijklmnopqrstuvwx",
                "123456789012345678901234",
                "abc123abc123abc123abc123",
                "a1b2c3d4e5f6g7h8i9j0k1l2",
                "000000000000000000000000",
                "test-test-test-test-test",
            ],
            "placeholder",
        ),
        (Katana::PROFILE, &["................", "----------------", "0190............6071"], "masked"),
        (Kanal::PROFILE, &["........................", "8fK2xxxxxxxxxxxxxxxxTs1Z"], "masked"),
        (Kanal::PROFILE, &["kanal_sk_live_8fK2pX9mWq"], "kanal_sk_"),
        (Katana::PROFILE, &["kanal_sk_live_8fK2pX9mWq4Ld7Vb"], "kanal_sk_"),
        (Katana::PROFILE, &["/run/secrets/katana_api_key"], "path"),
        (
            Katana::PROFILE,
            &["0190b3c4-5d6e-7f80-9a1b-2c3d4e5f60710190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071"],
            "twice",
        ),
    ];
    for (profile, texts, word) in cases {
        for text in *texts {
            assert!(profile.format().check(text.as_bytes()).is_ok(), "{text} is not well-formed");
            // What is compared, on the other side, is not judged by its look.
            assert!(RawKey::parse(profile, text.as_bytes()).is_ok(), "{text}");
            let message = message(profile, text);
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}

#[test]
fn keys_of_the_documentation_and_of_the_field_load() {
    let folder = Folder::new();
    for (profile, text) in [
        (Kanal::PROFILE, KEY),
        (Kanal::PROFILE, OTHER_KEY),
        (Katana::PROFILE, UUID),
        (Katana::PROFILE, "acme-9mWq4Ld7Vb3Nc6Ts1Z"),
        (Katana::PROFILE, "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2ln"),
        (Katana::PROFILE, "MDE5MGIzYzQtNWQ2ZS03ZjgwLTlhMWItMmMzZDRlNWY2MDcx"),
    ] {
        let loaded = source::load(&SecretFile::new(folder.write("key", text)), profile);
        assert!(matches!(loaded, Ok(Loaded::Found(_))), "{text}: {loaded:?}");
    }
}

#[test]
fn each_usual_mistake_gets_advice_of_its_own() {
    let cases = [
        ("op://shop/kanal/key".to_owned(), "1Password"),
        (
            "encrypted:BDqDBibm4wsYqMpCjTQ6BsDHmMadg9K3dAt+Z9HPMfLEIRVz50hmLXPXRuDBXaJi/LwWYEVUNiq0HISrs"
                .to_owned(),
            "encrypted",
        ),
        ("ENC[AES256_GCM,data:CwE4O1s=,iv:2k=,aad:o=,tag:w==]".to_owned(), "encrypted"),
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:kanal-AbCdEf".to_owned(), "AWS"),
        (format!("KANAL_API_KEY={KEY}"), "NAME=value"),
        (format!("export KANAL_API_KEY={KEY}"), "NAME=value"),
        (format!("kanal_api_key: {KEY}"), "NAME=value"),
        (format!("Authorization: Bearer {KEY}"), "Authorization"),
        (format!("authorization:bearer {KEY}"), "Authorization"),
        (format!("Bearer {KEY}"), "Bearer"),
        (format!("{KEY}{KEY}"), "twice"),
        (format!("{KEY} {KEY}"), "twice"),
        (format!("{KEY},"), "comma"),
        (format!("{KEY};"), "comma"),
        (KEY.replace('X', "\u{425}"), "another alphabet"),
        (KEY.replace('c', "\u{441}"), "another alphabet"),
        (format!("{KEY}\u{3bf}"), "another alphabet"),
        (KEY_IN_BASE64.to_owned(), "base64"),
        ("OGZLMnBYOW1XcTRMZDdWYjNOYzZUczFaCg==".to_owned(), "base64"),
        (format!("{{\"KANAL_API_KEY\": \"{KEY}\"}}"), "JSON"),
        (format!("{{\n  \"KANAL_API_KEY\": \"{KEY}\"\n}}\n"), "JSON"),
        (format!("[\"{KEY}\"]"), "JSON"),
        ("keychain:kanal".to_owned(), "a reference (keychain:"),
        ("env:KANAL_API_KEY".to_owned(), "a reference (env:"),
        ("https://vault.example/v1/secret/data/kanal".to_owned(), "URL"),
        ("/run/secrets/kanal_api_key".to_owned(), "path"),
        ("~/.config/kanal/key".to_owned(), "path"),
        ("C:\\keys\\kanal".to_owned(), "path"),
        (format!("\u{202a}{KEY}\u{202c}"), "direction"),
        (format!("{KEY}\u{fe0f}"), "no width"),
        (format!("{}\u{ff11}", &KEY[..22]), "full-width"),
        ("\u{1d7ef}fK2pX9mWq".to_owned(), "full-width"),
        (format!("{}\u{2013}", &KEY[..9]), "not ASCII"),
        (format!("{KEY}\u{a0}"), "no-break space"),
        (format!("\u{3000}{KEY}"), "no-break space"),
        (format!("{}\u{a0}{}", &KEY[..12], &KEY[12..]), "no-break space"),
        ("<your-key>".to_owned(), "placeholder"),
        ("example".to_owned(), "placeholder"),
        ("${{ secrets.KANAL_API_KEY }}".to_owned(), "placeholder"),
    ];
    let mut seen = Vec::new();
    for (text, phrase) in cases {
        let message = message(Kanal::PROFILE, &text);
        assert!(message.contains(phrase), "{text:?}: {message}");
        seen.push((phrase, message.split_once("; ").map_or(message.clone(), |(_, hint)| hint.to_owned())));
    }
    seen.sort();
    seen.dedup();
    seen.windows(2).for_each(|pair| assert_ne!(pair[0].0, pair[1].0, "one phrase, two texts"));
}

#[test]
fn every_scheme_of_a_reference_is_known_where_a_key_belongs() {
    for text in [
        "env:KANAL_API_KEY",
        "file:/run/secrets/kanal",
        "dotenv:.env#KANAL_API_KEY",
        "systemd:kanal_api_key",
        "keychain:kanal",
        "command:pass kanal",
        "openbao:secret/shop/kanal#key",
    ] {
        assert!(text.parse::<KeyRef>().is_ok(), "{text}");
        let message = message(Kanal::PROFILE, text);
        assert!(message.contains("it holds a reference"), "{text}: {message}");
        let error = Kanal::PROFILE.format().check(text.as_bytes()).unwrap_err();
        assert_eq!(error.hint(), Some(Hint::Reference), "{text}");
    }
}

#[test]
fn text_that_is_not_utf_8_is_named() {
    let error = Kanal::PROFILE.format().check(&[KEY.as_bytes(), b"\xa0"].concat()).unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn advice_about_base64_matches_what_coreutils_print() {
    for line in
        ["printf %s \"$0\" | base64", "echo \"$0\" | base64", "printf %s \"$0\" | basenc --base64url -w0"]
    {
        let output = Command::new("sh").args(["-c", line, KEY]).output().unwrap();
        let message = message(Kanal::PROFILE, String::from_utf8(output.stdout).unwrap().as_str());
        assert!(message.contains("base64"), "{line}: {message}");
    }
}
