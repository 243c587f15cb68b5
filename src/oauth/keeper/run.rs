//! The keeper's task: when it reads the grant, and what it does then.

use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::grant::{self, Due, Grant, Identity, Lease, Now, Seen, Timestamp, TokenTimes, rest_of};
use super::super::{GrantError, GrantState, OAuthApp, TokenError};
use super::{KeeperEvent, KeeperSettings, KeeperStatus};
use crate::handle::{Generation, Publication, Published, Publisher, Reload, Reloader};
use crate::internal::events::EventSender;
use crate::internal::threads::Link;
use crate::internal::time::{self, Clocks, doubled, random_number, random_part};
use crate::internal::timer::{Begin, Worked, after_no_thread, news_until, work_on};
use crate::key::Issuer;
use crate::store::{DocumentError, DocumentStore, Version};

/// The longest wait without a look at both clocks. The monotonic clock that a task waits by stands still
/// while the machine is suspended.
const SLICE: Duration = Duration::from_secs(5);

/// How often the document is read while another process holds the lease: soon enough for requests that wait.
const WATCH: Duration = Duration::from_millis(100);

/// For how long callers that ask for a token wait for another holder.
const LONGEST_WATCH: Duration = Duration::from_secs(60);

/// The longest back-off that callers that ask for a token wait for.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How often one attempt tries to take a lease when other processes write at the same time, and the pause
/// between: it doubles from the first to the second.
const TRIES: u32 = 6;
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) struct Runner<I: Issuer> {
    pub(super) app: OAuthApp<I>,
    pub(super) store: Arc<dyn DocumentStore>,
    pub(super) identity: Identity,
    pub(super) settings: KeeperSettings,
    pub(super) link: Arc<Link<KeeperStatus>>,
    pub(super) events: EventSender<KeeperEvent>,
    pub(super) publisher: Publisher<I>,
    reloader: Arc<Reloader>,
    /// The holder number of this keeper in a lease.
    pub(super) me: u64,
    /// The newest grant that was seen.
    pub(super) grant: Option<Grant>,
    pub(super) seen: Option<Seen>,
    pub(super) looked: Option<Clocks>,
    /// When a read that was asked for ended.
    pub(super) asked: Option<Clocks>,
    /// A lease of this keeper under which the refresh token was certainly not used.
    pub(super) unused: Option<Lease>,
    /// Tokens that the store has not taken yet.
    pub(super) unsaved: Option<Unsaved>,
    /// As it was last reported.
    pub(super) state: GrantState,
    /// Refreshes in a row that were asked for because a token was refused.
    pub(super) refused: u32,
    /// Whether the last failure was the server's, and not the store's.
    pub(super) is_servers: bool,
    /// No refresh before then.
    pub(super) rests_until: Option<Due>,
}

/// New tokens that the store has not taken yet. The refresh token before them is used up, so they are kept
/// until it does.
pub(super) struct Unsaved {
    pub(super) grant: Grant,
    /// When its access token was asked for, and its lifetime.
    pub(super) token: (Clocks, Duration),
    /// What is wrong with its access token.
    pub(super) verdict: Option<TokenError>,
    pub(super) over: Version,
    pub(super) is_refused: bool,
    pub(super) tries: u32,
    /// When it is tried again.
    pub(super) again: Due,
}

/// What to do about the grant now.
enum Decision {
    Nothing,
    /// Another process is refreshing it.
    Watch,
    /// Back-off: not before this has passed.
    Rest(Duration),
    Refresh,
}

impl<I: Issuer> Runner<I> {
    pub(super) fn new(
        app: OAuthApp<I>,
        store: Arc<dyn DocumentStore>,
        settings: KeeperSettings,
        (publisher, reloader): (Publisher<I>, Arc<Reloader>),
        link: Arc<Link<KeeperStatus>>,
        events: EventSender<KeeperEvent>,
    ) -> Self {
        Self {
            identity: app.identity(),
            app,
            store,
            settings,
            link,
            events,
            publisher,
            reloader,
            me: random_number(),
            grant: None,
            seen: None,
            looked: None,
            asked: None,
            unused: None,
            unsaved: None,
            state: GrantState::Good,
            refused: 0,
            is_servers: false,
            rests_until: None,
        }
    }

    /// Returns the function to call if the task panics.
    pub(super) fn on_panic(&self) -> impl FnOnce() + Send + use<I> {
        let (link, events) = (Arc::clone(&self.link), self.events.clone());
        move || {
            let problem = GrantError::Ended;
            let (failures, provenance) =
                link.with(|status| (status.health.fail(problem.clone()), status.provenance.clone()));
            events.send(KeeperEvent::Failed { problem, failures, provenance });
        }
    }

    /// Returns a holder of what is foreign.
    pub(super) fn foreign(&self) -> impl Send + use<I> {
        (Arc::clone(&self.store), self.app.secret())
    }

    /// The keeper's task. Its store and the server are asked on another thread.
    pub(super) async fn poll(mut self: Box<Self>) {
        let mut wake = self.wake(Clocks::now());
        loop {
            let news = self.reloader.work();
            if self.link.is_stopping() {
                self.on_other_thread(Begin::Now, Self::save_at_last).await;
                return;
            }
            let now = Clocks::now();
            let asked = self.reloader.is_asked().then(|| self.rest_of_asking(now));
            if asked == Some(Duration::ZERO) {
                self = self.on_other_thread(Begin::Now, Self::answer).await;
                wake = self.wake(Clocks::now());
            } else if wake.is_over(now) {
                self = self.on_other_thread(Begin::InOrder, |runner| _ = runner.turn(false)).await;
                wake = self.wake(Clocks::now());
            } else {
                let rest = wake.rest(now).min(SLICE).min(asked.unwrap_or(SLICE));
                news_until(news, Some(time::after(rest))).await;
            }
        }
    }

    /// A panic there is one of this task. Where no thread can be started, that is a failure, and it is tried
    /// again.
    async fn on_other_thread(mut self: Box<Self>, begin: Begin, work: fn(&mut Self)) -> Box<Self> {
        loop {
            match work_on(begin, self, move |runner| work(runner)).await {
                Worked::Done(runner, ()) => return runner,
                Worked::Panicked => resume_unwind(Box::new(())),
                Worked::NoThread(runner) => self = runner,
            }
            let outcome = self.failed(GrantError::NoThread(ErrorKind::WouldBlock));
            if self.reloader.is_asked() {
                self.reloader.end(self.reloader.begin(), outcome);
            }
            after_no_thread().await;
        }
    }

    /// Makes the attempt that is asked for.
    fn answer(&mut self) {
        let attempt = self.reloader.begin();
        let before = self.publisher.generation();
        let is_refused = self.publisher.refused() == Some(before);
        let outcome = self.turn(is_refused);
        let newer = self.publisher.generation() > before;
        self.reloader.end(attempt, if newer { Reload::Newer } else { outcome });
        self.asked = Some(Clocks::now());
    }

    /// How long callers that ask wait for the next read, so that the store is not read for each refused
    /// request.
    fn rest_of_asking(&self, now: Clocks) -> Duration {
        let interval = self.settings.cadence.minimum_interval().min(LONGEST_REST);
        self.asked.map_or(Duration::ZERO, |asked| interval.saturating_sub(now.at_most_since(asked)))
    }

    /// When the grant is read next.
    fn wake(&self, now: Clocks) -> Due {
        let poll = self.settings.cadence.next();
        let rest = match (&self.unsaved, &self.seen) {
            (Some(unsaved), _) => unsaved.again.rest(now),
            (None, None) => poll,
            (None, Some(seen)) if seen.is_refused => poll,
            (None, Some(seen)) => match seen.lease.filter(|lease| self.unused != Some(*lease)) {
                Some(lease) if lease.holder != self.me && seen.is_leased(Now::read()) => WATCH * 5,
                // In doubt.
                Some(_) => self.after_rest(now, seen.token.last_moment),
                None => self.after_rest(now, seen.token.due),
            },
        };
        Due::after(now, rest.min(poll))
    }

    /// How long until this is due and the back-off has passed.
    fn after_rest(&self, now: Clocks, due: Due) -> Duration {
        let rest = self.rests_until.map_or(Duration::ZERO, |until| until.rest(now));
        due.rest(now).max(rest).max(WATCH / 10)
    }

    /// Reads the grant, and refreshes it if that is due. `is_refused` says that the active token was refused.
    fn turn(&mut self, is_refused: bool) -> Reload {
        if self.unsaved.is_some() {
            return self.save_again();
        }
        let start = Instant::now();
        let (mut secret, mut conflicts) = (None, 0);
        loop {
            if self.link.is_stopping() {
                return Reload::NoRefresher;
            }
            let is_newer = match self.look() {
                Ok(is_newer) => is_newer,
                Err(problem) => return self.failed(problem),
            };
            if is_newer {
                // They are of another process, so the server answers.
                self.recovered();
                return Reload::Newer;
            }
            match self.decide(Now::read(), is_refused) {
                Decision::Nothing => return self.fine(),
                Decision::Watch if start.elapsed() < LONGEST_WATCH => {
                    self.link.sleep(WATCH.mul_f64(0.5 + random_part()));
                }
                Decision::Rest(rest) if is_refused && rest <= LONGEST_REST => self.link.sleep(rest),
                Decision::Watch | Decision::Rest(_) => return Reload::TooSoon,
                Decision::Refresh => {
                    // Before the lease, because it may take any time; once for each attempt.
                    let loaded = match secret.take() {
                        Some(secret) => secret,
                        None => match self.app.load_secret() {
                            Ok(secret) => secret,
                            Err(error) => return self.failed(GrantError::Token(TokenError::Secret(error))),
                        },
                    };
                    match self.take_lease() {
                        Ok(Some(leased)) => return self.refresh(&leased, &loaded, is_refused),
                        Ok(None) if conflicts < TRIES => {
                            self.link
                                .sleep(doubled(PAUSE.0, conflicts, PAUSE.1).mul_f64(0.5 + random_part()));
                            conflicts += 1;
                            secret = Some(loaded);
                        }
                        Ok(None) => return self.failed(DocumentError::Conflict.into()),
                        Err(problem) => return self.failed(problem),
                    }
                }
            }
        }
    }

    fn decide(&mut self, now: Now, is_refused: bool) -> Decision {
        let Some(seen) = &self.seen else { return Decision::Nothing };
        let mut state = GrantState::Good;
        let mut turn = if is_refused || seen.token.due.is_over(now.clocks) {
            Decision::Refresh
        } else {
            Decision::Nothing
        };
        if seen.is_refused {
            (state, turn) = (GrantState::Refused, Decision::Nothing);
        } else if let Some(lease) = seen.lease.filter(|lease| self.unused != Some(*lease)) {
            let is_own = lease.holder == self.me;
            if is_own || !seen.is_leased(now) {
                // This keeper no longer waits for an answer, so the outcome stays unknown.
                state = GrantState::InDoubt;
                if !is_refused && !seen.token.last_moment.is_over(now.clocks) {
                    turn = Decision::Nothing;
                }
            } else if matches!(turn, Decision::Refresh) {
                turn = Decision::Watch;
            }
        }
        if matches!(turn, Decision::Refresh)
            && let Some(until) = self.rests_until.filter(|until| !until.is_over(now.clocks))
        {
            turn = Decision::Rest(until.rest(now.clocks));
        }
        self.note_state(state);
        turn
    }

    /// Reads the grant and publishes its access token. Returns whether it is another one.
    pub(super) fn look(&mut self) -> Result<bool, GrantError> {
        let now = Clocks::now();
        let read = grant::read(&*self.store, &self.identity)?;
        let (grant, version) = read.ok_or(GrantError::None)?;
        if let Some(newest) = &self.grant {
            if grant.lineage != newest.lineage {
                return Err(GrantError::OtherGrant);
            }
            let is_other_sign_in = grant.id != newest.id;
            if grant.serial < newest.serial || (grant.serial == newest.serial && is_other_sign_in) {
                return self.write_back(&grant, &version).map(|()| false);
            }
            if is_other_sign_in {
                let provenance = self.store.provenance();
                self.events.send(KeeperEvent::Replaced { provenance });
            }
        }
        let unwatched = self.looked.map(|looked| {
            // It was requested within a lease before it was written.
            let lease = self.seen.as_ref().and_then(|seen| seen.lease).map(|lease| lease.length);
            now.at_most_since(looked) + lease.unwrap_or_default().max(self.settings.lease)
        });
        self.looked = Some(now);
        let clock = Timestamp::of(SystemTime::now());
        let rest = rest_of(grant.expires, grant.lifetime, clock, unwatched);
        self.take(grant, version, (now, rest))
    }

    /// Takes a grant from the store, and publishes it. Its access token is valid for `rest` since `from`.
    pub(super) fn take(
        &mut self,
        grant: Grant,
        version: Version,
        (from, rest): (Clocks, Duration),
    ) -> Result<bool, GrantError> {
        let now = Clocks::now();
        let seen = self.seen.as_ref();
        let token = seen.filter(|seen| seen.number == grant.number).map(|seen| seen.token);
        let token = token.unwrap_or_else(|| {
            let ahead = f64::from(self.settings.ahead) + f64::from(self.settings.jitter) * random_part();
            TokenTimes::ending(from, rest, grant.lifetime, ahead)
        });
        let is_same_lease = |seen: &&Seen| seen.lease == grant.lease && seen.serial == grant.serial;
        let since = seen.filter(is_same_lease).map_or(now, |seen| seen.since);
        let published = self.publish(&grant, token.ends.rest(now));
        match published {
            Published::Refused => return Err(GrantError::WentBack),
            Published::OtherLineage => return Err(GrantError::OtherGrant),
            Published::Same | Published::Newer => {}
        }
        let Grant { serial, number, lease, is_refused, .. } = grant;
        self.seen = Some(Seen { version, since, serial, number, lease, is_refused, token });
        self.grant = Some(grant);
        let generation = Generation::numbered(number);
        self.link.with(|status| status.generation = generation);
        let is_newer = published == Published::Newer;
        if let Some(generation) = generation.filter(|_| is_newer) {
            let provenance = self.store.provenance();
            self.events.send(KeeperEvent::Refreshed { generation, provenance });
        }
        Ok(is_newer)
    }

    fn publish(&self, grant: &Grant, lives: Duration) -> Published {
        let before = self.grant.as_ref().filter(|before| before.number < grant.number);
        // The previous token may be sent while it is valid, which is known of the last one seen.
        let lives = self.seen.as_ref().map_or(lives, |seen| seen.token.ends.rest(Clocks::now()));
        let until = Instant::now().checked_add(self.settings.grace.min(lives));
        self.publisher.publish(&Publication {
            generation: Generation::numbered(grant.number),
            lineage: Some(self.identity.fingerprint(grant.lineage)),
            current: Ok(&grant.access),
            previous: before.zip(until).map(|(before, until)| (&before.access, until)),
        })
    }
}
