//! What was last shown of a key set: what the next step is about.

use crate::keyset::{Held, KeySet, RotationId};

/// The rotations of the keys in the places of a key set.
#[derive(Clone, Copy, Default)]
pub(super) struct View {
    pending: Option<RotationId>,
    current: Option<RotationId>,
    previous: Option<RotationId>,
    newest: Option<RotationId>,
}

impl View {
    pub(super) fn of(keys: &KeySet) -> Self {
        Self {
            pending: keys.pending().map(Held::rotation),
            current: keys.current().map(Held::rotation),
            previous: keys.previous().map(Held::rotation),
            newest: keys.newest_rotation(),
        }
    }

    /// What is shown after a step about a rotation. Others may have begun one meanwhile; it was not shown.
    pub(super) fn after(self, keys: &KeySet, about: Option<RotationId>) -> Self {
        let now = Self::of(keys);
        let known = |rotation: &RotationId| {
            [self.pending, self.current, self.previous, self.newest, about].contains(&Some(*rotation))
        };
        Self {
            pending: now.pending.filter(known),
            current: now.current.filter(known),
            previous: now.previous.filter(known),
            newest: now.newest.filter(known).or(self.newest),
        }
    }

    /// What verifying and promoting are about: the pending key. Where that is in force already, the step was done before.
    pub(super) fn to_promote(self) -> Option<RotationId> {
        self.pending.or(self.current)
    }

    /// What rolling back is about: the key in force; where it was rolled back already, the pending one.
    pub(super) fn to_roll_back(self) -> Option<RotationId> {
        if self.previous.is_some() { self.current } else { self.pending.or(self.current) }
    }

    /// What retiring is about: the key in force, which has replaced the previous one.
    pub(super) fn to_retire(self) -> Option<RotationId> {
        self.current
    }

    /// What giving up is about: the pending key; where it was given up already, the newest rotation.
    pub(super) fn to_abort(self) -> Option<RotationId> {
        self.pending.or(self.newest)
    }
}
