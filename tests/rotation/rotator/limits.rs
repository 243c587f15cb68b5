//! Places with little room, and spans that no clock can tell.

use keysheath::rotation::KeyDetails;
use keysheath::source::Provenance;
use keysheath::store::{DocumentContent, DocumentError, Version};
use proptest::prelude::*;

use super::*;
use crate::support::stores::pass_on;

/// A store with as much room as a keychain.
#[derive(Clone, Default)]
struct Small(MemoryStore);

impl DocumentStore for Small {
    pass_on!(0: read);

    fn provenance(&self) -> Provenance {
        Provenance::other("small", "store")
    }

    fn limit(&self) -> usize {
        2504
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        if content.expose_secret().len() > self.limit() {
            return Err(DocumentError::TooLarge { limit: self.limit() });
        }
        self.0.write(content, unchanged)
    }
}

#[test]
fn leaked_keys_that_are_remembered_stop_no_step_in_a_keychain() {
    let setup = Setup::over(Small::default());
    let note = "n".repeat(100);
    setup.rotation.adopt(&key(1)).unwrap();
    let mut most = 0;
    for number in 2..150 {
        setup.rotation.stage(KeyDetails::new(&key(number)).with_note(&note)).unwrap();
        setup.rotation.promote_unverified_now().unwrap();
        match number % 3 {
            0 => drop(setup.rotation.retire_unprobed_now().unwrap()),
            1 => drop(setup.rotation.compromise_with_note(name(number - 1), &note).unwrap()),
            _ => {
                setup.rotation.compromise(name(number - 1)).unwrap();
                setup.rotation.confirm_deleted(name(number - 1)).unwrap();
            }
        }
        assert_eq!(setup.slots()[0], Some(number));
        let status = setup.rotation.status().unwrap();
        most = most.max(status.keys().compromised().len());
        // The newest that a person still has to delete is never forgotten first.
        if number % 3 == 1 {
            assert_eq!(status.keys().leaked().last().unwrap().fingerprint(), name(number - 1));
        }
    }
    assert!(most >= 20, "only {most} were remembered");
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        any::<u64>().prop_map(Duration::from_secs),
        any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into())),
        any::<u64>().prop_map(Duration::from_nanos),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_policy_panics_and_none_is_taken_for_its_opposite(
        [age, warning, grace, settle, activation, skew] in prop::array::uniform6(span()),
        passed in any::<u32>(),
    ) {
        let policy = RotationPolicy::new()
            .with_max_age(age)
            .with_warning(warning)
            .with_grace(grace)
            .with_settle(settle)
            .with_activation(activation)
            .with_clock_skew(skew);
        let clock = Clock::new();
        let answers = Answers::default();
        answers.accept(2);
        let now = clock.clone();
        let rotation = Rotation::<Kanal>::open(MemoryStore::new(), policy)
            .unwrap()
            .with_clock(move || now.now())
            .with_probe(answers);
        promote_key_2(&rotation);
        let has_previous = rotation.handle().load().unwrap().previous().is_some();
        prop_assert!(has_previous || grace < Duration::from_secs(60), "a grace of {:?} is none", grace);
        clock.advance(passed.into());
        let step = rotation.next_step().unwrap();
        drop(format!("{step} {} {}", rotation.status().unwrap(), rotation.retire_now().unwrap()));
        if let keysheath::rotation::NextStep::Delete { .. } = step {
            // What is longer counts as 100 years.
            let longest = Duration::from_secs(100 * 365 * 86_400);
            prop_assert!(settle.max(activation).min(longest) <= Duration::from_secs(passed.into()));
        }
    }
}
