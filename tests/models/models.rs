//! What is checked. Where a thread would wait without end, the checker says so.

use std::future::poll_fn;

use std::time::{Duration, Instant};

use super::core::{Before, Core, Next, Reload, Until, poll_until, wait_until};
use super::sync::{Arc, Mutex, lock};
use super::{block_on, thread};

/// A handle whose values are ten times their generation.
type Handle = Arc<Core<u64>>;

fn handle() -> Handle {
    Arc::new(Core::new(1, 10))
}

fn publish(handle: &Handle, generation: u64) -> bool {
    handle.update(|_| Some(Next { generation, current: Arc::new(generation * 10), previous: None }))
}

/// What is read belongs together.
fn read(handle: &Handle) -> u64 {
    let state = handle.load();
    assert_eq!(*state.next.current, state.next.generation * 10);
    state.next.generation
}

/// As `NewerKey::wait` does.
fn ask(handle: &Handle, generation: u64) -> Reload {
    let mut ticket = None;
    let look = || handle.look_past(generation, &mut ticket);
    wait_until(None, || handle.reloads.news(), look).unwrap()
}

/// As a refresher does: waits until it is asked, then reads the place and publishes what is there.
fn reload_once(handle: &Handle, place: &Mutex<u64>) {
    let asked = || handle.reloads.is_asked().then_some(());
    wait_until(None, || handle.reloads.work(), asked).unwrap();
    let attempt = handle.reloads.begin();
    let there = *lock(place);
    let outcome =
        if there > read(handle) && publish(handle, there) { Reload::Newer } else { Reload::Unchanged };
    handle.reloads.end(attempt, outcome);
}

pub(super) fn a_reader_never_sees_a_generation_go_back() {
    let handle = handle();
    let writer = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || {
            assert!(publish(&handle, 2));
            assert!(publish(&handle, 3));
            assert!(!publish(&handle, 2), "an older one is refused");
        })
    };
    let first = read(&handle);
    let second = read(&handle);
    assert!(first <= second);
    writer.join().unwrap();
    assert_eq!(read(&handle), 3);
}

/// Publishes generation 2 after key 10, which has its grace; or says that it has none any more.
fn publish_second(handle: &Handle, has_previous: bool) -> bool {
    handle.update(|there| {
        // As a live handle does: what is there already is used again.
        let before = there.previous.as_ref().map(|before| &before.value);
        let first = [Some(&there.current), before].into_iter().flatten().find(|value| ***value == 10);
        let value = first.map_or_else(|| Arc::new(10), Arc::clone);
        let until = Until::at(Instant::now() + Duration::from_secs(60));
        let previous = has_previous.then_some(Before { value, generation: 1, until });
        Some(Next { generation: 2, current: Arc::new(20), previous })
    })
}

/// One has read the keys before the previous one was compromised, and publishes after the thread that did
/// that.
pub(super) fn a_stale_publication_never_brings_a_previous_key_back() {
    let handle = handle();
    publish_second(&handle, true);
    let stale = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || publish_second(&handle, true))
    };
    publish_second(&handle, false);
    assert!(handle.load().next.previous.is_none(), "it was brought back");
    assert!(stale.join().unwrap());
    assert!(handle.load().next.previous.is_none(), "it was brought back");
    assert_eq!(read(&handle), 2);
}

pub(super) fn two_writers_do_not_lose_each_other() {
    let handle = handle();
    let next = |handle: &Handle| {
        handle.update(|there| {
            let generation = there.generation + 1;
            Some(Next { generation, current: Arc::new(generation * 10), previous: None })
        })
    };
    let writer = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || next(&handle))
    };
    next(&handle);
    writer.join().unwrap();
    assert_eq!(read(&handle), 3);
}

pub(super) fn a_caller_is_answered_by_an_attempt_that_began_later() {
    let handle = handle();
    let place = Arc::new(Mutex::new(1));
    handle.reloads.attach();
    let reloader = {
        let (handle, place) = (Arc::clone(&handle), Arc::clone(&place));
        thread::spawn(move || {
            // The poll's own attempt may read the place before it is written.
            let attempt = handle.reloads.begin();
            let there = *lock(&place);
            handle.reloads.end(attempt, if there == 2 { Reload::Failed } else { Reload::Unchanged });
            if handle.reloads.is_asked() {
                let attempt = handle.reloads.begin();
                assert_eq!(*lock(&place), 2);
                handle.reloads.end(attempt, Reload::Failed);
            }
            handle.reloads.detach();
        })
    };
    *lock(&place) = 2;
    // `Unchanged` is what an attempt said that read the place before.
    assert_ne!(ask(&handle, 1), Reload::Unchanged);
    reloader.join().unwrap();
}

pub(super) fn an_attempt_s_answer_reaches_every_waiter() {
    let handle = handle();
    handle.reloads.attach();
    let reloader = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || reload_once(&handle, &Mutex::new(1)))
    };
    assert_eq!(ask(&handle, 1), Reload::Unchanged);
    reloader.join().unwrap();
}

pub(super) fn a_caller_is_told_when_the_reloader_leaves() {
    let handle = handle();
    handle.reloads.attach();
    let reloader = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || handle.reloads.detach())
    };
    assert_eq!(ask(&handle, 1), Reload::NoRefresher);
    reloader.join().unwrap();
}

/// One of two reloaders leaves during its attempt, as a refresher that is stopped. The other one answers.
fn leaving_during_an_attempt(ends_late: bool) {
    let handle = handle();
    handle.reloads.attach();
    handle.reloads.attach();
    let leaver = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || {
            let attempt = handle.reloads.begin();
            handle.reloads.detach();
            if ends_late {
                handle.reloads.end(attempt, Reload::Unchanged);
            }
        })
    };
    let stayer = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || reload_once(&handle, &Mutex::new(1)))
    };
    assert_eq!(ask(&handle, 1), Reload::Unchanged, "it is told that nothing reloads the key");
    leaver.join().unwrap();
    // Where the late end has answered, the other one may not be asked.
    if ends_late && !handle.reloads.is_asked() {
        handle.reloads.ask();
    }
    stayer.join().unwrap();
}

pub(super) fn an_attempt_of_a_reloader_that_leaves_is_made_by_another() {
    leaving_during_an_attempt(false);
}

pub(super) fn an_attempt_of_a_reloader_that_has_left_may_end_late() {
    leaving_during_an_attempt(true);
}

pub(super) fn a_key_that_comes_before_the_reloader_leaves_is_not_missed() {
    let handle = handle();
    handle.reloads.attach();
    let reloader = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || {
            publish(&handle, 2);
            handle.reloads.detach();
        })
    };
    assert_eq!(ask(&handle, 1), Reload::Newer);
    reloader.join().unwrap();
}

pub(super) fn a_publication_without_an_attempt_reaches_every_waiter() {
    let handle = handle();
    handle.reloads.attach();
    let rotation = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || publish(&handle, 2))
    };
    assert_eq!(ask(&handle, 1), Reload::Newer);
    rotation.join().unwrap();
}

pub(super) fn drained_means_that_nothing_holds_the_old_generation() {
    let handle = handle();
    let sending = Arc::new(Mutex::new(0_u64));
    let sender = {
        let (handle, sending) = (Arc::clone(&handle), Arc::clone(&sending));
        thread::spawn(move || {
            let state = handle.load();
            *lock(&sending) = state.next.generation;
            *lock(&sending) = 0;
            drop(state);
        })
    };
    publish(&handle, 2);
    let drained = || handle.holders.is_drained(1).then_some(());
    wait_until(None, || handle.holders.fewer(), drained).unwrap();
    assert_ne!(*lock(&sending), 1, "a request with the old key is under way");
    sender.join().unwrap();
    assert!(handle.holders.is_drained(1) && !handle.holders.is_drained(2));
}

pub(super) fn a_future_is_woken_as_a_thread_is() {
    let handle = handle();
    handle.reloads.attach();
    let place = Arc::new(Mutex::new(2));
    let reloader = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || reload_once(&handle, &place))
    };
    let (mut listening, mut ticket) = (None, None);
    let outcome = block_on(poll_fn(|context| {
        let look = || handle.look_past(1, &mut ticket);
        poll_until(&mut listening, || handle.reloads.news(), look, context)
    }));
    assert_eq!(outcome, Reload::Newer);
    reloader.join().unwrap();
}

/// Senders that are refused ask for a newer key, while a reloader takes three keys up one after another; at
/// the end each old one is drained.
pub(super) fn a_loaded_handle() {
    const LAST: u64 = 4;

    let handle = handle();
    let place = Arc::new(Mutex::new(1));
    handle.reloads.attach();
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let (handle, place) = (Arc::clone(&handle), Arc::clone(&place));
            thread::spawn(move || {
                let mut seen = 1;
                while seen < LAST {
                    let state = handle.load();
                    let sent = state.next.generation;
                    assert!(sent >= seen);
                    seen = sent;
                    let deleted = *lock(&place) > sent;
                    drop(state);
                    if deleted {
                        assert_eq!(ask(&handle, sent), Reload::Newer);
                    }
                    thread::yield_now();
                }
            })
        })
        .collect();
    let reloader = {
        let (handle, place) = (Arc::clone(&handle), Arc::clone(&place));
        thread::spawn(move || {
            while handle.load().next.generation < LAST {
                reload_once(&handle, &place);
            }
            handle.reloads.detach();
        })
    };
    for generation in 2..=LAST {
        *lock(&place) = generation;
        let drained = || handle.holders.is_drained(generation - 1).then_some(());
        wait_until(None, || handle.holders.fewer(), drained).unwrap();
    }
    for sender in senders {
        sender.join().unwrap();
    }
    reloader.join().unwrap();
}
