//! The documented rate limits, by a clock of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use keysheath::emulator::{Emulator, EmulatorSettings, TEAM};
use keysheath::key::StoreId;

use super::{ask, ask_with};

const ORDERS: &str = "/api/v1/stores/123/orders";

/// An emulator, and the seconds on its clock.
fn limited(settings: EmulatorSettings) -> (Emulator, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(1_000_000));
    let shown = Arc::clone(&seconds);
    let clock = move || SystemTime::UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::SeqCst));
    (settings.with_rate_limit().with_clock(clock).start().unwrap(), seconds)
}

#[test]
fn without_asking_for_it_there_is_no_limit() {
    let emulator = Emulator::start().unwrap();
    for _ in 0..150 {
        let answer = ask(&emulator, "GET", ORDERS, "");
        assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (200, None));
    }
}

#[test]
fn kanal_allows_60_a_minute_per_store_and_says_what_is_left() {
    let (emulator, seconds) = limited(Emulator::kanal());
    emulator.put_store(StoreId::new(124).unwrap(), TEAM).unwrap();
    let other = emulator.create_key("other").unwrap();
    for remaining in (0..60).rev() {
        let answer = ask(&emulator, "GET", ORDERS, "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("60"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(&*remaining.to_string()));
        assert_eq!(answer.header("retry-after"), None);
    }
    seconds.fetch_add(18, Ordering::SeqCst);
    for key in [emulator.key(), other.key()] {
        let answer = ask_with(&emulator, Some(key), "GET", ORDERS, "");
        assert_eq!((answer.status, &*answer.body), (429, r#"{ "message": "Too Many Attempts." }"#));
        assert_eq!(answer.header("retry-after"), Some("42"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    }
    assert_eq!(ask(&emulator, "GET", "/api/v1/stores/124/orders", "").status, 200, "another store");
    seconds.fetch_add(42, Ordering::SeqCst);
    assert_eq!(ask(&emulator, "GET", ORDERS, "").status, 200);
}

#[test]
fn the_rate_limit_comes_after_the_store_and_before_the_body() {
    let (emulator, _) = limited(Emulator::kanal());
    let customers = "/api/v1/stores/123/customers";
    for _ in 0..100 {
        assert_eq!(ask_with(&emulator, None, "POST", customers, "{}").status, 401);
        assert_eq!(ask(&emulator, "POST", "/api/v1/stores/789/customers", "{}").status, 404);
    }
    let statuses = [(); 61].map(|()| ask(&emulator, "POST", customers, "{}").status);
    assert_eq!(statuses.iter().filter(|status| **status == 422).count(), 60, "refused ones do not count");
    assert_eq!(statuses[60], 429);
    emulator.reset();
    assert_eq!(ask(&emulator, "POST", customers, "{}").status, 422);
}

#[test]
fn katana_allows_sixty_in_sixty_seconds_for_each_key() {
    for (settings, pointer) in
        [(Emulator::katana(), "/name"), (Emulator::katana().with_nested_errors(), "/error/name")]
    {
        let (emulator, seconds) = limited(settings);
        let other = emulator.create_key("other").unwrap();
        for _ in 0..60 {
            assert_eq!(ask(&emulator, "GET", "/v1/products", "").status, 200);
        }
        let answer = ask(&emulator, "GET", "/v1/products", "");
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("60")));
        assert_eq!(answer.json().pointer(pointer).unwrap(), "TooManyRequests");
        assert_eq!(ask_with(&emulator, Some(other.key()), "GET", "/v1/products", "").status, 200);
        seconds.fetch_add(60, Ordering::SeqCst);
        assert_eq!(ask(&emulator, "GET", "/v1/products", "").status, 200);
    }
}
