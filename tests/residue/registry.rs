//! P2: what keys are digested under is in no freed heap block either.

use std::fs;

use keysheath::registry::Pepper;

use crate::support::residue::{NONE, Residue, alone, residue_of_secret};

/// The contexts of the crate's derivations, which never change: of digests, and of the seals of rows.
const CONTEXTS: [&str; 2] =
    ["keysheath 2026-11-24 registry pepper v1", "keysheath 2026-11-28 registry row seal v1"];

fn text(number: usize) -> String {
    format!("{number:02}-mY8Qz3vT1nW5xR7kJ2hG9fD4sA6pL0oIuY")
}

#[test]
fn peppers_with_older_ones_leave_nothing() {
    alone("registry::peppers_with_older_ones_leave_nothing", &[], || {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..9 {
            fs::write(folder.path().join(number.to_string()), text(number)).unwrap();
        }
        let load = |number: usize| {
            let reference = format!("file:{}", folder.path().join(number.to_string()).display());
            Pepper::from_reference(&reference.parse().unwrap()).unwrap()
        };
        // The current one, an older one, and one that is given twice.
        for (context, number) in
            CONTEXTS.iter().flat_map(|context| [(context, 0), (context, 1), (context, 8)])
        {
            let secret = blake3::derive_key(context, text(number).as_bytes());
            let found = residue_of_secret(secret, || {
                let peppers = (1..9).map(load).fold(load(0), Pepper::with_older);
                drop(peppers.with_older(load(7).with_older(load(8))));
            });
            assert_eq!(found, NONE, "{context}, pepper {number}");
        }
        // The control: what is looked for is found.
        let secret = blake3::derive_key(CONTEXTS[0], text(0).as_bytes());
        let found = residue_of_secret(secret, || drop(Box::new(secret)));
        assert_eq!(found, Residue { whole: 1, partial: 0 });
    });
}
