//! Promise P6 at a reload: only the source that the key came from is asked, and whatever it answers, a key of
//! another place is never taken. The last good key stays active, and the failed reload is reported.
//!
//! A table of each kind of source and each state that it can come into; below it in the chain stands a good
//! key of another account. The keychain's rows are in `tests/rotation/refresh/keychain.rs`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use keysheath::FileProblem;
use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::{RefreshEvent, Refresher, ReloadProblem};
use keysheath::source::{Absence, Command, Problem, SecretFile, Source};

use crate::support::refreshing::{Events, PATIENCE, SECOND, THIRD, eventually, has, only_asked};
use crate::support::{Child, Folder, KEY, assert_prints_nothing_of, set_mode};

/// What was done to a file, and what is to be said of it.
struct Row {
    state: &'static str,
    harm: fn(&Path),
    expected: fn(&ReloadProblem) -> bool,
}

const fn row(state: &'static str, harm: fn(&Path), expected: fn(&ReloadProblem) -> bool) -> Row {
    Row { state, harm, expected }
}

fn write(path: &Path, text: &str) {
    let _ = fs::remove_file(path);
    fs::write(path, text).unwrap();
    set_mode(path, 0o600);
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn is(problem: &ReloadProblem, expected: &Problem) -> bool {
    matches!(problem, ReloadProblem::Source(problem) if problem == expected)
}

const REMOVED_FOLDER: &str = "unreachable: its folder is gone";

/// The states of a file that holds a key. That it is absent is each source's own matter.
fn rows() -> Vec<Row> {
    vec![
        row("empty", |path| write(path, ""), |problem| is(problem, &Problem::Empty)),
        row(
            "malformed",
            |path| write(path, &format!("{KEY}{KEY}")),
            |problem| matches!(problem, ReloadProblem::Source(Problem::Malformed(_))),
        ),
        row(
            "too large",
            |path| write(path, &KEY.repeat(20_000)),
            |problem| {
                let ReloadProblem::Source(problem) = problem else { return false };
                matches!(problem, Problem::File(FileProblem::TooLarge { .. }))
            },
        ),
        row(
            "unreadable",
            |path| set_mode(path, 0),
            |problem| is(problem, &Problem::File(FileProblem::Unreadable(ErrorKind::PermissionDenied))),
        ),
        row(
            "writable by others",
            |path| {
                write(path, SECOND);
                set_mode(path, 0o666);
            },
            |problem| {
                matches!(problem, ReloadProblem::Source(Problem::File(FileProblem::WritableByOthers { .. })))
            },
        ),
        row(
            "a directory",
            |path| {
                remove(path);
                fs::create_dir(path).unwrap();
            },
            |problem| is(problem, &Problem::File(FileProblem::NotAFile)),
        ),
        row(
            "unreachable: a link to nothing",
            |path| {
                remove(path);
                symlink("no-such-file", path).unwrap();
            },
            |problem| is(problem, &Problem::File(FileProblem::DanglingLink)),
        ),
    ]
}

/// Puts the file back as it was, whatever it is now.
fn repair(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir(path).unwrap();
    }
    write(path, text);
}

/// Each row for a source that reads `path`, in which `text` of a key stands.
fn assert_never_another_place<S: Source + 'static>(
    rows: Vec<Row>,
    path: &Path,
    text: fn(&str) -> String,
    source: impl Fn() -> S,
) {
    for Row { state, harm, expected } in rows {
        let at = format!("{}, {state}", source().provenance());
        repair(path, &text(KEY));
        let lower = path.with_file_name("../lower");
        write(&lower, SECOND);
        let events = Events::default();
        let chain = Chain::<Kanal>::new().with(source()).with(SecretFile::new(&lower));
        let refresher = Refresher::from_chain(chain, events.record(only_asked())).unwrap();
        let handle = refresher.handle();
        let generation = handle.load().unwrap().generation();

        harm(path);
        for failures in 1..=2 {
            assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed), "{at}");
            assert!(has(&handle, KEY), "{at}: another key is active");
            assert_eq!(handle.load().unwrap().generation(), generation, "{at}");
            let status = refresher.status();
            assert_eq!(status.health().consecutive_failures(), failures, "{at}");
            let error = status.health().problem().expect("it failed");
            assert!(expected(error.problem()), "{at}: {error}");
            assert!(!error.to_string().contains("lower"), "{at}: {error}");
            for key in [KEY, SECOND] {
                assert_prints_nothing_of(error, key);
            }
        }
        eventually("both failures are reported", || events.failures() == 2);

        repair(path, &text(KEY));
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged), "{at}");
        assert_eq!(refresher.status().health().problem(), None, "{at}");
        let recovered = |event: &RefreshEvent| matches!(event, RefreshEvent::Recovered { failures: 2, .. });
        eventually("the recovery is reported", || events.count(recovered) == 1);
        repair(path, &text(THIRD));
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer), "{at}");
        assert!(has(&handle, THIRD), "{at}");
    }
}

/// A child of an ordinary user, with the folder `keys` in one that it may write to.
fn child(name: &'static str, folder: &Folder) -> Child {
    set_mode(folder.path(), 0o777);
    Child::new(name).ordinary_user().var("FOLDER", folder.path())
}

/// The path of a file in a folder that is there; only in the child.
fn file() -> PathBuf {
    let keys = PathBuf::from(std::env::var_os("FOLDER").unwrap()).join("keys");
    fs::create_dir(&keys).unwrap();
    keys.join("kanal")
}

fn remove_folder(path: &Path) {
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

fn is_no_file(problem: &ReloadProblem) -> bool {
    *problem == ReloadProblem::Absent(Absence::NoFile)
}

fn is_gone(problem: &ReloadProblem) -> bool {
    is(problem, &Problem::FileGone)
}

fn as_it_is(key: &str) -> String {
    key.to_owned()
}

#[test]
fn secret_files() {
    let folder = Folder::new();
    child("p6_refresh::secret_files", &folder).run(|| {
        let path = file();
        let mut rows = rows();
        rows.push(row("absent", remove, is_no_file));
        rows.push(row(REMOVED_FOLDER, remove_folder, is_no_file));
        assert_never_another_place(rows, &path, as_it_is, || SecretFile::new(&path));
    });
}

#[test]
fn file_variables() {
    let folder = Folder::new();
    child("p6_refresh::file_variables", &folder).var("SHOP_FILE", folder.at("keys/kanal")).run(|| {
        let path = file();
        let mut rows = rows();
        rows.push(row("absent", remove, is_gone));
        rows.push(row(REMOVED_FOLDER, remove_folder, is_gone));
        assert_never_another_place(rows, &path, as_it_is, || SecretFile::named_by_variable("SHOP"));
    });
}

#[test]
fn systemd_credentials() {
    let folder = Folder::new();
    child("p6_refresh::systemd_credentials", &folder).var("CREDENTIALS_DIRECTORY", folder.at("keys")).run(
        || {
            let path = file();
            let mut rows = rows();
            rows.push(row("absent", remove, is_no_file));
            let is_bad =
                |problem: &ReloadProblem| matches!(problem, ReloadProblem::Source(Problem::BadPath { .. }));
            rows.push(row(REMOVED_FOLDER, remove_folder, is_bad));
            assert_never_another_place(rows, &path, as_it_is, || SecretFile::systemd_credential("kanal"));
        },
    );
}

#[cfg(feature = "dotenv")]
#[test]
fn dotenv_files() {
    use keysheath::source::DotenvFile;

    let folder = Folder::new();
    child("p6_refresh::dotenv_files", &folder).run(|| {
        let path = file();
        let mut rows = rows();
        rows.retain(|row| !matches!(row.state, "empty" | "malformed"));
        rows.push(row("absent", remove, is_no_file));
        rows.push(row(REMOVED_FOLDER, remove_folder, is_no_file));
        rows.push(row(
            "absent in the file",
            |path| write(path, "A=1\n"),
            |problem| *problem == ReloadProblem::Absent(Absence::NotInFile),
        ));
        rows.push(row(
            "empty",
            |path| write(path, "KANAL_API_KEY=\n"),
            |problem| *problem == ReloadProblem::Absent(Absence::EmptyVariable),
        ));
        rows.push(row(
            "malformed",
            |path| write(path, &format!("KANAL_API_KEY={KEY}{KEY}\n")),
            |problem| matches!(problem, ReloadProblem::Source(Problem::Malformed(_))),
        ));
        rows.push(row(
            "a line that cannot be read",
            |path| write(path, &format!("KANAL_API_KEY={SECOND}\n'KANAL_API_KEY'\n")),
            |problem| matches!(problem, ReloadProblem::Source(Problem::BadLine { .. })),
        ));
        let text = |key: &str| format!("KANAL_API_KEY={key}\n");
        assert_never_another_place(rows, &path, text, || DotenvFile::new(&path, "KANAL_API_KEY"));
    });
}

#[test]
fn commands() {
    let folder = Folder::new();
    child("p6_refresh::commands", &folder).run(|| {
        let path = file();
        let failed =
            |problem: &ReloadProblem| matches!(problem, ReloadProblem::Source(Problem::Failed { .. }));
        let rows = vec![
            row("absent: it fails", remove, failed),
            row("empty", |path| write(path, ""), |problem| is(problem, &Problem::NoOutput)),
            row(
                "malformed",
                |path| write(path, &format!("{KEY}\n{KEY}\n")),
                |problem| matches!(problem, ReloadProblem::Source(Problem::Malformed(_))),
            ),
            row("unreadable", |path| set_mode(path, 0), failed),
            row(REMOVED_FOLDER, remove_folder, failed),
        ];
        assert_never_another_place(rows, &path, as_it_is, || {
            Command::new("cat").args([path.to_str().unwrap()])
        });
    });
}
