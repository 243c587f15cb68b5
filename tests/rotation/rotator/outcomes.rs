//! What each answer of the issuer comes to at each step.

use keysheath::failure::{Answer, Meaning, Obstacle};
use keysheath::handle::NoActiveKey;
use keysheath::key::StoreId;
use keysheath::keyset::{KeySetError, KeyState};
use keysheath::probe::Finding;
use keysheath::rotation::{AuditAction, KeyDetails, NextStep, Retirement, RotationError, Verification};

use super::*;

/// What is persisted, byte for byte.
fn document(setup: &Setup<MemoryStore>) -> Vec<u8> {
    setup.store.read().unwrap().unwrap().content().expose_secret().to_vec()
}

fn retire(setup: &Setup<MemoryStore>) -> Retirement {
    setup.rotation.retire_now().unwrap()
}

/// Answers that say nothing about a key.
fn silences() -> Vec<Report> {
    let mut all = vec![
        silent(),
        answer(429, Meaning::RateLimited),
        answer(503, Meaning::Inconclusive),
        answer(401, Meaning::KeyMissing),
        answer(401, Meaning::Inconclusive),
        Report::new(Finding::new(Err(Obstacle::Deadline { after: Duration::from_secs(1) }))),
        Report::new(Finding::new(Err(Obstacle::WebPage { status: 200 }))),
    ];
    all.push(accepted().with_finding(Finding::new(Err(Obstacle::Unreachable))));
    all
}

#[test]
fn each_step_of_a_whole_rotation_is_published_and_reported() {
    let setup = adopted();
    let Setup { rotation, handle, answers, clock, .. } = &setup;
    assert_eq!(sent(handle), Some(1));
    let staged = rotation.stage(KeyDetails::new(&key(2)).with_note("spring")).unwrap();
    assert_eq!(
        (staged.transition().event().fingerprint, staged.transition().state()),
        (Some(name(2)), Some(KeyState::Pending))
    );
    assert_eq!(staged.rotation().to_string(), "2");
    assert_eq!(sent(handle), Some(1));
    answers.accept(2);
    assert!(matches!(rotation.verify_now().unwrap(), Verification::Verified { .. }));
    let transition = rotation.promote_now().unwrap();
    assert_eq!(transition.state(), Some(KeyState::Current));
    assert!(transition.is_published() && transition.is_change() && transition.unaudited().is_none());
    assert_eq!((sent(handle), setup.slots()), (Some(2), [Some(2), None, Some(1)]));
    assert!(handle.load().unwrap().previous().is_some(), "within its grace");
    rotation.roll_back_now().unwrap();
    assert_eq!((sent(handle), setup.slots()), (Some(1), [Some(1), Some(2), None]));
    assert_eq!(rotation.promote_now(), Err(RotationError::Refused(KeySetError::Unverified)));
    assert!(matches!(rotation.verify_now().unwrap(), Verification::Verified { .. }));
    rotation.promote_now().unwrap();
    clock.advance(3_600);
    answers.refuse(1);
    let Retirement::Retired { transition, .. } = retire(&setup) else { panic!("it was deleted") };
    assert_eq!(
        (transition.event().fingerprint, transition.state()),
        (Some(name(1)), Some(KeyState::Retired))
    );
    assert!(handle.load().unwrap().previous().is_none());
    rotation.stage(&key(3)).unwrap();
    rotation.abort_now().unwrap();
    assert_eq!((sent(handle), setup.slots()), (Some(2), [Some(2), None, None]));
    rotation.compromise_with_note(name(2), "in a log").unwrap();
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
    assert_eq!(
        setup.actions(),
        [
            "adopted",
            "staged",
            "verified",
            "promoted",
            "rolled back",
            "verified",
            "promoted",
            "retired",
            "staged",
            "aborted",
            "compromised",
        ]
    );
    let events = setup.events.lock().unwrap();
    assert!(
        events.iter().all(|event| event.by.as_deref() == Some("anna") && event.store == "memory document")
    );
    assert!(events.iter().all(|event| !event.is_repeat));
}

#[test]
fn every_step_that_is_done_again_changes_nothing_and_says_so() {
    type Do = fn(&Rotation<Kanal>) -> Result<keysheath::rotation::Transition, RotationError>;
    let setup = adopted();
    setup.answers.accept(2);
    let steps: [(Do, &str); 8] = [
        (|rotation| rotation.adopt(&key(1)), "adopted"),
        (|rotation| rotation.stage(&key(2)).map(|staged| staged.transition().clone()), "staged"),
        (
            |rotation| match rotation.verify_now()? {
                Verification::Verified { transition, .. } => Ok(transition),
                other => panic!("{other}"),
            },
            "verified",
        ),
        (Rotation::promote_now, "promoted"),
        (Rotation::roll_back_now, "rolled back"),
        (Rotation::promote_unverified_now, "promoted unverified"),
        (Rotation::retire_unprobed_now, "retired unprobed"),
        (|rotation| rotation.compromise(name(9)).map(|leak| leak.transition().clone()), "compromised"),
    ];
    for (step, action) in steps {
        step(&setup.rotation).unwrap();
        let before = document(&setup);
        // By the same one, and by the next process after a death between the step and its answer.
        for rotation in [&setup.rotation, &setup.another().0] {
            let again = step(rotation).unwrap_or_else(|error| panic!("{action}: {error}"));
            assert!(!again.is_change() && again.to_string().starts_with("already done before: "), "{again}");
            assert_eq!(document(&setup), before, "{action}");
            let event = setup.events.lock().unwrap().last().cloned().unwrap();
            assert!(event.is_repeat && event.action.to_string() == action, "{event}");
        }
    }
    setup.rotation.stage(&key(3)).unwrap();
    setup.rotation.abort_now().unwrap();
    let before = document(&setup);
    assert!(!setup.rotation.abort_now().unwrap().transition().is_change());
    assert!(!setup.another().0.abort_now().unwrap().transition().is_change());
    assert!(matches!(retire(&setup), Retirement::Retired { transition, .. } if !transition.is_change()));
    assert_eq!(document(&setup), before);
}

#[test]
fn an_answer_that_says_nothing_changes_nothing_at_any_step() {
    let setup = staged();
    let before = document(&setup);
    for report in silences() {
        setup.answers.set(2, report.clone());
        let verification = setup.rotation.verify_now().unwrap();
        assert!(matches!(verification, Verification::Inconclusive { report: seen, .. } if seen == report));
    }
    assert_eq!(document(&setup), before);
    let setup = promoted();
    setup.clock.advance(86_400);
    let before = setup.actions();
    for silence in silences() {
        let before = document(&setup);
        setup.answers.set(2, silence.clone());
        setup.answers.set(1, silence.clone());
        assert!(matches!(retire(&setup), Retirement::Undecided { .. }));
        assert_eq!(document(&setup), before);
        for other in [accepted(), refused()] {
            for (current, previous) in [(silence.clone(), other.clone()), (other.clone(), silence.clone())] {
                setup.answers.set(2, current.clone());
                setup.answers.set(1, previous.clone());
                let Retirement::Undecided { current: new, previous: old, .. } = retire(&setup) else {
                    panic!()
                };
                assert_eq!((new, old), (current, previous));
                assert_eq!(setup.slots(), [Some(2), None, Some(1)]);
                assert_eq!(sent(&setup.handle), Some(2));
            }
        }
    }
    let new: Vec<String> = setup.actions()[before.len()..].to_vec();
    assert!(!new.is_empty() && new.iter().all(|action| action == "active key refused"), "{new:?}");
}

#[test]
fn a_refused_store_says_nothing_about_the_key() {
    let setup = staged();
    let report = forbidden();
    setup.answers.set(2, report.clone());
    let verification = setup.rotation.verify_now().unwrap();
    assert!(matches!(verification, Verification::StoreRefused { report: seen, .. } if seen == report));
    assert_eq!(setup.rotation.promote_now(), Err(RotationError::Refused(KeySetError::Unverified)));
    assert_eq!(setup.actions().last().unwrap(), "store refused");
    let setup = promoted();
    setup.clock.advance(86_400);
    for (current, previous) in [
        (forbidden(), refused()),
        (forbidden(), accepted()),
        (accepted(), forbidden()),
        (refused(), forbidden()),
        (forbidden(), forbidden()),
    ] {
        setup.answers.set(2, current);
        setup.answers.set(1, previous);
        assert!(matches!(retire(&setup), Retirement::Undecided { .. }));
    }
    assert_eq!(setup.slots(), [Some(2), None, Some(1)]);
}

#[test]
fn a_key_for_one_of_two_stores_fails_and_the_other_is_named() {
    let setup = staged();
    let at = |meaning, status, store| {
        Finding::new(Ok(Answer::new(status, meaning))).with_store(StoreId::new(store).unwrap())
    };
    let report =
        Report::new(at(Meaning::Accepted, 201, 123)).with_finding(at(Meaning::StoreForbidden, 403, 124));
    setup.answers.set(2, report);
    let verification = setup.rotation.verify_now().unwrap();
    assert!(matches!(verification, Verification::StoreRefused { .. }));
    assert!(verification.to_string().contains("store 124: 403"), "{verification}");
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Verify { .. }));
}

#[test]
fn a_refusal_just_after_staging_means_not_yet_and_later_bad() {
    let setup = staged();
    setup.answers.refuse(2);
    let before = document(&setup);
    setup.clock.advance(119);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::NotYet { .. }));
    // Set back, the clock cannot tell how old the key is.
    setup.clock.set_back(365 * 86_400);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::NotYet { .. }));
    setup.clock.advance(365 * 86_400 + 1);
    assert!(!setup.actions().contains(&"key refused".to_owned()));
    assert_eq!(document(&setup), before);
    let Verification::KeyRefused { state, next, .. } = setup.rotation.verify_now().unwrap() else { panic!() };
    assert_eq!(setup.actions().last().unwrap(), "key refused");
    assert_eq!(state, KeyState::Pending);
    assert!(matches!(*next, NextStep::Abort { .. }), "{next}");
    assert_eq!(setup.another().0.next_step().unwrap(), *next, "every other process knows");
}

#[test]
fn a_working_previous_key_is_overdue_after_the_settle_time() {
    let setup = promoted();
    for (seconds, expected) in [(0, false), (899, false), (1, true)] {
        setup.clock.advance(seconds);
        let kept = retire(&setup);
        assert!(
            matches!(kept, Retirement::StillAccepted { is_overdue, .. } if is_overdue == expected),
            "{kept}"
        );
    }
    assert_eq!(setup.slots(), [Some(2), None, Some(1)]);
    assert_eq!(setup.actions().iter().filter(|action| *action == "still accepted").count(), 1);
}

#[test]
fn deleting_the_wrong_key_restores_the_previous_with_a_warning() {
    for with_pending in [false, true] {
        let setup = promoted();
        if with_pending {
            setup.rotation.stage(&key(3)).unwrap();
        }
        setup.clock.advance(3_600);
        setup.answers.refuse(2);
        let version = *setup.store.read().unwrap().unwrap().version();
        let retirement = retire(&setup);
        let Retirement::WrongKeyDeleted { transition, deleted, active, .. } = &retirement else {
            panic!("{retirement}")
        };
        assert_eq!((*deleted, *active), (name(2), name(1)));
        assert!(transition.is_published() && retirement.to_string().contains("THE WRONG KEY WAS DELETED"));
        let pending = with_pending.then_some(3);
        assert_eq!((sent(&setup.handle), setup.slots()), (Some(1), [Some(1), pending, None]));
        assert_eq!(place(&setup.store, 2), Some(KeyState::Retired));
        let event = setup.events.lock().unwrap().last().cloned().unwrap();
        assert!(event.action == AuditAction::FellBack && event.action.is_problem());
        assert_eq!(event.fingerprint, Some(name(2)));
        // In one write.
        let one_more = format!("{:?}", setup.store.read().unwrap().unwrap().version());
        let number =
            |shown: String| shown.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap();
        assert_eq!(number(one_more), number(format!("{version:?}")) + 1);
        // The key that is gone does not come back.
        let known = KeySetError::Known { state: KeyState::Retired };
        if !with_pending {
            assert_eq!(setup.rotation.stage(&key(2)), Err(RotationError::Refused(known)));
        }
    }
}

#[test]
fn an_active_key_unknown_to_the_issuer_yet_is_not_replaced() {
    let setup = staged();
    setup.rotation.promote_unverified_now().unwrap();
    setup.answers.refuse(2);
    assert!(matches!(retire(&setup), Retirement::Undecided { .. }));
    setup.answers.refuse(1);
    assert!(matches!(retire(&setup), Retirement::Undecided { .. }));
    assert_eq!(setup.slots(), [Some(2), None, Some(1)]);
}

#[test]
fn two_refused_keys_change_nothing_and_the_operator_gets_advice() {
    let setup = promoted();
    setup.clock.advance(3_600);
    setup.answers.refuse(1);
    setup.answers.refuse(2);
    let before = document(&setup);
    let retirement = retire(&setup);
    let Retirement::BothRefused { current, previous, next, .. } = &retirement else { panic!("{retirement}") };
    assert_eq!((*current, *previous), (name(2), name(1)));
    assert!(retirement.to_string().contains("; the issuer refuses the active key, "), "{retirement}");
    assert_eq!(setup.slots(), [Some(2), None, Some(1)]);
    assert_ne!(document(&setup), before, "every other process is to know");
    assert_eq!(setup.actions().last().unwrap(), "both refused");
    // What it says can be done, and each next step leads on.
    assert_eq!(setup.another().0.next_step().unwrap(), **next);
    assert!(matches!(**next, NextStep::Create { .. }));
    setup.rotation.stage(&key(3)).unwrap();
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Verify { state: KeyState::Pending, .. }));
    setup.answers.accept(3);
    assert!(matches!(setup.rotation.verify_now().unwrap(), Verification::Verified { .. }));
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Promote { .. }));
    setup.rotation.promote_now().unwrap();
    assert_eq!((sent(&setup.handle), setup.slots()), (Some(3), [Some(3), None, Some(2)]));
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Confirm { .. }));
    assert!(matches!(retire(&setup), Retirement::Retired { .. }));
}

#[test]
fn a_leaked_key_is_replaced_without_a_probe_and_never_returns() {
    let store = MemoryStore::new();
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    let transition = rotation.compromise(name(1)).unwrap();
    assert!(transition.to_string().contains("delete it now in Kanal (Settings → API Keys)"), "{transition}");
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
    assert_eq!(slots(&store), [None, Some(2), None]);
    let known = RotationError::Refused(KeySetError::InProgress {
        rotation: rotation.status().unwrap().keys().pending().unwrap().rotation(),
        since: rotation.status().unwrap().keys().pending().unwrap().staged(),
        by: "an unnamed operator".to_owned(),
    });
    assert_eq!(rotation.stage(&key(1)), Err(known));
    rotation.promote_unverified_now().unwrap();
    assert_eq!(sent(&handle), Some(2));
    let known = RotationError::Refused(KeySetError::Known { state: KeyState::Compromised });
    assert_eq!(rotation.stage(&key(1)), Err(known));
    assert_eq!(rotation.adopt(&key(1)), Err(RotationError::Refused(KeySetError::HasKeys)));
    // A previous key takes over, and what leaked as previous is gone.
    rotation.stage(&key(3)).unwrap();
    rotation.promote_unverified_now().unwrap();
    rotation.compromise(name(3)).unwrap();
    assert_eq!((sent(&handle), slots(&store)), (Some(2), [Some(2), None, None]));
    // One that is known by its name alone.
    rotation.compromise(name(9)).unwrap();
    assert!(rotation.stage(&key(9)).is_err());
    assert_eq!(rotation.status().unwrap().keys().compromised(), [name(1), name(3), name(9)]);
}

#[test]
fn a_leak_before_the_first_active_key_leaves_the_set_usable() {
    let setup = empty();
    setup.rotation.compromise(name(9)).unwrap();
    assert_eq!(setup.handle.load().unwrap_err(), NoActiveKey::NoKey);
    let (rotation, handle) = setup.another();
    rotation.adopt(&key(1)).unwrap();
    assert_eq!(sent(&handle), Some(1));
}

#[test]
fn without_a_probe_only_steps_that_need_one_are_refused() {
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    assert_eq!(rotation.verify_now(), Err(RotationError::NoProbe));
    assert_eq!(rotation.retire_now(), Err(RotationError::NoProbe));
    rotation.promote_unverified_now().unwrap();
    let retired = rotation.retire_unprobed_now().unwrap();
    assert_eq!(retired.event().fingerprint, Some(name(1)));
    assert_eq!(sent(&handle), Some(2));
}

#[test]
fn a_key_in_force_that_was_not_verified_can_be_verified_there() {
    let setup = staged();
    setup.rotation.promote_unverified_now().unwrap();
    setup.clock.advance(3_600);
    let Ok(NextStep::Verify { key, state, .. }) = setup.rotation.next_step() else { panic!() };
    assert_eq!((key.fingerprint(), state), (name(2), KeyState::Current));
    setup.answers.accept(2);
    let Ok(Verification::Verified { transition, .. }) = setup.rotation.verify_now() else { panic!() };
    assert_eq!(transition.state(), Some(KeyState::Current));
    assert!(matches!(setup.rotation.next_step().unwrap(), NextStep::Delete { .. }));
}

#[test]
fn a_key_that_is_not_known_yet_is_not_to_be_created_again() {
    let setup = staged();
    let verification = setup.rotation.verify_now().unwrap();
    assert!(matches!(verification, Verification::NotYet { .. }));
    let said = verification.to_string();
    assert!(said.ends_with("verify it again in a moment") && !said.contains("create"), "{said}");
}

#[test]
fn a_refused_previous_key_alone_raises_no_alarm() {
    let setup = promoted();
    let generation = setup.handle.load().unwrap().generation();
    drop(setup.rotation.verify_now().unwrap());
    setup.answers.refuse(1);
    // A probe saw that, and had no answer about the active key.
    setup.answers.set(2, silent());
    assert!(matches!(setup.rotation.retire_now().unwrap(), Retirement::Undecided { .. }));
    assert!(setup.rotation.status().unwrap().keys().previous().unwrap().refused().is_some());
    assert!(setup.events.lock().unwrap().iter().all(|event| !event.action.is_problem()));
    setup.answers.accept(2);
    let said = setup.rotation.next_step().unwrap().to_string();
    assert!(said.starts_with(&format!("the issuer refuses the previous key, the key {}", name(1))), "{said}");
    setup.handle.report_refused(generation);
    let said = setup.rotation.next_step().unwrap().to_string();
    assert!(said.starts_with("the issuer has refused the active key, the key named"), "{said}");
    let retired = setup.rotation.retire_now().unwrap().to_string();
    assert!(retired.contains(&format!("{} (replaced by rotation 2)", name(1))), "{retired}");
    let event = setup.events.lock().unwrap().last().unwrap().to_string();
    assert!(event.contains(&format!("{} (replaced by rotation 2)", name(1))), "{event}");
}

#[test]
fn what_was_deleted_by_mistake_is_said_once() {
    let setup = promoted();
    drop(setup.rotation.verify_now().unwrap());
    setup.answers.refuse(2);
    let retirement = setup.rotation.retire_now().unwrap();
    assert!(matches!(retirement, Retirement::WrongKeyDeleted { .. }));
    let said = retirement.to_string();
    assert_eq!((said.matches("do not delete").count(), said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("create a key named production-shop-2026-11-r3"), "{said}");
    // A later rotation that is given up ends the reason.
    setup.rotation.stage(&key(3)).unwrap();
    setup.rotation.abort_now().unwrap();
    let said = setup.rotation.next_step().unwrap().to_string();
    assert!(!said.contains("the new key was deleted"), "{said}");
}
