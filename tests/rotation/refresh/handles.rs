//! What a handle does with its refresher: keeps it, is stopped under it, takes refusals back, and is forked
//! away from it.

use std::thread;
use std::time::{Duration, Instant};

use keysheath::handle::{NoActiveKey, Reload, Stop};
use keysheath::key::Kanal;
use keysheath::refresh::{Refresher, ReloadProblem};
use keysheath::store::MemoryStore;

use crate::support::KEY;
use crate::support::refreshing::{
    Gate, PATIENCE, SECOND, Scripted, THIRD, ask, eventually, has, key_set, of, only_asked, persist, quick,
    rarely, text,
};

#[test]
fn a_handle_keeps_its_refresher_until_the_last_clone_is_dropped() {
    let source = Scripted::new(KEY);
    let handle = of(&source, quick()).into_handle();
    source.gives(SECOND);
    eventually("it follows", || has(&handle, SECOND));
    let clone = handle.clone();
    drop(handle);
    source.gives(THIRD);
    eventually("its clone follows", || has(&clone, THIRD));
    drop(clone);
    eventually("no caller asks any more", || {
        let calls = source.calls();
        thread::sleep(Duration::from_millis(100));
        source.calls() == calls
    });
}

#[test]
fn dropping_a_handle_that_keeps_its_refresher_does_not_wait() {
    let (source, gate) = (Scripted::new(KEY), Gate::default());
    let handle = of(&source, quick().with_deadline(PATIENCE)).into_handle();
    let passes = gate.clone();
    source.does(move |_| {
        passes.pass();
        Ok(text(KEY))
    });
    let calls = source.calls();
    eventually("the source hangs", || source.calls() > calls);
    let start = Instant::now();
    drop(handle);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    gate.open();
}

#[test]
fn a_stopped_key_that_the_source_still_has_is_a_failed_reload() {
    let source = Scripted::new(KEY);
    let refresher = of(&source, only_asked());
    let handle = refresher.handle();
    assert_eq!(handle.stop(handle.load().unwrap().current()), Stop::NoActiveKey);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
    let status = refresher.status();
    assert_eq!(status.health().problem().unwrap().problem(), &ReloadProblem::Stopped);
    assert!(status.to_string().contains("create a new key"), "{status}");
    source.gives(SECOND);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert!(has(&handle, SECOND) && refresher.status().health().problem().is_none());
}

#[test]
fn a_stopped_key_that_the_store_still_has_is_a_failed_reload() {
    let store = MemoryStore::new();
    persist(&store, &key_set(&[KEY]).to_document());
    let refresher = Refresher::<Kanal>::from_store(store.clone(), only_asked()).unwrap();
    let handle = refresher.handle();
    assert_eq!(handle.stop(handle.load().unwrap().current()), Stop::NoActiveKey);
    for _ in 0..2 {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
        assert_eq!(refresher.status().health().problem().unwrap().problem(), &ReloadProblem::Stopped);
        assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
    }
    persist(&store, &key_set(&[KEY, SECOND]).to_document());
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert!(has(&handle, SECOND) && refresher.status().health().problem().is_none());
}

#[test]
fn after_an_accepted_answer_the_next_refusal_reloads_at_once() {
    let source = Scripted::new(KEY);
    let cadence = rarely()
        .with_minimum_interval(Duration::from_millis(10))
        .with_longest_back_off(Duration::from_secs(3600));
    let refresher = of(&source, only_asked().with_cadence(cadence));
    let handle = refresher.handle();
    let generation = handle.load().unwrap().generation();
    // An early 401, and what it makes the refresher look for without success.
    handle.report_refused(generation);
    eventually("it looks", || source.calls() == 2);
    eventually("it backs off", || ask(&handle) == Reload::TooSoon);
    for _ in 0..10 {
        handle.report_accepted(generation);
    }
    assert_eq!(handle.refused(), None);
    source.gives(SECOND);
    handle.report_refused(generation);
    assert_eq!(handle.wait_newer_than(generation, PATIENCE), Some(Reload::Newer));
}

#[test]
fn any_number_of_refusals_causes_one_request_in_an_interval() {
    let source = Scripted::new(KEY);
    let interval = Duration::from_millis(200);
    // The doubling of a fruitless rest ends at the interval, so that the interval alone is what is seen.
    let settings =
        only_asked().with_cadence(rarely().with_minimum_interval(interval).with_longest_back_off(interval));
    let refresher = of(&source, settings);
    let handle = refresher.handle();
    let start = Instant::now();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let handle = handle.clone();
            thread::spawn(move || {
                while start.elapsed() < Duration::from_secs(2) {
                    let generation = handle.load().unwrap().generation();
                    handle.report_refused(generation);
                    let _ = handle.wait_newer_than(generation, PATIENCE);
                    // Also where an answer in between takes each refusal back, so that each is news.
                    handle.report_accepted(generation);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let most = start.elapsed().as_millis() / interval.as_millis() + 3;
    assert!(u128::try_from(source.calls()).unwrap() <= most, "{} of {most}", source.calls());
}
