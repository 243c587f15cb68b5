//! Ages, waits, what the operator sees, and clocks that go wrong.

use keysheath::key::Katana;
use keysheath::keyset::KeyState;
use keysheath::rotation::{NextStep, Reason, Retirement, RotationStatus};

use super::*;

const DAY: u64 = 86_400;

fn next(setup: &Setup<MemoryStore>) -> NextStep {
    setup.rotation.next_step().unwrap()
}

#[track_caller]
fn says(setup: &Setup<MemoryStore>, text: &str) {
    assert_eq!(next(setup).to_string(), text);
}

#[test]
fn a_person_is_led_through_a_rotation_word_by_word() {
    let setup = empty();
    says(
        &setup,
        "there is no active key: adopt the one in use, or create a key named production-shop-2026-11-r1 in \
         Kanal (Settings → API Keys → Add API key), then stage it",
    );
    setup.rotation.adopt(&key(1)).unwrap();
    setup.answers.accept(1);
    says(&setup, "nothing to do until 2027-02-22");
    setup.clock.advance(76 * DAY);
    says(
        &setup,
        "the active key must be replaced by 2027-02-22: create a key named production-shop-2027-02-r2 in \
         Kanal (Settings → API Keys → Add API key), then stage it",
    );
    setup.clock.advance(14 * DAY);
    let Reason::Overdue { due, .. } = (match next(&setup) {
        NextStep::Create { reason, .. } => reason,
        other => panic!("{other}"),
    }) else {
        panic!("it is overdue")
    };
    assert_eq!(due, setup.clock.now());
    setup.rotation.stage(&key(2)).unwrap();
    let two = name(2);
    says(&setup, &format!("verify the pending key {two} (rotation 2), or abort it"));
    setup.answers.accept(2);
    let _ = setup.rotation.verify_now().unwrap();
    says(&setup, &format!("promote the verified key {two} (rotation 2)"));
    setup.rotation.promote_now().unwrap();
    let one = name(1);
    says(
        &setup,
        &format!(
            "wait, and keep the key {one}: other processes have 15 minutes to take up the active key, if \
             this process keeps running; otherwise ask again after 2027-02-22T09:40:31Z"
        ),
    );
    setup.clock.advance(15 * 60);
    says(
        &setup,
        &format!(
            "verify the active key, {two} (rotation 2), before the old one is deleted; if it does not work, \
             roll back"
        ),
    );
    let _ = setup.rotation.verify_now().unwrap();
    says(
        &setup,
        &format!(
            "delete the key with fingerprint {one} in Kanal (Settings → API Keys): the one taken in on \
             2026-11-24, and not the key named production-shop-2027-02-r2 ({two}); then retire it, and \
             keysheath will confirm that the right one is gone"
        ),
    );
    setup.answers.refuse(1);
    assert!(matches!(setup.rotation.retire_now().unwrap(), Retirement::Retired { .. }));
    assert!(matches!(next(&setup), NextStep::Nothing { .. }));
    setup.rotation.compromise(two).unwrap();
    says(
        &setup,
        &format!(
            "there is no active key, because the only one leaked: first delete the key named \
             production-shop-2027-02-r2 (fingerprint {two}) in Kanal (Settings → API Keys); then create a \
             key named production-shop-2027-02-r3 in Kanal (Settings → API Keys → Add API key), then stage \
             it"
        ),
    );
}

#[test]
fn no_key_is_retired_while_a_local_request_still_uses_it() {
    let setup = staged();
    let request = setup.handle.load().unwrap();
    setup.answers.accept(2);
    let _ = setup.rotation.verify_now().unwrap();
    setup.rotation.promote_now().unwrap();
    setup.clock.advance(DAY);
    let NextStep::Wait { remaining, is_drained, .. } = next(&setup) else { panic!() };
    assert_eq!((remaining, is_drained), (Duration::ZERO, false));
    assert!(next(&setup).to_string().ends_with("requests of this process still hold it"));
    drop(request);
    let _ = setup.rotation.verify_now().unwrap();
    let NextStep::Delete { key, keep, is_confirmed, .. } = next(&setup) else { panic!() };
    assert_eq!((key.note(), keep.fingerprint(), is_confirmed), (None, name(2), true));
}

#[test]
fn a_deletion_is_requested_only_after_the_new_key_worked() {
    let setup = staged();
    setup.rotation.promote_unverified_now().unwrap();
    setup.clock.advance(DAY);
    assert!(matches!(next(&setup), NextStep::Verify { state: KeyState::Current, .. }));
    // Another process of this key set, without a probe: the person has to see for themselves.
    let clock = setup.clock.clone();
    let rotation = Rotation::<Kanal>::open(setup.store.clone(), RotationPolicy::new())
        .unwrap()
        .with_clock(move || clock.now());
    let step = rotation.next_step().unwrap().to_string();
    let first = format!("first check yourself that the key {} works for every store; then delete", name(2));
    assert!(step.starts_with(&first) && step.ends_with("then retire it without a probe"), "{step}");
    rotation.roll_back_now().unwrap();
    assert!(matches!(rotation.next_step().unwrap(), NextStep::VerifyByHand { .. }));
}

#[test]
fn a_pending_key_does_not_hide_that_the_old_one_must_retire() {
    let setup = promoted();
    let _ = setup.rotation.verify_now().unwrap();
    setup.rotation.stage(&key(3)).unwrap();
    assert!(matches!(next(&setup), NextStep::Wait { .. }));
    setup.clock.advance(DAY);
    assert!(matches!(next(&setup), NextStep::Delete { .. }));
}

#[test]
fn a_refusal_that_the_client_was_told_leads_to_a_look() {
    let setup = promoted();
    setup.handle.report_refused(setup.handle.load().unwrap().generation());
    assert!(matches!(next(&setup), NextStep::Confirm { .. }));
    let setup = adopted();
    setup.handle.report_refused(setup.handle.load().unwrap().generation());
    let NextStep::Refused { key, .. } = next(&setup) else { panic!() };
    assert_eq!(key.fingerprint(), name(1));
    let status = setup.rotation.status().unwrap();
    assert_eq!(status.refused(), status.keys().generation());
    assert!(status.to_string().contains("REFUSED"));
}

#[test]
fn an_issuer_of_other_words_is_named_in_them() {
    let rotation =
        Rotation::<Katana>::open(MemoryStore::new(), RotationPolicy::new().with_key_name("a\nb")).unwrap();
    let step = rotation.next_step().unwrap().to_string();
    assert!(step.contains("in Katana (") && step.contains("create a key named ab-"), "{step}");
}

#[test]
fn a_status_tells_ages_and_what_is_in_each_place() {
    let setup = staged();
    let at = |days: u64| -> RotationStatus {
        setup.rotation.status_at(setup.clock.now() + Duration::from_secs(days * DAY)).unwrap()
    };
    for (days, soon, overdue) in
        [(0, false, false), (75, false, false), (76, true, false), (89, true, false), (90, false, true)]
    {
        let status = at(days);
        assert_eq!((status.is_due_soon(), status.is_overdue()), (soon, overdue), "after {days} days");
        assert_eq!(status.age(), Some(Duration::from_secs(days * DAY)));
        assert_eq!(status.clock_behind(), None);
    }
    let status = setup.rotation.status().unwrap();
    assert_eq!(status.keys().current().unwrap().fingerprint(), name(1));
    assert_eq!(status.keys().current().unwrap().promoted(), Some(setup.clock.now()));
    let pending = status.keys().pending().unwrap();
    assert_eq!((pending.note(), pending.by()), (Some("spring"), Some("anna")));
    assert_eq!((pending.verified(), pending.demoted()), (None, None));
    assert!(status.keys().previous().is_none() && status.keys().retired().is_empty());
    let shown = status.to_string();
    assert!(shown.starts_with("kanal: generation 1\n  active: "), "{shown}");
    assert!(shown.contains("\n  pending: ") && shown.contains("note: spring"), "{shown}");
}

#[test]
fn a_clock_set_back_a_year_is_reported_and_nothing_is_overdue() {
    let setup = promoted();
    let _ = setup.rotation.verify_now().unwrap();
    setup.clock.advance(DAY);
    assert!(matches!(next(&setup), NextStep::Delete { .. }));
    setup.clock.set_back(366 * DAY);
    let status = setup.rotation.status().unwrap();
    assert_eq!(status.age(), Some(Duration::ZERO));
    assert!(!status.is_overdue() && !status.is_due_soon());
    assert_eq!(status.clock_behind(), Some(Duration::from_secs(365 * DAY)));
    assert!(status.to_string().contains("the clock is 365 days behind"), "{status}");
    // No person is asked to delete a key by such a clock, and a key that works is not overdue.
    assert!(
        matches!(next(&setup), NextStep::Wait { remaining, .. } if remaining == Duration::from_secs(900))
    );
    let kept = setup.rotation.retire_now().unwrap();
    assert!(matches!(kept, Retirement::StillAccepted { is_overdue: false, .. }));
    // The steps go on all the same.
    setup.answers.refuse(1);
    assert!(matches!(setup.rotation.retire_now().unwrap(), Retirement::Retired { .. }));
    setup.rotation.stage(&key(3)).unwrap();
    setup.answers.accept(3);
    let _ = setup.rotation.verify_now().unwrap();
    setup.rotation.promote_now().unwrap();
    assert_eq!(sent(&setup.handle), Some(3));
    setup.clock.advance(366 * DAY);
    assert!(setup.rotation.status().unwrap().is_overdue(), "by the right clock it is old");
}

#[test]
fn a_clock_before_1970_and_one_at_the_end_of_time_do_not_panic() {
    for now in [
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH - Duration::from_secs(DAY),
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX >> 1),
    ] {
        let setup = promoted();
        let rotation = setup.another().0.with_clock(move || now);
        drop(format!("{} {}", rotation.status().unwrap(), rotation.next_step().unwrap()));
        drop(rotation.retire_now().unwrap());
        drop(rotation.stage(&key(3)).unwrap().to_string());
        drop(rotation.roll_back_now());
        drop(format!("{} {}", rotation.status().unwrap(), rotation.next_step().unwrap()));
    }
    let policy = RotationPolicy::new().with_max_age(Duration::MAX).with_settle(Duration::MAX);
    let rotation = Rotation::<Kanal>::open(promoted().store, policy).unwrap();
    drop(format!("{} {}", rotation.status().unwrap(), rotation.next_step().unwrap()));
    let policy = RotationPolicy::new().with_max_age(Duration::MAX);
    let rotation = Rotation::<Kanal>::open(adopted().store, policy).unwrap();
    assert!(matches!(rotation.next_step().unwrap(), NextStep::Nothing { .. }));
}

/// As a command does that ends after each question.
#[test]
fn a_command_is_told_until_when_it_has_to_wait() {
    let setup = promoted();
    let says = || setup.another().0.next_step().unwrap().to_string();
    for _ in 0..2 {
        let said = says();
        assert!(said.ends_with("otherwise ask again after 2026-11-24T09:40:31Z"), "{said}");
        setup.clock.advance(20 * 60);
    }
    setup.clock.advance(5 * 60);
    assert!(!says().starts_with("wait"), "{}", says());
}

#[test]
fn the_wait_names_what_is_waited_for() {
    let setup = promoted();
    let policy = RotationPolicy::new().with_activation(Duration::from_secs(3_600));
    let clock = setup.clock.clone();
    let rotation = Rotation::<Kanal>::open(setup.store.clone(), policy).unwrap();
    let rotation = rotation.with_clock(move || clock.now());
    rotation.status().unwrap();
    setup.clock.advance(3);
    let said = rotation.next_step().unwrap().to_string();
    assert!(said.contains("to learn the active key, if this process keeps running"), "{said}");
    assert!(!said.contains("other processes"), "{said}");
}
