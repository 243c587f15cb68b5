//! What a keeper knows of the grant, and when its access token is due. It reads no clock.

use std::time::{Duration, Instant};

use super::super::grant::{Grant, Lease, Moment};
use super::KeeperSettings;
use crate::document::Version;

/// How close to the end of its access token a grant in doubt is tried, at most.
const LAST_MOMENT: Duration = Duration::from_secs(30);

/// The document as it was seen last.
pub(super) struct Seen {
    pub(super) version: Version,
    /// When this version was seen first. A lease is counted from then.
    pub(super) since: Instant,
    pub(super) number: u64,
    pub(super) lease: Option<Lease>,
    pub(super) is_refused: bool,
    pub(super) token: Token,
}

/// An access token's time, by this process's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) ends: Instant,
    /// When it is refreshed.
    pub(super) due: Instant,
    /// When it is refreshed although the grant is in doubt.
    pub(super) last_moment: Instant,
}

impl Seen {
    /// Whether a lease is there that may still be used by its holder.
    pub(super) fn is_leased(&self, now: Instant) -> bool {
        self.lease.is_some_and(|lease| now.saturating_duration_since(self.since) < lease.length)
    }
}

impl Token {
    /// One that ends after `rest`; `random` is from 0 to 1.
    pub(super) fn ending(
        now: Instant,
        rest: Duration,
        lifetime: Duration,
        random: f64,
        settings: &KeeperSettings,
    ) -> Self {
        let part = |percent: f64| lifetime.mul_f64(percent / 100.0);
        let ahead = part(f64::from(settings.ahead) + f64::from(settings.jitter) * random);
        let last = (lifetime / 10).min(LAST_MOMENT);
        // A rest is bounded by the longest lifetime, a year.
        let at = |time: Duration| now.checked_add(time).unwrap_or(now);
        Self {
            ends: at(rest),
            due: at(rest.saturating_sub(ahead.min(part(95.0)))),
            last_moment: at(rest.saturating_sub(last)),
        }
    }
}

/// How long an access token still lives that was found in the document. `unwatched` is for how long nobody has looked before,
/// none at the start: one that came since then is no older than that, whatever the clocks say.
pub(super) fn rest_of(grant: &Grant, clock: Moment, unwatched: Option<Duration>) -> Duration {
    let youngest = grant.lifetime;
    let oldest = unwatched.map_or(Duration::ZERO, |unwatched| youngest.saturating_sub(unwatched));
    grant.expires.since(clock).clamp(oldest, youngest)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::super::secret::Secret;
    use super::*;
    use crate::issuer::{Issuer, KatanaApp};
    use crate::key::RawKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn grant(expires: SystemTime) -> Grant {
        Grant {
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
    fn clocks_that_differ_move_the_end_by_no_more_than_the_time_in_which_nobody_looked() {
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
    fn a_token_is_due_ahead_of_its_end_and_by_chance_a_little_earlier() {
        let settings = KeeperSettings::new();
        let now = Instant::now();
        let due = |rest, random| Token::ending(now, rest, HOUR, random, &settings);
        assert_eq!(due(HOUR, 0.0).due, now + HOUR.mul_f64(0.8));
        assert_eq!(due(HOUR, 1.0).due, now + HOUR.mul_f64(0.7));
        assert_eq!(due(HOUR, 0.5).last_moment, now + HOUR.saturating_sub(LAST_MOMENT));
        assert_eq!(due(HOUR / 10, 0.0).due, now);
        assert_eq!(due(Duration::ZERO, 0.0).ends, now);
        let all = settings.with_refresh_ahead(100).with_jitter(100);
        assert!(Token::ending(now, HOUR, HOUR, 1.0, &all).due > now, "it is not due as soon as it is there");
    }
}
