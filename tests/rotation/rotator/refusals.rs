//! Refusals that every process knows of, and a leak that is stopped before it is written down.

use std::sync::atomic::AtomicBool;

use keysheath::handle::NoActiveKey;
use keysheath::rotation::{
    NextStep, Presence, PresenceSettings, Reason, Retirement, RotationError, Verification,
};
use keysheath::source::{Problem, Provenance};
use keysheath::store::{Document, DocumentContent, DocumentError, Version};

use super::*;
use crate::support::stores::pass_on;

fn next(rotation: &Rotation<Kanal>) -> NextStep {
    rotation.next_step().unwrap()
}

#[test]
fn a_refusal_that_one_tool_saw_is_known_to_the_next() {
    let setup = adopted();
    setup.clock.advance(86_400);
    setup.answers.refuse(1);
    let Verification::KeyRefused { state, next: advice, .. } = setup.rotation.verify_now().unwrap() else {
        panic!()
    };
    assert_eq!(state, KeyState::Current);
    assert_eq!(setup.actions().last().unwrap(), "active key refused");
    let (other, _) = setup.another();
    let step = next(&other);
    assert!(matches!(&step, NextStep::Create { reason: Reason::Refused { .. }, .. }), "{step}");
    assert_eq!(step, *advice, "the outcome gave the same advice");
    assert!(other.status().unwrap().to_string().contains("REFUSED: the issuer has refused the active key"));
    // The advice can be followed to its end.
    other.stage(&key(2)).unwrap();
    setup.answers.accept(2);
    drop(other.verify_now().unwrap());
    other.promote_now().unwrap();
    assert!(matches!(next(&other), NextStep::Confirm { .. }));
    assert!(matches!(other.retire_now().unwrap(), Retirement::Retired { .. }));
    assert!(matches!(next(&setup.rotation), NextStep::Nothing { .. }));
}

#[test]
fn an_active_and_a_pending_key_that_are_refused_are_told_apart() {
    let setup = staged();
    setup.clock.advance(86_400);
    setup.answers.refuse(2);
    let pending = setup.rotation.verify_now().unwrap().to_string();
    assert!(
        pending.starts_with("the pending key does not work; the issuer refuses the key named "),
        "{pending}"
    );
    assert!(pending.contains("abort it, and create another"), "{pending}");
    setup.rotation.abort_now().unwrap();
    setup.answers.refuse(1);
    let active = setup.rotation.verify_now().unwrap().to_string();
    assert!(active.starts_with("THE ISSUER REFUSES THE ACTIVE KEY"), "{active}");
    assert!(active.contains("create a key named ") && !active.contains("abort"), "{active}");
    // With a previous key there is one to fall back to, and a step that does.
    let setup = promoted();
    setup.answers.refuse(2);
    let active = setup.rotation.verify_now().unwrap().to_string();
    assert!(active.contains("retire the previous key now"), "{active}");
    assert!(matches!(setup.rotation.retire_now().unwrap(), Retirement::WrongKeyDeleted { .. }));
}

#[test]
fn a_key_that_is_accepted_again_is_mentioned_no_more() {
    let setup = adopted();
    setup.clock.advance(86_400);
    setup.answers.refuse(1);
    drop(setup.rotation.verify_now().unwrap());
    setup.answers.accept(1);
    drop(setup.another().0.verify_now().unwrap());
    let status = setup.rotation.status().unwrap();
    assert!(!status.is_active_key_refused() && !status.to_string().contains("REFUSED"), "{status}");
    setup.clock.advance(60 * 86_400);
    assert!(matches!(next(&setup.rotation), NextStep::Nothing { .. }));
    // Earlier answers to this process's requests are superseded by later ones.
    let generation = setup.handle.load().unwrap().generation();
    setup.handle.report_refused(generation);
    assert!(matches!(next(&setup.rotation), NextStep::Refused { .. }));
    assert_eq!(setup.actions().last().unwrap(), "active key refused");
    let before = setup.actions().len();
    assert!(matches!(next(&setup.rotation), NextStep::Refused { .. }));
    assert_eq!(setup.actions().len(), before, "the audit records it once");
    drop(setup.rotation.verify_now().unwrap());
    assert!(matches!(next(&setup.rotation), NextStep::Nothing { .. }));
}

#[test]
fn a_refusal_that_a_process_of_the_fleet_shows_is_told() {
    let presence = MemoryStore::new();
    let setup = adopted();
    let (tool, _) = setup.another();
    let tool = tool.with_presence(presence.clone()).with_clock(SystemTime::now);
    assert!(matches!(next(&tool), NextStep::Nothing { .. }));
    setup.handle.report_refused(setup.handle.load().unwrap().generation());
    let shown = Presence::show(presence, &setup.handle, PresenceSettings::new("shop-7")).unwrap();
    let step = next(&tool);
    assert!(matches!(step, NextStep::Refused { has_probe: true, .. }), "{step}");
    assert_eq!(setup.actions().last().unwrap(), "active key refused");
    drop(shown);
    assert!(matches!(next(&tool), NextStep::Nothing { .. }));
}

#[test]
fn a_refused_active_key_without_a_probe_asks_for_no_deletion() {
    let setup = promoted();
    let clock = setup.clock.clone();
    let rotation = Rotation::<Kanal>::open(setup.store.clone(), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    let rotation = rotation.with_clock(move || clock.now());
    setup.clock.advance(86_400);
    assert!(matches!(next(&rotation), NextStep::Delete { .. }));
    handle.report_refused(handle.load().unwrap().generation());
    let step = next(&rotation);
    assert!(matches!(step, NextStep::Refused { previous: Some(_), has_probe: false, .. }), "{step}");
    assert!(step.to_string().contains("do not delete the previous one"), "{step}");
    // What a probe has noted counts for a process without one as well.
    let setup = promoted();
    let clock = setup.clock.clone();
    let rotation = Rotation::<Kanal>::open(setup.store.clone(), RotationPolicy::new());
    let rotation = rotation.unwrap().with_clock(move || clock.now());
    setup.clock.advance(86_400);
    setup.answers.refuse(2);
    drop(setup.rotation.verify_now().unwrap());
    assert!(matches!(next(&rotation), NextStep::Refused { .. }));
}

#[test]
fn the_only_good_key_is_never_asked_to_be_deleted() {
    let policy = RotationPolicy::new().with_grace(Duration::ZERO).with_settle(Duration::from_secs(10));
    let (clock, answers) = (Clock::new(), Answers::default());
    let now = clock.clone();
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), policy)
        .unwrap()
        .with_clock(move || now.now())
        .with_probe(answers.clone());
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    answers.accept(1);
    answers.accept(2);
    drop(rotation.verify_now().unwrap());
    rotation.promote_now().unwrap();
    clock.advance(12);
    // The new key was accepted before, so its refusal is none of "not yet".
    answers.refuse(2);
    let retired = rotation.retire_now().unwrap();
    let Retirement::WrongKeyDeleted { active, next: advice, .. } = &retired else { panic!("{retired}") };
    assert_eq!((*active, sent(&rotation.handle())), (name(1), Some(1)));
    assert!(matches!(**advice, NextStep::Create { reason: Reason::FellBack, .. }), "{retired}");
    for _ in 0..20 {
        let step = next(&rotation);
        assert!(matches!(step, NextStep::Create { reason: Reason::FellBack, .. }), "{step}");
        clock.advance(60);
    }
    rotation.stage(&key(3)).unwrap();
    assert!(matches!(next(&rotation), NextStep::Verify { .. }));
}

/// A store that can be cut off.
#[derive(Clone, Default)]
struct CutOff {
    store: MemoryStore,
    reads: Arc<AtomicBool>,
    writes: Arc<AtomicBool>,
}

impl CutOff {
    fn check(is_cut_off: &AtomicBool) -> Result<(), DocumentError> {
        let away = DocumentError::Unavailable(Problem::Unreachable);
        if is_cut_off.load(Ordering::SeqCst) { Err(away) } else { Ok(()) }
    }
}

impl DocumentStore for CutOff {
    pass_on!(store: limit);

    fn provenance(&self) -> Provenance {
        Provenance::other("cut off", "store")
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        Self::check(&self.reads)?;
        self.store.read()
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        Self::check(&self.writes)?;
        self.store.write(content, unchanged)
    }
}

#[test]
fn a_leaked_key_is_stopped_here_although_the_store_fails() {
    for is_silent in [false, true] {
        let setup = Setup::over(CutOff::default());
        setup.rotation.adopt(&key(1)).unwrap();
        setup.rotation.stage(&key(2)).unwrap();
        setup.rotation.promote_unverified_now().unwrap();
        let (_, elsewhere) = setup.another();
        setup.store.writes.store(true, Ordering::SeqCst);
        setup.store.reads.store(is_silent, Ordering::SeqCst);
        for _ in 0..2 {
            let error = setup.rotation.compromise(name(2)).unwrap_err();
            assert!(
                matches!(error, RotationError::LeakNotPersisted { fingerprint, .. } if fingerprint == name(2))
            );
            assert!(error.to_string().contains("other processes do not know yet"), "{error}");
            assert_eq!(sent(&setup.handle), Some(1), "the previous key takes over here");
        }
        setup.store.reads.store(false, Ordering::SeqCst);
        // Neither reading it again nor a refresher of the same handle brings it back.
        setup.rotation.status().unwrap();
        drop(setup.rotation.start_refresher(RefreshSettings::new()));
        assert_eq!(sent(&setup.handle), Some(1));
        assert_eq!(sent(&elsewhere), Some(2), "nothing tells other processes but the store");
        // Done again, the previous key takes over.
        setup.store.writes.store(false, Ordering::SeqCst);
        assert!(setup.rotation.compromise(name(2)).unwrap().was_held());
        assert_eq!((sent(&setup.handle), setup.slots()), (Some(1), [Some(1), None, None]));
    }
}

#[test]
fn a_leak_of_the_only_key_closes_the_handle_if_the_store_fails() {
    let setup = Setup::over(CutOff::default());
    setup.rotation.adopt(&key(1)).unwrap();
    setup.store.writes.store(true, Ordering::SeqCst);
    let error = setup.rotation.compromise(name(1)).unwrap_err();
    assert!(matches!(error, RotationError::LeakNotPersisted { .. }), "{error}");
    assert_eq!(setup.handle.load().unwrap_err(), NoActiveKey::Compromised);
    setup.rotation.status().unwrap();
    assert!(setup.handle.load().is_err(), "looking does not bring it back");
}

#[test]
fn a_leaked_key_that_is_not_sent_stops_nothing() {
    let setup = Setup::over(CutOff::default());
    setup.rotation.adopt(&key(1)).unwrap();
    setup.store.writes.store(true, Ordering::SeqCst);
    let error = setup.rotation.compromise(name(9)).unwrap_err();
    assert!(matches!(error, RotationError::Unsure { .. }), "{error}");
    assert_eq!(sent(&setup.handle), Some(1));
    // A note that is refused is refused before anything is stopped.
    let error = setup.rotation.compromise_with_note(name(1), "two\nlines").unwrap_err();
    assert!(matches!(error, RotationError::Refused(_)), "{error}");
    assert_eq!(sent(&setup.handle), Some(1));
}
