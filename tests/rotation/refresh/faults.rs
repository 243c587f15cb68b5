//! Sources and stores that hang, panic or come back too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::{RefreshError, Refresher, ReloadProblem};
use keysheath::source::{CallError, Problem, Provenance, SecretFile};
use keysheath::store::{Document, DocumentError, DocumentStore, MemoryStore};

use crate::support::refreshing::{
    Events, Gate, NEVER, PATIENCE, SECOND, Scripted, THIRD, eventually, has, key_set, of, only_asked,
    persist, quick, rarely, text,
};
use crate::support::stores::pass_on;
use crate::support::{Folder, KEY};

const SHORT: Duration = Duration::from_millis(30);

/// How many events wait for a callback, as its documentation says.
const MAX_WAITING_EVENTS: usize = 64;

/// An earlier call still hangs, so there was none.
const STUCK: Problem = Problem::Call(CallError::Stuck { count: 1 });

#[test]
fn a_hanging_source_times_out_and_its_late_result_is_discarded() {
    let (folder, source, gate) = (Folder::new(), Scripted::new(KEY), Gate::default());
    let lower = folder.write("lower", THIRD);
    let chain = Chain::<Kanal>::new().with(source.clone()).with(SecretFile::new(lower));
    let refresher = Refresher::from_chain(chain, only_asked().with_deadline(SHORT)).unwrap();
    let passes = gate.clone();
    let late = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&late);
    source.does(move |_| {
        passes.pass();
        is_back.store(true, Ordering::SeqCst);
        Ok(text(SECOND))
    });
    for expected in [Problem::Call(CallError::Deadline { after: SHORT }), STUCK, STUCK, STUCK] {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        let problem = refresher.status().health().problem().unwrap().problem().clone();
        assert_eq!(problem, ReloadProblem::Source(expected));
        assert!(has(&refresher.handle(), KEY));
    }
    // The first one may come to its source after its deadline only.
    eventually("it was asked", || source.calls() == 2);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    assert_eq!(source.calls(), 2, "while it hangs it is not asked again");
    source.gives(KEY);
    gate.open();
    eventually("the late ones come back", || late.load(Ordering::SeqCst));
    eventually("it is asked again", || refresher.refresh_now(PATIENCE) == Some(Reload::Unchanged));
    assert!(has(&refresher.handle(), KEY), "a late answer was taken");
    assert_eq!(refresher.handle().load().unwrap().generation().to_string(), "1");
}

#[test]
fn a_panicking_source_is_a_failed_reload_and_refreshing_goes_on() {
    let source = Scripted::new(KEY);
    let events = Events::default();
    let chain = Chain::<Kanal>::new().with(source.clone());
    let refresher = Refresher::from_chain(chain, events.record(quick())).unwrap();
    source.does(|_| std::panic::resume_unwind(Box::new(())));
    eventually("it fails again and again", || events.failures() > 5);
    let status = refresher.status();
    assert_eq!(status.health().problem().unwrap().problem(), &ReloadProblem::Source(Problem::Unreachable));
    assert!(status.to_string().contains("the last good key stays active"), "{status}");
    assert!(has(&refresher.handle(), KEY));
    source.gives(SECOND);
    eventually("it recovers", || has(&refresher.handle(), SECOND));
}

/// A store that hangs, and one that panics, on demand.
#[derive(Clone)]
struct Bad {
    store: MemoryStore,
    hangs: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    gate: Gate,
}

impl DocumentStore for Bad {
    pass_on!(store: limit, write);

    fn provenance(&self) -> Provenance {
        Provenance::other("bad store", "kanal")
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        if self.hangs.load(Ordering::SeqCst) {
            self.gate.pass();
        }
        if self.panics.load(Ordering::SeqCst) {
            std::panic::resume_unwind(Box::new(()));
        }
        self.store.read()
    }
}

#[test]
fn a_hanging_or_panicking_store_fails_the_start_or_a_reload() {
    let bad = Bad {
        store: MemoryStore::new(),
        hangs: Arc::default(),
        panics: Arc::default(),
        gate: Gate::default(),
    };
    persist(&bad, &key_set(&[KEY]).to_document());
    let start = || Refresher::<Kanal>::from_store(bad.clone(), only_asked().with_deadline(SHORT));
    let refresher = start().unwrap();
    for (fault, expected) in [
        (&bad.hangs, Problem::Call(CallError::Deadline { after: SHORT })),
        (&bad.panics, Problem::Unreachable),
    ] {
        fault.store(true, Ordering::SeqCst);
        let expected = ReloadProblem::Document(DocumentError::Unavailable(expected));
        let RefreshError::Place(error) = start().unwrap_err() else { panic!("another error") };
        assert_eq!(error.problem(), &expected);
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        assert_eq!(refresher.status().health().problem().unwrap().problem(), &expected);
        assert!(has(&refresher.handle(), KEY));
        fault.store(false, Ordering::SeqCst);
        bad.gate.open();
        eventually("it recovers", || refresher.refresh_now(PATIENCE) == Some(Reload::Unchanged));
    }
}

#[test]
fn a_blocked_callback_delays_no_reload_and_drops_are_counted() {
    let (source, gate) = (Scripted::new(KEY), Gate::default());
    let passes = gate.clone();
    let settings = only_asked()
        .with_cadence(rarely().with_minimum_interval(Duration::ZERO))
        .on_event(move |_| passes.pass());
    let refresher = of(&source, settings);
    let handle = refresher.handle();
    for key in [SECOND, THIRD] {
        source.gives(key);
        let reload = handle.wait_newer_than(handle.load().unwrap().generation(), PATIENCE);
        assert_eq!(reload, Some(Reload::Newer));
        assert!(has(&handle, key));
    }
    assert_eq!(refresher.status().health().dropped_events(), 0);
    for round in 0..=MAX_WAITING_EVENTS {
        source.gives(if round % 2 == 0 { KEY } else { SECOND });
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    }
    eventually("some are not reported", || refresher.status().health().dropped_events() > 0);
    assert!(refresher.status().to_string().contains("the subscriber blocks"), "{}", refresher.status());
    gate.open();
}

#[test]
fn the_first_refusal_does_not_wait_for_the_source_to_recover() {
    let source = Scripted::new(KEY);
    let settings = only_asked()
        .with_cadence(rarely().with_minimum_interval(Duration::from_millis(1)).with_longest_back_off(NEVER));
    let refresher = of(&source, settings);
    let handle = refresher.handle();
    source.does(|_| std::panic::resume_unwind(Box::new(())));
    for _ in 0..24 {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    }
    source.gives(SECOND);
    let first = handle.load().unwrap().generation();
    assert_eq!(handle.wait_newer_than(first, PATIENCE), Some(Reload::TooSoon), "it backs off");
    handle.report_refused(first);
    eventually("the new key is active", || has(&handle, SECOND));
    // Once for each generation.
    source.does(|_| std::panic::resume_unwind(Box::new(())));
    for _ in 0..24 {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    }
    let second = handle.load().unwrap().generation();
    handle.report_refused(second);
    let calls = source.calls();
    eventually("it is asked", || {
        source.calls() > calls || handle.wait_newer_than(second, PATIENCE) == Some(Reload::TooSoon)
    });
    eventually("it backs off again", || handle.wait_newer_than(second, PATIENCE) == Some(Reload::TooSoon));
    let calls = source.calls();
    handle.report_refused(second);
    assert_eq!(handle.wait_newer_than(second, PATIENCE), Some(Reload::TooSoon));
    assert_eq!(source.calls(), calls);
}

/// A store that counts how often it is asked for its name.
#[derive(Clone)]
struct Named(MemoryStore, Arc<AtomicUsize>);

impl DocumentStore for Named {
    pass_on!(0: limit, read, write);

    fn provenance(&self) -> Provenance {
        self.1.fetch_add(1, Ordering::SeqCst);
        Provenance::other("named store", "kanal")
    }
}

#[test]
fn a_store_is_asked_for_its_name_at_the_start_alone() {
    let store = Named(MemoryStore::new(), Arc::default());
    persist(&store, &key_set(&[KEY]).to_document());
    let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
    let asked = store.1.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    }
    assert_eq!(store.1.load(Ordering::SeqCst), asked, "it is not asked on the refresher's thread");
}
