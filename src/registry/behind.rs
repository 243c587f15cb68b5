//! Writing what requests change, behind them.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::RegistryError;
use super::record::{Change, Changed, KeyId, RecordError, RecordStore, Seconds, StoredDigest};

/// How exactly the last use of a key is written, in seconds: what is in memory is exact, what is written is at most so
/// much older.
///
/// ```
/// assert_eq!(keysheath::registry::USE_STEP, 60);
/// ```
pub const USE_STEP: u32 = 60;

/// How many changes may wait. A last use beyond it is not written until the next one.
const WAITING: usize = 8192;

/// How long changes are gathered before they are written together.
const GATHER: Duration = Duration::from_secs(2);

/// A thread that gathers changes and writes them.
pub(super) struct Behind {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<Mutex<Option<RecordError>>>,
}

enum Order {
    Change(Change),
    Flush(SyncSender<()>),
}

impl Behind {
    pub(super) fn start(records: Arc<dyn RecordStore>) -> Result<Self, RegistryError> {
        let (orders, received) = mpsc::sync_channel(WAITING);
        let failed = Arc::<Mutex<Option<RecordError>>>::default();
        let writing = Writing { records, waiting: HashMap::new(), failed: Arc::clone(&failed) };
        let thread = thread::Builder::new()
            .name("keysheath-records".into())
            .spawn(move || writing.run(&received))
            .map_err(|error| RecordError::Io(error.kind()))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), failed })
    }

    /// Takes a change in; never waits. `false` where too many are waiting.
    pub(super) fn note(&self, change: Change) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Change(change)).is_ok())
    }

    pub(super) fn flush(&self) -> Result<(), RecordError> {
        let (done, is_done) = mpsc::sync_channel(1);
        if let Some(orders) = &self.orders
            && orders.send(Order::Flush(done)).is_ok()
        {
            let _ = is_done.recv();
        }
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // Without a sender the thread writes what it has and ends.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writing {
    records: Arc<dyn RecordStore>,
    waiting: HashMap<KeyId, Waiting>,
    failed: Arc<Mutex<Option<RecordError>>>,
}

#[derive(Default)]
struct Waiting {
    used: Option<Seconds>,
    digest: Option<StoredDigest>,
}

impl Writing {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut due = Instant::now() + GATHER;
        loop {
            match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Order::Change(change)) => self.gather(change),
                Ok(Order::Flush(done)) => {
                    self.write();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.write();
                    due = Instant::now() + GATHER;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.write();
                    return;
                }
            }
        }
    }

    fn gather(&mut self, change: Change) {
        let waiting = self.waiting.entry(change.id).or_default();
        match change.what {
            Changed::Used(used) => waiting.used = waiting.used.max(Some(used)),
            Changed::Digest(digest) => waiting.digest = Some(digest),
        }
    }

    /// What could not be written waits for the next time.
    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let changes: Vec<Change> = self
            .waiting
            .iter()
            .flat_map(|(&id, waiting)| {
                let used = waiting.used.map(Changed::Used);
                let digest = waiting.digest.map(Changed::Digest);
                used.into_iter().chain(digest).map(move |what| Change { id, what })
            })
            .collect();
        let outcome = self.records.write_behind(&changes);
        if outcome.is_ok() {
            self.waiting.clear();
        }
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = outcome.err();
    }
}
