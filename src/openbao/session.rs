//! How a client gets its token, and keeps it: obtained at the first call, renewed before it ends, replaced
//! when it is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::login::{Credential, Login, Method};
use super::servers::{Answered, Call, Servers, encoded};
use super::{OpenBaoError, json};
use crate::internal::threads::Lock;
use crate::internal::time::Clocks;

/// How soon a renewal that failed is tried again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Which part of a call's time a renewal may take.
const RENEWAL_PART: u32 = 3;

pub(super) struct Session {
    pub(super) login: Login,
    token: Lock<Option<Token>>,
    /// How many tokens there have been.
    count: AtomicU64,
}

#[derive(Clone)]
struct Token {
    credential: Credential,
    header: HeaderValue,
    /// Which token of this session it is.
    number: u64,
    lease: Option<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    /// How long the first one was: what is much shorter nears the end that renewal cannot move.
    first: Duration,
    /// Before it was asked for. OpenBao's own clock goes on while this machine is suspended.
    since: Clocks,
    length: Duration,
    /// When a renewal was tried last.
    tried: Option<Clocks>,
    is_renewable: bool,
}

impl Lease {
    fn new(since: Clocks, seconds: u64, is_renewable: bool, first: Option<Duration>) -> Option<Self> {
        let length = Duration::from_secs(seconds);
        let first = first.unwrap_or(length);
        let is_renewable = is_renewable && length.saturating_mul(2) >= first;
        // 0 is a token without an end.
        (seconds > 0).then_some(Self { first, since, length, tried: None, is_renewable })
    }

    /// Whether it is to be renewed by now, by either clock.
    fn is_due(&self, now: Clocks) -> bool {
        let rests = self.tried.is_some_and(|tried| !now.has_expired(tried, RENEWAL_PAUSE));
        !rests && now.has_expired(self.since, self.length / 3 * 2)
    }

    fn is_over(&self, now: Clocks) -> bool {
        now.has_expired(self.since, self.length)
    }
}

impl Session {
    pub(super) const fn new(login: Login) -> Self {
        Self { login, token: Lock::new(None), count: AtomicU64::new(0) }
    }

    /// Sends a request with the token. A token that OpenBao does not know any more is replaced, once.
    /// `access` is what the policies must allow.
    pub(super) fn call(
        &self,
        servers: &Servers,
        call: &Call<'_>,
        access: &'static str,
        until: Instant,
    ) -> Result<Answered, OpenBaoError> {
        let (header, number) = self.token(servers, until)?;
        let answered = servers.call(call, Some(&header), until)?;
        if answered.status != 403 {
            return Ok(answered);
        }
        // Both a bad token and a policy that forbids are a 403, with texts that are not documented.
        if lookup(servers, &header, until)?.is_some() {
            return Err(OpenBaoError::Forbidden { access });
        }
        self.refused(number)?;
        let (header, _) = self.token(servers, until)?;
        let answered = servers.call(call, Some(&header), until)?;
        if answered.status == 403 { Err(OpenBaoError::Forbidden { access }) } else { Ok(answered) }
    }

    /// Returns the token. One caller obtains or renews it while the others wait.
    fn token(&self, servers: &Servers, until: Instant) -> Result<(HeaderValue, u64), OpenBaoError> {
        let mut token = self.token.lock();
        let next = match token.take() {
            None => self.obtain(servers, until)?,
            Some(there) => self.kept_good(servers, there, until)?,
        };
        let token = token.insert(next);
        Ok((token.header.clone(), token.number))
    }

    /// The token, renewed or replaced where that is due.
    fn kept_good(&self, servers: &Servers, there: Token, until: Instant) -> Result<Token, OpenBaoError> {
        let now = Clocks::now();
        let Some(lease) = there.lease.filter(|lease| lease.is_due(now)) else { return Ok(there) };
        if lease.is_over(now) {
            return self.renew(servers, &there, lease, until);
        }
        // It is good for a while yet, so most of the time is for the call that it is wanted for.
        let begun = now.monotonic();
        let soon = begun + until.saturating_duration_since(begun) / RENEWAL_PART;
        let renewed = self.renew(servers, &there, lease, soon);
        let later = Some(Lease { tried: Some(now), ..lease });
        Ok(renewed.unwrap_or(Token { lease: later, ..there }))
    }

    fn renew(
        &self,
        servers: &Servers,
        there: &Token,
        lease: Lease,
        until: Instant,
    ) -> Result<Token, OpenBaoError> {
        let can_log_in = matches!(self.login.method, Method::AppRole { .. } | Method::Kubernetes { .. });
        if lease.is_renewable {
            let call = Call { is_repeatable: true, ..Call::post("auth/token/renew-self", json::object(&[])) };
            let asked = Clocks::now();
            let answered = servers.call(&call, Some(&there.header), until)?;
            if answered.status == 200 {
                let auth = auth(&answered)?;
                let lease = Lease::new(asked, auth.lease_duration, auth.is_renewable, Some(lease.first));
                return Ok(Token { lease, ..there.clone() });
            }
        }
        if can_log_in {
            return self.obtain(servers, until);
        }
        // It is asked again, for what has refused may be a proxy; once it has ended, OpenBao says so.
        let now = Clocks::now();
        let is_worth_it = lease.is_renewable && !lease.is_over(now);
        let lease = is_worth_it.then_some(Lease { tried: Some(now), ..lease });
        Ok(Token { lease, ..there.clone() })
    }

    fn obtain(&self, servers: &Servers, until: Instant) -> Result<Token, OpenBaoError> {
        let (method, asked) = (self.login.name(), Clocks::now());
        let (credential, lease) = match (&self.login.method, self.login.body()?) {
            (_, Some(body)) => {
                let path = format!("auth/{}/login", encoded(self.login.mount()));
                let answered = servers.call(&Call::post(&path, body), None, until)?;
                match answered.status {
                    200 => {}
                    404 => {
                        return Err(
                            json::not_there(&answered.body).unwrap_or(OpenBaoError::NoLoginMount { method })
                        );
                    }
                    _ => return Err(OpenBaoError::LoginRefused { method }),
                }
                let auth = auth(&answered)?;
                let token = auth.token().ok_or(OpenBaoError::NotOpenBao { status: answered.status })?;
                (Credential::new(token), Lease::new(asked, auth.lease_duration, auth.is_renewable, None))
            }
            (Method::TokenFile(path), None) => (Credential::from_file(path, self.login.trust)?, None),
            (Method::Token(token), None) => {
                let lease = lookup(servers, &token.header()?, until)?
                    .and_then(|found| Lease::new(asked, found.ttl, found.renewable, None));
                (token.clone(), lease)
            }
            _ => unreachable!("the other logins have a body"),
        };
        self.numbered(credential, lease)
    }

    fn numbered(&self, credential: Credential, lease: Option<Lease>) -> Result<Token, OpenBaoError> {
        let header = credential.header()?;
        Ok(Token { credential, header, number: self.count.fetch_add(1, Ordering::Relaxed), lease })
    }

    /// Handles a token that OpenBao does not know. The first caller forgets it, so that the next call gets
    /// another one.
    fn refused(&self, number: u64) -> Result<(), OpenBaoError> {
        let mut token = self.token.lock();
        let Some(there) = token.as_ref().filter(|there| there.number == number) else {
            return Ok(());
        };
        match &self.login.method {
            Method::Token(_) => return Err(OpenBaoError::TokenRefused),
            Method::TokenFile(path) => {
                let credential = Credential::from_file(path, self.login.trust)?;
                if credential.is(&there.credential) {
                    return Err(OpenBaoError::TokenRefused);
                }
                *token = Some(self.numbered(credential, None)?);
            }
            Method::AppRole { .. } | Method::Kubernetes { .. } => *token = None,
        }
        Ok(())
    }
}

/// What OpenBao says of a token; `None` where it does not know it, or does not let it ask.
fn lookup(
    servers: &Servers,
    token: &HeaderValue,
    until: Instant,
) -> Result<Option<json::Lookup>, OpenBaoError> {
    let answered = servers.call(&Call::get("auth/token/lookup-self"), Some(token), until)?;
    match answered.status {
        200 => read::<json::Answer<json::Lookup>>(&answered).map(|answer| Some(answer.data)),
        403 => Ok(None),
        404 => Err(json::not_there(&answered.body).unwrap_or(OpenBaoError::NotOpenBao { status: 404 })),
        status => Err(OpenBaoError::Rejected { status }),
    }
}

fn auth(answered: &Answered) -> Result<json::Auth<'_>, OpenBaoError> {
    json::Auth::read(&answered.body).ok_or(OpenBaoError::NotOpenBao { status: answered.status })
}

pub(super) fn read<'a, T: serde::Deserialize<'a>>(answered: &'a Answered) -> Result<T, OpenBaoError> {
    json::read(&answered.body).ok_or(OpenBaoError::NotOpenBao { status: answered.status })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_renewed_and_ends_by_the_clock_that_shows_more() {
        let start = Clocks::now();
        let lease = Lease::new(start, 3600, true, None).unwrap();
        let at = |wall, monotonic| Clocks::at(start.wall() + wall, start.monotonic() + monotonic);
        assert!(!lease.is_due(at(HOUR / 2, HOUR / 2)) && lease.is_due(at(HOUR / 4 * 3, HOUR / 4 * 3)));
        // Suspended for two hours: the monotonic clock stood still.
        assert!(lease.is_due(at(HOUR * 2, Duration::ZERO)) && lease.is_over(at(HOUR * 2, Duration::ZERO)));
        assert!(lease.is_over(at(Duration::ZERO, HOUR)), "a wall clock that was set back");
        let tried = Lease { tried: Some(at(HOUR, HOUR)), ..lease };
        assert!(!tried.is_due(at(HOUR, HOUR)) && tried.is_due(at(HOUR + RENEWAL_PAUSE, HOUR)));
        assert!(Lease::new(start, 0, true, None).is_none());
    }

    #[test]
    fn what_was_renewed_for_less_than_half_is_not_renewed_again() {
        let start = Clocks::now();
        for (seconds, is_renewable) in [(1800, true), (1799, false), (u64::MAX, true)] {
            let lease = Lease::new(start, seconds, true, Some(HOUR)).unwrap();
            assert_eq!(lease.is_renewable, is_renewable, "{seconds}");
        }
    }
}
