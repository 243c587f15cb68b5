//! The written form of a grant, its lease, and the times of its access token.

use super::*;
use crate::key::{Issuer, KatanaApp};

fn identity() -> Identity {
    Identity {
        profile: KatanaApp::PROFILE,
        client: "a \"client\\".replace(' ', "-"),
        server: "https://login.example/token".into(),
    }
}

fn grant() -> Grant {
    Grant {
        lineage: u64::MAX,
        id: 3,
        serial: 9,
        number: 7,
        access: RawKey::parse(KatanaApp::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap(),
        refresh: WipedBytes::copy_of(b"a refresh token \"with\" marks"),
        expires: Timestamp(1_700_000_000_123),
        lifetime: Duration::from_secs(3600),
        is_refused: true,
        lease: Some(Lease {
            holder: u64::MAX,
            length: Duration::from_millis(1500),
            taken: Some(Taken {
                wall: Timestamp(1_700_000_000_456),
                boot: Some(BootTime { boot: u64::MAX, millis: 77 }),
            }),
        }),
    }
}

#[test]
fn what_is_written_is_read_again() {
    let (grant, identity) = (grant(), identity());
    let document = grant.to_document(&identity).unwrap();
    let read = Grant::from_document(&identity, document.expose_secret()).unwrap();
    assert!(read.access == grant.access && *read.refresh == *grant.refresh);
    assert_eq!((read.lineage, read.id, read.serial), (u64::MAX, 3, 9));
    assert_eq!(
        (read.number, read.expires, read.lifetime, read.is_refused, read.lease),
        (7, grant.expires, grant.lifetime, true, grant.lease)
    );
    assert!(grant.with_lease(None).lease.is_none());
}

#[test]
fn form_1_is_read_as_a_grant_of_no_known_sign_in() {
    let (identity, document) = (identity(), grant().to_document(&identity()).unwrap());
    let text = std::str::from_utf8(document.expose_secret()).unwrap();
    let without = |text: &str, start: &str, end: &str| {
        let (before, rest) = text.split_once(start).unwrap();
        format!("{before}{}", rest.split_once(end).unwrap().1)
    };
    let text = without(text, "  \"lineage\"", "\n");
    let text = without(&text, "  \"id\"", "\n");
    let text = without(&text, "  \"serial\"", "\n");
    let text =
        text.replace(", \"taken\": 1700000000456, \"boot\": 18446744073709551615, \"since_boot\": 77", "");
    assert!(Grant::from_document(&identity, text.as_bytes()).is_err(), "form 2 has all of them");
    let text = text.replace("\"form\": 2", "\"form\": 1");
    let read = Grant::from_document(&identity, text.as_bytes()).unwrap();
    assert_eq!((read.lineage, read.id, read.serial, read.number), (0, 0, 7, 7));
    assert_eq!(read.lease.map(|lease| lease.taken), Some(None));
}

#[test]
fn the_longest_tokens_fit() {
    let mut grant = grant();
    grant.access = RawKey::parse(KatanaApp::PROFILE, &[b'x'; 4096]).unwrap();
    grant.refresh = WipedBytes::copy_of(&[0xff; 8192]);
    let client = "\\".repeat(2048);
    let identity = Identity { client, server: "x".repeat(2048), ..identity() };
    assert!(grant.to_document(&identity).is_ok());
}

#[test]
fn another_apps_a_newer_and_a_damaged_grant_are_refused() {
    let identity = identity();
    let document = grant().to_document(&identity).unwrap();
    let text = std::str::from_utf8(document.expose_secret()).unwrap();
    for (changed, what) in [
        (Identity { profile: crate::key::Katana::PROFILE, ..identity.clone() }, "issuer"),
        (Identity { client: "another".into(), ..identity.clone() }, "client id"),
        (Identity { server: "https://login.example/".into(), ..identity.clone() }, "token endpoint"),
    ] {
        let error = Grant::from_document(&changed, text.as_bytes()).unwrap_err();
        assert_eq!(error, GrantError::OtherApp { what });
    }
    for (from, to) in [
        ("\"form\": 2", "\"form\": 0"),
        ("\"serial\": 9", "\"serial\": 0"),
        ("\"serial\": 9,\n", ""),
        ("\"taken\": 1700000000456", "\"taken\": 18446744073709551615"),
        ("\"grant\"", "\"key set\""),
        ("\"number\": 7", "\"number\": 0"),
        ("\"number\": 7", "\"number\": 18446744073709551615"),
        ("\"number\": 7", "\"number\": -1"),
        ("\"lifetime\": 3600000", "\"lifetime\": 18446744073709551615"),
        ("\"length\": 1500", "\"length\": 18446744073709551615"),
        ("\"length\": 1500", "\"length\": 1500, \"x\": 1"),
        ("\"refused\": true", "\"refused\": true, \"refused\": true"),
        ("\"access\": \"", "\"access\": \"!"),
        ("\"refresh\": \"", "\"refresh\": \"!"),
        ("}\n", ""),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Grant::from_document(&identity, text.replacen(from, to, 2).as_bytes()).unwrap_err();
        assert!(matches!(error, GrantError::Corrupt { .. }), "{to}: {error}");
    }
    for length in 0..text.len() - 2 {
        assert!(Grant::from_document(&identity, &text.as_bytes()[..length]).is_err(), "{length}");
    }
    let newer = text.replace("\"form\": 2", "\"form\": 3, \"more\": {}");
    let error = Grant::from_document(&identity, newer.as_bytes()).unwrap_err();
    assert_eq!(error, GrantError::Newer { found: 3, known: 2 });
    let large = vec![b' '; MAX_DOCUMENT + 1];
    assert!(Grant::from_document(&identity, &large).is_err());
}

const LENGTH: Duration = Duration::from_secs(20);
const TAKEN: u64 = 1_700_000_000;

fn wall(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn boot(boot: u64, seconds: u64) -> BootTime {
    BootTime { boot, millis: seconds * 1000 }
}

fn lease(boot: Option<BootTime>) -> Lease {
    Lease { holder: 1, length: LENGTH, taken: Some(Taken { wall: Timestamp::of(wall(TAKEN)), boot }) }
}

#[test]
fn on_its_machine_a_lease_ends_once_both_clocks_say_so() {
    let lease = lease(Some(boot(3, 100)));
    for (wall_after, boot_after, is_over) in [
        (20, 20, true),
        (19, 20, false),
        (20, 19, false),
        // A wall clock that was set forward by hours, and one that was set back.
        (7200, 5, false),
        (0, 7200, false),
    ] {
        let said = lease.is_over_by_date(wall(TAKEN + wall_after), Some(boot(3, 100 + boot_after)));
        assert_eq!(said, is_over, "{wall_after} {boot_after}");
    }
    assert!(!lease.is_over_by_date(wall(TAKEN - 3600), Some(boot(3, 0))));
}

#[test]
fn elsewhere_a_lease_ends_by_the_wall_clock_and_allowance() {
    let most = MAX_CLOCK_DIFFERENCE.as_secs() + LENGTH.as_secs();
    for (then, now) in
        [(None, Some(boot(3, 0))), (Some(boot(3, 100)), None), (Some(boot(3, 100)), Some(boot(5, 9999)))]
    {
        let lease = lease(then);
        assert!(!lease.is_over_by_date(wall(TAKEN + most - 1), now));
        assert!(lease.is_over_by_date(wall(TAKEN + most), now));
    }
}

#[test]
fn a_process_that_watched_a_lease_needs_no_date() {
    let since = Clocks::now();
    for lease in [lease(Some(boot(3, 100))), Lease { taken: None, ..lease(None) }] {
        let at = |wall, seconds| Now {
            clocks: Clocks::at(wall, since.monotonic() + Duration::from_secs(seconds)),
            boot: None,
        };
        assert!(!lease.is_over(since, at(wall(0), 19)));
        assert!(lease.is_over(since, at(wall(0), 20)));
    }
    let undated = Lease { taken: None, ..lease(None) };
    let far = Now { clocks: Clocks::at(wall(TAKEN * 2), since.monotonic()), boot: None };
    assert!(!undated.is_over(since, far), "a date that is not there says nothing");
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn wrong_clocks_move_an_end_by_the_unwatched_time_at_most() {
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let unwatched = Some(Duration::from_secs(40));
    for (by_the_clock, at_start, watched) in [
        (now, 0, 3560),
        (now - HOUR * 24 * 365, 0, 3560),
        (now + HOUR / 2, 1800, 3560),
        (now + HOUR - Duration::from_secs(10), 3590, 3590),
        (now + HOUR * 24 * 365, 3600, 3600),
    ] {
        let rest =
            |unwatched| rest_of(Timestamp::of(by_the_clock), HOUR, Timestamp::of(now), unwatched).as_secs();
        assert_eq!((rest(None), rest(unwatched)), (at_start, watched));
    }
}

#[test]
fn a_token_is_due_ahead_of_its_end_with_jitter() {
    let now = Clocks::now();
    let due = |rest, random: f64| TokenTimes::ending(now, rest, HOUR, 20.0 + 10.0 * random);
    assert_eq!(due(HOUR, 0.0).due.rest(now), HOUR.mul_f64(0.8));
    assert_eq!(due(HOUR, 1.0).due.rest(now), HOUR.mul_f64(0.7));
    assert_eq!(due(HOUR, 0.5).last_moment.rest(now), HOUR.saturating_sub(LAST_MOMENT));
    assert!(due(HOUR / 10, 0.0).due.is_over(now));
    assert!(due(Duration::ZERO, 0.0).ends.is_over(now));
    assert!(!TokenTimes::ending(now, HOUR, HOUR, 180.0).due.is_over(now), "not as soon as it is there");
}

#[test]
fn a_token_ends_by_the_clock_that_shows_more() {
    let start = Clocks::now();
    let token = TokenTimes::ending(start, HOUR, HOUR, 20.0);
    // Suspended for two hours: the monotonic clock stood still.
    let resumed = Clocks::at(start.wall() + HOUR * 2, start.monotonic());
    assert!(token.due.is_over(resumed) && token.ends.is_over(resumed));
    assert_eq!(token.ends.rest(resumed), Duration::ZERO);
    // The wall clock was set back by a day.
    let set_back = Clocks::at(start.wall() - HOUR * 24, start.monotonic() + HOUR);
    assert!(token.due.is_over(set_back) && token.ends.is_over(set_back));
    let later = Clocks::at(start.wall() + HOUR / 2, start.monotonic() + HOUR / 2);
    assert_eq!(token.ends.rest(later), HOUR / 2);
}
