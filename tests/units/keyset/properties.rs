//! No sequence of steps and crashes loses a key or revives one that leaked.

use proptest::prelude::*;

use super::*;

/// A step, with small numbers for keys and rotations so that they meet often.
#[derive(Clone, Debug)]
enum Act {
    Adopt(usize),
    Stage(usize),
    Verify(u8),
    Promote(u8, bool),
    RollBack(u8),
    FallBack(u8),
    Retire(u8),
    Abort(u8),
    Compromise(usize),
    ConfirmDeleted(usize),
    /// The process dies, and the next one reads what was persisted.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let (number, rotation) = (1_usize..12, 0_u8..4);
    prop_oneof![
        1 => number.clone().prop_map(Act::Adopt),
        4 => number.clone().prop_map(Act::Stage),
        4 => rotation.clone().prop_map(Act::Verify),
        4 => (rotation.clone(), any::<bool>())
            .prop_map(|(rotation, unverified)| Act::Promote(rotation, unverified)),
        2 => rotation.clone().prop_map(Act::RollBack),
        1 => rotation.clone().prop_map(Act::FallBack),
        3 => rotation.clone().prop_map(Act::Retire),
        2 => rotation.prop_map(Act::Abort),
        1 => number.clone().prop_map(Act::Compromise),
        1 => number.prop_map(Act::ConfirmDeleted),
        2 => Just(Act::Crash),
    ]
}

/// One of the last rotations; `back` of them ago.
fn recent(rotations: &[RotationId], back: u8) -> Option<RotationId> {
    rotations.len().checked_sub(usize::from(back) + 1).map(|at| rotations[at])
}

fn take(
    keys: &mut KeySet,
    act: &Act,
    rotations: &[RotationId],
    at: SystemTime,
) -> Option<Result<Effect, KeySetError>> {
    Some(match *act {
        Act::Adopt(number) => keys.adopt(key(number), staging()),
        Act::Stage(number) => keys.stage(key(number), staging()),
        Act::Verify(back) => keys.verify(recent(rotations, back)?, at),
        Act::Promote(back, unverified) => {
            let word = if unverified { Promotion::Unverified } else { Promotion::Verified };
            keys.promote(recent(rotations, back)?, word, at)
        }
        Act::RollBack(back) => keys.roll_back(recent(rotations, back)?, at),
        Act::FallBack(back) => keys.fall_back(recent(rotations, back)?, at),
        Act::Retire(back) => keys.retire(recent(rotations, back)?),
        Act::Abort(back) => keys.abort(recent(rotations, back)?),
        Act::Compromise(number) => keys.compromise(name(number), at),
        Act::ConfirmDeleted(number) => keys.confirm_deleted(name(number)),
        Act::Crash => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_steps_or_crashes_lose_a_key_or_revive_a_leaked_one(
        acts in prop::collection::vec(act(), 1..80)
    ) {
        let mut keys = empty();
        let mut persisted = keys.to_document().expose_secret().to_vec();
        let mut rotations = Vec::new();
        // Every key whose `stage` or `adopt` has returned, and every key that leaked.
        let (mut taken, mut leaked) = (Vec::new(), Vec::new());
        for (at, act) in acts.iter().enumerate() {
            let at = time(100 + at as u64);
            let (places, generation, length) = (slots(&keys), keys.generation(), persisted.len());
            let in_force = places[0];
            let outcome = take(&mut keys, act, &rotations, at);
            match outcome {
                None => keys = KeySet::from_document(Kanal::PROFILE, &persisted).unwrap(),
                Some(Err(_)) => {
                    let document = keys.to_document();
                    prop_assert_eq!(document.expose_secret(), &*persisted, "a refusal changes nothing");
                }
                Some(Ok(Effect::Unchanged(_))) => {
                    let document = keys.to_document();
                    prop_assert_eq!(document.expose_secret(), &*persisted);
                }
                Some(Ok(Effect::Changed(rotation))) => {
                    let document = keys.to_document().expose_secret().to_vec();
                    prop_assert_ne!(&document, &persisted, "a change is seen in what is persisted");
                    persisted = document;
                    match *act {
                        Act::Adopt(number) | Act::Stage(number) => {
                            rotations.push(rotation);
                            taken.push(number);
                        }
                        Act::Compromise(number) => leaked.push(number),
                        _ => {}
                    }
                    // Doing it once more, as after a crash before the answer was seen, changes nothing.
                    let again = take(&mut keys, act, &rotations, at);
                    prop_assert!(again.is_none_or(|again| !again.is_ok_and(Effect::is_change)), "{:?}", act);
                    prop_assert_eq!(keys.to_document().expose_secret().to_vec(), persisted.clone());
                }
            }
            let read = KeySet::from_document(Kanal::PROFILE, &persisted).unwrap();
            let document = read.to_document();
            prop_assert_eq!(document.expose_secret(), &*persisted, "what is read is what was written");
            let held = slots(&keys);
            let now = held[0];
            if in_force.is_some() && !matches!(act, Act::Compromise(_)) {
                prop_assert!(now.is_some(), "the active key was lost by {:?}", act);
            }
            prop_assert!(keys.generation() >= generation);
            if now != in_force {
                prop_assert!(keys.generation() > generation, "another active key has another number");
            }
            if let Act::Compromise(number) = act
                && places.contains(&Some(*number))
            {
                // However small the place for the document is, a leaked key can leave it.
                prop_assert!(persisted.len() <= length, "{} bytes after {length}", persisted.len());
                prop_assert!(keys.leaked().iter().any(|leaked| leaked.fingerprint() == name(*number)));
            }
            for number in &leaked {
                prop_assert_eq!(keys.state_of(name(*number)), Some(KeyState::Compromised));
                prop_assert!(!held.contains(&Some(*number)), "a leaked key is back");
            }
            for number in &taken {
                prop_assert!(keys.state_of(name(*number)).is_some(), "key {} is in no place", number);
            }
        }
    }
}
