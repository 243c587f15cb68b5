//! Key references: what each names, that printing and parsing are inverse, and that a text which is no
//! reference is never printed.

mod misplaced;
mod properties;

use crate::support::{KEY, KEY_IN_BASE64, OTHER_KEY, assert_nothing_of_in, assert_prints_nothing_of};
use keysheath::key::{Issuer, Kanal};
use keysheath::source::{self, Absence, KeyRef, KeyRefError, Problem, Provenance, Source};

/// The longest reference, in bytes, as the docs of `KeyRefError` say.
const MAX_REFERENCE: usize = 4096;

fn parse(text: &str) -> KeyRef {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refused(text: &str) -> KeyRefError {
    match text.parse::<KeyRef>() {
        Err(error) => error,
        Ok(reference) => panic!("{text:?} was taken for {reference:?}"),
    }
}

fn source_of(text: &str) -> Box<dyn Source> {
    parse(text).allow_commands().source().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn each_scheme_names_its_source() {
    let file = |path: &str| Provenance::File { path: std::path::absolute(path).unwrap() };
    let command = |program: &str, arguments| Provenance::Command { program: program.into(), arguments };
    for (text, provenance) in [
        ("env:KANAL_API_KEY", Provenance::Variable { name: "KANAL_API_KEY".to_owned() }),
        ("file:/run/secrets/kanal", file("/run/secrets/kanal")),
        ("file:keys/kanal", file("keys/kanal")),
        ("file:/a:b c", file("/a:b c")),
        ("file:/50%25%3F%23%0A", file("/50%?#\n")),
        ("file:C:\\keys\\kanal", file("C:\\keys\\kanal")),
        ("file:C:/keys/kanal", file("C:/keys/kanal")),
        ("file:\\\\server\\share\\kanal", file("\\\\server\\share\\kanal")),
        ("file:schlüssel", file("schlüssel")),
        ("file:..data/...", file("..data/...")),
        ("systemd:kanal_api_key", Provenance::Systemd { name: "kanal_api_key".to_owned() }),
        ("command:op read op://shop/kanal/key", command("op", 2)),
        ("command:a%20b --x=c%20d", command("a b", 1)),
        ("command:gcloud", command("gcloud", 0)),
    ] {
        assert_eq!(source_of(text).provenance(), provenance, "{text}");
        assert_eq!(source_of(&format!("{text}?encoding=base64")).provenance(), provenance, "{text}");
    }
}

#[cfg(feature = "dotenv")]
#[test]
fn a_dotenv_reference_names_its_file_and_variable() {
    for (text, path, name) in [
        ("dotenv:.env#KANAL_API_KEY", ".env", "KANAL_API_KEY"),
        ("dotenv:C:\\shop\\.env#A", "C:\\shop\\.env", "A"),
        ("dotenv:a%23b/.env#A.B", "a#b/.env", "A.B"),
    ] {
        let (path, name) = (std::path::absolute(path).unwrap(), name.to_owned());
        assert_eq!(source_of(text).provenance(), Provenance::Dotenv { path, name, line: None });
    }
}

#[cfg(not(feature = "dotenv"))]
#[test]
fn a_dotenv_reference_is_read_and_says_which_feature_it_needs() {
    let error = parse("dotenv:.env#A").source().err().expect("no source");
    assert!(error.to_string().contains("feature `dotenv`"), "{error}");
}

#[cfg(feature = "keychain")]
#[test]
fn a_keychain_reference_names_its_item() {
    for (text, service, name) in [
        ("keychain:kanal", "keysheath", "kanal"),
        ("keychain:shop-sync/kanal", "shop-sync", "kanal"),
        ("keychain:shop sync/my%3F key", "shop sync", "my? key"),
    ] {
        let (service, name) = (service.to_owned(), name.to_owned());
        assert_eq!(source_of(text).provenance(), Provenance::Keychain { service, name });
    }
}

#[cfg(not(feature = "keychain"))]
#[test]
fn a_keychain_reference_is_read_and_says_which_feature_it_needs() {
    let error = parse("keychain:kanal").source().err().expect("no source");
    assert!(error.to_string().contains("feature `keychain`"), "{error}");
}

#[test]
fn an_openbao_reference_is_the_source_that_it_names() {
    let reference = parse("openbao:secret/shop/kanal#key");
    assert_eq!(reference.to_string(), "openbao:secret/shop/kanal#key");
    let source = reference.source();
    #[cfg(feature = "openbao")]
    assert_eq!(source.unwrap().provenance().to_string(), "openbao secret/shop/kanal, field key");
    #[cfg(not(feature = "openbao"))]
    assert!(matches!(source.err(), Some(KeyRefError::Unsupported { scheme: "openbao", .. })));
}

#[cfg(unix)]
#[test]
fn a_reference_leads_to_the_key() {
    let folder = crate::support::Folder::new();
    folder.write("a b?", KEY);
    folder.write("base64", KEY_IN_BASE64);
    let folder = folder.path().display();
    for text in [
        format!("file:{folder}/a b%3F"),
        format!("file:{folder}/base64?encoding=base64"),
        format!("command:printf %25s\\n {KEY}"),
        format!("command:cat {folder}/a%20b%3f"),
    ] {
        crate::support::assert_gives_the_key(&*source_of(&text));
    }
    // The words reach the program as they are: no shell expands them.
    let loaded = source::load(&*source_of("command:printf %25s %24HOME"), Kanal::PROFILE);
    assert!(matches!(loaded, Err(error) if error.to_string().contains("5 bytes")));
    let loaded = source::load(&*source_of("env:NO_SUCH_VARIABLE"), Kanal::PROFILE);
    let missing = Problem::Missing { absence: Absence::NotSet };
    assert!(matches!(loaded, Err(error) if *error.problem() == missing));
}

#[cfg(unix)]
#[test]
fn the_options_of_a_reference_find_the_key_in_its_shape() {
    let folder = crate::support::Folder::new();
    folder.write("json", format!("{{\"KANAL_API_KEY\": \"{KEY}\", \"a&b?\": \"{KEY_IN_BASE64}\\n\"}}\n"));
    folder.write("pass", format!("{KEY}\nuser: shop\n"));
    let path = folder.write("group", KEY);
    crate::support::set_mode(&path, 0o660);
    let gid = std::os::unix::fs::MetadataExt::gid(&path.metadata().unwrap());
    let folder = folder.path().display();
    for text in [
        format!("file:{folder}/json?field=KANAL_API_KEY"),
        format!("file:{folder}/json?field=a%26b%3F&encoding=base64"),
        format!("file:{folder}/pass?line=1"),
        format!("file:{folder}/group?group={gid}"),
        format!("command:cat {folder}/pass?line=1"),
        format!("command:cat {folder}/json?field=KANAL_API_KEY"),
    ] {
        crate::support::assert_gives_the_key(&*source_of(&text));
        assert_eq!(parse(&text).to_string(), text);
    }
    // In any order; printed in one.
    let reference = parse("file:/a?encoding=base64&field=k&group=2&owner=1");
    assert_eq!(reference.to_string(), "file:/a?owner=1&group=2&field=k&encoding=base64");
}

#[test]
fn an_invalid_reference_is_a_value_whose_use_says_so() {
    let reference = KeyRef::from_text(KEY);
    assert_eq!(reference.problem(), Some(KeyRefError::NoScheme));
    assert_eq!(reference.source().err(), Some(KeyRefError::NoScheme));
    assert_eq!(reference.clone().allow_commands().source().err(), Some(KeyRefError::NoScheme));
    for printed in [reference.to_string(), format!("{reference:?}")] {
        assert_nothing_of_in(KEY, &printed);
        assert!(printed.contains("no key reference"), "{printed}");
        assert!(printed.parse::<KeyRef>().is_err());
    }
    assert_eq!(KeyRef::from_text("env:A"), parse("env:A"));
}

#[test]
fn a_command_line_does_not_print_a_key_given_as_a_reference() {
    let command = |parser: clap::builder::ValueParser| {
        clap::Command::new("shop").arg(clap::Arg::new("key").value_parser(parser))
    };
    let strict = command(clap::builder::ValueParser::new(|text: &str| text.parse::<KeyRef>()));
    let error = strict.try_get_matches_from(["shop", KEY]).unwrap_err().to_string();
    assert!(error.contains(KEY), "clap prints no argument any more: {error}");
    let lenient = command(clap::builder::ValueParser::new(|text: &str| {
        Ok::<_, std::convert::Infallible>(KeyRef::from_text(text))
    }));
    let matches = lenient.try_get_matches_from(["shop", KEY]).unwrap();
    let reference: &KeyRef = matches.get_one("key").unwrap();
    assert_eq!(reference.problem(), Some(KeyRefError::NoScheme));
    assert_nothing_of_in(KEY, &format!("{reference:?}"));
}

#[test]
fn a_command_is_refused_until_it_is_allowed() {
    let reference = parse("command:op read op://shop/kanal/key?encoding=base64");
    let error = reference.source().err().expect("no source");
    assert_eq!(error, KeyRefError::CommandsNotAllowed);
    assert!(error.to_string().contains("only where its user wrote the reference"), "{error}");
    let chain = keysheath::chain::Chain::<Kanal>::new();
    assert_eq!(chain.with_reference(&reference).err(), Some(KeyRefError::CommandsNotAllowed));
    assert!(reference.clone().allow_commands().source().is_ok());
    // To read the text again does not carry the permission over.
    let printed = reference.allow_commands().to_string();
    assert_eq!(parse(&printed).source().err(), Some(KeyRefError::CommandsNotAllowed));
}

#[test]
fn every_malformed_reference_is_refused_by_its_rule() {
    use KeyRefError::{Escape, NoScheme, Query, TooLong, UnknownScheme};

    let long = format!("file:/{}", "k".repeat(MAX_REFERENCE));
    for (text, error) in [
        ("", NoScheme),
        ("KANAL_API_KEY", NoScheme),
        ("/run/secrets/kanal", NoScheme),
        (":", UnknownScheme),
        ("vault:secret/kanal", UnknownScheme),
        ("ENV:KANAL_API_KEY", UnknownScheme),
        (" env:KANAL_API_KEY", UnknownScheme),
        ("https://shop.example/key", UnknownScheme),
        ("C:\\keys\\kanal", UnknownScheme),
        ("env:A?", Query),
        ("env:A?encoding=base64&x=y", Query),
        ("env:A?encoding=base64&encoding=base64", Query),
        ("env:A?field=a&line=1", Query),
        ("env:A?field", Query),
        ("env:A?owner=1000", Query),
        ("systemd:a?group=1000", Query),
        ("file:/a?Owner=1", Query),
        ("file:/a?owner=1&", Query),
        ("file:/a?field=%41", Escape),
        ("file:/a?b", Query),
        ("command:op get a?b", Query),
        ("file:/a%", Escape),
        ("file:/a%4", Escape),
        ("file:/a%41", Escape),
        ("file:/a%2F..", Escape),
        ("file:/%2e%2e/a", Escape),
        ("file:/a\nb", Escape),
        ("file:/a\0b", Escape),
        ("command:a%41", Escape),
        (&long, TooLong),
    ] {
        assert_eq!(refused(text), error, "{text:?}");
    }
    for option in [
        "encoding=base64url",
        "encoding=base64?encoding=base64",
        "field=",
        "field= a",
        "field=a#b",
        "line=0",
        "line=01",
        "line=+1",
        "line=-1",
        "line=99999999999",
        "owner=root",
        "owner=4294967296",
    ] {
        let error = refused(&format!("file:/a?{option}"));
        let name = option.split('=').next().unwrap();
        assert!(error.to_string().starts_with(&format!("the option {name} is ")), "{option}: {error}");
    }
    assert_eq!(parse(&long[..MAX_REFERENCE]).to_string().len(), MAX_REFERENCE);
}

#[test]
fn a_part_that_is_missing_is_named_with_an_example() {
    for (text, scheme) in [
        ("env:", "env"),
        ("env:?encoding=base64", "env"),
        ("file:", "file"),
        ("dotenv:", "dotenv"),
        ("dotenv:.env", "dotenv"),
        ("dotenv:.env#", "dotenv"),
        ("dotenv:#A", "dotenv"),
        ("systemd:", "systemd"),
        ("keychain:", "keychain"),
        ("command:", "command"),
        ("openbao:", "openbao"),
        ("openbao:mount/path", "openbao"),
        ("openbao:mount/path#", "openbao"),
        ("openbao:#field", "openbao"),
    ] {
        let error = refused(text);
        let KeyRefError::Missing { scheme: found, form, .. } = error else {
            panic!("{text:?}: {error:?}");
        };
        assert_eq!(found, scheme, "{text}");
        assert!(error.to_string().contains("is missing: write it as "), "{error}");
        // The example is one.
        for form in form.split(" or ") {
            assert!(form.starts_with(&format!("{scheme}:")), "{form}");
            parse(form);
        }
    }
}

#[test]
fn a_part_that_breaks_a_rule_is_refused() {
    let long = format!("keychain:{}", "k".repeat(256));
    let long_credential = format!("systemd:{}", "k".repeat(256));
    for (text, scheme) in [
        ("env:1A", "env"),
        ("env:A-B", "env"),
        ("env:A B", "env"),
        ("env:A=B", "env"),
        ("env:A#B", "env"),
        ("env:Ä", "env"),
        ("env:A%00", "env"),
        ("env:A ", "env"),
        ("file:~", "file"),
        ("file:~/kanal", "file"),
        ("file:~shop/kanal", "file"),
        ("file:$HOME/kanal", "file"),
        ("file:/run/${USER}/kanal", "file"),
        ("file:$(pwd)/kanal", "file"),
        ("file:%USERPROFILE%\\kanal", "file"),
        ("file:/run/secrets/*", "file"),
        ("file://host/kanal", "file"),
        ("file:////kanal", "file"),
        ("file:/run/secrets/kanal ", "file"),
        ("file: /run/secrets/kanal", "file"),
        ("file:/run/secrets/kanal\u{a0}", "file"),
        ("file: ", "file"),
        ("dotenv:~/.env#A", "dotenv"),
        ("dotenv:$HOME/.env#A", "dotenv"),
        ("dotenv://host/.env#A", "dotenv"),
        ("dotenv:.env #A", "dotenv"),
        ("systemd:kanal ", "systemd"),
        ("keychain: kanal", "keychain"),
        ("command:~/bin/key", "command"),
        ("command:cat $HOME/kanal", "command"),
        ("openbao:secret/data/shop/kanal#key", "openbao"),
        ("openbao:secret/metadata/shop/kanal#key", "openbao"),
        ("openbao:secret/shop/kanal#key ", "openbao"),
        ("file:..", "file"),
        ("file:../kanal", "file"),
        ("file:/run/../etc/kanal", "file"),
        ("file:a/..", "file"),
        ("file:a\\..\\b", "file"),
        ("file:C:\\keys\\..\\b", "file"),
        ("file:/a#b", "file"),
        ("file:/a%00b", "file"),
        ("dotenv:../.env#A", "dotenv"),
        ("dotenv:.env#A#B", "dotenv"),
        ("dotenv:.env#1", "dotenv"),
        ("systemd:..", "systemd"),
        ("systemd:.", "systemd"),
        ("systemd:../kanal", "systemd"),
        ("systemd:a/b", "systemd"),
        ("systemd:a\\b", "systemd"),
        ("systemd:a:b", "systemd"),
        (&long_credential, "systemd"),
        ("keychain:/kanal", "keychain"),
        ("keychain:shop/", "keychain"),
        ("keychain:a/b/c", "keychain"),
        ("keychain:a%0Ab", "keychain"),
        (&long, "keychain"),
        ("command:op  read", "command"),
        ("command: op", "command"),
        ("command:op ", "command"),
        ("command:op 'a b'", "command"),
        ("command:op \"a b\"", "command"),
        ("command:op `id`", "command"),
        ("command:op a#b", "command"),
        ("command:op a%00b", "command"),
        ("openbao:mount#field", "openbao"),
        ("openbao:/path#field", "openbao"),
        ("openbao:mount/#field", "openbao"),
        ("openbao:mount/../path#field", "openbao"),
        ("openbao:mount/./path#field", "openbao"),
        ("openbao:mount//path#field", "openbao"),
        ("openbao:mount/path#a#b", "openbao"),
    ] {
        let error = refused(text);
        let KeyRefError::Refused { scheme: found, .. } = error else {
            panic!("{text:?}: {error:?}");
        };
        assert_eq!(found, scheme, "{text}");
        assert!(error.to_string().starts_with(&format!("{scheme}: ")), "{error}");
    }
}

#[test]
fn what_no_shell_expands_is_refused_with_what_to_write() {
    for (text, says) in [
        ("file:~/kanal", "no shell expands the ~ here: write the directory itself"),
        ("dotenv:~/.env#A", "no shell expands the ~ here: write the directory itself"),
        ("command:cat ~/kanal", "no shell expands the ~ here: write the directory itself"),
        ("file:$HOME/kanal", "no shell expands a variable here: write its value"),
        ("file:%APPDATA%\\kanal", "no shell expands a variable here: write its value"),
        ("file:/run/secrets/kanal*", "no shell expands the * here: name one file"),
        ("file://nas/keys/kanal", "would be a host"),
        ("file:/run/secrets/kanal ", "white space at an end is not accepted: remove it"),
        ("openbao:secret/data/shop/kanal#key", "leave out the data/ or metadata/"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    // Each rule has its way out.
    for (text, path) in [
        ("file:/%7Ea", "/~a"),
        ("file:/%24HOME", "/$HOME"),
        ("file:/a%2A", "/a*"),
        ("file:/a%20", "/a "),
        ("file:///run/kanal", "/run/kanal"),
        ("file:/a b/c%20d", "/a b/c d"),
    ] {
        assert_eq!(source_of(text).provenance(), Provenance::File { path: path.into() }, "{text}");
    }
}

#[test]
fn a_key_in_the_place_of_a_reference_is_never_printed() {
    for text in [
        KEY.to_owned(),
        format!("Bearer {KEY}"),
        format!("{KEY}:{OTHER_KEY}"),
        format!("https://user:{KEY}@shop.example"),
        format!("env:{KEY}"),
        format!("env:KANAL_API_KEY={KEY}"),
        format!("env:A?{KEY}"),
        format!("env:A#{KEY}"),
        format!("file:../{KEY}"),
        format!("file:%{KEY}"),
        format!("systemd:a/{KEY}"),
        format!("dotenv:{KEY}"),
        format!("dotenv:.env#KANAL_API_KEY={KEY}"),
        format!("keychain:a/b/{KEY}"),
        format!("command:curl '{KEY}'"),
        format!("openbao:{KEY}"),
    ] {
        let error = refused(&text);
        assert_prints_nothing_of(&error, KEY);
        assert_prints_nothing_of(&error, OTHER_KEY);
    }
    assert!(refused(KEY).to_string().contains("if this is the key itself"));
}

#[test]
fn debug_of_a_command_shows_its_program_and_argument_count() {
    let reference = parse(&format!("command:op read {KEY} {OTHER_KEY}?encoding=base64"));
    for printed in [format!("{reference:?}"), format!("{:#?}", reference.clone().allow_commands())] {
        assert!(printed.contains("command op with 3 arguments"), "{printed}");
        assert_nothing_of_in(KEY, &printed);
        assert_nothing_of_in(OTHER_KEY, &printed);
    }
    assert_eq!(format!("{:?}", parse("file:/a?encoding=base64")), "KeyRef(file:/a?encoding=base64)");
}
