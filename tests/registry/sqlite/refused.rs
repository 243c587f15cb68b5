//! Files that are refused: each with a clear error, and each left unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use keysheath::FileProblem;
use keysheath::key::{Issuer, Kanal, Katana, KeyFormat, Origin, Profile};
use keysheath::registry::{KeyRegistry, Pepper, RecordError, RegistryError};
use rusqlite::Connection;

use super::{Place, ask, create};
use crate::support::{Child, as_ordinary_user, in_child, set_mode, with_a_file_of_another_user};

/// Everything in a folder: content, length and the time of the last change. Not the lock, which may be
/// created.
fn picture(folder: &Path) -> BTreeMap<String, (Option<Vec<u8>>, u64, i64)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries
        .map(|path| {
            let metadata = path.symlink_metadata().unwrap();
            (name(&path), (fs::read(&path).ok(), metadata.len(), metadata.mtime_nsec()))
        })
        .filter(|(name, _)| name != "keys.db.lock")
        .collect()
}

/// Opens records that a registry of Kanal must refuse, and asserts that nothing has changed.
fn refusal(place: &Place) -> RecordError {
    let before = picture(place.0.path());
    let refused = refused(place.open_with(place.pepper("a")));
    assert_eq!(picture(place.0.path()), before, "{refused}");
    refused
}

/// Returns why records cannot be opened, whatever the pepper is.
fn opened(path: impl AsRef<Path>) -> RecordError {
    refused(KeyRegistry::open(Kanal::PROFILE, Pepper::random().unwrap(), path))
}

/// Returns why records cannot be created.
fn created(path: impl AsRef<Path>) -> RecordError {
    refused(KeyRegistry::create(Kanal::PROFILE, Pepper::random().unwrap(), path))
}

fn refused(outcome: Result<KeyRegistry, RegistryError>) -> RecordError {
    match outcome {
        Err(RegistryError::Records(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Records with some keys, closed.
fn filled() -> Place {
    let place = Place::new();
    let registry = place.create();
    for number in 0..200 {
        create(&registry, &format!("key number {number}"), None);
    }
    drop(registry);
    place
}

/// Changes a closed file with another tool.
fn edit(place: &Place, sql: &str) {
    Connection::open(place.path()).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_missing_file_is_missing_and_nothing_is_created() {
    let place = Place::new();
    assert_eq!(refusal(&place), RecordError::Missing);
    assert!(!place.0.at("keys.db.lock").exists());
    for path in ["no/keys.db", "a/keys.db"] {
        assert_eq!(opened(place.0.at(path)), RecordError::File(FileProblem::NoFolder), "{path}");
        assert_eq!(created(place.0.at(path)), RecordError::File(FileProblem::NoFolder), "{path}");
    }
    for path in ["", "/", "..", "a/.."] {
        assert_eq!(opened(path), RecordError::File(FileProblem::NotPrivate), "{path:?}");
    }
    let nul = place.0.at("a\0b");
    assert_eq!(opened(nul), RecordError::File(FileProblem::Unreadable(ErrorKind::InvalidInput)));
}

#[test]
fn records_are_not_made_over_anything() {
    let place = filled();
    let before = picture(place.0.path());
    assert_eq!(created(place.path()), RecordError::Exists);
    fs::create_dir(place.0.at("folder")).unwrap();
    symlink("nowhere", place.0.at("link")).unwrap();
    for name in ["folder", "link", "a"] {
        assert_eq!(created(place.0.at(name)), RecordError::Exists, "{name}");
    }
    for name in ["keys.db", "a", "b"] {
        assert_eq!(picture(place.0.path())[name], before[name]);
    }
    // A log that was left behind would be played into new records.
    place.0.write("other.db-wal", "log");
    assert_eq!(created(place.0.at("other.db")), RecordError::Exists);
    assert!(!place.0.at("other.db").exists());
    // The remains of a process that was killed while it created records do no harm.
    let [left, journal] =
        ["third.db.keysheath-new", "third.db.keysheath-new-journal"].map(|at| place.0.at(at));
    fs::write(&left, "SQLite format 3\0half").unwrap();
    set_mode(&left, 0o600);
    fs::write(&journal, "half").unwrap();
    KeyRegistry::create(Kanal::PROFILE, place.pepper("a"), place.0.at("third.db")).unwrap();
    assert!(!left.exists() && !journal.exists());
    // A person's own file is not removed.
    place.0.write("fourth.db.new", "a person's");
    KeyRegistry::create(Kanal::PROFILE, place.pepper("a"), place.0.at("fourth.db")).unwrap();
    assert_eq!(fs::read(place.0.at("fourth.db.new")).unwrap(), b"a person's");
    place.0.write("fifth.db.keysheath-new", "a person's");
    assert_eq!(created(place.0.at("fifth.db")), RecordError::Exists);
    assert_eq!(fs::read(place.0.at("fifth.db.keysheath-new")).unwrap(), b"a person's");
}

#[test]
fn hard_links_of_records_their_log_and_lock_are_refused() {
    let place = filled();
    let second = place.0.at("second name");
    for name in ["keys.db", "keys.db-wal", "keys.db.lock"] {
        let path = place.0.at(name);
        if !path.exists() {
            place.0.write(name, "");
        }
        set_mode(&path, 0o600);
        fs::hard_link(&path, &second).unwrap();
        assert_eq!(refusal(&place), RecordError::File(FileProblem::Linked), "{name}");
        fs::remove_file(&second).unwrap();
    }
    // The second name that a process left that was killed right after it created them is accepted.
    fs::hard_link(place.path(), place.0.at("keys.db.keysheath-new")).unwrap();
    assert_eq!(place.open().len(), 200);
    assert!(!place.0.at("keys.db.keysheath-new").exists());
}

#[test]
fn records_cannot_be_called_like_a_lock() {
    let place = filled();
    for name in ["keys.db.lock", "KEYS.LOCK", "keys.db.keysheath-new"] {
        assert_eq!(created(place.0.at(name)), RecordError::File(FileProblem::ReservedName), "{name}");
        assert_eq!(opened(place.0.at(name)), RecordError::File(FileProblem::ReservedName), "{name}");
    }
}

#[test]
fn links_folders_and_shared_files_are_not_private() {
    let place = filled();
    let path = place.path();
    for mode in [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o666] {
        set_mode(&path, mode);
        assert_eq!(refusal(&place), RecordError::File(FileProblem::NotPrivate), "{mode:o}");
    }
    set_mode(&path, 0o600);
    for name in ["keys.db-wal", "keys.db-journal"] {
        let log = place.0.write(name, "");
        set_mode(&log, 0o644);
        assert_eq!(refusal(&place), RecordError::File(FileProblem::NotPrivate), "{name}");
        fs::remove_file(log).unwrap();
    }
    fs::rename(&path, place.0.at("moved")).unwrap();
    for target in ["moved", "nowhere"] {
        symlink(place.0.at(target), &path).unwrap();
        assert_eq!(refusal(&place), RecordError::File(FileProblem::NotPrivate), "a link to {target}");
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(&path).unwrap();
    assert_eq!(refusal(&place), RecordError::File(FileProblem::NotPrivate));
    fs::remove_dir(&path).unwrap();
    fs::rename(place.0.at("moved"), &path).unwrap();
    fs::remove_file(place.0.at("keys.db.lock")).unwrap();
    symlink(place.0.at("elsewhere"), place.0.at("keys.db.lock")).unwrap();
    assert_eq!(refusal(&place), RecordError::File(FileProblem::NotPrivate), "the lock is a link");
    assert!(!place.0.at("elsewhere").exists());
    fs::remove_file(place.0.at("keys.db.lock")).unwrap();
    assert_eq!(place.open().len(), 200);
}

#[test]
fn a_file_of_another_user_is_not_private() {
    with_a_file_of_another_user("refused::a_file_of_another_user_is_not_private", |path| {
        if path.starts_with(std::env::temp_dir()) {
            set_mode(path, 0o600);
        }
        assert_eq!(opened(path), RecordError::File(FileProblem::NotPrivate));
    });
}

#[test]
fn a_file_or_a_folder_that_cannot_be_written_is_read_only() {
    as_ordinary_user("refused::a_file_or_a_folder_that_cannot_be_written_is_read_only", || {
        let place = filled();
        for mode in [0o400, 0o000] {
            set_mode(&place.path(), mode);
            let error = opened(place.path());
            assert_eq!(error, RecordError::File(FileProblem::ReadOnly), "{mode:o}");
        }
        set_mode(&place.path(), 0o600);
        let before = picture(place.0.path());
        set_mode(place.0.path(), 0o500);
        let with_lock = opened(place.path());
        let made = created(place.0.at("new.db"));
        set_mode(place.0.path(), 0o700);
        fs::remove_file(place.0.at("keys.db.lock")).unwrap();
        set_mode(place.0.path(), 0o500);
        let without_lock = opened(place.path());
        set_mode(place.0.path(), 0o700);
        assert_eq!([with_lock, made, without_lock], [RecordError::File(FileProblem::ReadOnly); 3]);
        assert_eq!(picture(place.0.path()), before);
        assert_eq!(place.open().len(), 200);
    });
}

#[test]
fn records_in_use_are_locked_for_this_and_other_processes() {
    const NAME: &str = "refused::records_in_use_are_locked_for_this_and_other_processes";
    let in_another = |path: &Path| {
        in_child(NAME, &[("RECORDS", path)], || {
            let begin = Instant::now();
            let path = std::env::var_os("RECORDS").unwrap();
            assert_eq!(opened(path), RecordError::Locked);
            assert!(begin.elapsed() < Duration::from_secs(2), "it waited");
        })
    };
    if Child::new(NAME).is_here() {
        in_another(Path::new(""));
        return;
    }
    let place = filled();
    let registry = place.open();
    assert_eq!(opened(place.path()), RecordError::Locked);
    in_another(&place.path());
    let (_, key) = create(&registry, "still in use", None);
    assert_eq!(ask(&registry, &key, super::RequestedStore::NoStore), None);
    // SQLite's own lock keeps a tool out that does not know the lock beside the file.
    let other = Connection::open(place.path()).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let error = other.execute_batch("DELETE FROM keys").unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    drop((other, registry));
    assert_eq!(place.open().len(), 201);

    // A file that such a tool uses is locked too.
    let tool = Connection::open(place.path()).unwrap();
    tool.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let begin = Instant::now();
    assert_eq!(opened(place.path()), RecordError::Locked);
    assert!(begin.elapsed() < Duration::from_secs(2), "it waited");
}

#[test]
fn foreign_or_damaged_files_are_corrupt_and_left_unchanged() {
    let whole = fs::read(filled().path()).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let middle = whole.len() / 2 / 4096 * 4096;
    for (what, content) in [
        ("empty", vec![]),
        ("a text", b"SQLite format 3".to_vec()),
        ("zeros", vec![0; whole.len()]),
        ("noise", (0_u32..40_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()),
        ("cut within the header", whole[..50].to_vec()),
        ("the header alone", whole[..100].to_vec()),
        ("the first page", whole[..4096].to_vec()),
        ("cut in the middle", whole[..middle + 100].to_vec()),
        ("cut by a page", whole[..whole.len() - 4096].to_vec()),
        ("another application", with(68, b"ABCD")),
        ("version 0", with(60, &[0; 4])),
        ("a version below 0", with(60, &[0xff; 4])),
        ("a page of zeros", with(middle, &[0; 4096])),
        ("the second half of ones", with(middle, &vec![0xff; whole.len() - middle])),
        ("the table of tables of zeros", with(100, &[0; 3996])),
    ] {
        let place = Place::new();
        place.0.write("keys.db", content);
        assert_eq!(refusal(&place), RecordError::Corrupt, "{what}");
    }
}

#[test]
fn a_foreign_database_is_refused() {
    for sql in [
        "CREATE TABLE keys (slot INTEGER PRIMARY KEY)",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (a)",
        "PRAGMA application_id = 1802725490; PRAGMA user_version = 2; CREATE TABLE keys (slot INTEGER \
         PRIMARY KEY)",
    ] {
        let place = Place::new();
        place.0.write("keys.db", "");
        edit(&place, sql);
        assert_eq!(refusal(&place), RecordError::Corrupt, "{sql}");
    }
}

#[test]
fn a_newer_version_and_another_issuer_are_distinguished() {
    let place = filled();
    edit(&place, "PRAGMA user_version = 7");
    assert!(matches!(refusal(&place), RecordError::Newer { found: 7, known: 2, .. }));
    assert!(refusal(&place).to_string().contains("use a newer keysheath"));
    edit(&place, "PRAGMA user_version = 2");
    let before = picture(place.0.path());
    let other = KeyRegistry::open(Katana::PROFILE, place.pepper("a"), place.path());
    assert_eq!(other.unwrap_err(), RegistryError::Records(RecordError::OtherIssuer));
    assert_eq!(picture(place.0.path()), before);
    assert_eq!(place.open().len(), 200);
}

#[test]
fn rows_that_no_version_writes_are_corrupt_and_never_panic() {
    for sql in [
        "UPDATE keys SET name = ''",
        "UPDATE keys SET name = ' a' WHERE serial = 3",
        "UPDATE keys SET name = printf('%.*c', 101, 'a') WHERE serial = 3",
        "UPDATE keys SET name = 'a' || char(10) || 'b' WHERE serial = 3",
        "UPDATE keys SET name = CAST(x'ff' AS TEXT) WHERE serial = 3",
        "UPDATE keys SET digest = x'00' WHERE serial = 3",
        "UPDATE keys SET digest = zeroblob(17) WHERE serial = 3",
        "UPDATE keys SET digest = (SELECT digest FROM keys WHERE serial = 4) WHERE serial = 3",
        "UPDATE keys SET fingerprint = x'' WHERE serial = 3",
        "UPDATE keys SET fingerprint = zeroblob(11) WHERE serial = 3",
        "UPDATE keys SET pepper = zeroblob(9) WHERE serial = 3",
        "UPDATE keys SET team = -1 WHERE serial = 3",
        "UPDATE keys SET team = 4294967296 WHERE serial = 3",
        "UPDATE keys SET created = -1 WHERE serial = 3",
        "UPDATE keys SET last_used = 0 WHERE serial = 3",
        "UPDATE keys SET last_used = 4294967296 WHERE serial = 3",
        "UPDATE keys SET store = 0 WHERE serial = 3",
        "UPDATE keys SET serial = 200 WHERE serial = 3",
        "UPDATE keys SET serial = -1 WHERE serial = 3",
        "UPDATE keys SET serial = 4294967295 WHERE serial = 3",
        "UPDATE keys SET serial = 4294967296 WHERE serial = 3",
        "UPDATE meta SET next_serial = 100",
        "UPDATE meta SET next_serial = 4294967296",
        "UPDATE meta SET next_serial = -1",
        "UPDATE meta SET one = 2",
        "DELETE FROM meta",
        "INSERT INTO stores SELECT 0, 1, 0, pepper, seal FROM meta",
        "INSERT INTO stores SELECT 1, 1, 2, pepper, seal FROM meta",
        "INSERT INTO stores SELECT 1, -1, 0, pepper, seal FROM meta",
        "INSERT INTO stores SELECT 1, 1, 0, pepper, seal FROM meta",
        "INSERT INTO stores SELECT 1, 1, 0, zeroblob(9), seal FROM meta",
        "CREATE TRIGGER t AFTER DELETE ON keys BEGIN DELETE FROM stores; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE INDEX i ON keys (digest)",
        "DROP TABLE stores",
        "ALTER TABLE stores ADD COLUMN more INTEGER",
    ] {
        let place = filled();
        edit(&place, sql);
        assert_eq!(refusal(&place), RecordError::Corrupt, "{sql}");
    }
}

#[test]
fn a_copy_that_another_tool_made_is_opened() {
    let place = filled();
    let copy = Place::new();
    edit(&place, &format!("VACUUM INTO '{}'", copy.path().display()));
    set_mode(&copy.path(), 0o600);
    let registry = copy.open();
    assert_eq!(registry.len(), 200);
    create(&registry, "name", None);
    assert_eq!(copy.beside(), ["keys.db-wal"]);
}

#[test]
fn a_refused_file_keeps_the_log_of_a_process_that_was_killed() {
    let place = filled();
    let registry = place.open();
    create(&registry, "in the log alone", None);
    let copy = Place::new();
    for file in ["keys.db", "keys.db-wal"] {
        fs::copy(place.0.at(file), copy.0.at(file)).unwrap();
    }
    drop(registry);
    let before = picture(copy.0.path());
    let other = KeyRegistry::open(Katana::PROFILE, copy.pepper("a"), copy.path());
    assert_eq!(other.unwrap_err(), RegistryError::Records(RecordError::OtherIssuer));
    assert_eq!(picture(copy.0.path()), before);
    assert_eq!(copy.open().len(), 201);
    assert_eq!(copy.beside(), [] as [&str; 0]);
}

#[test]
fn arguments_that_are_refused_leave_no_file() {
    const WEAK: &Profile =
        &Profile::new("weak", "WEAK_KEY", Origin::https("weak.example"), KeyFormat::exactly(13), 77);
    let place = Place::new();
    let before = picture(place.0.path());
    let many = || (0..16).fold(place.pepper("a"), |all, _| all.with_older(Pepper::random().unwrap()));
    for make in [KeyRegistry::create, KeyRegistry::open] {
        let weak = make(WEAK, place.pepper("a"), place.path()).unwrap_err();
        assert!(matches!(weak, RegistryError::Weak { length: 13, .. }), "{weak}");
        let many = make(Kanal::PROFILE, many(), place.path()).unwrap_err();
        assert_eq!(many, RegistryError::TooManyPeppers);
    }
    assert_eq!(picture(place.0.path()), before);
    assert!(!place.0.at("keys.db.lock").exists());
}
