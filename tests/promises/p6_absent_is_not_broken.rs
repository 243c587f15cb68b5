//! Promise P6: absent is not broken. A chain goes on past a source that has nothing, and past no other.
//!
//! A table of every source and every state that it can be in; after it in the chain stands a good key.
//! Sources that look for `$CREDENTIALS_DIRECTORY` itself have a process for each of its states. The
//! keychain's rows are in a file of their own.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Child, Folder, KEY, KEY_IN_BASE64, OTHER_KEY, assert_prints_nothing_of, set_mode};
use keysheath::FileProblem;
use keysheath::chain::{AttemptOutcome, Chain, ChainError};
use keysheath::key::Kanal;
use keysheath::source::{Absence, CallError, Command, KeyRef, Problem, SecretFile, Source, Variable};

type IsExpected = fn(&Problem) -> bool;

/// What a chain does at a source.
enum Answer {
    /// It has nothing, for this reason, and the next one is asked.
    GoesOn(Absence),
    /// It is broken in this way, and the chain ends.
    Stops(IsExpected),
}

use Answer::{GoesOn, Stops};

struct Row {
    source: &'static str,
    state: &'static str,
    chain: Chain<Kanal>,
    answer: Answer,
}

/// Rows of one source after another.
#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(
        &mut self,
        name: &'static str,
        state: &'static str,
        source: impl Source + 'static,
        answer: Answer,
    ) {
        let chain = Chain::new().with(source);
        self.0.push(Row { source: name, state, chain, answer });
    }

    /// Asserts each row, with a good key behind it.
    fn assert(self, good: &Path) {
        for Row { source, state, chain, answer } in self.0 {
            let at = format!("{source}, {state}");
            let chain = chain.with(SecretFile::new(good));
            match (answer, chain.load()) {
                (GoesOn(absence), Ok(selected)) => {
                    assert!(selected.key().matches(OTHER_KEY.as_bytes()), "{at}: another key");
                    assert_eq!(
                        selected.attempts().as_slice()[0].outcome(),
                        &AttemptOutcome::Absent(absence),
                        "{at}"
                    );
                }
                (Stops(is_expected), Err(error @ ChainError::Broken { .. })) => {
                    assert_prints_nothing_of(&error, KEY);
                    assert_prints_nothing_of(&error, OTHER_KEY);
                    let steps = error.attempts().as_slice();
                    let AttemptOutcome::Broken(problem) = steps[0].outcome() else { panic!("{at}: {error}") };
                    assert!(is_expected(problem), "{at}: {problem:?}");
                    assert_eq!(steps[1].outcome(), &AttemptOutcome::NotAsked, "{at}");
                }
                (GoesOn(_), Err(error)) => panic!("{at}: the chain stopped: {error}"),
                (Stops(_), Ok(selected)) => panic!("{at}: fell through to {}", selected.provenance()),
                (Stops(_), Err(error)) => panic!("{at}: counts as absent: {error}"),
            }
        }
        // So that the folder can be removed.
        set_mode(&good.with_file_name("locked"), 0o700);
    }
}

fn is_malformed(problem: &Problem) -> bool {
    matches!(problem, Problem::Malformed(_))
}

fn is_empty(problem: &Problem) -> bool {
    *problem == Problem::Empty
}

fn is_missing(absence: Absence) -> IsExpected {
    match absence {
        Absence::NotSet => |it| *it == Problem::Missing { absence: Absence::NotSet },
        Absence::EmptyVariable => |it| *it == Problem::Missing { absence: Absence::EmptyVariable },
        Absence::NoFile => |it| *it == Problem::Missing { absence: Absence::NoFile },
        Absence::NotInFile => |it| *it == Problem::Missing { absence: Absence::NotInFile },
        Absence::NoCredentials => |it| *it == Problem::Missing { absence: Absence::NoCredentials },
        other => panic!("no row has {other}"),
    }
}

fn is_not_permitted(problem: &Problem) -> bool {
    *problem == Problem::File(FileProblem::Unreadable(ErrorKind::PermissionDenied))
}

fn is_dangling(problem: &Problem) -> bool {
    *problem == Problem::File(FileProblem::DanglingLink)
}

fn is_unreadable_path(problem: &Problem) -> bool {
    *problem == Problem::File(FileProblem::Unreadable(ErrorKind::NotADirectory))
}

fn is_too_large(problem: &Problem) -> bool {
    matches!(problem, Problem::File(FileProblem::TooLarge { .. }) | Problem::TooLarge { .. })
}

fn is_writable(problem: &Problem) -> bool {
    matches!(problem, Problem::File(FileProblem::WritableByOthers { .. }))
}

/// The folder that the parent has made for the child; there, an ordinary user may make files.
fn prepare() -> (PathBuf, PathBuf) {
    let root = PathBuf::from(std::env::var_os("FOLDER").unwrap());
    fs::create_dir(root.join("locked")).unwrap();
    let write = |name: &str, content: &str| {
        fs::write(root.join(name), content).unwrap();
        set_mode(&root.join(name), 0o600);
    };
    write("good", OTHER_KEY);
    write("empty", "");
    write("newline", "\r\n");
    write("malformed", &format!("{KEY}\n{KEY}\n"));
    write("base64", &format!("{KEY_IN_BASE64}!"));
    write("forbidden", KEY);
    set_mode(&root.join("forbidden"), 0);
    write("writable", KEY);
    set_mode(&root.join("writable"), 0o666);
    write("large", &KEY.repeat(20_000));
    symlink("gone", root.join("dangling")).unwrap();
    set_mode(&root.join("locked"), 0);
    let good = root.join("good");
    (root, good)
}

/// Rows of a source that reads a file with a key in it. `at` makes the source for a name in the folder; an
/// absent file is each source's own matter.
fn file_rows<S: Source + 'static>(table: &mut Table, name: &'static str, at: impl Fn(&str) -> S) {
    table.row(name, "empty", at("empty"), Stops(is_empty));
    table.row(name, "empty but for a newline", at("newline"), Stops(is_empty));
    table.row(name, "malformed", at("malformed"), Stops(is_malformed));
    let not_base64 = |problem: &Problem| *problem == Problem::NotBase64;
    table.row(name, "malformed base64", at("base64").base64(), Stops(not_base64));
    table.row(name, "too large", at("large"), Stops(is_too_large));
    table.row(name, "writable by others", at("writable"), Stops(is_writable));
    table.row(
        name,
        "a directory",
        at("."),
        Stops(|problem| *problem == Problem::File(FileProblem::NotAFile)),
    );
    table.row(name, "unreadable", at("forbidden"), Stops(is_not_permitted));
    table.row(name, "in a folder that may not be entered", at("locked/key"), Stops(is_not_permitted));
    table.row(name, "unreachable: a link to nothing", at("dangling"), Stops(is_dangling));
    table.row(name, "unreachable: behind a file", at("good/key"), Stops(is_unreadable_path));
}

/// The names under which [`file_rows`] looks, for sources that take them from variables.
const STATES: [&str; 10] = [
    "empty",
    "newline",
    "malformed",
    "base64",
    "large",
    "writable",
    ".",
    "forbidden",
    "locked/key",
    "dangling",
];

/// A child process of an ordinary user, with a folder that it may write to.
fn child(name: &'static str, folder: &Folder) -> Child {
    // Its parent, root perhaps, made the folder for itself alone.
    set_mode(folder.path(), 0o777);
    Child::new(name).ordinary_user().var("FOLDER", folder.path())
}

#[test]
fn variables() {
    let folder = Folder::new();
    let child = child("variables", &folder)
        .var("EMPTY", "")
        .var("MALFORMED", format!("{KEY}\n\n"))
        .var("NEWLINE", "\n")
        .var("LINES", format!("{KEY}\n\nshop\n"))
        .var("NOT_UNICODE", std::ffi::OsStr::from_bytes(b"8fK2pX9mWq4Ld7Vb3Nc6Ts1\xff"))
        .var("NOT_BASE64", format!("{KEY_IN_BASE64}!"))
        .var("BOTH", KEY)
        .var("BOTH_FILE", "/run/secrets/kanal");
    child.run(|| {
        let (_, good) = prepare();
        let mut table = Table::default();
        let mut row = |state, name: &str, answer| table.row("a variable", state, Variable::new(name), answer);
        row("absent", "NO_SUCH_VARIABLE", GoesOn(Absence::NotSet));
        row("empty", "EMPTY", GoesOn(Absence::EmptyVariable));
        row("malformed", "MALFORMED", Stops(is_malformed));
        row("unreadable: not Unicode", "NOT_UNICODE", Stops(is_malformed));
        row("empty but for a newline", "NEWLINE", Stops(is_empty));
        row("beside its file variable", "BOTH", Stops(|problem| matches!(problem, Problem::BothSet { .. })));
        let encoded = Variable::new("NOT_BASE64").base64();
        table.row("a variable", "malformed base64", encoded, Stops(|it| *it == Problem::NotBase64));
        table.row("a base64 variable", "empty", Variable::new("EMPTY").base64(), {
            GoesOn(Absence::EmptyVariable)
        });
        let named = |text: &str| text.parse::<KeyRef>().unwrap().source().unwrap();
        let missing = |absence| Stops(is_missing(absence));
        table.row("a variable reference", "absent", named("env:NO_SUCH_VARIABLE"), missing(Absence::NotSet));
        table.row("a variable reference", "empty", named("env:EMPTY"), missing(Absence::EmptyVariable));
        let json = |name: &str| Variable::new(name).field("k");
        table.row("a field of a variable", "absent", json("NO_SUCH_VARIABLE"), GoesOn(Absence::NotSet));
        table.row("a field of a variable", "no JSON", json("MALFORMED"), Stops(|it| *it == Problem::NotJson));
        let line = |line| Variable::new("LINES").line(line);
        table.row(
            "a line of a variable",
            "missing",
            line(4),
            Stops(|it| matches!(it, Problem::NoLine { .. })),
        );
        table.row("a line of a variable", "empty", line(2), Stops(is_empty));
        table.assert(&good);
    });
}

#[test]
fn file_variables() {
    let folder = Folder::new();
    let child =
        child("p6_absent_is_not_broken::file_variables", &folder).var("NOTHING_FILE", "").var("BOTH", KEY);
    let child = child.var("BOTH_FILE", folder.at("good")).var("GONE_FILE", folder.at("gone"));
    let child = STATES
        .iter()
        .chain(&["good/key"])
        .fold(child, |child, state| child.var(&format!("{state}_FILE"), folder.at(state)));
    child.run(|| {
        let (_, good) = prepare();
        let mut table = Table::default();
        let name = "a file variable";
        table.row(name, "absent", SecretFile::named_by_variable("NO_SUCH"), GoesOn(Absence::NotSet));
        table.row(name, "empty", SecretFile::named_by_variable("NOTHING"), GoesOn(Absence::EmptyVariable));
        let gone = |problem: &Problem| *problem == Problem::FileGone;
        table.row(name, "unreachable: its file is gone", SecretFile::named_by_variable("GONE"), Stops(gone));
        let both = |problem: &Problem| matches!(problem, Problem::BothSet { .. });
        table.row(name, "beside its variable", SecretFile::named_by_variable("BOTH"), Stops(both));
        file_rows(&mut table, name, |name| SecretFile::named_by_variable(name));
        table.assert(&good);
    });
}

#[test]
fn secret_files() {
    let folder = Folder::new();
    child("p6_absent_is_not_broken::secret_files", &folder).run(|| {
        let (root, good) = prepare();
        let mut table = Table::default();
        let file = |name: &str| SecretFile::new(root.join(name));
        table.row("a secret file", "absent", file("missing"), GoesOn(Absence::NoFile));
        table.row("a base64 secret file", "absent", file("missing").base64(), GoesOn(Absence::NoFile));
        file_rows(&mut table, "a secret file", file);
        let reference = |name: &str| -> Box<dyn Source> {
            let reference: KeyRef = format!("file:{}/{name}", root.display()).parse().unwrap();
            reference.source().unwrap()
        };
        table.row("a file reference", "absent", reference("missing"), Stops(is_missing(Absence::NoFile)));
        let required = file("missing").required();
        table.row("a required file", "absent", required, Stops(is_missing(Absence::NoFile)));
        table.row("a file", "in a folder that no shell expanded", SecretFile::new("~/kanal"), {
            Stops(|problem| matches!(problem, Problem::BadPath { .. }))
        });
        table.row("a file", "without a name", SecretFile::new(""), {
            Stops(|problem| matches!(problem, Problem::BadPath { .. }))
        });
        file_rows(&mut table, "a file reference", reference);
        table.assert(&good);
    });
}

#[test]
fn systemd_credentials() {
    let folder = Folder::new();
    child("p6_absent_is_not_broken::systemd_credentials", &folder)
        .var("CREDENTIALS_DIRECTORY", folder.path())
        .run(|| {
            let (_, good) = prepare();
            let mut table = Table::default();
            let name = "a systemd credential";
            let credential = |name: &str| SecretFile::systemd_credential(name);
            table.row(name, "absent", credential("missing"), GoesOn(Absence::NoFile));
            let named = "systemd:missing".parse::<KeyRef>().unwrap().source().unwrap();
            table.row("a systemd reference", "absent", named, Stops(is_missing(Absence::NoFile)));
            table.row(name, "empty", credential("empty"), Stops(is_empty));
            table.row(name, "malformed", credential("malformed"), Stops(is_malformed));
            table.row(name, "too large", credential("large"), Stops(is_too_large));
            table.row(name, "writable by others", credential("writable"), Stops(is_writable));
            table.row(name, "unreadable", credential("forbidden"), Stops(is_not_permitted));
            table.row(name, "unreachable: a link to nothing", credential("dangling"), Stops(is_dangling));
            let bad_path = |problem: &Problem| matches!(problem, Problem::BadPath { .. });
            table.row(name, "a name that climbs out", credential("../good"), Stops(bad_path));
            table.assert(&good);
        });
}

/// One row, for one state of `$CREDENTIALS_DIRECTORY`.
fn credentials_directory(name: &'static str, directory: Option<&Path>, answer: Answer) {
    let folder = Folder::new();
    let child = child(name, &folder);
    let child = directory.into_iter().fold(child, |child, path| child.var("CREDENTIALS_DIRECTORY", path));
    child.run(|| {
        let (_, good) = prepare();
        let mut table = Table::default();
        table.row("a systemd credential", name, SecretFile::systemd_credential("kanal_api_key"), answer);
        table.assert(&good);
    });
}

#[test]
fn systemd_credentials_without_the_variable_are_absent() {
    let answer = GoesOn(Absence::NoCredentials);
    credentials_directory("systemd_credentials_without_the_variable_are_absent", None, answer);
}

#[test]
fn systemd_credentials_without_their_directory_are_unreachable() {
    let answer = Stops(|problem| matches!(problem, Problem::BadPath { .. }));
    let gone = Path::new("/no/such/directory");
    credentials_directory("systemd_credentials_without_their_directory_are_unreachable", Some(gone), answer);
}

#[test]
fn systemd_credentials_in_a_relative_directory_are_refused() {
    let answer = Stops(|problem| matches!(problem, Problem::BadPath { .. }));
    let relative = Path::new("credentials");
    credentials_directory("systemd_credentials_in_a_relative_directory_are_refused", Some(relative), answer);
}

#[test]
fn commands() {
    let folder = Folder::new();
    child("p6_absent_is_not_broken::commands", &folder).run(|| {
        let (root, good) = prepare();
        let mut table = Table::default();
        let shell =
            |script: &str| Command::new("sh").args(["-c", script]).with_deadline(Duration::from_secs(20));
        let not_started = |problem: &Problem| matches!(problem, Problem::NotStarted(_));
        let not_runnable = |problem: &Problem| matches!(problem, Problem::NotRunnable { .. });
        // A program was named, so that it is missing is no absence; nor has its output one.
        table.row("a command", "absent", Command::new("no-such-program"), Stops(not_started));
        let silent = |problem: &Problem| *problem == Problem::NoOutput;
        table.row("a command", "empty", Command::new("true"), Stops(silent));
        table.row("a command", "empty but for a newline", Command::new("echo"), Stops(silent));
        table.row("a command", "malformed", shell(&format!("echo {KEY}; echo {KEY}")), Stops(is_malformed));
        table.row("a command", "too large", shell(&format!("yes {KEY}")), Stops(is_too_large));
        table.row("a command", "unreadable: not executable", Command::new(&good), Stops(not_runnable));
        let forbidden = Command::new(root.join("locked/program"));
        table.row("a command", "unreadable: in a locked folder", forbidden, Stops(not_started));
        let failed = |problem: &Problem| *problem == Problem::Failed { code: 1 };
        table.row("a command", "unreadable: fails", shell(&format!("echo {KEY}; exit 1")), Stops(failed));
        let killed = |problem: &Problem| *problem == Problem::Killed;
        table.row("a command", "unreadable: dies", shell(&format!("echo {KEY}; kill -9 $$")), Stops(killed));
        let held = |problem: &Problem| *problem == Problem::OutputHeld;
        table.row("a command", "unreachable: held", shell(&format!("sleep 99 & printf {KEY}")), Stops(held));
        let hangs = Command::new("sleep").args(["1000"]).with_deadline(Duration::from_millis(100));
        let late = |problem: &Problem| matches!(problem, Problem::Call(CallError::Deadline { .. }));
        table.row("a command", "unreachable: hangs", hangs, Stops(late));
        let reference = "command:false".parse::<KeyRef>().unwrap().allow_commands().source().unwrap();
        table.row("a command reference", "unreadable: fails", reference, Stops(failed));
        table.assert(&good);
    });
}

#[cfg(feature = "dotenv")]
#[test]
fn dotenv_files() {
    use keysheath::source::DotenvFile;

    let folder = Folder::new();
    child("p6_absent_is_not_broken::dotenv_files", &folder).run(|| {
        let (root, good) = prepare();
        let mut table = Table::default();
        let mut row = |state, name: &str, content: Option<&str>, answer| {
            let path = root.join(name);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
                set_mode(&path, 0o600);
            }
            table.row("a .env", state, DotenvFile::new(path, "KANAL_API_KEY"), answer);
        };
        row("absent", "missing", None, GoesOn(Absence::NoFile));
        row("absent in the file", "1", Some("A=1\n"), GoesOn(Absence::NotInFile));
        row("empty", "2", Some("\n"), GoesOn(Absence::NotInFile));
        row("empty value", "3", Some("KANAL_API_KEY=''\n"), GoesOn(Absence::EmptyVariable));
        let malformed = format!("KANAL_API_KEY='{KEY} '\n");
        row("malformed value", "4", Some(&malformed), Stops(is_malformed));
        let bad = |problem: &Problem| matches!(problem, Problem::BadLine { .. });
        row("inside quotes", "5", Some(&format!("A=\"\nKANAL_API_KEY={KEY}\n\"\n")), Stops(bad));
        row("a key and no name", "6", Some(&format!("{KEY}\n")), Stops(bad));
        row("an unusual line end", "9", Some(&format!("A=1\rKANAL_API_KEY={KEY}\r")), Stops(bad));
        row("a quoted name", "10", Some(&format!("'KANAL_API_KEY'={KEY}\n")), Stops(bad));
        let wide = |problem: &Problem| matches!(problem, Problem::NotText { .. });
        row("utf-16", "11", Some("A\0=\0b\0"), Stops(wide));
        let twice = |problem: &Problem| matches!(problem, Problem::Duplicate { .. });
        row("twice", "7", Some(&format!("KANAL_API_KEY=\nKANAL_API_KEY={KEY}\n")), Stops(twice));
        row("changed to nothing", "8", Some("KANAL_API_KEY=$NO_SUCH_VARIABLE\n"), Stops(bad));
        let too_large = |problem: &Problem| {
            matches!(problem, Problem::File(FileProblem::TooLarge { .. }) | Problem::TooLarge { .. })
        };
        row("too large", "large", None, Stops(too_large));
        row("writable by others", "writable", None, Stops(is_writable));
        row("a directory", ".", None, Stops(|problem| *problem == Problem::File(FileProblem::NotAFile)));
        row("unreadable", "forbidden", None, Stops(is_not_permitted));
        row("in a folder that may not be entered", "locked/.env", None, Stops(is_not_permitted));
        row("unreachable: a link to nothing", "dangling", None, Stops(is_dangling));
        row("unreachable: behind a file", "good/.env", None, Stops(is_unreadable_path));
        table.assert(&good);
    });
}
