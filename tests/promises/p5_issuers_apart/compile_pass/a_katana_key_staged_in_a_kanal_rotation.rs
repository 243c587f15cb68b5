use keysheath::key::{ApiKey, Kanal, Katana};
use keysheath::rotation::{Rotation, RotationError, Staged};

fn stage(rotation: &Rotation<Kanal>, key: &ApiKey<Kanal>) -> Result<Staged, RotationError> {
    rotation.stage(key)
}

fn main() {}
