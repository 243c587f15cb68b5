use std::time::{Duration, Instant};

use super::*;
use crate::key::{Fingerprint, Kanal, Katana, RawKey};

pub(super) const FIRST: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";
pub(super) const SECOND: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";
pub(super) const THIRD: &str = "Qw3Er5Ty7Ui9Op1As2Df4Gh6";
pub(super) const GRACE: Duration = Duration::from_secs(600);
pub(super) const SHORT: Duration = Duration::from_millis(20);

pub(super) fn fixed() -> KeyHandle<Kanal> {
    KeyHandle::fixed(api_key(FIRST))
}

pub(super) fn live() -> (KeyHandle<Kanal>, Publisher<Kanal>) {
    let publisher = Publisher::new();
    (publisher.handle(), publisher)
}

pub(super) fn key(text: &str) -> RawKey {
    RawKey::parse(Kanal::PROFILE, text.as_bytes()).unwrap()
}

pub(super) fn api_key(text: &str) -> ApiKey<Kanal> {
    ApiKey::parse(text).unwrap()
}

pub(super) fn numbered(generation: u64, current: Result<&RawKey, NoActiveKey>) -> Publication<'_> {
    Publication { generation: Generation::numbered(generation), lineage: None, current, previous: None }
}

pub(super) fn publish(
    publisher: &Publisher<Kanal>,
    generation: u64,
    current: &str,
    previous: Option<&str>,
) -> Published {
    let (current, previous) = (key(current), previous.map(key));
    let previous = previous.as_ref().map(|key| (key, Instant::now() + GRACE));
    publisher.publish(&Publication { previous, ..numbered(generation, Ok(&current)) })
}

fn is_active(handle: &KeyHandle<Kanal>, generation: u64, text: &str) {
    let snapshot = handle.load().unwrap();
    assert_eq!(snapshot.generation(), Generation(generation));
    assert!(snapshot.current().matches(text.as_bytes()));
}

fn active(handle: &KeyHandle<Kanal>) -> Option<Vec<u8>> {
    handle.load().ok().map(|now| now.current().expose_secret().as_bytes().to_vec())
}

#[test]
fn a_snapshot_outlives_its_handle() {
    let snapshot = fixed().load().unwrap();
    assert!(snapshot.clone().current().matches(FIRST.as_bytes()));
}

/// Where the value of the header is in memory.
#[cfg(feature = "client")]
fn header(snapshot: &Snapshot<Kanal>) -> *const u8 {
    snapshot.header().value().as_bytes().as_ptr()
}

#[cfg(feature = "client")]
#[test]
fn the_header_of_a_key_is_built_once_and_dropped_with_it() {
    let handle = fixed();
    let there: Vec<_> = (0..3).map(|_| header(&handle.clone().load().unwrap())).collect();
    assert_eq!((there[0], there[1]), (there[1], there[2]), "built a second time");
    let version = Arc::downgrade(handle.load().unwrap().version());
    drop(handle);
    assert!(version.upgrade().is_none());
}

#[test]
fn the_next_key_of_a_source_is_the_next_generation() {
    let (handle, publisher) = live();
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::NoKey);
    assert_eq!(publisher.publish_next(&key(FIRST), GRACE), Published::Newer);
    assert!(handle.load().unwrap().previous().is_none(), "there was none before");
    assert_eq!(publisher.publish_next(&key(FIRST), GRACE), Published::Same);
    is_active(&handle, 1, FIRST);
    assert_eq!(publisher.publish_next(&key(SECOND), GRACE), Published::Newer);
    is_active(&handle, 2, SECOND);
    let snapshot = handle.load().unwrap();
    let previous = snapshot.previous().unwrap();
    assert!(previous.key().matches(FIRST.as_bytes()));
    assert_eq!(previous.generation(), Generation(1));
    assert!(previous.until() > Instant::now() + GRACE / 2);
    assert_eq!(publisher.publish_next(&key(THIRD), Duration::ZERO), Published::Newer);
    assert!(handle.load().unwrap().previous().is_none(), "its grace is over at once");
}

#[test]
fn what_does_not_follow_the_active_key_changes_nothing() {
    let (handle, publisher) = live();
    assert_eq!(publisher.publish(&numbered(5, Ok(&key(SECOND)))), Published::Newer);
    let katana = RawKey::parse(Katana::PROFILE, b"0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
    for (generation, key) in [(4, key(FIRST)), (5, key(FIRST)), (6, katana)] {
        assert_eq!(publisher.publish(&numbered(generation, Ok(&key))), Published::Refused);
        is_active(&handle, 5, SECOND);
    }
    assert_eq!(publisher.publish(&numbered(4, Err(NoActiveKey::Compromised))), Published::Refused);
    is_active(&handle, 5, SECOND);
}

#[test]
fn within_a_generation_the_grace_only_shrinks() {
    let (handle, publisher) = live();
    let (first, second, third) = (key(FIRST), key(SECOND), key(THIRD));
    let publish = |generation, previous| {
        let lineage = first.fingerprint();
        let generation = Generation::numbered(generation);
        publisher.publish(&Publication { generation, lineage, current: Ok(&second), previous })
    };
    let until = || handle.load().unwrap().previous().map(|previous| previous.until());
    let sooner = Instant::now() + GRACE / 2;
    let end = sooner + GRACE / 2;
    assert_eq!(publish(2, Some((&first, end))), Published::Newer);
    assert_eq!(publish(2, Some((&first, end + GRACE))), Published::Same);
    assert_eq!(until(), Some(end), "a clock that was set back prolongs nothing");
    publish(2, Some((&first, sooner)));
    assert_eq!(until(), Some(sooner));
    publish(2, Some((&third, end)));
    assert_eq!(until(), None, "another one was never the previous one");
    publish(2, Some((&first, end)));
    assert_eq!(until(), None, "it has leaked meanwhile");
    publish(3, Some((&first, end)));
    assert_eq!(until(), Some(end), "a newer generation says what was before it");
}

#[test]
fn a_handle_has_the_keys_of_one_key_set() {
    let (handle, publisher) = live();
    let publish = |generation, lineage: &str, current: &RawKey| {
        let (generation, lineage) = (Generation::numbered(generation), key(lineage).fingerprint());
        publisher.publish(&Publication { generation, lineage, current: Ok(current), previous: None })
    };
    assert_eq!(publish(1, FIRST, &key(FIRST)), Published::Newer);
    assert_eq!(publish(2, SECOND, &key(SECOND)), Published::OtherLineage);
    is_active(&handle, 1, FIRST);
    assert_eq!(publish(2, FIRST, &key(SECOND)), Published::Newer);
    is_active(&handle, 2, SECOND);
}

#[test]
fn a_compromised_key_without_another_leaves_no_active_key() {
    let (handle, publisher) = live();
    publisher.publish(&numbered(1, Ok(&key(FIRST))));
    publisher.publish(&numbered(2, Err(NoActiveKey::Compromised)));
    assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
    assert_eq!(format!("{handle:?}"), "KeyHandle(kanal, generation 2, no key)");
    publisher.publish(&numbered(3, Ok(&key(SECOND))));
    is_active(&handle, 3, SECOND);
}

#[cfg(feature = "client")]
#[test]
fn a_key_that_is_active_again_keeps_its_header() {
    let (handle, publisher) = live();
    let (first, second) = (key(FIRST), key(SECOND));
    publisher.publish(&numbered(1, Ok(&first)));
    let of_first = header(&handle.load().unwrap());
    let until = Instant::now() + GRACE;
    let previous = Some((&first, until));
    publisher.publish(&Publication {
        generation: Generation::numbered(2),
        lineage: None,
        current: Ok(&second),
        previous,
    });
    assert_ne!(header(&handle.load().unwrap()), of_first);
    let refusal = handle.load().unwrap().refusal(true);
    assert_eq!(header(&handle.load_instead_of(&refusal).unwrap()), of_first);
    publisher.publish(&numbered(3, Ok(&first)));
    assert_eq!(header(&handle.load().unwrap()), of_first);
}

#[test]
fn stopping_makes_the_previous_key_active_within_its_grace() {
    let (handle, publisher) = live();
    publish(&publisher, 4, SECOND, Some(FIRST));
    let mut subscription = handle.subscribe();
    assert_eq!(handle.stop(&api_key(SECOND)), Stop::FellBack);
    assert_eq!(active(&handle).as_deref(), Some(FIRST.as_bytes()));
    let told = subscription.wait(Duration::ZERO).expect("it is reported").unwrap();
    assert!(told.previous().is_none());
    assert_eq!(handle.stop(&api_key(FIRST)), Stop::NoActiveKey, "it leaks as well");
    assert_eq!(
        subscription.wait(Duration::ZERO).expect("it is reported").unwrap_err(),
        NoActiveKey::Compromised
    );
}

#[test]
fn stopping_past_the_grace_leaves_no_active_key() {
    let (handle, publisher) = live();
    publisher.publish_next(&key(FIRST), GRACE);
    publisher.publish_next(&key(SECOND), Duration::ZERO);
    assert_eq!(handle.stop(&api_key(SECOND)), Stop::NoActiveKey);
}

#[test]
fn no_document_and_no_source_brings_a_stopped_key_back() {
    let (handle, publisher) = live();
    publish(&publisher, 4, SECOND, None);
    assert_eq!(publisher.stop(key(SECOND).fingerprint().unwrap()), Stop::NoActiveKey);
    // The store could not be written, so it has the leaked key still, also as another generation.
    assert_eq!(publish(&publisher, 4, SECOND, Some(FIRST)), Published::Same);
    assert_eq!((active(&handle), publisher.is_stopped()), (None, true));
    assert_eq!(publish(&publisher, 5, SECOND, None), Published::Newer);
    assert_eq!((active(&handle), publisher.is_stopped()), (None, true));
    assert_eq!(publish(&publisher, 6, THIRD, Some(SECOND)), Published::Newer);
    assert_eq!((active(&handle).as_deref(), publisher.is_stopped()), (Some(THIRD.as_bytes()), false));
    assert!(handle.load().unwrap().previous().is_none());

    let (handle, publisher) = live();
    publisher.publish_next(&key(FIRST), GRACE);
    handle.stop(&api_key(FIRST));
    assert_eq!(publisher.publish_next(&key(FIRST), GRACE), Published::Refused);
    assert_eq!(active(&handle), None);
    assert_eq!(publisher.publish_next(&key(SECOND), GRACE), Published::Newer);
    assert_eq!(active(&handle).as_deref(), Some(SECOND.as_bytes()));
}

#[test]
fn a_key_that_is_stopped_before_it_is_active_never_is() {
    let (handle, publisher) = live();
    publish(&publisher, 1, FIRST, None);
    assert_eq!(handle.stop(&api_key(SECOND)), Stop::NotActive);
    publish(&publisher, 2, SECOND, Some(FIRST));
    assert_eq!(active(&handle).as_deref(), Some(FIRST.as_bytes()));
    publish(&publisher, 3, THIRD, Some(SECOND));
    assert!(handle.load().unwrap().previous().is_none());
}

#[test]
fn only_the_last_stopped_keys_are_remembered() {
    let (handle, publisher) = live();
    let stopped = |number: u16| Fingerprint::of("kanal", &number.to_be_bytes());
    for number in 0..256 {
        publisher.stop(stopped(number));
    }
    // One that is stopped again is the last one.
    publisher.stop(stopped(0));
    handle.stop(&api_key(FIRST));
    assert!(publisher.has_stopped(stopped(0)) && !publisher.has_stopped(stopped(1)));
    assert!(publisher.has_stopped(stopped(2)));
    assert_eq!(publisher.publish_next(&key(FIRST), GRACE), Published::Refused);
}

#[test]
fn a_stopped_previous_key_does_not_become_active_again() {
    let (handle, publisher) = live();
    publish(&publisher, 2, SECOND, Some(FIRST));
    assert_eq!(handle.stop(&api_key(FIRST)), Stop::NotActive);
    assert!(handle.load().unwrap().previous().is_none());
    assert_eq!(handle.stop(&api_key(SECOND)), Stop::NoActiveKey);
}

#[test]
fn stopping_the_key_of_a_fixed_handle_stops_its_clones() {
    let handle = fixed();
    assert_eq!(handle.stop(&api_key(SECOND)), Stop::NotActive);
    let clone = handle.clone();
    assert_eq!(handle.stop(&api_key(FIRST)), Stop::NoActiveKey);
    assert_eq!(clone.load().unwrap_err(), NoActiveKey::Compromised);
}
