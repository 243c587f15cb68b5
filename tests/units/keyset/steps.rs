//! The steps of a rotation: what each does, what it refuses, and that doing it twice is harmless.

mod extremes;
mod probed;
mod properties;
mod written;

use std::time::{Duration, SystemTime};

use crate::key::{Fingerprint, Issuer, Kanal, Katana, KeyFormat, Origin, Profile, RawKey};
use crate::keyset::{
    Effect, KeySet, KeySetError, KeyState, MAX_COMPROMISED, MAX_REPORTED, MAX_RETIRED, ManagedKey, Promotion,
    RotationId, Staging,
};
use crate::source::{Source as _, Variable};

/// An issuer whose keys could be guessed.
const PIN: &Profile = &Profile::new("pin", "PIN", Origin::https("pin.example"), KeyFormat::exactly(6), 19);

/// A well-formed key for each number.
fn key(number: usize) -> RawKey {
    RawKey::parse(Kanal::PROFILE, format!("Key{number:021}").as_bytes()).unwrap()
}

fn name(number: usize) -> Fingerprint {
    key(number).fingerprint().unwrap()
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn staging() -> Staging {
    Staging::at(time(1)).by("anna")
}

fn empty() -> KeySet {
    KeySet::new(Kanal::PROFILE).unwrap()
}

/// Key 1 active.
fn adopted() -> KeySet {
    let mut keys = empty();
    keys.adopt(key(1), staging()).unwrap();
    keys
}

/// Key 1 active and key 2 pending.
fn staged() -> (KeySet, RotationId) {
    let mut keys = adopted();
    let rotation = keys.stage(key(2), staging()).unwrap().rotation();
    (keys, rotation)
}

/// Key 2 active and key 1 previous.
fn promoted() -> (KeySet, RotationId) {
    let (mut keys, rotation) = staged();
    keys.verify(rotation, time(2)).unwrap();
    keys.promote(rotation, Promotion::Verified, time(3)).unwrap();
    (keys, rotation)
}

/// The numbers of the active, the pending and the previous key.
fn slots(keys: &KeySet) -> [Option<usize>; 3] {
    [keys.current(), keys.pending(), keys.previous()].map(|slot| {
        slot.map(|held| (0..200).find(|number| name(*number) == held.info().fingerprint()).unwrap())
    })
}

#[test]
fn a_rotation_goes_from_staging_to_retirement() {
    let (mut keys, rotation) = staged();
    assert_eq!(slots(&keys), [Some(1), Some(2), None]);
    assert_eq!(keys.promote(rotation, Promotion::Verified, time(2)), Err(KeySetError::Unverified));
    keys.verify(rotation, time(2)).unwrap();
    let before = keys.generation();
    keys.promote(rotation, Promotion::Verified, time(3)).unwrap();
    assert!(keys.generation() > before);
    assert_eq!(slots(&keys), [Some(2), None, Some(1)]);
    let times = |held: &ManagedKey| (held.info().verified(), held.info().promoted(), held.info().demoted());
    assert_eq!(times(keys.current().unwrap()), (Some(time(2)), Some(time(3)), None));
    assert_eq!(times(keys.previous().unwrap()), (None, Some(time(1)), Some(time(3))));
    keys.retire(rotation).unwrap();
    assert_eq!(slots(&keys), [Some(2), None, None]);
    assert_eq!(keys.retired(), [name(1)]);
    assert_eq!(keys.state_of(name(1)), Some(KeyState::Retired));
}

#[test]
fn a_step_that_is_done_twice_changes_nothing_the_second_time() {
    let mut keys = empty();
    let mut twice = |step: &dyn Fn(&mut KeySet) -> Result<Effect, KeySetError>| {
        let first = step(&mut keys).unwrap();
        let document = keys.to_document().expose_secret().to_vec();
        assert!(first.is_change());
        assert_eq!(step(&mut keys), Ok(Effect::Unchanged(first.rotation())));
        assert_eq!(keys.to_document().expose_secret().to_vec(), document);
        first.rotation()
    };
    twice(&|keys| keys.adopt(key(1), staging()));
    let rotation = twice(&|keys| keys.stage(key(2), staging()));
    twice(&|keys| keys.verify(rotation, time(2)));
    twice(&|keys| keys.promote(rotation, Promotion::Verified, time(3)));
    twice(&|keys| keys.roll_back(rotation, time(4)));
    twice(&|keys| keys.promote(rotation, Promotion::Unverified, time(5)));
    twice(&|keys| keys.retire(rotation));
    let given_up = twice(&|keys| keys.stage(key(3), staging()));
    twice(&|keys| keys.abort(given_up));
    twice(&|keys| keys.compromise(name(2), time(7)));
}

#[test]
fn a_known_key_is_not_staged_and_the_error_says_its_role() {
    let (mut keys, rotation) = promoted();
    let known = |state| Err(KeySetError::Known { state });
    assert_eq!(keys.stage(key(2), staging()), known(KeyState::Current));
    assert_eq!(keys.stage(key(1), staging()), known(KeyState::Previous));
    keys.retire(rotation).unwrap();
    assert_eq!(keys.stage(key(1), staging()), known(KeyState::Retired));
    keys.compromise(name(9), time(5)).unwrap();
    assert_eq!(keys.stage(key(9), staging()), known(KeyState::Compromised));
    let given_up = keys.stage(key(3), staging()).unwrap().rotation();
    keys.abort(given_up).unwrap();
    assert_eq!(keys.stage(key(3), staging()), known(KeyState::Retired));
    assert_eq!(slots(&keys), [Some(2), None, None]);
}

#[test]
fn a_second_rotation_is_refused_and_says_when_the_first_began() {
    let (mut keys, rotation) = staged();
    let error = keys.stage(key(3), staging()).unwrap_err();
    assert_eq!(error, KeySetError::InProgress { rotation, since: time(1), by: "anna".to_owned() });
    assert!(error.to_string().contains("begun by anna"));
    keys.promote(rotation, Promotion::Unverified, time(2)).unwrap();
    let next = keys.stage(key(3), staging()).unwrap().rotation();
    assert!(matches!(keys.roll_back(rotation, time(3)), Err(KeySetError::InProgress { .. })));
    let waits = keys.promote(next, Promotion::Unverified, time(3)).unwrap_err();
    assert!(matches!(waits, KeySetError::PreviousThere { fingerprint, .. } if fingerprint == name(1)));
    keys.retire(rotation).unwrap();
    keys.promote(next, Promotion::Unverified, time(4)).unwrap();
    assert_eq!(slots(&keys), [Some(3), None, Some(2)]);
}

#[test]
fn a_rollback_activates_the_old_key_and_the_new_is_pending() {
    let (mut keys, rotation) = promoted();
    let before = keys.generation();
    keys.roll_back(rotation, time(4)).unwrap();
    assert!(keys.generation() > before, "the active key is another, so it has another number");
    assert_eq!(slots(&keys), [Some(1), Some(2), None]);
    assert_eq!(keys.pending().unwrap().info().verified(), None, "it has to be seen to work again");
    keys.abort(rotation).unwrap();
    assert_eq!(slots(&keys), [Some(1), None, None]);
    assert_eq!(keys.roll_back(rotation, time(5)), Err(KeySetError::NotCurrent));
    let first = keys.current().unwrap().info().rotation();
    assert_eq!(keys.roll_back(first, time(5)), Err(KeySetError::NothingBefore));
}

#[test]
fn a_deleted_active_key_is_replaced_by_the_previous_one() {
    let (mut keys, rotation) = promoted();
    let next = keys.stage(key(3), staging()).unwrap().rotation();
    let before = keys.generation();
    keys.fall_back(rotation, time(4)).unwrap();
    assert!(keys.generation() > before);
    assert_eq!(slots(&keys), [Some(1), Some(3), None]);
    assert_eq!(keys.state_of(name(2)), Some(KeyState::Retired));
    assert_eq!(keys.fall_back(rotation, time(5)), Err(KeySetError::NotCurrent));
    let first = keys.current().unwrap().info().rotation();
    assert_eq!(keys.fall_back(first, time(5)), Err(KeySetError::NothingBefore));
    assert_eq!(keys.fall_back(next, time(5)), Err(KeySetError::NotCurrent));
    assert_eq!(slots(&keys), [Some(1), Some(3), None]);
}

#[test]
fn a_key_that_came_into_force_unverified_is_verified_there() {
    let (mut keys, rotation) = staged();
    keys.promote(rotation, Promotion::Unverified, time(2)).unwrap();
    assert_eq!(keys.verify(rotation, time(3)), Ok(Effect::Changed(rotation)));
    assert_eq!(keys.verify(rotation, time(4)), Ok(Effect::Unchanged(rotation)));
    assert_eq!(keys.current().unwrap().info().verified(), Some(time(3)));
    assert_eq!(slots(&keys), [Some(2), None, Some(1)]);
}

#[test]
fn steps_of_a_rotation_that_is_not_there_are_refused() {
    let (mut keys, rotation) = staged();
    let mut other = empty();
    let mut foreign = rotation;
    for number in 10..20 {
        foreign = other.stage(key(number), staging()).unwrap().rotation();
        other.abort(foreign).unwrap();
    }
    let not_pending = Err(KeySetError::NotPending { rotation: foreign });
    assert_eq!(keys.verify(foreign, time(2)), not_pending);
    assert_eq!(keys.promote(foreign, Promotion::Unverified, time(2)), not_pending);
    assert_eq!(keys.abort(foreign), not_pending);
    assert_eq!(keys.retire(foreign), Err(KeySetError::NotCurrent));
    assert_eq!(keys.roll_back(foreign, time(2)), Err(KeySetError::NotCurrent));
    assert_eq!(keys.retire(rotation), Err(KeySetError::NotCurrent), "it is only pending");
    assert_eq!(slots(&keys), [Some(1), Some(2), None]);
}

#[test]
fn a_leaked_key_in_force_gives_way_to_what_is_surest() {
    // A verified pending key.
    let (mut keys, rotation) = staged();
    keys.verify(rotation, time(2)).unwrap();
    keys.compromise(name(1), time(3)).unwrap();
    assert_eq!(slots(&keys), [Some(2), None, None]);
    // The previous key, where the pending one was not seen to work.
    let (mut keys, _) = promoted();
    keys.stage(key(3), staging()).unwrap();
    keys.compromise(name(2), time(4)).unwrap();
    assert_eq!(slots(&keys), [Some(1), Some(3), None]);
    // Nothing.
    let (mut keys, _) = staged();
    let before = keys.generation();
    keys.compromise(name(1), time(3)).unwrap();
    assert_eq!(slots(&keys), [None, Some(2), None]);
    assert!(keys.generation() > before, "that no key is active is news as well");
}

#[test]
fn a_leaked_key_leaves_every_place_and_never_comes_back() {
    let (mut keys, rotation) = promoted();
    keys.compromise(name(1), time(4)).unwrap();
    assert_eq!(slots(&keys), [Some(2), None, None]);
    assert_eq!(keys.roll_back(rotation, time(5)), Err(KeySetError::NothingBefore));
    let next = keys.stage(key(3), staging()).unwrap().rotation();
    keys.verify(next, time(6)).unwrap();
    keys.compromise(name(3), time(7)).unwrap();
    assert_eq!(slots(&keys), [Some(2), None, None]);
    assert!(keys.promote(next, Promotion::Verified, time(8)).is_err());
    assert_eq!(keys.compromised(), [name(1), name(3)]);
    for number in [1, 3] {
        let refused = Err(KeySetError::Known { state: KeyState::Compromised });
        assert_eq!(keys.stage(key(number), staging()), refused);
    }
}

#[test]
fn a_key_set_whose_only_key_leaked_takes_a_new_one() {
    let mut keys = adopted();
    keys.compromise(name(1), time(2)).unwrap();
    assert_eq!(keys.adopt(key(1), staging()), Err(KeySetError::Known { state: KeyState::Compromised }));
    let rotation = keys.stage(key(2), staging()).unwrap().rotation();
    keys.verify(rotation, time(3)).unwrap();
    keys.promote(rotation, Promotion::Verified, time(4)).unwrap();
    assert_eq!(slots(&keys), [Some(2), None, None]);
}

#[test]
fn retired_keys_are_forgotten_and_excess_reports_are_refused() {
    let mut keys = adopted();
    for number in 2..2 + MAX_RETIRED + 3 {
        let rotation = keys.stage(key(number), staging()).unwrap().rotation();
        keys.abort(rotation).unwrap();
    }
    assert_eq!(keys.retired().len(), MAX_RETIRED);
    assert_eq!(keys.state_of(name(2)), None, "the oldest is forgotten");
    for number in 100..100 + MAX_REPORTED {
        keys.compromise(name(number), time(2)).unwrap();
    }
    assert_eq!(keys.compromise(name(199), time(3)), Err(KeySetError::TooManyCompromised));
    assert_eq!(keys.state_of(name(100)), Some(KeyState::Compromised));
    assert_eq!(slots(&keys), [Some(1), None, None]);
}

#[test]
fn a_leaked_key_leaves_every_place_however_many_are_remembered() {
    let (mut keys, rotation) = promoted();
    keys.retire(rotation).unwrap();
    for number in 300..300 + MAX_REPORTED {
        keys.compromise(name(number), time(2)).unwrap();
    }
    let mut in_force = 2;
    // Far more than are remembered, in each place.
    for number in (3..3 + 2 * MAX_COMPROMISED).step_by(3) {
        let rotation = keys.stage(key(number), staging()).unwrap().rotation();
        keys.promote(rotation, Promotion::Unverified, time(3)).unwrap();
        keys.stage(key(number + 1), staging()).unwrap();
        for (leaked, left) in [
            (in_force, [Some(number), Some(number + 1), None]),
            (number + 1, [Some(number), None, None]),
            (number, [None; 3]),
        ] {
            keys.compromise(name(leaked), time(4)).unwrap();
            assert_eq!(slots(&keys), left);
            assert_eq!(keys.state_of(name(leaked)), Some(KeyState::Compromised));
            let document = keys.to_document();
            let read = KeySet::from_document(Kanal::PROFILE, document.expose_secret()).unwrap();
            assert_eq!(read.compromised(), keys.compromised());
        }
        in_force = number + 2;
        let rotation = keys.stage(key(in_force), staging()).unwrap().rotation();
        keys.promote(rotation, Promotion::Unverified, time(5)).unwrap();
    }
    assert_eq!(keys.compromised().len(), MAX_COMPROMISED);
    assert_eq!(keys.state_of(name(300)), None, "the oldest that is in no place is forgotten first");
    assert!(keys.leaked().len() <= MAX_COMPROMISED);
}

#[test]
fn a_leaked_held_key_is_due_for_deletion_until_it_is_confirmed() {
    let mut keys = empty();
    keys.adopt(key(1), Staging::at(time(9))).unwrap();
    assert_eq!(keys.confirm_deleted(name(1)), Err(KeySetError::NotCompromised), "it is active");
    keys.compromise(name(5), time(10)).unwrap();
    assert!(keys.leaked().is_empty(), "it was in no place");
    keys.compromise(name(1), time(10)).unwrap();
    let leaked = |keys: &KeySet| -> Vec<_> {
        keys.leaked().iter().map(|leaked| (leaked.fingerprint(), leaked.staged())).collect()
    };
    assert_eq!(leaked(&keys), [(name(1), time(9))]);
    let document = keys.to_document();
    let mut keys = KeySet::from_document(Kanal::PROFILE, document.expose_secret()).unwrap();
    assert_eq!(leaked(&keys), [(name(1), time(9))], "the next process sees it as well");
    assert!(keys.confirm_deleted(name(1)).unwrap().is_change());
    assert!(!keys.confirm_deleted(name(1)).unwrap().is_change());
    assert!(!keys.confirm_deleted(name(5)).unwrap().is_change());
    assert!(keys.leaked().is_empty());
    assert_eq!(keys.compromised(), [name(5), name(1)], "it is never taken again");
}

#[test]
fn a_key_that_never_was_in_force_is_not_rolled_back() {
    let (mut keys, rotation) = staged();
    assert_eq!(keys.roll_back(rotation, time(2)), Err(KeySetError::NothingBefore));
    assert_eq!(slots(&keys), [Some(1), Some(2), None]);
    keys.promote(rotation, Promotion::Unverified, time(3)).unwrap();
    keys.roll_back(rotation, time(4)).unwrap();
    let document = keys.to_document();
    let mut keys = KeySet::from_document(Kanal::PROFILE, document.expose_secret()).unwrap();
    assert_eq!(keys.pending().unwrap().info().demoted(), Some(time(4)), "the mark that it was active");
    assert_eq!(keys.roll_back(rotation, time(5)), Ok(Effect::Unchanged(rotation)));
}

#[test]
fn only_unguessable_keys_are_accepted() {
    let mut keys = empty();
    keys.adopt(key(1), staging()).unwrap();
    assert_eq!(keys.adopt(key(2), staging()), Err(KeySetError::HasKeys));
    assert_eq!(KeySet::new(PIN).unwrap_err(), KeySetError::Weak);
}

#[test]
fn what_a_person_notes_is_bounded_printable_and_not_the_key() {
    let mut keys = empty();
    for (staging, error) in [
        (staging().with_note("x".repeat(101)), KeySetError::BadNote),
        (staging().with_note("two\nlines"), KeySetError::BadNote),
        (staging().by("a\u{7f}b"), KeySetError::BadNote),
        (staging().by("x".repeat(65)), KeySetError::BadNote),
        (staging().with_note("a \u{202e}evif a"), KeySetError::BadNote),
        (staging().with_note("a\u{2066}b"), KeySetError::BadNote),
        (staging().with_note("a\u{2069}b"), KeySetError::BadNote),
        (staging().with_note("a\u{200f}b"), KeySetError::BadNote),
        (staging().with_note("a\u{61c}b"), KeySetError::BadNote),
        (staging().with_note("two\u{2028}lines"), KeySetError::BadNote),
        (staging().by("two\u{2029}people"), KeySetError::BadNote),
        (staging().with_note(format!("new: {}", key(2).expose_secret())), KeySetError::KeyInNote),
        (staging().by(key(2).expose_secret()), KeySetError::KeyInNote),
    ] {
        assert_eq!(keys.stage(key(2), staging), Err(error));
    }
    let place = Variable::new("X".repeat(200)).provenance();
    let staging = staging().loaded_from(&place).with_note("ü".repeat(100));
    keys.stage(key(2), staging).unwrap();
    let pending = keys.pending().unwrap();
    assert_eq!(pending.info().by(), Some("anna"));
    assert_eq!(pending.info().loaded_from().unwrap().chars().count(), 64);
    assert_eq!(pending.info().note().unwrap().chars().count(), 100);
}

#[test]
fn a_clock_that_goes_back_is_written_down_as_it_says() {
    let (mut keys, rotation) = staged();
    keys.verify(rotation, SystemTime::UNIX_EPOCH - Duration::from_secs(9)).unwrap();
    keys.promote(rotation, Promotion::Verified, time(0)).unwrap();
    assert_eq!(keys.current().unwrap().info().verified(), Some(time(0)));
    assert_eq!(slots(&keys), [Some(2), None, Some(1)]);
}

#[test]
fn a_key_set_shows_fingerprints_and_no_key() {
    let (keys, _) = promoted();
    let shown = format!("{keys:?} {:?} {:#?} {:?}", keys.current(), keys.previous(), staging());
    assert!(!shown.contains("Key0") && !shown.contains("0000"), "{shown}");
    assert!(shown.contains(&name(1).to_string()) && shown.contains(&name(2).to_string()));
}

#[test]
fn a_key_set_is_persisted_before_use_and_read_by_a_new_process() {
    use crate::store::{DocumentError, DocumentStore, FileStore};

    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("kanal"));
    let (mut keys, rotation) = staged();
    let first = store.write(&keys.to_document(), None).unwrap();
    keys.verify(rotation, time(2)).unwrap();
    let second = store.write(&keys.to_document(), Some(&first)).unwrap();
    // Another process, with what it read before.
    let (mut other, _) = staged();
    other.promote(rotation, Promotion::Unverified, time(3)).unwrap();
    assert_eq!(store.write(&other.to_document(), Some(&first)), Err(DocumentError::Conflict));
    let there = FileStore::new(folder.path().join("kanal")).read().unwrap().unwrap();
    assert_eq!(there.version(), &second);
    let read = KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).unwrap();
    assert_eq!(slots(&read), [Some(1), Some(2), None]);
    assert!(read.pending().unwrap().info().verified().is_some());
}

#[test]
fn a_key_of_another_issuer_is_refused() {
    let mut keys = empty();
    let theirs = || RawKey::parse(Katana::PROFILE, b"0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
    assert_eq!(keys.adopt(theirs(), staging()), Err(KeySetError::OtherIssuer));
    assert_eq!(keys.stage(theirs(), staging()), Err(KeySetError::OtherIssuer));
    assert!(keys.current().is_none() && keys.pending().is_none());
}
