//! What the processes of a fleet show.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::{PresenceError, PresenceRecord, form};
use crate::key::{Issuer, Profile};
use crate::store::{DocumentContent, DocumentStore, Version};

/// How many processes can show themselves in one document. A larger fleet uses several documents.
pub const MAX_PROCESSES: usize = 128;

/// How long after it went silent a record is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What the processes of a fleet show: a record for each.
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
    pub fn from_document(profile: &'static Profile, document: &[u8]) -> Result<Self, PresenceError> {
        form::read(profile, document)
    }

    /// The fleet as a document: JSON, with nothing secret in it.
    ///
    /// # Errors
    /// [`PresenceError::Full`].
    pub fn to_document(&self) -> Result<DocumentContent, PresenceError> {
        form::write(self)
    }

    /// Whose keys are used.
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// A record for each process, those that are silent included, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> &[PresenceRecord] {
        &self.records
    }

    /// With the records of another document of the same issuer.
    pub(crate) fn join(&mut self, other: Self) {
        self.records.extend(other.records);
    }

    /// Shows a process, in place of what it has shown before. Make room first.
    pub(super) fn put(&mut self, record: PresenceRecord) -> Result<(), PresenceError> {
        if let Some(there) = self.records.iter_mut().find(|there| there.process == record.process) {
            *there = record;
            return Ok(());
        }
        if self.records.len() >= MAX_PROCESSES {
            return Err(PresenceError::Full);
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

    /// Makes room for a process, which has this number. Removed are only records that were seen to rest for
    /// their time to live: those that have been silent for a day as it is written in them, and in a full
    /// document the one that has rested longest. It is full for one that is there already, too: that one may
    /// have watched for longer than one that comes.
    pub(super) fn make_room(
        &mut self,
        process: u64,
        now: SystemTime,
        rest_of: impl Fn(&PresenceRecord) -> Duration,
    ) {
        let is_gone =
            |there: &PresenceRecord| there.process != process && rest_of(there) > there.time_to_live();
        self.records.retain(|there| {
            let since = now.duration_since(there.shown()).unwrap_or_default();
            since <= there.time_to_live().saturating_add(FORGOTTEN_AFTER) || !is_gone(there)
        });
        if self.records.len() >= MAX_PROCESSES {
            let gone = self.records.iter().enumerate().filter(|(_, there)| is_gone(there));
            if let Some((longest, _)) = gone.max_by_key(|(_, there)| rest_of(there)) {
                self.records.remove(longest);
            }
        }
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
    use crate::internal::utc::Moment;
    use crate::key::Kanal;

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

    /// Longer than any record here holds.
    const LONG: Duration = Duration::from_secs(601);

    #[test]
    fn a_record_is_forgotten_a_day_after_it_went_silent() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - DAY - 601), shown(2, now - DAY - 599), shown(3, now - 30)]);
        there.make_room(9, at(now), |_| LONG);
        assert_eq!(processes(&there), [2, 3]);
    }

    #[test]
    fn nobody_is_forgotten_by_a_clock_that_is_wrong() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - 90), shown(2, now - 30), shown(3, now + 9 * DAY)]);
        for clock in [0, now, now + 3 * DAY, now + 365 * DAY] {
            // They were shown again meanwhile, as the process that has that clock saw.
            there.make_room(9, at(clock), |_| Duration::from_secs(600));
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
    fn a_clock_that_is_wrong_evicts_nobody_from_a_full_document() {
        let now = 1_800_000_000;
        // Clocks of other processes that differ by up to an hour.
        let living = |process| shown(process, now - 1800 + process * 29);
        let whole: Vec<u64> = (0..128).collect();
        for clock in [0, now - 1200, now, now + 1200, now + 30 * DAY] {
            let mut there = fleet((0..128).map(living));
            // It has just come, and then has watched for not quite as long as they hold.
            for watched in [0, 1, 600] {
                there.make_room(600, at(clock), |_| Duration::from_secs(watched));
                assert_eq!(there.put(shown(600, clock)), Err(PresenceError::Full), "{clock}");
                assert_eq!(processes(&there), whole, "{clock}");
            }
            assert_eq!(there.put(shown(5, clock)), Ok(()), "one that is there already stays");
        }
    }

    #[test]
    fn a_full_document_loses_what_was_seen_to_rest_longest() {
        let now = 1_800_000_000;
        let rest_of = |there: &PresenceRecord| match there.process {
            5 | 6 => Duration::from_secs(590 + there.process * 10),
            _ => Duration::from_secs(200),
        };
        let mut there = fleet((0..128).map(|process| shown(process, now)));
        // Room is made by one that is there, too, and never by its own record.
        there.make_room(6, at(now), rest_of);
        assert!(!processes(&there).contains(&5) && processes(&there).contains(&6));
        there.put(shown(600, now)).unwrap();
        there.make_room(601, at(now), rest_of);
        there.put(shown(601, now)).unwrap();
        assert!(!processes(&there).contains(&6));
        there.make_room(602, at(now), rest_of);
        assert_eq!(there.put(shown(602, now)), Err(PresenceError::Full));
        assert_eq!(there.records.len(), MAX_PROCESSES);
    }
}
