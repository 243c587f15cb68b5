//! The client layers on a live handle: which request is sent a second time, when, with which key, and which is not.
//!
//! `answers`, `doubtful`, `middleware` and `load` ask the emulator over real HTTP; in `steps` the test itself is the server, so that it decides what
//! happens between any two steps of a request.

mod answers;
mod doubtful;
mod load;
#[cfg(feature = "reqwest")]
mod middleware;
mod steps;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use event_listener::Listener as _;

use crate::emulator::{Emulator, Settings};
use crate::handle::{Generation, KeyHandle, RawHandle, Reload};
use crate::key::{Kanal, RawKey};

const GRACE: Duration = Duration::from_secs(600);

/// How long something may take that takes no time.
const PATIENCE: Duration = Duration::from_secs(60);

fn live() -> (KeyHandle<Kanal>, RawHandle) {
    let handle = KeyHandle::live();
    let raw = handle.to_raw().expect("it is live");
    (handle, raw)
}

fn generation(number: u64) -> Generation {
    Generation::numbered(number).expect("from 1")
}

/// What a request is answered, which must not wait for ever.
async fn in_time<F: Future>(answer: F) -> F::Output {
    tokio::time::timeout(PATIENCE, answer).await.expect("it is answered")
}

/// Kanal without its rate limit: for each look at the clock, another window.
fn unlimited() -> Settings {
    let minutes = AtomicU32::new(0);
    Emulator::kanal().with_clock(move || {
        SystemTime::UNIX_EPOCH + Duration::from_secs(61) * minutes.fetch_add(1, Ordering::Relaxed)
    })
}

/// Reloads a handle whenever that is asked for, as a refresher does, until it is dropped.
struct Reloader {
    raw: RawHandle,
    attempts: Arc<AtomicU32>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reloader {
    /// In each attempt it does this.
    fn that(raw: &RawHandle, mut does: impl FnMut(&RawHandle) -> Reload + Send + 'static) -> Self {
        raw.attach();
        let (attempts, ended) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (count, over, handle) = (Arc::clone(&attempts), Arc::clone(&ended), raw.clone());
        let thread = thread::spawn(move || {
            loop {
                let work = handle.work();
                if over.load(Ordering::SeqCst) {
                    return;
                }
                if handle.is_asked() {
                    let attempt = handle.begin();
                    count.fetch_add(1, Ordering::SeqCst);
                    let outcome = does(&handle);
                    handle.end(attempt, outcome);
                } else {
                    work.wait();
                }
            }
        });
        Self { raw: raw.clone(), attempts, ended, thread: Some(thread) }
    }

    /// Finds this key, and nothing once it has.
    fn that_finds(raw: &RawHandle, key: RawKey) -> Self {
        Self::that(raw, move |raw| {
            raw.publish_next(&key, GRACE);
            Reload::Newer
        })
    }

    fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::SeqCst)
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.raw.wake_reloaders();
        self.raw.detach();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the reloader failed");
        }
    }
}
