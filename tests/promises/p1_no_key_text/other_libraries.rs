//! The errors of other libraries, which do show a key.

use super::*;

/// Asserts that another library's error prints the canary, in this form, and that ours, for the same input,
/// does not.
fn assert_only_theirs(form: &str, theirs: &(dyn Error + 'static), ours: &(dyn Error + 'static)) {
    assert!(traces(&all_of(theirs)).contains(&form), "{theirs:?} does not print it: the control is none");
    assert_error_silent("ours", ours);
}

#[test]
fn only_errors_of_other_libraries_print_the_canary() {
    const NAME: &str = "other_libraries::only_errors_of_other_libraries_print_the_canary";
    let not_utf8 = [KANAL.as_bytes(), b"\xff"].concat();
    let variable = std::ffi::OsString::from_vec(not_utf8.clone());
    in_child(NAME, &[("NOT_UNICODE", variable)], || {
        let folder = Folder::new();

        let theirs = std::env::var("NOT_UNICODE").unwrap_err();
        let ours = source::load(&Variable::new("NOT_UNICODE"), Kanal::PROFILE).unwrap_err();
        assert_only_theirs("text", &theirs, &ours);

        let theirs = String::from_utf8(not_utf8.clone()).unwrap_err();
        let ours = ApiKey::<Kanal>::parse_bytes(&not_utf8).unwrap_err();
        assert_only_theirs("list of bytes", &theirs, &ours);

        let theirs = serde_json::from_str::<u64>(&format!("\"{KANAL}\"")).unwrap_err();
        let ours = serde_json::from_str::<KeyRef>(&format!("\"{KANAL}\"")).unwrap();
        assert_only_theirs("text", &theirs, &ours.problem().unwrap());

        // Serde names a value of the wrong type by its value, and TOML's parser the line of any error, so
        // each type that a key could have is no error.
        for ours in [
            from_value(serde::de::value::BytesDeserializer::new(KANAL.as_bytes())),
            from_value(serde::de::value::StrDeserializer::new(KANAL)),
            from_value(serde::de::value::StringDeserializer::new(KANAL.to_owned())),
            from_value(serde::de::value::BorrowedStrDeserializer::new(KANAL)),
            from_value(serde::de::value::BorrowedBytesDeserializer::new(KANAL.as_bytes())),
        ] {
            assert_value_silent("KeyRef by serde", &ours);
            assert_error_silent("KeyRef by serde", &ours.problem().unwrap());
        }
        let number = "123456789012345678901234";
        for json in [number, "123456789012345678", "-123456789012345678", "1234567890.12345678", "true"] {
            let read = serde_json::from_str::<KeyRef>(json).unwrap();
            let shown = format!("{read} {read:?} {}", read.problem().unwrap());
            assert!(!shown.contains("123456") && !shown.contains("true"), "{shown}");
        }

        // It names one symbol, so six bytes are not to be had: the symbol itself is looked for.
        let text = format!("{}!", &KANAL[..7]);
        let theirs = base64_error(&text);
        assert!(theirs.to_string().contains("33"), "{theirs}");
        let source = SecretFile::new(folder.write("base64", &text)).base64();
        let ours = source::load(&source, Kanal::PROFILE).unwrap_err();
        let shown = all_of(&ours).replace(&folder.path().display().to_string(), "");
        assert!(!shown.contains("33") && !shown.contains('!'), "{shown}");
    });
}

fn from_value<'de, D>(deserializer: D) -> KeyRef
where
    D: serde::Deserializer<'de, Error = serde::de::value::Error>,
{
    serde::Deserialize::deserialize(deserializer).unwrap()
}

fn base64_error(text: &str) -> base64::DecodeError {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_err()
}
