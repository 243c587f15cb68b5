//! Names that cannot be shown, and documents that cannot be had.

use std::sync::atomic::AtomicBool;

use keysheath::rotation::{PresenceError, RotationError};
use keysheath::source::{CallError, Problem, Provenance};
use keysheath::store::{Document, DocumentContent, DocumentError, FileStore, Version};

use super::*;
use crate::support::in_child;
use crate::support::stores::pass_on;

/// How many processes a document holds.
const MAX_PROCESSES: usize = 128;

/// A store that can be taken away, or made to panic.
#[derive(Clone, Default)]
struct Shaky {
    store: MemoryStore,
    is_away: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    /// How long a write takes, in milliseconds.
    slow: Arc<AtomicU64>,
    /// How many writes are still refused, as if another process were faster.
    overtaken: Arc<AtomicU64>,
}

impl Shaky {
    fn look(&self) -> Result<(), DocumentError> {
        while self.hangs.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!self.panics.load(Ordering::SeqCst), "the store panics, as the test wants");
        if self.is_away.load(Ordering::SeqCst) {
            return Err(DocumentError::Unavailable(Problem::Call(CallError::Deadline {
                after: Duration::ZERO,
            })));
        }
        Ok(())
    }
}

impl DocumentStore for Shaky {
    pass_on!(store: limit);

    fn provenance(&self) -> Provenance {
        Provenance::other("shaky", "place")
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.look()?;
        self.store.read()
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        self.look()?;
        thread::sleep(Duration::from_millis(self.slow.load(Ordering::SeqCst)));
        let take = |left: u64| left.checked_sub(1);
        if self.overtaken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            return Err(DocumentError::Conflict);
        }
        self.store.write(content, unchanged)
    }
}

#[test]
fn an_invalid_name_is_refused_and_nothing_is_written() {
    let store = MemoryStore::new();
    let handle = KeyHandle::fixed(ApiKey::<Kanal>::parse(key(1).expose_secret()).unwrap());
    let with_key = format!("shop {}", key(1).expose_secret());
    let with_part = format!("shop-{}", &key(1).expose_secret()[1..]);
    let bytes: Vec<String> = key(1).expose_secret().bytes().map(|byte| format!("{byte:02x}")).collect();
    let in_hexadecimal = bytes.concat();
    let keys = [&with_key, &with_part, &in_hexadecimal].map(String::as_str);
    let others = ["", &"x".repeat(65), "a\nb", "a\"b", "a\\b", "caf\u{e9}", "\u{202e}x"];
    for name in others.into_iter().chain(keys) {
        let error = Presence::show(store.clone(), &handle, settings(name)).unwrap_err();
        assert!(matches!(error, PresenceError::BadName { .. }), "{name:?}: {error}");
        crate::support::assert_prints_nothing_of(&error, key(1).expose_secret());
    }
    assert!(store.read().unwrap().is_none());
    assert!(Presence::show(store, &handle, settings(&"x".repeat(64))).is_ok());
}

#[test]
fn another_document_is_not_changed_and_delays_a_deletion() {
    let rotator = in_memory();
    let text = b"{ \"keysheath\": \"key set\", \"form\": 1 }".to_vec();
    rotator.presence.write(&DocumentContent::from(text.clone()), None).unwrap();
    let handle = no_key();
    let error = Presence::show(rotator.presence.clone(), &handle, settings("a")).unwrap_err();
    assert!(matches!(error, PresenceError::Corrupt { .. }), "{error}");
    assert_eq!(rotator.presence.read().unwrap().unwrap().content().expose_secret(), text);
    // Before there is an old key it does not matter.
    assert!(matches!(rotator.next(), NextStep::Nothing { .. }));
    rotator.promote(2);
    let error = rotator.rotation.next_step().unwrap_err();
    assert!(matches!(error, RotationError::Presence { .. }), "{error}");
    assert!(error.to_string().contains("cannot read which processes use which key"), "{error}");
}

#[test]
fn an_unreachable_store_is_reported_and_used_once_it_is_back() {
    let shaky = Shaky::default();
    let rotator = Rotator::new(Shaky::default(), shaky.clone());
    let refresher = rotator.refresher();
    let presence = rotator.show(&refresher.handle(), "a");
    shaky.is_away.store(true, Ordering::SeqCst);
    rotator.promote(2);
    let _ = refresher.refresh_now(PATIENCE);
    eventually("a failure", || presence.health().consecutive_failures() > 1);
    assert!(matches!(presence.health().problem(), Some(PresenceError::Document(_))));
    assert!(presence.health().to_string().contains("consecutive failures"), "{}", presence.health());
    assert!(refresher.handle().load().unwrap().current().matches(key(2).expose_secret().as_bytes()));
    assert!(matches!(rotator.rotation.next_step(), Err(RotationError::Presence { .. })));
    shaky.is_away.store(false, Ordering::SeqCst);
    eventually("it is shown again", || presence.health().problem().is_none());
    eventually("with the new key", || rotator.waits_for().is_empty());
    assert_eq!(rotator.deletes(), (Some(1), vec![]));
}

#[test]
fn a_place_that_is_away_at_first_is_an_error() {
    let shaky = Shaky::default();
    shaky.is_away.store(true, Ordering::SeqCst);
    let error = Presence::show(shaky, &no_key(), settings("a")).unwrap_err();
    assert!(matches!(error, PresenceError::Document(DocumentError::Unavailable(_))), "{error}");
}

#[test]
fn who_is_overtaken_tries_again_and_not_for_ever() {
    let shaky = Shaky::default();
    shaky.overtaken.store(5, Ordering::SeqCst);
    let handle = no_key();
    let shown = Presence::show(shaky.clone(), &handle, settings("a")).unwrap();
    assert_eq!(Fleet::read::<Kanal>(&shaky).unwrap().records().len(), 1);
    drop(shown);
    shaky.overtaken.store(1000, Ordering::SeqCst);
    let error = Presence::show(shaky, &handle, settings("b")).unwrap_err();
    assert!(matches!(error, PresenceError::Contended { .. }), "{error}");
}

#[test]
fn a_whole_fleet_that_starts_at_once_is_shown() {
    let shaky = Shaky::default();
    // As a cluster that keeps what is written on several disks.
    shaky.slow.store(60, Ordering::SeqCst);
    let handle = no_key();
    let show = |number| Presence::show(shaky.clone(), &handle, PresenceSettings::new(format!("{number}")));
    let mut fleet: Vec<Presence> = Vec::new();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..MAX_PROCESSES).map(|number| scope.spawn(move || show(number))).collect();
        fleet.extend(starts.into_iter().map(|start| start.join().unwrap().unwrap()));
    });
    assert_eq!(Fleet::read::<Kanal>(&shaky).unwrap().records().len(), MAX_PROCESSES);
    // They need not be taken out one by one.
    shaky.is_away.store(true, Ordering::SeqCst);
}

#[test]
fn a_store_that_panics_ends_the_thread_and_the_status_says_so() {
    let shaky = Shaky::default();
    let presence = Presence::show(shaky.clone(), &no_key(), settings("a")).unwrap();
    shaky.panics.store(true, Ordering::SeqCst);
    eventually("the end", || presence.health().problem() == Some(&PresenceError::Ended));
    drop(presence);
}

#[test]
fn a_record_is_renewed_before_it_expires() {
    let folder = Folder::new();
    let store = FileStore::new(folder.at("presence"));
    let presence = Presence::show(store.clone(), &no_key(), settings("a")).unwrap();
    let shown = || Fleet::read::<Kanal>(&store).unwrap().records()[0].shown();
    let first = shown();
    eventually("it is shown again", || shown() > first);
    assert!(presence.health().problem().is_none());
    assert!(presence.health().to_string().starts_with("last success 20"), "{}", presence.health());
}

#[test]
fn many_presences_end_in_one_bound_while_a_store_hangs() {
    // In a process of its own: what is waited for there is bounded for all presences of a process.
    in_child("broken::many_presences_end_in_one_bound_while_a_store_hangs", &[("NONE", "")], || {
        let (hanging, well) = (Shaky::default(), Shaky::default());
        let handle = no_key();
        let show = |store: &Shaky, number: u32| {
            Presence::show(store.clone(), &handle, settings(&format!("{number}"))).unwrap()
        };
        let several: Vec<_> = (0..5).map(|number| show(&hanging, number)).collect();
        let last = show(&well, 6);
        hanging.hangs.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        drop(several);
        assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
        // What the others have used up is not taken from one that ends at once.
        drop(last);
        assert!(Fleet::read::<Kanal>(&well).unwrap().records().is_empty());
        hanging.hangs.store(false, Ordering::SeqCst);
        eventually("the others are out too", || Fleet::read::<Kanal>(&hanging).unwrap().records().is_empty());
    });
}

#[test]
fn closing_says_whether_the_process_is_out() {
    let shaky = Shaky::default();
    let handle = no_key();
    let show = |name: &str| Presence::show(shaky.clone(), &handle, settings(name)).unwrap();
    assert!(show("a").close(PATIENCE));
    assert!(Fleet::read::<Kanal>(&shaky).unwrap().records().is_empty());
    let several = [show("b"), show("c")];
    shaky.hangs.store(true, Ordering::SeqCst);
    several.iter().for_each(Presence::stop);
    let begun = Instant::now();
    assert_eq!(several.map(|presence| presence.close(Duration::from_millis(50))), [false, false]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    shaky.hangs.store(false, Ordering::SeqCst);
    eventually("both are out", || Fleet::read::<Kanal>(&shaky).unwrap().records().is_empty());
    let away = show("d");
    shaky.is_away.store(true, Ordering::SeqCst);
    assert!(!away.close(PATIENCE), "it could not be taken out");
}

#[test]
fn a_full_document_takes_a_process_that_has_watched_it() {
    let store = MemoryStore::new();
    // All have been silent for long, by a clock that may be wrong.
    let processes: Vec<_> = (0..MAX_PROCESSES)
        .map(|number| {
            format!(r#"{{"process":{number},"name":"a","generation":0,"oldest":0,"shown":1000,"ttl":1}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"keysheath":"presence","form":1,"issuer":"kanal","processes":[{}]}}"#,
        processes.join(",")
    );
    store.write(&DocumentContent::from(text.into_bytes()), None).unwrap();
    let handle = no_key();
    let show = || Presence::show(store.clone(), &handle, settings("new"));
    let error = show().unwrap_err();
    assert_eq!(error, PresenceError::Full);
    assert!(error.to_string().contains("try again after that"), "{error}");
    let mut shown = None;
    eventually("it is shown", || {
        shown = shown.take().or_else(|| show().ok());
        shown.is_some()
    });
    let fleet = Fleet::read::<Kanal>(&store).unwrap();
    assert!(fleet.records().iter().any(|record| record.name() == "new"));
}

#[test]
fn settings_and_presence_print_no_name_that_may_be_a_key() {
    let pasted = key(2).expose_secret().to_owned();
    let settings = settings(&pasted);
    crate::support::assert_nothing_of_in(&pasted, &format!("{settings:?} {settings:#?}"));
    let presence = Presence::show(MemoryStore::new(), &no_key(), settings).unwrap();
    crate::support::assert_nothing_of_in(&pasted, &format!("{presence:?} {presence:#?}"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_without_threads_left_reports_that() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    crate::support::as_ordinary_user("broken::a_process_without_threads_left_reports_that", || {
        let presence = Presence::show(MemoryStore::new(), &no_key(), settings("one")).unwrap();
        let limit = getrlimit(Resource::Nproc);
        setrlimit(Resource::Nproc, Rlimit { current: Some(1), maximum: limit.maximum }).unwrap();
        eventually("it reports it", || {
            matches!(presence.health().problem(), Some(PresenceError::NoThread(_)))
        });
        setrlimit(Resource::Nproc, limit).unwrap();
        eventually("it is shown again", || presence.health().problem().is_none());
        assert!(presence.close(PATIENCE));
    });
}
