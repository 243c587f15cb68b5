use std::time::{Duration, Instant};

use super::*;
use crate::key::{Kanal, RawKey};

const FIRST: &str = "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z";

fn fixed() -> KeyHandle<Kanal> {
    KeyHandle::fixed(ApiKey::parse(FIRST).unwrap())
}

#[test]
fn a_report_of_a_generation_that_the_handle_has_not_had_is_ignored() {
    let handle = fixed();
    handle.report_refused(Generation(2));
    assert_eq!(handle.refused(), None);
    handle.report_refused(Generation(1));
    assert_eq!(handle.clone().refused(), Some(Generation(1)));
}

#[test]
fn a_snapshot_outlives_its_handle() {
    let snapshot = fixed().load().unwrap();
    assert!(snapshot.clone().current().matches(FIRST.as_bytes()));
}

#[test]
fn nobody_reloads_a_fixed_key_and_it_says_so_at_once() {
    let handle = fixed();
    let far = Duration::from_secs(3600);
    assert_eq!(handle.reload_past(Generation(1)).wait(far), Some(Reload::NoRefresher));
    assert_eq!(handle.reload_past(Generation(0)).wait(far), Some(Reload::Newer));
}

#[cfg(feature = "client")]
#[test]
fn what_is_made_out_of_a_key_is_made_once_for_all_clones_and_dropped_with_the_key() {
    let handle = fixed();
    let made = Arc::new(());
    for handle in [handle.clone(), handle.clone(), handle.clone()] {
        let first = Arc::strong_count(&made) == 1;
        handle.load().unwrap().kept(|_| {
            assert!(first, "made a second time");
            Arc::clone(&made)
        });
    }
    assert_eq!(Arc::strong_count(&made), 2);
    drop(handle);
    assert_eq!(Arc::strong_count(&made), 1);
}

#[cfg(feature = "rotation")]
mod live {
    use super::*;
    use crate::key::{Issuer, Katana};

    const SECOND: &str = "Zs1T6cN3bV7dL4qW9Xp2Kf8A";
    const THIRD: &str = "Qw3Er5Ty7Ui9Op1As2Df4Gh6";
    const GRACE: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn key(text: &str) -> RawKey {
        RawKey::parse(Kanal::PROFILE, text.as_bytes()).unwrap()
    }

    fn live() -> (KeyHandle<Kanal>, RawHandle) {
        let handle = KeyHandle::live();
        let raw = handle.to_raw().unwrap();
        (handle, raw)
    }

    fn numbered(generation: u64, current: Result<&RawKey, NoActiveKey>) -> Publication<'_> {
        Publication { generation: Generation::numbered(generation), begun: None, current, previous: None }
    }

    fn is_in_force(handle: &KeyHandle<Kanal>, generation: u64, text: &str) {
        let snapshot = handle.load().unwrap();
        assert_eq!(snapshot.generation(), Generation(generation));
        assert!(snapshot.current().matches(text.as_bytes()));
    }

    #[test]
    fn a_source_s_next_key_is_the_next_generation_and_the_one_before_has_its_grace() {
        let (handle, raw) = live();
        assert_eq!(handle.load().unwrap_err(), NoActiveKey::NoKey);
        assert_eq!(raw.publish_next(&key(FIRST), GRACE), Published::Newer);
        assert!(handle.load().unwrap().previous().is_none(), "there was none before");
        assert_eq!(raw.publish_next(&key(FIRST), GRACE), Published::Same);
        is_in_force(&handle, 1, FIRST);
        assert_eq!(raw.publish_next(&key(SECOND), GRACE), Published::Newer);
        is_in_force(&handle, 2, SECOND);
        let snapshot = handle.load().unwrap();
        let previous = snapshot.previous().unwrap();
        assert!(previous.key().matches(FIRST.as_bytes()));
        assert_eq!(previous.generation(), Generation(1));
        assert!(previous.until() > Instant::now() + GRACE / 2);
        assert_eq!(raw.publish_next(&key(THIRD), Duration::ZERO), Published::Newer);
        assert!(handle.load().unwrap().previous().is_none(), "its grace is over at once");
    }

    #[test]
    fn an_older_generation_or_another_key_of_the_same_one_or_of_another_issuer_changes_nothing() {
        let (handle, raw) = live();
        assert_eq!(raw.publish(&numbered(5, Ok(&key(SECOND)))), Published::Newer);
        let katana = RawKey::parse(Katana::PROFILE, b"0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
        for (generation, key) in [(4, key(FIRST)), (5, key(FIRST)), (6, katana)] {
            assert_eq!(raw.publish(&numbered(generation, Ok(&key))), Published::Refused);
            is_in_force(&handle, 5, SECOND);
        }
        assert_eq!(raw.publish(&numbered(4, Err(NoActiveKey::Compromised))), Published::Refused);
        is_in_force(&handle, 5, SECOND);
    }

    #[test]
    fn within_a_generation_the_previous_key_never_comes_back_and_its_grace_only_shrinks() {
        let (handle, raw) = live();
        let (first, second, third) = (key(FIRST), key(SECOND), key(THIRD));
        let publish = |generation, previous| {
            let begun = first.fingerprint();
            let generation = Generation::numbered(generation);
            raw.publish(&Publication { generation, begun, current: Ok(&second), previous })
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
    fn a_handle_has_the_keys_of_one_source_or_of_one_key_set() {
        let set = |generation, begun: &str, current: &RawKey, raw: &RawHandle| {
            let (generation, begun) = (Generation::numbered(generation), key(begun).fingerprint());
            raw.publish(&Publication { generation, begun, current: Ok(current), previous: None })
        };
        let (handle, raw) = live();
        assert_eq!(set(1, FIRST, &key(FIRST), &raw), Published::Newer);
        assert_eq!(set(2, SECOND, &key(SECOND), &raw), Published::OtherPublisher);
        assert_eq!(raw.publish_next(&key(SECOND), GRACE), Published::OtherPublisher);
        assert!(raw.claim_for_source().is_none() && raw.claim_for_key_set());
        is_in_force(&handle, 1, FIRST);
        assert_eq!(set(2, FIRST, &key(SECOND), &raw), Published::Newer);

        let (handle, raw) = live();
        drop(raw.claim_for_source().unwrap());
        let claim = raw.claim_for_source().expect("the first one has published nothing");
        assert!(raw.claim_for_source().is_none(), "one at a time");
        raw.publish_next(&key(FIRST), GRACE);
        drop(claim);
        assert!(!raw.claim_for_key_set() && !raw.is_for_key_sets());
        assert_eq!(set(9, FIRST, &key(SECOND), &raw), Published::OtherPublisher);
        is_in_force(&handle, 1, FIRST);
        assert!(raw.claim_for_source().is_some(), "another one takes its place");
    }

    #[test]
    fn each_generation_is_told_once() {
        let (handle, raw) = live();
        let keys = [key(FIRST), key(SECOND)];
        let mut subscription = handle.subscribe();
        let publisher = std::thread::spawn(move || {
            for round in 0..100_000 {
                raw.publish_next(&keys[round % 2], GRACE);
            }
        });
        let mut last = Generation(0);
        while last < Generation(100_000) {
            let now = subscription.wait(Duration::from_secs(60)).unwrap().unwrap().generation();
            assert!(now > last, "{now} was told after {last}");
            last = now;
        }
        publisher.join().unwrap();
    }

    #[test]
    fn a_compromised_key_without_another_closes_the_handle_and_a_new_one_opens_it() {
        let (handle, raw) = live();
        raw.publish(&numbered(1, Ok(&key(FIRST))));
        raw.publish(&numbered(2, Err(NoActiveKey::Compromised)));
        assert_eq!(handle.load().unwrap_err(), NoActiveKey::Compromised);
        assert_eq!(format!("{handle:?}"), "KeyHandle(kanal, generation 2, no key)");
        raw.publish(&numbered(3, Ok(&key(SECOND))));
        is_in_force(&handle, 3, SECOND);
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_key_that_comes_into_force_again_keeps_what_was_made_out_of_it() {
        let (handle, raw) = live();
        let (first, second) = (key(FIRST), key(SECOND));
        raw.publish(&numbered(1, Ok(&first)));
        handle.load().unwrap().kept(|_| 7);
        let until = Instant::now() + GRACE;
        let previous = Some((&first, until));
        raw.publish(&Publication {
            generation: Generation::numbered(2),
            begun: None,
            current: Ok(&second),
            previous,
        });
        assert_eq!(handle.load().unwrap().kept(|_| 8), &8);
        let refusal = handle.load().unwrap().refusal(true);
        assert_eq!(handle.load_instead_of(&refusal).unwrap().kept(|_| 0), &7);
        raw.publish(&numbered(3, Ok(&first)));
        assert_eq!(handle.load().unwrap().kept(|_| 0), &7);
    }

    #[test]
    fn a_generation_is_drained_when_its_last_snapshot_is_gone() {
        let (handle, raw) = live();
        raw.publish(&numbered(1, Ok(&key(FIRST))));
        let snapshot = handle.load().unwrap();
        let clone = snapshot.clone();
        assert!(!handle.is_drained(Generation(1)), "it is in force");
        raw.publish(&numbered(2, Ok(&key(SECOND))));
        drop(snapshot);
        assert!(!handle.drained(Generation(1)).wait(SHORT), "a snapshot is there");
        let waiting = handle.drained(Generation(1));
        let waits = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        drop(clone);
        assert!(waits.join().unwrap());
        assert!(!handle.is_drained(Generation(2)));
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_request_with_the_previous_key_counts_while_it_is_under_way() {
        let (handle, raw) = live();
        raw.publish_next(&key(FIRST), GRACE);
        raw.publish_next(&key(SECOND), GRACE);
        assert!(handle.is_drained(Generation(1)));
        let refusal = handle.load().unwrap().refusal(true);
        let previous = handle.load_instead_of(&refusal).unwrap();
        assert_eq!(previous.generation(), Generation(1));
        assert!(!handle.is_drained(Generation(1)));
        drop(previous);
        assert!(handle.is_drained(Generation(1)));
    }

    #[cfg(feature = "client")]
    #[test]
    fn in_place_of_a_refused_key_comes_a_newer_one_or_the_previous_one_within_its_grace_or_none() {
        let refusal = |handle: &KeyHandle<Kanal>| handle.load().unwrap().refusal(true);
        let fixed = fixed();
        assert!(fixed.load_instead_of(&refusal(&fixed)).is_none());
        let (handle, raw) = live();
        raw.publish_next(&key(FIRST), GRACE);
        let first = refusal(&handle);
        assert!(handle.load_instead_of(&first).is_none(), "there is no other");
        raw.publish_next(&key(SECOND), GRACE);
        let second = refusal(&handle);
        let instead = |refusal| handle.load_instead_of(refusal);
        assert!(instead(&first).unwrap().current().matches(SECOND.as_bytes()), "the newer one");
        assert!(instead(&second).unwrap().current().matches(FIRST.as_bytes()), "the previous one");
        raw.publish_next(&key(THIRD), Duration::ZERO);
        let third = refusal(&handle);
        assert!(instead(&second).unwrap().current().matches(THIRD.as_bytes()));
        assert!(instead(&third).is_none(), "the grace is over");
    }

    #[cfg(feature = "client")]
    #[test]
    fn in_place_of_a_refused_key_comes_none_where_the_handle_is_closed() {
        let (handle, raw) = live();
        raw.publish(&numbered(1, Ok(&key(FIRST))));
        let refusal = handle.load().unwrap().refusal(true);
        raw.publish(&numbered(2, Err(NoActiveKey::Compromised)));
        assert!(handle.load_instead_of(&refusal).is_none());
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_rollback_to_the_key_that_was_refused_is_no_answer_to_the_refusal() {
        let (handle, raw) = live();
        raw.attach();
        raw.publish(&numbered(1, Ok(&key(FIRST))));
        let refusal = handle.load().unwrap().refusal(true);
        let waiting = handle.reload_instead_of(&refusal);
        // What the refresher reads was written in the middle of a rotation.
        let attempt = raw.begin();
        raw.publish(&numbered(3, Ok(&key(FIRST))));
        raw.end(attempt, Reload::Newer);
        assert!(handle.load_instead_of(&refusal).is_none());
        let asks = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        while !raw.is_asked() && !asks.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(handle.refused(), Some(Generation(3)), "the refusal is about the one in force");
        let attempt = raw.begin();
        raw.publish(&numbered(4, Ok(&key(SECOND))));
        raw.end(attempt, Reload::Newer);
        assert_eq!(asks.join().unwrap(), Some(Reload::Newer));
        assert!(handle.load_instead_of(&refusal).unwrap().current().matches(SECOND.as_bytes()));
        raw.detach();
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_late_refusal_of_a_key_that_is_in_force_again_asks_for_a_reload() {
        let (handle, raw) = live();
        raw.attach();
        raw.publish(&numbered(1, Ok(&key(FIRST))));
        let refusal = handle.load().unwrap().refusal(true);
        raw.publish(&numbered(2, Ok(&key(SECOND))));
        drop(handle.reload_instead_of(&refusal));
        assert!(!raw.is_asked(), "another key is in force");
        raw.publish(&numbered(3, Ok(&key(FIRST))));
        drop(handle.reload_instead_of(&refusal));
        assert!(raw.is_asked());
        assert_eq!(handle.refused(), Some(Generation(3)));
        raw.detach();
    }

    #[test]
    fn those_who_ask_share_one_attempt_and_one_that_began_before_does_not_answer_them() {
        let (handle, raw) = live();
        raw.publish_next(&key(FIRST), GRACE);
        raw.attach();
        let early = raw.begin();
        let asking = [0, 1, 2].map(|_| {
            let waiting = handle.reload_past(Generation(1));
            std::thread::spawn(move || waiting.wait(Duration::from_secs(60)))
        });
        while !raw.is_asked() {
            std::thread::yield_now();
        }
        raw.end(early, Reload::Unchanged);
        std::thread::sleep(SHORT);
        assert!(asking.iter().all(|asks| !asks.is_finished()));
        let attempt = raw.begin();
        assert!(!raw.is_asked());
        raw.end(attempt, Reload::Failed);
        for asks in asking {
            assert_eq!(asks.join().unwrap(), Some(Reload::Failed));
        }
        raw.detach();
    }

    #[test]
    fn whoever_waits_is_told_when_a_key_is_published_and_when_the_reloader_leaves() {
        let (handle, raw) = live();
        raw.publish_next(&key(FIRST), GRACE);
        assert_eq!(handle.reload_past(Generation(1)).wait(SHORT), Some(Reload::NoRefresher));
        raw.attach();
        assert_eq!(handle.reload_past(Generation(1)).wait(SHORT), None);
        let mut subscription = handle.subscribe();
        let waiting = handle.reload_past(Generation(1));
        let asks = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        raw.publish_next(&key(SECOND), GRACE);
        assert_eq!(asks.join().unwrap(), Some(Reload::Newer));
        let told = subscription.wait(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(told.generation(), Generation(2));
        assert!(subscription.wait(SHORT).is_none(), "it is told once");
        let waiting = handle.reload_past(Generation(2));
        let asks = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        while !raw.is_asked() {
            std::thread::yield_now();
        }
        raw.detach();
        assert_eq!(asks.join().unwrap(), Some(Reload::NoRefresher));
    }

    #[test]
    fn a_refusal_of_the_generation_in_force_asks_for_a_reload_and_a_late_one_does_not() {
        let (handle, raw) = live();
        raw.attach();
        for text in [FIRST, SECOND] {
            raw.publish_next(&key(text), GRACE);
        }
        handle.report_refused(Generation(1));
        assert!(!raw.is_asked());
        assert_eq!(handle.refused(), Some(Generation(1)));
        handle.report_refused(Generation(2));
        assert!(raw.is_asked());
        handle.report_refused(Generation(1));
        assert_eq!(handle.refused(), Some(Generation(2)));
        raw.detach();
    }

    #[test]
    fn the_futures_do_the_same_as_the_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (handle, raw) = live();
        raw.publish_next(&key(FIRST), GRACE);
        raw.attach();
        let mut subscription = handle.subscribe();
        let (reload, drained) = (handle.reload_past(Generation(1)), handle.drained(Generation(1)));
        let publisher = std::thread::spawn(move || {
            while !raw.is_asked() {
                std::thread::yield_now();
            }
            raw.publish_next(&key(SECOND), GRACE)
        });
        runtime.block_on(async {
            assert_eq!(reload.await, Reload::Newer);
            assert_eq!(subscription.changed().await.unwrap().generation(), Generation(2));
            drained.await;
        });
        assert_eq!(publisher.join().unwrap(), Published::Newer);
    }
}
