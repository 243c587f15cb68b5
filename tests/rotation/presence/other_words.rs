//! What else tells a person to delete a key: giving a rolled-back one up, and a retirement that comes too
//! early.

use keysheath::rotation::{Retirement, RotationError};
use keysheath::store::DocumentContent;

use super::*;

#[test]
fn a_process_without_a_key_before_the_promotion_is_outdated() {
    let rotator = in_memory();
    // It is not shown again in this test, as if it could not reach the document.
    let rare = PresenceSettings::new("early").with_time_to_live(Duration::from_secs(3600));
    let _shown = Presence::show(rotator.presence.clone(), &no_key(), rare).unwrap();
    rotator.promote(2);
    assert_eq!(rotator.waits_for(), ["early"]);
    rotator.ahead.store(3700, Ordering::SeqCst);
    assert_eq!(rotator.deletes(), (Some(0), vec!["early".to_owned()]));
}

#[test]
fn an_aborted_key_that_a_process_shows_may_not_be_deleted_yet() {
    let rotator = in_memory();
    rotator.promote(2);
    let refresher = rotator.refresher();
    let shown = rotator.show(&refresher.handle(), "late");
    rotator.rotation.roll_back_now().unwrap();
    let aborted = rotator.rotation.abort_now().unwrap();
    assert_eq!(names(aborted.still_using().unwrap()), ["late"]);
    let text = aborted.to_string();
    let words = "it was active, so do not delete it yet; still using it: late (generation 2, ";
    assert!(text.contains(words) && !text.contains("delete it now"), "{text}");
    drop(shown);
    // And a key that was never active is in no process.
    rotator.rotation.stage(&key(3)).unwrap();
    assert_eq!(rotator.rotation.abort_now().unwrap().still_using(), Ok(&[][..]));
}

#[test]
fn aborting_a_rolled_back_key_reports_an_unreadable_fleet() {
    let rotator = in_memory();
    rotator.promote(2);
    rotator.rotation.roll_back_now().unwrap();
    rotator.presence.write(&DocumentContent::from(b"{}".to_vec()), None).unwrap();
    let aborted = rotator.rotation.abort_now().unwrap();
    assert!(matches!(aborted.still_using(), Err(RotationError::Presence { .. })));
    let shown = aborted.to_string();
    assert!(shown.contains("do not delete it yet; cannot read which processes use which key"), "{shown}");
}

#[test]
fn a_previous_key_that_a_process_shows_is_not_overdue() {
    let rotator = in_memory();
    let refresher = rotator.refresher();
    let shown = rotator.show(&refresher.handle(), "late");
    rotator.promote(2);
    let is_overdue = || match rotator.rotation.retire_now().unwrap() {
        Retirement::StillAccepted { is_overdue, .. } => is_overdue,
        other => panic!("{other}"),
    };
    assert!(!is_overdue());
    drop(shown);
    assert!(is_overdue());
}
