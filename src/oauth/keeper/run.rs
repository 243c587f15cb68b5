//! The keeper's thread.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use event_listener::Listener as _;

use super::super::grant::{self, Grant, Identity, Lease, Moment};
use super::super::{GrantError, OAuthApp, TokenError, Tokens};
use super::schedule::{Seen, Token, rest_of};
use super::shared::{Ending, Shared};
use super::{GrantState, KeeperEvent, KeeperProblem, KeeperSettings};
use crate::back_off::{random_number, random_part};
use crate::document::{DocumentError, DocumentStore, Version};
use crate::handle::{Generation, Numbered, Published, RawHandle, Reload};
use crate::internal::events::Teller;
use crate::issuer::Issuer;
use crate::key::RawKey;

/// How often the document is looked at while another holds the lease: soon enough for requests that wait.
const WATCH: Duration = Duration::from_millis(100);

/// The rest between attempts to persist tokens doubles from the first to the second.
const PERSIST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often tokens are tried to be persisted once the keeper is dropped.
const LAST_TRIES: u32 = 5;

pub(super) struct Runner<I: Issuer> {
    app: OAuthApp<I>,
    store: Arc<dyn DocumentStore>,
    identity: Identity,
    settings: KeeperSettings,
    shared: Arc<Shared>,
    teller: Teller<KeeperEvent>,
    handle: RawHandle,
    /// This keeper, in a lease.
    me: u64,
    grant: Option<Grant>,
    seen: Option<Seen>,
    looked: Option<Instant>,
    /// A lease of this keeper with which it has sent nothing.
    unused: Option<Version>,
    /// A lease of this keeper with which it has sent something, and nobody knows what came of it.
    doubtful: Option<Version>,
    /// As it was told last.
    state: GrantState,
    /// Refreshes in a row that were asked for because a token was refused.
    refused: u32,
    failures: u32,
    /// Whether the last of them was the server's, and not the store's.
    is_servers: bool,
    /// No refresh before then.
    rests_until: Option<Instant>,
}

/// A grant with the lease of this keeper in it.
struct Leased {
    grant: Grant,
    version: Version,
    /// The first stands still while the machine is suspended, and the second can be set.
    begun: (Instant, SystemTime),
}

impl Leased {
    fn held_for(&self) -> Duration {
        self.begun.0.elapsed().max(self.begun.1.elapsed().unwrap_or_default())
    }
}

/// What is to be done about the grant now.
enum Turn {
    Nothing,
    /// Somebody else is at it.
    Watch,
    /// Not before then.
    Rest(Duration),
    Refresh,
}

impl<I: Issuer> Runner<I> {
    pub(super) fn new(
        app: OAuthApp<I>,
        store: Arc<dyn DocumentStore>,
        settings: KeeperSettings,
        shared: Arc<Shared>,
        teller: Teller<KeeperEvent>,
    ) -> Self {
        let (identity, handle) = (app.identity(), shared.handle());
        Self {
            app,
            store,
            identity,
            settings,
            shared,
            teller,
            handle,
            me: random_number(),
            grant: None,
            seen: None,
            looked: None,
            unused: None,
            doubtful: None,
            state: GrantState::Good,
            refused: 0,
            failures: 0,
            is_servers: false,
            rests_until: None,
        }
    }

    pub(super) fn run(mut self) {
        let _ending = Ending { shared: Arc::clone(&self.shared), teller: self.teller.clone() };
        let mut wake = self.wake(Instant::now());
        loop {
            let news = self.handle.work();
            if self.shared.is_stopping() {
                return;
            }
            let now = Instant::now();
            if self.handle.is_asked() {
                let attempt = self.handle.begin();
                let before = self.handle.generation();
                let is_refused = self.handle.refused() == Some(before);
                let outcome = self.turn(is_refused);
                let newer = self.handle.generation() > before;
                self.handle.end(attempt, if newer { Reload::Newer } else { outcome });
                wake = self.wake(Instant::now());
            } else if wake <= now {
                self.turn(false);
                wake = self.wake(Instant::now());
            } else {
                let _ = news.wait_deadline(wake);
            }
        }
    }

    /// When the grant is looked at next.
    fn wake(&self, now: Instant) -> Instant {
        let poll = now + self.settings.poll_interval.mul_f64(1.0 - 0.2 * random_part());
        let Some(seen) = &self.seen else { return poll };
        let at = match (seen.lease, seen.is_refused) {
            _ if seen.is_refused => return poll,
            (Some(_), _) if seen.is_leased(now) => return poll.min(now + WATCH * 5),
            // In doubt.
            (Some(_), _) => seen.token.last_moment,
            (None, _) => seen.token.due,
        };
        poll.min(at.max(self.rests_until.unwrap_or(now)).max(now + WATCH / 10))
    }

    /// Looks at the grant, and refreshes it where that is due. `is_refused` says that the token in force was refused.
    fn turn(&mut self, is_refused: bool) -> Reload {
        loop {
            if self.shared.is_stopping() {
                return Reload::NoRefresher;
            }
            let is_newer = match self.look() {
                Ok(is_newer) => is_newer,
                Err(problem) => return self.failed(problem),
            };
            if is_newer {
                // Another's tokens, so the server gives some.
                self.recovered();
                return Reload::Newer;
            }
            match self.decide(Instant::now(), is_refused) {
                Turn::Nothing => return self.fine(),
                Turn::Watch => self.shared.sleep(WATCH.mul_f64(0.5 + random_part())),
                Turn::Rest(rest) if is_refused && rest <= self.settings.minimum_interval => {
                    self.shared.sleep(rest);
                }
                Turn::Rest(_) => return Reload::TooSoon,
                Turn::Refresh => {
                    // Before the lease, because it may take any time.
                    let secret = match self.app.load_secret() {
                        Ok(secret) => secret,
                        Err(error) => return self.failed(KeeperProblem::Token(error)),
                    };
                    match self.take_lease() {
                        Ok(None) => {}
                        Ok(Some(leased)) => return self.refresh(&leased, &secret, is_refused),
                        Err(problem) => return self.failed(problem),
                    }
                }
            }
        }
    }

    fn decide(&mut self, now: Instant, is_refused: bool) -> Turn {
        let Some(seen) = &self.seen else { return Turn::Nothing };
        let mut state = GrantState::Good;
        let mut turn = if is_refused || now >= seen.token.due { Turn::Refresh } else { Turn::Nothing };
        if seen.is_refused {
            (state, turn) = (GrantState::Refused, Turn::Nothing);
        } else if seen.lease.is_some() && self.unused != Some(seen.version) {
            if seen.is_leased(now) {
                if self.doubtful == Some(seen.version) {
                    state = GrantState::InDoubt;
                }
                turn = if matches!(turn, Turn::Refresh) { Turn::Watch } else { Turn::Nothing };
            } else {
                state = GrantState::InDoubt;
                if !is_refused && now < seen.token.last_moment {
                    turn = Turn::Nothing;
                }
            }
        }
        if matches!(turn, Turn::Refresh)
            && let Some(until) = self.rests_until.filter(|until| now < *until)
        {
            turn = Turn::Rest(until - now);
        }
        self.note_state(state);
        turn
    }

    /// Reads the grant and publishes its access token; says whether that is another one.
    pub(super) fn look(&mut self) -> Result<bool, KeeperProblem> {
        let now = Instant::now();
        let read = grant::read(&*self.store, &self.identity)?;
        let (grant, version) = read.ok_or(GrantError::None)?;
        let unwatched = self.looked.map(|looked| now.saturating_duration_since(looked) + self.app.deadline());
        self.looked = Some(now);
        self.take(grant, version, |grant| {
            let rest = rest_of(grant, Moment::of(SystemTime::now()), unwatched);
            (now, rest)
        })
    }

    /// Takes what is in the store, and publishes it. `rest` says how long a token still lives, and since when.
    fn take(
        &mut self,
        grant: Grant,
        version: Version,
        rest: impl FnOnce(&Grant) -> (Instant, Duration),
    ) -> Result<bool, KeeperProblem> {
        let now = Instant::now();
        let (since, token) = match &self.seen {
            Some(seen) if seen.version == version => (seen.since, seen.token),
            Some(seen) if seen.number == grant.number => (now, seen.token),
            _ => {
                let (from, rest) = rest(&grant);
                (now, Token::ending(from, rest, grant.lifetime, random_part(), &self.settings))
            }
        };
        let published = self.publish(&grant, token.ends);
        let (number, lease, is_refused) = (grant.number, grant.lease, grant.is_refused);
        self.seen = Some(Seen { version, since, number, lease, is_refused, token });
        self.grant = Some(grant);
        match published {
            Published::Refused => return Err(KeeperProblem::WentBack),
            Published::OtherPublisher => return Err(KeeperProblem::OtherPublisher),
            Published::Same | Published::Newer => {}
        }
        let generation = Generation::numbered(number);
        self.shared.change(|status| status.generation = generation);
        let is_newer = published == Published::Newer;
        if let Some(generation) = generation.filter(|_| is_newer) {
            let provenance = self.store.provenance();
            self.teller.tell(KeeperEvent::Refreshed { generation, provenance });
        }
        Ok(is_newer)
    }

    fn publish(&self, grant: &Grant, ends: Instant) -> Published {
        let before = self.grant.as_ref().filter(|before| before.number < grant.number);
        let until = Instant::now().checked_add(self.settings.grace);
        // The one before may be sent while it lives, and what is known of that is the end of the last one seen.
        let lives = self.seen.as_ref().map_or(ends, |seen| seen.token.ends);
        let previous = before.zip(until).map(|(before, until)| (&before.access, until.min(lives)));
        self.handle.publish(&Numbered {
            generation: Generation::numbered(grant.number),
            begun: Some(self.identity.fingerprint()),
            current: Ok(&grant.access),
            previous,
        })
    }

    /// Writes the lease. None where somebody else has written: look again.
    fn take_lease(&mut self) -> Result<Option<Leased>, KeeperProblem> {
        let (Some(seen), Some(grant)) = (&self.seen, &self.grant) else { return Ok(None) };
        // Before it is written: nobody sees it earlier than this.
        let begun = (Instant::now(), SystemTime::now());
        let lease = Lease { holder: self.me, length: self.settings.lease };
        let grant = grant.with_lease(Some(lease));
        let content = grant.to_document(&self.identity)?;
        match self.store.write(&content, Some(&seen.version)) {
            Ok(version) => {
                self.unused = Some(version);
                Ok(Some(Leased { grant, version, begun }))
            }
            Err(DocumentError::Conflict) => Ok(None),
            Err(error) => Err(GrantError::from(error).into()),
        }
    }

    /// Asks the server, with the lease.
    fn refresh(&mut self, leased: &Leased, secret: &RawKey, is_refused: bool) -> Reload {
        let Leased { grant, version, .. } = leased;
        let version = *version;
        let bound = self.settings.request_bound().saturating_sub(leased.held_for());
        if bound.is_zero() {
            // Too slow already. Nothing was sent, so the next one may begin anew.
            return self.fine();
        }
        self.unused = None;
        match self.app.refresh(&grant.refresh, secret, bound) {
            Ok(tokens) => self.renew(tokens, grant.number, version, is_refused),
            Err(error) => {
                let next = if error.refuses_grant() {
                    Some(Grant { is_refused: true, ..grant.with_lease(None) })
                } else if error.leaves_doubt() {
                    // The lease stays: it tells everybody that there is doubt.
                    None
                } else {
                    Some(grant.with_lease(None))
                };
                if let Some(next) = next {
                    // Where it cannot be written, the lease stays there, and with it the doubt.
                    let written = next
                        .to_document(&self.identity)
                        .map(|content| self.store.write(&content, Some(&version)));
                    drop(written);
                }
                // What is in the store now, others' changes included.
                let looked = self.look();
                let state = match (&error, &self.seen) {
                    // Another's tokens are there.
                    _ if looked == Ok(true) => GrantState::Good,
                    (TokenError::Refused { .. }, Some(seen)) if seen.is_refused => GrantState::Refused,
                    (error, _) if error.leaves_doubt() => GrantState::InDoubt,
                    _ => GrantState::Good,
                };
                self.doubtful = error.leaves_doubt().then_some(version);
                let outcome = self.failed(KeeperProblem::Token(error));
                self.note_state(state);
                if looked == Ok(true) { Reload::Newer } else { outcome }
            }
        }
    }

    /// Persists new tokens, and then publishes them.
    fn renew(&mut self, tokens: Tokens<I>, number: u64, leased: Version, is_refused: bool) -> Reload {
        let (asked, lifetime) = (tokens.asked, tokens.lifetime);
        let grant = tokens.into_grant(number + 1);
        let version = match self.persist(&grant, leased) {
            Ok(version) => version,
            Err(problem) => return self.failed(problem),
        };
        let now = Instant::now();
        self.looked = Some(now);
        // Before the token is there, so that whoever sees it sees no trouble that is over.
        self.note_state(GrantState::Good);
        self.recovered();
        if let Err(problem) = self.take(grant, version, |_| (asked, lifetime)) {
            return self.failed(problem);
        }
        self.refused = if is_refused { self.refused.saturating_add(1) } else { 0 };
        self.rests_until = now.checked_add(self.settings.rest(self.refused.max(1)));
        Reload::Newer
    }

    /// Writes until it is written, or until somebody else has: the old refresh token is used up.
    fn persist(&mut self, grant: &Grant, leased: Version) -> Result<Version, KeeperProblem> {
        let content = grant.to_document(&self.identity)?;
        let (mut pause, longest) = PERSIST;
        let mut tries = 0;
        loop {
            let error = match self.store.write(&content, Some(&leased)) {
                Ok(version) => return Ok(version),
                Err(DocumentError::TooLarge { limit }) => return Err(GrantError::TooLarge { limit }.into()),
                Err(error) => error,
            };
            // Whether it was written is not known before it is read.
            match grant::read(&*self.store, &self.identity) {
                Ok(Some((there, version)))
                    if there.number == grant.number && there.refresh.bytes() == grant.refresh.bytes() =>
                {
                    return Ok(version);
                }
                Ok(Some((_, version))) if version == leased => {}
                Ok(_) => return Err(KeeperProblem::Overtaken),
                Err(_) => {}
            }
            tries += 1;
            if self.shared.is_stopping() && tries >= LAST_TRIES {
                return Err(GrantError::from(error).into());
            }
            self.note_failure(GrantError::from(error).into());
            // Not cut short when the keeper is dropped: what is not persisted is lost.
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn failed(&mut self, problem: KeeperProblem) -> Reload {
        let asked = match &problem {
            KeeperProblem::Token(error) => error.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        self.note_failure(problem);
        let rest = self.settings.rest(self.failures).max(asked.min(self.settings.longest_back_off));
        self.rests_until = Instant::now().checked_add(rest);
        Reload::Failed
    }

    fn note_failure(&mut self, problem: KeeperProblem) {
        self.is_servers = matches!(problem, KeeperProblem::Token(_) | KeeperProblem::Overtaken);
        self.failures = self.failures.saturating_add(1);
        let (failures, provenance) = (self.failures, self.store.provenance());
        self.shared.change(|status| (status.failures, status.problem) = (failures, Some(problem.clone())));
        self.teller.tell(KeeperEvent::Failed { problem, failures, provenance });
    }

    fn recovered(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        self.is_servers = false;
        self.shared.change(|status| (status.failures, status.problem) = (0, None));
        if failures > 0 {
            self.teller.tell(KeeperEvent::Recovered { failures, provenance: self.store.provenance() });
        }
    }

    /// Tells of it where it is another one than before.
    fn note_state(&mut self, state: GrantState) {
        self.shared.change(|status| status.state = state);
        let provenance = self.store.provenance();
        match state {
            _ if std::mem::replace(&mut self.state, state) == state => {}
            GrantState::Good => {}
            GrantState::InDoubt => self.teller.tell(KeeperEvent::InDoubt { provenance }),
            GrantState::Refused => self.teller.tell(KeeperEvent::Refused { provenance }),
        }
    }

    /// Nothing has failed. A problem of the store is over by this; one of the server is over when there are new tokens.
    fn fine(&mut self) -> Reload {
        if !self.is_servers {
            self.recovered();
        }
        Reload::Unchanged
    }
}
