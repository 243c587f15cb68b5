//! What the processes of a fleet show, and what this process has seen of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::PresenceError;
use super::record::{self, PresenceRecord};
use crate::internal::panics::Lock;
use crate::internal::printing::Moment;
use crate::internal::time::Clocks;
use crate::key::{Issuer, Profile};
use crate::store::{DocumentContent, DocumentStore, Version};

/// How many processes can show themselves in one document. A larger fleet uses several documents.
pub(super) const MAX_PROCESSES: usize = 128;

/// How long after it went silent a record is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The records of the processes of a fleet. Its `Display` is a line for each.
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

    /// Reads the records in a document store; none if there is no document yet. Blocks, as the store does.
    ///
    /// # Errors
    /// [`PresenceError::Document`], [`PresenceError::Newer`], [`PresenceError::OtherIssuer`],
    /// [`PresenceError::Corrupt`].
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

    /// Reads a document.
    ///
    /// # Errors
    /// [`PresenceError::Newer`], [`PresenceError::OtherIssuer`] and [`PresenceError::Corrupt`].
    pub fn from_document(profile: &'static Profile, document: &[u8]) -> Result<Self, PresenceError> {
        Ok(Self::of(profile, record::read(profile, document)?))
    }

    /// Returns the fleet as a document: JSON, with nothing secret in it.
    ///
    /// # Errors
    /// [`PresenceError::Full`].
    pub fn to_document(&self) -> Result<DocumentContent, PresenceError> {
        record::write(self.profile, &self.records)
    }

    /// Returns the profile of the keys' issuer.
    #[must_use]
    pub const fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// Returns a record for each process, silent ones included, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> &[PresenceRecord] {
        &self.records
    }

    /// Adds the records of another document of the same issuer.
    pub(crate) fn join(&mut self, other: Self) {
        self.records.extend(other.records);
    }

    /// Puts a record in place of an earlier one of the same process. Make room first.
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

    /// Returns whether the record was there.
    pub(super) fn remove(&mut self, process: u64) -> bool {
        let before = self.records.len();
        self.records.retain(|there| there.process != process);
        self.records.len() < before
    }

    /// Removes the records of other processes of the same name.
    pub(super) fn remove_named(&mut self, record: &PresenceRecord) {
        self.records.retain(|there| there.process == record.process || there.name != record.name);
    }

    /// Makes room for the process of this number. Only records are removed that were seen unchanged for their
    /// time to live: those that have been silent for a day by the time that is written in them, and in a full
    /// document the one unchanged longest. The document counts as full for a process that is in it, too: that
    /// one may have watched for longer than one that comes.
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
    /// Writes a line for each process.
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

/// How many records are remembered.
const MOST: usize = 16 * MAX_PROCESSES;

/// Since when this process has seen each record unchanged, by its own clocks. A record is removed only if it
/// was seen unchanged for its time to live: the time that is written in it is that of another machine, whose
/// clock or this one's may be wrong.
///
/// Records are identified by the random number of their process, so those of all documents are kept together.
#[derive(Default)]
pub(super) struct Watched(HashMap<u64, Sight>);

#[derive(Clone, Copy)]
struct Sight {
    shown: Moment,
    since: Clocks,
    looked: Instant,
}

/// What this process has seen, shared by all its presences: one that was refused room and asks again goes on
/// watching.
pub(super) fn watched() -> MutexGuard<'static, Watched> {
    static WATCHED: LazyLock<Lock<Watched>> = LazyLock::new(Lock::default);
    WATCHED.lock()
}

impl Watched {
    pub(super) fn look(&mut self, records: &[PresenceRecord], now: Clocks) {
        for record in records {
            let new = Sight { shown: record.shown, since: now, looked: now.monotonic() };
            let sight = self.0.entry(record.process).or_insert(new);
            if sight.shown != record.shown {
                *sight = new;
            }
            sight.looked = now.monotonic();
        }
        if self.0.len() > MOST {
            let mut looked: Vec<_> = self.0.values().map(|sight| sight.looked).collect();
            looked.sort_unstable();
            let oldest = looked[looked.len() - MOST];
            self.0.retain(|_, sight| sight.looked >= oldest);
        }
    }

    /// For how long a record has been seen unchanged, by the clock that shows less.
    pub(super) fn rest_of(&self, record: &PresenceRecord, now: Clocks) -> Duration {
        self.0.get(&record.process).map_or(Duration::ZERO, |sight| now.at_least_since(sight.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kanal;

    const DAY: u64 = 24 * 60 * 60;

    fn shown(process: u64, at: u64) -> PresenceRecord {
        PresenceRecord {
            process,
            name: format!("number {process}"),
            generation: None,
            oldest: None,
            key: None,
            lineage: None,
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
    fn a_wrong_clock_forgets_no_record() {
        let now = 1_800_000_000;
        let mut there = fleet([shown(1, now - 90), shown(2, now - 30), shown(3, now + 9 * DAY)]);
        for clock in [0, now, now + 3 * DAY, now + 365 * DAY] {
            // They were shown again meanwhile, as the process that has that clock saw.
            there.make_room(9, at(clock), |_| Duration::from_secs(600));
            assert_eq!(processes(&there), [1, 2, 3], "{clock}");
        }
    }

    #[test]
    fn only_a_predecessor_of_the_same_name_is_replaced() {
        let mut there = fleet([shown(1, 5), shown(2, 6), shown(3, 7)]);
        there.remove_named(&PresenceRecord { name: "number 2".into(), ..shown(3, 8) });
        assert_eq!(processes(&there), [1, 3]);
    }

    #[test]
    fn a_wrong_clock_evicts_no_record_of_a_full_document() {
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
    fn a_full_document_loses_the_record_unchanged_longest() {
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

    mod watched {
        use super::super::{MOST, Watched};
        use super::*;
        use crate::handle::Usage;

        const MINUTE: Duration = Duration::from_secs(60);

        fn shown(process: u64, second: u64) -> PresenceRecord {
            let nothing = Usage { generation: None, oldest: None, key: None, lineage: None, refused: None };
            PresenceRecord::new(process, "a", nothing, Moment(second).to_time(), 600)
        }

        fn start() -> Clocks {
            Clocks::at(Moment(1_800_000_000).to_time(), Instant::now())
        }

        fn after(start: Clocks, wall: Duration, monotonic: Duration) -> Clocks {
            Clocks::at(start.wall() + wall, start.monotonic() + monotonic)
        }

        #[test]
        fn a_record_is_unchanged_since_it_was_first_seen_so() {
            let (mut watched, start) = (Watched::default(), start());
            let minute = |count: u32| after(start, MINUTE * count, MINUTE * count);
            let (silent, living) = (shown(1, 5), shown(2, 5));
            assert_eq!(watched.rest_of(&silent, start), Duration::ZERO, "it was never seen");
            watched.look(&[silent.clone(), living], start);
            let living = shown(2, 300);
            watched.look(&[silent.clone(), living.clone()], minute(5));
            assert_eq!(watched.rest_of(&silent, minute(9)), MINUTE * 9);
            assert_eq!(watched.rest_of(&living, minute(9)), MINUTE * 4);
        }

        #[test]
        fn neither_a_set_clock_nor_a_suspended_machine_counts() {
            let (mut watched, start) = (Watched::default(), start());
            let record = shown(1, 5);
            watched.look(std::slice::from_ref(&record), start);
            for (wall, monotonic) in [(MINUTE * 600, MINUTE), (MINUTE, MINUTE * 600)] {
                assert_eq!(watched.rest_of(&record, after(start, wall, monotonic)), MINUTE);
            }
            let back = Clocks::at(SystemTime::UNIX_EPOCH, start.monotonic() + MINUTE * 600);
            assert_eq!(watched.rest_of(&record, back), Duration::ZERO);
        }

        #[test]
        fn no_more_records_are_remembered_than_fit() {
            let (mut watched, start) = (Watched::default(), start());
            for number in 0..3 * MOST as u64 {
                let now = after(start, Duration::ZERO, Duration::from_millis(number));
                watched.look(&[shown(number, 5)], now);
            }
            assert!(watched.0.len() <= MOST);
            assert!(watched.0.contains_key(&(3 * MOST as u64 - 1)), "the newest are kept");
        }
    }
}
