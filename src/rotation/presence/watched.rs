//! What this process has itself seen of the records of fleets, by clocks of its own.

use std::collections::HashMap;
use std::sync::{LazyLock, MutexGuard};
use std::time::{Duration, Instant};

use super::{MAX_PROCESSES, PresenceRecord};
use crate::internal::clocks::Clocks;
use crate::internal::lock::Lock;
use crate::internal::utc::Moment;

/// How many records are remembered.
const MOST: usize = 16 * MAX_PROCESSES;

/// Since when each record has been as it is. A record is removed only if it was seen to rest for its time to
/// live: the time that is written in it is that of another machine, whose clock or this one's may be wrong.
///
/// Records are known by the number that their process drew, so that those of all documents are kept together.
#[derive(Default)]
pub(super) struct Watched(HashMap<u64, Sight>);

#[derive(Clone, Copy)]
struct Sight {
    shown: Moment,
    since: Clocks,
    looked: Instant,
}

/// What this process has seen, whichever presence asked: one that was refused room, and asks again, goes on
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

    /// For how long a record has been seen as it is, by the clock that shows less.
    pub(super) fn rest_of(&self, record: &PresenceRecord, now: Clocks) -> Duration {
        self.0.get(&record.process).map_or(Duration::ZERO, |sight| now.at_least_since(sight.since))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

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
    fn a_record_rests_since_it_was_first_seen_as_it_is() {
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
    fn neither_a_clock_that_is_set_nor_a_suspended_machine_counts() {
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
