//! Keys in a `.env` file.
#![cfg(all(target_os = "linux", feature = "dotenv"))]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use keysheath::chain::{Chain, ChainError, Witness};
use keysheath::format::{FormatRule, Hint};
use keysheath::issuer::Kanal;
use keysheath::source::{Absence, DotenvFile, Problem, Provenance, Remark, Source as _};
use support::child::NOBODY;
use support::{
    Child, Folder, KEY, KEY_IN_BASE64, OTHER_KEY, absence, as_ordinary_user, assert_gives_the_key, error,
    found, in_child, problem, set_mode, with_a_file_of_another_user,
};

fn kanal(path: impl AsRef<Path>) -> DotenvFile {
    DotenvFile::new(path.as_ref(), "KANAL_API_KEY")
}

/// A `.env` with this content.
fn dotenv(folder: &Folder, content: impl AsRef<[u8]>) -> DotenvFile {
    kanal(folder.write(".env", content))
}

/// What a chain says that has this `.env` and then a file with another key.
fn broken_in_a_chain(path: &Path) -> Problem {
    let folder = Folder::new();
    let lower = keysheath::source::SecretFile::new(folder.write("lower", OTHER_KEY));
    let chain = Chain::<Kanal>::new().with_dotenv(path).with(lower);
    let error = chain.load().unwrap_err();
    support::assert_prints_nothing_of(&error, KEY);
    support::assert_prints_nothing_of(&error, OTHER_KEY);
    assert_eq!(error.trail().steps()[1].witness(), &Witness::NotAsked);
    match error {
        ChainError::Broken { error, .. } => error.problem().clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_usual_way_to_write_a_line_gives_the_key() {
    let folder = Folder::new();
    for content in [
        format!("KANAL_API_KEY={KEY}"),
        format!("KANAL_API_KEY={KEY}\n"),
        format!("KANAL_API_KEY={KEY}\r\n"),
        format!("KANAL_API_KEY = {KEY}\n"),
        format!("  KANAL_API_KEY={KEY}  \n"),
        format!("export KANAL_API_KEY={KEY}\n"),
        format!("KANAL_API_KEY='{KEY}'\n"),
        format!("KANAL_API_KEY=\"{KEY}\"\n"),
        format!("export KANAL_API_KEY='{KEY}'  # costs $5\n"),
        format!("KANAL_API_KEY={KEY} # the shop's\n"),
        format!("\u{feff}KANAL_API_KEY={KEY}\n"),
        format!("\u{feff}# note\r\n\r\nOTHER=x\r\nKANAL_API_KEY=\"{KEY}\"\r\nLAST=\"a b\"\r\n"),
    ] {
        assert_gives_the_key(&dotenv(&folder, &content));
        let selected = Chain::<Kanal>::new().with_dotenv(folder.at(".env")).load().unwrap();
        assert!(selected.key().matches(KEY.as_bytes()), "{content:?}");
    }
}

#[test]
fn the_provenance_names_the_line() {
    let folder = Folder::new();
    let content = format!("# {OTHER_KEY}\n\nTEXT='two\nlines'\n\n# note\nKANAL_API_KEY={KEY}\nB=2\n");
    let found = found(&dotenv(&folder, content));
    let (path, name) = (folder.at(".env"), "KANAL_API_KEY".to_owned());
    assert_eq!(found.provenance(), &Provenance::Dotenv { path, name, line: Some(7) });
    assert!(found.provenance().to_string().ends_with(".env, line 7"), "{}", found.provenance());
}

#[test]
fn a_file_that_is_missing_or_does_not_set_the_variable_is_absent() {
    let folder = Folder::new();
    assert_eq!(absence(&kanal(folder.at("missing"))), Absence::NoFile);
    for content in ["", "\n", "\u{feff}", "# KANAL_API_KEY=x\n", "KATANA_API_KEY=x\n", "XKANAL_API_KEY=x\n"] {
        assert_eq!(absence(&dotenv(&folder, content)), Absence::NotInFile, "{content:?}");
    }
    assert_eq!(absence(&dotenv(&folder, format!("kanal_api_key={KEY}\n"))), Absence::NotInFile);
}

#[test]
fn a_variable_that_is_set_to_nothing_is_absent() {
    let folder = Folder::new();
    for content in ["KANAL_API_KEY=", "KANAL_API_KEY=\r\n", "KANAL_API_KEY=''\n", "KANAL_API_KEY= # none\n"] {
        assert_eq!(absence(&dotenv(&folder, content)), Absence::EmptyVariable, "{content:?}");
    }
}

#[test]
fn a_syntax_error_on_any_line_is_named_and_the_line_is_not_shown() {
    let folder = Folder::new();
    for (content, line) in [
        (format!("KANAL_API_KEY={KEY}\nthis is {KEY} no line\n"), 2),
        (format!("{KEY}\n"), 1),
        (format!("A=1\n\n# c\n{KEY} = {KEY} = {KEY}\nKANAL_API_KEY={KEY}\n"), 4),
        (format!("KANAL_API_KEY={KEY} {KEY}\n"), 1),
        (format!("KANAL_API_KEY: {KEY}\n"), 1),
        (format!("A=1\nKANAL_API_KEY='{KEY}\nB=2\n"), 2),
        (format!("A=1\n={KEY}\n"), 2),
        (format!("A=1\r\nKANAL_API_KEY={KEY}\r\n\"{KEY}\r\n"), 3),
    ] {
        let error = error(&dotenv(&folder, &content));
        assert_eq!(error.problem(), &Problem::BadLine { line }, "{content:?}");
        assert!(error.to_string().contains(&format!("line {line} cannot be read")), "{error}");
        assert_eq!(broken_in_a_chain(&folder.at(".env")), Problem::BadLine { line });
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_a_bad_line() {
    let folder = Folder::new();
    let content = [b"A=1\nB=\xff\xfe\nKANAL_API_KEY=", KEY.as_bytes(), b"\n"].concat();
    assert_eq!(problem(&dotenv(&folder, content)), Problem::BadLine { line: 2 });
    let content = [b"KANAL_API_KEY=", KEY.as_bytes(), b"\xc3\n"].concat();
    assert_eq!(problem(&dotenv(&folder, content)), Problem::BadLine { line: 1 });
    let wide: Vec<u8> = format!("KANAL_API_KEY={KEY}\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(problem(&dotenv(&folder, [&b"\xff\xfe"[..], &wide].concat())), Problem::BadLine { line: 1 });
}

#[test]
fn a_value_that_would_be_changed_is_refused() {
    let name = "a_value_that_would_be_changed_is_refused";
    in_child(name, &[("PLANTED", OTHER_KEY)], || {
        let folder = Folder::new();
        let (first, second) = KEY.split_at(12);
        for value in [
            "$PLANTED".to_owned(),
            "${PLANTED}".to_owned(),
            "\"${PLANTED}\"".to_owned(),
            format!("{first}${second}"),
            format!("{first}\\$"),
            format!("\"{first}\\n{second}\""),
            format!("'{first}'{second}"),
            format!("{first}\"{second}\""),
            format!("'{first}\n{second}'"),
        ] {
            let error = error(&dotenv(&folder, format!("A=1\nKANAL_API_KEY={value}\n")));
            assert_eq!(error.problem(), &Problem::NotLiteral { line: 2 }, "{value}");
            assert!(error.to_string().contains("in single quotes"), "{error}");
            assert_eq!(broken_in_a_chain(&folder.at(".env")), Problem::NotLiteral { line: 2 });
        }
        for quoted in ["\"$PLANTED\"", "'$PLANTED'"] {
            let problem = problem(&dotenv(&folder, format!("KANAL_API_KEY={quoted}\n")));
            assert_eq!(problem, Problem::NotLiteral { line: 1 }, "{quoted}");
        }
    });
}

#[test]
fn a_hash_without_a_space_before_it_is_part_of_the_value() {
    let folder = Folder::new();
    match problem(&dotenv(&folder, format!("KANAL_API_KEY={KEY}#note\n"))) {
        Problem::Malformed(error) => assert_eq!(error.rule(), FormatRule::Length { found: 29 }),
        other => panic!("{other}"),
    }
}

#[test]
fn a_malformed_value_is_an_error_with_the_rule() {
    let folder = Folder::new();
    for (value, found, hint) in [
        ("\"Bearer 8fK2pX9mWq4Ld7Vb3Nc6Ts1Z\"".to_owned(), 31, Some(Hint::BearerPrefix)),
        (KEY[..23].to_owned(), 23, None),
        (format!("'{KEY} '"), 25, Some(Hint::SurroundingSpace)),
        ("'<your key>'".to_owned(), 10, Some(Hint::Placeholder)),
    ] {
        match problem(&dotenv(&folder, format!("KANAL_API_KEY={value}\n"))) {
            Problem::Malformed(error) => {
                assert_eq!((error.rule(), error.hint()), (FormatRule::Length { found }, hint), "{value}");
            }
            other => panic!("{value}: {other}"),
        }
    }
}

#[test]
fn a_variable_that_is_set_twice_is_refused_even_to_the_same_value() {
    let folder = Folder::new();
    for second in [KEY, OTHER_KEY, ""] {
        let content = format!("KANAL_API_KEY={KEY}\n\nexport KANAL_API_KEY={second}\n");
        let error = error(&dotenv(&folder, content));
        assert_eq!(error.problem(), &Problem::Duplicate { first: 1, second: 3 });
        assert!(error.to_string().contains("on line 1 and again on line 3"), "{error}");
        assert_eq!(broken_in_a_chain(&folder.at(".env")), Problem::Duplicate { first: 1, second: 3 });
    }
    // Another variable may.
    assert_gives_the_key(&dotenv(&folder, format!("A=1\nA=2\nKANAL_API_KEY={KEY}\n")));
}

#[test]
fn a_file_of_10_mb_is_refused_and_one_of_a_usual_size_is_read() {
    let folder = Folder::new();
    let line = format!("KANAL_API_KEY={KEY}\n");
    let padding = "# padding padding padding padding padding padding padding padding\n";
    let usual = padding.repeat(200_000 / padding.len()) + &line;
    assert_gives_the_key(&dotenv(&folder, usual));
    let long = format!("A='{}'\n{line}", "x".repeat(100_000));
    assert_gives_the_key(&dotenv(&folder, long));
    let large = line + &padding.repeat(10 * 1024 * 1024 / padding.len());
    let too_large = Problem::TooLarge { limit: 256 * 1024 };
    assert_eq!(problem(&dotenv(&folder, large)), too_large);
    assert_eq!(broken_in_a_chain(&folder.at(".env")), too_large);
}

#[test]
fn the_file_goes_through_the_checks_of_a_secret_file() {
    let folder = Folder::new();
    let source = dotenv(&folder, format!("KANAL_API_KEY={KEY}\n"));
    let path = folder.at(".env");
    set_mode(&path, 0o644);
    assert_eq!(found(&source).remarks(), [Remark::ReadableByOthers { mode: 0o644 }]);
    set_mode(&path, 0o646);
    assert_eq!(problem(&source), Problem::WritableByOthers { mode: 0o646 });
    assert_eq!(broken_in_a_chain(&path), Problem::WritableByOthers { mode: 0o646 });
    assert_eq!(problem(&kanal(folder.path())), Problem::NotAFile);
    assert_eq!(problem(&kanal("/dev/zero")), Problem::NotAFile);
    symlink(&path, folder.at("link")).unwrap();
    set_mode(&path, 0o600);
    assert_gives_the_key(&kanal(folder.at("link")));
    fs::remove_file(&path).unwrap();
    assert_eq!(problem(&kanal(folder.at("link"))), Problem::DanglingLink);
}

#[test]
fn a_file_of_another_user_is_refused() {
    with_a_file_of_another_user("a_file_of_another_user_is_refused", |path| {
        assert_eq!(problem(&kanal(path)), Problem::ForeignOwner { uid: NOBODY });
        assert_eq!(broken_in_a_chain(path), Problem::ForeignOwner { uid: NOBODY });
    });
}

#[test]
fn a_file_of_mode_000_is_unreadable() {
    as_ordinary_user("a_file_of_mode_000_is_unreadable", || {
        let folder = Folder::new();
        let source = dotenv(&folder, format!("KANAL_API_KEY={KEY}\n"));
        set_mode(&folder.at(".env"), 0);
        assert_eq!(problem(&source), Problem::Unreadable(std::io::ErrorKind::PermissionDenied));
    });
}

#[test]
fn no_process_variable_is_set_or_read() {
    in_child("no_process_variable_is_set_or_read", &[("KANAL_API_KEY", OTHER_KEY)], || {
        let folder = Folder::new();
        let content = format!("FROM_DOTENV=1\nKANAL_API_KEY={KEY}\nKATANA_API_KEY={KEY}\n");
        assert_gives_the_key(&dotenv(&folder, content));
        assert_eq!(std::env::var("KANAL_API_KEY").as_deref(), Ok(OTHER_KEY));
        for name in ["FROM_DOTENV", "KATANA_API_KEY"] {
            assert!(std::env::var_os(name).is_none(), "{name} is set");
        }
        assert_eq!(absence(&dotenv(&folder, "FROM_DOTENV=1\n")), Absence::NotInFile);
    });
}

#[test]
fn no_parent_folder_is_searched() {
    let folder = Folder::new();
    dotenv(&folder, format!("KANAL_API_KEY={KEY}\n"));
    fs::create_dir(folder.at("inner")).unwrap();
    Child::new("no_parent_folder_is_searched").var("INNER", folder.at("inner")).run(|| {
        std::env::set_current_dir(std::env::var_os("INNER").unwrap()).unwrap();
        for path in [".env", "./.env"] {
            assert_eq!(absence(&kanal(path)), Absence::NoFile);
            let error = Chain::<Kanal>::new().with_dotenv(path).load().unwrap_err();
            let ChainError::Broken { error, .. } = error else { panic!("{error}") };
            assert_eq!(error.problem(), &Problem::Missing { absence: Absence::NoFile });
        }
        assert_gives_the_key(&kanal("../.env"));
    });
}

#[test]
fn a_value_may_be_base64() {
    let folder = Folder::new();
    assert_gives_the_key(&dotenv(&folder, format!("KANAL_API_KEY='{KEY_IN_BASE64}'\n")).base64());
    assert_eq!(problem(&dotenv(&folder, "KANAL_API_KEY=a-b\n").base64()), Problem::NotBase64);
}

#[test]
fn lines_that_name_each_other_do_not_grow() {
    let folder = Folder::new();
    let doubling = (1..60).fold(String::new(), |text, at| format!("{text}A{at}=$A{0}$A{0}\n", at - 1));
    let text = format!("A0=aaaaaaaaaaaaaaaa\n{doubling}KANAL_API_KEY={KEY}\n");
    assert_gives_the_key(&dotenv(&folder, text));
}
