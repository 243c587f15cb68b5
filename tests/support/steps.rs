//! Steps on the keys that are there now, for tests in which one caller acts at a time.

use keysheath::key::Issuer;
use keysheath::keyset::RotationId;
use keysheath::rotation::{
    Retirement, Rotation, RotationError, RotationStatus, SlotStatus, Transition, Verification,
};

/// Each step looks first, and names what it sees. Where it has been done before, it is about the same
/// rotation again.
pub(crate) trait Now {
    fn verify_now(&self) -> Result<Verification, RotationError>;
    fn promote_now(&self) -> Result<Transition, RotationError>;
    fn promote_unverified_now(&self) -> Result<Transition, RotationError>;
    fn roll_back_now(&self) -> Result<Transition, RotationError>;
    fn retire_now(&self) -> Result<Retirement, RotationError>;
    fn retire_unprobed_now(&self) -> Result<Transition, RotationError>;
    fn abort_now(&self) -> Result<Transition, RotationError>;
}

/// A number that no rotation has.
fn none() -> RotationId {
    "9999999".parse().unwrap()
}

fn pending(status: &RotationStatus) -> Option<RotationId> {
    status.pending().map(SlotStatus::rotation)
}

fn current(status: &RotationStatus) -> Option<RotationId> {
    status.current().map(SlotStatus::rotation)
}

fn to_promote(rotation: &Rotation<impl Issuer>) -> Result<RotationId, RotationError> {
    let status = rotation.status()?;
    Ok(pending(&status).or(current(&status)).unwrap_or_else(none))
}

fn to_retire(rotation: &Rotation<impl Issuer>) -> Result<RotationId, RotationError> {
    Ok(current(&rotation.status()?).unwrap_or_else(none))
}

impl<I: Issuer> Now for Rotation<I> {
    fn verify_now(&self) -> Result<Verification, RotationError> {
        self.verify(to_promote(self)?)
    }

    fn promote_now(&self) -> Result<Transition, RotationError> {
        self.promote(to_promote(self)?)
    }

    fn promote_unverified_now(&self) -> Result<Transition, RotationError> {
        self.promote_unverified(to_promote(self)?)
    }

    fn roll_back_now(&self) -> Result<Transition, RotationError> {
        let status = self.status()?;
        let is_to_do = status.previous().is_some();
        let rotation = if is_to_do { current(&status) } else { pending(&status).or(current(&status)) };
        self.roll_back(rotation.unwrap_or_else(none))
    }

    fn retire_now(&self) -> Result<Retirement, RotationError> {
        self.retire(to_retire(self)?)
    }

    fn retire_unprobed_now(&self) -> Result<Transition, RotationError> {
        self.retire_unprobed(to_retire(self)?)
    }

    fn abort_now(&self) -> Result<Transition, RotationError> {
        let status = self.status()?;
        self.abort(pending(&status).or(status.newest_rotation()).unwrap_or_else(none))
    }
}
