//! A replica that is behind: what it shows of the key set is old, and a deletion cannot be taken back.

use std::sync::atomic::AtomicBool;

use keysheath::rotation::{NextStep, RotationError};
use keysheath::source::{CallError, Problem, Provenance};
use keysheath::store::{Document, DocumentContent, DocumentError, Version};

use super::*;
use crate::support::stores::pass_on;

/// A store, and what a replica of it has heard of. Writes go to the store itself.
#[derive(Clone, Default)]
struct Replica {
    store: MemoryStore,
    heard: Arc<Mutex<Option<Document>>>,
    /// Whether it hears of what is there once a write has shown that it is behind.
    catches_up: Arc<AtomicBool>,
    is_cut_off: Arc<AtomicBool>,
}

impl Replica {
    fn freeze(&self) {
        *self.heard.lock().unwrap() = self.store.read().unwrap();
    }
}

impl DocumentStore for Replica {
    pass_on!(store: limit);

    fn provenance(&self) -> Provenance {
        Provenance::other("replica", "store")
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        let heard = self.heard.lock().unwrap();
        match &*heard {
            Some(heard) => Ok(Some(Document::new(heard.content().clone(), *heard.version()))),
            None => self.store.read(),
        }
    }

    fn is_current(&self, document: &Document) -> Result<bool, DocumentError> {
        match self.write(document.content(), Some(document.version())) {
            Ok(_) => Ok(true),
            Err(DocumentError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        if self.is_cut_off.load(Ordering::SeqCst) {
            return Err(DocumentError::Unavailable(Problem::Call(CallError::Deadline {
                after: Duration::ZERO,
            })));
        }
        let written = self.store.write(content, unchanged);
        if self.catches_up.load(Ordering::SeqCst) {
            *self.heard.lock().unwrap() = None;
        }
        written
    }
}

/// Key 2 is active in place of key 1, a replica knows it, and nothing is left to wait for.
fn promoted() -> (Replica, Rotation<Kanal>) {
    let replica = Replica::default();
    let policy = RotationPolicy::new()
        .with_grace(Duration::ZERO)
        .with_settle(Duration::ZERO)
        .with_activation(Duration::ZERO);
    let open = || Rotation::<Kanal>::open(replica.clone(), policy.clone()).unwrap();
    let rotation = open();
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    rotation.promote_unverified_now().unwrap();
    assert!(matches!(rotation.next_step().unwrap(), NextStep::Delete { .. }));
    replica.freeze();
    // It begins at the replica that is behind, so it has seen nothing newer.
    (replica.clone(), open())
}

/// Somebody else goes back to key 1.
fn roll_back(replica: &Replica) {
    let policy = RotationPolicy::new();
    let other = Rotation::<Kanal>::open(replica.store.clone(), policy).unwrap();
    other.roll_back_now().unwrap();
    assert_eq!(slots(&replica.store), [Some(1), Some(2), None]);
    assert_eq!(slots(replica), [Some(2), None, Some(1)], "the replica is behind");
}

#[test]
fn a_reactivated_key_is_kept_whatever_a_replica_still_shows() {
    let (replica, rotation) = promoted();
    roll_back(&replica);
    replica.catches_up.store(true, Ordering::SeqCst);
    let step = rotation.next_step().unwrap();
    assert!(matches!(&step, NextStep::VerifyByHand { key, .. } if key.fingerprint() == name(2)), "{step}");
    assert_eq!(slots(&replica.store), [Some(1), Some(2), None], "nothing was changed");
}

#[test]
fn no_key_is_retired_while_a_replica_lags_or_is_cut_off() {
    let (replica, rotation) = promoted();
    roll_back(&replica);
    let error = rotation.next_step().unwrap_err();
    assert!(matches!(error, RotationError::Contended { .. }), "{error}");
    replica.is_cut_off.store(true, Ordering::SeqCst);
    let error = rotation.next_step().unwrap_err();
    assert!(
        matches!(error, RotationError::Document { problem: DocumentError::Unavailable(_), .. }),
        "{error}"
    );
    assert_eq!(slots(&replica.store), [Some(1), Some(2), None], "nothing was changed");
}

#[test]
fn a_key_set_that_is_confirmed_is_as_it_was() {
    let (replica, rotation) = promoted();
    replica.catches_up.store(true, Ordering::SeqCst);
    let before = replica.store.read().unwrap().unwrap();
    assert!(matches!(rotation.next_step().unwrap(), NextStep::Delete { .. }));
    let after = replica.store.read().unwrap().unwrap();
    assert_eq!(before.content().expose_secret(), after.content().expose_secret());
    assert!(matches!(rotation.next_step().unwrap(), NextStep::Delete { .. }));
    rotation.retire_unprobed_now().unwrap();
    assert_eq!(slots(&replica.store), [Some(2), None, None]);
}
