//! Keys in environment variables, and in files that a variable names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::support::{
    Child, Folder, KEY, KEY_IN_BASE64, OTHER_KEY, absence, assert_gives_the_key, assert_nothing_of_in, error,
    found, in_child, problem, set_mode,
};
use keysheath::FileProblem;
use keysheath::key::{FormatRule, Hint, Issuer, Kanal, Katana, ParseError, StoreId};
use keysheath::source::{self, Absence, Loaded, Problem, Provenance, SecretFile, Source, Variable};

fn malformed(source: &dyn Source) -> (FormatRule, Option<Hint>) {
    match problem(source) {
        Problem::Malformed(error) => (error.rule(), error.hint()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_variable_gives_its_key() {
    in_child("a_variable_gives_its_key", &[("KANAL_API_KEY", KEY)], || {
        let found = found(&Variable::for_issuer(Kanal::PROFILE));
        assert!(found.key().matches(KEY.as_bytes()));
        assert_eq!(found.provenance(), &Provenance::Variable { name: "KANAL_API_KEY".to_owned() });
        assert!(found.remarks().is_empty());
    });
}

#[test]
fn a_variable_of_one_issuer_is_not_that_of_the_other() {
    let name = "a_variable_of_one_issuer_is_not_that_of_the_other";
    in_child(name, &[("KATANA_API_KEY", KEY)], || {
        assert_eq!(absence(&Variable::for_issuer(Kanal::PROFILE)), Absence::NotSet);
        let loaded = source::load(&Variable::for_issuer(Katana::PROFILE), Katana::PROFILE).unwrap();
        assert!(matches!(loaded, Loaded::Found(found) if found.key().profile() == Katana::PROFILE));
    });
}

#[test]
fn an_empty_variable_is_absent_and_says_so() {
    let variables = [("KANAL_API_KEY", ""), ("KANAL_API_KEY_FILE", "")];
    in_child("an_empty_variable_is_absent_and_says_so", &variables, || {
        assert_eq!(absence(&Variable::for_issuer(Kanal::PROFILE)), Absence::EmptyVariable);
        assert_eq!(
            absence(&SecretFile::named_by_variable(Kanal::PROFILE.variable())),
            Absence::EmptyVariable
        );
        assert_eq!(absence(&Variable::for_issuer(Katana::PROFILE)), Absence::NotSet);
        assert_eq!(absence(&SecretFile::named_by_variable(Katana::PROFILE.variable())), Absence::NotSet);
    });
}

#[test]
fn a_name_that_no_environment_can_hold_is_not_set() {
    for name in ["", "=", "A=B", "A\0B", "\0"] {
        assert_eq!(absence(&Variable::new(name)), Absence::NotSet, "{name:?}");
        assert_eq!(absence(&SecretFile::named_by_variable(name)), Absence::NotSet, "{name:?}");
    }
}

#[test]
fn a_malformed_variable_is_an_error_with_the_rule_and_a_hint() {
    let (newline, quoted, short) = (format!("{KEY}\n\n"), format!("'{KEY}'"), &KEY[..23]);
    let variables = [("NEWLINE", newline.as_str()), ("QUOTED", &quoted), ("SHORT", short), ("SPACE", " ")];
    in_child("a_malformed_variable_is_an_error_with_the_rule_and_a_hint", &variables, || {
        let length = |found| FormatRule::Length { found };
        assert_eq!(malformed(&Variable::new("NEWLINE")), (length(25), Some(Hint::TrailingNewline)));
        assert_eq!(malformed(&Variable::new("QUOTED")), (length(26), Some(Hint::Quotes)));
        assert_eq!(malformed(&Variable::new("SHORT")), (length(23), None));
        assert_eq!(malformed(&Variable::new("SPACE")), (length(1), Some(Hint::SurroundingSpace)));
        let message = error(&Variable::new("NEWLINE")).to_string();
        assert!(message.starts_with("variable NEWLINE: ") && message.contains("remove it"), "{message}");
    });
}

#[test]
fn one_final_newline_of_a_variable_is_removed_as_of_a_file() {
    let variables = [("LF", format!("{KEY}\n")), ("CRLF", format!("{KEY}\r\n")), ("ALONE", "\n".to_owned())];
    in_child("one_final_newline_of_a_variable_is_removed_as_of_a_file", &variables, || {
        assert_gives_the_key(&Variable::new("LF"));
        assert_gives_the_key(&Variable::new("CRLF"));
        assert_eq!(problem(&Variable::new("ALONE")), Problem::Empty);
    });
}

#[test]
fn a_key_in_a_field_or_on_a_line_of_a_variable_is_read() {
    let json =
        format!("{{\"other\": [1, {{}}], \"KANAL_API_KEY\": \"{KEY}\", \"base64\": \"{KEY_IN_BASE64}\"}}");
    let twice = format!("{{\"k\": \"{KEY}\", \"k\": \"{OTHER_KEY}\"}}");
    let lines = format!("{KEY}\r\nuser: shop\n");
    let variables =
        [("JSON", json.as_str()), ("TWICE", &twice), ("LINES", &lines), ("PLAIN", KEY), ("EMPTY", "")];
    in_child("a_key_in_a_field_or_on_a_line_of_a_variable_is_read", &variables, || {
        let field = |variable: &str, name: &str| Variable::new(variable).field(name);
        assert_gives_the_key(&field("JSON", "KANAL_API_KEY"));
        assert_gives_the_key(&field("JSON", "base64").base64());
        assert_gives_the_key(&Variable::new("LINES").line(1));
        let name = |name: &str| name.to_owned();
        assert_eq!(problem(&field("JSON", "key")), Problem::NoField { name: name("key") });
        assert_eq!(problem(&field("JSON", "other")), Problem::FieldNotText { name: name("other") });
        assert_eq!(problem(&field("TWICE", "k")), Problem::FieldTwice { name: name("k") });
        assert_eq!(problem(&field("PLAIN", "k")), Problem::NotJson);
        assert_eq!(problem(&Variable::new("LINES").line(3)), Problem::NoLine { line: 3, lines: 2 });
        assert_eq!(absence(&field("EMPTY", "k")), Absence::EmptyVariable);
    });
}

#[test]
fn a_reference_in_the_place_of_a_key_is_called_one() {
    let variables =
        [("FILE", "file:/run/secrets/kanal"), ("COMMAND", "command:op read op://a"), ("URL", "https://a")];
    in_child("a_reference_in_the_place_of_a_key_is_called_one", &variables, || {
        assert_eq!(problem(&Variable::new("FILE")), Problem::Reference { scheme: "file" });
        assert_eq!(problem(&Variable::new("COMMAND")), Problem::Reference { scheme: "command" });
        assert!(
            error(&Variable::new("FILE"))
                .to_string()
                .contains("holds a reference (file:…) in place of a key")
        );
        assert!(matches!(problem(&Variable::new("URL")), Problem::Malformed(_)));
    });
}

#[test]
fn a_katana_key_in_the_place_of_a_kanal_key_is_called_one() {
    let variables = [("KANAL_API_KEY", "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")];
    in_child("a_katana_key_in_the_place_of_a_kanal_key_is_called_one", &variables, || {
        let error = error(&Variable::for_issuer(Kanal::PROFILE));
        assert_eq!(error.problem(), &Problem::OtherIssuer { other: "Katana", wanted: "Kanal" });
        assert!(error.to_string().contains("has the form of a Katana key"), "{error}");
    });
}

#[test]
fn a_variable_that_is_not_unicode_is_malformed_and_not_printed() {
    let name = "a_variable_that_is_not_unicode_is_malformed_and_not_printed";
    let mut text = KEY.as_bytes().to_vec();
    text[9] = 0xff;
    let text = OsStr::from_bytes(&text);
    let child = Child::new(name).var("KANAL_API_KEY", text).var("ELSEWHERE_FILE", text);
    child.run(|| {
        assert_eq!(
            malformed(&Variable::for_issuer(Kanal::PROFILE)),
            (FormatRule::Character { position: 10 }, Some(Hint::NotUtf8))
        );
        // As a path it names nothing, and may be a key in the wrong variable.
        assert_eq!(problem(&SecretFile::named_by_variable("ELSEWHERE")), Problem::FileGone);
    });
}

#[test]
fn a_variable_may_be_base64() {
    let bad = format!("{KEY_IN_BASE64}\n\n");
    let variables = [("ENCODED", KEY_IN_BASE64), ("BAD", bad.as_str()), ("PLAIN", KEY)];
    in_child("a_variable_may_be_base64", &variables, || {
        assert_gives_the_key(&Variable::new("ENCODED").base64());
        assert_eq!(problem(&Variable::new("BAD").base64()), Problem::NotBase64);
        // The text of the plain key happens to be base64, of 18 bytes that are no key.
        assert_eq!(malformed(&Variable::new("PLAIN").base64()).0, FormatRule::Length { found: 18 });
        for printed in [error(&Variable::new("BAD").base64()), error(&Variable::new("ENCODED"))] {
            assert_nothing_of_in(KEY_IN_BASE64, &printed.to_string());
        }
    });
}

#[test]
fn a_variable_beside_its_file_variable_is_an_error_for_both() {
    let folder = Folder::new();
    let path = folder.write("key", OTHER_KEY);
    let child = Child::new("a_variable_beside_its_file_variable_is_an_error_for_both");
    child.var("KANAL_API_KEY", KEY).var("KANAL_API_KEY_FILE", &path).run(|| {
        let both_set = Problem::BothSet { variable: "KANAL_API_KEY".to_owned() };
        assert_eq!(problem(&Variable::for_issuer(Kanal::PROFILE)), both_set);
        assert_eq!(problem(&SecretFile::named_by_variable(Kanal::PROFILE.variable())), both_set);
        let message = error(&Variable::for_issuer(Kanal::PROFILE)).to_string();
        assert!(message.contains("KANAL_API_KEY and KANAL_API_KEY_FILE are both set"), "{message}");
        assert!(message.contains("unset one"), "{message}");
    });
}

#[test]
fn an_empty_partner_is_no_partner() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let child = Child::new("an_empty_partner_is_no_partner").var("A", KEY).var("A_FILE", "");
    child.var("B", "").var("B_FILE", &path).run(|| {
        assert_gives_the_key(&Variable::new("A"));
        assert_eq!(absence(&SecretFile::named_by_variable("A")), Absence::EmptyVariable);
        assert_eq!(absence(&Variable::new("B")), Absence::EmptyVariable);
        assert_gives_the_key(&SecretFile::named_by_variable("B"));
    });
}

#[test]
fn a_file_variable_gives_the_key_of_its_file_and_names_both() {
    let folder = Folder::new();
    let path = folder.write("key", format!("{KEY}\n"));
    let encoded = folder.write("encoded", KEY_IN_BASE64);
    let child = Child::new("a_file_variable_gives_the_key_of_its_file_and_names_both");
    child.var("KANAL_API_KEY_FILE", &path).var("ENCODED_FILE", &encoded).run(|| {
        let found = found(&SecretFile::named_by_variable(Kanal::PROFILE.variable()));
        assert!(found.key().matches(KEY.as_bytes()));
        let path = std::env::var("KANAL_API_KEY_FILE").unwrap();
        let place = format!("file {path} (named by KANAL_API_KEY_FILE)");
        assert_eq!(found.provenance().to_string(), place);
        assert_gives_the_key(&SecretFile::named_by_variable("ENCODED").base64());
    });
}

#[test]
fn a_file_variable_whose_file_is_missing_is_an_error() {
    let folder = Folder::new();
    let child = Child::new("a_file_variable_whose_file_is_missing_is_an_error");
    child.var("KANAL_API_KEY_FILE", folder.at("gone")).run(|| {
        let error = error(&SecretFile::named_by_variable(Kanal::PROFILE.variable()));
        assert_eq!(error.problem(), &Problem::FileGone);
        let path = std::env::var("KANAL_API_KEY_FILE").unwrap();
        let message = error.to_string();
        assert!(message.contains(&path) && message.contains("named by KANAL_API_KEY_FILE"), "{message}");
        assert!(message.contains("mount it, or unset the variable"), "{message}");
    });
}

#[test]
fn a_file_variable_goes_through_the_checks_of_a_secret_file() {
    let folder = Folder::new();
    let writable = folder.write("writable", KEY);
    set_mode(&writable, 0o666);
    let readable = folder.write("readable", KEY);
    set_mode(&readable, 0o644);
    let child = Child::new("a_file_variable_goes_through_the_checks_of_a_secret_file")
        .var("FOLDER_FILE", folder.path())
        .var("EMPTY_FILE", folder.write("empty", "\n"))
        .var("LONG_FILE", folder.write("long", vec![b'A'; 8193]))
        .var("WRITABLE_FILE", &writable)
        .var("READABLE_FILE", &readable);
    child.run(|| {
        assert_eq!(problem(&SecretFile::named_by_variable("FOLDER")), Problem::File(FileProblem::NotAFile));
        assert_eq!(problem(&SecretFile::named_by_variable("EMPTY")), Problem::Empty);
        assert_eq!(
            problem(&SecretFile::named_by_variable("LONG")),
            Problem::File(FileProblem::TooLarge { limit: 8192 })
        );
        assert_eq!(
            problem(&SecretFile::named_by_variable("WRITABLE")),
            Problem::File(FileProblem::WritableByOthers { mode: 0o666 })
        );
        assert_gives_the_key(&SecretFile::named_by_variable("READABLE"));
        let strict = SecretFile::named_by_variable("READABLE").with_strict_permissions();
        assert_eq!(problem(&strict), Problem::File(FileProblem::ReadableByOthers { mode: 0o644 }));
    });
}

#[test]
fn a_file_variable_resolves_a_relative_path_at_its_start() {
    let (first, second) = (Folder::new(), Folder::new());
    first.write("kanal", KEY);
    second.write("kanal", OTHER_KEY);
    let child = Child::new("a_file_variable_resolves_a_relative_path_at_its_start");
    let child = child.var("A_FILE", "./kanal").var("GONE_FILE", "missing/kanal").var("BARE_FILE", KEY);
    child.var("FIRST", first.path()).var("SECOND", second.path()).run(|| {
        let folder = |name: &str| std::env::var_os(name).unwrap();
        std::env::set_current_dir(folder("FIRST")).unwrap();
        std::fs::create_dir("missing").unwrap();
        let sources = ["A", "GONE", "BARE"].map(SecretFile::named_by_variable);
        std::env::set_current_dir(folder("SECOND")).unwrap();
        assert_gives_the_key(&sources[0]);
        let gone = error(&sources[1]).to_string();
        let whole = format!("{}/missing/kanal", folder("FIRST").display());
        assert!(gone.contains(&whole), "{gone}");
        // The folder is there, and the key in the place of the path is shown no more for that.
        assert!(error(&sources[2]).to_string().starts_with("the file that BARE_FILE names: "));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_slow_file_of_a_file_variable_is_named_and_has_no_prompt() {
    let folder = Folder::new();
    let path = folder.at("fifo");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status();
    assert!(made.expect("mkfifo runs (Debian: coreutils)").success());
    let child = Child::new("a_slow_file_of_a_file_variable_is_named_and_has_no_prompt");
    child.var("SLOW_FILE", &path).run(|| {
        let deadline = std::time::Duration::from_millis(100);
        let error = error(&SecretFile::named_by_variable("SLOW").with_deadline(deadline));
        assert_eq!(error.problem(), &Problem::Slow { after: deadline });
        let (message, path) = (error.to_string(), std::env::var("SLOW_FILE").unwrap());
        assert!(message.starts_with(&format!("file {path} (named by SLOW_FILE): ")), "{message}");
        assert!(message.contains("was not read within 100 ms") && !message.contains("prompt"), "{message}");
    });
}

#[test]
fn a_key_in_the_place_of_a_path_is_not_printed() {
    let name = "a_key_in_the_place_of_a_path_is_not_printed";
    let (slash, dot, deep) = (format!("/{}", &KEY[1..]), format!("./{}", &KEY[2..]), format!("/{KEY}/{KEY}"));
    let variables = [("BARE_FILE", KEY), ("SLASH_FILE", &slash), ("DOT_FILE", &dot), ("DEEP_FILE", &deep)];
    in_child(name, &variables, || {
        for name in ["BARE", "SLASH", "DOT", "DEEP"] {
            let error = error(&SecretFile::named_by_variable(name));
            assert_eq!(error.problem(), &Problem::FileGone, "{name}");
            assert!(error.to_string().starts_with(&format!("the file that {name}_FILE names: ")), "{error}");
        }
    });
}

#[test]
fn a_store_id_is_read_from_its_variable() {
    in_child("a_store_id_is_read_from_its_variable", &[("KANAL_STORE_ID", "123")], || {
        assert_eq!(StoreId::from_env(), Ok(StoreId::new(123)));
    });
}

#[test]
fn a_missing_store_id_is_none() {
    Child::new("a_missing_store_id_is_none").run(|| {
        assert_eq!(StoreId::from_env(), Ok(None));
    });
}

#[test]
fn an_empty_store_id_is_missing() {
    in_child("an_empty_store_id_is_missing", &[("KANAL_STORE_ID", "")], || {
        assert_eq!(StoreId::from_env(), Ok(None));
    });
}

#[test]
fn a_key_in_the_place_of_a_store_id_is_refused_and_not_printed() {
    let name = "a_key_in_the_place_of_a_store_id_is_refused_and_not_printed";
    in_child(name, &[("KANAL_STORE_ID", KEY)], || {
        let error = StoreId::from_env().unwrap_err();
        assert_eq!(error, ParseError::StoreId);
        crate::support::assert_prints_nothing_of(&error, KEY);
    });
}

#[test]
fn a_store_id_that_is_not_unicode_is_no_number() {
    let child = Child::new("a_store_id_that_is_not_unicode_is_no_number");
    child.var("KANAL_STORE_ID", OsStr::from_bytes(b"12\xff")).run(|| {
        assert_eq!(StoreId::from_env(), Err(ParseError::StoreId));
    });
}

#[test]
fn a_reference_in_the_place_of_a_path_is_told_as_one() {
    let name = "a_reference_in_the_place_of_a_path_is_told_as_one";
    let variables = [("A_FILE", "file:/run/secrets/kanal"), ("B_FILE", "keychain:kanal")];
    in_child(name, &variables, || {
        let message = error(&SecretFile::named_by_variable("A")).to_string();
        assert!(message.contains("takes a path") && message.contains("without file:"), "{message}");
        let message = error(&SecretFile::named_by_variable("B")).to_string();
        assert!(message.contains("takes a path") && !message.contains("mount it"), "{message}");
    });
}

#[test]
fn json_in_a_file_of_a_variable_is_told_where_a_field_is_named() {
    let folder = Folder::new();
    let path = folder.write("json", "{\"key\": 1}");
    let child = Child::new("json_in_a_file_of_a_variable_is_told_where_a_field_is_named");
    child.var("A_FILE", &path).run(|| {
        let message = error(&SecretFile::named_by_variable("A")).to_string();
        assert!(message.contains("in a key reference"), "{message}");
    });
}
