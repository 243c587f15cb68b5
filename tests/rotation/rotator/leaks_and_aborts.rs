//! What the operator sees when keys leak, roll back, are aborted, or are refused once by mistake.

use keysheath::keyset::KeySetError;
use keysheath::rotation::{Compromised, NextStep, Reason, Retirement, RotationError, Verification};

use super::*;

fn next(setup: &Setup<MemoryStore>) -> NextStep {
    setup.rotation.next_step().unwrap()
}

#[test]
fn a_leaked_active_key_is_closed_off_despite_many_reports() {
    let setup = adopted();
    for number in 0..32 {
        setup.rotation.compromise(name(1_000 + number)).unwrap();
    }
    let full = RotationError::Refused(KeySetError::TooManyCompromised);
    assert_eq!(setup.rotation.compromise(name(999)), Err(full));
    assert_eq!(sent(&setup.handle), Some(1));
    setup.rotation.compromise(name(1)).unwrap();
    assert_eq!((sent(&setup.handle), setup.slots()), (None, [None; 3]));
    assert_eq!(place(&setup.store, 1), Some(KeyState::Compromised));
}

#[test]
fn a_leaked_key_stays_due_for_deletion_until_it_is_confirmed() {
    let setup = promoted();
    setup.rotation.compromise(name(2)).unwrap();
    assert_eq!(sent(&setup.handle), Some(1));
    let text = format!(
        "delete the leaked key named production-shop-2026-11-r2 (fingerprint {}) in Kanal (Settings → API \
         Keys) now: the one taken in on 2026-11-24, and not the key {}; then confirm that it is deleted",
        name(2),
        name(1)
    );
    // It comes before what else there is to do, and every process says it.
    setup.rotation.stage(&key(3)).unwrap();
    for rotation in [&setup.rotation, &setup.another().0] {
        assert_eq!(rotation.next_step().unwrap().to_string(), text);
        let status = rotation.status().unwrap();
        assert_eq!(status.keys().leaked()[0].fingerprint(), name(2));
        assert!(status.to_string().contains("TO BE DELETED"), "{status}");
    }
    let confirmed = setup.rotation.confirm_deleted(name(2)).unwrap();
    assert!(confirmed.is_change());
    let words = format!("leaked key deleted production-shop-2026-11-r2, {}: a compromised key", name(2));
    assert_eq!(confirmed.to_string(), words);
    assert!(!setup.rotation.confirm_deleted(name(2)).unwrap().is_change());
    assert_eq!(setup.actions().last().unwrap(), "leaked key deleted");
    assert!(matches!(next(&setup), NextStep::Verify { .. }));
    assert!(!setup.rotation.status().unwrap().to_string().contains("TO BE DELETED"));
    let unknown = RotationError::Refused(KeySetError::NotCompromised);
    assert_eq!(setup.rotation.confirm_deleted(name(1)), Err(unknown));
}

#[test]
fn without_an_active_key_the_reason_names_the_leaked_known_key() {
    let setup = adopted();
    setup.rotation.compromise(name(1)).unwrap();
    setup.rotation.compromise(name(9)).unwrap();
    let reason = |setup: &Setup<MemoryStore>| match next(setup) {
        NextStep::Create { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert!(matches!(reason(&setup), Reason::Leaked { key, .. } if key.fingerprint() == name(1)));
    // A new key that is staged first does not make it forgotten.
    setup.rotation.stage(&key(2)).unwrap();
    let NextStep::DeleteLeaked { key, keep, .. } = next(&setup) else { panic!() };
    assert_eq!((key.fingerprint(), keep), (name(1), None));
    setup.rotation.abort_now().unwrap();
    setup.rotation.confirm_deleted(name(1)).unwrap();
    assert_eq!(reason(&setup), Reason::NoKey);
}

#[test]
fn a_report_about_an_unknown_key_says_that_nothing_changed() {
    let setup = promoted();
    let says_so = |report: &Compromised| report.to_string().contains("what is sent has not changed");
    for _ in 0..2 {
        let mistyped = setup.rotation.compromise(name(9)).unwrap();
        assert!(!mistyped.was_held() && says_so(&mistyped), "{mistyped}");
    }
    assert_eq!((sent(&setup.handle), setup.slots()), (Some(2), [Some(2), None, Some(1)]));
    for number in [1, 2] {
        // Also where it is done again, after a death before the answer.
        for _ in 0..2 {
            let leaked = setup.rotation.compromise(name(number)).unwrap();
            assert!(leaked.was_held() && !says_so(&leaked), "{leaked}");
        }
    }
}

#[test]
fn a_key_that_was_never_active_is_not_audited_as_rolled_back() {
    let setup = staged();
    let before = setup.actions();
    let nothing = Err(RotationError::Refused(KeySetError::NothingBefore));
    assert_eq!(setup.rotation.roll_back_now(), nothing);
    assert_eq!(setup.another().0.roll_back_now(), nothing);
    assert_eq!((setup.slots(), setup.actions()), ([Some(1), Some(2), None], before));
}

#[test]
fn an_aborted_key_that_was_active_is_deleted_when_unused() {
    let setup = promoted();
    let request = setup.handle.load().unwrap();
    setup.rotation.roll_back_now().unwrap();
    setup.clock.advance(300);
    let (another, _handle) = setup.another();
    let aborted = setup.rotation.abort_now().unwrap();
    assert_eq!((aborted.remaining_settle(), aborted.is_drained()), (Duration::from_secs(600), false));
    let shown = aborted.to_string();
    assert!(
        shown.contains(
            "it was active, so do not delete it yet: other processes have 10 minutes to take up the active \
             key, if this process keeps running; requests of this process still hold it; then delete the key \
             named production-shop-2026-11-r2 in Kanal (Settings → API Keys)"
        ),
        "{shown}"
    );
    // Another process that repeats it reports the same, by its own clocks.
    let again = another.abort_now().unwrap();
    assert_eq!(
        (again.transition().event().fingerprint, again.transition().event().name.as_deref()),
        (Some(name(2)), Some("production-shop-2026-11-r2"))
    );
    assert!(again.to_string().contains("it was active, so do not delete it yet"), "{again}");
    drop(request);
    // Settled and drained, it is deleted at once; and so is one that was never active.
    let setup = promoted();
    setup.rotation.roll_back_now().unwrap();
    setup.clock.advance(900);
    let is_due = |number: u64| {
        let words = format!("; delete the key named production-shop-2026-11-r{number} now in Kanal");
        assert!(setup.rotation.abort_now().unwrap().to_string().contains(&words));
    };
    is_due(2);
    setup.rotation.stage(&key(3)).unwrap();
    is_due(3);
    // By a clock that was set back, no time is over.
    let setup = promoted();
    setup.rotation.roll_back_now().unwrap();
    setup.clock.set_back(86_400);
    assert_eq!(setup.rotation.abort_now().unwrap().remaining_settle(), Duration::from_secs(900));
}

#[test]
fn a_previous_key_in_use_is_not_overdue_however_late_it_is() {
    let setup = staged();
    let request = setup.handle.load().unwrap();
    setup.answers.accept(2);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::Verified { .. }));
    setup.rotation.promote_now().unwrap();
    setup.clock.advance(86_400);
    let kept = setup.rotation.retire_now().unwrap();
    assert!(matches!(kept, Retirement::StillAccepted { is_overdue: false, .. }), "{kept}");
    assert!(!setup.actions().contains(&"still accepted".to_owned()));
    drop(request);
    let kept = setup.rotation.retire_now().unwrap();
    assert!(matches!(kept, Retirement::StillAccepted { is_overdue: true, .. }), "{kept}");
}

#[test]
fn a_mistaken_refusal_is_withdrawn_once_the_key_is_accepted() {
    // Between rotations.
    let setup = adopted();
    let in_force = setup.handle.load().unwrap().generation();
    setup.handle.report_refused(in_force);
    assert!(matches!(next(&setup), NextStep::Refused { .. }));
    setup.clock.advance(120);
    for silence in [silent(), forbidden(), refused()] {
        setup.answers.set(1, silence);
        let _ = setup.rotation.verify_now().unwrap();
        assert_eq!(setup.handle.refused(), Some(in_force), "only an accepted key says that it was a mistake");
    }
    setup.answers.accept(1);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::Verified { .. }));
    assert_eq!(setup.handle.refused(), None);
    assert!(!setup.rotation.status().unwrap().to_string().contains("REFUSED"));
    assert!(matches!(next(&setup), NextStep::Nothing { .. }));
    // The next one counts again.
    setup.handle.report_refused(in_force);
    assert_eq!(setup.handle.refused(), Some(in_force));
    // At the end of a rotation, of either key.
    for of_previous in [false, true] {
        let setup = promoted();
        let in_force = setup.handle.load().unwrap();
        let reported =
            if of_previous { in_force.previous().unwrap().generation() } else { in_force.generation() };
        setup.handle.report_refused(reported);
        drop(in_force);
        assert!(matches!(next(&setup), NextStep::Confirm { .. }));
        assert!(matches!(setup.rotation.retire_now().unwrap(), Retirement::StillAccepted { .. }));
        assert_eq!(setup.handle.refused(), None);
        assert!(matches!(next(&setup), NextStep::Wait { .. }));
    }
    // The pending key says nothing about the active one.
    let setup = staged();
    setup.handle.report_refused(in_force);
    setup.answers.accept(2);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::Verified { .. }));
    assert_eq!(setup.handle.refused(), Some(in_force));
}
