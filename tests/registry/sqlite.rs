//! Records in SQLite: what survives a restart, the rotation of a pepper, writing behind requests, being
//! killed.

mod altered;
mod killed;
mod refused;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::{Child, Folder};
use http::{HeaderMap, HeaderValue};
use keysheath::FileProblem;
use keysheath::failure::Meaning;
use keysheath::key::{Issuer, Kanal, StoreId};
use keysheath::registry::{
    Authorize, KeyId, KeyRegistry, Pepper, RecordError, RegistryError, RequestedStore, TeamId,
};
use rusqlite::Connection;

const TEAM: TeamId = TeamId::new(1);

/// A folder with a pepper or two and a place for the records.
struct Place(Folder);

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        for pepper in ["a", "b"] {
            folder.write(pepper, format!("{pepper}-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
        }
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.at("keys.db")
    }

    fn pepper(&self, name: &str) -> Pepper {
        pepper_of(self.0.path(), name)
    }

    fn create(&self) -> KeyRegistry {
        KeyRegistry::create(Kanal::PROFILE, self.pepper("a"), self.path()).unwrap()
    }

    fn open(&self) -> KeyRegistry {
        open(self.0.path())
    }

    fn open_with(&self, pepper: Pepper) -> Result<KeyRegistry, RegistryError> {
        KeyRegistry::open(Kanal::PROFILE, pepper, self.path())
    }

    /// Returns the names of the files beside the records, without the peppers and the lock.
    fn beside(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names
            .filter(|name| name.starts_with("keys.db") && name != "keys.db" && name != "keys.db.lock")
            .collect()
    }
}

fn pepper_of(folder: &Path, name: &str) -> Pepper {
    let reference = format!("file:{}", folder.join(name).display());
    Pepper::from_reference(&reference.parse().unwrap()).unwrap()
}

fn open(folder: &Path) -> KeyRegistry {
    KeyRegistry::open(Kanal::PROFILE, pepper_of(folder, "a"), folder.join("keys.db")).unwrap()
}

fn store(number: u64) -> StoreId {
    StoreId::new(number).unwrap()
}

/// Returns why a key is refused; `None` if it is accepted.
fn ask(registry: &KeyRegistry, key: &str, wanted: RequestedStore) -> Option<Meaning> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::try_from(format!("Bearer {key}")).unwrap());
    registry.authorize(&headers, wanted).err().map(|refusal| refusal.meaning())
}

fn create(registry: &KeyRegistry, name: &str, restriction: Option<StoreId>) -> (KeyId, String) {
    let new = match restriction {
        None => registry.create_key(TEAM, name),
        Some(store) => registry.create_key_for_store(TEAM, name, store),
    };
    let new = new.unwrap();
    (new.record().id(), new.key().expose_secret().to_owned())
}

/// A clock that a test sets.
fn clock(seconds: u64) -> (Arc<AtomicU64>, impl Fn() -> SystemTime + Send + Sync) {
    let now = Arc::new(AtomicU64::new(seconds));
    let shown = Arc::clone(&now);
    (now, move || SystemTime::UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::SeqCst)))
}

#[test]
fn everything_survives_a_restart() {
    let place = Place::new();
    let (_, at_start) = clock(1_800_000_000);
    let registry = place.create().with_clock(at_start);
    registry.put_store(store(10), TEAM).unwrap();
    registry.put_store(store(u64::MAX), TeamId::new(u32::MAX)).unwrap();
    registry.pause_store(store(u64::MAX)).unwrap();
    let (_, free) = create(&registry, "日本 'quoted' \u{1f511}", None);
    let (_, bound) = create(&registry, "bound", Some(store(10)));
    let (deleted, gone) = create(&registry, "deleted", None);
    registry.create_key_for_store(TeamId::new(u32::MAX), "theirs", store(u64::MAX)).unwrap();
    assert_eq!(ask(&registry, &free, RequestedStore::NoStore), None);
    registry.delete_key(deleted).unwrap();
    let before = (registry.keys(TEAM), registry.keys(TeamId::new(u32::MAX)));
    drop(registry);
    assert_eq!(place.beside(), [] as [&str; 0], "the log is played in and removed");

    let registry = place.open();
    assert_eq!((registry.keys(TEAM), registry.keys(TeamId::new(u32::MAX))), before);
    assert_eq!(before.0[0].last_used(), Some(before.0[0].created()));
    assert!(before.0.iter().all(|record| record.fingerprint().is_some()));
    let at = |number| RequestedStore::Store(store(number));
    for (key, wanted, expected) in [
        (&free, RequestedStore::NoStore, None),
        (&free, at(10), None),
        (&free, at(u64::MAX), Some(Meaning::StoreForbidden)),
        (&bound, at(10), None),
        (&bound, at(11), Some(Meaning::StoreNotFound)),
        (&bound, RequestedStore::NoStore, Some(Meaning::StoreForbidden)),
        (&bound, RequestedStore::NoStoreForAnyKey, None),
        (&gone, RequestedStore::NoStore, Some(Meaning::KeyRefused)),
    ] {
        assert_eq!(ask(&registry, key, wanted), expected, "{wanted:?}");
    }
    registry.pause_store(store(10)).unwrap();
    drop(registry);
    assert_eq!(ask(&place.open(), &free, at(10)), Some(Meaning::StoreNotFound), "a pause is kept");
}

#[test]
fn no_number_is_reused_not_even_the_newest_after_a_restart() {
    let place = Place::new();
    drop(place.create());
    let mut seen = Vec::new();
    for _ in 0..5 {
        let registry = place.open();
        let (id, _) = create(&registry, "name", None);
        assert!(!seen.contains(&id), "{id} was given before");
        seen.push(id);
        registry.delete_key(id).unwrap();
        assert!(registry.is_empty());
    }
    let registry = place.open();
    assert!(seen.iter().all(|id| registry.key(*id).is_none() && registry.delete_key(*id).is_err()));
}

#[test]
fn keys_with_gaps_in_their_numbers_keep_their_numbers() {
    let place = Place::new();
    let registry = place.create();
    let keys: Vec<_> = (0..3000).map(|n| create(&registry, &format!("key {n}"), None)).collect();
    let (mut kept, mut deleted) = (Vec::new(), Vec::new());
    for (at, key) in keys.into_iter().enumerate() {
        if at % 300 == 7 || (1000..1100).contains(&at) {
            kept.push(key);
        } else if at % 100 == 0 || at > 2900 {
            registry.delete_key(key.0).unwrap();
            deleted.push(key);
        }
    }
    drop(registry);
    for _ in 0..2 {
        let registry = place.open();
        let expected = 3000 - deleted.len();
        assert_eq!((registry.len(), registry.keys(TEAM).len()), (expected, expected));
        for (id, key) in &kept {
            assert_eq!(ask(&registry, key, RequestedStore::NoStore), None);
            assert_eq!(registry.key(*id).unwrap().id(), *id);
        }
        assert!(deleted.iter().all(|(_, key)| ask(&registry, key, RequestedStore::NoStore).is_some()));
        // The gaps are filled, and those keys are deleted again.
        let new: Vec<_> = (0..150).map(|_| create(&registry, "new", None)).collect();
        assert!(new.iter().all(|(_, key)| ask(&registry, key, RequestedStore::NoStore).is_none()));
        for (id, _) in new {
            registry.delete_key(id).unwrap();
        }
    }
}

#[test]
fn new_files_the_log_and_the_lock_have_mode_600() {
    let place = Place::new();
    let registry = place.create();
    create(&registry, "name", None);
    for name in ["keys.db", "keys.db-wal", "keys.db.lock"] {
        let mode = fs::metadata(place.0.at(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(place.beside(), ["keys.db-wal"], "no shared memory, no journal");
}

#[test]
fn no_key_and_no_deleted_record_is_in_the_file_or_the_log() {
    let place = Place::new();
    let registry = place.create();
    let name = "a name that stands nowhere else";
    let (id, key) = create(&registry, name, None);
    let (_, kept) = create(&registry, "kept", None);
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    registry.flush().unwrap();
    let holds = |text: &str| {
        ["keys.db", "keys.db-wal"].iter().any(|file| {
            let bytes = fs::read(place.0.at(file)).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    assert!(holds(name), "the search finds what is there");
    assert!(!holds(&key) && !holds(&kept));
    registry.delete_key(id).unwrap();
    assert!(!holds(name), "while the registry is open");
    drop(registry);
    assert!(!holds(name) && holds("kept"));
}

#[test]
fn a_pepper_is_rotated_without_a_key_being_refused() {
    let place = Place::new();
    let registry = place.create();
    let (_, key) = create(&registry, "used", None);
    let (unused, _) = create(&registry, "unused", None);
    registry.put_store(store(10), TEAM).unwrap();
    let before = registry.keys(TEAM);
    drop(registry);

    // With the new pepper only, opening fails, because those keys cannot be recognized.
    let missing = place.open_with(place.pepper("b")).unwrap_err();
    let old = place.pepper("a").id();
    assert!(matches!(missing, RegistryError::PepperMissing { id, .. } if id == old), "{missing}");

    let both = || place.pepper("b").with_older(place.pepper("a"));
    let registry = place.open_with(both()).unwrap();
    assert_eq!(registry.keys_under(old), Ok(2));
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    assert_eq!(registry.keys_under(old), Ok(1));
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None, "under the new pepper now");
    drop(registry);
    let missing = place.open_with(place.pepper("b")).unwrap_err();
    assert!(matches!(missing, RegistryError::PepperMissing { id, .. } if id == old), "one key is left");

    let registry = place.open_with(both()).unwrap();
    assert_eq!(registry.keys_under(old), Ok(1), "the move of the other was written");
    registry.delete_key(unused).unwrap();
    registry.flush().unwrap();
    assert_eq!(registry.keys_under(old), Ok(0));
    drop(registry);

    let registry = place.open_with(place.pepper("b")).unwrap();
    assert_eq!(
        ask(&registry, &key, RequestedStore::Store(store(10))),
        None,
        "stores are under the new pepper too"
    );
    assert_eq!(registry.keys(TEAM)[0].id(), before[0].id(), "a key keeps its number");
    assert_eq!(registry.keys(TEAM)[0].fingerprint(), before[0].fingerprint());
    drop(registry);
    assert!(place.open_with(place.pepper("a")).is_err());
}

#[test]
fn a_late_write_for_a_deleted_key_goes_to_no_other_key() {
    let place = Place::new();
    let first = {
        let registry = place.create();
        create(&registry, "first", None)
    };
    let registry = place.open_with(place.pepper("b").with_older(place.pepper("a"))).unwrap();
    // Its use and its digest under the new pepper are queued.
    assert_eq!(ask(&registry, &first.1, RequestedStore::NoStore), None);
    registry.delete_key(first.0).unwrap();
    let second = create(&registry, "second", None);
    registry.flush().unwrap();
    drop(registry);
    let registry = place.open_with(place.pepper("b")).unwrap();
    assert_eq!(ask(&registry, &first.1, RequestedStore::NoStore), Some(Meaning::KeyRefused));
    assert_eq!(registry.key(second.0).unwrap().last_used(), None, "the use was the first key's");
    assert_eq!(ask(&registry, &second.1, RequestedStore::NoStore), None);
}

#[test]
fn records_can_be_reopened_while_processes_are_started() {
    let place = Place::new();
    drop(place.create());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            let mut started = 0;
            while !done.load(Ordering::Relaxed) {
                started += usize::from(std::process::Command::new("true").status().unwrap().success());
            }
            started
        });
        let outcomes: Vec<_> = (0..300).map(|_| place.open_with(place.pepper("a")).map(drop)).collect();
        done.store(true, Ordering::Relaxed);
        assert!(starting.join().unwrap() > 20);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    });
}

#[test]
fn a_use_is_written_by_a_flush_at_the_end_and_by_itself() {
    let place = Place::new();
    let (now, clock) = clock(1_800_000_000);
    let registry = place.create().with_clock(clock);
    let (id, key) = create(&registry, "name", None);
    // As another process would find it if this one were killed now.
    let on_disk = || {
        let copy = Place::new();
        for file in ["keys.db", "keys.db-wal"] {
            fs::copy(place.0.at(file), copy.0.at(file)).unwrap();
        }
        copy.open().key(id).unwrap().last_used()
    };
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(on_disk(), None);
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    registry.flush().unwrap();
    assert_eq!(on_disk(), at(1_800_000_000));

    // Within a step the use is in memory only; at the next step it is written.
    now.store(1_800_000_005, Ordering::SeqCst);
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    registry.flush().unwrap();
    assert_eq!(registry.key(id).unwrap().last_used(), at(1_800_000_005));
    assert_eq!(on_disk(), at(1_800_000_000));
    now.store(1_800_000_100, Ordering::SeqCst);
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    let patience = SystemTime::now() + Duration::from_secs(20);
    while on_disk() != at(1_800_000_100) {
        assert!(SystemTime::now() < patience, "it is not written by itself");
        std::thread::sleep(Duration::from_millis(200));
    }
    now.store(1_800_000_200, Ordering::SeqCst);
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    drop(registry);
    assert_eq!(place.open().key(id).unwrap().last_used(), at(1_800_000_200));
}

#[test]
fn unwritable_records_fail_changes_and_no_request() {
    let place = Place::new();
    let registry = place.create();
    let (id, key) = create(&registry, "name", None);
    let aside = place.0.at("aside");
    fs::rename(place.path(), &aside).unwrap();
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None);
    let missing = RegistryError::Records(RecordError::Missing);
    assert_eq!(registry.flush(), Err(missing));
    assert_eq!(registry.delete_key(id), Err(missing));
    assert_eq!(registry.create_key(TEAM, "other").unwrap_err(), missing);
    assert_eq!(registry.put_store(store(1), TEAM), Err(missing));
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore), None, "what was not deleted is still accepted");
    assert_eq!(registry.len(), 1, "what could not be written is not there");
    // Another file at the path is not the one that was opened.
    fs::copy(&aside, place.path()).unwrap();
    assert_eq!(registry.flush(), Err(missing));
    fs::rename(&aside, place.path()).unwrap();
    assert_eq!(registry.flush(), Ok(()), "what waited is written once it can be");
    registry.delete_key(id).unwrap();
}

#[test]
fn a_full_disk_fails_changes_and_no_request_and_loses_nothing() {
    let name = "a_full_disk_fails_changes_and_no_request_and_loses_nothing";
    Child::new(name).with_file_limit(200).run(|| {
        let place = Place::new();
        let registry = place.create();
        registry.put_store(store(10), TEAM).unwrap();
        let mut keys = Vec::new();
        let error = loop {
            match registry.create_key(TEAM, &"n".repeat(100)) {
                Ok(new) => keys.push((new.record().id(), new.key().expose_secret().to_owned())),
                Err(error) => break error,
            }
            assert!(keys.len() < 10_000, "the bound on a file's size does not apply");
        };
        assert_eq!(
            error,
            RegistryError::Records(RecordError::File(FileProblem::Unwritable(ErrorKind::Other)))
        );
        assert!(keys.len() > 3);
        assert!(registry.pause_store(store(10)).is_err());
        for (_, key) in &keys {
            assert_eq!(ask(&registry, key, RequestedStore::Store(store(10))), None);
        }
        assert_eq!(registry.flush(), Err(error));
        assert_eq!(registry.len(), keys.len());
        drop(registry);
        let registry = place.open();
        assert_eq!(registry.len(), keys.len());
        assert!(keys.iter().all(|(_, key)| ask(&registry, key, RequestedStore::Store(store(10))).is_none()));
    });
}

#[test]
fn no_printed_record_contains_a_key_or_a_digest() {
    let place = Place::new();
    let registry = place.create();
    let (_, key) = create(&registry, "name", None);
    registry.flush().unwrap();
    assert_eq!(format!("{registry:?}"), "KeyRegistry(kanal, 1 keys)");
    drop(registry);
    let connection = Connection::open(place.path()).unwrap();
    let digest: Vec<u8> = connection.query_row("SELECT digest FROM keys", [], |row| row.get(0)).unwrap();
    drop(connection);
    let hex = |run: &[u8]| run.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    for shown in [format!("{:?}", place.open()), format!("{:#?}", place.open().keys(TEAM))] {
        crate::support::assert_nothing_of_in(&key, &shown);
        let bytes = format!("{:?}", &digest[..4]);
        assert!(digest.windows(4).all(|run| !shown.to_lowercase().contains(&hex(run))), "{shown}");
        assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    }
}
