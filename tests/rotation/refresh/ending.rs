//! How refreshers end.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::Refresher;

use crate::support::refreshing::{
    Gate, PATIENCE, SECOND, Scripted, eventually, has, of, only_asked, quick, text,
};
use crate::support::waiting::in_time;
use crate::support::{KEY, in_child};

/// Whether this process has the thread of refreshers. The system keeps 15 bytes of a name.
fn has_thread() -> bool {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let mut names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.any(|name| name.starts_with("keysheath-timer"))
}

#[test]
fn dropping_the_last_ends_the_thread_and_handles_keep_keys() {
    in_child::<&str>("ending::dropping_the_last_ends_the_thread_and_handles_keep_keys", &[], || {
        let source = Scripted::new(KEY);
        let refreshers: Vec<_> = (0..20).map(|_| of(&source, quick())).collect();
        eventually("they have a thread", has_thread);
        let handle = refreshers[0].handle();
        drop(refreshers);
        eventually("it ends after the last", || !has_thread());
        let calls = source.calls();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(source.calls(), calls, "no caller asks any more");
        assert!(has(&handle, KEY));
        let generation = handle.load().unwrap().generation();
        assert_eq!(handle.wait_newer_than(generation, PATIENCE), Some(Reload::NoRefresher));
    });
}

#[test]
fn a_dropped_refresher_ignores_what_its_hanging_source_returns() {
    let (source, gate) = (Scripted::new(KEY), Gate::default());
    let refresher = of(&source, only_asked().with_deadline(Duration::from_millis(200)));
    let handle = refresher.handle();
    let passes = gate.clone();
    source.does(move |_| {
        passes.pass();
        Ok(text(SECOND))
    });
    let (waiting, before) = (handle.clone(), handle.load().unwrap().generation());
    let asks = thread::spawn(move || waiting.wait_newer_than(before, PATIENCE));
    eventually("the source hangs", || source.calls() == 2);
    in_time(PATIENCE, move || drop(refresher));
    let answer = asks.join().unwrap().expect("an answer");
    assert!(matches!(answer, Reload::NoRefresher | Reload::Failed), "{answer}");
    gate.open();
    thread::sleep(Duration::from_millis(50));
    assert!(has(&handle, KEY));
}

#[test]
fn a_result_that_arrives_after_the_drop_began_is_discarded() {
    let (source, gate) = (Scripted::new(KEY), Gate::default());
    let refresher = of(&source, only_asked().with_deadline(PATIENCE));
    let handle = refresher.handle();
    let passes = gate.clone();
    source.does(move |_| {
        passes.pass();
        Ok(text(SECOND))
    });
    let generation = handle.load().unwrap().generation();
    handle.report_refused(generation);
    eventually("the attempt is under way", || source.calls() == 2);
    let drops = thread::spawn(move || drop(refresher));
    // The end of reloading is reported as soon as the drop has begun.
    assert_eq!(handle.wait_newer_than(generation, PATIENCE), Some(Reload::NoRefresher));
    gate.open();
    drops.join().unwrap();
    assert!(has(&handle, KEY));
}

#[test]
fn a_refresher_is_dropped_on_its_own_thread() {
    let source = Scripted::new(KEY);
    let slot: Arc<Mutex<Option<Refresher<Kanal>>>> = Arc::default();
    let own = Arc::clone(&slot);
    let settings = quick().on_event(move |event| {
        if event.to_string().starts_with("generation 2") {
            drop(own.lock().unwrap().take());
        }
    });
    let refresher = of(&source, settings);
    let handle = refresher.handle();
    *slot.lock().unwrap() = Some(refresher);
    source.gives(SECOND);
    eventually("it is dropped", || slot.lock().unwrap().is_none());
    let generation = handle.load().unwrap().generation();
    assert_eq!(handle.wait_newer_than(generation, PATIENCE), Some(Reload::NoRefresher));
}
