//! The refresher's task.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::place::{Answer, Asker, Outcome, Place};
use super::settings::{Pace, When};
use super::{RefreshEvent, RefreshSettings, RefreshStatus, ReloadError, ReloadProblem, WatchProblem};
use crate::handle::{Generation, Publisher, Reload, Reloader};
use crate::internal::bytes::wipe_stack;
use crate::internal::events::EventSender;
use crate::internal::threads::{Health, Link};
use crate::internal::time;
use crate::internal::timer::{Begin, give_way, news_until};
use crate::key::Issuer;
use crate::source::{Problem, Remark};

/// The pauses before a place that may be behind is read again double from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long after a change its file is read. A change is seldom one event alone, and a file that is written
/// without end is read at most this often.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// Watches the files of a place. Only the feature `watch` has one.
pub(super) trait WatchFiles: Send + Sync {
    /// Returns whether there was a change since this was asked last.
    fn take_change(&self) -> bool;

    /// Returns whether they are watched, or why not.
    fn state(&self) -> Result<(), WatchProblem>;

    /// Watches the way to the file as it is now. It may hang where the file system does.
    fn arm(&self);
}

/// Starts to watch a file, and wakes the reloader after each change.
#[derive(Clone, Copy)]
pub(super) struct StartWatch(pub(super) fn(PathBuf, Arc<Reloader>) -> Arc<dyn WatchFiles>);

impl fmt::Debug for StartWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StartWatch")
    }
}

/// What a refresher and its task share.
pub(super) struct Progress {
    pub(super) status: RefreshStatus,
    /// How many attempts were demanded, and how many of those demands were met.
    demanded: u64,
    met: u64,
    outcome: Reload,
}

/// What is to be done next.
enum Next {
    Stop,
    Reload {
        was_asked: bool,
    },
    TooSoon,
    /// Until then, or until something happens.
    Wait(Option<Instant>),
}

pub(super) struct Runner<I: Issuer> {
    place: Place,
    publisher: Publisher<I>,
    reloader: Arc<Reloader>,
    settings: RefreshSettings,
    link: Arc<Link<Progress>>,
    asker: Asker,
    pace: Pace,
    poll: Option<Instant>,
    /// As it was seen last.
    generation: Generation,
    /// The refusal that an attempt has been made for.
    answered: Option<u64>,
    events: EventSender<RefreshEvent>,
    /// What the start has published, until it is reported.
    first: Option<Outcome>,
    /// Reported, and still so.
    remarked: Vec<Remark>,
    watch: Option<Arc<dyn WatchFiles>>,
    /// As it was reported last.
    watching: Result<(), WatchProblem>,
    /// When the files have changed, until they are read.
    changed: Option<Instant>,
}

impl Progress {
    pub(super) fn new(place: &Place, settings: &RefreshSettings) -> Self {
        let status = RefreshStatus {
            provenance: place.provenance(),
            remarks: place.remarks().to_vec(),
            health: Health::new(),
            watching: settings.watch.map(|_| Err(WatchProblem::NotAFile)),
        };
        Self { status, demanded: 0, met: 0, outcome: Reload::NoRefresher }
    }

    /// Demands an attempt, whatever the pace is.
    pub(super) const fn demand(&mut self) -> u64 {
        self.demanded += 1;
        self.demanded
    }

    /// Returns the outcome of the attempt that has met a demand.
    pub(super) fn outcome_of(&self, demand: u64) -> Option<Reload> {
        (self.met >= demand).then_some(self.outcome)
    }
}

impl<I: Issuer> Runner<I> {
    pub(super) fn new(
        (publisher, reloader): (Publisher<I>, Arc<Reloader>),
        place: Place,
        settings: RefreshSettings,
        asker: Asker,
        link: Arc<Link<Progress>>,
        events: EventSender<RefreshEvent>,
        first: Outcome,
    ) -> Self {
        let watch =
            settings.watch.and_then(|StartWatch(start)| Some(start(place.file()?, Arc::clone(&reloader))));
        if let Some(watch) = &watch {
            let armed = Arc::clone(watch);
            asker.within_deadline(move || armed.arm());
            link.with(|progress| progress.status.watching = Some(watch.state()));
        }
        let now = Instant::now();
        Self {
            pace: Pace::new(settings.cadence),
            // So that a change between loading it and watching it is seen.
            changed: watch.is_some().then_some(now),
            watch,
            poll: (!place.provenance().is_fixed()).then(|| time::later(now, settings.cadence.next())),
            generation: publisher.generation(),
            answered: None,
            events,
            first: Some(first),
            remarked: Vec::new(),
            watching: Ok(()),
            place,
            publisher,
            reloader,
            settings,
            link,
            asker,
        }
    }

    /// Returns the function to call if the task panics. It records the panic in the status and reports it.
    pub(super) fn on_panic(&self) -> impl FnOnce() + Send + use<I> {
        let (link, events) = (Arc::clone(&self.link), self.events.clone());
        move || {
            let (error, failures) = link.with(|Progress { status, .. }| {
                let error = ReloadError::new(status.provenance.clone(), ReloadProblem::Ended);
                (error.clone(), status.health.fail(error))
            });
            events.send(RefreshEvent::Failed { error, failures });
        }
    }

    /// Returns a holder of what is foreign.
    pub(super) fn foreign(&self) -> impl Send + use<I> {
        (self.place.foreign(), self.watch.clone())
    }

    /// The refresher's task.
    pub(super) async fn poll_until_stopped(mut self) {
        self.report_watching();
        if let Some(first) = self.first.take() {
            self.report_newer(first);
        }
        self.report_remarks();
        let provenance = self.place.provenance();
        if provenance.is_fixed() {
            self.events.send(RefreshEvent::CannotChange { provenance });
        }
        loop {
            // Before the look, so that what happens after it is not missed.
            let news = self.reloader.work();
            match self.next(Instant::now()) {
                Next::Stop => return,
                // A caller that asks again and again must not block the other tasks.
                Next::Reload { was_asked } => {
                    self.reload(was_asked).await;
                    give_way().await;
                }
                Next::TooSoon => {
                    self.reloader.end(self.reloader.begin(), Reload::TooSoon);
                    give_way().await;
                }
                Next::Wait(until) => drop(news_until(news, until).await),
            }
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        if self.link.is_stopping() {
            return Next::Stop;
        }
        let is_demanded = self.link.with(|progress| progress.demanded > progress.met);
        let active = self.publisher.generation();
        if self.generation != active {
            self.generation = active;
            self.pace.renewed();
        }
        let until = self.poll.into_iter().chain(self.watch_due(now)).min();
        let when = if self.reloader.is_asked() { Some(self.when(now)) } else { None };
        if is_demanded || until.is_some_and(|until| until <= now) || when == Some(When::Now) {
            return Next::Reload { was_asked: when == Some(When::Now) };
        }
        match when {
            Some(When::TooSoon) => Next::TooSoon,
            Some(When::At(at)) => Next::Wait(until.into_iter().chain([at]).min()),
            _ => Next::Wait(until),
        }
    }

    /// Returns what to do about a reload that is asked for. The first refusal of the active key is news: it
    /// does not wait until the place has recovered from a failure, nor for attempts that others have asked
    /// for in vain.
    fn when(&mut self, now: Instant) -> When {
        if self.is_first_refusal() {
            return self.pace.when_first_refused(now);
        }
        self.pace.when(now)
    }

    fn is_first_refusal(&self) -> bool {
        let news = self.publisher.news_of_refusal();
        news.is_some() && news != self.answered
    }

    /// When the files that have changed are to be read.
    fn watch_due(&mut self, now: Instant) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        if watch.take_change() {
            self.changed.get_or_insert(now);
        }
        self.changed.map(|changed| changed + DEBOUNCE)
    }

    async fn reload(&mut self, was_asked: bool) {
        let is_first_refusal = was_asked && self.is_first_refusal();
        if was_asked {
            self.answered = self.publisher.news_of_refusal();
        }
        let attempt = self.reloader.begin();
        let (demanded, is_demanded) =
            self.link.with(|progress| (progress.demanded, progress.demanded > progress.met));
        let begin = if was_asked || is_demanded { Begin::Now } else { Begin::InOrder };
        let lag =
            if is_first_refusal { self.settings.lag_of(&self.place.provenance()) } else { Duration::ZERO };
        // The attempt is not ended: the callers are answered when the reloader leaves, or by another
        // refresher.
        let Some(result) = self.ask_for(begin, lag).await else { return };
        let active = self.publisher.generation();
        let outcome = match &result {
            Ok(Outcome::Newer { .. }) => Reload::Newer,
            // A rotation or another refresher in this process was faster.
            Ok(Outcome::Same) if self.generation != active => Reload::Newer,
            Ok(Outcome::Same) => Reload::Unchanged,
            Err(_) => Reload::Failed,
        };
        self.generation = active;
        let now = Instant::now();
        if self.poll.is_some_and(|poll| poll <= now) {
            self.poll = Some(time::later(now, self.settings.cadence.next()));
        }
        self.pace.ended(now, was_asked, outcome);
        let failed_before = self.note(&result);
        self.reloader.end(attempt, outcome);
        self.link.notify(|progress| {
            (progress.met, progress.outcome) = (progress.met.max(demanded), outcome);
        });
        self.report(result, failed_before);
    }

    /// Reads the place, and again during the lag while it has nothing newer: the issuer may act on what a
    /// replica has not heard of.
    async fn ask_for(&mut self, begin: Begin, lag: Duration) -> Option<Result<Outcome, ReloadError>> {
        let mut result = self.ask(begin).await?;
        let start = Instant::now();
        let mut pause = PAUSES.0;
        while matches!(result, Ok(Outcome::Same)) {
            let rest = lag.saturating_sub(start.elapsed());
            if rest.is_zero() || !self.pause(pause.min(rest)).await {
                break;
            }
            pause = (pause * 2).min(PAUSES.1);
            result = self.ask(begin).await?;
        }
        (!self.link.is_stopping()).then_some(result)
    }

    /// Waits for this long; returns false if another key has become active meanwhile, or if it is to stop.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = time::after(pause);
        loop {
            let news = self.reloader.work();
            if self.link.is_stopping() || self.publisher.generation() != self.generation {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
            news_until(news, Some(until)).await;
        }
    }

    /// Reads the place; `None` if the refresher was stopped meanwhile: after that, no other key is published.
    async fn ask(&mut self, begin: Begin) -> Option<Result<Outcome, ReloadError>> {
        let before = self.publisher.generation();
        self.place.expect(before);
        let answer = self.answer(begin).await;
        if self.link.is_stopping() {
            return None;
        }
        let outcome = self.place.take(answer, &self.publisher, before, self.settings.grace);
        // It has compared keys, and what is on the stack may be moved into the task with what it holds.
        wipe_stack();
        Some(outcome)
    }

    async fn answer(&mut self, begin: Begin) -> Result<Answer, Problem> {
        // First, so that a change during the reading is seen after it.
        self.changed = None;
        let watch = self.watch.clone();
        let prepare = move || {
            if let Some(watch) = watch {
                watch.arm();
            }
        };
        self.asker.ask(begin, &self.place, I::PROFILE, prepare).await
    }

    /// Records how an attempt ended, and returns how many had failed before it.
    fn note(&self, result: &Result<Outcome, ReloadError>) -> u32 {
        self.link.with(|Progress { status, .. }| match result {
            Ok(_) => {
                status.provenance = self.place.provenance();
                status.remarks = self.place.remarks().to_vec();
                status.health.succeed(SystemTime::now())
            }
            Err(error) => status.health.fail(error.clone()).saturating_sub(1),
        })
    }

    fn report(&mut self, result: Result<Outcome, ReloadError>, failed_before: u32) {
        self.report_watching();
        match result {
            Ok(outcome) => {
                if failed_before > 0 {
                    let (provenance, failures) = (self.place.provenance(), failed_before);
                    self.events.send(RefreshEvent::Recovered { provenance, failures });
                }
                self.report_newer(outcome);
                self.report_remarks();
            }
            Err(error) => {
                let failures = failed_before.saturating_add(1);
                self.events.send(RefreshEvent::Failed { error, failures });
            }
        }
    }

    fn report_newer(&self, outcome: Outcome) {
        if let Outcome::Newer { generation, current, provenance } = outcome {
            self.events.send(match current {
                Ok(fingerprint) => RefreshEvent::Refreshed { generation, fingerprint, provenance },
                Err(reason) => RefreshEvent::NoActiveKey { reason, provenance },
            });
        }
    }

    fn report_remarks(&mut self) {
        let remarks = self.place.remarks().to_vec();
        for remark in remarks.iter().filter(|remark| !self.remarked.contains(remark)) {
            let (provenance, remark) = (self.place.provenance(), *remark);
            self.events.send(RefreshEvent::Remarked { provenance, remark });
        }
        self.remarked = remarks;
    }

    /// Records whether the files are watched, and reports a change of that.
    fn report_watching(&mut self) {
        let Some(watch) = &self.watch else { return };
        let now = watch.state();
        self.link.with(|progress| progress.status.watching = Some(now));
        if std::mem::replace(&mut self.watching, now) == now {
            return;
        }
        let provenance = self.place.provenance();
        self.events.send(match now {
            Err(problem) => RefreshEvent::NotWatching { provenance, problem },
            Ok(()) => RefreshEvent::WatchingAgain { provenance },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal::events::Callback;
    use crate::internal::threads::Lock;
    use crate::internal::threads::Worker;
    use crate::key::Kanal;
    use crate::source::SecretFile;

    #[test]
    fn a_panic_of_the_task_is_in_the_status_and_reported() {
        let reported = Arc::<Lock<Vec<RefreshEvent>>>::default();
        let sink = Arc::clone(&reported);
        let callback = move |event: &RefreshEvent| sink.lock().push(event.clone());
        let (events, event_thread) = EventSender::start(Some(Callback::new(callback))).unwrap();
        let publisher = Publisher::<Kanal>::new();
        let reloader = Arc::new(publisher.reloader());
        let handle = publisher.handle();
        let file = SecretFile::new("kanal");
        let found = crate::source::Source::provenance(&file);
        let place = Place::Source { source: Arc::new(file), found, remarks: Vec::new(), same: None };
        let settings = RefreshSettings::new();
        let leaving = Arc::clone(&reloader);
        let progress = Progress::new(&place, &settings);
        let mut worker = Worker::new(progress, event_thread, || (), move || leaving.leave());
        let (link, asker) = (Arc::clone(worker.link()), Asker::new(&settings));
        let publishing = (publisher, reloader);
        let runner =
            Runner::new(publishing, place, settings, asker, Arc::clone(&link), events, Outcome::Same);
        let (on_panic, foreign) = (runner.on_panic(), runner.foreign());
        let work = async move {
            let _runner = runner;
            std::panic::resume_unwind(Box::new(()));
        };
        worker.run(work, on_panic, foreign).unwrap();
        assert!(worker.end(Duration::from_secs(60)));
        let health = link.with(|progress| progress.status.health.clone());
        assert_eq!(health.problem().unwrap().problem(), &ReloadProblem::Ended);
        assert_eq!(health.consecutive_failures(), 1);
        assert!(matches!(&reported.lock()[..], [RefreshEvent::Failed { failures: 1, .. }]));
        let first = Generation::FIRST;
        assert_eq!(handle.wait_newer_than(first, Duration::from_secs(60)), Some(Reload::NoRefresher));
    }
}
