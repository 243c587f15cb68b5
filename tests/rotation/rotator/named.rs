//! A step names the rotation that it is about, and the operator sees the name of a key.

use keysheath::keyset::{KeySetError, RotationId};
use keysheath::rotation::{CheckedBy, KeyDetails, NextStep, RotationError};

use super::*;

/// What the next key is to be called.
#[track_caller]
fn suggested(rotation: &Rotation<Kanal>) -> String {
    match rotation.next_step().unwrap() {
        NextStep::Create { name, .. } => name,
        other => panic!("{other}"),
    }
}

#[test]
fn a_thread_acts_on_no_key_that_only_another_thread_has_seen() {
    let setup = adopted();
    let seen = setup.rotation.stage(&key(2)).unwrap().rotation();
    let (ben, _) = setup.another();
    ben.abort_now().unwrap();
    let other = ben.stage(&key(3)).unwrap().rotation();
    // Another thread with the same rotation looks.
    std::thread::scope(|threads| {
        threads.spawn(|| {
            assert_eq!(setup.rotation.status().unwrap().keys().pending().unwrap().rotation(), other);
        });
    });
    let before = setup.slots();
    let over = |error: RotationError| match error {
        RotationError::Refused(KeySetError::NotPending { rotation }) => rotation == seen,
        _ => false,
    };
    assert!(over(setup.rotation.promote(seen).unwrap_err()));
    assert!(over(setup.rotation.promote(CheckedBy::Person(seen)).unwrap_err()));
    assert!(over(setup.rotation.verify(seen).unwrap_err()));
    assert!(over(setup.rotation.abort(seen).unwrap_err()));
    assert_eq!(setup.slots(), before);
    // Nor is a rotation ended or undone that is of another key by now.
    ben.promote(CheckedBy::Person(other)).unwrap();
    let not_current = Err(RotationError::Refused(KeySetError::NotCurrent));
    assert_eq!(setup.rotation.roll_back(seen), not_current);
    assert_eq!(
        setup.rotation.retire(CheckedBy::Person(seen)).map(drop),
        Err(RotationError::Refused(KeySetError::NotCurrent))
    );
    assert_eq!(setup.rotation.retire(seen).map(drop), Err(RotationError::Refused(KeySetError::NotCurrent)));
    setup.rotation.roll_back(other).unwrap();
}

#[test]
fn a_number_that_a_person_types_names_a_rotation() {
    let setup = staged();
    let typed: RotationId =
        setup.rotation.status().unwrap().keys().pending().unwrap().rotation().to_string().parse().unwrap();
    setup.rotation.promote(CheckedBy::Person(typed)).unwrap();
    assert!("two".parse::<RotationId>().is_err());
}

#[test]
fn no_name_is_suggested_twice() {
    let setup = empty();
    let mut names = vec![suggested(&setup.rotation)];
    setup.rotation.adopt(&key(1)).unwrap();
    // Four keys in one month: given up, leaked, and two that are planned.
    for number in 2..6 {
        let staged = setup.rotation.stage(&key(number)).unwrap();
        names.push(staged.transition().event().name.as_deref().unwrap().to_owned());
        match number {
            2 => drop(setup.rotation.abort(staged.rotation()).unwrap()),
            3 => drop(setup.rotation.compromise(name(3)).unwrap()),
            _ => {
                setup.rotation.promote(CheckedBy::Person(staged.rotation())).unwrap();
                drop(setup.rotation.retire(CheckedBy::Person(staged.rotation())).unwrap());
            }
        }
    }
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("production-shop-2026-11-r")), "{names:?}");
}

#[test]
fn a_key_is_staged_under_the_name_that_was_suggested() {
    let setup = adopted();
    setup.clock.advance(80 * 86_400);
    let suggested = suggested(&setup.rotation);
    let staged = setup.rotation.stage(&key(2)).unwrap();
    assert_eq!(staged.transition().event().name.as_deref(), Some(suggested.as_str()));
    assert!(staged.to_string().starts_with(&format!("staged {suggested}, {}", name(2))), "{staged}");
    // Another process knows it as well.
    let status = setup.another().0.status().unwrap();
    assert_eq!(status.keys().pending().unwrap().name(), Some(suggested.as_str()));
}

#[test]
fn a_given_name_is_not_suggested_and_can_be_corrected() {
    let setup = adopted();
    let key_3 = key(3);
    let given = || KeyDetails::new(&key_3).with_name("by hand");
    setup.rotation.stage(KeyDetails::new(&key(2)).with_name("production-shop-2026-11-r3")).unwrap();
    setup.rotation.promote_unverified_now().unwrap();
    let next = setup.rotation.stage(&key(3)).unwrap();
    assert_eq!(next.transition().event().name.as_deref(), Some("production-shop-2026-11-r3b"));
    let corrected = setup.rotation.stage(given()).unwrap();
    let transition = corrected.transition();
    assert!(transition.is_change() && transition.event().name.as_deref() == Some("by hand"));
    assert!(!setup.rotation.stage(given()).unwrap().transition().is_change());
    assert_eq!(setup.rotation.stage(&key(3)).unwrap().transition().event().name.as_deref(), Some("by hand"));
}

#[test]
fn each_message_about_a_deletion_begins_with_the_name() {
    let setup = empty();
    setup.rotation.adopt(KeyDetails::new(&key(1)).with_name("the old one")).unwrap();
    setup.rotation.stage(KeyDetails::new(&key(2)).with_name("the new one")).unwrap();
    setup.answers.accept(1);
    setup.answers.accept(2);
    drop(setup.rotation.verify_now().unwrap());
    setup.rotation.promote_now().unwrap();
    setup.clock.advance(900);
    drop(setup.rotation.verify_now().unwrap());
    let page = "in Kanal (Settings → API Keys)";
    let (one, two) = (name(1), name(2));
    assert_eq!(
        setup.rotation.next_step().unwrap().to_string(),
        format!(
            "delete the key named the old one (fingerprint {one}) {page}: the one taken in on 2026-11-24, \
             and not the key named the new one ({two}); then retire it, and keysheath will confirm that the \
             right one is gone"
        )
    );
    let kept = setup.rotation.retire_now().unwrap().to_string();
    assert!(
        kept.starts_with(&format!("OVERDUE: the key named the old one ({one}) still works: delete it")),
        "{kept}"
    );
    setup.rotation.stage(KeyDetails::new(&key(3)).with_name("the third")).unwrap();
    drop(setup.rotation.promote_unverified_now());
    let blocked = setup.rotation.promote_unverified_now().unwrap_err().to_string();
    assert!(
        blocked.starts_with(&format!("the key named the old one ({one}) is still the previous one")),
        "{blocked}"
    );
    let aborted = setup.rotation.abort_now().unwrap().to_string();
    assert!(aborted.ends_with(&format!("delete the key named the third now {page}")), "{aborted}");
    let leaked = setup.rotation.compromise(name(2)).unwrap().to_string();
    assert!(leaked.contains(&format!("delete the key named the new one now {page}")), "{leaked}");
    let step = setup.rotation.next_step().unwrap().to_string();
    let begins = format!("delete the leaked key named the new one (fingerprint {two}) {page} now: ");
    assert!(step.starts_with(&begins) && step.contains("and not the key named the old one"), "{step}");
    setup.rotation.compromise(name(1)).unwrap();
    let step = setup.rotation.next_step().unwrap().to_string();
    assert!(
        step.contains(&format!("first delete the key named the new one (fingerprint {two}) {page}; ")),
        "{step}"
    );
    let status = setup.rotation.status().unwrap().to_string();
    assert!(status.contains(&format!("compromised: {two}, named the new one, ")), "{status}");
}

#[test]
fn a_key_that_is_adopted_once_more_takes_its_name() {
    let setup = adopted();
    let first = setup.rotation.adopt(KeyDetails::new(&key(1)).with_name("the old one")).unwrap();
    assert!(first.is_change() && first.event().name.as_deref() == Some("the old one"), "{first}");
    let again = setup.rotation.adopt(KeyDetails::new(&key(1)).with_name("the old one")).unwrap();
    assert!(!again.is_change() && !setup.rotation.adopt(&key(1)).unwrap().is_change());
    assert_eq!(setup.rotation.status().unwrap().keys().current().unwrap().name(), Some("the old one"));
}

#[test]
fn each_step_that_names_a_rotation_gives_its_number() {
    let setup = staged();
    let number = || setup.rotation.next_step().unwrap().rotation().map(|id| id.to_string());
    assert_eq!(number().as_deref(), Some("2"), "to be verified");
    setup.answers.accept(2);
    drop(setup.rotation.verify_now().unwrap());
    assert_eq!(number().as_deref(), Some("2"), "to be promoted");
    setup.rotation.promote_now().unwrap();
    assert_eq!(number().as_deref(), Some("2"), "to be waited for");
    setup.clock.advance(3_600);
    drop(setup.rotation.verify_now().unwrap());
    assert_eq!(number().as_deref(), Some("2"), "to be retired");
    setup.rotation.retire_unprobed_now().unwrap();
    assert_eq!(number(), None, "nothing to do");
}
