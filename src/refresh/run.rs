//! The refresher's thread.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use event_listener::Listener as _;

use super::asker::Asker;
use super::pace::{Pace, Turn, next_poll};
use super::place::{Answer, Outcome, Place};
use super::shared::{Ending, Shared};
#[cfg(feature = "watch")]
use super::watch::{self, Watch, Watching};
use super::{RefreshEvent, RefreshSettings, ReloadError};
use crate::handle::{Generation, Publisher, Reload};
use crate::internal::events::EventSender;
use crate::key::Issuer;
use crate::source::{Problem, Remark};

/// The pauses before a place that may be behind is asked again double from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What is to be done next.
enum Next {
    Stop,
    Reload {
        was_asked: bool,
    },
    TooSoon,
    /// Until then, or until there is news.
    Wait(Option<Instant>),
}

pub(super) struct Runner<I: Issuer> {
    place: Place,
    publisher: Publisher<I>,
    settings: RefreshSettings,
    shared: Arc<Shared>,
    asker: Asker,
    pace: Pace,
    poll: Option<Instant>,
    /// As this refresher saw it last.
    generation: Generation,
    /// The refusal that an attempt has been made for.
    answered: Option<u64>,
    teller: EventSender<RefreshEvent>,
    /// What was told of and is still so.
    remarked: Vec<Remark>,
    #[cfg(feature = "watch")]
    watch: Option<Arc<Watch>>,
    /// As it was told last.
    #[cfg(feature = "watch")]
    watching: Watching,
    #[cfg(feature = "watch")]
    changed: Option<Instant>,
}

impl<I: Issuer> Runner<I> {
    pub(super) fn new(
        publisher: Publisher<I>,
        place: Place,
        settings: RefreshSettings,
        asker: Asker,
        shared: Arc<Shared>,
        teller: EventSender<RefreshEvent>,
    ) -> Self {
        #[cfg(feature = "watch")]
        let watch =
            place.file().filter(|_| settings.is_watching).map(|file| Watch::new(file, Arc::clone(&shared)));
        #[cfg(feature = "watch")]
        if let Some(watch) = &watch {
            let watch = Arc::clone(watch);
            let armed = Arc::clone(&watch);
            asker.within_deadline(move || armed.arm());
            shared.lock().status.watching = watch.state();
        }
        let now = Instant::now();
        Self {
            pace: Pace::new(&settings),
            // So that what changed between loading it and watching it is seen.
            #[cfg(feature = "watch")]
            changed: watch.is_some().then_some(now),
            #[cfg(feature = "watch")]
            watch,
            poll: (!place.provenance().is_fixed()).then(|| next_poll(&settings, now)),
            generation: publisher.generation(),
            answered: None,
            teller,
            remarked: Vec::new(),
            #[cfg(feature = "watch")]
            watching: Watching::Files,
            place,
            publisher,
            settings,
            shared,
            asker,
        }
    }

    /// Reloads until it is told to stop. `first` is what the start has put in force.
    pub(super) fn run(mut self, first: Outcome) {
        let _ending = Ending::new(Arc::clone(&self.shared), self.teller.clone());
        #[cfg(feature = "watch")]
        self.tell_watching();
        self.tell_newer(first);
        self.tell_remarks();
        let provenance = self.place.provenance();
        if provenance.is_fixed() {
            self.teller.send(RefreshEvent::CannotChange { provenance });
        }
        loop {
            let news = self.shared.reloader.work();
            match self.next(Instant::now()) {
                Next::Stop => return,
                Next::Reload { was_asked } => self.reload(was_asked),
                Next::TooSoon => self.shared.reloader.end(self.shared.reloader.begin(), Reload::TooSoon),
                Next::Wait(Some(until)) => drop(news.wait_deadline(until)),
                Next::Wait(None) => news.wait(),
            }
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let state = self.shared.lock();
        if state.is_stopping {
            return Next::Stop;
        }
        let is_demanded = state.demanded > state.met;
        drop(state);
        let in_force = self.publisher.generation();
        if self.generation != in_force {
            self.generation = in_force;
            self.pace.renewed();
        }
        let until = self.poll;
        #[cfg(feature = "watch")]
        let until = until.into_iter().chain(self.watch_due(now)).min();
        let turn = if self.shared.reloader.is_asked() { Some(self.turn(now)) } else { None };
        if is_demanded || until.is_some_and(|until| until <= now) || turn == Some(Turn::Now) {
            return Next::Reload { was_asked: turn == Some(Turn::Now) };
        }
        match turn {
            Some(Turn::TooSoon) => Next::TooSoon,
            Some(Turn::At(at)) => Next::Wait(until.into_iter().chain([at]).min()),
            _ => Next::Wait(until),
        }
    }

    /// What to do about a reload that is asked for. That the key in force is refused for the first time is news, so it
    /// does not wait until the place has recovered from a failure, or for what others have asked in vain.
    fn turn(&mut self, now: Instant) -> Turn {
        if self.is_first_refusal() {
            return self.pace.turn_of_first_refusal(now);
        }
        self.pace.turn(now)
    }

    fn is_first_refusal(&self) -> bool {
        let news = self.publisher.news_of_refusal();
        news.is_some() && news != self.answered
    }

    /// When the files that have changed are to be read.
    #[cfg(feature = "watch")]
    fn watch_due(&mut self, now: Instant) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        if watch.take_change() {
            self.changed.get_or_insert(now);
        }
        self.changed.map(|changed| changed + watch::DEBOUNCE)
    }

    fn reload(&mut self, was_asked: bool) {
        let is_first_refusal = was_asked && self.is_first_refusal();
        if was_asked {
            self.answered = self.publisher.news_of_refusal();
        }
        let attempt = self.shared.reloader.begin();
        let demanded = self.shared.lock().demanded;
        let lag =
            if is_first_refusal { self.settings.lag_of(&self.place.provenance()) } else { Duration::ZERO };
        let Some(result) = self.ask_for(lag) else {
            return self.shared.reloader.end(attempt, Reload::NoRefresher);
        };
        let in_force = self.publisher.generation();
        let outcome = match &result {
            Ok(Outcome::Newer { .. }) => Reload::Newer,
            // A rotation in this process was faster.
            Ok(Outcome::Same) if self.generation != in_force => Reload::Newer,
            Ok(Outcome::Same) => Reload::Unchanged,
            Err(_) => Reload::Failed,
        };
        self.generation = in_force;
        let now = Instant::now();
        if self.poll.is_some_and(|poll| poll <= now) {
            self.poll = Some(next_poll(&self.settings, now));
        }
        self.pace.ended(now, was_asked, outcome);
        let failed_before = self.note(&result);
        self.shared.reloader.end(attempt, outcome);
        let mut state = self.shared.lock();
        (state.met, state.outcome) = (state.met.max(demanded), outcome);
        drop(state);
        self.shared.tell();
        self.tell(result, failed_before);
    }

    /// Asks the place, and again for so long while it has nothing newer: the issuer may act on what a replica has not heard of.
    fn ask_for(&mut self, lag: Duration) -> Option<Result<Outcome, ReloadError>> {
        let mut result = self.ask()?;
        let start = Instant::now();
        let mut pause = PAUSES.0;
        while matches!(result, Ok(Outcome::Same)) {
            let rest = lag.saturating_sub(start.elapsed());
            if rest.is_zero() || !self.pause(pause.min(rest)) {
                break;
            }
            pause = (pause * 2).min(PAUSES.1);
            result = self.ask()?;
        }
        (!self.shared.lock().is_stopping).then_some(result)
    }

    /// Waits for so long; false where somebody has brought another key into force meanwhile, or it is to stop.
    fn pause(&self, pause: Duration) -> bool {
        let start = Instant::now();
        loop {
            let news = self.shared.reloader.work();
            if self.shared.lock().is_stopping || self.publisher.generation() != self.generation {
                return false;
            }
            let rest = pause.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return true;
            }
            let _ = news.wait_timeout(rest);
        }
    }

    /// None where the refresher was dropped meanwhile: whoever dropped it does not expect another key.
    fn ask(&mut self) -> Option<Result<Outcome, ReloadError>> {
        let before = self.publisher.generation();
        let answer = self.answer();
        if self.shared.lock().is_stopping {
            return None;
        }
        Some(self.place.take(answer, &self.publisher, before, self.settings.grace))
    }

    fn answer(&mut self) -> Result<Answer, Problem> {
        let profile = I::PROFILE;
        #[cfg(feature = "watch")]
        if let Some(watch) = &self.watch {
            // First, so that what changes while the place is read is seen after it.
            self.changed = None;
            let watch = Arc::clone(watch);
            return self.asker.ask(&self.place, profile, move || watch.arm());
        }
        self.asker.ask(&self.place, profile, || ())
    }

    /// Notes how an attempt ended, and gives how many had failed before it.
    fn note(&self, result: &Result<Outcome, ReloadError>) -> u32 {
        let mut state = self.shared.lock();
        let status = &mut state.status;
        let failed_before = status.failures;
        match result {
            Ok(_) => {
                status.last_success = SystemTime::now();
                status.provenance = self.place.provenance();
                status.remarks = self.place.remarks().to_vec();
                (status.failures, status.problem) = (0, None);
            }
            Err(error) => {
                status.failures = status.failures.saturating_add(1);
                status.problem = Some(error.clone());
            }
        }
        failed_before
    }

    fn tell(&mut self, result: Result<Outcome, ReloadError>, failed_before: u32) {
        #[cfg(feature = "watch")]
        self.tell_watching();
        match result {
            Ok(outcome) => {
                if failed_before > 0 {
                    let (provenance, failures) = (self.place.provenance(), failed_before);
                    self.teller.send(RefreshEvent::Recovered { provenance, failures });
                }
                self.tell_newer(outcome);
                self.tell_remarks();
            }
            Err(error) => {
                let failures = failed_before.saturating_add(1);
                self.teller.send(RefreshEvent::Failed { error, failures });
            }
        }
    }

    fn tell_newer(&self, outcome: Outcome) {
        if let Outcome::Newer { generation, current, provenance } = outcome {
            self.teller.send(match current {
                Ok(fingerprint) => RefreshEvent::Refreshed { generation, fingerprint, provenance },
                Err(closed) => RefreshEvent::NoActiveKey { closed, provenance },
            });
        }
    }

    fn tell_remarks(&mut self) {
        let remarks = self.place.remarks().to_vec();
        for remark in remarks.iter().filter(|remark| !self.remarked.contains(remark)) {
            let (provenance, remark) = (self.place.provenance(), *remark);
            self.teller.send(RefreshEvent::Remarked { provenance, remark });
        }
        self.remarked = remarks;
    }

    /// Notes whether the files are watched, and tells of it where that is new.
    #[cfg(feature = "watch")]
    fn tell_watching(&mut self) {
        let Some(watch) = &self.watch else { return };
        let now = watch.state();
        self.shared.lock().status.watching = now;
        let before = std::mem::replace(&mut self.watching, now);
        if before == now {
            return;
        }
        let provenance = self.place.provenance();
        self.teller.send(match now {
            Watching::Failed(problem) => RefreshEvent::NotWatching { provenance, problem },
            _ => RefreshEvent::WatchingAgain { provenance },
        });
    }
}
