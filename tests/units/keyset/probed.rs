//! What probes saw of the keys, and what follows from it.

use super::*;

#[test]
fn what_was_accepted_before_a_promotion_does_not_confirm_it() {
    let (mut keys, rotation) = promoted();
    let current = |keys: &KeySet| {
        (keys.current().unwrap().info().verified(), keys.current().unwrap().info().confirmed())
    };
    assert_eq!(current(&keys), (Some(time(2)), None));
    assert!(keys.verify(rotation, time(5)).unwrap().is_change());
    assert_eq!(current(&keys), (Some(time(2)), Some(time(5))));
    assert!(!keys.verify(rotation, time(6)).unwrap().is_change(), "it is no news");
    keys.roll_back(rotation, time(7)).unwrap();
    assert_eq!(keys.current().unwrap().info().confirmed(), None);
    assert_eq!(keys.pending().unwrap().info().confirmed(), None);
}

#[test]
fn a_refusal_undoes_an_acceptance_and_the_other_way_round() {
    let (mut keys, rotation) = promoted();
    keys.verify(rotation, time(5)).unwrap();
    assert!(keys.note_refused(name(2), time(6)).unwrap().is_change());
    assert!(!keys.note_refused(name(2), time(7)).unwrap().is_change());
    let current = keys.current().unwrap();
    assert_eq!((current.info().confirmed(), current.info().refused()), (None, Some(time(6))));
    keys.note_accepted(name(2), time(8)).unwrap();
    let current = keys.current().unwrap();
    assert_eq!((current.info().confirmed(), current.info().refused()), (Some(time(8)), None));
    assert_eq!(keys.note_refused(name(9), time(9)), Err(KeySetError::NotHeld));
    assert_eq!(keys.note_accepted(name(9), time(9)), Err(KeySetError::NotHeld));
}

#[test]
fn a_pending_key_that_is_refused_is_to_be_verified_again() {
    let (mut keys, rotation) = staged();
    keys.verify(rotation, time(2)).unwrap();
    keys.note_refused(name(2), time(3)).unwrap();
    assert_eq!(keys.promote(rotation, Promotion::Verified, time(4)), Err(KeySetError::Unverified));
    keys.verify(rotation, time(5)).unwrap();
    keys.promote(rotation, Promotion::Verified, time(6)).unwrap();
}

#[test]
fn a_previous_key_that_was_refused_makes_way_for_a_promotion() {
    let (mut keys, _) = promoted();
    let next = keys.stage(key(3), staging()).unwrap().rotation();
    assert!(matches!(
        keys.promote(next, Promotion::Unverified, time(4)),
        Err(KeySetError::PreviousThere { .. })
    ));
    keys.note_refused(name(1), time(5)).unwrap();
    keys.promote(next, Promotion::Unverified, time(6)).unwrap();
    assert_eq!((slots(&keys), keys.state_of(name(1))), ([Some(3), None, Some(2)], Some(KeyState::Retired)));
}

#[test]
fn a_key_that_fell_back_is_marked_until_it_is_replaced() {
    let (mut keys, rotation) = promoted();
    keys.fall_back(rotation, time(5)).unwrap();
    let current = keys.current().unwrap();
    assert_eq!((current.info().fell_back(), current.info().confirmed()), (Some(time(5)), Some(time(5))));
    let next = keys.stage(key(3), staging()).unwrap().rotation();
    keys.promote(next, Promotion::Unverified, time(6)).unwrap();
    assert_eq!(keys.current().unwrap().info().fell_back(), None);
}

#[test]
fn what_was_seen_and_names_are_read_as_they_were_written() {
    let (mut keys, _) = promoted();
    keys.note_accepted(name(2), time(4)).unwrap();
    keys.note_refused(name(1), time(4)).unwrap();
    keys.stage(key(3), Staging::at(time(5)).with_name("the \"third\"")).unwrap();
    keys.compromise(name(3), time(6)).unwrap();
    let document = keys.to_document();
    let read = KeySet::from_document(Kanal::PROFILE, document.expose_secret()).unwrap();
    assert_eq!(read.to_document().expose_secret(), document.expose_secret());
    assert_eq!(read.leaked()[0].name(), Some("the \"third\""));
    assert_eq!(read.current().unwrap().info().confirmed(), Some(time(4)));
    assert_eq!(read.previous().unwrap().info().refused(), Some(time(4)));
}
