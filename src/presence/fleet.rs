//! What the processes of a fleet show.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::{PresenceError, PresenceRecord, form};
use crate::document::{DocumentContent, DocumentStore, Version};
use crate::issuer::{Issuer, Profile};

/// How many processes can show themselves in one document. A larger fleet uses several documents.
///
/// ```
/// assert_eq!(keysheath::presence::MAX_PROCESSES, 128);
/// ```
pub const MAX_PROCESSES: usize = 128;

/// How long after it went silent a record is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What the processes of a fleet show: a record for each.
///
/// ```
/// use keysheath::{document::MemoryStore, handle::KeyHandle, issuer::Kanal};
/// use keysheath::presence::{Fleet, Presence, PresenceSettings};
///
/// let (store, handle) = (MemoryStore::new(), KeyHandle::<Kanal>::live());
/// let presence = Presence::show(store.clone(), &handle, PresenceSettings::new("shop-sync on shop-7"))?;
/// let fleet = Fleet::read::<Kanal>(&store)?;
/// assert_eq!(fleet.records()[0].name(), "shop-sync on shop-7");
/// drop(presence);
/// assert!(Fleet::read::<Kanal>(&store)?.records().is_empty());
/// # Ok::<(), keysheath::presence::PresenceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fleet {
    profile: &'static Profile,
    records: Vec<PresenceRecord>,
}

impl Fleet {
    pub(crate) const fn empty(profile: &'static Profile) -> Self {
        Self { profile, records: Vec::new() }
    }

    pub(super) const fn of(profile: &'static Profile, records: Vec<PresenceRecord>) -> Self {
        Self { profile, records }
    }

    /// Reads what is shown in a document; nothing, where there is no document yet. Blocks, as the store does.
    ///
    /// # Errors
    /// [`PresenceError::Document`], [`PresenceError::Newer`], [`PresenceError::OtherIssuer`], [`PresenceError::Corrupt`].
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, issuer::Kanal, presence::Fleet};
    /// println!("{}", Fleet::read::<Kanal>(&MemoryStore::new())?);
    /// # Ok::<(), keysheath::presence::PresenceError>(())
    /// ```
    pub fn read<I: Issuer>(store: &impl DocumentStore) -> Result<Self, PresenceError> {
        Ok(Self::read_as(I::PROFILE, store)?.0)
    }

    pub(crate) fn read_as(
        profile: &'static Profile,
        store: &dyn DocumentStore,
    ) -> Result<(Self, Option<Version>), PresenceError> {
        let Some(there) = store.read()? else { return Ok((Self::empty(profile), None)) };
        Ok((Self::from_document(profile, there.content().expose_secret())?, Some(*there.version())))
    }

    /// Reads a document that presence was written in.
    ///
    /// # Errors
    /// [`PresenceError::Newer`], [`PresenceError::OtherIssuer`] and [`PresenceError::Corrupt`].
    ///
    /// ```
    /// # use keysheath::{issuer::{Issuer, Kanal}, presence::{Fleet, PresenceError}};
    /// let error = Fleet::from_document(Kanal::PROFILE, b"{}").unwrap_err();
    /// assert!(matches!(error, PresenceError::Corrupt { .. }));
    /// ```
    pub fn from_document(profile: &'static Profile, document: &[u8]) -> Result<Self, PresenceError> {
        form::read(profile, document)
    }

    /// The fleet as a document: JSON, with nothing secret in it.
    ///
    /// # Errors
    /// [`PresenceError::Full`].
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, issuer::{Issuer, Kanal}, presence::Fleet};
    /// let fleet = Fleet::read::<Kanal>(&MemoryStore::new())?;
    /// let document = fleet.to_document()?;
    /// assert!(Fleet::from_document(Kanal::PROFILE, document.expose_secret())?.records().is_empty());
    /// # Ok::<(), keysheath::presence::PresenceError>(())
    /// ```
    pub fn to_document(&self) -> Result<DocumentContent, PresenceError> {
        form::write(self)
    }

    /// Whose keys are used.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, issuer::{Issuer, Kanal}, presence::Fleet};
    /// assert_eq!(Fleet::read::<Kanal>(&MemoryStore::new())?.profile(), Kanal::PROFILE);
    /// # Ok::<(), keysheath::presence::PresenceError>(())
    /// ```
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// A record for each process, those that are silent included, in the order in which they came.
    ///
    /// ```
    /// # use keysheath::{document::MemoryStore, issuer::Kanal, presence::Fleet};
    /// assert!(Fleet::read::<Kanal>(&MemoryStore::new())?.records().is_empty());
    /// # Ok::<(), keysheath::presence::PresenceError>(())
    /// ```
    #[must_use]
    pub fn records(&self) -> &[PresenceRecord] {
        &self.records
    }

    /// With the records of another document of the same issuer.
    pub(crate) fn join(&mut self, other: Self) {
        self.records.extend(other.records);
    }

    /// Shows a process, in place of what it has shown before.
    pub(super) fn put(&mut self, record: PresenceRecord) -> Result<(), PresenceError> {
        if let Some(there) = self.records.iter_mut().find(|there| there.process == record.process) {
            *there = record;
            return Ok(());
        }
        if self.records.len() >= MAX_PROCESSES {
            let now = record.shown();
            let silent = self.records.iter().enumerate().filter(|(_, there)| there.is_silent_at(now));
            let (oldest, _) = silent.min_by_key(|(_, there)| there.shown).ok_or(PresenceError::Full)?;
            self.records.remove(oldest);
        }
        self.records.push(record);
        Ok(())
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, process: u64) -> bool {
        let before = self.records.len();
        self.records.retain(|there| there.process != process);
        self.records.len() < before
    }

    /// Removes what other processes of the same name show.
    pub(super) fn remove_named(&mut self, record: &PresenceRecord) {
        self.records.retain(|there| there.process == record.process || there.name != record.name);
    }

    /// Forgets what has been silent for a day, as it was shown, and for its time to live before the eyes of whoever forgets it:
    /// a clock that is wrong is not to make a fleet forgotten.
    pub(super) fn forget(&mut self, now: SystemTime, unchanged: impl Fn(&PresenceRecord) -> Duration) {
        self.records.retain(|there| {
            let since = now.duration_since(there.shown()).unwrap_or_default();
            since <= there.time_to_live() + FORGOTTEN_AFTER || unchanged(there) <= there.time_to_live()
        });
    }
}

impl fmt::Display for Fleet {
    /// A line for each process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = SystemTime::now();
        let count = self.records.len();
        write!(f, "{}: {count} process{}", self.profile.name(), if count == 1 { "" } else { "es" })?;
        for record in &self.records {
            let silent = if record.is_silent_at(now) { ", SILENT" } else { "" };
            write!(f, "\n  {record}{silent}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Kanal;
    use crate::utc::Moment;

    const DAY: u64 = 24 * 60 * 60;

    fn shown(process: u64, at: u64) -> PresenceRecord {
        PresenceRecord {
            process,
            name: format!("number {process}"),
            generation: None,
            oldest: None,
            key: None,
            begun: None,
            refused: None,
            shown: Moment(at),
            time_to_live: 600,
        }
    }

    fn fleet(records: impl IntoIterator<Item = PresenceRecord>) -> Fleet {
        Fleet::of(Kanal::PROFILE, records.into_iter().collect())
    }

    fn processes(fleet: &Fleet) -> Vec<u64> {
        fleet.records.iter().map(|record| record.process).collect()
    }

    fn at(second: u64) -> SystemTime {
        Moment(second).to_time()
    }

    #[test]
    fn a_record_is_forgotten_a_day_after_it_went_silent() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - DAY - 601), shown(2, now - DAY - 599), shown(3, now - 30)]);
        there.forget(at(now), |_| Duration::from_secs(601));
        assert_eq!(processes(&there), [2, 3]);
    }

    #[test]
    fn nobody_is_forgotten_by_a_clock_that_is_wrong() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - 90), shown(2, now - 30), shown(3, now + 9 * DAY)]);
        for clock in [0, now, now + 3 * DAY, now + 365 * DAY] {
            // They have been shown anew meanwhile, before the eyes of whoever has that clock.
            there.forget(at(clock), |_| Duration::from_secs(600));
            assert_eq!(processes(&there), [1, 2, 3], "{clock}");
        }
    }

    #[test]
    fn a_predecessor_of_the_same_name_is_replaced_and_nobody_else() {
        let mut there = fleet([shown(1, 5), shown(2, 6), shown(3, 7)]);
        there.remove_named(&PresenceRecord { name: "number 2".into(), ..shown(3, 8) });
        assert_eq!(processes(&there), [1, 3]);
    }

    #[test]
    fn a_full_document_makes_room_for_the_living_and_takes_it_from_the_longest_silent() {
        let now = 1_800_000_000;
        let living = |process| shown(process, now - 5);
        let mut there = fleet((0..126).map(living).chain([shown(500, now - 800), shown(501, now - 900)]));
        there.put(living(600)).unwrap();
        assert!(!processes(&there).contains(&501) && processes(&there).contains(&500));
        there.put(living(601)).unwrap();
        assert_eq!(there.put(living(602)), Err(PresenceError::Full));
        assert_eq!(there.put(living(601)), Ok(()), "who is there already stays");
        assert_eq!(there.records.len(), MAX_PROCESSES);
    }
}
