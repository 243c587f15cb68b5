//! P10: within a process, a deleted key is refused once `delete_key` has returned.
//!
//! Several threads send a key repeatedly while another deletes it. Each notes before its call whether the
//! deletion had returned; a later call that is accepted breaks the promise. An earlier call may be accepted
//! or refused.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use http::{HeaderMap, HeaderValue};
use keysheath::failure::Meaning;
use keysheath::key::{Issuer, Kanal};
use keysheath::registry::{Authorize, KeyRegistry, RequestedStore, TeamId};

const THREADS: usize = 4;

/// How many calls of each thread must begin after the deletion.
const AFTERWARDS: usize = 20;

fn delete_under_load(registry: &KeyRegistry, rounds: usize) {
    let (mut accepted_before, mut refused_afterwards) = (0, 0);
    for round in 0..rounds {
        // Other keys that stay, so that places in the table are reused.
        let kept = registry.create_key(TeamId::new(1), "kept").unwrap();
        let new = registry.create_key(TeamId::new(1), "deleted").unwrap();
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {}", new.key().expose_secret());
        headers.insert("authorization", HeaderValue::try_from(value).unwrap());

        let (is_deleted, started) = (AtomicBool::new(false), AtomicUsize::new(0));
        let counts: Vec<(usize, usize)> = thread::scope(|scope| {
            let ask = || {
                let (mut before, mut afterwards) = (0, 0);
                while afterwards < AFTERWARDS {
                    let was_deleted = is_deleted.load(Ordering::SeqCst);
                    let answer = registry.authorize(&headers, RequestedStore::NoStore);
                    match answer {
                        Ok(_) if was_deleted => panic!("round {round}: a deleted key was accepted"),
                        Ok(_) => before += 1,
                        Err(refusal) => {
                            assert_eq!(refusal.meaning(), Meaning::KeyRefused);
                            afterwards += usize::from(was_deleted);
                        }
                    }
                    if before == 1 {
                        started.fetch_add(1, Ordering::SeqCst);
                        before += 1;
                    }
                }
                (before, afterwards)
            };
            let asking: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            while started.load(Ordering::SeqCst) < THREADS {
                thread::yield_now();
            }
            registry.delete_key(new.record().id()).unwrap();
            is_deleted.store(true, Ordering::SeqCst);
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        accepted_before += counts.iter().map(|count| count.0).sum::<usize>();
        refused_afterwards += counts.iter().map(|count| count.1).sum::<usize>();
        assert!(registry.key(kept.record().id()).is_some());
        if round % 2 == 0 {
            registry.delete_key(kept.record().id()).unwrap();
        }
    }
    assert!(accepted_before >= rounds * THREADS, "the key was in use when it was deleted");
    assert_eq!(refused_afterwards, rounds * THREADS * AFTERWARDS);
}

#[test]
fn a_key_in_use_is_refused_once_its_deletion_returns() {
    delete_under_load(&KeyRegistry::in_memory(Kanal::PROFILE).unwrap(), 300);
}

#[cfg(feature = "sqlite")]
#[test]
fn a_key_in_sqlite_is_refused_once_its_deletion_returns() {
    use keysheath::registry::Pepper;

    let folder = tempfile::tempdir().unwrap();
    let (pepper, path) = (Pepper::random().unwrap(), folder.path().join("keys.db"));
    delete_under_load(&KeyRegistry::create(Kanal::PROFILE, pepper, path).unwrap(), 100);
}

#[cfg(feature = "sqlite")]
#[test]
fn a_deleted_key_is_refused_while_it_moves_to_a_new_pepper() {
    use keysheath::registry::Pepper;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let pepper = |text: &str| {
        let path = folder.path().join("pepper");
        std::fs::write(&path, format!("{text}-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ")).unwrap();
        Pepper::from_reference(&format!("file:{}", path.display()).parse().unwrap()).unwrap()
    };
    let old = KeyRegistry::create(Kanal::PROFILE, pepper("a"), &path).unwrap();
    let keys: Vec<_> = (0..50).map(|_| old.create_key(TeamId::new(1), "name").unwrap()).collect();
    drop(old);
    let both = pepper("b").with_older(pepper("a"));
    let registry = KeyRegistry::open(Kanal::PROFILE, both, &path).unwrap();
    for new in keys {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {}", new.key().expose_secret());
        headers.insert("authorization", HeaderValue::try_from(value).unwrap());
        thread::scope(|scope| {
            // The first use moves the key to the new pepper while it is being deleted.
            scope.spawn(|| registry.authorize(&headers, RequestedStore::NoStore).is_ok());
            registry.delete_key(new.record().id()).unwrap();
            assert!(registry.authorize(&headers, RequestedStore::NoStore).is_err());
        });
        assert!(registry.authorize(&headers, RequestedStore::NoStore).is_err());
    }
    assert!(registry.is_empty());
}
