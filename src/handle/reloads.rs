//! Reloads that are asked for, and what came of them: one at a time, however many ask.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::reload::Reload;
use super::sync::{Event, EventListener, Mutex, lock};

/// Shared by those who ask and those who reload.
///
/// A forked child has the counts and not the reloaders, and a lock that another thread held is never given back there. So
/// the process is compared first.
pub(super) struct Reloads {
    /// The process that the reloaders are in; 0 before the first.
    process: AtomicU32,
    counts: Mutex<Counts>,
    /// A key was published, an attempt has ended, or the last reloader has left.
    news: Event,
    /// An attempt is asked for, or a reloader is to end.
    work: Event,
}

struct Counts {
    reloaders: usize,
    /// Attempts are numbered from 1 in the order in which they begin.
    begun: u64,
    ended: u64,
    /// The newest attempt that somebody waits for; it may not have begun.
    asked: u64,
    outcome: Reload,
}

/// The attempt that answers whoever asked: the first that begins after they did, because one that is under way may
/// have read the place before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// An attempt under way.
#[derive(Debug)]
pub(crate) struct Attempt(u64);

impl Reloads {
    pub(super) fn new() -> Self {
        let counts = Counts { reloaders: 0, begun: 0, ended: 0, asked: 0, outcome: Reload::NoRefresher };
        let (news, work) = (Event::default(), Event::default());
        Self { process: AtomicU32::new(0), counts: Mutex::new(counts), news, work }
    }

    pub(super) fn attach(&self) {
        let mut counts = lock(&self.counts);
        if self.process.swap(process::id(), Ordering::Relaxed) != process::id() {
            // The reloaders of the process that this one was forked from are not here, nor are those who asked them.
            (counts.reloaders, counts.asked, counts.ended) = (0, counts.begun, counts.begun);
        }
        counts.reloaders += 1;
    }

    pub(super) fn detach(&self) {
        if self.is_elsewhere() {
            return;
        }
        lock(&self.counts).reloaders -= 1;
        self.news.notify_all();
    }

    /// Whether the reloaders, if there are any, are in a process that this one was forked from.
    pub(super) fn is_elsewhere(&self) -> bool {
        let process = self.process.load(Ordering::Relaxed);
        process != 0 && process != process::id()
    }

    /// Asks for an attempt. None when there is nobody to make one.
    pub(super) fn ask(&self) -> Option<Ticket> {
        if self.is_elsewhere() {
            return None;
        }
        let mut counts = lock(&self.counts);
        if counts.reloaders == 0 {
            return None;
        }
        let ticket = counts.begun + 1;
        counts.asked = counts.asked.max(ticket);
        drop(counts);
        self.work.notify_all();
        Some(Ticket(ticket))
    }

    /// What came of the attempt, once it has ended.
    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Reload> {
        let counts = lock(&self.counts);
        if counts.ended >= ticket.0 {
            Some(counts.outcome)
        } else {
            (counts.reloaders == 0).then_some(Reload::NoRefresher)
        }
    }

    /// Whether somebody waits for an attempt that has not begun.
    pub(super) fn is_asked(&self) -> bool {
        let counts = lock(&self.counts);
        counts.asked > counts.begun
    }

    pub(super) fn begin(&self) -> Attempt {
        let mut counts = lock(&self.counts);
        counts.begun += 1;
        Attempt(counts.begun)
    }

    /// Ends an attempt; what it found was published before.
    #[allow(clippy::needless_pass_by_value, reason = "taken, so that none ends twice")]
    pub(super) fn end(&self, attempt: Attempt, outcome: Reload) {
        let mut counts = lock(&self.counts);
        if attempt.0 > counts.ended {
            (counts.ended, counts.outcome) = (attempt.0, outcome);
        }
        drop(counts);
        self.news.notify_all();
    }

    pub(super) fn tell(&self) {
        self.news.notify_all();
    }

    pub(super) fn wake_reloaders(&self) {
        self.work.notify_all();
    }

    pub(super) fn news(&self) -> EventListener {
        self.news.listen()
    }

    pub(super) fn work(&self) -> EventListener {
        self.work.listen()
    }
}
