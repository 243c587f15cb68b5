//! Key sets that others change: in this process, in another one, and in every way in which they should not.

use crate::support::keys::EMPTY;
use crate::support::keys::Keys;
use std::fs;

use keysheath::FileProblem;
use keysheath::handle::{KeyHandle, NoActiveKey, Reload};
use keysheath::key::{ApiKey, Kanal, Katana};
use keysheath::keyset::KeySetError;
use keysheath::refresh::{RefreshError, RefreshEvent, Refresher, ReloadProblem};
use keysheath::rotation::{CheckedBy, Rotation, RotationPolicy};
use keysheath::source::Provenance;
use keysheath::store::{
    Document, DocumentContent, DocumentError, DocumentStore, FileStore, MemoryStore, Version,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::refreshing::{
    Events, Gate, PATIENCE, SECOND, THIRD, activate, eventually, has, key_set, only_asked, parsed, persist,
    quick,
};
use crate::support::stores::pass_on;
use crate::support::{Child, Folder, KEY, assert_prints_nothing_of, set_mode};

/// A store that gives what a test put there, and has no memory of its own.
#[derive(Clone, Default)]
struct Loose(Arc<Mutex<Option<Document>>>);

impl Loose {
    fn put(&self, content: DocumentContent, version: Version) {
        *self.0.lock().unwrap() = Some(Document::new(content, version));
    }
}

impl DocumentStore for Loose {
    fn provenance(&self) -> Provenance {
        Provenance::other("loose store", "kanal")
    }

    fn limit(&self) -> usize {
        1 << 20
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn write(&self, _: &DocumentContent, _: Option<&Version>) -> Result<Version, DocumentError> {
        Err(DocumentError::File(FileProblem::ReadOnly))
    }
}

fn version(sequence: u64) -> Version {
    Version::new(sequence, 0)
}

#[test]
fn a_promotion_is_seen_through_another_store_instance() {
    let folder = Folder::new();
    let path = folder.at("keys");
    let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), quick()).unwrap();
    let handle = refresher.handle();
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::NoKey);
    let (store, keys) = (FileStore::new(&path), Keys::new());
    // A key set without an active key is none either.
    persist(&store, &EMPTY.as_bytes().to_vec().into());
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::NoKey);
    for (number, key) in [KEY, SECOND, THIRD].into_iter().enumerate() {
        activate(&keys, key);
        persist(&store, &keys.to_document());
        eventually("the key of the key set is active", || has(&handle, key));
        assert_eq!(handle.load().unwrap().generation().to_string(), (number + 1).to_string());
    }
    assert!(handle.load().unwrap().previous().unwrap().key().matches(SECOND.as_bytes()));
    keys.retire_previous();
    persist(&store, &keys.to_document());
    eventually("the retired key is gone", || handle.load().unwrap().previous().is_none());
}

#[test]
fn a_promotion_by_another_process_is_seen() {
    const NAME: &str = "stores::a_promotion_by_another_process_is_seen";
    let child = Child::new(NAME);
    if child.is_here() {
        let store = FileStore::new(std::env::var_os("DOCUMENT").unwrap());
        let rotation = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap();
        let id = rotation.stage(&parsed(SECOND)).unwrap().rotation();
        rotation.promote(CheckedBy::Person(id)).unwrap();
        return;
    }
    let folder = Folder::new();
    let path = folder.at("keys");
    persist(&FileStore::new(&path), &key_set(&[KEY]).to_document());
    let events = Events::default();
    let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), events.record(quick())).unwrap();
    let mut subscription = refresher.handle().subscribe();
    assert!(has(&refresher.handle(), KEY));
    let ended = child.var("DOCUMENT", &path).spawn().wait_with_output().unwrap();
    assert!(ended.status.success());
    let now = subscription.wait(PATIENCE).expect("the promotion is seen").unwrap();
    assert!(now.current().matches(SECOND.as_bytes()));
    assert_eq!(now.generation().to_string(), "2");
    assert_eq!(events.failures(), 0, "{:?}", events.all());
}

#[test]
fn a_compromise_closes_the_handle_and_is_told() {
    let (store, keys) = (MemoryStore::new(), key_set(&[KEY]));
    persist(&store, &keys.to_document());
    let events = Events::default();
    let refresher = Refresher::<Kanal>::from_store(store.clone(), events.record(only_asked())).unwrap();
    keys.compromise(parsed(KEY).fingerprint().unwrap()).unwrap();
    persist(&store, &keys.to_document());
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert_eq!(refresher.handle().load().unwrap_err(), NoActiveKey::Compromised);
    let without_key = |event: &RefreshEvent| {
        matches!(event, RefreshEvent::NoActiveKey { reason: NoActiveKey::Compromised, .. })
    };
    eventually("it is reported", || events.count(without_key) == 1);
    activate(&keys, SECOND);
    persist(&store, &keys.to_document());
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert!(has(&refresher.handle(), SECOND));
}

#[test]
fn an_unchanged_document_is_not_published_again() {
    let (store, keys) = (Loose::default(), key_set(&[KEY, SECOND]));
    store.put(keys.to_document(), version(1));
    let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
    let end_of_grace = || refresher.handle().load().unwrap().previous().map(|previous| previous.until());
    let first = end_of_grace();
    assert!(first.is_some());
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    assert_eq!(end_of_grace(), first, "it was published again");
    // Not even looked at: what is there under the same version is no key set.
    store.put(DocumentContent::from(b"garbage".to_vec()), version(1));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    let retired = key_set(&[KEY, SECOND]);
    retired.retire_previous();
    store.put(retired.to_document(), version(2));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    assert_eq!(end_of_grace(), None, "another version is published");
}

#[test]
fn another_key_set_is_not_taken_however_new_it_is() {
    let store = Loose::default();
    store.put(key_set(&[KEY]).to_document(), version(1));
    let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
    let handle = refresher.handle();
    // Another account's, or one that was begun again and has forgotten what has leaked.
    for (sequence, keys) in [(2, key_set(&[SECOND, THIRD])), (3, key_set(&[SECOND, KEY]))] {
        store.put(keys.to_document(), version(sequence));
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        assert_eq!(refresher.status().health().problem().unwrap().problem(), &ReloadProblem::OtherKeySet);
        assert!(has(&handle, KEY));
        assert_eq!(handle.load().unwrap().generation().to_string(), "1");
    }
}

type BadDocument = (&'static str, DocumentContent, fn(&ReloadProblem) -> bool);

/// What each bad document is, and what is said of it.
fn bad_documents() -> Vec<BadDocument> {
    let whole = key_set(&[KEY, SECOND, THIRD]).to_document();
    let text = String::from_utf8(whole.expose_secret().to_vec()).unwrap();
    let is_corrupt =
        |problem: &ReloadProblem| matches!(problem, ReloadProblem::KeySet(KeySetError::Corrupt { .. }));
    let katana = Keys::<Katana>::of_issuer();
    let key = ApiKey::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
    katana.adopt(&key).unwrap();
    vec![
        ("garbage", DocumentContent::from(THIRD.as_bytes().to_vec()), is_corrupt),
        ("empty", DocumentContent::from(Vec::new()), is_corrupt),
        ("truncated", DocumentContent::from(text.as_bytes()[..text.len() / 2].to_vec()), is_corrupt),
        (
            "edited",
            DocumentContent::from(text.replacen("\"rotation\": 3", "\"rotation\": 1", 1).into_bytes()),
            { is_corrupt },
        ),
        (
            "newer",
            DocumentContent::from(text.replace("\"form\": 1", "\"form\": 2").into_bytes()),
            |problem| matches!(problem, ReloadProblem::KeySet(KeySetError::Newer { .. })),
        ),
        ("another issuer's", katana.to_document(), |problem| {
            *problem == ReloadProblem::KeySet(KeySetError::OtherIssuer)
        }),
    ]
}

#[test]
fn a_bad_document_fails_the_start_and_later_a_reload() {
    for (name, content, expected) in bad_documents() {
        let store = MemoryStore::new();
        persist(&store, &content);
        let error = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap_err();
        let RefreshError::Place(error) = error else { panic!("{name}: {error}") };
        assert!(expected(error.problem()), "{name}: {error}");

        persist(&store, &key_set(&[KEY, SECOND]).to_document());
        let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
        persist(&store, &content);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed), "{name}");
        assert!(has(&refresher.handle(), SECOND), "{name}");
        let previous = refresher.handle().load().unwrap();
        assert!(previous.previous().unwrap().key().matches(KEY.as_bytes()), "{name}: the last good keys");
        let error = refresher.status().health().problem().cloned().unwrap();
        assert!(expected(error.problem()), "{name}: {error}");
        for key in [KEY, SECOND, THIRD] {
            assert_prints_nothing_of(&error, key);
        }
        persist(&store, &key_set(&[KEY, SECOND, THIRD]).to_document());
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer), "{name}");
        assert_eq!(refresher.status().health().consecutive_failures(), 0, "{name}");
    }
}

#[test]
fn a_lower_generation_is_a_failed_reload_and_is_not_published() {
    let store = Loose::default();
    store.put(key_set(&[KEY, SECOND]).to_document(), version(2));
    let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
    let fails = |what: &str, expected: fn(&ReloadProblem) -> bool| {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed), "{what}");
        let problem = refresher.status().health().problem().unwrap().problem().clone();
        assert!(expected(&problem), "{what}: {problem}");
        assert!(has(&refresher.handle(), SECOND), "{what}");
        assert_eq!(refresher.handle().load().unwrap().generation().to_string(), "2", "{what}");
    };
    let went_back = |problem: &ReloadProblem| matches!(problem, ReloadProblem::WentBack { .. });
    store.put(key_set(&[KEY]).to_document(), version(1));
    fails("an older copy", went_back);
    store.put(key_set(&[THIRD]).to_document(), version(9));
    fails("begun again", went_back);
    store.put(EMPTY.as_bytes().to_vec().into(), version(10));
    fails("begun again, without a key", went_back);
    store.put(key_set(&[KEY, THIRD]).to_document(), version(11));
    fails("begun again, and as far", |problem| matches!(problem, ReloadProblem::OtherKey { .. }));
    *store.0.lock().unwrap() = None;
    fails("deleted", |problem| *problem == ReloadProblem::Gone);
    store.put(key_set(&[KEY, SECOND, THIRD]).to_document(), version(12));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
}

#[test]
fn a_document_file_that_is_harmed_keeps_the_last_good_key() {
    let (folder, name) = (Folder::new(), "keys");
    let path = folder.at(name);
    let writer = FileStore::new(&path);
    persist(&writer, &key_set(&[KEY]).to_document());
    let good = fs::read(&path).unwrap();
    let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), only_asked()).unwrap();
    let fails = |what: &str, expected: fn(&DocumentError) -> bool| {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed), "{what}");
        assert!(has(&refresher.handle(), KEY), "{what}");
        let error = refresher.status().health().problem().cloned().unwrap();
        let ReloadProblem::Document(problem) = error.problem() else { panic!("{what}: {error}") };
        assert!(expected(problem), "{what}: {error}");
        assert!(error.to_string().starts_with(&format!("file {}: ", path.display())), "{error}");
    };
    let is_corrupt = |error: &DocumentError| *error == DocumentError::Corrupt;
    folder.write(name, &good[..good.len() / 2]);
    fails("truncated", is_corrupt);
    folder.write(name, "");
    fails("empty", is_corrupt);
    folder.write(name, &good);
    set_mode(&path, 0o644);
    fails("open to others", |error| *error == DocumentError::File(FileProblem::NotPrivate));
    fs::remove_file(&path).unwrap();
    fails("deleted", |error| *error == DocumentError::Stale);
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    fails("a link", |error| *error == DocumentError::File(FileProblem::NotPrivate));
    fs::remove_file(&path).unwrap();
    // Begun again, with other keys.
    persist(&FileStore::new(&path), &key_set(&[SECOND]).to_document());
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    assert!(has(&refresher.handle(), KEY), "begun again");
    folder.write(name, &good);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
}

#[test]
fn a_rotation_and_its_refreshers_share_their_handles() {
    let store = Loose::default();
    store.put(key_set(&[KEY]).to_document(), version(1));
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    let one = rotation.start_refresher(only_asked()).unwrap();
    let two = rotation.start_refresher(only_asked()).unwrap();
    store.put(key_set(&[KEY, SECOND]).to_document(), version(2));
    assert_eq!(one.refresh_now(PATIENCE), Some(Reload::Newer));
    assert!(has(&two.handle(), SECOND) && has(&rotation.handle(), SECOND));
    assert!(matches!(two.refresh_now(PATIENCE), Some(Reload::Newer | Reload::Unchanged)));
    assert_eq!(two.status().health().consecutive_failures(), 0);
    // A document that is older than the active key.
    store.put(key_set(&[KEY]).to_document(), version(3));
    let error = rotation.start_refresher(only_asked()).unwrap_err();
    assert!(matches!(error, RefreshError::Place(_)), "{error}");
}

/// A store whose next answer is right when it is read, and comes late.
#[derive(Clone, Default)]
struct Late {
    store: Loose,
    delays_next: Arc<AtomicBool>,
    gate: Gate,
}

impl DocumentStore for Late {
    pass_on!(store: provenance, limit, write);

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        let there = self.store.read();
        if self.delays_next.swap(false, Ordering::SeqCst) {
            self.gate.pass();
        }
        there
    }
}

/// Two refreshers of one rotation, and their handle.
fn two_refreshers(store: &Late) -> (KeyHandle<Kanal>, Refresher<Kanal>, Refresher<Kanal>) {
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    let start = || rotation.start_refresher(only_asked().with_deadline(PATIENCE)).unwrap();
    (rotation.handle(), start(), start())
}

#[test]
fn an_overtaken_read_is_neither_published_nor_a_failure() {
    let late = Late::default();
    let store = late.store.clone();
    store.put(key_set(&[KEY]).to_document(), version(1));
    let (handle, fast, slow) = two_refreshers(&late);
    // The same keys, with one that is staged.
    let staged = key_set(&[KEY]);
    staged.stage(&parsed(SECOND)).unwrap();
    store.put(staged.to_document(), version(2));
    std::thread::scope(|scope| {
        late.delays_next.store(true, Ordering::SeqCst);
        let reload = scope.spawn(|| slow.refresh_now(PATIENCE));
        eventually("it has read", || !late.delays_next.load(Ordering::SeqCst));
        store.put(key_set(&[KEY, SECOND]).to_document(), version(3));
        assert_eq!(fast.refresh_now(PATIENCE), Some(Reload::Newer));
        late.gate.open();
        assert_eq!(reload.join().unwrap(), Some(Reload::Newer), "there is a newer one, if not by this");
    });
    assert_eq!(slow.status().health().consecutive_failures(), 0, "{}", slow.status());
    assert!(has(&handle, SECOND));
    assert_eq!(slow.refresh_now(PATIENCE), Some(Reload::Unchanged));
}

#[test]
fn a_reading_that_is_late_does_not_bring_a_compromised_key_back() {
    let late = Late::default();
    let store = late.store.clone();
    let keys = key_set(&[KEY, SECOND]);
    store.put(keys.to_document(), version(1));
    let (handle, fast, slow) = two_refreshers(&late);
    assert!(handle.load().unwrap().previous().unwrap().key().matches(KEY.as_bytes()));
    // Another version, with the same keys in their places.
    store.put(keys.to_document(), version(2));
    std::thread::scope(|scope| {
        late.delays_next.store(true, Ordering::SeqCst);
        let reload = scope.spawn(|| slow.refresh_now(PATIENCE));
        eventually("it has read", || !late.delays_next.load(Ordering::SeqCst));
        keys.compromise(parsed(KEY).fingerprint().unwrap()).unwrap();
        store.put(keys.to_document(), version(3));
        assert_eq!(fast.refresh_now(PATIENCE), Some(Reload::Unchanged));
        assert!(handle.load().unwrap().previous().is_none());
        late.gate.open();
        assert_eq!(reload.join().unwrap(), Some(Reload::Unchanged));
    });
    assert!(handle.load().unwrap().previous().is_none(), "the compromised key is sent again");
}

#[test]
fn a_refresher_that_ends_leaves_its_attempt_to_another() {
    let late = Late::default();
    let store = late.store.clone();
    let keys = key_set(&[KEY]);
    store.put(keys.to_document(), version(1));
    let rotation = Rotation::<Kanal>::open(late.clone(), RotationPolicy::new()).unwrap();
    let start = || rotation.start_refresher(only_asked().with_deadline(PATIENCE)).unwrap();
    let (handle, slow) = (rotation.handle(), start());
    store.put(keys.to_document(), version(2));
    late.delays_next.store(true, Ordering::SeqCst);
    let before = handle.load().unwrap().generation();
    let caller = std::thread::spawn(move || handle.wait_newer_than(before, PATIENCE));
    eventually("it has read", || !late.delays_next.load(Ordering::SeqCst));
    let _fast = start();
    store.put(key_set(&[KEY, SECOND]).to_document(), version(3));
    assert!(!slow.close(Duration::ZERO), "it still reads");
    assert_eq!(caller.join().unwrap(), Some(Reload::Newer));
    late.gate.open();
}

#[test]
fn many_promotions_by_others_are_never_seen_as_going_back() {
    let folder = Folder::new();
    let path = folder.at("keys");
    let keys = key_set(&[KEY]);
    persist(&FileStore::new(&path), &keys.to_document());
    let events = Events::default();
    let refresher = Refresher::<Kanal>::from_store(FileStore::new(&path), events.record(quick())).unwrap();
    let handle = refresher.handle();
    let store = FileStore::new(&path);
    for round in 0..40_u32 {
        let key = parsed(&format!("{round:02}{}", &THIRD[2..]));
        let text = key.expose_secret().to_owned();
        keys.retire_previous();
        let id = keys.stage(&key).unwrap().rotation();
        persist(&store, &keys.to_document());
        keys.promote_unverified(id);
        persist(&store, &keys.to_document());
        if round % 8 == 0 {
            eventually("it is active", || has(&handle, &text));
        }
    }
    eventually("the last one is active", || handle.load().unwrap().generation().to_string() == "41");
    assert_eq!(events.failures(), 0, "{:?}", events.all());
}
