//! The threads that calls are made on: one for each call, or one of a few that are kept.
//!
//! A key is in the frames of what reads it, and stays there when they return. Before an outcome is delivered,
//! the stack is wiped, as deep as this crate's own calls reach. What an application's own source leaves is
//! deeper than that perhaps, so it has a thread of its own, which ends.

use std::hint::black_box;
use std::process;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, LazyLock, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::CallError;
use super::queue::{Permit, Seat};
use crate::internal::bytes::{wipe_call, wipe_stack};
use crate::internal::threads::{Lock, contained, recover};

/// On which thread a call is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Threads {
    /// One of its own.
    Own,
    /// One that is kept, for what is known to reach no deeper than what is wiped.
    Kept,
}

/// How many idle threads are kept at most.
const MAX_IDLE: usize = 2;

/// How long a thread is kept without a call: longer than it is from one poll to the next.
const IDLE: Duration = Duration::from_secs(60);

/// The stack of a thread that makes calls, in bytes: as std's default, and not less where `RUST_MIN_STACK`
/// says so, because it is wiped to a certain depth.
static STACK: LazyLock<usize> = LazyLock::new(|| {
    let wanted = std::env::var("RUST_MIN_STACK").ok().and_then(|text| text.parse::<usize>().ok());
    wanted.unwrap_or_default().max(2 * 1024 * 1024)
});

const NAME: &str = "keysheath-source";

/// The kept threads that are idle.
struct Pool {
    /// A forked child has none of its parent's threads.
    process: u32,
    idle: Vec<Arc<Mailbox>>,
    /// When the last call began.
    last: Option<Instant>,
    /// Whether that was soon after the one before. A program that makes one call, at its start, is left
    /// without a thread that it does not know of: it may be about to fork, or to block signals.
    is_in_use: bool,
}

/// Where an idle thread finds its next call.
#[derive(Default)]
struct Mailbox {
    call: Lock<Option<Arc<dyn Seat>>>,
    has_come: Condvar,
}

static POOL: Lock<Pool> = Lock::new(Pool::new(0));

impl Pool {
    const fn new(process: u32) -> Self {
        Self { process, idle: Vec::new(), last: None, is_in_use: false }
    }

    fn lock() -> MutexGuard<'static, Self> {
        let mut pool = POOL.lock();
        let process = process::id();
        if pool.process != process {
            std::mem::forget(std::mem::replace(&mut *pool, Self::new(process)));
        }
        pool
    }

    /// Notes that a call begins.
    fn note_call(&mut self) {
        let now = Instant::now();
        self.is_in_use = self.last.is_some_and(|last| now.duration_since(last) < IDLE);
        self.last = Some(now);
    }

    /// Whether a thread that has made its call stays.
    fn take_in(&mut self, mailbox: &Arc<Mailbox>) -> bool {
        let is_wanted = self.is_in_use && self.idle.len() < MAX_IDLE;
        if is_wanted {
            self.idle.push(Arc::clone(mailbox));
        }
        is_wanted
    }
}

impl Mailbox {
    /// Waits for the next call; `None` where none has come for so long.
    fn next(self: &Arc<Self>, idle: Duration) -> Option<Arc<dyn Seat>> {
        let (start, mut call) = (Instant::now(), self.call.lock());
        while call.is_none() {
            let rest = idle.saturating_sub(start.elapsed());
            if rest.is_zero() {
                break;
            }
            call = recover(self.has_come.wait_timeout(call, rest)).0;
        }
        if let Some(call) = call.take() {
            return Some(call);
        }
        drop(call);
        // A call is put in under the lock of the pool.
        let mut pool = Pool::lock();
        pool.idle.retain(|other| !Arc::ptr_eq(self, other));
        self.call.lock().take()
    }
}

/// Makes a call. Does not wait for it.
pub(super) fn start(call: Arc<dyn Seat>, threads: Threads) -> Result<(), CallError> {
    let Threads::Kept = threads else {
        return spawn(move || {
            make(&*call);
            contained(move || call.deliver());
        });
    };
    let mut pool = Pool::lock();
    pool.note_call();
    if let Some(idle) = pool.idle.pop() {
        *idle.call.lock() = Some(call);
        drop(pool);
        idle.has_come.notify_one();
        return Ok(());
    }
    drop(pool);
    spawn(move || work(call))
}

/// Makes one call after the other.
fn work(mut call: Arc<dyn Seat>) {
    let mailbox = Arc::new(Mailbox::default());
    loop {
        // A panic goes deeper than what is wiped.
        let is_whole = make(&*call);
        // Before the outcome is there, so that the caller's next call finds this thread.
        let is_kept = is_whole && Pool::lock().take_in(&mailbox);
        // What is dropped with the call may be an application's own.
        contained(move || call.deliver());
        if !is_kept {
            return;
        }
        let Some(next) = mailbox.next(IDLE) else { return };
        call = next;
    }
}

/// Makes a call, and wipes its stack.
fn make(call: &dyn Seat) -> bool {
    let is_whole = make_below(call);
    wipe_call();
    is_whole
}

/// Makes a call on a part of the stack that [`wipe_call`] reaches, whatever its own frame needs.
#[inline(never)]
fn make_below(call: &dyn Seat) -> bool {
    black_box(&mut [0_u8; 512]);
    call.make()
}

/// Starts another thread of a call.
pub(super) fn spawn_part<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    permit: Arc<Permit>,
) -> Result<Receiver<T>, CallError> {
    // A channel is a block with gaps, and what is on the stack would be copied into them.
    wipe_stack();
    let (sender, result) = mpsc::sync_channel(1);
    spawn(move || {
        let done = contained(work);
        drop(permit);
        // Where the caller has gone, the result is dropped here.
        let _ = done.map(|done| sender.send(done));
    })?;
    Ok(result)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), CallError> {
    let builder = thread::Builder::new().name(NAME.into()).stack_size(*STACK);
    builder.spawn(work).map(drop).map_err(|_| CallError::NoThread)
}

#[cfg(test)]
#[path = "../../../tests/units/internal/workers.rs"]
mod tests;
