//! The task that shows a process, and what it has seen of others.

use std::sync::Mutex;

use super::*;

use crate::handle::Publisher;
use crate::internal::threads::Worker;
use crate::key::{Issuer as _, Kanal};
use crate::store::MemoryStore;

const HOUR: Duration = Duration::from_secs(3600);

/// A process that is shown, and its clocks, which a test sets.
struct Shown {
    store: MemoryStore,
    uses: UsageObserver,
    clocks: Arc<Mutex<Clocks>>,
    _worker: Worker<Progress>,
}

impl Shown {
    fn new() -> Self {
        let (store, handle) = (MemoryStore::new(), Publisher::<Kanal>::new().handle());
        let clocks = Arc::new(Mutex::new(Clocks::now()));
        let (uses, clock) = (handle.usage(), Arc::clone(&clocks));
        let (events, event_thread) = EventSender::start(None).unwrap();
        let progress = Progress { health: Health::new(), is_out: false };
        let waking = uses.clone();
        let mut worker = Worker::new(progress, event_thread, move || waking.wake(), || ());
        let mut runner = Box::new(Runner {
            store: Arc::new(store.clone()),
            uses: uses.clone(),
            settings: PresenceSettings::new("a"),
            process: 1,
            link: Arc::clone(worker.link()),
            clock: Box::new(move || *clock.lock().unwrap()),
            events,
            shown: None,
        });
        runner.shown = Some(runner.show().unwrap());
        let on_panic = runner.on_panic();
        worker.run(runner.keep_shown(), on_panic, ()).unwrap();
        Self { store, uses, clocks, _worker: worker }
    }

    /// Sets the clocks, and lets the thread look at them, as it does of itself every half minute.
    fn set(&self, clocks: Clocks) {
        *self.clocks.lock().unwrap() = clocks;
        self.uses.wake();
    }

    fn shown(&self) -> u64 {
        let fleet = Fleet::read_as(Kanal::PROFILE, &self.store).unwrap().0;
        fleet.records()[0].shown.0
    }

    #[track_caller]
    fn is_shown_at(&self, clocks: Clocks) {
        let expected = crate::internal::printing::Moment::from(clocks.wall()).0;
        let begun = Instant::now();
        while self.shown() != expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} is not {expected}", self.shown());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_machine_that_was_suspended_is_shown_at_once() {
    let shown = Shown::new();
    let start = *shown.clocks.lock().unwrap();
    let resumed = Clocks::at(start.wall() + 2 * HOUR, start.monotonic());
    shown.set(resumed);
    shown.is_shown_at(resumed);
}

#[test]
fn a_clock_that_is_set_back_is_shown_at_once() {
    let shown = Shown::new();
    let start = *shown.clocks.lock().unwrap();
    let back = Clocks::at(start.wall() - HOUR, start.monotonic());
    shown.set(back);
    shown.is_shown_at(back);
    // And the monotonic clock alone is enough.
    let still = Clocks::at(back.wall(), start.monotonic() + HOUR);
    shown.set(Clocks::at(back.wall() + Duration::from_secs(2), still.monotonic()));
    shown.is_shown_at(Clocks::at(back.wall() + Duration::from_secs(2), still.monotonic()));
}

mod watched {
    use std::time::SystemTime;

    use super::*;

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
