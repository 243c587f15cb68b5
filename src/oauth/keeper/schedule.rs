//! What a keeper knows of the grant, and when its access token is due. Reads no clock.

use std::time::Duration;

use super::super::grant::{Grant, Moment};
use super::super::lease::{Lease, Now};
use super::KeeperSettings;
use crate::internal::clocks::Clocks;
use crate::store::Version;

/// How long before the end of its access token a grant in doubt is tried, at most.
const LAST_MOMENT: Duration = Duration::from_secs(30);

/// The document as it was last read.
pub(super) struct Seen {
    pub(super) version: Version,
    /// When its lease was first seen.
    pub(super) since: Clocks,
    pub(super) serial: u64,
    pub(super) number: u64,
    pub(super) lease: Option<Lease>,
    pub(super) is_refused: bool,
    pub(super) token: Token,
}

/// A time to come. It is reached when either clock says so, so neither a suspended machine nor a set clock
/// delays it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    from: Clocks,
    after: Duration,
}

/// The times of an access token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) ends: Due,
    /// When it is refreshed.
    pub(super) due: Due,
    /// When it is refreshed even if the grant is in doubt.
    pub(super) last_moment: Due,
}

impl Due {
    pub(super) const fn after(from: Clocks, after: Duration) -> Self {
        Self { from, after }
    }

    pub(super) fn is_over(self, now: Clocks) -> bool {
        now.has_expired(self.from, self.after)
    }

    /// How long until then.
    pub(super) fn rest(self, now: Clocks) -> Duration {
        self.after.saturating_sub(now.at_most_since(self.from))
    }
}

impl Seen {
    /// Whether there is a lease that its holder may still use.
    pub(super) fn is_leased(&self, now: Now) -> bool {
        self.lease.is_some_and(|lease| !lease.is_over(self.since, now))
    }
}

impl Token {
    /// A token that ends after `rest`; `random` is from 0 to 1.
    pub(super) fn ending(
        from: Clocks,
        rest: Duration,
        lifetime: Duration,
        random: f64,
        settings: &KeeperSettings,
    ) -> Self {
        let part = |percent: f64| lifetime.mul_f64(percent / 100.0);
        let ahead = part(f64::from(settings.ahead) + f64::from(settings.jitter) * random);
        let last = (lifetime / 10).min(LAST_MOMENT);
        Self {
            ends: Due::after(from, rest),
            due: Due::after(from, rest.saturating_sub(ahead.min(part(95.0)))),
            last_moment: Due::after(from, rest.saturating_sub(last)),
        }
    }
}

/// How long an access token from the document is still valid. `unwatched` is the time since the last read,
/// `None` at the start: a token that came since then is no older than that, whatever the wall clocks say.
pub(super) fn rest_of(grant: &Grant, clock: Moment, unwatched: Option<Duration>) -> Duration {
    let youngest = grant.lifetime;
    let oldest = unwatched.map_or(Duration::ZERO, |unwatched| youngest.saturating_sub(unwatched));
    grant.expires.since(clock).clamp(oldest, youngest)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::super::answer::Secret;
    use super::*;
    use crate::key::{Issuer, KatanaApp, RawKey};

    const HOUR: Duration = Duration::from_secs(3600);

    fn grant(expires: SystemTime) -> Grant {
        Grant {
            lineage: 1,
            id: 1,
            serial: 1,
            number: 1,
            access: RawKey::parse(KatanaApp::PROFILE, b"8fK2pX9mWq4Ld7Vb3Nc6Ts1Z").unwrap(),
            refresh: Secret::parse(b"x").unwrap(),
            expires: Moment::of(expires),
            lifetime: HOUR,
            is_refused: false,
            lease: None,
        }
    }

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
            let grant = grant(by_the_clock);
            assert_eq!(rest_of(&grant, Moment::of(now), None).as_secs(), at_start);
            assert_eq!(rest_of(&grant, Moment::of(now), unwatched).as_secs(), watched);
        }
    }

    #[test]
    fn a_token_is_due_ahead_of_its_end_with_jitter() {
        let settings = KeeperSettings::new();
        let now = Clocks::now();
        let due = |rest, random| Token::ending(now, rest, HOUR, random, &settings);
        assert_eq!(due(HOUR, 0.0).due.rest(now), HOUR.mul_f64(0.8));
        assert_eq!(due(HOUR, 1.0).due.rest(now), HOUR.mul_f64(0.7));
        assert_eq!(due(HOUR, 0.5).last_moment.rest(now), HOUR.saturating_sub(LAST_MOMENT));
        assert!(due(HOUR / 10, 0.0).due.is_over(now));
        assert!(due(Duration::ZERO, 0.0).ends.is_over(now));
        let all = settings.with_refresh_ahead(100).with_refresh_jitter(100);
        assert!(!Token::ending(now, HOUR, HOUR, 1.0, &all).due.is_over(now), "not as soon as it is there");
    }

    #[test]
    fn a_token_ends_by_the_clock_that_shows_more() {
        let start = Clocks::now();
        let token = Token::ending(start, HOUR, HOUR, 0.0, &KeeperSettings::new());
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
}
