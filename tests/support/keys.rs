//! Key sets in the states that tests need, made by the steps of a rotation.

use std::ops::Deref;

use keysheath::key::{ApiKey, Issuer, Kanal};
use keysheath::keyset::{KeySet, RotationId};
use keysheath::rotation::{CheckedBy, Rotation, RotationPolicy};
use keysheath::store::{DocumentContent, DocumentStore, MemoryStore};

use super::steps::Now as _;

/// A key set of Kanal without a key that was ever active.
pub(crate) const EMPTY: &str = r#"{
  "keysheath": "key set", "form": 1, "issuer": "kanal", "generation": 0, "rotation": 0, "begun": null,
  "current": null, "pending": null, "previous": null, "retired": [], "compromised": [], "leaked": []
}"#;

/// A key set in a store of its own. The steps are those of its rotation.
pub(crate) struct Keys<I: Issuer = Kanal> {
    store: MemoryStore,
    rotation: Rotation<I>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self::of_issuer()
    }
}

impl<I: Issuer> Keys<I> {
    pub(crate) fn of_issuer() -> Self {
        let store = MemoryStore::new();
        let rotation = Rotation::open(store.clone(), RotationPolicy::new()).unwrap();
        Self { store, rotation }
    }

    /// Makes a key the active one, by adoption or by a whole rotation.
    pub(crate) fn activate(&self, key: &ApiKey<I>) {
        if self.status().unwrap().keys().current().is_none() {
            self.adopt(key).unwrap();
            return;
        }
        self.retire_previous();
        let id = self.stage(key).unwrap().rotation();
        self.promote_unverified(id);
    }

    pub(crate) fn promote_unverified(&self, id: RotationId) {
        self.promote(CheckedBy::Person(id)).unwrap();
    }

    pub(crate) fn retire_previous(&self) {
        self.retire_unprobed_now().unwrap();
    }

    pub(crate) fn to_document(&self) -> DocumentContent {
        self.store.read().unwrap().unwrap().content().clone()
    }

    pub(crate) fn read(&self) -> KeySet {
        KeySet::from_document(I::PROFILE, self.to_document().expose_secret()).unwrap()
    }
}

impl<I: Issuer> Deref for Keys<I> {
    type Target = Rotation<I>;

    fn deref(&self) -> &Rotation<I> {
        &self.rotation
    }
}
