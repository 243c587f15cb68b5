//! A step is about what was shown; who acts and what they note; handles that do not fit.

use keysheath::handle::Reload;
use keysheath::key::Katana;
use keysheath::keyset::KeySetError;
use keysheath::rotation::{CheckedBy, KeyDetails, Retirement, RotationError};
use keysheath::source::Provenance;

use super::*;
use crate::support::keys::Keys;

#[test]
fn a_retirement_is_not_of_a_key_that_was_not_asked_about() {
    let setup = promoted();
    let seen = setup.rotation.status().unwrap().keys().current().unwrap().rotation();
    let (ben, _) = setup.another();
    setup.clock.advance(3_600);
    setup.answers.refuse(1);
    assert!(matches!(ben.retire(seen), Ok(Retirement::Retired { .. })));
    ben.stage(&key(3)).unwrap();
    ben.promote_unverified_now().unwrap();
    let not_current = Err(RotationError::Refused(KeySetError::NotCurrent));
    assert_eq!(setup.rotation.retire(seen), not_current.clone());
    assert_eq!(setup.rotation.retire(CheckedBy::Person(seen)).map(drop), not_current.clone().map(|_| ()));
    assert_eq!(setup.rotation.roll_back(seen).map(drop), not_current.map(|_| ()));
    assert_eq!(setup.slots(), [Some(3), None, Some(2)]);
}

#[test]
fn a_key_that_changes_while_it_is_asked_about_is_not_marked() {
    /// Asks, and meanwhile another process gives the rotation up and begins one.
    struct Meddling(Answers, Mutex<Option<Rotation<Kanal>>>);
    impl Probe for Meddling {
        fn probe(&self, key: &RawKey) -> Report {
            if let Some(ben) = self.1.lock().unwrap().take() {
                ben.abort_now().unwrap();
                ben.stage(&super::key(3)).unwrap();
            }
            self.0.probe(key)
        }
    }
    let setup = staged();
    setup.answers.accept(2);
    setup.answers.accept(3);
    let ben = setup.another().0;
    let (anna, _) = setup.another();
    let anna = anna.with_probe(Meddling(setup.answers.clone(), Mutex::new(Some(ben))));
    assert!(matches!(anna.verify_now(), Err(RotationError::Refused(KeySetError::NotPending { .. }))));
    let status = anna.status().unwrap();
    assert_eq!(status.keys().pending().unwrap().verified(), None);
    assert_eq!(setup.slots(), [Some(1), Some(3), None]);
}

#[test]
fn a_key_that_another_retires_meanwhile_is_retired() {
    /// Asks, and meanwhile another process retires the previous key.
    struct Ahead(Answers, Mutex<Option<Rotation<Kanal>>>);
    impl Probe for Ahead {
        fn probe(&self, key: &RawKey) -> Report {
            if let Some(ben) = self.1.lock().unwrap().take() {
                ben.retire_unprobed_now().unwrap();
            }
            self.0.probe(key)
        }
    }
    let setup = promoted();
    setup.clock.advance(3_600);
    setup.answers.refuse(1);
    let (ben, anna) = (setup.another().0, setup.another().0);
    let anna = anna.with_probe(Ahead(setup.answers.clone(), Mutex::new(Some(ben))));
    let Retirement::Retired { transition, .. } = anna.retire_now().unwrap() else { panic!("it is deleted") };
    assert_eq!(transition.state(), Some(KeyState::Retired));
    assert_eq!(transition.event().fingerprint, Some(name(1)));
    assert_eq!(setup.slots(), [Some(2), None, None]);
}

/// Puts another key set in the place of the one that is there while it is asked, with the same numbers and
/// other keys.
struct Replacing {
    answers: Answers,
    store: MemoryStore,
    is_promoted: bool,
}

impl Probe for Replacing {
    fn probe(&self, key: &RawKey) -> Report {
        let keys = Keys::new();
        keys.adopt(&super::key(1)).unwrap();
        let id = keys.stage(&super::key(3)).unwrap().rotation();
        if self.is_promoted {
            keys.promote_unverified(id);
        }
        let there = self.store.read().unwrap().unwrap();
        self.store.write(&keys.to_document(), Some(there.version())).unwrap();
        self.answers.probe(key)
    }
}

#[test]
fn an_answer_about_one_key_is_not_used_for_another_of_its_id() {
    let replaced = |setup: Setup<MemoryStore>, is_promoted| {
        let (answers, store) = (setup.answers.clone(), setup.store.clone());
        setup.rotation.with_probe(Replacing { answers, store, is_promoted })
    };
    let setup = staged();
    setup.answers.accept(2);
    let store = setup.store.clone();
    let rotation = replaced(setup, false);
    assert!(matches!(rotation.verify_now(), Err(RotationError::Refused(KeySetError::NotPending { .. }))));
    assert_eq!(rotation.status().unwrap().keys().pending().unwrap().verified(), None);
    assert_eq!(slots(&store), [Some(1), Some(3), None]);
    // Neither retired nor fallen back.
    for deleted in [1, 2] {
        let setup = promoted();
        setup.clock.advance(3_600);
        setup.answers.refuse(deleted);
        let store = setup.store.clone();
        let rotation = replaced(setup, true);
        assert_eq!(rotation.retire_now(), Err(RotationError::Refused(KeySetError::NotCurrent)));
        assert_eq!(slots(&store), [Some(3), None, Some(1)]);
    }
}

#[test]
fn a_step_on_a_rotation_that_never_was_changes_nothing() {
    let setup = empty();
    let Setup { rotation, .. } = &setup;
    assert!(matches!(rotation.verify_now(), Err(RotationError::Refused(KeySetError::NotPending { .. }))));
    assert_eq!(rotation.retire_now().map(drop), Err(RotationError::Refused(KeySetError::NotCurrent)));
    let steps = [
        rotation.promote_now().map(drop),
        rotation.promote_unverified_now().map(drop),
        rotation.roll_back_now().map(drop),
        rotation.retire_unprobed_now().map(drop),
        rotation.abort_now().map(drop),
    ];
    assert!(steps.iter().all(|step| matches!(step, Err(RotationError::Refused(_)))), "{steps:?}");
    assert!(setup.store.read().unwrap().is_none(), "nothing was written");
    assert!(setup.events.lock().unwrap().is_empty());
}

#[test]
fn who_acts_and_what_is_noted_are_short_printable_and_no_key() {
    let setup = staged();
    let before = setup.actions().len();
    let long = "x".repeat(65);
    for by in [long.as_str(), "an\nna", key(1).expose_secret(), key(2).expose_secret()] {
        let rotation = setup.another().0.with_operator(by);
        let steps = [
            rotation.promote_unverified_now().map(drop),
            rotation.abort_now().map(drop),
            rotation.compromise(name(1)).map(drop),
            rotation.stage(&key(3)).map(drop),
        ];
        for step in steps {
            let refused = match step.unwrap_err() {
                // The leaked key is stopped all the same.
                RotationError::LeakNotPersisted { cause, .. } => *cause,
                other => other,
            };
            assert!(matches!(refused, RotationError::Refused(KeySetError::BadNote | KeySetError::KeyInNote)));
        }
        assert!(rotation.verify_now().is_err() && rotation.retire_now().is_err());
    }
    let refused = |note: &str| setup.rotation.compromise_with_note(name(9), note).unwrap_err();
    let in_note = RotationError::Refused(KeySetError::KeyInNote);
    assert_eq!(refused(&format!("it was \"{}\".", key(9).expose_secret())), in_note);
    assert_eq!(refused(&format!("x{}", key(1).expose_secret())), in_note);
    assert_eq!(refused("two\nlines"), RotationError::Refused(KeySetError::BadNote));
    assert_eq!(setup.slots(), [Some(1), Some(2), None]);
    assert_eq!(setup.actions().len(), before);
}

#[test]
fn where_a_key_was_had_from_is_kept_and_told() {
    let setup = empty();
    let place = Provenance::other("vault", "shop/kanal");
    setup.rotation.adopt(KeyDetails::new(&key(1)).with_provenance(&place)).unwrap();
    setup.rotation.stage(KeyDetails::new(&key(2)).with_provenance(&place).with_note("spring")).unwrap();
    let status = setup.rotation.status().unwrap();
    for slot in [status.keys().current(), status.keys().pending()] {
        assert_eq!(slot.unwrap().loaded_from(), Some("vault shop/kanal"));
        assert_eq!(slot.unwrap().by(), Some("anna"));
    }
    assert_eq!(status.keys().pending().unwrap().note(), Some("spring"));
    let events = setup.events.lock().unwrap();
    assert!(events.iter().all(|event| event.loaded_from.as_deref() == Some("vault shop/kanal")));
    assert_eq!(events[1].note.as_deref(), Some("spring"));
}

#[test]
fn a_key_set_of_another_issuer_is_refused() {
    let setup = promoted();
    let opened = Rotation::<Katana>::open(setup.store.clone(), RotationPolicy::new());
    let error = opened.map(drop).unwrap_err();
    assert!(matches!(error, RotationError::Unreadable { problem: KeySetError::OtherIssuer, .. }), "{error}");
}

#[test]
fn another_key_set_in_the_same_place_is_not_published() {
    let (setup, other) = (promoted(), empty());
    other.rotation.adopt(&key(7)).unwrap();
    for number in [8, 9] {
        other.rotation.stage(&key(number)).unwrap();
        other.rotation.promote_unverified_now().unwrap();
        other.rotation.retire_unprobed_now().unwrap();
    }
    let (there, newer) = (setup.store.read().unwrap().unwrap(), other.store.read().unwrap().unwrap());
    setup.store.write(newer.content(), Some(there.version())).unwrap();
    setup.rotation.status().unwrap();
    assert_eq!(sent(&setup.handle), Some(2));
    assert!(!setup.rotation.stage(&key(10)).unwrap().transition().is_published());
    let error = setup.rotation.start_refresher(RefreshSettings::new()).unwrap_err();
    assert!(error.to_string().contains("is not the one whose keys the handle has"), "{error}");
}

#[test]
fn a_rotation_and_its_refresher_never_set_a_handle_back() {
    let setup = staged();
    let (ben, _) = setup.another();
    let refresher = setup.rotation.start_refresher(RefreshSettings::new()).unwrap();
    ben.promote_unverified_now().unwrap();
    assert_eq!(refresher.refresh_now(Duration::from_secs(60)), Some(Reload::Newer));
    assert_eq!(sent(&setup.handle), Some(2));
    // Key 2 is what Anna was shown as well, so she may roll it back.
    setup.rotation.roll_back_now().unwrap();
    assert_eq!(sent(&setup.handle), Some(1));
    assert!(refresher.refresh_now(Duration::from_secs(60)).is_some());
    assert_eq!(sent(&refresher.handle()), Some(1));
    ben.status().unwrap();
    assert_eq!((sent(&setup.handle), setup.slots()), (Some(1), [Some(1), Some(2), None]));
}
