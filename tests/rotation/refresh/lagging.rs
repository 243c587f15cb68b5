//! Places that lag: a replica that does not have the key yet that is active elsewhere.

use std::thread;
use std::time::Duration;

use crate::support::steps::Now as _;
use keysheath::handle::{KeyHandle, Reload};
use keysheath::key::Kanal;
use keysheath::rotation::{Rotation, RotationPolicy};
use keysheath::store::MemoryStore;

use crate::support::KEY;
use crate::support::refreshing::{
    NEVER, PATIENCE, SECOND, Scripted, eventually, has, of, only_asked, parsed, rarely, text,
};

/// As the layers do when the active key is refused, but that the wait may begin after the attempt that the
/// report has asked for, and asks for one more then.
fn refused(handle: &KeyHandle<Kanal>) -> Option<Reload> {
    let now = handle.load().unwrap().generation();
    handle.report_refused(now);
    handle.wait_newer_than(now, PATIENCE)
}

#[test]
fn a_first_refusal_retries_a_source_with_nothing_newer() {
    let source = Scripted::new(KEY);
    let refresher = of(&source, only_asked().with_lag(PATIENCE));
    source.does(|before| Ok(text(if before < 4 { KEY } else { SECOND })));
    assert_eq!(refused(&refresher.handle()), Some(Reload::Newer));
    assert!(has(&refresher.handle(), SECOND));
    assert_eq!(source.calls(), 5);
}

#[test]
fn a_place_that_is_never_behind_is_asked_once() {
    for settings in [only_asked(), only_asked().with_lag(Duration::ZERO)] {
        let source = Scripted::new(KEY);
        let refresher = of(&source, settings);
        let outcome = refused(&refresher.handle());
        assert!(matches!(outcome, Some(Reload::Unchanged | Reload::TooSoon)), "{outcome:?}");
        assert!(source.calls() <= 3, "one attempt, or two");
    }
}

#[test]
fn a_reload_that_no_refusal_asks_for_asks_once() {
    let source = Scripted::new(KEY);
    let refresher = of(&source, only_asked().with_lag(NEVER));
    let handle = refresher.handle();
    let now = handle.load().unwrap().generation();
    assert_eq!(handle.wait_newer_than(now, PATIENCE), Some(Reload::Unchanged));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    assert_eq!(source.calls(), 3);
}

#[test]
fn past_the_lag_a_refusal_is_final_and_a_repeat_does_not_wait() {
    let source = Scripted::new(KEY);
    let short = Duration::from_millis(1);
    let settings =
        only_asked().with_cadence(rarely().with_minimum_interval(short).with_longest_back_off(short));
    let refresher = of(&source, settings.with_lag(Duration::from_millis(200)));
    assert_eq!(refused(&refresher.handle()), Some(Reload::Unchanged));
    let calls = source.calls();
    // Pauses of 20, 40, 80 ms and the rest, however late each one ends.
    assert!((3..=7).contains(&calls), "{calls}");
    assert_eq!(refused(&refresher.handle()), Some(Reload::Unchanged));
    assert!((1..=2).contains(&(source.calls() - calls)));
}

#[test]
fn another_key_from_within_this_process_ends_the_wait() {
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    rotation.adopt(&parsed(KEY)).unwrap();
    let refresher = rotation.start_refresher(only_asked().with_lag(NEVER)).unwrap();
    let now = handle.load().unwrap().generation();
    handle.report_refused(now);
    let asking = thread::spawn(move || handle.wait_newer_than(now, PATIENCE));
    // Time to ask without success; where it does not, the key is simply there.
    thread::sleep(Duration::from_millis(200));
    rotation.stage(&parsed(SECOND)).unwrap();
    rotation.promote_unverified_now().unwrap();
    assert_eq!(asking.join().unwrap(), Some(Reload::Newer));
    // It does not keep asking a source that has nothing newer.
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
}

#[test]
fn a_refresher_that_is_dropped_meanwhile_waits_no_longer() {
    let source = Scripted::new(KEY);
    let refresher = of(&source, only_asked().with_lag(NEVER));
    let handle = refresher.handle();
    let asking = thread::spawn(move || refused(&handle));
    eventually("it asks again", || source.calls() > 3);
    drop(refresher);
    assert_eq!(asking.join().unwrap(), Some(Reload::NoRefresher));
}
