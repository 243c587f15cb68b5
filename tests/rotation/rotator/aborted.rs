//! Keys that were given up: they work until a person deletes them, so that the next step asks for that.

use keysheath::keyset::KeySetError;
use keysheath::rotation::{NextStep, Retirement, RotationError, Verification};

use super::*;

const HOUR: u64 = 3_600;

fn says(rotation: &Rotation<Kanal>) -> String {
    rotation.next_step().unwrap().to_string()
}

fn is_asked_for(rotation: &Rotation<Kanal>) -> bool {
    let said = says(rotation);
    said.starts_with("delete the key named production-shop-2026-11-r2")
}

#[test]
fn an_aborted_key_is_to_be_deleted_until_that_is_confirmed() {
    let setup = staged();
    setup.rotation.abort_now().unwrap();
    setup.clock.advance(HOUR);
    // Only with a good key to keep.
    assert!(says(&setup.rotation).starts_with("verify the active key"), "{}", says(&setup.rotation));
    drop(setup.rotation.verify_now().unwrap());
    let text = format!(
        "delete the key named production-shop-2026-11-r2 (fingerprint {}) in Kanal (Settings → API Keys): \
         the one taken in on 2026-11-24 and aborted, and not the key {}; then confirm that it is deleted",
        name(2),
        name(1)
    );
    for rotation in [&setup.rotation, &setup.another().0] {
        assert_eq!(says(rotation), text);
        let status = rotation.status().unwrap().to_string();
        assert!(status.contains("aborted: the key named production-shop-2026-11-r2"), "{status}");
    }
    let confirmed = setup.rotation.confirm_deleted(name(2)).unwrap();
    let words =
        format!("aborted key deleted production-shop-2026-11-r2, {} (rotation 2): a retired key", name(2));
    assert_eq!((confirmed.is_change(), confirmed.to_string()), (true, words));
    assert!(!setup.rotation.confirm_deleted(name(2)).unwrap().is_change());
    assert_eq!(setup.actions().last().unwrap(), "aborted key deleted");
    assert!(says(&setup.rotation).starts_with("nothing to do until"));
    assert!(!setup.rotation.status().unwrap().to_string().contains("aborted"));
    let unknown = RotationError::Refused(KeySetError::NotCompromised);
    assert_eq!(setup.rotation.confirm_deleted(name(1)), Err(unknown));
}

#[test]
fn a_key_that_was_in_force_is_deleted_after_the_settle_time() {
    let setup = promoted();
    let request = setup.handle.load().unwrap();
    setup.rotation.roll_back_now().unwrap();
    setup.rotation.abort_now().unwrap();
    drop(setup.rotation.verify_now().unwrap());
    for minutes in [0, 14, 14] {
        setup.clock.advance(minutes * 60);
        let said = says(&setup.rotation);
        assert!(said.starts_with("wait, and keep the key named production-shop-2026-11-r2"), "{said}");
    }
    assert!(says(&setup.rotation).ends_with("requests of this process still hold it"));
    assert!(!is_asked_for(&setup.another().0), "another process adds what clocks differ by");
    drop(request);
    assert!(is_asked_for(&setup.rotation), "{}", says(&setup.rotation));
    setup.clock.advance(HOUR);
    assert!(is_asked_for(&setup.another().0));
    // A refusal that comes then leaves no key to keep.
    let generation = setup.handle.load().unwrap().generation();
    setup.handle.report_refused(generation);
    assert!(says(&setup.rotation).starts_with("the issuer has refused the active key"));
}

#[test]
fn none_is_deleted_while_the_issuer_may_not_know_the_active_key() {
    let setup = staged();
    setup.rotation.abort_now().unwrap();
    drop(setup.rotation.verify_now().unwrap());
    let said = says(&setup.rotation);
    assert!(said.contains("the issuer has 2 minutes to learn the active key"), "{said}");
    setup.clock.advance(120);
    assert!(is_asked_for(&setup.rotation));
}

#[test]
fn a_key_that_a_probe_saw_refused_is_gone() {
    let setup = staged();
    setup.answers.accept(2);
    drop(setup.rotation.verify_now().unwrap());
    setup.answers.refuse(2);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::KeyRefused { .. }));
    let aborted = setup.rotation.abort_now().unwrap().to_string();
    assert!(aborted.ends_with("the issuer refuses it, so that there is nothing to delete"), "{aborted}");
    setup.clock.advance(HOUR);
    drop(setup.rotation.verify_now().unwrap());
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Nothing { .. }));
}

#[test]
fn a_key_that_was_given_up_and_leaks_is_deleted_at_once() {
    let setup = staged();
    setup.rotation.abort_now().unwrap();
    let leaked = setup.rotation.compromise(name(2)).unwrap();
    assert!(
        leaked.was_held()
            && leaked.transition().event().name.as_deref() == Some("production-shop-2026-11-r2"),
        "{leaked}"
    );
    assert!(says(&setup.rotation).starts_with("delete the leaked key named production-shop-2026-11-r2"));
    setup.rotation.confirm_deleted(name(2)).unwrap();
    drop(setup.rotation.verify_now().unwrap());
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Nothing { .. }));
}

#[test]
fn later_rotations_do_not_make_it_forgotten() {
    let setup = staged();
    setup.rotation.abort_now().unwrap();
    for number in 3..20 {
        setup.rotation.stage(&key(number)).unwrap();
        setup.answers.accept(number);
        drop(setup.rotation.verify_now().unwrap());
        setup.rotation.promote_now().unwrap();
        setup.clock.advance(HOUR);
        setup.answers.refuse(setup.slots()[2].unwrap());
        assert!(matches!(setup.rotation.retire_now().unwrap(), Retirement::Retired { .. }));
    }
    assert_eq!(setup.rotation.status().unwrap().keys().retired().len(), 16);
    assert!(is_asked_for(&setup.rotation), "{}", says(&setup.rotation));
}

#[test]
fn a_new_key_that_is_due_does_not_wait_for_it() {
    let setup = promoted();
    setup.clock.advance(90 * 24 * HOUR);
    setup.rotation.roll_back_now().unwrap();
    setup.rotation.abort_now().unwrap();
    let said = says(&setup.rotation);
    assert!(said.contains("create a key named"), "{said}");
}
