//! P1: no key text in any `Debug`, `Display`, error cause chain, log line, panic message or exit text.
//!
//! A canary key goes through every public type and every error that can be had without a keychain, the
//! dependencies' own errors included: of those it is shown first that they do print it.

#![allow(clippy::format_collect, reason = "the canary is short")]

mod client;
mod client_layers;
#[cfg(feature = "emulator")]
mod emulator;
#[cfg(feature = "rotation")]
mod leaks;
#[cfg(feature = "rotation")]
mod keyset;
#[cfg(all(feature = "openbao", feature = "rotation"))]
mod openbao;
#[cfg(feature = "oauth")]
mod oauth;
mod names;
mod other_libraries;
#[cfg(feature = "rotation")]
mod presence;
mod probes;
#[cfg(feature = "sqlite")]
mod registry;
#[cfg(feature = "rotation")]
mod refresh;
#[cfg(feature = "rotation")]
mod rotation;
mod sources;

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Debug;
use std::os::unix::ffi::OsStringExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Termination as _;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::canary::{
    self, all_of, assert_debug_silent, assert_error_silent, assert_silent, assert_value_silent, traces,
};
use crate::support::logged::Lines;
use crate::support::{Child, Folder, MAX_CALLS_PER_PLACE, in_child, set_mode};
use http::Request;
use keysheath::chain::{AttemptOutcome, Chain, ChainError};
use keysheath::client::{BearerHeader, GuardError, OriginGuard, OverrideError};
use keysheath::failure::Meaning;
use keysheath::key::{
    ApiKey, FormatError, Hint, Issuer, IssuerMismatch, Kanal, Katana, KeyFormat, Origin, ParseError, Profile,
    RawKey, StoreId,
};
use keysheath::source::{
    self, Adapted, Command, DotenvFile, KeyRef, KeyRefError, LineFault, Loaded, Problem, Provenance, Reading,
    SecretFile, Source, SourceError, Variable,
};

const KANAL: &str = canary::KANAL;
const KATANA: &str = canary::KATANA;

/// Another well-formed key that shares all but its last byte with the canary.
const OTHER: &str = "Qv7Yc4Nw9Rk2Xz8Jh5Tm3Gp7";

fn kanal() -> ApiKey<Kanal> {
    ApiKey::parse(KANAL).unwrap()
}

/// An issuer whose keys could be guessed from their fingerprints.
const WEAK: &Profile =
    &Profile::new("weak", "WEAK_KEY", Origin::https("weak.example"), KeyFormat::between(1, 64), 20);

#[test]
fn the_search_finds_the_canary_in_each_form() {
    let part = &KANAL[7..13];
    for (form, shown) in [
        ("text", format!("before{part}after")),
        ("text", part.to_lowercase()),
        ("text", part.chars().flat_map(|c| [c, '\n']).collect()),
        ("base64", base64(&format!("user:{KANAL}"))),
        ("base64", base64(&format!("u:{KANAL}"))),
        ("base64", base64(KANAL)),
        ("hexadecimal", part.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02X}"))),
        ("list of bytes", format!("{:?}", part.as_bytes())),
        ("list of bytes", format!("{:#?}", part.as_bytes())),
        ("list of hexadecimal bytes", format!("{:02x?}", part.as_bytes())),
        ("percent-encoded", part.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"))),
    ] {
        assert_eq!(traces(&shown), [form], "{shown}");
    }
    assert_eq!(traces("nothing of it, and not its fingerprint"), [] as [&str; 0]);
    assert_eq!(traces(&KANAL[..5]), [] as [&str; 0], "five bytes are too few to tell");
    assert!(catch_unwind(|| assert_silent("this", KATANA)).is_err());
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn every_public_type_is_looked_at_here() {
    // `Seal` holds nothing.
    let these = concat!(
        include_str!("p1_no_key_text.rs"),
        include_str!("../rotation/document/silent.rs"),
        include_str!("p1_no_key_text/client.rs"),
        include_str!("p1_no_key_text/client_layers.rs"),
        include_str!("p1_no_key_text/emulator.rs"),
        include_str!("p1_no_key_text/leaks.rs"),
        include_str!("p1_no_key_text/keyset.rs"),
        include_str!("p1_no_key_text/openbao.rs"),
        include_str!("p1_no_key_text/oauth.rs"),
        include_str!("p1_no_key_text/other_libraries.rs"),
        include_str!("p1_no_key_text/presence.rs"),
        include_str!("p1_no_key_text/probes.rs"),
        include_str!("p1_no_key_text/refresh.rs"),
        include_str!("p1_no_key_text/registry.rs"),
        include_str!("p1_no_key_text/rotation.rs"),
        include_str!("p1_no_key_text/sources.rs")
    );
    let these: HashSet<_> = these.split(|c: char| !c.is_alphanumeric()).collect();
    let mut files = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut types = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            // What is public in a program is so for its own modules only.
            let parts = path.read_dir().unwrap().map(|entry| entry.unwrap().path());
            files.extend(parts.filter(|part| !part.ends_with("src/bin")));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let declared = text
            .lines()
            .filter_map(|line| line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")));
        for name in declared.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()) {
            types += 1;
            assert!(these.contains(&name), "{name}, of {}, is not looked at", path.display());
        }
    }
    assert!(types > 50, "only {types} public types were found: the search is broken");
}

#[test]
fn a_key_is_shown_as_its_fingerprint_and_nothing_else() {
    #[derive(Debug)]
    struct Config {
        _key: ApiKey<Katana>,
        _also: Option<RawKey>,
    }

    let key = kanal();
    let fingerprint = key.fingerprint().unwrap();
    assert_eq!(format!("{key:?}"), format!("ApiKey(kanal, {fingerprint})"));
    assert_value_silent("Fingerprint", &fingerprint);
    assert_debug_silent("ApiKey", &key);
    assert_debug_silent("RawKey", key.as_raw());
    assert_debug_silent("Profile, KeyFormat and Row", key.as_raw().profile());
    let also = RawKey::parse(WEAK, KANAL.as_bytes()).unwrap();
    assert_eq!(format!("{also:?}"), "RawKey(weak, redacted)");
    let config = Config { _key: ApiKey::parse(KATANA).unwrap(), _also: Some(also) };
    assert_debug_silent("a struct with a derived Debug", &config);
    let mismatch: IssuerMismatch = key.into_raw().try_into_typed::<Katana>().unwrap_err();
    assert_error_silent("IssuerMismatch", &mismatch);
    assert_debug_silent("Reading", &Reading::present(KANAL.to_owned()));
}

/// Texts around the canary, each malformed in another way.
fn malformed() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = [
        format!("{KANAL}\n"),
        format!("{KANAL}\r\n{KANAL}"),
        format!(" {KANAL}"),
        format!("\u{feff}{KANAL}"),
        format!("\u{200b}{KANAL}"),
        format!("\"{KANAL}\""),
        format!("“{KANAL}”"),
        format!("Bearer {KANAL}"),
        format!("bearer {KANAL}"),
        format!("{KANAL}***"),
        format!("<{KANAL}>"),
        format!("${{{KANAL}}}"),
        format!("kanal_sk_{KANAL}"),
        format!("={KATANA}"),
        format!("={}", &KANAL[1..]),
        format!("{}=x", &KANAL[2..]),
        format!("{KANAL}\0"),
        format!("{}é", &KANAL[2..]),
        KANAL[1..].to_owned(),
        KANAL.repeat(200),
    ]
    .map(String::into_bytes)
    .into();
    texts.push([KANAL.as_bytes(), b"\xff"].concat());
    texts.push([&KANAL.as_bytes()[1..], b"\xff"].concat());
    texts
}

#[test]
fn a_format_error_shows_no_byte_of_the_text() {
    let mut hints = 0;
    for text in malformed() {
        let look = |error: FormatError| {
            assert_error_silent("FormatError", &error);
            assert_debug_silent("FormatRule", &error.rule());
            assert_debug_silent("Hint", &error.hint());
        };
        look(ApiKey::<Kanal>::parse_bytes(&text).unwrap_err());
        look(KeyFormat::exactly(2).check(&text).unwrap_err());
        look(KeyFormat::between(1, 2).check(&text).unwrap_err());
        if let Some(error) = KeyFormat::between(1, 4096).check(&text).err() {
            look(error);
        }
        if let Ok(text) = String::from_utf8(text.clone()) {
            look(ApiKey::<Kanal>::parse_owned(text).unwrap_err());
        }
        if let Some(hint) = Hint::from_shape(&text) {
            assert_value_silent("Hint", &hint);
            hints += 1;
        }
    }
    assert!(hints >= 13, "only {hints} texts have a shape to speak of");
}

/// Runs `body` in a process of its own that has these variables, and asserts that what it prints, and what
/// the test's own machinery does, shows nothing.
fn in_silent_child(name: &'static str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if let Some(output) = in_child(name, variables, body) {
        assert_silent(name, &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
}

#[test]
fn key_reference_errors_and_commands_show_no_text_of_a_key() {
    for text in [
        KANAL.to_owned(),
        format!("{KANAL}:x"),
        format!("env:{KANAL}="),
        format!("env:9{KANAL}"),
        format!("env:A?{KANAL}"),
        format!("env:A#{KANAL}"),
        format!("file:%{KANAL}"),
        format!("file:{KANAL}/../{KANAL}"),
        format!("dotenv:{KANAL}"),
        format!("dotenv:#{KANAL}"),
        format!("systemd:{KANAL}/{KANAL}"),
        format!("keychain:{KANAL}/{KANAL}/{KANAL}"),
        format!("command:sh -c '{KANAL}'"),
        format!("command:a  {KANAL}"),
        format!("openbao:{KANAL}"),
        format!("openbao:{KANAL}/{KANAL}#"),
        format!("file:/{}", KANAL.repeat(200)),
    ] {
        let error: KeyRefError = text.parse::<KeyRef>().unwrap_err();
        assert_error_silent("KeyRefError", &error);
        let read: KeyRef = serde_json::from_str(&serde_json::to_string(&text).unwrap()).unwrap();
        assert_eq!(read.problem(), Some(error));
        assert_value_silent("a KeyRef that is none", &read);
        assert_error_silent("KeyRefError by serde", &serde_json::to_string(&read).unwrap_err());
    }
    let command: KeyRef = format!("command:op read {KANAL}?encoding=base64").parse().unwrap();
    assert_eq!(format!("{command:?}"), "KeyRef(command op with 2 arguments)");
    let error = command.source().err().unwrap();
    assert_error_silent("CommandsNotAllowed", &error);
    let error = Chain::<Kanal>::new().with_reference(&command).unwrap_err();
    assert_error_silent("CommandsNotAllowed in a chain", &error);
    let command = command.allow_commands();
    assert_debug_silent("a command that is allowed", &command);
    assert_value_silent("its provenance", &command.source().unwrap().provenance());
    #[cfg(not(feature = "openbao"))]
    assert_error_silent("Unsupported", &"openbao:a/b#c".parse::<KeyRef>().unwrap().source().err().unwrap());
}

#[test]
fn a_header_a_request_and_the_guard_show_nothing() {
    let key = kanal();
    let header = BearerHeader::new(&key);
    let guard = OriginGuard::<Kanal>::new();
    assert_debug_silent("BearerHeader", &header);
    assert_debug_silent("HeaderValue", &header.value());
    assert_debug_silent("OriginGuard", &guard);
    let mut request = Request::get("https://api.getkanal.com/").body(()).unwrap();
    guard.authorize(&mut request, &header).unwrap();
    assert!(request.headers()["authorization"].as_bytes().ends_with(KANAL.as_bytes()));
    assert_debug_silent("a request with the key", &request);
    assert_debug_silent("its headers", request.headers());
    // The positive control: the same header, not marked.
    let mut bare = request.headers()["authorization"].clone();
    bare.set_sensitive(false);
    assert_eq!(traces(&format!("{bare:?}")), ["text"]);

    let mut refused = 0;
    let mut refuse = |mut request: Request<()>| -> GuardError {
        let error = guard.authorize(&mut request, &header).unwrap_err();
        assert_error_silent("GuardError", &error);
        refused += 1;
        error
    };
    let get = |uri: &str| Request::get(uri).body(()).unwrap();
    for uri in [
        format!("https://api.getkanal.com/?key={KANAL}"),
        format!("https://api.getkanal.com/{}", KANAL.replace('Q', "%51")),
    ] {
        assert_eq!(refuse(get(&uri)), GuardError::KeyInUri);
    }
    assert_eq!(refuse(get(&format!("https://{KANAL}@api.getkanal.com/"))), GuardError::UserInfo);
    let elsewhere = refuse(get(&format!("https://{KANAL}.example/")));
    assert!(matches!(elsewhere, GuardError::OtherOrigin { .. }), "{elsewhere:?}");
    let path = refuse(get(&format!("/{KANAL}")));
    assert!(matches!(path, GuardError::NotAbsolute { .. }), "{path:?}");
    let with = |name: &str, value: &str| {
        Request::get("https://api.getkanal.com/").header(name, value).body(()).unwrap()
    };
    assert_eq!(refuse(with("host", KANAL)), GuardError::OtherHost);
    assert_eq!(refuse(with("authorization", KANAL)), GuardError::AlreadyAuthorized);
    assert_eq!(refused, 7);

    let other = Origin::parse("http://name.example").unwrap();
    let loopback: OverrideError = OriginGuard::<Kanal>::for_loopback(other.clone()).unwrap_err();
    assert_error_silent("OverrideError", &loopback);
    assert_error_silent("OverrideError", &OriginGuard::<Kanal>::for_https(other).unwrap_err());
}

#[test]
fn an_answer_that_echoes_the_key_is_classified_without_it() {
    for status in [200, 400, 401, 403, 404, 422, 429, 500] {
        for body in [
            format!("{{ \"error\": \"Invalid API key {KANAL}\" }}"),
            format!("{{ \"error\": \"Invalid API key\", \"key\": \"{KANAL}\" }}"),
            format!(
                "{{ \"name\": \"UnauthorizedError\", \"message\": \"{KANAL}\", \"errors\": \"{KANAL}\" }}"
            ),
            format!("<html>{KANAL}</html>"),
        ] {
            for profile in [Kanal::PROFILE, Katana::PROFILE] {
                let answer = profile.classify(status, Some(KANAL.as_bytes()), body.as_bytes());
                assert_value_silent("Answer", &answer);
                let meaning: Meaning = answer.meaning();
                assert_debug_silent("Meaning", &meaning);
            }
        }
    }
}

#[test]
fn a_key_in_the_place_of_a_store_id_or_an_origin_is_not_shown() {
    for text in [KANAL.to_owned(), format!("1{KANAL}"), format!("-{KANAL}")] {
        let error = text.parse::<StoreId>().unwrap_err();
        assert_error_silent("ParseError", &error);
    }
    assert_value_silent("StoreId", &StoreId::new(123).unwrap());
    for (text, expected) in [
        (KANAL.to_owned(), ParseError::OriginScheme),
        (format!("{KANAL}://api.getkanal.com"), ParseError::OriginScheme),
        (format!("https://{KANAL}@api.getkanal.com"), ParseError::OriginUserInfo),
        (format!("https://user:{KANAL}@api.getkanal.com"), ParseError::OriginUserInfo),
        (format!("https://api.getkanal.com/{KANAL}"), ParseError::OriginTrailing),
        (format!("https://api.getkanal.com?key={KANAL}"), ParseError::OriginTrailing),
        (format!("https://api.getkanal.com:{KANAL}"), ParseError::OriginPort),
        (format!("https://{KANAL}.."), ParseError::OriginHost),
    ] {
        let error = Origin::parse(&text).unwrap_err();
        assert_eq!(error, expected);
        assert_error_silent("ParseError", &error);
    }
    assert_value_silent("Origin", Kanal::PROFILE.origin());
}

#[test]
fn a_panic_and_a_failing_main_say_nothing() {
    const NAME: &str = "a_panic_and_a_failing_main_say_nothing";
    let output = Child::new(NAME).run(|| {
        let folder = Folder::new();
        let broken = folder.write("broken", format!("{KANAL} "));
        let load = || Chain::<Kanal>::new().with(SecretFile::new(&broken)).load();
        let other = || ApiKey::<Kanal>::parse(OTHER).unwrap();
        let header = || BearerHeader::new(&kanal());
        let panics: [&dyn Fn(); 9] = [
            &|| assert_eq!(kanal(), other()),
            &|| assert_ne!(kanal(), kanal(), "two keys"),
            &|| assert_eq!(kanal().into_raw(), other().into_raw()),
            &|| assert!(Some(kanal()).is_none(), "{:?}", kanal()),
            &|| drop(load().unwrap()),
            &|| drop(ApiKey::<Kanal>::parse(&format!("{KANAL}\n")).expect("a key")),
            &|| drop(kanal().into_raw().try_into_typed::<Katana>().unwrap()),
            &|| drop(format!("env:{KANAL}=").parse::<KeyRef>().unwrap()),
            &|| {
                let mut request = Request::get(format!("/{KANAL}")).body(()).unwrap();
                OriginGuard::<Kanal>::new().authorize(&mut request, &header()).unwrap();
            },
        ];
        for panics in panics {
            let payload = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
            let message = payload.downcast_ref::<String>().expect("a message with a value");
            assert_silent("a panic's payload", message);
            eprintln!("a panic was caught");
        }
        // What the runtime does with what `main` returns.
        let code = load().map(|_| ()).report();
        eprintln!("{code:?}");
    });
    let Some(output) = output else { return };
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_silent("a panic or a failing main", &shown);
    assert!(output.status.success(), "{shown}");
    assert_eq!(shown.matches("a panic was caught").count(), 9, "{shown}");
    assert_eq!(shown.matches("panicked at").count(), 9, "{shown}");
    assert!(shown.contains("left: ApiKey(kanal, "), "{shown}");
    assert!(
        shown.contains("Error: the search for a Kanal key ended")
            && shown.contains("ExitCode(unix_exit_status(1))"),
        "{shown}"
    );
}

#[test]
fn no_log_line_has_the_canary() {
    static LINES: Lines = Lines::new();
    const NAME: &str = "no_log_line_has_the_canary";
    in_silent_child(NAME, &[("KANAL_API_KEY", KANAL)], || {
        LINES.install();
        log::trace!("the collector works");

        let folder = Folder::new();
        let dotenv = folder.write("dotenv", format!("KANAL_API_KEY={KANAL}\nbad {KANAL}\n"));
        let program = Command::new("printf").args(["%s", KANAL]);
        let chain = Chain::<Kanal>::standard().with_dotenv(dotenv).with(program);
        drop(chain.explain());
        let key = chain.load().unwrap().into_key();
        let header = BearerHeader::new(&key);
        let mut request = Request::get("https://api.getkanal.com/").body(()).unwrap();
        OriginGuard::new().authorize(&mut request, &header).unwrap();
        OriginGuard::new().authorize(&mut request, &header).unwrap_err();
        let body = format!("{{ \"error\": \"Invalid API key\", \"key\": \"{KANAL}\" }}");
        drop(Kanal::PROFILE.classify(401, None, body.as_bytes()).to_string());
        client_layers::send_and_repeat();
        format!("env:{KANAL}=").parse::<KeyRef>().unwrap_err();
        probes::ask_over_http_and_over_tls();

        let lines = LINES.all();
        assert!(lines[0].ends_with("the collector works"), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.contains(" ureq"))
                && lines.iter().any(|line| line.contains(" rustls"))
        );
        assert_silent("the log", &lines.join("\n"));
        let own = lines.iter().filter(|line| line.contains(" keysheath"));
        assert_eq!(own.count(), 0, "the crate logs nothing of its own: {lines:?}");
    });
}
