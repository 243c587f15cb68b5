//! A rotation whose key set is in the keychain, against a real Secret Service.

use std::env;
use std::path::PathBuf;

use keysheath::keyset::KeySetError;
use keysheath::rotation::{KeyDetails, NextStep, Retirement, RotationError, Verification};
use keysheath::source::{Keychain, Problem};
use keysheath::store::{DocumentError, KeychainStore};

use super::*;
use crate::support::canary::assert_hides;
use crate::support::secret_service::with_keychain;

/// Far more than a keychain takes to answer.
const PATIENCE: Duration = Duration::from_secs(60);

fn store() -> KeychainStore {
    let folder = PathBuf::from(env::var_os("XDG_RUNTIME_DIR").expect("runs in a session"));
    KeychainStore::new(Keychain::new().with_deadline(PATIENCE), "kanal-keys", folder.join("lock"))
        .with_deadline(PATIENCE)
}

fn setup() -> Setup<KeychainStore> {
    let setup = Setup::over(store());
    for number in [1, 2, 3] {
        setup.answers.accept(number);
    }
    setup
}

type Do = fn(&Setup<KeychainStore>) -> Result<(), RotationError>;

/// The steps of a life, and what is in the places after each.
const STEPS: [(Do, [Option<u64>; 3]); 11] = [
    (|setup| setup.rotation.adopt(&key(1)).map(drop), [Some(1), None, None]),
    (
        |setup| setup.rotation.stage(KeyDetails::new(&key(2)).with_note("spring")).map(drop),
        [Some(1), Some(2), None],
    ),
    (verify, [Some(1), Some(2), None]),
    (|setup| setup.rotation.promote_now().map(drop), [Some(2), None, Some(1)]),
    (|setup| setup.rotation.roll_back_now().map(drop), [Some(1), Some(2), None]),
    (verify, [Some(1), Some(2), None]),
    (|setup| setup.rotation.promote_now().map(drop), [Some(2), None, Some(1)]),
    (retire, [Some(2), None, None]),
    (|setup| setup.rotation.stage(&key(3)).map(drop), [Some(2), Some(3), None]),
    (|setup| setup.rotation.abort_now().map(drop), [Some(2), None, None]),
    (|setup| setup.rotation.compromise_with_note(name(2), "in a log").map(drop), [None; 3]),
];

fn verify(setup: &Setup<KeychainStore>) -> Result<(), RotationError> {
    let verification = setup.rotation.verify_now()?;
    assert!(matches!(verification, Verification::Verified { .. }), "{verification}");
    Ok(())
}

fn retire(setup: &Setup<KeychainStore>) -> Result<(), RotationError> {
    setup.clock.advance(3_600);
    setup.answers.refuse(1);
    let retirement = setup.rotation.retire_now()?;
    assert!(matches!(retirement, Retirement::Retired { .. }), "{retirement}");
    Ok(())
}

#[test]
fn a_whole_rotation_in_a_keychain_is_seen_by_every_process() {
    with_keychain("keychain::a_whole_rotation_in_a_keychain_is_seen_by_every_process", |_| {
        let setup = setup();
        for (at, (step, after)) in STEPS.into_iter().enumerate() {
            step(&setup).unwrap_or_else(|error| panic!("step {at}: {error}"));
            assert_eq!((setup.slots(), sent(&setup.handle)), (after, after[0]), "step {at}");
            // Another process has read nothing before, and so has its store.
            let opened = Rotation::<Kanal>::open(store(), RotationPolicy::new()).unwrap();
            let handle = opened.handle();
            assert_eq!(sent(&handle), after[0], "step {at}");
            assert!(opened.next_step().is_ok(), "step {at}");
        }
        let step = setup.rotation.next_step().unwrap();
        assert!(matches!(step, NextStep::Create { .. }), "{step}");
        // A key that leaked stays known there.
        let known = KeySetError::Known { state: KeyState::Compromised };
        assert_eq!(setup.rotation.stage(&key(2)), Err(RotationError::Refused(known)));
        assert_eq!(setup.actions().len(), STEPS.len());
    });
}

#[test]
fn a_locked_keychain_loses_nothing_and_steps_resume_on_unlock() {
    const NAME: &str = "keychain::a_locked_keychain_loses_nothing_and_steps_resume_on_unlock";
    with_keychain(NAME, |service| {
        let setup = setup();
        let mut before = [None; 3];
        for (at, (step, after)) in STEPS.into_iter().enumerate() {
            // Before the first step there is no item that could be locked.
            if at > 0 {
                let recorded = setup.actions().len();
                service.lock();
                let error = step(&setup).unwrap_err();
                let locked = DocumentError::Unavailable(Problem::NoAccess);
                let (is_leak, cause) = match &error {
                    RotationError::LeakNotPersisted { cause, .. } => (true, &**cause),
                    other => (false, other),
                };
                let is_so = matches!(
                    cause,
                    RotationError::Document { problem, .. } | RotationError::Unsure { problem, .. }
                        if *problem == locked
                );
                assert!(is_so, "step {at}: {error}");
                for number in [1, 2, 3] {
                    assert_hides(&error, key(number).expose_secret());
                }
                let expected = before[0].filter(|_| !is_leak);
                assert_eq!(
                    sent(&setup.handle),
                    expected,
                    "step {at}: what was active is still sent, but a leaked key"
                );
                assert_eq!(
                    setup.actions().len(),
                    recorded,
                    "step {at}: nothing is recorded that was not done"
                );
                assert!(setup.rotation.next_step().is_err() && setup.rotation.status().is_err());
                assert!(Rotation::<Kanal>::open(store(), RotationPolicy::new()).is_err());
                // Restarted, it is unlocked.
                service.restart();
                assert_eq!(setup.slots(), before, "step {at}: nothing is lost");
            }
            step(&setup).unwrap_or_else(|error| panic!("step {at}, unlocked: {error}"));
            assert_eq!((setup.slots(), sent(&setup.handle)), (after, after[0]), "step {at}");
            before = after;
        }
        assert!(setup.events.lock().unwrap().iter().all(|event| !event.is_repeat));
    });
}
