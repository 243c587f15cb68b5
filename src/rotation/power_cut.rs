//! Power cuts at every instant of a whole rotation: the file operations of its steps are recorded, and every state that a
//! cut could leave is looked at.

use std::collections::BTreeMap;

use super::{Rotation, RotationError, RotationPolicy, Transition};
use crate::key::{Issuer as _, Kanal, RawKey};
use crate::keyset::{Held, KeySet, RotationId};
use crate::store::RecordedStore;

fn key(number: u64) -> RawKey {
    RawKey::parse(Kanal::PROFILE, format!("Key{number:021}").as_bytes()).unwrap()
}

fn id(number: u64) -> RotationId {
    number.to_string().parse().unwrap()
}

#[test]
fn a_power_cut_at_any_instant_of_a_rotation_loses_no_key_that_was_staged_and_none_in_force() {
    type Do = fn(&Rotation<Kanal>) -> Result<Transition, RotationError>;
    let steps: [(Do, u64); 9] = [
        (|rotation| rotation.adopt(&key(1)), 1),
        (|rotation| rotation.stage(&key(2), Some("note")), 1),
        (|rotation| rotation.promote_unverified(id(2)), 2),
        (|rotation| rotation.roll_back(id(2)), 1),
        (|rotation| rotation.promote_unverified(id(2)), 2),
        (|rotation| rotation.retire_unprobed(id(2)), 2),
        (|rotation| rotation.stage(&key(3), None), 2),
        (|rotation| rotation.promote_unverified(id(3)), 3),
        (|rotation| rotation.compromise(key(3).fingerprint().unwrap(), None), 2),
    ];
    let store: &RecordedStore = Box::leak(Box::default());
    let rotation = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap();
    // What must be there once that many writes have returned: the key in force, and how many keys were taken in.
    let mut expected = BTreeMap::from([(0, (None, 0))]);
    let mut taken = 0;
    for (number, (step, in_force)) in steps.into_iter().enumerate() {
        let transition = step(&rotation).unwrap();
        assert!(transition.is_change());
        taken = taken.max(in_force).max(transition.rotation().map_or(0, RotationId::number));
        expected.insert(number as u64 + 1, (Some(in_force), taken));
    }
    let mut cuts = 0;
    store.for_each_cut(|returned, document| {
        cuts += 1;
        let keys = KeySet::from_document(Kanal::PROFILE, document.content().expose_secret()).unwrap();
        let current = keys.current().map(Held::fingerprint);
        let name = |number: Option<u64>| number.and_then(|number| key(number).fingerprint());
        let may_be =
            [returned, returned + 1].map(|number| expected.get(&number).and_then(|(key, _)| name(*key)));
        assert!(may_be.contains(&current), "after {returned} writes {current:?} is in force");
        for staged in 1..=expected[&returned].1 {
            let fingerprint = key(staged).fingerprint().unwrap();
            assert!(keys.place_of(fingerprint).is_some(), "key {staged} is lost after {returned} writes");
        }
    });
    assert!(cuts > 100, "only {cuts} cuts were looked at");
}
