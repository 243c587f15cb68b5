//! The registry in memory: names, lists, restrictions, which row of the issuer's table applies, last uses,
//! generators.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use keysheath::failure::Meaning;
use keysheath::key::{Issuer, Kanal, Katana, KeyFormat, Origin, Profile, StoreId};
use keysheath::registry::{
    Authorize, KeyId, KeyRegistry, Principal, Refusal, RegistryError, RequestedStore, TeamId,
};

const OURS: TeamId = TeamId::new(1);
const THEIRS: TeamId = TeamId::new(2);

fn registry() -> KeyRegistry {
    KeyRegistry::in_memory(Kanal::PROFILE).unwrap()
}

fn store(number: u64) -> StoreId {
    StoreId::new(number).unwrap()
}

fn headers(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::try_from(format!("Bearer {key}")).unwrap());
    headers
}

fn ask(registry: &KeyRegistry, key: &str, wanted: RequestedStore) -> Result<Principal, Refusal> {
    registry.authorize(&headers(key), wanted)
}

fn create(registry: &KeyRegistry, restriction: Option<StoreId>) -> (KeyId, String) {
    let new = match restriction {
        None => registry.create_key(OURS, "name"),
        Some(store) => registry.create_key_for_store(OURS, "name", store),
    };
    let new = new.unwrap();
    (new.record().id(), new.key().expose_secret().to_owned())
}

#[test]
fn a_name_has_1_to_100_printable_characters() {
    let registry = registry();
    let rule = |name: &str| match registry.create_key(OURS, name) {
        Ok(new) => {
            assert_eq!(new.record().name(), name);
            None
        }
        Err(RegistryError::Name { rule, .. }) => Some(rule),
        Err(other) => panic!("{name:?}: {other}"),
    };
    let long = "it has more than 100 characters";
    let control = "it has a control character";
    let space = "it has white space around it";
    for (name, expected) in [
        (String::new(), Some("it is empty")),
        ("a".repeat(100), None),
        ("a".repeat(101), Some(long)),
        ("a".repeat(300), Some(long)),
        ("日".repeat(100), None),
        ("日".repeat(101), Some(long)),
        ("a\nb".to_owned(), Some(control)),
        ("a\tb".to_owned(), Some(control)),
        ("\0".to_owned(), Some(control)),
        ("a\u{7f}".to_owned(), Some(control)),
        ("a\u{85}b".to_owned(), Some(control)),
        (" a".to_owned(), Some(space)),
        ("a ".to_owned(), Some(space)),
        ("a\u{a0}".to_owned(), Some(space)),
        (" ".to_owned(), Some(space)),
        ("production shop, no. 2 'x' \"y\" ; DROP TABLE keys".to_owned(), None),
    ] {
        assert_eq!(rule(&name), expected, "{name:?}");
    }
    assert_eq!(registry.len(), 3, "a refused name creates no key");
}

#[test]
fn a_team_sees_its_own_keys_in_the_order_of_creation() {
    let registry = registry();
    let mut made = Vec::new();
    for number in 0..20 {
        let name = format!("key {}", 20 - number);
        made.push(registry.create_key(OURS, &name).unwrap().record().id());
        registry.create_key(THEIRS, "same name").unwrap();
    }
    // A place in memory is reused, and the new key is still the last of the list.
    registry.delete_key(made.remove(3)).unwrap();
    made.push(registry.create_key(OURS, "key 9").unwrap().record().id());
    let listed: Vec<KeyId> = registry.keys(OURS).iter().map(keysheath::registry::KeyRecord::id).collect();
    assert_eq!(listed, made);
    assert!(registry.keys(OURS).iter().all(|record| record.team() == OURS));
    assert_eq!(registry.keys(THEIRS).len(), 20, "two keys may have one name");
    assert!(registry.keys(TeamId::new(3)).is_empty());
}

#[test]
fn a_deleted_key_is_removed_and_its_number_is_unknown() {
    let registry = registry();
    let (id, key) = create(&registry, None);
    registry.delete_key(id).unwrap();
    let (second, _) = create(&registry, None);
    assert_ne!(second, id);
    assert_eq!(registry.key(id), None);
    assert_eq!(registry.delete_key(id), Err(RegistryError::NoSuchKey));
    assert_eq!(ask(&registry, &key, RequestedStore::NoStore).unwrap_err().meaning(), Meaning::KeyRefused);
    assert_eq!(registry.len(), 1);
}

#[test]
fn a_key_cannot_be_restricted_to_another_teams_store() {
    let registry = registry();
    registry.put_store(store(20), THEIRS).unwrap();
    for number in [20, 99] {
        let refused = registry.create_key_for_store(OURS, "name", store(number));
        assert_eq!(refused.unwrap_err(), RegistryError::NoSuchStore, "{number}");
    }
    assert!(registry.is_empty());
    assert_eq!(registry.pause_store(store(99)), Err(RegistryError::NoSuchStore));
    assert_eq!(registry.resume_store(store(99)), Err(RegistryError::NoSuchStore));
}

#[test]
fn every_combination_of_store_rules_gives_the_documented_row() {
    use Meaning::{StoreForbidden as Forbidden, StoreNotFound as NotFound};

    let registry = registry();
    for (number, team, is_paused) in
        [(10, OURS, false), (11, OURS, true), (20, THEIRS, false), (21, THEIRS, true)]
    {
        registry.put_store(store(number), team).unwrap();
        if is_paused {
            registry.pause_store(store(number)).unwrap();
        }
    }
    let (_, free) = create(&registry, None);
    let (_, to_10) = create(&registry, Some(store(10)));
    let (_, to_11) = create(&registry, Some(store(11)));
    let at = |number| RequestedStore::Store(store(number));
    // The expected row for a key without a restriction, for one restricted to 10, and for one restricted to
    // 11.
    for (what, wanted, expected) in [
        ("no store", RequestedStore::NoStore, [None, Some(Forbidden), Some(Forbidden)]),
        ("no store, any key", RequestedStore::NoStoreForAnyKey, [None, None, None]),
        ("not a store", RequestedStore::NotAStore, [Some(NotFound); 3]),
        ("an unknown store", at(99), [Some(NotFound); 3]),
        ("another team's", at(20), [Some(Forbidden); 3]),
        ("another team's and paused", at(21), [Some(Forbidden); 3]),
        ("its own, or the team's", at(10), [None, None, Some(Forbidden)]),
        ("its own or the team's, and paused", at(11), [Some(NotFound), Some(Forbidden), Some(NotFound)]),
    ] {
        for (key, expected) in [&free, &to_10, &to_11].into_iter().zip(expected) {
            let answer = ask(&registry, key, wanted);
            assert_eq!(answer.err().map(|refusal| refusal.meaning()), expected, "{what}");
            if let Ok(principal) = answer {
                assert_eq!(principal.store(), wanted.store());
                let own = registry.key(principal.key().unwrap()).unwrap().restriction();
                assert_eq!(principal.restriction(), own, "{what}");
            }
            if let (Err(refusal), Some(expected)) = (answer, expected) {
                let (status, body) = match expected {
                    Forbidden => (403, r#"{ "error": "API key does not authorize this store" }"#),
                    _ => (404, r#"{ "error": "Store not found or paused" }"#),
                };
                assert_eq!((refusal.status(), refusal.body().as_str()), (status, body), "{what}");
            }
        }
        // The key is checked before the store.
        let unknown = ask(&registry, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", wanted).unwrap_err();
        assert_eq!((unknown.meaning(), unknown.status()), (Meaning::KeyRefused, 401), "{what}");
        let missing = registry.authorize(&HeaderMap::new(), wanted).unwrap_err();
        assert_eq!((missing.meaning(), missing.status()), (Meaning::KeyMissing, 401), "{what}");
    }
}

#[test]
fn a_pause_outlives_a_move_and_a_moved_store_changes_rights() {
    let registry = registry();
    registry.put_store(store(10), OURS).unwrap();
    let (_, key) = create(&registry, Some(store(10)));
    let meaning =
        || ask(&registry, &key, RequestedStore::Store(store(10))).err().map(|refusal| refusal.meaning());
    registry.pause_store(store(10)).unwrap();
    assert_eq!(meaning(), Some(Meaning::StoreNotFound));
    registry.put_store(store(10), OURS).unwrap();
    assert_eq!(meaning(), Some(Meaning::StoreNotFound), "the pause is kept");
    registry.resume_store(store(10)).unwrap();
    assert_eq!(meaning(), None);
    registry.put_store(store(10), THEIRS).unwrap();
    assert_eq!(meaning(), Some(Meaning::StoreForbidden));
}

#[test]
fn a_last_use_is_noted_to_the_second_and_never_goes_back() {
    let now = Arc::new(AtomicU64::new(1_800_000_000));
    let clock = Arc::clone(&now);
    let registry = registry().with_clock(move || {
        SystemTime::UNIX_EPOCH + Duration::from_millis(clock.load(Ordering::SeqCst) * 1000 + 999)
    });
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    registry.put_store(store(20), THEIRS).unwrap();
    let (id, key) = create(&registry, None);
    let record = || registry.key(id).unwrap();
    assert_eq!((record().created(), record().last_used()), (at(1_800_000_000), None));

    now.store(1_800_000_005, Ordering::SeqCst);
    ask(&registry, &key, RequestedStore::Store(store(20))).unwrap_err();
    assert_eq!(record().last_used(), None, "a request that is refused is no use");
    ask(&registry, &key, RequestedStore::NoStore).unwrap();
    assert_eq!(record().last_used(), Some(at(1_800_000_005)));
    now.store(1_700_000_000, Ordering::SeqCst);
    ask(&registry, &key, RequestedStore::NoStore).unwrap();
    assert_eq!(record().last_used(), Some(at(1_800_000_005)));
    now.store(1_800_000_006, Ordering::SeqCst);
    ask(&registry, &key, RequestedStore::NoStore).unwrap();
    assert_eq!(registry.keys(OURS)[0].last_used(), Some(at(1_800_000_006)));
    assert_eq!(record().created(), at(1_800_000_000));
}

/// Xorshift, the same in every run.
fn same_each_run() -> impl FnMut(&mut [u8]) -> io::Result<()> + Send {
    let mut state = 42_u32;
    move |bytes| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *byte = state.to_le_bytes()[1];
        }
        Ok(())
    }
}

#[test]
fn with_a_fixed_generator_the_keys_are_the_same_in_every_run() {
    let keys = || -> Vec<String> {
        let registry = registry().with_random(same_each_run());
        (0..3).map(|_| create(&registry, None).1).collect()
    };
    let first = keys();
    assert_eq!(first, keys());
    assert_eq!(first[0], "F0vDLZBy72JWrmAVeFQ8Wz0h", "and the same on every machine");
    assert!(first.iter().all(|key| key.len() == 24 && key.bytes().all(|byte| byte.is_ascii_alphanumeric())));
}

#[test]
fn a_broken_generator_creates_no_key_and_does_not_hang() {
    let same = registry().with_random(|bytes| {
        bytes.fill(7);
        Ok(())
    });
    let (_, key) = create(&same, None);
    for _ in 0..3 {
        let error = same.create_key(OURS, "again").unwrap_err();
        assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::AlreadyExists));
    }
    assert_eq!((same.len(), ask(&same, &key, RequestedStore::NoStore).is_ok()), (1, true));

    let useless = registry().with_random(|bytes| {
        bytes.fill(0xff);
        Ok(())
    });
    let error = useless.create_key(OURS, "name").unwrap_err();
    assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::InvalidData));

    let broken = registry().with_random(|_| Err(io::ErrorKind::Unsupported.into()));
    let error = broken.create_key(OURS, "name").unwrap_err();
    assert_eq!(error, RegistryError::NoRandomness(io::ErrorKind::Unsupported));
    assert!(useless.is_empty() && broken.is_empty());
}

#[test]
fn an_issuer_whose_keys_could_be_guessed_gets_no_registry() {
    const WEAK: &Profile =
        &Profile::new("weak", "WEAK_KEY", Origin::https("weak.example"), KeyFormat::exactly(13), 77);
    const ENOUGH: &Profile =
        &Profile::new("enough", "ENOUGH_KEY", Origin::https("enough.example"), KeyFormat::exactly(14), 83);
    let error = KeyRegistry::in_memory(WEAK).unwrap_err();
    assert!(matches!(error, RegistryError::Weak { length: 13, .. }), "{error}");
    let registry = KeyRegistry::in_memory(ENOUGH).unwrap();
    let new = registry.create_key(OURS, "name").unwrap();
    assert_eq!(new.key().expose_secret().len(), 14);
    let katana = KeyRegistry::in_memory(Katana::PROFILE).unwrap();
    let key = katana.create_key(OURS, "name").unwrap().into_key().try_into_typed::<Katana>().unwrap();
    assert!(katana.authorize(&headers(key.expose_secret()), RequestedStore::NoStore).is_ok());
}

#[test]
fn a_browser_is_reported_once_for_each_accepted_request_only() {
    let (reports, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
    let (count, seen) = (Arc::clone(&reports), Arc::clone(&last));
    let registry = registry().with_browser_observer(move |principal| {
        count.fetch_add(1, Ordering::SeqCst);
        *seen.lock().unwrap() = principal.key();
    });
    let (id, key) = create(&registry, None);
    let with = |key: &str, name: &'static str| {
        let mut headers = headers(key);
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("https://shop.example"));
        registry.authorize(&headers, RequestedStore::NoStore)
    };
    assert!(!ask(&registry, &key, RequestedStore::NoStore).unwrap().is_from_browser());
    assert_eq!(reports.load(Ordering::SeqCst), 0);
    assert!(with(&key, "origin").unwrap().is_from_browser());
    assert!(with(&key, "sec-fetch-site").unwrap().is_from_browser());
    // Node's `fetch` sends it, from servers.
    assert!(!with(&key, "sec-fetch-mode").unwrap().is_from_browser());
    with("8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "origin").unwrap_err();
    assert_eq!((reports.load(Ordering::SeqCst), *last.lock().unwrap()), (2, Some(id)));
}

#[test]
fn a_keys_number_is_parsed_as_it_is_printed() {
    let registry = registry();
    let (id, _) = create(&registry, None);
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["", "1", "000000000", "0000000g", "+0000000", "0x000000", " 0000000", "0000000100000000"] {
        assert_eq!(text.parse::<KeyId>(), Err(RegistryError::NotAKeyId), "{text:?}");
    }
}
