//! Seals: a keyed digest of each row, by which a row that was altered is told from one that this crate wrote.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use crate::key::{Fingerprint, Profile, StoreId};
use crate::registry::record::{Restriction, StoredKey, TeamId};
use crate::registry::{Pepper, Peppers, RecordError};

/// The length of a seal, in bytes.
pub(super) const SEAL: usize = 16;

/// The length of the random number that a registry's records are given when they are first opened.
pub(super) const NUMBER: usize = 16;

/// Seals the rows of one file.
///
/// A seal covers every column of its row, the issuer and the file's own random number, so a row of another file, or of
/// another place in this one, does not fit. It does not cover which rows there are.
pub(super) struct Sealer {
    peppers: Arc<Peppers>,
    issuer: &'static str,
    number: [u8; NUMBER],
}

impl Sealer {
    pub(super) fn new(profile: &'static Profile, peppers: &Arc<Peppers>, number: [u8; NUMBER]) -> Self {
        Self { peppers: Arc::clone(peppers), issuer: profile.name(), number }
    }

    pub(super) const fn number(&self) -> &[u8; NUMBER] {
        &self.number
    }

    /// The pepper that rows without a digest are sealed under.
    pub(super) fn current(&self) -> &Pepper {
        self.peppers.current()
    }

    /// The seal of a key, under the pepper of its digest. `None` where that pepper was not given.
    pub(super) fn key(&self, StoredKey { record, digest }: &StoredKey) -> Option<[u8; SEAL]> {
        let pepper = self.peppers.named(digest.pepper)?;
        let store = match record.restriction {
            Restriction::None => 0,
            Restriction::Store(store) => store.get(),
        };
        let fingerprint = record.fingerprint.map_or([0; 10], Fingerprint::to_bytes);
        // All but the last have one length, so no two rows give the same bytes.
        Some(self.seal(
            pepper,
            &[
                b"key",
                &record.id.serial().to_be_bytes(),
                &record.team.get().to_be_bytes(),
                &record.created.0.to_be_bytes(),
                &record.last_used.map_or(0, |used| used.0).to_be_bytes(),
                &store.to_be_bytes(),
                &[u8::from(record.fingerprint.is_some())],
                &fingerprint,
                &digest.digest,
                &digest.pepper.to_bytes(),
                record.name.as_bytes(),
            ],
        ))
    }

    pub(super) fn store(&self, pepper: &Pepper, store: StoreId, team: TeamId, is_paused: bool) -> [u8; SEAL] {
        let store = store.get().to_be_bytes();
        self.seal(pepper, &[b"store", &store, &team.get().to_be_bytes(), &[u8::from(is_paused)]])
    }

    pub(super) fn meta(&self, pepper: &Pepper, next_serial: u32) -> [u8; SEAL] {
        self.seal(pepper, &[b"meta", &next_serial.to_be_bytes()])
    }

    fn seal(&self, pepper: &Pepper, fields: &[&[u8]]) -> [u8; SEAL] {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&self.number);
        // A name of an issuer has no line's end.
        bytes.extend_from_slice(self.issuer.as_bytes());
        bytes.push(b'\n');
        for field in fields {
            bytes.extend_from_slice(field);
        }
        pepper.seal(&bytes)
    }
}

/// Says whether a row has the seal that it should have.
pub(super) fn compare(found: [u8; SEAL], expected: [u8; SEAL]) -> Result<(), RecordError> {
    if bool::from(found.ct_eq(&expected)) { Ok(()) } else { Err(RecordError::Corrupt) }
}
