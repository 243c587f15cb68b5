//! Steps on the keys that are there now, for tests in which one caller acts at a time.

use keysheath::key::Issuer;
use keysheath::keyset::{KeyInfo, RotationId};
use keysheath::rotation::{
    Aborted, CheckedBy, Retirement, Rotation, RotationError, RotationStatus, Transition, Verification,
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
    fn abort_now(&self) -> Result<Aborted, RotationError>;
}

/// A number that no rotation has.
fn none() -> RotationId {
    "9999999".parse().unwrap()
}

fn pending(status: &RotationStatus) -> Option<RotationId> {
    status.keys().pending().map(KeyInfo::rotation)
}

fn current(status: &RotationStatus) -> Option<RotationId> {
    status.keys().current().map(KeyInfo::rotation)
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
        self.promote(CheckedBy::Person(to_promote(self)?))
    }

    fn roll_back_now(&self) -> Result<Transition, RotationError> {
        let status = self.status()?;
        let is_to_do = status.keys().previous().is_some();
        let rotation = if is_to_do { current(&status) } else { pending(&status).or(current(&status)) };
        self.roll_back(rotation.unwrap_or_else(none))
    }

    fn retire_now(&self) -> Result<Retirement, RotationError> {
        self.retire(to_retire(self)?)
    }

    fn retire_unprobed_now(&self) -> Result<Transition, RotationError> {
        match self.retire(CheckedBy::Person(to_retire(self)?))? {
            Retirement::Retired { transition, .. } => Ok(transition),
            other => panic!("without a probe: {other}"),
        }
    }

    fn abort_now(&self) -> Result<Aborted, RotationError> {
        let status = self.status()?;
        self.abort(pending(&status).or(status.keys().newest_rotation()).unwrap_or_else(none))
    }
}
