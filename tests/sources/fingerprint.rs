//! A fingerprint never changes, and anyone can compute it with the tools of a shell.

use std::io::Write as _;
use std::process::{Command, Stdio};

use keysheath::key::{ApiKey, Issuer, Kanal, Katana, KeyFormat, Origin, Profile, RawKey};

/// The recipe that the docs of `fingerprint` show, with the issuer's name as `$1`.
fn by_shell(issuer: &str, key: &str) -> String {
    let docs = include_str!("../../src/key/fingerprint.rs");
    let recipe: Vec<&str> = docs
        .split("```")
        .find_map(|block| block.strip_prefix("sh\n"))
        .expect("the docs show a recipe")
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| !line.starts_with("read "))
        .collect();
    let recipe = recipe.join("\n").replace("kanal", issuer);
    assert!(recipe.contains("sha256sum") && recipe.contains(issuer), "{recipe}");
    let mut shell = Command::new("bash")
        .args(["-c", &format!("read -r KEY\n{recipe}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash is there; sha256sum and basenc are of Debian's coreutils");
    writeln!(shell.stdin.take().unwrap(), "{key}").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn the_recipe_in_the_docs_gives_the_same_fingerprint() {
    for key in ["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "------------------------", "a~b.c_d+e/f012345678===="] {
        let fingerprint = ApiKey::<Kanal>::parse(key).unwrap().fingerprint().unwrap();
        assert_eq!(fingerprint.to_string(), by_shell("kanal", key));
    }
    let key = "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071";
    let fingerprint = ApiKey::<Katana>::parse(key).unwrap().fingerprint().unwrap();
    assert_eq!(fingerprint.to_string(), by_shell("katana", key));
}

#[test]
fn the_fingerprints_of_version_1_never_change() {
    let kanal = ApiKey::<Kanal>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    let katana = ApiKey::<Katana>::parse("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap();
    assert_eq!(kanal.fingerprint().unwrap().to_string(), "urdz-nrsd-3rmw-jtz2");
    assert_ne!(kanal.fingerprint(), katana.fingerprint(), "the issuer is a part of it");
}

#[test]
fn keys_that_could_be_guessed_have_no_fingerprint() {
    const fn with_entropy(bits: u16) -> Profile {
        Profile::new("pin", "PIN", Origin::https("pin.example"), KeyFormat::exactly(6), bits)
    }
    const WEAK: &Profile = &with_entropy(79);
    const STRONG: &Profile = &with_entropy(80);
    let fingerprint = |profile| RawKey::parse(profile, b"123456").unwrap().fingerprint();
    assert_eq!(fingerprint(WEAK), None);
    assert!(fingerprint(STRONG).is_some());
    let shown = format!("{:?}", RawKey::parse(WEAK, b"123456").unwrap());
    assert_eq!(shown, "RawKey(pin, redacted)");
    assert_eq!(Kanal::PROFILE.entropy_bits().min(Katana::PROFILE.entropy_bits()), 122);
}

#[test]
fn a_fingerprint_is_read_as_it_is_printed_and_in_no_other_way() {
    use keysheath::key::{Fingerprint, Issuer, Kanal, ParseError, RawKey};

    for number in 0..500 {
        let key = RawKey::parse(Kanal::PROFILE, format!("Key{number:021}").as_bytes()).unwrap();
        let fingerprint = key.fingerprint().unwrap();
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
    for text in [
        "",
        "urdz-nrsd-3rmw",
        "urdz-nrsd-3rmw-jtz2-aaaa",
        "urdznrsd3rmwjtz2",
        "URDZ-NRSD-3RMW-JTZ2",
        "urdz-nrsd-3rmw-jtz1",
        "urdz-nrsd-3rmw-jtz",
        "urd-znrsd-3rmw-jtz2",
        " urdz-nrsd-3rmw-jtz2",
        "ürdz-nrsd-3rmw-jtz2",
    ] {
        assert_eq!(text.parse::<Fingerprint>(), Err(ParseError::Fingerprint), "{text:?}");
    }
}
