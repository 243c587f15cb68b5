//! One call, between its caller and the thread that makes it.

use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use super::queue::{Permit, Seat};
use super::workers::{self, Threads};
use super::{CallError, Times, Turn};
use crate::internal::threads::{Lock, contained, recover};

/// What a call does.
pub(super) type Work<T> = Box<dyn FnOnce(&Turn) -> T + Send>;

/// What is called once when there is an outcome.
pub(super) type Wake = Box<dyn FnOnce() + Send>;

pub(super) struct Slot<T> {
    deadline: Duration,
    threads: Threads,
    state: Lock<State<T>>,
    /// Told when there is an outcome.
    ended: Condvar,
}

struct State<T> {
    stage: Stage,
    /// Until a thread takes it, and where none could: it is dropped on the caller's thread then.
    work: Option<Work<T>>,
    /// For the work, from when it has come until a thread takes it.
    turn: Option<Turn>,
    /// What the work gave, until the caller takes it.
    outcome: Option<Result<T, CallError>>,
    wake: Option<Wake>,
}

enum Stage {
    /// For its turn.
    Waiting,
    UnderWay {
        /// Until the call ends.
        permit: Option<Arc<Permit>>,
        times: Times,
        /// Whether an outcome that comes now says that the place answers.
        would_be_answer: bool,
    },
    /// The outcome is the caller's to take.
    Ended,
    /// The caller has the outcome, or has gone.
    Left,
}

impl<T> Slot<T> {
    pub(super) fn new(deadline: Duration, threads: Threads, work: Work<T>, wake: Option<Wake>) -> Arc<Self> {
        let state = State { stage: Stage::Waiting, work: Some(work), turn: None, outcome: None, wake };
        Arc::new(Self { deadline, threads, state: Lock::new(state), ended: Condvar::new() })
    }

    /// Returns the outcome, if there is one and it was not taken yet.
    pub(super) fn take_outcome(&self) -> Option<Result<T, CallError>> {
        self.state.lock().take_outcome()
    }

    /// Waits for the outcome: for its turn until the given time, and for the rest of the deadline and `extra`
    /// time once the turn has come.
    pub(super) fn wait(&self, until: Instant, extra: Duration) -> Option<Result<T, CallError>> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = state.take_outcome() {
                return Some(outcome);
            }
            let rest = match &state.stage {
                Stage::UnderWay { times, .. } => times.rest(extra),
                Stage::Waiting => until.saturating_duration_since(Instant::now()),
                Stage::Ended | Stage::Left => Duration::ZERO,
            };
            if rest.is_zero() {
                return None;
            }
            state = recover(self.ended.wait_timeout(state, rest)).0;
        }
    }

    /// Whether the caller has had the outcome.
    pub(super) fn is_left(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Left)
    }

    /// Returns the outcome; where there is none, when its turn came, if it has.
    pub(super) fn outcome_or_times(&self) -> Result<Result<T, CallError>, Option<Times>> {
        let mut state = self.state.lock();
        let times = match state.stage {
            Stage::UnderWay { times, .. } => Some(times),
            _ => None,
        };
        state.take_outcome().ok_or(times)
    }

    /// The caller ends the work: what comes of it now is no answer of the place.
    #[cfg(feature = "keychain")]
    pub(super) fn expect_no_answer(&self) {
        if let Stage::UnderWay { would_be_answer, .. } = &mut self.state.lock().stage {
            *would_be_answer = false;
        }
    }

    /// The caller goes. Returns whether the call still waits for its turn.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.state.lock();
        let was = std::mem::replace(&mut state.stage, Stage::Left);
        let work = if state.turn.is_none() { state.work.take() } else { None };
        let wake = state.wake.take();
        drop(state);
        // They may hold what is the application's own.
        drop((work, wake));
        match was {
            Stage::Waiting => true,
            Stage::UnderWay { permit: Some(permit), .. } => {
                permit.leave_behind();
                false
            }
            _ => false,
        }
    }

    fn end(&self, outcome: Result<T, CallError>) {
        self.state.lock().outcome = Some(outcome);
        self.hand_over();
    }

    /// Hands the outcome to the caller.
    fn hand_over(&self) {
        // First the turn, so that what the caller does next finds this call counted off.
        let mut state = self.state.lock();
        let is_good = matches!(state.outcome, Some(Ok(_)));
        let permit = match &mut state.stage {
            Stage::UnderWay { permit, would_be_answer, .. } => {
                permit.take().map(|permit| (permit, is_good && *would_be_answer))
            }
            _ => None,
        };
        drop(state);
        if let Some((permit, has_answered)) = permit {
            permit.finish(has_answered);
        }
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Left) {
            // The caller has gone, so it is dropped here.
            let outcome = state.outcome.take();
            drop(state);
            drop(outcome);
            return;
        }
        state.stage = Stage::Ended;
        let wake = state.wake.take();
        drop(state);
        self.ended.notify_all();
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl<T> State<T> {
    fn take_outcome(&mut self) -> Option<Result<T, CallError>> {
        if !matches!(self.stage, Stage::Ended) {
            return None;
        }
        self.stage = Stage::Left;
        self.outcome.take()
    }
}

impl<T: Send + 'static> Seat for Slot<T> {
    fn take_turn(self: Arc<Self>, turn: Result<(Arc<Permit>, Duration), CallError>) -> Option<Arc<Permit>> {
        let (permit, waited) = match turn {
            Ok(turn) => turn,
            Err(problem) => {
                self.end(Err(problem));
                return None;
            }
        };
        let times = Times { start: Instant::now(), waited, deadline: self.deadline };
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Left) {
            return Some(permit);
        }
        state.turn = Some(Turn { permit: Arc::clone(&permit), times });
        state.stage = Stage::UnderWay { permit: Some(permit), times, would_be_answer: true };
        drop(state);
        let problem = workers::start(Arc::clone(&self) as _, self.threads).err()?;
        let mut state = self.state.lock();
        let turn = state.turn.take();
        if let Stage::UnderWay { permit, .. } = &mut state.stage {
            // The turn holds it as well.
            permit.take();
        }
        drop(state);
        self.end(Err(problem));
        turn.map(|turn| turn.permit)
    }

    fn make(&self) -> bool {
        let mut state = self.state.lock();
        let (Some(work), Some(turn)) = (state.work.take(), state.turn.take()) else { return true };
        drop(state);
        // A source may be an application's own. The turn ends before the call does.
        let outcome = contained(move || work(&turn));
        let is_whole = outcome.is_some();
        self.state.lock().outcome = Some(outcome.ok_or(CallError::Panicked));
        is_whole
    }

    fn deliver(&self) {
        self.hand_over();
    }
}
