//! Reloads that are asked for: shared, kept apart, and put off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keysheath::handle::Reload;
use keysheath::source::{Problem, Source as _, SourceError};

use crate::support::KEY;
use crate::support::refreshing::{
    Gate, NEVER, PATIENCE, SECOND, Scripted, THIRD, ask, eventually, has, of, only_asked, quick, quickly,
    rarely, text,
};

#[test]
fn fifty_who_ask_share_one_attempt() {
    let (source, gate) = (Scripted::new(KEY), Gate::default());
    let refresher = of(&source, only_asked());
    let handle = refresher.handle();
    let passes = gate.clone();
    source.does(move |_| {
        passes.pass();
        Ok(text(SECOND))
    });
    let generation = handle.load().unwrap().generation();
    let asking = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let (handle, asking) = (handle.clone(), Arc::clone(&asking));
            thread::spawn(move || {
                asking.fetch_add(1, Ordering::SeqCst);
                handle.wait_newer_than(generation, PATIENCE)
            })
        })
        .collect();
    eventually("all ask", || asking.load(Ordering::SeqCst) == 50 && source.calls() == 2);
    gate.open();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Some(Reload::Newer));
    }
    // Those who asked when it had begun are answered by its key, and one more attempt at most.
    assert!(source.calls() <= 3, "{} attempts", source.calls());
}

#[test]
fn requested_attempts_wait_for_the_minimum_interval() {
    const MINIMUM: Duration = Duration::from_millis(250);
    let source = Scripted::new(KEY);
    let times = Arc::new(Mutex::new(Vec::new()));
    let refresher = of(&source, only_asked().with_cadence(rarely().with_minimum_interval(MINIMUM)));
    let handle = refresher.handle();
    let asked = Arc::clone(&times);
    source.does(move |before| {
        asked.lock().unwrap().push(Instant::now());
        Ok(text([KEY, SECOND][before % 2]))
    });
    for _ in 0..4 {
        assert_eq!(ask(&handle), Reload::Newer);
    }
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 4);
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= MINIMUM, "{:?}", pair[1] - pair[0]);
    }
}

#[test]
fn a_request_after_a_fruitless_attempt_is_too_soon_at_once() {
    let source = Scripted::new(KEY);
    let refresher = of(
        &source,
        only_asked().with_cadence(rarely().with_minimum_interval(NEVER).with_longest_back_off(NEVER * 4)),
    );
    let handle = refresher.handle();
    assert_eq!(ask(&handle), Reload::Unchanged);
    for _ in 0..20 {
        assert_eq!(ask(&handle), Reload::TooSoon);
    }
    assert_eq!(source.calls(), 2);
    source.gives(SECOND);
    assert_eq!(ask(&handle), Reload::TooSoon, "the place is not asked");
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer), "it is demanded");
    assert!(has(&handle, SECOND));
}

#[test]
fn failed_attempts_back_off_and_a_later_one_recovers() {
    let source = Scripted::new(KEY);
    let minimum = Duration::from_millis(100);
    let refresher = of(
        &source,
        only_asked().with_cadence(rarely().with_minimum_interval(minimum).with_longest_back_off(minimum * 8)),
    );
    let handle = refresher.handle();
    let place = source.provenance();
    let times = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&times);
    source.does(move |_| {
        asked.lock().unwrap().push(Instant::now());
        Err(SourceError::new(place.clone(), Problem::Unreachable))
    });
    while source.calls() < 5 {
        let answer = ask(&handle);
        assert!(matches!(answer, Reload::Failed | Reload::TooSoon), "{answer}");
        thread::sleep(Duration::from_millis(1));
    }
    for (pair, rest) in times.lock().unwrap().windows(2).zip([2, 4, 8]) {
        assert!(pair[1] - pair[0] >= minimum * rest, "{:?} instead of {rest}", pair[1] - pair[0]);
    }
    eventually("four have failed", || refresher.status().health().consecutive_failures() == 4);
    source.gives(SECOND);
    eventually("it is asked again in the end", || ask(&handle) != Reload::TooSoon);
    assert!(has(&handle, SECOND));
    // A caller that waits for a key has it before the status says so.
    eventually("it has recovered", || refresher.status().health().consecutive_failures() == 0);
}

#[test]
fn polling_goes_on_while_asking_is_put_off() {
    let source = Scripted::new(KEY);
    let refresher = of(
        &source,
        quick().with_cadence(quickly().with_minimum_interval(NEVER).with_longest_back_off(NEVER * 4)),
    );
    let handle = refresher.handle();
    // A poll may answer as well.
    eventually("asking is put off", || ask(&handle) == Reload::TooSoon);
    source.gives(SECOND);
    eventually("a poll finds it", || has(&handle, SECOND));
}

#[test]
fn refusing_the_active_key_reloads_and_a_late_refusal_does_not() {
    let source = Scripted::new(KEY);
    let refresher = of(&source, only_asked().with_cadence(rarely().with_minimum_interval(Duration::ZERO)));
    let handle = refresher.handle();
    let first = handle.load().unwrap().generation();
    source.gives(SECOND);
    handle.report_refused(first);
    eventually("it is reloaded", || has(&handle, SECOND));
    assert_eq!(source.calls(), 2);
    for _ in 0..50 {
        handle.report_refused(first);
    }
    assert_eq!(handle.wait_newer_than(first, PATIENCE), Some(Reload::Newer), "there is a newer one already");
    source.gives(THIRD);
    // What the late ones had asked for would have been done before this.
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert_eq!(source.calls(), 3);
}

#[test]
fn async_code_awaits_a_reload_and_needs_no_specific_runtime() {
    let source = Scripted::new(KEY);
    let refresher = of(&source, only_asked());
    let handle = refresher.handle();
    source.gives(SECOND);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let before = handle.load().unwrap().generation();
    let reload = runtime.block_on(handle.newer_than(before));
    assert_eq!(reload, Reload::Newer);
    assert!(has(&handle, SECOND));
}
