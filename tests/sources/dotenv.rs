//! Keys in a `.env` file.

mod large;
mod peers;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::child::NOBODY;
use crate::support::{
    Child, Folder, KEY, KEY_IN_BASE64, OTHER_KEY, absence, as_ordinary_user, assert_gives_the_key, error,
    found, in_child, problem, set_mode, with_a_file_of_another_user,
};
use keysheath::FileProblem;
use keysheath::chain::{AttemptOutcome, Chain, ChainError};
use keysheath::key::{FormatRule, Hint, Issuer as _, Kanal};
use keysheath::source::{Absence, DotenvFile, LineFault, Problem, Provenance, Remark, Source as _};

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
    crate::support::assert_prints_nothing_of(&error, KEY);
    crate::support::assert_prints_nothing_of(&error, OTHER_KEY);
    assert_eq!(error.attempts().as_slice()[1].outcome(), &AttemptOutcome::NotAsked);
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
        format!("PORT=80  # don't change\nKANAL_API_KEY={KEY}\nDEBUG=1  # it's on\n"),
        format!("OWNER=O'Brien\nKANAL_API_KEY={KEY}\nSHOP=Joe's\n"),
        format!("SIZE=5\"\nKANAL_API_KEY={KEY}\nW=6\"\n"),
        format!("CERT=\"abc\ndef=\"\nKANAL_API_KEY={KEY}\nB=\"x\"\n"),
        format!("A=1\nB=$A\\ # {OTHER_KEY}\nKANAL_API_KEY={KEY}\nC=\"\n"),
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
fn a_missing_file_or_one_without_the_variable_is_absent() {
    let folder = Folder::new();
    assert_eq!(absence(&kanal(folder.at("missing"))), Absence::NoFile);
    for content in [
        "",
        "\n",
        "\u{feff}",
        "# KANAL_API_KEY=x\n",
        "KATANA_API_KEY=x\n",
        "XKANAL_API_KEY=x\n",
        "KANAL_API_KEY_FILE=x\n",
        "KANAL_API_KEY-OLD=x\n",
        "KANAL_API$_KEY=x\n",
        "A=$KANAL_API_KEY\n",
        "not a line\n",
        "NEXT_PUBLIC_HOST_URL_=\n",
    ] {
        assert_eq!(absence(&dotenv(&folder, content)), Absence::NotInFile, "{content:?}");
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_is_absent() {
    let folder = Folder::new();
    for content in ["KANAL_API_KEY=", "KANAL_API_KEY=\r\n", "KANAL_API_KEY=''\n", "KANAL_API_KEY='' # none\n"]
    {
        assert_eq!(absence(&dotenv(&folder, content)), Absence::EmptyVariable, "{content:?}");
    }
}

/// Asserts that a file is refused for this fault, in a chain too, and that the message names the line.
fn assert_refused(folder: &Folder, content: &str, line: usize, fault: LineFault) {
    let error = error(&dotenv(folder, content));
    assert_eq!(error.problem(), &Problem::BadLine { line, fault }, "{content:?}");
    assert!(error.to_string().contains(&format!("line {line} {fault}")), "{error}");
    assert_eq!(broken_in_a_chain(&folder.at(".env")), Problem::BadLine { line, fault });
}

#[test]
fn a_line_of_the_variable_that_is_not_clear_is_named() {
    let folder = Folder::new();
    let (first, second) = KEY.split_at(12);
    for (content, line, fault) in [
        (format!("KANAL_API_KEY: {KEY}\n"), 1, LineFault::NoEquals),
        ("A=1\nKANAL_API_KEY\n".to_owned(), 2, LineFault::NoEquals),
        (format!("KANAL_API_KEY={KEY}\nexport KANAL_API_KEY\n"), 2, LineFault::NoEquals),
        (format!("{KEY}\n"), 1, LineFault::NoName),
        (format!("A=1\n  {KEY}\r\n"), 2, LineFault::NoName),
        (format!("'KANAL_API_KEY'={KEY}\n"), 1, LineFault::QuotedName),
        (format!("export\tKANAL_API_KEY={KEY}\n"), 1, LineFault::Export),
        (format!("export  KANAL_API_KEY={KEY}\n"), 1, LineFault::Export),
        (format!("A=1\nKANAL_API_KEY='{KEY}\nB=2\n"), 2, LineFault::Unclosed),
        (format!("KANAL_API_KEY='{first}\n{second}'\n"), 1, LineFault::Unclosed),
        (format!("KANAL_API_KEY='{KEY}'x\n"), 1, LineFault::AfterQuotes),
        (format!("KANAL_API_KEY='{KEY}'#x\n"), 1, LineFault::AfterQuotes),
        (format!("KANAL_API_KEY='{first}'{second}\n"), 1, LineFault::AfterQuotes),
        (format!("KANAL_API_KEY={first}\"{second}\"\n"), 1, LineFault::QuoteInside),
        (format!("KANAL_API_KEY=`{KEY}`\n"), 1, LineFault::QuoteInside),
        (format!("KANAL_API_KEY={KEY}#note\n"), 1, LineFault::Hash),
        ("KANAL_API_KEY=#\n".to_owned(), 1, LineFault::Hash),
        (format!("KANAL_API_KEY={first}\\$\n"), 1, LineFault::Dollar),
        (format!("KANAL_API_KEY={first}\\{second}\n"), 1, LineFault::Backslash),
        (format!("KANAL_API_KEY=\"{first}\\n{second}\"\n"), 1, LineFault::Backslash),
    ] {
        assert_refused(&folder, &content, line, fault);
    }
}

#[test]
fn a_line_that_may_be_inside_a_quoted_value_is_never_absent() {
    let folder = Folder::new();
    for (content, line, opened) in [
        (format!("A=\"x\nKANAL_API_KEY={KEY}\nB=\"\n"), 2, 1),
        (format!("A='x\nKANAL_API_KEY={KEY}\nB='\n"), 2, 1),
        (format!("A=`x\nKANAL_API_KEY={KEY}\nB=`\n"), 2, 1),
        (format!("Z=1\nA=\"x\\\"\nB=2\nKANAL_API_KEY={KEY}\nC=\"1\"\n"), 4, 2),
        (format!("A=\"x\\\\\"\nKANAL_API_KEY={KEY}\nC=\"1\"\n"), 2, 1),
        (format!("\t# A=\"x\nKANAL_API_KEY={KEY}\nC=\"1\"\n"), 2, 1),
        (format!("B=1\n  # A=\"x\nKANAL_API_KEY=\"{KEY}\"\n"), 3, 2),
        (format!("'A\nKANAL_API_KEY={KEY}\n'\n"), 2, 1),
        (format!("A=1\rB=\"x\nKANAL_API_KEY={KEY}\nC=\"\n"), 2, 1),
    ] {
        assert_refused(&folder, &content, line, LineFault::InsideQuotes { opened });
    }
    // No quotation mark closes it, so no program takes the line for a part of the value.
    assert_gives_the_key(&dotenv(&folder, format!("A=\"x\nKANAL_API_KEY={KEY}\n")));
}

#[test]
fn a_line_after_an_unusual_line_end_is_never_absent() {
    let folder = Folder::new();
    for end in ["\r", "\u{b}", "\u{c}", "\u{1c}", "\u{85}", "\u{2028}", "\u{2029}"] {
        for content in [
            format!("A=1{end}KANAL_API_KEY={KEY}\n"),
            format!("A=1{end}  export KANAL_API_KEY = {KEY}{end}B=2{end}"),
            format!("# note{end}KANAL_API_KEY={KEY}"),
            format!("KANAL_API_KEY={KEY}{end}B=2\n"),
        ] {
            assert_refused(&folder, &content, 1, LineFault::LineBreak);
        }
    }
    // Node reads a file without its CRs.
    assert_refused(&folder, &format!("KANAL\r_API_KEY={KEY}\n"), 1, LineFault::LineBreak);
    // Elsewhere such a character does no harm.
    assert_gives_the_key(&dotenv(&folder, format!("A=1\rB=2\n# \u{2028}\nKANAL_API_KEY={KEY}\r\n")));
}

#[test]
fn a_blank_that_is_not_a_plain_space_is_named() {
    let folder = Folder::new();
    for blank in ["\t", "\u{a0}", "\u{3000}", "\u{200b}", "\u{feff}", "\u{2003}"] {
        for content in [
            format!("A=1\n{blank}KANAL_API_KEY={KEY}\n"),
            format!("A=1\nKANAL_API_KEY{blank}={KEY}\n"),
            format!("A=1\nKANAL_API_KEY={blank}{KEY}\n"),
            format!("A=1\nKANAL_API_KEY= {KEY}{blank}\n"),
            format!("A=1\nKANAL_API_KEY={KEY}{blank} # note\n"),
        ] {
            assert_refused(&folder, &content, 2, LineFault::Blank);
        }
    }
    let error = error(&dotenv(&folder, format!("KANAL_API_KEY={KEY}\u{a0}\n"))).to_string();
    assert!(error.contains("no-break space") && !error.contains('$'), "{error}");
}

#[test]
fn a_dollar_is_named_without_advice_to_use_quotes() {
    in_child("a_dollar_is_named_without_advice_to_use_quotes", &[("PLANTED", OTHER_KEY)], || {
        let folder = Folder::new();
        for value in ["$PLANTED", "${PLANTED}", "\"${PLANTED}\"", "'$PLANTED'", "8fK2$pX9", "$"] {
            let content = format!("A=1\nKANAL_API_KEY={value}\n");
            assert_refused(&folder, &content, 2, LineFault::Dollar);
            let message = error(&dotenv(&folder, content)).to_string();
            assert!(!message.contains("single quotes") && message.contains("the key itself"), "{message}");
        }
    });
}

#[test]
fn lines_about_other_variables_do_no_harm_and_are_remarked() {
    let folder = Folder::new();
    for other in [
        "APP_NAME=My Shop",
        "LOG_DIR=C:\\logs\\shop",
        "J={\"type\": \"x\"}",
        "export NOT_SET",
        "MY-APP=1",
        "=2",
        "a b",
    ] {
        let content = format!("A=1\n{other}\nKANAL_API_KEY={KEY}\n{other}\nB='x y'\n\n# note\n");
        let source = dotenv(&folder, &content);
        assert_gives_the_key(&source);
        let remarks = found(&source).remarks().to_vec();
        let is_named = |remark: &Remark| matches!(remark, Remark::UnclearLines { first: 2, count: 2, .. });
        assert!(matches!(&remarks[..], [remark] if is_named(remark)), "{other}: {remarks:?}");
        assert!(remarks[0].to_string().contains("line 2 and 1 more"), "{}", remarks[0]);
    }
    let long = format!("CERT=\"-----BEGIN\nabc\n-----END\"\nB=\"x y\" # note\nKANAL_API_KEY={KEY}\n");
    assert_eq!(found(&dotenv(&folder, long)).remarks(), []);
}

#[test]
fn bytes_that_are_not_utf_8_matter_on_the_line_itself() {
    let folder = Folder::new();
    let content = [b"A=1\nB=\xff\xfe\nKANAL_API_KEY=", KEY.as_bytes(), b"\n"].concat();
    assert_gives_the_key(&dotenv(&folder, content));
    let content = [b"KANAL_API_KEY=", KEY.as_bytes(), b"\xc3\n"].concat();
    let fault = LineFault::NotUtf8;
    assert_eq!(problem(&dotenv(&folder, content)), Problem::BadLine { line: 1, fault });
}

#[test]
fn a_file_in_utf_16_gets_the_advice_that_a_key_file_gets() {
    let folder = Folder::new();
    let text = format!("KANAL_API_KEY={KEY}\n");
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for content in [[&b"\xff\xfe"[..], &little].concat(), [&b"\xfe\xff"[..], &big].concat(), little, big] {
        let error = error(&dotenv(&folder, content));
        assert_eq!(error.problem(), &Problem::NotText { hint: Hint::Nul });
        assert!(error.to_string().contains("UTF-16"), "{error}");
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
        (format!("{KEY} {KEY}"), 49, Some(Hint::Doubled)),
        (format!("Bearer {KEY}"), 31, Some(Hint::BearerPrefix)),
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
fn a_variable_set_twice_is_refused_even_to_the_same_value() {
    let folder = Folder::new();
    for second in [KEY, OTHER_KEY, ""] {
        let content = format!("KANAL_API_KEY={KEY}\n\nexport KANAL_API_KEY={second}\n");
        let error = error(&dotenv(&folder, content));
        assert_eq!(error.problem(), &Problem::Duplicate { first: 1, second: 3 });
        let hidden = format!("KANAL_API_KEY={KEY}\nA=\"x\nKANAL_API_KEY={second}\nB=\"\n");
        assert!(error.to_string().contains("on line 1 and again on line 3"), "{error}");
        assert_eq!(problem(&dotenv(&folder, hidden)), Problem::Duplicate { first: 1, second: 3 });
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
    let too_large = Problem::File(FileProblem::TooLarge { limit: 256 * 1024 });
    let message = error(&dotenv(&folder, large)).to_string();
    assert!(message.contains("more than any such file needs") && !message.contains("not a key"), "{message}");
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
    assert_eq!(problem(&source), Problem::File(FileProblem::WritableByOthers { mode: 0o646 }));
    assert_eq!(broken_in_a_chain(&path), Problem::File(FileProblem::WritableByOthers { mode: 0o646 }));
    assert_eq!(problem(&kanal(folder.path())), Problem::File(FileProblem::NotAFile));
    assert_eq!(problem(&kanal("/dev/zero")), Problem::File(FileProblem::NotAFile));
    symlink(&path, folder.at("link")).unwrap();
    set_mode(&path, 0o600);
    assert_gives_the_key(&kanal(folder.at("link")));
    fs::remove_file(&path).unwrap();
    assert_eq!(problem(&kanal(folder.at("link"))), Problem::File(FileProblem::DanglingLink));
}

#[test]
fn a_file_of_another_user_is_refused() {
    with_a_file_of_another_user("dotenv::a_file_of_another_user_is_refused", |path| {
        assert_eq!(problem(&kanal(path)), Problem::File(FileProblem::ForeignOwner { uid: NOBODY }));
        assert_eq!(broken_in_a_chain(path), Problem::File(FileProblem::ForeignOwner { uid: NOBODY }));
    });
}

#[test]
fn a_file_of_mode_000_is_unreadable() {
    as_ordinary_user("dotenv::a_file_of_mode_000_is_unreadable", || {
        let folder = Folder::new();
        let source = dotenv(&folder, format!("KANAL_API_KEY={KEY}\n"));
        set_mode(&folder.at(".env"), 0);
        assert_eq!(
            problem(&source),
            Problem::File(FileProblem::Unreadable(std::io::ErrorKind::PermissionDenied))
        );
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

#[test]
fn what_a_remark_advises_about_a_line_takes_the_remark_away() {
    let folder = Folder::new();
    for (line, followed) in [
        ("G=it's", "G=\"it's\""),
        ("A", "# A"),
        ("if then", "# if then"),
        ("K: v", "K=v"),
        ("N=a b", "N=\"a b\""),
    ] {
        let remark =
            found(&dotenv(&folder, format!("{line}\nKANAL_API_KEY={KEY}\n"))).remarks()[0].to_string();
        assert!(remark.contains("disagree about line 1, which is about another variable"), "{remark}");
        assert!(remark.contains("quotes that the value does not contain"), "{remark}");
        assert!(remark.contains("comment"), "{remark}");
        assert_eq!(found(&dotenv(&folder, format!("{followed}\nKANAL_API_KEY={KEY}\n"))).remarks(), []);
    }
}

#[test]
fn a_variable_of_a_similar_name_is_told_by_its_line() {
    let folder = Folder::new();
    for line in
        [format!("KANAL_APIKEY={KEY}"), format!("export KANAL_KEY='{KEY}'"), format!("kanal_api_key={KEY}")]
    {
        let found = absence(&dotenv(&folder, format!("A=1\n{line}\n")));
        let words = "the file does not set it; line 2 sets a variable of a similar name";
        assert_eq!(found.to_string(), words, "{line}");
    }
    for line in ["KANAL_APIKEY=", "# KANAL_KEY=a", "KANAL_KEYS=a"] {
        assert_eq!(absence(&dotenv(&folder, format!("{line}\n"))), Absence::NotInFile, "{line}");
    }
}
