//! P1: no key text in any `Debug`, `Display`, error cause chain, log line, panic message or exit text.
//!
//! A canary key goes through every public type and every error that can be had without a keychain, the
//! dependencies' own errors included: of those it is shown first that they do print it.

#![cfg(all(unix, feature = "client", feature = "dotenv", feature = "serde"))]
#![allow(clippy::format_collect, reason = "the canary is short")]

mod support;

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Debug;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{self, Termination as _};
use std::sync::Mutex;
use std::time::Duration;

use http::Request;
use keysheath::chain::{Chain, ChainError, RawChain, Witness};
use keysheath::client::{BearerHeader, GuardError, OriginGuard, OverrideError};
use keysheath::failure::Meaning;
use keysheath::format::{FormatError, Hint, KeyFormat};
use keysheath::issuer::{Issuer, Kanal, Katana, Profile, StoreId, StoreIdError};
use keysheath::key::{ApiKey, IssuerMismatch, RawKey};
use keysheath::keyref::{KeyRef, KeyRefError};
use keysheath::origin::{Origin, OriginError};
use keysheath::source::{
    self, Base64, Command, DotenvFile, Encoding, FileVariable, Loaded, MAX_STUCK, Problem, Provenance,
    Reading, SecretFile, SecretText, Source, SourceError, SystemdCredential, Variable,
};
use support::canary::{
    self, all_of, assert_debug_silent, assert_error_silent, assert_silent, assert_value_silent, traces,
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
        ("text", part.chars().map(|c| format!("{c}\n")).collect()),
        ("base64", base64(&format!("user:{KANAL}"))),
        ("base64", base64(&format!("u:{KANAL}"))),
        ("base64", base64(KANAL)),
        ("hexadecimal", part.bytes().map(|byte| format!("{byte:02X}")).collect()),
        ("list of bytes", format!("{:?}", part.as_bytes())),
        ("list of bytes", format!("{:#?}", part.as_bytes())),
        ("list of hexadecimal bytes", format!("{:02x?}", part.as_bytes())),
        ("percent-encoded", part.bytes().map(|byte| format!("%{byte:02X}")).collect()),
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
    let this: HashSet<_> = include_str!("p1_no_key_text.rs").split(|c: char| !c.is_alphanumeric()).collect();
    let mut files = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut types = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let declared = text
            .lines()
            .filter_map(|line| line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")));
        for name in declared.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()) {
            types += 1;
            assert!(this.contains(&name), "{name}, of {}, is not looked at", path.display());
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
    let mismatch: IssuerMismatch = key.erase().typed::<Katana>().unwrap_err();
    assert_error_silent("IssuerMismatch", &mismatch);
    assert_debug_silent("SecretText", &SecretText::from(KANAL.to_owned()));
    assert_debug_silent("Reading", &Reading::present(SecretText::from(KANAL.to_owned())));
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
            look(ApiKey::<Kanal>::take(text).unwrap_err());
        }
        if let Some(hint) = Hint::from_shape(&text) {
            assert_value_silent("Hint", &hint);
            hints += 1;
        }
    }
    assert!(hints >= 13, "only {hints} texts have a shape to speak of");
}

/// A folder that holds files with the canary in them.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.file_with_mode(name, content, 0o600)
    }

    fn file_with_mode(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// Loads from a source and asserts that neither the outcome nor a chain over the source shows the canary.
fn look_at(what: &str, source: impl Source + Debug + 'static) -> Option<Problem> {
    assert_debug_silent(what, &source);
    assert_value_silent(what, &source.provenance());
    let encoding: Encoding = source.encoding();
    assert_debug_silent(what, &encoding);
    let loaded = source::load(&source, Kanal::PROFILE);
    assert_debug_silent(what, &loaded);
    let problem = match loaded {
        Ok(Loaded::Found(found)) => {
            assert_debug_silent(what, &found);
            assert_value_silent(what, found.provenance());
            assert_debug_silent(what, &found.remarks());
            None
        }
        Ok(Loaded::Absent(absence)) => {
            assert_value_silent(what, &absence);
            None
        }
        Err(error) => {
            let error: SourceError = error;
            assert_error_silent(what, &error);
            assert_value_silent(what, error.problem());
            Some(error.problem().clone())
        }
    };
    look_at_chain(what, &Chain::<Kanal>::new().with(source).with(Variable::new("NO_SUCH_VARIABLE")));
    problem
}

fn look_at_chain<I: Issuer>(what: &str, chain: &Chain<I>) {
    assert_debug_silent(what, chain);
    let explanation = chain.explain();
    assert_value_silent(what, &explanation);
    for place in explanation.places() {
        assert_value_silent("Explained", place);
        assert_debug_silent("Relation", &place.relation());
        assert_value_silent("Step", place.step());
        let witness: &Witness = place.step().witness();
        assert_debug_silent("Witness", witness);
    }
    match chain.load() {
        Ok(selected) => {
            assert_debug_silent("Selected", &selected);
            assert_value_silent("Trail", selected.trail());
        }
        Err(error) => {
            let error: ChainError = error;
            assert_error_silent("ChainError", &error);
            assert_value_silent("Trail", error.trail());
        }
    }
}

#[test]
fn a_file_with_the_canary_in_it_is_never_shown() {
    let folder = Folder::new();
    assert_eq!(look_at("a good file", SecretFile::new(folder.file("good", KANAL))), None);
    let open = folder.file_with_mode("open", KANAL, 0o644);
    assert_eq!(look_at("a file with a remark", SecretFile::new(&open)), None);
    let strict = look_at("strict permissions", SecretFile::new(&open).strict_permissions());
    assert!(matches!(strict, Some(Problem::ReadableByOthers { .. })), "{strict:?}");
    let writable = folder.file_with_mode("writable", KANAL, 0o666);
    let writable = look_at("a file that others write", SecretFile::new(writable));
    assert!(matches!(writable, Some(Problem::WritableByOthers { .. })), "{writable:?}");
    let large = look_at("a large file", SecretFile::new(folder.file("large", KANAL.repeat(400))));
    assert!(matches!(large, Some(Problem::TooLarge { .. })), "{large:?}");
    for (at, text) in malformed().into_iter().enumerate() {
        let path = folder.file(&format!("malformed{at}"), [&text, b"\n".as_slice()].concat());
        let problem = look_at("a malformed file", SecretFile::new(&path));
        let known = matches!(problem, Some(Problem::Malformed(_)) | None);
        assert!(known, "{problem:?}");
        let problem = look_at("a malformed file, in base64", SecretFile::new(path).base64());
        let known = matches!(problem, Some(Problem::NotBase64 | Problem::Malformed(_)));
        assert!(known, "{problem:?}");
    }
    let encoded = folder.file("encoded", base64(KANAL));
    let source: Base64<SecretFile> = SecretFile::new(&encoded).base64();
    assert_eq!(look_at("a file in base64", source), None);
    assert!(matches!(
        look_at("a file in base64, not told", SecretFile::new(encoded)),
        Some(Problem::Malformed(_))
    ));
    // Where the key is a part of the path, its user wrote it there; what is looked for is the content.
    let under_a_file = folder.path().join("good/kanal");
    let problem = look_at("a file under a file", SecretFile::new(under_a_file));
    assert!(matches!(problem, Some(Problem::Unreadable(_))), "{problem:?}");
    assert_eq!(look_at("an empty file", SecretFile::new(folder.file("empty", ""))), Some(Problem::Empty));
    assert_eq!(look_at("a folder", SecretFile::new(folder.path())), Some(Problem::NotAFile));
    std::os::unix::fs::symlink("gone", folder.path().join("link")).unwrap();
    assert_eq!(look_at("a link", SecretFile::new(folder.path().join("link"))), Some(Problem::DanglingLink));
    let nul = look_at("a path with NUL", SecretFile::new(folder.path().join("a\0b")));
    assert!(matches!(nul, Some(Problem::BadPath { .. })), "{nul:?}");
}

#[test]
fn a_dotenv_with_the_canary_in_it_is_never_shown() {
    let folder = Folder::new();
    let look = |name: &str, content: String| {
        look_at(name, DotenvFile::new(folder.file(name, content), "KANAL_API_KEY"))
    };
    let set = format!("KANAL_API_KEY={KANAL}");
    assert_eq!(look("good", set.clone()), None);
    assert_eq!(look("bad-line", format!("{set}\n{KATANA} {KATANA}\n")), Some(Problem::BadLine { line: 2 }));
    assert_eq!(look("two-words", format!("{set} {KANAL}\n")), Some(Problem::BadLine { line: 1 }));
    assert_eq!(look("open-quote", format!("KANAL_API_KEY='{KANAL}\n")), Some(Problem::BadLine { line: 1 }));
    assert_eq!(look("twice", format!("{set}\n{set}\n")), Some(Problem::Duplicate { first: 1, second: 2 }));
    assert_eq!(look("dollar", format!("{set}$x\n")), Some(Problem::NotLiteral { line: 1 }));
    let malformed = look("malformed", format!("KANAL_API_KEY=\"{KANAL} \"\n"));
    assert!(matches!(malformed, Some(Problem::Malformed(_))), "{malformed:?}");
}

#[test]
fn a_program_with_the_canary_in_its_arguments_and_output_is_never_shown() {
    let shell = |script: String| Command::new("sh").args(["-c".to_owned(), script, KANAL.to_owned()]);
    let look = |what: &str, script: String| look_at(what, shell(script));
    assert_eq!(look("a program", format!("printf %s {KANAL}")), None);
    let failed = look("a program that fails", format!("echo {KANAL}; echo {KANAL} >&2; exit 3"));
    assert_eq!(failed, Some(Problem::Failed { code: 3 }));
    let killed = look("a program that dies", format!("echo {KANAL}; kill -9 $$"));
    assert_eq!(killed, Some(Problem::Killed));
    let flood = look("a program that floods", format!("while :; do echo {KANAL}; done"));
    assert!(matches!(flood, Some(Problem::TooLarge { .. })), "{flood:?}");
    assert_eq!(look("a program that is silent", format!(": {KANAL}")), Some(Problem::Empty));
    let held = look("a program that leaves its output open", format!("sleep 3 & echo {KANAL}"));
    assert_eq!(held, Some(Problem::OutputHeld));
    let after = Duration::from_millis(100);
    let hung = look_at("a program that hangs", shell(format!("echo {KANAL}; sleep 30")).with_deadline(after));
    assert_eq!(hung, Some(Problem::Deadline { after }));
    let missing = look_at("no program", Command::new("/no/such/program").args([KANAL]));
    assert!(matches!(missing, Some(Problem::NotStarted(_))), "{missing:?}");
    let malformed = look("a program with two lines", format!("echo {KANAL}; echo {KANAL}"));
    assert!(matches!(malformed, Some(Problem::Malformed(_))), "{malformed:?}");

    // A grandchild that leaves the group keeps the output open, so each call stays behind.
    let stuck = shell(format!("echo {KANAL}; setsid sleep 3 & sleep 3")).with_deadline(after);
    let problems: Vec<_> = (0..=MAX_STUCK)
        .map(|_| {
            let error = source::load(&stuck, Kanal::PROFILE).unwrap_err();
            assert_error_silent("a program that is stuck", &error);
            error.problem().clone()
        })
        .collect();
    assert_eq!(problems.last(), Some(&Problem::Stuck { count: MAX_STUCK }));
}

/// A person's own source, which was told a key.
#[derive(Debug)]
struct Own(Problem);

impl Source for Own {
    fn provenance(&self) -> Provenance {
        Provenance::other("vault", "shop/kanal")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        Err(SourceError::new(self.provenance(), self.0.clone()))
    }
}

#[test]
fn a_source_s_own_problem_has_no_place_for_a_key() {
    for problem in [
        Problem::ForeignOwner { uid: 1 },
        Problem::NoKeychain,
        Problem::NoAccess,
        Problem::Ambiguous { count: 2 },
        Problem::NotStorable,
        Problem::Unreachable,
    ] {
        assert_eq!(look_at("a source of one's own", Own(problem.clone())), Some(problem));
    }
}

/// Runs the test `name` of this file once more, alone, in a process of its own that has these variables.
fn in_child(name: &str, variables: &[(&str, &str)]) -> process::Output {
    let mut child = process::Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    for variable in [
        "KANAL_API_KEY",
        "KANAL_API_KEY_FILE",
        "KANAL_STORE_ID",
        "CREDENTIALS_DIRECTORY",
        // So that no keychain is asked.
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
    ] {
        child.env_remove(variable);
    }
    child.env("KEYSHEATH_CHILD", name).envs(variables.iter().copied());
    child.output().unwrap()
}

fn is_child(name: &str) -> bool {
    std::env::var_os("KEYSHEATH_CHILD").is_some_and(|child| child == name)
}

const END: &str = "the body came to its end";

fn assert_child_passes(name: &str, variables: &[(&str, &str)]) {
    let output = in_child(name, variables);
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    assert_silent(name, &all);
    assert!(output.status.success() && all.contains(END), "{all}");
}

#[test]
fn a_variable_with_the_canary_in_it_is_never_shown() {
    const NAME: &str = "a_variable_with_the_canary_in_it_is_never_shown";
    if !is_child(NAME) {
        return assert_child_passes(
            NAME,
            &[
                ("GOOD", KANAL),
                ("BAD", &format!("Bearer {KANAL}")),
                ("BOTH", KANAL),
                ("BOTH_FILE", KANAL),
                ("BARE_FILE", KANAL),
                ("ROOT_FILE", &format!("/{}", &KANAL[1..])),
                ("DEEP_FILE", &format!("/{}/{}", &KANAL[1..12], &KANAL[12..])),
                ("HERE_FILE", &format!("./{}", &KANAL[2..])),
                ("LONG_FILE", &KANAL.repeat(20)),
                ("CREDENTIALS_DIRECTORY", KANAL),
                ("KANAL_STORE_ID", KANAL),
            ],
        );
    }
    assert_eq!(look_at("a variable", Variable::new("GOOD")), None);
    let bad = look_at("a malformed variable", Variable::new("BAD"));
    assert!(matches!(bad, Some(Problem::Malformed(_))), "{bad:?}");
    let decoded = look_at("a variable, in base64", Variable::new("GOOD").base64());
    assert!(matches!(decoded, Some(Problem::Malformed(_))), "{decoded:?}");
    let both = Problem::BothSet { variable: "BOTH".to_owned() };
    assert_eq!(look_at("a variable and its partner", Variable::new("BOTH")), Some(both.clone()));
    assert_eq!(look_at("a partner and its variable", FileVariable::new("BOTH")), Some(both));
    for name in ["BARE", "ROOT", "DEEP", "HERE"] {
        let problem = look_at("a key instead of a path", FileVariable::new(name));
        assert_eq!(problem, Some(Problem::FileGone), "{name}");
    }
    let long = look_at("a long key instead of a path", FileVariable::new("LONG"));
    assert!(matches!(long, Some(Problem::Unreadable(_))), "{long:?}");
    let directory = look_at("a key instead of a directory", SystemdCredential::new("kanal"));
    assert!(matches!(directory, Some(Problem::BadPath { .. })), "{directory:?}");
    let error: StoreIdError = StoreId::from_env().unwrap_err();
    assert_eq!(error, StoreIdError::NotPositive);
    assert_error_silent("StoreIdError", &error);
    println!("{END}");
}

/// What a keychain holds is planted in its own tests; this is what can be had without one.
#[cfg(feature = "keychain")]
#[test]
fn a_keychain_that_is_not_there_shows_nothing() {
    use keysheath::source::{Keychain, KeychainItem};

    const NAME: &str = "a_keychain_that_is_not_there_shows_nothing";
    if !is_child(NAME) {
        return assert_child_passes(NAME, &[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/no/such/bus")]);
    }
    let keychain = Keychain::of_service("shop");
    assert_debug_silent("Keychain", &keychain);
    let error = keychain.save("kanal", kanal().as_raw()).unwrap_err();
    assert_eq!(error.problem(), &Problem::NoKeychain);
    assert_error_silent("a key that was not saved", &error);
    assert_debug_silent("Keychain", &keychain);
    assert_eq!(look_at("KeychainItem", KeychainItem::new(keychain, "kanal")), Some(Problem::NoKeychain));
    println!("{END}");
}

#[test]
fn a_chain_over_places_with_the_canary_shows_none_of_it() {
    const NAME: &str = "a_chain_over_places_with_the_canary_shows_none_of_it";
    if !is_child(NAME) {
        return assert_child_passes(NAME, &[("KANAL_API_KEY", KANAL), ("KATANA_API_KEY", "x")]);
    }
    let folder = Folder::new();
    let good = folder.file("good", KANAL);
    let other = folder.file("other", OTHER);
    let broken = folder.file("broken", format!("{KANAL} "));
    let dotenv = folder.file("dotenv", format!("KANAL_API_KEY={KANAL}\n"));
    let program = || Command::new("printf").args(["%s", KANAL]);
    look_at_chain("the standard chain", &Chain::<Kanal>::standard().with_dotenv(&dotenv).with(program()));
    look_at_chain("a broken standard chain", &Chain::<Katana>::standard());
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&good));
    let chain = chain.with(SecretFile::new(other)).with(program()).with(SecretFile::new(&broken));
    look_at_chain("a chain with relations", &chain);
    assert_value_silent("Explanation", &chain.explain());
    let raw: RawChain = chain.erase();
    assert_debug_silent("RawChain", &raw);
    assert_debug_silent("what a RawChain selects", &raw.load().unwrap());
    let chain = Chain::<Kanal>::new().with(SecretFile::new(broken)).with(SecretFile::new(good));
    look_at_chain("a chain that stops", &chain);
    println!("{END}");
}

#[test]
fn a_key_reference_error_shows_nothing_and_a_command_shows_no_argument() {
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
        let error = serde_json::from_str::<KeyRef>(&serde_json::to_string(&text).unwrap()).unwrap_err();
        assert_error_silent("KeyRefError by serde", &error);
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
    let openbao: KeyRef = "openbao:a/b#c".parse().unwrap();
    assert_error_silent("Unsupported", &openbao.source().err().unwrap());
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
        assert_error_silent("StoreIdError", &error);
    }
    assert_value_silent("StoreId", &StoreId::new(123).unwrap());
    for (text, expected) in [
        (KANAL.to_owned(), OriginError::Scheme),
        (format!("{KANAL}://api.getkanal.com"), OriginError::Scheme),
        (format!("https://{KANAL}@api.getkanal.com"), OriginError::UserInfo),
        (format!("https://user:{KANAL}@api.getkanal.com"), OriginError::UserInfo),
        (format!("https://api.getkanal.com/{KANAL}"), OriginError::Trailing),
        (format!("https://api.getkanal.com?key={KANAL}"), OriginError::Trailing),
        (format!("https://api.getkanal.com:{KANAL}"), OriginError::Port),
        (format!("https://{KANAL}.."), OriginError::Host),
    ] {
        let error = Origin::parse(&text).unwrap_err();
        assert_eq!(error, expected);
        assert_error_silent("OriginError", &error);
    }
    assert_value_silent("Origin and Scheme", Kanal::PROFILE.origin());
    assert_debug_silent("Scheme", &Kanal::PROFILE.origin().scheme());
}

#[test]
fn a_panic_and_a_failing_main_say_nothing() {
    const NAME: &str = "a_panic_and_a_failing_main_say_nothing";
    if is_child(NAME) {
        let folder = Folder::new();
        let broken = folder.file("broken", format!("{KANAL} "));
        let load = || Chain::<Kanal>::new().with(SecretFile::new(&broken)).load();
        let other = || ApiKey::<Kanal>::parse(OTHER).unwrap();
        let header = || BearerHeader::new(&kanal());
        let panics: [&dyn Fn(); 9] = [
            &|| assert_eq!(kanal(), other()),
            &|| assert_ne!(kanal(), kanal(), "two keys"),
            &|| assert_eq!(kanal().erase(), other().erase()),
            &|| assert!(Some(kanal()).is_none(), "{:?}", kanal()),
            &|| drop(load().unwrap()),
            &|| drop(ApiKey::<Kanal>::parse(&format!("{KANAL}\n")).expect("a key")),
            &|| drop(kanal().erase().typed::<Katana>().unwrap()),
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
        eprintln!("{code:?}: {END}");
        return;
    }
    let output = in_child(NAME, &[]);
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_silent("a panic or a failing main", &shown);
    assert!(output.status.success(), "{shown}");
    assert_eq!(shown.matches("a panic was caught").count(), 9, "{shown}");
    assert_eq!(shown.matches("panicked at").count(), 9, "{shown}");
    assert!(shown.contains("left: ApiKey(kanal, "), "{shown}");
    assert!(shown.contains("Error: Broken") && shown.contains("ExitCode(unix_exit_status(1))"), "{shown}");
}

/// Asserts that another library's error prints the canary, in this form, and that ours, for the same input,
/// does not.
fn assert_only_theirs(form: &str, theirs: &(dyn Error + 'static), ours: &(dyn Error + 'static)) {
    assert!(traces(&all_of(theirs)).contains(&form), "{theirs:?} does not print it: the control is none");
    assert_error_silent("ours", ours);
}

#[test]
fn the_errors_of_other_libraries_print_the_canary_and_ours_do_not() {
    const NAME: &str = "the_errors_of_other_libraries_print_the_canary_and_ours_do_not";
    let not_utf8 = [KANAL.as_bytes(), b"\xff"].concat();
    if !is_child(NAME) {
        let variable = std::ffi::OsString::from_vec(not_utf8);
        let mut child = process::Command::new(std::env::current_exe().unwrap());
        child
            .args([NAME, "--exact", "--nocapture"])
            .env("KEYSHEATH_CHILD", NAME)
            .env("NOT_UNICODE", variable);
        let output = child.output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && out.contains(END),
            "{out}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let folder = Folder::new();

    let theirs = std::env::var("NOT_UNICODE").unwrap_err();
    let ours = source::load(&Variable::new("NOT_UNICODE"), Kanal::PROFILE).unwrap_err();
    assert_only_theirs("text", &theirs, &ours);

    let theirs = String::from_utf8(not_utf8.clone()).unwrap_err();
    let ours = ApiKey::<Kanal>::parse_bytes(&not_utf8).unwrap_err();
    assert_only_theirs("list of bytes", &theirs, &ours);

    let line = format!("KANAL_API_KEY={KANAL} {KANAL}\n");
    let theirs = dotenvy::from_read_iter(line.as_bytes()).next().unwrap().unwrap_err();
    let source = DotenvFile::new(folder.file("dotenv", &line), "KANAL_API_KEY");
    let ours = source::load(&source, Kanal::PROFILE).unwrap_err();
    assert_only_theirs("text", &theirs, &ours);

    let theirs = serde_json::from_str::<u64>(&format!("\"{KANAL}\"")).unwrap_err();
    let ours = serde_json::from_str::<KeyRef>(&format!("\"{KANAL}\"")).unwrap_err();
    assert_only_theirs("text", &theirs, &ours);

    // Serde names a value of the wrong type by its value, so each type that a key could have is looked at.
    for ours in [
        from_value(serde::de::value::BytesDeserializer::new(KANAL.as_bytes())),
        from_value(serde::de::value::StrDeserializer::new(KANAL)),
        from_value(serde::de::value::StringDeserializer::new(KANAL.to_owned())),
        from_value(serde::de::value::BorrowedStrDeserializer::new(KANAL)),
        from_value(serde::de::value::BorrowedBytesDeserializer::new(KANAL.as_bytes())),
    ] {
        assert_error_silent("KeyRef by serde", &ours);
    }
    let number = "123456789012345678901234";
    for json in [number, "123456789012345678", "-123456789012345678", "1234567890.12345678", "true"] {
        let error = serde_json::from_str::<KeyRef>(json).unwrap_err().to_string();
        assert!(!error.contains("123456"), "{error}");
        assert!(!error.contains("true"), "{error}");
    }

    // It names one symbol, so six bytes are not to be had: the symbol itself is looked for.
    let text = format!("{}!", &KANAL[..7]);
    let theirs = base64_error(&text);
    assert!(theirs.to_string().contains("33"), "{theirs}");
    let source = SecretFile::new(folder.file("base64", &text)).base64();
    let ours = source::load(&source, Kanal::PROFILE).unwrap_err();
    let shown = all_of(&ours).replace(&folder.path().display().to_string(), "");
    assert!(!shown.contains("33") && !shown.contains('!'), "{shown}");
    println!("{END}");
}

fn from_value<'de, D>(deserializer: D) -> serde::de::value::Error
where
    D: serde::Deserializer<'de, Error = serde::de::value::Error>,
{
    serde::Deserialize::deserialize(deserializer).map(|_: KeyRef| ()).unwrap_err()
}

fn base64_error(text: &str) -> base64::DecodeError {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_err()
}

/// Keeps every line that is logged in this process.
struct Collector(Mutex<Vec<String>>);

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {} {}", record.level(), record.target(), record.args());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

#[test]
fn no_log_line_has_the_canary() {
    static COLLECTOR: Collector = Collector(Mutex::new(Vec::new()));
    const NAME: &str = "no_log_line_has_the_canary";
    if !is_child(NAME) {
        return assert_child_passes(NAME, &[("KANAL_API_KEY", KANAL)]);
    }
    log::set_logger(&COLLECTOR).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    log::trace!("the collector works");

    let folder = Folder::new();
    let dotenv = folder.file("dotenv", format!("KANAL_API_KEY={KANAL}\nbad {KANAL}\n"));
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
    format!("env:{KANAL}=").parse::<KeyRef>().unwrap_err();

    let lines = COLLECTOR.0.lock().unwrap().clone();
    assert!(lines[0].ends_with("the collector works"), "{lines:?}");
    assert_silent("the log", &lines.join("\n"));
    let own = lines.iter().filter(|line| line.contains(" keysheath"));
    assert_eq!(own.count(), 0, "the crate logs nothing of its own: {lines:?}");
    println!("{END}");
}
